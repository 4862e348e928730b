//! Writes heads for the next hop: an accepted request for the backend, an accepted response for the client.
//! Fields for one hop only are dropped (RFC 9110 section 7.6.1), configured ones are set, all others pass unchanged and
//! in their order. It refuses nothing: that is done when a head is read.

use super::fields::{Known, is_alias_of_known, is_same_name, known};
use super::response::has_no_body;
use super::syntax::{is_text, is_token, list, run_len};
use super::{InvalidTemplate, RequestHead, ResponseHead, Template, Variable, Variables, Version};
use std::fmt;

/// A header that is set on each request: all incoming copies are removed, in whatever spelling, and one is added. With
/// an empty value the header is only removed, as in nginx; but a Host without a value stays the client's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeaderEdit {
    name: String,
    value: Template,
}

/// Why a header can't be set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum InvalidEdit {
    /// Not a token.
    Name,
    /// Framing and hop-by-hop fields belong to the proxy: setting one would break the connection.
    Reserved,
    Value(InvalidTemplate),
}

impl HeaderEdit {
    /// Compiles one entry of the configuration.
    ///
    /// # Errors
    /// The name is no token or is reserved, or the value is not a valid template.
    pub fn parse(name: &str, value: &str) -> Result<Self, InvalidEdit> {
        if !is_token(name) {
            return Err(InvalidEdit::Name);
        }
        let bytes = name.as_bytes();
        if !matches!(known(bytes), None | Some(Known::Host)) || is_alias_of_known(bytes) {
            return Err(InvalidEdit::Reserved);
        }
        let value = Template::parse(value).map_err(InvalidEdit::Value)?;
        Ok(Self { name: name.to_owned(), value })
    }

    /// As the configuration spells it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether the header's value depends on `variable`.
    pub fn uses(&self, variable: &Variable) -> bool {
        self.value.uses(variable)
    }

    pub(super) fn sets(&self, name: &[u8]) -> bool {
        is_same_name(self.name.as_bytes(), name)
    }

    fn write(&self, variables: &Variables<'_>, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(self.name.as_bytes());
        out.extend_from_slice(b": ");
        let value_start = out.len();
        self.value.render(variables, out);
        if out.len() == value_start {
            out.truncate(start);
        } else {
            out.extend_from_slice(b"\r\n");
        }
    }
}

/// Appends the head for the backend, with an origin-form target. Host comes first (RFC 9110 section 7.2), the other set
/// headers last: where a backend takes a line of the client's for a copy of one, the last counts. Returns the version
/// that it has.
pub fn write_request_head(
    out: &mut Vec<u8>,
    buf: &[u8],
    head: &RequestHead,
    edits: &[HeaderEdit],
    passes_trailers: bool,
    variables: &Variables<'_>,
) -> Version {
    let version = write_request_line(out, buf, head, edits, variables);
    let mut takes_trailers = false;
    for field in head.fields(buf) {
        let passes = match known(field.name) {
            Some(Known::ContentLength | Known::TransferEncoding) => true,
            // An HTTP/1.0 client doesn't understand the 100 that would come (RFC 9110 section 10.1.1).
            Some(Known::Expect) => head.version == Version::Http11,
            Some(Known::Upgrade) => head.upgrade,
            Some(Known::Trailer) => passes_trailers,
            Some(Known::Te) => {
                takes_trailers |= list(field.value).any(|coding| coding.eq_ignore_ascii_case(b"trailers"));
                false
            }
            Some(_) => false,
            None => !head.facts.is_named_by_connection(buf, field.name) && !is_alias_of_known(field.name),
        };
        if passes && !edits.iter().any(|edit| edit.sets(field.name)) {
            out.extend_from_slice(field.line);
            out.extend_from_slice(b"\r\n");
        }
    }
    // The trailers of a response are passed on, but a client of HTTP/1.0 can't get any (RFC 9110 section 10.1.4).
    let te = takes_trailers && head.version == Version::Http11;
    if te {
        write_field(out, b"TE", b"trailers");
    }
    match (head.upgrade, te) {
        (true, true) => write_field(out, b"Connection", b"upgrade, TE"),
        (true, false) => write_field(out, b"Connection", b"upgrade"),
        (false, true) => write_field(out, b"Connection", b"TE"),
        (false, false) => {}
    }
    for edit in edits.iter().filter(|edit| !edit.sets(b"host")) {
        edit.write(variables, out);
    }
    out.extend_from_slice(b"\r\n");
    version
}

