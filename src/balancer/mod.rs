//! Load balancing policies: which backend gets the next connection.
//!
//! Tables of the usable backends are built off the path of connections; a pick reads them without a lock.

mod maglev;
mod pick;
mod pick_request;
mod policy;
#[cfg(test)]
mod properties;
mod round_robin;
#[cfg(test)]
mod simulation;
#[cfg(test)]
mod stale_table_properties;
mod table;

pub use pick::Balancer;
pub use pick_request::{PickError, PickRequest};
