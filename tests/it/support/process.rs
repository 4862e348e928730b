//! What the kernel tells of a process (proc(5)).

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, kill_process, setrlimit};

use crate::harness::lacks;

/// Clock ticks a second, fixed by the kernel's interface to user space.
const TICKS_PER_SECOND: u64 = 100;

/// Open file descriptors: those of pipes, which the relay keeps for the next connection, and all others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OpenFiles {
    pub pipes: usize,
    pub others: usize,
}

/// What a process has open; without the system's files (/etc/hosts), which it reads for a moment at its start and
/// whenever a name is resolved.
pub fn open_files(pid: u32) -> OpenFiles {
    let kept = targets(pid).filter(|target| !target.starts_with("/etc"));
    let (pipes, others): (Vec<_>, Vec<_>) = kept.partition(|target| is_pipe(target));
    OpenFiles { pipes: pipes.len(), others: others.len() }
}

/// The pipes that a process has open, by the kernel's names for them.
pub fn open_pipes(pid: u32) -> BTreeSet<PathBuf> {
    targets(pid).filter(|target| is_pipe(target)).collect()
}

fn targets(pid: u32) -> impl Iterator<Item = PathBuf> {
    let folder = fs::read_dir(format!("/proc/{pid}/fd")).expect("the process lives");
    // One that is closed meanwhile can't be read, and isn't there.
    folder.filter_map(|file| fs::read_link(file.ok()?.path()).ok())
}

fn is_pipe(target: &Path) -> bool {
    target.to_string_lossy().starts_with("pipe:")
}

/// CPU time used so far, user and system.
pub fn cpu_time(pid: u32) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("the process lives");
    let after_name = stat.rsplit(')').next().expect("the name ends with a parenthesis");
    let fields: Vec<&str> = after_name.split_whitespace().collect();
    let ticks: u64 = fields[11..13].iter().map(|field| field.parse::<u64>().expect("a number")).sum();
    Duration::from_millis(ticks * 1000 / TICKS_PER_SECOND)
}

/// Resident memory.
pub fn resident_bytes(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("the process lives");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a live process has VmRSS");
    let kib: u64 = line.trim().trim_end_matches(" kB").parse().expect("a number");
    kib * 1024
}

/// Lets this process have that many open files: it is client and backend at once. Where it can't, the test is ignored.
pub fn allow_open_files(files: u64) {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current.is_some_and(|current| current < files) {
        let raised = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
        let enough = raised.is_ok() && maximum.is_none_or(|maximum| maximum >= files);
        if !enough {
            lacks(&format!("{files} open files: raise the hard limit (ulimit -Hn)"));
        }
    }
}

/// Whether a process is over: gone, or a zombie, for which nobody has waited yet (proc_pid_stat(5)).
pub fn has_ended(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(')').next().is_none_or(|rest| rest.is_empty() || rest.trim_start().starts_with(['Z', 'X']))
}

/// The processes whose working directory is `folder`.
pub(super) fn working_in(folder: &Path) -> Vec<u32> {
    let processes =
        fs::read_dir("/proc").expect("Linux has it").filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let works_there = |pid: &u32| fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|cwd| cwd == folder);
    processes.filter_map(|name| name.parse().ok()).filter(works_there).collect()
}

/// Kills a process that may have ended meanwhile.
pub(super) fn kill(pid: u32) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        let _ = kill_process(pid, Signal::KILL);
    }
}

pub(super) fn send(pid: u32, signal: Signal) {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).expect("a process id");
    kill_process(pid, signal).expect("the process lives");
}
