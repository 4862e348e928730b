//! Reads a header of either version, which differ in the first byte.

use super::{Malformed, Origin, v1, v2};

/// Reads the header that `bytes` begin with; `None`: more bytes are needed. With an accepted header comes its length,
/// after which the connection's own bytes begin. The verdict is the same wherever the network cut the bytes.
///
/// # Errors
/// At the first byte, or field of version 1, that more bytes can't make valid.
pub fn parse(bytes: &[u8]) -> Result<Option<(Origin, usize)>, Malformed> {
    match bytes.first() {
        None => Ok(None),
        Some(b'P') => v1::parse(bytes),
        Some(b'\r') => v2::parse(bytes),
        Some(_) => Err(Malformed::Signature),
    }
}
