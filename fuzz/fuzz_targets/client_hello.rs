//! ClientHellos: one verdict wherever the input is cut and however the message is cut into records, and the name that
//! a plain reader finds. The input is taken as it is, as a message's body, and as the extensions of a sound hello.
#![no_main]

use lb_fuzz::client_hello::{ClientHello, MAX_HELLO_BYTES, NotClientHello, ServerNamePattern, parse};
use libfuzzer_sys::fuzz_target;

/// Version, random, no session id, one cipher suite and one compression method.
const START: &[u8] = b"\x03\x03................................\0\0\x02\x13\x01\x01\0";
const MAX_RECORD_BYTES: usize = 1 << 14;

fuzz_target!(|data: &[u8]| {
    judge(data);
    if let Ok(length) = u16::try_from(data.len()) {
        judge_body(data);
        judge_body(&[START, &length.to_be_bytes(), data].concat());
    }
    if let Ok(text) = std::str::from_utf8(data) {
        pattern(text);
    }
});

fn judge(data: &[u8]) {
    let verdict = lb_fuzz::check_prefixes(data, parse);
    assert!(verdict != Ok(None) || data.len() < MAX_HELLO_BYTES, "waits for more than is allowed");
    let Ok(Some(hello)) = verdict else { return };
    let message = message(data);
    assert_eq!(plain_name(&message[4..]), hello.server_name);
    for length in [1, data.len() % 97 + 1, MAX_RECORD_BYTES] {
        same_in_records(&message, length, &Ok(Some(hello.clone())));
    }
}

/// The body in one record and in several.
fn judge_body(body: &[u8]) {
    let length = u32::try_from(body.len()).expect("a short body").to_be_bytes();
    let message = [&[1], &length[1..], body].concat();
    let whole = in_records(&message, MAX_RECORD_BYTES);
    judge(&whole);
    let verdict = parse(&whole);
    assert_ne!(verdict, Ok(None), "all of it is there");
    for length in [1, body.len() % 97 + 1] {
        same_in_records(&message, length, &verdict);
    }
}

fn same_in_records(message: &[u8], length: usize, verdict: &Result<Option<ClientHello>, NotClientHello>) {
    let records = in_records(message, length);
    if records.len() > MAX_HELLO_BYTES {
        assert_eq!(parse(&records), Err(NotClientHello::TooLong));
        return;
    }
    assert_eq!(parse(&records), *verdict, "in records of {length}");
    assert_eq!(parse(&records[..records.len() - 1]), Ok(None), "complete at its last byte, not before");
}

fn in_records(message: &[u8], length: usize) -> Vec<u8> {
    let record = |fragment: &[u8]| {
        let length = u16::try_from(fragment.len()).expect("a record's length").to_be_bytes();
        [&[22, 3, 1], &length[..], fragment].concat()
    };
    message.chunks(length).flat_map(record).collect()
}

/// The message of an accepted hello.
fn message(mut records: &[u8]) -> Vec<u8> {
    let mut message = Vec::new();
    while message.len() < 4 || message.len() < 4 + length(&message[1..4]) {
        let end = 5 + length(&records[3..5]);
        message.extend_from_slice(&records[5..end]);
        records = &records[end..];
    }
    assert_eq!(message.len(), 4 + length(&message[1..4]), "it ends with its record");
    message
}

fn length(bytes: &[u8]) -> usize {
    bytes.iter().fold(0, |length, byte| length << 8 | usize::from(*byte))
}

/// The name in the body of an accepted hello, by offsets: anything out of place panics.
fn plain_name(body: &[u8]) -> Option<String> {
    let mut at = 2 + 32;
    at += 1 + length(&body[at..at + 1]);
    at += 2 + length(&body[at..at + 2]);
    at += 1 + length(&body[at..at + 1]);
    if at == body.len() {
        return None;
    }
    assert_eq!(at + 2 + length(&body[at..at + 2]), body.len());
    at += 2;
    let mut found = None;
    while at < body.len() {
        let end = at + 4 + length(&body[at + 2..at + 4]);
        if length(&body[at..at + 2]) == 0 {
            assert!(found.is_none(), "one extension of names");
            found = Some(&body[at + 4..end]);
        }
        at = end;
    }
    assert_eq!(at, body.len());
    let list = found?;
    assert_eq!(2 + length(&list[..2]), list.len());
    let mut at = 2;
    let mut found = None;
    while at < list.len() {
        let end = at + 3 + length(&list[at + 1..at + 3]);
        if list[at] == 0 {
            assert!(found.is_none(), "one host name");
            found = Some(&list[at + 3..end]);
        }
        at = end;
    }
    let name = std::str::from_utf8(found?).expect("ASCII").to_ascii_lowercase();
    let name = name.strip_suffix('.').unwrap_or(&name);
    let is_address = name.parse::<std::net::Ipv4Addr>().is_ok()
        || name.trim_start_matches('[').trim_end_matches(']').parse::<std::net::Ipv6Addr>().is_ok();
    if is_address {
        return None;
    }
    assert!((1..=253).contains(&name.len()) && name.split('.').all(|label| (1..=63).contains(&label.len())));
    assert!(name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte)));
    Some(name.to_owned())
}

/// A pattern is written as it is read, and matches what it says.
fn pattern(text: &str) {
    let Ok(pattern) = text.parse::<ServerNamePattern>() else { return };
    let written = pattern.to_string();
    assert_eq!(written.parse(), Ok(pattern.clone()));
    match written.strip_prefix('*') {
        None => assert!(pattern.matches(&written) && !pattern.matches(&format!("a.{written}"))),
        Some("") => assert!(pattern.matches("example.com")),
        Some(suffix) => {
            assert!(pattern.matches(&format!("a{suffix}")) && pattern.matches(&format!("a.b{suffix}")));
            assert!(!pattern.matches(suffix) && !pattern.matches(&suffix[1..]));
        }
    }
}
