//! Failure detection under load: backends that die, hang, reset, flap, and come back.

use std::io::{self, Write};
use std::net::{Shutdown, SocketAddr};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::{
    Flooded, Lb, Program, Refusing, Server, connect, free_port, get_from, greeting, refusing_at, required, reset,
    try_greeting, wait_until, wait_until_equal,
};

/// A greeting server as a process of its own.
const PYTHON_GREETER: &str = r#"
import socket, sys, threading
server = socket.create_server(("127.0.0.1", int(sys.argv[1])), backlog=512)
def serve(client):
    with client:
        client.sendall(b"process")
        client.recv(1)
while True:
    threading.Thread(target=serve, args=server.accept()[:1]).start()
"#;

/// One client's experience.
#[derive(Debug)]
struct Visit {
    began: Instant,
    greeting: io::Result<String>,
}

/// Clients that come at a steady pace, whether those before them have been served or not.
struct Load {
    visits: Arc<Mutex<Vec<Visit>>>,
    is_over: Arc<AtomicBool>,
    pacer: JoinHandle<()>,
}

impl Load {
    fn on(address: SocketAddr, a_second: u32) -> Self {
        let (visits, is_over) = (Arc::<Mutex<Vec<Visit>>>::default(), Arc::<AtomicBool>::default());
        let pacer = {
            let (visits, is_over) = (visits.clone(), is_over.clone());
            thread::spawn(move || {
                let mut clients = Vec::new();
                let mut next = Instant::now();
                while !is_over.load(Ordering::Acquire) {
                    let visits = visits.clone();
                    clients.push(thread::spawn(move || {
                        let began = Instant::now();
                        let greeting = try_greeting(address);
                        visits.lock().unwrap().push(Visit { began, greeting });
                    }));
                    // The pace is what this thread is for.
                    next += Duration::from_secs(1) / a_second;
                    thread::sleep(next.saturating_duration_since(Instant::now()));
                }
                clients.into_iter().for_each(|client| client.join().unwrap());
            })
        };
        Self { visits, is_over, pacer }
    }

    /// How many visits since `start` ended with this greeting.
    fn served_by(&self, name: &str, start: Instant) -> usize {
        let visits = self.visits.lock().unwrap();
        let is_it = |visit: &&Visit| visit.began >= start && visit.greeting.as_deref().is_ok_and(|by| by == name);
        visits.iter().filter(is_it).count()
    }

    fn visits(&self) -> usize {
        self.visits.lock().unwrap().len()
    }

    /// Stops, waits for the last client, and gives all visits.
    fn end(self) -> Vec<Visit> {
        self.is_over.store(true, Ordering::Release);
        self.pacer.join().unwrap();
        std::mem::take(&mut self.visits.lock().unwrap())
    }
}

fn greets(address: Refusing, name: &'static str) -> Server {
    use std::io::{Read, Write};
    Server::on(address, move |mut stream| {
        let _ = stream.write_all(name.as_bytes());
        let _ = stream.read(&mut [0]);
    })
}

