//! `lb`: a layer-4 TCP load balancer that can inject HTTP/1 headers.
//!
//! The modules stand on floors, and one imports only from lower floors (ARCHITECTURE.md; checked by a test):
//! `cli` > `server` > `admin`, `proxy` > `balancer` > `backends`, `relay`, `access_log` > `config` > `protocol`, `net`,
//! `lifecycle`, `telemetry`.

#[macro_use]
mod labels;

pub mod access_log;
pub mod admin;
pub mod backends;
pub mod balancer;
pub mod cli;
pub mod config;
pub mod lifecycle;
pub mod net;
pub mod protocol;
pub mod proxy;
pub mod relay;
pub mod server;
pub mod telemetry;
