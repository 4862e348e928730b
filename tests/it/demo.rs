//! `lb demo`: the first thing that a newcomer runs.

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::process::{Command, Output, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::process::{Pid, Signal, kill_process};

use crate::support::{Folder, lb_command, run_to_end};

/// The demo has fixed ports, so that there can be only one at a time.
static PORTS: Mutex<()> = Mutex::new(());

fn ports() -> MutexGuard<'static, ()> {
    PORTS.lock().unwrap_or_else(PoisonError::into_inner)
}

fn demo(requests: usize) -> (Output, String) {
    let output = run_to_end(Folder::new().path(), &["demo", "--requests", &requests.to_string()], &[]);
    let shown = String::from_utf8_lossy(&output.stdout).into_owned();
    (output, shown)
}

#[track_caller]
fn assert_ten_were_shared(output: &Output, shown: &str) {
    assert_eq!(output.status.code(), Some(0), "{shown}{}", String::from_utf8_lossy(&output.stderr));
    let logged = |line: &&str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        matches!(words[..], ["server", _, time, "GET", "/", "from", "127.0.0.1"] if time.ends_with('Z'))
    };
    assert_eq!(shown.lines().filter(logged).count(), 10, "the servers' lines:\n{shown}");
    let answered: Vec<&str> =
        shown.lines().filter_map(|line| line.split_once("  answered by ")).map(|(_, server)| server).collect();
    assert_eq!(answered.len(), 10, "{shown}");
    assert_ne!(answered[0], answered[1], "they alternate:\n{shown}");
    assert!(answered.chunks(2).all(|pair| pair == &answered[..2]), "they alternate:\n{shown}");
    let summary = format!("answered by {}: 5, by {}: 5", answered[0], answered[1]);
    let reverse = format!("answered by {}: 5, by {}: 5", answered[1], answered[0]);
    assert!(shown.contains(&summary) || shown.contains(&reverse), "{shown}");
}

#[test]
fn ten_requests_are_shared_five_and_five() {
    let _only_one = ports();
    let (output, shown) = demo(10);
    assert_ten_were_shared(&output, &shown);
}

#[test]
fn says_so_and_works_when_its_ports_are_taken() {
    let _only_one = ports();
    // Where somebody else has them already, that serves as well.
    let _taken: Vec<_> = [8080, 3001, 9900].map(|port| TcpListener::bind(("127.0.0.1", port))).into();
    let (output, shown) = demo(10);
    for port in [8080, 3001, 9900] {
        assert!(shown.contains(&format!("127.0.0.1:{port} is taken, using 127.0.0.1:")), "{shown}");
    }
    assert_ten_were_shared(&output, &shown);
}

#[test]
fn an_odd_number_is_shared_as_equally_as_it_can_be() {
    let _only_one = ports();
    let (output, shown) = demo(7);
    assert_eq!(output.status.code(), Some(0), "{shown}");
    assert!(shown.contains(": 4, by ") && shown.contains(": 3"), "{shown}");
}

#[test]
fn no_requests_is_a_wrong_usage() {
    assert_eq!(demo(0).0.status.code(), Some(2));
}

#[test]
fn what_it_says_to_try_can_be_tried_where_lb_is_not_on_the_path() {
    let _only_one = ports();
    let folder = Folder::new();
    let mut demo = lb_command(folder.path());
    let mut demo = demo.arg("demo").stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let lines = BufReader::new(demo.stdout.take().unwrap()).lines().map_while(Result::ok);
    let told = lines.map(|line| line.trim().to_owned()).find(|line| line.contains(" status --admin ")).unwrap();
    let words: Vec<&str> = told.split(' ').collect();
    let status = Command::new(words[0]).args(&words[1..]).current_dir(folder.path()).output().unwrap();
    assert!(status.status.success() && words[0].contains('/'), "{told}: {status:?}");
    kill_process(Pid::from_child(&demo), Signal::TERM).unwrap();
    assert_eq!(demo.wait().unwrap().code(), Some(0));
}
