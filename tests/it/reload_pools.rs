//! A reload, the part that concerns pools: backends come, change and go, and what is known of those that stay is kept.

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use crate::support::{
    Dns, Fleet, Lb, Pairs, Refusing, Server, connect, connect_from, get, greeting, short_read, wait_until,
    wait_until_equal,
};

/// The short form, with these backends and further keys, a line each.
fn yaml(backends: &str, more: &str) -> String {
    format!("listen: 127.0.0.1:0\nbackends: [{backends}]\n{more}")
}

/// Backends with nothing but an address.
fn plain(servers: &[&Server]) -> String {
    servers.iter().map(|server| format!("'{}', ", server.address())).collect()
}

/// The greetings of the next connections.
fn next(lb: &Lb, connections: usize) -> Vec<String> {
    (0..connections).map(|_| greeting(lb.address())).collect()
}

fn share(greetings: &[String], name: &str) -> usize {
    greetings.iter().filter(|greeting| *greeting == name).count()
}

#[test]
fn a_backend_that_is_added_gets_its_share_and_one_that_is_removed_keeps_its_connections() {
    let pairs = Pairs::new();
    let (one, two) = (Server::greeting("one"), Server::greeting("two"));
    let lb = Lb::with_config(&yaml(&format!("'{}'", pairs.address()), "")).start();
    let mut held = pairs.connect(&lb);
    lb.reload_with(&yaml(&format!("'{}', {}", pairs.address(), plain(&[&one])), ""));
    assert_eq!(lb.backend(pairs.address())["active"], 1);
    assert_eq!(lb.backend(one.address())["total"], 0);
    lb.reload_with(&yaml(&plain(&[&one, &two]), ""));
    let greetings = next(&lb, 8);
    assert_eq!([share(&greetings, "one"), share(&greetings, "two")], [4, 4]);
    held.ping(b"its backend is gone from the list");
    let known = lb.metrics().label_values("backend_connections_total", "backend");
    assert_eq!(known.len(), 2);
    drop(held);
    lb.access_log(9);
}

#[test]
fn a_weight_changes_in_place() {
    let (one, two) = (Server::greeting("one"), Server::greeting("two"));
    let config =
        |weight: u16| yaml(&format!("{{address: '{}', weight: {weight}}}, '{}'", one.address(), two.address()), "");
    let lb = Lb::with_config(&config(1)).start();
    assert_eq!(share(&next(&lb, 4), "one"), 2);
    lb.reload_with(&config(3));
    assert_eq!([&lb.backend(one.address())["total"], &lb.backend(one.address())["weight"]], [2, 3]);
    assert_eq!(share(&next(&lb, 8), "one"), 6);
    lb.reload_with(&config(0));
    assert_eq!(share(&next(&lb, 4), "one"), 0);
    let total = lb.metrics().sum("backend_connections_total", &[("backend", &one.address().to_string())]);
    assert_eq!(total, 8.0);
}

#[test]
fn a_backend_becomes_a_backup_and_a_primary_again() {
    let (one, two) = (Server::greeting("one"), Server::greeting("two"));
    let config =
        |backup: bool| yaml(&format!("'{}', {{address: '{}', backup: {backup}}}", one.address(), two.address()), "");
    let lb = Lb::with_config(&config(true)).start();
    assert_eq!(share(&next(&lb, 4), "two"), 0);
    lb.reload_with(&config(false));
    assert_eq!(share(&next(&lb, 4), "two"), 2);
    lb.reload_with(&config(true));
    assert_eq!(share(&next(&lb, 4), "two"), 0);
    assert_eq!(lb.backend(two.address())["total"], 2);
}

#[test]
fn the_turn_lives_on_when_other_settings_change() {
    let servers = ["a", "b", "c"].map(Server::greeting);
    let backends = plain(&servers.each_ref());
    let lb = Lb::with_config(&yaml(&backends, "")).start();
    let mut greetings = next(&lb, 1);
    for attempts in [1, 2, 4, 5] {
        lb.reload_with(&yaml(&backends, &format!("attempts: {attempts}\n")));
        greetings.extend(next(&lb, 1));
    }
    assert_eq!(greetings, ["a", "b", "c", "a", "b"]);
}

