//! Header fields: the names that matter to a proxy, the framing and persistence that they determine, and an iterator
//! over those of an accepted head. It knows nothing of start lines.

use super::syntax::{Cursor, Span, Stop, list, run_len};
use super::{Fault, Framing, HeadLimits, Version};

/// Real messages have two or three. The limit bounds work: a rewrite searches the list once for each field.
const MAX_CONNECTION_OPTIONS: usize = 32;

/// One field of an accepted head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field<'a> {
    /// As the peer spelt it.
    pub name: &'a [u8],
    /// Without the whitespace around it.
    pub value: &'a [u8],
    /// The whole line without its end.
    pub line: &'a [u8],
}

/// The fields of an accepted head. Found again for each iteration, so that a head needs no allocation.
#[derive(Clone, Debug, Default)]
pub struct Fields<'a> {
    rest: &'a [u8],
}

impl Fields<'_> {
    /// Appends the values of all fields of this name, in any case, joined by `, ` (RFC 9110 section 5.3).
    pub(super) fn write_joined(self, name: &[u8], out: &mut Vec<u8>) {
        let start = out.len();
        for field in self.filter(|field| field.name.eq_ignore_ascii_case(name) && !field.value.is_empty()) {
            if out.len() > start {
                out.extend_from_slice(b", ");
            }
            out.extend_from_slice(field.value);
        }
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Field<'a>;

    fn next(&mut self) -> Option<Field<'a>> {
        let len = run_len(self.rest, |byte| byte != b'\n') + 1;
        let (line, rest) = self.rest.split_at_checked(len)?;
        self.rest = rest;
        let line = line.strip_suffix(b"\n")?;
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let colon = line.iter().position(|&byte| byte == b':')?;
        Some(Field { name: &line[..colon], value: line[colon + 1..].trim_ascii(), line })
    }
}

/// The names on which a proxy acts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Known {
    Connection,
    ContentLength,
    Expect,
    Host,
    KeepAlive,
    ProxyConnection,
    Te,
    Trailer,
    TransferEncoding,
    Upgrade,
}

const KNOWN: [(&[u8], Known); 10] = [
    (b"connection", Known::Connection),
    (b"content-length", Known::ContentLength),
    (b"expect", Known::Expect),
    (b"host", Known::Host),
    (b"keep-alive", Known::KeepAlive),
    (b"proxy-connection", Known::ProxyConnection),
    (b"te", Known::Te),
    (b"trailer", Known::Trailer),
    (b"transfer-encoding", Known::TransferEncoding),
    (b"upgrade", Known::Upgrade),
];

pub(super) fn known(name: &[u8]) -> Option<Known> {
    KNOWN.iter().find(|(spelling, _)| spelling.eq_ignore_ascii_case(name)).map(|&(_, known)| known)
}

/// Whether it is another spelling of a known name: none of ours, but the same for a CGI-like backend.
pub(super) fn is_alias_of_known(name: &[u8]) -> bool {
    !name.iter().all(|&byte| byte.is_ascii_alphanumeric() || byte == b'-') && resembles_known(name)
}

/// Whether a backend could take it for a known name.
pub(super) fn resembles_known(name: &[u8]) -> bool {
    KNOWN.iter().any(|(spelling, _)| is_same_name(spelling, name))
}

/// Equal but for case and for the bytes that are no letters or digits. To a CGI program such names are the same: its
/// server makes all these bytes `_` (lighttpd does so with `X.Real.IP`).
pub(super) fn is_same_name(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().map(folded).eq(b.iter().map(folded))
}

fn folded(byte: &u8) -> u8 {
    if byte.is_ascii_alphanumeric() { byte.to_ascii_lowercase() } else { b'-' }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Coding {
    Absent,
    Chunked,
    /// Other codings, none of them `chunked` at the end.
    Foreign,
    /// Empty, or `chunked` after other codings or twice: readers differ on where the body ends.
    Ambiguous,
}

/// What the fields determine about a message, for requests and responses alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FieldFacts {
    section: Span,
    /// From the first Connection field to the last, with the fields in between.
    connection: Span,
    connection_options: usize,
    content_length: Option<u64>,
    coding: Coding,
    wants_close: bool,
    wants_keep_alive: bool,
    pub(super) wants_upgrade: bool,
}

impl FieldFacts {
    /// Reads fields up to and including the empty line, and calls `note` with each known one after its checks here.
    pub(super) fn read<E>(
        cursor: &mut Cursor<'_>,
        buf: &[u8],
        version: Version,
        limits: &HeadLimits,
        mut note: impl FnMut(Known, Span, &Self) -> Result<(), E>,
    ) -> Result<Self, Stop<E>>
    where
        Stop<E>: From<Stop<Fault>> + From<Fault>,
    {
        let start = cursor.at();
        let mut facts = Self::new(start);
        let mut count = 0;
        loop {
            if count == limits.max_headers && !matches!(cursor.peek()?, b'\r' | b'\n') {
                return Err(Fault::TooManyHeaders.into());
            }
            let Some(field) = cursor.field()? else {
                return Ok(facts);
            };
            count += 1;
            facts.section.end = field.line.end;
            if let Some(known) = known(field.name.slice(buf)) {
                facts.learn(known, field.value.slice(buf), field.line, version, cursor.is_lenient())?;
                note(known, field.value, &facts).map_err(Stop::Bad)?;
            }
        }
    }

