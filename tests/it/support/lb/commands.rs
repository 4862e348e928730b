//! The program as a command: in a folder of its own, by this user or an ordinary one.

use std::ffi::OsStr;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use super::LB;

/// A command that should end by itself runs for this long at most.
const LONGEST_RUN: Duration = Duration::from_secs(20);

/// `lb` with nothing of this process's own LB_ variables.
pub fn command(folder: &Path) -> Command {
    command_of(LB.as_ref(), folder)
}

pub(super) fn command_of(program: &Path, folder: &Path) -> Command {
    let mut command = Command::new(program);
    command.current_dir(folder).stdin(Stdio::null());
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("LB_")) {
        command.env_remove(name);
    }
    // So that the same tests can be run with the other engine.
    if let Ok(engine) = std::env::var("LB_TESTS_ENGINE") {
        command.env("LB_RELAY_ENGINE", engine);
    }
    command
}

/// Runs `lb` to its end, in `folder`.
pub fn run_to_end<A: AsRef<OsStr>>(folder: &Path, arguments: &[A], environment: &[(&str, &str)]) -> Output {
    let mut command = command(folder);
    command.args(arguments).envs(environment.iter().copied()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("the binary was built with the tests");
    let began = Instant::now();
    // What it prints fits into the pipes: it needn't be read meanwhile.
    while child.try_wait().expect("it is our child").is_none() {
        if began.elapsed() > LONGEST_RUN {
            child.kill().expect("it is our child");
            panic!("`lb` did not end by itself: {:?}", child.wait_with_output());
        }
        thread::sleep(Duration::from_millis(2));
    }
    child.wait_with_output().expect("it has ended")
}

/// The program under another name, which a test may replace.
pub(super) fn copied_into(folder: &Path) -> PathBuf {
    let program = folder.join("lb");
    // Written by a process of its own: a child that another test starts meanwhile would inherit our descriptor, and no
    // program runs while it is open for writing (ETXTBSY).
    let copied = Command::new("cp").arg(LB).arg(&program).status().expect("every system has it");
    assert!(copied.success(), "the temporary directory is writable");
    program
}

/// The same as another user, from a place where that user may go: the build's folder may be closed to others.
pub(super) fn command_of_user(user: u32, folder: &Path) -> Command {
    let program = copied_into(folder);
    std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o755)).expect("it is ours");
    let mut command = command_of(&program, folder);
    // As root, `uid` gives up the other groups, too; the capabilities go with the user.
    command.uid(user).gid(user);
    command
}
