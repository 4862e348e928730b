//! One line a connection: what it says, and where it goes.

use std::fs;
use std::io::{BufRead, BufReader, Write};

use serde_json::Value;

use crate::support::{
    Folder, Lb, Origin, Reader, Refusing, Server, connect, connect_and_read, get, read_to_end, wait_until,
    wait_until_equal,
};

/// Whether it is a time such as 2026-01-31T12:34:56.789Z.
fn is_rfc3339_millis(text: &str) -> bool {
    let shape: String = text.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
    shape == "0000-00-00T00:00:00.000Z"
}

/// Whether it is a number in lower-case hexadecimal digits.
fn is_connection_id(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| matches!(c, '0'..='9' | 'a'..='f'))
}

#[test]
fn a_line_has_the_keys_of_the_contract() {
    let server = Server::named("here");
    let lb = Lb::in_front_of(&[server.address()]).start();
    let mut client = connect(lb.address());
    let client_address = client.local_addr().unwrap().to_string();
    client.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    let (answer, _) = read_to_end(&mut client);
    drop(client);
    let line = lb.only_access();
    let Value::Object(keys) = &line else { panic!("an object: {line}") };
    let mut names: Vec<&str> = keys.keys().map(String::as_str).collect();
    names.sort_unstable();
    let expected = [
        "attempts",
        "backend",
        "bytes_in",
        "bytes_out",
        "cause",
        "client",
        "connect_ms",
        "connection",
        "duration_ms",
        "first_byte_ms",
        "listener",
        "pool",
        "time",
    ];
    assert_eq!(names, expected);
    assert!(is_rfc3339_millis(line["time"].as_str().unwrap()), "{line}");
    assert!(is_connection_id(line["connection"].as_str().unwrap()), "{line}");
    assert_eq!((&line["listener"], &line["pool"]), (&"default".into(), &"default".into()));
    assert_eq!(line["client"], client_address);
    assert_eq!(line["backend"], server.address().to_string());
    let attempt = serde_json::json!({"backend": server.address().to_string(), "outcome": "connected"});
    assert_eq!(line["attempts"], serde_json::json!([attempt]));
    assert_eq!((&line["bytes_in"], &line["bytes_out"]), (&18.into(), &answer.len().into()));
    assert_eq!(line["cause"], "backend_closed");
    let duration = |key: &str| line[key].as_f64().unwrap_or_else(|| panic!("{key} in {line}"));
    assert!(duration("connect_ms") <= duration("first_byte_ms"), "{line}");
    assert!(duration("first_byte_ms") <= duration("duration_ms"), "{line}");
}

#[test]
fn a_connection_without_a_backend_has_no_backend_in_its_line() {
    let dead = Refusing::new();
    let lb = Lb::in_front_of(&[dead.address()]).start();
    connect_and_read(lb.address());
    let line = lb.only_access();
    for key in ["backend", "connect_ms", "first_byte_ms"] {
        assert_eq!(line[key], Value::Null, "{key}");
    }
    assert_eq!(line["attempts"][0]["outcome"], "refused");
    assert_eq!(line["cause"], "connect_failed");
}

#[test]
fn text_lines_name_the_same_things() {
    let folder = Folder::new();
    let log = folder.path().join("access.log");
    let (dead, server) = (Refusing::new(), Server::named("here"));
    let lb = Lb::in_front_of(&[dead.address(), server.address()])
        .with(&["--access-log", &log.display().to_string()])
        .in_text()
        .start();
    get(lb.address(), "/");
    wait_until("the line is written", || fs::read_to_string(&log).is_ok_and(|text| text.ends_with('\n')));
    let line = fs::read_to_string(&log).unwrap();
    let words: Vec<&str> = line.split_whitespace().collect();
    assert!(is_rfc3339_millis(words[0]), "{line}");
    assert_eq!((words[1], words[3], words[5]), ("default", "->", "backend_closed"), "{line}");
    assert_eq!(words[4], format!("default/{}", server.address()));
    let attempts = format!("attempts={}(refused),{}(connected)", dead.address(), server.address());
    assert!(line.contains(&attempts), "{line}");
    let (_, after) = line.split_once(" conn=").unwrap_or_else(|| panic!("a connection's id: {line}"));
    assert!(is_connection_id(after.split(' ').next().unwrap()), "{line}");
    assert_eq!(line.lines().count(), 1);
}

