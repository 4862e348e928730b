//! A line of the access log as `log.access_format` wants it.
//!
//! Nothing from the network can look like a field of its own: within quotes these are escaped, and elsewhere a value
//! with a space, or with a character that stands between fields, gets quotes. With `format: json` values are written as
//! JSON has them.

use std::io::Write as _;
use std::time::Duration;

use serde_json::Value as Json;

use crate::config::{AccessFormat, AccessPart, AccessValue, AccessWord};
use crate::telemetry::{CommonLogTime, Unquoted, Word, escaped_json, rfc3339};

use super::line::{Attempt, Entry, rounded_milliseconds};

/// One value of a line.
enum Value<'a> {
    /// There is none.
    Absent,
    /// Of our own making: it can't hold what ends a word but where that is known.
    Own(String),
    /// From the configuration, or of our own.
    Name(&'a str),
    /// From the network.
    Text(&'a str),
    Number(u64),
    Milliseconds(f64),
    Attempts(&'a [Attempt<'a>]),
}

impl Entry<'_> {
    /// Appends the line. `as_json`: values are JSON's.
    pub fn write_format(&self, format: &AccessFormat, as_json: bool, out: &mut Vec<u8>) {
        for part in &format.parts {
            match part {
                AccessPart::Text(text) => out.extend_from_slice(text.as_bytes()),
                AccessPart::Value { value, in_quotes } => {
                    let value = self.value(*value);
                    let written = if as_json {
                        value.write_json(*in_quotes, out)
                    } else {
                        value.write_text(*in_quotes, &format.separators, out)
                    };
                    written.expect("a Vec takes every byte");
                }
            }
        }
        out.push(b'\n');
    }

    fn value(&self, value: AccessValue) -> Value<'_> {
        let word = match value {
            AccessValue::Word(word) => word,
            AccessValue::Header(index) => return Value::text(self.header(index)),
        };
        match word {
            AccessWord::Time => Value::Own(rfc3339(self.time).to_string()),
            AccessWord::TimeLocal => Value::Own(CommonLogTime(self.time).to_string()),
            AccessWord::Connection => Value::Own(self.connection.to_string()),
            AccessWord::Listener => Value::Name(self.listener),
            AccessWord::Client => Value::Own(self.client.to_string()),
            AccessWord::ClientIp => Value::Own(without_port(&self.client.to_string()).to_owned()),
            AccessWord::Pool => Value::name(self.pool),
            AccessWord::Backend => Value::name(self.backend),
            AccessWord::Attempts => Value::Attempts(self.attempts),
            AccessWord::BytesIn => Value::Number(self.bytes_in),
            AccessWord::BytesOut => Value::Number(self.bytes_out),
            AccessWord::ConnectMs => self.connect.map_or(Value::Absent, Value::milliseconds),
            AccessWord::FirstByteMs => self.first_byte.map_or(Value::Absent, Value::milliseconds),
            AccessWord::DurationMs => Value::milliseconds(self.duration),
            AccessWord::Cause => Value::Name(self.cause),
            AccessWord::Reason => Value::name(self.reason),
            AccessWord::Method => Value::text(self.http.map(|http| http.method)),
            AccessWord::Path => Value::text(self.http.map(|http| http.path)),
            AccessWord::Protocol => Value::text(self.http.map(|http| http.protocol)),
            AccessWord::Status => self.http.map_or(Value::Absent, |http| Value::Number(http.status.into())),
            AccessWord::RequestId => Value::text(self.http.and_then(|http| http.request_id)),
            AccessWord::TlsVersion => Value::name(self.tls.map(|tls| tls.tls_version)),
            AccessWord::TlsCipher => Value::name(self.tls.map(|tls| tls.tls_cipher)),
            AccessWord::ServerName => Value::text(self.server_name),
            AccessWord::ClientCert => Value::text(self.tls.and_then(|tls| tls.client_cert)),
        }
    }

    fn header(&self, index: usize) -> Option<&str> {
        self.http?.headers.get(index)?.as_deref()
    }
}

impl<'a> Value<'a> {
    fn text(text: Option<&'a str>) -> Self {
        text.filter(|text| !text.is_empty()).map_or(Self::Absent, Self::Text)
    }

    fn name(name: Option<&'a str>) -> Self {
        name.map_or(Self::Absent, Self::Name)
    }

    fn milliseconds(duration: Duration) -> Self {
        Self::Milliseconds(rounded_milliseconds(duration))
    }