#[test]
fn a_backends_limit_is_lowered_and_raised_in_place_and_calls_who_waits() {
    let pairs = Pairs::new();
    let config = |max: usize| {
        let backend = format!("{{address: '{}', max_connections: {max}}}", pairs.address());
        yaml(&backend, "queue: {length: 10, timeout: 10s}\n")
    };
    let lb = Lb::with_config(&config(1)).start();
    let mut first = pairs.connect(&lb);
    let mut waiting = [connect(lb.address()), connect(lb.address())];
    let waiting_now = || lb.api("/api/v1/pools")["pools"][0]["waiting"].as_u64().unwrap();
    wait_until_equal("clients that wait", &2, waiting_now);
    lb.reload_with(&config(3));
    let mut backends = [pairs.accept(), pairs.accept()];
    // Which backend's end is whose is not known.
    backends.iter_mut().for_each(|backend| backend.write_all(b"welcome").unwrap());
    for client in &mut waiting {
        assert_eq!(short_read(client), "welcome");
    }
    lb.reload_with(&config(2));
    first.ping(b"those that live go on");
    drop((waiting, backends));
    wait_until("two have ended", || lb.backend(pairs.address())["active"] == 1);
    let _second = pairs.connect(&lb);
    let _third = connect(lb.address());
    wait_until_equal("clients that wait", &1, waiting_now);
    assert_eq!(lb.backend(pairs.address())["active"], 2);
    // Who is connected to it and not accepted ends with it.
    drop(pairs);
}

#[test]
fn what_is_ejected_stays_ejected() {
    let (dead, well) = (Refusing::new(), Server::greeting("well"));
    let backends = format!("'{}', '{}'", dead.address(), well.address());
    let detection =
        |ejection: &str| format!("failure_detection: {{failures: 1, ejection: {ejection}, max_ejection: 2h}}\n");
    let lb = Lb::with_config(&yaml(&backends, &detection("1h"))).start();
    assert_eq!(next(&lb, 2), ["well", "well"]);
    assert_eq!(lb.state_of(dead.address()), "ejected");
    let until = lb.backend(dead.address())["ejected_until"].clone();
    for more in [detection("1h"), detection("1h") + "attempts: 2\n", detection("2h")] {
        lb.reload_with(&yaml(&backends, &more));
        let now = lb.backend(dead.address());
        assert_eq!((&now["state"], &now["ejections"], &now["failures"]), (&"ejected".into(), &1.into(), &1.into()));
        // Told to the second: the API counts it from now on each time.
        assert_eq!(now["ejected_until"].as_str().unwrap()[..17], until.as_str().unwrap()[..17]);
        assert_eq!(next(&lb, 2), ["well", "well"]);
    }
    assert_eq!(lb.backend(dead.address())["failures"], 1, "nobody tried it");
    lb.reload_with(&yaml(&backends, "failure_detection: off\n"));
    assert_eq!(lb.state_of(dead.address()), "up", "nothing ejects it any more");
    lb.reload_with(&yaml(&backends, &detection("1h")));
    next(&lb, 2);
    assert_eq!(lb.state_of(dead.address()), "ejected");
}

#[test]
fn failure_detection_counts_by_its_new_settings() {
    let (dead, well) = (Refusing::new(), Server::greeting("well"));
    let config = |failures: usize| {
        let backends = format!("'{}', '{}'", dead.address(), well.address());
        yaml(
            &backends,
            &format!("failure_detection: {{failures: {failures}, window: 1m, ejection: 1h, max_ejection: 1h}}\n"),
        )
    };
    let lb = Lb::with_config(&config(100)).start();
    next(&lb, 8);
    assert_eq!(lb.state_of(dead.address()), "up");
    assert!(lb.backend(dead.address())["failures"].as_u64().unwrap() >= 1);
    lb.reload_with(&config(1));
    next(&lb, 2);
    assert_eq!(lb.state_of(dead.address()), "ejected");
}

#[test]
fn what_an_operator_took_out_stays_out() {
    let (one, two) = (Server::greeting("one"), Server::greeting("two"));
    let lb = Lb::with_config(&yaml(&plain(&[&one, &two]), "")).start();
    assert_eq!(lb.post(&format!("/api/v1/pools/default/backends/{}/disable", one.address())).0, 200);
    lb.reload_with(&yaml(&plain(&[&two, &one]), "attempts: 2\n"));
    assert_eq!(lb.state_of(one.address()), "disabled");
    assert_eq!(next(&lb, 2), ["two", "two"]);
}

#[test]
fn health_checks_begin_change_and_end() {
    let (bad, well) = (Server::named("bad"), Server::named("well"));
    let backends = plain(&[&bad, &well]);
    let check = |status: u16| {
        format!("health_check: {{interval: 50ms, rise: 1, fall: 1, http: {{path: /, status: {status}}}}}\n")
    };
    let lb = Lb::with_config(&yaml(&backends, "")).start();
    let states = || [lb.state_of(bad.address()), lb.state_of(well.address())];
    lb.reload_with(&yaml(&backends, &check(204)));
    wait_until_equal("states", &["down".to_owned(), "down".to_owned()], states);
    lb.reload_with(&yaml(&backends, &(check(204) + "attempts: 2\n")));
    assert_eq!(states(), ["down", "down"], "what the checks have found is kept");
    lb.reload_with(&yaml(&backends, &check(200)));
    wait_until_equal("states", &["up".to_owned(), "up".to_owned()], states);
    let address = bad.stop();
    wait_until_equal("state", &"down".to_owned(), || lb.state_of(address.address()));
    lb.reload_with(&yaml(&backends, ""));
    assert_eq!(lb.state_of(address.address()), "up", "nobody checks any more");
    let accepted = well.accepted();
    assert_eq!(lb.post("/api/v1/reload").0, 200);
    assert!(well.accepted() <= accepted + 1, "at most one check was under way");
}

