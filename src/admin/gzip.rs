//! Long answers are compressed for clients that take that: what scrapes and reports say repeats itself.

use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::header::{ACCEPT_ENCODING, CONTENT_ENCODING, HeaderValue, VARY};
use hyper::{HeaderMap, Response};

use super::apart::apart;

pub(super) type AdminResponse = Response<Full<Bytes>>;

/// Shorter answers are sent as they are.
const LEAST_BYTES: usize = 4 * 1024;
/// Longer ones are compressed on a thread of their own: it takes a millisecond and more.
const MOST_BYTES_HERE: usize = 128 * 1024;

/// The same answer, compressed where it is long and the request allows it.
pub(super) async fn compressed(request: &HeaderMap, answer: AdminResponse) -> AdminResponse {
    let (mut parts, body) = answer.into_parts();
    let Ok(body) = body.collect().await.map(http_body_util::Collected::to_bytes);
    if body.len() < LEAST_BYTES {
        return AdminResponse::from_parts(parts, body.into());
    }
    parts.headers.insert(VARY, HeaderValue::from_static("Accept-Encoding"));
    if !takes_gzip(request) {
        return AdminResponse::from_parts(parts, body.into());
    }
    let compressed = if body.len() <= MOST_BYTES_HERE {
        Some(gzip(&body))
    } else {
        let body = body.clone();
        apart(move || gzip(&body)).await
    };
    // The thread is lost only where the process ends.
    let Some(compressed) = compressed else { return AdminResponse::from_parts(parts, body.into()) };
    parts.headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    AdminResponse::from_parts(parts, Full::new(compressed))
}

fn gzip(bytes: &[u8]) -> Bytes {
    let mut encoder = GzEncoder::new(Vec::with_capacity(bytes.len() / 8), Compression::fast());
    encoder.write_all(bytes).expect("a Vec takes all bytes");
    encoder.finish().expect("a Vec takes all bytes").into()
}

/// Whether Accept-Encoding names gzip (RFC 9110 section 12.5.3), and not with the quality 0.
fn takes_gzip(request: &HeaderMap) -> bool {
    let values = request.get_all(ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|coding| {
        let (name, quality) = coding.split_once(';').unwrap_or((coding, ""));
        let is_refused = matches!(quality.replace(' ', "").trim_start_matches("q="), "0" | "0.0" | "0.00" | "0.000");
        name.trim().eq_ignore_ascii_case("gzip") && !is_refused
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gzip_is_taken_where_it_is_named_and_not_refused() {
        let takes = |value: &str| {
            takes_gzip(&HeaderMap::from_iter([(ACCEPT_ENCODING, HeaderValue::from_str(value).expect("a header"))]))
        };
        assert!(takes("gzip") && takes("deflate, gzip;q=0.5, br") && takes("GZip ; q=1"));
        assert!(!takes("") && !takes("identity") && !takes("gzip;q=0") && !takes("br, gzip; q=0.0"));
    }
}
