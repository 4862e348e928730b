//! What is wrong with a configuration, said so that the user can mend it: the place, the key, the remedy.

use std::collections::HashMap;

use super::locate::{Position, Positions};
use super::mirror::UNREADABLE;
use super::short_form::short_form_path;
use super::{MAX_PROBLEMS, Problem};

/// Names listed in one message at most.
const MAX_LISTED: usize = 20;

/// Gathers problems, each with the place that the user can mend.
#[derive(Default)]
pub struct Reporter {
    /// The file's name.
    pub(super) file: Option<String>,
    pub(super) positions: Positions,
    /// Paths that an override set, and what the user typed.
    pub(super) overridden: HashMap<String, String>,
    /// Paths are shown as the user writes them.
    pub(super) short_form: bool,
    /// What was found so far.
    pub problems: Vec<Problem>,
}

impl Reporter {
    /// Adds a problem with the key at `path`; what follows from one that is known already is not told again.
    pub fn problem(&mut self, path: &str, message: impl Into<String>) {
        let message = message.into();
        let is_of_unreadable = !self.problems.is_empty() && message.contains(UNREADABLE);
        if is_of_unreadable || self.problems.len() >= MAX_PROBLEMS || self.knows_problem_at(path) {
            return;
        }
        let shown = self.shown(path);
        let place = self.origin(path).or_else(|| self.place(&shown));
        self.problems.push(Problem { place, path: shown, message });
    }

    /// Whether there is a problem with what stands at `path`.
    pub fn knows_problem_at(&self, path: &str) -> bool {
        let shown = self.shown(path);
        self.problems.iter().any(|problem| problem.path == shown)
    }

    /// Whether there is one with the list or block at `path`, or with something in it.
    pub fn knows_problem_in(&self, path: &str) -> bool {
        let shown = self.shown(path);
        let is_in = |rest: &str| rest.is_empty() || rest.starts_with(['.', '[']);
        self.problems.iter().any(|problem| problem.path.strip_prefix(&shown).is_some_and(is_in))
    }

    /// `path` as the user writes it.
    pub fn shown(&self, path: &str) -> String {
        if self.short_form { short_form_path(path) } else { path.to_owned() }
    }

    /// What the user typed to set the key, or a block around it.
    fn origin(&self, path: &str) -> Option<String> {
        let mut around = path;
        loop {
            if let Some(origin) = self.overridden.get(around) {
                return Some(origin.clone());
            }
            around = &around[..around.rfind(['.', '['])?];
        }
    }

    fn place(&self, shown: &str) -> Option<String> {
        let file = self.file.as_ref()?;
        Some(match self.positions.nearest(shown) {
            Some(at) => format!("{file}:{}:{}", at.line, at.column),
            None => file.clone(),
        })
    }
}

/// Each key of `file` that stands twice.
pub(super) fn duplicates(file: &str, positions: &Positions) -> Vec<Problem> {
    let problem = |(path, first, again): &(String, Position, Position)| {
        let message = format!("stands twice (first in line {}); remove one", first.line);
        Problem::at(format!("{file}:{}:{}", again.line, again.column), path, message)
    };
    positions.duplicates.iter().map(problem).collect()
}

/// Names that the user may choose from: not more than can be read at a glance.
pub(super) fn listed<'a>(names: impl ExactSizeIterator<Item = &'a String>) -> String {
    if names.len() == 0 {
        return "none".to_owned();
    }
    let more = names.len().saturating_sub(MAX_LISTED);
    let first: Vec<&str> = names.take(MAX_LISTED).map(String::as_str).collect();
    let rest = if more == 0 { String::new() } else { format!(" and {more} more") };
    first.join(", ") + &rest
}

/// serde's words, made a remedy. `further` keys are known where an unknown one was found.
pub(super) fn humanize(message: &str, further: &[&str]) -> String {
    let quoted = |text: &str| -> Vec<String> { text.split('`').skip(1).step_by(2).map(str::to_owned).collect() };
    if let Some(rest) = message.strip_prefix("unknown field ") {
        let words = quoted(rest);
        let Some((unknown, known)) = words.split_first() else { return message.to_owned() };
        let known: Vec<String> = further.iter().map(|key| (*key).to_owned()).chain(known.iter().cloned()).collect();
        return match nearest_word(unknown, &known) {
            Some(word) => format!("is an unknown key; did you mean `{word}`?"),
            None => format!("is an unknown key; known here: {}", known.join(", ")),
        };
    }
    if let Some(rest) = message.strip_prefix("unknown variant ") {
        let words = quoted(rest);
        let Some((unknown, known)) = words.split_first() else { return message.to_owned() };
        return format!("`{unknown}` is unknown; choose one of: {}", known.join(", "));
    }
    if let Some(field) = message.strip_prefix(MISSING_FIELD) {
        return format!("has no {field}; add it");
    }
    let mismatch = message.strip_prefix("invalid type: ").or_else(|| message.strip_prefix("invalid value: "));
    match mismatch.and_then(|rest| rest.rsplit_once(", expected ")) {
        Some((found, expected)) => format!("is the {}; write {}", found.replace("sequence", "list"), remedy(expected)),
        None => message.to_owned(),
    }
}

/// How serde's message of a key that isn't there begins.
pub(super) const MISSING_FIELD: &str = "missing field ";

/// What serde expected, in words that need no Rust.
fn remedy(expected: &str) -> &str {
    match expected {
        "u16" | "usize" => "a whole number, 0 or more",
        "a boolean" => "true or false",
        "a sequence" => "a list, such as [one, two]",
        "a map" => "a block of `key: value` lines",
        "field identifier" => "a text as the key",
        "a Value::Tagged enum" => "one word",
        _ if expected.starts_with("struct ") => "a block of `key: value` lines",
        _ => expected,
    }
}

fn nearest_word<'a>(word: &str, known: &'a [String]) -> Option<&'a String> {
    let close = |candidate: &&String| strsim::damerau_levenshtein(word, candidate) <= 2;
    known.iter().filter(close).min_by_key(|candidate| strsim::damerau_levenshtein(word, candidate))
}
