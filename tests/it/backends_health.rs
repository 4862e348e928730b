//! Active health checks: who is asked, what counts as an answer, and what follows from it.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::net::UnixListener;
use std::sync::atomic::{AtomicU16, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use crate::support::{Folder, Lb, Refusing, Server, connect_from, get, get_from, greeting, wait_for, wait_until};

/// Quick checks, so that the tests are; and patient ones, for the first one decides alone.
const TCP_CHECK: &str = "{interval: 50ms, timeout: 2s, rise: 2, fall: 3}";

/// An HTTP server whose answer to /healthz can change, and which remembers the checks' heads.
struct Checked {
    server: Server,
    status: Arc<AtomicU16>,
    heads: Arc<Mutex<Vec<String>>>,
}

impl Checked {
    fn new(name: &'static str, status: u16) -> Self {
        let (status, heads) = (Arc::new(AtomicU16::new(status)), Arc::<Mutex<Vec<String>>>::default());
        let server = {
            let (status, heads) = (status.clone(), heads.clone());
            Server::that(move |mut stream| {
                let mut head = [0; 1024];
                let Ok(length @ 1..) = stream.read(&mut head) else { return };
                let head = String::from_utf8_lossy(&head[..length]).into_owned();
                let is_check = head.starts_with("GET /healthz ");
                let status = if is_check { status.load(Ordering::Acquire) } else { 200 };
                if is_check {
                    heads.lock().unwrap().push(head);
                }
                let length = name.len();
                let head =
                    format!("HTTP/1.1 {status} Whatever\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n");
                let _ = stream.write_all(format!("{head}{name}").as_bytes());
            })
        };
        Self { server, status, heads }
    }

    fn checks(&self) -> usize {
        self.heads.lock().unwrap().len()
    }

    fn answer(&self, status: u16) {
        self.status.store(status, Ordering::Release);
    }
}

fn http_check(further: &str) -> String {
    format!("{{interval: 50ms, timeout: 2s, rise: 2, fall: 3, http: {{path: /healthz{further}}}}}")
}

/// What the first line of the log about it says was wrong. It may be written a moment after the state can be seen.
fn reason_of_down(lb: &Lb) -> String {
    let lines = || lb.log_lines_with("health checks say down");
    let line = wait_for("the log says it", || lines().into_iter().next());
    line["reason"].as_str().unwrap().to_owned()
}

#[test]
fn the_first_check_takes_a_dead_backend_out_and_two_good_ones_bring_it_in() {
    let (good, dead) = (Server::greeting("good"), Refusing::new());
    let address = dead.address();
    let lb = Lb::in_front_of(&[good.address(), address]).set("health_check", TCP_CHECK).start();
    wait_until("the check says down", || lb.state_of(address) == "down");
    assert!((0..10).all(|_| greeting(lb.address()) == "good"));
    assert_eq!(lb.metrics().sum("retries_total", &[]), 0.0, "nobody was sent there");
    assert_eq!(lb.metrics().sum("backend_up", &[("backend", &address.to_string())]), 0.0);
    let _back = Server::named_on(dead, "back");
    wait_until("the checks say up", || lb.state_of(address) == "up");
    let reason = reason_of_down(&lb);
    assert_eq!(lb.wait_for_log("health checks say down", 1).len(), 1, "logged once");
    assert!(reason.starts_with("connect failed (refused): "), "{reason}");
}

#[test]
fn a_check_by_connect_is_not_seen_by_the_application() {
    const CHECKS: usize = 30;
    let refusing = Refusing::new();
    let address = refusing.address();
    let check = format!("{{interval: 20ms, rise: {CHECKS}, fall: 1}}");
    let lb = Lb::in_front_of(&[address]).set("health_check", check).start();
    wait_until("it is down", || lb.state_of(address) == "down");
    let back = Server::on(refusing, |mut stream| drop(stream.write_all(b"back")));
    wait_until("so many checks were good", || lb.state_of(address) == "up");
    // Accepted in the order of their coming.
    assert_eq!(greeting(lb.address()), "back");
    // Where this machine stands still for 200 ms, the kernel ends a handshake by itself.
    let seen = back.accepted() - 1;
    assert!(seen <= CHECKS / 10, "{seen} of {CHECKS} checks were accepted");
    drop(lb);
}

#[test]
fn a_status_outside_the_range_is_a_failure_and_three_in_a_row_take_out() {
    let (steady, other) = (Checked::new("steady", 200), Checked::new("other", 200));
    let (a, b) = (steady.server.address(), other.server.address());
    let lb = Lb::in_front_of(&[a, b]).set("health_check", http_check("")).start();
    wait_until("both were checked", || steady.checks() > 2 && other.checks() > 2);
    other.answer(503);
    wait_until("it is out", || lb.state_of(b) == "down");
    assert_eq!(reason_of_down(&lb), "GET /healthz answered 503");
    assert!((0..10).all(|_| get(lb.address(), "/").body == "steady"));
    assert_eq!(lb.state_of(a), "up");
    other.answer(302);
    wait_until("it is in again", || lb.state_of(b) == "up");
    let names: Vec<String> = (0..4).map(|_| get(lb.address(), "/").body).collect();
    assert_eq!(names.iter().filter(|name| *name == "other").count(), 2);
}

#[test]
fn a_check_asks_for_the_path_with_the_host_and_takes_the_statuses_of_the_configuration() {
    let (one, two) = (Checked::new("one", 204), Checked::new("two", 301));
    let (a, b) = (one.server.address(), two.server.address());
    let check = http_check(", host: app.internal, status: [200-204, 418]");
    let lb = Lb::in_front_of(&[a, b]).set("health_check", check).start();
    wait_until("301 is no good answer here", || lb.state_of(b) == "down");
    wait_until("it was checked", || one.checks() > 0);
    assert_eq!(lb.state_of(a), "up");
    let head = one.heads.lock().unwrap()[0].to_lowercase();
    assert!(head.starts_with("get /healthz http/1.1\r\n") && head.contains("\r\nhost: app.internal\r\n"), "{head}");
    two.answer(418);
    wait_until("418 is one", || lb.state_of(b) == "up");
}

#[test]
fn a_check_without_an_answer_in_time_is_a_failure() {
    let (good, silent) = (Server::named("good"), Server::ignoring());
    let lb = Lb::in_front_of(&[good.address(), silent.address()])
        .set("health_check", "{interval: 600ms, timeout: 200ms, http: {}}")
        .start();
    wait_until("it is out", || lb.state_of(silent.address()) == "down");
    assert_eq!(reason_of_down(&lb), "no answer within 200ms");
    assert!((0..6).all(|_| get(lb.address(), "/").body == "good"));
}

#[test]
fn when_all_checks_fail_the_backends_are_tried_where_they_are_to_be() {
    let (one, two) = (Checked::new("one", 500), Checked::new("two", 500));
    let addresses = [one.server.address(), two.server.address()];
    let lb = Lb::in_front_of(&addresses).set("health_check", http_check("")).set("when_all_down", "try_all").start();
    wait_until("both are out", || addresses.iter().all(|address| lb.state_of(*address) == "down"));
    let names: Vec<String> = (0..4).map(|_| get(lb.address(), "/").body).collect();
    assert_eq!(names.iter().filter(|name| *name == "one").count(), 2, "in turn: {names:?}");
    assert_eq!(lb.state_of(addresses[0]), "down", "only its checks bring it back");
}

#[test]
fn good_checks_do_not_bring_back_what_failing_connections_took_out() {
    let checks = Arc::new(AtomicUsize::new(0));
    // Well by its checks, and closes on everybody else.
    let closing = {
        let checks = checks.clone();
        Server::that(move |mut stream| {
            let mut head = [0; 1024];
            if stream.read(&mut head).is_ok() && head.starts_with(b"GET /healthz ") {
                checks.fetch_add(1, Ordering::Relaxed);
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
            }
        })
    };
    let good = Server::named("good");
    let lb = Lb::in_front_of(&[good.address(), closing.address()]).set("health_check", http_check("")).start();
    // Against a passing check, evidence counts only from several clients.
    for _ in 0..20 {
        let _ = get_from(lb.address(), "/");
    }
    assert_eq!(lb.state_of(closing.address()), "up", "one client alone");
    let mut hosts = (2..=9).cycle();
    wait_until("connections of several clients have failed", || {
        let mut client = connect_from(IpAddr::from([127, 0, 0, hosts.next().unwrap()]), lb.address());
        let _ = client.write_all(b"GET / HTTP/1.0\r\n\r\n");
        let _ = client.read_to_end(&mut Vec::new());
        lb.state_of(closing.address()) == "ejected"
    });
    let so_far = checks.load(Ordering::Relaxed);
    wait_until("three checks more", || checks.load(Ordering::Relaxed) >= so_far + 3);
    assert_eq!(lb.state_of(closing.address()), "ejected");
    assert!((0..10).all(|_| get(lb.address(), "/").body == "good"));
}

#[test]
fn a_backend_brought_back_by_its_checks_starts_slowly() {
    let (steady, other) = (Checked::new("steady", 200), Checked::new("other", 500));
    let (a, b) = (steady.server.address(), other.server.address());
    let lb = Lb::in_front_of(&[a, b]).set("health_check", http_check("")).set("slow_start", "1m").start();
    wait_until("it is out", || lb.state_of(b) == "down");
    other.answer(200);
    wait_until("it is in again", || lb.state_of(b) == "up");
    let names: Vec<String> = (0..27).map(|_| get(lb.address(), "/").body).collect();
    assert_eq!(names.iter().filter(|name| *name == "other").count(), 3, "a weight of 1/8 beside one of 8/8");
}

#[test]
fn checks_come_from_the_source_addresses_as_connections_of_clients_do() {
    const ALLOWED: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 5));
    // As nginx's `allow 127.0.0.5; deny all`.
    let picky = Server::that(|mut stream| {
        let is_allowed = stream.peer_addr().is_ok_and(|peer| peer.ip() == ALLOWED);
        let status = if is_allowed { "200 OK" } else { "403 Forbidden" };
        let _ = stream.read(&mut [0; 1024]);
        let _ = stream.write_all(format!("HTTP/1.1 {status}\r\nContent-Length: 5\r\n\r\npicky").as_bytes());
    });
    let before = Lb::in_front_of(&[picky.address()]).set("health_check", http_check("")).start();
    wait_until("it takes no others", || before.state_of(picky.address()) == "down");
    drop(before);
    let lb = Lb::in_front_of(&[picky.address()])
        .set("health_check", http_check(""))
        .set("source", format!("[{ALLOWED}]"))
        .start();
    let checks = picky.accepted();
    wait_until("it was checked a few times", || picky.accepted() >= checks + 5);
    assert_eq!(lb.state_of(picky.address()), "up");
    assert!(lb.log_lines_with("health checks say down").is_empty());
    assert_eq!(get(lb.address(), "/").body, "picky");
}

