//! Follows chunked coding (RFC 9112 section 7.1) and passes it on: what is not to be passed on is left out, the rest
//! stays as it came, and is copied only where something is left out before it. Strict with sizes, line ends and
//! extensions: through lax readers of these, requests were smuggled. It knows nothing of heads, and doesn't look at
//! data.

use std::borrow::Cow;
use std::fmt;

use super::syntax::{is_text, is_token_byte};
use super::trailers::TrailerFilter;

/// A u64 has sixteen; more could only be leading zeros or an overflow.
const MAX_SIZE_DIGITS: u8 = 16;
/// Over a whole body, as in hyper: no receiver uses them, so many of them can only be meant to cost time.
const MAX_EXTENSION_BYTES: u32 = 16 << 10;
/// Over a whole trailer section: enough for checksums and signatures.
const MAX_TRAILER_BYTES: u32 = 8 << 10;

/// What of a chunked body its receiver gets.
#[derive(Clone, Copy, Debug)]
pub enum Passes<'r> {
    /// Its data alone: the receiver knows no chunks.
    Data,
    /// The chunks, without trailers.
    Chunks,
    /// The chunks, and the trailers that are let through.
    ChunksAndTrailers(TrailerFilter<'r>),
}

/// What the next received bytes are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Advance<'a> {
    /// How many of them belong to the body; the others are the next message's.
    pub consumed: usize,
    /// What is to be passed on.
    pub passed: Cow<'a, [u8]>,
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
    TrailersTooLong,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    SizeStart,
    Size,
    SizePadding,
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
pub struct ChunkedScanner<'r> {
    passes: Passes<'r>,
    state: State,
    remaining: u64,
    size_digits: u8,
    extension_bytes: u32,
    trailer_bytes: u32,
    /// The trailers so far, where some may be passed on: which, is decided once their lines are complete.
    trailers: Vec<u8>,
}

impl<'r> ChunkedScanner<'r> {
    pub fn new(passes: Passes<'r>) -> Self {
        Self {
            passes,
            state: State::SizeStart,
            remaining: 0,
            size_digits: 0,
            extension_bytes: 0,
            trailer_bytes: 0,
            trailers: Vec::new(),
        }
    }

