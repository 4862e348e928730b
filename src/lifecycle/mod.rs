//! How long things live: the drain, the limits of connections, and the deadlines of idle ones.

mod clients;
mod drain;
mod limit;
mod roster;

pub use clients::{ClientLimits, ClientPermit, ClientRefusal, Clients};
pub use drain::{Drain, DrainWatch, Phase};
pub use limit::{ConnectionLimit, Permit};
pub use roster::{Roster, Seat};
