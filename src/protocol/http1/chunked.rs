//! Follows chunked coding (RFC 9112 section 7.1) without buffering, so that bytes can be passed on unchanged.
//! Strict with sizes, line ends, extensions and trailers: through lax readers of these, requests were smuggled. It
//! knows nothing of heads, and doesn't look at data.

use super::fields::is_same_name;
use super::syntax::{is_text, is_token};
use std::fmt;

/// A u64 has sixteen; more could only be leading zeros or an overflow.
const MAX_SIZE_DIGITS: u8 = 16;
/// Over a whole body, as in hyper: no receiver uses them, so many of them can only be meant to cost time.
const MAX_EXTENSION_BYTES: u32 = 16 << 10;
/// Over a whole trailer section: enough for checksums and signatures.
const MAX_TRAILER_BYTES: u32 = 8 << 10;
/// Fields that determine framing, routing or the connection must not come after the body (RFC 9110 section 6.5.1).
const FORBIDDEN_TRAILERS: [&[u8]; 10] = [
    b"connection",
    b"content-length",
    b"expect",
    b"host",
    b"keep-alive",
    b"proxy-connection",
    b"te",
    b"trailer",
    b"transfer-encoding",
    b"upgrade",
];
const LONGEST_FORBIDDEN: usize = b"transfer-encoding".len();

/// What of the input belongs to the body, and whether the body is complete with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Bytes of the input that belong to the body.
    pub consumed: usize,
    /// The body is complete.
    pub done: bool,
}

/// Why a chunked body is refused. What was scanned before it may be sent already, so both connections must be closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChunkError {
    MalformedSize,
    SizeTooLong,
    MalformedExtension,
    ExtensionsTooLong,
    MalformedLineEnd,
    MalformedTrailer,
    ForbiddenTrailer,
    TrailersTooLong,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    SizeStart,
    Size,
    ExtensionStart,
    ExtensionName,
    ExtensionValue,
    ExtensionToken,
    ExtensionQuoted,
    ExtensionEscape,
    ExtensionQuoteEnd,
    SizeLf,
    Data,
    DataCr,
    DataLf,
    TrailerStart,
    TrailerName,
    TrailerValue,
    TrailerLf,
    EndLf,
    Done,
}

/// One body's scanner; not to be used after an error.
#[derive(Clone, Debug)]
pub struct ChunkedScanner {
    state: State,
    remaining: u64,
    size_digits: u8,
    extension_bytes: u32,
    trailer_bytes: u32,
    /// The start of a trailer's name, as the input may be cut within it: long enough to compare with the forbidden
    /// ones.
    name: [u8; LONGEST_FORBIDDEN],
    name_len: usize,
}

impl Default for ChunkedScanner {
    fn default() -> Self {
        Self {
            state: State::SizeStart,
            remaining: 0,
            size_digits: 0,
            extension_bytes: 0,
            trailer_bytes: 0,
            name: [0; LONGEST_FORBIDDEN],
            name_len: 0,
        }
    }
}

impl ChunkedScanner {
    /// Checks the next bytes; the first `consumed` of them belong to the body and can be passed on unchanged.
    ///
    /// # Errors
    /// At the first byte that breaks the coding.
    pub fn advance(&mut self, input: &[u8]) -> Result<Progress, ChunkError> {
        self.scan(input, |_| {})
    }

    /// Like `advance`, and appends the data without its coding to `out`, for a client that knows no chunks.
    ///
    /// # Errors
    /// At the first byte that breaks the coding.
    pub fn decode(&mut self, input: &[u8], out: &mut Vec<u8>) -> Result<Progress, ChunkError> {
        self.scan(input, |data| out.extend_from_slice(data))
    }

    /// Data bytes of the current chunk that are still to come: they need not be scanned.
    pub fn data_remaining(&self) -> u64 {
        if self.state == State::Data { self.remaining } else { 0 }
    }

