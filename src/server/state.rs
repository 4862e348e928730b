//! What the main thread keeps of the running balancer: where its configuration comes from, what it is now, and what
//! runs for it.

use std::sync::Arc;
use std::time::Duration;

use crate::admin::View;
use crate::config::{Config, Source};

use super::capacity::Capacity;
use super::file_watch::FileWatch;
use super::running_config::RunningConfig;

/// The state that a reload changes.
pub(super) struct ServerState {
    /// Where the configuration is read again.
    pub(super) source: Source,
    pub(super) config: Config,
    pub(super) capacity: Capacity,
    pub(super) running: RunningConfig,
    pub(super) view: Arc<View>,
    pub(super) file: FileWatch,
    /// The workers' clocks are as precise as this time limit needs, the shortest when they started.
    pub(super) shortest_limit: Duration,
}
