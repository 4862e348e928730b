//! Commands that steer: lb backend, lb upgrade, lb stop, lb events.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::{
    Folder, Lb, Server, connect, greeter, greeting, has_ended, lb_command, run_to_end, short_read, start_with_file,
    wait_for, wait_until, wait_until_equal,
};

/// Runs a command that asks this balancer: its exit code, and what it said.
fn ask(lb: &Lb, arguments: &[&str]) -> (Option<i32>, String) {
    let admin = lb.admin().to_string();
    let Output { status, stdout, stderr } =
        run_to_end(Folder::new().path(), &[arguments, &["--admin", &admin]].concat(), &[]);
    let said = [stdout, stderr].concat();
    (status.code(), String::from_utf8(said).unwrap().trim_end().to_owned())
}

#[track_caller]
fn assert_said((code, said): &(Option<i32>, String), expected: i32, parts: &[&str]) {
    assert_eq!(*code, Some(expected), "{said}");
    parts.iter().for_each(|part| assert!(said.contains(part), "{part:?} in {said:?}"));
}

#[test]
fn backends_are_added_changed_and_removed_by_commands() {
    let (a, b) = (greeter("a"), greeter("b"));
    let lb = Lb::in_front_of(&[a.address()]).start();
    let address = b.address().to_string();
    let report = || lb.backend(b.address());
    let add = ["backend", "add", "default", &address, "--weight", "3", "--max-connections", "9", "--backup"];
    assert_said(&ask(&lb, &add), 0, &[&format!("default {address}: added; a restart forgets it")]);
    let limits = |report: Value| [&report["weight"], &report["rank"], &report["max_connections"]].map(Value::clone);
    assert_eq!(limits(report()), [json!(3), json!(1), json!(9)]);
    assert_said(&ask(&lb, &add), 1, &["has 127.0.0.1", "already"]);
    assert_said(&ask(&lb, &["backend", "weight", "default", &address, "7"]), 0, &["changed"]);
    assert_said(&ask(&lb, &["backend", "max-connections", "default", &address, "0"]), 0, &["changed"]);
    assert_eq!(limits(report()), [json!(7), json!(1), json!(null)]);
    assert_said(&ask(&lb, &["backend", "weight", "default", &address, "257"]), 1, &["weight must be from 0 to 256"]);

    let mut live = connect(lb.address());
    assert_eq!(short_read(&mut live), "a");
    let drain = ["backend", "drain", "default", &a.address().to_string(), "--wait", "20ms"];
    assert_said(&ask(&lb, &drain), 1, &["drains, and 1 connections are left"]);
    assert_eq!(greeting(lb.address()), "b");
    drop(live);
    assert_said(&ask(&lb, &["backend", "drain", "--wait", "20s", "*", "127.0.0.1"]), 0, &["* 127.0.0.1: drained"]);
    assert_said(&ask(&lb, &["backend", "enable", "default", "127.0.0.1"]), 0, &["up"]);
    let remove = ["backend", "remove", "default", &address];
    assert_said(&ask(&lb, &[&remove[..], &["--wait", "20s"]].concat()), 0, &["removed; a restart forgets it"]);
    assert_said(&ask(&lb, &remove), 1, &["has no backend", "there are: "]);
    assert_said(&ask(&lb, &["backend", "add", "default", &address]), 0, &["added"]);
    let mut live: Vec<_> = (0..2).map(|_| connect(lb.address())).collect();
    live.iter_mut().for_each(|client| assert!(!short_read(client).is_empty()));
    assert_said(&ask(&lb, &[&remove[..], &["--force"]].concat()), 0, &["removed"]);
    assert_eq!(ask(&lb, &[&remove[..], &["--force", "--wait", "1s"]].concat()).0, Some(2));
}

#[test]
fn a_mistaken_name_is_told_with_what_there_is() {
    let server = greeter("here");
    let lb = Lb::in_front_of(&[server.address()]).start();
    let address = server.address().to_string();
    assert_said(&ask(&lb, &["backend", "drain", "defualt", &address]), 1, &["no pool defualt; did you mean default?"]);
    assert_said(&ask(&lb, &["backend", "drain", "web", &address]), 1, &["there is no pool web; there are: default"]);
    let near = ["backend", "drain", "default", &address.replace("127.0.0.1", "127.0.0.2")];
    assert_said(&ask(&lb, &near), 1, &["has no backend 127.0.0.2", &format!("did you mean {address}?")]);
    let far = ["backend", "drain", "default", "10.20.30.40"];
    assert_said(&ask(&lb, &far), 1, &["has no backend 10.20.30.40", &format!("there are: {address}")]);
    assert_eq!(lb.state_of(server.address()), "up");
}

