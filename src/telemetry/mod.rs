//! What can be counted: names of metrics, the counters behind them, and the set-up of the log.
//!
//! Workers count into atomics of their own; the main thread adds them up when somebody scrapes. So the hot path pays
//! one uncontended add, and one scrape sees numbers that agree with each other.

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
