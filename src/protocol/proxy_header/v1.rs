//! Version 1, one line of text (section 2.1), read from left to right. A field's alphabet and length are checked with
//! each byte, its value once the byte after it was received. It knows no binary header.

use super::{Malformed, Origin};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Section 2.1: the longest valid line, with its CRLF.
const MAX_LINE_BYTES: usize = 107;
/// `255.255.255.255`
const MAX_IPV4_BYTES: usize = 15;
/// As `inet_ntop` may write it: `ffff:ffff:ffff:ffff:ffff:ffff:255.255.255.255`.
const MAX_IPV6_BYTES: usize = 45;
/// `65535`
const MAX_PORT_BYTES: usize = 5;

/// Why the reading stopped before the end of the line.
enum LineError {
    NeedMore,
    Malformed(Malformed),
}

struct Line<'a> {
    /// `MAX_LINE_BYTES` at most.
    bytes: &'a [u8],
    at: usize,
}

/// `bytes` begin with a `P`.
pub(super) fn parse(bytes: &[u8]) -> Result<Option<(Origin, usize)>, Malformed> {
    let mut line = Line { bytes: &bytes[..bytes.len().min(MAX_LINE_BYTES)], at: 0 };
    match line.read() {
        Ok(origin) => Ok(Some((origin, line.at))),
        Err(LineError::NeedMore) => Ok(None),
        Err(LineError::Malformed(malformed)) => Err(malformed),
    }
}

impl Line<'_> {
    fn read(&mut self) -> Result<Origin, LineError> {
        self.literal(b"PROXY", Malformed::Signature)?;
        self.literal(b" ", Malformed::Spacing)?;
        if self.peek()? == b'U' {
            self.literal(b"UNKNOWN", Malformed::Protocol)?;
            return self.skip_to_end();
        }
        self.literal(b"TCP", Malformed::Protocol)?;
        let is_v4 = match self.peek()? {
            b'4' => true,
            b'6' => false,
            _ => return Err(Malformed::Protocol.into()),
        };
        self.at += 1;
        self.literal(b" ", Malformed::Spacing)?;
        let (client, server) = (self.address(is_v4)?, self.address(is_v4)?);
        let (client_port, server_port) = (self.port(b' ')?, self.port(b'\r')?);
        self.literal(b"\n", Malformed::LineEnd)?;
        Ok(Origin::tcp(SocketAddr::new(client, client_port), SocketAddr::new(server, server_port)))
    }

    /// The rest of the line after UNKNOWN is ignored, but for a lone CR or LF: other readers may take it for the end of
    /// the line.
    fn skip_to_end(&mut self) -> Result<Origin, LineError> {
        if !matches!(self.peek()?, b' ' | b'\r' | b'\n') {
            return Err(Malformed::Protocol.into());
        }
        while !matches!(self.peek()?, b'\r' | b'\n') {
            self.at += 1;
        }
        self.literal(b"\r\n", Malformed::LineEnd)?;
        Ok(Origin::Local)
    }

    fn address(&mut self, is_v4: bool) -> Result<IpAddr, LineError> {
        // The standard library accepts neither leading zeros in an octet nor a zone.
        let address = if is_v4 {
            let is_of_v4 = |byte: u8| byte.is_ascii_digit() || byte == b'.';
            self.field(is_of_v4, MAX_IPV4_BYTES, b' ', Malformed::Address)?.parse::<Ipv4Addr>().map(IpAddr::from)
        } else {
            let is_of_v6 = |byte: u8| byte.is_ascii_hexdigit() || matches!(byte, b':' | b'.');
            self.field(is_of_v6, MAX_IPV6_BYTES, b' ', Malformed::Address)?.parse::<Ipv6Addr>().map(IpAddr::from)
        };
        address.map_err(|_| Malformed::Address.into())
    }

    fn port(&mut self, end: u8) -> Result<u16, LineError> {
        let digits = self.field(|byte| byte.is_ascii_digit(), MAX_PORT_BYTES, end, Malformed::Port)?;
        let has_leading_zero = digits.starts_with('0') && digits != "0";
        match digits.parse() {
            Ok(port) if !has_leading_zero => Ok(port),
            _ => Err(Malformed::Port.into()),
        }
    }

    /// The text up to `end`, of up to `most` bytes; `end` is taken with it.
    fn field(&mut self, class: fn(u8) -> bool, most: usize, end: u8, otherwise: Malformed) -> Result<&str, LineError> {
        let start = self.at;
        loop {
            match self.peek()? {
                byte if byte == end => break,
                byte if class(byte) && self.at - start < most => self.at += 1,
                b'\r' | b'\n' => return Err(Malformed::LineEnd.into()),
                _ => return Err(otherwise.into()),
            }
        }
        let text = &self.bytes[start..self.at];
        self.at += 1;
        std::str::from_utf8(text).map_err(|_| otherwise.into())
    }

    fn literal(&mut self, text: &[u8], otherwise: Malformed) -> Result<(), LineError> {
        for &byte in text {
            if self.peek()? != byte {
                return Err(otherwise.into());
            }
            self.at += 1;
        }
        Ok(())
    }

    fn peek(&self) -> Result<u8, LineError> {
        match self.bytes.get(self.at) {
            Some(&byte) => Ok(byte),
            None if self.bytes.len() == MAX_LINE_BYTES => Err(Malformed::LineTooLong.into()),
            None => Err(LineError::NeedMore),
        }
    }
}

impl From<Malformed> for LineError {
    fn from(malformed: Malformed) -> Self {
        Self::Malformed(malformed)
    }
}
