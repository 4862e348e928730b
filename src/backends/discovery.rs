//! From a name to addresses: which hosts and addresses a name stands for now, and for how long.
//!
//! Asks, and keeps nothing: who is in a pool, and what to do about a failure, is the membership's to decide.

use std::net::IpAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use hickory_resolver::net::NetError;
use hickory_resolver::proto::rr::rdata::SRV;
use tokio::sync::mpsc::UnboundedSender;
use tokio::task::JoinSet;
use tokio::time::timeout_at;

use crate::config::{AddressFamily, Resolve};

use super::resolver::{Family, Found, Resolver, is_no_record};

/// Once a name has an address, so long the rest is waited for: the other family, and the other targets of a service.
/// What comes later is a second answer (RFC 8305, 3 has the same delay).
const PART_DELAY: Duration = Duration::from_millis(50);

/// Once a name has an address, what doesn't come in this time is given up: it may be silent for ever, and what was
/// found is to be asked for again when its TTL is over.
const LONGEST_PART: Duration = Duration::from_secs(2);

/// Looks up the names of one pool.
pub(super) struct Discovery {
    resolver: Resolver,
    families: &'static [Family],
}

/// A name that can be asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Query {
    /// A host's addresses, each with this port.
    Host(String, u16),
    /// A service's SRV records, and the addresses of their targets.
    Service(String),
}

/// A name, and what was answered.
pub(super) type Lookup = (Query, Result<Answer, NetError>);

/// What a name stands for.
pub(super) struct Answer {
    /// The name itself, or the targets of its SRV records.
    pub(super) hosts: Vec<Host>,
    /// When it is to be asked for again; `None`: this is a part, and the rest will follow.
    pub(super) valid_until: Option<Instant>,
}

/// A host and its addresses.
#[derive(Clone)]
pub(super) struct Host {
    pub(super) name: String,
    pub(super) port: u16,
    /// `None`: it is not the target of an SRV record.
    pub(super) rank: Option<SrvRank>,
    /// `None`: not known; nobody has answered yet, or the asking failed. Empty: there are none, or none are wanted.
    pub(super) v4: Option<Vec<IpAddr>>,
    pub(super) v6: Option<Vec<IpAddr>>,
    /// Why it has no address, or one family of it is not known.
    pub(super) error: Option<NetError>,
    /// Where its addresses were found: which of the full names that its name may stand for.
    candidate: usize,
    valid_until: Option<Instant>,
}

/// What an SRV record says of its target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SrvRank {
    /// 1 to 256.
    pub(super) weight: u16,
    pub(super) is_backup: bool,
}

impl Answer {
    /// Whether nothing of it is missing: the rest of a part, or what name servers failed to say.
    pub(super) fn is_whole(&self) -> bool {
        self.valid_until.is_some() && self.hosts.iter().all(|host| host.v4.is_some() && host.v6.is_some())
    }
}

impl Discovery {
    /// With the system's resolver as it is now, or one that asks the name servers of the configuration.
    pub(super) fn new(settings: &Resolve) -> Rc<Self> {
        let families: &[Family] = match settings.family {
            AddressFamily::Any => &[Family::V4, Family::V6],
            AddressFamily::Ipv4 => &[Family::V4],
            AddressFamily::Ipv6 => &[Family::V6],
        };
        Rc::new(Self { resolver: Resolver::new(settings), families })
    }

    /// Asks for a name. Where a part takes long, what is known is sent before. Safe to cancel.
    pub(super) async fn look_up(self: Rc<Self>, query: Query, answers: UnboundedSender<Lookup>) {
        let mut asked = match &query {
            Query::Host(name, port) => Asked::host(name.clone(), *port),
            Query::Service(service) => match self.resolver.services(service).await {
                Ok(found) => Asked::targets(&found),
                Err(error) => return send(&answers, query, Err(error)),
            },
        };
        let mut lookups = JoinSet::new();
        for (index, host) in asked.hosts.iter_mut().enumerate().filter(|(_, host)| host.is_target()) {
            for family in self.families {
                *host.part(*family) = None;
                lookups.spawn_local(self.clone().part(index, host.name.clone(), *family));
            }
        }
        let (mut part_at, mut end_at) = (None, None);
        loop {
            let next = match part_at.or(end_at) {
                Some(at) => timeout_at(Instant::into(at), lookups.join_next()).await,
                None => Ok(lookups.join_next().await),
            };
            match next {
                Ok(Some(Ok((index, family, found)))) => {
                    asked.hosts[index].take(family, found);
                    if asked.has_address() {
                        part_at = part_at.or(Some(Instant::now() + PART_DELAY));
                        end_at = end_at.or(Some(Instant::now() + LONGEST_PART));
                    }
                }
                // It panicked, which the panic hook has reported: that part stays unknown.
                Ok(Some(Err(_))) => {}
                Err(_) if part_at.take().is_some() => send(&answers, query.clone(), Ok(asked.so_far())),
                Ok(None) | Err(_) => return send(&answers, query, asked.conclude()),
            }
        }
    }

