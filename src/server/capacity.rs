//! What the machine allows: workers by its cores, connections by the open-file limit and the cgroup's memory.

use std::num::NonZeroUsize;
use std::thread;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::admin;
use crate::backends;
use crate::config::{BackendAddress, BindAddress, Config, ListenerConfig, Mode, PoolConfig};
use crate::net::RING_FILES_PER_WORKER;
use crate::relay::{Engine, PIPE_FILES_PER_WORKER, Pipes};

use super::cgroup::memory_limit;
use super::error::RunError;

/// Files that every process has: the standard ones, the main thread's runtime, the access log, those that are read or
/// passed on for a moment (configuration, /proc for the metrics, an upgrade). They must work when as many connections
/// as allowed are open too.
const BASE_FILES: u64 = 64;
/// Further files of each worker: runtime, clients that are refused, its ring and its pipe.
const FILES_PER_WORKER: u64 = 16 + RING_FILES_PER_WORKER + PIPE_FILES_PER_WORKER as u64;
/// Of each address that is listened on, each worker has a socket, and the main thread a duplicate of it.
const FILES_PER_LISTEN_SOCKET: u64 = 2;
/// A name may have more addresses than are known at the start: as many are reckoned with.
const ADDRESSES_OF_BIND_NAME: u64 = 2;
const ADDRESSES_OF_BACKEND_NAME: u64 = 16;
/// A client and a backend.
const FILES_PER_CONNECTION: u64 = 2;
/// Idle connections to backends may take one part in so many of the files that are left for connections.
const SHARE_OF_IDLE: u64 = 4;
/// No more, however many files are allowed: containers often have no limit at all, or one of billions.
const MOST_CONNECTIONS: u64 = 1_000_000;
/// Fewer, where nobody has asked for so few, are an oversight: a shell's or a container's limit of open files.
const FEW_CONNECTIONS: usize = 1_000;
/// With fewer the balancer doesn't start.
const FEWEST_CONNECTIONS: usize = 10;
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
}

/// What a configuration may use of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Limits {
    /// Client connections at once.
    pub(super) connections: usize,
    /// Connections to backends that are kept for later requests, of all workers.
    pub(super) idle_connections: usize,
}

impl Capacity {
    /// Raises the limit of open files as far as possible, then reads the limits. `workers` are those configured.
    pub(super) fn detect(workers: Option<NonZeroUsize>) -> Self {
        let open_files = raise_open_file_limit();
        // As many as the cores that this process may use, its cgroup's quota counted.
        let workers = workers.or_else(|| thread::available_parallelism().ok()).map_or(1, NonZeroUsize::get);
        Self { workers, open_files, memory: memory_limit() }
    }

    /// The limits under `config`: connections as configured, else as many as fit.
    ///
    /// # Errors
    /// Hardly any fit, and the configuration doesn't say that so few are meant.
    pub(super) fn limits(&self, config: &Config) -> Result<Limits, RunError> {
        let fitting = self.fitting(config, config.max_connections);
        let Self { open_files, memory, .. } = *self;
        let connections = match config.max_connections.map(NonZeroUsize::get) {
            None if fitting.connections < FEWEST_CONNECTIONS => {
                return Err(RunError::FewFiles { connections: fitting.connections, open_files });
            }
            None => {
                if fitting.connections < FEW_CONNECTIONS {
                    tracing::warn!(
                        max_connections = fitting.connections,
                        open_files,
                        memory,
                        "open files or memory allow few connections; raise `ulimit -n` or the cgroup's limit"
                    );
                }
                fitting.connections
            }
            Some(max_connections) => {
                if fitting.connections < max_connections {
                    tracing::warn!(
                        max_connections,
                        fitting = fitting.connections,
                        open_files,
                        memory,
                        "more connections than open files and memory allow; raise `ulimit -n` or the cgroup's limit"
                    );
                }
                max_connections
            }
        };
        Ok(Limits { connections, ..fitting })
    }

    /// Logs that the balancer accepts, and within which limits.
    pub(super) fn log_start(&self, max_connections: usize, engine: &Engine, pipes: &Pipes) {
        let Self { workers, open_files, memory, .. } = self;
        let (pipes, pipe_bytes) = (pipes.open(), pipes.open_bytes());
        let (engine, engine_reason) = (engine.name(), engine.reason());
        tracing::info!(
            workers,
            max_connections,
            open_files,
            memory,
            engine,
            engine_reason,
            pipes,
            pipe_bytes,
            "accepting connections"
        );
    }

