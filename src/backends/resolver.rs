//! What this machine's resolver says of one name and one type of record: by the hosts file, else by name servers.
//!
//! Reads the system's files when it is made; whoever holds it makes another one when they change ([`system_files`]).

use std::io;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts};
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::op::ResponseCode;
use hickory_resolver::proto::rr::rdata::SRV;
use hickory_resolver::proto::rr::{Name, RData, RecordType};
use hickory_resolver::system_conf::read_system_conf;
use tokio::sync::Semaphore;

use crate::config::Resolve;

use super::dns_runtime::DnsRuntime;
use super::hosts::{HOSTS_FILE, Hosts};

const RESOLV_CONF: &str = "/etc/resolv.conf";

/// Queries of one pool at once: names that nobody answers for must not delay the others, nor hundreds of names flood a
/// name server (dnsmasq takes 150 at once by default).
const MOST_QUERIES: usize = 128;

/// Addresses taken from one name, and records of one service, at most.
pub(super) const MAX_ADDRESSES: usize = 1024;

/// What the hosts file has is good until the file changes.
const HOSTS_TTL: Duration = Duration::from_secs(24 * 60 * 60);

/// What names mean, for one pool.
pub(super) struct Resolver {
    hosts: Hosts,
    /// Or why none can be asked: there is no /etc/resolv.conf, say.
    name_servers: Result<NameServers, NetError>,
    queries: Semaphore,
}

struct NameServers {
    client: hickory_resolver::Resolver<DnsRuntime>,
    /// Domains that a short name may be in.
    search: Vec<Name>,
    /// A name with fewer dots is looked for in these domains first.
    ndots: usize,
}

/// What was found under one of the full names that a name may stand for.
pub(super) struct Found<T> {
    pub(super) records: Vec<T>,
    /// Which of the full names it was: those before have no such record.
    pub(super) candidate: usize,
    pub(super) valid_until: Instant,
}

/// Addresses by their length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Family {
    V4,
    V6,
}

impl Family {
    pub(super) fn other(self) -> Self {
        match self {
            Self::V4 => Self::V6,
            Self::V6 => Self::V4,
        }
    }

    fn has(self, ip: &IpAddr) -> bool {
        ip.is_ipv4() == (self == Self::V4)
    }

    fn record_type(self) -> RecordType {
        match self {
            Self::V4 => RecordType::A,
            Self::V6 => RecordType::AAAA,
        }
    }
}

/// The files that it reads: when one of them changes, names may mean something else.
pub(super) fn system_files() -> [PathBuf; 2] {
    [HOSTS_FILE, RESOLV_CONF].map(PathBuf::from)
}

impl Resolver {
    /// By the system's files as they are now, or with the name servers of the configuration.
    pub(super) fn new(settings: &Resolve) -> Self {
        Self { hosts: Hosts::read(), name_servers: NameServers::new(settings), queries: Semaphore::new(MOST_QUERIES) }
    }

    /// The addresses of one family, at least one. Safe to cancel.
    pub(super) async fn addresses(&self, host: &str, family: Family) -> Result<Found<IpAddr>, NetError> {
        if let Some(addresses) = self.hosts.addresses(host) {
            let records: Vec<_> = addresses.into_iter().filter(|ip| family.has(ip)).take(MAX_ADDRESSES).collect();
            let valid_until = Instant::now() + HOSTS_TTL;
            let is_empty = records.is_empty();
            return if is_empty { Err(NOT_IN_HOSTS) } else { Ok(Found { records, candidate: 0, valid_until }) };
        }
        self.records(host, family.record_type(), RData::ip_addr).await
    }

    /// The SRV records of a service, at least one. Safe to cancel.
    pub(super) async fn services(&self, service: &str) -> Result<Found<SRV>, NetError> {
        self.records(service, RecordType::SRV, |data| match data {
            RData::SRV(srv) => Some(srv.clone()),
            _ => None,
        })
        .await
    }

