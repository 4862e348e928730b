//! The keys of a pool.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::config::pool::{AddressFamily, OnDown, OnReturn, Policy, WhenAllDown};

use super::backup::BackupRank;
use super::duration_or_off::DurationOrOff;
use super::health_check::HealthCheckSpec;
use super::off::{OffOr, OnOffOr, off_or_word, or_false, switch};
use super::tls::TlsClientSpec;
use super::units::{DurationText, OneOrMany, Percent, TextOrBlock, texts_or_blocks};

/// One pool of backends.
#[derive(Clone, Debug, Deserialize, JsonSchema, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct PoolSpec {
    /// How the next backend is chosen.
    pub policy: Policy,
    /// Addresses, or blocks with an address.
    #[serde(deserialize_with = "texts_or_blocks")]
    #[schemars(with = "Vec<BackendShape>")]
    pub backends: Vec<BackendSpec>,
    /// How long one connect may take.
    pub connect_timeout: DurationText,
    /// Backends tried for one client connection, each at most once.
    pub attempts: usize,
    /// Retries under way at once, as a share of the active connections; at least 3.
    pub retry_budget: Percent,
    /// Clients that may wait while every backend is full.
    pub queue: QueueSpec,
    /// Mode tcp: a client has sent bytes, and the backend is silent for so long: the connection is reset, which is
    /// evidence against the backend. 0s or off: no limit.
    pub first_byte_timeout: DurationOrOff,
    /// Passive failure detection, which ejects a failing backend for a while; or off.
    pub failure_detection: OffOr<FailureDetectionSpec>,
    /// Active health checks; or off.
    pub health_check: OffOr<HealthCheckSpec>,
    /// What clients get while health checks let no backend pass.
    pub when_all_down: WhenAllDown,
    /// What becomes of the connections of a backend that a health check takes out.
    pub on_down: OnDown,
    /// What follows when a backend that a health check took out passes again.
    pub on_return: OnReturn,
    /// The share of a backend that recovered grows to its full weight over this time; 0s or off: at once.
    pub slow_start: DurationOrOff,
    /// Local addresses that connections to backends come from, in turn; or client: each comes from its client's
    /// address, which needs the capability CAP_NET_ADMIN and routes for the answers.
    pub source: OneOrMany,
    /// The PROXY header that each connection to a backend begins with.
    #[serde(deserialize_with = "off_or_word")]
    #[schemars(transform = or_false)]
    pub send_proxy: SendProxy,
    /// TLS to the backends: on, off, or a block of settings.
    pub tls: OnOffOr<TlsClientSpec>,
    /// How names of backends are resolved.
    pub resolve: ResolveSpec,
    /// Options of the sockets to backends.
    pub tcp: TcpSpec,
}

impl Default for PoolSpec {
    fn default() -> Self {
        Self {
            policy: Policy::RoundRobin,
            backends: Vec::new(),
            connect_timeout: DurationText::seconds(2),
            attempts: 3,
            retry_budget: Percent(20),
            queue: QueueSpec::default(),
            first_byte_timeout: DurationOrOff::seconds(0),
            failure_detection: OffOr::On(FailureDetectionSpec::default()),
            health_check: OffOr::Off,
            when_all_down: WhenAllDown::default(),
            on_down: OnDown::default(),
            on_return: OnReturn::default(),
            slow_start: DurationOrOff::seconds(0),
            source: OneOrMany::default(),
            send_proxy: SendProxy::Off,
            tls: OnOffOr::Off,
            resolve: ResolveSpec::default(),
            tcp: TcpSpec::default(),
        }
    }
}

/// The PROXY header that each connection to a backend begins with.
#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum SendProxy {
    /// None.
    #[default]
    Off,
    /// Version 1: a line of text.
    V1,
    /// Version 2: binary.
    V2,
}

/// A backend with all its keys.
#[derive(Clone, Debug, Deserialize, JsonSchema, Serialize)]
#[serde(deny_unknown_fields)]
pub struct BackendSpec {
    /// IP:port, name:port, unix:/path, or srv:_service._tcp.name.
    pub address: String,
    /// Share of new connections, 0 to 256; 0 takes none.
    #[serde(default = "one")]
    pub weight: u16,
    /// Used only when no primary is usable; a number is a rank, from 1 (`true`) to 100: a backup is used only when no
    /// backend of a lower rank is usable.
    #[serde(default)]
    pub backup: BackupRank,
    /// Connections at once; 0: any number.
    #[serde(default)]
    pub max_connections: usize,
    /// Where its health check goes: IP:port, name:port or unix:/path; default: its address, with the check's port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub check: Option<String>,
}

