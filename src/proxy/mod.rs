//! From an accepted connection to its last byte: admit, connect, relay or serve its HTTP requests, account for it.
//!
//! Runs on the workers. Knows nothing of configuration files, signals or the admin server.

mod accept;
mod access_rules;
mod account;
mod admitted;
mod attempts;
mod client_facts;
mod connect;
mod connection;
mod connections;
mod frontend;
mod handshake;
mod http;
mod http_settings;
mod idle_pool;
mod inquiries;
mod listed;
mod preface;
mod record;
mod refusal;
mod routes;
mod upstream;
mod worker;
mod worker_load;
mod workers;

pub use accept::{Acceptor, accept_loop, serve_inbox};
pub use admitted::Admitted;
pub use frontend::{Frontend, ListenerDeps};
pub use inquiries::answer_inquiries;
pub use upstream::Upstream;
pub use worker::Worker;
pub use workers::Workers;
