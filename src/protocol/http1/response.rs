//! A response's head: a backend is trusted no more than a client. What has one meaning only is read even where it is
//! not written as it should be, since clients don't get it as it came (`Cursor::lenient`). Its framing depends on the
//! request too (RFC 9112 section 6.3), which is given as `RequestFacts`.

use super::fields::{FieldFacts, Fields};
use super::syntax::{Cursor, Span, Stop, verdict};
use super::{BadResponse, Fault, Framing, HeadLimits, Version};

/// What of the request changes how its response is read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RequestFacts {
    /// The method was HEAD.
    pub head: bool,
    /// The client asked for another protocol.
    pub upgrade: bool,
}

/// An accepted response head. Methods that take `buf` want the buffer that was parsed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResponseHead {
    /// The head's length in the buffer; the body follows.
    pub len: usize,
    /// 100 to 999.
    pub status: u16,
    pub version: Version,
    /// Of the body that follows.
    pub framing: Framing,
    /// The backend connection can be used again once the body has been read to its end.
    pub keep_alive: bool,
    /// Status code and reason phrase.
    pub(super) status_text: Span,
    pub(super) facts: FieldFacts,
}

impl ResponseHead {
    /// Reads the head at the start of `buf`; `None`: more bytes are needed.
    ///
    /// # Errors
    /// At the first byte that makes the response unacceptable, whatever follows.
    pub fn parse(buf: &[u8], request: RequestFacts, limits: &HeadLimits) -> Result<Option<Self>, BadResponse> {
        verdict(Self::read(buf, request, limits))
    }

    fn read(buf: &[u8], request: RequestFacts, limits: &HeadLimits) -> Result<Self, Stop<BadResponse>> {
        let mut cursor = Cursor::new(buf, limits.max_head_bytes, Fault::HeadTooLarge).lenient();
        cursor.skip_empty_line()?;
        let version = cursor.response_version()?;
        cursor.expect(b' ', Fault::MalformedVersion)?;
        cursor.run(|byte| byte == b' ');
        let status_start = cursor.at();
        let status = read_status(&mut cursor, buf)?;
        if status == 101 && !request.upgrade {
            return Err(BadResponse::UnrequestedUpgrade.into());
        }
        let status_text = Span { start: status_start, end: cursor.text().end };
        cursor.line_end(Fault::ControlByte)?;
        let facts = FieldFacts::read(&mut cursor, buf, version, limits, |_, _, facts| {
            facts.check_coding_is_clear().map_err(BadResponse::from)
        })?;
        let framing = match facts.framing(Framing::UntilClose) {
            _ if request.head || has_no_body(status) => Framing::None,
            framing => framing,
        };
        let keep_alive = facts.keep_alive(version)
            && framing != Framing::UntilClose
            && status != 101
            && !announces_impossible_body(status, facts.framing(Framing::None));
        Ok(Self { len: cursor.at(), status, version, framing, keep_alive, status_text, facts })
    }

    /// 100, 102, 103 and the like: the final response is still to come (RFC 9110 section 15.2).
    pub fn is_interim(&self) -> bool {
        self.status < 200 && !self.is_upgrade()
    }

    /// The connection is a tunnel after this head.
    pub fn is_upgrade(&self) -> bool {
        self.status == 101
    }

    /// An HTTP/1.0 client knows no chunks: it gets only their data (`Passes::Data`), ended by a close.
    pub fn must_dechunk(&self, client: Version) -> bool {
        client == Version::Http10 && self.framing == Framing::Chunked
    }

    /// Only the close of its connection shows the client where the body ends.
    pub fn ends_by_close(&self, client: Version) -> bool {
        self.framing == Framing::UntilClose || self.must_dechunk(client)
    }

    /// All of them, in their order.
    pub fn fields<'a>(&self, buf: &'a [u8]) -> Fields<'a> {
        self.facts.fields(buf)
    }
}

/// RFC 9112 section 6.3, item 1, without HEAD.
pub(super) fn has_no_body(status: u16) -> bool {
    status < 200 || status == 204 || status == 304
}

