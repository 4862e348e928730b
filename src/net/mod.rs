//! Sockets: listen, accept, dial, send and receive, as few system calls as the work needs.
//!
//! Takes its own option structs and knows neither the configuration nor backends. The only folder that may contain
//! `unsafe`; nearly every system call has a safe wrapper in rustix or socket2.

mod dial;
mod fd_passing;
mod inherited;
mod listen;
mod socket_option;
mod splice;
mod stream;

pub use dial::{ConnectFailure, DialError, DialOptions, Target, dial};
pub use fd_passing::{PassedSockets, receive_sockets, send_sockets};
pub use inherited::inherited;
pub use listen::{
    Accepted, BACKLOG, ListenAddress, ListenSocket, TcpOptions, bind, extend, is_out_of_files, is_out_of_memory,
    is_unix, local_address, local_port, set_options, share,
};
pub use splice::Pipe;
pub use stream::{Hangup, Peer, Stream as Transport};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Raises the soft limit of open files to the hard one and gives the result; `u64::MAX` where there is none.
pub fn raise_open_file_limit() -> u64 {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current != maximum && setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).is_ok() {
        return maximum.unwrap_or(u64::MAX);
    }
    current.unwrap_or(u64::MAX)
}
