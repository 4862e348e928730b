//! What the machine allows: workers by its cores, connections by the open-file limit and the cgroup's memory.

use std::fs;
use std::num::NonZeroUsize;
use std::path::Path;
use std::thread;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::relay::{PIPE_FILES_PER_WORKER, Pipes};

/// Files that are not connections: logs, admin clients, epoll and wake-up descriptors, health checks. They must work
/// when as many connections as allowed are open too.
const RESERVED_FILES: u64 = 128;
/// Further such files of each worker: runtime, listeners, and its pipe.
const RESERVED_FILES_PER_WORKER: u64 = 16 + PIPE_FILES_PER_WORKER as u64;
/// A client and a backend.
const FILES_PER_CONNECTION: u64 = 2;
/// No more, however many files are allowed: containers often have no limit at all, or one of billions.
const MOST_CONNECTIONS: u64 = 1_000_000;
/// Memory of a connection that an attacker makes as dear as possible: ours (benches/attackers measures some 20 KiB, and
/// more only of pipelined requests), and the state of two sockets in the kernel. What their buffers hold is bounded by
/// the kernel, which shrinks them when memory is short.
const BYTES_PER_CONNECTION: u64 = 32 * 1024;
/// Connections may take one part in so many of the cgroup's memory, if that is limited.
const SHARE_OF_MEMORY: u64 = 2;

/// What this process may use.
#[derive(Clone, Copy, Debug)]
pub(super) struct Capacity {
    pub(super) workers: usize,
    open_files: u64,
    /// Of the cgroup, in bytes; `None`: it is not limited.
    memory: Option<u64>,
    /// Connections at once that fit within both limits.
    fitting: usize,
}

impl Capacity {
    /// Raises the limit of open files as far as possible, then reads the limits. `workers` are those configured.
    pub(super) fn detect(workers: Option<NonZeroUsize>) -> Self {
        let open_files = raise_open_file_limit();
        // As many as the cores that this process may use, its cgroup's quota counted.
        let workers = workers.or_else(|| thread::available_parallelism().ok()).map_or(1, NonZeroUsize::get);
        let memory = memory_limit(Path::new("/proc/self/cgroup"), Path::new("/sys/fs/cgroup"));
        Self { workers, open_files, memory, fitting: fitting(open_files, memory, workers) }
    }

    /// The limit of connections: as configured, else as many as fit.
    pub(super) fn connections(&self, configured: Option<NonZeroUsize>) -> usize {
        let max = configured.map_or(self.fitting, NonZeroUsize::get);
        if max > self.fitting {
            let Self { fitting, open_files, memory, .. } = self;
            tracing::warn!(
                max_connections = max,
                fitting,
                open_files,
                memory,
                "more connections than open files and memory allow; raise `ulimit -n` or the cgroup's limit"
            );
        }
        max
    }

    /// Logs that the balancer accepts, and within which limits.
    pub(super) fn log_start(&self, max_connections: usize, pipes: &Pipes) {
        let Self { workers, open_files, memory, .. } = self;
        let (pipes, pipe_bytes) = (pipes.open(), pipes.open_bytes());
        tracing::info!(workers, max_connections, open_files, memory, pipes, pipe_bytes, "accepting connections");
    }
}

/// Raises the soft limit of open files to the hard one, and returns the result; `u64::MAX`: there is no limit.
fn raise_open_file_limit() -> u64 {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current != maximum && setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).is_ok() {
        return maximum.unwrap_or(u64::MAX);
    }
    current.unwrap_or(u64::MAX)
}

fn fitting(open_files: u64, memory: Option<u64>, workers: usize) -> usize {
    let reserved = RESERVED_FILES + RESERVED_FILES_PER_WORKER * workers as u64;
    let by_files = open_files.saturating_sub(reserved) / FILES_PER_CONNECTION;
    let by_memory = memory.map_or(u64::MAX, |bytes| bytes / SHARE_OF_MEMORY / BYTES_PER_CONNECTION);
    usize::try_from(by_files.min(by_memory).clamp(1, MOST_CONNECTIONS)).expect("a million fits")
}

/// The smallest memory limit of this process's cgroup and those around it (cgroups(7), version 2). `own` is the file
/// with the process's cgroup, `root` where the cgroups are mounted.
fn memory_limit(own: &Path, root: &Path) -> Option<u64> {
    let own = fs::read_to_string(own).ok()?;
    let path = own.lines().find_map(|line| line.strip_prefix("0::/"))?;
    Path::new(path).ancestors().filter_map(|group| limit_of(&root.join(group))).min()
}

/// `None`: it has none, which reads `max`.
fn limit_of(group: &Path) -> Option<u64> {
    fs::read_to_string(group.join("memory.max")).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_leave_files_for_the_rest() {
        assert_eq!(fitting(20_000, None, 2), 9_918);
        assert_eq!(fitting(64, None, 2), 1, "always at least one");
        assert_eq!(fitting(u64::MAX, None, 2), 1_000_000);
    }

    #[test]
    fn connections_fit_into_the_cgroup_and_those_around_it() {
        assert_eq!(fitting(u64::MAX, Some(64 << 20), 2), 1_024);
        let folder = tempfile::tempdir().expect("a folder");
        let write = |name: &str, text: &str| {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().expect("a parent")).expect("it is ours");
            fs::write(path, text).expect("it is ours");
        };
        write("self", "0::/pod/app\n");
        write("root/pod/app/memory.max", "max\n");
        write("root/pod/memory.max", "134217728\n");
        let limit = memory_limit(&folder.path().join("self"), &folder.path().join("root"));
        assert_eq!(limit, Some(128 << 20));
    }
}