    /// Counts data that was not scanned, at most `data_remaining` bytes.
    pub fn skip_data(&mut self, len: u64) {
        if self.state == State::Data {
            self.remaining = self.remaining.saturating_sub(len);
            if self.remaining == 0 {
                self.state = State::DataCr;
            }
        }
    }

    /// Whether the empty line after the last chunk and the trailers was read.
    pub fn is_done(&self) -> bool {
        self.state == State::Done
    }

    fn scan(&mut self, input: &[u8], mut data: impl FnMut(&[u8])) -> Result<Progress, ChunkError> {
        let mut rest = input;
        while let Some((&byte, tail)) = rest.split_first()
            && self.state != State::Done
        {
            if self.state == State::Data {
                let len = usize::try_from(self.remaining).unwrap_or(usize::MAX).min(rest.len());
                data(&rest[..len]);
                self.skip_data(len as u64);
                rest = &rest[len..];
            } else {
                self.state = self.step(byte)?;
                rest = tail;
            }
        }
        Ok(Progress { consumed: input.len() - rest.len(), done: self.is_done() })
    }

    fn step(&mut self, byte: u8) -> Result<State, ChunkError> {
        match self.state {
            State::SizeStart | State::Size => self.size(byte),
            State::SizeLf => expect(byte, b'\n', if self.remaining == 0 { State::TrailerStart } else { State::Data }),
            State::DataCr => expect(byte, b'\r', State::DataLf),
            State::DataLf => expect(byte, b'\n', State::SizeStart),
            State::TrailerStart | State::TrailerName | State::TrailerValue => self.trailer(byte),
            State::TrailerLf => expect(byte, b'\n', State::TrailerStart),
            State::EndLf => expect(byte, b'\n', State::Done),
            State::Data | State::Done => Ok(self.state),
            _ => self.extension(byte),
        }
    }

    fn size(&mut self, byte: u8) -> Result<State, ChunkError> {
        if self.state == State::SizeStart {
            (self.remaining, self.size_digits) = (0, 0);
        }
        match (byte, char::from(byte).to_digit(16)) {
            (_, Some(_)) if self.size_digits == MAX_SIZE_DIGITS => Err(ChunkError::SizeTooLong),
            (_, Some(digit)) => {
                self.size_digits += 1;
                self.remaining = self.remaining << 4 | u64::from(digit);
                Ok(State::Size)
            }
            (b'\r', _) if self.state == State::Size => Ok(State::SizeLf),
            (b';', _) if self.state == State::Size => Ok(State::ExtensionStart),
            _ => Err(ChunkError::MalformedSize),
        }
    }

    /// `*( ";" name [ "=" ( token / quoted-string ) ] )`. Whitespace around `;` and `=` is refused, though a recipient
    /// may accept it: readers differ on it.
    fn extension(&mut self, byte: u8) -> Result<State, ChunkError> {
        use State::{
            ExtensionEscape, ExtensionName, ExtensionQuoteEnd, ExtensionQuoted, ExtensionStart, ExtensionToken,
            ExtensionValue,
        };
        self.extension_bytes += 1;
        if self.extension_bytes > MAX_EXTENSION_BYTES {
            return Err(ChunkError::ExtensionsTooLong);
        }
        match (self.state, byte) {
            (ExtensionQuoted, b'"') => Ok(ExtensionQuoteEnd),
            (ExtensionQuoted, b'\\') => Ok(ExtensionEscape),
            (ExtensionQuoted | ExtensionEscape, _) if is_text(byte) => Ok(ExtensionQuoted),
            (ExtensionStart | ExtensionName, _) if is_token(byte) => Ok(ExtensionName),
            (ExtensionValue | ExtensionToken, _) if is_token(byte) => Ok(ExtensionToken),
            (ExtensionName, b'=') => Ok(ExtensionValue),
            (ExtensionValue, b'"') => Ok(ExtensionQuoted),
            (ExtensionName | ExtensionToken | ExtensionQuoteEnd, b';') => Ok(ExtensionStart),
            (ExtensionName | ExtensionToken | ExtensionQuoteEnd, b'\r') => Ok(State::SizeLf),
            _ => Err(ChunkError::MalformedExtension),
        }
    }

