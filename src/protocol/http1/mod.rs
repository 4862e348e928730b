//! HTTP/1 as a proxy needs it: read a head strictly, rewrite it for the next hop, follow a body's framing.
//! Pure: bytes in, values out. It knows no socket, no clock, no configuration and no other module of this crate.
//!
//! Heads are read from left to right and judged byte by byte, so the verdict never depends on how the network
//! cut the bytes. What is accepted holds positions instead of borrows: give the same buffer to its methods.

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
#[cfg(test)]
mod vectors;

pub use body::Body;
pub use chunked::{ChunkError, Progress};
pub use fault::{BadResponse, Fault, RequestError};
pub use forward::{ClientSide, HeaderEdit, write_request_head, write_response_head};
pub use request::RequestHead;
pub use response::ResponseHead;
pub use template::{InvalidTemplate, Template, Variable, Variables};
#[allow(unused_imports, reason = "the fuzz targets use them: they compile this folder by itself")]
pub use {chunked::ChunkedScanner, response::RequestFacts};

/// Any other is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    Http10,
    Http11,
}

/// How the end of a message's body is found (RFC 9112 section 6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    None,
    /// So many bytes.
    Length(u64),
    /// Up to the end of the chunked coding.
    Chunked,
    /// Up to the close of the connection: responses only.
    UntilClose,
}

/// Bounds on a head: what one peer can make a connection hold.
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
