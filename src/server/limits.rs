//! What the machine allows: workers from its cores, connections from its open-file limit.

use std::num::NonZeroUsize;
use std::thread;

use crate::relay::MAX_PIPES_PER_WORKER;

/// Files that are not connections: logs, admin clients, epoll and wake-up descriptors, health checks.
const RESERVED_FILES: u64 = 128;
/// Further such files of each worker: runtime, listeners, and pipes of two ends each.
const RESERVED_FILES_PER_WORKER: u64 = 16 + 2 * MAX_PIPES_PER_WORKER as u64;
/// A client and a backend.
const FILES_PER_CONNECTION: u64 = 2;
/// Enough for any machine of today; a huge or missing file limit would else be taken at its word.
const MOST_CONNECTIONS: u64 = 1_000_000;

/// As many workers as the cores that this process may use, its cgroup's quota counted.
pub(super) fn workers(configured: Option<NonZeroUsize>) -> usize {
    configured.or_else(|| thread::available_parallelism().ok()).map_or(1, NonZeroUsize::get)
}

/// Connections that fit below the open-file limit.
pub(super) fn max_connections(open_files: u64, workers: usize) -> usize {
    let reserved = RESERVED_FILES + RESERVED_FILES_PER_WORKER * workers as u64;
    let fitting = open_files.saturating_sub(reserved) / FILES_PER_CONNECTION;
    usize::try_from(fitting.clamp(1, MOST_CONNECTIONS)).expect("a million fits")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_leave_files_for_the_rest() {
        assert_eq!(max_connections(20_000, 2), 9_792);
        assert_eq!(max_connections(64, 2), 1, "always at least one");
        assert_eq!(max_connections(u64::MAX, 2), 1_000_000);
    }
}