    fn trailer(&mut self, byte: u8) -> Result<State, ChunkError> {
        self.trailer_bytes += 1;
        if self.trailer_bytes > MAX_TRAILER_BYTES {
            return Err(ChunkError::TrailersTooLong);
        }
        match (self.state, byte) {
            (State::TrailerStart, b'\r') => Ok(State::EndLf),
            (State::TrailerValue, b'\r') => Ok(State::TrailerLf),
            (State::TrailerValue, _) if is_text(byte) => Ok(State::TrailerValue),
            (State::TrailerName, b':') if self.is_forbidden_trailer() => Err(ChunkError::ForbiddenTrailer),
            (State::TrailerName, b':') => Ok(State::TrailerValue),
            (State::TrailerStart | State::TrailerName, _) if is_token(byte) => {
                if self.state == State::TrailerStart {
                    self.name_len = 0;
                }
                if let Some(slot) = self.name.get_mut(self.name_len) {
                    *slot = byte;
                }
                self.name_len += 1;
                Ok(State::TrailerName)
            }
            _ => Err(ChunkError::MalformedTrailer),
        }
    }

    fn is_forbidden_trailer(&self) -> bool {
        let name = self.name.get(..self.name_len).unwrap_or_default();
        FORBIDDEN_TRAILERS.iter().any(|forbidden| is_same_name(forbidden, name))
    }
}

fn expect(byte: u8, expected: u8, next: State) -> Result<State, ChunkError> {
    if byte == expected { Ok(next) } else { Err(ChunkError::MalformedLineEnd) }
}

impl fmt::Display for ChunkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::MalformedSize => "malformed chunk size",
            Self::SizeTooLong => "chunk size too long",
            Self::MalformedExtension => "malformed chunk extension",
            Self::ExtensionsTooLong => "chunk extensions too long",
            Self::MalformedLineEnd => "malformed line end in a chunked body",
            Self::MalformedTrailer => "malformed trailer",
            Self::ForbiddenTrailer => "trailer that belongs in the head",
            Self::TrailersTooLong => "trailers too long",
        })
    }
}

impl std::error::Error for ChunkError {}

#[cfg(test)]
mod tests {
    use super::*;

    /// The whole in one piece, then byte by byte: the verdict must be the same.
    fn verdict(body: &[u8]) -> Result<bool, ChunkError> {
        let whole = ChunkedScanner::default().advance(body).map(|progress| progress.done);
        let mut scanner = ChunkedScanner::default();
        let bytewise = body.chunks(1).try_fold(false, |_, byte| scanner.advance(byte).map(|progress| progress.done));
        assert_eq!(whole, bytewise, "{}", body.escape_ascii());
        whole
    }

    fn error(body: &[u8]) -> ChunkError {
        verdict(body).expect_err("the body breaks a rule")
    }

    #[test]
    fn accepts_chunks_extensions_and_trailers() {
        assert_eq!(verdict(b"5\r\nhello\r\n0\r\n\r\n"), Ok(true));
        assert_eq!(verdict(b"00005;a;b=c;d=\"x;\\\"\\\\\"\r\nhello\r\n000\r\nDigest: x\r\nEmpty:\r\n\r\n"), Ok(true));
        assert_eq!(verdict(b"5\r\nhello\r\n0\r\n"), Ok(false));
        assert_eq!(verdict(b""), Ok(false));
    }

    #[test]
    fn stops_after_the_body_and_leaves_the_next_message() {
        let mut scanner = ChunkedScanner::default();
        let progress = scanner.advance(b"1\r\na\r\n0\r\n\r\nGET / HTTP/1.1\r\n").expect("a sound body");
        assert_eq!(progress, Progress { consumed: 11, done: true });
        assert_eq!(scanner.advance(b"x"), Ok(Progress { consumed: 0, done: true }));
    }

