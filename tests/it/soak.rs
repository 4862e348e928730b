//! Much of everything for a while: nothing grows, and nothing is left at the end.
//!
//! `LB_SOAK_SECONDS` makes the soak longer: `LB_SOAK_SECONDS=600 cargo test soak`.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::support::{
    Lb, PATIENCE, Refusing, Server, allow_open_files, connect, receive_pattern, reset, resident_bytes, send_pattern,
    shrink_receive_buffer, wait_until,
};

const KIB: u64 = 1024;
const MIB: usize = 1024 * 1024;
const DEFAULT_SECONDS: u64 = 10;
/// What the first seconds of the soak take stays: scratch buffers, the allocator's arenas, code that was not run
/// before.
const WARM_UP: Duration = Duration::from_secs(3);
/// Malloc's own ups and downs between two looks; a leak of a connection's state (2 KiB) would pass it many times over.
const MOST_GROWTH: u64 = 4096 * KIB;

/// Between two rounds, each with a scrape and a reload.
const PAUSE: Duration = Duration::from_millis(200);
/// A backend goes, or comes back, after so many rounds.
const ROUNDS_OF_AN_OUTAGE: usize = 10;

/// What a client of the soak does, again and again.
#[derive(Clone, Copy, Debug)]
enum Habit {
    /// Asks, reads the answer, leaves.
    Short,
    /// Resets with an answer under way.
    Reset,
    /// Reads a large answer in bites, with pauses.
    Slow,
    /// Much, both ways at once.
    Bulk,
    /// Comes and says nothing.
    Silent,
}

const HABITS: [Habit; 7] =
    [Habit::Short, Habit::Short, Habit::Reset, Habit::Slow, Habit::Slow, Habit::Bulk, Habit::Silent];

fn server() -> Server {
    server_on(Refusing::new())
}

/// Answers each first byte in its own way.
fn server_on(address: Refusing) -> Server {
    Server::on(address, |mut stream| {
        let mut first = [0];
        if !stream.read(&mut first).is_ok_and(|length| length == 1) {
            return;
        }
        match first[0] {
            b's' => drop(stream.write_all(b"short")),
            b'l' => drop(stream.write_all(&vec![b'l'; 4 * MIB])),
            _ => {
                let mut incoming = stream.try_clone().unwrap();
                let sending = thread::spawn(move || {
                    send_pattern(&mut stream, 8 * MIB);
                    stream.shutdown(Shutdown::Write).unwrap();
                });
                assert_eq!(receive_pattern(&mut incoming), 8 * MIB, "to the backend");
                sending.join().unwrap();
            }
        }
    })
}

/// One connection. An error is what its backend's end has cut; wrong bytes fail the test.
fn act(habit: Habit, address: SocketAddr) -> io::Result<()> {
    let mut stream = connect(address);
    match habit {
        Habit::Short => {
            stream.write_all(b"s")?;
            let mut answer = [0; 5];
            stream.read_exact(&mut answer)?;
            assert_eq!(&answer, b"short");
            // The backend ended first: no TIME_WAIT keeps a local port of ours.
            assert_eq!(stream.read(&mut [0])?, 0);
            thread::sleep(Duration::from_millis(1));
        }
        Habit::Reset => {
            stream.write_all(b"l")?;
            stream.read_exact(&mut [0; 1000])?;
            reset(stream);
        }
        Habit::Slow => {
            shrink_receive_buffer(&stream);
            stream.write_all(b"l")?;
            let mut left = 4 * MIB;
            while left > 0 {
                let mut bite = vec![0; left.min(256 * 1024)];
                stream.read_exact(&mut bite)?;
                left -= bite.len();
                thread::sleep(Duration::from_millis(10));
            }
        }
        Habit::Bulk => {
            let mut incoming = stream.try_clone().unwrap();
            stream.write_all(b"b")?;
            // A backend that has begun to answer goes on to the end.
            incoming.peek(&mut [0])?;
            let sending = thread::spawn(move || {
                send_pattern(&mut stream, 8 * MIB);
                stream.shutdown(Shutdown::Write).unwrap();
            });
            assert_eq!(receive_pattern(&mut incoming), 8 * MIB, "to the client");
            sending.join().unwrap();
        }
        Habit::Silent => {
            thread::sleep(Duration::from_millis(20));
            reset(stream);
        }
    }
    Ok(())
}

/// Clients at work until they are told to stop.
struct Load {
    stop: Arc<AtomicBool>,
    connections: Arc<AtomicUsize>,
    cut: Arc<AtomicUsize>,
    clients: Vec<JoinHandle<()>>,
}

impl Load {
    fn on(address: SocketAddr) -> Self {
        let (stop, connections, cut) = <(Arc<AtomicBool>, Arc<AtomicUsize>, Arc<AtomicUsize>)>::default();
        let clients = HABITS.map(|habit| {
            let (stop, connections, cut) = (stop.clone(), connections.clone(), cut.clone());
            thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    connections.fetch_add(1, Ordering::Relaxed);
                    cut.fetch_add(usize::from(act(habit, address).is_err()), Ordering::Relaxed);
                }
            })
        });
        Self { stop, connections, cut, clients: clients.into() }
    }

    /// How many connections there were, and how many of them were cut.
    fn end(self) -> (usize, usize) {
        self.stop.store(true, Ordering::Relaxed);
        self.clients.into_iter().for_each(|client| client.join().unwrap());
        (self.connections.load(Ordering::Relaxed), self.cut.load(Ordering::Relaxed))
    }
}

