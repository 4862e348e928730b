//! Changes by the admin API: drain, disable, enable, reload, shutdown.

use std::io::Write;
use std::net::{SocketAddr, TcpStream};

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::{
    Folder, Lb, Origin, RELOAD, Reader, Refusing, Server, assert_api_error, backend_path, change_backend, connect,
    connect_and_read, get, greeter, greeting, greeting_unix_socket, post, read_to_end, short_read, start_with_file,
    wait_until, wait_until_equal,
};

fn reloads(lb: &Lb, result: &str) -> f64 {
    lb.metrics().sum("config_reloads_total", &[("result", result)])
}

#[test]
fn a_drained_backend_gets_no_new_connection_and_keeps_those_it_has() {
    let (a, b) = (greeter("a"), greeter("b"));
    let lb = Lb::in_front_of(&[a.address(), b.address()]).start();
    let mut live = connect(lb.address());
    assert_eq!(short_read(&mut live), "a", "round robin begins with the first");

    let answer = change_backend(&lb, a.address(), "drain");
    assert_eq!((answer.status, answer.json()), (200, json!({"result": "draining"})));
    assert_eq!(lb.state_of(a.address()), "draining");
    assert_eq!(lb.metrics().sum("backend_up", &[("backend", &a.address().to_string())]), 0.0);
    for _ in 0..10 {
        assert_eq!(greeting(lb.address()), "b");
    }
    assert_eq!(a.accepted(), 1);
    live.write_all(b"still there").unwrap();
    assert_eq!(short_read(&mut live), "still there");
    assert_eq!(lb.backend(a.address())["active"], 1);
    drop(live);
}

#[test]
fn a_disabled_backend_serves_again_when_it_is_enabled() {
    let (a, b) = (greeter("a"), greeter("b"));
    let lb = Lb::in_front_of(&[a.address(), b.address()]).start();
    assert_eq!(change_backend(&lb, a.address(), "disable").json(), json!({"result": "disabled"}));
    assert_eq!(lb.state_of(a.address()), "disabled");
    for _ in 0..4 {
        assert_eq!(greeting(lb.address()), "b");
    }
    assert_eq!(change_backend(&lb, a.address(), "enable").json(), json!({"result": "up"}));
    let mut next: Vec<String> = (0..4).map(|_| greeting(lb.address())).collect();
    next.sort();
    assert_eq!(next, ["a", "a", "b", "b"]);
    // Asked twice it is the same once more.
    assert_eq!(change_backend(&lb, a.address(), "enable").json(), json!({"result": "up"}));
}

#[test]
fn no_client_goes_to_a_drained_backend_even_if_there_is_no_other() {
    let (a, b) = (greeter("a"), greeter("b"));
    let lb = Lb::in_front_of(&[a.address(), b.address()]).start();
    change_backend(&lb, a.address(), "drain");
    change_backend(&lb, b.address(), "disable");
    for _ in 0..5 {
        assert_eq!(connect_and_read(lb.address()).0, b"");
    }
    for line in lb.access_log(5) {
        assert_eq!((&line["cause"], &line["backend"]), (&"no_backend".into(), &Value::Null), "{line}");
        assert_eq!(line["attempts"], json!([]), "{line}");
    }
    assert_eq!((a.accepted(), b.accepted()), (0, 0));
    assert_eq!(lb.ask("/readyz").status, 200, "an operator's choice is not a failure of the balancer");
    change_backend(&lb, b.address(), "enable");
    assert_eq!(greeting(lb.address()), "b");
}

#[test]
fn failing_open_leaves_the_drained_backend_out() {
    let (dead, drained) = (Refusing::new(), greeter("drained"));
    let lb = Lb::in_front_of(&[dead.address(), drained.address()])
        .set("pools.default.failure_detection", "{failures: 1, ejection: 1m, max_ejection: 1m}")
        .start();
    change_backend(&lb, drained.address(), "drain");
    for _ in 0..5 {
        assert_eq!(connect_and_read(lb.address()).0, b"");
    }
    assert_eq!(lb.state_of(dead.address()), "ejected");
    assert_eq!(drained.accepted(), 0);
    for line in lb.access_log(5) {
        assert_eq!(line["cause"], "connect_failed", "the ejected one was tried: {line}");
    }
}

#[test]
fn no_policy_chooses_a_drained_backend() {
    let (a, b) = (greeter("a"), greeter("b"));
    for policy in ["round_robin", "least_connections", "random_two", "source_hash"] {
        let lb = Lb::in_front_of(&[a.address(), b.address()]).with(&["--policy", policy]).start();
        let before = a.accepted();
        change_backend(&lb, a.address(), "drain");
        // They stay, so that the drained one has the fewest.
        let clients: Vec<TcpStream> = (0..20).map(|_| connect(lb.address())).collect();
        for mut client in clients {
            assert_eq!(short_read(&mut client), "b", "{policy}");
        }
        assert_eq!(a.accepted(), before, "{policy}");
        change_backend(&lb, a.address(), "enable");
        change_backend(&lb, b.address(), "disable");
        assert_eq!(greeting(lb.address()), "a", "{policy}");
    }
}

