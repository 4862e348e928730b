//! Backends that come, change and go by the API: shares, drains, and who has the last word.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::{
    Dns, DnsStub, Ending, Fleet, Folder, Lb, Load, Origin, Reader, Reply, Server, allow_open_files, assert_api_error,
    backend_path, closed_for, connect, connect_from, free_port, greeter, greeting, has_ended, read_to_end, short_read,
    start_with_file, wait_until, wait_until_equal,
};

const OVERRULED: &str = "the configuration says something else of it than before: what an operator changed of it ends";
const REMOVAL: &str = "removed once its connections have ended";
const BACKENDS: &str = "/api/v1/pools/default/backends";

/// How many of so many clients each backend got, by its greeting; several clients at a time.
fn shares(address: SocketAddr, clients: usize) -> BTreeMap<String, usize> {
    const AT_ONCE: usize = 4;
    let some = || (0..clients / AT_ONCE).map(|_| greeting(address)).collect::<Vec<_>>();
    let all = thread::scope(|scope| {
        let threads: Vec<_> = (0..AT_ONCE).map(|_| scope.spawn(some)).collect();
        threads.into_iter().flat_map(|one| one.join().unwrap()).collect::<Vec<_>>()
    });
    all.into_iter().fold(BTreeMap::new(), |mut shares, name| {
        *shares.entry(name).or_default() += 1;
        shares
    })
}

fn counted<const N: usize>(expected: [(&str, usize); N]) -> BTreeMap<String, usize> {
    expected.into_iter().map(|(name, count)| (name.to_owned(), count)).collect()
}

/// In a folder, with these backends; more lines may follow.
fn file(backends: &[&str], more: &str) -> String {
    format!("listen: 127.0.0.1:0\nbackends: {backends:?}\nadmin: {{bind: 127.0.0.1:0}}\n{more}")
}

#[test]
fn shares_are_exact_from_the_next_connection_on() {
    let fleet = Fleet::start();
    let [a, b, c] = ["127.0.0.1", "127.0.0.2", "127.0.0.3"].map(|ip| fleet.at(ip));
    let lb = Lb::in_front_of(&[a, b]).start();
    assert_eq!(shares(lb.address(), 40), counted([("127.0.0.1", 20), ("127.0.0.2", 20)]));

    let added = lb.add_backend(&json!({"address": c, "weight": 2}));
    assert!(added["result"].as_str().unwrap().contains("a restart forgets it"), "{added}");
    let report = &added["backends"][0];
    assert_eq!((&report["address"], &report["weight"], &report["state"]), (&json!(c), &json!(2), &json!("up")));
    assert_eq!(shares(lb.address(), 80), counted([("127.0.0.1", 20), ("127.0.0.2", 20), ("127.0.0.3", 40)]));
    assert_eq!(lb.metrics().sum("backend_weight", &[("backend", &c.to_string())]), 2.0);

    let changed = lb.patch_backend(a, &json!({"weight": 5}));
    assert_eq!((&changed["backends"][0]["weight"], &lb.backend(a)["weight"]), (&json!(5), &json!(5)));
    assert_eq!(shares(lb.address(), 80), counted([("127.0.0.1", 50), ("127.0.0.2", 10), ("127.0.0.3", 20)]));

    lb.patch_backend(c, &json!({"backup": true}));
    assert_eq!(lb.backend(c)["rank"], 1);
    assert_eq!(shares(lb.address(), 12), counted([("127.0.0.1", 10), ("127.0.0.2", 2)]));

    let (status, removed) = lb.remove_backend(a, "?wait=10s");
    assert_eq!((status, &removed["active"]), (200, &json!(0)), "{removed}");
    assert!(removed["result"].as_str().unwrap().starts_with("removed"), "{removed}");
    assert_eq!(shares(lb.address(), 8), counted([("127.0.0.2", 8)]));
    assert_eq!(lb.backends(), [b.to_string(), c.to_string()]);
    let labels = lb.metrics().label_values("backend_weight", "backend");
    assert_eq!(labels, [b.to_string(), c.to_string()], "its series go with it");
    let line = &lb.wait_for_log("removed by the API", 1)[0];
    assert_eq!(line["backend"], a.to_string());
    assert!(line["by"].as_str().is_some_and(|by| by.starts_with("127.0.0.1:")), "who asked: {line}");
}

#[test]
fn no_request_fails_while_backends_come_change_and_go() {
    allow_open_files(2_000);
    let servers: Vec<Server> = (0..5).map(|_| Load::server()).collect();
    let lb = Lb::in_front_of(&[servers[0].address(), servers[1].address()]).with(&["--access-log", "off"]).start();
    let load = Load::on(lb.address(), 4, 20);
    for round in 1..=6 {
        for server in &servers[2..] {
            lb.add_backend(&json!({"address": server.address(), "weight": round}));
            load.goes_on(10);
        }
        lb.patch_backend(servers[0].address(), &json!({"weight": 7 - round, "max_connections": 200}));
        load.goes_on(10);
        for server in &servers[2..] {
            assert_eq!(lb.patch_backend(server.address(), &json!({"weight": 0}))["backends"][0]["weight"], 0);
            let (status, said) = lb.remove_backend(server.address(), "?wait=0s");
            assert!(matches!(status, 200 | 202), "{said}");
            load.goes_on(10);
            wait_until("it is gone", || !lb.backends().contains(&server.address().to_string()));
        }
    }
    load.end();
    assert!(servers[2..].iter().all(|server| server.accepted() > 0), "each had clients");
}

