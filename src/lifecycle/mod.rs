//! How long things live: the drain, the limit of connections, and the deadlines of idle ones.

mod drain;
mod limit;
mod roster;

pub use drain::{Drain, DrainWatch, Phase};
pub use limit::{ConnectionLimit, Permit};
pub use roster::{Roster, Seat};
