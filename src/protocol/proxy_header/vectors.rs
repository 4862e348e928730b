//! Reader and writer against recorded headers and random ones: what is accepted, that neither segmentation nor garbage
//! changes or breaks a verdict, and that what is written is read back.

use super::{Header, MAX_HEADER_BYTES, Malformed, Origin, ProxyVersion, TlsFacts, parse, write};
use crate::protocol::segmentation;
use crate::protocol::vectors::{self, Vector, Verdict, changed, find, from_hex};
use proptest::prelude::*;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

/// The bytes of each are the header and what follows it.
fn vectors() -> Vec<Vector> {
    let mut vectors = vectors::vectors(include_str!("../../../tests/data/proxy-vectors.jsonl"));
    for vector in &mut vectors {
        assert!(length(vector).is_none_or(|length| length == vector.bytes.len()), "{}", vector.line);
        if let Some(payload) = vector.line["payload_after"].as_str() {
            vector.bytes.extend(from_hex(payload));
        }
    }
    vectors
}

/// Of the header alone.
fn length(vector: &Vector) -> Option<usize> {
    vector.line["length"].as_u64().map(|length| usize::try_from(length).expect("a length"))
}

/// The origin that an accepted one is recorded with.
fn origin_of(vector: &Vector) -> Option<Origin> {
    let address = |key: &str| vector.line[key].as_str().expect("a string").parse().expect("an address");
    match vector.line["origin"].as_str() {
        Some("tcp") => Some(Origin::Tcp { client: address("client"), server: address("server") }),
        Some("local") => Some(Origin::Local),
        Some("unix") => Some(Origin::Unix),
        _ => None,
    }
}

/// Also checks that a header is accepted exactly at its last byte.
fn check_prefixes(bytes: &[u8]) -> Verdict<(Origin, usize), Malformed> {
    let verdict = segmentation::check_prefixes(bytes, 0..=bytes.len(), parse);
    if let Ok(Some((_, length))) = verdict {
        assert_eq!(parse(&bytes[..length - 1]), Ok(None), "at its last byte, not before");
        assert_eq!(parse(&bytes[..length]), verdict, "at its last byte, not after");
        assert!(length <= MAX_HEADER_BYTES);
    }
    assert!(verdict != Ok(None) || bytes.len() < MAX_HEADER_BYTES, "waits for more than is allowed");
    verdict
}

