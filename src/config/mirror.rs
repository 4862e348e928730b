//! The YAML mirror of the configuration: the shape of `lb.yaml`, its keys and their defaults.
//!
//! Knows serde, but no YAML. Whether the values make sense together is `build`'s to say.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use serde::de::{self, Deserializer, MapAccess, Visitor};
use serde::{Deserialize, Serialize};

use super::listener::ListenerFile;
use super::units::{AutoOr, DurationText, OffOr, OneOrMany, Percent};
use super::{AccessLog, LogFormat, LogLevel, PolicyKind, RelayMode, SendProxy};

/// Stands in a list for an item that was reported already; `build` passes over it.
pub(super) const UNREADABLE: &str = "\u{0}unreadable";

/// `lb.yaml`, long form, with the defaults filled in.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct File {
    pub listeners: BTreeMap<String, ListenerFile>,
    pub pools: BTreeMap<String, PoolFile>,
    pub admin: AdminFile,
    pub workers: AutoOr,
    pub max_connections: AutoOr,
    pub drain: DrainFile,
    pub relay: RelayFile,
    pub log: LogFile,
    pub watch: bool,
}

/// One pool of backends.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct PoolFile {
    pub policy: PolicyKind,
    pub backends: Vec<BackendFile>,
    pub connect_timeout: DurationText,
    pub attempts: usize,
    pub retry_budget: Percent,
    pub queue: QueueFile,
    pub failure_detection: OffOr<FailureDetectionFile>,
    pub health_check: OffOr<HealthCheckFile>,
    pub slow_start: DurationText,
    pub source: OneOrMany,
    pub send_proxy: SendProxy,
    pub resolve: ResolveFile,
    pub tcp: TcpFile,
}

impl Default for PoolFile {
    fn default() -> Self {
        Self {
            policy: PolicyKind::RoundRobin,
            backends: Vec::new(),
            connect_timeout: DurationText::seconds(2),
            attempts: 3,
            retry_budget: Percent(20),
            queue: QueueFile::default(),
            failure_detection: OffOr::On(FailureDetectionFile::default()),
            health_check: OffOr::Off,
            slow_start: DurationText::seconds(0),
            source: OneOrMany::default(),
            send_proxy: SendProxy::Off,
            resolve: ResolveFile::default(),
            tcp: TcpFile::default(),
        }
    }
}

/// One backend: `host:port`, or a block with an address.
#[derive(Clone, Debug, Serialize)]
pub struct BackendFile {
    pub address: String,
    pub weight: u16,
    pub backup: bool,
    pub max_connections: usize,
}

/// Clients that may wait for room.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct QueueFile {
    pub length: usize,
    pub timeout: DurationText,
}

impl Default for QueueFile {
    fn default() -> Self {
        Self { length: 0, timeout: DurationText::seconds(1) }
    }
}

/// Active health checks.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct HealthCheckFile {
    pub interval: DurationText,
    pub timeout: DurationText,
    pub rise: usize,
    pub fall: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http: Option<HttpCheckFile>,
}

impl Default for HealthCheckFile {
    fn default() -> Self {
        Self { interval: DurationText::seconds(2), timeout: DurationText::seconds(1), rise: 2, fall: 3, http: None }
    }
}

/// A health check by GET.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct HttpCheckFile {
    pub path: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    pub status: OneOrMany,
}

impl Default for HttpCheckFile {
    fn default() -> Self {
        Self { path: "/".to_owned(), host: None, status: OneOrMany(vec!["200-399".to_owned()]) }
    }
}

/// How names of backends are resolved.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct ResolveFile {
    pub min_ttl: DurationText,
    pub max_ttl: DurationText,
    pub nameservers: OneOrMany,
}

impl Default for ResolveFile {
    fn default() -> Self {
        let nameservers = OneOrMany::default();
        Self { min_ttl: DurationText::seconds(1), max_ttl: DurationText::seconds(60), nameservers }
    }
}

/// Passive failure detection.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct FailureDetectionFile {
    pub failures: usize,
    pub window: DurationText,
    pub ejection: DurationText,
    pub max_ejection: DurationText,
    pub count_early_close: bool,
    pub count_5xx: bool,
}

impl Default for FailureDetectionFile {
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
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct TcpFile {
    pub keepalive: DurationText,
    pub nodelay: bool,
    pub user_timeout: DurationText,
}

impl Default for TcpFile {
    fn default() -> Self {
        Self { keepalive: DurationText::seconds(60), nodelay: true, user_timeout: DurationText::seconds(0) }
    }
}

/// The admin server.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct AdminFile {
    pub bind: String,
    pub token_file: Option<PathBuf>,
    pub allowed_hosts: Vec<String>,
}

impl Default for AdminFile {
    fn default() -> Self {
        Self { bind: "127.0.0.1:9900".to_owned(), token_file: None, allowed_hosts: Vec::new() }
    }
}

/// How it stops.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct DrainFile {
    pub grace: DurationText,
    pub timeout: DurationText,
}

impl Default for DrainFile {
    fn default() -> Self {
        Self { grace: DurationText::seconds(0), timeout: DurationText::seconds(30) }
    }
}

/// The relay.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct RelayFile {
    pub mode: RelayMode,
}

/// Logs.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct LogFile {
    pub level: LogLevel,
    pub format: LogFormat,
    pub access: AccessLog,
}

impl<'de> Deserialize<'de> for BackendFile {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Block {
            address: String,
            #[serde(default = "one")]
            weight: u16,
            #[serde(default)]
            backup: bool,
            #[serde(default)]
            max_connections: usize,
        }
        fn one() -> u16 {
            1
        }
        struct AddressOrBlock;
        impl<'de> Visitor<'de> for AddressOrBlock {
            type Value = BackendFile;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(
                    "an address such as 127.0.0.1:3001, or a block such as {address: 127.0.0.1:3001, weight: 2}",
                )
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<BackendFile, E> {
                Ok(BackendFile { address: text.to_owned(), weight: 1, backup: false, max_connections: 0 })
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<BackendFile, A::Error> {
                let block = Block::deserialize(de::value::MapAccessDeserializer::new(map))?;
                let Block { address, weight, backup, max_connections } = block;
                Ok(BackendFile { address, weight, backup, max_connections })
            }
        }
        deserializer.deserialize_any(AddressOrBlock)
    }
}
