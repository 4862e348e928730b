//! Where an HTTP body ends, for the pump that moves it. Knows bodies, not sockets.

use std::borrow::Cow;

use crate::protocol::http1::{Advance, Body, ChunkError};
use crate::relay::Framer;

use super::READ_AHEAD_BYTES;

/// Follows one body, to its last byte.
pub(super) struct BodyFramer<'r> {
    /// What is still to come.
    body: Body<'r>,
    beyond: Beyond,
}

/// What was received beyond the body's end.
enum Beyond {
    /// The start of the client's next request.
    Kept(Vec<u8>),
    /// No answer to anything: only whether there was any counts.
    Dropped { any: bool },
}

impl<'r> BodyFramer<'r> {
    pub(super) fn of_request(body: Body<'r>) -> Self {
        Self { body, beyond: Beyond::Kept(Vec::new()) }
    }

    pub(super) fn of_response(body: Body<'r>) -> Self {
        Self { body, beyond: Beyond::Dropped { any: false } }
    }

    /// Once the sender has ended: whether nothing is missing.
    pub(super) fn is_whole(&self) -> bool {
        self.body.is_whole_at_close()
    }

    /// Whether anything was received beyond the body's end.
    pub(super) fn has_overrun(&self) -> bool {
        match &self.beyond {
            Beyond::Kept(bytes) => !bytes.is_empty(),
            Beyond::Dropped { any } => *any,
        }
    }

    /// What was received beyond a request's end.
    pub(super) fn into_overrun(self) -> Vec<u8> {
        match self.beyond {
            Beyond::Kept(bytes) => bytes,
            Beyond::Dropped { .. } => Vec::new(),
        }
    }
}

impl Framer for BodyFramer<'_> {
    type Error = ChunkError;

    fn is_complete(&self) -> bool {
        self.body.is_done()
    }

    fn receive_limit(&self) -> u64 {
        match (&self.body, &self.beyond) {
            (Body::Length(remaining), _) => *remaining,
            // A chunked body's end is found only by reading its chunks: some of what follows is received with it.
            (Body::Chunked(scanner), Beyond::Kept(_)) => {
                scanner.data_remaining().saturating_add(READ_AHEAD_BYTES as u64)
            }
            (Body::Chunked(_) | Body::UntilClose, _) => u64::MAX,
        }
    }

    fn advance<'a>(&mut self, received: &'a [u8]) -> Result<Cow<'a, [u8]>, ChunkError> {
        let Advance { consumed, passed } = self.body.advance(received)?;
        match &mut self.beyond {
            Beyond::Kept(bytes) => bytes.extend_from_slice(&received[consumed..]),
            Beyond::Dropped { any } => *any |= consumed < received.len(),
        }
        Ok(passed)
    }

    fn data_remaining(&self) -> u64 {
        self.body.data_remaining()
    }

    fn skip_data(&mut self, bytes: u64) {
        self.body.skip_data(bytes);
    }
}

#[cfg(test)]
mod tests {
    use crate::protocol::http1::{Framing, Passes};

    use super::*;

    fn request(framing: Framing) -> BodyFramer<'static> {
        BodyFramer::of_request(Body::new(framing, Passes::Chunks))
    }

    #[test]
    fn a_body_of_a_known_length_is_received_to_its_last_byte_and_not_beyond() {
        let mut framer = request(Framing::Length(5));
        assert_eq!(framer.receive_limit(), 5);
        assert_eq!(framer.advance(b"hel").as_deref(), Ok(&b"hel"[..]));
        assert_eq!((framer.receive_limit(), framer.is_complete()), (2, false));
        framer.skip_data(2);
        assert!(framer.is_complete() && framer.is_whole() && !framer.has_overrun());
    }

    #[test]
    fn what_follows_a_chunked_request_is_kept_and_not_sent() {
        let mut framer = request(Framing::Chunked);
        assert_eq!(framer.advance(b"3\r\nabc\r\n").as_deref(), Ok(&b"3\r\nabc\r\n"[..]));
        assert_eq!(framer.advance(b"0\r\n\r\nGET").as_deref(), Ok(&b"0\r\n\r\n"[..]));
        assert!(framer.is_complete() && framer.has_overrun());
        assert_eq!(framer.into_overrun(), b"GET");
    }

    #[test]
    fn little_is_received_beyond_a_chunk_of_a_request() {
        let mut framer = request(Framing::Chunked);
        assert_eq!(framer.receive_limit(), READ_AHEAD_BYTES as u64);
        framer.advance(b"100000\r\nabc").expect("a sound chunk");
        assert_eq!(framer.receive_limit(), 0x100000 - 3 + READ_AHEAD_BYTES as u64);
    }

    #[test]
    fn what_follows_a_response_is_noticed_and_dropped() {
        let mut framer = BodyFramer::of_response(Body::new(Framing::Chunked, Passes::Data));
        assert_eq!(framer.advance(b"3;x=y\r\nabc\r\n2").as_deref(), Ok(&b"abc"[..]));
        assert_eq!(framer.advance(b"\r\n").as_deref(), Ok(&b""[..]), "nothing is to be sent");
        assert!(!framer.has_overrun());
        assert_eq!(framer.advance(b"de\r\n0\r\nA: b\r\n\r\nX").as_deref(), Ok(&b"de"[..]));
        assert!(framer.is_complete() && framer.has_overrun());
        assert_eq!(framer.into_overrun(), b"");
    }

    #[test]
    fn broken_chunks_are_an_error() {
        let mut framer = request(Framing::Chunked);
        assert_eq!(framer.advance(b"zz\r\n"), Err(ChunkError::MalformedSize));
        assert!(!framer.is_whole());
    }

    #[test]
    fn a_body_without_framing_ends_with_the_sender() {
        let mut framer = BodyFramer::of_response(Body::new(Framing::UntilClose, Passes::Chunks));
        assert_eq!(framer.receive_limit(), u64::MAX);
        assert_eq!(framer.advance(b"abc").as_deref(), Ok(&b"abc"[..]));
        assert!(!framer.is_complete() && framer.is_whole());
    }
}
