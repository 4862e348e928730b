//! The screen of `lb top`, drawn anew from what is known. What doesn't fit is clipped: columns give way, rows scroll.

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout};
use ratatui::style::{Color, Modifier, Style, Stylize};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Paragraph, Row as Cells, Table};

use crate::admin::PoolReport;

use super::super::status::Reports;
use super::connections::Connections;
use super::rows::Row;
use super::state::{Mode, Top};

/// Pools without a usable backend that are named, each on a line.
const MOST_OUTAGES: usize = 3;
const KEYS: &str = "q quit s sort / filter d drain x disable e enable w weight a add R remove c connections";
/// Narrower screens leave out weight, total and p50.
const WIDE: u16 = 110;

pub(super) fn draw(frame: &mut Frame<'_>, top: &mut Top) {
    let Some(reports) = &top.reports else {
        let text = if top.message.is_empty() { "asking the balancer …" } else { &top.message };
        return frame.render_widget(Paragraph::new(text), frame.area());
    };
    let outages = outages(reports);
    let head = u16::try_from(outages.len()).unwrap_or(0) + 2;
    let [head, body, foot] =
        Layout::vertical([Constraint::Length(head), Constraint::Min(2), Constraint::Length(1)]).areas(frame.area());
    let second = top.connections.as_ref().map_or_else(|| pools_line(reports, top), Connections::head_line);
    let lines = [process_line(reports, top.before.as_ref()), second].into_iter().chain(outages);
    frame.render_widget(Paragraph::new(lines.collect::<Vec<_>>()), head);
    if let Some(connections) = &mut top.connections {
        connections.draw(frame, body);
        return frame.render_widget(connections.foot_line(&top.message), foot);
    }
    let foot_line = foot_line(top);
    let table = table(&top.rows, body.width >= WIDE);
    frame.render_stateful_widget(table, body, &mut top.table);
    frame.render_widget(foot_line, foot);
}

fn process_line(Reports { status, .. }: &Reports, before: Option<&Reports>) -> Line<'static> {
    let sum = |reports: &Reports, count: fn(&crate::admin::ListenerReport) -> u64| {
        reports.status.listeners.iter().map(count).sum::<u64>()
    };
    let rate = |count: fn(&crate::admin::ListenerReport) -> u64| {
        let seconds = before.map_or(0.0, |before| status.uptime_seconds - before.status.uptime_seconds);
        let now: u64 = status.listeners.iter().map(count).sum();
        before.filter(|_| seconds > 0.0).map(|before| {
            #[allow(clippy::cast_precision_loss, reason = "three digits are shown")]
            let more = now.saturating_sub(sum(before, count)) as f64;
            more / seconds
        })
    };
    let failed = rate(|listener| listener.failed);
    let ready = match &status.unready_reason {
        None => Span::styled("● ready", Color::Green),
        Some(why) => Span::styled(format!("▲ not ready: {why}"), Style::new().fg(Color::Red).bold()),
    };
    let is_failing = failed.is_some_and(|failed| failed > 0.0);
    let failing = if is_failing { Style::new().fg(Color::Red).bold() } else { Style::new() };
    Line::from(vec![
        Span::raw(format!("lb {}  ", status.version)).bold(),
        ready,
        Span::raw(format!("  {} of {} connections", status.connections.active, status.connections.max)),
        Span::raw(format!("  {} accepted/s  ", number(rate(|listener| listener.accepted)))),
        Span::styled(format!("{} failed/s", number(failed)), failing),
    ])
}

fn pools_line(Reports { pools, .. }: &Reports, top: &Top) -> Line<'static> {
    let backends = pools.pools.iter().flat_map(|pool| &pool.backends);
    let up = backends.clone().filter(|backend| backend.state == "up").count();
    let filter = if top.order.filter.is_empty() { String::new() } else { format!("  filter: {}", top.order.filter) };
    let reversed = if top.order.is_reversed { ", reversed" } else { "" };
    Line::raw(format!(
        "{up} of {} backends up, {} pools  sorted by {}{reversed}{filter}",
        backends.count(),
        pools.pools.len(),
        top.order.key.as_str()
    ))
}

