//! What governs connections whatever they carry: ids, limits of number and rate, idle timeouts, cuts, and the drain.

mod client_limits;
mod connection_id;
mod connection_limit;
mod cut;
mod drain;
mod idle;

pub use client_limits::{ClientLimits, ClientPermit, ClientRefusal, Clients};
pub use connection_id::{ConnectionId, ConnectionIds};
pub use connection_limit::{ConnectionLimit, Permit};
pub use cut::{BackendId, Cut, CutOrder, Cutter};
pub use drain::{Drain, DrainWatch, Phase};
pub use idle::{IdleTimeouts, IdleTimer};
