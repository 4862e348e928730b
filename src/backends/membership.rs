//! Who is in a pool: the one owner of that question, and the only one that changes the pool's set of backends.
//!
//! An entry of the configuration is an address, or a name that stands for addresses. Where two sources disagree:
//!
//! 1. DNS: the weight and priority of an SRV record hold over those of the entry that names the service.
//! 2. The configuration. Of two entries that come to the same address, the first holds.
//!
//! What a name last gave stays until it gives something new: a DNS failure takes no backend away, be it that of a name
//! or of one target among a service's.
//!
//! The API can't add or remove backends yet. When it can, what it changed is to hold over both, through reloads too,
//! until it is taken back. Runs on the main thread. Knows nothing of states: draining and disabling keep a backend in
//! its pool.

use std::cell::RefCell;
use std::collections::HashSet;
use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hickory_resolver::net::NetError;
use tokio::sync::Notify;
use tokio::task::{JoinError, JoinSet};

use crate::config::{self, BackendAddress, Resolve};
use crate::net::Target;

use super::discovery::{Answer, Discovery, Host, MAX_ADDRESSES, Query, SrvRank};
use super::endpoint::Endpoint;
use super::pool::Pool;

/// Backends of one pool at most, whatever its names give: the tables of the policies number them in 16 bits.
const MAX_BACKENDS: usize = 16_384;

/// Keeps one pool's set of backends.
pub struct Membership {
    pool: Arc<Pool>,
    /// In the order of the configuration.
    entries: RefCell<Vec<Entry>>,
    reconfigured: Notify,
    /// A name was answered for, or failed.
    answered: Notify,
}

/// One backend of the configuration, and what it stands for now.
struct Entry {
    settings: config::BackendConfig,
    source: Source,
}

/// Where an entry's backends come from.
enum Source {
    Address(Target),
    Name(Name),
}

/// A name, and what it gave last.
struct Name {
    query: Query,
    /// `None`: it never resolved so far.
    hosts: Option<Vec<KnownHost>>,
    /// When it is to be asked for. `None`: it is being asked for.
    next_look: Option<Instant>,
    is_failing: bool,
}

/// A host that a name stands for: itself, or the target of an SRV record.
struct KnownHost {
    name: String,
    port: u16,
    rank: Option<SrvRank>,
    addresses: Vec<IpAddr>,
    is_failing: bool,
}

/// A name, and what was answered.
type Lookup = (Query, Result<Answer, NetError>);

impl Membership {
    /// Gives the pool the backends that need no resolving.
    pub fn new(pool: Arc<Pool>) -> Self {
        let membership =
            Self { pool, entries: RefCell::default(), reconfigured: Notify::new(), answered: Notify::new() };
        membership.reconfigure();
        membership.publish();
        membership
    }

    /// Follows the pool's settings: what a name that stays gave last is kept until it gives something new. The pool
    /// gets its backends by [`Membership::publish`].
    pub fn reconfigure(&self) {
        let mut before = self.entries.take();
        let mut entry = |settings: &config::BackendConfig| {
            let known = before.iter().position(|entry| entry.settings.address == settings.address);
            let source = match known.map(|index| before.swap_remove(index).source) {
                Some(source) => source,
                None => Source::new(&settings.address, Instant::now()),
            };
            Entry { settings: settings.clone(), source }
        };
        let entries = self.pool.settings().backends.iter().map(&mut entry).collect();
        self.entries.replace(entries);
        self.reconfigured.notify_one();
    }

    /// Gives the pool the backends that are known.
    pub fn publish(&self) {
        let mut known = HashSet::new();
        let mut wanted: Vec<Endpoint> = self.entries.borrow().iter().flat_map(Entry::endpoints).collect();
        // Two names may give the same address, and an address may be in the configuration as well: the first holds.
        wanted.retain(|endpoint| known.insert(endpoint.target.clone()));
        if wanted.len() > MAX_BACKENDS {
            tracing::warn!(pool = self.pool.name(), found = wanted.len(), used = MAX_BACKENDS, "too many backends");
            wanted.truncate(MAX_BACKENDS);
        }
        self.pool.replace(wanted, Instant::now());
    }

