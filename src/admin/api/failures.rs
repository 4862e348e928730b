//! Clients that were not served, in a report.

use std::collections::BTreeMap;

use crate::telemetry::FailureTotals;

/// Those that happened.
pub(super) fn failures(totals: FailureTotals) -> BTreeMap<String, u64> {
    let happened = totals.by_why().filter(|(_, count)| *count > 0);
    happened.map(|(failure, count)| (failure.as_str().to_owned(), count)).collect()
}