    fn new(start: usize) -> Self {
        Self {
            section: Span { start, end: start },
            connection: Span::default(),
            connection_options: 0,
            content_length: None,
            coding: Coding::Absent,
            wants_close: false,
            wants_keep_alive: false,
            wants_upgrade: false,
        }
    }

    fn learn(
        &mut self,
        known: Known,
        value: &[u8],
        line: Span,
        version: Version,
        is_lenient: bool,
    ) -> Result<(), Fault> {
        match known {
            Known::Connection => self.learn_connection(value, line),
            Known::ContentLength => {
                let length = content_length(value)?;
                if self.content_length.is_some_and(|other| !is_lenient || other != length) {
                    return Err(Fault::RepeatedContentLength);
                }
                self.content_length = Some(length);
                self.check_one_framing()
            }
            Known::TransferEncoding if version == Version::Http10 => Err(Fault::EncodingInHttp10),
            Known::TransferEncoding => {
                self.coding = self.coding.and(value);
                self.check_one_framing()
            }
            _ => Ok(()),
        }
    }

    fn learn_connection(&mut self, value: &[u8], line: Span) -> Result<(), Fault> {
        if self.connection.is_empty() {
            self.connection.start = line.start;
        }
        self.connection.end = line.end;
        for option in list(value) {
            self.connection_options += 1;
            self.wants_close |= option.eq_ignore_ascii_case(b"close");
            self.wants_keep_alive |= option.eq_ignore_ascii_case(b"keep-alive");
            self.wants_upgrade |= option.eq_ignore_ascii_case(b"upgrade");
        }
        if self.connection_options > MAX_CONNECTION_OPTIONS {
            return Err(Fault::TooManyConnectionOptions);
        }
        Ok(())
    }

    /// Two framings in one message are a way to smuggle requests (RFC 9112 section 6.3, item 3).
    fn check_one_framing(&self) -> Result<(), Fault> {
        let has_both = self.content_length.is_some() && self.coding != Coding::Absent;
        if has_both { Err(Fault::LengthAndEncoding) } else { Ok(()) }
    }

    pub(super) fn check_coding_is_chunked(&self) -> Result<(), Fault> {
        match self.coding {
            Coding::Absent | Coding::Chunked => Ok(()),
            Coding::Foreign | Coding::Ambiguous => Err(Fault::TransferEncoding),
        }
    }

    pub(super) fn check_coding_is_clear(&self) -> Result<(), Fault> {
        if self.coding == Coding::Ambiguous { Err(Fault::TransferEncoding) } else { Ok(()) }
    }

    /// `unstated` is the framing if no field gives one.
    pub(super) fn framing(&self, unstated: Framing) -> Framing {
        match (self.coding, self.content_length) {
            (Coding::Chunked, _) => Framing::Chunked,
            (Coding::Absent, Some(length)) => Framing::Length(length),
            (Coding::Absent, None) => unstated,
            (Coding::Foreign | Coding::Ambiguous, _) => Framing::UntilClose,
        }
    }

    /// RFC 9112 section 9.3.
    pub(super) fn keep_alive(&self, version: Version) -> bool {
        !self.wants_close && (version == Version::Http11 || self.wants_keep_alive)
    }

    pub(super) fn fields<'a>(&self, buf: &'a [u8]) -> Fields<'a> {
        Fields { rest: self.section.slice(buf) }
    }

    /// Whether a Connection field lists `name`, which is for this hop only then (RFC 9110 section 7.6.1).
    pub(super) fn is_named_by_connection(&self, buf: &[u8], name: &[u8]) -> bool {
        Fields { rest: self.connection.slice(buf) }
            .filter(|field| known(field.name) == Some(Known::Connection))
            .any(|field| list(field.value).any(|option| option.eq_ignore_ascii_case(name)))
    }
}

impl Coding {
    /// The coding with one more field: several are one list (RFC 9110 section 5.3). An ambiguous one stays ambiguous.
    fn and(self, value: &[u8]) -> Self {
        let last = value.rsplit(|&byte| byte == b',').next().unwrap_or_default().trim_ascii();
        match self {
            Self::Absent if is_chunked(value) => Self::Chunked,
            Self::Ambiguous => Self::Ambiguous,
            _ if last.is_empty() || is_chunked(last) => Self::Ambiguous,
            _ => Self::Foreign,
        }
    }
}

fn is_chunked(coding: &[u8]) -> bool {
    coding.eq_ignore_ascii_case(b"chunked")
}

/// Digits only: no sign, no list, no empty value (RFC 9110 section 8.6), and no number that overflows.
fn content_length(value: &[u8]) -> Result<u64, Fault> {
    if value.is_empty() {
        return Err(Fault::MalformedContentLength);
    }
    value
        .iter()
        .try_fold(0u64, |length, &byte| {
            let digit = byte.is_ascii_digit().then(|| u64::from(byte - b'0'))?;
            length.checked_mul(10)?.checked_add(digit)
        })
        .ok_or(Fault::MalformedContentLength)
}
