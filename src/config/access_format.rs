//! `log.access_format`: a line of the access log as text with `$words`, compiled once.

use crate::protocol::placeholders::{Piece, pieces};

/// Apache's and nginx's `combined`. `$bytes_out` counts the whole answers, their heads too.
const COMBINED: &str = "$client_ip - - [$time_local] \"$method $path $protocol\" $status $bytes_out \
                        \"$http_referer\" \"$http_user_agent\"";

/// Headers of requests that one format may show: each is copied for each request.
const MOST_HEADERS: usize = 16;

labels! {
    /// What a `$word` stands for: the keys of a line as JSON, and what only formats have.
    AccessWord {
        Time = "time",
        Connection = "connection",
        Listener = "listener",
        Client = "client",
        Pool = "pool",
        Backend = "backend",
        Attempts = "attempts",
        BytesIn = "bytes_in",
        BytesOut = "bytes_out",
        ConnectMs = "connect_ms",
        FirstByteMs = "first_byte_ms",
        DurationMs = "duration_ms",
        Cause = "cause",
        Reason = "reason",
        Method = "method",
        Path = "path",
        Status = "status",
        RequestId = "request_id",
        TlsVersion = "tls_version",
        TlsCipher = "tls_cipher",
        ServerName = "server_name",
        ClientCert = "client_cert",
        /// The client's address without its port.
        ClientIp = "client_ip",
        /// `time` as in Apache's and nginx's logs: 22/Nov/2026:18:31:52 +0000.
        TimeLocal = "time_local",
        /// HTTP/1.1 or HTTP/1.0.
        Protocol = "protocol",
    }
}

/// A compiled format.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessFormat {
    pub parts: Vec<AccessPart>,
    /// Names of the requests' headers that it shows, in lower case.
    pub headers: Vec<String>,
    /// What stands between its values and is no letter or digit.
    pub separators: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AccessPart {
    Text(String),
    Value {
        value: AccessValue,
        /// Whether the text around it has it in double quotes.
        in_quotes: bool,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AccessValue {
    Word(AccessWord),
    /// Index in [`AccessFormat::headers`].
    Header(usize),
}

impl AccessFormat {
    /// # Errors
    /// What is wrong with the text, and the remedy.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.chars().any(char::is_control) {
            return Err("has a line end or another control character; a line of the log is one line".to_owned());
        }
        let mut format = Self { parts: Vec::new(), headers: Vec::new(), separators: String::new() };
        let mut in_quotes = false;
        for piece in pieces(if text == "combined" { COMBINED } else { text }) {
            let part = match piece {
                Piece::Text(text) => {
                    in_quotes ^= text.matches('"').count() % 2 == 1;
                    format.separators.extend(text.chars().filter(|c| !c.is_alphanumeric()));
                    AccessPart::Text(text.to_owned())
                }
                Piece::Name(name) => AccessPart::Value { value: format.value(name)?, in_quotes },
            };
            format.parts.push(part);
        }
        if !format.parts.iter().any(|part| matches!(part, AccessPart::Value { .. })) {
            return Err(format!("`{text}` has no $word: each line would be the same; known are {}", known()));
        }
        if format.headers.len() > MOST_HEADERS {
            return Err(format!("has more than {MOST_HEADERS} headers; show fewer"));
        }
        Ok(format)
    }

    fn value(&mut self, name: &str) -> Result<AccessValue, String> {
        if let Some(word) = AccessWord::ALL.iter().find(|word| word.as_str() == name) {
            return Ok(AccessValue::Word(*word));
        }
        let header = name.strip_prefix("http_").filter(|header| !header.is_empty());
        let header = header.ok_or_else(|| format!("has the unknown word `${name}`; known are {}", known()))?;
        let header = header.to_ascii_lowercase().replace('_', "-");
        let known = self.headers.iter().position(|known| *known == header);
        Ok(AccessValue::Header(known.unwrap_or_else(|| {
            self.headers.push(header);
            self.headers.len() - 1
        })))
    }
}

fn known() -> String {
    let words: Vec<String> = AccessWord::ALL.iter().map(|word| format!("${}", word.as_str())).collect();
    format!("{}, $http_NAME for a header of the request, $$ for a dollar, and `combined` by itself", words.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_what_stands_in_quotes() {
        let format = AccessFormat::parse("$cause \"$path\" $http_x_a ${http_X-A}").expect("it is valid");
        let quoted: Vec<bool> = format
            .parts
            .iter()
            .filter_map(|part| match part {
                AccessPart::Value { in_quotes, .. } => Some(*in_quotes),
                AccessPart::Text(_) => None,
            })
            .collect();
        assert_eq!((quoted, format.headers), (vec![false, true, false, false], vec!["x-a".to_owned()]));
        assert_eq!(AccessFormat::parse("$cause,ab|$path").expect("it is valid").separators, ",|");
        assert_eq!(AccessFormat::parse("combined").expect("a preset").headers, ["referer", "user-agent"]);
    }

    #[test]
    fn a_wrong_text_is_told_with_what_is_known() {
        let wrong = |text| AccessFormat::parse(text).expect_err("it is wrong");
        assert!(wrong("$staus").starts_with("has the unknown word `$staus`; known are $time, $connection, "));
        assert!(wrong("combinde").contains("has no $word"));
        assert!(wrong("$cause\n").contains("control character"));
    }
}
