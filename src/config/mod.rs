//! The configuration: valid run-time types, made from a file, the environment and flags.
//!
//! `load` runs the steps: `yaml` reads the text as a tree, `overrides` gives the changes to it, `file` has its keys as
//! serde types, `build` turns these into [`Config`] or reports every problem. The other files are the run-time types,
//! made of types of the floors below. Nothing here opens a socket.

mod access_format;
mod address;
mod build;
pub(crate) mod file;
mod global;
mod health_check;
mod http;
mod listener;
mod load;
mod log;
mod networks;
mod overrides;
mod pool;
mod problem;
mod route;
mod schema;
mod steering;
mod tls;
mod yaml;

pub use access_format::{AccessFormat, AccessPart, AccessValue, AccessWord};
pub use address::{BackendAddress, BindAddress};
pub use build::MAX_BACKENDS;
pub use file::off::means_off;
pub use global::{AdminConfig, Config, DrainConfig, RelayEngine, RelayMode};
pub use health_check::{
    CheckKind, HealthCheck, HttpCheck, MysqlCheck, Pattern, PostgresCheck, PostgresRole, RedisCheck, RedisRole, Step,
};
pub use http::{BackendKeepAlive, RequestTrailers, TrustedSenders};
pub use listener::{ListenerConfig, Mode, ProxyProtocol};
pub use load::{Loaded, Source, problems_of, read_bytes};
pub use log::{LogConfig, LogFormat};
pub use networks::Networks;
pub use overrides::Overrides;
pub use pool::{
    AddressFamily, BackendConfig, FailureDetection, OnDown, OnReturn, Policy, PoolConfig, Resolve, SourceAddress,
    WhenAllDown,
};
pub use problem::{Problem, Problems};
pub use route::{Route, RouteClients, ToServerName};
pub use schema::schema;
pub use steering::{BackendChanges, duration};
pub use tls::{ClientAuthMode, TlsTo};
#[cfg(test)]
pub use yaml::print;
pub use yaml::{listed, nearest_word, print_compact};
