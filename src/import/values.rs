//! Values of lb.yaml from numbers of other programs, kept within what `config` takes.

use std::fmt::Write;
use std::time::Duration;

use crate::config::file::duration_or_off::DurationOrOff;
use crate::config::file::units::DurationText;

/// The longest that `config` takes.
const MAX: Duration = Duration::from_secs(365 * 24 * 3600);
/// The most attempts that `config` takes.
pub const MAX_ATTEMPTS: usize = 16;
/// The largest weight that `config` takes.
pub const MAX_WEIGHT: usize = 256;

/// A duration that isn't zero: shorter than a millisecond is one millisecond.
pub fn positive(duration: Duration) -> DurationText {
    DurationText(whole_milliseconds(duration).clamp(Duration::from_millis(1), MAX))
}

/// A duration; zero is off, as is what nobody lives to see.
pub fn or_off(duration: Duration) -> DurationOrOff {
    DurationOrOff(Some(whole_milliseconds(duration)).filter(|duration| !duration.is_zero() && *duration <= MAX))
}

fn whole_milliseconds(duration: Duration) -> Duration {
    // Half a millisecond has no form in lb.yaml.
    let millis = duration.as_millis() + u128::from(!duration.as_nanos().is_multiple_of(1_000_000));
    Duration::from_millis(u64::try_from(millis).unwrap_or(u64::MAX))
}

/// A number and a unit; `units` are their names, with microseconds each, the first for a number alone.
pub fn duration(text: &str, units: &[(&str, u64)]) -> Option<Duration> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().ok()?;
    let scale = if unit.is_empty() { units.first() } else { units.iter().find(|(name, _)| *name == unit) }?.1;
    number.checked_mul(scale).map(Duration::from_micros)
}

/// Each record of a handshake of TLS begins with it.
pub const TLS_RECORD: &[u8] = b"\x16\x03";

/// As lb.yaml writes bytes that can't be typed.
pub fn escaped(text: &str) -> String {
    let mut escaped = String::new();
    for c in text.chars() {
        match c {
            '\\' => escaped += "\\\\",
            '\r' => escaped += "\\r",
            '\n' => escaped += "\\n",
            '\t' => escaped += "\\t",
            ' '..='~' => escaped.push(c),
            // The lexer made a byte of `\xNN` the character of that number.
            c if u32::from(c) < 0x100 => write!(escaped, "\\x{:02x}", u32::from(c)).expect("a String takes every text"),
            c => escaped.push(c),
        }
    }
    escaped
}

/// The same of bytes.
pub fn escaped_bytes(bytes: &[u8]) -> String {
    escaped(&bytes.iter().copied().map(char::from).collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_that_cannot_be_typed_are_escaped() {
        assert_eq!(escaped("PING\r\n\\\u{e9}"), r"PING\r\n\\\xe9");
        assert_eq!(escaped_bytes(TLS_RECORD), r"\x16\x03");
    }
}