/// The words of a line of text: one space between them, none in them but in quotes; with the quotes resolved.
fn words(line: &str) -> Vec<String> {
    let (mut words, mut is_quoted, mut rest) = (vec![String::new()], false, line.chars());
    while let Some(c) = rest.next() {
        let word = words.last_mut().unwrap();
        match c {
            '"' => is_quoted = !is_quoted,
            ' ' if !is_quoted => words.push(String::new()),
            '\\' if is_quoted => word.push(match rest.next().unwrap() {
                'n' => '\n',
                't' => '\t',
                'u' => {
                    let digits: String = rest.by_ref().skip(1).take_while(|c| *c != '}').collect();
                    u32::from_str_radix(&digits, 16).ok().and_then(char::from_u32).unwrap()
                }
                itself => itself,
            }),
            c => word.push(c),
        }
    }
    assert!(!is_quoted, "a quote is open at the end: {line}");
    words
}

#[test]
fn no_client_forges_a_field_of_a_text_line() {
    let folder = Folder::new();
    let log = folder.path().join("access.log");
    let origin = Origin::new();
    let lb = Lb::in_front_of(&[origin.address()])
        .with(&["--mode", "http", "--access-log", &log.display().to_string()])
        .in_text()
        .start();
    let forged = [
        "x completed in=1 out=2 \"GET /fake\" 200",
        "\" 200 id=y completed",
        "\\\" 200",
        "in=5",
        "a\tb",
        "\u{202e}dlrow\u{200b}\u{85}\u{9b}31m\u{a0}\u{2028}\u{3000}x",
        "Größe-世界",
        "",
    ];
    for (number, text) in forged.iter().enumerate() {
        // A target of other characters is refused, and not logged.
        let path = format!("/{}", text.replace(|c: char| !c.is_ascii_graphic(), "."));
        let mut client = Reader::of(connect(lb.address()));
        client.send(format!("GET {path} HTTP/1.1\r\nHost: h\r\nX-Request-ID: {text}\r\n\r\n"));
        assert_eq!(client.response().status(), 200);
        let lines = || fs::read_to_string(&log).unwrap_or_default();
        wait_until("the line is written", || lines().ends_with('\n') && lines().lines().count() == number + 1);
        let line = lines().lines().last().unwrap().to_owned();
        assert!(line.chars().all(|c| c.is_alphanumeric() || matches!(c, ' '..='~')), "{line:?}");
        let words = words(&line);
        assert_eq!(words[5..9], [format!("GET {path}"), "200".into(), format!("id={text}"), "completed".into()]);
        let names = words[9..].iter().map(|word| word.split('=').next().unwrap());
        // An idle connection to the backend needs no connect.
        let names: Vec<&str> = names.filter(|name| *name != "connect").collect();
        assert_eq!(names, ["in", "out", "first_byte", "duration", "conn"], "{line}");
    }
}

