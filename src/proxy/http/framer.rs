//! Where an HTTP body ends, for the pump that moves it. Knows bodies, not sockets.

use std::borrow::Cow;

use crate::protocol::http1::{Body, ChunkError, Progress};
use crate::relay::Framer;

/// Follows one body, and keeps what was received beyond it: the start of the next message.
pub(super) struct BodyFramer {
    /// What is still to come.
    body: Body,
    /// Chunks are taken apart, and only their data is sent.
    strips_chunks: bool,
    overrun: Vec<u8>,
}

impl BodyFramer {
    /// The body as it is framed.
    pub(super) fn new(body: Body) -> Self {
        Self { body, strips_chunks: false, overrun: Vec::new() }
    }

    /// Only the data of a chunked body, for a receiver that knows no chunks.
    pub(super) fn stripping_chunks(body: Body) -> Self {
        Self { strips_chunks: true, ..Self::new(body) }
    }

    /// Once the sender has ended: whether nothing is missing.
    pub(super) fn is_whole(&self) -> bool {
        self.body.is_whole_at_close()
    }

    /// Whether anything was received beyond the body's end.
    pub(super) fn has_overrun(&self) -> bool {
        !self.overrun.is_empty()
    }

    /// What was received beyond the body's end.
    pub(super) fn into_overrun(self) -> Vec<u8> {
        self.overrun
    }
}

impl Framer for BodyFramer {
    type Error = ChunkError;

    fn is_complete(&self) -> bool {
        self.body.is_done()
    }

    fn receive_limit(&self) -> u64 {
        match &self.body {
            Body::Length(remaining) => *remaining,
            // A chunked body's end is found only by reading its chunks; the other has no end but the connection's.
            Body::Chunked(_) | Body::UntilClose => u64::MAX,
        }
    }

    fn advance<'a>(&mut self, received: &'a [u8]) -> Result<Cow<'a, [u8]>, ChunkError> {
        // `None`: what is consumed is sent as it is.
        let mut decoded = None;
        let Progress { consumed, .. } = match &mut self.body {
            Body::Chunked(scanner) if self.strips_chunks => {
                scanner.decode(received, decoded.get_or_insert_default())?
            }
            body => body.advance(received)?,
        };
        let (body, overrun) = received.split_at(consumed);
        self.overrun.extend_from_slice(overrun);
        Ok(decoded.map_or(Cow::Borrowed(body), Cow::Owned))
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
    use crate::protocol::http1::Framing;

    use super::*;

    #[test]
    fn a_body_of_a_known_length_is_received_to_its_last_byte_and_not_beyond() {
        let mut framer = BodyFramer::new(Body::new(Framing::Length(5)));
        assert_eq!(framer.receive_limit(), 5);
        assert_eq!(framer.advance(b"hel").as_deref(), Ok(&b"hel"[..]));
        assert_eq!((framer.receive_limit(), framer.is_complete()), (2, false));
        framer.skip_data(2);
        assert!(framer.is_complete() && framer.is_whole() && !framer.has_overrun());
    }

    #[test]
    fn what_follows_a_chunked_body_is_kept_and_not_sent() {
        let mut framer = BodyFramer::new(Body::new(Framing::Chunked));
        assert_eq!(framer.advance(b"3\r\nabc\r\n").as_deref(), Ok(&b"3\r\nabc\r\n"[..]));
        assert_eq!(framer.advance(b"0\r\n\r\nGET").as_deref(), Ok(&b"0\r\n\r\n"[..]));
        assert!(framer.is_complete() && framer.has_overrun());
        assert_eq!(framer.into_overrun(), b"GET");
    }

    #[test]
    fn stripped_of_its_chunks_a_body_is_its_data() {
        let mut framer = BodyFramer::stripping_chunks(Body::new(Framing::Chunked));
        assert_eq!(framer.advance(b"3;x=y\r\nabc\r\n2").as_deref(), Ok(&b"abc"[..]));
        assert_eq!(framer.advance(b"\r\n").as_deref(), Ok(&b""[..]), "nothing is to be sent");
        assert_eq!(framer.advance(b"de\r\n0\r\nA: b\r\n\r\nX").as_deref(), Ok(&b"de"[..]));
        assert!(framer.is_complete());
        assert_eq!(framer.into_overrun(), b"X");
    }

    #[test]
    fn broken_chunks_are_an_error() {
        let mut framer = BodyFramer::new(Body::new(Framing::Chunked));
        assert_eq!(framer.advance(b"zz\r\n"), Err(ChunkError::MalformedSize));
        assert!(!framer.is_whole());
    }

    #[test]
    fn a_body_without_framing_ends_with_the_sender() {
        let mut framer = BodyFramer::new(Body::new(Framing::UntilClose));
        assert_eq!(framer.receive_limit(), u64::MAX);
        assert_eq!(framer.advance(b"abc").as_deref(), Ok(&b"abc"[..]));
        assert!(!framer.is_complete() && framer.is_whole());
    }
}
