//! The PROXY protocol: the header that a proxy sends ahead of a connection's own bytes to say whose connection it is.
//! It follows HAProxy's "proxy-protocol.txt", version 1 (section 2.1) and version 2 (section 2.2), both ways.
//! It can't know whom to believe, and must not guess whether a header comes: a peer that may send one may claim any
//! address (section 5). Ask for it where the configuration says so, of peers that it names.

mod malformed;
mod origin;
mod read;
mod v1;
mod v2;
#[cfg(test)]
mod vectors;
mod write;

pub use malformed::Malformed;
pub use origin::Origin;
pub use read::parse;
pub use v2::MAX_HEADER_BYTES;
pub use write::{Version, write};
