//! Who is in a pool: the one owner of that question, and the only one that changes the pool's set of backends.
//!
//! An entry is an address, or a name that stands for addresses. Where sources disagree:
//!
//! 1. An operator's [`Wishes`] hold, through reloads too, until the configuration says something else of that backend.
//! 2. DNS: the weight and priority of an SRV record hold over those of the entry that names the service.
//! 3. The configuration. Of two entries that come to the same address, the first holds.
//!
//! What a name last gave stays until it gives something new: a DNS failure takes no backend away, be it that of a name
//! or of one target among a service's.
//!
//! Runs on the main thread. Knows nothing of states: draining and disabling keep a backend in its pool.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use hickory_resolver::net::NetError;
use serde_json::Value;
use tokio::sync::Notify;
use tokio::sync::mpsc::unbounded_channel;
use tokio::task::JoinSet;

use crate::config::{self, BackendAddress, Resolve};
use crate::file_watch::FileWatch;
use crate::net::Target;

use super::admin_state::AdminState;
use super::discovery::{Answer, Discovery, Host, Lookup, Query, SrvRank};
use super::endpoint::{CheckPlace, Endpoint};
use super::leaving::Leavers;
use super::pool::{Pool, Unresolved};
use super::resolver::{MAX_ADDRESSES, system_files, words_for};
use super::wishes::Wishes;

/// Addresses of one pool at most, whatever its names give: the tables of the policies number them in 16 bits.
const MAX_POOL_ADDRESSES: usize = 16_384;

/// Keeps one pool's set of backends.
pub struct Membership {
    pub(super) pool: Arc<Pool>,
    /// In the order of the configuration; then those that operators have added.
    pub(super) entries: RefCell<Vec<Entry>>,
    pub(super) wishes: RefCell<Wishes>,
    pub(super) leavers: Leavers,
    reconfigured: Notify,
    /// A name was answered for, or failed.
    answered: Notify,
}

/// One entry of the configuration or of an operator, and what it stands for now.
pub(super) struct Entry {
    pub(super) settings: config::BackendConfig,
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
    /// Each part of the last answer came.
    is_whole: bool,
    /// When it is to be asked for. `None`: it is being asked for.
    next_look: Option<Instant>,
    /// Why it could not be resolved the last time.
    error: Option<String>,
}

/// A host that a name stands for: itself, or the target of an SRV record.
struct KnownHost {
    name: String,
    port: u16,
    rank: Option<SrvRank>,
    v4: Vec<IpAddr>,
    v6: Vec<IpAddr>,
    /// Why it has no address now; those that it had stay.
    error: Option<String>,
}

impl Membership {
    /// Gives the pool the backends that need no resolving. `carried` is what operators wished of the old process of an
    /// upgrade.
    pub fn new(pool: Arc<Pool>, carried: Vec<Value>) -> Self {
        let mut wishes = Wishes::default();
        wishes.carry_on(carried, &pool.settings());
        let membership = Self {
            pool,
            entries: RefCell::default(),
            wishes: wishes.into(),
            leavers: Leavers::default(),
            reconfigured: Notify::new(),
            answered: Notify::new(),
        };
        membership.reconfigure();
        membership.publish();
        membership
    }

    /// Follows the pool's settings. The pool gets its backends by [`Membership::publish`].
    pub fn reconfigure(&self) {
        let overruled = self.wishes.borrow_mut().end_overruled(&self.pool.settings().backends);
        for (backend, why) in overruled {
            let (event, pool) = ("operator_overruled", self.pool.name());
            tracing::warn!(event, pool, backend, "{why}: what an operator changed of it ends");
        }
        self.arrange();
    }

    /// The entries anew; what a name that stays gave last is kept until it gives something new.
    pub(super) fn arrange(&self) {
        let before = self.entries.take().into_iter().map(|entry| (entry.settings.address, entry.source));
        let mut before: HashMap<_, _> = before.collect();
        let entry = |settings: config::BackendConfig| {
            let known = before.remove(&settings.address);
            let source = known.unwrap_or_else(|| Source::new(&settings.address, Instant::now()));
            Entry { settings, source }
        };
        let wanted = self.wishes.borrow().entries(&self.pool.settings().backends);
        self.entries.replace(wanted.into_iter().map(entry).collect());
        // One that has left is no name that doesn't resolve.
        self.report_unresolved();
        self.reconfigured.notify_one();
    }

