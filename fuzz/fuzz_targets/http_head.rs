//! Heads of requests and responses: one verdict wherever the input is cut, and nothing ambiguous is passed on.
#![no_main]

use lb_fuzz::http1::{
    ClientSide, Framing, HeadLimits, HeaderEdit, RequestFacts, RequestHead, ResponseHead, TlsVariables, Variables,
    Version, write_request_head, write_response_head,
};
use libfuzzer_sys::fuzz_target;

const LIMITS: HeadLimits = HeadLimits { max_head_bytes: 16 << 10, max_line_bytes: 8 << 10, max_headers: 100 };
/// What is written may be longer than what was read: by the headers that are set.
const LIMITS_OF_NEXT_HOP: HeadLimits =
    HeadLimits { max_head_bytes: 64 << 10, max_line_bytes: 9 << 10, max_headers: 120 };
const SET: [(&str, &str); 5] = [
    ("Host", "$host"),
    ("X-Real-IP", "$remote_addr"),
    ("X-Forwarded-For", "$proxy_add_x_forwarded_for"),
    ("X-Forwarded-Proto", "$scheme"),
    ("X-Request-ID", "$request_id"),
];

fuzz_target!(|data: &[u8]| {
    request(data);
    for head in [false, true] {
        for upgrade in [false, true] {
            response(data, RequestFacts { head, upgrade });
        }
    }
});

fn request(data: &[u8]) {
    let verdict = lb_fuzz::check_prefixes(data, |bytes| RequestHead::parse(bytes, &LIMITS));
    let Ok(Some(head)) = verdict else { return };
    assert_eq!(RequestHead::parse(&data[..head.len - 1], &LIMITS), Ok(None), "complete at its last byte, not before");
    let skipped = if data.starts_with(b"\r\n") { 2 } else { 0 };
    let lines = lines(&data[skipped..head.len]);
    let version = lines[0].strip_suffix(b" HTTP/1.1").map_or(Version::Http10, |_| Version::Http11);
    assert_eq!(head.version, version);
    assert_eq!(head.framing, framing(&lines, Framing::None));
    assert!(version == Version::Http11 || head.framing != Framing::Chunked);
    let hosts = values(&lines, "host").len();
    assert!(hosts == 1 || hosts == 0 && version == Version::Http10);
    // Nothing in it can end the line of a redirect.
    assert!(head.https_url(data).is_none_or(|url| url.bytes().all(|byte| byte.is_ascii_graphic())));
    let edits: Vec<HeaderEdit> =
        SET.iter().map(|(name, value)| HeaderEdit::parse(name, value).expect("a valid edit")).collect();
    let mut forwarded_for = Vec::new();
    head.write_forwarded_for(data, &mut forwarded_for);
    let variables = Variables {
        host: head.host(data),
        http_host: head.authority(data),
        fields: head.fields(data),
        remote_addr: "192.0.2.7",
        remote_port: 4711,
        forwarded_for: &forwarded_for,
        scheme: "http",
        request_id: head.header(data, "x-request-id").filter(|id| !id.is_empty()).unwrap_or(b"made-up"),
        server_addr: "198.51.100.9",
        server_port: 80,
        tls: TlsVariables::default(),
    };
    let mut out = Vec::new();
    let version = write_request_head(&mut out, data, &head, &edits, false, &variables);
    assert_eq!(version, if head.host(data).is_empty() { Version::Http10 } else { Version::Http11 });
    written_request(&out, version, &head, data);
}

/// What the backend gets says the same to it as the client's request said to us.
fn written_request(out: &[u8], version: Version, head: &RequestHead, data: &[u8]) {
    let again = RequestHead::parse(out, &LIMITS_OF_NEXT_HOP);
    let again = again.expect("an acceptable head").expect("a complete head");
    assert_eq!(again.len, out.len());
    assert_eq!((again.version, again.framing, again.upgrade), (version, head.framing, head.upgrade));
    assert_eq!(again.method(out), head.method(data));
    assert_eq!(again.expect_continue, head.expect_continue);
    let lines = lines(out);
    for (name, _) in SET {
        let times = usize::from(name != "Host" || version == Version::Http11);
        assert_eq!(values(&lines, name).len(), times, "{name} stands once");
    }
    assert_eq!(values(&lines, "x-real-ip"), [b"192.0.2.7"]);
    assert_eq!(values(&lines, "x-forwarded-proto"), [b"http"]);
    assert!(values(&lines, "x-forwarded-for")[0].ends_with(b"192.0.2.7"));
    for name in ["keep-alive", "proxy-connection", "trailer"] {
        assert!(values(&lines, name).is_empty(), "{name} is meant for one hop");
    }
    let takes_trailers = match values(&lines, "te")[..] {
        [] => false,
        [te] => te == b"trailers",
        _ => panic!("TE stands twice"),
    };
    let connection: &[&[u8]] = match (head.upgrade, takes_trailers) {
        (false, false) => &[],
        (true, false) => &[b"upgrade"],
        (false, true) => &[b"TE"],
        (true, true) => &[b"upgrade, TE"],
    };
    assert_eq!(values(&lines, "connection"), connection);
}

