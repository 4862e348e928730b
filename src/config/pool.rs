//! The settings of a pool of backends.

use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroUsize;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::net::TcpOptions;
use crate::protocol::proxy_header;

use super::address::BackendAddress;
use super::health_check::HealthCheck;
use super::tls::TlsTo;

/// Backends that serve the same thing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolConfig {
    /// In logs and metrics.
    pub name: String,
    pub policy: Policy,
    /// No address twice; none only where all its clients name theirs.
    pub backends: Vec<BackendConfig>,
    /// One connect may take this long.
    pub connect_timeout: Duration,
    /// Backends tried for one client connection.
    pub attempts: NonZeroUsize,
    /// Retries under way at once, in per cent of the pool's connections.
    pub retry_budget: u8,
    pub queue: Queue,
    /// In tcp mode, how long a backend may be silent once the client has sent bytes; `None`: as long as the connection
    /// may be idle.
    pub first_byte_timeout: Option<Duration>,
    /// `None`: off.
    pub failure_detection: Option<FailureDetection>,
    /// `None`: off.
    pub health_check: Option<HealthCheck>,
    pub when_all_down: WhenAllDown,
    pub on_down: OnDown,
    pub on_return: OnReturn,
    /// The share of a backend that recovered grows to its full weight over this time.
    pub slow_start: Duration,
    pub source: SourceAddress,
    /// The PROXY header that each connection to a backend begins with; `None`: none.
    pub send_proxy: Option<proxy_header::ProxyVersion>,
    /// `None`: backends are spoken to without TLS.
    pub tls: Option<TlsTo>,
    pub resolve: Resolve,
    /// Options of the sockets to backends.
    pub tcp: TcpOptions,
}

impl PoolConfig {
    /// Whether at most one rank is to have connections: then a retry leaves the rank of its first backend only when no
    /// backend of it is usable.
    pub fn has_strict_ranks(&self) -> bool {
        self.on_return != OnReturn::Use
    }
}

/// What clients get while health checks let no backend pass.
#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum WhenAllDown {
    /// They are refused at once: a reset, in http mode 503.
    #[default]
    Refuse,
    /// All are tried in turn, but for those that an operator took out.
    TryAll,
}

/// What becomes of the connections of a backend that a health check takes out.
#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum OnDown {
    /// They stay open.
    #[default]
    Keep,
    /// They are reset at once.
    Close,
}

/// What follows when a backend that a health check took out passes again.
#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum OnReturn {
    /// It is used; connections that backups have meanwhile stay there.
    #[default]
    Use,
    /// It is used, and the connections of backends of higher ranks are reset: at most one rank has any.
    CloseBackups,
    /// It stays out until an operator enables it.
    Wait,
}

/// How the next backend is chosen.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Policy {
    /// In turn, exact over all workers, weights interleaved smoothly.
    RoundRobin,
    /// The one with the fewest connections for its weight.
    LeastConnections,
    /// The less loaded of two taken at random.
    RandomTwo,
    /// By the client's address (Maglev): a client keeps its backend.
    SourceHash,
    /// The first in the order of the file; the next one when it is full or not usable.
    First,
}

/// A backend, or the name of several.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackendConfig {
    pub address: BackendAddress,
    /// Its share, 0 to 256; 0 takes no new connections.
    pub weight: u16,
    /// 0: a primary. A backup is used only when no backend of a lower rank is usable.
    pub rank: u8,
    /// Connections at once; `None`: any number.
    pub max_connections: Option<NonZeroUsize>,
    /// Where its health check goes; `None`: its own address, with the port of the pool's check.
    pub check: Option<BackendAddress>,
}

/// Where connections to backends come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SourceAddress {
    /// These addresses of this machine, in turn; where none is of the backend's family, the kernel chooses.
    Addresses(Vec<IpAddr>),
    /// The client's address.
    Client,
}

/// Clients that may wait for room on the backends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Queue {
    /// How many.
    pub length: usize,
    /// For how long.
    pub timeout: Duration,
}

/// How names of backends are resolved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolve {
    /// A name isn't resolved again sooner.
    pub min_ttl: Duration,
    /// A name is resolved again after this, at the latest.
    pub max_ttl: Duration,
    /// Empty: the system's.
    pub nameservers: Vec<SocketAddr>,
    pub family: AddressFamily,
}

/// Which addresses of a name are used.
#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum AddressFamily {
    /// All that it has.
    #[default]
    Any,
    /// IPv4 addresses (A records) only.
    Ipv4,
    /// IPv6 addresses (AAAA records) only.
    Ipv6,
}

/// When a backend is ejected, and for how long.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FailureDetection {
    /// Failures within `window` that eject.
    pub failures: NonZeroUsize,
    /// How long a failure counts.
    pub window: Duration,
    /// The first ejection; each repeat is twice as long.
    pub ejection: Duration,
    /// The longest ejection.
    pub max_ejection: Duration,
    /// Whether a backend that closes after the client's first bytes and before its own has failed.
    pub count_early_close: bool,
    /// In http mode, whether a response of status 502, 503 or 504 is a failure.
    pub count_5xx: bool,
    /// In tcp mode, whether a backend that was silent until the idle timeout, after the client had sent bytes, has
    /// failed.
    pub count_silence: bool,
}