    /// Gives the pool the backends that are known.
    pub fn publish(&self) {
        let mut known = HashSet::new();
        let mut wanted = self.wanted();
        // Two names may give the same address, and an address may be in the configuration as well: the first holds.
        wanted.retain(|endpoint| known.insert(endpoint.target.clone()));
        if wanted.len() > MAX_POOL_ADDRESSES {
            tracing::warn!(
                pool = self.pool.name(),
                found = wanted.len(),
                used = MAX_POOL_ADDRESSES,
                "too many backends"
            );
            wanted.truncate(MAX_POOL_ADDRESSES);
        }
        self.pool.replace(wanted, Instant::now());
    }

    fn wanted(&self) -> Vec<Endpoint> {
        let entries = self.entries.borrow();
        let endpoints: Vec<_> =
            entries.iter().map(|entry| (entry.settings.address.clone(), entry.endpoints())).collect();
        let mut wishes = self.wishes.borrow_mut();
        // Before that, what a name is going to give is not known.
        if !wishes.is_empty() && entries.iter().filter_map(Entry::name).all(|name| name.is_whole) {
            let given = endpoints.iter().flat_map(|(_, of_entry)| of_entry).map(|it| it.target.to_string());
            let present = endpoints.iter().map(|(entry, _)| entry.to_string()).chain(given);
            wishes.forget_others(&present.collect(), &self.pool.settings().backends);
        }
        wishes.applied(endpoints)
    }