#[test]
fn a_backup_serves_while_all_others_are_drained() {
    let (primary, backup) = (greeter("primary"), greeter("backup"));
    let backends = [primary.address().to_string(), format!("{},backup", backup.address())];
    let lb = Lb::with_backends(&backends.each_ref().map(String::as_str)).start();
    assert_eq!(greeting(lb.address()), "primary");
    change_backend(&lb, primary.address(), "drain");
    assert_eq!(greeting(lb.address()), "backup");
    change_backend(&lb, primary.address(), "enable");
    assert_eq!(greeting(lb.address()), "primary");
}

#[test]
fn who_waits_for_room_does_not_get_it_on_a_drained_backend() {
    let server = greeter("here");
    let lb = Lb::with_config(&format!(
        "listen: 127.0.0.1:0\nbackends: [{{address: '{}', max_connections: 1}}]\nqueue: {{length: 5, timeout: 1s}}\n",
        server.address()
    ))
    .start();
    let mut live = connect(lb.address());
    assert_eq!(short_read(&mut live), "here");
    let mut waiting = connect(lb.address());
    wait_until("the second client waits", || lb.api("/api/v1/pools")["pools"][0]["waiting"] == 1);
    change_backend(&lb, server.address(), "drain");
    drop(live);
    assert_eq!(read_to_end(&mut waiting).0, b"");
    assert_eq!(server.accepted(), 1);
}

#[test]
fn requests_of_a_kept_connection_leave_a_drained_backend() {
    let (a, b) = (Origin::new(), Origin::new());
    let lb = Lb::in_front_of(&[a.address(), b.address()]).with(&["--mode", "http"]).start();
    let mut client = Reader::of(connect(lb.address()));
    let mut ask = || {
        client.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
        assert_eq!(client.response().status(), 200);
    };
    (0..4).for_each(|_| ask());
    assert_eq!((a.requests().len(), b.requests().len()), (2, 2));
    let kept = |origin: &Origin| {
        let backend = origin.address().to_string();
        lb.metrics().sum("backend_connections_idle", &[("backend", &backend)])
    };
    wait_until_equal("kept connections", &(1.0, 1.0), || (kept(&a), kept(&b)));
    change_backend(&lb, a.address(), "drain");
    // Long before it was idle for a minute.
    wait_until_equal("connections that the drained backend has still", &0.0, || kept(&a));
    (0..4).for_each(|_| ask());
    assert_eq!((a.requests().len(), b.requests().len()), (2, 6));
    change_backend(&lb, b.address(), "drain");
    let none = get(lb.address(), "/");
    assert_eq!(none.status, 503, "{none:?}");
    assert_eq!((a.requests().len(), b.requests().len()), (2, 6));
}

#[test]
fn what_is_not_there_is_not_found() {
    let server = greeter("here");
    let lb = Lb::in_front_of(&[server.address()]).start();
    let address = server.address();
    for (path, part) in [
        (format!("/api/v1/pools/other/backends/{address}/drain"), "there is no pool other"),
        (backend_path("127.0.0.1:1", "drain"), "has no backend 127.0.0.1:1"),
        (backend_path(address, "delete"), "there is no /api"),
        (backend_path("", "drain"), "has no backend"),
        ("/api/v1/pools//backends//drain".to_owned(), "there is no pool"),
        ("/api/v1/pools/%FF%00/backends/%0D%0A/drain".to_owned(), "there is no pool"),
        ("/api/v1/reload/".to_owned(), "there is no /api"),
        ("/api/v2/reload".to_owned(), "openapi.json"),
    ] {
        assert_api_error(&post(lb.admin(), &path, &[]), 404, part);
    }
    assert_eq!(lb.state_of(address), "up");
}

#[test]
fn addresses_may_be_percent_encoded_and_unix_sockets() {
    let folder = Folder::new();
    let path = folder.path().join("an app.sock");
    greeting_unix_socket(&path, "unix");
    let server = greeter("tcp");
    let unix = format!("unix:{}", path.display());
    let lb = Lb::with_backends(&[&server.address().to_string(), &unix]).start();

    let encoded: String = server.address().to_string().bytes().map(|byte| format!("%{byte:02x}")).collect();
    assert_eq!(change_backend(&lb, encoded, "drain").json(), json!({"result": "draining"}));
    assert_eq!(greeting(lb.address()), "unix");
    let slashes = unix.replace('/', "%2F").replace(' ', "%20");
    assert_eq!(change_backend(&lb, slashes, "disable").json(), json!({"result": "disabled"}));
    assert_eq!(change_backend(&lb, server.address(), "enable").json(), json!({"result": "up"}));
    assert_eq!(greeting(lb.address()), "tcp");
    assert_eq!(greeting(lb.address()), "tcp");
    // Slashes as they are work as well.
    assert_eq!(change_backend(&lb, unix.replace(' ', "%20"), "enable").json(), json!({"result": "up"}));
}

