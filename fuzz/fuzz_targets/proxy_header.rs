//! PROXY headers: one verdict wherever the input is cut, the addresses that a plain reader finds, and what is written
//! is read back. The input is taken as it is, and as the block of a binary header, with a checksum and without.
#![no_main]

use lb_fuzz::proxy_header::{MAX_HEADER_BYTES, Malformed, Origin, ProxyVersion, parse, write};
use libfuzzer_sys::fuzz_target;
use std::net::{IpAddr, SocketAddr};

const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
const CHECKSUM_TLV: [u8; 7] = [3, 0, 4, 0, 0, 0, 0];

fuzz_target!(|data: &[u8]| {
    judge(data);
    for (family, addresses) in [(0x11, 12), (0x21, 36), (0x31, 216)] {
        with_checksum(family, addresses, data);
    }
});

fn judge(data: &[u8]) {
    let verdict = lb_fuzz::check_prefixes(data, parse);
    assert!(verdict != Ok(None) || data.len() < MAX_HEADER_BYTES, "waits for more than is allowed");
    let Ok(Some((origin, length))) = verdict else { return };
    assert!(length <= MAX_HEADER_BYTES);
    assert_eq!(parse(&data[..length - 1]), Ok(None), "complete at its last byte, not before");
    assert_eq!(parse(&data[..length]), verdict, "what follows is not looked at");
    match data[0] {
        b'P' => assert_eq!(line(&data[..length]), origin),
        _ => assert_eq!(binary(&data[..length]), origin),
    }
    written(origin, &data[length..]);
}

fn written(origin: Origin, payload: &[u8]) {
    for version in [ProxyVersion::V1, ProxyVersion::V2] {
        let mut header = Vec::new();
        write(version, &origin.into(), &mut header);
        let length = header.len();
        header.extend_from_slice(payload);
        let (read, read_length) = parse(&header).expect("a sound header").expect("a whole header");
        let expected = if (origin, version) == (Origin::Unix, ProxyVersion::V1) { Origin::Local } else { origin };
        assert_eq!((read, read_length), (expected, length));
    }
}

/// A line that was accepted, read as plainly as can be.
fn line(header: &[u8]) -> Origin {
    let line = header.strip_suffix(b"\r\n").expect("CRLF ends it");
    assert!(!line.contains(&b'\r') && !line.contains(&b'\n') && header.len() <= 107);
    if line.starts_with(b"PROXY UNKNOWN") {
        return Origin::Local;
    }
    let text = std::str::from_utf8(line).expect("ASCII");
    let fields: Vec<&str> = text.split(' ').collect();
    let ["PROXY", family, client, server, client_port, server_port] = fields[..] else { panic!("{text}") };
    let port = |text: &str| {
        let port: u16 = text.parse().expect("a port");
        assert_eq!(port.to_string(), text);
        port
    };
    let address = |ip: &str, port_text: &str| {
        let ip: IpAddr = ip.parse().expect("an address");
        assert_eq!(ip.is_ipv4(), family == "TCP4");
        SocketAddr::new(ip, port(port_text))
    };
    tcp(address(client, client_port), address(server, server_port))
}

/// A binary header that was accepted, read as plainly as can be.
fn binary(header: &[u8]) -> Origin {
    assert!(header.starts_with(SIGNATURE));
    assert_eq!(16 + usize::from(u16::from_be_bytes([header[14], header[15]])), header.len());
    let port = |at: usize| u16::from_be_bytes([header[at], header[at + 1]]);
    let ip = |at: usize, length: usize| match length {
        4 => IpAddr::from(<[u8; 4]>::try_from(&header[at..at + 4]).expect("four bytes")),
        _ => IpAddr::from(<[u8; 16]>::try_from(&header[at..at + 16]).expect("sixteen bytes")),
    };
    let addresses = |size: usize| {
        let ports = 16 + 2 * size;
        tcp(SocketAddr::new(ip(16, size), port(ports)), SocketAddr::new(ip(16 + size, size), port(ports + 2)))
    };
    match (header[12], header[13]) {
        (0x20, _) | (0x21, 0x00 | 0x01 | 0x10 | 0x20 | 0x30) => Origin::Local,
        (0x21, 0x11) => addresses(4),
        (0x21, 0x21) => addresses(16),
        (0x21, 0x31) => Origin::Unix,
        other => panic!("accepted {other:?}"),
    }
}

fn tcp(client: SocketAddr, server: SocketAddr) -> Origin {
    let bare = |address: SocketAddr| SocketAddr::new(address.ip().to_canonical(), address.port());
    match (bare(client), bare(server)) {
        (client, server) if client.is_ipv4() && server.is_ipv4() => Origin::Tcp { client, server },
        _ => Origin::Tcp { client, server },
    }
}

/// A sound header stays sound with the right checksum, and then no bit of its addresses may be another.
fn with_checksum(family: u8, addresses: usize, block: &[u8]) {
    let header = |block: &[u8]| -> Option<Vec<u8>> {
        let length = u16::try_from(block.len()).ok()?.to_be_bytes();
        Some([SIGNATURE, &[0x21, family], &length, block].concat())
    };
    let Some(plain) = header(block) else { return };
    judge(&plain);
    let verdict = parse(&plain);
    let Some(mut summed) = header(&[block, &CHECKSUM_TLV].concat()) else { return };
    let at = summed.len() - 4;
    let sum = crc32c(&summed).to_be_bytes();
    summed[at..].copy_from_slice(&sum);
    let expected = match verdict {
        Ok(Some(_)) if summed.len() > MAX_HEADER_BYTES => Err(Malformed::TooLong),
        // The block's own checksum was right for a shorter header.
        Ok(Some(_)) if parse(&summed) == Err(Malformed::RepeatedChecksum) => return,
        Ok(Some((origin, length))) => Ok(Some((origin, length + CHECKSUM_TLV.len()))),
        // Then the added bytes belong to the addresses or to a TLV that ran over the end.
        _ => return judge(&summed),
    };
    assert_eq!(parse(&summed), expected);
    if expected.is_ok() {
        let bit = block.iter().fold(0, |sum: usize, byte| sum.wrapping_mul(31).wrapping_add(usize::from(*byte)))
            % (addresses * 8);
        summed[16 + bit / 8] ^= 1 << (bit % 8);
        assert_eq!(parse(&summed), Err(Malformed::WrongChecksum), "bit {bit} of the addresses");
    }
}

/// The checksum, bit by bit (RFC 9260 appendix A).
fn crc32c(bytes: &[u8]) -> u32 {
    let step = |sum: u32, _| if sum & 1 == 1 { sum >> 1 ^ 0x82f6_3b78 } else { sum >> 1 };
    !bytes.iter().fold(u32::MAX, |sum, byte| (0..8).fold(sum ^ u32::from(*byte), step))
}
