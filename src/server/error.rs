//! Why the balancer can't run: a variant for each cause, with the remedy that usually helps.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use crate::net;

/// Why the balancer can't start, or a reload can't be applied.
#[derive(Debug)]
pub enum RunError {
    /// A listener's address can't be listened on.
    Listen {
        /// As the configuration writes it.
        address: String,
        listener: String,
        source: io::Error,
    },
    /// Two addresses of the configuration come to the same.
    SameAddress { one: String, other: String, address: SocketAddr },
    /// The admin server's address can't be listened on.
    AdminListen {
        /// As the configuration writes it.
        address: String,
        /// The key that has it.
        key: &'static str,
        source: io::Error,
    },
    /// The limit of open files leaves room for hardly any connection.
    FewFiles { connections: usize, open_files: u64 },
    /// The admin server's token can't be read.
    AdminToken { file: PathBuf, source: io::Error },
    /// The access log's file can't be opened, or its thread not started.
    AccessLog {
        /// Its destination.
        target: String,
        source: io::Error,
    },
    /// The program's log can't be opened, or its thread not started.
    Log {
        /// Where it was to go.
        target: String,
        source: io::Error,
    },
    /// A pool's connections may not come from clients' addresses.
    ClientSource { pool: String, source: io::Error },
    /// `relay.engine` requires what doesn't work here.
    Engine(io::Error),
    /// In an upgrade, the old process did not pass all its listening sockets.
    TakeOver(io::Error),
    /// In an upgrade, a pool has no backend, for which the old process has some.
    NoBackend { pool: String },
    /// Another recorder of metrics was installed before.
    Metrics(io::Error),
    /// Signals can't be handled.
    Signals(io::Error),
    /// The main thread's runtime can't be built.
    Runtime(io::Error),
    /// A worker's thread or runtime can't be started.
    Worker(io::Error),
}

impl fmt::Display for RunError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Listen { address, listener, source } => {
                write!(f, "can't listen on {address} (listener `{listener}`): {source}{}", remedy(source))
            }
            Self::SameAddress { one, other, address } => {
                write!(f, "{one} and {other} are the same address, {address}: remove one, or choose another port")
            }
            Self::AdminListen { address, key, source } => write!(
                f,
                "can't listen on {address} for the admin server (`{key}`: choose another, or off): {source}{}",
                remedy(source)
            ),
            Self::FewFiles { connections, open_files } => write!(
                f,
                "the limit of {open_files} open files leaves room for {connections} connections, too few to serve \
                 anybody{TOO_FEW_FILES}; if so few are meant, set `max_connections`"
            ),
            Self::AdminToken { file, source } => write!(
                f,
                "can't read the token of the admin server from {} (`admin.token_file`): {source}",
                file.display()
            ),
            Self::AccessLog { target, source } => {
                write!(f, "can't open the access log {target} (`log.access`): {source}{}", remedy(source))
            }
            Self::Log { target, source } => {
                write!(f, "can't open the log {target} (`log.program`): {source}{}", remedy(source))
            }
            Self::NoBackend { pool } => write!(
                f,
                "the names of pool `{pool}` gave no address, or only removed ones, and the old process has backends \
                 for it: upgrade when name servers answer again"
            ),
            Self::TakeOver(source) => {
                write!(f, "can't take over the listening sockets: {source}{}", remedy(source))
            }
            Self::Metrics(source) => write!(f, "can't start the metrics: {source}{}", remedy(source)),
            Self::Signals(source) => write!(f, "can't handle signals: {source}{}", remedy(source)),
            Self::Runtime(source) => write!(f, "can't start the runtime: {source}{}", remedy(source)),
            Self::Engine(source) => {
                write!(f, "relay.engine: io_uring does not work here (with auto or epoll it is not needed): {source}")
            }
            Self::Worker(source) => write!(f, "can't start a worker: {source}{}", remedy(source)),
            Self::ClientSource { pool, source } => write!(
                f,
                "pool `{pool}`: `source: client` needs the capability CAP_NET_ADMIN: start lb with it (systemd: \
                 AmbientCapabilities=CAP_NET_ADMIN; containers: --cap-add NET_ADMIN and a user that keeps it; a file: \
                 setcap cap_net_admin+ep), or remove that key: {source}"
            ),
        }
    }
}

impl std::error::Error for RunError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Listen { source, .. }
            | Self::AdminListen { source, .. }
            | Self::AdminToken { source, .. }
            | Self::AccessLog { source, .. }
            | Self::Log { source, .. }
            | Self::TakeOver(source)
            | Self::Metrics(source)
            | Self::Signals(source)
            | Self::Runtime(source)
            | Self::Engine(source)
            | Self::ClientSource { source, .. }
            | Self::Worker(source) => Some(source),
            Self::SameAddress { .. } | Self::NoBackend { .. } | Self::FewFiles { .. } => None,
        }
    }
}

const TOO_FEW_FILES: &str =
    " (raise the limit of open files: `ulimit -n`, LimitNOFILE= of systemd, `--ulimit nofile=` of containers)";

/// What usually helps where an address or a file can't be had.
fn remedy(error: &io::Error) -> &'static str {
    if net::is_out_of_files(error) {
        return TOO_FEW_FILES;
    }
    match error.kind() {
        io::ErrorKind::AddrInUse => " (another process has it; stop that one, or listen elsewhere)",
        io::ErrorKind::PermissionDenied => " (ports below 1024 need root or CAP_NET_BIND_SERVICE)",
        io::ErrorKind::AddrNotAvailable => " (it is not an address of this machine)",
        _ => "",
    }
}
