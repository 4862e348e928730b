//! The shape of `lb.yaml`: its keys with their types, defaults and docs, from which `lb schema` is made.
//!
//! Knows serde, but no YAML. Whether the values are valid together is checked by `build`.

pub mod backup;
pub mod duration_or_off;
pub mod health_check;
pub mod http;
pub mod listener;
pub mod log;
pub mod off;
pub mod pool;
pub mod route;
pub mod tls;
pub mod units;

use std::collections::BTreeMap;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};

use crate::config::global::{RelayEngine, RelayMode};

use duration_or_off::DurationOrOff;
use listener::ListenerSpec;
use log::LogSpec;
use off::{OffOr, off_or_word, or_false, switch};
use pool::PoolSpec;
use units::{AutoOr, DurationText};

/// `lb.yaml`, long form, with the defaults filled in.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct File {
    /// Places to accept connections, by name.
    pub listeners: BTreeMap<String, ListenerSpec>,
    /// Backends that serve the same thing, by name.
    pub pools: BTreeMap<String, PoolSpec>,
    /// Metrics, health, API, status page; or off.
    #[serde(deserialize_with = "admin_or_off")]
    #[schemars(with = "OffOr<AdminSpec>")]
    pub admin: AdminSpec,
    /// Worker threads; auto: as many as the cores that this process may use.
    pub workers: AutoOr,
    /// Client connections at once; auto: as many as open files and memory allow.
    pub max_connections: AutoOr,
    /// How the process stops.
    pub drain: DrainSpec,
    /// How bytes are moved.
    pub relay: RelaySpec,
    /// The log and the access log.
    pub log: LogSpec,
    /// Reload when this file changes.
    #[serde(deserialize_with = "switch")]
    pub watch: bool,
}

/// The admin server.
#[derive(Clone, Debug, Deserialize, JsonSchema, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct AdminSpec {
    /// host:port, *:port, unix:/path, or off.
    #[serde(deserialize_with = "off_or_word")]
    #[schemars(transform = or_false)]
    pub bind: String,
    /// Path of a unix socket beside `bind`, or off; those who may write to the file need no token.
    #[serde(deserialize_with = "off_or_word")]
    #[schemars(transform = or_false)]
    pub socket: String,
    /// Has the bearer token that changes need; without it they are accepted on a loopback or unix bind only.
    pub token_file: Option<PathBuf>,
    /// Names under which it answers more than /metrics and probes, beside addresses and localhost.
    pub allowed_hosts: Vec<String>,
}

impl Default for AdminSpec {
    fn default() -> Self {
        Self {
            bind: "127.0.0.1:9900".to_owned(),
            socket: "off".to_owned(),
            token_file: None,
            allowed_hosts: Vec::new(),
        }
    }
}

fn admin_or_off<'de, D: Deserializer<'de>>(deserializer: D) -> Result<AdminSpec, D::Error> {
    Ok(match OffOr::deserialize(deserializer)? {
        OffOr::On(admin) => admin,
        OffOr::Off => AdminSpec { bind: "off".to_owned(), ..AdminSpec::default() },
    })
}

/// How the process stops.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct DrainSpec {
    /// After the signal, connections are accepted for this long.
    pub grace: DurationText,
    /// Open connections may then continue for this long.
    pub timeout: DurationText,
    /// The same in the old process after an upgrade; off: to their end.
    pub upgrade_timeout: DurationOrOff,
}

impl Default for DrainSpec {
    fn default() -> Self {
        Self {
            grace: DurationText::seconds(0),
            timeout: DurationText::seconds(30),
            upgrade_timeout: DurationOrOff(None),
        }
    }
}

/// The relay.
#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct RelaySpec {
    /// auto: bulk data is spliced, the rest copied.
    pub mode: RelayMode,
    /// auto: small sends go by io_uring, many at once, where the kernel allows it; else by epoll, each by itself.
    pub engine: RelayEngine,
}
