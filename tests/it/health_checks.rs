//! Health checks that look at the service: what is asked, where, how often, and what is said of the answer.

use std::collections::HashSet;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::process::Output;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use crate::support::{Dns, Folder, Lb, LbBuilder, Server, get, run_to_end, wait_for, wait_until, wait_until_equal};

/// Quick checks, so that the tests are.
const QUICK: &str = "interval: 50ms, timeout: 500ms, rise: 2, fall: 3";

fn checked_by(backends: &[SocketAddr], further: &str) -> LbBuilder {
    Lb::in_front_of(backends).set("health_check", format!("{{{QUICK}, {further}}}"))
}

/// Waits until checks have taken it out, and gives the reason that the API shows.
#[track_caller]
fn reason_of(lb: &Lb, backend: SocketAddr) -> String {
    let is_down = || Some(lb.backend(backend)).filter(|backend| backend["state"] == "down");
    let backend = wait_for("the check says down", is_down);
    assert_eq!(backend["last_check"]["result"], "failure", "{backend}");
    backend["reason"].as_str().unwrap().strip_prefix("health check: ").unwrap().to_owned()
}

/// Waits until checks have gone well, a few times.
#[track_caller]
fn assert_passes(lb: &Lb, backend: SocketAddr) {
    let labels = [("backend", &*backend.to_string()), ("result", "success")];
    wait_until("three checks went well", || {
        let report = lb.backend(backend);
        assert_ne!(report["state"], "down", "{report}");
        lb.metrics().sum("health_checks_total", &labels) >= 3.0
    });
    assert_eq!(lb.backend(backend)["last_check"]["reason"], serde_json::Value::Null);
}

/// A server that answers each request with these bytes, and remembers the requests.
fn answering(answer: &'static str) -> (Server, Arc<Mutex<Vec<String>>>) {
    let requests = Arc::<Mutex<Vec<String>>>::default();
    let seen = requests.clone();
    let server = Server::that(move |mut stream| {
        let mut request = [0; 4096];
        if let Ok(length @ 1..) = stream.read(&mut request) {
            seen.lock().unwrap().push(String::from_utf8_lossy(&request[..length]).into_owned());
            let _ = stream.write_all(answer.as_bytes());
        }
    });
    (server, requests)
}

/// A server that talks as `talk` does, each time it is asked.
fn talking(talk: impl Fn(&mut TcpStream) -> std::io::Result<()> + Send + Sync + 'static) -> Server {
    Server::that(move |mut stream| {
        // A check that has seen enough closes.
        let _ = talk(&mut stream);
    })
}

/// Reads until the end of a line.
fn line(stream: &mut TcpStream) -> std::io::Result<String> {
    let mut line = Vec::new();
    while !line.ends_with(b"\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte)?;
        line.push(byte[0]);
    }
    Ok(String::from_utf8_lossy(&line).into_owned())
}

fn checked(yaml: &str, arguments: &[&str]) -> Output {
    let folder = Folder::new();
    folder.write("lb.yaml", yaml);
    run_to_end(folder.path(), &[&["check"], arguments].concat(), &[("CHECK_TOKEN", "s3cret")])
}

