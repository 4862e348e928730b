//! What `lb top` knows, and what its keys do.

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use ratatui::widgets::TableState;

use super::super::status::Reports;
use super::connections::{Connections, Pressed};
use super::feed::{Change, News};
use super::rows::{Order, Row, rows};

/// Rows of one page up or down.
const PAGE: usize = 10;

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
    /// They answer whether clients are to lose their last backend.
    Question(Change),
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
            Mode::Question(change) => (key.code == KeyCode::Char('y')).then_some(Wish::Change(change)),
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
        let [pool, address] = [&row.pool, &row.address].map(|text| utf8_percent_encode(text, NON_ALPHANUMERIC));
        let path = format!("/api/v1/pools/{pool}/backends/{address}/{verb}");
        let change = Change::post(path, format!("{verb} {} {}", row.pool, row.address));
        if row.is_last && verb != "enable" {
            self.mode = Mode::Question(change);
            return None;
        }
        Some(Wish::Change(change))
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
