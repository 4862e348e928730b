//! Readers and writers of protocols. Pure: bytes in, values out. No tokio, no sockets, no configuration.

pub mod client_hello;
pub mod http1;
pub mod placeholders;
pub mod proxy_header;
#[cfg(test)]
mod segmentation;
#[cfg(test)]
mod vectors;
