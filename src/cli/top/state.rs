//! What `lb top` knows, and what its keys do.

use hyper::Method;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use ratatui::widgets::TableState;
use serde_json::Value;

use super::super::status::Reports;
use super::connections::{Connections, Pressed};
use super::entry::{Entry, Typed, path};
use super::feed::{Change, News};
use super::rows::{Order, Row, rows};

/// Rows of one page up or down.
const PAGE: usize = 10;
const UNSERVED: &str = "the pool's clients will not be served";

#[derive(Default)]
pub(super) struct Top {
    pub(super) reports: Option<Reports>,
    pub(super) before: Option<Reports>,
    pub(super) order: Order,
    pub(super) rows: Vec<Row>,
    pub(super) table: TableState,
    pub(super) mode: Mode,
    /// In place of the backends: the connections of one.
    pub(super) connections: Option<Connections>,
    /// What became of the last change, or why there is no answer.
    pub(super) message: String,
}

/// What keys are for.
#[derive(Default)]
pub(super) enum Mode {
    #[default]
    Keys,
    /// They are text of the filter.
    Filter,
    /// They are text of this line.
    Entry(Entry),
    /// They answer whether this is to be, in spite of what it means for clients.
    Question(Change, String),
}

/// What a key asks for that isn't the screen's.
pub(super) enum Wish {
    End,
    Change(Change),
    /// To see connections, by their path, or none any more.
    Watch(Option<String>),
}

impl Top {
    pub(super) fn take(&mut self, news: News) {
        match news {
            News::Reports(reports) => {
                self.before = self.reports.replace(*reports);
                self.arrange();
            }
            News::Connections(path, report) => {
                if let Some(connections) = self.connections.as_mut().filter(|connections| connections.path == path) {
                    connections.take(report);
                }
            }
            News::Failed(why) => self.message = why,
            News::Changed(what) => self.message = what,
        }
    }

    pub(super) fn press(&mut self, key: KeyEvent) -> Option<Wish> {
        if key.modifiers.contains(KeyModifiers::CONTROL) && key.code == KeyCode::Char('c') {
            return Some(Wish::End);
        }
        if let Some(connections) = &mut self.connections {
            self.message.clear();
            return match connections.press(key.code) {
                Pressed::Nothing => None,
                Pressed::Kill(change) => Some(Wish::Change(change)),
                Pressed::Close => {
                    self.connections = None;
                    Some(Wish::Watch(None))
                }
            };
        }
        match std::mem::take(&mut self.mode) {
            Mode::Keys => self.press_key(key.code),
            Mode::Filter => {
                self.press_text(key.code);
                None
            }
            Mode::Entry(entry) => match entry.press(key.code) {
                Typed::More(entry) => {
                    self.mode = Mode::Entry(entry);
                    None
                }
                Typed::Left => None,
                Typed::Done(change) => Some(Wish::Change(change)),
            },
            Mode::Question(change, _) => (key.code == KeyCode::Char('y')).then_some(Wish::Change(change)),
        }
    }

    fn press_key(&mut self, key: KeyCode) -> Option<Wish> {
        self.message.clear();
        match key {
            KeyCode::Char('q') | KeyCode::Esc => return Some(Wish::End),
            KeyCode::Char('s') => self.order.key = self.order.key.next(),
            KeyCode::Char('r') => self.order.is_reversed = !self.order.is_reversed,
            KeyCode::Char('/') => self.mode = Mode::Filter,
            KeyCode::Char('d') => return self.change("drain"),
            KeyCode::Char('x') => return self.change("disable"),
            KeyCode::Char('e') => return self.change("enable"),
            KeyCode::Char('c') => return self.show_connections(),
            KeyCode::Char('a') => self.enter(|row| Entry::add(&row.pool)),
            KeyCode::Char('w') => self.enter(|row| Entry::weight(&row.pool, &row.address)),
            KeyCode::Char('R') | KeyCode::Delete => self.ask_to_remove(),
            KeyCode::Down | KeyCode::Char('j') => self.table.select_next(),
            KeyCode::Up | KeyCode::Char('k') => self.table.select_previous(),
            KeyCode::PageDown => self.table.scroll_down_by(u16::try_from(PAGE).unwrap_or(u16::MAX)),
            KeyCode::PageUp => self.table.scroll_up_by(u16::try_from(PAGE).unwrap_or(u16::MAX)),
            KeyCode::Home | KeyCode::Char('g') => self.table.select_first(),
            KeyCode::End | KeyCode::Char('G') => self.table.select_last(),
            _ => {}
        }
        self.arrange();
        None
    }

    fn press_text(&mut self, key: KeyCode) {
        self.mode = Mode::Filter;
        match key {
            KeyCode::Char(c) => self.order.filter.push(c),
            KeyCode::Backspace => drop(self.order.filter.pop()),
            KeyCode::Esc => {
                self.order.filter.clear();
                self.mode = Mode::Keys;
            }
            KeyCode::Enter => self.mode = Mode::Keys,
            _ => {}
        }
        self.arrange();
    }

    /// Of the row that is selected: at once, unless clients would lose by it.
    fn change(&mut self, verb: &str) -> Option<Wish> {
        let row = self.rows.get(self.table.selected()?)?;
        let path = format!("{}/{verb}", path(&row.pool, Some(&row.address)));
        let change = Change::order(Method::POST, path, Value::Null, format!("{verb} {} {}", row.pool, row.address));
        if row.is_last && verb != "enable" {
            self.mode = Mode::Question(change, UNSERVED.to_owned());
            return None;
        }
        Some(Wish::Change(change))
    }

    /// About the row that is selected.
    fn enter(&mut self, entry: impl FnOnce(&Row) -> Entry) {
        if let Some(row) = self.table.selected().and_then(|index| self.rows.get(index)) {
            self.mode = Mode::Entry(entry(row));
        }
    }

    /// Always asked: there is no key that brings it back.
    fn ask_to_remove(&mut self) {
        let Some(row) = self.table.selected().and_then(|index| self.rows.get(index)) else { return };
        let means = match row.active {
            _ if row.is_last => UNSERVED.to_owned(),
            0 => "it is gone at once".to_owned(),
            active => format!("it drains, and is gone once its {active} connections have ended"),
        };
        let title = format!("remove {} {}", row.pool, row.address);
        let change = Change::order(Method::DELETE, path(&row.pool, Some(&row.address)), Value::Null, title);
        self.mode = Mode::Question(change, means);
    }

    /// Of the row that is selected.
    fn show_connections(&mut self) -> Option<Wish> {
        let row = self.rows.get(self.table.selected()?)?;
        let connections = self.connections.insert(Connections::of(&row.pool, &row.address));
        Some(Wish::Watch(Some(connections.path.clone())))
    }

    /// The rows anew; the backend that was selected stays so, wherever it goes.
    fn arrange(&mut self) {
        let Some(reports) = &self.reports else { return };
        let key = |row: &Row| (row.pool.clone(), row.address.clone());
        let selected = self.table.selected().map(|index| index.min(self.rows.len().saturating_sub(1)));
        let selected = selected.and_then(|index| self.rows.get(index)).map(key);
        self.rows = rows(reports, self.before.as_ref(), &self.order);
        let place = selected.and_then(|selected| self.rows.iter().position(|row| key(row) == selected));
        self.table.select(place.or(if self.rows.is_empty() { None } else { Some(0) }));
    }
}
