//! The servers behind the balancer: who they are, how they fare, how they are reached, who may get new connections.
//!
//! Knows nothing of listeners or clients. Which usable backend is next is the `balancer`'s question.

mod admin_state;
mod backend;
#[cfg(test)]
mod blame_properties;
mod carried;
mod check_log;
mod checks;
mod connector;
mod counts;
mod detection;
mod discovery;
mod dns_runtime;
mod endpoint;
mod evidence;
mod health;
mod health_check;
mod hosts;
mod lease;
mod leaving;
mod look_up;
mod membership;
mod name_lookups;
mod named_hosts;
mod outlier;
mod pool;
mod pool_events;
#[cfg(test)]
mod properties;
mod queue;
mod resolver;
mod retry_budget;
mod rise_fall;
mod roles;
mod service;
mod snapshot;
mod status;
mod steering;
mod unanswered;
mod wishes;

pub use admin_state::AdminState;
pub use backend::Backend;
pub use carried::CarriedPool;
pub use check_log::{CheckResult, LastCheck};
pub use connector::{ConnectingClient, Connector};
pub use endpoint::Endpoint;
pub use evidence::Evidence;
pub use health_check::watch as watch_health;
pub use lease::Lease;
pub use look_up::look_up;
pub use membership::Membership;
pub use name_lookups::answer_for_names;
pub use named_hosts::{HostPort, MOST_LOOKUPS, NoHost};
pub use pool::{Pool, Unresolved};
pub use resolver::most_lookup_files;
pub use retry_budget::RetryPermit;
pub use roles::follow_roles;
pub use snapshot::BackendSnapshot;
pub use status::BackendState;
pub use steering::{Order, Refusal};
