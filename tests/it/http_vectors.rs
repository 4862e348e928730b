//! Every recorded message through the running program: refused where the rules say so, and nothing of it passed on.

use std::net::Shutdown;
use std::time::Duration;

use serde_json::Value;

use crate::support::{Lb, Message, Origin, Reader, Server, connect, read_to_end};

struct Vector {
    name: String,
    raw: Vec<u8>,
    is_accepted: bool,
    is_incomplete: bool,
}

fn vectors(direction: &str) -> Vec<Vector> {
    let lines = include_str!("../data/http1-vectors.jsonl").lines();
    let values = lines.map(|line| serde_json::from_str::<Value>(line).unwrap());
    values.filter(|value| value["dir"] == direction).map(|value| vector(&value)).collect()
}

fn vector(value: &Value) -> Vector {
    let text = |key: &str| value[key].as_str().unwrap();
    let verdict = if text("expected") == "either" { text("strict") } else { text("expected") };
    Vector {
        name: text("name").to_owned(),
        raw: text("raw").chars().map(|c| u8::try_from(u32::from(c)).unwrap()).collect(),
        is_accepted: verdict == "accept",
        is_incomplete: text("note").contains("incomplete"),
    }
}

/// Patient enough for an answer on a busy machine where one is due; short where none can come.
const NO_ANSWER_AFTER: Duration = Duration::from_millis(150);

#[test]
fn every_request_gets_its_verdict_and_a_refused_one_reaches_nobody() {
    let origin = Origin::new();
    let lb = Lb::in_front_of(&[origin.address()]).with(&["--mode", "http"]).start();
    for Vector { name, raw, is_accepted, is_incomplete } in vectors("request") {
        let (bytes_before, whole_before) = (origin.bytes().len(), origin.requests().len());
        let stream = connect(lb.address());
        if is_incomplete {
            stream.set_read_timeout(Some(NO_ANSWER_AFTER)).unwrap();
        }
        let mut client = Reader::of(stream);
        client.reads_no_bodies = raw.starts_with(b"HEAD ");
        client.send(&raw);
        let answer = client.message(true);
        let status = answer.as_ref().map(Message::status);
        match (is_accepted, is_incomplete) {
            (true, true) => assert_eq!(status, None, "{name}"),
            (true, false) => assert_eq!(status, Some(200), "{name}: {answer:?}"),
            (false, _) => {
                assert!(status.is_some_and(|status| [400, 405, 505].contains(&status)), "{name}: {answer:?}");
                assert!(client.is_at_end(), "{name}: closed after the answer");
                assert_eq!(origin.requests().len(), whole_before, "{name}: none is completed");
                let broke_in_body = raw.windows(7).any(|seven| seven.eq_ignore_ascii_case(b"chunked"));
                assert!(broke_in_body || origin.bytes().len() == bytes_before, "{name}: nothing reaches a backend");
            }
        }
    }
}

#[test]
fn every_response_gets_its_verdict() {
    for Vector { name, raw, is_accepted, is_incomplete } in vectors("response") {
        let bytes = raw.clone();
        let origin = Server::that(move |mut stream| {
            use std::io::{Read, Write};
            let _ = stream.read(&mut [0; 4096]);
            let _ = stream.write_all(&bytes);
            let _ = stream.shutdown(Shutdown::Write);
            let _ = stream.read_to_end(&mut Vec::new());
        });
        let builder = Lb::in_front_of(&[origin.address()]).with(&["--mode", "http", "--workers", "1"]);
        let lb = builder.start();
        let mut stream = connect(lb.address());
        std::io::Write::write_all(
            &mut stream,
            b"GET / HTTP/1.1\r\nHost: h\r\nConnection: close, upgrade\r\nUpgrade: x\r\n\r\n",
        )
        .unwrap();
        let (answer, _) = read_to_end(&mut stream);
        let text = String::from_utf8_lossy(&answer).into_owned();
        let is_refused = text.contains("HTTP/1.1 502 Bad Gateway\r\n");
        let broke_in_body = raw.windows(7).any(|seven| seven.eq_ignore_ascii_case(b"chunked"));
        match (is_accepted, is_incomplete) {
            (true, true) => {}
            (true, false) => assert!(!is_refused && text.starts_with("HTTP/1.1 "), "{name}: {text:?}"),
            (false, _) => assert!(is_refused || broke_in_body, "{name}: {text:?}"),
        }
    }
}

#[test]
fn an_answer_with_one_meaning_only_arrives_as_it_should_have_been_sent() {
    let canonical = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
    let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    for (sent, expected) in [
        ("HTTP/1.1 200 OK\nContent-Length: 2\n\nok".to_owned(), canonical.to_owned()),
        ("HTTP/1.1  200 OK\r\nContent-Length: 2\r\n\r\nok".to_owned(), canonical.to_owned()),
        ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nok".to_owned(), canonical.to_owned()),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nA: b\x01\x1bc\r\n\r\nok".to_owned(),
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nA: b  c\r\n\r\nok".to_owned(),
        ),
        (format!("{chunked}2  \r\nok\r\n0 \r\n\r\n"), format!("{chunked}2\r\nok\r\n0\r\n\r\n")),
        (
            format!("{chunked}2\r\nok\r\n0\r\nDigest: a\r\nContent-Length: 9\r\n\r\n"),
            format!("{chunked}2\r\nok\r\n0\r\nDigest: a\r\n\r\n"),
        ),
    ] {
        let answer = sent.clone();
        let origin = Server::that(move |stream| {
            let mut reader = Reader::of(stream);
            while reader.message(false).is_some() {
                // Byte by byte: what is left out doesn't depend on where the network cuts.
                answer.bytes().for_each(|byte| reader.send([byte]));
            }
        });
        let lb = Lb::in_front_of(&[origin.address()]).with(&["--mode", "http", "--workers", "1"]).start();
        let mut client = Reader::of(connect(lb.address()));
        for _ in 0..2 {
            client.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n");
            let answer = client.response();
            assert_eq!([answer.head.as_bytes(), &answer.body].concat(), expected.as_bytes(), "{sent:?}");
        }
        assert_eq!(origin.accepted(), 1, "the connection is kept after {sent:?}");
    }
}