#[test]
fn a_backend_that_is_removed_drains_first() {
    let (a, b) = (greeter("a"), greeter("b"));
    let lb = Lb::in_front_of(&[a.address(), b.address()]).start();
    let mut live = connect(lb.address());
    assert_eq!(short_read(&mut live), "a");
    let (status, said) = lb.remove_backend(a.address(), "?wait=50ms");
    assert_eq!((status, &said["active"]), (200, &json!(1)), "the time was over: {said}");
    assert_eq!(lb.backends(), [b.address().to_string()]);
    live.write_all(b"still there").unwrap();
    assert_eq!(short_read(&mut live), "still there");

    lb.add_backend(&json!(a.address()));
    let mut second = connect(lb.address());
    while short_read(&mut second) != "a" {
        second = connect(lb.address());
    }
    let (status, said) = lb.remove_backend(a.address(), "");
    assert_eq!((status, &said["active"]), (202, &json!(1)), "{said}");
    assert!(said["result"].as_str().unwrap().starts_with("draining"), "{said}");
    let report = lb.backend(a.address());
    assert_eq!((&report["state"], &report["next"]), (&json!("draining"), &json!(REMOVAL)));
    (0..4).for_each(|_| assert_eq!(greeting(lb.address()), "b"));
    second.write_all(b"still there").unwrap();
    assert_eq!(short_read(&mut second), "still there");
    // Who enables it has changed his mind.
    assert_eq!(lb.post(&backend_path(a.address(), "enable")), (200, "up".to_owned()));
    lb.patch_backend(a.address(), &json!({"weight": 3}));
    let (status, _) = lb.remove_backend(a.address(), "");
    assert_eq!(status, 202);
    drop(second);
    wait_until_equal("it is gone", &vec![b.address().to_string()], || lb.backends());
    assert_eq!(lb.wait_for_log("removed by the API", 2)[1]["open"], 0);
}

#[test]
fn a_backend_that_is_removed_by_force_loses_its_connections() {
    let (a, b) = (greeter("a"), greeter("b"));
    let lb = Lb::in_front_of(&[a.address(), b.address()]).start();
    let mut live: Vec<TcpStream> = (0..20).map(|_| connect(lb.address())).collect();
    let names: Vec<String> = live.iter_mut().map(short_read).collect();
    let (status, said) = lb.remove_backend(a.address(), "?force=true");
    assert_eq!(status, 200, "{said}");
    for (client, name) in live.iter_mut().zip(&names) {
        if name == "a" {
            assert!(matches!(read_to_end(client).1, Ending::Reset), "it is reset");
        } else {
            client.write_all(b"still there").unwrap();
            assert_eq!(short_read(client), "still there");
        }
    }
    wait_until_equal("they are counted", &10.0, || closed_for(&lb, "backend_removed"));
    assert_eq!(lb.backends(), [b.address().to_string()]);
}

#[test]
fn a_drain_is_waited_for_until_it_is_empty_or_the_time_is_over() {
    let (a, b) = (greeter("a"), greeter("b"));
    let lb = Lb::in_front_of(&[a.address(), b.address()]).start();
    let mut live = connect(lb.address());
    assert_eq!(short_read(&mut live), "a");
    let drain = |wait: &str| {
        let answer = lb.order("POST", &format!("{}?wait={wait}", backend_path(a.address(), "drain")), &Value::Null);
        (answer.status, answer.json())
    };
    assert_eq!(drain("20ms"), (202, json!({"result": "draining", "active": 1})));
    thread::scope(|scope| {
        let waiting = scope.spawn(|| drain("20s"));
        // Others are answered meanwhile.
        (0..20).for_each(|_| assert_eq!(lb.ask("/healthz").status, 200));
        drop(live);
        assert_eq!(waiting.join().unwrap(), (200, json!({"result": "drained", "active": 0})));
    });
    for (wait, part) in [("", "not a duration"), ("5", "not a duration"), ("2h", "1h at most"), ("-1s", "wait")] {
        let path = format!("{}?wait={wait}", backend_path(b.address(), "drain"));
        assert_api_error(&lb.order("POST", &path, &Value::Null), 400, part);
    }
    assert_eq!(lb.state_of(b.address()), "up");
}

#[test]
fn a_name_that_has_left_is_no_longer_said_not_to_resolve() {
    let a = greeter("a");
    let lb = Lb::in_front_of(&[a.address()]).start();
    let unresolved = || lb.api("/api/v1/pools")["pools"][0]["unresolved"].as_array().unwrap().len();
    lb.add_backend(&json!("nobody.invalid:80"));
    wait_until_equal("it doesn't resolve", &1, unresolved);
    assert_eq!(lb.remove_backend("nobody.invalid:80", "").0, 200);
    wait_until_equal("it has left", &0, unresolved);
}

