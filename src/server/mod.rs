//! From a configuration to running parts, and from a signal to a clean end.
//!
//! Binds everything before anything is served; then the workers accept, and this thread serves the admin address and
//! waits for signals.

mod admin_server;
mod capacity;
mod file_watch;
mod listen_sockets;
mod pools;
mod reload;
mod run;
mod running_config;
mod signals;
mod systemd;
mod upgrade;
mod worker;

pub use run::{RunError, run, start};
