//! Http mode: how requests and responses pass, and what becomes of those that don't.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::sync::{Mutex, mpsc};
use std::thread;
use std::time::Duration;

use rustix::process::Signal;

use crate::support::{
    Ending, Lb, LbBuilder, Origin, Reader, Refusing, Server, connect, read_to_end, receive_pattern, send_pattern,
    shrink_receive_buffer, wait_until,
};

fn http(backends: &[std::net::SocketAddr]) -> LbBuilder {
    Lb::in_front_of(backends).with(&["--mode", "http"])
}

/// A backend that reads a head, answers with `answer`, and waits for the end.
fn answering(answer: &'static str) -> Server {
    Server::that(move |stream| {
        let mut reader = Reader::of(stream);
        while reader.message(false).is_some() {
            reader.send(answer);
        }
    })
}

#[test]
fn pipelined_requests_are_answered_in_their_order() {
    let (one, two) = (Origin::new(), Origin::new());
    let lb = http(&[one.address(), two.address()]).start();
    let mut client = Reader::of(connect(lb.address()));
    let requests: String = (0..20)
        .map(|number| {
            format!("POST /{number} HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n")
        })
        .collect();
    client.send(&requests);
    for number in 0..20 {
        assert!(client.response().text().starts_with(&format!("POST /{number} ")));
    }
    assert_eq!((one.requests().len(), two.requests().len()), (10, 10));
    assert_eq!(one.requests()[0].body, b"1\r\na\r\n0\r\n\r\n");
}

#[test]
fn an_answer_that_ends_by_a_close_is_whole_for_a_client_that_has_asked_ahead() {
    const BODY: usize = 100_000;
    let (has_asked, may_answer) = mpsc::channel();
    let may_answer = Mutex::new(may_answer);
    let server = Server::that(move |mut stream| {
        let mut reader = Reader::of(stream.try_clone().unwrap());
        if reader.message(false).is_some() && may_answer.lock().unwrap().recv().is_ok() {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n");
            send_pattern(&mut stream, BODY);
        }
    });
    let lb = http(&[server.address()]).start();
    let mut client = connect(lb.address());
    shrink_receive_buffer(&client);
    client.write_all(b"GET /one HTTP/1.1\r\nHost: h\r\n\r\n").unwrap();
    wait_until("the backend has the request", || server.accepted() == 1);
    client.write_all(b"GET /two HTTP/1.1\r\nHost: h\r\n\r\n").unwrap();
    has_asked.send(()).unwrap();
    // Most of it is in the balancer's socket then, where a reset would find it.
    wait_until("all is sent", || lb.metrics().sum("bytes_total", &[("direction", "out")]) >= BODY as f64);
    let (received, ending) = read_to_end(&mut client);
    assert!(received.len() > BODY, "{} bytes", received.len());
    assert_eq!(ending, Ending::Clean);
}

#[test]
fn a_request_in_pieces_of_one_byte_is_the_same_request() {
    let origin = Origin::new();
    let lb = http(&[origin.address()]).start();
    let mut client = Reader::of(connect(lb.address()));
    for byte in b"POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabcGET /b HTTP/1.1\r\nHost: h\r\n\r\n" {
        client.send([*byte]);
        thread::yield_now();
    }
    assert!(client.response().text().starts_with("POST /a "));
    assert!(client.response().text().starts_with("GET /b "));
    assert_eq!(origin.requests()[0].body, b"abc");
}

