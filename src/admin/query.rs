//! What a request's path and query say.

use percent_encoding::percent_decode_str;

/// What the query gives for a parameter.
pub(super) fn parameters<'a>(query: Option<&'a str>, name: &'static str) -> impl Iterator<Item = &'a str> {
    let pairs = query.unwrap_or_default().split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    pairs.filter(move |(key, _)| *key == name).map(|(_, value)| value)
}

pub(super) fn decoded(segment: &str) -> String {
    percent_decode_str(segment).decode_utf8_lossy().into_owned()
}
