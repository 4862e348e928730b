//! The listening sockets through start, reload, upgrade and drain: new ones are bound before anything else changes, and
//! old ones closed only when their queues in the kernel are empty.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc::UnboundedSender;

use crate::config::{self, BindAddress, Config};
use crate::lifecycle::{ConnectionLimit, Permit};
use crate::net::{self, ListenAddress, PassedSockets, TcpOptions};
use crate::proxy::{Acceptor, Frontend};

use super::bind_addresses::{addresses_of, bindable};
use super::error::RunError;

/// The sockets of one address, or of one name, shared with an upgrade that passes them on.
pub(super) type SharedSockets = Arc<Vec<OwnedFd>>;

/// A reload waits for the acceptors that it closes, but not longer than this.
const LONGEST_CLOSE: Duration = Duration::from_millis(500);

/// A socket for one worker's accept loop.
pub(super) struct SocketForWorker {
    pub(super) acceptor: Arc<Acceptor>,
    pub(super) socket: OwnedFd,
    /// Held by the accept loop to its end.
    pub(super) accepting: Permit,
}

/// All addresses that are listened on.
pub(super) struct ListenSockets {
    workers: Vec<UnboundedSender<SocketForWorker>>,
    open: HashMap<BindKey, OpenSockets>,
    /// Of closed acceptors: a permit is held by each accept loop that still runs.
    closing: Vec<Arc<ConnectionLimit>>,
    /// Passed by the old process; those that the configuration doesn't name are closed at the end of the start.
    passed: Vec<PassedSockets>,
    /// Sockets by the number that the first process was started with. They stay open even while no listener uses them:
    /// a later configuration may name them, and after an upgrade their numbers are known only from here.
    inherited: BTreeMap<u32, SharedSockets>,
    /// Where the admin server listens, which is none of the above.
    admin: Option<SocketAddr>,
    /// This process took over from another: the numbers of inherited sockets mean nothing to it.
    is_successor: bool,
}

/// What makes two bind addresses of two configurations the same, so that their sockets stay open over a reload.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct BindKey {
    address: BindAddress,
    /// The listener's name, and which of its addresses it is, if the kernel chooses the port: two listeners that write
    /// `:0` have two ports.
    owner: Option<(String, usize)>,
}

struct OpenSockets {
    acceptor: Arc<Acceptor>,
    /// Duplicates of those that the workers accept from: for new options, and for the next upgrade.
    sockets: SharedSockets,
    options: TcpOptions,
    /// A permit is held by each accept loop.
    accepting: Arc<ConnectionLimit>,
}

/// An address that is listened on.
pub(super) struct Listened {
    pub(super) address: SocketAddr,
    /// It is `*`: IPv4 too, by an IPv6 socket.
    pub(super) both_families: bool,
}

/// The addresses of a configuration, with the sockets that were not open yet. Dropped, it leaves all as it was.
pub(super) struct BindPlan(Vec<PlannedBind>);

struct PlannedBind {
    key: BindKey,
    listener: String,
    options: TcpOptions,
    /// Its TCP addresses, as far as they are known: the kernel may be yet to choose a port.
    addresses: Vec<SocketAddr>,
    /// `None`: the address is open already.
    sockets: Option<BoundSockets>,
}

/// New sockets of one address, or of all that a name has.
struct BoundSockets {
    for_workers: Vec<OwnedFd>,
    duplicates: SharedSockets,
}

fn tcp_addresses(sockets: &[OwnedFd]) -> Vec<SocketAddr> {
    sockets.iter().filter_map(net::local_tcp_address).collect()
}

impl ListenSockets {
    /// Nothing is open yet. `passed` are the old process's sockets; `None`: there is no old process.
    pub(super) fn new(workers: Vec<UnboundedSender<SocketForWorker>>, passed: Option<Vec<PassedSockets>>) -> Self {
        let is_successor = passed.is_some();
        let mut inherited = BTreeMap::new();
        let mut unclaimed = Vec::new();
        for PassedSockets { address, mut sockets } in passed.unwrap_or_default() {
            match address.parse() {
                Ok(BindAddress::Inherited(number)) => {
                    inherited.extend(sockets.pop().map(|socket| (number, Arc::new(vec![socket]))));
                }
                _ if sockets.is_empty() => {}
                // Also the admin server's, whose name is no bind address.
                _ => unclaimed.push(PassedSockets { address, sockets }),
            }
        }
        let (open, closing) = (HashMap::new(), Vec::new());
        Self { workers, open, closing, passed: unclaimed, inherited, admin: None, is_successor }
    }

