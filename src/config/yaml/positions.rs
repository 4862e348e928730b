//! The position of each key in a YAML text, and the duplicate keys.
//!
//! `serde_yaml` has no positions; this walks the parser's events once and records the line and column of every path.
//! Of errors, it knows only duplicates.

use std::collections::HashMap;

use saphyr_parser::{Event, Marker, Parser};

use crate::config::problem::MAX_PROBLEMS;

/// A place in a text; both count from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// Line.
    pub line: usize,
    /// Column, in characters.
    pub column: usize,
}

impl From<&Marker> for Position {
    fn from(marker: &Marker) -> Self {
        Self { line: marker.line(), column: marker.col() + 1 }
    }
}

/// The positions of a document's keys, by path (`pools.app.backends[1].weight`).
#[derive(Debug, Default)]
pub struct Positions {
    by_path: HashMap<String, Position>,
    /// Duplicate keys: the path, the first position, the second one.
    pub duplicates: Vec<(String, Position, Position)>,
}

enum Frame {
    Map { path: String, key: Option<String> },
    List { path: String, next: usize },
}

impl Positions {
    /// Walks `text` as far as it is well-formed YAML; errors after that are reported by the reader.
    pub fn parse(text: &str) -> Self {
        let mut positions = Self::default();
        let mut stack: Vec<Frame> = Vec::new();
        for item in Parser::new_from_str(text) {
            let Ok((event, span)) = item else { break };
            let at = Position::from(&span.start);
            match event {
                // A key of a second document is no duplicate of one in the first.
                Event::DocumentEnd => break,
                Event::Scalar(value, ..) => {
                    if let Some(Frame::Map { path, key: key @ None }) = stack.last_mut() {
                        positions.note_key(join(path, &value), at);
                        *key = Some(value.into_owned());
                    } else {
                        positions.enter(&mut stack, at);
                    }
                }
                Event::Alias(_) => {
                    positions.enter(&mut stack, at);
                }
                Event::MappingStart(..) => {
                    let path = positions.enter(&mut stack, at);
                    stack.push(Frame::Map { path, key: None });
                }
                Event::SequenceStart(..) => {
                    let path = positions.enter(&mut stack, at);
                    stack.push(Frame::List { path, next: 0 });
                }
                Event::MappingEnd | Event::SequenceEnd => {
                    stack.pop();
                }
                _ => {}
            }
        }
        positions
    }

    /// The position of `path`, or of the nearest block around it that has one.
    pub fn nearest(&self, path: &str) -> Option<Position> {
        let mut path = path;
        loop {
            if let Some(position) = self.by_path.get(path) {
                return Some(*position);
            }
            path = &path[..path.rfind(['.', '['])?];
        }
    }

    /// Called where a value starts: returns its path, and prepares its container for the next one.
    fn enter(&mut self, stack: &mut [Frame], at: Position) -> String {
        match stack.last_mut() {
            None => String::new(),
            Some(Frame::Map { path, key }) => join(path, &key.take().unwrap_or_default()),
            Some(Frame::List { path, next }) => {
                let path = format!("{path}[{next}]");
                *next += 1;
                self.by_path.insert(path.clone(), at);
                path
            }
        }
    }

    fn note_key(&mut self, path: String, at: Position) {
        match self.by_path.get(&path) {
            Some(first) if self.duplicates.len() < MAX_PROBLEMS && !self.is_within_duplicate(&path) => {
                self.duplicates.push((path, *first, at));
            }
            Some(_) => {}
            None => {
                self.by_path.insert(path, at);
            }
        }
    }

    /// Whether a block around `path` is a duplicate: then so is all that is in it, and one report is enough.
    fn is_within_duplicate(&self, path: &str) -> bool {
        let is_around = |block: &str| path.strip_prefix(block).is_some_and(|rest| rest.starts_with(['.', '[']));
        self.duplicates.iter().any(|(block, ..)| is_around(block))
    }
}

/// The path of `key` in the block at `path`, which is empty for the root.
pub fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_keys_in_blocks_lists_and_flow_style() {
        let positions = Positions::parse("a:\n  b: 1\n  c: [x, {d: 2}]\ne:\n- f\n- g: 3\n");
        let line_column = |path: &str| positions.nearest(path).map(|at| (at.line, at.column));
        assert_eq!(line_column("a.b"), Some((2, 3)));
        assert_eq!(line_column("a.c[1].d"), Some((3, 11)));
        assert_eq!(line_column("e[1].g"), Some((6, 3)));
        assert_eq!(line_column("e[1].unknown"), Some((6, 3)), "the block around it");
        assert_eq!(line_column("nowhere"), None);
    }

    #[test]
    fn reports_a_duplicate_key() {
        let positions = Positions::parse("a: {b: 1}\nb: 2\na: 3\n");
        assert_eq!(positions.duplicates.len(), 1);
        assert_eq!(positions.duplicates[0].0, "a");
        assert_eq!(positions.duplicates[0].2, Position { line: 3, column: 1 });
    }

    #[test]
    fn reports_a_duplicate_block_and_not_what_is_in_it() {
        let positions = Positions::parse("a: {b: 1}\na: {b: 2}\nab: 3\n");
        let paths: Vec<&str> = positions.duplicates.iter().map(|(path, ..)| path.as_str()).collect();
        assert_eq!(paths, ["a"]);
    }

    #[test]
    fn a_second_document_repeats_nothing() {
        assert!(Positions::parse("a: 1\n---\na: 2\n").duplicates.is_empty());
    }
}
