//! The pure parsers, compiled from the program's sources, and what the targets share.

#[path = "../../src/config/address.rs"]
pub mod address;
#[path = "../../src/protocol/client_hello/mod.rs"]
pub mod client_hello;
#[path = "../../src/protocol/http1/mod.rs"]
pub mod http1;
/// Its addresses are all that the configuration's addresses need of it.
#[path = "../../src/net/address.rs"]
pub mod net;
#[path = "../../src/protocol/proxy_header/mod.rs"]
pub mod proxy_header;
#[path = "../../src/protocol/segmentation.rs"]
mod segmentation;

use std::fmt::Debug;

/// The verdict on an input, which must be the same wherever the input is cut.
pub fn check_prefixes<T, E>(data: &[u8], parse: impl Fn(&[u8]) -> Result<Option<T>, E>) -> Result<Option<T>, E>
where
    Result<Option<T>, E>: Debug + PartialEq,
{
    segmentation::check_prefixes(data, cuts(data.len()), parse)
}

/// Where the program's sources look for them.
mod protocol {
    pub use crate::client_hello;
}

/// Every place to cut a short input at; of a long one, about `MOST_CUTS` over its whole length.
fn cuts(length: usize) -> impl Iterator<Item = usize> {
    (0..=length).step_by(length / MOST_CUTS + 1)
}

/// Each costs a run of a parser.
const MOST_CUTS: usize = 128;
