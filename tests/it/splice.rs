//! Bulk moved by the kernel, and the same copied: readers that stall, ends and resets behind them, changes of the
//! method, and what splice(2) can't do.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use rustix::io::Errno;

use crate::harness::lacks;
use crate::support::{
    Ending, Lb, LbBuilder, METHODS, Pair, Pairs, Server, allow_open_files, connect, cpu_time, read_to_end,
    receive_pattern, required, reset, run_to_end, send_pattern, send_pattern_from, send_until_stuck,
    shrink_receive_buffer, wait_until,
};

const MIB: usize = 1024 * 1024;

/// Bytes that it has moved through pipes.
fn spliced(lb: &Lb) -> f64 {
    lb.metrics().sum("spliced_bytes_total", &[])
}

/// A balancer of one worker that moves bytes by this method.
fn by(method: &str, backends: &Pairs) -> LbBuilder {
    Lb::in_front_of(&[backends.address()]).with(&["--workers", "1"]).set("relay.mode", method)
}

/// Sends `count` bytes of the pattern from `position` on, each in a segment of its own as far as the window lets it.
fn send_one_by_one(to: &mut TcpStream, position: usize, count: usize) {
    for number in 0..count {
        send_pattern_from(to, position + number, 1);
    }
}

/// Receives and checks exactly `length` bytes of the pattern.
#[track_caller]
fn receive_exactly(from: &mut TcpStream, length: usize) {
    assert_eq!(receive_pattern(&mut from.take(length as u64)), length);
}

/// The CPU time that it takes while nothing can be done.
fn cpu_time_of_a_still_second(lb: &Lb) -> Duration {
    let before = cpu_time(lb.pid());
    thread::sleep(Duration::from_secs(1));
    cpu_time(lb.pid()) - before
}

/// A slot of a pipe holds one fragment: 256 single bytes fill one of a mebibyte.
fn single_bytes_behind_a_stalled_reader(method: &str) {
    const SINGLE_BYTES: usize = 20_000;
    let backends = Pairs::with_small_buffers();
    let lb = by(method, &backends).start();
    let Pair { mut client, mut backend } = backends.connect(&lb);
    // While the reader reads, while it does not, and once it does again.
    send_one_by_one(&mut client, 0, 2_000);
    receive_exactly(&mut backend, 2_000);
    let Pair { mut client, mut backend } = {
        drop((client, backend));
        backends.connect(&lb)
    };
    let stuck = send_until_stuck(&lb, &mut client);
    send_one_by_one(&mut client, stuck, SINGLE_BYTES);
    let used = cpu_time_of_a_still_second(&lb);
    assert!(used < Duration::from_millis(300), "{method}: used {used:?} of CPU time");
    let rest = thread::spawn(move || {
        send_one_by_one(&mut client, stuck + SINGLE_BYTES, SINGLE_BYTES);
        client.shutdown(Shutdown::Write).unwrap();
        client
    });
    assert_eq!(receive_pattern(&mut backend), stuck + 2 * SINGLE_BYTES, "{method}");
    drop((backend, rest.join().unwrap()));
}

#[test]
fn single_bytes_behind_a_stalled_reader_all_arrive() {
    thread::scope(|scope| {
        for method in METHODS {
            scope.spawn(move || single_bytes_behind_a_stalled_reader(method));
        }
    });
}

#[test]
fn an_end_behind_a_stalled_reader_comes_after_all_bytes() {
    for method in METHODS {
        let backends = Pairs::with_small_buffers();
        let lb = by(method, &backends).start();
        for upwards in [true, false] {
            let Pair { client, backend } = backends.connect(&lb);
            let (mut sender, mut reader) = if upwards { (client, backend) } else { (backend, client) };
            let sent = send_until_stuck(&lb, &mut sender);
            sender.shutdown(Shutdown::Write).unwrap();
            assert_eq!(receive_pattern(&mut reader), sent, "{method}");
            // The other direction is as it was.
            send_pattern(&mut reader, MIB / 16);
            drop(reader);
            assert_eq!(receive_pattern(&mut sender), MIB / 16, "{method}");
        }
    }
}