/// Answers every request with these bytes.
fn answering(bytes: &'static str) -> Server {
    Server::that(move |mut stream| {
        if stream.read(&mut [0; 1024]).is_ok_and(|length| length > 0) {
            let _ = stream.write_all(bytes.as_bytes());
        }
    })
}

#[test]
fn an_answer_that_no_client_would_get_is_a_failure_and_says_what_is_wrong_with_it() {
    for (answer, reason) in [
        ("SSH-2.0-OpenSSH_9.6\r\n", "bad response: malformed start line or HTTP version"),
        ("HTTP/1.1 2000 OK\r\n\r\n", "bad response: malformed status line"),
        ("HTTP/1.1 200 OK\r\nContent-Le", "closed without an answer"),
        ("", "closed without an answer"),
    ] {
        let server = answering(answer);
        let lb = Lb::in_front_of(&[server.address()]).set("health_check", http_check("")).start();
        wait_until("it is out", || lb.state_of(server.address()) == "down");
        assert_eq!(reason_of_down(&lb), reason, "{answer:?}");
    }
    let endless = Server::that(|mut stream| {
        let _ = stream.read(&mut [0; 1024]);
        while stream.write_all(b"HTTP/1.1 102 Processing\r\n\r\n").is_ok() {}
    });
    let lb = Lb::in_front_of(&[endless.address()]).set("health_check", http_check("")).start();
    wait_until("it is out", || lb.state_of(endless.address()) == "down");
    assert_eq!(reason_of_down(&lb), "bad response: head too large");
}

