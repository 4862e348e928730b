//! The processes that upgrades have left behind: each serves its open connections to their end.
//!
//! A process is known by its id and the time of its start, as the kernel gives ids out again.

use std::fmt;
use std::fs;
use std::io;
use std::str::FromStr;

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

/// Of the fields of /proc/PID/stat after the name, the one with the start in clock ticks since boot (proc_pid_stat(5)).
const START_FIELD: usize = 19;

/// The oldest first.
#[derive(Clone, Debug, Default)]
pub struct FormerProcesses(Vec<FormerProcess>);

/// A process, whether or not it still runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct FormerProcess {
    pid: i32,
    started_ticks: u64,
    /// It was asked to stop, and is not to be again: a second signal would cut its connections.
    is_stopping: bool,
}

impl FormerProcesses {
    /// These and this process: what its successor has.
    #[must_use]
    pub fn with_this_one(&self) -> Self {
        let this = i32::try_from(std::process::id()).ok().and_then(FormerProcess::running);
        Self(self.running().chain(this).collect())
    }

    /// The ids of those that still run.
    pub fn pids(&self) -> Vec<i32> {
        self.running().map(|process| process.pid).collect()
    }

    /// Stops the oldest that are more than `most`: they close in their drain time. Returns their ids.
    pub fn stop_all_but(&mut self, most: usize) -> Vec<i32> {
        self.0.retain(FormerProcess::is_running);
        let too_many = self.0.len().saturating_sub(most);
        let stopped = self.0[..too_many].iter_mut().filter(|process| !process.is_stopping && process.stop().is_ok());
        stopped
            .map(|process| {
                process.is_stopping = true;
                process.pid
            })
            .collect()
    }

    fn running(&self) -> impl Iterator<Item = FormerProcess> {
        self.0.iter().copied().filter(FormerProcess::is_running)
    }
}

impl FormerProcess {
    /// `None`: there is no such process.
    fn running(pid: i32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name may have spaces and brackets itself.
        let mut fields = stat.rsplit_once(") ")?.1.split(' ');
        let is_zombie = stat.rsplit_once(") ")?.1.starts_with('Z');
        let started_ticks = fields.nth(START_FIELD)?.parse().ok()?;
        (!is_zombie).then_some(Self { pid, started_ticks, is_stopping: false })
    }

    fn is_running(&self) -> bool {
        Self::running(self.pid).is_some_and(|running| running.started_ticks == self.started_ticks)
    }

    fn stop(&self) -> io::Result<()> {
        let pid = Pid::from_raw(self.pid).ok_or(io::ErrorKind::InvalidInput)?;
        let process = pidfd_open(pid, PidfdFlags::empty())?;
        // Looked at once it is held: its id may have become another's before.
        if self.is_running() {
            Ok(pidfd_send_signal(process, Signal::TERM)?)
        } else {
            Err(io::ErrorKind::NotFound.into())
        }
    }
}

/// `PID@START`, with `!` behind one that is stopping, separated by spaces: what a process passes to its successor.
impl fmt::Display for FormerProcesses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|FormerProcess { pid, started_ticks, is_stopping }| {
            write!(f, "{pid}@{started_ticks}{} ", if *is_stopping { "!" } else { "" })
        })
    }
}

impl FromStr for FormerProcesses {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let process = |one: &str| {
            let (known, is_stopping) = one.strip_suffix('!').map_or((one, false), |known| (known, true));
            let (pid, started_ticks) = known.split_once('@').unwrap_or((known, ""));
            Ok(FormerProcess { pid: pid.parse()?, started_ticks: started_ticks.parse()?, is_stopping })
        };
        text.split_whitespace().map(process).collect::<Result<_, _>>().map(Self)
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn a_process_is_known_by_its_start_and_stopped_while_it_runs() {
        let mut child = Command::new("sleep").arg("60").spawn().expect("there is sleep");
        let pid = i32::try_from(child.id()).expect("an id");
        let former = FormerProcesses(FormerProcess::running(pid).into_iter().collect());
        let mut passed: FormerProcesses = former.to_string().parse().expect("its own form");
        assert_eq!(passed.pids(), [pid]);
        let other = FormerProcess { pid, started_ticks: 1, is_stopping: false };
        assert!(!other.is_running() && other.stop().is_err(), "another process had that id");
        assert!(passed.stop_all_but(1).is_empty());
        assert_eq!(passed.stop_all_but(0), [pid]);
        let mut passed: FormerProcesses = passed.to_string().parse().expect("its own form");
        assert!(passed.stop_all_but(0).is_empty(), "nobody is asked twice");
        assert!(!child.wait().expect("it is our child").success());
        assert!(passed.pids().is_empty());
        assert_eq!(passed.with_this_one().pids(), [i32::try_from(std::process::id()).expect("an id")]);
    }
}