#[test]
fn who_waits_is_told_that_somebody_has_ordered_otherwise() {
    let (a, b) = (greeter("a"), greeter("b"));
    let lb = Lb::in_front_of(&[a.address(), b.address()]).start();
    let mut live = connect(lb.address());
    assert_eq!(short_read(&mut live), "a");
    let drain = format!("{}?wait=1m", backend_path(a.address(), "drain"));
    let remove = format!("/api/v1/pools/default/backends/{}?wait=1m", a.address());
    for (method, path) in [("POST", drain), ("DELETE", remove)] {
        thread::scope(|scope| {
            let waiting = scope.spawn(|| lb.order(method, &path, &Value::Null));
            wait_until_equal("the order came", &"draining".to_owned(), || lb.state_of(a.address()));
            assert_eq!(lb.post(&backend_path(a.address(), "enable")).0, 200);
            assert_api_error(&waiting.join().unwrap(), 409, "another order");
        });
        assert_eq!(lb.state_of(a.address()), "up");
    }
}

#[test]
fn those_who_wait_take_no_places_for_ever_and_none_that_others_need() {
    let (a, b) = (greeter("a"), greeter("b"));
    let lb = Lb::in_front_of(&[a.address(), b.address()]).start();
    let mut live = connect(lb.address());
    assert_eq!(short_read(&mut live), "a");
    let path = format!("{}?wait=1h", backend_path(a.address(), "drain"));
    let ask = || {
        let mut stream = connect(lb.admin());
        write!(stream, "POST {path} HTTP/1.1\r\nHost: {}\r\n\r\n", lb.admin()).unwrap();
        stream
    };
    let waiting: Vec<TcpStream> = (0..60).map(|_| ask()).collect();
    // Most of them found no place to wait, and have their answer.
    let is_answered = |client: &TcpStream| {
        client.set_nonblocking(true).unwrap();
        let answered = client.peek(&mut [0]).is_ok();
        client.set_nonblocking(false).unwrap();
        answered
    };
    wait_until_equal("those without a place", &44, || waiting.iter().filter(|one| is_answered(one)).count());
    assert_eq!(lb.ask("/readyz").status, 200);
    drop(waiting);
    // Their places are free: who comes now waits until it is empty.
    let mut last = ask();
    wait_until("it has a place", || {
        if is_answered(&last) {
            last = ask();
        }
        thread::sleep(std::time::Duration::from_millis(20));
        !is_answered(&last)
    });
    drop(live);
    assert!(short_read(&mut last).starts_with("HTTP/1.1 200"));
}

#[test]
fn a_reload_keeps_what_operators_did_until_the_file_says_something_else() {
    let fleet = Fleet::start();
    let [a, b, c, d] = ["127.0.0.1", "127.0.0.2", "127.0.0.3", "127.0.0.4"].map(|ip| fleet.at(ip).to_string());
    let folder = Folder::new();
    let lb = start_with_file(&folder, &file(&[&a, &b, &c], ""));
    let reload = |yaml: &str| {
        folder.write("lb.yaml", yaml);
        assert_eq!(lb.post("/api/v1/reload").0, 200);
    };
    let weight_of = |address: &str| lb.backend(address.parse().unwrap())["weight"].clone();
    lb.add_backend(&json!({"address": d, "weight": 3}));
    lb.patch_backend(&a, &json!({"weight": 4}));
    assert_eq!(lb.remove_backend(&b, "?wait=10s").0, 200);
    let steered = [a.clone(), c.clone(), d.clone()];

    reload(&file(&[&a, &b, &c], "policy: least_connections\nattempts: 2\n"));
    assert_eq!(lb.backends(), steered);
    assert_eq!((weight_of(&a), weight_of(&d)), (json!(4), json!(3)));
    assert_eq!(lb.log_lines_with(OVERRULED).len(), 0);

    // Of `a` and `d` it says something new, of `b` nothing.
    let changed = file(&[&a, &b, &c, &d], "").replace(&format!("{a:?}"), &format!("{{address: {a:?}, weight: 2}}"));
    reload(&changed);
    assert_eq!(lb.backends(), steered);
    assert_eq!((weight_of(&a), weight_of(&d)), (json!(2), json!(1)));
    let overruled = lb.wait_for_log(OVERRULED, 2);
    let overruled: BTreeSet<&str> = overruled.iter().map(|line| line["backend"].as_str().unwrap()).collect();
    assert_eq!(overruled, BTreeSet::from([a.as_str(), d.as_str()]));
    // What is the file's goes with it, and what it had lost comes back when it is written anew.
    reload(&file(&[&a, &c], ""));
    assert_eq!(lb.backends(), [a.clone(), c.clone()]);
    reload(&file(&[&a, &b, &c], ""));
    assert_eq!(lb.backends(), [a, b, c]);
}

