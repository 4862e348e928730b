//! Http mode against request smuggling: one verdict however the bytes are cut, and nothing of a refused request
//! arrives.

use std::io::Write;
use std::thread;

use proptest::test_runner::{Config, TestRunner};

use crate::support::{Lb, Message, Origin, Reader, Server, connect};

/// What may never be asked of a backend as a request of its own.
const HIDDEN: &str = "GET /hidden HTTP/1.1\r\nHost: h\r\n\r\n";

/// A POST with these header lines, and what follows its head.
fn post(lines: &str, rest: &str) -> String {
    format!("POST / HTTP/1.1\r\nHost: h\r\n{lines}\r\n{rest}")
}

/// Requests that are refused by their heads.
fn refused() -> Vec<String> {
    let chunks = format!("0\r\n\r\n{HIDDEN}");
    let both = |lines: &str| post(lines, &chunks);
    let mut requests = vec![
        // CL.TE and TE.CL
        both("Content-Length: 6\r\nTransfer-Encoding: chunked\r\n"),
        both("Transfer-Encoding: chunked\r\nContent-Length: 4\r\n"),
        both("transfer-encoding:\tCHUNKED\r\nCONTENT-LENGTH:0\r\n"),
        // TE.TE
        both("Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n"),
        both("Transfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n"),
        both("Transfer-Encoding: chunked\r\nTransfer-encoding: chunked\r\n"),
        // Lengths that two readers could take for two numbers
        both("Content-Length: 0\r\nContent-Length: 44\r\n"),
        both("Content-Length: 44, 44\r\n"),
        // A request of HTTP/1.0, whose readers know no chunks
        format!("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}"),
        // Two hosts
        format!("GET / HTTP/1.1\r\nHost: h\r\nHost: g\r\n\r\n{HIDDEN}"),
    ];
    for coding in [
        "xchunked",
        "chunked, identity",
        "identity, chunked",
        "\"chunked\"",
        "chunked;q=1",
        "\x0bchunked",
        "chunke\u{212a}d",
        "",
        ",",
    ] {
        requests.push(both(&format!("Transfer-Encoding: {coding}\r\n")));
    }
    for length in ["+44", "-0", "0x2c", "4 4", "44;", "", "18446744073709551660", "4\x004"] {
        requests.push(both(&format!("Content-Length: {length}\r\n")));
    }
    // Header names and line ends that one reader takes for the header, and another not
    for line in [
        "Transfer-Encoding : chunked\r\n",
        "Transfer-Encoding\t: chunked\r\n",
        " Transfer-Encoding: chunked\r\n",
        "A: b\r\n Transfer-Encoding: chunked\r\n",
        "A: b\r\n\tContent-Length: 44\r\n",
        "Transfer-Encoding\r\n: chunked\r\n",
        "Transfer-Encoding:\r\n chunked\r\n",
        "Transfer\0-Encoding: chunked\r\n",
        "Transfer-Encoding\u{a0}: chunked\r\n",
        "A: b\nTransfer-Encoding: chunked\r\n",
        "A: b\rTransfer-Encoding: chunked\r\n",
        "A: b\r\n\rTransfer-Encoding: chunked\r\n",
        ": a\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding chunked\r\n",
        "(Content-Length): 44\r\n",
    ] {
        requests.push(both(line));
    }
    requests
}

/// Requests that pass, with what of them must arrive as the body.
fn passed() -> Vec<(String, String)> {
    let length = HIDDEN.len();
    let chunks = format!("{length:x}\r\n{HIDDEN}\r\n0\r\n\r\n");
    // Names whose length, counted in a byte, is that of another header, or none (HAProxy CVE-2021-40346): they hide
    // nothing.
    let long_names = ["Content-Length", "Transfer-Encoding"].into_iter().flat_map(|name| {
        let long = move |length: usize| format!("{name}0{}", "a".repeat(length - name.len() - 1));
        [256, 256 + name.len(), 512 + name.len()].map(long)
    });
    let behind_long_names =
        long_names.map(|name| (post(&format!("{name}: 0\r\nContent-Length: {length}\r\n"), HIDDEN), HIDDEN.to_owned()));
    let mut requests = vec![
        // CL.0: what follows the head is the body, whatever it looks like
        (post(&format!("Content-Length: {length}\r\n"), HIDDEN), HIDDEN.to_owned()),
        (post("Transfer-Encoding: chunked\r\n", &chunks), chunks.clone()),
        // A name that is none of ours, though a backend may take it so: it stays behind
        (post(&format!("Transfer_Encoding: chunked\r\nContent-Length: {length}\r\n"), HIDDEN), HIDDEN.to_owned()),
        (post("Content_Length: 3\r\nTransfer-Encoding: chunked\r\n", &chunks), chunks.clone()),
        // Connection takes away no framing
        (post(&format!("Connection: Content-Length\r\nContent-Length: {length}\r\n"), HIDDEN), HIDDEN.to_owned()),
        (post("Connection: Transfer-Encoding\r\nTransfer-Encoding: chunked\r\n", &chunks), chunks),
        (format!("GET / HTTP/1.1\r\nHost: h\r\nContent-Length: {length}\r\n\r\n{HIDDEN}"), HIDDEN.to_owned()),
        // What comes after the body says nothing about it any more
        (
            post("Transfer-Encoding: chunked\r\n", &format!("0\r\nContent-Length: {length}\r\nHost: x\r\n\r\n")),
            "0\r\n\r\n".to_owned(),
        ),
    ];
    requests.extend(behind_long_names);
    requests
}

