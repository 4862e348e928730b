//! Health checks of databases, directories and mail servers, each in its own protocol: roles, logins, polite ends.

use std::ffi::OsStr;
use std::fs;
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::path::PathBuf;

use crate::support::{
    Folder, Lb, Mariadb, PASSWORD, Server, mail_server, output_of, postgres, postgres_replica, postgres_with, redis,
    required, slapd, wait_for, wait_until,
};

/// In front of these, all in one pool, with a check of this kind. What logs in is in the file `password`.
fn lb(backends: &[SocketAddr], kind: &str) -> Lb {
    let check = format!("{{interval: 50ms, timeout: 5s, rise: 2, fall: 3, {kind}}}");
    Lb::in_front_of(backends).with_file("password", &format!("{PASSWORD}\n")).set("health_check", check).start()
}

#[track_caller]
fn assert_passes(lb: &Lb, backend: SocketAddr) {
    wait_until("three checks went well", || {
        let report = lb.backend(backend);
        assert_ne!(report["state"], "down", "{report}");
        let labels = [("backend", &*backend.to_string()), ("result", "success")];
        lb.metrics().sum("health_checks_total", &labels) >= 3.0
    });
}

#[track_caller]
fn assert_fails(lb: &Lb, backend: SocketAddr, reason: &str) {
    assert_is(lb, backend, "down", reason);
}

/// It is well, in another role.
#[track_caller]
fn assert_stands_by(lb: &Lb, backend: SocketAddr, reason: &str) {
    assert_is(lb, backend, "standby", reason);
}

#[track_caller]
fn assert_is(lb: &Lb, backend: SocketAddr, state: &str, reason: &str) {
    let is_so = || Some(lb.backend(backend)).filter(|backend| backend["state"] == state);
    assert_eq!(wait_for(&format!("the check says {state}"), is_so)["last_check"]["reason"], reason);
}

#[test]
fn redis_is_asked_for_its_role_and_a_swap_is_noticed() {
    let folder = Folder::new();
    let one = redis(&folder, &["--requirepass", PASSWORD, "--masterauth", PASSWORD]);
    let (ip, port) = (one.address().ip().to_string(), one.address().port().to_string());
    let two = redis(&folder, &["--requirepass", PASSWORD, "--masterauth", PASSWORD, "--replicaof", &ip, &port]);
    let servers = [one.address(), two.address()];
    let masters = lb(&servers, "redis: {role: master, password_file: password}");
    let replicas = lb(&servers, "redis: {role: replica, username: default, password_file: password}");
    let anybody = lb(&servers, "redis: {password_file: password}");
    assert_stands_by(&masters, two.address(), "expected role `master`, got `slave`");
    assert_stands_by(&replicas, one.address(), "expected role `slave`, got `master`");
    assert_passes(&anybody, one.address());
    assert_passes(&anybody, two.address());
    let cli = required("redis-cli");
    let tell = |server: SocketAddr, words: &[&str]| {
        let port = server.port().to_string();
        output_of(&cli, &[&["--no-auth-warning", "-a", PASSWORD, "-p", &port], words].concat())
    };
    tell(two.address(), &["REPLICAOF", "NO", "ONE"]);
    tell(one.address(), &["REPLICAOF", "127.0.0.1", &two.address().port().to_string()]);
    wait_until("the roles are swapped", || {
        masters.state_of(one.address()) == "standby" && masters.state_of(two.address()) == "up"
    });
    wait_until("for readers too", || {
        replicas.state_of(one.address()) == "up" && replicas.state_of(two.address()) == "standby"
    });
}

#[test]
fn a_server_that_repeats_the_password_does_not_get_it_shown() {
    let repeating = Server::that(|mut stream| {
        let _ = stream.read(&mut [0; 1000]);
        let _ = write!(stream, "-ERR unknown command 'AUTH', with args: '{PASSWORD}'\r\n");
    });
    let check = lb(&[repeating.address()], "redis: {password_file: password}");
    assert_fails(&check, repeating.address(), "AUTH answered `ERR unknown command 'AUTH', with args: '***'`");
    assert!(!check.log_text().contains(PASSWORD));
}

