//! Http mode: responses that count as failures, and requests under way while the balancer stops.

use std::io::Write;
use std::net::Shutdown;
use std::thread;

use rustix::process::Signal;

use crate::support::{Lb, LbBuilder, Origin, Reader, Server, connect, reset, wait_until};

fn http(backends: &[std::net::SocketAddr]) -> LbBuilder {
    Lb::in_front_of(backends).with(&["--mode", "http"])
}

/// A backend that answers each request with this status.
fn answering(status: u16) -> Server {
    Server::that(move |stream| {
        let mut reader = Reader::of(stream);
        while reader.message(false).is_some() {
            reader.send(format!("HTTP/1.1 {status} Status\r\nContent-Length: 0\r\n\r\n"));
        }
    })
}

/// The statuses of this many GETs over one connection.
fn statuses(lb: &Lb, count: usize) -> Vec<u16> {
    let mut client = Reader::of(connect(lb.address()));
    let get = || {
        client.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n");
        client.response().status()
    };
    std::iter::repeat_with(get).take(count).collect()
}

#[test]
fn responses_502_503_and_504_eject_a_backend_where_they_count() {
    for status in [502, 503, 504] {
        let (bad, good) = (answering(status), Origin::new());
        let lb = http(&[bad.address(), good.address()]).set("failure_detection.count_5xx", true).start();
        let seen = statuses(&lb, 20);
        let passed_on = seen.iter().filter(|seen| **seen == status).count();
        assert!(
            (3..=5).contains(&passed_on),
            "each is the client's answer, and a few beside good ones are enough: {seen:?}"
        );
        assert!(seen[10..].iter().all(|status| *status == 200), "{seen:?}");
        assert_eq!(lb.state_of(bad.address()), "ejected");
        assert_eq!(lb.metrics().sum("retries_total", &[]), 0.0, "a response is never asked for again");
    }
}

#[test]
fn no_response_ejects_a_backend_by_default_nor_does_another_status_ever() {
    for (status, counts) in [(503, false), (500, true), (404, true), (501, true)] {
        let (bad, good) = (answering(status), Origin::new());
        let lb = http(&[bad.address(), good.address()]).set("failure_detection.count_5xx", counts).start();
        let seen = statuses(&lb, 20);
        assert_eq!(seen.iter().filter(|seen| **seen == status).count(), 10, "{seen:?}");
        assert_eq!(lb.state_of(bad.address()), "up");
        // Seen, counted or not.
        let bad_ends = lb.metrics().sum("backend_bad_ends_total", &[("reason", "status_5xx")]);
        assert_eq!(bad_ends, if status == 503 { 10.0 } else { 0.0 });
    }
}