    /// As many as fit, beside all else that takes files.
    fn fitting(&self, config: &Config, wanted: Option<NonZeroUsize>) -> Limits {
        let files = self.open_files.saturating_sub(files_beside_connections(config, self.workers as u64));
        let of_clients = wanted.map_or(u64::MAX, |wanted| FILES_PER_CONNECTION.saturating_mul(wanted.get() as u64));
        let left = files.saturating_sub(of_clients).max(files / SHARE_OF_IDLE);
        let idle = most_idle_connections(config, self.workers as u64).min(left);
        let by_memory = self.memory.map_or(u64::MAX, |bytes| bytes / SHARE_OF_MEMORY / BYTES_PER_CONNECTION);
        let connections = ((files - idle) / FILES_PER_CONNECTION).min(by_memory).min(MOST_CONNECTIONS);
        let count = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
        Limits { connections: count(connections), idle_connections: count(idle) }
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

/// Files that are no connections of clients.
fn files_beside_connections(config: &Config, workers: u64) -> u64 {
    let admin: u64 = config.admin.addresses().map(|_| admin::MAX_FILES).sum();
    let listened: u64 = config.listeners.iter().flat_map(|listener| &listener.bind).map(addresses_of_bind).sum();
    let of_pools: u64 = config.pools.iter().map(|pool| checks(pool) + lookups(pool, config)).sum();
    BASE_FILES + admin + workers * (FILES_PER_WORKER + FILES_PER_LISTEN_SOCKET * listened) + of_pools
}

/// Health checks that may be under way at once.
fn checks(pool: &PoolConfig) -> u64 {
    if pool.health_check.is_some() { backends_of(pool) } else { 0 }
}

/// Sockets to name servers that may be open at once.
fn lookups(pool: &PoolConfig, config: &Config) -> u64 {
    let mut routes = config.listeners.iter().flat_map(|listener| listener.mode.routes());
    let of_clients = routes.any(|route| route.pool == pool.name && route.to_server_name.is_some());
    let is_name = |address: &BackendAddress| !matches!(address, BackendAddress::Address(_));
    let names = pool.backends.iter().filter(|backend| is_name(&backend.address)).count();
    backends::most_lookup_files(names + if of_clients { backends::MOST_LOOKUPS } else { 0 })
}

/// Idle connections that all workers together may want to keep.
fn most_idle_connections(config: &Config, workers: u64) -> u64 {
    let of_listener = |listener: &ListenerConfig| {
        let Mode::Http(http) = &listener.mode else { return 0 };
        let pool = config.pools.iter().find(|pool| Some(&pool.name) == listener.pool.as_ref());
        let kept = http.backend_keep_alive.idle_connections as u64;
        pool.map_or(0, backends_of).saturating_mul(kept).saturating_mul(workers)
    };
    config.listeners.iter().map(of_listener).fold(0, u64::saturating_add)
}

fn addresses_of_bind(address: &BindAddress) -> u64 {
    if matches!(address, BindAddress::Name(..)) { ADDRESSES_OF_BIND_NAME } else { 1 }
}

fn backends_of(pool: &PoolConfig) -> u64 {
    let backends = pool.backends.iter().map(|backend| match backend.address {
        BackendAddress::Address(_) => 1,
        BackendAddress::Name(..) | BackendAddress::Srv(_) => ADDRESSES_OF_BACKEND_NAME,
    });
    backends.sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Overrides, Source};

    /// One listener and one backend, with further keys.
    fn config(keys: &[&str]) -> Config {
        let flags = Overrides {
            listen: vec!["127.0.0.1:8080".to_owned()],
            backend: vec!["127.0.0.1:3001".to_owned()],
            set: keys.iter().map(|key| (*key).to_owned()).collect(),
            ..Overrides::default()
        };
        Source { flags, ..Source::default() }.load().expect("it is valid").config
    }

    fn limits(open_files: u64, memory: Option<u64>, keys: &[&str]) -> Limits {
        Capacity { workers: 2, open_files, memory }.limits(&config(keys)).expect("some connections fit")
    }

    #[test]
    fn connections_leave_files_for_the_rest() {
        let Limits { connections, idle_connections } = limits(20_000, None, &[]);
        assert_eq!((connections, idle_connections), (9_914, 0));
        assert_eq!(limits(64, None, &["max_connections=5"]).connections, 5, "as configured");
        let too_few = Capacity { workers: 2, open_files: 64, memory: None }.limits(&config(&[]));
        assert!(matches!(too_few, Err(RunError::FewFiles { connections: 0, open_files: 64 })), "{too_few:?}");
        assert_eq!(limits(u64::MAX, None, &[]).connections, 1_000_000);
        assert_eq!(limits(u64::MAX, Some(64 << 20), &[]).connections, 1_024);
    }

    #[test]
    fn idle_connections_to_backends_are_counted() {
        let Limits { connections, idle_connections } = limits(20_000, None, &["mode=http"]);
        assert_eq!((connections, idle_connections), (9_914 - 64, 2 * 64));
        let many = ["mode=http", "http.backend_keep_alive.idle_connections=10000"];
        let Limits { connections, idle_connections } = limits(20_000, None, &many);
        assert_eq!(idle_connections, 2 * 9_914 / 4);
        assert!(2 * connections + idle_connections <= 2 * 9_914);
        let few = ["mode=http", "http.backend_keep_alive.idle_connections=10000", "max_connections=100"];
        assert_eq!(limits(20_000, None, &few).idle_connections, 2 * (9_914 - 100));
    }

    #[test]
    fn listeners_checks_and_lookups_take_files() {
        let beside = |keys: &[&str]| files_beside_connections(&config(keys), 2) as i64;
        let alone = beside(&[]);
        assert_eq!(beside(&["admin.bind=off"]), alone - admin::MAX_FILES as i64);
        assert_eq!(beside(&["health_check.interval=1s"]), alone + 1);
        assert_eq!(beside(&["listen=[127.0.0.1:1, 127.0.0.1:2, localhost:3]"]), alone + 2 * 2 * 3);
        assert!(beside(&["backends=[a.test:1]"]) > alone);
    }
}
