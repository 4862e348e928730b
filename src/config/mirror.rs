//! The YAML mirror of the configuration: the shape of `lb.yaml`, its keys and their defaults.
//!
//! Knows serde, but no YAML. Whether the values make sense together is `build`'s to say.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::de::{self, Deserializer, MapAccess, Visitor};
use serde::{Deserialize, Serialize};

use super::listener::ListenerSpec;
use super::units::{AutoOr, DurationText, OffOr, OneOrMany, Percent};
use super::{AccessLog, LogFormat, LogLevel, Policy, RelayMode, SendProxy};

/// Stands in a list for an item that was reported already; what is said of it then is not told (`Reporter::problem`).
pub(super) const UNREADABLE: &str = "\u{0}unreadable";

/// `lb.yaml`, long form, with the defaults filled in.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct File {
    /// Places to accept connections, by name.
    pub listeners: BTreeMap<String, ListenerSpec>,
    /// Backends that serve the same thing, by name.
    pub pools: BTreeMap<String, PoolSpec>,
    /// Metrics, health, API, status page.
    pub admin: AdminSpec,
    /// Worker threads; auto: the cores this process may use.
    pub workers: AutoOr,
    /// Client connections at once; auto: as many as open files and memory allow.
    pub max_connections: AutoOr,
    /// How it stops.
    pub drain: DrainSpec,
    /// How bytes are moved.
    pub relay: RelaySpec,
    /// Logs.
    pub log: LogSpec,
    /// Reload when this file changes.
    pub watch: bool,
}

/// One pool of backends.
#[derive(Clone, Debug, Deserialize, JsonSchema, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct PoolSpec {
    /// How the next backend is chosen.
    pub policy: Policy,
    /// Addresses, or blocks with an address.
    pub backends: Vec<BackendSpec>,
    /// One attempt to connect.
    pub connect_timeout: DurationText,
    /// Backends tried for one client connection, each at most once.
    pub attempts: usize,
    /// Retries under way at once, of the active connections; at least 3.
    pub retry_budget: Percent,
    /// Clients that may wait while every backend is full.
    pub queue: QueueSpec,
    /// Passive detection: failed connections set a backend aside for a while. Or off.
    pub failure_detection: OffOr<FailureDetectionSpec>,
    /// Active checks. Or off.
    pub health_check: OffOr<HealthCheckSpec>,
    /// A backend that came back gets its full share only after this long.
    pub slow_start: DurationText,
    /// Local addresses that connections to backends come from, in turn.
    pub source: OneOrMany,
    /// The PROXY header that each connection to a backend begins with.
    pub send_proxy: SendProxy,
    /// How names of backends are resolved.
    pub resolve: ResolveSpec,
    /// Socket options.
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
            failure_detection: OffOr::On(FailureDetectionSpec::default()),
            health_check: OffOr::Off,
            slow_start: DurationText::seconds(0),
            source: OneOrMany::default(),
            send_proxy: SendProxy::Off,
            resolve: ResolveSpec::default(),
            tcp: TcpSpec::default(),
        }
    }
}

/// One backend: `host:port`, or a block with an address.
#[derive(Clone, Debug, JsonSchema, Serialize)]
#[schemars(with = "BackendShape")]
pub struct BackendSpec {
    /// Where it listens.
    pub address: String,
    /// Share of new connections.
    pub weight: u16,
    /// Used only when no primary is usable.
    pub backup: bool,
    /// Connections at once; 0: any number.
    pub max_connections: usize,
}

/// Clients that may wait for room.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct QueueSpec {
    /// How many may wait.
    pub length: usize,
    /// How long.
    pub timeout: DurationText,
}

impl Default for QueueSpec {
    fn default() -> Self {
        Self { length: 0, timeout: DurationText::seconds(1) }
    }
}

/// Active health checks.
#[derive(Clone, Debug, Deserialize, JsonSchema, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct HealthCheckSpec {
    /// From one check to the next, 10 % more or less.
    pub interval: DurationText,
    /// A check must be over in this time.
    pub timeout: DurationText,
    /// Successes in a row that bring a backend back.
    pub rise: usize,
    /// Failures in a row that take it out.
    pub fall: usize,
    /// Ask by GET; without it, a connection that is accepted is enough.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http: Option<HttpCheckSpec>,
}

impl Default for HealthCheckSpec {
    fn default() -> Self {
        Self { interval: DurationText::seconds(2), timeout: DurationText::seconds(1), rise: 2, fall: 3, http: None }
    }
}

/// A health check by GET.
#[derive(Clone, Debug, Deserialize, JsonSchema, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct HttpCheckSpec {
    /// What to ask for.
    pub path: String,
    /// The Host header; default: the backend's address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// Good answers, such as 200 or 200-399.
    pub status: OneOrMany,
}

impl Default for HttpCheckSpec {
    fn default() -> Self {
        Self { path: "/".to_owned(), host: None, status: OneOrMany(vec!["200-399".to_owned()]) }
    }
}