#[test]
fn a_drain_survives_reloads_and_health_checks() {
    let (a, b) = (Server::named("a"), Server::named("b"));
    let folder = Folder::new();
    let yaml = |more: &str| {
        format!(
            "listen: 127.0.0.1:0\nbackends: ['{}', '{}'{more}]\nadmin: {{bind: 127.0.0.1:0}}\n\
             health_check: {{interval: 50ms, timeout: 1s, rise: 1, fall: 1, http: {{}}}}\n",
            a.address(),
            b.address()
        )
    };
    let lb = start_with_file(&folder, &yaml(""));
    change_backend(&lb, a.address(), "drain");
    let checks = |count: usize| wait_until("health checks go on", || a.accepted() > count);
    checks(a.accepted() + 2);
    assert_eq!(lb.state_of(a.address()), "draining");

    let third = Server::named("c");
    folder.write("lb.yaml", yaml(&format!(", '{}'", third.address())));
    lb.signal(Signal::HUP);
    wait_until("the reload is over", || reloads(&lb, "success") == 1.0);
    assert_eq!(lb.state_of(a.address()), "draining");
    assert_eq!(post(lb.admin(), RELOAD, &[]).status, 200);
    checks(a.accepted() + 2);
    assert_eq!(lb.state_of(a.address()), "draining");
    let seen: Vec<String> = (0..6).map(|_| get(lb.address(), "/").body).collect();
    assert!(!seen.contains(&"a".to_owned()) && seen.contains(&"c".to_owned()), "{seen:?}");
    assert_eq!(change_backend(&lb, a.address(), "enable").json(), json!({"result": "up"}));
}

#[test]
fn a_reload_says_what_came_of_it() {
    let (a, b) = (greeter("a"), greeter("b"));
    let folder = Folder::new();
    let yaml =
        |backend: SocketAddr| format!("listen: 127.0.0.1:0\nbackends: ['{backend}']\nadmin: {{bind: 127.0.0.1:0}}\n");
    let lb = start_with_file(&folder, &yaml(a.address()));
    assert_eq!(lb.api("/api/v1/status")["last_reload"], Value::Null);
    assert_eq!(greeting(lb.address()), "a");

    folder.write("lb.yaml", yaml(b.address()));
    let answer = post(lb.admin(), RELOAD, &[]);
    assert_eq!((answer.status, &answer.json()["result"]), (200, &"configuration reloaded".into()));
    assert_eq!(greeting(lb.address()), "b");
    assert_eq!(lb.api("/api/v1/status")["last_reload"]["result"], "success");

    folder.write("lb.yaml", "listen: 127.0.0.1:0\nbackends: [nonsense]\nbogus: 1\n");
    let answer = post(lb.admin(), RELOAD, &[]);
    assert_api_error(&answer, 422, "nonsense");
    assert_api_error(&answer, 422, "bogus");
    let last = lb.api("/api/v1/status")["last_reload"].clone();
    assert_eq!((&last["result"], &last["message"]), (&"failure".into(), &answer.json()["error"]));
    assert_eq!(greeting(lb.address()), "b", "the configuration before goes on");
    assert_eq!((reloads(&lb, "success"), reloads(&lb, "failure")), (1.0, 1.0));
    assert_eq!(lb.metrics().sum("config_last_reload_successful", &[]), 0.0);
}

#[test]
fn changes_at_once_are_all_answered() {
    let (a, b) = (greeter("a"), greeter("b"));
    let folder = Folder::new();
    let yaml = format!(
        "listen: 127.0.0.1:0\nbackends: ['{}', '{}']\nadmin: {{bind: 127.0.0.1:0}}\n",
        a.address(),
        b.address()
    );
    let lb = start_with_file(&folder, &yaml);
    let drain = backend_path(a.address(), "drain");
    std::thread::scope(|scope| {
        for path in [RELOAD, RELOAD, &drain, RELOAD, &drain, RELOAD] {
            let admin = lb.admin();
            scope.spawn(move || assert_eq!(post(admin, path, &[]).status, 200, "{path}"));
        }
    });
    assert_eq!((reloads(&lb, "success"), lb.state_of(a.address())), (4.0, "draining".to_owned()));
}

#[test]
fn shutdown_drains_and_ends_well() {
    let server = greeter("here");
    let mut lb = Lb::in_front_of(&[server.address()]).start();
    let mut live = connect(lb.address());
    assert_eq!(short_read(&mut live), "here");
    let answer = post(lb.admin(), "/api/v1/shutdown", &[]);
    assert_eq!((answer.status, answer.json()), (202, json!({"result": "draining"})));
    wait_until("it drains", || lb.ask("/readyz").status == 503);
    live.write_all(b"a last word").unwrap();
    assert_eq!(short_read(&mut live), "a last word");
    drop(live);
    assert_eq!(lb.wait_for_end().code(), Some(0));
}

#[test]
fn a_reload_while_it_stops_is_answered() {
    let server = greeter("here");
    let lb = Lb::in_front_of(&[server.address()]).start();
    let mut live = connect(lb.address());
    assert_eq!(short_read(&mut live), "here");
    lb.signal(Signal::TERM);
    wait_until("it drains", || lb.ask("/readyz").status == 503);
    assert_api_error(&post(lb.admin(), RELOAD, &[]), 503, "stopping");
}