#[test]
fn redis_says_itself_why_it_answers_no_more() {
    let folder = Folder::new();
    let server = redis(&folder, &["--requirepass", "another"]);
    let without = lb(&[server.address()], "redis: {}");
    assert_fails(&without, server.address(), "PING answered `NOAUTH Authentication required.`");
    let wrong = lb(&[server.address()], "redis: {password_file: password}");
    let reason = "AUTH answered `WRONGPASS invalid username-password pair or user is disabled.`";
    assert_fails(&wrong, server.address(), reason);
    let mail = mail_server();
    let other = lb(&[mail.address()], "redis: {}");
    wait_until("it is down", || other.state_of(mail.address()) == "down");
    assert!(other.backend(mail.address())["reason"].as_str().unwrap().contains("no Redis: `220 "));
}

#[test]
fn postgresql_is_asked_for_its_role_and_counts_no_failed_login() {
    let (of_primary, of_replica) = (Folder::new(), Folder::new());
    let primary = postgres(&of_primary);
    let replica = postgres_replica(&of_replica, primary.address());
    let servers = [primary.address(), replica.address()];
    let login = "user: tester, database: postgres, password_file: password";
    let writers = lb(&servers, &format!("postgres: {{role: primary, {login}}}"));
    let readers = lb(&servers, &format!("postgres: {{role: replica, {login}}}"));
    // Without a login: the user need not be there.
    let anybody = lb(&servers, "postgres: {user: nobody}");
    assert_stands_by(&writers, replica.address(), "expected a primary, got a replica");
    assert_stands_by(&readers, primary.address(), "expected a replica, got a primary");
    for (lb, server) in [(&writers, &primary), (&readers, &replica), (&anybody, &primary), (&anybody, &replica)] {
        assert_passes(lb, server.address());
    }
    for folder in [&of_primary, &of_replica] {
        let log = fs::read_to_string(folder.path().join("log")).unwrap();
        let complaints = ["FATAL", "ERROR", "could not", "unexpected", "invalid"];
        let wrong: Vec<_> = log.lines().filter(|line| complaints.iter().any(|word| line.contains(word))).collect();
        // The replica connects to the primary as soon as it can.
        assert!(wrong.iter().all(|line| line.contains("starting up")), "{wrong:#?}");
    }
}

#[test]
fn postgresql_says_itself_why_a_login_fails() {
    let folder = Folder::new();
    let server = postgres(&folder);
    for (kind, reason) in [
        (
            "role: primary, user: nobody, password_file: password",
            r#"FATAL: password authentication failed for user "nobody""#,
        ),
        ("role: primary, user: tester", "the server wants a password (`password_file`)"),
        (
            "role: primary, user: tester, database: gone, password_file: password",
            r#"FATAL: database "gone" does not exist"#,
        ),
    ] {
        assert_fails(&lb(&[server.address()], &format!("postgres: {{{kind}}}")), server.address(), reason);
    }
    let check = lb(&[server.address()], "tls: {verify: off}, postgres: {user: tester}");
    assert_fails(&check, server.address(), "the server has TLS switched off (`ssl = off`)");
}

#[test]
fn mariadb_takes_a_login_and_counts_no_aborted_connection() {
    let folder = Folder::new();
    let users = ["create user checker@'127.0.0.1';", "create user locked@'127.0.0.1' identified by 'x';"];
    let server = Mariadb::start(&folder, &users, &["--max-connect-errors=3"]);
    let aborted = || server.sql("show global status like 'Aborted_connects'");
    // One is the test's own, which looked whether it accepts.
    wait_until("that one is counted", || !aborted().ends_with("\t0\n"));
    let before = aborted();
    let check = lb(&[server.address()], "mysql: {user: checker}");
    assert_passes(&check, server.address());
    assert_eq!(aborted(), before);
    // Any answer to a login is one.
    assert_passes(&lb(&[server.address()], "mysql: {}"), server.address());
    let refused = lb(&[server.address()], "mysql: {user: locked}");
    let reason = "the login is refused: error 1045, `Access denied for user 'locked'@'127.0.0.1' (using password: NO)`";
    assert_fails(&refused, server.address(), reason);
    // Nor is the host blocked.
    assert_passes(&check, server.address());
}

