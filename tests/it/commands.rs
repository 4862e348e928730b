//! Commands, `lb status`, `lb backend` and `lb reload` first of all: what they print, how they end, what they advise.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Output, Stdio};

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::{
    Folder, Lb, Refusing, Server, connect, connect_and_read, free_port, get, greeting_unix_socket, lb_command,
    run_to_end, short_read, wait_for, wait_until,
};

/// How a command ended, as text.
struct Ended {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

impl From<Output> for Ended {
    fn from(output: Output) -> Self {
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        Self { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
    }
}

/// Runs a command that asks this balancer.
fn ask(lb: &Lb, arguments: &[&str]) -> Ended {
    run(&[arguments, &["--admin", &lb.admin().to_string()]].concat(), &[])
}

fn run(arguments: &[&str], environment: &[(&str, &str)]) -> Ended {
    run_to_end(Folder::new().path(), arguments, environment).into()
}

#[track_caller]
fn assert_fails_with(ended: &Ended, parts: &[&str]) {
    assert_eq!((ended.code, ended.stdout.as_str()), (Some(1), ""), "{}", ended.stderr);
    assert!(ended.stderr.starts_with("error: "), "{}", ended.stderr);
    for part in parts {
        assert!(ended.stderr.contains(part), "{part:?} in {:?}", ended.stderr);
    }
}

/// The words of the first row that has this one.
#[track_caller]
fn row<'a>(table: &'a str, word: &str) -> Vec<&'a str> {
    let rows = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    rows.into_iter().find(|words| words.contains(&word)).unwrap_or_else(|| panic!("no row with {word:?} in\n{table}"))
}

#[test]
fn the_table_shows_what_the_api_tells() {
    let (server, dead) = (Server::named("here"), Refusing::new());
    let folder = Folder::new();
    let (server_address, dead_address) = (server.address().to_string(), dead.address().to_string());
    let yaml = format!(
        "listeners:\n  web: {{bind: 127.0.0.1:0, pool: app}}\npools:\n  app:\n    backends: ['{dead_address}', \
         {{address: '{server_address}', weight: 7}}]\n    failure_detection: {{failures: 1}}\n\
         admin: {{bind: 127.0.0.1:0}}\n"
    );
    let file = folder.write("lb.yaml", yaml);
    let lb = Lb::with_arguments(&["-c", &file.display().to_string()]).start();
    for _ in 0..9 {
        assert_eq!(get(lb.address(), "/").body, "here");
    }
    wait_until("all are counted", || lb.api("/api/v1/status")["listeners"][0]["closed"] == 9);

    let shown = ask(&lb, &["status"]);
    assert_eq!((shown.code, shown.stderr.as_str()), (Some(0), ""));
    let table = shown.stdout;
    assert!(table.starts_with(&format!("lb {}: up ", env!("CARGO_PKG_VERSION"))), "{table}");
    let listener = row(&table, "web");
    assert_eq!(listener[1..6], [&lb.address().to_string(), "app", "0", "9", "0"], "{table}");
    let backend = row(&table, &server_address);
    assert_eq!((backend[0], &backend[2..8]), ("app", &["up", "0", "7", "0", "9", "0"][..]), "{table}");
    assert_eq!(row(&table, &dead_address)[2], "ejected");
    let dead_row = table.lines().find(|line| line.contains(&dead_address)).unwrap();
    assert!(dead_row.to_lowercase().contains("refused"), "it says why: {dead_row}");
    assert!(!table.contains('\x1b'), "no colours in a pipe");
    assert!(!table.contains("last reload"), "{table}");
}

#[test]
fn json_is_both_reports_of_the_api() {
    let server = Server::named("here");
    let lb = Lb::in_front_of(&[server.address()]).start();
    let shown = ask(&lb, &["status", "--json"]);
    assert_eq!((shown.code, shown.stderr.as_str()), (Some(0), ""));
    let mut reports: Value = serde_json::from_str(&shown.stdout).unwrap();
    let mut status = lb.api("/api/v1/status");
    for report in [&mut reports["status"], &mut status] {
        assert!(report["uptime_seconds"].take().is_number());
    }
    assert_eq!(reports, json!({"status": status, "pools": lb.api("/api/v1/pools")["pools"]}));
}

