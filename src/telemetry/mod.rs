//! Metrics and logs: names of metrics, the counters behind them, causes, and the set-up of the log.
//!
//! Each worker counts connections and bytes in atomics of its own, so that a count is one uncontended add; a scrape
//! sums them up, in an order that makes the sums agree with each other. Histograms are shared by all workers, and so
//! are, outside this module, limits of connections and a backend's counts: each of their changes is a contended write.

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
