//! Request targets and authorities: the accepted forms, and the host in them.

use super::syntax::Span;
use std::net::Ipv6Addr;

/// Accepts origin-form, absolute-form, and `*` for OPTIONS (RFC 9112 section 3.2); `Some(Some(..))` is the authority of
/// an absolute-form, `None` a malformed target.
pub(super) fn check_target(target: Span, method: Span, buf: &[u8]) -> Option<Option<Span>> {
    let bytes = target.slice(buf);
    if bytes.starts_with(b"/") || (bytes == b"*" && method.slice(buf) == b"OPTIONS") {
        return Some(None);
    }
    let has_scheme = |scheme: &&[u8]| bytes.get(..scheme.len()).is_some_and(|start| start.eq_ignore_ascii_case(scheme));
    let schemes: [&[u8]; 2] = [b"http://", b"https://"];
    let start = target.start + schemes.into_iter().find(has_scheme)?.len();
    let after = Span { start, end: target.end }.slice(buf);
    let len = after.iter().position(|byte| matches!(byte, b'/' | b'?' | b'#')).unwrap_or(after.len());
    let authority = Span { start, end: start + len };
    check_authority(authority.slice(buf))?;
    Some(Some(authority))
}

/// Accepts `uri-host [":" port]` with a host that isn't empty (RFC 3986 section 3.2.2), and no userinfo.
pub(super) fn check_authority(authority: &[u8]) -> Option<()> {
    let (host, port) = split_port(authority);
    let port_fits = port.is_empty() || (port.iter().all(u8::is_ascii_digit) && number(port).is_some());
    let is_valid = match host.strip_prefix(b"[") {
        Some(literal) => is_ipv6(literal.strip_suffix(b"]")?),
        None => host.iter().any(|&byte| byte != b'.') && is_registered_name(host),
    };
    (port_fits && is_valid).then_some(())
}

/// The host of a checked authority: no port, no trailing dot.
pub(super) fn host_of(authority: &[u8]) -> &[u8] {
    let (mut host, _) = split_port(authority);
    while let Some(shorter) = host.strip_suffix(b".") {
        host = shorter;
    }
    host
}

fn number(port: &[u8]) -> Option<u16> {
    std::str::from_utf8(port).ok()?.parse().ok()
}

fn is_ipv6(literal: &[u8]) -> bool {
    std::str::from_utf8(literal).is_ok_and(|text| text.parse::<Ipv6Addr>().is_ok())
}

fn is_registered_name(host: &[u8]) -> bool {
    let mut rest = host;
    while let Some((&byte, tail)) = rest.split_first() {
        rest = match byte {
            b'%' if tail.len() >= 2 && tail[..2].iter().all(u8::is_ascii_hexdigit) => &tail[2..],
            b'-' | b'.' | b'_' | b'~' | b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b',' | b';' | b'=' => {
                tail
            }
            _ if byte.is_ascii_alphanumeric() => tail,
            _ => return false,
        };
    }
    true
}

/// Splits at the colon before a port, not at those within an IPv6 literal.
fn split_port(authority: &[u8]) -> (&[u8], &[u8]) {
    match authority.iter().rposition(|byte| matches!(byte, b':' | b']')) {
        Some(at) if authority[at] == b':' => (&authority[..at], &authority[at + 1..]),
        _ => (authority, b""),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn authority(method: &str, target: &str) -> Option<Option<String>> {
        let text = [method, target].concat();
        let (method, target) = text.split_at(method.len());
        let method = Span { start: 0, end: method.len() };
        let target = Span { start: method.end, end: method.end + target.len() };
        let found = check_target(target, method, text.as_bytes())?;
        Some(found.map(|span| span.slice(text.as_bytes()).escape_ascii().to_string()))
    }

    #[test]
    fn takes_origin_and_absolute_form() {
        assert_eq!(authority("GET", "/a?b"), Some(None));
        assert_eq!(authority("GET", "//a"), Some(None));
        assert_eq!(authority("GET", "http://a:8/b"), Some(Some("a:8".to_owned())));
        assert_eq!(authority("GET", "HTTPS://a?b/"), Some(Some("a".to_owned())));
        assert_eq!(authority("GET", "http://a#b"), Some(Some("a".to_owned())));
    }

    #[test]
    fn takes_the_asterisk_for_options_only() {
        assert_eq!(authority("OPTIONS", "*"), Some(None));
        assert_eq!(authority("GET", "*"), None);
        assert_eq!(authority("OPTIONS", "*a"), None);
    }

    #[test]
    fn refuses_other_forms_and_malformed_authorities() {
        let targets = "|a|a:80|?a|http:/a|ftp://a/|http://|http:///a|http://a@b/|http://a:b/|http://a\\b/";
        for target in targets.split('|') {
            assert_eq!(authority("GET", target), None, "{target}");
        }
    }

    #[test]
    fn takes_registered_names_and_addresses() {
        for host in "a|A-b_c.d~|127.0.0.1|a%2Fb|a=b|a.|a:|a:0|a:65535|[::1]|[::1]:80".split('|') {
            assert!(check_authority(host.as_bytes()).is_some(), "{host}");
        }
    }

    #[test]
    fn refuses_malformed_hosts() {
        let hosts = "|.|:80|a b|a/b|a@b|a:x|a:65536|a:+1|a:1:2|[::1|[x]|[::1]x|::1|a%2|a%zz|\u{e9}|a\"b";
        for host in hosts.split('|') {
            assert!(check_authority(host.as_bytes()).is_none(), "{host}");
        }
    }

    #[test]
    fn the_host_is_without_port_and_dot() {
        for (authority, host) in
            [("a", "a"), ("a.:80", "a"), ("a:", "a"), ("a..", "a"), ("[::1]:80", "[::1]"), ("[::1]", "[::1]")]
        {
            assert_eq!(host_of(authority.as_bytes()), host.as_bytes());
        }
    }
}