#[test]
fn the_exit_code_says_whether_it_is_ready() {
    let server = Server::echo();
    let lb = Lb::in_front_of(&[server.address()]).start();
    let quiet = ask(&lb, &["status", "-q"]);
    assert_eq!((quiet.code, quiet.stdout.as_str(), quiet.stderr.as_str()), (Some(0), "", ""));
    // Backends that fail or are drained leave the balancer ready.
    ask(&lb, &["backend", "drain", "default", &server.address().to_string()]);
    assert_eq!(ask(&lb, &["status", "-q"]).code, Some(0));
    ask(&lb, &["backend", "enable", "default", &server.address().to_string()]);

    let mut live = connect(lb.address());
    live.write_all(b"hello").unwrap();
    short_read(&mut live);
    lb.signal(Signal::TERM);
    wait_until("it drains", || lb.ask("/readyz").status == 503);
    assert_fails_with(&ask(&lb, &["status", "-q"]), &["not ready", "draining"]);
    let shown = ask(&lb, &["status"]);
    assert_eq!(shown.code, Some(1));
    assert!(shown.stdout.lines().next().is_some_and(|line| line.ends_with("draining")), "{}", shown.stdout);
    let json = ask(&lb, &["status", "--json"]);
    assert_eq!(json.code, Some(1));
    assert_eq!(serde_json::from_str::<Value>(&json.stdout).unwrap()["status"]["draining"], true);
}

#[test]
fn options_that_contradict_each_other_are_wrong_usage() {
    for both in [["--watch", "--json"], ["--quiet", "--watch"], ["--quiet", "--json"]] {
        let ended = run(&[&["status"], &both[..]].concat(), &[]);
        assert_eq!((ended.code, ended.stdout.as_str()), (Some(2), ""), "{both:?}");
        assert!(ended.stderr.contains("cannot be used with"), "{}", ended.stderr);
    }
    for incomplete in
        [&["backend"][..], &["backend", "drain"], &["backend", "drain", "default"], &["backend", "stop", "a", "b"]]
    {
        assert_eq!(run(incomplete, &[]).code, Some(2), "{incomplete:?}");
    }
}

/// `lb status --watch`, in a process whose output the test reads.
fn watch(folder: &Path, admin: &str) -> Child {
    let mut command = lb_command(folder);
    command.args(["status", "--watch", "--admin", admin]).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().unwrap()
}

/// Reads until a line has this, and gives that line.
#[track_caller]
fn line_with(output: &mut impl BufRead, part: &str) -> String {
    for line in output.lines() {
        let line = line.unwrap();
        if line.contains(part) {
            return line;
        }
    }
    panic!("the output ended before a line with {part:?}");
}

#[track_caller]
fn wait_for_exit(child: &mut Child) -> (Option<i32>, String) {
    let status = wait_for("the command ends", || child.try_wait().unwrap());
    let mut said = String::new();
    child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    (status.code(), said)
}

#[test]
fn watch_shows_it_again_with_rates_until_nobody_reads() {
    let server = Server::named("here");
    let lb = Lb::in_front_of(&[server.address()]).start();
    let folder = Folder::new();
    let mut child = watch(folder.path(), &lb.admin().to_string());
    let mut output = BufReader::new(child.stdout.take().unwrap());
    let address = server.address().to_string();
    let first = line_with(&mut output, &address);
    assert_eq!(first.split_whitespace().nth(6), Some("0"), "{first}");
    for _ in 0..5 {
        get(lb.address(), "/");
    }
    line_with(&mut output, "RATE/s");
    let second = line_with(&mut output, &address);
    let words: Vec<&str> = second.split_whitespace().collect();
    assert_eq!((words[6], words.last()), ("5", Some(&"5")), "{second}");
    // A change shows, too.
    ask(&lb, &["backend", "drain", "default", &address]);
    line_with(&mut output, "draining");
    drop(output);
    assert_eq!(wait_for_exit(&mut child), (Some(0), String::new()));
}

