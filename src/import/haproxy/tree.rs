//! A haproxy.cfg as sections of lines, with what a proxy inherits from its `defaults`. Knows no keyword of a section.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::Arc;

use crate::import::note::{Notes, Place, Unreadable};
use crate::import::surroundings::Surroundings;

use super::lexer::words;

/// What sections begin with.
pub const SECTIONS: [&str; 20] = [
    "global",
    "defaults",
    "frontend",
    "backend",
    "listen",
    "resolvers",
    "peers",
    "mailers",
    "userlist",
    "cache",
    "program",
    "http-errors",
    "ring",
    "log-forward",
    "fcgi-app",
    "crt-store",
    "traces",
    "log-profile",
    "acme",
    "ruleset",
];

/// Bounds time and memory.
const MAX_LINES: usize = 200_000;
/// `defaults` from `defaults` from …
const MAX_DEFAULTS: usize = 10;

/// A line: its words, the keyword first.
#[derive(Debug)]
pub struct Line {
    pub words: Vec<String>,
    pub place: Place,
    /// Whether the translation has looked at it.
    seen: Cell<bool>,
}

impl Line {
    pub fn word(&self, index: usize) -> &str {
        self.words.get(index).map_or("", String::as_str)
    }

    /// The words from this one on.
    pub fn from(&self, index: usize) -> &[String] {
        self.words.get(index..).unwrap_or_default()
    }

    /// Whether it begins with these words.
    pub fn begins_with(&self, words: &[&str]) -> bool {
        words.iter().enumerate().all(|(index, word)| self.word(index) == *word)
    }

    pub fn is_seen(&self) -> bool {
        self.seen.get()
    }

    pub fn see(&self) -> &Self {
        self.seen.set(true);
        self
    }

    pub fn text(&self) -> String {
        self.words.join(" ")
    }
}

/// A section: its first line, and the others.
#[derive(Debug)]
pub struct Section {
    pub head: Line,
    pub lines: Vec<Line>,
}

impl Section {
    pub fn kind(&self) -> &str {
        self.head.word(0)
    }

    pub fn name(&self) -> &str {
        self.head.word(1)
    }

    /// Its lines that begin with these words.
    pub fn all(&self, words: &[&str]) -> impl DoubleEndedIterator<Item = &Line> {
        self.lines.iter().filter(|line| line.begins_with(words)).map(Line::see)
    }

    /// It is left out as a whole.
    pub fn see_all(&self) {
        self.head.see();
        for line in &self.lines {
            line.see();
        }
    }
}

/// Reads `text`, the content of `file`.
///
/// # Errors
/// It breaks the grammar, or a limit.
pub fn read(
    file: &str,
    text: &str,
    surroundings: &Surroundings<'_>,
    notes: &mut Notes,
) -> Result<Vec<Section>, Unreadable> {
    let file: Arc<str> = Arc::from(file);
    let mut sections: Vec<Section> = Vec::new();
    let mut environment = BTreeMap::new();
    for (index, text) in text.trim_start_matches('\u{feff}').lines().enumerate() {
        let place = Place { file: file.clone(), line: index + 1 };
        if index == MAX_LINES {
            return Err(Unreadable { place, message: format!("more than {MAX_LINES} lines") });
        }
        let variable = |name: &str| environment.get(name).cloned().or_else(|| (surroundings.variable)(name));
        let read = words(text, &variable).map_err(|message| Unreadable { place: place.clone(), message })?;
        for name in &read.missing {
            notes.changes(&place, text.trim(), format!("the environment has no variable {name}"));
        }
        let Some(first) = read.words.first() else { continue };
        let line = Line { words: read.words.clone(), place: place.clone(), seen: Cell::new(false) };
        if first.starts_with('.') && sections.iter().all(|section| section.kind() != "program") {
            notes.changes(&place, &line.text(), "conditions aren't evaluated: the lines after it count in any case");
        } else if SECTIONS.contains(&first.as_str()) {
            sections.push(Section { head: line, lines: Vec::new() });
        } else if let Some(section) = sections.last_mut() {
            if section.kind() == "global" && matches!(first.as_str(), "setenv" | "presetenv") {
                environment.insert(line.word(1).to_owned(), line.word(2).to_owned());
                line.see();
            }
            section.lines.push(line);
        } else {
            return Err(Unreadable { place, message: format!("`{}` stands in no section", first.escape_debug()) });
        }
    }
    Ok(sections)
}

/// A proxy, with what it inherits.
#[derive(Clone)]
pub struct Proxy<'a> {
    pub section: &'a Section,
    /// Its defaults, the nearest first.
    defaults: Vec<&'a Section>,
}

impl<'a> Proxy<'a> {
    /// All proxies of these kinds.
    pub fn all(sections: &'a [Section], kinds: &[&str]) -> Vec<Self> {
        let mut proxies = Vec::new();
        let mut last = None;
        for (index, section) in sections.iter().enumerate() {
            if section.kind() == "defaults" {
                last = Some(index);
            } else if kinds.contains(&section.kind()) {
                section.head.see();
                proxies.push(Self { section, defaults: defaults_of(section, last, sections) });
            }
        }
        proxies
    }

    pub fn name(&self) -> &'a str {
        self.section.name()
    }

    pub fn place(&self) -> &'a Place {
        &self.section.head.place
    }

    /// Its defaults, the outermost first, then itself: where lines add up, they do so in this order.
    pub fn sections(&self) -> impl Iterator<Item = &'a Section> {
        self.defaults.iter().rev().copied().chain([self.section])
    }

    /// The lines that begin with these words: its own, else those of the nearest defaults.
    pub fn all_lines(&self, words: &[&str]) -> Vec<&'a Line> {
        let mut found = Vec::new();
        for section in self.sections() {
            let own: Vec<_> = section.all(words).collect();
            if !own.is_empty() {
                found = own;
            }
        }
        found
    }

    /// The last line that begins with these words.
    pub fn line(&self, words: &[&str]) -> Option<&'a Line> {
        self.all_lines(words).pop()
    }

    /// The first word after these.
    pub fn value(&self, words: &[&str]) -> Option<&'a str> {
        self.line(words).map(|line| line.word(words.len()))
    }

    /// The line of an option that is on; `no option …` switches it off.
    pub fn option(&self, name: &str) -> Option<&'a Line> {
        let mut found = None;
        for section in self.sections() {
            for line in &section.lines {
                if line.begins_with(&["option", name]) {
                    found = Some(line.see());
                } else if line.begins_with(&["no", "option", name]) {
                    line.see();
                    found = None;
                }
            }
        }
        found
    }

    /// Whether mode http is chosen.
    pub fn is_http(&self) -> bool {
        self.value(&["mode"]) == Some("http")
    }
}

/// Those that `from` names, else the last before it.
fn defaults_of<'a>(section: &Section, last: Option<usize>, sections: &'a [Section]) -> Vec<&'a Section> {
    let named =
        |name: &str| sections.iter().rposition(|section| section.kind() == "defaults" && section.name() == name);
    let from = |section: &Section| {
        let at = section.head.words.iter().position(|word| word == "from")?;
        named(section.head.word(at + 1))
    };
    let mut chain = Vec::new();
    let mut next = from(section).or(last);
    while let Some(index) = next.filter(|_| chain.len() < MAX_DEFAULTS) {
        sections[index].head.see();
        chain.push(&sections[index]);
        next = from(&sections[index]);
    }
    chain
}
