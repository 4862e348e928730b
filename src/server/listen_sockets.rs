//! The listening sockets through start, reload, upgrade and drain: bound before anything else changes, closed only when
//! the kernel's queues are empty.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::net::ToSocketAddrs;
use std::os::fd::OwnedFd;
use std::slice;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc::UnboundedSender;

use crate::config::{self, BindAddress, Config};
use crate::lifecycle::{ConnectionLimit, Permit};
use crate::net::{self, ListenAddress, PassedSockets, TcpOptions};
use crate::proxy::{Acceptor, Frontend};

use super::error::RunError;

/// A reload waits this long for the acceptors that it closes.
const LONGEST_CLOSE: Duration = Duration::from_millis(500);

/// One worker's socket of an address, and what accepts from it.
pub(super) struct SocketForWorker {
    pub(super) acceptor: Arc<Acceptor>,
    pub(super) socket: OwnedFd,
    pub(super) accepting: Permit,
}

/// All addresses that are listened on.
pub(super) struct ListenSockets {
    workers: Vec<UnboundedSender<SocketForWorker>>,
    open: HashMap<BindKey, OpenSockets>,
    /// The accept loops of closed acceptors: one permit for each that still runs.
    closing: Vec<Arc<ConnectionLimit>>,
    /// From the old process; what the configuration doesn't claim is closed at the end of the start.
    passed: Vec<PassedSockets>,
    /// Sockets by the number that the first process was started with. Kept whether they are in use or not: a later
    /// configuration may name them, and their numbers mean nothing in another process.
    inherited: BTreeMap<u32, OwnedFd>,
    /// This process took over from another: it was started with no other sockets.
    is_successor: bool,
}

/// An address of the configuration. One whose port the kernel chooses is its listener's own.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct BindKey(BindAddress, Option<(String, usize)>);

struct OpenSockets {
    acceptor: Arc<Acceptor>,
    /// Duplicates of those that the workers accept from: for new options, and for the next process.
    sockets: Vec<OwnedFd>,
    options: TcpOptions,
    accepting: Arc<ConnectionLimit>,
}

/// The addresses that a configuration wants, with the sockets that were missing: nothing has changed yet.
pub(super) struct BindPlan(Vec<PlannedBind>);

struct PlannedBind {
    key: BindKey,
    listener: String,
    options: TcpOptions,
    /// `None`: it is open.
    sockets: Option<BoundSockets>,
}

/// New sockets: those for the workers, and duplicates of them.
struct BoundSockets {
    accepted_from: Vec<OwnedFd>,
    kept: Vec<OwnedFd>,
}

impl ListenSockets {
    /// None yet; `passed` are open sockets of the old process.
    pub(super) fn new(workers: Vec<UnboundedSender<SocketForWorker>>, passed: Option<Vec<PassedSockets>>) -> Self {
        let is_successor = passed.is_some();
        let mut inherited = BTreeMap::new();
        let mut unclaimed = Vec::new();
        for PassedSockets { address, mut sockets } in passed.unwrap_or_default() {
            match address.parse() {
                Ok(BindAddress::Inherited(number)) => inherited.extend(sockets.pop().map(|socket| (number, socket))),
                _ if sockets.is_empty() => {}
                _ => unclaimed.push(PassedSockets { address, sockets }),
            }
        }
        Self { workers, open: HashMap::new(), closing: Vec::new(), passed: unclaimed, inherited, is_successor }
    }

    /// Binds what is not open yet.
    ///
    /// # Errors
    /// An address can't be had; nothing has changed.
    pub(super) fn plan(&mut self, config: &Config) -> Result<BindPlan, RunError> {
        let mut plan = Vec::new();
        for listener in &config.listeners {
            for (index, address) in listener.bind.iter().enumerate() {
                let own = address.is_chosen_by_kernel().then(|| (listener.name.clone(), index));
                let key = BindKey(address.clone(), own);
                let options = client_socket_options(listener, config);
                let sockets = if self.open.contains_key(&key) {
                    None
                } else {
                    let bound = self.bind(&key, &options).map_err(|source| RunError::Listen {
                        address: address.to_string(),
                        listener: listener.name.clone(),
                        source,
                    })?;
                    Some(bound)
                };
                plan.push(PlannedBind { key, listener: listener.name.clone(), options, sockets });
            }
        }
        Ok(BindPlan(plan))
    }