#[test]
fn a_pool_keeps_a_backend_when_the_file_loses_all_but_a_removed_one() {
    let fleet = Fleet::start();
    let [a, b] = ["127.0.0.1", "127.0.0.2"].map(|ip| fleet.at(ip).to_string());
    let folder = Folder::new();
    let lb = start_with_file(&folder, &file(&[&a, &b], ""));
    assert_eq!(lb.remove_backend(&a, "?wait=10s").0, 200);
    folder.write("lb.yaml", file(&[&a], ""));
    assert_eq!(lb.post("/api/v1/reload").0, 200);
    assert_eq!(lb.backends(), [a]);
    assert_eq!(greeting(lb.address()), "127.0.0.1");
    let why = "the configuration has no backend any more but removed ones: what an operator changed of it ends";
    lb.wait_for_log(why, 1);
}

#[test]
fn the_last_backend_does_not_leave() {
    let (a, b) = (greeter("a"), greeter("b"));
    let folder = Folder::new();
    let [first, second] = [&a, &b].map(|server| server.address().to_string());
    let lb = start_with_file(&folder, &file(&[&first, &second], ""));
    let mut live = connect(lb.address());
    assert_eq!(short_read(&mut live), "a");
    assert_eq!(lb.remove_backend(a.address(), "").0, 202);
    folder.write("lb.yaml", file(&[&first], ""));
    assert_eq!(lb.post("/api/v1/reload").0, 200);
    drop(live);
    let line = &lb.wait_for_log("not removed", 1)[0];
    assert_eq!(line["backend"], first);
    let report = lb.backend(a.address());
    assert_eq!((&report["state"], &report["next"]), (&json!("draining"), &json!("until `lb backend enable`")));
    assert_eq!(lb.post(&backend_path(a.address(), "enable")), (200, "up".to_owned()));
    assert_eq!(greeting(lb.address()), "a");
}

#[test]
fn an_upgrade_keeps_what_operators_did_and_a_restart_forgets_it() {
    let fleet = Fleet::start();
    let [a, b, c, d] = ["127.0.0.1", "127.0.0.2", "127.0.0.3", "127.0.0.4"].map(|ip| fleet.at(ip).to_string());
    let folder = Folder::new();
    let yaml = file(&[&a, &b, &c], "");
    let mut lb = start_with_file(&folder, &yaml);
    lb.add_backend(&json!({"address": d, "weight": 3, "backup": 2, "max_connections": 9}));
    lb.patch_backend(&d, &json!({"weight": 5}));
    lb.patch_backend(&a, &json!({"weight": 4, "max_connections": 7}));
    assert_eq!(lb.remove_backend(&b, "?wait=10s").0, 200);
    // One that is still leaving is gone in the new process.
    let mut live = connect(lb.address());
    while short_read(&mut live) != "127.0.0.3" {
        live = connect(lb.address());
    }
    assert_eq!(lb.remove_backend(&c, "").0, 202);
    let limits = |lb: &Lb, address: &str| {
        let backend = lb.backend(address.parse().unwrap());
        [&backend["weight"], &backend["rank"], &backend["max_connections"]].map(Value::clone)
    };
    for _ in 0..2 {
        let before = lb.upgrade();
        assert_eq!(lb.backends(), [a.clone(), d.clone()]);
        assert_eq!(limits(&lb, &a), [json!(4), json!(0), json!(7)]);
        assert_eq!(limits(&lb, &d), [json!(5), json!(2), json!(9)]);
        drop(std::mem::replace(&mut live, connect(lb.address())));
        assert_eq!(short_read(&mut live), "127.0.0.1");
        wait_until("the one before ends", || has_ended(before));
    }
    // The file of another process than the one that was told says something else of `a`.
    folder.write("lb.yaml", yaml.replace(&format!("{a:?}"), &format!("{{address: {a:?}, weight: 2}}")));
    drop(live);
    lb.upgrade();
    assert_eq!((limits(&lb, &a)[0].clone(), limits(&lb, &d)[0].clone()), (json!(2), json!(5)));
    lb.signal(Signal::TERM);
    wait_until("the newest ends", || has_ended(lb.pid()));
    let lb = start_with_file(&folder, &yaml);
    assert_eq!(lb.backends(), [a, b, c]);
}

#[test]
fn one_that_was_leaving_at_an_upgrade_comes_back_in_use() {
    let (a, b) = (greeter("a"), greeter("b"));
    let mut lb = Lb::in_front_of(&[a.address(), b.address()]).start();
    let mut live = connect(lb.address());
    assert_eq!(short_read(&mut live), "a");
    assert_eq!(lb.remove_backend(a.address(), "").0, 202);
    lb.upgrade();
    assert_eq!(lb.backends(), [b.address().to_string()]);
    lb.add_backend(&json!(a.address()));
    assert_eq!(lb.state_of(a.address()), "up");
}

