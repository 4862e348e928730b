//! What each backend does for its clients, in figures: requests, first-byte times, the last hour; and what a scrape is.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use flate2::read::GzDecoder;
use serde_json::{Value, json};

use crate::support::{Lb, Refusing, Server, connect, get, knock, short_read, wait_for, wait_until};

const SLOW: Duration = Duration::from_millis(400);

fn backend(lb: &Lb, address: SocketAddr) -> Value {
    let pools = lb.api("/api/v1/pools");
    let backends = pools["pools"][0]["backends"].as_array().unwrap();
    backends.iter().find(|backend| backend["address"] == address.to_string()).expect("it is there").clone()
}

/// Its first-byte times of the last minute, once so many answers are in them.
fn first_byte(lb: &Lb, address: SocketAddr) -> Value {
    wait_for("its first-byte times are shown", || {
        Some(backend(lb, address)["first_byte"].clone()).filter(|it| !it.is_null())
    })
}

/// The sum over all points of one series of the history.
fn sum(series: &Value, key: &str) -> u64 {
    series[key].as_array().unwrap().iter().map(|value| value.as_u64().unwrap()).sum()
}

#[test]
fn ten_requests_are_five_each() {
    let (a, b) = (Server::named("a"), Server::named("b"));
    let lb = Lb::in_front_of(&[a.address(), b.address()]).with(&["--mode", "http"]).start();
    for _ in 0..10 {
        assert_eq!(get(lb.address(), "/").status, 200);
    }
    for server in [&a, &b] {
        let shown = backend(&lb, server.address());
        assert_eq!((&shown["requests"], &shown["answers"]), (&5.into(), &json!({"2xx": 5})), "{shown}");
        let labels = [("backend", &*server.address().to_string()), ("code", "2xx")];
        assert_eq!(lb.metrics().sum("backend_requests_total", &labels), 5.0);
    }
    assert_eq!(lb.api("/api/v1/status")["listeners"][0]["requests"], 10);
}

/// Answers each request after so long.
fn answering_after(pause: Duration) -> Server {
    Server::that(move |mut stream| {
        if !short_read(&mut stream).is_empty() {
            thread::sleep(pause);
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok");
        }
    })
}

#[test]
fn a_slow_backend_is_known_by_its_first_byte_times() {
    let (slow, quick, other) = (answering_after(SLOW), Server::named("quick"), Server::named("other"));
    let backends = [slow.address(), quick.address(), other.address()];
    let lb = Lb::in_front_of(&backends).with(&["--mode", "http"]).start();
    let mut waited: Vec<f64> = (0..30)
        .map(|_| {
            let mut client = connect(lb.address());
            let began = Instant::now();
            client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
            client.read_exact(&mut [0]).unwrap();
            began.elapsed().as_secs_f64() * 1e3
        })
        .collect();
    waited.sort_by(f64::total_cmp);
    let of_slow = &waited[20..];
    let (shown, of_quick) = (first_byte(&lb, slow.address()), first_byte(&lb, quick.address()));
    // A client on a busy machine waits for its turn, too; of what the backend took, nothing may be missing.
    let pause = SLOW.as_secs_f64() * 1e3;
    let is_right = |value: f64, measured: f64, pause: f64| value > 0.9 * pause && value < 1.1 * measured;
    for (key, measured) in [("p50_ms", of_slow[4]), ("p99_ms", of_slow[9])] {
        let value = shown[key].as_f64().unwrap();
        assert!(is_right(value, measured, pause), "{key} is {value}, a client measured {measured}: {shown}");
    }
    assert!(of_quick["p50_ms"].as_f64() < shown["p50_ms"].as_f64(), "{of_quick} {shown}");
    let metrics = lb.metrics();
    let label = slow.address().to_string();
    let of = |name: &str| metrics.sum(&format!("backend_first_byte_seconds_{name}"), &[("backend", &label)]);
    assert_eq!(of("count"), 10.0);
    let measured = of_slow.iter().sum::<f64>();
    let sum = of("sum") * 1e3;
    assert!(is_right(sum, measured, 10.0 * pause), "{sum} ms, clients waited {measured} ms");
}

#[test]
fn a_backend_is_not_slow_for_a_client_that_says_nothing() {
    let server = Server::echo();
    let lb = Lb::in_front_of(&[server.address()]).start();
    for _ in 0..3 {
        let mut client = connect(lb.address());
        thread::sleep(SLOW);
        client.write_all(b"hello").unwrap();
        assert_eq!(short_read(&mut client), "hello");
    }
    let shown = first_byte(&lb, server.address());
    assert!(shown["p99_ms"].as_f64().unwrap() < 400.0, "{shown}");
    let shown = backend(&lb, server.address());
    assert_eq!((&shown["requests"], &shown["answers"]), (&0.into(), &json!({})), "those are of mode http");
}

#[test]
fn what_a_backend_waits_for_is_said() {
    let (well, dead) = (Server::echo(), Refusing::new());
    let lb = Lb::in_front_of(&[well.address(), dead.address()])
        .set("pools.default.failure_detection", "{failures: 1, ejection: 1m, max_ejection: 1m}")
        .start();
    let since = backend(&lb, dead.address())["since"].as_str().unwrap().to_owned();
    assert_eq!(backend(&lb, dead.address())["next"], Value::Null);
    for _ in 0..2 {
        connect(lb.address()).write_all(b"hello").unwrap();
    }
    wait_until("it is ejected", || lb.state_of(dead.address()) == "ejected");
    let shown = backend(&lb, dead.address());
    assert!(shown["next"].as_str().unwrap().starts_with("probe in "), "{shown}");
    assert!(shown["since"].as_str().unwrap() > &*since, "{shown}");
}

