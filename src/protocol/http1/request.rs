//! A request's head, read strictly (RFC 9112 sections 2 to 6) into facts and positions.
//! What is refused is decided here, and with which status; the rewriting is in `forward`.

use super::fields::{FieldFacts, Fields, Known};
use super::response::RequestFacts;
use super::syntax::{Cursor, Span, Stop, is_token_byte, is_visible, list, verdict};
use super::target::{check_authority, check_target, host_of};
use super::{Fault, Framing, HeadLimits, RequestError, Version};

/// An accepted request head. Methods that take `buf` want the buffer that was parsed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestHead {
    /// The head's length in the buffer; the body follows.
    pub len: usize,
    /// The client's; the backend always gets HTTP/1.1.
    pub version: Version,
    /// Never `UntilClose`.
    pub framing: Framing,
    /// The client may send another request on the connection.
    pub keep_alive: bool,
    /// The client waits for a 100 before it sends the body.
    pub expect_continue: bool,
    /// The client wants another protocol, which a 101 accepts.
    pub upgrade: bool,
    method: Span,
    target: Span,
    authority: Option<Span>,
    host: Option<Span>,
    pub(super) facts: FieldFacts,
}

struct RequestLine {
    method: Span,
    target: Span,
    authority: Option<Span>,
    version: Version,
}

impl RequestHead {
    /// Reads the head at the start of `buf`; `None`: more bytes are needed. Without a state between calls: a head that
    /// trickles in is read from its start each time, within the bounds of `HeadLimits`.
    ///
    /// # Errors
    /// At the first byte that makes the request unacceptable, whatever follows.
    pub fn parse(buf: &[u8], limits: &HeadLimits) -> Result<Option<Self>, RequestError> {
        verdict(Self::read(buf, limits))
    }

    fn read(buf: &[u8], limits: &HeadLimits) -> Result<Self, Stop<RequestError>> {
        let line_limit = limits.max_line_bytes.min(limits.max_head_bytes);
        let mut cursor = Cursor::new(buf, line_limit, Fault::LineTooLong);
        let RequestLine { method, target, authority, version } = RequestLine::read(&mut cursor, buf)?;
        let mut cursor = cursor.bounded(buf, limits.max_head_bytes, Fault::HeadTooLarge);
        let (mut host, mut expect_continue, mut names_protocol) = (None, false, true);
        let mut has_upgrade = false;
        let facts = FieldFacts::read(&mut cursor, buf, version, limits, |known, span, facts| {
            let value = span.slice(buf);
            match known {
                Known::Host if host.is_some() => return Err(RequestError::RepeatedHost),
                Known::Host => {
                    check_authority(value).ok_or(RequestError::MalformedHost)?;
                    host = Some(span);
                }
                Known::TransferEncoding => facts.check_coding_is_chunked()?,
                Known::Expect => expect_continue |= value.eq_ignore_ascii_case(b"100-continue"),
                Known::Upgrade => {
                    has_upgrade = true;
                    names_protocol &= is_tunnel(value);
                }
                _ => {}
            }
            Ok(())
        })?;
        let is_http11 = version == Version::Http11;
        if is_http11 && host.is_none() {
            return Err(RequestError::MissingHost.into());
        }
        Ok(Self {
            len: cursor.at(),
            version,
            framing: facts.framing(Framing::None),
            keep_alive: facts.keep_alive(version),
            expect_continue: is_http11 && expect_continue,
            upgrade: is_http11 && facts.wants_upgrade && has_upgrade && names_protocol,
            method,
            target,
            authority,
            host,
            facts,
        })
    }

