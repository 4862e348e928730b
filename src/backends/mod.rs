//! The servers behind the balancer: who they are, how they fare, who may get new connections.
//!
//! Knows nothing of listeners or clients. Which usable backend is next is the `balancer`'s question.

mod backend;
mod detection;
mod discovery;
mod events;
mod health_check;
mod lease;
mod pool;
#[cfg(test)]
mod properties;
mod rise_fall;
mod snapshot;
mod status;
mod waiting;

pub use backend::{Backend, Endpoint};
pub use discovery::Discovery;
pub use health_check::watch as watch_health;
pub use lease::Lease;
pub use pool::Pool;
pub use status::AdminState;
#[cfg(test)]
pub use status::BackendState;
