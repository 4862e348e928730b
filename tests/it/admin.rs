//! The admin server: health, the API, metrics; and `lb status`, which asks it.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use rustix::process::Signal;

use crate::support::{
    Folder, Lb, Metrics, Refusing, Server, connect, exchange, free_port, get, get_from, post, required, reset,
    run_to_end, short_read, wait_until,
};

#[test]
fn says_that_it_lives_and_is_ready() {
    let server = Server::named("here");
    let lb = Lb::in_front_of(&[server.address()]).start();
    assert_eq!(lb.ask("/healthz").status, 200);
    assert_eq!(lb.ask("/readyz").status, 200);
    let page = lb.ask("/");
    assert_eq!(page.status, 200);
    assert!(page.body.contains("/metrics"), "the page says what there is");
    let nowhere = lb.ask("/nowhere");
    assert_eq!(nowhere.status, 404);
    assert!(nowhere.head.contains("application/json") && nowhere.body.contains("\"error\""), "{nowhere:?}");
}

#[test]
fn says_of_one_pool_whether_it_is_ready() {
    let (server, nobody) = (Server::named("a"), free_port());
    let lb = Lb::with_config(&format!(
        "listeners: {{one: {{bind: '127.0.0.1:0', pool: a}}, two: {{bind: '127.0.0.1:0', pool: b}}}}\n\
         pools:\n  a: {{backends: ['{}']}}\n  \
         b: {{backends: ['{nobody}'], health_check: {{interval: 20ms, fall: 1}}}}\n",
        server.address()
    ))
    .start();
    wait_until("the check fails", || lb.ask("/readyz?pool=b").status == 503);
    assert_eq!(lb.ask("/readyz?pool=b").body, r#"{"error":"pool b has no usable backend"}"#);
    assert_eq!((lb.ask("/readyz?pool=a").status, lb.ask("/readyz").status), (200, 200));
    assert_eq!((lb.ask("/readyz?pool=a&pool=b").status, lb.ask("/readyz?verbose").status), (503, 200));
    assert_eq!((lb.ask("/readyz?pool=c").status, lb.ask("/readyz?pool=%61").status), (404, 200));
    let drain = format!("/api/v1/pools/a/backends/{}/drain", server.address());
    assert_eq!(post(lb.admin(), &drain, &[]).status, 200);
    assert_eq!(lb.ask("/readyz?pool=a").status, 503);
}

/// Else one that gets no clients because it isn't ready would never be ready again.
#[test]
fn a_pool_is_ready_again_without_a_client_when_its_ejected_backends_may_be_probed() {
    let nobody = Refusing::new();
    let lb = Lb::in_front_of(&[nobody.address()])
        .set("failure_detection", "{failures: 1, ejection: 3s, max_ejection: 3s}")
        .start();
    assert_eq!(lb.ask("/readyz?pool=default").status, 200);
    let _client = connect(lb.address());
    wait_until("it is ejected", || lb.ask("/readyz?pool=default").status == 503);
    wait_until("a probe is due", || lb.ask("/readyz?pool=default").status == 200);
    assert_eq!(lb.state_of(nobody.address()), "ejected");
}

#[test]
fn the_status_has_its_keys() {
    let server = Server::echo();
    let lb = Lb::in_front_of(&[server.address()]).with(&["--workers", "2", "--max-connections", "500"]).start();
    let mut client = connect(lb.address());
    client.write_all(b"hello").unwrap();
    short_read(&mut client);
    let status = lb.api("/api/v1/status");
    assert_eq!(status["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!((&status["workers"], &status["draining"]), (&2.into(), &false.into()));
    assert_eq!(status["connections"], serde_json::json!({"active": 1, "max": 500}));
    assert!(status["uptime_seconds"].as_f64().is_some_and(|seconds| seconds > 0.0), "{status}");
}

#[test]
fn the_pools_have_their_keys() {
    let (server, dead) = (Server::named("here"), Refusing::new());
    let backends = [format!("{},weight=3", server.address()), format!("{},backup", dead.address())];
    let lb = Lb::with_backends(&backends.each_ref().map(String::as_str)).start();
    get(lb.address(), "/");
    lb.only_access();
    let pool = lb.api("/api/v1/pools")["pools"][0].clone();
    assert_eq!(pool["name"], "default");
    let backend = &pool["backends"][0];
    assert_eq!(backend["address"], server.address().to_string());
    assert_eq!((&backend["weight"], &backend["backup"]), (&3.into(), &false.into()));
    assert_eq!((&backend["state"], &backend["ejected_until"]), (&"up".into(), &serde_json::Value::Null));
    assert_eq!((&backend["active"], &backend["total"], &backend["failures"]), (&0.into(), &1.into(), &0.into()));
    assert!(backend["latency"].as_f64().is_some_and(|latency| latency > 0.0), "{backend}");
    assert_eq!((&pool["backends"][1]["backup"], &pool["backends"][1]["latency"]), (&true.into(), &().into()));
}

#[test]
fn promtool_accepts_the_metrics() {
    let (server, dead) = (Server::named("here"), Refusing::new());
    let lb = Lb::in_front_of(&[server.address(), dead.address()]).start();
    for _ in 0..10 {
        get(lb.address(), "/");
    }
    let mut checking = Command::new(required("promtool"))
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    checking.stdin.take().unwrap().write_all(lb.ask("/metrics").body.as_bytes()).unwrap();
    let output = checking.wait_with_output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    assert!(output.status.success() && said.is_empty(), "{}", String::from_utf8_lossy(&said));
}

#[test]
fn every_metric_of_the_contract_is_there_before_the_first_connection() {
    let server = Server::named("here");
    let lb = Lb::in_front_of(&[server.address()]).start();
    let metrics = lb.metrics();
    let (listener, pool) = ("listener=\"default\"", "pool=\"default\"");
    let backend = format!("backend=\"{}\"", server.address());
    for (name, labels) in [
        ("connections_accepted_total", vec![listener]),
        ("connections_closed_total", vec![listener, "reason=\"client_closed\""]),
        ("connections_rejected_total", vec![listener, "reason=\"max_connections\""]),
        ("bytes_total", vec![listener, "direction=\"in\""]),
        ("bytes_total", vec![listener, "direction=\"out\""]),
        ("backend_connections_total", vec![pool, &backend]),
        ("backend_connect_failures_total", vec![pool, &backend, "reason=\"refused\""]),
        ("backend_bytes_total", vec![pool, &backend, "direction=\"in\""]),
        ("backend_ejections_total", vec![pool, &backend]),
        ("retries_total", vec![pool]),
        ("accept_errors_total", vec![listener, "reason=\"no_file\""]),
        ("connections_active", vec![listener]),
        ("backend_connections_active", vec![pool, &backend]),
        ("backend_up", vec![pool, &backend]),
        ("build_info", vec![concat!("version=\"", env!("CARGO_PKG_VERSION"), "\"")]),
        ("draining", vec![]),
        ("max_connections", vec![]),
    ] {
        let name = format!("lb_{name}");
        let is_series = |line: &&str| line.split(['{', ' ']).next() == Some(&name);
        let found = metrics.text.lines().filter(is_series).any(|line| labels.iter().all(|label| line.contains(label)));
        assert!(found, "{name} {labels:?} is missing in:\n{}", metrics.text);
        assert!(metrics.text.contains(&format!("# HELP {name} ")), "{name} has no help text");
    }
    get(lb.address(), "/");
    lb.only_access();
    let metrics = lb.metrics();
    for name in ["connect_duration_seconds", "first_byte_duration_seconds", "connection_duration_seconds"] {
        assert_eq!(metrics.sum(&format!("{name}_count"), &[]), 1.0, "{name}");
        assert!(metrics.text.contains(&format!("# TYPE lb_{name} histogram")), "{name}");
    }
}

#[test]
fn every_scrape_under_load_adds_up() {
    let (server, dead) = (Server::named("here"), Refusing::new());
    let lb = Lb::in_front_of(&[server.address(), dead.address()]).with(&["--max-connections", "3"]).start();
    let stop = Arc::new(AtomicBool::new(false));
    let address = lb.address();
    let clients: Vec<_> = (0..6)
        .map(|_| {
            let stop = stop.clone();
            thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    let _ = get_from(address, "/");
                }
            })
        })
        .collect();
    let mut last = 0.0;
    for _ in 0..100 {
        // `metrics` asserts accepted = closed + active + rejected.
        let accepted = lb.metrics().sum("connections_accepted_total", &[]);
        assert!(accepted >= last, "a counter went back");
        last = accepted;
    }
    stop.store(true, Ordering::Relaxed);
    clients.into_iter().for_each(|client| client.join().unwrap());
    assert!(last > 50.0, "there was load: {last} connections");
    assert!(lb.metrics().sum("connections_rejected_total", &[]) > 0.0, "some over the limit");
}

