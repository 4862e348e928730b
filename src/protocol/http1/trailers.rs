//! Which trailers of a chunked body are passed on. A receiver may merge them into the head (RFC 9110 section 6.5.1),
//! after everything was decided by the head: so none may say what only a head can.

use super::fields::{is_same_name, resembles_known};
use super::forward::HeaderEdit;

/// Fields of requests with a meaning in routing, authentication, caching or the reading of the body, beside the known
/// ones (RFC 9110 section 6.5.1), and those by which proxies name the client.
const HEAD_ONLY: [&[u8]; 29] = [
    b"age",
    b"authorization",
    b"cache-control",
    b"content-encoding",
    b"content-language",
    b"content-location",
    b"content-range",
    b"content-type",
    b"cookie",
    b"date",
    b"expires",
    b"forwarded",
    b"if-match",
    b"if-modified-since",
    b"if-none-match",
    b"if-range",
    b"if-unmodified-since",
    b"location",
    b"max-forwards",
    b"origin",
    b"pragma",
    b"proxy-authorization",
    b"range",
    b"referer",
    b"set-cookie",
    b"vary",
    b"via",
    b"x-real-ip",
    b"x-request-id",
];

/// By which rule trailers are let through. What frames the message or is for one connection never is.
#[derive(Clone, Copy, Debug)]
pub enum TrailerFilter<'r> {
    /// Not what belongs in a request's head, nor what these set there.
    OfRequest(&'r [HeaderEdit]),
    OfResponse,
}

impl TrailerFilter<'_> {
    /// Those of the lines, each with its CRLF, that may be passed on.
    pub(super) fn passing_lines(self, lines: &[u8]) -> Vec<u8> {
        let passing = lines.split_inclusive(|&byte| byte == b'\n').filter(|line| self.passes(name_of(line)));
        passing.collect::<Vec<_>>().concat()
    }

    fn passes(self, name: &[u8]) -> bool {
        match self {
            _ if resembles_known(name) => false,
            Self::OfRequest(edits) => !belongs_in_head(name) && !edits.iter().any(|edit| edit.sets(name)),
            Self::OfResponse => true,
        }
    }
}

fn belongs_in_head(name: &[u8]) -> bool {
    let start = b"x-forwarded-";
    name.get(..start.len()).is_some_and(|own| is_same_name(own, start))
        || HEAD_ONLY.iter().any(|other| is_same_name(other, name))
}

fn name_of(line: &[u8]) -> &[u8] {
    line.split(|&byte| byte == b':').next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lets_through_what_means_nothing_in_a_head() {
        let edits = [HeaderEdit::parse("X-Own", "a").expect("a valid edit")];
        let filter = TrailerFilter::OfRequest(&edits);
        let lines = b"Digest: a\r\nx.own: b\r\nCookie: c\r\nX_Forwarded.For: d\r\nHOST: e\r\nTransfer~Encoding: f\r\n\
                      Server-Timing:\r\nX-Forward: g\r\n";
        let passing = filter.passing_lines(lines);
        assert_eq!(String::from_utf8_lossy(&passing), "Digest: a\r\nServer-Timing:\r\nX-Forward: g\r\n");
        let lines = b"Grpc-Status: 0\r\nContent.Length: 1\r\nTrailer: a\r\nSet-Cookie: b\r\n";
        let passing = TrailerFilter::OfResponse.passing_lines(lines);
        assert_eq!(String::from_utf8_lossy(&passing), "Grpc-Status: 0\r\nSet-Cookie: b\r\n");
    }
}
