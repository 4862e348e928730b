//! The whole reader against recorded hellos (OpenSSL 3.0 and 4.0, BoringSSL configured like three browsers), hand-made
//! and random ones: what is read, and that neither segmentation, nor the cut into records, nor garbage changes or
//! breaks it.

use super::{ClientHello, MAX_HELLO_BYTES, NotClientHello, parse};
use crate::protocol::segmentation;
use crate::protocol::vectors::{self, Vector, Verdict, changed, find};
use proptest::prelude::*;

fn vectors() -> Vec<Vector> {
    vectors::vectors(include_str!("../../../tests/data/client-hellos.jsonl"))
}

fn check_prefixes(bytes: &[u8]) -> Verdict<ClientHello, NotClientHello> {
    let verdict = segmentation::check_prefixes(bytes, 0..=bytes.len(), parse);
    assert!(verdict != Ok(None) || bytes.len() < MAX_HELLO_BYTES, "waits for more than is allowed");
    verdict
}

/// The handshake message in sound records; what follows it is cut off.
fn message(mut records: &[u8]) -> Vec<u8> {
    let mut message = Vec::new();
    let is_whole = |message: &[u8]| match message {
        [_, high, middle, low, body @ ..] => {
            body.len() >= usize::from(*high) << 16 | usize::from(*middle) << 8 | usize::from(*low)
        }
        _ => false,
    };
    while !is_whole(&message) {
        let length = 5 + usize::from(u16::from_be_bytes([records[3], records[4]]));
        message.extend_from_slice(&records[5..length]);
        records = &records[length..];
    }
    message
}

fn in_records(message: &[u8], length: usize) -> Vec<u8> {
    let record = |fragment: &[u8]| {
        let length = u16::try_from(fragment.len()).expect("a record's length");
        [&[22, 3, 1], &length.to_be_bytes()[..], fragment].concat()
    };
    message.chunks(length).flat_map(record).collect()
}

/// A hello with a name, padded so that its message has this length.
fn padded(length: usize) -> Vec<u8> {
    let small = message(&find(vectors(), "small/name").bytes);
    // Type and length, version, random, empty id, one suite, one method.
    let (before, extensions) = small.split_at(4 + 2 + 32 + 1 + 4 + 2);
    let padding = length - small.len() - 4;
    let u16 = |number: usize| u16::try_from(number).expect("a length").to_be_bytes();
    let mut message = before.to_vec();
    message.extend(u16(extensions.len() - 2 + 4 + padding));
    message.extend_from_slice(&extensions[2..]);
    message.extend([&[0, 21], &u16(padding)[..], &vec![0; padding]].concat());
    message[2..4].copy_from_slice(&u16(length - 4));
    message
}

/// The records are sound, so that the inside is judged.
fn is_sound_outside(vector: &Vector) -> bool {
    vector.is_accepted() || vector.name.starts_with("names/") || vector.name.starts_with("body/")
}

#[test]
fn judges_every_vector_as_the_rules_ask() {
    let vectors = vectors();
    assert_eq!(vectors.len(), 104);
    for vector in vectors {
        let verdict = parse(&vector.bytes);
        vector.check(&verdict);
        if let Ok(Some(hello)) = verdict {
            assert_eq!(hello.server_name.as_deref(), vector.line["server_name"].as_str(), "{}", vector.name);
        }
    }
}

#[test]
fn judges_every_vector_alike_byte_by_byte() {
    for vector in vectors() {
        check_prefixes(&vector.bytes).ok();
    }
}

#[test]
fn judges_every_message_alike_however_it_is_cut_into_records() {
    for vector in vectors().iter().filter(|vector| is_sound_outside(vector)) {
        let (verdict, message) = (parse(&vector.bytes), message(&vector.bytes));
        for length in [1, 2, 5, 100] {
            let records = in_records(&message, length);
            if records.len() > MAX_HELLO_BYTES {
                assert_eq!(parse(&records), Err(NotClientHello::TooLong), "{}: headers count", vector.name);
                continue;
            }
            assert_eq!(parse(&records), verdict, "{} in records of {length}", vector.name);
            assert_eq!(parse(&records[..records.len() - 1]), Ok(None), "{}: complete at its last byte", vector.name);
            if records.len() < 1200 {
                assert_eq!(check_prefixes(&records), verdict, "{} in records of {length}", vector.name);
            }
        }
    }
}

#[test]
fn judges_changed_vectors_alike_byte_by_byte() {
    for vector in vectors() {
        for bytes in changed(&vector.bytes, [0x01, 0x20, 0x80, 0xff]) {
            if bytes.len() < 200 {
                check_prefixes(&bytes).ok();
            } else {
                parse(&bytes).ok();
            }
        }
    }
}