/// A backend that announces a body for a status that has none may send one, so the connection can't be used again. A
/// 304 is sound: its fields describe the body that a 200 would have had.
fn announces_impossible_body(status: u16, stated: Framing) -> bool {
    status != 304 && has_no_body(status) && !matches!(stated, Framing::None | Framing::Length(0))
}

/// Three digits from 100, then a space before the reason; some servers leave out both (RFC 9112 section 4).
fn read_status(cursor: &mut Cursor<'_>, buf: &[u8]) -> Result<u16, Stop<BadResponse>> {
    let start = cursor.at();
    for _ in 0..3 {
        let digit = cursor.peek()?;
        if !digit.is_ascii_digit() || (cursor.at() == start && digit == b'0') {
            return Err(BadResponse::MalformedStatus.into());
        }
        cursor.expect(digit, Fault::MalformedVersion)?;
    }
    if !matches!(cursor.peek()?, b' ' | b'\r' | b'\n') {
        return Err(BadResponse::MalformedStatus.into());
    }
    let digits = Span { start, end: start + 3 }.slice(buf);
    Ok(digits.iter().fold(0, |status, digit| status * 10 + u16::from(digit - b'0')))
}

#[cfg(test)]
mod tests {
    use super::*;

    const GET: RequestFacts = RequestFacts { head: false, upgrade: false };
    const HEAD: RequestFacts = RequestFacts { head: true, upgrade: false };
    const UPGRADE: RequestFacts = RequestFacts { head: false, upgrade: true };

    fn parse(head: &str, request: RequestFacts) -> Result<Option<ResponseHead>, BadResponse> {
        ResponseHead::parse(head.as_bytes(), request, &HeadLimits::default())
    }

    fn accepted(head: &str, request: RequestFacts) -> ResponseHead {
        parse(head, request).expect("an acceptable head").expect("a complete head")
    }

    fn with(status: u16, lines: &str) -> String {
        format!("HTTP/1.1 {status} Text\r\n{lines}\r\n")
    }

    fn refusal(head: &str) -> BadResponse {
        parse(head, GET).expect_err("the head breaks a rule")
    }

    #[test]
    fn reads_the_status_and_leaves_the_body() {
        let text = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi";
        let head = accepted(text, GET);
        assert_eq!((head.status, head.version, head.framing), (200, Version::Http11, Framing::Length(2)));
        assert!(head.keep_alive && !head.is_interim() && !head.is_upgrade());
        assert_eq!(&text[head.len..], "hi");
    }

    #[test]
    fn refuses_malformed_status_lines() {
        for rest in "20 OK\r\n|2000|099|200\tOK|+20".split('|') {
            assert_eq!(refusal(&format!("HTTP/1.1 {rest}")), BadResponse::MalformedStatus, "{rest}");
        }
        assert_eq!(refusal("HTTP/1.1\t"), Fault::MalformedVersion.into());
        assert_eq!(refusal("HTTP/1.1 200 \0"), Fault::ControlByte.into());
        assert_eq!(refusal("HTTP/1.1 200 OK\rX"), Fault::BareCr.into());
        assert_eq!(refusal("HTTP/2"), Fault::UnsupportedVersion.into());
        assert!(parse("HTTP/1.1 301\r\n\r\n", GET).is_ok());
        assert!(parse("HTTP/1.1 301 \r\n\r\n", GET).is_ok());
    }

    #[test]
    fn reads_what_has_one_meaning_only() {
        let text = "HTTP/1.1  200 O\x01K\nContent-Length: 2\nA: \x7f\r\nContent-Length: 2\r\n\nhi";
        let head = accepted(text, GET);
        assert_eq!((head.status, head.framing, &text[head.len..]), (200, Framing::Length(2), "hi"));
        for line in ["A: \0", "A: \r", "A: b\n c", "A\x01: b", "A : b"] {
            assert!(parse(&with(200, &format!("{line}\r\n")), GET).is_err(), "{line:?}");
        }
    }