    async fn part(
        self: Rc<Self>,
        index: usize,
        name: String,
        family: Family,
    ) -> (usize, Family, Result<Found<IpAddr>, NetError>) {
        let found = self.resolver.addresses(&name, family).await;
        (index, family, found)
    }
}

fn send(answers: &UnboundedSender<Lookup>, query: Query, answer: Result<Answer, NetError>) {
    // An error means that nobody follows this name any more.
    let _ = answers.send((query, answer));
}

/// What a name has turned out to stand for so far.
struct Asked {
    hosts: Vec<Host>,
    /// Of the SRV records.
    valid_until: Option<Instant>,
}

impl Asked {
    fn host(name: String, port: u16) -> Self {
        Self { hosts: vec![Host::new(name, port, None)], valid_until: None }
    }

    /// The targets of SRV records: those of the best priority are used, the others are backups (RFC 2782).
    fn targets(found: &Found<SRV>) -> Self {
        let best = found.records.iter().map(|srv| srv.priority).min().unwrap_or(0);
        let heaviest = found.records.iter().map(|srv| srv.weight).max().unwrap_or(0);
        let target = |srv: &SRV| {
            let rank = SrvRank { weight: scaled_weight(srv.weight, heaviest), is_backup: srv.priority > best };
            Host::new(srv.target.to_ascii(), srv.port, Some(rank))
        };
        Self { hosts: found.records.iter().map(target).collect(), valid_until: Some(found.valid_until) }
    }

    fn has_address(&self) -> bool {
        self.hosts.iter().any(Host::has_address)
    }

    /// The rest is still to come.
    fn so_far(&self) -> Answer {
        Answer { hosts: self.hosts.clone(), valid_until: None }
    }

    /// A service whose targets all fail has no answer, as a host that fails; of some, the others are used.
    fn conclude(self) -> Result<Answer, NetError> {
        if !self.has_address() {
            let error = self.hosts.into_iter().find_map(|host| host.error);
            return Err(error.unwrap_or(NetError::Message("the lookup ended without an answer")));
        }
        let of_hosts = self.hosts.iter().filter(|host| host.is_target()).map(|host| {
            // One that has none now may have some soon.
            if host.has_address() { host.valid_until } else { None }.unwrap_or_else(Instant::now)
        });
        let valid_until = of_hosts.chain(self.valid_until).min();
        Ok(Answer { hosts: self.hosts, valid_until })
    }
}

impl Host {
    fn new(name: String, port: u16, rank: Option<SrvRank>) -> Self {
        // A family that is not asked for is known to be unwanted.
        let (v4, v6) = (Some(Vec::new()), Some(Vec::new()));
        let mut host = Self { name, port, rank, v4, v6, error: None, candidate: usize::MAX, valid_until: None };
        if !host.is_target() {
            host.error = Some(NetError::Message("the SRV record has port 0, or no target"));
        }
        host
    }

    /// Whether there is something to connect to: a service that is not to be had has the root as its target (RFC 2782).
    fn is_target(&self) -> bool {
        self.port != 0 && self.name != "."
    }

    pub(super) fn has_address(&self) -> bool {
        [&self.v4, &self.v6].into_iter().flatten().any(|addresses| !addresses.is_empty())
    }

    fn part(&mut self, family: Family) -> &mut Option<Vec<IpAddr>> {
        match family {
            Family::V4 => &mut self.v4,
            Family::V6 => &mut self.v6,
        }
    }

    fn take(&mut self, family: Family, found: Result<Found<IpAddr>, NetError>) {
        let Found { records, candidate, valid_until } = match found {
            Ok(found) => found,
            Err(error) => {
                *self.part(family) = is_no_record(&error).then(Vec::new);
                self.error = Some(error);
                return;
            }
        };
        self.valid_until = Some(self.valid_until.map_or(valid_until, |other| other.min(valid_until)));
        if candidate < self.candidate {
            // What was found further down the list belongs to another host of the same short name.
            let other = self.part(family.other());
            *other = other.take().map(|_| Vec::new());
        }
        *self.part(family) = Some(if candidate <= self.candidate { records } else { Vec::new() });
        self.candidate = self.candidate.min(candidate);
    }
}

/// An SRV record's weight (0 to 65535) as one of ours (1 to 256), the `heaviest` of its set being the largest.
/// RFC 2782: weight 0 gets a very small share.
fn scaled_weight(weight: u16, heaviest: u16) -> u16 {
    if heaviest <= 256 {
        return weight.max(1);
    }
    u16::try_from(u32::from(weight) * 256 / u32::from(heaviest)).expect("at most 256").max(1)
}
