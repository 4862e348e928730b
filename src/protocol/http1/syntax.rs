//! Byte classes, and a cursor that reads the pieces of a head from left to right.
//! It never looks ahead further than one byte, and stops at the first wrong one: this is what makes the verdict
//! independent of segmentation. It knows the grammar of lines, but no header's meaning.

use super::Version;
use super::fault::{BadResponse, Fault, RequestError};

/// Why reading stopped before the end of the head.
#[derive(Debug)]
pub(super) enum Stop<E> {
    NeedMore,
    Bad(E),
}

/// A piece of the caller's buffer, by position, so that a head can be held over an await.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) start: usize,
    pub(super) end: usize,
}

impl Span {
    pub(super) fn slice(self, buf: &[u8]) -> &[u8] {
        &buf[self.start..self.end]
    }

    pub(super) fn is_empty(self) -> bool {
        self.start == self.end
    }
}

/// Where a field's parts are.
pub(super) struct FieldSpan {
    pub(super) name: Span,
    pub(super) value: Span,
    /// With its end.
    pub(super) line: Span,
}

pub(super) struct Cursor<'a> {
    /// Never longer than the limit.
    buf: &'a [u8],
    at: usize,
    /// The limit is reached: reading past the end is `overflow` then, instead of `NeedMore`.
    is_full: bool,
    overflow: Fault,
    is_lenient: bool,
}

impl<'a> Cursor<'a> {
    /// Reads the first `limit` bytes at most; a head that is longer is refused with `overflow`.
    pub(super) fn new(buf: &'a [u8], limit: usize, overflow: Fault) -> Self {
        Self { buf: &buf[..buf.len().min(limit)], at: 0, is_full: buf.len() >= limit, overflow, is_lenient: false }
    }

    /// Reads what can only be meant in one way, though it isn't written as it should be: LF alone as a line's end,
    /// control bytes in values, and a Content-Length that is said twice. For heads that are written anew before they
    /// are passed on (RFC 9112 sections 2.2 and 4, RFC 9110 sections 5.5 and 8.6).
    pub(super) fn lenient(self) -> Self {
        Self { is_lenient: true, ..self }
    }

    pub(super) fn is_lenient(&self) -> bool {
        self.is_lenient
    }

    /// Continues from here under another limit.
    pub(super) fn bounded(self, buf: &'a [u8], limit: usize, overflow: Fault) -> Self {
        Self { at: self.at, ..Self::new(buf, limit, overflow) }
    }

    pub(super) fn at(&self) -> usize {
        self.at
    }

    pub(super) fn peek(&self) -> Result<u8, Stop<Fault>> {
        match self.buf.get(self.at) {
            Some(&byte) => Ok(byte),
            None if self.is_full => Err(self.overflow.into()),
            None => Err(Stop::NeedMore),
        }
    }

    pub(super) fn expect(&mut self, byte: u8, otherwise: Fault) -> Result<(), Stop<Fault>> {
        if self.peek()? != byte {
            return Err(otherwise.into());
        }
        self.at += 1;
        Ok(())
    }

    /// Takes bytes as long as they belong to `class`; the run may be empty.
    pub(super) fn run(&mut self, class: fn(u8) -> bool) -> Span {
        let start = self.at;
        self.at += self.buf[start..].iter().take_while(|&&byte| class(byte)).count();
        Span { start, end: self.at }
    }

    /// A run of text without the whitespace around it.
    pub(super) fn text(&mut self) -> Span {
        let start = self.at;
        let class = if self.is_lenient { is_part_of_line } else { is_text };
        self.at += run_len(&self.buf[start..], class);
        let text = &self.buf[start..self.at];
        let from = self.at - text.trim_ascii_start().len();
        Span { start: from, end: from + text.trim_ascii().len() }
    }

    /// CRLF and, unless it is lenient, nothing else; `otherwise` is the fault of a byte that is neither CR nor LF.
    pub(super) fn line_end(&mut self, otherwise: Fault) -> Result<(), Stop<Fault>> {
        match self.peek()? {
            b'\n' if self.is_lenient => return self.expect(b'\n', otherwise),
            b'\n' => return Err(Fault::BareLf.into()),
            _ => self.expect(b'\r', otherwise)?,
        }
        self.expect(b'\n', Fault::BareCr)
    }

    /// One empty line may precede a start line (RFC 9112 section 2.2).
    pub(super) fn skip_empty_line(&mut self) -> Result<(), Stop<Fault>> {
        if matches!(self.peek()?, b'\r' | b'\n') { self.line_end(Fault::BareCr) } else { Ok(()) }
    }

    pub(super) fn version(&mut self) -> Result<Version, Stop<Fault>> {
        for &byte in b"HTTP/" {
            self.expect(byte, Fault::MalformedVersion)?;
        }
        self.digit(b'1'..=b'1')?;
        self.expect(b'.', Fault::MalformedVersion)?;
        let minor = self.digit(b'0'..=b'1')?;
        Ok(if minor == b'0' { Version::Http10 } else { Version::Http11 })
    }

