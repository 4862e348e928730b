//! docs/reference/log.md: the fields of the access log, and its words.

use std::time::{Duration, UNIX_EPOCH};

use serde_json::Value;

use crate::access_log::{Attempt, Entry, HttpEntry, TlsEntry};
use crate::config::AccessWord;
use crate::lifecycle::ConnectionIds;
use crate::net::ConnectFailure;
use crate::telemetry::{Cause, Rejection};

use super::markdown::{Page, code};

/// Key, where it stands, meaning.
const FIELDS: [(&str, &str, &str); 24] = [
    ("time", "", "When it ended: RFC 3339, UTC, milliseconds."),
    (
        "connection",
        "",
        "The connection's id, hexadecimal, unique within the process: the same for all requests of one connection, and \
         in the program's own log.",
    ),
    ("listener", "", "The listener's name."),
    ("client", "", "The client's address: of the socket, or as a PROXY header says."),
    ("pool", "", "The pool that serves it; null: none was chosen."),
    ("backend", "", "The backend that served it; null: none."),
    ("attempts", "", "Every backend that was tried, in order: a list of `backend` and `outcome`."),
    ("bytes_in", "", "Bytes that the backend took from the client."),
    ("bytes_out", "", "Bytes that the client took from the backend."),
    ("connect_ms", "", "Milliseconds of the connect that worked; null: none was made."),
    (
        "first_byte_ms",
        "",
        "Milliseconds from accept (http mode: from the request's head) to the backend's first byte; null: there was \
         none.",
    ),
    ("duration_ms", "", "Milliseconds from accept (http mode: from the request's head) to the end."),
    ("cause", "", "Why it ended, see below."),
    ("reason", "refused ones", "The rule or limit that refused it, see below."),
    ("method", "http mode", "Of the request; empty where the head could not be read."),
    ("path", "http mode", "The target as the client wrote it."),
    ("status", "http mode", "Of the answer; 499: the client left before it."),
    ("request_id", "http mode", "X-Request-ID, where the client sent one."),
    ("tls_version", "TLS ended here", "`TLSv1.2` or `TLSv1.3`."),
    ("tls_cipher", "TLS ended here", "The cipher suite."),
    ("server_name", "TLS, ended here or routed by", "The name that the client asked for."),
    (
        "client_cert",
        "TLS ended here",
        "The subject of the client's certificate, which was verified; null: it showed none.",
    ),
    ("attempts[].backend", "", "The backend's address."),
    (
        "attempts[].outcome",
        "",
        "`connected`; `reused`: an idle connection served; or why the connect failed, see below.",
    ),
];

pub(super) fn page() -> String {
    let mut page = Page::new(
        "Access log",
        "One line a connection, when it ends; in http mode one a request. With `log.format: json` a line is an object \
         with these keys. The text form has the same, readable at a glance; `connection` is `conn` there, and \
         `attempts` is shown where one failed. What comes from the network is escaped: it can't look like a field.",
    );
    page.table(
        ["Key", "Only of", "Meaning"],
        FIELDS.map(|(key, only, meaning)| [code(key), only.to_owned(), meaning.to_owned()]),
    );
    page.heading("Words of a format");
    page.paragraph(
        "`log.access_format` is a line's text with `$words` for values: the keys above, but for those with a dot, and \
         the following. `$http_NAME` is a header of the request (`$http_user_agent`), `$$` a dollar. `combined` by \
         itself is the format of that name of Apache and nginx.",
    );
    write_words(
        &mut page,
        &AccessWord::MEANINGS.iter().copied().filter(|(_, meaning)| !meaning.is_empty()).collect::<Vec<_>>(),
    );
    page.heading("Causes");
    page.paragraph(
        "Every accepted connection has exactly one. A request that was answered to its end has `completed`.",
    );
    write_words(&mut page, Cause::MEANINGS);
    page.heading("Reasons");
    page.paragraph("Where the cause is `rejected`.");
    write_words(&mut page, Rejection::MEANINGS);
    page.heading("Outcomes of a failed attempt");
    write_words(&mut page, ConnectFailure::MEANINGS);
    page.finish()
}

fn write_words(page: &mut Page, words: &[(&str, &str)]) {
    page.table(["Word", "Meaning"], words.iter().map(|(word, meaning)| [code(word), meaning.trim().to_owned()]));
}

#[test]
fn the_fields_are_those_of_a_line() {
    let attempts = [Attempt { backend: "127.0.0.1:3001", outcome: Attempt::CONNECTED }];
    let entry = Entry {
        time: UNIX_EPOCH,
        connection: ConnectionIds::new(0, 1).next(),
        listener: "web",
        client: &"192.0.2.1:5555",
        pool: Some("app"),
        backend: Some("127.0.0.1:3001"),
        attempts: &attempts,
        bytes_in: 1,
        bytes_out: 1,
        connect: None,
        first_byte: None,
        duration: Duration::ZERO,
        cause: Cause::Rejected.as_str(),
        reason: Some(Rejection::Denied.as_str()),
        http: Some(HttpEntry {
            method: "GET",
            path: "/",
            status: 200,
            request_id: Some("1"),
            protocol: "",
            headers: &[],
        }),
        server_name: Some(""),
        tls: Some(TlsEntry { tls_version: "", tls_cipher: "", client_cert: None }),
    };
    let mut line = Vec::new();
    entry.write_json(&mut line);
    let line: Value = serde_json::from_slice(&line).expect("JSON");
    let keys = |value: &Value, prefix: &str| -> Vec<String> {
        value.as_object().into_iter().flatten().map(|(key, _)| format!("{prefix}{key}")).collect()
    };
    let mut in_line = [keys(&line, ""), keys(&line["attempts"][0], "attempts[].")].concat();
    let mut documented = FIELDS.map(|(key, ..)| key.to_owned());
    let words: Vec<&str> = AccessWord::ALL.iter().map(|word| word.as_str()).collect();
    let in_format = documented.iter().filter(|key| !key.contains('['));
    assert!(in_format.map(String::as_str).all(|key| words.contains(&key)), "each key is a word of a format: {words:?}");
    in_line.sort();
    documented.sort();
    assert_eq!(in_line, documented);
}