#[test]
fn watch_outlives_the_balancer() {
    let server = Server::named("here");
    let admin = free_port();
    let folder = Folder::new();
    let start = || {
        let backend = server.address().to_string();
        Lb::with_arguments(&["--listen", "127.0.0.1:0", "--backend", &backend, "--admin", &admin.to_string()]).start()
    };
    let first = start();
    let mut child = watch(folder.path(), &admin.to_string());
    let mut output = BufReader::new(child.stdout.take().unwrap());
    line_with(&mut output, "LISTENER");
    drop(first);
    line_with(&mut output, "is lb running?");
    let _second = start();
    line_with(&mut output, "LISTENER");
    rustix::process::kill_process(rustix::process::Pid::from_child(&child), Signal::INT).unwrap();
    // Read on: it must not end because nobody reads.
    output.read_to_end(&mut Vec::new()).unwrap();
    assert_eq!(wait_for_exit(&mut child), (Some(0), String::new()));
}

#[test]
fn backends_are_drained_disabled_and_enabled() {
    let (a, b) = (Server::named("a"), Server::named("b"));
    let lb = Lb::in_front_of(&[a.address(), b.address()]).start();
    let address = a.address().to_string();
    for (verb, state, bodies) in
        [("drain", "draining", ["b", "b"]), ("disable", "disabled", ["b", "b"]), ("enable", "up", ["a", "b"])]
    {
        let ended = ask(&lb, &["backend", verb, "default", &address]);
        assert_eq!(
            (ended.code, ended.stdout, ended.stderr),
            (Some(0), format!("default {address}: {state}\n"), String::new())
        );
        assert_eq!(lb.state_of(a.address()), state);
        let mut answers = [get(lb.address(), "/").body, get(lb.address(), "/").body];
        answers.sort();
        assert_eq!(answers, bodies);
    }
    assert_fails_with(&ask(&lb, &["backend", "drain", "app", &address]), &["there is no pool app"]);
    let unknown = ask(&lb, &["backend", "drain", "default", "127.0.0.1:1"]);
    assert_fails_with(&unknown, &["pool default has no backend 127.0.0.1:1"]);
    // What isn't a name doesn't lead elsewhere.
    assert_fails_with(
        &ask(&lb, &["backend", "drain", "../../reload?", "a/b#c d"]),
        &["there is no pool ../../reload?"],
    );
}

#[test]
fn a_unix_socket_is_asked_and_changed_as_well() {
    let folder = Folder::new();
    let socket = folder.path().join("app #1.sock");
    greeting_unix_socket(&socket, "unix");
    let backend = format!("unix:{}", socket.display());
    let admin = format!("unix:{}", folder.path().join("admin.sock").display());
    let lb = Lb::with_arguments(&["--listen", "127.0.0.1:0", "--backend", &backend, "--admin", &admin]).start();
    let drained = run(&["backend", "drain", "default", &backend, "--admin", &admin], &[]);
    assert_eq!(
        (drained.code, drained.stdout),
        (Some(0), format!("default {backend}: draining\n")),
        "{}",
        drained.stderr
    );
    assert_eq!(connect_and_read(lb.address()).0, b"");
    let shown = run(&["status"], &[("LB_ADMIN", &admin)]);
    assert_eq!(shown.code, Some(0), "{}", shown.stderr);
    assert!(shown.stdout.contains(&backend) && shown.stdout.contains("draining"), "{}", shown.stdout);
}

