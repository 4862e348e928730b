//! Who has made a request, for the log.

use std::fmt;
use std::net::SocketAddr;

use tokio::net::unix::UCred;

/// The other end of an admin connection.
#[derive(Clone, Copy, Debug)]
pub(super) enum Asker {
    Tcp(SocketAddr),
    /// Of the unix socket; `None`: the system doesn't say which process it is.
    Unix(Option<UCred>),
}

impl fmt::Display for Asker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(None) => f.write_str("unix socket"),
            Self::Unix(Some(process)) => {
                write!(f, "unix socket, uid {}", process.uid())?;
                process.pid().map_or(Ok(()), |pid| write!(f, ", pid {pid}"))
            }
        }
    }
}