#[test]
fn large_bodies_pass_whole_in_both_directions() {
    const BYTES: usize = 64 << 20;
    let server = Server::that(|mut stream| {
        let mut head = [0; 1];
        let mut seen = Vec::new();
        while !seen.ends_with(b"\r\n\r\n") && stream.read(&mut head).is_ok_and(|length| length == 1) {
            seen.push(head[0]);
        }
        if seen.starts_with(b"PUT ") {
            assert_eq!(receive_pattern(&mut (&mut stream).take(BYTES as u64)), BYTES);
            let _ = stream.write_all(b"HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n");
        } else {
            let _ = stream.write_all(format!("HTTP/1.1 200 OK\r\nContent-Length: {BYTES}\r\n\r\n").as_bytes());
            send_pattern(&mut stream, BYTES);
        }
        let _ = stream.read_to_end(&mut Vec::new());
    });
    let lb = http(&[server.address()]).set("http.backend_keep_alive.idle_connections", 0).start();
    let mut upload = connect(lb.address());
    write!(upload, "PUT / HTTP/1.1\r\nHost: h\r\nContent-Length: {BYTES}\r\n\r\n").unwrap();
    send_pattern(&mut upload, BYTES);
    assert_eq!(Reader::of(upload).response().status(), 201);
    let mut download = connect(lb.address());
    write!(download, "GET / HTTP/1.1\r\nHost: h\r\n\r\n").unwrap();
    let expected = format!("HTTP/1.1 200 OK\r\nContent-Length: {BYTES}\r\n\r\n");
    let mut head = vec![0; expected.len()];
    download.read_exact(&mut head).unwrap();
    assert_eq!(String::from_utf8_lossy(&head), expected);
    assert_eq!(receive_pattern(&mut (&mut download).take(BYTES as u64)), BYTES);
    let lines = lb.access_log(2);
    assert!(lines.iter().any(|line| line["bytes_in"].as_u64().unwrap() > BYTES as u64), "{lines:?}");
}

#[test]
fn a_100_comes_before_the_body_is_sent() {
    let server = Server::that(|mut stream| {
        let _ = stream.read(&mut [0; 4096]);
        let _ = stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\n");
        let mut body = [0; 4];
        let _ = stream.read_exact(&mut body);
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n");
        let _ = stream.write_all(&body);
    });
    let lb = http(&[server.address()]).start();
    let mut client = Reader::of(connect(lb.address()));
    client.send("POST / HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n");
    assert_eq!(client.response().status(), 100);
    assert_eq!(client.response().status(), 103);
    client.send("body");
    assert_eq!(client.response().text(), "body");
}

#[test]
fn responses_without_a_body_keep_the_connection() {
    for (method, answer) in [
        ("HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"),
        ("GET", "HTTP/1.1 204 No Content\r\n\r\n"),
        ("GET", "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n"),
    ] {
        let server = answering(answer);
        let lb = http(&[server.address()]).start();
        let mut client = connect(lb.address());
        for _ in 0..3 {
            write!(client, "{method} / HTTP/1.1\r\nHost: h\r\n\r\n").unwrap();
            let mut seen = vec![0; answer.len()];
            client.read_exact(&mut seen).unwrap();
            assert_eq!(String::from_utf8_lossy(&seen), answer);
        }
        assert_eq!(server.accepted(), 1);
    }
}