    /// Binds the addresses that are not open yet. Names are looked up without blocking this thread.
    ///
    /// # Errors
    /// An address can't be bound, or two are the same; nothing has changed.
    pub(super) async fn plan(&mut self, config: &Config) -> Result<BindPlan, RunError> {
        let (mut plan, missing) = self.look_at(config).await?;
        for (index, addresses) in missing {
            let PlannedBind { key, listener, options, .. } = &plan[index];
            let bound = self.bind(key, &addresses, options);
            let bound = bound.map_err(|source| listen_error(&key.address, listener, source))?;
            plan[index].addresses = tcp_addresses(&bound.duplicates);
            plan[index].sockets = Some(bound);
        }
        self.check_distinct(&plan)?;
        Ok(BindPlan(plan))
    }

    /// Whether the addresses that are not open yet could be bound.
    ///
    /// # Errors
    /// One can't, or two are the same.
    pub(super) async fn check(&self, config: &Config) -> Result<(), RunError> {
        let (plan, _) = self.look_at(config).await?;
        self.check_distinct(&plan)
    }

    /// All addresses, and for the places of those that are not open yet what is to be bound.
    ///
    /// All are looked at before the first is bound: two addresses of this process may overlap (`0.0.0.0:80` and
    /// `127.0.0.1:80`; the kernel prefers the narrower one), and one that is open already can't be told from another
    /// process's.
    async fn look_at(&self, config: &Config) -> Result<(Vec<PlannedBind>, Vec<(usize, Vec<ListenAddress>)>), RunError> {
        let (mut plan, mut missing) = (Vec::new(), Vec::new());
        for listener in &config.listeners {
            for (index, address) in listener.bind.iter().enumerate() {
                let key = BindKey::new(address, &listener.name, index);
                let (listener, options) = (listener.name.clone(), listener.tcp.clone());
                let addresses = if let Some(open) = self.open.get(&key) {
                    tcp_addresses(&open.sockets)
                } else {
                    let to_bind = self.addresses_to_bind(&key).await;
                    let to_bind = to_bind.map_err(|source| listen_error(address, &listener, source))?;
                    let known = to_bind.iter().filter_map(net::known_tcp_address).collect();
                    missing.push((plan.len(), to_bind));
                    known
                };
                plan.push(PlannedBind { key, listener, options, addresses, sockets: None });
            }
        }
        Ok((plan, missing))
    }

    /// The addresses that must be bound for a key; none if it has sockets already.
    async fn addresses_to_bind(&self, key: &BindKey) -> io::Result<Vec<ListenAddress>> {
        let is_passed = self.passed.iter().any(|passed| passed.address == key.name());
        if is_passed || matches!(key.address, BindAddress::Inherited(_)) {
            return Ok(Vec::new());
        }
        let addresses = addresses_of(&key.address).await?;
        bindable(addresses, |address| self.is_ours(address))
    }

    fn bind(&mut self, key: &BindKey, addresses: &[ListenAddress], options: &TcpOptions) -> io::Result<BoundSockets> {
        let (name, workers) = (key.name(), self.workers.len());
        let passed = self.passed.iter().position(|passed| passed.address == name);
        let for_workers = match (passed, &key.address) {
            // The same sockets as in the old process: clients in their queues are not lost.
            (Some(index), _) => net::adopt_listen_sockets(self.passed.swap_remove(index).sockets, workers, options)?,
            (None, BindAddress::Inherited(number)) => {
                net::adopt_listen_sockets(vec![self.inherited(*number)?], workers, options)?
            }
            (None, _) => {
                let mut sockets = Vec::new();
                for address in addresses {
                    sockets.extend(net::bind_listen_sockets(address, options, workers)?);
                }
                sockets
            }
        };
        let duplicates = for_workers.iter().map(OwnedFd::try_clone).collect::<io::Result<_>>()?;
        Ok(BoundSockets { for_workers, duplicates: Arc::new(duplicates) })
    }

