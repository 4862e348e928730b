//! What governs a connection's life whatever it carries: its id, limits of how many and how fast, deadlines of idle
//! ones, and the drain.

mod client_limits;
mod connection_id;
mod connection_limit;
mod drain;
mod idle;

pub use client_limits::{ClientLimits, ClientPermit, ClientRefusal, Clients};
pub use connection_id::{ConnectionId, ConnectionIds};
pub use connection_limit::{ConnectionLimit, Permit};
pub use drain::{Drain, DrainWatch, Phase};
pub use idle::{IdleTimeouts, IdleTimer};