#[test]
fn an_http_1_0_client_gets_chunks_without_their_coding_and_no_interim_response() {
    let server = answering(
        "HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n\
         3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n",
    );
    let lb = http(&[server.address()]).start();
    let mut client = connect(lb.address());
    client.write_all(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n").unwrap();
    let (seen, ending) = read_to_end(&mut client);
    assert_eq!(String::from_utf8_lossy(&seen), "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nabcde");
    assert_eq!(ending, Ending::Clean);
}

#[test]
fn an_upgrade_is_a_tunnel_only_after_the_101() {
    let server = Server::that(|mut stream| {
        let mut head = vec![0; 4096];
        let length = stream.read(&mut head).unwrap_or_default();
        assert!(head[..length].ends_with(b"\r\n\r\n"), "nothing that was sent early comes before the 101");
        let _ =
            stream.write_all(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: echo\r\nConnection: Upgrade\r\n\r\nhi ");
        let mut buffer = [0; 1024];
        while let Ok(length @ 1..) = stream.read(&mut buffer) {
            let _ = stream.write_all(&buffer[..length]);
        }
        let _ = stream.shutdown(Shutdown::Write);
    });
    let lb = http(&[server.address()]).start();
    let mut client = connect(lb.address());
    client.write_all(b"GET / HTTP/1.1\r\nHost: h\r\nUpgrade: echo\r\nConnection: upgrade\r\n\r\nearly").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    let (seen, ending) = read_to_end(&mut client);
    let text = String::from_utf8_lossy(&seen).into_owned();
    assert!(text.starts_with("HTTP/1.1 101 Switching Protocols\r\n") && text.ends_with("\r\n\r\nhi early"), "{text}");
    assert_eq!(ending, Ending::Clean);
    assert_eq!(lb.only_access()["status"], 101);
}

#[test]
fn an_upgrade_that_is_answered_200_is_no_tunnel() {
    let server = answering("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    let lb = http(&[server.address()]).start();
    let mut client = Reader::of(connect(lb.address()));
    client.send("GET / HTTP/1.1\r\nHost: h\r\nUpgrade: echo\r\nConnection: upgrade\r\n\r\nGET  bad\r\n\r\n");
    assert_eq!(client.response().text(), "ok");
    assert_eq!(client.response().status(), 400, "what follows is read as HTTP");
}

#[test]
fn an_answer_before_the_uploads_end_is_delivered_and_the_connection_closed() {
    let server = Server::that(|mut stream| {
        let _ = stream.read(&mut [0; 1024]);
        let _ = stream.write_all(b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 2\r\n\r\nno");
        let _ = stream.read_to_end(&mut Vec::new());
    });
    let lb = http(&[server.address()]).start();
    let mut client = Reader::of(connect(lb.address()));
    client.send("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1000000\r\n\r\nabc");
    let answer = client.response();
    assert_eq!((answer.status(), answer.header("connection")), (413, Some("close")));
    let _ = client.stream.write_all(&[b'x'; 100_000]);
    assert!(client.is_at_end());
    let mut again = Reader::of(connect(lb.address()));
    again.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n");
    again.response();
    assert_eq!(server.accepted(), 2, "the backend's connection was not used again");
}

#[test]
fn a_stale_connection_is_replaced_once_and_blames_nobody() {
    let server = Server::that(|stream| {
        let mut reader = Reader::of(stream);
        if reader.message(false).is_some() {
            reader.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
        }
        // Takes the next request, and closes instead of answering, as a server does that times out in that moment.
        let _ = reader.message(false);
    });
    let lb = http(&[server.address()]).with(&["--workers", "1"]).start();
    let mut client = Reader::of(connect(lb.address()));
    for _ in 0..6 {
        client.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n");
        assert_eq!(client.response().text(), "ok");
    }
    assert_eq!(lb.backend(server.address())["failures"], 0);
    client.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n");
    client.response();
    client.send("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\n\r\na");
    assert_eq!(client.response().status(), 502, "a POST is never sent twice");
}

#[test]
fn another_backend_is_tried_when_connect_is_refused() {
    let (origin, refusing) = (Origin::new(), Refusing::new());
    let lb = http(&[refusing.address(), origin.address()]).start();
    let mut client = Reader::of(connect(lb.address()));
    for _ in 0..10 {
        client.send("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\n\r\na");
        assert_eq!(client.response().status(), 200);
    }
    assert_eq!(origin.requests().len(), 10);
}

#[test]
fn failures_have_their_status_and_a_reason() {
    let closing = Server::closing_after_first_bytes();
    let silent = Server::that(|mut stream| {
        let _ = stream.read_to_end(&mut Vec::new());
    });
    let garbage = answering("HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\na");
    let unasked = answering("HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n");
    let refusing = Refusing::new();
    for (backend, status, reason) in [
        (closing.address(), 502, "closed without an answer"),
        (garbage.address(), 502, "more than one Content-Length"),
        (unasked.address(), 502, "101 without a request to upgrade"),
        (refusing.address(), 503, "no backend could be connected to"),
        (silent.address(), 504, "did not answer in time"),
    ] {
        let lb = http(&[backend]).set("http.timeouts.response_header", "1s").start();
        let mut client = Reader::of(connect(lb.address()));
        for _ in 0..2 {
            client.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n");
            let answer = client.response();
            assert_eq!(answer.status(), status, "{answer:?}");
            assert!(answer.text().contains(reason), "{}", answer.text());
        }
    }
}

#[test]
fn heads_that_are_too_slow_or_too_large_are_refused() {
    let origin = Origin::new();
    let lb =
        http(&[origin.address()]).set("timeouts.client_header", "1s").set("http.timeouts.keep_alive", "1s").start();
    let line = format!("GET /{} HTTP/1.1\r\n", "a".repeat(9000));
    let head = format!("GET / HTTP/1.1\r\nHost: h\r\nA: {}\r\n", "a".repeat(17_000));
    let many = format!("GET / HTTP/1.1\r\nHost: h\r\n{}\r\n", "A: b\r\n".repeat(101));
    for (request, status) in
        [("GET / HTTP/1.1\r\nHo", 408), (&line, 414), (&head, 431), (&many, 431), ("CONNECT a:1 HTTP/1.1\r\n", 405)]
    {
        let mut client = Reader::of(connect(lb.address()));
        client.send(request);
        let answer = client.response();
        assert_eq!((answer.status(), answer.header("connection")), (status, Some("close")), "{answer:?}");
        assert!(client.is_at_end());
    }
    assert!(origin.bytes().is_empty());
    let mut idle = Reader::of(connect(lb.address()));
    idle.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n");
    idle.response();
    assert!(idle.is_at_end(), "silence after an answer ends without another");
}

#[test]
fn a_response_that_is_cut_short_is_never_taken_for_a_whole_one() {
    for head in ["Content-Length: 100\r\n\r\n", "Transfer-Encoding: chunked\r\n\r\n5\r\n"] {
        let server = Server::that(move |mut stream| {
            let _ = stream.read(&mut [0; 1024]);
            let _ = stream.write_all(format!("HTTP/1.1 200 OK\r\n{head}abc").as_bytes());
        });
        let lb = http(&[server.address()]).start();
        let mut client = connect(lb.address());
        client.write_all(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n").unwrap();
        assert_eq!(read_to_end(&mut client).1, Ending::Reset);
    }
}

#[test]
fn events_arrive_when_they_are_sent_and_a_leaving_client_is_noticed() {
    let server = Server::that(|mut stream| {
        let _ = stream.read(&mut [0; 1024]);
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n");
        while stream.write_all(b"data: a\n\n").is_ok() {
            thread::sleep(Duration::from_millis(20));
        }
    });
    let lb = http(&[server.address()]).start();
    let mut client = connect(lb.address());
    client.write_all(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n").unwrap();
    let mut seen = String::new();
    while seen.matches("data: a").count() < 3 {
        let mut buffer = [0; 1024];
        let length = client.read(&mut buffer).unwrap();
        assert!(length > 0);
        seen.push_str(&String::from_utf8_lossy(&buffer[..length]));
    }
    drop(client);
}

#[test]
fn a_stop_tells_clients_and_closes_those_without_a_request() {
    let (answer, may_answer) = mpsc::channel();
    let may_answer = Mutex::new(may_answer);
    let server = Server::that(move |stream| {
        let mut reader = Reader::of(stream);
        while let Some(request) = reader.message(false) {
            if request.head.starts_with("GET /slow") {
                may_answer.lock().unwrap().recv().unwrap();
            }
            reader.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
        }
    });
    let mut lb = http(&[server.address()]).with(&["--workers", "1"]).start();
    let mut idle = Reader::of(connect(lb.address()));
    idle.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n");
    assert_eq!(idle.response().header("connection"), None);
    let mut busy = Reader::of(connect(lb.address()));
    busy.send("GET /slow HTTP/1.1\r\nHost: h\r\n\r\n");
    wait_until("the request is under way", || lb.metrics().sum("backend_connections_active", &[]) == 1.0);
    lb.signal(Signal::TERM);
    assert!(idle.is_at_end());
    answer.send(()).unwrap();
    assert_eq!(busy.response().header("connection"), Some("close"));
    assert!(busy.is_at_end());
    assert!(lb.wait_for_end().success());
}

#[test]
fn wrong_headers_to_set_are_problems_of_the_configuration() {
    let folder = crate::support::Folder::new();
    let yaml = "listen: 127.0.0.1:0\nmode: http\nbackends: [127.0.0.1:1]\nhttp:\n  set_headers:\n    \
                X-A: $nothing\n    Connection: close\n    host: a\n  max_header_bytes: 1B\n\
                trusted_proxies: [here]\n";
    let file = folder.write("lb.yaml", yaml).display().to_string();
    let output = crate::support::run_to_end(folder.path(), &["check", "-c", &file], &[]);
    assert_eq!(output.status.code(), Some(2));
    let shown = String::from_utf8_lossy(&output.stderr).into_owned();
    for part in [":6:5: http.set_headers.X-A", ":7:5: http.set_headers.Connection", ":9:3:", ":10:"] {
        assert!(shown.contains(part), "{part} in {shown}");
    }
    assert!(shown.contains("4 problems"), "{shown}");
}
