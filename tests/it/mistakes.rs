//! What operators get wrong, and what they are told: beside broken configurations, which `config` has.

use std::fs;
use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::path::Path;

use crate::support::{Folder, Lb, Server, get, run_to_end, wait_until};

/// Exit code, standard output, standard error.
fn run(folder: &Folder, arguments: &[&str], environment: &[(&str, &str)]) -> (Option<i32>, String, String) {
    let output = run_to_end(folder.path(), arguments, environment);
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

fn with_file(yaml: &str) -> Folder {
    let folder = Folder::new();
    folder.write("lb.yaml", yaml);
    folder
}

const VALID: &str = "listen: 127.0.0.1:0\nbackends: [127.0.0.1:9]\nadmin: off\n";

#[track_caller]
fn assert_told((code, _, errors): (Option<i32>, String, String), expected: i32, parts: &[&str]) {
    assert!(code == Some(expected) && parts.iter().all(|part| errors.contains(part)), "{code:?}: {errors}");
}

#[test]
fn a_mistyped_variable_is_warned_of_and_another_programs_is_not() {
    let folder = with_file(VALID);
    let others = ("LB_SERVICE_HOST", "10.0.0.1");
    let (code, shown, _) = run(&folder, &["check"], &[("LB_LISTNE", "x"), ("LB_BACKENDS", "y"), others]);
    let warnings: Vec<&str> = shown.lines().filter(|line| line.starts_with("warning: ")).collect();
    let expected = [("LB_BACKENDS", "LB_BACKEND?"), ("LB_LISTNE", "LB_LISTEN?")];
    let all = expected.iter().all(|(name, meant)| {
        warnings.iter().any(|line| line.contains(name) && line.ends_with(&format!("did you mean {meant}")))
    });
    assert!(code == Some(0) && warnings.len() == 2 && all, "{shown}");
    let server = Server::named("here");
    let lb = Lb::in_front_of(&[server.address()]).env("LB_LOG_LEVLE", "debug").start();
    lb.wait_for_log("LB_LOG_LEVLE is no variable that lb reads; did you mean LB_LOG_LEVEL?", 1);
}

#[test]
fn a_pool_that_nothing_uses_is_warned_of() {
    let yaml = "listeners: {a: {bind: '127.0.0.1:0', pool: a}}\npools:\n  a: {backends: ['127.0.0.1:9']}\n  \
                b: {backends: ['127.0.0.1:9']}\n";
    let (code, shown, _) = run(&with_file(yaml), &["check"], &[]);
    let warning = "warning: lb.yaml:4:3: pools.b is used by no listener and no route";
    assert!(code == Some(0) && shown.contains(warning), "{shown}");
    let (_, shown, _) = run(&with_file(yaml), &["check", "--json"], &[]);
    let report: serde_json::Value = serde_json::from_str(&shown).unwrap();
    assert!(report["warnings"][0].as_str().is_some_and(|text| text.contains("pools.b")), "{shown}");
    let lb = Lb::with_config(yaml).start();
    wait_until("it is logged", || lb.log_text().contains(":4:3: pools.b is used by no listener"));
    // One that a route uses is used.
    let routed = "listeners: {a: {bind: '127.0.0.1:0', pool: a, routes: [{silent: 3s, pool: b}]}}\npools:\n  \
                  a: {backends: ['127.0.0.1:9']}\n  b: {backends: ['127.0.0.1:8']}\n";
    assert!(!run(&with_file(routed), &["check"], &[]).1.contains("warning"));
}

/// Runs with this limit of open files until it says that it accepts, or ends.
fn under_limit(files: u32, arguments: &str) -> String {
    let folder = with_file(VALID);
    let script = format!("ulimit -n {files} && exec timeout 5 {} {arguments}", env!("CARGO_BIN_EXE_lb"));
    let output = std::process::Command::new("sh").args(["-c", &script]).current_dir(folder.path()).output().unwrap();
    String::from_utf8(output.stderr).unwrap()
}

#[test]
fn with_room_for_hardly_any_connection_it_does_not_start() {
    let told = under_limit(60, "");
    assert!(told.contains("the limit of 60 open files leaves room for") && told.contains("ulimit -n"), "{told}");
    assert!(!told.contains("accepting connections"), "{told}");
    // As asked for, it tries; and says which limit it is that ends it.
    let told = under_limit(14, "--max-connections 5");
    assert!(told.contains("Too many open files") && told.contains("LimitNOFILE= of systemd"), "{told}");
}

#[test]
fn few_connections_are_warned_of_unless_they_are_configured() {
    let server = Server::named("here");
    let few = "open files or memory allow few connections; raise `ulimit -n` or the cgroup's limit";
    let lb = Lb::in_front_of(&[server.address()]).open_files_at_most(700).start();
    lb.wait_for_log(few, 1);
    let lb = Lb::in_front_of(&[server.address()]).open_files_at_most(700).with(&["--max-connections", "50"]).start();
    lb.wait_for_log("accepting connections", 1);
    assert!(lb.log_lines_with(few).is_empty(), "{}", lb.log_text());
}

#[test]
fn errors_of_files_and_names_are_plain_words() {
    let folder = with_file(VALID);
    let told = run(&folder, &["--access-log", "/no/such/dir/access.log"], &[]);
    assert_told(told, 1, &["can't open the access log /no/such/dir/access.log (`log.access`): No such file"]);
    let told = run(&folder, &["--set", "admin.bind=127.0.0.1:0", "--set", "admin.token_file=/nope"], &[]);
    assert_told(told, 1, &["/nope (`admin.token_file`)"]);
    let told = run(&folder, &["--admin-socket", "/no/such/dir/x.sock"], &[]);
    assert_told(told, 1, &["unix:/no/such/dir/x.sock", "`admin.socket`"]);
}

#[test]
fn what_stands_in_a_unix_sockets_way_is_named() {
    let folder = with_file(VALID);
    let (plain, live) = (folder.write("plain", "kept"), folder.path().join("live.sock"));
    let _listener = UnixListener::bind(&live).unwrap();
    let listen = |path: &Path| run(&folder, &["--listen", &format!("unix:{}", path.display())], &[]);
    assert_told(listen(&plain), 1, &["a file that is no socket is there; remove it, or choose another path"]);
    assert_eq!(fs::read_to_string(&plain).unwrap(), "kept");
    assert_told(listen(&live), 1, &["another process has it; stop that one, or listen elsewhere"]);
    let socket = folder.path().join("lb.sock");
    let address = format!("unix:{}", socket.display());
    let lb = Lb::with_arguments(&["--listen", "127.0.0.1:0", "--listen", &address, "--backend", "127.0.0.1:9"]).start();
    let told = lb.wait_for_log("listening", 2);
    assert!(told.iter().any(|line| line["address"] == address.as_str()), "{told:?}");
}

#[test]
fn false_is_taken_wherever_off_is_and_off_wherever_false_is() {
    let keys = "health_check failure_detection proxy_protocol send_proxy tls slow_start first_byte_timeout \
                access_log watch admin admin.bind admin.socket log.access timeouts.idle tcp.keepalive tcp.nodelay \
                drain.upgrade_timeout http.redirect failure_detection.count_early_close";
    for key in keys.split_whitespace() {
        let (block, inner) = key.split_once('.').unwrap_or((key, ""));
        for off in ["off", "false", "no"] {
            let value = if inner.is_empty() { off.to_owned() } else { format!("{{{inner}: {off}}}") };
            let folder = with_file(&format!("listen: 127.0.0.1:0\nbackends: [127.0.0.1:9]\n{block}: {value}\n"));
            let (code, _, errors) = run(&folder, &["check"], &[]);
            assert_eq!(code, Some(0), "{key}: {off}: {errors}");
        }
    }
    let server = Server::named("here");
    let yaml = format!("listen: 127.0.0.1:0\nbackends: ['{}']\nadmin: false\n", server.address());
    let (_, shown, _) = run(&with_file(&yaml), &["check", "--print"], &[]);
    assert!(shown.contains("admin:\n  bind: off\n  socket: off\n"), "{shown}");
    // An override of a key of what is off switches it on.
    let lb = Lb::with_config(&yaml).start();
    assert_eq!((get(lb.address(), "/").body.as_str(), lb.ask("/healthz").status), ("here", 200));
}

#[test]
fn what_is_missing_on_the_command_line_is_named() {
    let folder = with_file(VALID);
    assert_told(run(&folder, &["-c", "lb.yaml", "check"], &[]), 2, &["options come after the command: lb check"]);
    if !Path::new("/etc/lb/lb.yaml").exists() {
        let empty = Folder::new();
        assert_told(run(&empty, &["--listen", "127.0.0.1:0"], &[]), 2, &["give --backend ADDR (LB_BACKEND) too"]);
        let told = run(&empty, &["check", "--print"], &[("LB_BACKEND", "127.0.0.1:9")]);
        assert_told(told, 2, &["give --listen ADDR (LB_LISTEN) too"]);
    }
    for (admin, why) in
        [("foo:bar", "its port is no number"), ("127.0.0.1", "it has no port"), ("https://a:1", "it speaks no TLS")]
    {
        let told = run(&folder, &["status", "--admin", admin], &[]);
        assert_told(told, 2, &[&format!("`{admin}` is not the address of an admin server: {why}"), "--admin ADDR"]);
    }
}

#[test]
fn addresses_of_one_configuration_may_overlap_and_those_of_two_processes_not() {
    let taken = TcpListener::bind("0.0.0.0:0").unwrap();
    let told = run(&with_file(VALID), &["--listen", &format!("127.0.0.1:{}", taken.local_addr().unwrap().port())], &[]);
    assert_told(told, 1, &["another process has it"]);
    let port = taken.local_addr().unwrap().port();
    drop(taken);
    let server = Server::named("here");
    let both = [format!("0.0.0.0:{port}"), format!("127.0.0.1:{port}")];
    let _lb = Lb::in_front_of(&[server.address()]).with(&["--listen", &both[0], "--listen", &both[1]]).start();
    assert_eq!(get(([127, 0, 0, 1], port).into(), "/").body, "here");
}

#[test]
fn the_service_reloads_by_the_command_that_waits_for_the_result() {
    let unit = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/systemd/lb.service")).unwrap();
    let reloads: Vec<&str> = unit.lines().filter_map(|line| line.strip_prefix("ExecReload=")).collect();
    assert_eq!(reloads, ["lb reload"]);
    let folder = Folder::new();
    let socket = folder.path().join("admin.sock").display().to_string();
    let lb = Lb::with_config("listen: 127.0.0.1:0\nbackends: [127.0.0.1:9]\n").env("LB_ADMIN_SOCKET", &socket).start();
    assert_eq!(run(&folder, &["reload"], &[("LB_ADMIN_SOCKET", &socket)]).0, Some(0));
    lb.rewrite("listen: 127.0.0.1:0\nbackends: []\n");
    let (code, _, errors) = run(&folder, &["reload"], &[("LB_ADMIN_SOCKET", &socket)]);
    assert!(code == Some(1) && errors.contains("backends"), "{errors}");
}
