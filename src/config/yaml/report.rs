//! Gathers the problems of a configuration, with the place and the key as the user wrote them.

use std::collections::HashMap;

use crate::config::file::units::UNREADABLE;
use crate::config::problem::{MAX_PROBLEMS, Problem};

use super::positions::{Position, Positions};
use super::short_form::short_form_path;

/// Names listed in one message at most.
const MAX_LISTED: usize = 20;

/// Gathers problems, each with the place to fix.
#[derive(Default)]
pub struct Reporter {
    /// The file's name.
    pub file: Option<String>,
    /// The places of the keys in the file.
    pub positions: Positions,
    /// Paths that an override set, and what the user typed.
    pub overridden: HashMap<String, String>,
    /// Paths are shown as the user writes them.
    pub short_form: bool,
    /// Those found so far.
    pub problems: Vec<Problem>,
    /// What is valid, and yet surely not meant.
    pub warnings: Vec<Problem>,
}

impl Reporter {
    /// Adds a problem with the key at `path`, unless it only follows from one that was reported before.
    pub fn problem(&mut self, path: &str, message: impl Into<String>) {
        let message = message.into();
        let is_of_unreadable = !self.problems.is_empty() && message.contains(UNREADABLE);
        if is_of_unreadable || self.problems.len() >= MAX_PROBLEMS || self.knows_problem_at(path) {
            return;
        }
        let problem = self.problem_at(path, message);
        self.problems.push(problem);
    }

    /// Adds a warning about the key at `path`.
    pub fn warning(&mut self, path: &str, message: impl Into<String>) {
        if self.warnings.len() < MAX_PROBLEMS {
            let warning = self.problem_at(path, message.into());
            self.warnings.push(warning);
        }
    }

    fn problem_at(&self, path: &str, message: String) -> Problem {
        let shown = self.shown(path);
        let place = self.origin(path).or_else(|| self.place(&shown));
        Problem { place, path: shown, message }
    }

    /// Whether there is a problem with the key at `path` itself.
    pub fn knows_problem_at(&self, path: &str) -> bool {
        let shown = self.shown(path);
        self.problems.iter().any(|problem| problem.path == shown)
    }

    /// Whether there is one with the list or block at `path`, or with something in it.
    pub fn knows_problem_in(&self, path: &str) -> bool {
        let shown = self.shown(path);
        self.problems.iter().any(|problem| match problem.path.strip_prefix(&shown) {
            Some(rest) => rest.is_empty() || rest.starts_with(['.', '[']),
            None => false,
        })
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

/// The duplicate keys of `file`.
pub fn duplicates(file: &str, positions: &Positions) -> Vec<Problem> {
    let problem = |(path, first, again): &(String, Position, Position)| {
        let message = format!("is a duplicate key (first in line {}); remove one", first.line);
        Problem::at(format!("{file}:{}:{}", again.line, again.column), path, message)
    };
    positions.duplicates.iter().map(problem).collect()
}

/// Names that the user may choose from, not more than can be read at a glance.
pub fn listed<'a>(names: impl ExactSizeIterator<Item = &'a String>) -> String {
    if names.len() == 0 {
        return "none".to_owned();
    }
    let more = names.len().saturating_sub(MAX_LISTED);
    let first: Vec<&str> = names.take(MAX_LISTED).map(String::as_str).collect();
    let rest = if more == 0 { String::new() } else { format!(" and {more} more") };
    first.join(", ") + &rest
}
