//! What can be counted: names of metrics, the counters behind them, and the set-up of the log.
//!
//! Each worker counts connections and bytes in atomics of its own, so that a count is one uncontended add; the main
//! thread sums them up for a scrape, whose numbers agree with each other. Histograms are shared by all workers: a
//! sample is a contended write. So are, outside this module, limits of connections and a backend's counts.

mod cause;
mod clock;
mod counters;
mod log;
pub mod metric;

pub use cause::{AcceptError, Cause, Rejection};
pub use clock::rfc3339;
pub use counters::{
    BackendCounters, ByteCounters, ListenerCounters, ListenerStats, ListenerTotals, PerWorker, Traffic,
};
pub use log::{LogSettings, start as start_log};