    fn bind(&mut self, key: &BindKey, options: &TcpOptions) -> io::Result<BoundSockets> {
        let (name, workers) = (key.name(), self.workers.len());
        let passed = self.passed.iter().position(|passed| passed.address == name);
        let accepted_from = match (passed, &key.0) {
            (Some(index), _) => net::adopt_listen_sockets(self.passed.swap_remove(index).sockets, workers, options)?,
            (None, BindAddress::Inherited(number)) => {
                net::adopt_listen_sockets(vec![self.inherited(*number)?], workers, options)?
            }
            (None, address) => {
                let addresses = listen_addresses(address)?;
                let is_ours = |address: &ListenAddress| address.port().is_some_and(|port| self.has_port(port));
                let bound = addresses
                    .iter()
                    .map(|address| net::bind_listen_sockets(address, options, workers, is_ours(address)));
                bound.collect::<io::Result<Vec<_>>>()?.into_iter().flatten().collect()
            }
        };
        let kept = accepted_from.iter().map(OwnedFd::try_clone).collect::<io::Result<_>>()?;
        Ok(BoundSockets { accepted_from, kept })
    }

    fn inherited(&mut self, number: u32) -> io::Result<OwnedFd> {
        if let Some(socket) = self.inherited.get(&number) {
            return socket.try_clone();
        }
        if self.is_successor {
            return Err(io::Error::new(io::ErrorKind::NotFound, "the old process had no such socket"));
        }
        let socket = net::inherited_listen_socket(number)?;
        let kept = socket.try_clone()?;
        self.inherited.insert(number, kept);
        Ok(socket)
    }

    /// Whether this process, or the one before, listens on the port already.
    fn has_port(&self, port: u16) -> bool {
        let open = self.open.values().map(|open| &open.sockets);
        let mut all = open.chain(self.passed.iter().map(|passed| &passed.sockets)).flatten();
        all.any(|socket| net::local_port(socket) == Some(port))
    }

    /// Opens, keeps and closes addresses as planned; `frontend_of` gives a listener's frontend. Waits, but not for
    /// long, until the queues of the closed ones are empty: then their addresses are free.
    pub(super) async fn apply(&mut self, plan: BindPlan, frontend_of: impl Fn(&str) -> Arc<Frontend>) {
        let mut before = std::mem::take(&mut self.open);
        for PlannedBind { key, listener, options, sockets } in plan.0 {
            let frontend = frontend_of(&listener);
            let open = match (before.remove(&key), sockets) {
                (Some(mut open), _) => {
                    open.acceptor.set_frontend(frontend);
                    open.set_options(options);
                    open
                }
                (None, sockets) => {
                    let bound = sockets.expect("what was not open was bound");
                    tracing::info!(listener, address = net::local_address(&bound.kept[0]), "listening");
                    self.open(frontend, bound, options)
                }
            };
            self.open.insert(key, open);
        }
        for (key, open) in before {
            tracing::info!(address = %key.0, "no longer listening");
            self.close_one(open);
        }
        // It takes the workers a moment; a busy one closes its sockets later.
        let _ = tokio::time::timeout(LONGEST_CLOSE, self.closed()).await;
    }

    /// Gives each worker its sockets.
    fn open(&self, frontend: Arc<Frontend>, bound: BoundSockets, options: TcpOptions) -> OpenSockets {
        let (acceptor, accepting) = (Acceptor::new(frontend), ConnectionLimit::new(usize::MAX));
        for (socket, worker) in bound.accepted_from.into_iter().zip(self.workers.iter().cycle()) {
            let accepting = accepting.try_acquire().expect("there is no limit of listening sockets");
            // A worker that has ended was stopped: then nothing is to be accepted.
            let _ = worker.send(SocketForWorker { acceptor: acceptor.clone(), socket, accepting });
        }
        OpenSockets { acceptor, sockets: bound.kept, options, accepting }
    }

