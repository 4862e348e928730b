//! The whole reader against recorded messages and random ones: what is accepted, and that neither segmentation nor
//! garbage changes or breaks a verdict.

use super::{Body, HeadLimits, Passes, RequestFacts, RequestHead, ResponseHead, TrailerFilter};
use crate::protocol::segmentation::check_prefixes;
use crate::protocol::vectors::lines;
use proptest::prelude::*;
use serde_json::Value;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum MessageKind {
    Request,
    Response,
}

/// Length of the message where it is complete, None where more must come, and why it was refused.
type MessageVerdict = Result<Option<usize>, String>;

fn head(kind: MessageKind, buf: &[u8]) -> Result<Option<(usize, Body<'static>)>, String> {
    let limits = HeadLimits::default();
    let request = RequestFacts { head: false, upgrade: true };
    let of_response = Passes::ChunksAndTrailers(TrailerFilter::OfResponse);
    match kind {
        MessageKind::Request => RequestHead::parse(buf, &limits)
            .map(|head| head.map(|head| (head.len, Body::new(head.framing, Passes::Chunks))))
            .map_err(|rejection| rejection.to_string()),
        MessageKind::Response => ResponseHead::parse(buf, request, &limits)
            .map(|head| head.map(|head| (head.len, Body::new(head.framing, of_response))))
            .map_err(|bad| bad.to_string()),
    }
}

/// Reads as a connection does: the buffer grows piece by piece, and the body is followed once the head is complete.
fn read<'a>(kind: MessageKind, pieces: impl IntoIterator<Item = &'a [u8]>) -> MessageVerdict {
    let mut buf = Vec::new();
    let mut body = None;
    let mut len = 0;
    for piece in pieces {
        let mut fresh = piece;
        if body.is_none() {
            buf.extend_from_slice(piece);
            let Some((head_len, framing)) = head(kind, &buf)? else {
                continue;
            };
            len = head_len;
            body = Some(framing);
            fresh = &buf[head_len..];
        }
        if let Some(body) = &mut body {
            len += body.advance(fresh).map_err(|error| error.to_string())?.consumed;
        }
    }
    Ok(body.is_some_and(|body| body.is_whole_at_close()).then_some(len))
}

fn whole(kind: MessageKind, raw: &[u8]) -> MessageVerdict {
    read(kind, [raw])
}

struct MessageVector {
    name: String,
    kind: MessageKind,
    raw: Vec<u8>,
    is_accepted: bool,
    is_incomplete: bool,
}

fn vectors() -> Vec<MessageVector> {
    lines(include_str!("../../../tests/data/http1-vectors.jsonl")).map(|line| MessageVector::parse(&line)).collect()
}

impl MessageVector {
    fn parse(line: &Value) -> Self {
        let text = |key: &str| line[key].as_str().expect("a string");
        let name = text("name").to_owned();
        let verdict = if text("expected") == "either" { text("strict") } else { text("expected") };
        Self {
            kind: if text("dir") == "request" { MessageKind::Request } else { MessageKind::Response },
            // One character stands for one byte.
            raw: text("raw").chars().map(|c| u8::try_from(u32::from(c)).expect("Latin-1")).collect(),
            is_accepted: verdict == "accept",
            is_incomplete: text("note").contains("incomplete"),
            name,
        }
    }
}

#[test]
fn judges_every_vector_as_the_rules_ask() {
    let vectors = vectors();
    assert_eq!(vectors.len(), 184);
    for vector in vectors {
        let verdict = whole(vector.kind, &vector.raw);
        assert_eq!(verdict.is_ok(), vector.is_accepted, "{}: {verdict:?}", vector.name);
        assert!(!vector.is_incomplete || verdict == Ok(None), "{}: {verdict:?}", vector.name);
    }
}

#[test]
fn judges_every_vector_alike_at_every_split_and_byte_by_byte() {
    for vector in vectors() {
        let verdict = whole(vector.kind, &vector.raw);
        assert_eq!(read(vector.kind, vector.raw.chunks(1)), verdict, "{}", vector.name);
        for at in 0..vector.raw.len() {
            let (first, second) = vector.raw.split_at(at);
            assert_eq!(read(vector.kind, [first, second]), verdict, "{} at {at}", vector.name);
        }
        let head_length = |buf: &[u8]| Ok::<_, String>(head(vector.kind, buf)?.map(|(length, _)| length));
        check_prefixes(&vector.raw, 0..=vector.raw.len(), head_length).ok();
    }
}

/// Text that gets far into the readers: tokens of the grammar, in any order.
fn pieces() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop::sample::select(vec![
        &b"GET / HTTP/1.1\r\n"[..],
        b"POST http://a:1/x HTTP/1.1\r\n",
        b"HTTP/1.1 200 OK\r\n",
        b"HTTP/1.0 ",
        b"GET ",
        b"Host: a\r\n",
        b"Content-Length: 3\r\n",
        b"Transfer-Encoding: chunked\r\n",
        b"Transfer-Encoding",
        b"Connection: close\r\n",
        b"Upgrade: x\r\n",
        b"X-Forwarded-For: y\r\n",
        b"\r\n",
        b"\r",
        b"\n",
        b":",
        b" ",
        b"\t",
        b"\0",
        b"\xff",
        b"a",
        b"5",
        b"0",
        b"3\r\nabc\r\n",
        b"0\r\n",
        b"0\r\n\r\n",
        b";e=\"q\"\r\n",
        b";",
        b"\"",
        b"\\",
        b"-",
        b"_",
        b"[",
        b"]",
        b"%",
        b".",
    ]);
    prop::collection::vec(piece, 0..24).prop_map(|pieces| pieces.concat())
}

fn kind() -> impl Strategy<Value = MessageKind> {
    prop_oneof![Just(MessageKind::Request), Just(MessageKind::Response)]
}

proptest! {
    #[test]
    fn judges_alike_whatever_the_segmentation(kind in kind(), raw in pieces(), size in 1usize..40) {
        let verdict = whole(kind, &raw);
        prop_assert_eq!(read(kind, raw.chunks(size)), verdict.clone());
        prop_assert_eq!(read(kind, raw.chunks(1)), verdict);
    }

    #[test]
    fn never_panics_on_garbage(raw in prop::collection::vec(any::<u8>(), 0..300)) {
        let chunked = b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n";
        for start in [&b""[..], b"GET / HTTP/1.1\r\nHost: ", chunked] {
            let _ = whole(MessageKind::Request, &[start, &raw].concat());
        }
        for start in [&b""[..], b"HTTP/1.1 ", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"] {
            let _ = whole(MessageKind::Response, &[start, &raw].concat());
        }
    }
}
