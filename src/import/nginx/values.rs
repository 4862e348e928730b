//! nginx's own notations: times, sizes, addresses, variables in texts.

use std::time::Duration;

use crate::config::BackendAddress;
use crate::import::values;

/// Microseconds; the first is for a number alone (ngx_parse_time).
const TIME_UNITS: [(&str, u64); 10] = [
    ("", 1_000_000),
    ("ms", 1_000),
    ("s", 1_000_000),
    ("m", 60_000_000),
    ("h", 3_600_000_000),
    ("d", 86_400_000_000),
    ("w", 7 * 86_400_000_000),
    ("M", 30 * 86_400_000_000),
    ("y", 365 * 86_400_000_000),
    ("S", 1_000_000),
];

/// `30`, `30s`, `1m30s`, `1h 30m`.
pub fn time(text: &str) -> Option<Duration> {
    let (mut sum, mut rest) = (Duration::ZERO, text.trim());
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let letters = rest[digits..].find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(rest.len() - digits);
        sum = sum.checked_add(values::duration(&rest[..digits + letters], &TIME_UNITS)?)?;
        rest = rest[digits + letters..].trim_start();
    }
    Some(sum)
}

/// `16k`, `1m`, `512`.
pub fn size(text: &str) -> Option<u64> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let scale = match text[digits..].to_ascii_lowercase().as_str() {
        "" => 1,
        "k" => 1 << 10,
        "m" => 1 << 20,
        "g" => 1 << 30,
        _ => return None,
    };
    text[..digits].parse::<u64>().ok()?.checked_mul(scale)
}

/// The address of a backend; `port` for one without a port.
///
/// # Errors
/// It isn't one.
pub fn backend(text: &str, port: Option<u16>) -> Result<BackendAddress, String> {
    let text = text.trim_end_matches('/');
    if text.starts_with("unix:") {
        return text.trim_end_matches(':').parse();
    }
    let after_address = text.rfind(']').map_or(text, |at| &text[at..]);
    match (after_address.contains(':'), port) {
        (true, _) => text.parse(),
        (false, Some(port)) => format!("{text}:{port}").parse(),
        (false, None) => Err(format!("`{text}` has no port")),
    }
}

/// A part of a text with variables.
#[derive(Debug, PartialEq, Eq)]
pub enum Part<'a> {
    Text(&'a str),
    /// `$name` or `${name}`.
    Variable(&'a str),
}

/// The parts of a text.
pub fn parts(text: &str) -> Vec<Part<'_>> {
    let mut parts = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        let (before, from) = rest.split_at(at);
        if !before.is_empty() {
            parts.push(Part::Text(before));
        }
        let (name, after) = match from[1..].strip_prefix('{').and_then(|inner| inner.split_once('}')) {
            Some(split) => split,
            None => {
                let end = from[1..].find(|c: char| !c.is_ascii_alphanumeric() && c != '_');
                from[1..].split_at(end.unwrap_or(from.len() - 1))
            }
        };
        parts.push(if name.is_empty() { Part::Text("$") } else { Part::Variable(name) });
        rest = after;
    }
    if !rest.is_empty() {
        parts.push(Part::Text(rest));
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_as_nginx_reads_them() {
        for (text, seconds) in [("30", 30), ("30s", 30), ("1m30s", 90), ("1h 30m", 5400), ("2w", 1_209_600), ("0", 0)] {
            assert_eq!(time(text), Some(Duration::from_secs(seconds)), "{text}");
        }
        assert_eq!(time("250ms"), Some(Duration::from_millis(250)));
        for text in ["", "x", "1x", "s", "1.5s", "-1", "99999999999999999999s"] {
            assert_eq!(time(text), None, "{text}");
        }
        assert_eq!((size("16k"), size("1M"), size("7"), size("k")), (Some(16_384), Some(1 << 20), Some(7), None));
    }

    #[test]
    fn texts_have_variables() {
        use Part::{Text, Variable};
        assert_eq!(parts("a$b-${c}d$"), [Text("a"), Variable("b"), Text("-"), Variable("c"), Text("d"), Text("$")]);
    }
}
