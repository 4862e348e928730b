//! A node of a cluster: one server that holds sessions and says by an HTTP status which role it has, as the agents
//! beside databases do.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicUsize, Ordering};

use super::clients::connect;
use super::lb::{Lb, LbBuilder};
use super::ports::Refusing;
use super::servers::Server;
use super::{short_read, wait_until_equal};

/// A session begins with the client's first bytes; the node answers with its name, then repeats what it gets. Health
/// checks ask for `/role`.
pub struct Node {
    server: Server,
    state: Arc<State>,
}

struct State {
    name: String,
    status: AtomicU16,
    sessions: AtomicUsize,
    open: AtomicUsize,
}

impl Node {
    /// One whose checks are answered with this status.
    pub fn new(name: &str, status: u16) -> Self {
        Self::on(Refusing::new(), name, status)
    }

    /// The same at an address that refused until now.
    pub fn on(address: Refusing, name: &str, status: u16) -> Self {
        let (sessions, open) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let state = Arc::new(State { name: name.to_owned(), status: AtomicU16::new(status), sessions, open });
        let serving = state.clone();
        Self { server: Server::on(address, move |stream| serve(stream, &serving)), state }
    }

    pub fn address(&self) -> SocketAddr {
        self.server.address()
    }

    /// From now on checks are answered with this status.
    pub fn answer(&self, status: u16) {
        self.state.status.store(status, Ordering::SeqCst);
    }

    /// Sessions so far.
    pub fn sessions(&self) -> usize {
        self.state.sessions.load(Ordering::SeqCst)
    }

    /// Sessions that live.
    pub fn open(&self) -> usize {
        self.state.open.load(Ordering::SeqCst)
    }

    /// Stops listening; sessions live on. Gives the address.
    pub fn stop(self) -> Refusing {
        self.server.stop()
    }
}

fn serve(mut stream: TcpStream, state: &State) {
    let mut buffer = [0; 4096];
    let Ok(length @ 1..) = stream.read(&mut buffer) else { return };
    if buffer[..length].starts_with(b"GET /role ") {
        let status = state.status.load(Ordering::SeqCst);
        let _ = write!(stream, "HTTP/1.1 {status} Status\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        return;
    }
    state.sessions.fetch_add(1, Ordering::SeqCst);
    state.open.fetch_add(1, Ordering::SeqCst);
    let mut answered = stream.write_all(state.name.as_bytes()).is_ok();
    while answered {
        answered = match stream.read(&mut buffer) {
            Ok(length @ 1..) => stream.write_all(&buffer[..length]).is_ok(),
            _ => false,
        };
    }
    state.open.fetch_sub(1, Ordering::SeqCst);
}

/// Begins a session with whichever node the balancer at `address` gives: the connection, and the node's name.
#[track_caller]
pub fn session(address: SocketAddr) -> (TcpStream, String) {
    let mut client = connect(address);
    client.write_all(b"hello").expect("the connection is open");
    let name = short_read(&mut client);
    (client, name)
}

/// Asks for the role often, and believes the first answer.
pub const ROLE_CHECK: &str =
    "{interval: 50ms, timeout: 5s, rise: 1, fall: 1, http: {path: /role, status: 200, standby_status: 503}}";

/// The same, but once: what it has found at the start stays.
pub const ONE_CHECK: &str = "{interval: 1h, timeout: 5s, rise: 1, fall: 1, http: {path: /role, status: 200}}";

/// In front of these nodes, each with its rank.
pub fn ranked(nodes: &[(&Node, u8)]) -> LbBuilder {
    let backend = |(node, rank): &(&Node, u8)| match rank {
        0 => node.address().to_string(),
        rank => format!("{},backup={rank}", node.address()),
    };
    let backends: Vec<String> = nodes.iter().map(backend).collect();
    Lb::with_backends(&backends.iter().map(String::as_str).collect::<Vec<_>>()).set("health_check", ROLE_CHECK)
}

/// In front of these nodes, all of them primaries.
pub fn of_one_rank(nodes: &[&Node]) -> LbBuilder {
    ranked(&nodes.iter().map(|node| (*node, 0)).collect::<Vec<_>>())
}

#[track_caller]
pub fn wait_for_state(lb: &Lb, address: SocketAddr, state: &str) {
    wait_until_equal(&format!("the state of {address}"), &state.to_owned(), || lb.state_of(address));
}

/// Connections that ended for this cause.
pub fn closed_for(lb: &Lb, cause: &str) -> f64 {
    lb.metrics().sum("connections_closed_total", &[("reason", cause)])
}