    /// Two listeners that got the very same address would each be given a part of its connections, at random: a name
    /// may have the address of another, which only shows here.
    fn check_distinct(&self, plan: &[PlannedBind]) -> Result<(), RunError> {
        let mut owners: HashMap<SocketAddr, &PlannedBind> = HashMap::new();
        for planned in plan {
            for &address in &planned.addresses {
                let owner = owners.entry(address).or_insert(planned);
                let is_admins = self.admin == Some(address);
                if is_admins || owner.key != planned.key {
                    let other = if is_admins { "the admin server".to_owned() } else { owner.describe() };
                    return Err(RunError::SameAddress { one: planned.describe(), other, address });
                }
            }
        }
        Ok(())
    }

    /// The admin server's socket, which other addresses may overlap with.
    ///
    /// # Errors
    /// A listener has that very address.
    pub(super) fn set_admin(&mut self, socket: &OwnedFd) -> Result<(), RunError> {
        let Some(address) = net::local_tcp_address(socket) else { return Ok(()) };
        if let Some((key, _)) = self.open.iter().find(|(_, open)| tcp_addresses(&open.sockets).contains(&address)) {
            let (one, other) = ("the admin server".to_owned(), key.address.to_string());
            return Err(RunError::SameAddress { one, other, address });
        }
        self.admin = Some(address);
        Ok(())
    }

    fn inherited(&mut self, number: u32) -> io::Result<OwnedFd> {
        if let Some(socket) = self.inherited.get(&number) {
            return socket[0].try_clone();
        }
        if self.is_successor {
            return Err(io::Error::new(io::ErrorKind::NotFound, "the old process had no such socket"));
        }
        let socket = net::inherited_listen_socket(number)?;
        let duplicate = socket.try_clone()?;
        self.inherited.insert(number, Arc::new(vec![duplicate]));
        Ok(socket)
    }

    /// Whether this process, or the old one, listens on the port already.
    pub(super) fn is_ours(&self, address: &ListenAddress) -> bool {
        let open = self.open.values().flat_map(|open| open.sockets.iter());
        let passed = self.passed.iter().flat_map(|passed| &passed.sockets);
        let mut ours = open.chain(passed).filter_map(net::local_tcp_address).chain(self.admin);
        address.port().is_some_and(|port| ours.any(|own| own.port() == port))
    }

    /// Opens and closes addresses as planned, and gives those that stay the frontend of their listener. Waits, but not
    /// for long, until the queues of the closed ones are empty: then their addresses are free.
    pub(super) async fn apply(&mut self, plan: BindPlan, frontend_of: impl Fn(&str) -> Arc<Frontend>) {
        let mut before = std::mem::take(&mut self.open);
        for PlannedBind { key, listener, options, sockets, .. } in plan.0 {
            let frontend = frontend_of(&listener);
            let open = match (before.remove(&key), sockets) {
                (Some(mut open), _) => {
                    open.acceptor.set_frontend(frontend);
                    open.set_options(options);
                    open
                }
                (None, sockets) => {
                    let bound = sockets.expect("what was not open was bound");
                    tracing::info!(listener, address = net::local_address(&bound.duplicates[0]), "listening");
                    self.open(frontend, bound, options)
                }
            };
            self.open.insert(key, open);
        }
        for (key, open) in before {
            tracing::info!(address = %key.address, "no longer listening");
            self.close_one(open);
        }
        // A busy worker may take longer: it closes its sockets after this.
        let _ = tokio::time::timeout(LONGEST_CLOSE, self.closed()).await;
    }

