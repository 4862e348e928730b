//! One line of the access log, as text and as JSON.

use std::borrow::Cow;
use std::fmt;
use std::io::{self, Write as _};
use std::time::{Duration, SystemTime};

use serde::{Serialize, Serializer};

use crate::lifecycle::ConnectionId;
use crate::telemetry::{Unquoted, Word, escaped_json, rfc3339};

/// A backend that was tried, and the result.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Attempt<'a> {
    pub backend: &'a str,
    /// `connected`, or why not.
    pub outcome: &'static str,
}

impl Attempt<'_> {
    /// The outcome of an attempt that worked.
    pub const CONNECTED: &'static str = "connected";
    /// The outcome where a connection from an earlier request was used.
    pub const REUSED: &'static str = "reused";

    fn failed(&self) -> bool {
        ![Self::CONNECTED, Self::REUSED].contains(&self.outcome)
    }
}

/// What an HTTP request asked for, and the answer.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct HttpEntry<'a> {
    /// Empty where the head could not be read.
    pub method: &'a str,
    /// The target as the client wrote it.
    pub path: &'a str,
    /// Of the answer; 499 where the client left before it.
    pub status: u16,
    /// What the client sent as X-Request-ID.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_id: Option<&'a str>,
    /// Shown by a format alone; empty where the head could not be read.
    #[serde(skip)]
    pub protocol: &'a str,
    /// Those that the log's format shows.
    #[serde(skip)]
    pub headers: &'a [Option<String>],
}

/// What TLS with the client agreed on.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct TlsEntry<'a> {
    /// `TLSv1.2` or `TLSv1.3`.
    pub tls_version: &'a str,
    pub tls_cipher: &'a str,
    /// The subject of the client's certificate, which was verified.
    pub client_cert: Option<&'a str>,
}

/// The life of one connection; in http mode, of one request.
#[derive(Serialize)]
pub struct Entry<'a> {
    /// When it ended.
    #[serde(serialize_with = "as_rfc3339")]
    pub time: SystemTime,
    /// The same for all requests of one connection, and in the program's log.
    #[serde(serialize_with = "as_text")]
    pub connection: ConnectionId,
    pub listener: &'a str,
    #[serde(serialize_with = "as_text")]
    pub client: &'a dyn fmt::Display,
    pub pool: Option<&'a str>,
    /// The backend that served it.
    pub backend: Option<&'a str>,
    /// Every backend tried, in order.
    pub attempts: &'a [Attempt<'a>],
    /// Bytes that the backend took from the client.
    pub bytes_in: u64,
    /// Bytes that the client took from the backend.
    pub bytes_out: u64,
    /// How long the connect that worked took.
    #[serde(rename = "connect_ms", serialize_with = "optional_milliseconds")]
    pub connect: Option<Duration>,
    /// From accept to the backend's first byte.
    #[serde(rename = "first_byte_ms", serialize_with = "optional_milliseconds")]
    pub first_byte: Option<Duration>,
    /// From accept to the end.
    #[serde(rename = "duration_ms", serialize_with = "milliseconds")]
    pub duration: Duration,
    pub cause: &'static str,
    /// The rule or limit that refused it, where one did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<&'static str>,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub http: Option<HttpEntry<'a>>,
    /// The name that the client asked for by TLS, ended here or looked at by routes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server_name: Option<&'a str>,
    /// `None`: there is no TLS that the listener ends, or it failed.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub tls: Option<TlsEntry<'a>>,
}

