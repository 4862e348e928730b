//! What becomes of a directive: the shape of the tables of all that are known. The importers decide by these tables,
//! and docs/reference/import.md is made from them.

use super::note::{Notes, Place};

/// What becomes of a directive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Treatment {
    /// Into this of lb.yaml.
    Translated(&'static str),
    /// Into this where lb can say the same; else it changes traffic: why.
    Partly(&'static str, &'static str),
    /// It is left out, and nobody notices: why.
    Harmless(&'static str),
    /// It is left out, and clients or backends may notice: why. With the value `off` it is harmless.
    Changes(&'static str),
}

/// Directives that are treated alike.
pub struct Row {
    /// With spaces between them; `*` stands for a part of a name.
    names: &'static str,
    pub treatment: Treatment,
}

pub const fn row(names: &'static str, treatment: Treatment) -> Row {
    Row { names, treatment }
}

impl Row {
    pub fn names(&self) -> impl Iterator<Item = &'static str> {
        self.names.split(' ')
    }
}

/// What becomes of the directive `name`: a row with the whole name wins. `None`: it isn't known.
pub fn treatment_of(table: &[Row], name: &str) -> Option<Treatment> {
    let exact = table.iter().find(|row| row.names().any(|known| known == name));
    let fits = |pattern: &str| match pattern.split_once('*') {
        Some((start, end)) => name.starts_with(start) && name.ends_with(end),
        None => false,
    };
    exact.or_else(|| table.iter().find(|row| row.names().any(fits))).map(|row| row.treatment)
}

/// Notes a directive that no translation asked for. `is_off`: it switches its function off.
pub fn note_left_out(treatment: Option<Treatment>, is_off: bool, place: &Place, directive: &str, notes: &mut Notes) {
    match treatment {
        Some(Treatment::Harmless(why)) => notes.harmless(place, directive, why),
        Some(Treatment::Changes(_) | Treatment::Partly(..)) if is_off => notes.harmless(place, directive, "it is off"),
        Some(Treatment::Changes(why) | Treatment::Partly(_, why)) => notes.changes(place, directive, why),
        Some(Treatment::Translated(_)) => notes.harmless(place, directive, "nothing that was translated uses it"),
        None => notes.changes(place, directive, "`lb import` doesn't know it"),
    }
}
