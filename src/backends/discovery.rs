//! From names to addresses, again and again: host names and SRV records, as often as their TTL says.
//!
//! Runs on the main thread. What a name last gave stays until it gives something new: a DNS failure takes no backend
//! away.

use std::cell::RefCell;
use std::collections::HashSet;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolverConfig};
use hickory_resolver::net::{NetError, runtime::TokioRuntimeProvider};
use hickory_resolver::proto::rr::RData;
use hickory_resolver::{Resolver, TokioResolver};
use tokio::sync::Notify;

use crate::config::{self, BackendAddress, Resolve};
use crate::net::Target;

use super::backend::Endpoint;
use super::pool::Pool;

/// Addresses taken from one name at most.
const MAX_ADDRESSES: usize = 1024;

/// Keeps one pool's backends up to date.
pub struct Discovery {
    pool: Arc<Pool>,
    entries: RefCell<Vec<Entry>>,
    reconfigured: Notify,
}

/// One backend of the configuration and what it stands for now.
struct Entry {
    settings: config::BackendConfig,
    /// `None`: its name never resolved so far.
    found: Option<Vec<Endpoint>>,
    /// `None`: an address, which needs no resolving.
    next_look: Option<Instant>,
    is_failing: bool,
}

impl Discovery {
    /// Gives the pool the backends that need no resolving.
    pub fn new(pool: Arc<Pool>) -> Self {
        let discovery = Self { pool, entries: RefCell::default(), reconfigured: Notify::new() };
        discovery.reconfigure();
        discovery.publish();
        discovery
    }

    /// Follows the pool's settings: what a name that stays gave last is kept until it gives something new. The pool gets its
    /// backends by [`Discovery::publish`].
    pub fn reconfigure(&self) {
        let now = Instant::now();
        let mut before = self.entries.take();
        let entry = |settings: &config::BackendConfig| {
            let known = before.iter().position(|entry| entry.settings.address == settings.address);
            match known.map(|index| before.swap_remove(index)) {
                Some(known) => known.with_settings(settings, now),
                None => Entry::new(settings.clone(), now),
            }
        };
        let entries = self.pool.settings().backends.iter().map(entry).collect();
        self.entries.replace(entries);
        self.reconfigured.notify_one();
    }

    /// Whether there is a name among the backends that never gave an address.
    pub fn has_unresolved(&self) -> bool {
        self.entries.borrow().iter().any(|entry| entry.found.is_none())
    }

    /// Resolves every name that is due. Safe to cancel.
    ///
    /// # Errors
    /// The resolver could not be set up; the pool keeps the backends that it has.
    pub async fn look_once(&self) -> Result<(), NetError> {
        let resolver = resolver(&self.resolve())?;
        self.look(&resolver).await;
        Ok(())
    }

    /// Resolves each name again when its TTL is over, until dropped. A resolver that can't be set up, for there is no
    /// /etc/resolv.conf yet, is tried again like a name.
    pub async fn keep_looking(self: Rc<Self>) -> Infallible {
        loop {
            let settings = self.resolve();
            let Ok(resolver) = resolver(&settings) else {
                tokio::time::sleep(settings.min_ttl).await;
                continue;
            };
            while self.resolve() == settings {
                tokio::select! {
                    () = self.next_look() => self.look(&resolver).await,
                    () = self.reconfigured.notified() => {}
                }
            }
        }
    }

    fn resolve(&self) -> Resolve {
        self.pool.settings().resolve.clone()
    }

    async fn next_look(&self) {
        let next = self.entries.borrow().iter().filter_map(|entry| entry.next_look).min();
        match next {
            Some(at) => tokio::time::sleep_until(at.into()).await,
            None => std::future::pending().await,
        }
    }

    async fn look(&self, resolver: &TokioResolver) {
        let is_due = |entry: &&Entry| entry.next_look.is_some_and(|at| at <= Instant::now());
        let due: Vec<_> = self.entries.borrow().iter().filter(is_due).map(|entry| entry.settings.clone()).collect();
        for settings in due {
            let answer = match &settings.address {
                BackendAddress::Name(host, port) => addresses(resolver, host, *port, &settings).await,
                BackendAddress::Srv(service) => services(resolver, service, &settings).await,
                BackendAddress::Address(_) => continue,
            };
            let limits = self.resolve();
            // A reload may have taken it out meanwhile.
            if let Some(entry) = self.entries.borrow_mut().iter_mut().find(|entry| entry.settings == settings) {
                entry.take(answer, self.pool.name(), &limits);
            }
            // At once: the next name may keep us waiting.
            self.publish();
        }
    }

    /// Gives the pool the backends that are known.
    pub fn publish(&self) {
        let mut known = HashSet::new();
        let entries = self.entries.borrow();
        let found = entries.iter().filter_map(|entry| entry.found.as_ref()).flatten();
        // Two names may give the same address.
        let wanted = found.filter(|endpoint| known.insert(&endpoint.target)).cloned().collect();
        self.pool.replace(wanted, Instant::now());
    }
}