    /// Takes the next bytes.
    ///
    /// # Errors
    /// At the first byte that breaks the coding: none of them is to be passed on.
    pub fn advance<'a>(&mut self, input: &'a [u8]) -> Result<Advance<'a>, ChunkError> {
        let mut output = Output { input, copied: None, kept_from: 0 };
        let mut at = 0;
        while at < input.len() && self.state != State::Done {
            if self.state == State::Data {
                let len = usize::try_from(self.remaining).unwrap_or(usize::MAX).min(input.len() - at);
                self.skip_data(len as u64);
                at += len;
                continue;
            }
            let before = self.state;
            self.state = self.step(input[at])?;
            self.pass(before, &mut output, at);
            at += 1;
        }
        Ok(Advance { consumed: at, passed: output.up_to(at) })
    }

    /// Leaves out what isn't to be passed on of the byte that has just led from `before` to another state.
    fn pass(&mut self, before: State, output: &mut Output<'_>, at: usize) {
        use State::{EndLf, SizePadding, TrailerLf, TrailerName, TrailerStart, TrailerValue};
        let is_of_trailer = matches!(before, TrailerStart | TrailerName | TrailerValue | TrailerLf);
        match self.passes {
            Passes::Data => output.leave_out(at),
            Passes::ChunksAndTrailers(filter) if self.state == EndLf => {
                if !self.trailers.is_empty() {
                    output.insert(at, &filter.passing_lines(&std::mem::take(&mut self.trailers)));
                }
            }
            Passes::ChunksAndTrailers(_) if is_of_trailer => {
                self.trailers.push(output.input[at]);
                output.leave_out(at);
            }
            Passes::Chunks if is_of_trailer && self.state != EndLf => output.leave_out(at),
            Passes::Chunks | Passes::ChunksAndTrailers(_) if self.state == SizePadding => output.leave_out(at),
            Passes::Chunks | Passes::ChunksAndTrailers(_) => {}
        }
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

    fn step(&mut self, byte: u8) -> Result<State, ChunkError> {
        match self.state {
            State::SizeStart | State::Size | State::SizePadding => self.size(byte),
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
            (_, Some(_)) if self.state == State::SizePadding => Err(ChunkError::MalformedSize),
            (_, Some(_)) if self.size_digits == MAX_SIZE_DIGITS => Err(ChunkError::SizeTooLong),
            (_, Some(digit)) => {
                self.size_digits += 1;
                self.remaining = self.remaining << 4 | u64::from(digit);
                Ok(State::Size)
            }
            _ if self.state == State::SizeStart => Err(ChunkError::MalformedSize),
            (b'\r', _) => Ok(State::SizeLf),
            (b';', _) if self.state == State::Size => Ok(State::ExtensionStart),
            (b' ', _) if self.is_of_response() => self.count_extension(State::SizePadding),
            _ => Err(ChunkError::MalformedSize),
        }
    }

    /// Some servers pad a chunk's size with spaces. What a client writes so is refused.
    fn is_of_response(&self) -> bool {
        matches!(self.passes, Passes::Data | Passes::ChunksAndTrailers(TrailerFilter::OfResponse))
    }

    fn count_extension(&mut self, next: State) -> Result<State, ChunkError> {
        self.extension_bytes += 1;
        if self.extension_bytes > MAX_EXTENSION_BYTES { Err(ChunkError::ExtensionsTooLong) } else { Ok(next) }
    }

    /// `*( ";" name [ "=" ( token / quoted-string ) ] )`. Whitespace around `;` and `=` is refused, though a recipient
    /// may accept it: readers differ on it.
    fn extension(&mut self, byte: u8) -> Result<State, ChunkError> {
        use State::{
            ExtensionEscape, ExtensionName, ExtensionQuoteEnd, ExtensionQuoted, ExtensionStart, ExtensionToken,
            ExtensionValue,
        };
        self.count_extension(self.state)?;
        match (self.state, byte) {
            (ExtensionQuoted, b'"') => Ok(ExtensionQuoteEnd),
            (ExtensionQuoted, b'\\') => Ok(ExtensionEscape),
            (ExtensionQuoted | ExtensionEscape, _) if is_text(byte) => Ok(ExtensionQuoted),
            (ExtensionStart | ExtensionName, _) if is_token_byte(byte) => Ok(ExtensionName),
            (ExtensionValue | ExtensionToken, _) if is_token_byte(byte) => Ok(ExtensionToken),
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
            (State::TrailerName, b':') => Ok(State::TrailerValue),
            (State::TrailerStart | State::TrailerName, _) if is_token_byte(byte) => Ok(State::TrailerName),
            _ => Err(ChunkError::MalformedTrailer),
        }
    }
}

/// What is passed on of an input: nothing is copied unless something is left out.
struct Output<'a> {
    input: &'a [u8],
    copied: Option<Vec<u8>>,
    /// From here on, the input is to be passed on.
    kept_from: usize,
}

impl<'a> Output<'a> {
    /// All up to `at` but not the byte there.
    fn leave_out(&mut self, at: usize) {
        self.insert(at, b"");
        self.kept_from = at + 1;
    }

    /// All up to `at`, and then `bytes`.
    fn insert(&mut self, at: usize, bytes: &[u8]) {
        let copied = self.copied.get_or_insert_default();
        copied.extend_from_slice(&self.input[self.kept_from..at]);
        copied.extend_from_slice(bytes);
        self.kept_from = at;
    }

    fn up_to(mut self, end: usize) -> Cow<'a, [u8]> {
        if self.copied.is_none() {
            return Cow::Borrowed(&self.input[..end]);
        }
        self.insert(end, b"");
        Cow::Owned(self.copied.unwrap_or_default())
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
            Self::TrailersTooLong => "trailers too long",
        })
    }
}

impl std::error::Error for ChunkError {}

#[cfg(test)]
mod tests {
    use super::*;