#[test]
fn a_spliced_direction_goes_on_after_the_other_has_ended() {
    const LENGTH: usize = 16 * MIB;
    let backends = Pairs::new();
    let lb = by("splice", &backends).start();
    for client_ends in [true, false] {
        let Pair { client, backend } = backends.connect(&lb);
        let (mut first, mut other) = if client_ends { (client, backend) } else { (backend, client) };
        send_pattern(&mut first, 1000);
        first.shutdown(Shutdown::Write).unwrap();
        assert_eq!(receive_pattern(&mut other), 1000);
        let sending = thread::spawn(move || send_pattern(&mut other, LENGTH));
        assert_eq!(receive_pattern(&mut first), LENGTH);
        sending.join().unwrap();
    }
    let causes: Vec<_> = lb.access_log(2).iter().map(|line| line["cause"].clone()).collect();
    assert_eq!(causes, ["client_closed", "backend_closed"]);
}

#[test]
fn what_a_stuck_connection_leaves_behind_reaches_nobody_else() {
    const ROUNDS: usize = 4;
    let backends = Pairs::with_small_buffers();
    let lb = by("splice", &backends).start();
    for round in 0..ROUNDS {
        let mut stuck = backends.connect(&lb);
        send_until_stuck(&lb, &mut stuck.client);
        let Pair { mut client, mut backend } = stuck;
        // Nobody reads before the balancer has noticed.
        let check = |cause: &str| assert_eq!(lb.access_log(round * 4 + 1).pop().unwrap()["cause"], cause);
        if round % 2 == 0 {
            reset(client);
            check("client_reset");
            // What the backend still gets is the beginning of what was sent, and then the reset.
            let (received, ending) = read_to_end(&mut backend);
            assert_eq!(ending, Ending::Reset);
            assert_eq!(receive_pattern(&mut received.as_slice()), received.len());
        } else {
            reset(backend);
            check("backend_reset");
            assert_eq!(read_to_end(&mut client), (Vec::new(), Ending::Reset));
        }
        // Bytes left in a pipe would come before these.
        for number in 0..3 {
            let mut other = backends.connect(&lb);
            other.ping(format!("round {round}, connection {number}").as_bytes());
            drop(other.client);
            assert_eq!(read_to_end(&mut other.backend), (Vec::new(), Ending::Clean));
            drop(other.backend);
            lb.access_log(round * 4 + 2 + number);
        }
    }
}

#[test]
fn a_pipe_in_which_a_reset_left_bytes_is_replaced() {
    let backends = Pairs::new();
    let lb = by("splice", &backends).start();
    let pipes = lb.pipes();
    let Pair { mut client, backend } = backends.connect(&lb);
    backend.shutdown(Shutdown::Write).unwrap();
    assert_eq!(read_to_end(&mut client), (Vec::new(), Ending::Clean));
    // From now on only a send to the backend shows that it is gone.
    reset(backend);
    let _ = client.write_all(&[b'x'; 64 * 1024]);
    assert_eq!(lb.only_access()["cause"], "backend_reset");
    assert!(!pipes.is_subset(&lb.pipes()), "the pipe was replaced");
    let mut other = backends.connect(&lb);
    other.ping(b"nothing before this");
    drop(other);
}

#[test]
fn a_reset_behind_a_full_pipe_is_noticed_and_passed_on() {
    let backends = Pairs::with_small_buffers();
    let lb = by("splice", &backends).start();
    let mut pair = backends.connect(&lb);
    send_until_stuck(&lb, &mut pair.client);
    reset(pair.client);
    assert_eq!(lb.only_access()["cause"], "client_reset");
    assert_eq!(read_to_end(&mut pair.backend).1, Ending::Reset);
    drop(pair.backend);
}

#[test]
fn thousands_of_connections_share_one_pipe() {
    const CONNECTIONS: usize = 3_000;
    allow_open_files(4 * CONNECTIONS as u64);
    let backends = Pairs::new();
    let lb = by("splice", &backends).start();
    let pipes = lb.pipes();
    let mut pairs: Vec<Pair> = (0..CONNECTIONS)
        .map(|_| {
            let mut pair = backends.connect(&lb);
            pair.ping(b"1");
            pair
        })
        .collect();
    for pair in &mut pairs {
        pair.ping(b"2");
    }
    assert_eq!(lb.pipes(), pipes);
    assert_eq!(spliced(&lb), (4 * CONNECTIONS) as f64);
    drop(pairs);
}

