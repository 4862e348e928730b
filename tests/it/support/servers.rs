//! Small real servers, each with a temper of its own.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use socket2::{Domain, SockAddr, Socket, Type};

use super::clients::{bound, reset};
use super::ports::Refusing;

/// Thousands of connections are served by a thread each.
const STACK_BYTES: usize = 128 * 1024;

/// A TCP server on loopback. Dropping it stops it; connections that it has live on.
pub struct Server {
    address: SocketAddr,
    accepted: Arc<AtomicUsize>,
    stopped: Arc<AtomicBool>,
    accepting: Option<JoinHandle<()>>,
}

impl Server {
    /// Treats each connection with `serve`, on a thread of its own.
    pub fn that(serve: impl Fn(TcpStream) + Send + Sync + 'static) -> Self {
        Self::on(Refusing::new(), serve)
    }

    /// The same at an address that refused until now.
    pub fn on(address: Refusing, serve: impl Fn(TcpStream) + Send + Sync + 'static) -> Self {
        let listener = address.listen();
        let address = listener.local_addr().expect("a bound socket");
        let (accepted, stopped) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let accepting = {
            let (accepted, stopped) = (accepted.clone(), stopped.clone());
            thread::spawn(move || accept(&listener, &accepted, &stopped, &Arc::new(serve)))
        };
        Self { address, accepted, stopped, accepting: Some(accepting) }
    }

    /// Answers each HTTP request with its name, and closes.
    pub fn named(name: &str) -> Self {
        Self::named_on(Refusing::new(), name)
    }

    /// The same at an address that refused until now.
    pub fn named_on(address: Refusing, name: &str) -> Self {
        let length = name.len();
        let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{name}");
        Self::on(address, move |mut stream| {
            let mut request = [0; 4096];
            if stream.read(&mut request).is_ok_and(|length| length > 0) {
                let _ = stream.write_all(answer.as_bytes());
            }
        })
    }

    /// Sends its name as soon as somebody connects, then waits for the client's end.
    pub fn greeting(name: &str) -> Self {
        let name = name.to_owned();
        Self::that(move |mut stream| {
            let _ = stream.write_all(name.as_bytes());
            let _ = stream.read_to_end(&mut Vec::new());
        })
    }

    /// Sends back what it gets; ends when the client has.
    pub fn echo() -> Self {
        Self::that(|mut stream| {
            let mut buffer = vec![0; 64 * 1024];
            while let Ok(length @ 1..) = stream.read(&mut buffer) {
                if stream.write_all(&buffer[..length]).is_err() {
                    return;
                }
            }
            let _ = stream.shutdown(Shutdown::Write);
        })
    }

    /// Sends back all it got, once the client has ended: what reached it is then in the client's hands.
    pub fn mirror() -> Self {
        Self::that(|mut stream| {
            let mut received = Vec::new();
            if stream.read_to_end(&mut received).is_ok() {
                let _ = stream.write_all(&received);
            }
        })
    }

    /// Resets every connection as soon as it is made.
    pub fn resetting_on_accept() -> Self {
        Self::that(reset)
    }

    /// Closes after the client's first bytes, without an answer.
    pub fn closing_after_first_bytes() -> Self {
        Self::that(|mut stream| {
            let _ = stream.read(&mut [0; 1024]);
        })
    }

    /// Takes the connection and neither reads nor writes until the peer is gone, or half a minute is over.
    pub fn ignoring() -> Self {
        Self::ignoring_on(Refusing::new())
    }

    /// The same at an address that refused until now.
    pub fn ignoring_on(address: Refusing) -> Self {
        Self::on(address, |stream| {
            let hung_up = rustix::event::PollFlags::HUP | rustix::event::PollFlags::ERR;
            let mut waiting = [rustix::event::PollFd::new(&stream, hung_up)];
            let half_a_minute = rustix::event::Timespec { tv_sec: 30, tv_nsec: 0 };
            let _ = rustix::event::poll(&mut waiting, Some(&half_a_minute));
        })
    }

    /// Accepts nobody, and its queue is full: a connect gets no answer at all.
    pub fn blackhole() -> Blackhole {
        Blackhole::new()
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Connections accepted so far.
    pub fn accepted(&self) -> usize {
        self.accepted.load(Ordering::Relaxed)
    }

    /// Stops listening: from now on its address refuses. Gives the address, to listen there again.
    pub fn stop(mut self) -> Refusing {
        self.end();
        Refusing::at(self.address)
    }

    fn end(&mut self) {
        self.stopped.store(true, Ordering::Release);
        // Wakes the accept.
        let _ = TcpStream::connect_timeout(&self.address, Duration::from_secs(1));
        if let Some(accepting) = self.accepting.take() {
            let _ = accepting.join();
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if self.accepting.is_some() {
            self.end();
        }
    }
}

fn accept<F>(listener: &TcpListener, accepted: &AtomicUsize, stopped: &AtomicBool, serve: &Arc<F>)
where
    F: Fn(TcpStream) + Send + Sync + 'static,
{
    for stream in listener.incoming() {
        if stopped.load(Ordering::Acquire) {
            return;
        }
        let Ok(stream) = stream else { continue };
        accepted.fetch_add(1, Ordering::Relaxed);
        bound(&stream);
        let serve = serve.clone();
        let spawned = thread::Builder::new().stack_size(STACK_BYTES).spawn(move || serve(stream));
        drop(spawned.expect("threads for a few thousand connections"));
    }
}

/// A listening socket whose queue is full.
pub struct Blackhole {
    listener: TcpListener,
    _queued: Vec<Socket>,
}

impl Blackhole {
    fn new() -> Self {
        let listener = Refusing::new().listen_with_backlog(0);
        let address: SockAddr = listener.local_addr().expect("a bound socket").into();
        // A queue of 0 holds one connection (listen(2)); a few more only wait for a place.
        let queued = std::iter::repeat_with(|| {
            let socket = Socket::new(Domain::IPV4, Type::STREAM.nonblocking(), None).expect("a socket");
            let _ = socket.connect(&address);
            socket
        });
        Self { _queued: queued.take(4).collect(), listener }
    }

    pub fn address(&self) -> SocketAddr {
        self.listener.local_addr().expect("a bound socket")
    }
}
