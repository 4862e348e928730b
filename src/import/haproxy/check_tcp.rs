//! `tcp-check`: what is sent and expected on one connection.

use std::fmt::Write;

use crate::config::file::health_check::{HealthCheckSpec, StepSpec};
use crate::import::note::Notes;

use super::check_connect::read_connect;
use super::check_http::is_regex;
use super::server::Server;
use super::tree::{Line, Proxy};

/// Steps that `config` takes.
const MAX_STEPS: usize = 100;

/// The steps; `None`: an accepted connection is enough.
pub fn exchange(
    proxy: &Proxy<'_>,
    check: &mut HealthCheckSpec,
    server: &Server<'_>,
    notes: &mut Notes,
) -> Option<Vec<StepSpec>> {
    let mut steps = Vec::new();
    let mut connects = 0;
    for line in proxy.all_lines(&["tcp-check"]) {
        match step(line, check, server, notes) {
            Some(Some(step)) if steps.len() < MAX_STEPS => steps.push(step),
            Some(None) if line.word(1) == "comment" => {}
            Some(None) if connects == 0 => connects += 1,
            _ => notes.changes(&line.place, &line.text(), "the check sends and expects texts on one connection"),
        }
    }
    Some(steps).filter(|steps| !steps.is_empty())
}

/// `Some(None)`: the line is no step of its own. `None`: lb has no such step.
fn step(line: &Line, check: &mut HealthCheckSpec, server: &Server<'_>, notes: &mut Notes) -> Option<Option<StepSpec>> {
    let step = match (line.word(1), line.from(2)) {
        ("comment", _) => return Some(None),
        ("connect", _) => {
            read_connect(check, line, server, notes);
            return Some(None);
        }
        ("send", [text, ..]) => StepSpec { send: Some(escaped(text).replace("${", "$${")), ..StepSpec::default() },
        ("send-binary", [hex, ..]) => StepSpec { send: Some(of_hex(hex)?), ..StepSpec::default() },
        ("expect", words) => {
            let at = words.iter().position(|word| ["string", "rstring", "binary", "!"].contains(&word.as_str()))?;
            let pattern = words.get(at + 1)?.clone();
            match words[at].as_str() {
                "string" if !pattern.is_empty() => StepSpec { expect: Some(escaped(&pattern)), ..StepSpec::default() },
                "rstring" if is_regex(&pattern) => StepSpec { expect_matches: Some(pattern), ..StepSpec::default() },
                "binary" if !pattern.is_empty() => StepSpec { expect: Some(of_hex(&pattern)?), ..StepSpec::default() },
                _ => return None,
            }
        }
        _ => return None,
    };
    Some(Some(step))
}

/// As lb.yaml writes bytes that can't be typed.
fn escaped(text: &str) -> String {
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

fn of_hex(hex: &str) -> Option<String> {
    let is_hex = !hex.is_empty() && hex.len().is_multiple_of(2) && hex.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_hex.then(|| hex.as_bytes().chunks(2).map(|pair| format!("\\x{}", String::from_utf8_lossy(pair))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_that_cannot_be_typed_are_escaped() {
        assert_eq!(escaped("PING\r\n\\\u{e9}"), r"PING\r\n\\\xe9");
        assert_eq!(
            (of_hex("50494e470d0a").as_deref(), of_hex("5"), of_hex("zz")),
            (Some(r"\x50\x49\x4e\x47\x0d\x0a"), None, None)
        );
    }
}