/// The head of a message, which has come before the rest is sent.
fn in_two_segments(from: &mut TcpStream, to: &mut TcpStream, rest: &[u8]) {
    for part in [b"head", rest] {
        from.write_all(part).unwrap();
        let mut received = vec![0; part.len()];
        to.read_exact(&mut received).unwrap();
    }
}

#[test]
fn small_messages_never_wait_for_a_delayed_acknowledgement() {
    const ROUNDS: usize = 1_000;
    // A delayed acknowledgement takes 40 ms, SPLICE_F_MORE held bytes back for 200 ms.
    const STALL: Duration = Duration::from_millis(40);
    for method in ["splice", "copy"] {
        let backends = Pairs::new();
        let lb = by(method, &backends).start();
        let mut pair = backends.connect(&lb);
        let mut stalled = 0;
        for round in 0..ROUNDS {
            let started = Instant::now();
            let message = vec![b'm'; 1 + round * 7 % 3_000];
            if round % 2 == 0 {
                pair.ping(&message);
            } else {
                // Two segments before an answer: with Nagle's algorithm on the way the second would wait.
                in_two_segments(&mut pair.client, &mut pair.backend, &message);
                in_two_segments(&mut pair.backend, &mut pair.client, &message);
            }
            stalled += usize::from(started.elapsed() >= STALL);
        }
        // It would be every one, or every second; a busy machine has its own stalls now and then.
        assert!(stalled < ROUNDS / 4, "{method}: {stalled} of {ROUNDS} rounds took {STALL:?} and more");
        drop(pair);
    }
}

/// A piece of a conversation: so many bytes, and a pause after them.
fn pieces() -> impl Strategy<Value = Vec<(usize, u64)>> {
    let length = prop_oneof![4 => 1..2_000_usize, 2 => 2_000..70_000_usize, 3 => 300_000..3_000_000_usize];
    prop::collection::vec((length, prop_oneof![2 => Just(0_u64), 1 => 1..20_u64]), 1..12)
}

#[test]
fn the_same_bytes_arrive_however_copying_and_splicing_alternate() {
    let server = Server::echo();
    let lb = Lb::in_front_of(&[server.address()]).start();
    let mut runner =
        TestRunner::new(Config { cases: 12, failure_persistence: None, max_shrink_iters: 20, ..Config::default() });
    let outcome = runner.run(&pieces(), |pieces| {
        let total: usize = pieces.iter().map(|(length, _)| length).sum();
        let mut client = connect(lb.address());
        client.set_nodelay(true).unwrap();
        let mut echoed = client.try_clone().unwrap();
        let receiving = thread::spawn(move || receive_pattern(&mut echoed));
        let mut sent = 0;
        for (length, pause_ms) in pieces {
            send_pattern_from(&mut client, sent, length);
            sent += length;
            thread::sleep(Duration::from_millis(pause_ms));
        }
        client.shutdown(Shutdown::Write).unwrap();
        let received = receiving.join().map_err(|_| TestCaseError::fail("a byte differs"))?;
        prop_assert_eq!(received, total);
        Ok(())
    });
    if let Err(error) = outcome {
        panic!("{error}");
    }
    assert!(spliced(&lb) > 0.0, "bulk was spliced");
}

#[test]
fn stalled_readers_keep_the_pipe_from_nobody() {
    const STALLED: usize = 20;
    const LENGTH: usize = 6 * MIB;
    let server = Server::that(|mut stream| send_pattern(&mut stream, LENGTH));
    let lb = Lb::in_front_of(&[server.address()]).with(&["--workers", "1"]).set("relay.mode", "splice").start();
    let pipes = lb.pipes();
    let stalled: Vec<TcpStream> = (0..STALLED)
        .map(|_| {
            let client = connect(lb.address());
            shrink_receive_buffer(&client);
            client
        })
        .collect();
    let mut last = 0.0;
    wait_until("they are stuck", || {
        thread::sleep(Duration::from_millis(100));
        let now = lb.metrics().sum("bytes_total", &[("direction", "out")]);
        std::mem::replace(&mut last, now) == now && now > 0.0
    });
    let before = spliced(&lb);
    assert_eq!(receive_pattern(&mut connect(lb.address())), LENGTH);
    assert!(spliced(&lb) - before > LENGTH as f64 / 2.0, "of {LENGTH}, {} bytes", spliced(&lb) - before);
    for mut client in stalled {
        assert_eq!(receive_pattern(&mut client), LENGTH);
    }
    assert_eq!(lb.pipes(), pipes);
}

