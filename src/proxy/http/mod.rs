//! HTTP mode: each request of a client's connection gets a backend, the configured headers, and its answer.
//!
//! `session` is the client's side, from head to head; `forwarder` finds a backend for one request; `exchange` is that
//! request on one backend connection. The bytes are parsed by `protocol::http1`, and bodies moved by `relay`.

mod exchange;
mod failure;
mod forwarder;
mod framer;
mod reply;
mod request;
mod request_record;
mod response;
mod session;

pub(super) use session::serve;