    /// Sends each worker its sockets.
    fn open(&self, frontend: Arc<Frontend>, bound: BoundSockets, options: TcpOptions) -> OpenSockets {
        let (acceptor, accepting) = (Acceptor::new(frontend), ConnectionLimit::new(usize::MAX));
        // A name with several addresses has one socket of each for every worker: hence the cycle.
        for (socket, worker) in bound.for_workers.into_iter().zip(self.workers.iter().cycle()) {
            let accepting = accepting.try_acquire().expect("there is no limit of listening sockets");
            // An error means that the worker has ended, as all do at the stop: then nothing is to be accepted.
            let _ = worker.send(SocketForWorker { acceptor: acceptor.clone(), socket, accepting });
        }
        OpenSockets { acceptor, sockets: bound.duplicates, options, accepting }
    }

    fn close_one(&mut self, open: OpenSockets) {
        open.acceptor.close();
        self.closing.push(open.accepting);
    }

    /// Takes a socket that the old process passed for something other than a listener.
    pub(super) fn take_passed(&mut self, name: &str) -> Option<OwnedFd> {
        let index = self.passed.iter().position(|passed| passed.address == name)?;
        self.passed.swap_remove(index).sockets.pop()
    }

    /// Closes passed sockets that this configuration has no use for. The old process, which has them too, empties their
    /// queues.
    pub(super) fn close_unclaimed(&mut self) {
        self.passed.clear();
    }

    /// All sockets, by the names under which the new process of an upgrade looks for them.
    pub(super) fn sockets(&self) -> Vec<(String, SharedSockets)> {
        // Inherited ones come from their own table, which has those that no listener uses now too.
        let bound = self.open.iter().filter(|(key, _)| !matches!(key.address, BindAddress::Inherited(_)));
        let bound = bound.map(|(key, open)| (key.name(), open.sockets.clone()));
        let inherited =
            self.inherited.iter().map(|(number, socket)| (BindAddress::Inherited(*number).to_string(), socket.clone()));
        bound.chain(inherited).collect()
    }

    /// The addresses that a listener has, with the ports that the kernel chose.
    pub(super) fn addresses(&self, listener: &config::ListenerConfig) -> Vec<String> {
        let addresses = listener.bind.iter().enumerate().filter_map(|(index, address)| {
            let open = self.open.get(&BindKey::new(address, &listener.name, index))?;
            match address {
                BindAddress::Address(ListenAddress::Unix(_)) => Some(address.to_string()),
                _ => open.sockets.first().map(net::local_address),
            }
        });
        addresses.collect()
    }

    /// The TCP addresses that a listener has.
    pub(super) fn listened(&self, listener: &config::ListenerConfig) -> Vec<Listened> {
        let open = listener.bind.iter().enumerate().filter_map(|(index, address)| {
            let both_families = matches!(address, BindAddress::Address(ListenAddress::Any(_)));
            let open = self.open.get(&BindKey::new(address, &listener.name, index))?;
            let addresses: BTreeSet<_> = open.sockets.iter().filter_map(net::local_tcp_address).collect();
            Some(addresses.into_iter().map(move |address| Listened { address, both_families }))
        });
        open.flatten().collect()
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
    fn new(address: &BindAddress, listener: &str, index: usize) -> Self {
        let owner = address.is_chosen_by_kernel().then(|| (listener.to_owned(), index));
        Self { address: address.clone(), owner }
    }

    /// The name of its sockets in an upgrade: the same in every process with this configuration.
    fn name(&self) -> String {
        match &self.owner {
            None => self.address.to_string(),
            Some((listener, index)) => format!("{} {listener} {index}", self.address),
        }
    }
}

impl PlannedBind {
    fn describe(&self) -> String {
        format!("{} (listener `{}`)", self.key.address, self.listener)
    }
}

impl OpenSockets {
    fn set_options(&mut self, options: TcpOptions) {
        if self.options != options {
            // Duplicates share their options with the workers' sockets. An error: it is a unix socket, which has none.
            for socket in self.sockets.iter() {
                let _ = net::set_listen_options(socket, &options);
            }
            self.options = options;
        }
    }
}

fn listen_error(address: &BindAddress, listener: &str, source: io::Error) -> RunError {
    RunError::Listen { address: address.to_string(), listener: listener.to_owned(), source }
}
