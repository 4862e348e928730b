//! Looks up hosts that clients name. Asked on any worker, answered on the main thread. Which names may be asked for is
//! for a listener's routes to say.

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hickory_resolver::net::NetError;
use tokio::sync::mpsc::unbounded_channel;
use tokio::task::JoinSet;

use crate::config::Resolve;
use crate::file_watch::FileWatch;
use crate::net;

use super::backend::Backend;
use super::discovery::{Answer, Discovery, Query};
use super::named_hosts::{HostPort, LONGEST_LOOKUP, NamedBackend, NoHost};
use super::pool::Pool;
use super::resolver::system_files;

/// Addresses of one name that are used.
const MOST_ADDRESSES: usize = 16;

impl Pool {
    /// The backends that a name stands for, at least one; unless `allows_local`, none on this machine or on its links.
    /// They are in no table, and detection judges none of them. Safe to cancel.
    ///
    /// # Errors
    /// There is none.
    pub async fn named_backends(&self, name: HostPort, allows_local: bool) -> Result<Vec<Arc<Backend>>, NoHost> {
        let mut found = self.named().find(name, Instant::now())?;
        // An error means that its lookup was given up.
        let found = found.wait_for(Option::is_some).await.map_err(|_| NoHost::Unresolved)?.clone();
        let all = found.flatten().ok_or(NoHost::Unresolved)?;
        let allowed = all.iter().filter(|one| allows_local || !one.is_local);
        let backends: Vec<_> = allowed.map(|one| one.backend.clone()).collect();
        if backends.is_empty() { Err(NoHost::Local) } else { Ok(backends) }
    }
}

/// Looks up the names that clients of a pool ask for, until dropped. To be run by one task, on the main thread.
pub async fn answer_for_names(pool: Arc<Pool>) -> Infallible {
    let mut lookups = JoinSet::new();
    loop {
        pool.named().until_due().await;
        let settings = pool.settings().resolve.clone();
        let mut files = FileWatch::new(system_files());
        let discovery = Discovery::new(&settings);
        while pool.settings().resolve == settings {
            for name in pool.named().take_due() {
                lookups.spawn_local(look_up(pool.clone(), discovery.clone(), name));
            }
            tokio::select! {
                () = pool.named().until_due() => {}
                Some(_) = lookups.join_next() => {}
                () = files.changed() => break,
            }
        }
    }
}

async fn look_up(pool: Arc<Pool>, discovery: Rc<Discovery>, name: HostPort) {
    let _over = Over { pool: &pool, name: &name };
    let (sender, mut answers) = unbounded_channel();
    // With the root: a name of the network is in no domain of this machine's.
    let asking = discovery.look_up(Query::Host(format!("{}.", name.host), name.port), sender);
    let taking = async {
        while let Some((_, answer)) = answers.recv().await {
            take(&pool, &name, answer);
        }
    };
    let both = async { tokio::join!(asking, taking) };
    let _ = tokio::time::timeout(LONGEST_LOOKUP, both).await;
}

/// Also where it was cut, by a panic or with its pool.
struct Over<'a> {
    pool: &'a Pool,
    name: &'a HostPort,
}

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.pool.named().looked_up(self.name);
    }
}

fn take(pool: &Arc<Pool>, name: &HostPort, answer: Result<Answer, NetError>) {
    let now = Instant::now();
    let limits = pool.settings().resolve.clone();
    match answer {
        Ok(answer) => {
            let until = good_until(&answer, &limits, now);
            pool.named().take(name, Some(backends(pool, name, &answer)), until);
        }
        Err(error) => {
            tracing::debug!(pool = pool.name(), name = name.host, %error, "a client's name can't be resolved");
            pool.named().take(name, None, now + limits.min_ttl);
        }
    }
}

fn backends(pool: &Arc<Pool>, name: &HostPort, answer: &Answer) -> Arc<[NamedBackend]> {
    let addresses = answer.hosts.iter().flat_map(|host| host.v4.iter().chain(&host.v6).flatten());
    let backend = |ip: &IpAddr| NamedBackend {
        backend: pool.backend_by_name(SocketAddr::new(*ip, name.port), name.host.clone()),
        is_local: is_local(ip.to_canonical()),
    };
    addresses.take(MOST_ADDRESSES).map(backend).collect()
}

/// A part is asked for again soon: the rest may not come.
fn good_until(answer: &Answer, limits: &Resolve, now: Instant) -> Instant {
    let ttl = answer.valid_until.map_or(Duration::ZERO, |until| until.saturating_duration_since(now));
    now + ttl.clamp(limits.min_ttl, limits.max_ttl)
}

fn is_local(ip: IpAddr) -> bool {
    let is_on_link = match ip {
        IpAddr::V4(ip) => ip.is_link_local() || ip.is_broadcast(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    };
    // What can't be found out is not let through.
    let is_own = || net::is_own_address(ip).unwrap_or(true);
    is_on_link || ip.is_loopback() || ip.is_unspecified() || ip.is_multicast() || is_own()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_this_machine_and_of_links_are_local() {
        for local in [
            "127.0.0.1",
            "127.9.9.9",
            "::1",
            "0.0.0.0",
            "::",
            "169.254.169.254",
            "fe80::1",
            "224.0.0.1",
            "ff02::1",
            "255.255.255.255",
            "::ffff:127.0.0.1",
        ] {
            assert!(is_local(local.parse::<IpAddr>().expect("an address").to_canonical()), "{local}");
        }
        for other in ["192.0.2.1", "10.255.255.1", "2001:db8::1"] {
            assert!(!is_local(other.parse().expect("an address")), "{other}");
        }
    }
}
