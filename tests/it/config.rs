//! What is wrong with a configuration is said at once, with its place and its remedy, and nothing starts.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;

use crate::support::{Folder, Lb, Refusing, Server, free_port, get, run_to_end};

/// Files that must be refused. The comments at their top say how: `# expect: lb.yaml:LINE:COLUMN: path message`.
fn broken_files() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/broken");
    let mut files: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

fn errors(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn shown(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[track_caller]
fn assert_refused(output: &Output, fragment: &str) {
    let errors = errors(output);
    assert_eq!(output.status.code(), Some(2), "{errors}");
    assert!(errors.contains(fragment), "{fragment:?} is not in:\n{errors}");
}

/// `lb check` in a folder of its own, with this lb.yaml.
fn check(yaml: &str) -> Output {
    let folder = Folder::new();
    folder.write("lb.yaml", yaml);
    run_to_end(folder.path(), &["check"], &[])
}

#[test]
fn what_is_far_too_large_is_refused_before_it_is_read_as_yaml() {
    assert_refused(
        &check(&"# a comment\n".repeat(1_500_000)),
        "lb.yaml: can't be read: it is larger than 16777216 bytes",
    );
}

#[test]
fn every_problem_of_a_broken_file_is_listed_with_its_place_and_remedy() {
    let files = broken_files();
    assert!(files.len() >= 50, "{} broken files", files.len());
    let mut wrong = Vec::new();
    for file in files {
        let text = fs::read_to_string(&file).unwrap();
        let output = check(&text);
        let errors = errors(&output);
        let expected: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("# expect: ")).collect();
        let listed: Vec<&str> = errors.lines().filter_map(|line| line.strip_prefix("error: ")).collect();
        let is_listed = |text: &&str| listed.iter().any(|line| line.starts_with(text));
        let count = match expected.len() {
            1 => "1 problem; nothing was started".to_owned(),
            count => format!("{count} problems; nothing was started"),
        };
        let is_right = output.status.code() == Some(2)
            && !expected.is_empty()
            && listed.len() == expected.len()
            && expected.iter().all(is_listed)
            && errors.ends_with(&format!("{count}\n"))
            && output.stdout.is_empty();
        if !is_right {
            wrong.push(format!("{}: {}, not {expected:#?}:\n{errors}", file.display(), output.status));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn check_and_run_find_the_same_problems() {
    for file in broken_files() {
        let file = file.display().to_string();
        let folder = Folder::new();
        let checked = run_to_end(folder.path(), &["check", "-c", &file], &[]);
        for arguments in [vec!["-c", &file], vec!["run", "-c", &file]] {
            let ran = run_to_end(folder.path(), &arguments, &[]);
            assert_eq!((ran.status.code(), errors(&ran)), (Some(2), errors(&checked)), "{file}");
        }
    }
}

#[test]
fn nothing_is_bound_when_anything_is_wrong() {
    let folder = Folder::new();
    let socket = folder.path().join("lb.sock");
    let yaml = format!("listen: unix:{}\nbackends: [127.0.0.1:3001]\nattempts: 0\n", socket.display());
    folder.write("lb.yaml", yaml);
    assert_refused(&run_to_end(folder.path(), &["run"], &[]), "lb.yaml:3:1: attempts must be from 1 to 16");
    assert!(!socket.exists(), "the socket was bound");
}

#[test]
fn a_file_that_is_not_text_is_refused() {
    let folder = Folder::new();
    folder.write("lb.yaml", b"listen: \xff\xfe\n");
    assert_refused(&run_to_end(folder.path(), &["check"], &[]), "lb.yaml: can't be read");
}

#[test]
fn a_missing_file_is_one_clear_error() {
    let folder = Folder::new();
    let named = run_to_end(folder.path(), &["run", "-c", "absent.yaml"], &[]);
    assert_refused(&named, "absent.yaml: can't be read: No such file or directory");
    assert_eq!(errors(&named).lines().count(), 2, "one error and the count");
    if !Path::new("/etc/lb/lb.yaml").exists() {
        assert_refused(&run_to_end::<&str>(folder.path(), &[], &[]), "neither ./lb.yaml nor /etc/lb/lb.yaml exists");
    }
}

#[test]
fn an_unreadable_file_is_one_clear_error() {
    let folder = Folder::new();
    fs::create_dir(folder.path().join("lb.yaml")).unwrap();
    assert_refused(&run_to_end(folder.path(), &["check"], &[]), "lb.yaml: can't be read: Is a directory");
}

#[test]
fn a_nonsense_backend_is_one_clear_error() {
    let folder = Folder::new();
    let listen = free_port().to_string();
    let output = run_to_end(folder.path(), &["--listen", &listen, "--backend", "nonsense"], &[]);
    assert_refused(&output, "error: --backend: backends[0] `nonsense` is not a backend's address");
    for (backend, fragment) in [
        ("127.0.0.1:3001,weight=x", "weight must be from 0 to 256"),
        ("127.0.0.1:3001,weight=257", "weight must be from 0 to 256"),
        ("127.0.0.1:3001,spare", "`spare` is unknown; write ADDR[,weight=N][,backup[=N]]"),
    ] {
        assert_refused(&run_to_end(folder.path(), &["--listen", &listen, "--backend", backend], &[]), fragment);
    }
}

#[test]
fn wrong_flags_are_refused_with_their_names() {
    let folder = Folder::new();
    let valid = ["check", "--listen", "127.0.0.1:8080", "--backend", "127.0.0.1:3001"];
    for (flag, value, fragment) in [
        ("--policy", "fastest", "--policy: policy `fastest` is unknown"),
        ("--mode", "quic", "--mode: mode `quic` is unknown"),
        ("--connect-timeout", "0s", "--connect-timeout: connect_timeout must be more than zero"),
        ("--idle-timeout", "soon", "--idle-timeout: timeouts.idle `soon` is not a duration"),
        ("--drain-timeout", "soon", "--drain-timeout: drain.timeout `soon` is not a duration"),
        ("--workers", "0", "--workers: workers must be from 1 to 1024, or auto"),
        ("--max-connections", "0", "--max-connections: max_connections must be at least 1, or auto"),
        ("--admin", "here", "--admin: admin.bind `here` is not an address"),
        ("--log-level", "loud", "--log-level: log.level `loud` is unknown"),
        ("--log-format", "xml", "--log-format: log.format `xml` is unknown"),
        ("--set", "attempts", "--set attempts: write PATH=VALUE"),
        ("--set", "attempts=0", "--set attempts=0: attempts must be from 1 to 16"),
        ("--set", "attemps=1", "--set attemps=1: attemps is an unknown key; did you mean `attempts`?"),
        ("--set", "listen.more=1", "--set listen.more=1: listen.more doesn't exist in the configuration"),
    ] {
        let arguments = [valid.as_slice(), &[flag, value]].concat();
        assert_refused(&run_to_end(folder.path(), &arguments, &[]), fragment);
    }
    let unknown = run_to_end(folder.path(), &["--frobnicate"], &[]);
    assert_refused(&unknown, "unexpected argument '--frobnicate'");
}

#[test]
fn a_taken_port_is_one_clear_error_of_the_run() {
    let folder = Folder::new();
    let taken = Refusing::new().listen();
    let taken = taken.local_addr().unwrap().to_string();
    let free = free_port().to_string();
    for (listen, admin) in [(&taken, &free), (&free, &taken)] {
        let arguments = ["--listen", listen, "--backend", "127.0.0.1:1", "--admin", admin, "--log-level", "error"];
        let output = run_to_end(folder.path(), &arguments, &[]);
        let errors = errors(&output);
        assert_eq!(output.status.code(), Some(1), "{errors}");
        assert_eq!(errors.lines().count(), 1, "{errors}");
        assert!(errors.starts_with("error: can't listen on ") && errors.contains(&taken), "{errors}");
        assert!(errors.contains("Address already in use"), "{errors}");
    }
}

#[test]
fn an_access_log_that_cannot_be_opened_is_an_error_of_the_run() {
    let folder = Folder::new();
    let listen = free_port().to_string();
    let arguments = ["--listen", &listen, "--backend", "127.0.0.1:1", "--admin", "off", "--access-log", "/no/such/log"];
    let output = run_to_end(folder.path(), &arguments, &[]);
    assert_eq!(output.status.code(), Some(1));
    assert!(errors(&output).contains("can't open the access log"), "{}", errors(&output));
    assert!(errors(&output).contains("/no/such/log"), "{}", errors(&output));
}

#[test]
fn the_shipped_file_is_valid() {
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("lb.yaml").display().to_string();
    let folder = Folder::new();
    let output = run_to_end(folder.path(), &["check", "-c", &shipped], &[]);
    assert_eq!(output.status.code(), Some(0), "{}", errors(&output));
    assert!(shown(&output).contains("valid; listeners: 1, pools: 1, backends: 2"), "{}", shown(&output));
}

#[test]
fn off_has_other_words_wherever_it_is_a_value() {
    const KEYS: [&str; 13] = [
        "proxy_protocol",
        "tls",
        "http.redirect",
        "send_proxy",
        "failure_detection",
        "health_check",
        "admin.bind",
        "admin.socket",
        "log.access",
        "timeouts.idle",
        "timeouts.half_closed",
        "first_byte_timeout",
        "drain.upgrade_timeout",
    ];
    let print = |value: &str| {
        let sets = KEYS.map(|key| format!("{key}={value}"));
        let mut arguments = vec!["check", "--print", "--listen", "127.0.0.1:0", "--backend", "127.0.0.1:1"];
        sets.iter().for_each(|set| arguments.extend(["--set", set]));
        let output = run_to_end(Folder::new().path(), &arguments, &[]);
        assert_eq!(output.status.code(), Some(0), "{value}: {}", errors(&output));
        shown(&output)
    };
    let off = print("off");
    // And `tls` of the pool, which takes `on`, too.
    assert_eq!(off.matches("off").count(), KEYS.len() + 1, "{off}");
    for word in ["false", "no", "'false'", "No", "OFF", "FALSE"] {
        assert_eq!(print(word), off, "{word}");
    }
    for flag in ["--admin", "--access-log"] {
        let arguments = ["check", "--listen", "127.0.0.1:0", "--backend", "127.0.0.1:1", flag, "no"];
        assert_eq!(run_to_end(Folder::new().path(), &arguments, &[]).status.code(), Some(0), "{flag}");
    }
    for word in ["on", "yes", "true", "'true'"] {
        for key in KEYS {
            let set = format!("{key}={word}");
            let arguments = ["check", "--listen", "127.0.0.1:0", "--backend", "127.0.0.1:1", "--set", &set];
            assert_refused(&run_to_end(Folder::new().path(), &arguments, &[]), key);
        }
    }
}

#[test]
fn an_access_log_that_is_off_by_any_word_makes_no_file() {
    let server = Server::named("here");
    let lb = Lb::in_front_of(&[server.address()]).with(&["--access-log", "no"]).start();
    assert_eq!(get(lb.address(), "/").body, "here");
    assert!(!lb.folder().join("no").exists());
}

#[test]
fn a_byte_order_mark_is_no_part_of_the_configuration() {
    let output = check("\u{feff}listen: 127.0.0.1:8080\nbackends: [127.0.0.1:3001]\n");
    assert_eq!(output.status.code(), Some(0), "{}", errors(&output));
}

#[test]
fn a_listener_may_have_another_one_as_its_backend() {
    let chain = "listeners:\n  a: {bind: '*:8080', pool: p}\n  b: {bind: '127.0.0.1:8081', pool: q}\n\
                 pools:\n  p: {backends: ['127.0.0.1:8081']}\n  q: {backends: [10.0.0.1:8080]}\n";
    let output = check(chain);
    assert_eq!(output.status.code(), Some(0), "{}", errors(&output));
}