    /// Case-sensitive.
    pub fn method<'a>(&self, buf: &'a [u8]) -> &'a [u8] {
        self.method.slice(buf)
    }

    /// As the client wrote it.
    pub fn target<'a>(&self, buf: &'a [u8]) -> &'a [u8] {
        self.target.slice(buf)
    }

    /// The target for the backend: an absolute-form one loses its scheme and authority, as in nginx. `true`: a `/` must
    /// be put before it.
    pub(super) fn origin_form<'a>(&self, buf: &'a [u8]) -> (bool, &'a [u8]) {
        let Some(authority) = self.authority else {
            return (false, self.target(buf));
        };
        let rest = Span { start: authority.end, end: self.target.end }.slice(buf);
        // RFC 9112 section 3.2.4: an OPTIONS for the whole server is `*` once its authority is gone.
        if rest.is_empty() && self.method(buf) == b"OPTIONS" {
            return (false, b"*");
        }
        (!rest.starts_with(b"/"), rest)
    }

    /// Host and port as the client wrote them: of an absolute-form target, which takes precedence (RFC 9112 section
    /// 3.2.2), else of Host. Empty if an HTTP/1.0 request has neither.
    pub fn authority<'a>(&self, buf: &'a [u8]) -> &'a [u8] {
        self.authority.or(self.host).map_or(b"", |span| span.slice(buf))
    }

    /// The authority without port and trailing dot, in the client's case.
    pub fn host<'a>(&self, buf: &'a [u8]) -> &'a [u8] {
        host_of(self.authority(buf))
    }

    /// The URL of what was asked for, by https at its own port; `None`: the request doesn't say of which host.
    pub fn https_url(&self, buf: &[u8]) -> Option<String> {
        let host = self.host(buf);
        let (needs_slash, target) = self.origin_form(buf);
        // OPTIONS of the whole server has no path.
        let target = if target == b"*" { b"" } else { target };
        let slash: &[u8] = if needs_slash { b"/" } else { b"" };
        // All of it is visible ASCII.
        let url = || String::from_utf8_lossy(&[b"https://", host, slash, target].concat()).into_owned();
        (!host.is_empty()).then(url)
    }

    /// RFC 9110 section 9.2.2. Whether the body is available for a second time is not known here.
    pub fn is_idempotent(&self, buf: &[u8]) -> bool {
        matches!(self.method(buf), b"GET" | b"HEAD" | b"OPTIONS" | b"TRACE" | b"PUT" | b"DELETE")
    }

    /// What the reading of the response depends on.
    pub fn asked(&self, buf: &[u8]) -> RequestFacts {
        RequestFacts { head: self.method(buf) == b"HEAD", upgrade: self.upgrade }
    }

    pub fn fields<'a>(&self, buf: &'a [u8]) -> Fields<'a> {
        self.facts.fields(buf)
    }

    /// The value of the first field with this name, in any case.
    pub fn header<'a>(&self, buf: &'a [u8], name: &str) -> Option<&'a [u8]> {
        self.fields(buf).find(|field| field.name.eq_ignore_ascii_case(name.as_bytes())).map(|field| field.value)
    }

    /// Whether X-Forwarded-Proto says that the client asked by https or http; `None`: neither. Where each proxy of a
    /// chain has added its own, the first is the client's.
    pub fn forwarded_scheme(&self, buf: &[u8]) -> Option<&'static str> {
        let first = list(self.header(buf, "x-forwarded-proto")?).next()?;
        ["https", "http"].into_iter().find(|scheme| first.eq_ignore_ascii_case(scheme.as_bytes()))
    }

    /// Appends all X-Forwarded-For values, joined by `, `.
    pub fn write_forwarded_for(&self, buf: &[u8], out: &mut Vec<u8>) {
        self.fields(buf).write_joined(b"x-forwarded-for", out);
    }
}

impl RequestLine {
    fn read(cursor: &mut Cursor<'_>, buf: &[u8]) -> Result<Self, Stop<RequestError>> {
        cursor.skip_empty_line()?;
        let method = cursor.run(is_token_byte);
        if cursor.peek()? != b' ' || method.is_empty() {
            return Err(RequestError::MalformedMethod.into());
        }
        if method.slice(buf) == b"CONNECT" {
            return Err(RequestError::Connect.into());
        }
        cursor.expect(b' ', Fault::MalformedVersion)?;
        let target = cursor.run(is_visible);
        if cursor.peek()? != b' ' {
            return Err(RequestError::MalformedTarget.into());
        }
        let authority = check_target(target, method, buf).ok_or(RequestError::MalformedTarget)?;
        cursor.expect(b' ', Fault::MalformedVersion)?;
        let version = cursor.version()?;
        cursor.line_end(Fault::MalformedVersion)?;
        Ok(Self { method, target, authority, version })
    }
}

/// After an upgrade the connection is a tunnel, in which nothing is checked or set any more. HTTP itself must not pass
/// through it: with `h2c` a client could send requests with forged X-Forwarded-* headers past the proxy.
fn is_tunnel(protocols: &[u8]) -> bool {
    list(protocols).next().is_some() && !list(protocols).any(is_http)
}

