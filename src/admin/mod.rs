//! The admin server: metrics, health, the API. On the main thread, not on a worker's; it reads what workers count and never makes
//! them wait.

mod api;
mod metrics;
mod server;

pub use api::{BackendReport, PoolReport, PoolsReport, StatusReport};
pub use metrics::Exporter;
pub use server::{Listener, View, bind, serve, upkeep};
