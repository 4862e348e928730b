//! Load balancing policies: which backend gets the next connection.
//!
//! Tables of the usable backends are built off the path of connections; a pick reads them without a lock.

mod maglev;
mod order;
mod pick;
#[cfg(test)]
mod properties;
mod request;
#[cfg(test)]
mod staleness;
mod table;
mod tier;
#[cfg(test)]
mod world;

pub use pick::Balancer;
pub use request::{PickError, PickRequest};