impl Entry {
    fn new(settings: config::BackendConfig, now: Instant) -> Self {
        let target = match &settings.address {
            BackendAddress::Address(target) => Some(target.clone()),
            BackendAddress::Name(..) | BackendAddress::Srv(_) => None,
        };
        let next_look = target.is_none().then_some(now);
        let found = target.map(|target| vec![endpoint(target, settings.weight, &settings)]);
        Self { settings, found, next_look, is_failing: false }
    }

    /// The same name with other settings keeps what it found, until it is looked up again.
    fn with_settings(mut self, settings: &config::BackendConfig, now: Instant) -> Self {
        if self.settings == *settings {
            return self;
        }
        let fresh = Self::new(settings.clone(), now);
        if fresh.found.is_none() {
            let by_records = matches!(settings.address, BackendAddress::Srv(_));
            for endpoint in self.found.iter_mut().flatten() {
                endpoint.max_connections = settings.max_connections;
                if !by_records {
                    (endpoint.weight, endpoint.backup) = (settings.weight, settings.backup);
                }
            }
            return Self { found: self.found, ..fresh };
        }
        fresh
    }

    fn take(&mut self, answer: Answer, pool: &str, limits: &Resolve) {
        let name = self.settings.address.to_string();
        let wait = match answer {
            Ok((found, valid_until)) => {
                if self.found.as_ref() != Some(&found) {
                    tracing::info!(pool, name, addresses = found.len(), "name resolved");
                }
                self.found = Some(found);
                self.is_failing = false;
                valid_until.saturating_duration_since(Instant::now())
            }
            Err(error) => {
                if !self.is_failing {
                    let idle = self.found.as_ref().map_or(0, Vec::len);
                    tracing::warn!(pool, name, %error, idle, "name can't be resolved; trying again");
                }
                self.is_failing = true;
                Duration::ZERO
            }
        };
        self.next_look = Some(Instant::now() + wait.clamp(limits.min_ttl, limits.max_ttl));
    }
}

type Answer = Result<(Vec<Endpoint>, Instant), NetError>;

/// All A and AAAA records of a host name, in a stable order.
async fn addresses(resolver: &TokioResolver, host: &str, port: u16, settings: &config::BackendConfig) -> Answer {
    let lookup = resolver.lookup_ip(host).await?;
    let mut found: Vec<Endpoint> = lookup
        .iter()
        .take(MAX_ADDRESSES)
        .map(|ip| endpoint(Target::Tcp(SocketAddr::new(ip, port)), settings.weight, settings))
        .collect();
    found.sort_by_key(|endpoint| endpoint.target.to_string());
    Ok((found, lookup.valid_until()))
}

/// The targets of SRV records: those of the best priority are used, the others are backups (RFC 2782).
async fn services(resolver: &TokioResolver, service: &str, settings: &config::BackendConfig) -> Answer {
    let lookup = resolver.srv_lookup(service).await?;
    let mut valid_until = lookup.valid_until();
    let records: Vec<_> = lookup
        .answers()
        .iter()
        .filter_map(|record| if let RData::SRV(srv) = &record.data { Some(srv.clone()) } else { None })
        .collect();
    let best = records.iter().map(|srv| srv.priority).min().unwrap_or(0);
    let heaviest = records.iter().map(|srv| srv.weight).max().unwrap_or(0);
    let mut found = Vec::new();
    for srv in records {
        let weight = config::scaled_weight(srv.weight, heaviest);
        let (hosts, until) = addresses(resolver, &srv.target.to_utf8(), srv.port, settings).await?;
        valid_until = valid_until.min(until);
        found.extend(hosts.into_iter().take(MAX_ADDRESSES - found.len()).map(|host| Endpoint {
            weight,
            backup: settings.backup || srv.priority > best,
            ..host
        }));
    }
    found.sort_by_key(|endpoint| endpoint.target.to_string());
    Ok((found, valid_until))
}

fn endpoint(target: Target, weight: u16, settings: &config::BackendConfig) -> Endpoint {
    Endpoint { target, weight, backup: settings.backup, max_connections: settings.max_connections }
}

/// The system's resolver, or one that asks the name servers of the configuration.
fn resolver(settings: &Resolve) -> Result<TokioResolver, NetError> {
    let mut builder = if settings.nameservers.is_empty() {
        TokioResolver::builder_tokio()?
    } else {
        let servers = settings.nameservers.iter().map(|server| {
            let with_port = |mut connection: ConnectionConfig| {
                connection.port = server.port();
                connection
            };
            let connections = vec![with_port(ConnectionConfig::udp()), with_port(ConnectionConfig::tcp())];
            NameServerConfig::new(server.ip(), true, connections)
        });
        let config = ResolverConfig::from_parts(None, Vec::new(), servers.collect());
        Resolver::builder_with_config(config, TokioRuntimeProvider::default())
    };
    // When to ask again is decided here.
    builder.options_mut().cache_size = 0;
    builder.options_mut().ip_strategy = hickory_resolver::config::LookupIpStrategy::Ipv4AndIpv6;
    builder.build()
}
