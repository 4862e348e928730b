//! Who may ask the admin server for what, and what its clients can't do to it.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::{
    Folder, Lb, RELOAD, Reader, Refusing, ask_from, assert_api_error, backend_path, connect, greeter, greeting, post,
    read_to_end, request, run_to_end, short_read, start_with_file, wait_until,
};

fn refusals(lb: &Lb, reason: &str) -> f64 {
    lb.metrics().sum("admin_refused_total", &[("reason", reason)])
}

#[test]
fn pages_of_other_sites_and_foreign_names_are_refused_and_counted() {
    let server = greeter("here");
    let lb = Lb::in_front_of(&[server.address()]).start();
    let port = lb.admin().port();
    let path = backend_path(server.address(), "drain");
    let host = format!("127.0.0.1:{port}");
    let own = format!("http://{host}");
    for origin in
        ["http://evil.example", "null", "", "http://127.0.0.1:1", &format!("https://{host}"), &format!("{own}.evil")]
    {
        assert_api_error(&post(lb.admin(), &path, &[("Origin", origin)]), 403, "another site");
    }
    assert_eq!(refusals(&lb, "foreign_origin"), 6.0);
    let foreign =
        ["evil.example", "127.0.0.1.evil.example", "localhost.evil.example:9900", "", "127.0.0.1@evil.example"];
    for name in foreign {
        let origin = format!("http://{name}");
        assert_api_error(&post(lb.admin(), &path, &[("Host", name), ("Origin", &origin)]), 403, "allowed_hosts");
    }
    assert_eq!(refusals(&lb, "foreign_host"), 5.0);
    assert_eq!(lb.state_of(server.address()), "up", "nothing was changed");

    for name in [host.as_str(), &format!("localhost:{port}"), &format!("[::1]:{port}"), "LOCALHOST", "10.1.2.3"] {
        let origin = format!("http://{name}");
        let answer = post(lb.admin(), &path, &[("Host", name), ("Origin", &origin)]);
        assert_eq!(answer.status, 200, "{name}: {answer:?}");
    }
    assert_eq!(lb.metrics().sum("admin_refused_total", &[]), 11.0);
}

#[test]
fn a_rebinding_page_reads_nothing_and_scrapers_read_by_any_name() {
    let server = greeter("here");
    let lb = Lb::in_front_of(&[server.address()]).start();
    let get = |path: &str, headers: &[(&str, &str)]| ask_from(lb.admin(), "GET", path, headers).unwrap();
    let reports = ["/", "/page.js", "/api/v1/status", "/api/v1/pools", "/api/v1/openapi.json"];
    for path in reports {
        assert_api_error(&get(path, &[("Host", "evil.example:9900")]), 403, "admin.allowed_hosts");
        assert_api_error(&get(path, &[("Origin", "http://evil.example")]), 403, "another site");
        assert_eq!(get(path, &[("Accept-Language", "en")]).status, 200, "{path}");
    }
    for name in ["evil.example:9900", "lb.default.svc:9900", "lb"] {
        for path in ["/metrics", "/healthz", "/readyz"] {
            assert_eq!(get(path, &[("Host", name)]).status, 200, "{path} of {name}");
        }
        assert_api_error(&get("/metrics", &[("Host", name), ("Accept-Language", "en")]), 403, "admin.allowed_hosts");
        assert_eq!(get("/healthz", &[("Host", name), ("Accept-Language", "en")]).status, 200, "{name}");
    }
    assert_eq!((refusals(&lb, "foreign_host"), refusals(&lb, "foreign_origin")), (8.0, 5.0));
}

#[test]
fn refusals_are_counted_in_full_and_logged_seldom() {
    let server = greeter("here");
    let lb = Lb::in_front_of(&[server.address()]).start();
    for _ in 0..300 {
        assert_eq!(post(lb.admin(), RELOAD, &[("Host", "evil.example")]).status, 403);
    }
    assert_api_error(&post(lb.admin(), RELOAD, &[("Origin", "null")]), 403, "another site");
    assert_eq!(refusals(&lb, "foreign_host"), 300.0);
    // One each ten seconds, if it takes so long.
    let lines = lb.wait_for_log("a request was refused", 2);
    assert!((2..50).contains(&lines.len()), "{} lines", lines.len());
    assert_eq!(lines[0]["unlogged"], 0);
}