/// With or without a version, as in `HTTP/2.0`.
fn is_http(protocol: &[u8]) -> bool {
    let name = protocol.split(|&byte| byte == b'/').next().unwrap_or_default();
    name.eq_ignore_ascii_case(b"h2c") || name.eq_ignore_ascii_case(b"http")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(head: &str) -> Result<Option<RequestHead>, RequestError> {
        RequestHead::parse(head.as_bytes(), &HeadLimits::default())
    }

    fn accepted(head: &str) -> RequestHead {
        parse(head).expect("an acceptable head").expect("a complete head")
    }

    /// A GET with Host and these lines besides.
    fn with(lines: &str) -> String {
        format!("GET / HTTP/1.1\r\nHost: h\r\n{lines}\r\n")
    }

    fn rejection(head: &str) -> RequestError {
        parse(head).expect_err("the head breaks a rule")
    }

    fn fault_of(lines: &str) -> Fault {
        match rejection(&with(lines)) {
            RequestError::Fault(fault) => fault,
            other => panic!("{other}"),
        }
    }

    #[test]
    fn reads_the_request_line_and_leaves_the_body() {
        let text = "\r\nPOST /a?b HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\nhi";
        let (head, buf) = (accepted(text), text.as_bytes());
        assert_eq!((head.method(buf), head.target(buf)), (&b"POST"[..], &b"/a?b"[..]));
        assert_eq!((head.version, head.framing), (Version::Http11, Framing::Length(2)));
        assert_eq!(&text[head.len..], "hi");
        assert_eq!(head.header(buf, "content-length"), Some(&b"2"[..]));
    }

    #[test]
    fn skips_one_empty_line_and_no_second() {
        assert!(parse("\r\nGET / HTTP/1.0\r\n\r\n").is_ok());
        assert_eq!(rejection("\r\n\r\nGET / HTTP/1.0\r\n\r\n"), RequestError::MalformedMethod);
        assert_eq!(rejection("\nGET / HTTP/1.0\r\n\r\n"), Fault::BareLf.into());
    }

    #[test]
    fn refuses_malformed_request_lines() {
        for head in "(GET) / HTTP/1.1| GET / HTTP/1.1|GET\t/ HTTP/1.1|GET\0|GET\r\n".split('|') {
            assert_eq!(rejection(head), RequestError::MalformedMethod, "{head}");
        }
        for head in "GET  /|GET /\r\n|GET /\x7f|GET /\u{e9}|GET h |GET * |GET http://a@b/ ".split('|') {
            assert_eq!(rejection(head), RequestError::MalformedTarget, "{head}");
        }
        for rest in "b HTTP/1.1|http/1.1|HTTP/11|HTTP/1.1 \r\n|HTTP/1.11| HTTP/1.1".split('|') {
            assert_eq!(rejection(&format!("GET / {rest}")), Fault::MalformedVersion.into(), "{rest}");
        }
        assert_eq!(rejection("GET / HTTP/1.1\n"), Fault::BareLf.into());
        assert_eq!(rejection("GET / HTTP/1.1\rX"), Fault::BareCr.into());
    }

    #[test]
    fn refuses_other_versions() {
        for head in ["GET / HTTP/2", "GET / HTTP/0", "GET / HTTP/1.2"] {
            assert_eq!(rejection(head), Fault::UnsupportedVersion.into(), "{head}");
        }
        assert_eq!(rejection("GET / HTTP/2").status(), 505);
    }

    #[test]
    fn refuses_connect_with_405() {
        assert_eq!(rejection("CONNECT ").status(), 405);
    }

    #[test]
    fn refuses_malformed_header_lines() {
        for (lines, fault) in [
            (" a: b\r\n", Fault::FoldedLine),
            ("a: b\r\n\tc\r\n", Fault::FoldedLine),
            (": b\r\n", Fault::EmptyName),
            ("a : b\r\n", Fault::SpaceBeforeColon),
            ("a\t: b\r\n", Fault::SpaceBeforeColon),
            ("a\r\n", Fault::MissingColon),
            ("a@: b\r\n", Fault::MalformedName),
            ("a\0: b\r\n", Fault::MalformedName),
            ("a\u{e9}: b\r\n", Fault::MalformedName),
            ("a: b\n", Fault::BareLf),
            ("a: b\rc\r\n", Fault::BareCr),
            ("a: \0\r\n", Fault::ControlByte),
            ("a: b\x7f\r\n", Fault::ControlByte),
            ("a: long enough for a whole block\x01\r\n", Fault::ControlByte),
            ("\n", Fault::BareLf),
            ("\rX", Fault::BareCr),
        ] {
            assert_eq!(fault_of(lines), fault, "{lines:?}");
        }
    }

    #[test]
    fn refuses_malformed_or_repeated_content_length() {
        for value in "|+5|-5|5,5|5 5|0x5|5a|18446744073709551616|99999999999999999999999".split('|') {
            assert_eq!(fault_of(&format!("Content-Length: {value}\r\n")), Fault::MalformedContentLength, "{value}");
        }
        assert_eq!(fault_of("Content-Length: 5\r\ncontent-length: 5\r\n"), Fault::RepeatedContentLength);
        let most = accepted(&with("Content-Length: 18446744073709551615\r\n"));
        assert_eq!(most.framing, Framing::Length(u64::MAX));
    }

    #[test]
    fn refuses_every_transfer_encoding_but_chunked_alone() {
        let values = "|identity|gzip, chunked|chunked, gzip|chunked,|\"chunked\"|chunked;a|xchunked";
        for value in values.split('|') {
            assert_eq!(fault_of(&format!("Transfer-Encoding: {value}\r\n")), Fault::TransferEncoding, "{value}");
        }
        let twice = "Transfer-Encoding: chunked\r\n".repeat(2);
        assert_eq!(fault_of(&twice), Fault::TransferEncoding);
        assert_eq!(accepted(&with("Transfer-Encoding: Chunked\r\n")).framing, Framing::Chunked);
    }

    #[test]
    fn refuses_two_framings_in_either_order() {
        let (length, coding) = ("Content-Length: 1\r\n", "Transfer-Encoding: chunked\r\n");
        assert_eq!(fault_of(&[length, coding].concat()), Fault::LengthAndEncoding);
        assert_eq!(fault_of(&[coding, length].concat()), Fault::LengthAndEncoding);
    }

    #[test]
    fn refuses_transfer_encoding_in_http_1_0() {
        let head = "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n";
        assert_eq!(rejection(head), Fault::EncodingInHttp10.into());
    }

    #[test]
    fn wants_exactly_one_sound_host() {
        assert_eq!(rejection("GET / HTTP/1.1\r\n\r\n"), RequestError::MissingHost);
        assert_eq!(rejection("GET http://h/ HTTP/1.1\r\n\r\n"), RequestError::MissingHost);
        assert_eq!(rejection(&with("HOST: h\r\n")), RequestError::RepeatedHost);
        assert_eq!(rejection("GET / HTTP/1.0\r\nHost: a\r\nHost: a\r\n\r\n"), RequestError::RepeatedHost);
        assert_eq!(rejection("GET / HTTP/1.1\r\nHost: a b\r\n"), RequestError::MalformedHost);
        assert!(parse("GET / HTTP/1.0\r\n\r\n").is_ok());
    }

    #[test]
    fn names_the_same_by_https() {
        let url = |text: &str| {
            let head = RequestHead::parse(text.as_bytes(), &HeadLimits::default()).expect("valid").expect("complete");
            head.https_url(text.as_bytes())
        };
        let of = |target: &str, host: &str| url(&format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n"));
        assert_eq!(of("/a?b=c#d", "a.example:8080").as_deref(), Some("https://a.example/a?b=c#d"));
        assert_eq!(of("/", "[::1]:80").as_deref(), Some("https://[::1]/"));
        assert_eq!(of("http://b.example:81?x", "a.example").as_deref(), Some("https://b.example/?x"));
        let options = url("OPTIONS * HTTP/1.1\r\nHost: a.example\r\n\r\n");
        assert_eq!(options.as_deref(), Some("https://a.example"));
        assert_eq!(url("GET / HTTP/1.0\r\n\r\n"), None);
    }

    #[test]
    fn prefers_the_authority_of_the_target_to_host() {
        for (target, authority, host) in [("/", "A.com.:8", "A.com"), ("http://b.com:81/x", "b.com:81", "b.com")] {
            let text = format!("GET {target} HTTP/1.1\r\nHost: A.com.:8\r\n\r\n");
            let (head, buf) = (accepted(&text), text.as_bytes());
            assert_eq!(head.authority(buf), authority.as_bytes());
            assert_eq!(head.host(buf), host.as_bytes());
        }
        let text = "GET / HTTP/1.0\r\n\r\n";
        assert_eq!(accepted(text).host(text.as_bytes()), b"");
    }

    #[test]
    fn the_first_of_several_forwarded_protocols_is_the_clients() {
        let (https, http) = (Some("https"), Some("http"));
        for (value, scheme) in
            [("https", https), ("HTTPS, http", https), ("https,https", https), ("http, https", http), ("ws", None)]
        {
            let text = with(&format!("X-Forwarded-Proto: {value}\r\n"));
            assert_eq!(accepted(&text).forwarded_scheme(text.as_bytes()), scheme, "{value}");
        }
        let text = with("X-Forwarded-Proto:\r\n");
        assert_eq!(accepted(&text).forwarded_scheme(text.as_bytes()), None);
    }

    #[test]
    fn keeps_alive_by_version_and_connection() {
        assert!(accepted(&with("")).keep_alive);
        assert!(!accepted(&with("Connection: x, Close\r\n")).keep_alive);
        assert!(!accepted(&with("Connection: keep-alive\r\nConnection: close\r\n")).keep_alive);
        assert!(!accepted("GET / HTTP/1.0\r\n\r\n").keep_alive);
        assert!(accepted("GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n").keep_alive);
    }

    #[test]
    fn sees_an_upgrade_only_when_connection_names_it() {
        assert!(accepted(&with("Connection: Upgrade\r\nUpgrade: websocket\r\n")).upgrade);
        assert!(!accepted(&with("Upgrade: websocket\r\n")).upgrade);
        assert!(!accepted(&with("Connection: upgrade\r\n")).upgrade);
        assert!(!accepted(&with("Connection: upgrade\r\nUpgrade:\r\n")).upgrade);
        assert!(!accepted("GET / HTTP/1.0\r\nConnection: upgrade\r\nUpgrade: a\r\n\r\n").upgrade);
    }

    #[test]
    fn grants_http_itself_no_tunnel() {
        for protocols in "h2c|websocket, H2C|HTTP/2.0|a\r\nUpgrade: h2c|h2c\r\nUpgrade: a".split('|') {
            let lines = format!("Connection: upgrade\r\nUpgrade: {protocols}\r\n");
            assert!(!accepted(&with(&lines)).upgrade, "{protocols}");
        }
    }

    #[test]
    fn expects_100_from_http_1_1_only() {
        assert!(accepted(&with("Expect: 100-Continue\r\n")).expect_continue);
        assert!(!accepted(&with("Expect: 200-ok\r\n")).expect_continue);
        assert!(!accepted("PUT / HTTP/1.0\r\nExpect: 100-continue\r\n\r\n").expect_continue);
    }

    #[test]
    fn knows_idempotent_methods_and_head() {
        for (method, is_idempotent) in [("GET", true), ("PUT", true), ("POST", false), ("PATCH", false), ("get", false)]
        {
            let text = format!("{method} / HTTP/1.0\r\n\r\n");
            assert_eq!(accepted(&text).is_idempotent(text.as_bytes()), is_idempotent, "{method}");
        }
        let text = "HEAD / HTTP/1.0\r\n\r\n";
        assert!(accepted(text).asked(text.as_bytes()).head);
    }

    #[test]
    fn bounds_the_line_the_head_and_the_headers() {
        let limits = HeadLimits { max_head_bytes: 64, max_line_bytes: 32, max_headers: 2 };
        let parse = |text: &str| RequestHead::parse(text.as_bytes(), &limits).map(|head| head.is_some());
        let line = |len: usize| format!("GET /{} HTTP/1.0\r\n", "a".repeat(len - 16));
        assert_eq!(parse(&line(32)), Ok(false));
        assert_eq!(parse(&line(33)), Err(Fault::LineTooLong.into()));
        assert_eq!(parse(&"a".repeat(32)), Err(Fault::LineTooLong.into()));
        let head = |len: usize| format!("{}a: {}\r\n\r\n", line(32), "b".repeat(len - 39));
        assert_eq!(parse(&head(64)), Ok(true));
        assert_eq!(parse(&head(65)), Err(Fault::HeadTooLarge.into()));
        assert_eq!(parse("GET / HTTP/1.0\r\na:b\r\na:b\r\n\r\n"), Ok(true));
        assert_eq!(parse("GET / HTTP/1.0\r\na:b\r\na:b\r\nc"), Err(Fault::TooManyHeaders.into()));
        assert_eq!(RequestError::from(Fault::TooManyHeaders).status(), 431);
        assert_eq!(RequestError::from(Fault::HeadTooLarge).status(), 431);
        assert_eq!(RequestError::from(Fault::LineTooLong).status(), 414);
    }

    #[test]
    fn bounds_connection_options() {
        assert!(parse(&with(&format!("Connection: {}\r\n", "a,".repeat(32)))).is_ok());
        assert_eq!(fault_of(&"Connection: a\r\n".repeat(33)), Fault::TooManyConnectionOptions);
    }

    #[test]
    fn joins_all_forwarded_for_values() {
        let text = with("X-Forwarded-For: a, b\r\nX_Forwarded_For: evil\r\nx-forwarded-for:\r\nx-forwarded-for: c\r\n");
        let mut out = Vec::new();
        accepted(&text).write_forwarded_for(text.as_bytes(), &mut out);
        assert_eq!(out, b"a, b, c");
    }
}
