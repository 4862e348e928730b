//! Recorded inputs and their verdicts from `tests/data`, one JSON object a line.

use serde_json::Value;

/// An input of bytes, written in hexadecimal digits.
pub(super) struct Vector {
    pub(super) name: String,
    /// `accept`, `reject` or `incomplete`.
    verdict: String,
    pub(super) bytes: Vec<u8>,
    /// All that is recorded of it.
    pub(super) line: Value,
}

/// A reader's result for some bytes.
pub(super) type Verdict<T, E> = Result<Option<T>, E>;

pub(super) fn lines(text: &str) -> impl Iterator<Item = Value> {
    text.lines().map(|line| serde_json::from_str(line).expect("a JSON line"))
}

pub(super) fn vectors(text: &str) -> Vec<Vector> {
    lines(text).map(Vector::new).collect()
}

pub(super) fn find(mut vectors: Vec<Vector>, name: &str) -> Vector {
    let at = vectors.iter().position(|vector| vector.name == name).expect("a vector of this name");
    vectors.swap_remove(at)
}

impl Vector {
    fn new(line: Value) -> Self {
        let text = |key: &str| line[key].as_str().expect("a string").to_owned();
        Self { name: text("name"), verdict: text("verdict"), bytes: from_hex(&text("hex")), line }
    }

    pub(super) fn is_accepted(&self) -> bool {
        self.verdict == "accept"
    }

    pub(super) fn check<T, E: std::fmt::Debug>(&self, verdict: &Verdict<T, E>) {
        let actual = match verdict {
            Ok(Some(_)) => "accept",
            Ok(None) => "incomplete",
            Err(_) => "reject",
        };
        assert_eq!(actual, self.verdict, "{}: {:?}", self.name, verdict.as_ref().err());
    }
}

pub(super) fn from_hex(hex: &str) -> Vec<u8> {
    let (digits, rest) = hex.as_bytes().as_chunks::<2>();
    assert!(rest.is_empty(), "{hex}");
    let byte = |pair: &[u8; 2]| {
        let text = std::str::from_utf8(pair).expect("ASCII");
        u8::from_str_radix(text, 16).expect("hexadecimal digits")
    };
    digits.iter().map(byte).collect()
}

/// `bytes` with one of them changed, at every place and by every change.
pub(super) fn changed<const N: usize>(bytes: &[u8], changes: [u8; N]) -> impl Iterator<Item = Vec<u8>> {
    (0..bytes.len()).flat_map(move |at| changes.map(|change| (at, change))).map(|(at, change)| {
        let mut bytes = bytes.to_vec();
        bytes[at] ^= change;
        bytes
    })
}
