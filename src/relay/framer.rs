//! Where the bytes of one direction end: given to a pump by those that know the protocol. The pump itself knows none.

use std::borrow::Cow;
use std::convert::Infallible;

/// Follows what a pump moves. It sees the bytes that are copied, and is given the number of those that are spliced.
pub trait Framer {
    /// How bytes can break the framing.
    type Error;

    /// Whether nothing more is to be moved.
    fn is_complete(&self) -> bool;

    /// So many bytes may be received at once: none of them is beyond the end, where its place is known.
    fn receive_limit(&self) -> u64;

    /// Follows the next bytes, and says what of them is to be sent.
    ///
    /// # Errors
    /// They break the framing. None of them is to be sent.
    fn advance<'a>(&mut self, received: &'a [u8]) -> Result<Cow<'a, [u8]>, Self::Error>;

    /// How many of the next bytes are to be sent as they are, unseen: they may be spliced.
    fn data_remaining(&self) -> u64;

    /// So many bytes were spliced, at most `data_remaining`.
    fn skip_data(&mut self, bytes: u64);
}

/// All bytes until the sender ends, as they are.
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
