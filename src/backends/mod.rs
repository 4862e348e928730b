//! The servers behind the balancer: who they are, how they fare, who may get new connections.
//!
//! Knows nothing of listeners or clients. Which usable backend is next is the `balancer`'s question.

mod backend;
mod check;
mod detection;
mod discovery;
mod health;
mod lease;
mod pool;
#[cfg(test)]
mod properties;
mod signals;
mod snapshot;
mod status;
mod waiting;

pub use backend::{Backend, Endpoint};
pub use check::{Checker, Verdict};
pub use detection::{Detector, Standing, Transition};
pub use discovery::Discovery;
pub use health::watch as watch_health;
pub use lease::Lease;
pub use pool::Pool;
pub use snapshot::BackendSnapshot;
pub use status::{Intent, State};
pub use waiting::{Member, Place, Retry};