/// HTTP/1.1 whatever the client speaks; but a request of HTTP/1.0 that has no Host, and is given none, passes as what
/// it is: HTTP/1.1 requires one (RFC 9112 section 3.2), and backends refuse an empty one.
fn write_request_line(
    out: &mut Vec<u8>,
    buf: &[u8],
    head: &RequestHead,
    edits: &[HeaderEdit],
    variables: &Variables<'_>,
) -> Version {
    out.extend_from_slice(head.method(buf));
    let (needs_slash, target) = head.origin_form(buf);
    out.extend_from_slice(if needs_slash { b" /" } else { b" " });
    out.extend_from_slice(target);
    let version_start = out.len();
    out.extend_from_slice(b" HTTP/1.1\r\nHost: ");
    let host_start = out.len();
    if let Some(edit) = edits.iter().find(|edit| edit.sets(b"host")) {
        edit.value.render(variables, out);
    }
    if out.len() == host_start {
        out.extend_from_slice(head.authority(buf));
    }
    if out.len() > host_start {
        out.extend_from_slice(b"\r\n");
        return Version::Http11;
    }
    out.truncate(version_start);
    out.extend_from_slice(b" HTTP/1.0\r\n");
    Version::Http10
}

/// The client's side of a response.
#[derive(Clone, Copy, Debug)]
pub struct ClientSide {
    pub version: Version,
    /// The connection is closed after this response, also where `ResponseHead::ends_by_close` doesn't require it.
    pub close: bool,
}

/// Appends the head for the client. An interim response must not be sent to an HTTP/1.0 client at all (RFC 9110 section
/// 15.2).
pub fn write_response_head(out: &mut Vec<u8>, buf: &[u8], head: &ResponseHead, client: ClientSide) {
    // A 426 must have the protocol that the server wants (RFC 9110 section 15.5.22).
    let keeps_upgrade = head.is_upgrade() || head.status == 426;
    let has_framing = head.status == 304 || !has_no_body(head.status);
    out.extend_from_slice(b"HTTP/1.1 ");
    let status_text = head.status_text.slice(buf);
    write_text(out, status_text);
    out.extend_from_slice(if status_text.len() == b"200".len() { b" \r\n" } else { b"\r\n" });
    let mut has_length = false;
    for field in head.fields(buf) {
        let passes = match known(field.name) {
            // A second one says the same.
            Some(Known::ContentLength) => has_framing && !std::mem::replace(&mut has_length, true),
            Some(Known::Trailer) => client.version == Version::Http11,
            Some(Known::TransferEncoding) => has_framing && client.version == Version::Http11,
            Some(Known::Upgrade) => keeps_upgrade,
            Some(Known::Connection | Known::KeepAlive | Known::ProxyConnection | Known::Te) => false,
            Some(Known::Host | Known::Expect) => true,
            None => !head.facts.is_named_by_connection(buf, field.name),
        };
        if passes {
            write_text(out, field.line);
            out.extend_from_slice(b"\r\n");
        }
    }
    let connection = connection_options(head, client, keeps_upgrade);
    if !connection.is_empty() {
        write_field(out, b"Connection", connection);
    }
    out.extend_from_slice(b"\r\n");
}

/// Persistence is stated only if it isn't the default of the client's version, and never in an interim response.
fn connection_options(head: &ResponseHead, client: ClientSide, keeps_upgrade: bool) -> &'static [u8] {
    let closes = client.close || head.ends_by_close(client.version);
    match client.version {
        _ if head.is_interim() => b"",
        _ if head.is_upgrade() => b"upgrade",
        _ if keeps_upgrade && closes => b"upgrade, close",
        _ if closes => b"close",
        _ if keeps_upgrade => b"upgrade",
        Version::Http10 => b"keep-alive",
        Version::Http11 => b"",
    }
}