    async fn records<T>(
        &self,
        name: &str,
        record_type: RecordType,
        read: impl Fn(&RData) -> Option<T>,
    ) -> Result<Found<T>, NetError> {
        let servers = self.name_servers.as_ref().map_err(NetError::clone)?;
        let mut last = NetError::NoConnections;
        for (candidate, name) in servers.candidates(name)?.into_iter().enumerate() {
            // The semaphore is never closed.
            let _permit = self.queries.acquire().await;
            match servers.client.lookup(name, record_type).await {
                Ok(lookup) => {
                    let of_type = lookup.answers().iter().filter(|record| record.record_type() == record_type);
                    let records: Vec<T> = of_type.filter_map(|record| read(&record.data)).take(MAX_ADDRESSES).collect();
                    if !records.is_empty() {
                        return Ok(Found { records, candidate, valid_until: lookup.valid_until() });
                    }
                }
                Err(error @ NetError::Dns(_)) => last = error,
                // Nobody answers, for the next candidate neither.
                Err(error) => return Err(error),
            }
        }
        Err(last)
    }
}

/// Sockets that lookups of so many names may have open at once: each asks for two families, two name servers at once.
pub fn most_lookup_files(names: usize) -> u64 {
    2 * names.saturating_mul(2).min(MOST_QUERIES) as u64
}

/// Why a name has no address, for people.
pub(super) fn words_for(error: &NetError) -> String {
    match error {
        NetError::Dns(DnsError::NoRecordsFound(none)) => {
            let (name, kind) = (none.query.name(), none.query.query_type());
            match none.response_code {
                ResponseCode::NoError => format!("{name} has no record of type {kind}"),
                ResponseCode::NXDomain => format!("there is no name {name}"),
                code => format!("the name server answers for {name}: {code}"),
            }
        }
        NetError::Dns(DnsError::ResponseCode(code)) => format!("the name server answers: {code}"),
        NetError::NoConnections => "no name server can be asked".to_owned(),
        NetError::Timeout => "no name server has answered in time".to_owned(),
        other => other.to_string(),
    }
}

/// Whether an error says that there is no such record, rather than that nobody could be asked.
pub(super) fn is_no_record(error: &NetError) -> bool {
    error.is_no_records_found() || matches!(error, NetError::Message(text) if *text == NOT_IN_HOSTS_TEXT)
}

const NOT_IN_HOSTS_TEXT: &str = "the hosts file has no address of this family";
const NOT_IN_HOSTS: NetError = NetError::Message(NOT_IN_HOSTS_TEXT);

impl NameServers {
    fn new(settings: &Resolve) -> Result<Self, NetError> {
        let (config, mut options) = if settings.nameservers.is_empty() {
            read_system_conf()
                .map_err(|error| io::Error::other(format!("{RESOLV_CONF} gives no name server to ask: {error}")))?
        } else {
            let servers = settings.nameservers.iter().map(|server| {
                let connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()];
                let connections = connections.map(|connection| with_port(connection, server.port()));
                NameServerConfig::new(server.ip(), true, connections.into())
            });
            (ResolverConfig::from_parts(None, Vec::new(), servers.collect()), ResolverOpts::default())
        };
        // When to ask again is decided by the caller, who has looked into the hosts file before.
        options.cache_size = 0;
        options.use_hosts_file = ResolveHosts::Never;
        let ndots = options.ndots;
        // resolv.conf(5): the domain counts where there is no search list.
        let search = match config.search() {
            [] => config.domain().cloned().into_iter().collect(),
            search => search.to_vec(),
        };
        let client = hickory_resolver::Resolver::builder_with_config(config, DnsRuntime::default());
        Ok(Self { client: client.with_options(options).build()?, search, ndots })
    }

    /// The full names that a name may stand for, in the order in which they are asked for (resolv.conf(5), `search` and
    /// `ndots`).
    fn candidates(&self, name: &str) -> Result<Vec<Name>, NetError> {
        // Letters as they are: what makes names of Unicode refuses `_` inside a label, which many names in use have.
        let name = Name::from_ascii(name)?;
        let mut itself = name.clone();
        itself.set_fqdn(true);
        if name.is_fqdn() {
            return Ok(vec![itself]);
        }
        // Too long a name isn't in that domain.
        let searched =
            self.search.iter().filter_map(|domain| name.clone().append_domain(domain).ok()).map(|mut name| {
                name.set_fqdn(true);
                name
            });
        let mut candidates: Vec<Name> = searched.collect();
        let dots = usize::from(name.num_labels()).saturating_sub(1);
        candidates.insert(if dots >= self.ndots { 0 } else { candidates.len() }, itself);
        Ok(candidates)
    }
}

fn with_port(mut connection: ConnectionConfig, port: u16) -> ConnectionConfig {
    connection.port = port;
    connection
}
