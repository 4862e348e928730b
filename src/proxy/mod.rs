//! From an accepted connection to its last byte: admit, connect, relay or serve its HTTP requests, account for it.
//!
//! Runs on the workers. Knows listeners and pools as built, nothing of files, signals or the admin server.

mod accept;
mod connect;
mod connection;
mod frontend;
mod http;
mod idle_pool;
mod preface;
mod record;
mod upstream;
mod workers;

use crate::config::Checks;

/// Judges what a configuration says in the words of protocols.
pub const CHECKS: Checks = Checks { header: http::check_header, server_name: preface::check_server_name };

pub use accept::{Acceptor, accept_loop, serve_inbox};
pub use frontend::{Frontend, ListenerDeps, Worker};
pub use upstream::Upstream;
pub use workers::{Admitted, Workers};
