//! Recorded first bytes of connections, with their verdicts: PROXY headers and ClientHellos.

use serde_json::Value;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Accept,
    Reject,
    /// More bytes could make it either.
    Incomplete,
}

pub struct Vector {
    pub name: String,
    pub verdict: Verdict,
    /// The header or the hello, and what is recorded to follow it.
    pub bytes: Vec<u8>,
    /// Of an accepted PROXY header: its length.
    pub length: usize,
    /// All that is recorded of it.
    pub facts: Value,
}

pub fn proxy_headers() -> Vec<Vector> {
    vectors(include_str!("../../data/proxy-vectors.jsonl"))
}

pub fn client_hellos() -> Vec<Vector> {
    vectors(include_str!("../../data/client-hellos.jsonl"))
}

fn vectors(lines: &str) -> Vec<Vector> {
    lines.lines().map(|line| vector(serde_json::from_str(line).expect("a JSON line"))).collect()
}

fn vector(facts: Value) -> Vector {
    let text = |key: &str| facts[key].as_str().unwrap_or_default();
    let bytes = [from_hex(text("hex")), from_hex(text("payload_after"))].concat();
    let verdict = match text("verdict") {
        "accept" => Verdict::Accept,
        "reject" => Verdict::Reject,
        _ => Verdict::Incomplete,
    };
    Vector { name: text("name").to_owned(), verdict, bytes, length: text("hex").len() / 2, facts }
}

fn from_hex(hex: &str) -> Vec<u8> {
    let digits = |at| u8::from_str_radix(&hex[at..at + 2], 16).expect("hexadecimal digits");
    (0..hex.len()).step_by(2).map(digits).collect()
}
