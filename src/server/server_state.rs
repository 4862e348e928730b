//! The state of the running balancer: where its configuration comes from, what it is now, and what runs for it.

use std::sync::Arc;
use std::time::Duration;

use crate::admin::View;
use crate::config::file::File;
use crate::config::{Config, Source};
use crate::file_watch::FileWatch;
use crate::lifecycle::ConnectionLimit;

use super::capacity::Capacity;
use super::running_config::RunningConfig;

/// Owned by the main loop; a reload changes it.
pub(super) struct ServerState {
    /// What a reload reads the configuration from.
    pub(super) source: Source,
    pub(super) config: Config,
    /// The file that it came from, with environment and flags applied.
    pub(super) effective: File,
    pub(super) capacity: Capacity,
    /// The limit of connections that are kept for later requests.
    pub(super) idle_connections: Arc<ConnectionLimit>,
    pub(super) running: RunningConfig,
    pub(super) view: Arc<View>,
    pub(super) file: FileWatch,
    /// The shortest time limit when the workers started: they measure idle time as finely as it needs.
    pub(super) shortest_limit: Duration,
}