#[test]
fn says_why_a_hello_is_refused() {
    for (name, fault) in [
        ("others/HTTP", NotClientHello::NotHandshake),
        ("others/SSLv2 hello", NotClientHello::NotHandshake),
        ("others/DTLS", NotClientHello::RecordVersion),
        ("records/of length zero between", NotClientHello::RecordLength),
        ("records/length 2^14 + 1", NotClientHello::RecordLength),
        ("records/alert between", NotClientHello::OtherRecord),
        ("records/second message in the record", NotClientHello::BytesAfterMessage),
        ("messages/ServerHello", NotClientHello::OtherMessage),
        ("messages/length 17400", NotClientHello::TooLong),
        ("body/version 2.0", NotClientHello::Version),
        ("body/cut short in the random", NotClientHello::CutShort),
        ("body/session id of 33", NotClientHello::SessionId),
        ("body/odd cipher suites", NotClientHello::CipherSuites),
        ("body/no compression methods", NotClientHello::CompressionMethods),
        ("body/extension over the block's end", NotClientHello::Extensions),
        ("names/two server_name extensions", NotClientHello::RepeatedServerName),
        ("names/two host names", NotClientHello::RepeatedServerName),
        ("names/list longer than its extension", NotClientHello::ServerNameList),
        ("names/UTF-8", NotClientHello::HostName),
    ] {
        assert_eq!(parse(&find(vectors(), name).bytes), Err(fault), "{name}");
    }
}

#[test]
fn takes_a_hello_of_the_most_bytes_and_no_more() {
    let hello = Ok(Some(ClientHello { server_name: Some("a.example".to_owned()), protocols: Vec::new() }));
    let one_record = 1 << 14;
    assert_eq!(parse(&in_records(&padded(one_record), one_record)), hello);
    let most = in_records(&padded(MAX_HELLO_BYTES - 10), one_record);
    assert_eq!((most.len(), parse(&most)), (MAX_HELLO_BYTES, hello));
    let more = in_records(&padded(MAX_HELLO_BYTES - 9), one_record);
    assert_eq!(parse(&more), Err(NotClientHello::TooLong));
    assert_eq!(
        parse(&more[..MAX_HELLO_BYTES]),
        Err(NotClientHello::TooLong),
        "it doesn't wait for what can't be accepted"
    );
    assert_eq!(parse(&more[..MAX_HELLO_BYTES - 1]), Ok(None));
    let too_long = in_records(&padded(MAX_HELLO_BYTES), one_record);
    assert_eq!(parse(&too_long[..9]), Err(NotClientHello::TooLong), "by the length that it announces");
    let too_many = in_records(&padded(3000), 1);
    assert_eq!(parse(&too_many), Err(NotClientHello::TooLong), "headers count");
}

/// Bytes that get far into the reader: a sound frame around a sound start and random extensions.
fn framed() -> impl Strategy<Value = Vec<u8>> {
    let extension = (prop::sample::select(vec![0u8, 0, 10, 0x0a]), prop::collection::vec(0u8..10, 0..12));
    let name = "[a-zA-Z0-9._:-]{0,12}".prop_map(|name| {
        let length = u8::try_from(name.len()).expect("a short name");
        [&[0, length + 3, 0, 0, length], name.as_bytes()].concat()
    });
    let extension = prop_oneof![extension, (Just(0u8), name)];
    let extensions = prop::collection::vec(extension, 0..4).prop_map(|extensions| {
        let framed = |(kind, data): &(u8, Vec<u8>)| {
            [&[0, *kind, 0, u8::try_from(data.len()).expect("a short one")], &data[..]].concat()
        };
        extensions.iter().flat_map(framed).collect::<Vec<u8>>()
    });
    (extensions, any::<[bool; 2]>(), 1usize..80).prop_map(|(extensions, [is_more, is_less], record)| {
        let length = extensions.len() + usize::from(is_more) - usize::from(is_less && !extensions.is_empty());
        let mut message = vec![1, 0, 0, 0, 3, 3];
        message.extend([[7; 32].as_slice(), &[0, 0, 2, 0x13, 1, 1, 0, 0]].concat());
        message.push(u8::try_from(length).expect("a short one"));
        message.extend(extensions);
        message[3] = u8::try_from(message.len() - 4).expect("a short one");
        in_records(&message, record)
    })
}

proptest! {
    #[test]
    fn judges_any_bytes_alike_byte_by_byte(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        check_prefixes(&bytes).ok();
        check_prefixes(&[&[22, 3, 1, 0], &bytes[..]].concat()).ok();
        check_prefixes(&[&[22, 3, 1, 1, 0, 1, 0, 0, 0xfc, 3, 3], &[9; 32][..], &[0], &bytes].concat()).ok();
    }

    #[test]
    fn judges_any_extensions_alike_byte_by_byte(bytes in framed()) {
        let verdict = check_prefixes(&bytes);
        prop_assert_eq!(parse(&in_records(&message(&bytes), 300)), verdict.clone(), "in one record");
        if let Ok(Some(ClientHello { server_name: Some(name), .. })) = verdict {
            let is_part = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '_' | '.');
            prop_assert!(!name.is_empty() && name.chars().all(is_part) && !name.ends_with('.'), "{}", name);
            prop_assert!(!name.contains("..") && !name.starts_with('.'), "{}", name);
        }
    }
}
