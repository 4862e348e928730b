//! The answers of the API: what is true now, and what was, as JSON.

mod events;
mod pools;
mod status;

use std::collections::BTreeMap;

use crate::telemetry::FailureTotals;

pub use events::EventsReport;
pub use pools::{BackendReport, PoolReport, PoolsReport};
pub use status::{EngineReport, ListenerReport, SpliceReport, StatusReport, TlsReport};

/// Those that happened.
fn failures(totals: FailureTotals) -> BTreeMap<String, u64> {
    let happened = totals.by_why().filter(|(_, count)| *count > 0);
    happened.map(|(failure, count)| (failure.as_str().to_owned(), count)).collect()
}