fn response(data: &[u8], asked: RequestFacts) {
    let verdict = lb_fuzz::check_prefixes(data, |bytes| ResponseHead::parse(bytes, asked, &LIMITS));
    let Ok(Some(head)) = verdict else { return };
    assert_eq!(ResponseHead::parse(&data[..head.len - 1], asked, &LIMITS), Ok(None));
    let has_body = !asked.head && head.status >= 200 && head.status != 204 && head.status != 304;
    assert!(head.status != 101 || asked.upgrade);
    for version in [Version::Http10, Version::Http11] {
        if version == Version::Http10 && head.is_interim() {
            continue;
        }
        let mut out = Vec::new();
        write_response_head(&mut out, data, &head, ClientSide { version, close: data.len() % 2 == 0 });
        let again = ResponseHead::parse(&out, asked, &LIMITS_OF_NEXT_HOP);
        let again = again.expect("an acceptable head").expect("a complete head");
        assert_eq!((again.len, again.status), (out.len(), head.status));
        // Whatever the backend's looks like, the client's is as it should be.
        let stated = framing(&lines(&out), Framing::UntilClose);
        assert!(!has_body || again.framing == stated);
        let framing = if head.must_dechunk(version) { Framing::UntilClose } else { head.framing };
        assert_eq!(again.framing, framing);
        assert!(!again.keep_alive || framing != Framing::UntilClose);
    }
}

/// The lines of an accepted head, by the plainest reading there is.
fn lines(head: &[u8]) -> Vec<&[u8]> {
    let section = head.strip_suffix(b"\r\n\r\n").expect("an empty line ends it");
    let mut lines = Vec::new();
    for line in section.split(|byte| *byte == b'\n') {
        let line = if lines.len() == section.iter().filter(|byte| **byte == b'\n').count() {
            line
        } else {
            line.strip_suffix(b"\r").expect("CRLF alone ends a line")
        };
        assert!(!line.contains(&b'\r') && !line.contains(&0));
        lines.push(line);
    }
    for field in &lines[1..] {
        let colon = field.iter().position(|byte| *byte == b':').expect("each field has a colon");
        let is_sound = |byte: &u8| byte.is_ascii_graphic() && !b"\"(),/:;<=>?@[\\]{}".contains(byte);
        assert!(colon > 0 && field[..colon].iter().all(is_sound), "a name is a token");
    }
    lines
}

/// The values under a name: in any case, and with any mark for `-`, as a CGI-like backend reads it.
fn values<'a>(lines: &[&'a [u8]], name: &str) -> Vec<&'a [u8]> {
    let fold = |byte: &u8| if byte.is_ascii_alphanumeric() { byte.to_ascii_lowercase() } else { b'-' };
    let fields = lines[1..].iter().map(|line| {
        let colon = line.iter().position(|byte| *byte == b':').expect("each field has a colon");
        (&line[..colon], line[colon + 1..].trim_ascii())
    });
    let same = |other: &[u8]| other.iter().map(fold).eq(name.bytes().map(|byte| fold(&byte)));
    fields.filter(|(other, _)| same(other)).map(|(_, value)| value).collect()
}

fn framing(lines: &[&[u8]], unstated: Framing) -> Framing {
    let exact = |name: &str| -> Vec<&[u8]> {
        let fields = lines[1..].iter().filter(|line| {
            line.len() > name.len()
                && line[name.len()] == b':'
                && line[..name.len()].eq_ignore_ascii_case(name.as_bytes())
        });
        fields.map(|line| line[name.len() + 1..].trim_ascii()).collect()
    };
    let (lengths, codings) = (exact("content-length"), exact("transfer-encoding"));
    assert!(lengths.len() <= 1 && (lengths.is_empty() || codings.is_empty()), "one framing, stated once");
    let is_chunked = |coding: &[u8]| coding.trim_ascii().eq_ignore_ascii_case(b"chunked");
    if let [coding] = codings[..]
        && is_chunked(coding)
    {
        return Framing::Chunked;
    }
    // Several fields are one list; where `chunked` is not its last coding, a response ends with the connection.
    let last = codings.last().and_then(|list| list.rsplit(|byte| *byte == b',').next());
    assert!(!last.is_some_and(is_chunked), "`chunked` after other codings");
    match lengths.first() {
        Some(digits) => {
            let text = std::str::from_utf8(digits).expect("digits");
            assert!(!text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()));
            match text.parse().expect("it fits") {
                0 if unstated == Framing::None => Framing::Length(0),
                length => Framing::Length(length),
            }
        }
        None => unstated,
    }
}
