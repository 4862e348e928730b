//! A body of any framing: how many of the received bytes belong to it, and when it is over.

use std::borrow::Cow;

use super::Framing;
use super::chunked::{Advance, ChunkError, ChunkedScanner, Passes};

/// Follows a body while its bytes pass by.
#[derive(Clone, Debug)]
pub enum Body<'r> {
    /// Bytes still to come.
    Length(u64),
    /// Followed to the end of the coding. Boxed: other bodies would be as large.
    Chunked(Box<ChunkedScanner<'r>>),
    /// All bytes until the peer closes.
    UntilClose,
}

impl<'r> Body<'r> {
    /// The state before the body's first byte; `passes` is about a chunked one, others pass as they come.
    pub fn new(framing: Framing, passes: Passes<'r>) -> Self {
        match framing {
            Framing::None => Self::Length(0),
            Framing::Length(length) => Self::Length(length),
            Framing::Chunked => Self::Chunked(Box::new(ChunkedScanner::new(passes))),
            Framing::UntilClose => Self::UntilClose,
        }
    }

    /// Takes the next received bytes; those after `consumed` belong to the next message.
    ///
    /// # Errors
    /// A chunked body breaks its coding.
    pub fn advance<'a>(&mut self, input: &'a [u8]) -> Result<Advance<'a>, ChunkError> {
        let consumed = match self {
            Self::Chunked(scanner) => return scanner.advance(input),
            Self::Length(remaining) => usize::try_from(*remaining).unwrap_or(usize::MAX).min(input.len()),
            Self::UntilClose => input.len(),
        };
        self.skip_data(consumed as u64);
        Ok(Advance { consumed, passed: Cow::Borrowed(&input[..consumed]) })
    }

    /// How many of the next bytes are data that need not pass through `advance`, but may be spliced.
    pub fn data_remaining(&self) -> u64 {
        match self {
            Self::Length(remaining) => *remaining,
            Self::Chunked(scanner) => scanner.data_remaining(),
            Self::UntilClose => u64::MAX,
        }
    }

    /// Counts data that did not pass through `advance`, at most `data_remaining` bytes.
    pub fn skip_data(&mut self, len: u64) {
        match self {
            Self::Length(remaining) => *remaining = remaining.saturating_sub(len),
            Self::Chunked(scanner) => scanner.skip_data(len),
            Self::UntilClose => {}
        }
    }

    /// Whether no byte of the body is missing; never, if it ends by a close.
    pub fn is_done(&self) -> bool {
        match self {
            Self::Length(remaining) => *remaining == 0,
            Self::Chunked(scanner) => scanner.is_done(),
            Self::UntilClose => false,
        }
    }

    /// Whether the body is whole if the stream ends now.
    pub fn is_whole_at_close(&self) -> bool {
        self.is_done() || matches!(self, Self::UntilClose)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(framing: Framing) -> Body<'static> {
        Body::new(framing, Passes::Chunks)
    }

    #[track_caller]
    fn assert_takes(body: &mut Body<'_>, input: &[u8], consumed: usize, is_done: bool) {
        let advance = body.advance(input).expect("a sound body");
        assert_eq!((advance.consumed, &advance.passed[..]), (consumed, &input[..consumed]));
        assert_eq!(body.is_done(), is_done);
    }

    #[test]
    fn counts_a_length_and_leaves_the_next_message() {
        let mut body = body(Framing::Length(5));
        assert_takes(&mut body, b"hel", 3, false);
        assert!(!body.is_whole_at_close());
        assert_eq!(body.data_remaining(), 2);
        assert_takes(&mut body, b"loGET", 2, true);
    }

    #[test]
    fn is_done_at_once_without_a_body() {
        assert!(body(Framing::None).is_done());
        assert!(body(Framing::Length(0)).is_done());
        assert_takes(&mut body(Framing::None), b"x", 0, true);
    }

    #[test]
    fn is_whole_only_at_the_close_where_nothing_frames_it() {
        let mut until_close = body(Framing::UntilClose);
        assert_takes(&mut until_close, b"abc", 3, false);
        assert!(until_close.is_whole_at_close());
        assert!(!body(Framing::Chunked).is_whole_at_close());
    }

    #[test]
    fn follows_chunks_whose_data_bypasses_it() {
        let mut body = body(Framing::Chunked);
        assert_takes(&mut body, b"8\r\n", 3, false);
        assert_eq!(body.data_remaining(), 8);
        body.skip_data(8);
        assert_takes(&mut body, b"\r\n0\r\n\r\n", 7, true);
    }
}
