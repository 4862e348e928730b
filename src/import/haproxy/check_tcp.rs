//! `tcp-check`: what is sent and expected on one connection.

use crate::config::file::health_check::{HealthCheckSpec, StepSpec};
use crate::import::note::Notes;
use crate::import::values::{escaped, escaped_bytes};

use super::check_connect::read_connect;
use super::check_http::is_regex;
use super::server::Server;
use super::tree::{Line, Proxy};
use super::values::bytes_of_hex;

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
        ("send-binary", [hex, ..]) => {
            StepSpec { send: Some(escaped_bytes(&bytes_of_hex(hex)?)), ..StepSpec::default() }
        }
        ("expect", words) => {
            let at = words.iter().position(|word| ["string", "rstring", "binary", "!"].contains(&word.as_str()))?;
            let pattern = words.get(at + 1)?.clone();
            match words[at].as_str() {
                "string" if !pattern.is_empty() => StepSpec { expect: Some(escaped(&pattern)), ..StepSpec::default() },
                "rstring" if is_regex(&pattern) => StepSpec { expect_matches: Some(pattern), ..StepSpec::default() },
                "binary" if !pattern.is_empty() => {
                    StepSpec { expect: Some(escaped_bytes(&bytes_of_hex(&pattern)?)), ..StepSpec::default() }
                }
                _ => return None,
            }
        }
        _ => return None,
    };
    Some(Some(step))
}
