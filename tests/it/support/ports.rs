//! Ports that nobody else takes.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU16, Ordering};

use socket2::{Domain, Socket, Type};

/// Below the kernel's range for outgoing connections (32768 and up), so that none of those takes a port between two
/// uses of it.
const FIRST: u16 = 20_000;
const COUNT: u16 = 12_000;

static NEXT: AtomicU16 = AtomicU16::new(0);

/// A loopback address whose port is free now, and not given to another test of this run.
pub fn free_port() -> SocketAddr {
    let (address, _socket) = bind_free();
    address
}

/// A bound socket that does not listen. SO_REUSEADDR lets it have the port of a server that has just stopped.
fn bind(address: SocketAddr) -> std::io::Result<Socket> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

fn bind_free() -> (SocketAddr, Socket) {
    // Another run at the same time starts elsewhere.
    let start = u16::try_from(std::process::id() * 37 % u32::from(COUNT)).expect("less than COUNT");
    for _ in 0..COUNT {
        let offset = (start + NEXT.fetch_add(1, Ordering::Relaxed) % COUNT) % COUNT;
        let address = SocketAddr::from(([127, 0, 0, 1], FIRST + offset));
        if let Ok(socket) = bind(address) {
            return (address, socket);
        }
    }
    panic!("no free port from {FIRST} on");
}

/// An address that refuses every connection: its port is bound, and nobody listens.
pub struct Refusing {
    address: SocketAddr,
    socket: Socket,
}

impl Refusing {
    pub fn new() -> Self {
        let (address, socket) = bind_free();
        Self { address, socket }
    }

    /// At this address, which nobody has: that of a server that has stopped, or any in a network of its own.
    pub fn at(address: SocketAddr) -> Self {
        let socket = bind(address).unwrap_or_else(|error| panic!("{address} can't be bound again: {error}"));
        Self { address, socket }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// From now on it listens.
    pub fn listen(self) -> std::net::TcpListener {
        self.listen_with_backlog(1024)
    }

    /// The same with a queue of that length.
    pub fn listen_with_backlog(self, backlog: i32) -> std::net::TcpListener {
        self.socket.listen(backlog).expect("a bound socket can listen");
        self.socket.into()
    }
}