impl Entry<'_> {
    /// Appends the line as a JSON object.
    pub fn write_json(&self, out: &mut Vec<u8>) {
        let start = out.len();
        serde_json::to_writer(&mut *out, self).expect("a Vec takes every byte, and the keys are texts");
        let json = std::str::from_utf8(&out[start..]).expect("serde_json writes UTF-8");
        // What JSON leaves as it is could still change how a terminal shows the line.
        if let Cow::Owned(escaped) = escaped_json(json) {
            out.truncate(start);
            out.extend_from_slice(escaped.as_bytes());
        }
        out.push(b'\n');
    }

    /// Appends the line as text for people.
    ///
    /// Its words have one space between them. Whatever could hide the end of a word is within quotes, with escapes, so
    /// that nothing from the network can look like a word of its own.
    pub fn write_text(&self, out: &mut Vec<u8>) {
        self.format_text(out).expect("a Vec takes every byte");
    }

    fn format_text(&self, line: &mut Vec<u8>) -> io::Result<()> {
        let time = rfc3339(self.time);
        write!(
            line,
            "{time} {} {} -> {}/{}",
            self.listener,
            self.client,
            self.pool.unwrap_or("-"),
            Word(self.backend.unwrap_or("-"))
        )?;
        if let Some(HttpEntry { method, path, status, request_id, .. }) = self.http {
            write!(line, " \"{} {}\" {status}", Unquoted(method), Unquoted(path))?;
            if let Some(request_id) = request_id {
                write!(line, " id={}", Word(request_id))?;
            }
        }
        write!(line, " {} in={} out={}", self.cause, self.bytes_in, self.bytes_out)?;
        if let Some(reason) = self.reason {
            write!(line, " reason={reason}")?;
        }
        if let Some(TlsEntry { tls_version, tls_cipher, .. }) = self.tls {
            write!(line, " tls={tls_version}/{tls_cipher}")?;
        }
        if let Some(name) = self.server_name {
            write!(line, " server_name={}", Word(name))?;
        }
        if let Some(subject) = self.tls.and_then(|tls| tls.client_cert) {
            write!(line, " client_cert={}", Word(subject))?;
        }
        if let Some(connect) = self.connect {
            write!(line, " connect={}", Milliseconds(connect))?;
        }
        if let Some(first_byte) = self.first_byte {
            write!(line, " first_byte={}", Milliseconds(first_byte))?;
        }
        write!(line, " duration={} conn={}", Milliseconds(self.duration), self.connection)?;
        if self.attempts.iter().any(Attempt::failed) {
            line.extend_from_slice(b" attempts=");
            for (index, attempt) in self.attempts.iter().enumerate() {
                let separator = if index == 0 { "" } else { "," };
                write!(line, "{separator}{}({})", Word(attempt.backend), attempt.outcome)?;
            }
        }
        line.push(b'\n');
        Ok(())
    }
}

struct Milliseconds(Duration);

impl fmt::Display for Milliseconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}ms", rounded_milliseconds(self.0))
    }
}

/// To a microsecond: more digits would be noise.
#[allow(clippy::cast_precision_loss, reason = "exact below 2^53 µs, which are 285 years")]
pub(super) fn rounded_milliseconds(duration: Duration) -> f64 {
    duration.as_micros() as f64 / 1e3
}

fn milliseconds<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(rounded_milliseconds(*duration))
}

fn optional_milliseconds<S: Serializer>(duration: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
    duration.map(rounded_milliseconds).serialize(serializer)
}

fn as_rfc3339<S: Serializer>(time: &SystemTime, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&rfc3339(*time))
}