#[test]
fn of_two_operators_each_is_told_what_came_of_it() {
    let fleet = Fleet::start();
    let [a, b, c] = ["127.0.0.1", "127.0.0.2", "127.0.0.3"].map(|ip| fleet.at(ip));
    let lb = Lb::in_front_of(&[a, b]).start();
    let all = |method: &str, path: &str, bodies: &[Value]| {
        let statuses = thread::scope(|scope| {
            let lb = &lb;
            let ask = |body| scope.spawn(move || lb.order(method, path, body));
            let asking: Vec<_> = bodies.iter().map(ask).collect();
            asking.into_iter().map(|one| one.join().unwrap()).collect::<Vec<_>>()
        });
        let mut statuses: Vec<u16> = statuses.iter().map(|answer| answer.status).collect();
        statuses.sort_unstable();
        statuses
    };
    let entries: Vec<Value> = (1..=8).map(|weight| json!({"address": c, "weight": weight})).collect();
    assert_eq!(all("POST", BACKENDS, &entries), [201, 409, 409, 409, 409, 409, 409, 409]);
    let weights: Vec<Value> = (1..=8).map(|weight| json!({"weight": weight})).collect();
    assert_eq!(all("PATCH", &format!("{BACKENDS}/{c}"), &weights), [200; 8]);
    let now = lb.backend(c)["weight"].as_u64().unwrap();
    assert!((1..=8).contains(&now));
    assert_eq!(
        all("DELETE", &format!("{BACKENDS}/{c}?wait=10s"), &vec![Value::Null; 8]),
        [200, 404, 404, 404, 404, 404, 404, 404]
    );
    let (one, other) = (format!("{BACKENDS}/{a}?wait=10s"), format!("{BACKENDS}/{b}?wait=10s"));
    let removals = thread::scope(|scope| {
        let asking = [&one, &other].map(|path| scope.spawn(|| lb.order("DELETE", path, &Value::Null)));
        asking.map(|one| one.join().unwrap())
    });
    let mut statuses = removals.each_ref().map(|answer| answer.status);
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 409], "a pool has at least one backend: {removals:?}");
    assert_eq!(lb.backends().len(), 1);
}

#[test]
fn what_breaks_a_rule_is_refused_with_words() {
    let server = greeter("here");
    let lb = Lb::in_front_of(&[server.address()]).start();
    let address = server.address();
    let (add, patch) = (("POST", BACKENDS.to_owned()), ("PATCH", format!("{BACKENDS}/{address}")));
    for ((method, path), body, status, part) in [
        (&add, "", 400, "not JSON"),
        (&add, "{", 400, "not JSON"),
        (&add, "7", 422, "write an address such as"),
        (&add, "{}", 422, "has no `address`"),
        (&add, "\"nonsense\"", 422, "`nonsense` is not a backend's address"),
        (&add, "{\"address\": \"a:80\", \"weight\": 257}", 422, "weight must be from 0 to 256"),
        (&add, "{\"address\": \"a:80\", \"wieght\": 2}", 422, "did you mean `weight`?"),
        (&add, "{\"address\": \"a:80\", \"check\": \"a:81\"}", 422, "check needs a `health_check`"),
        (&add, &format!("\"{address}\""), 409, "has it already"),
        (&add, &format!("{}\"{}", " ".repeat(20_000), "a:80\""), 413, "larger than"),
        (&patch, "", 400, "not JSON"),
        (&patch, "[]", 422, "no JSON object"),
        (&patch, "{}", 422, "nothing is to change"),
        (&patch, "{\"weight\": -1}", 422, "weight is the integer `-1`"),
        (&patch, "{\"address\": \"b:80\"}", 422, "address is an unknown key"),
    ] {
        let host = lb.admin().to_string();
        let answer = crate::support::request(&mut connect(lb.admin()), method, path, &[("Host", &host)], body).unwrap();
        let part = if part == "has it already" { format!("has {address} already") } else { part.to_owned() };
        assert_api_error(&answer, status, &part);
    }
    assert_api_error(&lb.order("POST", "/api/v1/pools/defualt/backends", &json!("a:80")), 404, "did you mean default?");
    assert_api_error(&lb.order("PATCH", &format!("{BACKENDS}/127.0.0.1:1"), &json!({"weight": 1})), 404, "there are: ");
    assert_api_error(&lb.order("DELETE", &patch.1, &Value::Null), 409, "add another one first");
    let backend = patch.1.as_str();
    for (method, path, query, part) in [
        ("DELETE", backend, "force=yes", "true or false"),
        ("DELETE", backend, "froce=true", "no parameter \"froce\""),
        ("DELETE", backend, "force=true&force=true", "force is given twice"),
        ("PATCH", backend, "wait=1s", "no parameter \"wait\""),
        ("POST", &backend_path(address, "drain"), "wiat=1s", "no parameter \"wiat\""),
        ("POST", BACKENDS, "wait=1s", "no parameter \"wait\""),
        ("POST", "/api/v1/reload", "dry-run=true", "no parameter \"dry-run\""),
        ("POST", "/api/v1/upgrade", "now", "no parameter \"now\""),
        ("POST", "/api/v1/shutdown", "wait=1s", "no parameter \"wait\""),
    ] {
        assert_api_error(&lb.order(method, &format!("{path}?{query}"), &json!({"weight": 2})), 400, part);
    }
    for (method, path, allow) in [
        ("GET", BACKENDS.to_owned(), "POST"),
        ("PUT", patch.1.clone(), "DELETE, PATCH"),
        ("DELETE", backend_path(address, "drain"), "POST"),
    ] {
        let answer = lb.order(method, &path, &Value::Null);
        assert_eq!((answer.status, answer.header("allow")), (405, Some(allow)), "{method} {path}");
    }
    assert_eq!(lb.backends(), [address.to_string()]);
    assert_eq!(lb.state_of(address), "up");
}