/// How names of backends are resolved.
#[derive(Clone, Debug, Deserialize, JsonSchema, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct ResolveSpec {
    /// A name isn't asked for again sooner.
    pub min_ttl: DurationText,
    /// A name is asked for again at the latest after this.
    pub max_ttl: DurationText,
    /// Asked in place of the system's: IP or IP:port.
    pub nameservers: OneOrMany,
}

impl Default for ResolveSpec {
    fn default() -> Self {
        let nameservers = OneOrMany::default();
        Self { min_ttl: DurationText::seconds(1), max_ttl: DurationText::seconds(60), nameservers }
    }
}

/// Passive failure detection.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct FailureDetectionSpec {
    /// Failures within the window that eject a backend.
    pub failures: usize,
    /// How long a failure counts.
    pub window: DurationText,
    /// The first ejection; each repeat is twice as long.
    pub ejection: DurationText,
    /// The longest ejection.
    pub max_ejection: DurationText,
    /// A backend that closes after the client's first bytes and before its own has failed.
    pub count_early_close: bool,
    /// Mode http: a response of 502, 503 or 504 is a failure.
    pub count_5xx: bool,
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
        }
    }
}

/// Socket options towards clients and backends.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct TcpSpec {
    /// Idle time before the first keep-alive probe; 0s: none.
    pub keepalive: DurationText,
    /// Send small writes at once (TCP_NODELAY).
    pub nodelay: bool,
    /// How long sent bytes may stay unacknowledged (TCP_USER_TIMEOUT); 0s: the kernel's default.
    pub user_timeout: DurationText,
}

impl Default for TcpSpec {
    fn default() -> Self {
        Self { keepalive: DurationText::seconds(60), nodelay: true, user_timeout: DurationText::seconds(0) }
    }
}

/// The admin server.
#[derive(Clone, Debug, Deserialize, JsonSchema, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct AdminSpec {
    /// host:port, *:port, unix:/path, or off.
    pub bind: String,
    /// Holds the bearer token that changes need; without one they are taken on a loopback or unix bind only.
    pub token_file: Option<PathBuf>,
    /// Names under which changes are taken, beside addresses and localhost.
    pub allowed_hosts: Vec<String>,
}

impl Default for AdminSpec {
    fn default() -> Self {
        Self { bind: "127.0.0.1:9900".to_owned(), token_file: None, allowed_hosts: Vec::new() }
    }
}

/// How it stops.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct DrainSpec {
    /// Accepting goes on for this long after the signal.
    pub grace: DurationText,
    /// Connections may then go on for this long.
    pub timeout: DurationText,
}

impl Default for DrainSpec {
    fn default() -> Self {
        Self { grace: DurationText::seconds(0), timeout: DurationText::seconds(30) }
    }
}

/// The relay.
#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct RelaySpec {
    /// auto: bulk is spliced, the rest copied.
    pub mode: RelayMode,
}

/// Logs.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct LogSpec {
    /// The least severe level shown.
    pub level: LogLevel,
    /// Of both the log and the access log.
    pub format: LogFormat,
    /// off, stdout, stderr, or a file's path.
    pub access: AccessLog,
}

/// What [`BackendSpec`] is read from.
#[derive(JsonSchema)]
#[serde(untagged)]
#[allow(dead_code, reason = "it only has a schema")]
enum BackendShape {
    /// `host:port`, `unix:/path` or `srv:_service._tcp.name`.
    Address(String),
    /// The same with more to say.
    Block(BackendBlock),
}

/// A backend with all its keys.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct BackendBlock {
    /// IP:port, name:port, unix:/path, or srv:_service._tcp.name.
    address: String,
    /// Share of new connections, 0 to 256; 0 takes none.
    #[serde(default = "one")]
    weight: u16,
    /// Used only when no primary is usable.
    #[serde(default)]
    backup: bool,
    /// Connections at once; 0: any number.
    #[serde(default)]
    max_connections: usize,
}

fn one() -> u16 {
    1
}

impl<'de> Deserialize<'de> for BackendSpec {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct AddressOrBlock;
        impl<'de> Visitor<'de> for AddressOrBlock {
            type Value = BackendSpec;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(
                    "an address such as 127.0.0.1:3001, or a block such as {address: 127.0.0.1:3001, weight: 2}",
                )
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<BackendSpec, E> {
                Ok(BackendSpec { address: text.to_owned(), weight: 1, backup: false, max_connections: 0 })
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<BackendSpec, A::Error> {
                let block = BackendBlock::deserialize(de::value::MapAccessDeserializer::new(map))?;
                let BackendBlock { address, weight, backup, max_connections } = block;
                Ok(BackendSpec { address, weight, backup, max_connections })
            }
        }
        deserializer.deserialize_any(AddressOrBlock)
    }
}