#[test]
fn requests_of_one_connection_share_its_id_and_others_have_another() {
    let origin = Origin::new();
    let lb = Lb::in_front_of(&[origin.address()]).with(&["--mode", "http"]).start();
    let send = |client: &mut Reader| {
        client.send(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n");
        assert_eq!(client.response().status(), 200);
    };
    let (one, other) = (connect(lb.address()), connect(lb.address()));
    let addresses = [&one, &other].map(|client| client.local_addr().unwrap().to_string());
    let (mut one, mut other) = (Reader::of(one), Reader::of(other));
    send(&mut one);
    send(&mut other);
    send(&mut one);
    // A head that can't be read is a request of its connection, too.
    other.send(b"no request\r\n\r\n");
    assert_eq!(other.response().status(), 400);
    let lines = lb.access_log(4);
    let [ids, others] = addresses.map(|client| -> Vec<&str> {
        let lines = lines.iter().filter(|line| line["client"] == client.as_str());
        lines.map(|line| line["connection"].as_str().unwrap()).collect()
    });
    assert!(ids.iter().chain(&others).all(|id| is_connection_id(id)), "{lines:?}");
    assert_eq!((ids.len(), others.len()), (2, 2), "{lines:?}");
    assert!(ids[0] == ids[1] && others[0] == others[1] && ids[0] != others[0], "{lines:?}");
}

#[test]
fn two_connections_have_two_ids() {
    let server = Server::named("here");
    let lb = Lb::in_front_of(&[server.address()]).start();
    get(lb.address(), "/");
    get(lb.address(), "/");
    let lines = lb.access_log(2);
    assert_ne!(lines[0]["connection"], lines[1]["connection"]);
}

#[test]
fn a_file_is_appended_to_and_off_means_nothing() {
    let folder = Folder::new();
    let log = folder.write("access.log", "what was there\n");
    let server = Server::named("here");
    let lb = Lb::in_front_of(&[server.address()]).with(&["--access-log", &log.display().to_string()]).start();
    get(lb.address(), "/");
    wait_until("the line is written", || fs::read_to_string(&log).is_ok_and(|text| text.lines().count() == 2));
    assert!(fs::read_to_string(&log).unwrap().starts_with("what was there\n"));

    let mut quiet = Lb::in_front_of(&[server.address()]).with(&["--access-log", "off"]).start();
    get(quiet.address(), "/");
    quiet.signal(rustix::process::Signal::TERM);
    quiet.wait_for_end();
    assert_eq!(quiet.output_lines(), 0);
}

#[test]
fn a_listener_may_keep_out_of_it() {
    let server = Server::named("here");
    let lb = Lb::with_config(&format!(
        "listeners:\n  loud: {{bind: 127.0.0.1:0}}\n  quiet: {{bind: 127.0.0.1:0, access_log: false}}\n\
         pools:\n  app: {{backends: ['{}']}}\n",
        server.address()
    ))
    .start();
    get(lb.address_of("quiet"), "/");
    get(lb.address_of("loud"), "/");
    assert_eq!(lb.only_access()["listener"], "loud");
}

#[test]
fn traffic_goes_on_when_the_log_cannot_be_written() {
    let server = Server::named("here");
    let lb = Lb::in_front_of(&[server.address()]).with(&["--access-log", "/dev/full"]).start();
    for _ in 0..20 {
        assert_eq!(get(lb.address(), "/").body, "here");
    }
    wait_until("lost lines are counted", || lb.metrics().sum("access_log_dropped_total", &[]) == 20.0);
    wait_until("it is told", || lb.log_text().contains("the access log can't be written"));
}

#[test]
fn traffic_goes_on_when_nobody_reads_standard_output_any_more() {
    let server = Server::named("here");
    let (reader, writer) = std::io::pipe().unwrap();
    let lb = Lb::in_front_of(&[server.address()]).with(&["--access-log", "stdout"]).with_output(writer).start();
    assert_eq!(get(lb.address(), "/").body, "here");
    // Once the first line was written: what is written later than the end is lost.
    let mut reader = BufReader::new(reader);
    reader.read_line(&mut String::new()).unwrap();
    drop(reader);
    for _ in 0..20 {
        assert_eq!(get(lb.address(), "/").body, "here");
    }
    wait_until_equal("lost lines", &20.0, || lb.metrics().sum("access_log_dropped_total", &[]));
    wait_until("it is told", || lb.log_text().contains("the access log can't be written"));
}
