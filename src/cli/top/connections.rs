//! The connections of one backend: which there are, and the end of one or of all, each after a question.

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use ratatui::Frame;
use ratatui::crossterm::event::KeyCode;
use ratatui::layout::{Constraint, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::Line;
use ratatui::widgets::{Row as Cells, Table, TableState};

use crate::admin::OpenConnectionsReport;

use super::super::connections::{PATH, row};
use super::feed::Change;

const KEYS: &str = "Esc back  k kill the selected one  K kill all of the backend";
/// More than a screen has room for.
const MOST_SHOWN: usize = 200;
/// Of the columns of `lb connections`: client, listener, age, idle, in, out, requests, server name.
const COLUMNS: [(usize, &str, Constraint); 9] = [
    (0, "ID", Constraint::Length(8)),
    (1, "CLIENT", Constraint::Max(24)),
    (2, "LISTENER", Constraint::Max(12)),
    (5, "AGE", Constraint::Length(12)),
    (6, "IDLE", Constraint::Length(12)),
    (7, "IN", Constraint::Length(10)),
    (8, "OUT", Constraint::Length(10)),
    (9, "REQUESTS", Constraint::Length(8)),
    (10, "SERVER NAME", Constraint::Fill(1)),
];

pub(super) struct Connections {
    /// What the API is asked.
    pub(super) path: String,
    title: String,
    of_backend: String,
    /// `None`: no answer has come yet.
    report: Option<OpenConnectionsReport>,
    table: TableState,
    question: Option<Change>,
}

/// What a key asks for.
pub(super) enum Pressed {
    Nothing,
    Close,
    Kill(Change),
}

impl Connections {
    /// Of this backend.
    pub(super) fn of(pool: &str, address: &str) -> Self {
        let [pool_value, backend] = [pool, address].map(|text| utf8_percent_encode(text, NON_ALPHANUMERIC));
        let of_backend = format!("{PATH}?pool={pool_value}&backend={backend}");
        Self {
            path: format!("{of_backend}&limit={MOST_SHOWN}"),
            title: format!("{address} in {pool}"),
            of_backend,
            report: None,
            table: TableState::new(),
            question: None,
        }
    }

    /// The one that was selected stays so while it is there.
    pub(super) fn take(&mut self, report: OpenConnectionsReport) {
        let ids = |report: &OpenConnectionsReport| -> Vec<String> {
            report.connections.iter().map(|connection| connection.id.clone()).collect()
        };
        let selected = self.selected();
        let ids = ids(&report);
        let place = selected.and_then(|selected| ids.iter().position(|id| *id == selected));
        let last = ids.len().checked_sub(1);
        self.table.select(place.or(last.map(|last| self.table.selected().unwrap_or(0).min(last))));
        self.report = Some(report);
    }

    pub(super) fn press(&mut self, key: KeyCode) -> Pressed {
        if let Some(change) = self.question.take() {
            return if key == KeyCode::Char('y') { Pressed::Kill(change) } else { Pressed::Nothing };
        }
        match key {
            KeyCode::Char('q' | 'c') | KeyCode::Esc => return Pressed::Close,
            KeyCode::Char('k') => self.question = self.selected().map(|id| self.kill_one(&id)),
            KeyCode::Char('K') => self.question = self.kill_all(),
            KeyCode::Down | KeyCode::Char('j') => self.table.select_next(),
            KeyCode::Up => self.table.select_previous(),
            KeyCode::Home => self.table.select_first(),
            KeyCode::End => self.table.select_last(),
            _ => {}
        }
        Pressed::Nothing
    }

    fn selected(&self) -> Option<String> {
        let connection = self.report.as_ref()?.connections.get(self.table.selected()?)?;
        Some(connection.id.clone())
    }

    fn kill_one(&self, id: &str) -> Change {
        Change::end_connections(format!("{PATH}?id={id}"), format!("kill connection {id} of {}", self.title))
    }

    fn kill_all(&self) -> Option<Change> {
        let matched = self.report.as_ref()?.matched;
        let title = format!("kill all connections of {} ({matched} now)", self.title);
        (matched > 0).then(|| Change::end_connections(self.of_backend.clone(), title))
    }

    pub(super) fn draw(&mut self, frame: &mut Frame<'_>, area: Rect) {
        let rows = self.report.as_ref().map(|report| report.connections.iter().map(row)).into_iter().flatten();
        let cells = rows.map(|row| Cells::new(COLUMNS.map(|(index, ..)| row[index].clone())));
        let header = Cells::new(COLUMNS.map(|(_, name, _)| name)).style(Modifier::BOLD);
        let table = Table::new(cells, COLUMNS.map(|(_, _, width)| width)).header(header);
        frame.render_stateful_widget(table.row_highlight_style(Modifier::REVERSED), area, &mut self.table);
    }

    /// What is shown.
    pub(super) fn head_line(&self) -> Line<'static> {
        let Some(report) = &self.report else {
            return Line::raw(format!("asking for connections of {} …", self.title));
        };
        let shown = report.connections.len();
        let part = if shown < report.matched { format!(", the newest {shown} of them") } else { String::new() };
        Line::raw(format!("{} connections of {}{part}", report.matched, self.title))
    }

    pub(super) fn foot_line(&self, message: &str) -> Line<'static> {
        match &self.question {
            Some(change) => {
                let style = Style::new().fg(Color::Red).bold();
                Line::styled(format!("y / n? {}: clients are reset", change.title), style)
            }
            None if !message.is_empty() => Line::raw(message.to_owned()),
            None => Line::styled(KEYS, Color::DarkGray),
        }
    }
}
