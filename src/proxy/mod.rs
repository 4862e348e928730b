//! From an accepted connection to its last byte: admit, connect, relay or serve its HTTP requests, account for it.
//!
//! Runs on the workers. Knows listeners and pools as built, nothing of files, signals or the admin server.

mod connect;
mod connection;
mod crew;
mod http;
mod listener;
mod record;
mod service;

pub use crew::{Crew, Handover};
pub use http::check_header;
pub use listener::{accept_loop, serve_inbox};
pub use service::{Service, Worker};
