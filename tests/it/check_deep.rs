//! `lb check --deep`: what a start would meet on this machine, without starting anything.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::{Authority, Folder, Server, free_port, ordinary_user, required, run_to_end};

fn deep(folder: &Folder, yaml: &str) -> (Option<i32>, String, String) {
    folder.write("lb.yaml", yaml);
    let output = run_to_end(folder.path(), &["check", "--deep"], &[]);
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[test]
fn what_can_start_passes_and_leaves_no_trace() {
    let (folder, server) = (Folder::new(), Server::echo());
    folder.write("token", "secret\n");
    let (address, admin) = (free_port(), free_port());
    let yaml = format!(
        "listen: ['{address}', 'unix:{}/lb.sock']\nbackends: ['{}', 'localhost:{}']\nlog: {{access: access.log}}\n\
         admin: {{bind: '{admin}', socket: {}/admin.sock, token_file: token}}\n",
        folder.path().display(),
        server.address(),
        server.address().port(),
        folder.path().display()
    );
    let (code, shown, errors) = deep(&folder, &yaml);
    assert!(code == Some(0) && shown.contains("lb.yaml: valid"), "{shown}{errors}");
    let mut files: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|it| it.unwrap().file_name()).collect();
    files.sort();
    assert_eq!(files, ["lb.yaml", "token"]);
}

#[test]
fn each_thing_in_the_way_is_named_with_its_place_and_remedy() {
    let folder = Folder::new();
    let (taken, plain) = (TcpListener::bind("127.0.0.1:0").unwrap(), folder.write("plain", ""));
    let live = folder.path().join("live.sock");
    let _live = UnixListener::bind(&live).unwrap();
    let yaml = format!(
        "listen: ['{}', '203.0.113.9:1', 'unix:{}']\nbackends: [127.0.0.1:9, 'nobody.invalid:80']\n\
         admin: {{bind: 'unix:{}', token_file: none}}\nlog: {{access: no/dir/access.log, program: \
         'syslog:{}/none'}}\n",
        taken.local_addr().unwrap(),
        plain.display(),
        live.display(),
        folder.path().display()
    );
    let expected = [
        (3, "admin.token_file none can't be read: "),
        (3, "admin.bind unix:"),
        (4, "log.access no/dir/access.log can't be made in no/dir: No such file or directory"),
        (4, "log.program nobody receives syslog at "),
        (1, "listen[0] 127.0.0.1:"),
        (1, "listen[1] 203.0.113.9:1 can't be listened on: "),
        (1, "listen[2] unix:"),
        (2, "backends[1] nobody.invalid:80 can't be resolved: "),
    ];
    let (code, shown, errors) = deep(&folder, &yaml);
    assert_eq!((code, shown.as_str(), errors.lines().count()), (Some(1), "", expected.len() + 1), "{errors}");
    for (line, part) in expected {
        let place = format!("error: lb.yaml:{line}:");
        let is_told = errors.lines().any(|told| told.starts_with(&place) && told.contains(part));
        assert!(is_told, "{part:?} in line {line} in {errors}");
    }
    let output = run_to_end(folder.path(), &["check", "--deep", "--json"], &[]);
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((output.status.code(), report["problems"].as_array().unwrap().len()), (Some(1), expected.len()));
    // What is not valid is that, first.
    folder.write("lb.yaml", "listen: 127.0.0.1:0\nbackends: []\n");
    assert_eq!(run_to_end(folder.path(), &["check", "--deep"], &[]).status.code(), Some(2));
}

#[test]
fn certificates_must_be_good_now() {
    let (folder, authority) = (Folder::new(), Authority::new());
    authority.signed("good", "DNS:good.test", None);
    authority.signed("old", "DNS:old.test", Some("2020-01-01"));
    authority.signed("early", "DNS:early.test", Some("2035-01-01"));
    let yaml = |names: &[&str]| {
        let pairs: Vec<String> = names.iter().map(|name| authority.pair(name)).collect();
        let listener = "listen: 127.0.0.1:0\nbackends: [127.0.0.1:9]\nadmin: off\n";
        format!("{listener}tls: {{certificates: [{}]}}\n", pairs.join(", "))
    };
    assert_eq!(deep(&folder, &yaml(&["good"])).0, Some(0));
    for (name, told) in [
        ("old", "tls.certificates the certificate old.test has expired on 2020-01-11"),
        ("early", "the certificate early.test is good only from 2035-01-01"),
    ] {
        let (code, _, errors) = deep(&folder, &yaml(&["good", name]));
        assert!(code == Some(1) && errors.contains(told), "{errors}");
    }
}

#[test]
fn names_that_nobody_answers_for_keep_it_for_some_seconds_at_most() {
    let (folder, silent) = (Folder::new(), std::net::UdpSocket::bind("127.0.0.1:0").unwrap());
    let names: Vec<String> = (0..200).map(|n| format!("'a{n}.example:80'")).collect();
    let yaml = format!(
        "listen: 127.0.0.1:0\nbackends: [{}]\nadmin: off\nresolve: {{nameservers: ['{}']}}\n",
        names.join(", "),
        silent.local_addr().unwrap()
    );
    let began = Instant::now();
    let (code, _, errors) = deep(&folder, &yaml);
    assert!(code == Some(1) && errors.contains("can't be resolved: no"), "{errors}");
    // It is the 5 s of one name, not of each.
    assert!(began.elapsed() < Duration::from_secs(18), "{:?}", began.elapsed());
}

#[test]
fn a_log_that_may_not_be_written_is_found() {
    let user = ordinary_user();
    let folder = Folder::new();
    let file = folder.write("access.log", "");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o400)).unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    folder.write("lb.yaml", "listen: 127.0.0.1:0\nbackends: [127.0.0.1:9]\nadmin: off\nlog: {access: access.log}\n");
    let mut command = std::process::Command::new(required("setpriv"));
    command.args(["--reuid", &user.to_string(), "--clear-groups", "--", env!("CARGO_BIN_EXE_lb"), "check", "--deep"]);
    let output = command.current_dir(folder.path()).output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(1) && errors.contains("access.log can't be written: Permission"), "{errors}");
}