    fn scanner() -> ChunkedScanner<'static> {
        ChunkedScanner::new(Passes::Chunks)
    }

    /// The whole in one piece, then byte by byte: the verdict must be the same, and what is passed on.
    fn passed(passes: Passes<'_>, body: &[u8]) -> Result<(bool, Vec<u8>), ChunkError> {
        let read = |size: usize| {
            let (mut scanner, mut out) = (ChunkedScanner::new(passes), Vec::new());
            for piece in body.chunks(size) {
                out.extend_from_slice(&scanner.advance(piece)?.passed);
            }
            Ok((scanner.is_done(), out))
        };
        let whole = read(body.len().max(1));
        assert_eq!(whole, read(1), "{}", body.escape_ascii());
        whole
    }

    fn verdict(body: &[u8]) -> Result<bool, ChunkError> {
        passed(Passes::Chunks, body).map(|(is_done, _)| is_done)
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
        let mut scanner = scanner();
        let Advance { consumed, passed } =
            scanner.advance(b"1\r\na\r\n0\r\n\r\nGET / HTTP/1.1\r\n").expect("a sound body");
        assert_eq!((consumed, &passed[..]), (11, &b"1\r\na\r\n0\r\n\r\n"[..]));
        assert!(scanner.is_done());
        assert_eq!(scanner.advance(b"x").map(|advance| advance.consumed), Ok(0));
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
    fn copies_nothing_that_passes_whole() {
        for passes in [Passes::Chunks, Passes::ChunksAndTrailers(TrailerFilter::OfResponse)] {
            let mut scanner = ChunkedScanner::new(passes);
            let advance = scanner.advance(b"1;a\r\nb\r\n0\r\n\r\nGET").expect("a sound body");
            assert!(matches!(advance.passed, Cow::Borrowed(b"1;a\r\nb\r\n0\r\n\r\n")), "{advance:?}");
        }
    }

    #[test]
    fn leaves_trailers_out() {
        let body = b"1;x\r\na\r\n0\r\nCookie: a\r\nB:\r\n\r\n";
        assert_eq!(passed(Passes::Chunks, body), Ok((true, b"1;x\r\na\r\n0\r\n\r\n".to_vec())));
        assert_eq!(passed(Passes::Data, body), Ok((true, b"a".to_vec())));
    }

    #[test]
    fn passes_on_the_trailers_that_are_let_through_once_all_have_come() {
        let passes = Passes::ChunksAndTrailers(TrailerFilter::OfResponse);
        let body = b"0\r\nA: 1\r\nContent-Length: 9\r\nB:\r\n\r\n";
        assert_eq!(passed(passes, &body[..body.len() - 2]), Ok((false, b"0\r\n".to_vec())));
        assert_eq!(passed(passes, body), Ok((true, b"0\r\nA: 1\r\nB:\r\n\r\n".to_vec())));
    }

    #[test]
    fn takes_padding_after_a_size_from_a_backend_and_leaves_it_out() {
        let body = b"2  \r\nok\r\n0 \r\n\r\n";
        let passes = Passes::ChunksAndTrailers(TrailerFilter::OfResponse);
        assert_eq!(passed(passes, body), Ok((true, b"2\r\nok\r\n0\r\n\r\n".to_vec())));
        assert_eq!(passed(Passes::Data, body), Ok((true, b"ok".to_vec())));
        assert_eq!(passed(passes, b"2 2\r\n"), Err(ChunkError::MalformedSize));
        assert_eq!(passed(passes, &[b"2", &b" ".repeat(1 << 15)[..]].concat()), Err(ChunkError::ExtensionsTooLong));
    }

    #[test]
    fn tells_how_much_data_may_bypass_it() {
        let mut scanner = scanner();
        scanner.advance(b"10\r\nabc").expect("a sound start");
        assert_eq!(scanner.data_remaining(), 13);
        scanner.skip_data(12);
        assert_eq!(scanner.data_remaining(), 1);
        scanner.skip_data(1);
        assert_eq!(scanner.data_remaining(), 0);
        scanner.advance(b"\r\n0\r\n\r\n").expect("a sound end");
        assert!(scanner.is_done());
    }

    #[test]
    fn decodes_the_data_alone() {
        let body = b"5;a\r\nhello\r\n6\r\n world\r\n0\r\nx: y\r\n\r\n";
        assert_eq!(passed(Passes::Data, body), Ok((true, b"hello world".to_vec())));
    }
}