/// A control byte that a backend has let through becomes a space (RFC 9110 section 5.5).
fn write_text(out: &mut Vec<u8>, text: &[u8]) {
    if run_len(text, is_text) == text.len() {
        out.extend_from_slice(text);
    } else {
        out.extend(text.iter().map(|&byte| if is_text(byte) { byte } else { b' ' }));
    }
}

fn write_field(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    for piece in [name, b": ", value, b"\r\n"] {
        out.extend_from_slice(piece);
    }
}

impl fmt::Display for InvalidEdit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name => f.write_str("not a header name"),
            Self::Reserved => f.write_str("a header that only the proxy may set"),
            Self::Value(invalid) => invalid.fmt(f),
        }
    }
}

impl std::error::Error for InvalidEdit {}

#[cfg(test)]
mod tests {
    use super::super::{HeadLimits, RequestFacts};
    use super::*;

    fn edits(pairs: &[(&str, &str)]) -> Vec<HeaderEdit> {
        pairs.iter().map(|(name, value)| HeaderEdit::parse(name, value).expect("a valid edit")).collect()
    }

    fn request(text: &str, pairs: &[(&str, &str)]) -> String {
        let head = RequestHead::parse(text.as_bytes(), &HeadLimits::default());
        let head = head.expect("an acceptable head").expect("a complete head");
        let mut out = Vec::new();
        let variables = Variables {
            host: head.host(text.as_bytes()),
            http_host: head.authority(text.as_bytes()),
            fields: head.fields(text.as_bytes()),
            remote_addr: "192.0.2.7",
            scheme: "http",
            ..Variables::default()
        };
        write_request_head(&mut out, text.as_bytes(), &head, &edits(pairs), false, &variables);
        String::from_utf8(out).expect("ASCII")
    }

    /// These lines after a rewrite that sets nothing.
    fn lines(lines: &str) -> String {
        let out = request(&format!("GET / HTTP/1.1\r\nHost: h\r\n{lines}\r\n"), &[]);
        let rest = out.strip_prefix("GET / HTTP/1.1\r\nHost: h\r\n").expect("line and Host first");
        rest.strip_suffix("\r\n").expect("an empty line last").to_owned()
    }

    fn response(text: &str, version: Version, close: bool) -> String {
        let asked = RequestFacts { head: false, upgrade: true };
        let head = ResponseHead::parse(text.as_bytes(), asked, &HeadLimits::default());
        let head = head.expect("an acceptable head").expect("a complete head");
        let mut out = Vec::new();
        write_response_head(&mut out, text.as_bytes(), &head, ClientSide { version, close });
        String::from_utf8(out).expect("ASCII")
    }

    #[test]
    fn sets_headers_last_and_removes_every_incoming_copy() {
        let text = "GET /a HTTP/1.1\r\nx-real-ip: 6.6.6.6\r\nHost: Example.com:80\r\nAccept: */*\r\n\
                    X_Real_IP: 6.6.6.6\r\nX-REAL_ip: 6\r\nX.Real~IP: 6\r\nX-Real-IPs: 6\r\n\r\n";
        assert_eq!(
            request(text, &[("Host", "$host"), ("X-Real-IP", "$remote_addr")]),
            "GET /a HTTP/1.1\r\nHost: example.com\r\nAccept: */*\r\nX-Real-IPs: 6\r\nX-Real-IP: 192.0.2.7\r\n\r\n"
        );
    }

    #[test]
    fn a_value_may_repeat_what_the_client_sent() {
        let text = "GET / HTTP/1.1\r\nHost: A:80\r\nX-Real-IP: 1\r\nX_Real_IP: 6\r\nx-real-ip: 2\r\n\r\n";
        let edits = [("Host", "$http_host"), ("X-Real-IP", "$http_x_real_ip"), ("X-No", "$http_no")];
        assert_eq!(request(text, &edits), "GET / HTTP/1.1\r\nHost: A:80\r\nX-Real-IP: 1, 2\r\n\r\n");
    }

    #[test]
    fn connection_cannot_name_a_set_header_away() {
        let text = "GET / HTTP/1.1\r\nHost: h\r\nConnection: X-Real-IP, Host\r\nX-Real-IP: 6.6.6.6\r\n\r\n";
        assert_eq!(
            request(text, &[("X-Real-IP", "$remote_addr")]),
            "GET / HTTP/1.1\r\nHost: h\r\nX-Real-IP: 192.0.2.7\r\n\r\n"
        );
    }