#[test]
fn a_reload_says_how_it_went() {
    let (a, b) = (Server::named("a"), Server::named("b"));
    let folder = Folder::new();
    let yaml = |backend: SocketAddr, more: &str| {
        format!("listen: 127.0.0.1:0\nbackends: ['{backend}']\nadmin: {{bind: 127.0.0.1:0}}\n{more}")
    };
    let file = folder.write("lb.yaml", yaml(a.address(), ""));
    let lb = Lb::with_arguments(&["-c", &file.display().to_string()]).start();
    folder.write("lb.yaml", yaml(b.address(), ""));
    let good = ask(&lb, &["reload"]);
    let changes = format!("  +pools.default.backends[{}]\n  -pools.default.backends[{}]\n", b.address(), a.address());
    assert_eq!(
        (good.code, good.stdout, good.stderr),
        (Some(0), format!("configuration reloaded\n{changes}"), String::new())
    );
    assert_eq!(get(lb.address(), "/").body, "b");
    let table = ask(&lb, &["status"]).stdout;
    assert!(table.contains("(success): configuration reloaded"), "{table}");

    // What can't change while it runs is said.
    folder.write("lb.yaml", yaml(b.address(), "workers: 1\n"));
    let late = ask(&lb, &["reload"]);
    assert_eq!(late.code, Some(0));
    assert!(late.stdout.contains("changes of workers need a restart"), "{}", late.stdout);

    folder.write("lb.yaml", yaml(a.address(), "bogus: 1\nmax_conections: 5\n"));
    let bad = ask(&lb, &["reload"]);
    assert_fails_with(&bad, &["bogus", "max_connections"]);
    assert_eq!(get(lb.address(), "/").body, "b", "the previous one stays in use");
    let table = ask(&lb, &["status"]).stdout;
    assert!(table.contains("(failure)") && table.contains("bogus"), "{table}");
    std::fs::remove_file(&file).unwrap();
    assert_fails_with(&ask(&lb, &["reload"]), &["lb.yaml"]);
}

#[test]
fn the_token_comes_from_its_file() {
    let server = Server::named("here");
    let folder = Folder::new();
    let token = folder.write("token", "the secret\n").display().to_string();
    let other = folder.write("other", "another").display().to_string();
    let lb = Lb::in_front_of(&[server.address()]).set("admin.token_file", &token).start();
    let (address, admin) = (server.address().to_string(), lb.admin().to_string());
    let drain = ["backend", "drain", "default", address.as_str(), "--admin", &admin];
    let with = |more: &[&str], environment: &[(&str, &str)]| run(&[&drain[..], more].concat(), environment);

    assert_fails_with(&with(&[], &[]), &["admin.token_file", "--token-file FILE"]);
    assert_fails_with(&with(&["--token-file", &other], &[]), &["not the one of admin.token_file"]);
    assert_fails_with(&with(&["--token-file", "/nowhere/token"], &[]), &["can't read the token from /nowhere/token"]);
    assert_eq!(lb.state_of(server.address()), "up");
    assert_eq!(with(&["--token-file", &token], &[]).code, Some(0));
    assert_eq!(with(&[], &[("LB_TOKEN_FILE", &token)]).code, Some(0));
    assert_eq!(with(&["--token-file", &token], &[("LB_TOKEN_FILE", &other)]).code, Some(0), "the flag wins");
    assert_eq!(ask(&lb, &["reload", "--token-file", &token]).stdout, "configuration reloaded\n");
    assert_fails_with(&ask(&lb, &["reload"]), &["--token-file FILE"]);
    assert_eq!(ask(&lb, &["status"]).code, Some(0), "looking needs no token");
}

#[test]
fn a_token_of_two_lines_is_named_as_what_is_wrong() {
    let server = Server::named("here");
    let folder = Folder::new();
    let token = folder.write("token", "the secret\n# of the balancer\n").display().to_string();
    let lb = Lb::in_front_of(&[server.address()]).start();
    let ended = ask(&lb, &["reload", "--token-file", &token]);
    assert_fails_with(&ended, &[&token]);
    assert!(!ended.stderr.contains("is lb running?"), "it runs: {}", ended.stderr);
}