#[test]
fn a_listener_is_not_added_as_its_own_backend() {
    let (server, listener) = (greeter("here"), free_port());
    let backends = server.address().to_string();
    let lb = Lb::with_arguments(&["--listen", &listener.to_string(), "--admin", "127.0.0.1:0", "--backend", &backends]);
    let lb = lb.start();
    assert_api_error(&lb.order("POST", BACKENDS, &json!(listener)), 422, "leads back to listener");
    assert_eq!(lb.backends(), [backends]);
}

#[test]
fn a_name_stands_for_all_its_addresses_and_each_may_be_meant_by_itself() {
    let fleet = Fleet::start();
    let dns = Dns::with_hosts(&[("app.test", "127.0.0.2"), ("app.test", "127.0.0.3")]);
    let port = fleet.port();
    let own = fleet.at("127.0.0.9").to_string();
    let mut lb = Lb::with_config(&format!(
        "listen: 127.0.0.1:0\nbackends: ['{own}', 'app.test:{port}']\nresolve: {{nameservers: ['{}'], max_ttl: 1s}}\n",
        dns.address()
    ))
    .start();
    let (two, three) = (fleet.at("127.0.0.2"), fleet.at("127.0.0.3"));
    wait_until("the name resolves", || lb.backends().len() == 3);
    let name = format!("app.test:{port}");
    assert_eq!(lb.post(&backend_path(&name, "drain")), (200, "draining".to_owned()));
    assert_eq!([two, three].map(|one| lb.state_of(one)), ["draining", "draining"]);
    assert_eq!(lb.post(&backend_path("APP.test", "enable")), (200, "up".to_owned()), "a host without its port");
    assert_eq!(lb.patch_backend(&name, &json!({"weight": 3}))["backends"].as_array().unwrap().len(), 2);
    lb.patch_backend(two, &json!({"weight": 6}));
    assert_eq!([two, three].map(|one| lb.backend(one)["weight"].clone()), [json!(6), json!(3)]);
    assert_eq!(shares(lb.address(), 40), counted([("127.0.0.2", 24), ("127.0.0.3", 12), ("127.0.0.9", 4)]));
    // The name gives it again and again.
    assert_eq!(lb.remove_backend(two, "?wait=10s").0, 200);
    let asked = lb.log_lines_with("name resolved").len();
    dns.change_to(&[("app.test", "127.0.0.2"), ("app.test", "127.0.0.3"), ("app.test", "127.0.0.4")]);
    lb.wait_for_log("name resolved", asked + 1);
    assert_eq!(lb.backends(), [own.clone(), three.to_string(), fleet.at("127.0.0.4").to_string()]);
    assert_eq!(lb.backend(fleet.at("127.0.0.4"))["weight"], 3, "the name's");
    // Who has that address later is another.
    dns.change_to(&[("app.test", "127.0.0.4")]);
    wait_until_equal("others are gone", &2, || lb.backends().len());
    // A name that drains goes on to, whatever it gives.
    assert_eq!(lb.post(&backend_path(&name, "drain")).0, 200);
    dns.change_to(&[("app.test", "127.0.0.2")]);
    wait_until_equal("it is back", &vec![own.clone(), two.to_string()], || lb.backends());
    assert_eq!(lb.state_of(two), "draining");
    lb.upgrade();
    wait_until("the name resolves", || lb.backends().len() == 2);
    assert_eq!(lb.state_of(two), "draining");
    assert_eq!(lb.post(&backend_path(&name, "enable")), (200, "up".to_owned()));

    assert_eq!(lb.remove_backend(&name, "?wait=10s").0, 200);
    assert_eq!(lb.backends(), std::slice::from_ref(&own));
    let added = lb.add_backend(&json!({"address": name, "weight": 2}));
    assert_eq!(added["backends"][0]["address"], two.to_string(), "it was resolved: {added}");
    assert_eq!(lb.remove_backend(&own, "?wait=10s").0, 200);
    assert_eq!(greeting(lb.address()), "127.0.0.2");
}