#[test]
fn good_answers_weigh_against_bad_ones_and_do_not_hide_them() {
    let (sometimes_bad, good) = (
        Server::that(|stream| {
            let mut reader = Reader::of(stream);
            while let Some(request) = reader.message(false) {
                let status = if request.head.starts_with("GET /bad ") { "503 Bad" } else { "200 OK" };
                reader.send(format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n"));
            }
        }),
        Origin::new(),
    );
    let lb = http(&[sometimes_bad.address(), good.address()]).set("failure_detection.count_5xx", true).start();
    let mut client = Reader::of(connect(lb.address()));
    let mut ask_for_both = |paths: &[&str]| {
        for path in paths.iter().flat_map(|path| [path, path]) {
            client.send(format!("GET {path} HTTP/1.1\r\nHost: h\r\n\r\n"));
            client.response();
        }
    };
    ask_for_both(&["/", "/bad", "/", "/bad", "/", "/bad", "/"]);
    assert_eq!(lb.state_of(sometimes_bad.address()), "up", "most of its answers are good");
    ask_for_both(&["/bad"; 12]);
    assert_eq!(lb.state_of(sometimes_bad.address()), "ejected", "most are bad, those of its peer good");
}

#[test]
fn an_upload_under_way_at_a_stop_is_finished_and_answered() {
    let origin = Origin::new();
    let mut lb = http(&[origin.address()]).with(&["--workers", "1"]).start();
    let mut idle = Reader::of(connect(lb.address()));
    idle.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n");
    assert_eq!(idle.response().status(), 200);
    let mut length = Reader::of(connect(lb.address()));
    length.send("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 6\r\n\r\nabc");
    let mut chunks = Reader::of(connect(lb.address()));
    chunks.send("POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n");
    let mut head = Reader::of(connect(lb.address()));
    head.send("GET / HTTP/1.1\r\n");
    wait_until("two requests are under way", || lb.metrics().sum("backend_connections_active", &[]) == 2.0);
    lb.signal(Signal::TERM);
    assert!(idle.is_at_end(), "the worker stops");
    length.send("def");
    chunks.send("0\r\n\r\n");
    for client in [&mut length, &mut chunks] {
        let answer = client.response();
        assert_eq!((answer.status(), answer.header("connection")), (200, Some("close")));
        assert!(client.is_at_end());
    }
    drop(head);
    assert!(lb.wait_for_end().success());
    assert_eq!(origin.requests().iter().map(|request| request.body.len()).sum::<usize>(), 6 + 13);
}

#[test]
fn a_request_that_outlasts_the_drain_is_cut_and_said_so() {
    let silent = Server::ignoring();
    let mut lb = http(&[silent.address()]).set("drain.timeout", "300ms").start();
    let mut client = Reader::of(connect(lb.address()));
    client.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n");
    wait_until("the request is under way", || lb.metrics().sum("backend_connections_active", &[]) == 1.0);
    lb.signal(Signal::TERM);
    assert!(client.message(true).is_none());
    assert!(lb.wait_for_end().success());
    assert_eq!(lb.only_access()["cause"], "drain_forced");
}

#[test]
fn a_stop_under_load_cuts_no_answer() {
    let (one, two) = (Origin::new(), Origin::new());
    let mut lb = http(&[one.address(), two.address()]).start();
    let address = lb.address();
    // Each asks until it is told that the connection closes; a request that was answered at all was answered whole.
    let clients: Vec<_> = (0..8)
        .map(|_| {
            let stream = connect(address);
            thread::spawn(move || {
                let mut client = Reader::of(stream);
                let mut answers = 0;
                loop {
                    use std::io::Write;
                    if client.stream.write_all(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n").is_err() {
                        return answers;
                    }
                    let Some(answer) = client.message(true) else {
                        // Idle in that very moment: closed before the request was seen.
                        assert!(client.is_at_end(), "an answer was cut");
                        return answers;
                    };
                    assert_eq!(answer.status(), 200);
                    answers += 1;
                    if answer.header("connection") == Some("close") {
                        assert!(client.is_at_end());
                        return answers;
                    }
                }
            })
        })
        .collect();
    wait_until("they are at it", || lb.metrics().sum("http_requests_total", &[]) > 100.0);
    lb.signal(Signal::TERM);
    assert!(lb.wait_for_end().success());
    let answers: usize = clients.into_iter().map(|client| client.join().unwrap()).sum();
    assert_eq!(answers, one.requests().len() + two.requests().len(), "none was asked twice, none got lost");
}

#[test]
fn a_client_that_resets_while_the_backend_is_silent_is_not_waited_for() {
    let silent = Server::ignoring();
    let lb = http(&[silent.address()]).start();
    let mut client = connect(lb.address());
    client.write_all(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n").unwrap();
    wait_until("the request is under way", || lb.metrics().sum("backend_connections_active", &[]) == 1.0);
    reset(client);
    let line = lb.only_access();
    assert_eq!((&line["cause"], &line["status"]), (&"client_reset".into(), &499.into()));
}

#[test]
fn a_backend_that_had_less_than_its_time_is_not_blamed_for_its_silence() {
    let silent = Server::ignoring();
    // A client that has ended its side may be gone: the backend may have noticed.
    for (response_header, blamed) in [("10s", 0.0), ("200ms", 1.0)] {
        let lb = http(&[silent.address()])
            .set("http.timeouts.response_header", response_header)
            .set("timeouts.half_closed", "300ms")
            .start();
        let mut client = Reader::of(connect(lb.address()));
        client.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n");
        client.stream.shutdown(Shutdown::Write).unwrap();
        assert_eq!(client.response().status(), 504);
        assert!(client.is_at_end());
        assert_eq!(lb.metrics().sum("backend_bad_ends_total", &[("reason", "no_answer")]), blamed);
    }
}
