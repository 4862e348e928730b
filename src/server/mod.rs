//! From a configuration to running parts, and from a signal to a clean end.
//!
//! Binds everything before anything is served; then the workers accept, and this thread serves the admin address and
//! waits for signals.

mod admin_server;
mod capacity;
mod error;
mod file_watch;
mod listen_sockets;
mod main_loop;
mod pools;
mod reload;
mod running_config;
mod signals;
mod start;
mod state;
mod systemd;
mod upgrade;
mod worker;

pub use error::RunError;
pub use start::{run, start};