#[test]
fn a_token_that_others_can_read_is_warned_of() {
    let server = greeter("here");
    let folder = Folder::new();
    let token = folder.write("token", "secret\n");
    for (mode, warnings) in [(0o600, 0), (0o640, 1), (0o604, 1), (0o622, 1)] {
        std::fs::set_permissions(&token, std::fs::Permissions::from_mode(mode)).unwrap();
        let lb = Lb::in_front_of(&[server.address()]).set("admin.token_file", token.display()).start();
        let lines = lb.log_lines_with("others than its owner can read or change the admin server's token: chmod 600");
        assert_eq!(lines.len(), warnings, "{mode:o}");
    }
}

#[test]
fn names_of_allowed_hosts_are_its_own() {
    let server = greeter("here");
    let lb = Lb::in_front_of(&[server.address()]).set("admin.allowed_hosts", "[lb.internal]").start();
    let path = backend_path(server.address(), "drain");
    let from = |host: &str| post(lb.admin(), &path, &[("Host", host), ("Origin", &format!("http://{host}"))]).status;
    assert_eq!((from("lb.internal"), from("LB.Internal:80"), from("other.internal")), (200, 200, 403));
}

#[test]
fn others_than_this_machine_need_a_token() {
    let server = greeter("here");
    let backend = server.address().to_string();
    let arguments = ["--listen", "127.0.0.1:0", "--backend", &backend, "--admin", "0.0.0.0:0"];
    let lb = Lb::with_arguments(&arguments).start();
    assert_eq!(lb.api("/api/v1/status")["may_post"], false);
    let path = backend_path(&backend, "drain");
    assert_api_error(&post(lb.admin(), &path, &[("Host", "127.0.0.1")]), 403, "set admin.token_file");
    // A token that nobody asked for opens nothing.
    let headers = [("Host", "127.0.0.1"), ("Authorization", "Bearer x")];
    assert_api_error(&post(lb.admin(), &path, &headers), 403, "set admin.token_file");
    assert_api_error(&post(lb.admin(), "/api/v1/shutdown", &[("Host", "127.0.0.1")]), 403, "set admin.token_file");
    assert_api_error(&post(lb.admin(), RELOAD, &[("Host", "127.0.0.1")]), 403, "set admin.token_file");
    assert_eq!(refusals(&lb, "no_token_file"), 4.0);
    assert_eq!((lb.state_of(server.address()), lb.ask("/readyz").status), ("up".to_owned(), 200));
}

#[test]
fn the_token_opens_and_nothing_else_does() {
    let server = greeter("here");
    let folder = Folder::new();
    let token = folder.write("token", "first secret\n");
    let lb = Lb::in_front_of(&[server.address()]).set("admin.token_file", token.display()).start();
    assert_eq!(lb.api("/api/v1/status")["may_post"], false);
    let path = backend_path(server.address(), "drain");
    let with = |token: &str| post(lb.admin(), &path, &[("Authorization", token)]);

    let without = post(lb.admin(), &path, &[]);
    assert_api_error(&without, 401, "Authorization: Bearer");
    assert_eq!(without.header("www-authenticate"), Some("Bearer"));
    for wrong in
        ["Bearer first secre", "Bearer first secret!", "Bearer ", "Bearer", "Basic first secret", "first secret"]
    {
        let answer = with(wrong);
        assert_api_error(&answer, 401, "not the one");
        assert_eq!(answer.header("www-authenticate"), Some("Bearer"));
    }
    assert_eq!((refusals(&lb, "no_token"), refusals(&lb, "wrong_token")), (1.0, 6.0));
    assert_eq!(lb.state_of(server.address()), "up");
    let foreign = [("Authorization", "Bearer first secret"), ("Origin", "http://evil.example")];
    assert_eq!(post(lb.admin(), &path, &foreign).status, 403, "a token doesn't make a foreign page ours");

    assert_eq!(with("Bearer first secret").json(), json!({"result": "draining"}));
    for open in ["/", "/healthz", "/readyz", "/metrics", "/api/v1/status", "/api/v1/pools", "/api/v1/openapi.json"] {
        assert_eq!(lb.ask(open).status, 200, "{open} needs no token");
    }
    assert!(!lb.log_text().contains("secret"), "the token stays out of the log");
}

