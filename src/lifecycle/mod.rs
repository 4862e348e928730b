//! What governs connections whatever they carry: ids, limits of number and rate, idle timeouts, cuts, what operators
//! ask of them, the drain, and the processes that upgrades have left with them.

mod client_limits;
mod connection_id;
mod connection_limit;
mod cut;
mod drain;
mod former_processes;
mod idle;
mod open_connections;

pub use client_limits::{ClientLimits, ClientPermit, ClientRefusal, Clients};
pub use connection_id::{ConnectionId, ConnectionIds};
pub use connection_limit::{ConnectionLimit, Permit};
pub use cut::{BackendId, Cut, CutOrder, Cutter};
pub use drain::{Drain, DrainWatch, Phase};
pub use former_processes::FormerProcesses;
pub use idle::{IdleTimeouts, IdleTimer};
pub use open_connections::{
    Inquiry, Listing, MOST_LISTED, OpenConnection, OpenConnections, Page, Place, Selection, Sort, Traits,
};