fn as_text<S: Serializer>(value: &impl fmt::Display, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(value)
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;
    use crate::lifecycle::ConnectionIds;

    fn entry<'a>(attempts: &'a [Attempt<'a>]) -> Entry<'a> {
        Entry {
            time: UNIX_EPOCH + Duration::from_millis(1_700_000_000_123),
            connection: ConnectionIds::new(0, 1).next(),
            listener: "web",
            client: &"192.0.2.1:5555",
            pool: Some("app"),
            backend: Some("127.0.0.1:3001"),
            attempts,
            bytes_in: 77,
            bytes_out: 853,
            connect: Some(Duration::from_micros(210)),
            first_byte: None,
            duration: Duration::from_micros(3_500),
            cause: "client_closed",
            reason: None,
            http: None,
            server_name: None,
            tls: None,
        }
    }

    #[test]
    fn text_is_readable_at_a_glance() {
        let attempts = [
            Attempt { backend: "127.0.0.1:3002", outcome: "refused" },
            Attempt { backend: "127.0.0.1:3001", outcome: "connected" },
        ];
        let entry = entry(&attempts);
        let mut line = Vec::new();
        entry.write_text(&mut line);
        let expected = "2023-11-14T22:13:20.123Z web 192.0.2.1:5555 -> app/127.0.0.1:3001 client_closed in=77 out=853 \
                        connect=0.21ms duration=3.5ms conn=1 \
                        attempts=127.0.0.1:3002(refused),127.0.0.1:3001(connected)\n";
        assert_eq!(String::from_utf8_lossy(&line), expected);
    }

    #[test]
    fn json_has_the_keys_of_the_contract() {
        let attempts = [Attempt { backend: "127.0.0.1:3001", outcome: "connected" }];
        let entry = entry(&attempts);
        let mut line = Vec::new();
        entry.write_json(&mut line);
        let value: serde_json::Value = serde_json::from_slice(&line).expect("JSON");
        assert_eq!(value["time"], "2023-11-14T22:13:20.123Z");
        assert_eq!(value["connection"], "1");
        assert_eq!(value["connect_ms"], 0.21);
        assert_eq!(value["first_byte_ms"], serde_json::Value::Null);
        assert_eq!(value["attempts"][0]["outcome"], "connected");
        assert!(value.get("reason").is_none());
    }

    #[test]
    fn a_request_shows_its_method_path_status_and_id() {
        let http = HttpEntry {
            method: "GET",
            path: "/a",
            status: 200,
            request_id: Some("7"),
            protocol: "HTTP/1.1",
            headers: &[],
        };
        let entry = Entry { http: Some(http), ..entry(&[]) };
        let (mut text, mut json) = (Vec::new(), Vec::new());
        entry.write_text(&mut text);
        entry.write_json(&mut json);
        assert!(String::from_utf8_lossy(&text).contains(" \"GET /a\" 200 id=7 client_closed in=77 "), "{text:?}");
        let value: serde_json::Value = serde_json::from_slice(&json).expect("JSON");
        assert_eq!((&value["path"], &value["status"], &value["request_id"]), (&"/a".into(), &200.into(), &"7".into()));
    }

    #[test]
    fn tls_shows_what_was_agreed_on_and_who_the_client_is() {
        let tls = TlsEntry {
            tls_version: "TLSv1.3",
            tls_cipher: "TLS_AES_128_GCM_SHA256",
            client_cert: Some("CN=alice b,O=Example"),
        };
        let entry = Entry { tls: Some(tls), server_name: Some("a.example"), ..entry(&[]) };
        let (mut text, mut json) = (Vec::new(), Vec::new());
        entry.write_text(&mut text);
        entry.write_json(&mut json);
        let expected =
            " tls=TLSv1.3/TLS_AES_128_GCM_SHA256 server_name=a.example client_cert=\"CN=alice b,O=Example\" ";
        assert!(String::from_utf8_lossy(&text).contains(expected), "{}", String::from_utf8_lossy(&text));
        let value: serde_json::Value = serde_json::from_slice(&json).expect("JSON");
        let keys = ["tls_version", "tls_cipher", "server_name", "client_cert"].map(|key| value[key].as_str());
        let values = ["TLSv1.3", "TLS_AES_128_GCM_SHA256", "a.example", "CN=alice b,O=Example"].map(Some);
        assert_eq!(keys, values);
    }

    #[test]
    fn what_a_client_wrote_stays_in_its_field() {
        let http = HttpEntry {
            method: "GET",
            path: "/\" 200 completed in=1",
            status: 400,
            request_id: Some("x completed in=1 \"GET /\" 200\u{202e}"),
            protocol: "HTTP/1.1",
            headers: &[],
        };
        let entry = Entry { http: Some(http), ..entry(&[]) };
        let (mut text, mut json) = (Vec::new(), Vec::new());
        entry.write_text(&mut text);
        entry.write_json(&mut json);
        let text = String::from_utf8(text).expect("UTF-8");
        let id = r#"id="x completed in=1 \"GET /\" 200\u{202e}""#;
        let expected = format!(r#" "GET /\" 200 completed in=1" 400 {id} client_closed in=77 "#);
        assert!(text.contains(&expected), "{text}");
        assert!(json.is_ascii());
        let value: serde_json::Value = serde_json::from_slice(&json).expect("JSON");
        assert_eq!(value["request_id"], "x completed in=1 \"GET /\" 200\u{202e}");
    }
}
