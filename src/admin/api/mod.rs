//! The answers of the API: what is true now, and what was, as JSON.

mod connections;
mod events;
mod failures;
mod history;
mod pools;
mod status;
mod steering;

pub use connections::{ConnectionReport, EndedReport, OpenConnectionsReport};
pub use events::{EventReport, EventsReport};
pub use history::HistoryReport;
pub use pools::{BackendReport, PoolReport, PoolsReport};
pub use status::{EngineReport, ListenerReport, SpliceReport, StatusReport, TlsReport};
pub use steering::{DrainReport, MembersReport, UpgradeReport};