/// Bodies that break their coding after a sound head.
fn broken_in_the_body() -> Vec<String> {
    let chunked = |body: &str| post("Transfer-Encoding: chunked\r\n", &format!("{body}{HIDDEN}"));
    let bodies = [
        "1\r\nab\r\n0\r\n\r\n",
        "1\na\n0\n\n",
        "0x1\r\na\r\n0\r\n\r\n",
        "+1\r\na\r\n0\r\n\r\n",
        "1 \r\na\r\n0\r\n\r\n",
        "1;\n\r\na\r\n0\r\n\r\n",
        "10000000000000001\r\na\r\n0\r\n\r\n",
        "1\r\na0\r\n\r\n",
        "1\r\na\r\n0\r\na: b\n\r\n",
    ];
    bodies.map(chunked).to_vec()
}

struct Bench {
    origin: Origin,
    lb: Lb,
}

/// What became of one connection.
#[derive(Debug)]
struct Verdict {
    statuses: Vec<u16>,
    arrived: Vec<Message>,
    bytes: Vec<u8>,
}

impl Bench {
    fn new() -> Self {
        let origin = Origin::new();
        // One worker and no kept connections: whatever one client's request leaves behind belongs to that client.
        let lb = Lb::in_front_of(&[origin.address()])
            .with(&["--mode", "http", "--workers", "1"])
            .set("http.backend_keep_alive.idle_connections", 0)
            .start();
        Self { origin, lb }
    }

    /// Sends `pieces`, a segment each as far as the network likes, and then a request that ends the connection.
    fn verdict<'a>(&self, pieces: impl IntoIterator<Item = &'a [u8]>) -> Verdict {
        let (requests, bytes) = (self.origin.requests().len(), self.origin.bytes().len());
        let stream = connect(self.lb.address());
        stream.set_nodelay(true).unwrap();
        let mut client = Reader::of(stream);
        for piece in pieces {
            // After a refusal nothing more need be taken.
            if client.stream.write_all(piece).is_err() {
                break;
            }
            thread::yield_now();
        }
        let _ = client.stream.write_all(b"GET /last HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n");
        let statuses = std::iter::from_fn(|| client.message(true)).map(|answer| answer.status()).collect();
        let (arrived, seen) = (self.origin.requests().split_off(requests), self.origin.bytes().split_off(bytes));
        Verdict { statuses, arrived, bytes: seen }
    }

    #[track_caller]
    fn assert_refused<'a>(&self, request: &str, pieces: impl IntoIterator<Item = &'a [u8]>) {
        let Verdict { statuses, arrived, bytes } = self.verdict(pieces);
        assert!(statuses == [400] && arrived.is_empty() && bytes.is_empty(), "{request:?}: {statuses:?}, {arrived:?}");
    }

    #[track_caller]
    fn assert_passed<'a>(&self, request: &str, body: &str, pieces: impl IntoIterator<Item = &'a [u8]>) {
        let Verdict { statuses, arrived, .. } = self.verdict(pieces);
        assert!(statuses == [200, 200] && arrived.len() == 2, "{request:?}: {statuses:?}, {arrived:?}");
        assert_eq!(arrived[0].text(), body, "{request:?}");
        assert!(!arrived[0].head.contains('_'), "{}", arrived[0].head);
        assert!(arrived[1].head.starts_with("GET /last "), "{request:?}: {arrived:?}");
    }

    /// Some of it has gone to the backend before it broke: it is never completed there.
    #[track_caller]
    fn assert_never_completed<'a>(&self, request: &str, pieces: impl IntoIterator<Item = &'a [u8]>) {
        let Verdict { statuses, arrived, bytes } = self.verdict(pieces);
        assert!(statuses == [400] && arrived.is_empty(), "{request:?}: {statuses:?}, {arrived:?}");
        assert!(!String::from_utf8_lossy(&bytes).contains("/hidden"), "{request:?}");
    }
}