    #[test]
    fn refuses_malformed_sizes() {
        for case in "\r\n|;a\r\n|g\r\n|+5\r\n|-1\r\n|0x5\r\n| 5\r\n|5 \r\n|5\n|5,5\r\n".split('|') {
            assert_eq!(error(case.as_bytes()), ChunkError::MalformedSize, "{case:?}");
        }
        assert_eq!(error(b"10000000000000005\r\n"), ChunkError::SizeTooLong);
        assert_eq!(verdict(b"ffffffffffffffff\r\n"), Ok(false));
        assert_eq!(verdict(&b"00000001\r\na\r\n".repeat(3)), Ok(false));
    }

    #[test]
    fn refuses_line_ends_other_than_crlf() {
        for case in "5\rx|5\r\nhello0|5\r\nhello\n|5\r\nhello\rx|0\r\n\rx|0\r\na: b\rx".split('|') {
            assert_eq!(error(case.as_bytes()), ChunkError::MalformedLineEnd, "{case:?}");
        }
    }

    #[test]
    fn refuses_malformed_extensions() {
        for case in "\r|;|=| a|a |a=\r|a=\"b\r|a=\"b\"c|a\n|a=\"\n|a=\"\\\n|a=b\0".split('|') {
            assert_eq!(error(format!("5;{case}").as_bytes()), ChunkError::MalformedExtension, "{case:?}");
        }
    }

    #[test]
    fn bounds_extensions_over_the_whole_body() {
        let chunk = [&b"1;"[..], &b"e".repeat(1 << 10), b"\r\nx\r\n"].concat();
        assert_eq!(error(&chunk.repeat(16)), ChunkError::ExtensionsTooLong);
        assert_eq!(verdict(&chunk.repeat(15)), Ok(false));
    }

    #[test]
    fn bounds_trailers() {
        assert_eq!(error(&[&b"0\r\n"[..], &b"a: b\r\n".repeat(2000)].concat()), ChunkError::TrailersTooLong);
    }

    #[test]
    fn refuses_malformed_trailers() {
        for case in ": x| a: b|a : b|a\r|a\n|a: \0|a: b\n|\n".split('|') {
            assert_eq!(error(format!("0\r\n{case}").as_bytes()), ChunkError::MalformedTrailer, "{case:?}");
        }
    }

    #[test]
    fn refuses_trailers_that_frame_or_route() {
        for name in ["Content-Length", "transfer-encoding", "HOST", "Connection", "te", "Transfer_Encoding", "Trailer"]
        {
            assert_eq!(error(format!("0\r\n{name}:").as_bytes()), ChunkError::ForbiddenTrailer, "{name}");
        }
        assert_eq!(verdict(b"0\r\nTransfer-Encoding-X: a\r\nHos: b\r\nHost-: c\r\n\r\n"), Ok(true));
        assert_eq!(error(b"0\r\nDigest: a\r\nHost:"), ChunkError::ForbiddenTrailer);
    }

    #[test]
    fn tells_how_much_data_may_bypass_it() {
        let mut scanner = ChunkedScanner::default();
        scanner.advance(b"10\r\nabc").expect("a sound start");
        assert_eq!(scanner.data_remaining(), 13);
        scanner.skip_data(12);
        assert_eq!(scanner.data_remaining(), 1);
        scanner.skip_data(1);
        assert_eq!(scanner.data_remaining(), 0);
        assert_eq!(scanner.advance(b"\r\n0\r\n\r\n").map(|progress| progress.done), Ok(true));
    }

    #[test]
    fn decodes_the_data_alone() {
        let mut out = Vec::new();
        let mut scanner = ChunkedScanner::default();
        for piece in b"5;a\r\nhello\r\n6\r\n world\r\n0\r\nx: y\r\n\r\n".chunks(3) {
            scanner.decode(piece, &mut out).expect("a sound body");
        }
        assert!(scanner.is_done());
        assert_eq!(out, b"hello world");
    }
}
