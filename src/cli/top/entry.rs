//! A line of text that a key asks for: the weight of a backend, or one to add.

use hyper::Method;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use ratatui::crossterm::event::KeyCode;
use ratatui::text::Line;
use serde_json::json;

use super::feed::Change;

pub(super) struct Entry {
    kind: Kind,
    pool: String,
    typed: String,
}

enum Kind {
    /// Of this backend.
    Weight(String),
    Add,
}

/// What came of a key.
pub(super) enum Typed {
    /// The line goes on.
    More(Entry),
    Left,
    Done(Change),
}

impl Entry {
    pub(super) fn weight(pool: &str, address: &str) -> Self {
        Self { kind: Kind::Weight(address.to_owned()), pool: pool.to_owned(), typed: String::new() }
    }

    pub(super) fn add(pool: &str) -> Self {
        Self { kind: Kind::Add, pool: pool.to_owned(), typed: String::new() }
    }

    pub(super) fn press(mut self, key: KeyCode) -> Typed {
        match key {
            KeyCode::Char(c) => self.typed.push(c),
            KeyCode::Backspace => drop(self.typed.pop()),
            KeyCode::Enter if !self.typed.trim().is_empty() => return Typed::Done(self.change()),
            KeyCode::Esc | KeyCode::Enter => return Typed::Left,
            _ => {}
        }
        Typed::More(self)
    }

    pub(super) fn foot_line(&self) -> Line<'static> {
        let Self { pool, typed, .. } = self;
        Line::raw(match &self.kind {
            Kind::Weight(address) => format!("weight of {address} in {pool}: {typed}▏  Enter sets it, Esc leaves it"),
            Kind::Add => format!("add to {pool}, ADDRESS [WEIGHT]: {typed}▏  Enter adds it, Esc leaves it"),
        })
    }

    /// What is wrong with it, the balancer says.
    fn change(&self) -> Change {
        let pool = &self.pool;
        let mut words = self.typed.split_whitespace();
        let first = words.next().unwrap_or_default();
        // What is no number is refused as the text that it is.
        let number = |word: &str| word.parse::<u64>().map_or_else(|_| json!(word), |number| json!(number));
        match &self.kind {
            Kind::Weight(address) => {
                let title = format!("weight {first} of {pool} {address}");
                Change::order(Method::PATCH, path(pool, Some(address)), json!({ "weight": number(first) }), title)
            }
            Kind::Add => {
                let mut entry = json!({ "address": first });
                if let Some(weight) = words.next() {
                    entry["weight"] = number(weight);
                }
                Change::order(Method::POST, path(pool, None), entry, format!("add {pool} {first}"))
            }
        }
    }
}

/// Of a pool's backends, or of one.
pub(super) fn path(pool: &str, address: Option<&str>) -> String {
    let segment = |text| utf8_percent_encode(text, NON_ALPHANUMERIC);
    let address = address.map_or(String::new(), |address| format!("/{}", segment(address)));
    format!("/api/v1/pools/{}/backends{address}", segment(pool))
}
