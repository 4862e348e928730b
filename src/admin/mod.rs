//! The admin server: metrics, health, the API and the status page. It runs on the main thread, reads what the workers
//! count, and never makes them wait.

mod apart;
mod api;
mod asker;
mod authorization;
mod connections;
mod gzip;
mod history;
mod metrics;
mod route;
mod server;
mod token;
mod view;

pub use api::{
    BackendReport, ConnectionReport, EndedReport, EngineReport, ListenerReport, OpenConnectionsReport, PoolReport,
    PoolsReport, SpliceReport, StatusReport, TlsReport,
};
#[cfg(test)]
pub use authorization::AdminRefusal;
pub use authorization::Guard;
pub use history::History;
pub use metrics::Exporter;
pub use server::{AdminListener, MAX_FILES, serve};
pub use token::read_token;
pub use view::{Command, Reloads, Shown, ShownListener, View};