#[test]
fn where_nobody_answers_it_says_what_helps() {
    let nobody = free_port().to_string();
    let remedies = [nobody.as_str(), "is lb running?", "--admin ADDR"];
    for command in
        [&["status"][..], &["status", "-q"], &["status", "--json"], &["reload"], &["backend", "drain", "default", "x"]]
    {
        assert_fails_with(&run(command, &[("LB_ADMIN", &nobody)]), &remedies);
        assert_fails_with(&run(&[command, &["--admin", &nobody]].concat(), &[]), &remedies);
    }
    let socket = Folder::new().path().join("none.sock").display().to_string();
    assert_fails_with(&run(&["status", "--admin", &format!("unix:{socket}")], &[]), &[&socket, "is lb running?"]);
    assert_fails_with(&run(&["status"], &[("LB_ADMIN", "off")]), &["the admin server is off"]);
    // Somebody else is there.
    let other = Server::named("not json");
    let admin = other.address().to_string();
    assert_fails_with(&run(&["status", "--admin", &admin], &[]), &[&admin, "answered no report"]);
}

#[test]
fn one_that_never_answers_is_given_up() {
    let silent = Server::ignoring();
    let ended = run(&["status", "--admin", &silent.address().to_string()], &[]);
    assert_fails_with(&ended, &["no answer from the admin server"]);
}

#[test]
fn the_variable_for_watching_is_true_or_false() {
    let check = |watch| run(&["check", "--listen", "127.0.0.1:0", "--backend", "127.0.0.1:9"], &[("LB_WATCH", watch)]);
    for watch in ["true", "false", "on", "no", "off"] {
        let checked = check(watch);
        assert_eq!(checked.code, Some(0), "{watch}: {}", checked.stderr);
    }
    for watch in ["0", "perhaps"] {
        let checked = check(watch);
        let is_told = checked.stderr.contains("LB_WATCH") && checked.stderr.contains("write true or false");
        assert!(checked.code == Some(2) && is_told, "{watch}: {}", checked.stderr);
    }
}

#[test]
fn version_says_what_the_program_was_built_of() {
    let (short, long) = (run(&["-V"], &[]), run(&["--version"], &[]));
    assert_eq!(short.stdout, concat!("lb ", env!("CARGO_PKG_VERSION"), "\n"));
    let lines: Vec<_> = long.stdout.lines().collect();
    assert_eq!(lines[0], short.stdout.trim());
    for (line, key) in lines[1..].iter().zip(["commit:", "target:", "features:"]) {
        let (found, value) = line.split_once(' ').unwrap();
        assert!(found == key && !value.trim().is_empty(), "{}", long.stdout);
    }
    assert_eq!(lines.len(), 4, "{}", long.stdout);
    assert!(lines[2].contains(std::env::consts::ARCH) && lines[3].contains("mimalloc"), "{}", long.stdout);
}

#[test]
fn packages_get_completions_and_manual_pages() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = run(&["completions", shell], &[]);
        assert!(script.code == Some(0) && script.stdout.contains("max-connections"), "{shell}: {}", script.stderr);
    }
    assert_eq!(run(&["completions", "tcsh"], &[]).code, Some(2));
    let page = run(&["man"], &[]);
    assert!(page.stdout.contains(".TH lb 1") && page.stdout.contains("SIGHUP"), "{}", page.stdout);
    let folder = Folder::new();
    let path = folder.path().display().to_string();
    assert_eq!(run(&["man", "--output", &path], &[]).code, Some(0));
    for page in ["lb.1", "lb-check.1", "lb-backend-drain.1"] {
        assert!(folder.path().join(page).exists(), "{page}");
    }
    assert_fails_with(&run(&["man", "--output", "/nowhere"], &[]), &["/nowhere", "No such file"]);
}
