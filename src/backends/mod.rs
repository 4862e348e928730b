//! The servers behind the balancer: who they are, how they fare, who may get new connections.
//!
//! Knows nothing of listeners or clients. Which usable backend is next is the `balancer`'s question.

mod backend;
mod detection;
mod pool;

pub use backend::{Backend, BackendSnapshot, Lease, State};
pub use detection::{Detector, Standing, Transition};
pub use pool::Pool;
