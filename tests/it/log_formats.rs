//! What lines of the logs look like: `access_format`, and the level of the program's log while it runs.

use std::fs;
use std::process::Command;

use serde_json::{Value, json};

use crate::support::{
    Folder, Lb, Origin, Reader, Refusing, Server, connect, connect_and_read, get, output_of, post, request, required,
    run_to_end, wait_until,
};

/// The lines of a file, once there are so many.
#[track_caller]
fn lines_of(path: &std::path::Path, number: usize) -> Vec<String> {
    let lines = || fs::read_to_string(path).unwrap_or_default();
    wait_until(&format!("{number} lines are written"), || lines().lines().count() >= number && lines().ends_with('\n'));
    lines().lines().map(str::to_owned).collect()
}

#[test]
fn combined_is_the_format_of_that_name() {
    let (folder, origin) = (Folder::new(), Origin::new());
    let file = folder.path().join("access.log");
    let lb = Lb::in_front_of(&[origin.address()])
        .with(&["--mode", "http", "--access-log", &file.display().to_string(), "--set", "log.access_format=combined"])
        .in_text()
        .start();
    let url = format!("http://{}/a?b=c", lb.address());
    let arguments = ["-sS", "-o", "/dev/null", "-A", "a \"b\"", "-e", "http://c/", "--http1.0", &url];
    output_of(&required("curl"), &arguments);
    let line = lines_of(&file, 1).remove(0);
    let shape: String = line.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
    assert!(shape.starts_with("000.0.0.0 - - [00/") && shape.contains(":00:00:00 +0000] \""), "{line}");
    let (_, rest) = line.split_once("] ").unwrap();
    assert!(rest.starts_with("\"GET /a?b=c HTTP/1.0\" 200 "), "{line}");
    assert!(rest.ends_with(" \"http://c/\" \"a \\\"b\\\"\""), "{line}");
    // What reads such files reads it: this is the expression of Apache's own split-logfile and of many others.
    let pattern = r#"^\S+ \S+ \S+ \[[^\]]+\] "(?:[^"\\]|\\.)*" \d{3} \d+ "(?:[^"\\]|\\.)*" "(?:[^"\\]|\\.)*"$"#;
    let script = format!("import re,sys; sys.exit(not re.match(r'''{pattern}''', sys.argv[1]))");
    assert!(Command::new(required("python3")).args(["-c", &script, &line]).status().unwrap().success(), "{line}");
}

#[test]
fn a_template_has_words_for_what_json_has_keys_for() {
    let (folder, server, dead) = (Folder::new(), Server::named("here"), Refusing::new());
    let file = folder.path().join("access.log");
    let yaml = format!(
        "listen: 127.0.0.1:0\nbackends: ['{}', '{}']\nlog:\n  access: {}\n  access_format: >-\n    $listener $cause \
         in=$bytes_in backend=$backend via=$attempts path=$path $$ ${{duration_ms}}ms\n",
        dead.address(),
        server.address(),
        file.display()
    );
    let lb = Lb::with_config(&yaml).in_text().start();
    assert_eq!(get(lb.address(), "/").body, "here");
    let line = lines_of(&file, 1).remove(0);
    let expected =
        format!("backend={one} via={}(refused),{one}(connected) path=- $ ", dead.address(), one = server.address());
    assert!(line.starts_with("default backend_closed in=") && line.contains(&expected), "{line}");
    assert!(line.ends_with("ms"), "{line}");
}

#[test]
fn with_json_a_template_of_json_stays_json_whatever_clients_send() {
    let (folder, origin) = (Folder::new(), Origin::new());
    let file = folder.path().join("access.log");
    let template =
        r#"{"who": "$client_ip", "path": "$path", "agent": $http_user_agent, "x": $http_x, "status": $status}"#;
    let yaml = format!(
        "listen: 127.0.0.1:0\nmode: http\nbackends: ['{}']\nlog: {{access: {}, access_format: '{template}'}}\n",
        origin.address(),
        file.display()
    );
    let lb = Lb::with_config(&yaml).start();
    let evil = "a\", \"status\": 500, \"b\\\": \"\u{202e}\u{85}ü";
    let mut client = Reader::of(connect(lb.address()));
    client.send(format!("GET /\\\"x HTTP/1.1\r\nHost: h\r\nUser-Agent: {evil}\r\n\r\n"));
    assert_eq!(client.response().status(), 200);
    let line = lines_of(&file, 1).remove(0);
    let value: Value = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"));
    assert_eq!(value, json!({"who": "127.0.0.1", "path": "/\\\"x", "agent": evil, "x": null, "status": 200}));
}

