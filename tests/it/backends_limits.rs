//! Limits of backends: connections at once, the queue before them, source addresses, and very many backends.

use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::{IpAddr, Shutdown, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use crate::support::{
    Ending, Fleet, Lb, Refusing, Server, allow_open_files, connect, connect_and_read, cpu_time, greeting, read_to_end,
    reset, short_read, try_greeting, wait_until, wait_until_equal,
};

/// One backend with room for one, and a queue.
fn narrow(fleet: &Fleet, queue: &str) -> Lb {
    let backend = fleet.at("127.0.0.2");
    let yaml = format!(
        "listen: 127.0.0.1:0\nworkers: 2\nbackends: [{{address: '{backend}', max_connections: 1}}]\nqueue: {queue}\n"
    );
    Lb::with_config(&yaml).start()
}

/// Connects, and waits until it waits as the last of `waiting`, whoever holds the place being one of them.
#[track_caller]
fn wait_in(lb: &Lb, waiting: usize) -> TcpStream {
    let client = connect(lb.address());
    wait_until_equal("connections", &(waiting as f64), || lb.metrics().sum("connections_active", &[]));
    client
}

/// Connects and has the only place.
#[track_caller]
fn hold(lb: &Lb) -> TcpStream {
    let mut client = connect(lb.address());
    assert_eq!(short_read(&mut client), "127.0.0.2");
    client
}

#[track_caller]
fn assert_rejected(lb: &Lb, reason: &str, times: usize) {
    wait_until_equal(reason, &(times as f64), || lb.metrics().sum("connections_rejected_total", &[("reason", reason)]));
}

#[test]
fn max_connections_is_never_exceeded_and_everybody_in_the_queue_is_served() {
    const CLIENTS: usize = 300;
    let fleet = Fleet::start();
    let backend = |host: &str| format!("{{address: '{}', max_connections: 3}}", fleet.at(host));
    let yaml = format!(
        "listen: 127.0.0.1:0\nworkers: 2\nqueue: {{length: 1000, timeout: 20s}}\nbackends: [{}, {}]\n",
        backend("127.0.0.2"),
        backend("127.0.0.3"),
    );
    let lb = Lb::with_config(&yaml).start();
    let address = lb.address();
    let client = |_| {
        thread::spawn(move || {
            let mut stream = connect(address);
            let name = short_read(&mut stream);
            // The backend ends at this byte, so that the place is free only after it has ended.
            stream.write_all(b"!").unwrap();
            let _ = crate::support::read_to_end(&mut stream);
            name
        })
    };
    let clients: Vec<_> = (0..CLIENTS).map(client).collect();
    clients.into_iter().for_each(|client| assert!(client.join().unwrap().starts_with("127.0.0.")));
    for host in ["127.0.0.2", "127.0.0.3"] {
        let visited = fleet.visited(host);
        assert!(visited.peak <= 3, "{} at once on {host}", visited.peak);
        assert!(visited.total > CLIENTS / 10, "{host} had {} of {CLIENTS}", visited.total);
    }
}

#[test]
fn the_queue_is_first_come_first_served() {
    let fleet = Fleet::start();
    let lb = narrow(&fleet, "{length: 10, timeout: 20s}");
    let mut holder = hold(&lb);
    let wait_behind = |place: usize| {
        let client = connect(lb.address());
        wait_until_equal("in the queue", &(place as u64), || lb.waiting());
        client
    };
    let waiting: Vec<TcpStream> = (1..=6).map(wait_behind).collect();
    for mut next in waiting {
        drop(holder);
        assert_eq!(short_read(&mut next), "127.0.0.2", "whoever came first");
        assert_eq!(fleet.visited("127.0.0.2").peak, 1);
        holder = next;
    }
    drop(holder);
}

#[test]
fn without_a_queue_a_full_pool_rejects() {
    let fleet = Fleet::start();
    let lb = narrow(&fleet, "{length: 0}");
    let holder = hold(&lb);
    assert_eq!(connect_and_read(lb.address()), (Vec::new(), Ending::Reset));
    assert_rejected(&lb, "backends_full", 1);
    drop(holder);
    wait_until("there is room again", || try_greeting(lb.address()).is_ok());
}

#[test]
fn a_full_queue_rejects() {
    let fleet = Fleet::start();
    let lb = narrow(&fleet, "{length: 1, timeout: 20s}");
    let holder = hold(&lb);
    let mut waiting = wait_in(&lb, 2);
    assert_eq!(connect_and_read(lb.address()), (Vec::new(), Ending::Reset));
    assert_rejected(&lb, "queue_full", 1);
    drop(holder);
    assert_eq!(short_read(&mut waiting), "127.0.0.2");
    drop(waiting);
}

#[test]
fn waiting_in_the_queue_ends_at_its_timeout() {
    let fleet = Fleet::start();
    let lb = narrow(&fleet, "{length: 5, timeout: 200ms}");
    let _holder = hold(&lb);
    assert_eq!(connect_and_read(lb.address()), (Vec::new(), Ending::Reset));
    assert_rejected(&lb, "queue_timeout", 1);
    let line = lb.only_access();
    assert_eq!([&line["cause"], &line["reason"]], ["rejected", "queue_timeout"]);
    assert!(line["duration_ms"].as_f64().unwrap() >= 200.0, "{line}");
}

#[test]
fn a_client_that_leaves_the_queue_gives_its_place_back() {
    let fleet = Fleet::start();
    let lb = narrow(&fleet, "{length: 1, timeout: 20s}");
    let holder = hold(&lb);
    reset(wait_in(&lb, 2));
    assert_rejected(&lb, "left_queue", 1);
    drop(wait_in(&lb, 2));
    assert_rejected(&lb, "left_queue", 2);
    let mut waiting = wait_in(&lb, 2);
    drop(holder);
    assert_eq!(short_read(&mut waiting), "127.0.0.2", "a call for those who left went on to the next");
    drop(waiting);
}

#[test]
fn who_has_asked_and_ended_its_side_stays_in_the_queue() {
    let may_answer = Arc::new(AtomicBool::new(false));
    let gate = may_answer.clone();
    let server = Server::that(move |mut stream| {
        let _ = stream.read(&mut [0; 1000]);
        wait_until("it may answer", || gate.load(Ordering::SeqCst));
        let _ = stream.write_all(b"HTTP/1.0 200 OK\r\n\r\nanswer");
    });
    let lb = Lb::with_config(&format!(
        "listen: 127.0.0.1:0\nmode: http\nbackends: [{{address: '{}', max_connections: 1}}]\n\
         queue: {{length: 5, timeout: 1h}}\n",
        server.address()
    ))
    .start();
    let mut clients: Vec<_> = [0u64, 1]
        .map(|queued| {
            let mut client = connect(lb.address());
            client.write_all(b"GET / HTTP/1.0\r\n\r\n").unwrap();
            client.shutdown(Shutdown::Write).unwrap();
            wait_until_equal("in the queue", &queued, || lb.waiting());
            wait_until_equal("asked", &1, || server.accepted());
            client
        })
        .into();
    may_answer.store(true, Ordering::SeqCst);
    for client in &mut clients {
        let (answer, _) = read_to_end(client);
        assert!(answer.starts_with(b"HTTP/1.1 200 OK") && answer.ends_with(b"answer"), "{answer:?}");
    }
}

#[test]
fn who_waits_is_served_as_soon_as_another_backend_is_there_again() {
    let (narrow, away) = (Server::greeting("narrow"), Refusing::new());
    let yaml = format!(
        "listen: 127.0.0.1:0\n\
         backends: [{{address: '{}', max_connections: 1}}, {{address: '{}', max_connections: 5}}]\n\
         queue: {{length: 5, timeout: 20s}}\nhealth_check: {{interval: 50ms, rise: 1, fall: 1}}\n",
        narrow.address(),
        away.address(),
    );
    let lb = Lb::with_config(&yaml).start();
    wait_until("one is out", || lb.state_of(away.address()) == "down");
    let mut holder = connect(lb.address());
    assert_eq!(short_read(&mut holder), "narrow");
    let mut waiting: Vec<TcpStream> = (2..=4).map(|place| wait_in(&lb, place)).collect();
    let _back = Server::on(away, |mut stream| drop(stream.write_all(b"back")));
    assert!(waiting.iter_mut().all(|client| short_read(client) == "back"));
}

/// Two backends with room for one each, and a queue whose clients wait for longer than a test: one refuses, and one is
/// held by a client.
fn one_refuses_and_one_is_full(detection: &str) -> (Refusing, Server, Lb, TcpStream) {
    let (refusing, full) = (Refusing::new(), Server::greeting("full"));
    let yaml = format!(
        "listen: 127.0.0.1:0\n\
         backends: [{{address: '{}', max_connections: 1}}, {{address: '{}', max_connections: 1}}]\n\
         queue: {{length: 5, timeout: 1h}}\nfailure_detection: {detection}\n",
        refusing.address(),
        full.address(),
    );
    let lb = Lb::with_config(&yaml).start();
    let mut holder = connect(lb.address());
    assert_eq!(short_read(&mut holder), "full");
    (refusing, full, lb, holder)
}

#[test]
fn a_client_that_waits_for_a_full_backend_keeps_nobody_from_another() {
    let (refusing, _full, lb, holder) = one_refuses_and_one_is_full("off");
    // It has tried the one that refuses, and waits for the other.
    let mut waiting = wait_in(&lb, 2);
    wait_until("it waits", || lb.waiting() == 1);
    let _back = Server::on(refusing, |mut stream| {
        let _ = stream.write_all(b"back");
        let _ = stream.read_to_end(&mut Vec::new());
    });
    let mut newcomer = connect(lb.address());
    assert_eq!(short_read(&mut newcomer), "back", "at once");
    // Behind the one that can't use the place which becomes free.
    let mut behind = wait_in(&lb, 4);
    wait_until("it waits", || lb.waiting() == 2);
    drop(newcomer);
    assert_eq!(short_read(&mut behind), "back");
    drop(holder);
    assert_eq!(short_read(&mut waiting), "full", "it kept its place in the queue");
    drop((waiting, behind));
}

#[test]
fn who_waits_probes_the_backend_whose_ejection_is_over() {
    let (refusing, _full, lb, holder) = one_refuses_and_one_is_full("{failures: 1, ejection: 2s}");
    assert_eq!(lb.state_of(refusing.address()), "ejected");
    let _back = Server::on(refusing, |mut stream| drop(stream.write_all(b"back")));
    let mut waiting = wait_in(&lb, 2);
    assert_eq!(short_read(&mut waiting), "back", "nobody else comes, and no place becomes free");
    drop((waiting, holder));
}

#[test]
fn a_retry_that_waits_for_the_budget_holds_no_place() {
    let (refusing, hanging, spare) = (Refusing::new(), Server::blackhole(), Server::greeting("spare"));
    let yaml = format!(
        "listen: 127.0.0.1:0\nconnect_timeout: 19s\nattempts: 3\nfailure_detection: off\n\
         backends: ['{}', '{}', {{address: '{}', backup: true, max_connections: 1}}]\n",
        refusing.address(),
        hanging.address(),
        spare.address(),
    );
    let lb = Lb::with_config(&yaml).start();
    let failures = || lb.metrics().sum("backend_connect_failures_total", &[("reason", "refused")]);
    // Each is refused, and hangs in a retry: as many as the budget always allows.
    let hang: Vec<TcpStream> = (1..=3).map(|number| wait_in(&lb, number)).collect();
    wait_until_equal("retries", &3.0, || lb.metrics().sum("retries_total", &[]));
    lb.drain_backend(hanging.address());
    let waiting = wait_in(&lb, 4);
    wait_until_equal("refused", &4.0, failures);
    lb.drain_backend(refusing.address());
    let mut newcomer = connect(lb.address());
    assert_eq!(short_read(&mut newcomer), "spare");
    // Its reset is noticed in that wait.
    reset(waiting);
    wait_until_equal("active", &4.0, || lb.metrics().sum("connections_active", &[]));
    hang.into_iter().for_each(reset);
    drop(newcomer);
}

#[test]
fn connections_come_from_the_source_addresses_in_turn() {
    let fleet = Fleet::start();
    let lb = Lb::in_front_of(&[fleet.at("127.0.0.2")]).set("source", "[127.0.0.5, 127.0.0.6]").start();
    (0..6).for_each(|_| drop(greeting(lb.address())));
    let [five, six] = [5, 6].map(|host| IpAddr::from([127, 0, 0, host]));
    assert_eq!(fleet.peers(), [five, six, five, six, five, six]);
}

#[test]
fn a_source_address_serves_backends_of_its_own_family_only() {
    let fleet = Fleet::start();
    let lb = Lb::in_front_of(&[fleet.at("127.0.0.2"), fleet.at("::1")]).set("source", "[127.0.0.5]").start();
    let names: Vec<String> = (0..4).map(|_| greeting(lb.address())).collect();
    assert_eq!(names, ["127.0.0.2", "::1", "127.0.0.2", "::1"]);
    let ours = fleet.peers().iter().filter(|peer| peer.is_ipv4()).all(|peer| *peer == IpAddr::from([127, 0, 0, 5]));
    assert!(ours, "{:?}", fleet.peers());
}

#[test]
fn a_thousand_backends_start_quickly_and_share_exactly() {
    const BACKENDS: usize = 1000;
    allow_open_files(4096);
    let fleet = Fleet::start();
    let mut yaml = "listen: 127.0.0.1:0\nworkers: 2\nbackends:\n".to_owned();
    let host = |index: usize| format!("127.0.{}.{}", index / 250 + 1, index % 250 + 1);
    for index in 0..BACKENDS {
        writeln!(yaml, "  - {}", fleet.at(&host(index))).unwrap();
    }
    let lb = Lb::with_config(&yaml).start();
    let used = cpu_time(lb.pid());
    assert!(used < Duration::from_secs(1), "the start took {used:?} of CPU time");
    let clients: Vec<_> = (0..4)
        .map(|_| {
            let address = lb.address();
            thread::spawn(move || (0..BACKENDS / 4).for_each(|_| drop(greeting(address))))
        })
        .collect();
    clients.into_iter().for_each(|client| client.join().unwrap());
    assert!((0..BACKENDS).all(|index| fleet.visited(&host(index)).total == 1), "each exactly once");
    let metrics = lb.metrics();
    assert_eq!(metrics.label_values("backend_connections_total", "backend").len(), BACKENDS);
    assert!(metrics.samples.len() < BACKENDS * 25, "{} series", metrics.samples.len());
    assert_eq!(lb.metrics().samples.len(), metrics.samples.len(), "a scrape adds no series");
}
