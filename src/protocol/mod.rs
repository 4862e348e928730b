//! Protocols that are understood here: pure, bytes in and values out. No tokio, no sockets, no configuration.

pub mod http1;
