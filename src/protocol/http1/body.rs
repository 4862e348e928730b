//! A body of any framing: how many of the received bytes belong to it, and when it is over.

use super::Framing;
use super::chunked::{ChunkError, ChunkedScanner, Progress};

/// Follows a body while its bytes pass by.
#[derive(Clone, Debug)]
pub enum Body {
    /// Bytes still to come.
    Length(u64),
    /// Followed to the end of the coding. Boxed: other bodies would be as large.
    Chunked(Box<ChunkedScanner>),
    /// All bytes until the peer closes.
    UntilClose,
}

impl Body {
    /// The state before the body's first byte.
    pub fn new(framing: Framing) -> Self {
        match framing {
            Framing::None => Self::Length(0),
            Framing::Length(length) => Self::Length(length),
            Framing::Chunked => Self::Chunked(Box::default()),
            Framing::UntilClose => Self::UntilClose,
        }
    }

    /// Takes the next received bytes; those after `consumed` belong to the next message.
    ///
    /// # Errors
    /// A chunked body breaks its coding.
    pub fn advance(&mut self, input: &[u8]) -> Result<Progress, ChunkError> {
        let consumed = match self {
            Self::Chunked(scanner) => return scanner.advance(input),
            Self::Length(remaining) => usize::try_from(*remaining).unwrap_or(usize::MAX).min(input.len()),
            Self::UntilClose => input.len(),
        };
        self.skip_data(consumed as u64);
        Ok(Progress { consumed, done: self.is_done() })
    }

    /// Like `advance`, and appends the data without its coding to `out`.
    ///
    /// # Errors
    /// A chunked body breaks its coding.
    pub fn decode(&mut self, input: &[u8], out: &mut Vec<u8>) -> Result<Progress, ChunkError> {
        if let Self::Chunked(scanner) = self {
            return scanner.decode(input, out);
        }
        let progress = self.advance(input)?;
        out.extend_from_slice(&input[..progress.consumed]);
        Ok(progress)
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

    #[test]
    fn counts_a_length_and_leaves_the_next_message() {
        let mut body = Body::new(Framing::Length(5));
        assert_eq!(body.advance(b"hel"), Ok(Progress { consumed: 3, done: false }));
        assert!(!body.is_whole_at_close());
        assert_eq!(body.data_remaining(), 2);
        assert_eq!(body.advance(b"loGET"), Ok(Progress { consumed: 2, done: true }));
    }

    #[test]
    fn is_done_at_once_without_a_body() {
        assert!(Body::new(Framing::None).is_done());
        assert!(Body::new(Framing::Length(0)).is_done());
        assert_eq!(Body::new(Framing::None).advance(b"x"), Ok(Progress { consumed: 0, done: true }));
    }

    #[test]
    fn is_whole_only_at_the_close_where_nothing_frames_it() {
        let mut body = Body::new(Framing::UntilClose);
        assert_eq!(body.advance(b"abc"), Ok(Progress { consumed: 3, done: false }));
        assert!(body.is_whole_at_close());
        assert!(!Body::new(Framing::Chunked).is_whole_at_close());
    }

    #[test]
    fn decodes_a_body_of_any_framing() {
        for (framing, input) in [
            (Framing::Length(2), "hi there"),
            (Framing::Chunked, "1\r\nh\r\n1\r\ni\r\n0\r\n\r\nmore"),
            (Framing::UntilClose, "hi"),
        ] {
            let (mut body, mut out) = (Body::new(framing), Vec::new());
            for byte in input.bytes() {
                assert!(body.decode(&[byte], &mut out).is_ok());
            }
            assert_eq!(out, b"hi", "{framing:?}");
        }
    }

    #[test]
    fn follows_chunks_whose_data_bypasses_it() {
        let mut body = Body::new(Framing::Chunked);
        assert_eq!(body.advance(b"8\r\n"), Ok(Progress { consumed: 3, done: false }));
        assert_eq!(body.data_remaining(), 8);
        body.skip_data(8);
        assert_eq!(body.advance(b"\r\n0\r\n\r\n"), Ok(Progress { consumed: 7, done: true }));
    }
}