#[test]
fn many_workers_have_a_pipe_each() {
    const WORKERS: usize = 40;
    let server = Server::that(|mut stream| send_pattern(&mut stream, 32 * MIB));
    let lb = Lb::in_front_of(&[server.address()]).with(&["--workers", "40"]).start();
    let started = lb.log_lines_with("accepting connections").remove(0);
    // Half of the pages that the system grants a user, in powers of two: 1 GiB / 32 / 40.
    assert_eq!((&started["pipes"], &started["pipe_bytes"]), (&WORKERS.into(), &(WORKERS * MIB / 2).into()));
    assert_eq!(lb.metrics().sum("splice_pipes", &[("state", "open")]), WORKERS as f64);
    assert_eq!(lb.metrics().sum("splice_pipes", &[("state", "refused")]), 0.0);
    assert_eq!(receive_pattern(&mut connect(lb.address())), 32 * MIB);
    assert!(spliced(&lb) > 0.0);
    let asked = ["status", "--admin", &lb.admin().to_string()];
    let shown = String::from_utf8(run_to_end(lb.folder(), &asked, &[]).stdout).unwrap();
    assert!(shown.contains("splice: 40 pipes of 20.0 MiB in all"), "{shown}");
}

/// ENOSYS of a kernel or a sandbox without it, EINVAL of one that can't, EPERM of a seccomp filter.
#[test]
fn where_splice_is_refused_bulk_is_copied_and_the_log_says_so_once() {
    const LENGTH: usize = 8 * MIB;
    let errors = [Errno::NOSYS, Errno::INVAL, Errno::PERM];
    for (error, method) in errors.into_iter().flat_map(|error| ["auto", "splice"].map(|method| (error, method))) {
        let server = Server::echo();
        let lb = Lb::in_front_of(&[server.address()])
            .set("relay.mode", method)
            .without_call("splice", error.raw_os_error())
            .start();
        for _ in 0..2 {
            let mut client = connect(lb.address());
            let mut echoed = client.try_clone().unwrap();
            let receiving = thread::spawn(move || receive_pattern(&mut echoed));
            send_pattern(&mut client, LENGTH);
            client.shutdown(Shutdown::Write).unwrap();
            assert_eq!(receiving.join().unwrap(), LENGTH, "{method}, {error}");
        }
        assert!(lb.access_log(2).iter().all(|line| line["cause"] == "client_closed"));
        let warning = "splice(2) doesn't work here: bulk is copied, which costs more (relay.mode: copy)";
        assert_eq!(lb.wait_for_log(warning, 1).len(), 1);
        assert_eq!(spliced(&lb), 0.0);
        assert!(lb.metrics().sum("splice_pipes", &[("state", "refused")]) >= 1.0);
    }
}

/// Some programs put sockets of the whole host into one, to shorten the way between local ones.
#[test]
fn bytes_in_a_sockmap_which_splice_does_not_see_all_arrive() {
    const LENGTH: usize = 8 * MIB;
    for method in METHODS {
        let backends = Pairs::new();
        let lb = by(method, &backends).start();
        let Pair { client, mut backend } = backends.connect(&lb);
        let mut sockmap = Command::new(required("python3"))
            .args(["-c", include_str!("../data/programs/sockmap.py"), &lb.pid().to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = String::new();
        BufReader::new(sockmap.stdout.take().unwrap()).read_line(&mut said).unwrap();
        if said == "not permitted\n" {
            lacks("permission to load BPF programs");
        }
        assert_eq!(said, "2\n", "both sockets are in it");
        for (mut from, mut to) in [(client.try_clone().unwrap(), &backend), (backend.try_clone().unwrap(), &client)] {
            let received = thread::scope(|scope| {
                scope.spawn(move || {
                    send_pattern(&mut from, LENGTH);
                    from.shutdown(Shutdown::Write).unwrap();
                });
                receive_pattern(&mut to)
            });
            assert_eq!(received, LENGTH, "{method}");
        }
        assert_eq!(backend.read(&mut [0]).unwrap(), 0);
        assert_eq!(lb.only_access()["cause"], "client_closed");
        drop(sockmap.stdin.take());
        sockmap.wait().unwrap();
    }
}
