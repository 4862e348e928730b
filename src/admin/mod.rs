//! The admin server: metrics, health, the API and the status page. It runs on the main thread, reads what the workers
//! count, and never makes them wait.

mod apart;
mod api;
mod asker;
mod authorization;
mod body;
mod change;
mod config_change;
mod connections;
mod gzip;
mod history;
mod log_level;
mod metrics;
mod query;
mod response;
mod route;
mod server;
mod token;
mod view;

pub use api::{
    BackendReport, ConnectionReport, DrainReport, EndedReport, EngineReport, EventReport, EventsReport, ListenerReport,
    MembersReport, OpenConnectionsReport, PoolReport, PoolsReport, SpliceReport, StatusReport, TlsReport,
    UpgradeReport,
};
#[cfg(test)]
pub use authorization::AdminRefusal;
pub use authorization::Guard;
pub use config_change::{ChangeKind, ConfigChange, ReloadAnswer};
pub use history::History;
pub use log_level::LogReport;
pub use metrics::Exporter;
pub use server::{AdminListener, MAX_FILES, serve};
pub use token::read_token;
pub use view::{Command, Reloads, Shown, ShownListener, View};
