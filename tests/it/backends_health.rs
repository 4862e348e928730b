//! Active health checks: who is asked, what counts as an answer, and what follows from it.

use std::io::{Read, Write};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex};

use crate::support::{Lb, Refusing, Server, get, get_from, greeting, wait_until};

/// Quick checks, so that the tests are.
const TCP_CHECK: &str = "{interval: 50ms, timeout: 200ms, rise: 2, fall: 3}";

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
    format!("{{interval: 50ms, timeout: 200ms, rise: 2, fall: 3, http: {{path: /healthz{further}}}}}")
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
    let turns = lb.log_lines_with("health checks say down").len();
    assert_eq!(turns, 1, "told once");
}

#[test]
fn a_status_outside_the_range_is_a_failure_and_three_in_a_row_take_out() {
    let (steady, other) = (Checked::new("steady", 200), Checked::new("other", 200));
    let (a, b) = (steady.server.address(), other.server.address());
    let lb = Lb::in_front_of(&[a, b]).set("health_check", http_check("")).start();
    wait_until("both were checked", || steady.checks() > 2 && other.checks() > 2);
    other.answer(503);
    wait_until("it is out", || lb.state_of(b) == "down");
    let line = lb.log_lines_with("health checks say down").remove(0);
    assert_eq!(line["reason"], "answered 503");
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
    let lb = Lb::in_front_of(&[good.address(), silent.address()]).set("health_check", http_check("")).start();
    wait_until("it is out", || lb.state_of(silent.address()) == "down");
    assert!((0..6).all(|_| get(lb.address(), "/").body == "good"));
}

#[test]
fn when_all_checks_fail_the_backends_are_tried_all_the_same() {
    let (one, two) = (Checked::new("one", 500), Checked::new("two", 500));
    let addresses = [one.server.address(), two.server.address()];
    let lb = Lb::in_front_of(&addresses).set("health_check", http_check("")).start();
    wait_until("both are out", || addresses.iter().all(|address| lb.state_of(*address) == "down"));
    let names: Vec<String> = (0..4).map(|_| get(lb.address(), "/").body).collect();
    assert_eq!(names.iter().filter(|name| *name == "one").count(), 2, "in turn: {names:?}");
    assert_eq!(lb.state_of(addresses[0]), "down", "only its checks bring it back");
}

#[test]
fn good_checks_do_not_bring_back_what_failing_connections_took_out() {
    let (good, closing) = (Server::named("good"), Server::closing_after_first_bytes());
    let lb = Lb::in_front_of(&[good.address(), closing.address()]).set("health_check", TCP_CHECK).start();
    wait_until("three connections have failed", || {
        let _ = get_from(lb.address(), "/");
        lb.state_of(closing.address()) == "ejected"
    });
    // It accepts, and so is well by its checks; a few of them go by.
    let checks = closing.accepted();
    wait_until("three checks more", || closing.accepted() >= checks + 3);
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