#[test]
fn an_upgrade_by_command_says_which_process_accepts_or_why_none_does() {
    let server = Server::greeting("here");
    let folder = Folder::new();
    let yaml = format!("listen: 127.0.0.1:0\nbackends: ['{}']\nadmin: {{bind: 127.0.0.1:0}}\n", server.address());
    let mut lb = start_with_file(&folder, &yaml);
    folder.write("lb.yaml", format!("{yaml}colour: red\n"));
    assert_said(&ask(&lb, &["upgrade"]), 1, &["the upgrade failed", "colour is an unknown key", "exit status: 2"]);
    assert_eq!(greeting(lb.address()), "here");
    folder.write("lb.yaml", &yaml);
    let (before, (code, said)) = (lb.pid(), ask(&lb, &["upgrade"]));
    let pid = lb.api("/api/v1/status")["pid"].as_u64().unwrap();
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains(&format!("process {pid} accepts")), "{said}");
    lb.follow_to(u32::try_from(pid).unwrap());
    wait_until("the one before ends", || has_ended(before));
    assert_eq!(greeting(lb.address()), "here");
}

#[test]
fn stop_says_that_it_stops_and_waits_where_asked_to() {
    let server = greeter("here");
    let mut lb = Lb::in_front_of(&[server.address()]).start();
    let mut live = connect(lb.address());
    assert_eq!(short_read(&mut live), "here");
    let pid = lb.pid();
    assert_said(&ask(&lb, &["stop"]), 0, &[&format!("process {pid}: draining")]);
    thread::scope(|scope| {
        let waiting = scope.spawn(|| ask(&lb, &["stop", "--wait"]));
        wait_until("it drains", || lb.ask("/readyz").status == 503);
        live.write_all(b"a last word").unwrap();
        assert_eq!(short_read(&mut live), "a last word");
        lb.wait_for_log("asked to stop by the API", 2);
        assert!(!waiting.is_finished(), "it waits");
        drop(live);
        assert_said(&waiting.join().unwrap(), 0, &[&format!("process {pid}: stopped")]);
    });
    assert_eq!(lb.wait_for_end().code(), Some(0));
}

/// `lb events`, which goes on.
fn follow(lb: &Lb) -> Child {
    let mut command = lb_command(lb.folder());
    command.args(["events", "--follow", "--admin", &lb.admin().to_string()]);
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

/// What it has printed so far.
fn lines_of(child: &mut Child) -> Arc<Mutex<Vec<String>>> {
    let lines: Arc<Mutex<Vec<String>>> = Arc::default();
    let (output, read) = (BufReader::new(child.stdout.take().unwrap()), lines.clone());
    thread::spawn(move || output.lines().map_while(Result::ok).for_each(|line| read.lock().unwrap().push(line)));
    lines
}

#[test]
fn events_are_shown_and_followed_through_an_upgrade() {
    let (a, b) = (greeter("a"), greeter("b"));
    let mut lb = Lb::in_front_of(&[a.address(), b.address()]).start();
    lb.drain_backend(a.address());
    let address = a.address().to_string();
    let shown = ask(&lb, &["events"]);
    assert_said(&shown, 0, &["INFO  started", &format!("INFO  operator default {address}: changed by the API")]);
    let (code, said) = ask(&lb, &["events", "--json"]);
    let events: Vec<Value> = said.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((code, &events.last().unwrap()["backend"]), (Some(0), &json!(address)));

    let mut child = follow(&lb);
    let lines = lines_of(&mut child);
    let wait = |part: &str, times: usize| {
        let has = |line: &&String| line.contains(part);
        wait_for(part, || (lines.lock().unwrap().iter().filter(has).count() >= times).then_some(()));
    };
    wait("changed by the API", 1);
    lb.patch_backend(b.address(), &json!({"weight": 2}));
    wait("{\"weight\":2}", 1);
    lb.upgrade();
    wait(" started", 2);
    lb.patch_backend(b.address(), &json!({"weight": 3}));
    wait("{\"weight\":3}", 1);
    rustix::process::kill_process(rustix::process::Pid::from_child(&child), Signal::INT).unwrap();
    assert_eq!(wait_for("it ends", || child.try_wait().unwrap()).code(), Some(0));
    wait_until_equal("states", &"draining".to_owned(), || lb.state_of(a.address()));
}