    fn close_one(&mut self, open: OpenSockets) {
        open.acceptor.close();
        self.closing.push(open.accepting);
    }

    /// A socket of the old process that is not a listener's.
    pub(super) fn take_passed(&mut self, name: &str) -> Option<OwnedFd> {
        let index = self.passed.iter().position(|passed| passed.address == name)?;
        self.passed.swap_remove(index).sockets.pop()
    }

    /// What is left belongs to the old process alone, which empties those queues.
    pub(super) fn close_unclaimed(&mut self) {
        self.passed.clear();
    }

    /// All sockets by the name under which the next process asks for them.
    pub(super) fn sockets(&self) -> Vec<(String, &[OwnedFd])> {
        let bound = self.open.iter().filter(|(key, _)| !matches!(key.0, BindAddress::Inherited(_)));
        let bound = bound.map(|(key, open)| (key.name(), &open.sockets[..]));
        let inherited = self
            .inherited
            .iter()
            .map(|(number, socket)| (BindAddress::Inherited(*number).to_string(), slice::from_ref(socket)));
        bound.chain(inherited).collect()
    }

    /// The addresses that a listener got.
    pub(super) fn addresses(&self, listener: &config::ListenerConfig) -> Vec<String> {
        let addresses = listener.bind.iter().enumerate().filter_map(|(index, address)| {
            let own = address.is_chosen_by_kernel().then(|| (listener.name.clone(), index));
            let open = self.open.get(&BindKey(address.clone(), own))?;
            match address {
                BindAddress::Address(ListenAddress::Unix(_)) => Some(address.to_string()),
                _ => open.sockets.first().map(net::local_address),
            }
        });
        addresses.collect()
    }

    /// Closes all addresses; connections that the kernel has queued are still accepted.
    pub(super) fn close(&mut self) {
        for (_, open) in std::mem::take(&mut self.open) {
            self.close_one(open);
        }
    }

    /// Waits until the queues of closed addresses are empty. Safe to cancel.
    pub(super) async fn closed(&mut self) {
        while let Some(accepting) = self.closing.last() {
            accepting.emptied().await;
            self.closing.pop();
        }
    }
}

impl BindKey {
    /// The same in every process with this configuration.
    fn name(&self) -> String {
        match &self.1 {
            None => self.0.to_string(),
            Some((listener, index)) => format!("{} {listener} {index}", self.0),
        }
    }
}

impl OpenSockets {
    fn set_options(&mut self, options: TcpOptions) {
        if self.options != options {
            // A unix socket has none of them, and a TCP socket has them all.
            for socket in &self.sockets {
                let _ = net::set_listen_options(socket, &options);
            }
            self.options = options;
        }
    }
}

/// Accepted sockets inherit what the listener's pool wants of its connections.
fn client_socket_options(listener: &config::ListenerConfig, config: &Config) -> TcpOptions {
    let named = listener.pool.as_ref().or_else(|| listener.mode.routes().first().map(|route| &route.pool));
    let pool = config.pools.iter().find(|pool| Some(&pool.name) == named);
    pool.expect("a valid configuration has every listener's pool").tcp.clone()
}

/// Where the kernel is to listen: a name stands for all its addresses.
pub(super) fn listen_addresses(address: &BindAddress) -> io::Result<Vec<ListenAddress>> {
    Ok(match address {
        BindAddress::Address(address) => vec![address.clone()],
        BindAddress::Inherited(_) => {
            return Err(io::Error::new(io::ErrorKind::Unsupported, "only a listener can be inherited"));
        }
        BindAddress::Name(host, port) => {
            let mut all: Vec<_> = (host.as_str(), *port).to_socket_addrs()?.collect();
            all.dedup();
            all.into_iter().map(ListenAddress::Tcp).collect()
        }
    })
}
