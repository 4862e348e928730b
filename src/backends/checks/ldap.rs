//! A check of a directory server (RFC 4511): an anonymous bind, then unbind.

use std::io;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::failure::{CheckError, shown};
use super::stream::CheckStream;

/// Message 1: bind, version 3, no name, simple authentication without a password (RFC 4511, 4.2).
const BIND: [u8; 14] = [0x30, 12, 0x02, 1, 1, 0x60, 7, 0x02, 1, 3, 0x04, 0, 0x80, 0];
/// Message 2: unbind (RFC 4511, 4.3).
const UNBIND: [u8; 7] = [0x30, 5, 0x02, 1, 2, 0x42, 0];

/// Tags of BER that a response to a bind begins with.
const SEQUENCE: u8 = 0x30;
const INTEGER: u8 = 0x02;
const ENUMERATED: u8 = 0x0A;
const BIND_RESPONSE: u8 = 0x61;

/// A response to a bind is shorter, referrals and all.
const MAX_RESPONSE: usize = 16 * 1024;

pub(super) async fn check(stream: &mut CheckStream) -> Result<(), CheckError> {
    stream.write_all(&BIND).await?;
    let message = read_message(stream).await?;
    let no_response = || CheckError::backend(format!("no response to a bind: {}", shown(&message)));
    let response = bind_response(&message).ok_or_else(no_response)?;
    let (code, rest) = element(response, ENUMERATED).ok_or_else(no_response)?;
    if code != [0] {
        let code = code.first().copied().unwrap_or_default();
        // The matched name, then a message for people.
        let said =
            rest.get(1).and_then(|length| rest.get(2 + usize::from(*length)..)).and_then(|rest| element(rest, 0x04));
        let said = said.map_or_else(String::new, |(text, _)| format!(": {}", shown(text)));
        return Err(CheckError::backend(format!("an anonymous bind is refused with code {code}{said}")));
    }
    stream.write_all(&UNBIND).await?;
    Ok(())
}

/// The content of the message's outermost element.
async fn read_message(stream: &mut CheckStream) -> Result<Vec<u8>, CheckError> {
    let (tag, first) = (stream.read_u8().await?, stream.read_u8().await?);
    let mut length = usize::from(first & 0x7F);
    if first & 0x80 != 0 {
        let count = std::mem::take(&mut length);
        for _ in 0..count.min(size_of::<u32>()) {
            length = length << 8 | usize::from(stream.read_u8().await?);
        }
    }
    if tag != SEQUENCE || length > MAX_RESPONSE {
        return Err(io::Error::other(format!("no LDAP: {}", shown(&[tag, first]))).into());
    }
    let mut content = vec![0; length];
    stream.read_exact(&mut content).await?;
    Ok(content)
}

/// The response within a message: its number is followed by it.
fn bind_response(message: &[u8]) -> Option<&[u8]> {
    let (_, rest) = element(message, INTEGER)?;
    Some(element(rest, BIND_RESPONSE)?.0)
}

/// The content of the first element, which must have this tag, and what follows it.
fn element(bytes: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let [first, length, rest @ ..] = bytes else { return None };
    let (length, rest) = match (length, rest) {
        (0x81, [length, rest @ ..]) => (usize::from(*length), rest),
        (0x82, [high, low, rest @ ..]) => (usize::from(*high) << 8 | usize::from(*low), rest),
        (0x84, [0, 0, high, low, rest @ ..]) => (usize::from(*high) << 8 | usize::from(*low), rest),
        (length, _) if *length < 0x80 => (usize::from(*length), rest),
        _ => return None,
    };
    (*first == tag).then(|| rest.split_at_checked(length)).flatten()
}