fn one() -> u16 {
    1
}

impl TextOrBlock for BackendSpec {
    const EXPECTED: &'static str =
        "an address such as 127.0.0.1:3001, or a block such as {address: 127.0.0.1:3001, weight: 2}";

    fn from_text(text: &str) -> Option<Self> {
        Some(Self {
            address: text.to_owned(),
            weight: one(),
            backup: BackupRank::default(),
            max_connections: 0,
            check: None,
        })
    }
}

/// An address, or a block with an address.
#[derive(JsonSchema)]
#[serde(untagged)]
#[allow(dead_code, reason = "it only has a schema: what a `BackendSpec` is read from")]
enum BackendShape {
    /// `host:port`, `unix:/path` or `srv:_service._tcp.name`.
    Address(String),
    /// With further keys.
    Block(BackendSpec),
}

/// Clients that may wait for room.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct QueueSpec {
    /// How many may wait.
    pub length: usize,
    /// For how long.
    pub timeout: DurationText,
}

impl Default for QueueSpec {
    fn default() -> Self {
        Self { length: 0, timeout: DurationText::seconds(1) }
    }
}

/// How names of backends are resolved.
#[derive(Clone, Debug, Deserialize, JsonSchema, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct ResolveSpec {
    /// A name isn't resolved again sooner.
    pub min_ttl: DurationText,
    /// A name is resolved again after this, at the latest.
    pub max_ttl: DurationText,
    /// Name servers in place of the system's: IP or IP:port. The hosts file is read first in any case.
    pub nameservers: OneOrMany,
    /// Which addresses are asked for and used. any: those of the family that answers first are used at once, those of
    /// the other when they come.
    pub family: AddressFamily,
}

impl Default for ResolveSpec {
    fn default() -> Self {
        let nameservers = OneOrMany::default();
        let family = AddressFamily::default();
        Self { min_ttl: DurationText::seconds(1), max_ttl: DurationText::seconds(60), nameservers, family }
    }
}

/// Passive failure detection.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct FailureDetectionSpec {
    /// Failed connects within the window that eject a backend; also the least number of connections that end badly.
    pub failures: usize,
    /// How long a failure counts.
    pub window: DurationText,
    /// The first ejection; each repeat is twice as long.
    pub ejection: DurationText,
    /// The longest ejection.
    pub max_ejection: DurationText,
    /// A backend that closes after the client's first bytes and before its own may have failed: its peers decide.
    #[serde(deserialize_with = "switch")]
    pub count_early_close: bool,
    /// Mode http: a response of 502, 503 or 504 counts in the same way.
    #[serde(deserialize_with = "switch")]
    pub count_5xx: bool,
    /// Mode tcp: so does a connection that ends by the idle timeout, on which the client spoke and the backend did not.
    #[serde(deserialize_with = "switch")]
    pub count_silence: bool,
}

impl Default for FailureDetectionSpec {
    fn default() -> Self {
        Self {
            failures: 3,
            window: DurationText::seconds(10),
            ejection: DurationText::seconds(10),
            max_ejection: DurationText::seconds(300),
            count_early_close: true,
            count_5xx: false,
            count_silence: false,
        }
    }
}

/// Options of TCP sockets.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct TcpSpec {
    /// Idle time before the first keep-alive probe; 0s or off: none.
    pub keepalive: DurationOrOff,
    /// Send small writes at once (TCP_NODELAY).
    #[serde(deserialize_with = "switch")]
    pub nodelay: bool,
    /// How long sent bytes may stay unacknowledged (TCP_USER_TIMEOUT); 0s or off: the kernel's default.
    pub user_timeout: DurationOrOff,
}

impl Default for TcpSpec {
    fn default() -> Self {
        Self { keepalive: DurationOrOff::seconds(60), nodelay: true, user_timeout: DurationOrOff::seconds(0) }
    }
}
