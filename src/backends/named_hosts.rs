//! Hosts by the names that clients ask for: each name is looked up once for all who ask at the same time, and kept
//! while its answer is good. Looks nothing up itself.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, watch};

use super::backend::Backend;

/// Names of one pool that are kept. Bounds memory: clients choose them.
const MOST_NAMES: usize = 1_024;
/// Names of one pool that are looked up at once; a client that asks for one more is refused.
pub const MOST_LOOKUPS: usize = 128;
/// A lookup that takes longer is given up: the resolver's own limits are shorter.
pub(super) const LONGEST_LOOKUP: Duration = Duration::from_secs(30);

/// Hosts by the names that clients ask for, of one pool.
#[derive(Debug, Default)]
pub(super) struct NamedHosts {
    names: Mutex<Names>,
    /// Some are due to be looked up.
    asked: Notify,
}

#[derive(Debug, Default)]
struct Names {
    known: HashMap<HostPort, Name>,
    due: Vec<HostPort>,
    lookups: usize,
}

/// What a client asks for: a name in lower case, without the root.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HostPort {
    pub host: String,
    pub port: u16,
}

#[derive(Debug)]
struct Name {
    /// `None`: it is being looked up.
    found: watch::Sender<Option<Found>>,
    until: Instant,
}

/// `None`: it doesn't resolve.
pub(super) type Found = Option<Arc<[NamedBackend]>>;

/// One address of a host.
#[derive(Debug)]
pub(super) struct NamedBackend {
    pub(super) backend: Arc<Backend>,
    /// This machine's, or one that means another machine on each link.
    pub(super) is_local: bool,
}

/// Why a name leads nowhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoHost {
    /// It doesn't resolve.
    Unresolved,
    /// It has local addresses alone, and those are not wanted.
    Local,
    /// Too many names are being looked up.
    Busy,
}

impl NamedHosts {
    fn names(&self) -> MutexGuard<'_, Names> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn find(&self, name: HostPort, now: Instant) -> Result<watch::Receiver<Option<Found>>, NoHost> {
        let mut names = self.names();
        if let Some(known) = names.known.get(&name).filter(|known| known.until > now) {
            return Ok(known.found.subscribe());
        }
        if names.lookups >= MOST_LOOKUPS {
            return Err(NoHost::Busy);
        }
        names.make_room(now);
        let (found, receiver) = watch::channel(None);
        names.known.insert(name.clone(), Name { found, until: now + 2 * LONGEST_LOOKUP });
        names.due.push(name);
        names.lookups += 1;
        drop(names);
        self.asked.notify_one();
        Ok(receiver)
    }

    /// Safe to cancel.
    pub(super) async fn until_due(&self) {
        while self.names().due.is_empty() {
            self.asked.notified().await;
        }
    }

    pub(super) fn take_due(&self) -> Vec<HostPort> {
        std::mem::take(&mut self.names().due)
    }

    /// What its lookup has found so far, and until when that is good.
    pub(super) fn take(&self, name: &HostPort, found: Found, until: Instant) {
        if let Some(known) = self.names().known.get_mut(name) {
            known.until = until;
            known.found.send_replace(Some(found));
        }
    }

    /// Its lookup is over. Where that gave no answer, whoever waits is told.
    pub(super) fn looked_up(&self, name: &HostPort) {
        let mut names = self.names();
        names.lookups -= 1;
        if names.known.get(name).is_some_and(|known| known.found.borrow().is_none()) {
            names.known.remove(name);
        }
    }
}

impl Names {
    /// Forgets what is out of date, or else the name that is the first to be; none that is being looked up.
    fn make_room(&mut self, now: Instant) {
        if self.known.len() < MOST_NAMES {
            return;
        }
        self.known.retain(|_, name| name.until > now || name.found.borrow().is_none());
        if self.known.len() < MOST_NAMES {
            return;
        }
        let answered = self.known.iter().filter(|(_, name)| name.found.borrow().is_some());
        if let Some(first) = answered.min_by_key(|(_, name)| name.until).map(|(name, _)| name.clone()) {
            self.known.remove(&first);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(number: usize) -> HostPort {
        HostPort { host: format!("{number}.example"), port: 443 }
    }

    #[test]
    fn a_name_is_looked_up_once_for_all_who_ask() {
        let hosts = NamedHosts::default();
        let now = Instant::now();
        let waiting: Vec<_> = (0..3).map(|_| hosts.find(name(1), now)).collect();
        assert!(waiting.iter().all(Result::is_ok));
        assert_eq!(hosts.take_due(), [name(1)]);
    }

    #[test]
    fn names_and_lookups_are_bounded() {
        let hosts = NamedHosts::default();
        let now = Instant::now();
        for number in 0..10_000 {
            if hosts.find(name(number), now).is_err() {
                assert_eq!(hosts.names().lookups, MOST_LOOKUPS);
                for due in hosts.take_due() {
                    // The later, the longer.
                    let mut names = hosts.names();
                    let known = names.known.get_mut(&due).expect("it was asked for");
                    known.until = now + Duration::from_secs(60);
                    known.found.send_replace(Some(None));
                    drop(names);
                    hosts.looked_up(&due);
                }
            }
        }
        let names = hosts.names();
        assert!(names.known.len() <= MOST_NAMES && names.known.capacity() < 4 * MOST_NAMES);
        assert!(names.due.len() <= MOST_LOOKUPS);
    }
}
