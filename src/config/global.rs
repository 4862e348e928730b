//! The run-time configuration as a whole, and the settings that belong to no listener or pool.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::address::BindAddress;
use super::listener::ListenerConfig;
use super::log::LogConfig;
use super::pool::PoolConfig;

/// A configuration that can run.
#[derive(Clone, Debug)]
pub struct Config {
    /// In the order of their names.
    pub listeners: Vec<ListenerConfig>,
    /// In the order of their names; every pool that a listener names is one of them.
    pub pools: Vec<PoolConfig>,
    pub admin: AdminConfig,
    /// `None`: as many as the cores that this process may use.
    pub workers: Option<NonZeroUsize>,
    /// `None`: as many as open files and memory allow.
    pub max_connections: Option<NonZeroUsize>,
    pub drain: DrainConfig,
    pub relay: RelayConfig,
    pub log: LogConfig,
    /// Whether a change of the file reloads it.
    pub watch: bool,
}

impl AdminConfig {
    /// All addresses that it listens on, each with its key.
    pub fn addresses(&self) -> impl Iterator<Item = (&'static str, &BindAddress)> {
        let bind = self.bind.iter().map(|address| ("admin.bind", address));
        bind.chain(self.socket.iter().map(|address| ("admin.socket", address)))
    }
}

impl Config {
    /// The shortest time limit of any listener: how finely the workers must measure idle time.
    pub fn shortest_limit(&self) -> Duration {
        let of_listeners = self.listeners.iter().map(ListenerConfig::shortest_limit);
        let of_pools = self.pools.iter().filter_map(|pool| pool.first_byte_timeout);
        of_listeners.chain(of_pools).min().unwrap_or(Duration::MAX)
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdminConfig {
    /// Where it listens; `None`: it is off.
    pub bind: Option<BindAddress>,
    /// A unix socket beside it; `None`: there is none.
    pub socket: Option<BindAddress>,
    /// Has the bearer token that changes need, but those by a unix socket; `None`: they need none, and are accepted on
    /// a loopback or unix bind only.
    pub token_file: Option<PathBuf>,
    /// Names under which it answers more than /metrics and probes, beside addresses and localhost: any other may be an
    /// attacker's, made to resolve to this address.
    pub allowed_hosts: Vec<String>,
}

/// How the process stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DrainConfig {
    /// After the signal, connections are accepted for this long.
    pub grace: Duration,
    /// Open connections may then continue for this long.
    pub timeout: Duration,
    /// The same in the old process after an upgrade; `None`: to their end.
    pub upgrade_timeout: Option<Duration>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RelayConfig {
    pub mode: RelayMode,
    pub engine: RelayEngine,
}

/// How bytes are moved between sockets.
#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum RelayMode {
    /// Bulk is spliced, the rest copied.
    #[default]
    Auto,
    /// Always copied.
    Copy,
    /// Always spliced, as far as the system grants pipes.
    Splice,
}

/// What hands small sends to the kernel.
#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum RelayEngine {
    /// io_uring where it works, else epoll.
    #[default]
    Auto,
    /// Many in one call; where that doesn't work, the balancer doesn't start.
    IoUring,
    /// Each by itself.
    Epoll,
}