#[test]
fn a_name_that_was_removed_comes_back_in_use() {
    let fleet = Fleet::start();
    let dns = Dns::with_hosts(&[("app.test", "127.0.0.2")]);
    let (own, name) = (fleet.at("127.0.0.9"), format!("app.test:{}", fleet.port()));
    // While one name gives nothing, nothing is forgotten by itself.
    let yaml = |backends: &str| {
        let resolve = format!("{{nameservers: ['{}']}}", dns.address());
        format!("listen: 127.0.0.1:0\nbackends: ['{own}', {backends}'gone.test:80']\nresolve: {resolve}\n")
    };
    let lb = Lb::with_config(&yaml(&format!("'{name}', "))).start();
    wait_until("the name resolves", || lb.backends().len() == 2);
    assert_eq!(lb.remove_backend(&name, "?wait=10s").0, 200);
    lb.add_backend(&json!(name));
    wait_until("the name resolves", || lb.backends().len() == 2);
    assert_eq!(lb.state_of(fleet.at("127.0.0.2")), "up");

    // Also one that was drained when the file lost it.
    assert_eq!(lb.remove_backend(&name, "?wait=10s").0, 200);
    lb.reload_with(&yaml(""));
    lb.reload_with(&yaml(&format!("'{name}', ")));
    wait_until("the name resolves", || lb.backends().len() == 2);
    assert_eq!(lb.post(&backend_path(&name, "drain")).0, 200);
    lb.reload_with(&yaml(""));
    lb.add_backend(&json!(name));
    wait_until("the name resolves", || lb.backends().len() == 2);
    assert_eq!(lb.state_of(fleet.at("127.0.0.2")), "up");
}

#[test]
fn an_upgrade_keeps_a_removal_of_an_address_that_is_answered_late() {
    let is_silent = Arc::new(AtomicBool::new(false));
    let dns = DnsStub::that({
        let is_silent = is_silent.clone();
        move |_, kind| match kind {
            "A" => Reply::V4(vec![[127, 0, 0, 2].into()]),
            _ if is_silent.load(Ordering::SeqCst) => Reply::Silence,
            _ => Reply::V6(vec![Ipv6Addr::LOCALHOST]),
        }
    });
    let mut lb = Lb::with_config(&format!(
        "listen: 127.0.0.1:0\nbackends: ['app.test:80']\nresolve: {{nameservers: ['{}'], max_ttl: 1s}}\n",
        dns.address()
    ))
    .start();
    wait_until("both are known", || lb.backends().len() == 2);
    assert_eq!(lb.remove_backend("[::1]:80", "?wait=10s").0, 200);
    is_silent.store(true, Ordering::SeqCst);
    let before = lb.upgrade();
    assert_eq!(lb.backends(), ["127.0.0.2:80"]);
    wait_until("the one before ends", || has_ended(before));
    is_silent.store(false, Ordering::SeqCst);
    // The second one is asked once the first answer was taken.
    let asked = || dns.asked()[&("app.test".to_owned(), "A")];
    let now = asked();
    wait_until("it is asked again and again", || asked() >= now + 3);
    assert_eq!(lb.backends(), ["127.0.0.2:80"]);
}

#[test]
fn one_address_of_a_name_that_leaves_does_not_stay_alone() {
    let fleet = Fleet::start();
    let dns = Dns::with_hosts(&[("app.test", "127.0.0.2"), ("app.test", "127.0.0.3")]);
    let (own, name) = (fleet.at("127.0.0.9"), format!("app.test:{}", fleet.port()));
    let lb = Lb::with_config(&format!(
        "listen: 127.0.0.1:0\nbackends: ['{own}', '{name}']\nresolve: {{nameservers: ['{}']}}\n",
        dns.address()
    ))
    .start();
    wait_until("the name resolves", || lb.backends().len() == 3);
    let mut live = connect(lb.address());
    while short_read(&mut live) != "127.0.0.2" {
        live = connect(lb.address());
    }
    assert_eq!(lb.remove_backend(&name, "").0, 202);
    let (two, three) = (fleet.at("127.0.0.2"), fleet.at("127.0.0.3"));
    for one in [two, three] {
        let answer = lb.order("POST", &backend_path(one, "enable"), &Value::Null);
        assert_api_error(&answer, 409, &format!("it is removed with {name} from pool default: enable that"));
        assert_eq!(lb.state_of(one), "draining");
    }
    // The other way round, who keeps the name keeps each of its addresses.
    assert_eq!(lb.post(&backend_path(&name, "enable")), (200, "up".to_owned()));
    assert_eq!(lb.remove_backend(two, "").0, 202);
    assert_eq!(lb.post(&backend_path(&name, "enable")), (200, "up".to_owned()));
    assert_eq!(lb.backend(two)["next"], Value::Null);
}

#[test]
fn an_operator_holds_over_what_a_services_records_say() {
    let fleet = Fleet::start();
    let port = fleet.port();
    let service = |target: &str, weight: u16| format!("_app._tcp.test,{target},{port},0,{weight}");
    let records = [("a.test", "127.0.0.2"), ("b.test", "127.0.0.3")];
    let dns = Dns::with_services(&records, &[service("a.test", 10), service("b.test", 30)]);
    let lb = Lb::with_config(&format!(
        "listen: 127.0.0.1:0\nbackends: ['srv:_app._tcp.test']\nresolve: {{nameservers: ['{}'], max_ttl: 1s}}\n",
        dns.address()
    ))
    .start();
    let (a, b) = (fleet.at("127.0.0.2"), fleet.at("127.0.0.3"));
    wait_until("the service resolves", || lb.backends().len() == 2);
    let weights = || [a, b].map(|one| lb.backend(one)["weight"].as_u64().unwrap());
    assert_eq!(weights(), [10, 30]);
    lb.patch_backend(a, &json!({"weight": 20}));
    assert_eq!(weights(), [20, 30]);
    lb.patch_backend("srv:_app._tcp.test", &json!({"weight": 1}));
    assert_eq!(weights(), [20, 1]);
    assert_eq!(lb.post(&backend_path("b.test", "drain")), (200, "draining".to_owned()), "by its target's name");
    assert_eq!([a, b].map(|one| lb.state_of(one)), ["up", "draining"]);
    assert_eq!(lb.remove_backend(a, "?wait=10s").0, 200);
    assert_eq!(lb.remove_backend(b, "").0, 409, "the last one");
}

