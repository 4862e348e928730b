//! Where the bytes of one direction end, as a protocol defines it. The pump that is given a framer knows no protocol.

use std::borrow::Cow;
use std::convert::Infallible;

/// Follows what a pump moves: it sees the bytes that are copied, and gets the number of those that are spliced.
pub trait Framer {
    /// How bytes can break the framing.
    type Error;

    /// Whether nothing more is to be moved.
    fn is_complete(&self) -> bool;

    /// How many bytes may be received at once, so that none of them is beyond the end. `u64::MAX` if that is unknown.
    fn receive_limit(&self) -> u64;

    /// Follows the next bytes, and returns what of them is to be sent.
    ///
    /// # Errors
    /// They break the framing, and none of them is to be sent.
    fn advance<'a>(&mut self, received: &'a [u8]) -> Result<Cow<'a, [u8]>, Self::Error>;

    /// How many of the next bytes need not be seen, and may be spliced.
    fn data_remaining(&self) -> u64;

    /// Counts spliced bytes, at most `data_remaining`.
    fn skip_data(&mut self, bytes: u64);
}

/// No framing: all bytes until the sender ends.
#[derive(Clone, Copy, Debug, Default)]
pub struct Unframed;

impl Framer for Unframed {
    type Error = Infallible;

    fn is_complete(&self) -> bool {
        false
    }

    fn receive_limit(&self) -> u64 {
        u64::MAX
    }

    fn advance<'a>(&mut self, received: &'a [u8]) -> Result<Cow<'a, [u8]>, Infallible> {
        Ok(Cow::Borrowed(received))
    }

    fn data_remaining(&self) -> u64 {
        u64::MAX
    }

    fn skip_data(&mut self, _bytes: u64) {}
}