#[test]
fn byte_counters_advance_while_a_connection_lives() {
    let server = Server::echo();
    let lb = Lb::in_front_of(&[server.address()]).start();
    let mut client = connect(lb.address());
    for round in 1..=3 {
        client.write_all(b"0123456789").unwrap();
        short_read(&mut client);
        let expected = f64::from(10 * round);
        wait_until("the bytes are counted", || {
            let metrics = lb.metrics();
            ["bytes_total", "backend_bytes_total"]
                .iter()
                .all(|name| ["in", "out"].iter().all(|way| metrics.sum(name, &[("direction", way)]) == expected))
        });
    }
}

#[test]
fn answers_scrapes_while_every_connection_slot_is_taken() {
    let server = Server::echo();
    let lb = Lb::in_front_of(&[server.address()]).with(&["--max-connections", "1"]).start();
    let mut client = connect(lb.address());
    client.write_all(b"mine").unwrap();
    short_read(&mut client);
    assert_eq!(lb.metrics().sum("connections_active", &[]), 1.0);
    assert_eq!(lb.ask("/healthz").status, 200);
}

#[test]
fn a_nonsense_request_does_not_disturb_it() {
    let server = Server::named("here");
    let lb = Lb::in_front_of(&[server.address()]).start();
    for nonsense in
        [&b"\0\0\0\0"[..], &[b'x'; 100_000], b"GET / HTTP/1.1\r\n", b"POST /metrics HTTP/1.1\r\nHost: x\r\n\r\n"]
    {
        let mut client = connect(lb.admin());
        let _ = client.write_all(nonsense);
        let _ = client.shutdown(Shutdown::Write);
        let _ = client.read_to_end(&mut Vec::new());
    }
    reset(connect(lb.admin()));
    assert_eq!(lb.ask("/healthz").status, 200);
}

