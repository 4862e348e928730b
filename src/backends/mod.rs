//! The servers behind the balancer: who they are, how they fare, how they are reached, who may get new connections.
//!
//! Knows nothing of listeners or clients. Which usable backend is next is the `balancer`'s question.

mod backend;
#[cfg(test)]
mod blame_properties;
mod connector;
mod counts;
mod detection;
mod discovery;
mod endpoint;
mod evidence;
mod health;
mod health_check;
mod http_check;
mod lease;
mod membership;
mod outlier;
mod pool;
mod pool_events;
#[cfg(test)]
mod properties;
mod queue;
mod retry_budget;
mod rise_fall;
mod roles;
mod service;
mod snapshot;
mod status;

pub use backend::Backend;
pub use connector::Connector;
pub use endpoint::Endpoint;
pub use evidence::Evidence;
pub use health_check::watch as watch_health;
pub use lease::Lease;
pub use membership::Membership;
pub use pool::Pool;
pub use roles::follow_roles;
pub use status::{AdminState, BackendState};