#[test]
fn clients_that_leave_unanswered_are_counted_and_told_of() {
    const LINE: &str = "clients leave without an answer";
    for mode in ["tcp", "http"] {
        let hanging = Server::ignoring();
        let lb = Lb::in_front_of(&[hanging.address()]).with(&["--mode", mode]).start();
        for _ in 0..5 {
            let mut client = connect(lb.address());
            client.write_all(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n").unwrap();
            wait_until("it is asked", || lb.metrics().sum("backend_bytes_total", &[("direction", "in")]) > 0.0);
            wait_until_equal("one is served", &1.into(), || lb.backend(hanging.address())["active"].clone());
            reset(client);
            wait_until_equal("it has left", &0.into(), || lb.backend(hanging.address())["active"].clone());
        }
        wait_until_equal("counted", &5.0, || lb.metrics().sum("backend_unanswered_total", &[]));
        let lines = lb.wait_for_log(LINE, 1);
        assert_eq!((lines.len(), &lines[0]["in_a_row"]), (1, &3.into()), "mode {mode}");
        assert_eq!(lb.state_of(hanging.address()), "up", "it is no evidence");
    }
}

#[test]
fn clients_notice_nothing_while_three_of_four_backends_fail_and_come_back() {
    let good = Server::greeting("good");
    let address = free_port();
    let mut python = Command::new(required("python3"));
    let process = Program::serving_at(address, python.args(["-c", PYTHON_GREETER, &address.port().to_string()]));
    let hanging = greets(Refusing::new(), "hanging");
    let is_resetting = Arc::new(AtomicBool::new(false));
    let resetting = {
        let is_resetting = is_resetting.clone();
        Server::that(move |mut stream| {
            use std::io::{Read, Write};
            if is_resetting.load(Ordering::Acquire) {
                return reset(stream);
            }
            let _ = stream.write_all(b"resetting");
            let _ = stream.read(&mut [0]);
        })
    };
    let bad = [process.address(), hanging.address(), resetting.address()];
    let lb = Lb::in_front_of(&[good.address(), bad[0], bad[1], bad[2]])
        .with(&["--workers", "2", "--connect-timeout", "300ms"])
        .set("failure_detection.ejection", "3s")
        .start();
    let start = Instant::now();
    let load = Load::on(lb.address(), 200);
    let names = ["good", "process", "hanging", "resetting"];
    wait_until("all four are used", || names.iter().all(|name| load.served_by(name, start) > 10));

    is_resetting.store(true, Ordering::Release);
    let flooded = Flooded::at(hanging.stop());
    let killed = process.stop();
    wait_until("the three are ejected", || bad.iter().all(|address| lb.state_of(*address) == "ejected"));
    let all_ejected = Instant::now();
    wait_until("a hundred clients more", || load.served_by("good", all_ejected) >= 100);
    // Connects from before have ended. From now on only a probe fails, and each that does is an ejection.
    let retries_but_probes = || {
        let metrics = lb.metrics();
        metrics.sum("retries_total", &[]) - metrics.sum("backend_ejections_total", &[])
    };
    let (quiet, since) = (retries_but_probes(), Instant::now());
    wait_until("another hundred", || load.served_by("good", since) >= 100);
    assert!(retries_but_probes() <= quiet, "clients were sent to backends that are out");

    is_resetting.store(false, Ordering::Release);
    let _hanging = greets(flooded.end(), "hanging");
    let _process = greets(refusing_at(killed), "process");
    let repaired = Instant::now();
    wait_until("each is in use again", || names.iter().all(|name| load.served_by(name, repaired) > 10));
    let visits = load.end();
    let failed: Vec<&Visit> = visits.iter().filter(|visit| visit.greeting.is_err()).collect();
    // On a busy machine a server may have had clients in its queue for long as it was killed: these are its own.
    let mut ends = lb.access_log(visits.len());
    ends.retain(|line| !["backend_closed", "client_closed"].contains(&line["cause"].as_str().unwrap()));
    let kept_waiting = |line: &&Value| line["cause"] == "backend_reset" && line["duration_ms"].as_f64() >= Some(150.0);
    assert_eq!(failed.len(), ends.iter().filter(kept_waiting).count(), "clients saw the failure: {failed:?} {ends:#?}");
    assert_eq!(lb.wait_for_log("backend is in use again", 3).len(), 3);
    let ejections = lb.wait_for_log("backend ejected", 3);
    let counted = lb.metrics().sum("backend_ejections_total", &[]);
    assert_eq!(ejections.len() as f64, counted, "each ejection is told once: {ejections:?}");
}

#[test]
fn of_four_backends_the_bad_ones_cost_at_most_eight_of_the_first_sixty_and_none_of_the_next() {
    let good = Server::named("good");
    let (resetting, closing) = (Server::resetting_on_accept(), Server::closing_after_first_bytes());
    let dead = Refusing::new();
    let addresses = [good.address(), resetting.address(), closing.address(), dead.address()];
    let lb = Lb::in_front_of(&addresses).start();
    let failed = || (0..60).filter(|_| !get_from(lb.address(), "/").is_ok_and(|answer| answer.status == 200)).count();
    let first = failed();
    assert!(first <= 8, "{first} of the first 60 failed");
    assert_eq!(failed(), 0, "of the next 60");
}

#[test]
fn a_backend_that_ends_before_any_byte_is_replaced_unseen() {
    let good = Server::greeting("good");
    let resetting = Server::resetting_on_accept();
    let closing = Server::that(|stream| {
        let _ = stream.shutdown(Shutdown::Both);
    });
    let lb = Lb::in_front_of(&[resetting.address(), closing.address(), good.address()]).start();
    let unserved = (0..30).filter(|_| !try_greeting(lb.address()).is_ok_and(|by| by == "good")).count();
    let states = [lb.state_of(resetting.address()), lb.state_of(closing.address()), lb.state_of(good.address())];
    let ejected = states.iter().filter(|state| *state == "ejected").count();
    // One is the most for evidence, of three. A reset that overtakes the connect's success is a fact besides.
    assert!(ejected >= 1 && states[2] == "up", "{states:?}");
    let metrics = lb.metrics();
    assert!(metrics.sum("backend_bad_ends_total", &[("reason", "immediate_close")]) >= 4.0);
    let facts = metrics.sum("backend_ejections_total", &[("reason", "reset")]);
    assert_eq!(metrics.sum("backend_ejections_total", &[]), facts + 1.0, "for evidence, one");
    let lines = lb.access_log(30);
    let by_others: Vec<_> = lines.iter().filter(|line| line["backend"] != good.address().to_string()).collect();
    assert_eq!(unserved, by_others.len());
    // What ends later than at once has perhaps thought about its client: a busy machine can make it so late.
    assert!(by_others.iter().all(|line| line["duration_ms"].as_f64().unwrap() > 150.0), "{by_others:?}");
    assert!(lines.iter().any(|line| line["attempts"][0]["outcome"] == "reset"), "{lines:?}");
}

#[test]
fn a_flapping_backend_is_no_clients_loss_and_is_probed_seldom() {
    const FLAPPING: Duration = Duration::from_secs(5);
    const PHASE: Duration = Duration::from_millis(100);
    let good = Server::greeting("good");
    let flapping = Refusing::new();
    let address = flapping.address();
    let lb = Lb::in_front_of(&[good.address(), address])
        .with(&["--workers", "2"])
        .set("failure_detection.ejection", "200ms")
        .start();
    let load = Load::on(lb.address(), 100);
    let (end, mut refusing) = (Instant::now() + FLAPPING, flapping);
    while Instant::now() < end {
        let up = greets(refusing, "flapping");
        // The phases are what this test is about.
        thread::sleep(PHASE);
        refusing = up.stop();
        thread::sleep(PHASE);
    }
    let ejections = lb.log_lines_with("backend ejected").len();
    // 0.2 + 0.4 + 0.8 + 1.6 + 3.2 s: the fifth lasts beyond the end.
    assert!(ejections <= 6, "{ejections} ejections within {FLAPPING:?}");
    let _up = greets(refusing, "flapping");
    let settled = Instant::now();
    wait_until("it is in use again", || load.served_by("flapping", settled) > 10);
    let visits = load.end();
    let failed: Vec<&Visit> = visits.iter().filter(|visit| visit.greeting.is_err()).collect();
    assert!(failed.is_empty(), "{} of {} clients failed: {:?}", failed.len(), visits.len(), failed[0]);
}

#[test]
fn a_slow_start_shows_in_the_counts() {
    let good = Server::greeting("good");
    let away = Refusing::new();
    let address = away.address();
    let lb = Lb::in_front_of(&[good.address(), address])
        .set("failure_detection.failures", 1)
        .set("failure_detection.ejection", "100ms")
        .set("slow_start", "4s")
        .start();
    while lb.state_of(address) != "ejected" {
        greeting(lb.address());
    }
    let back = greets(away, "back");
    let load = Load::on(lb.address(), 200);
    wait_until("it is in use again", || back.accepted() > 0);
    let began = Instant::now();
    // Its share of the clients in each second: a weight of 1/8 to 8/8 beside one of 8/8.
    let mut shares = Vec::new();
    for second in 1..=5 {
        let (seen, taken) = (load.visits(), back.accepted());
        wait_until("a second more", || began.elapsed() >= Duration::from_secs(second));
        shares.push((back.accepted() - taken) as f64 / (load.visits() - seen) as f64);
    }
    // A client is counted when it has left, its backend's connection when it was made.
    assert!(shares[0] < 0.3 && shares[4] > 0.4, "{shares:?}");
    assert!(shares.windows(2).all(|pair| pair[0] <= pair[1] + 0.1), "{shares:?}");
    assert!(load.end().iter().all(|visit| visit.greeting.is_ok()));
}

#[test]
fn a_burst_of_clients_is_served_within_the_retry_budget() {
    const BURST: usize = 200;
    let (dead, good) = (Refusing::new(), Server::greeting("good"));
    for budget in ["20%", "0%"] {
        let lb = Lb::in_front_of(&[dead.address(), good.address()])
            .with(&["--workers", "2"])
            .set("failure_detection", "off")
            .set("retry_budget", budget)
            .start();
        let address = lb.address();
        let clients: Vec<_> = (0..BURST).map(|_| thread::spawn(move || try_greeting(address))).collect();
        for client in clients {
            assert_eq!(client.join().unwrap().unwrap(), "good", "with a budget of {budget}");
        }
        assert!(lb.metrics().sum("retries_total", &[]) >= BURST as f64 / 4.0, "many had to be served by another");
    }
}
