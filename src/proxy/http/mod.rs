//! HTTP mode: each request of a client's connection gets a backend, the configured headers, and its answer.
//!
//! `session` is the client's side, from head to head; `forwarder` finds a backend for one request; `exchange` is that
//! request on one backend connection. The bytes are parsed by `protocol::http1`, and bodies moved by `relay`.

mod connection_variables;
mod exchange;
mod exchange_end;
mod failure;
mod forwarder;
mod framer;
mod head_pace;
mod reply;
mod request;
mod request_record;
mod response;
mod session;

pub(super) use reply::{linger, page, send};
pub(super) use session::serve;

/// While a client waits for an answer, about this much of what it sends ahead is received; the rest waits in its
/// socket, and makes the client wait. Enough for nearly all heads at once: more would be memory that any client could
/// take.
const READ_AHEAD_BYTES: usize = 4096;