#[test]
fn a_policy_changes() {
    let servers = ["a", "b", "c", "d"].map(Server::greeting);
    let backends = plain(&servers.each_ref());
    let lb = Lb::with_config(&yaml(&backends, "")).start();
    let mut greetings = next(&lb, 4);
    greetings.sort();
    assert_eq!(greetings, ["a", "b", "c", "d"]);
    lb.reload_with(&yaml(&backends, "policy: source_hash\n"));
    assert_eq!(lb.api("/api/v1/pools")["pools"][0]["policy"], "source_hash");
    let greetings = next(&lb, 8);
    assert!(greetings.iter().all(|name| *name == greetings[0]), "one client, one backend: {greetings:?}");
    let from = |host: u8| short_read(&mut connect_from([127, 0, 0, host].into(), lb.address()));
    let others: std::collections::BTreeSet<String> = (2..30).map(from).collect();
    assert!(others.len() > 1, "another client, another backend");
    lb.reload_with(&yaml(&backends, "policy: least_connections\n"));
    let held: Vec<_> =
        (0..4).map(|_| connect(lb.address())).map(|mut client| (short_read(&mut client), client)).collect();
    let names: std::collections::BTreeSet<&str> = held.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names.len(), 4, "each has one: {names:?}");
}

#[test]
fn the_proxy_header_is_sent_from_the_next_connection_on() {
    let pairs = Pairs::new();
    let backend = format!("'{}'", pairs.address());
    let lb = Lb::with_config(&yaml(&backend, "")).start();
    let mut before = pairs.connect(&lb);
    before.ping(b"without one");
    lb.reload_with(&yaml(&backend, "send_proxy: v1\n"));
    before.ping(b"as it began");
    let mut after = pairs.connect(&lb);
    after.client.write_all(b"hello").unwrap();
    let client = after.client.local_addr().unwrap();
    let expected = format!("PROXY TCP4 127.0.0.1 127.0.0.1 {} {}\r\nhello", client.port(), lb.address().port());
    let mut got = vec![0; expected.len()];
    after.backend.read_exact(&mut got).unwrap();
    assert_eq!(String::from_utf8_lossy(&got), expected);
}

#[test]
fn a_pool_that_goes_away_leaves_its_connections_alone() {
    let pairs = Pairs::new();
    let other = Server::greeting("other");
    let config = |backend: SocketAddr, pool: &str| {
        format!("listeners:\n  web: {{bind: '127.0.0.1:0'}}\npools:\n  {pool}: {{backends: ['{backend}']}}\n")
    };
    let lb = Lb::with_config(&config(pairs.address(), "old")).start();
    let mut held = pairs.connect(&lb);
    lb.reload_with(&config(other.address(), "new"));
    assert_eq!(greeting(lb.address()), "other");
    held.ping(b"the pool is gone");
    let report = lb.api("/api/v1/pools");
    assert_eq!((report["pools"].as_array().unwrap().len(), &report["pools"][0]["name"]), (1, &"new".into()));
    assert_eq!(lb.metrics().label_values("backend_up", "pool"), ["new"]);
    drop(held);
    lb.access_log(2);
}

#[test]
fn names_that_come_and_go_leave_the_pool_served_throughout() {
    let fleet = Fleet::start();
    let dns = Dns::with_hosts(&[("a.test", "127.0.0.2"), ("b.test", "127.0.0.3")]);
    let names =
        |names: &[&str]| -> String { names.iter().map(|name| format!("{name}.test:{}, ", fleet.port())).collect() };
    let config = |backends: &str| {
        let nameserver = dns.address();
        yaml(backends, &format!("resolve: {{min_ttl: 100ms, max_ttl: 1s, nameservers: ['{nameserver}']}}\n"))
    };
    let lb = Lb::with_config(&config(&names(&["a"]))).start();
    let (address, is_over) = (lb.address(), AtomicBool::new(false));
    thread::scope(|scope| {
        let client = scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                assert!(greeting(address).starts_with("127.0.0."), "served at any time");
            }
        });
        lb.reload_with(&config(&names(&["a", "b"])));
        wait_until("the new name is used", || fleet.visited("127.0.0.3").total > 2);
        // One that doesn't resolve takes none away.
        lb.reload_with(&config(&names(&["a", "b", "nobody"])));
        let before = [fleet.visited("127.0.0.2").total, fleet.visited("127.0.0.3").total];
        wait_until("both are used", || {
            let now = [fleet.visited("127.0.0.2").total, fleet.visited("127.0.0.3").total];
            now[0] > before[0] + 2 && now[1] > before[1] + 2
        });
        lb.reload_with(&config(&names(&["b"])));
        is_over.store(true, Ordering::Relaxed);
        client.join().unwrap();
    });
    assert_eq!(next(&lb, 2), ["127.0.0.3", "127.0.0.3"]);
    assert_eq!(lb.metrics().sum("connections_closed_total", &[("reason", "no_backend")]), 0.0);
    assert_eq!(lb.ask("/readyz").status, 200);
}

