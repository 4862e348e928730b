//! Why a connect failed, and whose fault that is: one table for every way to a backend.

use std::fmt;
use std::io;

use rustix::io::Errno;

labels! {
    /// Why a connect failed.
    ConnectFailure {
        /// Nothing listens there.
        Refused = "refused",
        /// The backend reset the connection while it was made.
        Reset = "reset",
        /// There is no way to it from this machine: no route, or one that the network or the kernel refuses to use.
        Unreachable = "unreachable",
        /// No answer in time.
        Timeout = "timeout",
        /// It was made, and the TLS handshake on it failed.
        Tls = "tls",
        /// A limit of this machine: open files, memory, local ports; or its own source address. Not the backend's
        /// fault.
        Local = "local",
    }
}

impl ConnectFailure {
    /// Whether failure detection should count it.
    pub fn is_backends_fault(self) -> bool {
        self != Self::Local
    }

    /// The table. After any of these the next backend is tried, also after what is our own: local ports are counted by
    /// destination, a file may be free again, and `attempts` bounds it.
    fn of(errno: Errno) -> Self {
        match errno {
            // TCP: a reset answered (tcp(7)). Unix (unix(7)): no such path, nobody who listens on it, a socket of
            // another type, or a full queue, which is how a server looks that doesn't accept.
            Errno::CONNREFUSED
            | Errno::NOENT
            | Errno::NOTDIR
            | Errno::LOOP
            | Errno::NAMETOOLONG
            | Errno::PROTOTYPE
            | Errno::AGAIN => Self::Refused,
            // It was made, and lost before its first use.
            Errno::CONNRESET | Errno::PIPE | Errno::CONNABORTED => Self::Reset,
            // The kernel gave up sending SYNs, or tcp_user_timeout did.
            Errno::TIMEDOUT => Self::Timeout,
            // This process or machine has no file, socket, memory or epoll entry left: any backend would meet it.
            Errno::MFILE | Errno::NFILE | Errno::NOMEM | Errno::NOBUFS | Errno::NOSPC => Self::Local,
            // No local port is free for this destination, or the pool's `source` is no address of this machine. Without
            // a source it can also be the backend's: see `dial`.
            Errno::ADDRNOTAVAIL | Errno::ADDRINUSE => Self::Local,
            // An interrupted call, or a misused descriptor: ours, whoever the backend is.
            Errno::INTR | Errno::BADF | Errno::NOTSOCK | Errno::FAULT | Errno::ISCONN | Errno::ALREADY => Self::Local,
            // No route, or one that says so: `unreachable` and a host that doesn't answer ARP (HOSTUNREACH,
            // NETUNREACH), `prohibit` (ACCES), `blackhole` (INVAL), a firewall's rule (PERM, ACCES); an address without
            // its zone (INVAL), a zone whose interface is gone (NODEV), a family that this machine has not
            // (AFNOSUPPORT), an ICMP error (NOPROTOOPT, PROTO, MSGSIZE, OPNOTSUPP; icmp_err_convert in the kernel); a
            // unix socket's permissions (ACCES). It says of this backend that it can't be used from here.
            //
            // And whatever isn't named here: it came of connecting to this backend. If it is ours after all, every
            // backend meets it, and a pool that is ejected as a whole is used all the same; taken for ours, it would
            // keep a dead backend in use for ever.
            _ => Self::Unreachable,
        }
    }
}

/// A connect that failed.
#[derive(Debug)]
pub struct DialError {
    pub failure: ConnectFailure,
    source: io::Error,
}

impl DialError {
    /// For a reason that is not in the error itself.
    pub fn new(failure: ConnectFailure, source: io::Error) -> Self {
        Self { failure, source }
    }

    /// For who looks at the backend: the word for the failure, and of TLS, where the word alone doesn't help, what is
    /// wrong.
    pub fn summary(&self) -> String {
        match self.failure {
            ConnectFailure::Tls => format!("tls: {}", self.source),
            other => other.as_str().to_owned(),
        }
    }
}

impl fmt::Display for DialError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "connect failed ({}): {}", self.failure.as_str(), self.source)
    }
}

impl std::error::Error for DialError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.source)
    }
}

impl From<ConnectFailure> for DialError {
    /// Where nothing more is known.
    fn from(failure: ConnectFailure) -> Self {
        Self::new(failure, io::Error::other(failure.as_str()))
    }
}

impl From<io::Error> for DialError {
    fn from(source: io::Error) -> Self {
        // An error without an errno is the runtime's, which is going down.
        let failure = Errno::from_io_error(&source).map_or(ConnectFailure::Local, ConnectFailure::of);
        Self { failure, source }
    }
}

impl From<Errno> for DialError {
    fn from(errno: Errno) -> Self {
        io::Error::from(errno).into()
    }
}
