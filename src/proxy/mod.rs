//! From an accepted connection to its last byte: admit, connect, relay or serve its HTTP requests, account for it.
//!
//! Runs on the workers. Knows listeners and pools as built, nothing of files, signals or the admin server.

mod connect;
mod connection;
mod crew;
mod entrance;
mod http;
mod listener;
mod record;
mod service;
mod upstream;

use crate::config::Checks;

/// Judges what a configuration says in the words of protocols.
pub const CHECKS: Checks = Checks { header: http::check_header, server_name: entrance::check_server_name };

pub use crew::{Crew, Handover};
pub use listener::{Door, accept_loop, serve_inbox};
pub use service::{Service, Shared, Worker};
pub use upstream::Upstream;