    #[test]
    fn finds_the_framing() {
        let chunked = "Transfer-Encoding: chunked\r\n";
        assert_eq!(accepted(&with(200, chunked), GET).framing, Framing::Chunked);
        assert_eq!(accepted(&with(200, ""), GET).framing, Framing::UntilClose);
        assert_eq!(accepted(&with(200, "Transfer-Encoding: gzip\r\n"), GET).framing, Framing::UntilClose);
        let not_last = "Transfer-Encoding: chunked\r\nTransfer-Encoding: gzip\r\n";
        assert_eq!(accepted(&with(200, not_last), GET).framing, Framing::UntilClose);
        for status in [100, 103, 204, 304] {
            assert_eq!(accepted(&with(status, chunked), GET).framing, Framing::None, "{status}");
        }
        assert_eq!(accepted(&with(200, chunked), HEAD).framing, Framing::None);
        assert_eq!(accepted(&with(200, "Content-Length: 5\r\n"), HEAD).framing, Framing::None);
    }

    #[test]
    fn refuses_unclear_framing() {
        for (lines, fault) in [
            ("Content-Length: 1\r\nTransfer-Encoding: chunked\r\n", Fault::LengthAndEncoding),
            ("Content-Length: 1\r\nContent-Length: 2\r\n", Fault::RepeatedContentLength),
            ("Content-Length: 1, 1\r\n", Fault::MalformedContentLength),
            ("Transfer-Encoding: gzip, chunked\r\n", Fault::TransferEncoding),
            ("Transfer-Encoding:\r\n", Fault::TransferEncoding),
            ("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", Fault::TransferEncoding),
            ("Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n", Fault::TransferEncoding),
            ("Transfer-Encoding: gzip, chunked\r\nTransfer-Encoding: gzip\r\n", Fault::TransferEncoding),
        ] {
            for status in [200, 304] {
                assert_eq!(refusal(&with(status, lines)), fault.into(), "{lines:?}");
            }
        }
        let head = "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
        assert_eq!(refusal(head), Fault::EncodingInHttp10.into());
    }

    #[test]
    fn takes_a_101_only_for_a_request_to_upgrade() {
        assert_eq!(refusal(&with(101, "Upgrade: a\r\n")), BadResponse::UnrequestedUpgrade);
        let head = accepted(&with(101, "Upgrade: a\r\n"), UPGRADE);
        assert!(head.is_upgrade() && !head.is_interim() && !head.keep_alive);
        assert!(!accepted(&with(200, "Connection: upgrade\r\nUpgrade: a\r\n"), UPGRADE).is_upgrade());
    }

    #[test]
    fn relays_interim_responses() {
        assert!(accepted(&with(100, ""), GET).is_interim());
        assert!(accepted(&with(103, "Link: a\r\n"), GET).is_interim());
    }

    #[test]
    fn reuses_only_what_ends_for_certain() {
        let length = "Content-Length: 0\r\n";
        assert!(accepted(&with(200, length), GET).keep_alive);
        assert!(!accepted(&with(200, ""), GET).keep_alive);
        assert!(!accepted(&with(200, "Connection: close\r\nContent-Length: 0\r\n"), GET).keep_alive);
        assert!(!accepted("HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n", GET).keep_alive);
        assert!(accepted("HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 0\r\n\r\n", GET).keep_alive);
        assert!(accepted(&with(204, length), GET).keep_alive);
        assert!(!accepted(&with(204, "Content-Length: 5\r\n"), GET).keep_alive);
        assert!(accepted(&with(304, "Content-Length: 5\r\n"), GET).keep_alive);
        assert!(accepted(&with(200, "Content-Length: 5\r\n"), HEAD).keep_alive);
    }

    #[test]
    fn bounds_the_head() {
        let limits = HeadLimits { max_head_bytes: 32, max_line_bytes: 8, max_headers: 1 };
        let parse = |text: &str| ResponseHead::parse(text.as_bytes(), GET, &limits).map(|head| head.is_some());
        assert_eq!(parse("HTTP/1.1 200 OK\r\na:b\r\n\r\n"), Ok(true));
        assert_eq!(parse("HTTP/1.1 200 OK\r\na:b\r\nc"), Err(Fault::TooManyHeaders.into()));
        assert_eq!(parse(&format!("HTTP/1.1 200 {}", "a".repeat(32))), Err(Fault::HeadTooLarge.into()));
        assert_eq!(parse(&format!("HTTP/1.1 200 OK\r\na: {}", "a".repeat(32))), Err(Fault::HeadTooLarge.into()));
    }
}