    /// Tells the pool which names, and which targets of services, don't resolve now.
    fn report_unresolved(&self) {
        let entries = self.entries.borrow();
        self.pool.set_unresolved(entries.iter().flat_map(Entry::unresolved).collect());
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
            while !self.has_names() {
                self.reconfigured.notified().await;
            }
            self.follow_with(&self.resolve()).await;
        }
    }

    /// The same, for as long as what names mean is read as by `settings`, from files that are as they are now.
    async fn follow_with(&self, settings: &Resolve) {
        let mut files = FileWatch::new(system_files());
        let discovery = Discovery::new(settings);
        let (sender, mut answers) = unbounded_channel();
        let mut lookups = JoinSet::new();
        self.ask_all_again(Instant::now());
        while self.resolve() == *settings && self.has_names() {
            for query in self.take_due() {
                lookups.spawn_local(discovery.clone().look_up(query, sender.clone()));
            }
            tokio::select! {
                () = self.next_look() => {}
                Some(lookup) = answers.recv() => self.take(lookup, settings),
                // A lookup that panicked doesn't say which name it was for, and no name is to wait for it for ever.
                Some(Err(_)) = lookups.join_next() => self.ask_all_again(Instant::now() + settings.min_ttl),
                () = self.reconfigured.notified() => {}
                // What was asked of name servers of before is lost, and asked of those of now.
                () = files.changed() => return,
            }
        }
    }

    fn has_names(&self) -> bool {
        self.entries.borrow().iter().any(|entry| entry.name().is_some())
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
    fn take(&self, (query, answer): Lookup, limits: &Resolve) {
        let is_changed = {
            let mut entries = self.entries.borrow_mut();
            // A reload may have taken the name out meanwhile.
            let entry = entries.iter_mut().find(|entry| entry.name().is_some_and(|name| name.query == query));
            entry.is_some_and(|entry| entry.take(answer, self.pool.name(), limits))
        };
        if is_changed {
            self.publish();
        }
        self.report_unresolved();
        self.answered.notify_waiters();
    }

    /// Also those that are being asked for: the lookup under way is lost.
    fn ask_all_again(&self, at: Instant) {
        for name in self.entries.borrow_mut().iter_mut().filter_map(Entry::name_mut) {
            name.next_look = Some(name.next_look.map_or(at, |next| next.min(at)));
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
        Self::Name(Name { query, hosts: None, is_whole: false, next_look: Some(now), error: None })
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
    pub(super) fn endpoints(&self) -> Vec<Endpoint> {
        let config::BackendConfig { weight, rank, max_connections, ref check, .. } = self.settings;
        let check = |host: Option<&str>| CheckPlace { host: host.map(str::to_owned), address: check.clone() };
        let hosts = match &self.source {
            Source::Address(target) => {
                let target = target.clone();
                let (admin_state, check) = (AdminState::default(), check(None));
                return vec![Endpoint { target, weight, rank, max_connections, admin_state, check }];
            }
            Source::Name(name) => name.hosts.iter().flatten(),
        };
        let endpoints = hosts.flat_map(|host| {
            let own = SrvRank { weight, is_backup: false };
            let srv = host.rank.unwrap_or(own);
            host.v4.iter().chain(&host.v6).map(move |ip| Endpoint {
                target: Target::Tcp(SocketAddr::new(*ip, host.port)),
                weight: srv.weight,
                rank: rank.saturating_add(u8::from(srv.is_backup)),
                max_connections,
                admin_state: AdminState::default(),
                check: check(Some(&host.name)),
            })
        });
        let mut endpoints: Vec<_> = endpoints.collect();
        endpoints.sort_by_cached_key(|endpoint| endpoint.target.to_string());
        endpoints.truncate(MAX_ADDRESSES);
        endpoints
    }

    fn unresolved(&self) -> impl Iterator<Item = Unresolved> {
        let name = self.name().into_iter();
        let own = name.clone().filter_map(|name| Some((self.settings.address.to_string(), name.error.as_ref()?)));
        let hosts = name.flat_map(|name| name.hosts.iter().flatten());
        let targets = hosts.filter_map(|host| Some((host.name.clone(), host.error.as_ref()?)));
        own.chain(targets).map(|(name, error)| Unresolved { name, error: error.clone() })
    }

    /// Takes an answer; true where it changed the backends.
    fn take(&mut self, answer: Result<Answer, NetError>, pool: &str, limits: &Resolve) -> bool {
        let before = self.endpoints();
        let Source::Name(name) = &mut self.source else { return false };
        let address = self.settings.address.to_string();
        let was_known = name.hosts.is_some();
        let valid_until = match answer {
            Ok(answer) => {
                (name.error, name.is_whole) = (None, answer.is_whole());
                let known = name.hosts.take().unwrap_or_default();
                let is_whole = answer.valid_until.is_some();
                let hosts = answer.hosts.into_iter();
                name.hosts = Some(hosts.map(|host| KnownHost::new(host, is_whole, &known, pool, &address)).collect());
                answer.valid_until
            }
            Err(error) => {
                let error = words_for(&error);
                if name.error.replace(error.clone()).is_none() {
                    let known = before.len();
                    tracing::warn!(pool, name = address, error, known, "name can't be resolved; trying again");
                }
                Some(Instant::now())
            }
        };
        if let Some(until) = valid_until {
            let wait = until.saturating_duration_since(Instant::now());
            name.next_look = Some(Instant::now() + wait.clamp(limits.min_ttl, limits.max_ttl));
        }
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
        self.hosts.is_some() || self.error.is_some()
    }
}

impl KnownHost {
    /// A host of an answer; what could not be found out of its addresses stays as it was `known`. `is_whole`: no more
    /// of the answer will come.
    fn new(host: Host, is_whole: bool, known: &[Self], pool: &str, service: &str) -> Self {
        let before = known.iter().find(|known| known.name == host.name && known.port == host.port);
        let (has_address, Host { name, port, rank, v4, v6, error, .. }) = (host.has_address(), host);
        let part = |found: Option<Vec<IpAddr>>, before: Option<&Vec<IpAddr>>| {
            found.filter(|_| has_address).unwrap_or_else(|| before.cloned().unwrap_or_default())
        };
        let v4 = part(v4, before.map(|before| &before.v4));
        let v6 = part(v6, before.map(|before| &before.v6));
        let error = match (has_address, is_whole) {
            (true, _) => None,
            (false, true) => Some(error.map_or_else(|| "no answer".to_owned(), |error| words_for(&error))),
            (false, false) => before.and_then(|before| before.error.clone()),
        };
        if let Some(error) = &error
            && before.is_none_or(|before| before.error.is_none())
        {
            let known = v4.len() + v6.len();
            tracing::warn!(pool, service, name, error, known, "SRV target can't be resolved; trying again");
        }
        Self { name, port, rank, v4, v6, error }
    }
}
