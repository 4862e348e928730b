//! The admin server: metrics, health, the API. On a thread of its own; it reads what workers count and never makes
//! them wait.

mod api;
mod metrics;
mod server;

pub use api::{BackendReport, PoolReport, PoolsReport, StatusReport};
pub use metrics::Exporter;
pub use server::{Listener, View, bind, serve, upkeep};
