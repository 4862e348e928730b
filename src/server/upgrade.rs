//! An upgrade: the program is started again, takes over the listening sockets, and once it accepts, this process only
//! serves its connections to their end. Whatever goes wrong before that, this process goes on.
//!
//! Both ends of the hand-over are here. It goes over a socket that is the new process's standard input: first all
//! listening sockets, then, the other way, that it accepts.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socketpair};
use rustix::process::{Pid, Signal, kill_process};
use tokio::sync::oneshot;

use crate::net::{PassedSockets, receive_sockets, send_sockets};

use super::listen_sockets::ListenSockets;

/// Tells the new process what its standard input is.
const VARIABLE: &str = "LB_HANDOVER";
/// The new process must accept within this time.
const TIMEOUT: Duration = Duration::from_secs(30);
/// Said by a new process that accepts.
const READY: &[u8] = b"ready";
/// A process that the kernel ends all others with (pid_namespaces(7)): a container's first.
const INIT: u32 = 1;

/// The process that this one takes over from, if there is one.
pub(super) struct OldProcess {
    socket: Option<OwnedFd>,
    passed: Vec<PassedSockets>,
}

impl OldProcess {
    /// Takes its listening sockets.
    pub(super) fn receive() -> io::Result<Self> {
        if std::env::var_os(VARIABLE).is_none() {
            return Ok(Self { socket: None, passed: Vec::new() });
        }
        let socket = io::stdin().as_fd().try_clone_to_owned()?;
        let passed = receive_sockets(&socket)?;
        tracing::info!(addresses = passed.len(), "taking over from the process before");
        Ok(Self { socket: Some(socket), passed })
    }

    /// `None`: there was no process before.
    pub(super) fn take_sockets(&mut self) -> Option<Vec<PassedSockets>> {
        self.socket.as_ref().map(|_| std::mem::take(&mut self.passed))
    }

    /// From now on it may stop accepting.
    pub(super) fn report_ready(self) {
        if let Some(socket) = self.socket
            && let Err(error) = send(&socket, READY, SendFlags::NOSIGNAL)
        {
            tracing::warn!(%error, "the process before could not be told that this one accepts");
        }
    }
}

/// The upgrade of this process to another.
pub(super) struct Upgrade {
    /// The program as it was called: a new version may lie in its place later.
    program: Option<PathBuf>,
    under_way: Option<UnderWay>,
}

struct UnderWay {
    pid: u32,
    result: oneshot::Receiver<Result<u32, String>>,
}

impl Upgrade {
    /// To be made early, while the program is still where it was started from.
    pub(super) fn new() -> Self {
        Self { program: std::env::current_exe().ok(), under_way: None }
    }

    /// Starts the program again, with this one's arguments and environment, and passes on its listening sockets.
    pub(super) fn begin(&mut self, listen_sockets: &ListenSockets, admin: Option<(&str, &[OwnedFd])>) {
        if self.under_way.is_some() {
            return tracing::warn!("an upgrade is under way already");
        }
        if std::process::id() == INIT {
            return tracing::error!(
                "no upgrade of a container's first process: the container would end with it; start a new container, \
                 and stop this one"
            );
        }
        match self.start(listen_sockets, admin) {
            Ok((child, socket)) => {
                tracing::info!(pid = child.id(), "upgrading: a new process was started");
                let (pid, (sender, result)) = (child.id(), oneshot::channel());
                // A thread of its own: it waits for the new process.
                std::thread::spawn(move || sender.send(wait_until_ready(child, &socket)));
                self.under_way = Some(UnderWay { pid, result });
            }
            Err(error) => tracing::error!(%error, "the upgrade failed; this process goes on"),
        }
    }

    /// This process is to stop: so is the one that it has just started.
    pub(super) fn cancel(&mut self) {
        let pid = self.under_way.take().and_then(|under_way| i32::try_from(under_way.pid).ok()).and_then(Pid::from_raw);
        if let Some(pid) = pid {
            // It is a child that nobody has waited for yet, or has ended.
            let _ = kill_process(pid, Signal::TERM);
        }
    }

    fn start(&self, listen_sockets: &ListenSockets, admin: Option<(&str, &[OwnedFd])>) -> io::Result<(Child, OwnedFd)> {
        let program = self.program.as_ref().ok_or(io::ErrorKind::NotFound)?;
        let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        for direction in [Timeout::Send, Timeout::Recv] {
            set_socket_timeout(&ours, direction, Some(TIMEOUT))?;
        }
        let child = Command::new(program)
            .args(std::env::args_os().skip(1))
            .env(VARIABLE, "stdin")
            // They name this process: the new one is addressed by nobody else's number.
            .env_remove("WATCHDOG_PID")
            .env_remove("LISTEN_PID")
            .stdin(Stdio::from(theirs))
            .spawn()?;
        let listen_sockets = listen_sockets.sockets();
        let all = listen_sockets.iter().map(|(name, sockets)| (name.as_str(), *sockets)).chain(admin);
        // One that ends before it has them all is heard of when it is waited for.
        if let Err(error) = send_sockets(&ours, all) {
            tracing::debug!(%error, "the new process did not take the sockets");
        }
        Ok((child, ours))
    }

    /// Waits for the end of the upgrade under way: the process that has taken over, or `None` if it failed, which is
    /// logged. Waits for ever where none is. Safe to cancel.
    pub(super) async fn ended(&mut self) -> Option<u32> {
        let Some(under_way) = &mut self.under_way else { return std::future::pending().await };
        let result = (&mut under_way.result).await.unwrap_or_else(|_| Err("nobody waited for it".to_owned()));
        self.under_way = None;
        match result {
            Ok(pid) => {
                tracing::info!(pid, "upgraded: the new process accepts, this one ends with its connections");
                Some(pid)
            }
            Err(error) => {
                tracing::error!(%error, "the upgrade failed; this process goes on");
                None
            }
        }
    }
}

/// Waits until the new process accepts; ends it where it doesn't.
fn wait_until_ready(mut child: Child, socket: &OwnedFd) -> Result<u32, String> {
    let mut answer = [0; READY.len()];
    let why = match recv(socket, &mut answer[..], RecvFlags::empty()) {
        Ok((_, length)) if answer[..length] == *READY => return Ok(child.id()),
        Err(Errno::AGAIN) => "the new process did not accept in time",
        // Its end of the socket was closed, with or without what it was sent in it.
        Ok(_) | Err(_) => "the new process ended before it accepted",
    };
    // It may have ended by itself.
    let _ = child.kill();
    let status = child.wait().map_or_else(|error| error.to_string(), |status| status.to_string());
    Err(format!("{why} ({status}); what it said is in the log"))
}
