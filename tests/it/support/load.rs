//! Clients that come and go, and sessions that stay: every byte is checked, and nothing may go wrong.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::clients::bound;
use super::servers::Server;
use super::{PATIENCE, wait_until};

/// Between two messages of a session; between two short connections of one client.
const SESSION_PAUSE: Duration = Duration::from_millis(20);
const CLIENT_PAUSE: Duration = Duration::from_millis(1);
const MESSAGE_BYTES: usize = 1000;
const STACK_BYTES: usize = 128 * 1024;

/// Clients at work until they are told to end, or the first thing goes wrong.
pub struct Load {
    address: SocketAddr,
    state: Arc<State>,
    clients: Vec<JoinHandle<()>>,
    sessions: usize,
}

#[derive(Default)]
struct State {
    is_over: AtomicBool,
    /// Short connections, and messages of sessions.
    visits: AtomicUsize,
    messages: AtomicUsize,
    failures: Mutex<Vec<String>>,
}

impl Load {
    /// The backend: it answers a short client and closes; a session's messages are sent back until it ends.
    pub fn server() -> Server {
        Server::that(|mut stream| {
            let mut message = [0; MESSAGE_BYTES];
            while stream.read_exact(&mut message).is_ok() {
                if stream.write_all(&message).is_err() || message[0] == b's' {
                    return;
                }
            }
        })
    }

    /// So many short clients at a time, and so many sessions.
    pub fn on(address: SocketAddr, short: usize, sessions: usize) -> Self {
        let mut load = Self { address, state: Arc::default(), clients: Vec::new(), sessions: 0 };
        (0..short).for_each(|_| load.add("a short client", visit_again_and_again));
        load.add_sessions(sessions);
        load
    }

    /// Further sessions.
    pub fn add_sessions(&mut self, sessions: usize) {
        self.sessions += sessions;
        (0..sessions).for_each(|_| self.add("a session", stay));
    }

    /// Short connections that ended well so far.
    pub fn visits(&self) -> usize {
        self.state.visits.load(Ordering::Relaxed)
    }

    /// Waits until there were so many more short connections, and as many messages as sessions.
    #[track_caller]
    pub fn goes_on(&self, visits: usize) {
        let load = |count: &AtomicUsize| count.load(Ordering::Relaxed);
        let (visits, messages) = (load(&self.state.visits) + visits, load(&self.state.messages) + self.sessions);
        wait_until("the load goes on", || {
            self.assert_well();
            load(&self.state.visits) >= visits && load(&self.state.messages) >= messages
        });
    }

    /// Ends it: all must have gone well. Gives the number of short connections.
    #[track_caller]
    pub fn end(mut self) -> usize {
        self.state.is_over.store(true, Ordering::Relaxed);
        self.clients.drain(..).for_each(|client| client.join().expect("clients note what goes wrong"));
        self.assert_well();
        self.visits()
    }

    #[track_caller]
    fn assert_well(&self) {
        let failures = self.state.failures.lock().expect("nobody panics with it");
        assert!(failures.is_empty(), "after {} short connections: {failures:?}", self.visits());
    }

    fn add(&mut self, who: &'static str, act: fn(SocketAddr, &State) -> io::Result<()>) {
        let (address, state) = (self.address, self.state.clone());
        let client = move || {
            if let Err(error) = act(address, &state) {
                state.failures.lock().expect("nobody panics with it").push(format!("{who}: {error}"));
            }
        };
        self.clients.push(thread::Builder::new().stack_size(STACK_BYTES).spawn(client).expect("threads enough"));
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.state.is_over.store(true, Ordering::Relaxed);
    }
}

impl State {
    fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Relaxed)
    }
}

fn visit_again_and_again(address: SocketAddr, state: &State) -> io::Result<()> {
    while !state.is_over() {
        let mut stream = connect(address)?;
        exchange(&mut stream, b's', state.visits.load(Ordering::Relaxed))?;
        // The backend ends first: no TIME_WAIT keeps a local port of ours.
        expect_end(&mut stream)?;
        state.visits.fetch_add(1, Ordering::Relaxed);
        thread::sleep(CLIENT_PAUSE);
    }
    Ok(())
}

fn stay(address: SocketAddr, state: &State) -> io::Result<()> {
    let mut stream = connect(address)?;
    while !state.is_over() {
        exchange(&mut stream, b'l', state.messages.fetch_add(1, Ordering::Relaxed))?;
        thread::sleep(SESSION_PAUSE);
    }
    stream.shutdown(Shutdown::Write)?;
    expect_end(&mut stream)
}

fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&address, PATIENCE)
        .map_err(|error| io::Error::new(error.kind(), format!("connect: {error}")))?;
    bound(&stream);
    Ok(stream)
}

/// A message that no other is like, there and back.
fn exchange(stream: &mut TcpStream, kind: u8, number: usize) -> io::Result<()> {
    let mut message: Vec<u8> = number.to_le_bytes().iter().copied().cycle().take(MESSAGE_BYTES).collect();
    message[0] = kind;
    stream.write_all(&message)?;
    let mut answer = [0; MESSAGE_BYTES];
    stream.read_exact(&mut answer)?;
    if answer == message[..] { Ok(()) } else { Err(io::Error::other("wrong bytes")) }
}

fn expect_end(stream: &mut TcpStream) -> io::Result<()> {
    match stream.read(&mut [0])? {
        0 => Ok(()),
        _ => Err(io::Error::other("bytes after the answer")),
    }
}
