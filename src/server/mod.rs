//! From a configuration to running parts, and from a signal to a clean end.
//!
//! Binds everything before anything is served; then the workers accept, and this thread serves the admin address and
//! waits for signals.

mod admin_server;
mod doors;
mod limits;
mod notify;
mod parts;
mod pools;
mod reload;
mod run;
mod signals;
mod upgrade;
mod watch;
mod worker;

pub use run::{RunError, Running, run, start};
