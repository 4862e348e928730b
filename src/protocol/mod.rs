//! Protocols that are understood here: pure, bytes in and values out. No tokio, no sockets, no configuration.

pub mod client_hello;
pub mod http1;
pub mod proxy_header;