    /// Waits until every name has been asked for at least once, if only in vain. Safe to cancel.
    pub async fn asked_once(&self) {
        loop {
            let answered = self.answered.notified();
            if self.entries.borrow().iter().filter_map(Entry::name).all(Name::was_asked) {
                return;
            }
            answered.await;
        }
    }

    /// Asks for each name again when its TTL is over, until dropped.
    pub async fn follow_names(self: Rc<Self>) -> Infallible {
        loop {
            let settings = self.resolve();
            match Discovery::new(&settings) {
                Ok(discovery) => self.follow_with(&discovery, &settings).await,
                // There is no /etc/resolv.conf yet, say: tried again like a name that fails.
                Err(error) => {
                    self.fail_all(&error);
                    tokio::time::sleep(settings.min_ttl).await;
                }
            }
        }
    }

    /// The same, for as long as the pool's name servers are those of `settings`.
    async fn follow_with(&self, discovery: &Rc<Discovery>, settings: &Resolve) {
        let mut lookups = JoinSet::new();
        self.ask_all_again(Instant::now());
        while self.resolve() == *settings {
            for query in self.take_due() {
                let discovery = discovery.clone();
                lookups.spawn_local(async move { (query.clone(), discovery.look_up(query).await) });
            }
            tokio::select! {
                () = self.next_look() => {}
                Some(lookup) = lookups.join_next() => self.take(lookup, settings),
                () = self.reconfigured.notified() => {}
            }
        }
    }

    fn resolve(&self) -> Resolve {
        self.pool.settings().resolve.clone()
    }

    async fn next_look(&self) {
        let next = self.entries.borrow().iter().filter_map(|entry| entry.name()?.next_look).min();
        match next {
            Some(at) => tokio::time::sleep_until(at.into()).await,
            None => std::future::pending().await,
        }
    }

    /// The names that are due. Each is asked for by one lookup at a time.
    fn take_due(&self) -> Vec<Query> {
        let now = Instant::now();
        let mut entries = self.entries.borrow_mut();
        let names = entries.iter_mut().filter_map(Entry::name_mut);
        names.filter_map(|name| name.next_look.take_if(|at| *at <= now).map(|_| name.query.clone())).collect()
    }

    /// Takes an answer and gives the pool what has changed: at once, for other names may take long.
    fn take(&self, lookup: Result<Lookup, JoinError>, limits: &Resolve) {
        let Ok((query, answer)) = lookup else {
            // A lookup that panicked doesn't say which name it was for, and no name is to wait for it for ever.
            return self.ask_all_again(Instant::now() + limits.min_ttl);
        };
        let is_changed = {
            let mut entries = self.entries.borrow_mut();
            // A reload may have taken the name out meanwhile.
            let entry = entries.iter_mut().find(|entry| entry.name().is_some_and(|name| name.query == query));
            entry.is_some_and(|entry| entry.take(answer, self.pool.name(), limits))
        };
        if is_changed {
            self.publish();
        }
        self.answered.notify_waiters();
    }

    /// No name can be asked for.
    fn fail_all(&self, error: &NetError) {
        let limits = self.resolve();
        for entry in self.entries.borrow_mut().iter_mut().filter(|entry| entry.name().is_some()) {
            entry.take(Err(error.clone()), self.pool.name(), &limits);
        }
        self.answered.notify_waiters();
    }

    /// Also those that are being asked for: the lookup under way is lost.
    fn ask_all_again(&self, at: Instant) {
        for name in self.entries.borrow_mut().iter_mut().filter_map(Entry::name_mut) {
            name.next_look = name.next_look.or(Some(at));
        }
    }
}

