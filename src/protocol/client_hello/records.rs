//! The record layer under a ClientHello (RFC 8446 section 5.1): a handshake message may be cut into records anywhere,
//! and is copied only if it was. Of the message it knows only the type and length.

use super::fault::NotClientHello;
use std::borrow::Cow;

/// The most bytes that a hello may take on the wire, record headers included. Browsers send 2 KiB with a hybrid key
/// share; two larger shares (ML-KEM-1024), an inner hello for ECH and a session ticket stay below 8 KiB. The limit is
/// one full record (2^14), as nginx and HAProxy buffer, and 1 KiB for the headers of up to 200 records.
pub const MAX_HELLO_BYTES: usize = 16 * 1024 + 1024;

/// Type, legacy version and length.
const RECORD_HEADER_BYTES: usize = 5;
const MAX_RECORD_BYTES: usize = 1 << 14;
const RECORD_HANDSHAKE: u8 = 22;
/// Type and length.
const MESSAGE_HEADER_BYTES: usize = 4;
const MESSAGE_CLIENT_HELLO: u8 = 1;

/// The content of a record.
struct Fragment<'a> {
    /// As much of it as was received.
    bytes: &'a [u8],
    length: usize,
}

/// The message's body; `None`: it is not complete yet.
pub(super) fn read_message(bytes: &[u8]) -> Result<Option<Cow<'_, [u8]>>, NotClientHello> {
    let wire = &bytes[..bytes.len().min(MAX_HELLO_BYTES)];
    let Some(length) = complete_length(wire)? else {
        return if wire.len() == MAX_HELLO_BYTES { Err(NotClientHello::TooLong) } else { Ok(None) };
    };
    // Nearly always it is in one record, and needs no copy.
    if let Some(Fragment { bytes: first, .. }) = fragment(wire)?
        && let Some(body) = first.get(MESSAGE_HEADER_BYTES..length)
    {
        return Ok(Some(Cow::Borrowed(body)));
    }
    let mut message = Vec::with_capacity(length);
    let mut rest = wire;
    while message.len() < length
        && let Some(Fragment { bytes, .. }) = fragment(rest)?
    {
        message.extend_from_slice(bytes);
        rest = &rest[RECORD_HEADER_BYTES + bytes.len()..];
    }
    message.drain(..MESSAGE_HEADER_BYTES);
    Ok(Some(Cow::Owned(message)))
}

/// The message's length with its header, if its last record is complete.
fn complete_length(wire: &[u8]) -> Result<Option<usize>, NotClientHello> {
    let mut header = [0; MESSAGE_HEADER_BYTES];
    let mut gathered = 0;
    let mut rest = wire;
    while let Some(Fragment { bytes, length }) = fragment(rest).map_err(|fault| amid_message(fault, gathered))? {
        for (slot, byte) in header.iter_mut().skip(gathered).zip(bytes) {
            *slot = *byte;
        }
        let message = message_length(&header[..header.len().min(gathered + bytes.len())])?;
        // Keys may change after this message, so it ends with its record (RFC 8446 section 5.1).
        if message.is_some_and(|message| gathered + length > message) {
            return Err(NotClientHello::BytesAfterMessage);
        }
        if bytes.len() < length {
            return Ok(None);
        }
        gathered += length;
        if message == Some(gathered) {
            return Ok(message);
        }
        rest = &rest[RECORD_HEADER_BYTES + length..];
    }
    Ok(None)
}

/// The record at the start of `wire`, if its header is complete. A header is refused at its first wrong byte.
fn fragment(wire: &[u8]) -> Result<Option<Fragment<'_>>, NotClientHello> {
    let (header, payload) = wire.split_at(wire.len().min(RECORD_HEADER_BYTES));
    if header.first().is_some_and(|kind| *kind != RECORD_HANDSHAKE) {
        return Err(NotClientHello::NotHandshake);
    }
    // Clients send that of TLS 1.0, for old servers, or of TLS 1.2. The field means nothing, so others are accepted
    // too.
    let is_version =
        header.get(1).is_none_or(|major| *major == 3) && header.get(2).is_none_or(|minor| (1..=3).contains(minor));
    if !is_version {
        return Err(NotClientHello::RecordVersion);
    }
    if header.get(3).is_some_and(|high| usize::from(*high) << 8 > MAX_RECORD_BYTES) {
        return Err(NotClientHello::RecordLength);
    }
    let Some(&length) = header.get(3..).and_then(<[u8]>::first_chunk) else {
        return Ok(None);
    };
    match usize::from(u16::from_be_bytes(length)) {
        length @ 1..=MAX_RECORD_BYTES => Ok(Some(Fragment { bytes: &payload[..payload.len().min(length)], length })),
        _ => Err(NotClientHello::RecordLength),
    }
}

/// A record of a wrong type means at the start that this is not TLS, and later that another record came in between.
fn amid_message(fault: NotClientHello, gathered: usize) -> NotClientHello {
    match fault {
        NotClientHello::NotHandshake if gathered > 0 => NotClientHello::OtherRecord,
        other => other,
    }
}

/// The message's length with its header; `None`: the header is not complete yet.
fn message_length(header: &[u8]) -> Result<Option<usize>, NotClientHello> {
    if header.first().is_some_and(|kind| *kind != MESSAGE_CLIENT_HELLO) {
        return Err(NotClientHello::OtherMessage);
    }
    let Some(&[_, high, middle, low]) = header.first_chunk::<MESSAGE_HEADER_BYTES>() else {
        return Ok(None);
    };
    // At most 2^24, which any usize holds.
    let body = usize::from(high) << 16 | usize::from(middle) << 8 | usize::from(low);
    let length = MESSAGE_HEADER_BYTES + body;
    if RECORD_HEADER_BYTES + length > MAX_HELLO_BYTES { Err(NotClientHello::TooLong) } else { Ok(Some(length)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn borrows_what_came_in_one_record_and_joins_what_did_not() {
        let whole = read_message(b"\x16\x03\x01\0\x06\x01\0\0\x02ab and what follows");
        assert!(matches!(whole, Ok(Some(Cow::Borrowed(b"ab")))), "{whole:?}");
        let cut = read_message(b"\x16\x03\x01\0\x02\x01\0\x16\x03\x03\0\x03\0\x02a\x16\x03\x02\0\x01b");
        assert!(matches!(&cut, Ok(Some(Cow::Owned(body))) if body == b"ab"), "{cut:?}");
    }

    #[test]
    fn refuses_at_the_first_wrong_byte() {
        assert_eq!(read_message(b"\x80"), Err(NotClientHello::NotHandshake));
        assert_eq!(read_message(b"\x16\x02"), Err(NotClientHello::RecordVersion));
        assert_eq!(read_message(b"\x16\x03\x04"), Err(NotClientHello::RecordVersion));
        assert_eq!(read_message(b"\x16\x03\x01\x41"), Err(NotClientHello::RecordLength));
        assert_eq!(read_message(b"\x16\x03\x01\0\0"), Err(NotClientHello::RecordLength));
        assert_eq!(read_message(b"\x16\x03\x01\x40\0\x02"), Err(NotClientHello::OtherMessage));
        assert_eq!(read_message(b"\x16\x03\x01\0\x05\x01\0\0\0"), Err(NotClientHello::BytesAfterMessage));
        assert_eq!(read_message(b"\x16\x03\x01\0\x01\x01\x15"), Err(NotClientHello::OtherRecord));
        assert_eq!(read_message(b"\x16\x03\x01\x40\0\x01\0\0"), Ok(None));
    }
}
