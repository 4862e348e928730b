//! Host names in the form in which they are compared: lower case, without a trailing dot. It knows neither where a name
//! comes from nor what is done with it.

use std::net::{Ipv4Addr, Ipv6Addr};

/// As text, without a trailing dot: 255 bytes on the wire (RFC 1035 section 2.3.4).
const MAX_NAME_BYTES: usize = 253;
const MAX_LABEL_BYTES: usize = 63;

/// Why a text is not a host name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadName {
    Empty,
    TooLong,
    EmptyLabel,
    LongLabel,
    NotAscii,
    Character,
}

/// Accepts letters, digits, hyphens, and underscores, which some names in use have; one dot may end it.
///
/// # Errors
/// The first rule that it breaks.
pub fn normalize(name: &[u8]) -> Result<String, BadName> {
    let name = name.strip_suffix(b".").unwrap_or(name);
    match name.len() {
        0 => return Err(BadName::Empty),
        1..=MAX_NAME_BYTES => {}
        _ => return Err(BadName::TooLong),
    }
    name.split(|byte| *byte == b'.').try_for_each(check_label)?;
    Ok(name.iter().map(|byte| char::from(byte.to_ascii_lowercase())).collect())
}

fn check_label(label: &[u8]) -> Result<(), BadName> {
    let is_part = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    match label.len() {
        0 => Err(BadName::EmptyLabel),
        _ if !label.is_ascii() => Err(BadName::NotAscii),
        _ if !label.iter().all(is_part) => Err(BadName::Character),
        1..=MAX_LABEL_BYTES => Ok(()),
        _ => Err(BadName::LongLabel),
    }
}

/// Whether it is an IPv4 address, or an IPv6 one with or without brackets; one dot may end it, as with a name.
pub fn is_ip_address(name: &[u8]) -> bool {
    let Ok(text) = str::from_utf8(name.strip_suffix(b".").unwrap_or(name)) else {
        return false;
    };
    let inner = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    text.parse::<Ipv4Addr>().is_ok() || inner.parse::<Ipv6Addr>().is_ok()
}