    #[test]
    fn connection_cannot_name_framing_away() {
        assert_eq!(lines("Connection: content-length\r\nContent-Length: 1\r\n"), "Content-Length: 1\r\n");
        let chunked = "Transfer-Encoding: chunked\r\n";
        assert_eq!(lines(&format!("Connection: transfer-encoding\r\n{chunked}")), chunked);
    }

    #[test]
    fn strips_hop_by_hop_fields_and_keeps_the_rest() {
        let hop = "Connection: a, close\r\nA: 1\r\nKeep-Alive: 5\r\nProxy-Connection: x\r\nTE: gzip\r\n\
                   Upgrade: b\r\nconnection: C\r\nc: 1\r\n";
        assert_eq!(lines(hop), "");
        let end = "B:  2 \r\nExpect: 100-continue\r\nCookie: a=b\r\n";
        assert_eq!(lines(end), end);
    }

    #[test]
    fn strips_known_names_in_other_spellings() {
        let aliases = "Content_Length: 5\r\ntransfer_encoding: chunked\r\nTransfer.Encoding: chunked\r\n";
        assert_eq!(lines(&format!("{aliases}My_Own: 1\r\n")), "My_Own: 1\r\n");
    }

    #[test]
    fn says_that_trailers_are_taken_as_the_client_does() {
        let taken = "TE: trailers\r\nConnection: TE\r\n";
        assert_eq!(lines("TE: gzip;q=0.5, Trailers\r\nConnection: TE\r\n"), taken);
        let upgrade = "Upgrade: a\r\nTE: trailers\r\nConnection: upgrade, TE\r\n";
        assert_eq!(lines("Upgrade: a\r\nConnection: upgrade, te\r\nTE: trailers\r\n"), upgrade);
        let text = "GET / HTTP/1.0\r\nHost: h\r\nTE: trailers\r\n\r\n";
        assert_eq!(request(text, &[]), "GET / HTTP/1.1\r\nHost: h\r\n\r\n");
    }

    #[test]
    fn announces_no_trailers_that_it_leaves_out() {
        assert_eq!(lines("Trailer: Digest\r\n"), "");
        let text = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: Digest\r\n\r\n";
        assert_eq!(response(text, Version::Http11, false), text);
        assert!(!response(text, Version::Http10, false).contains("Trailer"));
    }

    #[test]
    fn passes_on_a_real_upgrade() {
        let upgrade = "Upgrade: websocket\r\nConnection: upgrade\r\n";
        assert_eq!(lines("Connection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n"), upgrade);
        assert_eq!(lines("Connection: upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: a\r\n"), "");
    }

    #[test]
    fn sends_an_absolute_form_in_origin_form_and_its_authority_as_host() {
        for (line, expected) in [
            ("GET http://a:81/x?y", "GET /x?y"),
            ("GET http://a:81", "GET /"),
            ("GET http://a:81?y", "GET /?y"),
            ("OPTIONS http://a:81", "OPTIONS *"),
            ("OPTIONS http://a:81?y", "OPTIONS /?y"),
        ] {
            let out = request(&format!("{line} HTTP/1.1\r\nHost: other\r\n\r\n"), &[]);
            assert_eq!(out, format!("{expected} HTTP/1.1\r\nHost: a:81\r\n\r\n"));
        }
    }

    #[test]
    fn lifts_http_1_0_to_1_1_where_there_is_a_host() {
        let text = "PUT / HTTP/1.0\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\n";
        assert_eq!(request(text, &[]), "PUT / HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\n\r\n");
        let text = "PUT / HTTP/1.0\r\nContent-Length: 1\r\n\r\n";
        assert_eq!(request(text, &[("Host", "$host")]), text);
        assert_eq!(request(text, &[("Host", "a")]), "PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\n");
    }

    #[test]
    fn removes_a_header_whose_value_renders_to_nothing() {
        let text = "GET / HTTP/1.1\r\nHost: h:1\r\nCookie: a\r\n\r\n";
        assert_eq!(request(text, &[("Host", ""), ("Cookie", "")]), "GET / HTTP/1.1\r\nHost: h:1\r\n\r\n");
    }

