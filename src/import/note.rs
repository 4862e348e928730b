//! What a translation says about the directives that it didn't take over: where each stands, what its absence means.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt;
use std::sync::Arc;

use crate::telemetry::escaped;

/// So much of a directive is shown.
const MAX_SHOWN: usize = 80;

/// A line of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    pub file: Arc<str>,
    pub line: usize,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", escaped(&self.file), self.line)
    }
}

/// What it means that a directive was left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Impact {
    /// Clients or backends may see something else.
    ChangesTraffic,
    /// They see the same.
    Harmless,
}

/// A directive that was left out.
#[derive(Clone, Debug)]
pub struct Note {
    pub place: Place,
    /// As it was written, shortened.
    pub directive: String,
    pub impact: Impact,
    pub why: String,
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { place, directive, why, .. } = self;
        write!(f, "{place}: {directive}: {why}")
    }
}

/// Why a text is not a configuration of that kind.
#[derive(Clone, Debug)]
pub struct Unreadable {
    pub place: Place,
    pub message: String,
}

/// Gathers notes, one for each directive: that of what changes traffic, else the first.
#[derive(Debug, Default)]
pub struct Notes {
    notes: Vec<Note>,
    known: HashMap<(Arc<str>, usize, String), usize>,
}

impl Notes {
    pub fn changes(&mut self, place: &Place, directive: &str, why: impl Into<String>) {
        self.add(place, directive, Impact::ChangesTraffic, &why.into());
    }

    pub fn harmless(&mut self, place: &Place, directive: &str, why: impl Into<String>) {
        self.add(place, directive, Impact::Harmless, &why.into());
    }

    fn add(&mut self, place: &Place, directive: &str, impact: Impact, why: &str) {
        let directive = match directive.char_indices().nth(MAX_SHOWN) {
            Some((end, _)) => format!("{}…", &directive[..end]),
            None => directive.to_owned(),
        };
        // It goes into a comment of the lb.yaml, and onto a terminal.
        let (directive, why) = (escaped(&directive).into_owned(), escaped(why).into_owned());
        self.push(Note { place: place.clone(), directive, impact, why });
    }

    fn push(&mut self, note: Note) {
        let key = (note.place.file.clone(), note.place.line, note.directive.clone());
        match self.known.entry(key) {
            Entry::Vacant(new) => {
                new.insert(self.notes.len());
                self.notes.push(note);
            }
            Entry::Occupied(known) => {
                let known = &mut self.notes[*known.get()];
                if known.impact == Impact::Harmless && note.impact == Impact::ChangesTraffic {
                    *known = note;
                }
            }
        }
    }

    /// Adds the notes of a part that was translated by itself.
    pub fn extend(&mut self, other: Self) {
        other.notes.into_iter().for_each(|note| self.push(note));
    }

    /// By file, in the order in which they were read, and line.
    pub fn in_order(mut self) -> Vec<Note> {
        let mut files: Vec<Arc<str>> = Vec::new();
        for note in &self.notes {
            if !files.contains(&note.place.file) {
                files.push(note.place.file.clone());
            }
        }
        let rank = |note: &Note| files.iter().position(|file| *file == note.place.file);
        self.notes.sort_by_key(|note| (rank(note), note.place.line));
        self.notes
    }
}
