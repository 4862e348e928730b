//! TLS, by rustls: sessions with clients, of which this is the server, and with servers.
//!
//! Knows no configuration and no socket. Certificates and keys are read from files here, so that a wrong one is found
//! before anything starts.

mod certificate;
mod certificate_store;
mod client;
mod client_auth;
mod files;
mod provider;
mod records;
mod server;
mod server_files;
mod session;
mod session_info;
mod tickets;
mod verifier;
mod words;

pub use certificate::Certificate;
pub use client::{Client, ClientSettings, Sessions};
pub use client_auth::ClientAuth;
pub use files::{Identity, WrongFile, certificates, identity, revocation_lists, system_roots};
pub use records::Records;
pub use rustls::ProtocolVersion;
pub use rustls::pki_types::ServerName;
pub use server::{Server, ServerSettings};
pub use server_files::{CertificateFiles, FileRole, described};
pub use session::{MAX_OVERHEAD_BYTES, MAX_PLAINTEXT_BYTES, Session};
pub use session_info::SessionInfo;
pub use verifier::Trust;
pub use words::words_for;
