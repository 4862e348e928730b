//! Version 2, binary (section 2.2). Lengths are checked as soon as they are received, the checksum when everything is.
//! It ignores the content of TLVs, and knows no text header.

use super::{Malformed, Origin};
use std::net::{IpAddr, SocketAddr};

/// The most bytes of a header. Version 1 has 107 at most. Version 2 could have 64 KiB of TLVs, but real ones (names,
/// ids, a certificate's common name) need a few hundred bytes.
pub const MAX_HEADER_BYTES: usize = 4096;

pub(super) const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
/// The signature, version and command, family and protocol, and the length of what follows.
pub(super) const FIXED_BYTES: usize = 16;
const MAX_BLOCK_BYTES: usize = MAX_HEADER_BYTES - FIXED_BYTES;
/// Type and length.
const TLV_HEAD_BYTES: usize = 3;
/// `PP2_TYPE_CRC32C` (section 2.2.3).
const TLV_CRC32C: u8 = 0x03;
const CHECKSUM_BYTES: usize = 4;

/// The form of the block's addresses, which follow the fixed part.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Addresses {
    /// Unknown, so that TLVs behind them can't be found either: the block is skipped.
    Opaque,
    V4,
    V6,
    Unix,
}

/// `bytes` begin with a CR.
pub(super) fn parse(bytes: &[u8]) -> Result<Option<(Origin, usize)>, Malformed> {
    let Some((addresses, length)) = fixed_part(bytes)? else {
        return Ok(None);
    };
    let checksum_at = match addresses {
        Addresses::Opaque => None,
        known => walk_tlvs(bytes, FIXED_BYTES + known.len(), length)?,
    };
    let Some(header) = bytes.get(..length) else {
        return Ok(None);
    };
    if checksum_at.is_some_and(|at| !is_checksum_right(header, at)) {
        return Err(Malformed::WrongChecksum);
    }
    Ok(Some((addresses.origin(&header[FIXED_BYTES..])?, length)))
}

/// The form of the addresses, and the length of the whole header; `None`: more bytes are needed.
fn fixed_part(bytes: &[u8]) -> Result<Option<(Addresses, usize)>, Malformed> {
    let (signature, rest) = bytes.split_at(bytes.len().min(SIGNATURE.len()));
    if !SIGNATURE.starts_with(signature) {
        return Err(Malformed::Signature);
    }
    let Some(&version_and_command) = rest.first() else {
        return Ok(None);
    };
    let is_local = is_local(version_and_command)?;
    let Some(&family_and_protocol) = rest.get(1) else {
        return Ok(None);
    };
    // The family of a LOCAL connection must be ignored.
    let addresses = if is_local { Addresses::Opaque } else { Addresses::from_byte(family_and_protocol)? };
    let Some(&high) = rest.get(2) else {
        return Ok(None);
    };
    if usize::from(high) << 8 > MAX_BLOCK_BYTES {
        return Err(Malformed::TooLong);
    }
    let Some(&low) = rest.get(3) else {
        return Ok(None);
    };
    match usize::from(u16::from_be_bytes([high, low])) {
        block if block > MAX_BLOCK_BYTES => Err(Malformed::TooLong),
        block if block < addresses.len() => Err(Malformed::AddressesCutShort),
        block => Ok(Some((addresses, FIXED_BYTES + block))),
    }
}

fn is_local(version_and_command: u8) -> Result<bool, Malformed> {
    match (version_and_command >> 4, version_and_command & 0x0f) {
        (2, 0) => Ok(true),
        (2, 1) => Ok(false),
        (2, _) => Err(Malformed::Command),
        _ => Err(Malformed::Version),
    }
}

impl Addresses {
    /// Section 2.2: with family or protocol UNSPEC the receiver uses the connection's own addresses, and it must reject
    /// values that are not listed there.
    fn from_byte(family_and_protocol: u8) -> Result<Self, Malformed> {
        match (family_and_protocol >> 4, family_and_protocol & 0x0f) {
            (0..=3, 2) => Err(Malformed::Datagram),
            (0, 0 | 1) | (1..=3, 0) => Ok(Self::Opaque),
            (1, 1) => Ok(Self::V4),
            (2, 1) => Ok(Self::V6),
            (3, 1) => Ok(Self::Unix),
            _ => Err(Malformed::Family),
        }
    }

    fn len(self) -> usize {
        match self {
            Self::Opaque => 0,
            Self::V4 => 2 * (4 + 2),
            Self::V6 => 2 * (16 + 2),
            Self::Unix => 2 * 108,
        }
    }

    fn origin(self, block: &[u8]) -> Result<Origin, Malformed> {
        match self {
            Self::Opaque => Ok(Origin::Local),
            Self::V4 => tcp::<4>(block).ok_or(Malformed::AddressesCutShort),
            Self::V6 => tcp::<16>(block).ok_or(Malformed::AddressesCutShort),
            Self::Unix => Ok(Origin::Unix),
        }
    }
}

/// Both addresses, then both ports, in network byte order.
fn tcp<const N: usize>(block: &[u8]) -> Option<Origin>
where
    IpAddr: From<[u8; N]>,
{
    let (&client, rest) = block.split_first_chunk::<N>()?;
    let (&server, rest) = rest.split_first_chunk::<N>()?;
    let (&client_port, rest) = rest.split_first_chunk()?;
    let &server_port = rest.first_chunk()?;
    let address = |ip: [u8; N], port: [u8; 2]| SocketAddr::new(ip.into(), u16::from_be_bytes(port));
    Some(Origin::tcp(address(client, client_port), address(server, server_port)))
}

/// Checks that TLVs fill the space from `at` to exactly `end`, as far as `bytes` reach; returns the place of the
/// checksum's value.
fn walk_tlvs(bytes: &[u8], mut at: usize, end: usize) -> Result<Option<usize>, Malformed> {
    let mut checksum_at = None;
    while at < end {
        if end - at < TLV_HEAD_BYTES {
            return Err(Malformed::TlvOverrun);
        }
        if bytes.get(at) == Some(&TLV_CRC32C) && checksum_at.is_some() {
            return Err(Malformed::RepeatedChecksum);
        }
        let Some(&[kind, high, low]) = bytes.get(at..).and_then(<[u8]>::first_chunk) else {
            break;
        };
        let length = usize::from(u16::from_be_bytes([high, low]));
        at += TLV_HEAD_BYTES;
        if length > end - at {
            return Err(Malformed::TlvOverrun);
        }
        if kind == TLV_CRC32C {
            if length != CHECKSUM_BYTES {
                return Err(Malformed::ChecksumLength);
            }
            checksum_at = Some(at);
        }
        at += length;
    }
    Ok(checksum_at)
}

/// Section 2.2.3: the sum is over the whole header, with zeros in place of the checksum.
fn is_checksum_right(header: &[u8], at: usize) -> bool {
    let (before, rest) = header.split_at(at);
    rest.split_first_chunk::<CHECKSUM_BYTES>().is_some_and(|(&stored, after)| {
        let sum = crc32c::crc32c_append(crc32c::crc32c(before), &[0; CHECKSUM_BYTES]);
        crc32c::crc32c_append(sum, after) == u32::from_be_bytes(stored)
    })
}
