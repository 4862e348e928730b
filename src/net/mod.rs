//! Sockets: listen, accept, dial, send and receive, with as few system calls as the work needs. A connected socket
//! leaves this folder only as a [`Transport`].
//!
//! Takes its own option structs and knows neither the configuration nor backends. The only folder that may contain
//! `unsafe`; nearly every system call has a safe wrapper in rustix or socket2.

mod address;
mod connect_failure;
mod dial;
mod fd_passing;
mod handshake;
mod inherited;
mod listen;
mod local_routes;
mod peer;
mod send_ring;
mod socket_option;
mod splice;
mod stream;
mod stream_send;
mod tls_layer;
mod transport;

pub use address::{ListenAddress, Target};
pub use connect_failure::{ConnectFailure, DialError};
pub use dial::{DialOptions, Purpose, Source, check_foreign_sources, dial, is_own_address};
pub use fd_passing::{PassedSockets, receive_sockets, send_sockets};
pub use handshake::HandshakeError;
pub use inherited::inherited_listen_socket;
pub use listen::{
    Accepted, BACKLOG, ListenSocket, TcpOptions, adopt_listen_sockets, bind_listen_sockets, check_free,
    check_unix_path_free, is_no_own_address, is_out_of_files, is_out_of_memory, is_unix, known_tcp_address,
    local_address, local_tcp_address, set_listen_options,
};
pub use local_routes::has_local_route;
pub use peer::Peer;
pub use send_ring::{RING_FILES_PER_WORKER, hand_over_each_turn, open_send_ring, probe_send_ring};
pub use splice::{Pipe, is_splice_refused};
pub use stream::Hangup;
pub use transport::Transport;
