//! TLS, by rustls: today as a client. Takes a stream and gives a stream.
//!
//! Knows no configuration and no socket. Certificates and keys are read from files here, so that a wrong one is found
//! before anything starts.

mod client;
mod files;
mod verifier;
mod words;

pub use client::{Client, ClientSettings};
pub use files::{Identity, WrongFile, certificates, identity, system_roots};
pub use rustls::pki_types::ServerName;
pub use verifier::Trust;
pub use words::words_for;
