//! Http mode under load generators that people measure with, and with bodies of a gigabyte.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::thread;

use crate::support::{Lb, Origin, Reader, Server, connect, output_of, receive_pattern, required, send_pattern};

/// Runs a load generator against two origins and gives what it printed and how many requests each origin got.
fn load(program: &str, arguments: &[&str]) -> (String, [usize; 2]) {
    let (one, two) = (Origin::new(), Origin::new());
    let lb = Lb::in_front_of(&[one.address(), two.address()]).with(&["--mode", "http"]).start();
    let url = format!("http://{}/", lb.address());
    let output = output_of(&required(program), &[arguments, &[url.as_str()]].concat());
    let failed =
        lb.metrics().sum("http_requests_total", &[]) - lb.metrics().sum("http_requests_total", &[("code", "200")]);
    assert!(failed <= 8.0, "{failed} requests did not end well; a generator may leave one a client: {output}");
    (output, [one.requests().len(), two.requests().len()])
}

/// The number behind `label`.
fn number(output: &str, label: &str) -> usize {
    let after = output.split(label).nth(1).unwrap_or_else(|| panic!("no {label:?} in {output}"));
    after
        .split_whitespace()
        .next()
        .and_then(|word| word.parse().ok())
        .unwrap_or_else(|| panic!("{label:?} in {output}"))
}

#[test]
fn ab_fails_no_request_and_its_http_1_0_connections_are_kept() {
    let (output, shares) = load("ab", &["-q", "-k", "-n", "600", "-c", "8"]);
    let figures =
        ["Complete requests:", "Failed requests:", "Keep-Alive requests:"].map(|label| number(&output, label));
    assert_eq!(figures, [600, 0, 600], "{output}");
    assert_eq!(shares, [300, 300]);
    let (output, shares) = load("ab", &["-q", "-n", "200", "-c", "8"]);
    assert_eq!(["Complete requests:", "Failed requests:"].map(|label| number(&output, label)), [200, 0], "{output}");
    assert_eq!(shares, [100, 100]);
}

#[test]
fn h2load_fails_no_request() {
    let (output, shares) = load("h2load", &["--h1", "-n", "1000", "-c", "8"]);
    assert!(output.contains("1000 succeeded, 0 failed, 0 errored, 0 timeout"), "{output}");
    assert_eq!(shares, [500, 500]);
}

#[test]
fn wrk_fails_no_request() {
    let (output, [one, two]) = load("wrk", &["-t", "1", "-c", "8", "-d", "1s"]);
    assert!(!output.contains("Non-2xx") && !output.contains("Socket errors"), "{output}");
    assert!(one + two > 50 && one.abs_diff(two) <= 8, "{one} and {two}: {output}");
}

const GIBIBYTE: usize = 1 << 30;

/// Reads a head, byte by byte, so that nothing of the body is taken.
fn read_head(stream: &mut TcpStream) -> String {
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|length| length == 1) {
        head.push(byte[0]);
    }
    String::from_utf8(head).unwrap()
}

/// Answers PUT once the body was received, whole and right; GET with such a body.
fn server_of_a_gibibyte() -> Server {
    Server::that(|mut stream| {
        loop {
            let head = read_head(&mut stream);
            if head.starts_with("PUT ") {
                assert_eq!(receive_pattern(&mut (&mut stream).take(GIBIBYTE as u64)), GIBIBYTE);
                let _ = stream.write_all(b"HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n");
            } else if head.starts_with("GET ") {
                let _ = write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {GIBIBYTE}\r\n\r\n");
                send_pattern(&mut stream, GIBIBYTE);
            } else {
                return;
            }
        }
    })
}

#[test]
fn a_gibibyte_passes_whole_up_and_down_at_the_same_time() {
    let server = server_of_a_gibibyte();
    let lb = Lb::in_front_of(&[server.address()]).with(&["--mode", "http"]).start();
    let address = lb.address();
    let upload = thread::spawn(move || {
        let mut client = Reader::of(connect(address));
        client.send(format!("PUT / HTTP/1.1\r\nHost: h\r\nContent-Length: {GIBIBYTE}\r\n\r\n"));
        send_pattern(&mut client.stream, GIBIBYTE);
        assert_eq!(client.response().status(), 201);
    });
    let mut download = connect(address);
    download.write_all(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n").unwrap();
    assert!(read_head(&mut download).contains(&format!("Content-Length: {GIBIBYTE}\r\n")));
    assert_eq!(receive_pattern(&mut (&mut download).take(GIBIBYTE as u64)), GIBIBYTE);
    upload.join().unwrap();
    let lines = lb.access_log(2);
    assert!(lines.iter().all(|line| line["cause"] == "completed"), "{lines:?}");
}