#[test]
fn the_status_of_a_check_is_that_of_the_final_response_however_it_is_cut() {
    let server = Server::that(|mut stream| {
        let _ = stream.read(&mut [0; 1024]);
        let answer = "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
        for byte in answer.as_bytes() {
            if stream.write_all(&[*byte]).is_err() {
                return;
            }
        }
    });
    let lb = Lb::in_front_of(&[server.address()]).set("health_check", http_check("")).start();
    wait_until("it was checked a few times", || server.accepted() >= 5);
    assert!(lb.log_lines_with("health checks say down").is_empty());
    assert_eq!(lb.state_of(server.address()), "up");
}

#[test]
fn a_backend_on_a_unix_socket_is_checked_by_get_as_well() {
    let folder = Folder::new();
    let path = folder.path().join("app.sock");
    let heads = Arc::<Mutex<Vec<String>>>::default();
    let listener = UnixListener::bind(&path).unwrap();
    let serving = heads.clone();
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut head = [0; 1024];
            let length = stream.read(&mut head).unwrap_or(0);
            serving.lock().unwrap().push(String::from_utf8_lossy(&head[..length]).into_owned());
            let _ = stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n");
        }
    });
    let backend = format!("unix:{}", path.display());
    let lb = Lb::with_backends(&[&backend]).set("health_check", http_check("")).start();
    wait_until("it was checked", || !heads.lock().unwrap().is_empty());
    assert!(heads.lock().unwrap()[0].contains("\r\nHost: localhost\r\n"));
    let state = || lb.api("/api/v1/pools")["pools"][0]["backends"][0]["state"].clone();
    assert_eq!(state(), "up");
    std::fs::remove_file(&path).unwrap();
    wait_until("it is out", || state() == "down");
    let reason = reason_of_down(&lb);
    assert!(reason.contains("connect failed (refused): No such file"), "{reason}");
}
