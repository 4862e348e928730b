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

pub use accept::{Acceptor, accept_loop, serve_inbox};
pub use frontend::{Frontend, ListenerDeps, Worker};
pub use upstream::Upstream;
pub use workers::{Admitted, Workers};