impl Source {
    fn new(address: &BackendAddress, now: Instant) -> Self {
        let query = match address {
            BackendAddress::Address(target) => return Self::Address(target.clone()),
            BackendAddress::Name(host, port) => Query::Host(host.clone(), *port),
            BackendAddress::Srv(service) => Query::Service(service.clone()),
        };
        Self::Name(Name { query, hosts: None, next_look: Some(now), is_failing: false })
    }
}

impl Entry {
    fn name(&self) -> Option<&Name> {
        match &self.source {
            Source::Name(name) => Some(name),
            Source::Address(_) => None,
        }
    }

    fn name_mut(&mut self) -> Option<&mut Name> {
        match &mut self.source {
            Source::Name(name) => Some(name),
            Source::Address(_) => None,
        }
    }

    /// The backends that it stands for, in an order that doesn't depend on the name server's.
    fn endpoints(&self) -> Vec<Endpoint> {
        let config::BackendConfig { weight, rank, max_connections, .. } = self.settings;
        let hosts = match &self.source {
            Source::Address(target) => {
                return vec![Endpoint { target: target.clone(), weight, rank, max_connections }];
            }
            Source::Name(name) => name.hosts.iter().flatten(),
        };
        let endpoints = hosts.flat_map(|host| {
            let own = SrvRank { weight, is_backup: false };
            let srv = host.rank.unwrap_or(own);
            host.addresses.iter().map(move |ip| Endpoint {
                target: Target::Tcp(SocketAddr::new(*ip, host.port)),
                weight: srv.weight,
                rank: rank.saturating_add(u8::from(srv.is_backup)),
                max_connections,
            })
        });
        let mut endpoints: Vec<_> = endpoints.take(MAX_ADDRESSES).collect();
        endpoints.sort_by_cached_key(|endpoint| endpoint.target.to_string());
        endpoints
    }

    /// Takes an answer; true where it changed the backends.
    fn take(&mut self, answer: Result<Answer, NetError>, pool: &str, limits: &Resolve) -> bool {
        let before = self.endpoints();
        let Source::Name(name) = &mut self.source else { return false };
        let address = self.settings.address.to_string();
        let was_known = name.hosts.is_some();
        let wait = match answer {
            Ok(answer) => {
                name.is_failing = false;
                let known = name.hosts.take().unwrap_or_default();
                name.hosts =
                    Some(answer.hosts.into_iter().map(|host| KnownHost::new(host, &known, pool, &address)).collect());
                answer.valid_until.saturating_duration_since(Instant::now())
            }
            Err(error) => {
                if !std::mem::replace(&mut name.is_failing, true) {
                    let known = before.len();
                    tracing::warn!(pool, name = address, %error, known, "name can't be resolved; trying again");
                }
                Duration::ZERO
            }
        };
        name.next_look = Some(Instant::now() + wait.clamp(limits.min_ttl, limits.max_ttl));
        let is_resolved = name.hosts.is_some();
        let after = self.endpoints();
        let is_changed = after != before || is_resolved != was_known;
        if is_changed {
            tracing::info!(pool, name = address, addresses = after.len(), "name resolved");
        }
        is_changed
    }
}

impl Name {
    fn was_asked(&self) -> bool {
        self.hosts.is_some() || self.is_failing
    }
}

impl KnownHost {
    /// A host of an answer. Where its addresses could not be found out, those that it had stay.
    fn new(host: Host, known: &[Self], pool: &str, service: &str) -> Self {
        let Host { name, port, rank, addresses } = host;
        match addresses {
            Ok(addresses) => Self { name, port, rank, addresses, is_failing: false },
            Err(error) => {
                let before = known.iter().find(|known| known.name == name);
                let addresses = before.map_or_else(Vec::new, |before| before.addresses.clone());
                if !before.is_some_and(|before| before.is_failing) {
                    let known = addresses.len();
                    tracing::warn!(pool, service, name, %error, known, "SRV target can't be resolved; trying again");
                }
                Self { name, port, rank, addresses, is_failing: true }
            }
        }
    }
}