#[test]
fn the_scheme_of_the_token_may_have_any_case() {
    // RFC 9110, 11.1.
    let server = greeter("here");
    let folder = Folder::new();
    let token = folder.write("token", "secret");
    let lb = Lb::in_front_of(&[server.address()]).set("admin.token_file", token.display()).start();
    let answer = post(lb.admin(), &backend_path(server.address(), "drain"), &[("Authorization", "bearer secret")]);
    assert_eq!(answer.status, 200, "{answer:?}");
}

#[test]
fn the_token_may_have_letters_beyond_ascii() {
    let server = greeter("here");
    let folder = Folder::new();
    let token = folder.write("token", "pässwörd\n");
    let lb = Lb::in_front_of(&[server.address()]).set("admin.token_file", token.display()).start();
    let path = backend_path(server.address(), "drain");
    assert_eq!(post(lb.admin(), &path, &[("Authorization", "Bearer pässwörd")]).status, 200);
}

#[test]
fn a_reload_takes_the_tokens_file_anew() {
    let server = greeter("here");
    let folder = Folder::new();
    let token = folder.write("token", "first");
    let lb = Lb::in_front_of(&[server.address()]).set("admin.token_file", token.display()).start();
    let reload = |token: &str| post(lb.admin(), RELOAD, &[("Authorization", &format!("Bearer {token}"))]);

    folder.write("token", "second\n");
    assert_eq!(reload("second").status, 401, "not before the reload");
    assert_eq!(reload("first").status, 200);
    assert_eq!((reload("first").status, reload("second").status), (401, 200));

    // A file without a token, or none: the reload fails, and the token of before stays.
    folder.write("token", " \n");
    assert_api_error(&reload("second"), 422, "it is empty");
    std::fs::remove_file(&token).unwrap();
    assert_api_error(&reload("second"), 422, "token");
    folder.write("token", "third");
    assert_eq!((reload("second").status, reload("third").status), (200, 200));
}

#[test]
fn wrong_methods_are_answered_with_the_right_ones() {
    let server = greeter("here");
    let lb = Lb::in_front_of(&[server.address()]).start();
    let drain = backend_path(server.address(), "drain");
    for path in [drain.as_str(), RELOAD, "/api/v1/shutdown"] {
        for method in ["GET", "PUT", "DELETE", "PATCH", "OPTIONS", "BREW"] {
            let answer = ask_from(lb.admin(), method, path, &[("Origin", "http://evil.example")]).unwrap();
            assert_api_error(&answer, 405, "POST");
            assert_eq!(answer.header("allow"), Some("POST"), "{method} {path}");
            assert!(
                !answer.head.to_ascii_lowercase().contains("access-control"),
                "no other site is let in: {answer:?}"
            );
        }
        let head = ask_from(lb.admin(), "HEAD", path, &[]).unwrap();
        assert_eq!((head.status, head.header("allow"), head.body.as_str()), (405, Some("POST"), ""));
    }
    for path in ["/", "/healthz", "/readyz", "/metrics", "/api/v1/status", "/api/v1/pools", "/api/v1/openapi.json"] {
        let answer = post(lb.admin(), path, &[]);
        assert_api_error(&answer, 405, "GET, HEAD");
        assert_eq!(answer.header("allow"), Some("GET, HEAD"), "{path}");
        let head = ask_from(lb.admin(), "HEAD", path, &[]).unwrap();
        assert_eq!((head.status, head.body.as_str()), (200, ""), "HEAD {path}");
        assert!(head.header("content-length").is_some_and(|length| length != "0"), "{head:?}");
    }
    assert_eq!(lb.state_of(server.address()), "up");
    assert_eq!(lb.metrics().sum("admin_refused_total", &[]), 0.0);
}

