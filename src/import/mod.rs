//! Configurations of other programs, nginx.conf and haproxy.cfg, as lb.yaml: text in, the file's types and notes on
//! what was left out. Opens no file and no socket by itself.

mod access;
#[cfg(test)]
mod broken;
mod draft;
mod haproxy;
mod headers;
mod heading;
mod nginx;
mod note;
#[cfg(test)]
mod reference;
mod surroundings;
mod treatment;
mod values;

use crate::config;
use crate::config::file::File;

use draft::Draft;

pub use note::{Impact, Note, Place, Unreadable};
pub use surroundings::Surroundings;

/// Bytes of a configuration, and of all files that it includes.
pub const MAX_BYTES: usize = 4 << 20;

/// Reasons that are given why nothing of a file can run; more would help nobody.
const MAX_REASONS: usize = 20;

/// Whose configuration a text is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    Nginx,
    Haproxy,
}

/// A configuration of another program, translated.
#[derive(Debug)]
pub struct Import {
    pub file: File,
    pub notes: Vec<Note>,
}

impl Format {
    /// Known by the first word; `None`: the text is of neither, and may be an lb.yaml.
    pub fn of(text: &str) -> Option<Self> {
        let mut lines = text.trim_start_matches('\u{feff}').lines().map(str::trim);
        let line = lines.find(|line| !line.is_empty() && !line.starts_with('#'))?;
        let word = line.split(|c: char| c.is_whitespace() || c == ';' || c == '{').next()?;
        if haproxy::SECTIONS.contains(&word) {
            return Some(Self::Haproxy);
        }
        treatment::treatment_of(nginx::DIRECTIVES, word).map(|_| Self::Nginx)
    }

    /// Of a text that is surely no lb.yaml: nginx's begins with a directive that isn't known, perhaps.
    pub fn guess(text: &str) -> Option<Self> {
        text.contains(';').then_some(Self::Nginx)
    }
}

impl Import {
    /// Translates `text`, the content of `file`.
    ///
    /// # Errors
    /// It isn't a configuration of this format, or nothing of it can run under lb: the line, and why.
    pub fn of(format: Format, file: &str, text: &str, surroundings: &mut Surroundings<'_>) -> Result<Self, Unreadable> {
        let mut draft = Draft::default();
        match format {
            Format::Nginx => nginx::translate(file, text, surroundings, &mut draft)?,
            Format::Haproxy => haproxy::translate(file, text, surroundings, &mut draft)?,
        }
        if draft.file.listeners.is_empty() {
            return Err(nothing_left(file, draft.notes.in_order()));
        }
        let start = Place { file: file.into(), line: 1 };
        if let Some(problem) = config::problems_of(&draft.file).iter().find(|one| !is_of_another_machine(one)) {
            let of = |(path, _): &(&String, &Place)| problem.path.starts_with(path.as_str());
            let place = draft.places.iter().rfind(of).map_or(&start, |(_, place)| place);
            return Err(Unreadable { place: place.clone(), message: format!("as lb.yaml, {problem}") });
        }
        Ok(Self { file: draft.file, notes: draft.notes.in_order() })
    }

    /// Whether something was left out that clients or backends may notice.
    pub fn changes_traffic(&self) -> bool {
        self.notes.iter().any(|note| note.impact == Impact::ChangesTraffic)
    }
}

/// Files of TLS may be where the configuration is to run, and not here.
fn is_of_another_machine(problem: &config::Problem) -> bool {
    let is_of_files =
        [": can't be read: ", "the system has no certificates"].iter().any(|it| problem.message.contains(it));
    problem.path.contains(".tls") && is_of_files
}

/// There is no listener: why, if something was left out.
fn nothing_left(file: &str, notes: Vec<Note>) -> Unreadable {
    let mut left_out = notes.into_iter().filter(|note| note.impact == Impact::ChangesTraffic);
    match left_out.next() {
        Some(Note { place, directive, why, .. }) => {
            let more = left_out.map(|note| format!("\n  {note}")).take(MAX_REASONS).collect::<String>();
            Unreadable { place, message: format!("nothing in it can run under lb: {directive}: {why}{more}") }
        }
        None => {
            let place = Place { file: file.into(), line: 1 };
            Unreadable { place, message: "nothing in it passes traffic on".to_owned() }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_files_of_tls_may_be_on_another_machine() {
        let of = |path: &str, message: &str| {
            is_of_another_machine(&config::Problem { place: None, path: path.into(), message: message.into() })
        };
        assert!(of("listeners.a.tls.certificates[0].cert", "/a.pem: can't be read: No such file or directory"));
        assert!(!of("listeners.a.tls.client_auth", "needs a `client_ca`"));
        assert!(!of("listeners.a.access_log", "/a: can't be read: No such file or directory"));
    }
}