#[test]
fn the_last_hour_is_kept() {
    let (a, dead) = (Server::named("a"), Refusing::new());
    let lb = Lb::with_config(&format!(
        "listeners:\n  web: {{bind: 127.0.0.1:0, mode: http, pool: app}}\n  tcp: {{bind: 127.0.0.1:0, pool: gone}}\n\
         pools:\n  app: {{backends: ['{}']}}\n  gone: {{backends: ['{}'], failure_detection: off}}\n",
        a.address(),
        dead.address()
    ))
    .start();
    // What was before the first point is in none.
    wait_until("there is a point", || lb.api("/api/v1/history")["until"].is_string());
    for _ in 0..7 {
        assert_eq!(get(lb.address_of("web"), "/").body, "a");
        knock(lb.address_of("tcp"));
    }
    let history = wait_for("it is kept", || {
        let history = lb.api("/api/v1/history");
        let series = history["series"].as_array().unwrap().clone();
        let of = |key: &str, name: &str| series.iter().find(|it| it[key] == name).unwrap().clone();
        let [web, tcp, app, gone] = [("listener", "web"), ("listener", "tcp"), ("pool", "app"), ("pool", "gone")]
            .map(|(key, name)| of(key, name));
        let sums = (sum(&web, "requests"), sum(&app, "requests"), sum(&tcp, "failed"), sum(&gone, "failed"));
        (sums == (7, 7, 7, 7)).then_some(history)
    });
    assert_eq!((&history["step_seconds"], history["series"].as_array().unwrap().len()), (&5.into(), 4));
    let of_pool = lb.api("/api/v1/history?pool=app");
    let series = of_pool["series"].as_array().unwrap();
    assert_eq!((series.len(), &series[1]["backend"]), (2, &a.address().to_string().into()));
    assert!(series[1]["p99_ms"].as_array().unwrap().iter().any(|value| value.as_f64() > Some(0.0)), "{}", series[1]);
    let one = lb.api(&format!("/api/v1/history?pool=app&backend={}&points=1", a.address()));
    assert_eq!((&one["series"][0]["requests"], sum(&one["series"][0], "connections")), (&json!([7]), 7), "{one}");
    for unknown in ["history?pool=nobody", "history?pool=app&backend=nobody"] {
        assert_eq!(lb.ask(&format!("/api/v1/{unknown}")).status, 404, "{unknown}");
    }
    for wrong in ["history?points=0", "history?points=x", "history?backend=a", "events?after=x"] {
        assert_eq!(lb.ask(&format!("/api/v1/{wrong}")).status, 400, "{wrong}");
    }
}

#[test]
fn a_long_scrape_is_compressed_for_who_takes_that() {
    let list: Vec<String> = (1..200).map(|n| format!("'127.9.0.{n}:9'")).collect();
    let lb = Lb::with_config(&format!("listen: 127.0.0.1:0\nbackends: [{}]\n", list.join(", "))).start();
    let mut stream = TcpStream::connect(lb.admin()).unwrap();
    let head = format!("Host: {}\r\nAccept-Encoding: gzip\r\nConnection: close\r\n\r\n", lb.admin());
    stream.write_all(format!("GET /metrics HTTP/1.1\r\n{head}").as_bytes()).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    let end = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n").unwrap() + 4;
    let head = String::from_utf8_lossy(&answer[..end]).to_lowercase();
    assert!(head.contains("content-encoding: gzip") && head.contains("vary: accept-encoding"), "{head}");
    let mut text = String::new();
    GzDecoder::new(&answer[end..]).read_to_string(&mut text).unwrap();
    assert!(text.len() > 5 * (answer.len() - end), "{} bytes became {}", text.len(), answer.len());
    let plain = lb.ask("/metrics");
    assert_eq!((plain.header("content-encoding"), plain.header("vary")), (None, Some("Accept-Encoding")));
    let names = |text: &str| {
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        lines.map(|line| line.rsplit_once(' ').map_or("", |(name, _)| name).to_owned()).collect::<Vec<_>>()
    };
    // The exporter's order is its own.
    let sorted = |mut names: Vec<String>| {
        names.sort();
        names
    };
    assert_eq!(sorted(names(&text)), sorted(names(&plain.body)));
}

#[test]
fn who_is_refused_for_a_limit_is_told_of_once() {
    let server = Server::echo();
    let lb = Lb::in_front_of(&[server.address()]).with(&["--max-connections", "1"]).start();
    let mut first = connect(lb.address());
    first.write_all(b"hello").unwrap();
    short_read(&mut first);
    // Point by point, the log is told what has come since the last one.
    let reached = "clients are refused: as many connections are open as max_connections allows";
    wait_until("it is told", || {
        knock(lb.address());
        !lb.log_lines_with(reached).is_empty()
    });
    drop(first);
    lb.wait_for_log("no client is refused any more for max_connections", 1);
    assert_eq!(lb.log_lines_with(reached).len(), 1);
}