#[test]
fn a_body_is_of_no_interest() {
    let server = greeter("here");
    let lb = Lb::in_front_of(&[server.address()]).start();
    let host = lb.admin().to_string();
    let headers = [("Host", host.as_str()), ("Content-Type", "application/json")];
    for length in [2, 4 * 1024, 64 * 1024] {
        let body = "x".repeat(length);
        let path = backend_path(server.address(), "drain");
        let answer = request(&mut connect(lb.admin()), "POST", &path, &headers, &body).unwrap();
        assert_eq!(answer.json(), json!({"result": "draining"}), "{length} bytes");
    }
    // What looks like a request in it is none.
    let mut client = Reader::of(connect(lb.admin()));
    let inner = format!("POST {} HTTP/1.1\r\nHost: {host}\r\n\r\n", backend_path(server.address(), "disable"));
    let length = inner.len();
    let path = backend_path(server.address(), "enable");
    client.send(format!("POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Length: {length}\r\n\r\n{inner}"));
    assert_eq!(client.response().text(), r#"{"result":"up"}"#);
    client.send(format!("GET /healthz HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"));
    assert_eq!(client.response().text(), "ok\n");
    assert!(client.is_at_end());
    assert_eq!(lb.state_of(server.address()), "up");
}

#[test]
fn changes_work_over_a_unix_socket() {
    let server = greeter("here");
    let folder = Folder::new();
    let socket = folder.path().join("admin.sock");
    let (backend, admin) = (server.address().to_string(), format!("unix:{}", socket.display()));
    let _lb = Lb::with_arguments(&["--listen", "127.0.0.1:0", "--backend", &backend, "--admin", &admin]).start();
    let ask = |host| {
        let mut stream = UnixStream::connect(&socket).unwrap();
        request(&mut stream, "POST", &backend_path(&backend, "drain"), &[("Host", host)], "").unwrap()
    };
    assert_eq!(ask("localhost").json(), json!({"result": "draining"}));
    assert_eq!(ask("evil.example").status, 403);
}

/// What a container needs: metrics on the network, and commands from inside by the unix socket, whose mode is the key.
#[test]
fn those_who_may_write_to_the_socket_need_no_token() {
    let server = greeter("here");
    let folder = Folder::new();
    let (socket, token) = (folder.path().join("admin.sock"), folder.write("token", "secret\n"));
    std::fs::set_permissions(&token, std::fs::Permissions::from_mode(0o600)).unwrap();
    let lb = Lb::in_front_of(&[server.address()])
        .set("admin.token_file", token.display())
        .set("admin.socket", socket.display())
        .start();
    let admin = lb.admin().to_string();
    let command = |arguments: &[&str], variables: &[(&str, &str)]| run_to_end(folder.path(), arguments, variables);
    let refused = command(&["backend", "drain", "default", &server.address().to_string(), "--admin", &admin], &[]);
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");

    let path = socket.display().to_string();
    let inside = [("LB_ADMIN", admin.as_str()), ("LB_ADMIN_SOCKET", path.as_str())];
    let drained = command(&["backend", "drain", "default", &server.address().to_string()], &inside);
    assert_eq!(drained.status.code(), Some(0), "{drained:?}");
    assert_eq!(lb.state_of(server.address()), "draining");
    let status = command(&["status", "--quiet"], &inside);
    assert_eq!(status.status.code(), Some(0), "{status:?}");
    // Nobody but the owner may write to it, with the usual umask.
    let mode = std::fs::metadata(&socket).unwrap().permissions().mode();
    assert_eq!(mode & 0o002, 0, "{mode:o}");
}

#[test]
fn a_huge_head_is_refused_and_hurts_nobody() {
    let server = greeter("here");
    let lb = Lb::in_front_of(&[server.address()]).start();
    let huge = format!("X-Huge: {}\r\n", "x".repeat(100_000));
    let many = "X: y\r\n".repeat(20_000);
    for headers in [huge, many] {
        let mut client = connect(lb.admin());
        let head = format!("POST {RELOAD} HTTP/1.1\r\nHost: {}\r\n{headers}\r\n", lb.admin());
        // It may close before all is sent, and what it said may be lost with that.
        let _ = client.write_all(head.as_bytes());
        let mut answer = Vec::new();
        let _ = client.read_to_end(&mut answer);
        let answer = String::from_utf8_lossy(&answer).into_owned();
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 431 "), "{answer}");
        assert_eq!(greeting(lb.address()), "here");
        assert_eq!(lb.ask("/healthz").status, 200);
    }
    assert_eq!(lb.metrics().sum("config_reloads_total", &[]), 0.0);
}

#[test]
fn a_head_that_comes_slowly_is_cut_off() {
    let server = greeter("here");
    let lb = Lb::in_front_of(&[server.address()]).start();
    let began = Instant::now();
    let mut client = connect(lb.admin());
    client.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX-Slow: ").unwrap();
    // A byte now and then is no head.
    client.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    wait_until("it closes", || {
        let sent = client.write_all(b"x");
        match client.read(&mut [0; 1024]) {
            Ok(length) => length == 0,
            Err(error) => sent.is_err() || error.kind() == std::io::ErrorKind::ConnectionReset,
        }
    });
    assert!(began.elapsed() > Duration::from_secs(4), "a slow network is given some time");
    assert_eq!(lb.ask("/healthz").status, 200);
}

#[test]
fn a_hundred_idle_clients_of_the_admin_server_hurt_nobody() {
    let server = greeter("here");
    let lb = Lb::in_front_of(&[server.address()]).start();
    let mut idle: Vec<TcpStream> = (0..100).map(|_| connect(lb.admin())).collect();
    let mut live = connect(lb.address());
    assert_eq!(short_read(&mut live), "here");
    for _ in 0..50 {
        assert_eq!(greeting(lb.address()), "here");
    }
    // Neither those that said nothing, nor those that have said half or don't read what they asked for, are waited for.
    let (half, whole) = ("GET /metrics HTTP/1.1\r\n", "GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n");
    for said in [String::new(), half.to_owned(), whole.repeat(20)] {
        idle.extend((0..100).map(|_| {
            let mut client = connect(lb.admin());
            client.write_all(said.as_bytes()).unwrap();
            client
        }));
        assert_eq!(lb.ask("/healthz").status, 200);
        let newest = idle.last_mut().unwrap();
        newest.set_nonblocking(true).unwrap();
        // Had its own time been waited for, it would be closed: the answer came while it was served.
        let is_open = match newest.peek(&mut [0]) {
            Ok(length) => length > 0,
            Err(error) => error.kind() == std::io::ErrorKind::WouldBlock,
        };
        assert!(is_open, "{said:?}: the newest was closed");
        newest.set_nonblocking(false).unwrap();
    }
    idle.truncate(100);
    live.write_all(b"unharmed").unwrap();
    assert_eq!(short_read(&mut live), "unharmed");
    drop(live);
    for mut client in idle {
        assert_eq!(read_to_end(&mut client).0, b"", "it is closed without a word");
    }
}

#[test]
fn the_description_names_what_the_reports_have() {
    let (server, dead) = (greeter("here"), Refusing::new());
    let folder = Folder::new();
    let yaml = format!(
        "listen: 127.0.0.1:0\nbackends: ['{}', '{}']\nadmin: {{bind: 127.0.0.1:0}}\n",
        server.address(),
        dead.address()
    );
    let lb = start_with_file(&folder, &yaml);
    (0..3).for_each(|_| drop(greeting(lb.address())));
    assert_eq!(post(lb.admin(), RELOAD, &[]).status, 200);
    let description = lb.api("/api/v1/openapi.json");
    let (status, pools) = (lb.api("/api/v1/status"), lb.api("/api/v1/pools"));
    for (schema, report) in [
        ("StatusReport", &status),
        ("ConnectionsReport", &status["connections"]),
        ("ReloadReport", &status["last_reload"]),
        ("ListenerReport", &status["listeners"][0]),
        ("PoolsReport", &pools),
        ("PoolReport", &pools["pools"][0]),
        ("BackendReport", &pools["pools"][0]["backends"][0]),
    ] {
        let keys = |object: &Value| object.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
        let mut described = keys(&description["components"]["schemas"][schema]["properties"]);
        let mut reported = keys(report);
        let required = description["components"]["schemas"][schema]["required"].as_array().unwrap().len();
        described.sort();
        reported.sort();
        assert_eq!(described, reported, "{schema}");
        assert_eq!(required, described.len(), "{schema}: every key is always there");
    }
}
