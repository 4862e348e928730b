//! Metrics and logs: names of metrics, the counters behind them, causes, the program's log, and what writes logs.
//!
//! Each worker counts connections and bytes in atomics of its own, so that a count is one uncontended add; a scrape
//! sums them up, in an order that makes the sums agree with each other. Histograms are shared by all workers, and so
//! are, outside this module, limits of connections and a backend's counts: each of their changes is a contended write.

mod cause;
mod clock;
mod counters;
mod escape;
mod events;
mod failures;
mod handshakes;
mod histogram;
mod latency;
mod log;
mod log_sink;
mod log_target;
mod log_writer;
mod lost_lines;
pub mod metric;
mod syslog;

pub use cause::{AcceptError, Cause, Rejection};
pub use clock::{CommonLogTime, rfc3339};
pub use counters::{
    Answer, Answerer, BackendCounters, ByteCounters, ListenerCounters, ListenerStats, ListenerTotals, PerWorker,
    PoolHistograms, Traffic,
};
pub use escape::{Unquoted, Word, escaped, escaped_json};
pub use events::{PastEvent, events_after};
pub use failures::{ClientFailure, FailureCounters, FailureTotals};
pub use handshakes::{HandshakeFailure, HandshakeKind, HandshakeTotals};
pub use histogram::{Histogram, HistogramTotals};
pub use latency::{Latencies, LatencyBuckets, SeenLatencies};
pub use log::{
    LEVELS, LogSettings, configure_level, is_on_stderr, levels as log_levels, set_level, start as start_log,
    writer as log_writer,
};
pub use log_target::LogTarget;
pub use log_writer::{LogWriter, LogWriterOptions};
pub use syslog::{FACILITIES, Severity, SyslogFormat, SyslogReceiver, SyslogTarget};
