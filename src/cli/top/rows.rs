//! The rows of the table: from two reports, a second apart, to what is shown of each backend, filtered and in order.

use std::cmp::Reverse;

use crate::admin::{BackendReport, PoolReport};

use super::super::status::Reports;

labels! {
    /// By what rows are sorted; of equals the configuration's order stays.
    SortKey {
        /// What is not up first.
        State = "state",
        /// The longest p99 first.
        Slow = "slow",
        Failures = "failures",
        Rate = "rate",
        Active = "active",
        Total = "total",
        Address = "address",
    }
}

impl SortKey {
    pub(super) fn next(self) -> Self {
        Self::ALL[(self as usize + 1) % Self::ALL.len()]
    }
}

/// One backend.
#[derive(Clone, Debug)]
pub(super) struct Row {
    pub(super) pool: String,
    pub(super) address: String,
    pub(super) state: String,
    pub(super) weight: u16,
    pub(super) active: usize,
    /// Requests a second, in mode tcp connections; `None`: there is nothing to compare with.
    pub(super) rate: Option<f64>,
    pub(super) total: u64,
    pub(super) p50: Option<f64>,
    pub(super) p99: Option<f64>,
    pub(super) failures: u64,
    /// Why it isn't up and what comes next, or its last error.
    pub(super) why: String,
    /// Whether the pool would have nobody without it.
    pub(super) is_last: bool,
}

/// What decides which rows are shown, and where.
#[derive(Clone, Debug)]
pub(super) struct Order {
    pub(super) key: SortKey,
    pub(super) is_reversed: bool,
    /// Words that must all be in pool, address or state.
    pub(super) filter: String,
}

impl Default for Order {
    fn default() -> Self {
        Self { key: SortKey::State, is_reversed: false, filter: String::new() }
    }
}

pub(super) fn rows(now: &Reports, before: Option<&Reports>, order: &Order) -> Vec<Row> {
    let words: Vec<String> = order.filter.to_lowercase().split_whitespace().map(str::to_owned).collect();
    let mut rows = Vec::new();
    for pool in &now.pools.pools {
        let known = before.and_then(|before| before.pools.pools.iter().find(|known| known.name == pool.name));
        let seconds = before.map_or(0.0, |before| now.status.uptime_seconds - before.status.uptime_seconds);
        rows.extend(rows_of(pool, known, seconds));
    }
    rows.retain(|row| {
        let text = format!("{} {} {}", row.pool, row.address, row.state).to_lowercase();
        words.iter().all(|word| text.contains(word))
    });
    sort(&mut rows, order.key);
    if order.is_reversed {
        rows.reverse();
    }
    rows
}

fn rows_of<'a>(
    pool: &'a PoolReport,
    before: Option<&'a PoolReport>,
    seconds: f64,
) -> impl Iterator<Item = Row> + use<'a> {
    let is_http = pool.backends.iter().any(|backend| backend.requests > 0);
    let count = move |backend: &BackendReport| if is_http { backend.requests } else { backend.total };
    let is_usable = |backend: &BackendReport| backend.state == "up" && backend.weight > 0;
    let usable = pool.backends.iter().filter(|backend| is_usable(backend)).count();
    // Found at the same place, where nothing has come or gone.
    let known = move |index: usize, address: &str| {
        let before = before?.backends.get(index).filter(|known| known.address == address);
        before.map(count)
    };
    pool.backends.iter().enumerate().map(move |(index, backend)| Row {
        pool: pool.name.clone(),
        address: backend.address.clone(),
        state: backend.state.clone(),
        weight: backend.weight,
        active: backend.active,
        rate: known(index, &backend.address).filter(|_| seconds > 0.0).map(|known| {
            #[allow(clippy::cast_precision_loss, reason = "three digits are shown")]
            let more = count(backend).saturating_sub(known) as f64;
            more / seconds
        }),
        total: count(backend),
        p50: backend.first_byte.as_ref().map(|it| it.p50_ms),
        p99: backend.first_byte.as_ref().map(|it| it.p99_ms),
        failures: backend.failures,
        why: why(backend),
        is_last: usable == 1 && is_usable(backend),
    })
}

fn why(backend: &BackendReport) -> String {
    let reason = backend.reason.as_ref().or(backend.last_error.as_ref().filter(|_| backend.state != "up"));
    let parts = [reason, backend.next.as_ref()];
    parts.into_iter().flatten().map(String::as_str).collect::<Vec<_>>().join("; ")
}

fn sort(rows: &mut [Row], key: SortKey) {
    // A stable sort each. Times are whole microseconds, so that they have an order.
    #[allow(clippy::cast_possible_truncation, reason = "minutes in microseconds, thousands a second in thousandths")]
    let thousandths = |value: Option<f64>| Reverse(value.map(|value| (value * 1e3) as i64));
    match key {
        SortKey::State => rows.sort_by_key(|row| severity(&row.state)),
        SortKey::Slow => rows.sort_by_key(|row| thousandths(row.p99)),
        SortKey::Failures => rows.sort_by_key(|row| Reverse(row.failures)),
        SortKey::Rate => rows.sort_by_key(|row| thousandths(row.rate)),
        SortKey::Active => rows.sort_by_key(|row| Reverse(row.active)),
        SortKey::Total => rows.sort_by_key(|row| Reverse(row.total)),
        SortKey::Address => rows.sort_by(|a, b| (&a.pool, &a.address).cmp(&(&b.pool, &b.address))),
    }
}

/// The worst is 0.
fn severity(state: &str) -> u8 {
    match state {
        "down" | "ejected" => 0,
        "probing" | "waiting" => 1,
        "draining" => 2,
        "up" => 4,
        _ => 3,
    }
}
