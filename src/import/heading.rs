//! An import as the text of an lb.yaml, whose heading lists what was left out.

use std::fmt::Write;

use crate::config::print_compact;
use crate::telemetry::escaped;

use super::Import;
use super::note::{Impact, Note};

impl Import {
    /// The lb.yaml, with a comment that lists what was left out of `file`: first what changes traffic.
    pub fn to_yaml(&self, file: &str) -> String {
        let mut text = format!("# Made by `lb import` from {}.\n", escaped(file));
        let of = |impact: Impact| self.notes.iter().filter(move |note| note.impact == impact);
        if self.notes.is_empty() {
            text += "# All of it was translated.\n";
        }
        write_list(&mut text, "Left out, and it changes traffic", of(Impact::ChangesTraffic));
        write_list(&mut text, "Left out, harmless", of(Impact::Harmless));
        text + "\n" + &print_compact(&self.file)
    }
}

fn write_list<'a>(text: &mut String, title: &str, notes: impl Iterator<Item = &'a Note>) {
    let mut notes = notes.peekable();
    if notes.peek().is_some() {
        *text += &format!("#\n# {title}:\n");
    }
    for note in notes {
        writeln!(text, "#   {note}").expect("a String takes every text");
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Format, Surroundings};
    use super::*;

    #[test]
    fn what_the_source_says_does_not_break_the_comment() {
        let text = "http { server { listen 7; listen [m\0\u{1b}:80; location / { proxy_pass http://127.0.0.1:1; } } }";
        let mut surroundings = Surroundings { files: &mut |_| Ok(Vec::new()), variable: &|_| None };
        let import = Import::of(Format::Nginx, "file", text, &mut surroundings).expect("one address is left");
        let yaml = import.to_yaml("file");
        assert!(yaml.contains("[m") && yaml.chars().all(|c| c == '\n' || !c.is_control()), "{yaml}");
    }
}
