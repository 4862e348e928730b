//! The running balancer: start, reload, upgrade, drain and stop.
//!
//! All addresses are bound before the first connection is accepted. Then the workers accept, and the main thread serves
//! the admin address and waits for signals and commands.

mod admin_server;
mod bind_addresses;
mod capacity;
mod cgroup;
mod changes;
mod error;
mod history_state;
mod inspect;
mod listen_sockets;
mod main_loop;
mod memory_file;
mod off_thread;
mod own_backends;
mod pool_state;
mod pools;
mod reload;
mod running_config;
mod server_state;
mod session_keys;
mod signals;
mod start;
mod steering;
mod systemd;
mod tls_upkeep;
mod upgrade;
mod worker_thread;

pub use error::RunError;
pub use inspect::inspect;
pub use start::{run, start};
pub use upgrade::tell_old_process;
