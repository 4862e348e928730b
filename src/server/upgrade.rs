//! An upgrade: the program is started again and gets this process's listening sockets. Once the new process accepts,
//! this one only serves its open connections to their end; if anything fails before that, it serves as before.
//!
//! Both sides of it are here. They talk over a socket that is the new process's standard input: the old process sends
//! all listening sockets, and the new one sends back that it accepts.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socketpair};
use rustix::process::{Pid, Signal, kill_process};
use tokio::sync::oneshot;

use crate::admin::History;
use crate::lifecycle::FormerProcesses;
use crate::net::{PassedSockets, receive_sockets, send_sockets};

use super::history_state;
use super::listen_sockets::SharedSockets;
use super::pool_state;
use super::pools::CarriedPools;

/// Set for the new process, whose standard input is the socket then.
const VARIABLE: &str = "LB_HANDOVER";
/// Has the processes that upgrades have left behind, the one that starts the new process included.
const FORMER_VARIABLE: &str = "LB_FORMER_PROCESSES";
/// Each may hold as much memory and as many connections as this process.
const MOST_FORMER_PROCESSES: usize = 4;
/// The new process must accept within this time.
const TIMEOUT: Duration = Duration::from_secs(30);
/// Sent by the new process once it accepts.
const READY: &[u8] = b"ready";
/// What it sends at most, in place of that: why it can't start.
const LONGEST_ANSWER: usize = 4096;
/// A container's first process: when it ends, the kernel ends all others (pid_namespaces(7)).
const INIT: u32 = 1;

/// The process that this one takes over from, if there is one.
#[derive(Default)]
pub(super) struct OldProcess {
    socket: Option<OwnedFd>,
    passed: Vec<PassedSockets>,
    pools: CarriedPools,
    history: History,
}

impl OldProcess {
    /// Receives its listening sockets, if this process was started by an upgrade.
    pub(super) fn receive() -> io::Result<Self> {
        if std::env::var_os(VARIABLE).is_none() {
            return Ok(Self::default());
        }
        let socket = io::stdin().as_fd().try_clone_to_owned()?;
        let mut passed = receive_sockets(&socket)?;
        let (pools, history) = (pool_state::take(&mut passed), history_state::take(&mut passed));
        tracing::info!(addresses = passed.len(), "taking over from the old process; counters begin anew");
        Ok(Self { socket: Some(socket), passed, pools, history })
    }

    /// What it knew of its pools.
    pub(super) fn take_pools(&mut self) -> CarriedPools {
        std::mem::take(&mut self.pools)
    }

    /// What it had of the last hour.
    pub(super) fn take_history(&mut self) -> History {
        std::mem::take(&mut self.history)
    }

    /// `None`: there is no old process.
    pub(super) fn take_sockets(&mut self) -> Option<Vec<PassedSockets>> {
        self.socket.is_some().then(|| std::mem::take(&mut self.passed))
    }

    /// Reports that this process accepts: the old one stops to.
    pub(super) fn report_ready(self) {
        if let Some(socket) = self.socket
            && let Err(error) = send(&socket, READY, SendFlags::NOSIGNAL)
        {
            tracing::warn!(%error, "could not report to the old process that this one accepts");
        }
    }
}

/// Tells the old process why this one can't start, if an upgrade has started it.
pub fn tell_old_process(why: &str) {
    if std::env::var_os(VARIABLE).is_some() {
        let why = &why.as_bytes()[..why.len().min(LONGEST_ANSWER)];
        // An error means that it doesn't listen any more.
        let _ = send(io::stdin(), why, SendFlags::NOSIGNAL);
    }
}

/// The upgrade of this process to a new one.
pub(super) struct Upgrade {
    /// The path of the program, where a new version may be installed later.
    program: Option<PathBuf>,
    former_processes: FormerProcesses,
    under_way: Option<UnderWay>,
}

struct UnderWay {
    pid: u32,
    /// The new process's id once it accepts, or why it never will.
    result: oneshot::Receiver<Result<u32, String>>,
    /// To those who have asked for it.
    answers: Vec<oneshot::Sender<Result<u32, String>>>,
}

impl Upgrade {
    /// To be made early, while the program is still where it was started from.
    pub(super) fn new() -> Self {
        // Nobody else sets it: what can't be read is none of ours.
        let former_processes = std::env::var(FORMER_VARIABLE).ok().and_then(|text| text.parse().ok());
        let former_processes = former_processes.unwrap_or_default();
        Self { program: std::env::current_exe().ok(), former_processes, under_way: None }
    }

    /// Whether a new process was started, and doesn't accept yet.
    pub(super) fn is_under_way(&self) -> bool {
        self.under_way.is_some()
    }

    /// Those that have open connections of the time before.
    pub(super) fn former_processes(&self) -> &FormerProcesses {
        &self.former_processes
    }

    /// Stops the oldest where there are too many: each upgrade leaves one more, and its connections may never end.
    pub(super) fn limit_former_processes(&mut self) {
        for pid in self.former_processes.stop_all_but(MOST_FORMER_PROCESSES) {
            tracing::warn!(pid, most = MOST_FORMER_PROCESSES, "too many former processes; stopping the oldest");
        }
    }

