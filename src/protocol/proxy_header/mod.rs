//! The PROXY protocol: a header before a connection's own bytes, in which a proxy names the client. Read and written
//! here, version 1 (section 2.1) and version 2 (section 2.2) of HAProxy's "proxy-protocol.txt".
//! A peer that may send a header may claim any address (section 5). So the caller must know beforehand whether a header
//! comes, and accept it only from trusted peers: this reader never guesses.

mod malformed;
mod origin;
mod read;
mod tls_tlvs;
mod v1;
mod v2;
#[cfg(test)]
mod vectors;
mod write;

pub use malformed::Malformed;
pub use origin::{Header, Origin};
pub use read::parse;
pub use tls_tlvs::TlsFacts;
pub use v2::MAX_HEADER_BYTES;
pub use write::{ProxyVersion, write};