#[test]
fn a_host_is_meant_in_one_pool_or_in_all() {
    let fleet = Fleet::start();
    let [one, two] = ["127.0.0.1", "127.0.0.2"].map(|ip| fleet.at(ip).to_string());
    let other = greeter("other");
    let lb = Lb::with_config(&format!(
        "listeners:\n  web: {{bind: '127.0.0.1:0', pool: web}}\n  db: {{bind: '127.0.0.1:0', pool: db}}\npools:\n  \
         web: {{backends: ['{one}', '{two}', '{}']}}\n  db: {{backends: ['{one}', '{two}']}}\n",
        other.address()
    ))
    .start();
    let states = || {
        let report = lb.api("/api/v1/pools");
        let pools = report["pools"].as_array().unwrap();
        let states = pools.iter().flat_map(|pool| pool["backends"].as_array().unwrap());
        states.map(|backend| backend["state"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(lb.post("/api/v1/pools/*/backends/127.0.0.2/drain"), (200, "draining".to_owned()));
    assert_eq!(states(), ["up", "draining", "up", "draining", "up"]);
    assert_eq!(lb.post("/api/v1/pools/%2A/backends/127.0.0.2/enable"), (200, "up".to_owned()));
    assert_eq!(lb.post("/api/v1/pools/web/backends/127.0.0.1/disable"), (200, "disabled".to_owned()));
    assert_eq!(states(), ["up", "up", "disabled", "up", "disabled"], "two ports of that host");
    assert_eq!(lb.post("/api/v1/pools/*/backends/127.0.0.7/drain").0, 404);
    let answer = lb.order("DELETE", "/api/v1/pools/*/backends/127.0.0.2?force=true", &Value::Null);
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(states().len(), 3);
    assert_api_error(&lb.order("POST", "/api/v1/pools/*/backends", &json!("a:80")), 404, "no pool *");
}

#[test]
fn requests_leave_a_removed_backend_and_so_do_kept_connections() {
    let (a, b) = (Origin::new(), Origin::new());
    let lb = Lb::in_front_of(&[a.address(), b.address()]).with(&["--mode", "http"]).start();
    let mut client = Reader::of(connect(lb.address()));
    let mut ask = |times: usize| {
        for _ in 0..times {
            client.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
            assert_eq!(client.response().status(), 200);
        }
    };
    ask(4);
    let idle = || lb.metrics().sum("backend_connections_idle", &[]);
    wait_until_equal("kept connections", &2.0, idle);
    assert_eq!(lb.remove_backend(a.address(), "?wait=10s").0, 200, "no request is under way");
    wait_until("its kept connection is closed", || a.open_connections() == 0);
    ask(4);
    assert_eq!((a.requests().len(), b.requests().len()), (2, 6));
    lb.add_backend(&json!(a.address()));
    ask(4);
    assert_eq!((a.requests().len(), b.requests().len()), (4, 8));
    assert_eq!(lb.remove_backend(b.address(), "?force=true").0, 200);
    ask(4);
    assert_eq!((a.requests().len(), b.requests().len()), (8, 8));
}

#[test]
fn few_clients_of_a_hash_move_when_a_backend_comes_and_goes() {
    const CLIENTS: u8 = 200;
    let fleet = Fleet::start();
    let addresses: Vec<SocketAddr> = (1..=5).map(|last| fleet.at(&format!("127.0.0.{last}"))).collect();
    let lb = Lb::in_front_of(&addresses[..4]).with(&["--policy", "source_hash"]).start();
    let places = || {
        let place = |last| short_read(&mut connect_from(IpAddr::from([127, 0, 1, last]), lb.address()));
        (1..=CLIENTS).map(place).collect::<Vec<_>>()
    };
    let moved = |before: &[String], after: &[String]| before.iter().zip(after).filter(|(a, b)| a != b).count();
    let before = places();
    lb.add_backend(&json!(addresses[4]));
    let with_fifth = places();
    let to_fifth = with_fifth.iter().filter(|place| *place == "127.0.0.5").count();
    assert!((20..=60).contains(&to_fifth), "about a fifth: {to_fifth}");
    assert!(moved(&before, &with_fifth) <= to_fifth + 10, "hardly anybody else");
    assert_eq!(lb.remove_backend(addresses[4], "?force=true").0, 200);
    assert_eq!(moved(&before, &places()), 0);
}