    /// Starts the program again, with this one's arguments and environment, and passes on its listening sockets.
    /// `answer` is told what came of it. `sockets` is asked only where a process was started.
    pub(super) fn begin(
        &mut self,
        sockets: impl FnOnce() -> Vec<(String, SharedSockets)>,
        answer: Option<oneshot::Sender<Result<u32, String>>>,
    ) {
        let started = match &mut self.under_way {
            Some(under_way) => {
                tracing::warn!("an upgrade is under way already");
                under_way.answers.extend(answer);
                return;
            }
            None if std::process::id() == INIT => Err("no upgrade of a container's first process: the container \
                                                       would end with it; start a new container, and stop this one"
                .to_owned()),
            None => self.start().map_err(|error| error.to_string()),
        };
        match started {
            Ok((child, socket)) => {
                tracing::info!(event = "upgrading", pid = child.id(), "upgrading: a new process was started");
                let (pid, (sender, result)) = (child.id(), oneshot::channel());
                let sockets = sockets();
                // On a thread of its own, as all of it blocks: the sending, if the child doesn't receive, and the waits
                // for its answer and its end.
                std::thread::spawn(move || sender.send(hand_over(child, &socket, sockets)));
                self.under_way = Some(UnderWay { pid, result, answers: answer.into_iter().collect() });
            }
            Err(error) => {
                tracing::error!(event = "upgrade_failed", error, "the upgrade failed; this process continues");
                // An error here and below means that nobody waits for it any more.
                answer.into_iter().for_each(|answer| drop(answer.send(Err(error.clone()))));
            }
        }
    }

    /// Stops the new process too, because this one was asked to stop.
    pub(super) fn cancel(&mut self) {
        let pid = self.under_way.take().and_then(|under_way| i32::try_from(under_way.pid).ok()).and_then(Pid::from_raw);
        if let Some(pid) = pid {
            // An error means that it has ended already. The id is still its own, as nobody has waited for it yet.
            let _ = kill_process(pid, Signal::TERM);
        }
    }

    fn start(&self) -> io::Result<(Child, OwnedFd)> {
        let program = self.program.as_ref().ok_or(io::ErrorKind::NotFound)?;
        let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        set_socket_timeout(&ours, Timeout::Recv, Some(TIMEOUT))?;
        let child = Command::new(program)
            .args(std::env::args_os().skip(1))
            .env(VARIABLE, "stdin")
            .env(FORMER_VARIABLE, self.former_processes.with_this_one().to_string())
            // They have this process's id, and would make the new one ignore the variables that go with them.
            .env_remove("WATCHDOG_PID")
            .env_remove("LISTEN_PID")
            .stdin(Stdio::from(theirs))
            .spawn()?;
        Ok((child, ours))
    }

    /// Waits for the end of the upgrade under way, for ever if there is none: the new process's id, or `None` if it
    /// failed, which is logged. Safe to cancel.
    pub(super) async fn ended(&mut self) -> Option<u32> {
        let Some(under_way) = &mut self.under_way else { return std::future::pending().await };
        let result = (&mut under_way.result).await;
        let result = result.unwrap_or_else(|_| Err("the thread that waited for the new process has ended".to_owned()));
        let answers = self.under_way.take().into_iter().flat_map(|under_way| under_way.answers);
        answers.for_each(|answer| drop(answer.send(result.clone())));
        match result {
            Ok(pid) => {
                let event = "upgraded";
                tracing::info!(event, pid, "upgraded: the new process accepts, this one ends with its connections");
                Some(pid)
            }
            Err(error) => {
                tracing::error!(event = "upgrade_failed", %error, "the upgrade failed; this process continues");
                None
            }
        }
    }
}

/// Sends the new process the sockets, and waits until it accepts; kills it if it doesn't.
fn hand_over(mut child: Child, socket: &OwnedFd, sockets: Vec<(String, SharedSockets)>) -> Result<u32, String> {
    let all = sockets.iter().map(|(name, sockets)| (name.as_str(), &sockets[..]));
    // Not a failure yet: a process that ends before it has them all is reported below, with its status.
    if let Err(error) = send_sockets(socket, all, Instant::now() + TIMEOUT) {
        tracing::debug!(%error, "the new process did not take the sockets");
    }
    // What a reload closes from now on is closed.
    drop(sockets);
    let mut answer = [0; LONGEST_ANSWER];
    let mut receive = || recv(socket, &mut answer[..], RecvFlags::empty());
    // A process that ends before it has read all resets the socket, which is said once, before what it had sent.
    let received = receive().or_else(|error| if error == Errno::CONNRESET { receive() } else { Err(error) });
    let why = match received {
        Ok((_, length)) if answer[..length] == *READY => return Ok(child.id()),
        Err(Errno::AGAIN) => "the new process did not accept in time".to_owned(),
        // It closed its end of the socket: an end of stream, or a reset if it had not received everything.
        Ok((_, 0)) | Err(_) => "the new process ended before it accepted; the log has its own messages".to_owned(),
        Ok((_, length)) => {
            // Its end closes the socket: it is not to be killed while it writes its log.
            let _ = recv(socket, &mut [0; 1][..], RecvFlags::empty());
            format!("the new process ended before it accepted: {}", String::from_utf8_lossy(&answer[..length]))
        }
    };
    // An error means that it has ended by itself.
    let _ = child.kill();
    let status = child.wait().map_or_else(|error| error.to_string(), |status| status.to_string());
    Err(format!("{why} ({status})"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_gathered_for_a_process_that_is_not_started() {
        let (_sender, result) = oneshot::channel();
        let under_way = UnderWay { pid: 1, result, answers: Vec::new() };
        for (under_way, is_told) in [(None, true), (Some(under_way), false)] {
            let mut upgrade = Upgrade { program: None, former_processes: FormerProcesses::default(), under_way };
            let (answer, mut result) = oneshot::channel();
            upgrade.begin(|| unreachable!("no process is started"), Some(answer));
            assert_eq!(matches!(result.try_recv(), Ok(Err(_))), is_told);
        }
    }
}