/// Pools that serve nobody.
fn outages(Reports { pools, .. }: &Reports) -> Vec<Line<'static>> {
    let down = pools.pools.iter().filter(|pool| pool.is_down());
    let line = |PoolReport { name, service, failed, .. }: &PoolReport| {
        let text = format!("✖ DOWN: pool {name} has no usable backend ({service}), {failed} clients failed so far");
        Line::styled(text, Style::new().fg(Color::White).bg(Color::Red).bold())
    };
    down.take(MOST_OUTAGES).map(line).collect()
}

fn table(rows: &[Row], is_wide: bool) -> Table<'static> {
    let columns = [
        ("POOL", Constraint::Max(12), true),
        ("BACKEND", Constraint::Max(24), true),
        ("STATE", Constraint::Length(10), true),
        ("WEIGHT", Constraint::Length(6), is_wide),
        ("ACTIVE", Constraint::Length(6), true),
        ("RATE/s", Constraint::Length(8), true),
        ("TOTAL", Constraint::Length(9), is_wide),
        ("p50 ms", Constraint::Length(8), is_wide),
        ("p99 ms", Constraint::Length(8), true),
        ("FAILED", Constraint::Length(6), true),
        ("WHY", Constraint::Fill(1), true),
    ];
    let shown = |index: &usize| columns[*index].2;
    let indices: Vec<usize> = (0..columns.len()).filter(shown).collect();
    let header = Cells::new(indices.iter().map(|index| columns[*index].0)).style(Modifier::BOLD);
    let widths: Vec<Constraint> = indices.iter().map(|index| columns[*index].1).collect();
    let cells = rows.iter().map(|row| {
        let texts = texts(row);
        Cells::new(indices.iter().map(|index| texts[*index].clone()).collect::<Vec<_>>()).style(style(&row.state))
    });
    Table::new(cells, widths).header(header).row_highlight_style(Modifier::REVERSED)
}

fn texts(row: &Row) -> [String; 11] {
    [
        row.pool.clone(),
        row.address.clone(),
        format!("{} {}", mark(&row.state), row.state),
        row.weight.to_string(),
        row.active.to_string(),
        number(row.rate),
        row.total.to_string(),
        number(row.p50),
        number(row.p99),
        row.failures.to_string(),
        row.why.clone(),
    ]
}

/// A shape each, beside word and colour.
fn mark(state: &str) -> char {
    match state {
        "up" => '●',
        "ejected" => '▲',
        "down" => '✖',
        "probing" => '◌',
        "waiting" => '□',
        "draining" => '◐',
        "disabled" => '‖',
        _ => '○',
    }
}

fn style(state: &str) -> Style {
    match state {
        "up" => Style::new(),
        "ejected" | "down" => Style::new().fg(Color::Red),
        "probing" | "waiting" | "draining" => Style::new().fg(Color::Yellow),
        _ => Style::new().fg(Color::DarkGray),
    }
}

fn foot_line(top: &Top) -> Line<'static> {
    match &top.mode {
        Mode::Filter => Line::raw(format!("filter: {}▏  Enter keeps it, Esc ends it", top.order.filter)),
        Mode::Entry(entry) => entry.foot_line(),
        Mode::Question(change, means) => {
            // The keys first: the rest may be clipped.
            let text = format!("y / n? {}: {means}", change.title);
            Line::styled(text, Style::new().fg(Color::Red).bold())
        }
        Mode::Keys if !top.message.is_empty() => Line::raw(top.message.clone()),
        Mode::Keys => Line::styled(KEYS, Color::DarkGray),
    }
}

fn number(value: Option<f64>) -> String {
    match value {
        None => "-".to_owned(),
        Some(value) if value >= 1000.0 => format!("{value:.0}"),
        Some(value) if value >= 10.0 => format!("{value:.1}"),
        Some(value) => format!("{value:.2}"),
    }
}