    #[test]
    fn sets_no_header_that_the_proxy_governs() {
        for name in ["Content-Length", "transfer_encoding", "Connection", "TE", "Upgrade", "Keep-Alive", "trailer"] {
            assert_eq!(HeaderEdit::parse(name, "x"), Err(InvalidEdit::Reserved), "{name}");
        }
        assert_eq!(HeaderEdit::parse("a b", "x"), Err(InvalidEdit::Name));
        assert_eq!(HeaderEdit::parse("", "x"), Err(InvalidEdit::Name));
        assert_eq!(HeaderEdit::parse("a", "\n"), Err(InvalidEdit::Value(InvalidTemplate::ControlCharacter)));
    }

    #[test]
    fn strips_hop_by_hop_fields_from_a_response() {
        let text = "HTTP/1.1 200 OK\r\nConnection: a\r\nA: 1\r\nKeep-Alive: 5\r\nUpgrade: b\r\nB: 2\r\n\
                    Content-Length: 0\r\n\r\n";
        assert_eq!(response(text, Version::Http11, false), "HTTP/1.1 200 OK\r\nB: 2\r\nContent-Length: 0\r\n\r\n");
    }

    #[test]
    fn writes_a_sloppy_response_as_it_should_be() {
        let text = "HTTP/1.1  200 O\x01K\nContent-Length: 3\r\nA: b\x7fc\t\nContent-Length: 3\n\n";
        let expected = "HTTP/1.1 200 O K\r\nContent-Length: 3\r\nA: b c\t\r\n\r\n";
        assert_eq!(response(text, Version::Http11, false), expected);
    }

    #[test]
    fn states_persistence_in_the_clients_terms() {
        let text = "HTTP/1.0 200\r\nContent-Length: 0\r\n\r\n";
        for (version, close, expected) in [
            (Version::Http11, false, ""),
            (Version::Http11, true, "Connection: close\r\n"),
            (Version::Http10, false, "Connection: keep-alive\r\n"),
            (Version::Http10, true, "Connection: close\r\n"),
        ] {
            let out = response(text, version, close);
            assert_eq!(out, format!("HTTP/1.1 200 \r\nContent-Length: 0\r\n{expected}\r\n"));
        }
    }

    #[test]
    fn closes_after_a_body_that_nothing_frames() {
        let text = "HTTP/1.1 200 OK\r\n\r\n";
        assert_eq!(response(text, Version::Http11, false), "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n");
    }

    #[test]
    fn an_interim_response_states_no_persistence() {
        let text = "HTTP/1.1 100 Continue\r\n\r\n";
        assert_eq!(response(text, Version::Http11, true), text);
    }

    #[test]
    fn shows_no_chunks_to_an_http_1_0_client() {
        let text = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
        assert_eq!(response(text, Version::Http11, false), text);
        assert_eq!(response(text, Version::Http10, false), "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n");
    }

    #[test]
    fn strips_framing_where_no_body_may_be() {
        for status in [103, 204] {
            let head = format!("HTTP/1.1 {status} X\r\n");
            for framing in ["Content-Length: 5\r\n", "Transfer-Encoding: chunked\r\n"] {
                let out = response(&format!("{head}{framing}\r\n"), Version::Http11, false);
                assert_eq!(out, format!("{head}\r\n"));
            }
        }
        let text = "HTTP/1.1 304 X\r\nContent-Length: 5\r\n\r\n";
        assert_eq!(response(text, Version::Http11, false), text);
    }

    #[test]
    fn keeps_upgrade_where_it_has_a_meaning() {
        for (status, close, connection) in
            [(101, false, "upgrade"), (101, true, "upgrade"), (426, false, "upgrade"), (426, true, "upgrade, close")]
        {
            let head = format!("HTTP/1.1 {status} X\r\nUpgrade: a\r\n");
            let framing = if status == 426 { "Content-Length: 0\r\n" } else { "" };
            let out = response(&format!("{head}Connection: Upgrade\r\n{framing}\r\n"), Version::Http11, close);
            assert_eq!(out, format!("{head}{framing}Connection: {connection}\r\n\r\n"));
        }
    }
}