#[test]
fn can_be_on_a_unix_socket_that_the_next_start_replaces() {
    let folder = Folder::new();
    let server = Server::named("here");
    let path = folder.path().join("admin.sock");
    let admin = format!("unix:{}", path.display());
    for _ in 0..2 {
        let backend = server.address().to_string();
        let arguments = ["--listen", "127.0.0.1:0", "--backend", &backend, "--admin", &admin];
        let _lb = Lb::with_arguments(&arguments).start();
        let answer = exchange(&mut UnixStream::connect(&path).unwrap(), "/metrics").unwrap();
        assert_eq!(Metrics::parse(&answer.body).sum("connections_active", &[]), 0.0);
        let status = run_to_end(folder.path(), &["status", "--admin", &admin], &[]);
        assert_eq!(status.status.code(), Some(0), "{}", String::from_utf8_lossy(&status.stderr));
    }
}

#[test]
fn status_tells_by_its_exit_code_whether_it_is_ready() {
    let server = Server::echo();
    let lb = Lb::in_front_of(&[server.address()]).start();
    let folder = Folder::new();
    let admin = lb.admin().to_string();
    let shown = run_to_end(folder.path(), &["status", "--admin", &admin], &[]);
    assert_eq!(shown.status.code(), Some(0));
    let table = String::from_utf8_lossy(&shown.stdout).into_owned();
    assert!(table.contains(&server.address().to_string()) && table.contains("up"), "{table}");
    let quiet = run_to_end(folder.path(), &["status", "--quiet"], &[("LB_ADMIN", &admin)]);
    assert_eq!((quiet.status.code(), quiet.stdout.len()), (Some(0), 0));

    let mut client = connect(lb.address());
    client.write_all(b"hello").unwrap();
    short_read(&mut client);
    lb.signal(Signal::TERM);
    wait_until("it drains", || lb.ask("/readyz").status == 503);
    let draining = run_to_end(folder.path(), &["status", "--admin", &admin], &[]);
    assert_eq!(draining.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&draining.stderr).contains("draining"));

    let nobody = run_to_end(folder.path(), &["status", "--admin", &free_port().to_string()], &[]);
    assert_eq!(nobody.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&nobody.stderr).contains("is lb running?"));
}

#[test]
fn can_be_switched_off() {
    let server = Server::named("here");
    let lb = Lb::with_arguments(&["--listen", "127.0.0.1:0", "--admin", "off"]);
    let lb = lb.with(&["--backend", &server.address().to_string()]).start();
    assert_eq!(get(lb.address(), "/").body, "here");
    assert!(lb.log_lines_with("admin server listening").is_empty());
}
