//! HTTP/1 for a proxy: reads a head strictly, rewrites it for the next hop, follows a body's framing.
//! Pure: bytes in, values out. It knows no socket, no clock, no configuration and no other module of this crate.
//!
//! Heads are read from left to right and judged byte by byte, so that the verdict never depends on where the network
//! cut the bytes. An accepted head has positions, not borrows: its methods want the buffer that it was read from.

mod body;
mod chunked;
mod fault;
mod fields;
mod forward;
mod request;
mod response;
mod syntax;
mod target;
mod template;
mod trailers;
#[cfg(test)]
mod vectors;

pub use body::Body;
pub use chunked::{Advance, ChunkError, Passes};
pub use fault::{BadResponse, Fault, RequestError};
pub use forward::{ClientSide, HeaderEdit, InvalidEdit, write_request_head, write_response_head};
pub use request::RequestHead;
pub use response::ResponseHead;
pub use syntax::is_token;
pub use template::{InvalidTemplate, Template, TlsVariables, Variable, Variables};
pub use trailers::TrailerFilter;
#[allow(unused_imports, reason = "the fuzz targets use them: they compile this folder by itself")]
pub use {chunked::ChunkedScanner, response::RequestFacts};

/// Any other version is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    Http10,
    Http11,
}

impl Version {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http10 => "HTTP/1.0",
            Self::Http11 => "HTTP/1.1",
        }
    }
}

/// How the end of a message's body is found (RFC 9112 section 6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    None,
    /// By the number of its bytes.
    Length(u64),
    /// By the end of the chunked coding.
    Chunked,
    /// By the close of the connection: responses only.
    UntilClose,
}

/// Bounds on a head, and so on the memory that a peer can make a connection use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeadLimits {
    /// Start line, fields and the empty line. Default 16 KiB.
    pub max_head_bytes: usize,
    /// The request line alone; RFC 9112 section 3 asks for at least 8,000. Default 8 KiB.
    pub max_line_bytes: usize,
    /// Header lines. Default 100.
    pub max_headers: usize,
}

impl Default for HeadLimits {
    fn default() -> Self {
        Self { max_head_bytes: 16 << 10, max_line_bytes: 8 << 10, max_headers: 100 }
    }
}