#[test]
fn nothing_of_a_client_looks_like_a_field_of_a_template() {
    let (folder, origin) = (Folder::new(), Origin::new());
    let file = folder.path().join("access.log");
    let lb = Lb::in_front_of(&[origin.address()])
        .with(&["--mode", "http", "--access-log", &file.display().to_string()])
        .with(&["--set", "log.access_format='agent=$http_user_agent ref=\"$http_referer\" status=$status'"])
        .in_text()
        .start();
    let mut client = Reader::of(connect(lb.address()));
    let evil = "x status=500 \"\u{202e}";
    client.send(format!("GET / HTTP/1.1\r\nHost: h\r\nUser-Agent: {evil}\r\nReferer: {evil}\r\n\r\n"));
    assert_eq!(client.response().status(), 200);
    let quoted = r#"x status=500 \"\u{202e}"#;
    assert_eq!(lines_of(&file, 1), [format!("agent=\"{quoted}\" ref=\"{quoted}\" status=200")]);
}

/// PATCHes the level of the log: the status, and the answer.
fn set_level(lb: &Lb, body: &str) -> (u16, Value) {
    let mut stream = connect(lb.admin());
    let host = lb.admin().to_string();
    let answer = request(&mut stream, "PATCH", "/api/v1/log", &[("Host", &host)], body).unwrap();
    (answer.status, answer.json())
}

#[test]
fn the_level_of_the_log_is_changed_by_the_api_the_command_and_a_reload() {
    let dead = Refusing::new();
    let yaml = |level: &str| {
        let backend = dead.address();
        format!("listen: 127.0.0.1:0\nbackends: ['{backend}']\nfailure_detection: off\nlog: {{level: {level}}}\n")
    };
    let lb = Lb::with_config(&yaml("info")).start();
    // Each client is refused, of which `debug` tells.
    let told = || {
        connect_and_read(lb.address());
        lb.log_lines_with("connect failed").len()
    };
    assert_eq!((told(), lb.api("/api/v1/log")), (0, json!({"level": "info", "configured": "info"})));
    assert_eq!(set_level(&lb, r#"{"level": "debug"}"#), (200, json!({"level": "debug", "configured": "info"})));
    wait_until("it is shown", || told() > 0);
    // A reload returns to the file's, also where that has not changed.
    lb.reload_with(&yaml("info"));
    assert_eq!(lb.api("/api/v1/log")["level"], "info");
    let before = lb.log_lines_with("connect failed").len();
    let reloads = |times| lb.wait_for_log("configuration reloaded", times);
    assert_eq!((0..3).map(|_| told()).max(), Some(before));
    lb.reload_with(&yaml("debug"));
    // What it has logged before that is in the log by now.
    assert_eq!(reloads(2)[1]["changes"], "log.level: info -> debug");
    assert_eq!(lb.log_lines_with("connect failed").len(), before);
    wait_until("it is shown", || told() > before);
    let admin = lb.admin().to_string();
    let command = |arguments: &[&str]| {
        let output = run_to_end(Folder::new().path(), &[arguments, &["--admin", &admin]].concat(), &[]);
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    };
    assert_eq!(command(&["log-level"]), (Some(0), "debug, as configured\n".to_owned()));
    let until = "error, until a reload returns to debug, as configured\n".to_owned();
    assert_eq!(command(&["log-level", "error"]), (Some(0), until));
    assert_eq!(lb.wait_for_log("log level changed by the API", 2)[1]["level"], "error");
    assert_eq!(command(&["log-level", "loud"]).0, Some(2));
    for (body, status) in [("", 400), ("{}", 400), ("{\"level\": 5}", 400), ("{\"level\": \"loud\"}", 422)] {
        assert_eq!(set_level(&lb, body).0, status, "{body}");
    }
    assert_eq!(set_level(&lb, &format!("{{\"level\": \"{}\"}}", "x".repeat(2_000))).0, 400);
    assert_eq!(post(lb.admin(), "/api/v1/log", &[]).status, 405);
}

#[test]
fn the_first_line_says_what_runs() {
    let pools: String = (10..40).map(|n| format!("  p{n}: {{backends: ['127.0.0.1:9']}}\n")).collect();
    let lb = Lb::with_config(&format!("listeners: {{a: {{bind: '127.0.0.1:0', pool: p10}}}}\npools:\n{pools}")).start();
    let first = lb.wait_for_log("starting", 1).remove(0);
    assert_eq!((&first["version"], &first["listeners"]), (&env!("CARGO_PKG_VERSION").into(), &"a".into()));
    assert!(first["commit"].as_str().is_some_and(|commit| !commit.is_empty()), "{first}");
    assert!(first["config"].as_str().is_some_and(|file| file.ends_with("test.yaml")), "{first}");
    assert!(first["pools"].as_str().is_some_and(|pools| pools.ends_with("p29 and 10 more")), "{first}");
}
