//! The access log in a file that is rotated: renamed, then SIGUSR1 (as logrotate does). No line is lost.

use std::collections::HashSet;
use std::fs;
use std::path::Path;

use rustix::process::Signal;
use serde_json::Value;

use crate::support::{Folder, Lb, Load, Server, get, has_ended, wait_until};

/// The lines of a log file, each a whole JSON object.
fn lines(file: &Path) -> Vec<Value> {
    let text = fs::read_to_string(file).unwrap_or_default();
    assert!(text.is_empty() || text.ends_with('\n'), "the last line of {} is cut", file.display());
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error} in {line}"))).collect()
}

#[test]
fn no_line_is_lost_when_the_file_is_renamed_under_load() {
    let folder = Folder::new();
    let file = folder.path().join("access.log");
    let server = Load::server();
    let mut lb = Lb::in_front_of(&[server.address()]).with(&["--access-log", &file.display().to_string()]).start();
    let load = Load::on(lb.address(), 4, 0);
    let rotated: Vec<_> = (1..=3).map(|number| folder.path().join(format!("access.log.{number}"))).collect();
    for old in &rotated {
        load.goes_on(100);
        fs::rename(&file, old).unwrap();
        lb.signal(Signal::USR1);
        wait_until("there is a new file", || file.exists());
    }
    load.goes_on(100);
    let visits = load.end();
    lb.signal(Signal::TERM);
    assert_eq!(lb.wait_for_end().code(), Some(0));
    let parts: Vec<Vec<Value>> = rotated.iter().chain([&file]).map(|file| lines(file)).collect();
    assert!(parts.iter().all(|part| part.len() >= 50), "each file has its time's lines");
    let all: Vec<&Value> = parts.iter().flatten().collect();
    assert_eq!(all.len(), visits);
    assert_eq!(
        all.iter().map(|line| line["client"].to_string() + &line["time"].to_string()).collect::<HashSet<_>>().len(),
        visits
    );
}

#[test]
fn a_file_that_can_not_be_opened_again_keeps_the_old_one_in_use() {
    let folder = Folder::new();
    let (logs, away) = (folder.path().join("logs"), folder.path().join("away"));
    fs::create_dir(&logs).unwrap();
    let server = Server::named("here");
    let file = logs.join("access.log").display().to_string();
    let mut lb = Lb::in_front_of(&[server.address()]).with(&["--access-log", &file]).start();
    fs::rename(&logs, &away).unwrap();
    lb.signal(Signal::USR1);
    wait_until("it says so", || lb.log_text().contains("can't be opened again"));
    assert_eq!(get(lb.address(), "/").body, "here");
    fs::create_dir(&logs).unwrap();
    wait_until("the line is written", || lines(&away.join("access.log")).len() == 1);
    lb.signal(Signal::USR1);
    wait_until("there is a new file", || logs.join("access.log").exists());
    assert_eq!(get(lb.address(), "/").body, "here");
    lb.signal(Signal::TERM);
    lb.wait_for_end();
    assert_eq!(lines(&logs.join("access.log")).len(), 1);
}

#[test]
fn the_signal_means_nothing_where_the_log_is_off_or_no_file() {
    for log in ["off", "stdout"] {
        let server = Server::named("here");
        let mut lb = Lb::in_front_of(&[server.address()]).with(&["--access-log", log]).start();
        lb.signal(Signal::USR1);
        assert_eq!(get(lb.address(), "/").body, "here");
        lb.signal(Signal::TERM);
        assert_eq!(lb.wait_for_end().code(), Some(0));
        assert_eq!(lb.output_lines(), usize::from(log == "stdout"));
    }
}

#[test]
fn two_processes_of_an_upgrade_write_whole_lines_into_one_file() {
    let folder = Folder::new();
    let file = folder.path().join("access.log");
    let server = Load::server();
    let mut lb = Lb::in_front_of(&[server.address()]).with(&["--access-log", &file.display().to_string()]).start();
    let load = Load::on(lb.address(), 4, 10);
    load.goes_on(50);
    lb.upgrade();
    load.goes_on(50);
    let visits = load.end();
    assert_eq!(lb.first_process_ended(), Some(0));
    lb.signal(Signal::TERM);
    wait_until("the newest ends", || has_ended(lb.pid()));
    assert_eq!(lines(&file).len(), visits + 10);
}
