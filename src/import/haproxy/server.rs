//! A `server` line: its address, and its parameters with those of `default-server`.

use crate::import::note::Notes;
use crate::import::treatment::Treatment::Translated;
use crate::import::treatment::{Row, note_left_out, treatment_of};

use super::keywords::{SERVER_PARAMETERS, words_after};
use super::tree::{Line, Proxy};

/// Parameters of a line, later ones over earlier ones.
#[derive(Clone, Debug, Default)]
pub struct Parameters<'a>(Vec<(&'a str, &'a str)>);

impl<'a> Parameters<'a> {
    /// Reads the words from this one on; those that aren't translated are noted.
    pub fn read(&mut self, line: &'a Line, from: usize, table: &[Row], notes: &mut Notes) {
        let mut words = line.from(from).iter().map(String::as_str);
        while let Some(name) = words.next() {
            if let Some(off) = name.strip_prefix("no-").filter(|off| treatment_of(table, off).is_some()) {
                self.0.retain(|(other, _)| other != &off);
                self.0.push((name, ""));
                continue;
            }
            let value = if words_after(name) == 1 { words.next().unwrap_or_default() } else { "" };
            // A few have a second word.
            if name == "source" && line.words.iter().any(|word| word == "usesrc") {
                words.by_ref().take(2).for_each(drop);
            }
            let treatment = treatment_of(table, name);
            if !matches!(treatment, Some(Translated(_))) {
                let shown = format!("{} … {name} {value}", line.word(0));
                note_left_out(treatment, false, &line.place, shown.trim_end(), notes);
            }
            self.0.retain(|(other, _)| *other != name && other.strip_prefix("no-") != Some(name));
            self.0.push((name, value));
        }
    }

    pub fn value(&self, name: &str) -> Option<&'a str> {
        self.0.iter().find(|(own, _)| *own == name).map(|(_, value)| *value)
    }

    /// Whether it is there, and not only as `no-…`.
    pub fn has(&self, name: &str) -> bool {
        self.value(name).is_some()
    }
}

/// A `server` or a `server-template`.
pub struct Server<'a> {
    pub line: &'a Line,
    /// As it was written.
    pub address: &'a str,
    pub parameters: Parameters<'a>,
}

/// The servers of a proxy, in order.
pub fn servers<'a>(proxy: &Proxy<'a>, notes: &mut Notes) -> Vec<Server<'a>> {
    let mut defaults = Parameters::default();
    for line in proxy.sections().flat_map(|section| section.all(&["default-server"])) {
        defaults.read(line, 1, SERVER_PARAMETERS, notes);
    }
    let mut servers = Vec::new();
    for line in &proxy.section.lines {
        let (address, from) = match line.word(0) {
            "server" => (line.word(2), 3),
            // server-template PREFIX NUMBER ADDRESS
            "server-template" => (line.word(3), 4),
            "dispatch" => (line.word(1), 2),
            _ => continue,
        };
        line.see();
        let mut parameters = defaults.clone();
        parameters.read(line, from, SERVER_PARAMETERS, notes);
        servers.push(Server { line, address, parameters });
    }
    servers
}