#[test]
fn a_weight_of_a_name_changes_while_its_addresses_stay() {
    let fleet = Fleet::start();
    let dns = Dns::with_hosts(&[("a.test", "127.0.0.2"), ("b.test", "127.0.0.3")]);
    let (port, nameserver) = (fleet.port(), dns.address());
    let config = |weight: u16| {
        let backends = format!("{{address: 'a.test:{port}', weight: {weight}}}, 'b.test:{port}'");
        yaml(&backends, &format!("resolve: {{min_ttl: 1s, max_ttl: 1m, nameservers: ['{nameserver}']}}\n"))
    };
    // At its end, one look-up or another waits for an answer.
    let lb = Lb::with_config(&config(1)).unwatched().start();
    assert_eq!(share(&next(&lb, 4), "127.0.0.2"), 2);
    lb.reload_with(&config(2));
    assert_eq!(share(&next(&lb, 6), "127.0.0.2"), 4);
    assert_eq!(lb.backend(fleet.at("127.0.0.2"))["total"], 6);
    // Whoever asks for the name again has no answer: what it gave last still counts.
    dns.stop();
    lb.reload_with(&config(3));
    assert_eq!(share(&next(&lb, 8), "127.0.0.2"), 6);
    assert_eq!(lb.backend(fleet.at("127.0.0.2"))["total"], 12);
}

#[test]
fn pools_whose_names_do_not_resolve_delay_a_reload_no_longer_than_one() {
    // One look-up after the other would take longer than anybody waits for the answer to a reload.
    const POOLS: usize = 20;
    let server = Server::greeting("here");
    // Bound, so that nobody else answers there, and never read.
    let silent = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let nameserver = silent.local_addr().unwrap();
    let only = format!("  app: {{backends: ['{}']}}\n", server.address());
    let pool = |number| {
        format!("  p{number}: {{backends: [app.test:{number}], resolve: {{nameservers: ['{nameserver}']}}}}\n")
    };
    let config = |pools: &str| {
        let listener = "listeners:\n  web: {bind: '127.0.0.1:0', pool: app}\n";
        format!("{listener}pools:\n{only}{pools}")
    };
    let lb = Lb::with_config(&config("")).start();
    lb.reload_with(&config(&(1..=POOLS).map(pool).collect::<String>()));
    assert_eq!(greeting(lb.address()), "here");
}

#[test]
fn what_a_reload_removes_leaves_no_series_behind() {
    let server = Server::named("here");
    let (one, other) = (format!("backends: ['{}']", server.address()), "bind: 127.0.0.1:0, mode: http");
    let stays = format!("listeners:\n  stays: {{{other}, pool: stays}}\npools:\n  stays: {{{one}}}\n");
    let both = stays
        .replace("pools:\n", &format!("  goes: {{{other}, pool: goes}}\npools:\n"))
        .replace("  stays: {backends", &format!("  goes: {{{one}}}\n  stays: {{backends"));
    let lb = Lb::with_config(&both).start();
    for listener in ["stays", "goes"] {
        assert_eq!(get(lb.address_of(listener), "/").body, "here");
    }
    lb.access_log(2);
    let named = |name: &str| -> Vec<String> {
        let text = lb.metrics().text;
        text.lines().filter(|line| line.contains(&format!("\"{name}\""))).map(str::to_owned).collect()
    };
    let series = named("goes").len();
    assert!(series > 100, "{series} series");
    for histogram in ["connection_duration", "http_request_duration", "connect_duration", "first_byte_duration"] {
        let count = format!("lb_{histogram}_seconds_count{{");
        let line = named("goes").into_iter().find(|line| line.starts_with(&count)).unwrap();
        assert!(line.ends_with(" 1"), "{line}");
    }
    lb.reload_with(&stays);
    wait_until_equal("series of what is gone", &Vec::new(), || named("goes"));
    assert_eq!(named("stays").len(), series);
    // What comes back begins anew.
    lb.reload_with(&both);
    let line = named("goes").into_iter().find(|line| line.starts_with("lb_connect_duration_seconds_count{")).unwrap();
    assert!(line.ends_with(" 0"), "{line}");
}