    fn write_text(&self, in_quotes: bool, separators: &str, out: &mut Vec<u8>) -> std::io::Result<()> {
        match self {
            Self::Absent => write!(out, "-"),
            Self::Own(text) => write!(out, "{text}"),
            Self::Number(number) => write!(out, "{number}"),
            Self::Milliseconds(number) => write!(out, "{number}"),
            Self::Name(text) | Self::Text(text) if in_quotes => write!(out, "{}", Unquoted(text)),
            Self::Text(text) if text.contains(|c| separators.contains(c)) => write!(out, "\"{}\"", Unquoted(text)),
            Self::Name(text) | Self::Text(text) => write!(out, "{}", Word(text)),
            Self::Attempts([]) => write!(out, "-"),
            Self::Attempts(attempts) if in_quotes => write!(out, "{}", Unquoted(&joined(attempts))),
            Self::Attempts(attempts) => write!(out, "{}", Word(&joined(attempts))),
        }
    }

    /// Within quotes the text of a JSON string, elsewhere a whole value.
    fn write_json(&self, in_quotes: bool, out: &mut Vec<u8>) -> std::io::Result<()> {
        let value = match self {
            Self::Absent if in_quotes => "-".into(),
            Self::Absent => Json::Null,
            Self::Own(text) => text.as_str().into(),
            Self::Name(text) | Self::Text(text) => (*text).into(),
            Self::Number(number) => (*number).into(),
            Self::Milliseconds(number) => (*number).into(),
            Self::Attempts(attempts) if in_quotes => joined(attempts).into(),
            Self::Attempts(attempts) => serde_json::to_value(attempts)?,
        };
        let json = value.to_string();
        let json = escaped_json(&json);
        let bare = json.strip_prefix('"').and_then(|json| json.strip_suffix('"')).filter(|_| in_quotes);
        write!(out, "{}", bare.unwrap_or(&json))
    }
}

fn joined(attempts: &[Attempt<'_>]) -> String {
    let each = attempts.iter().map(|attempt| format!("{}({})", attempt.backend, attempt.outcome));
    each.collect::<Vec<_>>().join(",")
}

/// `[::1]:80` as `::1`; what has no port, as it is.
fn without_port(address: &str) -> &str {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host)
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::super::line::HttpEntry;
    use super::*;
    use crate::lifecycle::ConnectionIds;

    fn line(format: &str, as_json: bool, path: &str, headers: &[Option<String>]) -> String {
        let attempts = [Attempt { backend: "127.0.0.1:1", outcome: "refused" }];
        let http = HttpEntry { method: "GET", path, status: 200, request_id: None, protocol: "HTTP/1.1", headers };
        let entry = Entry {
            time: UNIX_EPOCH + Duration::from_millis(1_700_000_000_123),
            connection: ConnectionIds::new(0, 1).next(),
            listener: "web",
            client: &"[2001:db8::1]:5555",
            pool: Some("app"),
            backend: None,
            attempts: &attempts,
            bytes_in: 77,
            bytes_out: 853,
            connect: Some(Duration::from_micros(210)),
            first_byte: None,
            duration: Duration::from_micros(3_500),
            cause: "completed",
            reason: None,
            http: Some(http),
            server_name: None,
            tls: None,
        };
        let mut line = Vec::new();
        entry.write_format(&AccessFormat::parse(format).expect("a valid format"), as_json, &mut line);
        String::from_utf8(line).expect("UTF-8")
    }

    #[test]
    fn words_are_replaced_and_what_is_not_there_is_a_dash() {
        let shown = line("$cause $backend $duration_ms ${connect_ms}ms $attempts $$ \"$path\"", false, "/a", &[]);
        assert_eq!(shown, "completed - 3.5 0.21ms 127.0.0.1:1(refused) $ \"/a\"\n");
    }

    #[test]
    fn combined_is_what_other_programs_read() {
        let shown = line("combined", false, "/a?b=c", &[None, Some("curl/8 \"x\"".to_owned())]);
        let expected = "2001:db8::1 - - [14/Nov/2023:22:13:20 +0000] \"GET /a?b=c HTTP/1.1\" 200 853 \"-\" \
                        \"curl/8 \\\"x\\\"\"\n";
        assert_eq!(shown, expected);
    }

    #[test]
    fn nothing_of_a_client_looks_like_a_field() {
        let evil = Some("x status=200\n\u{202e}\"".to_owned());
        let shown = line("path=$path agent=$http_user_agent", false, "/a status=200", std::slice::from_ref(&evil));
        assert_eq!(shown, "path=\"/a status=200\" agent=\"x status=200\\n\\u{202e}\\\"\"\n");
        let shown =
            line("{\"p\": \"$path\", \"a\": $http_user_agent, \"n\": $bytes_in, \"b\": $backend}", true, "\"", &[evil]);
        let value: Json = serde_json::from_str(&shown).expect("JSON");
        assert_eq!(value, serde_json::json!({"p": "\"", "a": "x status=200\n\u{202e}\"", "n": 77, "b": null}));
        assert!(shown.is_ascii());
        let shown = line("$path,$status|$cause", false, "/x,200|completed", &[]);
        assert_eq!(shown, "\"/x,200|completed\",200|completed\n");
    }
}