/// Two backends that live, and one that comes and goes; each round changes weights and time limits.
fn config(round: usize, backends: [SocketAddr; 3]) -> String {
    let [one, two, sometimes] = backends;
    let (weight, idle) = (1 + round % 3, 60 + round % 7);
    format!(
        "listen: 127.0.0.1:0\nlog: {{access: 'off'}}\ntimeouts: {{idle: {idle}s}}\n\
         backends: ['{one}', {{address: '{two}', weight: {weight}}}, '{sometimes}']\n\
         failure_detection: {{ejection: 1s, max_ejection: 2s}}\n"
    )
}

#[test]
fn a_soak_leaves_nothing_behind() {
    let seconds = std::env::var("LB_SOAK_SECONDS").map_or(DEFAULT_SECONDS, |text| text.parse().expect("whole seconds"));
    allow_open_files(2_000);
    let (one, two, mut sometimes) = (server(), server(), Some(server()));
    let mut refusing = None;
    let backends = [one.address(), two.address(), sometimes.as_ref().unwrap().address()];
    let lb = Lb::with_config(&config(0, backends)).start();
    let warm_up = Load::on(lb.address());
    thread::sleep(WARM_UP);
    let (mut connections, cut) = warm_up.end();
    assert_eq!(cut, 0, "while nothing goes");
    lb.assert_balanced();
    let before = resident_bytes(lb.pid());
    let (mut peak, mut reloads, mut outages) = (before, 0, 0);
    let load = Load::on(lb.address());
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(seconds) {
        // Asserts each time that accepted = closed + rejected + active.
        lb.metrics();
        peak = peak.max(resident_bytes(lb.pid()));
        reloads += 1;
        lb.reload_with(&config(reloads, backends));
        if reloads % ROUNDS_OF_AN_OUTAGE == 0 {
            // It stops listening, or is there again. What it has accepted it serves to the end.
            match sometimes.take() {
                Some(server) => refusing = Some(server.stop()),
                None => sometimes = refusing.take().map(server_on),
            }
            outages += usize::from(sometimes.is_none());
        }
        thread::sleep(PAUSE);
    }
    let (further, cut) = load.end();
    connections += further;
    // What waits in the queue of a server that stops is reset by the kernel, with the client's bytes in it.
    assert!(cut <= outages * HABITS.len(), "{cut} connections were cut by {outages} outages");
    // Files, active connections of listener and backends, accepted against ended.
    lb.assert_balanced();
    let metrics = lb.metrics();
    #[allow(clippy::cast_precision_loss, reason = "a float holds such numbers exactly")]
    let expected = connections as f64;
    assert_eq!(metrics.sum("connections_accepted_total", &[]), expected);
    assert_eq!(metrics.sum("connections_rejected_total", &[]), 0.0);
    for reason in ["internal", "connect_failed", "no_backend", "idle_timeout"] {
        assert_eq!(metrics.sum("connections_closed_total", &[("reason", reason)]), 0.0, "{reason}");
    }
    assert_eq!([lb.state_of(one.address()), lb.state_of(two.address())], ["up", "up"]);
    let after = resident_bytes(lb.pid());
    // Every client has checked every byte that it got; one that missed any would have failed the test.
    println!(
        "soak of {seconds} s: {connections} connections, {reloads} reloads, {outages} outages of a backend, \
         {} retries; bytes in {}, out {}; cut with a backend: {cut}, lost else: 0; \
         resident KiB at its start {}, at most {}, at its end {}; open files as at the start",
        metrics.sum("retries_total", &[]),
        metrics.sum("bytes_total", &[("direction", "in")]),
        metrics.sum("bytes_total", &[("direction", "out")]),
        before / KIB,
        peak / KIB,
        after / KIB,
    );
    let grown = after.saturating_sub(before);
    assert!(grown < MOST_GROWTH, "{connections} connections left {grown} bytes of memory");
}

/// One small message each, all over and counted.
fn come_and_go(lb: &Lb, connections: usize) {
    const CLIENTS: usize = 4;
    let address = lb.address();
    let visit = move || {
        for _ in 0..connections / CLIENTS {
            let mut stream = TcpStream::connect_timeout(&address, PATIENCE).unwrap();
            stream.write_all(b"s").unwrap();
            let mut answer = [0; 5];
            stream.read_exact(&mut answer).unwrap();
            reset(stream);
        }
    };
    let clients: Vec<_> = (0..CLIENTS).map(|_| thread::spawn(visit)).collect();
    clients.into_iter().for_each(|client| client.join().unwrap());
}

#[test]
fn nothing_grows_when_nobody_scrapes() {
    const WARM_UP: usize = 4_000;
    const CONNECTIONS: usize = 16_000;
    // Each leaves three values in histograms, which must not wait for a scrape: 16,000 would take 400 KB and more, each
    // of them a whole connection's state 30 MB.
    const MOST_GROWTH: u64 = 1024 * KIB;
    let server = server();
    let lb = Lb::in_front_of(&[server.address()]).with(&["--access-log", "off"]).start();
    come_and_go(&lb, WARM_UP);
    let before = resident_bytes(lb.pid());
    come_and_go(&lb, CONNECTIONS);
    let mut grown = 0;
    wait_until("memory is as it was", || {
        grown = resident_bytes(lb.pid()).saturating_sub(before);
        grown < MOST_GROWTH
    });
    lb.assert_balanced();
    assert_eq!(lb.metrics().sum("connections_accepted_total", &[]), (WARM_UP + CONNECTIONS) as f64);
}
