//! From a name to addresses: what a name server says of a host or a service now, and for how long.
//!
//! Asks, and keeps nothing: who is in a pool, and what to do about a failure, is the membership's to decide.

use std::net::IpAddr;
use std::rc::Rc;
use std::time::Instant;

use hickory_resolver::config::{ConnectionConfig, LookupIpStrategy, NameServerConfig, ResolverConfig};
use hickory_resolver::net::{NetError, runtime::TokioRuntimeProvider};
use hickory_resolver::proto::rr::RData;
use hickory_resolver::proto::rr::rdata::SRV;
use hickory_resolver::{Resolver, TokioResolver};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::config::Resolve;

/// Hosts of one pool that are resolved at once: a slow zone must not delay the others, nor hundreds of names flood a
/// name server.
const MOST_LOOKUPS: usize = 16;

/// Addresses taken from one name, and records of one service, at most.
pub(super) const MAX_ADDRESSES: usize = 1024;

/// Resolves the names of one pool.
pub(super) struct Discovery {
    resolver: TokioResolver,
    lookups: Semaphore,
}

/// A name that can be asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Query {
    /// A host's addresses, each with this port.
    Host(String, u16),
    /// A service's SRV records, and the addresses of their targets.
    Service(String),
}

/// What a name stands for.
pub(super) struct Answer {
    /// The name itself, or the targets of its SRV records.
    pub(super) hosts: Vec<Host>,
    /// When it is to be asked for again.
    pub(super) valid_until: Instant,
}

/// A host and its addresses.
pub(super) struct Host {
    pub(super) name: String,
    pub(super) port: u16,
    /// `None`: it is not the target of an SRV record.
    pub(super) rank: Option<SrvRank>,
    /// All A and AAAA records. Only a service has hosts without: a name that fails has no answer.
    pub(super) addresses: Result<Vec<IpAddr>, NetError>,
}

/// What an SRV record says of its target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SrvRank {
    /// 1 to 256.
    pub(super) weight: u16,
    pub(super) is_backup: bool,
}

impl Discovery {
    /// With the system's resolver, or one that asks the name servers of the configuration.
    pub(super) fn new(settings: &Resolve) -> Result<Rc<Self>, NetError> {
        Ok(Rc::new(Self { resolver: resolver(settings)?, lookups: Semaphore::new(MOST_LOOKUPS) }))
    }

    /// Asks for a name. Safe to cancel.
    pub(super) async fn look_up(self: Rc<Self>, query: Query) -> Result<Answer, NetError> {
        match query {
            Query::Host(host, port) => self.host(host, port).await,
            Query::Service(service) => self.service(&service).await,
        }
    }

    async fn host(&self, name: String, port: u16) -> Result<Answer, NetError> {
        let (addresses, valid_until) = self.addresses(&name).await?;
        Ok(Answer { hosts: vec![Host { name, port, rank: None, addresses: Ok(addresses) }], valid_until })
    }

    /// The targets of SRV records: those of the best priority are used, the others are backups (RFC 2782). A target
    /// that doesn't resolve is in the answer without addresses; only where none does, there is no answer.
    async fn service(self: Rc<Self>, service: &str) -> Result<Answer, NetError> {
        let lookup = {
            let _permit = self.lookups.acquire().await;
            self.resolver.srv_lookup(service).await?
        };
        let records = lookup.answers().iter();
        let records = records.filter_map(|record| if let RData::SRV(srv) = &record.data { Some(srv) } else { None });
        let records: Vec<SRV> = records.take(MAX_ADDRESSES).cloned().collect();
        let best = records.iter().map(|srv| srv.priority).min().unwrap_or(0);
        let heaviest = records.iter().map(|srv| srv.weight).max().unwrap_or(0);
        let mut asked = JoinSet::new();
        for srv in records {
            let weight = scaled_weight(srv.weight, heaviest);
            asked.spawn_local(self.clone().target(srv.target.to_utf8(), srv.port, weight, srv.priority > best));
        }
        let mut answer = Answer { hosts: Vec::new(), valid_until: lookup.valid_until() };
        let mut last_error = None;
        while let Some(target) = asked.join_next().await {
            let Ok((host, valid_until)) = target else { continue };
            answer.valid_until = answer.valid_until.min(valid_until);
            if let Err(error) = &host.addresses {
                last_error = Some(error.clone());
            }
            answer.hosts.push(host);
        }
        match last_error {
            Some(error) if answer.hosts.iter().all(|host| host.addresses.is_err()) => Err(error),
            _ => Ok(answer),
        }
    }

    async fn target(self: Rc<Self>, name: String, port: u16, weight: u16, is_backup: bool) -> (Host, Instant) {
        let (addresses, valid_until) = match self.addresses(&name).await {
            Ok((addresses, valid_until)) => (Ok(addresses), valid_until),
            // To be asked for again as soon as names may be.
            Err(error) => (Err(error), Instant::now()),
        };
        (Host { name, port, rank: Some(SrvRank { weight, is_backup }), addresses }, valid_until)
    }

    async fn addresses(&self, host: &str) -> Result<(Vec<IpAddr>, Instant), NetError> {
        // The semaphore is never closed.
        let _permit = self.lookups.acquire().await;
        let lookup = self.resolver.lookup_ip(host).await?;
        Ok((lookup.iter().take(MAX_ADDRESSES).collect(), lookup.valid_until()))
    }
}

fn resolver(settings: &Resolve) -> Result<TokioResolver, NetError> {
    let mut builder = if settings.nameservers.is_empty() {
        TokioResolver::builder_tokio()?
    } else {
        let servers = settings.nameservers.iter().map(|server| {
            let connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()];
            let connections = connections.map(|connection| with_port(connection, server.port()));
            NameServerConfig::new(server.ip(), true, connections.into())
        });
        let config = ResolverConfig::from_parts(None, Vec::new(), servers.collect());
        Resolver::builder_with_config(config, TokioRuntimeProvider::default())
    };
    // When to ask again is decided by the caller.
    builder.options_mut().cache_size = 0;
    builder.options_mut().ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
    builder.build()
}

fn with_port(mut connection: ConnectionConfig, port: u16) -> ConnectionConfig {
    connection.port = port;
    connection
}

/// An SRV record's weight (0 to 65535) as one of ours (1 to 256), the `heaviest` of its set being the largest.
/// RFC 2782: weight 0 gets a very small share.
fn scaled_weight(weight: u16, heaviest: u16) -> u16 {
    if heaviest <= 256 {
        return weight.max(1);
    }
    u16::try_from(u32::from(weight) * 256 / u32::from(heaviest)).expect("at most 256").max(1)
}