    /// The version of a response. Some servers write a protocol of the same form (RTSP, ICE) or version 0.9: these are
    /// read as HTTP/1.0, whose connection ends with the response.
    pub(super) fn response_version(&mut self) -> Result<Version, Stop<Fault>> {
        let name: &[u8] = match self.peek()? {
            b'R' => b"RTSP/",
            b'I' => b"ICE/",
            _ => b"HTTP/",
        };
        for &byte in name {
            self.expect(byte, Fault::MalformedVersion)?;
        }
        let major = self.digit(b'0'..=b'1')?;
        self.expect(b'.', Fault::MalformedVersion)?;
        let minor = self.digit(if major == b'0' { b'9'..=b'9' } else { b'0'..=b'1' })?;
        Ok(if (name, major, minor) == (b"HTTP/", b'1', b'1') { Version::Http11 } else { Version::Http10 })
    }

    fn digit(&mut self, accepted: std::ops::RangeInclusive<u8>) -> Result<u8, Stop<Fault>> {
        let digit = self.peek()?;
        if !digit.is_ascii_digit() {
            return Err(Fault::MalformedVersion.into());
        }
        if !accepted.contains(&digit) {
            return Err(Fault::UnsupportedVersion.into());
        }
        self.at += 1;
        Ok(digit)
    }

    /// One field line, or None at the empty line after the last.
    pub(super) fn field(&mut self) -> Result<Option<FieldSpan>, Stop<Fault>> {
        let start = self.at;
        match self.peek()? {
            b'\r' | b'\n' => return self.line_end(Fault::BareCr).map(|()| None),
            b' ' | b'\t' => return Err(Fault::FoldedLine.into()),
            b':' => return Err(Fault::EmptyName.into()),
            _ => {}
        }
        let name = self.run(is_token_byte);
        match self.peek()? {
            b':' => self.at += 1,
            b' ' | b'\t' => return Err(Fault::SpaceBeforeColon.into()),
            b'\r' | b'\n' => return Err(Fault::MissingColon.into()),
            _ => return Err(Fault::MalformedName.into()),
        }
        let value = self.text();
        self.line_end(Fault::ControlByte)?;
        Ok(Some(FieldSpan { name, value, line: Span { start, end: self.at } }))
    }
}

const TOKEN: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0u8;
    while byte < 128 {
        table[byte as usize] = byte.is_ascii_alphanumeric();
        byte += 1;
    }
    let marks = b"!#$%&'*+-.^_`|~";
    let mut mark = 0;
    while mark < marks.len() {
        table[marks[mark] as usize] = true;
        mark += 1;
    }
    table
};

/// `token` (RFC 9110 section 5.6.2), as methods and names of headers are.
pub fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(is_token_byte)
}

/// `tchar` (RFC 9110 section 5.6.2).
pub(super) fn is_token_byte(byte: u8) -> bool {
    TOKEN[usize::from(byte)]
}

/// What a field value or reason phrase may hold: no control byte but the tab (RFC 9110 section 5.5).
pub(super) fn is_text(byte: u8) -> bool {
    (byte >= b' ' && byte != 0x7f) || byte == b'\t'
}

/// All but what could end a line or, in C, a text.
fn is_part_of_line(byte: u8) -> bool {
    !matches!(byte, b'\0' | b'\r' | b'\n')
}

/// Visible ASCII. A target is passed on as it came: `"`, `|`, `\\` and `#` are left to the backend, as nginx does.
pub(super) fn is_visible(byte: u8) -> bool {
    byte.is_ascii_graphic()
}

/// How many bytes at the start belong to `class`. For long runs: blocks without an early exit become vector
/// instructions.
pub(super) fn run_len(bytes: &[u8], class: impl Fn(u8) -> bool) -> usize {
    let (blocks, _) = bytes.as_chunks::<16>();
    let is_clean = |block: &&[u8; 16]| block.iter().fold(true, |clean, &byte| clean & class(byte));
    let clean = blocks.iter().take_while(is_clean).count() * 16;
    clean + bytes[clean..].iter().take_while(|&&byte| class(byte)).count()
}

/// The elements of a comma-separated list.
pub(super) fn list(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|&byte| byte == b',').map(<[u8]>::trim_ascii).filter(|item| !item.is_empty())
}

impl<E> From<E> for Stop<E> {
    fn from(error: E) -> Self {
        Self::Bad(error)
    }
}

impl From<Fault> for Stop<RequestError> {
    fn from(fault: Fault) -> Self {
        Self::Bad(fault.into())
    }
}

impl From<Fault> for Stop<BadResponse> {
    fn from(fault: Fault) -> Self {
        Self::Bad(fault.into())
    }
}

impl From<Stop<Fault>> for Stop<RequestError> {
    fn from(stop: Stop<Fault>) -> Self {
        match stop {
            Stop::NeedMore => Self::NeedMore,
            Stop::Bad(fault) => fault.into(),
        }
    }
}

impl From<Stop<Fault>> for Stop<BadResponse> {
    fn from(stop: Stop<Fault>) -> Self {
        match stop {
            Stop::NeedMore => Self::NeedMore,
            Stop::Bad(fault) => fault.into(),
        }
    }
}

/// The result of a public reader; `None`: more bytes are needed.
pub(super) fn verdict<T, E>(read: Result<T, Stop<E>>) -> Result<Option<T>, E> {
    match read {
        Ok(head) => Ok(Some(head)),
        Err(Stop::NeedMore) => Ok(None),
        Err(Stop::Bad(error)) => Err(error),
    }
}