#[test]
fn judges_every_vector_as_the_specification_asks() {
    let vectors = vectors();
    assert_eq!(vectors.len(), 144);
    for vector in vectors {
        let verdict = parse(&vector.bytes);
        vector.check(&verdict);
        if let Ok(Some((origin, header))) = verdict {
            assert_eq!((Some(origin), Some(header)), (origin_of(&vector), length(&vector)), "{}", vector.name);
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
fn judges_changed_vectors_alike_byte_by_byte() {
    for vector in vectors().iter().filter(|vector| vector.bytes.len() < 300) {
        for bytes in changed(&vector.bytes, [0x01, 0x02, 0x10, 0x80, 0xff]) {
            check_prefixes(&bytes).ok();
        }
    }
}

#[test]
fn refuses_a_header_for_the_right_cause() {
    for (name, malformed) in [
        ("neither/HTTP", Malformed::Signature),
        ("v1/other word", Malformed::Signature),
        ("v1/nothing but PROXY", Malformed::Spacing),
        ("v1/protocol UDP4", Malformed::Protocol),
        ("v1/octet 256", Malformed::Address),
        ("v1/leading zero in a port", Malformed::Port),
        ("v1/LF alone", Malformed::LineEnd),
        ("v1/no CRLF within 107 bytes", Malformed::LineTooLong),
        ("v2/signature wrong at its NUL", Malformed::Signature),
        ("v2/version 3", Malformed::Version),
        ("v2/command 2", Malformed::Command),
        ("v2/family 4", Malformed::Family),
        ("v2/UDP over IPv4", Malformed::Datagram),
        ("v2/LOCAL of length 65535", Malformed::TooLong),
        ("v2/TCP over IPv6, length 12", Malformed::AddressesCutShort),
        ("v2/TLV over the end, the payload would hold it", Malformed::TlvOverrun),
        ("v2/checksum of 3 bytes", Malformed::ChecksumLength),
        ("v2/two checksums", Malformed::RepeatedChecksum),
        ("v2/wrong checksum", Malformed::WrongChecksum),
    ] {
        assert_eq!(parse(&find(vectors(), name).bytes), Err(malformed), "{name}");
    }
}

#[test]
fn refuses_as_soon_as_no_more_bytes_can_help() {
    let fixed = b"\r\n\r\n\0\r\nQUIT\n\x21\x11";
    assert_eq!(parse(b"G"), Err(Malformed::Signature));
    assert_eq!(parse(b"PO"), Err(Malformed::Signature));
    assert_eq!(parse(&[&fixed[..], &[0x10]].concat()), Err(Malformed::TooLong), "by the length's first byte");
    assert_eq!(parse(&[&fixed[..], &[0, 11]].concat()), Err(Malformed::AddressesCutShort));
    assert_eq!(parse(&[&fixed[..], &[0, 14]].concat()), Err(Malformed::TlvOverrun), "no TLV has two bytes");
    assert_eq!(parse(&fixed[..13]), Ok(None));
    assert_eq!(parse(&[&fixed[..12], &[0x33]].concat()), Err(Malformed::Version));
}

#[test]
fn says_of_tls_what_the_specification_asks_for() {
    let client = "127.0.0.1:1".parse().expect("an address");
    let header = |client_name| {
        let (version, cipher) = ("TLSv1.2", "ECDHE-RSA-AES128-GCM-SHA256");
        let (server_name, alpn) = (Some("a.b"), Some(&b"h2"[..]));
        let tls = TlsFacts { version, cipher, server_name, alpn, client: client_name };
        let mut out = Vec::new();
        let header = Header { origin: Origin::Tcp { client, server: client }, tls: Some(tls) };
        write(ProxyVersion::V2, &header, &mut out);
        out.split_off(16 + 12)
    };
    let cipher = b"\x23\0\x1bECDHE-RSA-AES128-GCM-SHA256";
    let names = b"\x01\0\x02h2\x02\0\x03a.b";
    let anonymous = [&names[..], b"\x20\0\x2d\x01\0\0\0\x01\x21\0\x07TLSv1.2", cipher].concat();
    assert_eq!(header(None), anonymous, "over TLS, and not verified");
    let known = [&names[..], b"\x20\0\x31\x07\0\0\0\0\x21\0\x07TLSv1.2\x22\0\x01x", cipher].concat();
    assert_eq!(header(Some("x")), known, "with a certificate, which was verified");
}

#[test]
fn writes_what_the_specification_shows() {
    let write_all = |version, origin: Origin| {
        let mut out = b"before".to_vec();
        write(version, &origin.into(), &mut out);
        out.split_off(6)
    };
    let address = |text: &str| text.parse().expect("an address");
    let tcp = |client: &str, server: &str| Origin::Tcp { client: address(client), server: address(server) };
    let line = |origin| String::from_utf8(write_all(ProxyVersion::V1, origin)).expect("ASCII");
    let example = tcp("192.168.0.1:56324", "192.168.0.11:443");
    assert_eq!(line(example), "PROXY TCP4 192.168.0.1 192.168.0.11 56324 443\r\n");
    assert_eq!(line(tcp("[2001:db8::1]:1", "[::1]:2")), "PROXY TCP6 2001:db8::1 ::1 1 2\r\n");
    assert_eq!(line(tcp("192.0.2.1:1", "[::1]:2")), "PROXY TCP6 ::ffff:c000:201 ::1 1 2\r\n");
    assert_eq!(line(tcp("[::ffff:192.0.2.1]:1", "192.0.2.2:2")), "PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n");
    assert_eq!(line(Origin::Local), "PROXY UNKNOWN\r\n");
    assert_eq!(line(Origin::Unix), "PROXY UNKNOWN\r\n");
    for name in ["v2/TCP over IPv4", "v2/TCP over IPv6", "v2/LOCAL without a block"] {
        let vector = find(vectors(), name);
        let header = write_all(ProxyVersion::V2, origin_of(&vector).expect("an accepted vector"));
        assert_eq!(Some(header.len()), length(&vector), "{name}");
        assert_eq!(header, vector.bytes[..header.len()], "{name}");
    }
    let unix = write_all(ProxyVersion::V2, Origin::Unix);
    assert_eq!(unix[12..16], [0x21, 0x31, 0, 216]);
    assert_eq!(unix[16..], [0; 216]);
}

fn address() -> impl Strategy<Value = SocketAddr> {
    let ip = prop_oneof![
        any::<[u8; 4]>().prop_map(IpAddr::from),
        any::<[u8; 4]>().prop_map(|octets| IpAddr::V6(std::net::Ipv4Addr::from(octets).to_ipv6_mapped())),
        any::<[u16; 8]>().prop_map(IpAddr::from),
        any::<[bool; 8]>().prop_map(|set| IpAddr::V6(Ipv6Addr::from(set.map(u16::from)))),
    ];
    (ip, any::<u16>()).prop_map(SocketAddr::from)
}

fn origin() -> impl Strategy<Value = Origin> {
    prop_oneof![
        Just(Origin::Local),
        Just(Origin::Unix),
        (address(), address()).prop_map(|(client, server)| Origin::Tcp { client, server }),
    ]
}

/// Server name, protocol, common name: each may be missing.
type Tls = (Option<String>, Option<Vec<u8>>, Option<String>);

fn tls() -> impl Strategy<Value = Option<Tls>> {
    let alpn = prop::collection::vec(any::<u8>(), 1..256);
    prop::option::of((prop::option::of("[a-z.]{1,255}"), prop::option::of(alpn), prop::option::of(".{0,300}")))
}

fn facts((server_name, alpn, client): &Tls) -> TlsFacts<'_> {
    let (server_name, alpn, client) = (server_name.as_deref(), alpn.as_deref(), client.as_deref());
    TlsFacts { version: "TLSv1.3", cipher: "TLS_AES_128_GCM_SHA256", server_name, alpn, client }
}

/// IPv4-mapped addresses as IPv4 ones.
fn canonical(origin: Origin) -> Origin {
    let bare = |address: SocketAddr| SocketAddr::new(address.ip().to_canonical(), address.port());
    match origin {
        Origin::Tcp { client, server } => Origin::Tcp { client: bare(client), server: bare(server) },
        other => other,
    }
}

/// Bytes that get far into the readers: pieces of headers, in any order, and a fixed part with any block.
fn pieces() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop::sample::select(vec![
        &b"PROXY"[..],
        b" TCP4 ",
        b" TCP6 ",
        b" UNKNOWN",
        b"1.2.3.4",
        b"::1",
        b" ",
        b"80",
        b"0",
        b"\r\n",
        b"\r\n\r\n\0\r\nQUIT\n",
        b"\x21\x11\0\x0c",
        b"\x21\x11\0\x13",
        b"\x20\0\0\0",
        b"\x03\0\x04",
        b"\x04\0\0",
        b"abcd",
    ]);
    let block = (any::<u8>(), any::<u8>(), prop::collection::vec(0u8..5, 0..60)).prop_map(|(family, length, block)| {
        [&b"\r\n\r\n\0\r\nQUIT\n"[..], &[0x21, family & 0x33, 0, length & 0x3f], &block].concat()
    });
    prop_oneof![prop::collection::vec(piece, 0..14).prop_map(|pieces| pieces.concat()), block]
}

proptest! {
    #[test]
    fn reads_back_what_it_writes(
        origin in origin(),
        tls in tls(),
        v2 in any::<bool>(),
        payload in prop::collection::vec(any::<u8>(), 0..20),
    ) {
        let version = if v2 { ProxyVersion::V2 } else { ProxyVersion::V1 };
        let mut bytes = Vec::new();
        write(version, &Header { origin, tls: tls.as_ref().map(facts) }, &mut bytes);
        let length = bytes.len();
        bytes.extend(payload);
        let (read, read_length) = check_prefixes(&bytes).expect("a sound header").expect("a whole header");
        prop_assert_eq!(read_length, length);
        let expected = if origin == Origin::Unix && !v2 { Origin::Local } else { origin };
        prop_assert_eq!(canonical(read), canonical(expected));
        let is_mixed = |origin| match origin {
            Origin::Tcp { client, server } => client.is_ipv4() != server.is_ipv4(),
            _ => false,
        };
        if !is_mixed(canonical(expected)) {
            prop_assert_eq!(read, canonical(expected));
        }
    }

    #[test]
    fn judges_any_bytes_alike_byte_by_byte(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        check_prefixes(&bytes).ok();
    }

    #[test]
    fn judges_any_pieces_alike_byte_by_byte(bytes in pieces()) {
        check_prefixes(&bytes).ok();
    }
}