#[test]
fn a_request_has_the_method_the_headers_and_the_secrets_of_the_configuration() {
    let (server, requests) = answering("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    let http = "http: {method: OPTIONS, path: /primary, host: db, headers: {Authorization: 'Bearer ${CHECK_TOKEN}'}}";
    let lb = checked_by(&[server.address()], http).env("CHECK_TOKEN", "s3cret").start();
    assert_passes(&lb, server.address());
    let request = requests.lock().unwrap()[0].clone();
    assert!(request.starts_with("OPTIONS /primary HTTP/1.1\r\nHost: db\r\n"), "{request}");
    assert!(request.contains("\r\nAuthorization: Bearer s3cret\r\n"), "{request}");
}

#[test]
fn a_secret_is_printed_nowhere_and_must_be_in_the_environment() {
    let yaml = "listen: 127.0.0.1:0\nbackends: [127.0.0.1:1]\nhealth_check: {http: {headers: {X: '${CHECK_TOKEN}'}}}\n";
    let printed = String::from_utf8(checked(yaml, &["--print"]).stdout).unwrap();
    assert!(printed.contains("${CHECK_TOKEN}") && !printed.contains("s3cret"), "{printed}");
    let missing = checked(&yaml.replace("CHECK_TOKEN", "NOBODY_SETS_THIS"), &[]);
    let errors = String::from_utf8_lossy(&missing.stderr).into_owned();
    let expected =
        "health_check.http.headers.X needs the variable NOBODY_SETS_THIS, which the environment doesn't have";
    assert!(errors.contains(expected), "{errors}");
}

#[test]
fn a_body_must_hold_what_is_wanted_however_it_is_framed() {
    let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n\
                   9\r\n{\"standby\r\n8\r\n\":false}\r\n0\r\n\r\n";
    let framed = "HTTP/1.1 200 OK\r\nContent-Length: 16\r\n\r\n{\"standby\":true}";
    let (active, standby) = (answering(chunked).0, answering(framed).0);
    let contains = "http: {path: /health, body: {contains: '\"standby\":false'}}";
    let lb = checked_by(&[active.address(), standby.address()], contains).start();
    assert_passes(&lb, active.address());
    let reason = r#"GET /health: expected `"standby":false` in the body, got `{"standby":true}`"#;
    assert_eq!(reason_of(&lb, standby.address()), reason);
    let matches = "http: {path: /health, body: {matches: '\"standby\":\\s*(false|no)'}}";
    let lb = checked_by(&[active.address(), standby.address()], matches).start();
    assert_passes(&lb, active.address());
    assert!(reason_of(&lb, standby.address()).contains(r#"expected a match of `"standby":\s*(false|no)` in"#));
}

#[test]
fn of_a_body_64_kib_are_looked_at() {
    let endless = talking(|stream| {
        line(stream)?;
        stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n")?;
        loop {
            stream.write_all(&[b'x'; 4096])?;
        }
    });
    let lb = checked_by(&[endless.address()], "http: {body: {contains: y}}").start();
    assert!(reason_of(&lb, endless.address()).starts_with("GET /: expected `y` in the body, got `xxx"));
}

#[test]
fn a_check_on_another_port_leaves_traffic_where_it_was() {
    let traffic = Server::named("traffic");
    let (agent, requests) = answering("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    let further = format!("port: {}, http: {{path: /agent}}", agent.address().port());
    // The agent would take a PROXY header for a bad request.
    let lb = checked_by(&[traffic.address()], &further).set("send_proxy", "v1").start();
    assert_passes(&lb, traffic.address());
    assert!(requests.lock().unwrap().iter().all(|request| request.starts_with("GET /agent ")));
    assert_eq!(traffic.accepted(), 0, "no check came here");
}

/// Three nodes, each with an agent that knows which of them is the primary.
#[test]
fn traffic_follows_what_agents_on_other_ports_say_of_the_role() {
    let primary = Arc::new(AtomicUsize::new(0));
    let nodes = ["one", "two", "three"].map(Server::named);
    let agents: Vec<Server> = (0..nodes.len())
        .map(|index| {
            let primary = primary.clone();
            talking(move |stream| {
                assert!(line(stream)?.starts_with("OPTIONS /primary "));
                let status =
                    if primary.load(Ordering::Acquire) == index { "200 OK" } else { "503 Service Unavailable" };
                stream.write_all(format!("HTTP/1.0 {status}\r\n\r\n").as_bytes())
            })
        })
        .collect();
    let backend =
        |(node, agent): (&Server, &Server)| format!("{{address: '{}', check: '{}'}}", node.address(), agent.address());
    let backends: Vec<String> = nodes.iter().zip(&agents).map(backend).collect();
    let lb = Lb::with_config(&format!(
        "listen: 127.0.0.1:0\nbackends: [{}]\nhealth_check: {{{QUICK}, http: {{method: OPTIONS, path: /primary}}}}\n",
        backends.join(", ")
    ))
    .start();
    for (index, name) in ["one", "two", "three"].iter().enumerate() {
        primary.store(index, Ordering::Release);
        wait_until("the roles are known", || {
            nodes.iter().enumerate().all(|(node, server)| (lb.state_of(server.address()) == "up") == (node == index))
        });
        assert!((0..5).all(|_| get(lb.address(), "/").body == *name));
        let other = nodes[(index + 1) % 3].address();
        assert_eq!(reason_of(&lb, other), "OPTIONS /primary answered 503");
    }
}

#[test]
fn a_check_may_go_to_a_name() {
    let dns = Dns::with_hosts(&[("agent.test", "127.0.0.1")]);
    let traffic = Server::named("traffic");
    let (agent, requests) = answering("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    let lb = Lb::with_config(&format!(
        "listen: 127.0.0.1:0\nbackends: [{{address: '{}', check: 'agent.test:{}'}}]\n\
         resolve: {{min_ttl: 100ms, nameservers: ['{}']}}\nhealth_check: {{{QUICK}, http: {{}}}}\n",
        traffic.address(),
        agent.address().port(),
        dns.address()
    ))
    .start();
    assert_passes(&lb, traffic.address());
    let host = format!("\r\nHost: agent.test:{}\r\n", agent.address().port());
    assert!(requests.lock().unwrap()[0].contains(&host));
    dns.change_to(&[]);
    // What it gave last stays.
    let before = requests.lock().unwrap().len();
    wait_until("more checks", || requests.lock().unwrap().len() > before + 5);
    assert_eq!(lb.state_of(traffic.address()), "up");
}

#[test]
fn a_name_server_that_falls_silent_takes_no_backend_down() {
    let records = [("agent.test", "127.0.0.1")];
    let dns = Dns::with_hosts(&records);
    // Until lb's end is checked: a lookup under way has a socket, and only an answer ends it.
    let _back;
    let traffic = Server::named("traffic");
    let (agent, requests) = answering("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    let lb = Lb::with_config(&format!(
        "listen: 127.0.0.1:0\nbackends: [{{address: '{}', check: 'agent.test:{}'}}]\n\
         resolve: {{min_ttl: 100ms, max_ttl: 100ms, nameservers: ['{}']}}\n\
         health_check: {{interval: 50ms, timeout: 1s, rise: 1, fall: 1, http: {{}}}}\n",
        traffic.address(),
        agent.address().port(),
        dns.address()
    ))
    .start();
    assert_passes(&lb, traffic.address());
    let address = dns.stop();
    let silent = UdpSocket::bind(address).unwrap();
    let before = requests.lock().unwrap().len();
    wait_until("more checks", || requests.lock().unwrap().len() > before + 3);
    assert!(lb.log_lines_with("health checks say down").is_empty());
    assert_eq!(lb.state_of(traffic.address()), "up");
    drop(silent);
    _back = Dns::back_at(address, &records);
}

#[test]
fn a_backend_that_is_down_is_asked_at_its_own_interval() {
    let (well, _) = answering("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    let (unwell, _) = answering("HTTP/1.1 500 Oh\r\nContent-Length: 0\r\n\r\n");
    let lb = checked_by(&[well.address(), unwell.address()], "interval_down: 1h, http: {}").start();
    assert_eq!(reason_of(&lb, unwell.address()), "GET / answered 500");
    let before = well.accepted();
    wait_until("ten checks of the other", || well.accepted() >= before + 10);
    assert!(unwell.accepted() <= 2, "{} checks in an hour at most", unwell.accepted());
}

#[test]
fn an_exchange_takes_an_answer_in_any_pieces() {
    let server = talking(|stream| {
        assert_eq!(line(stream)?, "PING\r\n");
        for byte in b"+PONG\r\n" {
            stream.write_all(&[*byte])?;
        }
        assert_eq!(line(stream)?, "info\t\x01\\\n");
        for byte in b"# Replication\r\nrole:master\r\n" {
            stream.write_all(&[*byte])?;
        }
        Ok(())
    });
    let steps = r#"exchange: [{send: "PING\\r\\n"}, {expect: "+PONG\\r\\n"}, {send: 'info\t\x01\\\n'},
        {expect_matches: "role:(master|active)"}]"#;
    let lb = checked_by(&[server.address()], steps).start();
    assert_passes(&lb, server.address());
}

#[test]
fn an_exchange_reads_a_banner_or_a_word_as_ssh_and_zookeeper_send_them() {
    let ssh = talking(|stream| stream.write_all(b"SSH-2.0-OpenSSH_9.2\r\n"));
    let lb = checked_by(&[ssh.address()], r#"exchange: [{expect_matches: "^SSH-2\\.0-.+\\r"}]"#).start();
    assert_passes(&lb, ssh.address());
    let zookeeper = talking(|stream| {
        let mut word = [0; 4];
        stream.read_exact(&mut word)?;
        assert_eq!(&word, b"ruok");
        stream.write_all(b"imok")
    });
    let lb = checked_by(&[zookeeper.address()], "exchange: [{send: ruok}, {expect: imok}]").start();
    assert_passes(&lb, zookeeper.address());
}

#[test]
fn an_exchange_says_what_it_expected_and_what_it_got() {
    let replica = talking(|stream| {
        line(stream)?;
        stream.write_all(b"$99\r\n# Replication\r\nrole:slave\r\nmaster_host:10.0.0.1\r\n")?;
        stream.read(&mut [0]).map(drop)
    });
    let silent = Server::ignoring();
    let endless = talking(|stream| {
        loop {
            stream.write_all(&[b'x'; 4096])?;
        }
    });
    let closing = talking(|stream| {
        line(stream)?;
        stream.write_all(b"-ERR go \x1b[2Jaway\r\n")
    });
    let steps = r#"exchange: [{send: "info\\r\\n"}, {expect: "role:master"}]"#;
    let backends = [replica.address(), silent.address(), endless.address(), closing.address()];
    // Without a check most of the time, so that none is open when files are counted.
    let check = format!("{{interval: 600ms, timeout: 200ms, {steps}}}");
    let lb = Lb::in_front_of(&backends).set("health_check", check).start();
    for (backend, reason) in backends.into_iter().zip([
        "expected `role:master`, got `role:slave`",
        "expected `role:master`, got nothing",
        &format!("expected `role:master`, got `{}`… and more", "x".repeat(80)),
        r"expected `role:master`, got `-ERR go \x1b[2Jaway\r\n` and the end of the connection",
    ]) {
        // On a busy machine a check may end before as much has come.
        wait_until_equal("the reason", &reason.to_owned(), || reason_of(&lb, backend));
    }
}

#[test]
fn a_secret_that_a_server_sends_back_is_not_shown() {
    let echo = talking(|stream| {
        let word = line(stream)?;
        stream.write_all(format!("-ERR unknown command {word}").as_bytes())
    });
    let steps = r#"exchange: [{send: "AUHT ${CHECK_TOKEN}\n"}, {expect: "+OK"}]"#;
    let lb = checked_by(&[echo.address()], steps).env("CHECK_TOKEN", "s3cret").start();
    let reason = r"expected `+OK`, got `-ERR unknown command AUHT ***\n` and the end of the connection";
    assert_eq!(reason_of(&lb, echo.address()), reason);
}

#[test]
fn an_exchange_that_is_answered_byte_by_byte_for_ever_ends_in_time_and_is_cheap() {
    let drop_by_drop = talking(|stream| {
        loop {
            stream.write_all(b"x")?;
        }
    });
    let check = "{interval: 600ms, timeout: 200ms, exchange: [{expect_matches: 'y+z'}]}";
    let lb = Lb::in_front_of(&[drop_by_drop.address()]).set("health_check", check).start();
    assert!(reason_of(&lb, drop_by_drop.address()).starts_with("expected a match of `y+z`, got `xxx"));
    // The main thread answers meanwhile.
    assert_eq!(lb.ask("/healthz").status, 200);
}

#[test]
fn results_are_counted_and_the_last_check_is_shown() {
    let (well, _) = answering("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    let (unwell, _) = answering("HTTP/1.1 500 Oh\r\nContent-Length: 0\r\n\r\n");
    let lb = checked_by(&[well.address(), unwell.address()], "http: {}").start();
    assert_passes(&lb, well.address());
    reason_of(&lb, unwell.address());
    let metrics = lb.metrics();
    let count = |backend: SocketAddr, result| {
        metrics
            .sum("health_checks_total", &[("pool", "default"), ("backend", &backend.to_string()), ("result", result)])
    };
    assert_eq!(count(well.address(), "failure"), 0.0);
    assert_eq!(count(unwell.address(), "success"), 0.0);
    assert!(count(unwell.address(), "failure") > 0.0);
    let last = lb.backend(unwell.address())["last_check"].clone();
    assert_eq!((last["result"].as_str(), last["reason"].as_str()), (Some("failure"), Some("GET / answered 500")));
    assert!(last["took"].as_f64().unwrap() > 0.0 && last["time"].as_str().unwrap().contains('T'), "{last}");
}

/// A pool of many is asked at all times, not all at once: of 50 backends in an interval of half a second, most tenths
/// of it see some. A busy machine makes some wait for others, which leaves gaps, but none as long as an interval.
#[test]
fn checks_of_a_pool_are_spread_over_the_interval() {
    let asked = Arc::<Mutex<Vec<std::time::Instant>>>::default();
    let servers: Vec<Server> = (0..50)
        .map(|_| {
            let asked = asked.clone();
            talking(move |stream| {
                asked.lock().unwrap().push(std::time::Instant::now());
                stream.read(&mut [0]).map(drop)
            })
        })
        .collect();
    let addresses: Vec<SocketAddr> = servers.iter().map(Server::address).collect();
    let check = "{interval: 500ms, exchange: [{send: x}]}";
    let _lb = Lb::in_front_of(&addresses).set("health_check", check).start();
    wait_until("six rounds", || asked.lock().unwrap().len() >= 6 * servers.len());
    // The first round is quick, so that all are known soon.
    let times = asked.lock().unwrap()[2 * servers.len()..].to_vec();
    let tenths: HashSet<u128> = times.iter().map(|at| at.duration_since(times[0]).as_millis() / 50).collect();
    // Four rounds, which at once would take a tenth or two each.
    assert!(tenths.len() > 12, "{tenths:?}");
}