/// A certificate for 127.0.0.1, and its key.
fn self_signed(folder: &Folder) -> (PathBuf, PathBuf) {
    let (cert, key) = (folder.path().join("cert.pem"), folder.path().join("key.pem"));
    let arguments = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj /CN=db -days 9 -addext \
                     subjectAltName=IP:127.0.0.1";
    let mut arguments: Vec<&OsStr> = arguments.split_whitespace().map(OsStr::new).collect();
    arguments.extend([OsStr::new("-out"), cert.as_os_str(), OsStr::new("-keyout"), key.as_os_str()]);
    output_of(&required("openssl"), &arguments);
    (cert, key)
}

#[test]
fn databases_agree_on_tls_in_their_own_first_messages() {
    let (of_postgres, of_mariadb) = (Folder::new(), Folder::new());
    let (cert, key) = self_signed(&of_postgres);
    let settings = ["ssl=on".to_owned(), format!("ssl_cert_file={}", cert.display())];
    let settings = [&settings[..], &[format!("ssl_key_file={}", key.display())]].concat();
    let server = postgres_with(&of_postgres, &settings);
    let trusting = |cert: &PathBuf| format!("tls: {{ca_file: '{}'}}", cert.display());
    for kind in ["user: nobody", "role: primary, user: tester, database: postgres, password_file: password"] {
        let check = lb(&[server.address()], &format!("{}, postgres: {{{kind}}}", trusting(&cert)));
        assert_passes(&check, server.address());
    }
    let misnamed = trusting(&cert).replace('}', ", server_name: db.example}");
    let check = lb(&[server.address()], &format!("{misnamed}, postgres: {{user: nobody}}"));
    assert_fails(&check, server.address(), "certificate is for 127.0.0.1, not db.example");
    let (cert, key) = self_signed(&of_mariadb);
    let users = ["create user checker@'127.0.0.1' require ssl;"];
    let arguments = [format!("--ssl-cert={}", cert.display()), format!("--ssl-key={}", key.display())];
    let server = Mariadb::start(&of_mariadb, &users, &arguments.each_ref().map(String::as_str));
    let check = lb(&[server.address()], &format!("{}, mysql: {{user: checker}}", trusting(&cert)));
    assert_passes(&check, server.address());
    let plain = lb(&[server.address()], "mysql: {user: checker}");
    wait_until("it wants TLS", || plain.state_of(server.address()) == "down");
}

#[test]
fn a_directory_lets_anonymous_users_bind_or_says_that_it_does_not() {
    let (open, closed) = (Folder::new(), Folder::new());
    let servers = [slapd(&open, ""), slapd(&closed, "disallow bind_anon")];
    let lb = lb(&[servers[0].address(), servers[1].address()], "ldap: {}");
    assert_passes(&lb, servers[0].address());
    let reason = "an anonymous bind is refused with code 48: `anonymous bind disallowed`";
    assert_fails(&lb, servers[1].address(), reason);
}

#[test]
fn a_mail_server_greets_and_answers_or_says_that_it_does_not() {
    let mail = mail_server();
    let busy = Server::that(|mut stream| {
        let _ = stream.write_all(b"421-too many\r\n421 connections\r\n");
    });
    let lb = lb(&[mail.address(), busy.address()], "smtp: {hello: lb.example}");
    assert_passes(&lb, mail.address());
    assert_fails(&lb, busy.address(), "the greeting is `421-too many`");
}

/// What no client of any of these would take: each kind says so, in time, and keeps no memory of it.
#[test]
fn nonsense_fails_every_kind_of_check() {
    const KINDS: [&str; 7] =
        ["http: {}", "redis: {}", "postgres: {}", "postgres: {role: primary}", "mysql: {}", "smtp: {}", "ldap: {}"];
    let nonsense = Server::that(|mut stream| {
        let _ = stream.write_all(&[0xFF; 16]);
        let _ = stream.read(&mut [0; 1024]);
        while stream.write_all(&[0xFF; 4096]).is_ok() {}
    });
    let cut = Server::that(|mut stream| {
        let _ = stream.write_all(b"\0");
    });
    for (server, kind) in [&nonsense, &cut].into_iter().flat_map(|server| KINDS.map(|kind| (server, kind))) {
        // Without a check most of the time, so that none is open when files are counted.
        let check = format!("{{interval: 600ms, timeout: 200ms, {kind}}}");
        let lb = Lb::in_front_of(&[server.address()]).set("health_check", check).start();
        wait_until(kind, || lb.state_of(server.address()) == "down");
    }
}
