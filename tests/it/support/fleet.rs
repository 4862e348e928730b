//! Backends by the dozen: one server for many addresses of this machine, which remembers who came to which.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::thread;

use socket2::{Domain, SockAddr, Socket, Type};

use super::clients::bound;
use super::ports::{Refusing, free_port};
use super::{PATIENCE, short_read};

const STACK_BYTES: usize = 128 * 1024;

/// A greeting server on one port of every loopback address. It sends the address that the client came to, waits for one
/// byte or the end, and closes. It ends with the test process.
pub struct Fleet {
    port: u16,
    visits: Arc<Mutex<Visits>>,
}

#[derive(Default)]
struct Visits {
    peers: Vec<IpAddr>,
    of: HashMap<IpAddr, Visited>,
}

/// What one address of a fleet has seen.
#[derive(Clone, Copy, Debug, Default)]
pub struct Visited {
    /// Connections so far.
    pub total: usize,
    /// Those that live.
    pub active: usize,
    /// The most that lived at once.
    pub peak: usize,
}

impl Fleet {
    /// On every IPv4 loopback address, and on ::1.
    pub fn start() -> Self {
        let port = free_port().port();
        let fleet = Self { port, visits: Arc::default() };
        fleet.listen(TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).expect("a port that was free just now"));
        let v6 = Socket::new(Domain::IPV6, Type::STREAM, None).expect("this machine has IPv6");
        v6.set_only_v6(true).expect("a fresh socket");
        v6.set_reuse_address(true).expect("a fresh socket");
        v6.bind(&SocketAddr::from((Ipv6Addr::LOCALHOST, port)).into()).expect("a port that was free just now");
        v6.listen(1024).expect("a bound socket");
        fleet.listen(v6.into());
        fleet
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// The backend of this address, as a configuration has it.
    pub fn at(&self, address: &str) -> SocketAddr {
        SocketAddr::new(address.parse().expect("an IP address"), self.port)
    }

    /// The addresses that connections came from, in the order of their coming.
    pub fn peers(&self) -> Vec<IpAddr> {
        self.visits.lock().expect("nobody panics with it").peers.clone()
    }

    /// What one address has seen.
    pub fn visited(&self, address: &str) -> Visited {
        let address: IpAddr = address.parse().expect("an IP address");
        self.visits.lock().expect("nobody panics with it").of.get(&address).copied().unwrap_or_default()
    }

    fn listen(&self, listener: TcpListener) {
        let visits = self.visits.clone();
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (Ok(local), Ok(peer)) = (stream.local_addr(), stream.peer_addr()) else { continue };
                let entered = |visits: &mut Visits| {
                    visits.peers.push(peer.ip());
                    let visited = visits.of.entry(local.ip()).or_default();
                    visited.total += 1;
                    visited.active += 1;
                    visited.peak = visited.peak.max(visited.active);
                };
                entered(&mut visits.lock().expect("nobody panics with it"));
                let visits = visits.clone();
                let serve = move || {
                    greet(stream, &local.ip().to_string(), || {
                        let mut visits = visits.lock().expect("nobody panics with it");
                        visits.of.entry(local.ip()).or_default().active -= 1;
                    });
                };
                drop(thread::Builder::new().stack_size(STACK_BYTES).spawn(serve).expect("threads enough"));
            }
        });
    }
}

/// Left before the close: whoever sees the end may know that the place is free.
fn greet(mut stream: TcpStream, name: &str, leave: impl FnOnce()) {
    bound(&stream);
    let _ = stream.write_all(name.as_bytes());
    let _ = stream.read(&mut [0]);
    leave();
}

/// A unix socket that greets with `name`, then echoes until the client ends. It ends with the test process.
pub fn greeting_unix_socket(path: &Path, name: &str) {
    let listener = UnixListener::bind(path).expect("a path of the test's own folder");
    let name = name.to_owned();
    thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let name = name.clone();
            thread::spawn(move || {
                let _ = stream.write_all(name.as_bytes());
                let mut reader = stream.try_clone().expect("descriptors enough");
                let _ = io::copy(&mut reader, &mut stream);
            });
        }
    });
}

/// Connects from a source address of this machine, with a bound on every read and write.
#[track_caller]
pub fn connect_from(source: IpAddr, address: SocketAddr) -> TcpStream {
    try_connect_from(source, address).unwrap_or_else(|error| panic!("{source} to {address}: {error}"))
}

/// The same, where it may be reset before connect(2) has told that it worked.
pub fn try_connect_from(source: IpAddr, address: SocketAddr) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.bind(&SocketAddr::new(source, 0).into())?;
    socket.connect_timeout(&address.into(), PATIENCE)?;
    let stream = TcpStream::from(socket);
    bound(&stream);
    Ok(stream)
}

/// The greeting that a client of `address` gets.
#[track_caller]
pub fn greeting(address: SocketAddr) -> String {
    short_read(&mut super::connect(address))
}

/// The same, where it may fail.
pub fn try_greeting(address: SocketAddr) -> io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    bound(&stream);
    let mut buffer = [0; 64];
    match stream.read(&mut buffer)? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        length => Ok(String::from_utf8_lossy(&buffer[..length]).into_owned()),
    }
}

/// The address of a process that has ended: it refuses.
pub fn refusing_at(address: SocketAddr) -> Refusing {
    Refusing::at(address)
}

/// An address that gives no answer at all: it listens, its queue is full, and nobody accepts.
pub struct Flooded {
    address: SocketAddr,
    _listener: TcpListener,
    _queued: Vec<Socket>,
}

impl Flooded {
    pub fn at(address: Refusing) -> Self {
        let listener = address.listen_with_backlog(0);
        let address = listener.local_addr().expect("a bound socket");
        // A queue of 0 holds one connection (listen(2)); a few more only wait for a place.
        let queued = (0..4).map(|_| {
            let socket = Socket::new(Domain::IPV4, Type::STREAM.nonblocking(), None).expect("a socket");
            let _ = socket.connect(&SockAddr::from(address));
            socket
        });
        Self { address, _queued: queued.collect(), _listener: listener }
    }

    /// From now on it refuses.
    pub fn end(self) -> Refusing {
        let address = self.address;
        drop(self);
        Refusing::at(address)
    }
}
