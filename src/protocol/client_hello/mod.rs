//! Reads the server name (RFC 6066 section 3) and the protocols (ALPN, RFC 7301) of a TLS ClientHello (RFC 8446 section
//! 4.1.2), so that a connection can be routed while TLS stays between client and backend. All lengths are checked
//! exactly, and all else is skipped: versions, ciphers, GREASE (RFC 8701) and unknown extensions. With Encrypted
//! ClientHello (RFC 9849) the name is the outer one, the only one that is readable on the way.
//! It knows no keys, answers nothing, and doesn't judge whether a backend will accept the hello.

mod fault;
mod hello;
pub(crate) mod name;
mod pattern;
mod reader;
mod records;
#[cfg(test)]
mod vectors;

pub use hello::parse;
pub use pattern::ServerNamePattern;
pub use records::MAX_HELLO_BYTES;
#[allow(unused_imports, reason = "the fuzz targets use them: they compile this folder by itself")]
pub use {fault::NotClientHello, hello::ClientHello};