fn whole(request: &str) -> [&[u8]; 1] {
    [request.as_bytes()]
}

#[test]
fn what_two_readers_could_read_differently_is_refused_and_reaches_nobody() {
    let bench = Bench::new();
    for request in refused() {
        bench.assert_refused(&request, whole(&request));
        bench.assert_refused(&request, request.as_bytes().chunks(1));
    }
    // The origin may read later than a client sees its refusal: whatever was sent to it came before this.
    bench.assert_passed("", "", std::iter::once(&b"GET / HTTP/1.1\r\nHost: h\r\n\r\n"[..]));
    assert_eq!(bench.origin.requests().len(), 2);
    assert_eq!(bench.origin.connections(), 2);
}

#[test]
fn a_request_inside_a_body_stays_a_body() {
    let bench = Bench::new();
    for (request, body) in passed() {
        bench.assert_passed(&request, &body, whole(&request));
        bench.assert_passed(&request, &body, request.as_bytes().chunks(1));
    }
}

#[test]
fn a_body_that_breaks_its_coding_is_never_completed() {
    let bench = Bench::new();
    for request in broken_in_the_body() {
        bench.assert_never_completed(&request, whole(&request));
        bench.assert_never_completed(&request, request.as_bytes().chunks(1));
    }
}

#[test]
fn the_verdict_is_the_same_at_every_place_where_the_request_is_cut() {
    let bench = Bench::new();
    let (refused, passed, broken) = (refused(), passed(), broken_in_the_body());
    for request in [&refused[0], &refused[3], &refused[8]] {
        for at in 1..request.len() {
            let (one, two) = request.as_bytes().split_at(at);
            bench.assert_refused(request, [one, two]);
        }
    }
    for (request, body) in &passed[..2] {
        for at in 1..request.len() {
            let (one, two) = request.as_bytes().split_at(at);
            bench.assert_passed(request, body, [one, two]);
        }
    }
    for at in 1..broken[0].len() {
        let (one, two) = broken[0].as_bytes().split_at(at);
        bench.assert_never_completed(&broken[0], [one, two]);
    }
}

#[test]
fn the_verdict_is_the_same_for_any_segments() {
    let bench = Bench::new();
    let (refused, passed) = (refused(), passed());
    let cases = (0..refused.len() + passed.len(), proptest::collection::vec(1..40_usize, 1..30));
    let mut runner = TestRunner::new(Config { cases: 60, failure_persistence: None, ..Config::default() });
    let outcome = runner.run(&cases, |(number, lengths)| {
        let request = refused.get(number).unwrap_or_else(|| &passed[number - refused.len()].0);
        let mut rest = request.as_bytes();
        let mut pieces = Vec::new();
        for length in lengths.into_iter().cycle() {
            let (piece, after) = rest.split_at(length.min(rest.len()));
            pieces.push(piece);
            rest = after;
            if rest.is_empty() {
                break;
            }
        }
        match number.checked_sub(refused.len()) {
            None => bench.assert_refused(request, pieces),
            Some(passes) => bench.assert_passed(request, &passed[passes].1, pieces),
        }
        Ok(())
    });
    outcome.unwrap();
}

#[test]
fn a_backend_that_takes_a_body_for_a_request_poisons_nobody_else() {
    // CL.0: it ignores Content-Length, answers twice, and the second answer belongs to nobody.
    let answer = |text: &str| format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{text}", text.len());
    let server = Server::that(move |stream| {
        let mut reader = Reader::of(stream);
        reader.reads_no_bodies = true;
        while let Some(request) = reader.message(false) {
            if request.head.starts_with("POST ") {
                let _ = reader.message(false);
                reader.send([answer("posted"), answer("hidden")].concat());
            } else {
                reader.send(answer("right"));
            }
        }
    });
    let lb = Lb::in_front_of(&[server.address()]).with(&["--mode", "http", "--workers", "1"]).start();
    let mut attacker = Reader::of(connect(lb.address()));
    attacker.send(post(&format!("Content-Length: {}\r\n", HIDDEN.len()), HIDDEN));
    assert_eq!(attacker.response().text(), "posted");
    for _ in 0..4 {
        let mut victim = Reader::of(connect(lb.address()));
        victim.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n");
        assert_eq!(victim.response().text(), "right");
    }
}
