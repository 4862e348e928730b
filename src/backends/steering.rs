//! What operators order of a pool that runs: more backends, fewer, other weights and limits, drained ones.
//!
//! Each order is carried out as a whole, or refused with words. A backend that is to go is drained first: it is in the
//! pool until its connections have ended.

use std::collections::HashSet;
use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::config::{BackendAddress, BackendChanges, BackendConfig, MAX_BACKENDS, listed, nearest_word};
use crate::lifecycle::Cut;
use crate::net::Target;

use super::admin_state::AdminState;
use super::backend::Backend;
use super::leaving::{Leaving, is_idle};
use super::membership::{Entry, Membership};

/// What is to become of backends that are there.
#[derive(Clone, Copy, Debug)]
pub enum Order {
    Change(BackendChanges),
    Set(AdminState),
    /// To go once its connections have ended, or this time is over (`None`: however long that takes).
    Remove(Option<Duration>),
    /// To go now; its connections are reset.
    ForceOut,
}

/// Why an order is not carried out, in words for who gave it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// There is no such pool or backend.
    NotFound(String),
    /// What is asked for is wrong in itself.
    Invalid(String),
    /// It can't be done as things stand.
    Conflict(String),
}

/// What an address stands for.
struct Found {
    /// As the wishes have it.
    address: String,
    /// Which may come to stand for others.
    is_name: bool,
    /// None, while its name has not resolved.
    backends: Vec<Arc<Backend>>,
}

impl Membership {
    /// Adds an entry of `backends`. `by` says who has ordered it, for the log.
    ///
    /// # Errors
    /// The pool has it already, or as many as it may.
    pub fn add(&self, entry: &BackendConfig, by: &str, now: Instant) -> Result<(), Refusal> {
        let (pool, address) = (self.pool.name(), entry.address.to_string());
        if !self.pool.has_own_backends() {
            let message = format!("pool {pool} has no backends of its own: its clients name theirs");
            return Err(Refusal::Conflict(message));
        }
        let known = self.find(&address);
        if let Some(found) = &known
            && !found.iter().all(|found| self.leavers.addresses().contains(&found.address))
        {
            return Err(Refusal::Conflict(format!("pool {pool} has {address} already; change it, or remove it first")));
        }
        if self.entries.borrow().len() >= MAX_BACKENDS {
            return Err(Refusal::Conflict(format!("pool {pool} has {MAX_BACKENDS} backends, which is the most")));
        }
        if let Some(found) = known {
            self.set(&found, AdminState::Enable, by, now);
        }
        self.wishes.borrow_mut().add(entry.clone(), &self.pool.settings().backends);
        self.arrange();
        self.publish();
        let (weight, rank) = (entry.weight, entry.rank);
        tracing::info!(
            event = "operator",
            pool,
            backend = address,
            weight,
            rank,
            by,
            "added by the API; a restart forgets it"
        );
        Ok(())
    }

    /// Carries out an order about the backends that `address` stands for: an entry, one backend, or a host without a
    /// port for all of its backends. Gives them.
    ///
    /// # Errors
    /// There is none of them, or the pool would have none without them.
    pub fn steer(&self, address: &str, order: Order, by: &str, now: Instant) -> Result<Vec<Arc<Backend>>, Refusal> {
        let found = self.find(address).ok_or_else(|| self.unknown(address))?;
        match order {
            Order::Set(_) if found.iter().all(|found| found.backends.is_empty()) => {
                let message = format!("{address} in pool {} has no address yet", self.pool.name());
                return Err(Refusal::Conflict(message));
            }
            Order::Set(admin_state) => {
                if admin_state == AdminState::Enable {
                    self.check_may_stay(&found)?;
                }
                self.set(&found, admin_state, by, now);
            }
            Order::Change(changes) => self.change(&found, changes, by),
            Order::Remove(limit) => self.see_off(&found, limit, by, now)?,
            Order::ForceOut => {
                self.check_not_last(&found)?;
                found.iter().for_each(|found| self.remove(&found.address, &found.backends, by));
                self.pool.cut(found.iter().flat_map(|found| &found.backends), Cut::BackendRemoved);
            }
        }
        Ok(found.into_iter().flat_map(|found| found.backends).collect())
    }

    /// Whether this stands for something here.
    pub fn has(&self, address: &str) -> bool {
        self.find(address).is_some()
    }

    /// What an entry stands for so far.
    pub fn backends_of(&self, address: &BackendAddress) -> Vec<Arc<Backend>> {
        let found = self.find(&address.to_string()).unwrap_or_default();
        found.into_iter().flat_map(|found| found.backends).collect()
    }

    /// Removes those that are to go as their connections end, until dropped.
    pub async fn follow_leaving(&self) -> Infallible {
        loop {
            for Leaving { address, backends, by, .. } in self.leavers.due().await {
                // The others may have gone meanwhile: it goes on draining then.
                match self.check_not_last(&self.find(&address).unwrap_or_default()) {
                    Ok(()) => self.remove(&address, &backends, &by),
                    Err(why) => {
                        let (event, pool, why) = ("operator", self.pool.name(), why.message());
                        tracing::warn!(event, pool, backend = address, why, by, "not removed");
                    }
                }
            }
        }
    }

    /// What operators have changed, for the process that an upgrade starts; who is to go is gone there.
    pub fn carried(&self) -> Vec<Value> {
        let mut wishes = self.wishes.borrow().clone();
        for address in self.leavers.addresses() {
            wishes.remove(&address, self.is_given(&address), &self.pool.settings().backends);
        }
        wishes.carried()
    }

    fn set(&self, found: &[Found], admin_state: AdminState, by: &str, now: Instant) {
        if admin_state == AdminState::Enable {
            self.leavers.stay(&meant_by(found));
        }
        for found in found {
            if found.is_name {
                self.wishes.borrow_mut().set_state(&found.address, admin_state);
            }
            for backend in &found.backends {
                if backend.set_admin_state(admin_state, now) {
                    let (pool, state) = (self.pool.name(), backend.state().as_str());
                    tracing::info!(
                        event = "operator",
                        pool,
                        backend = backend.label(),
                        state,
                        by,
                        "changed by the API"
                    );
                }
            }
        }
    }

    fn change(&self, found: &[Found], changes: BackendChanges, by: &str) {
        for Found { address, .. } in found {
            self.wishes.borrow_mut().change(address, changes, &self.pool.settings().backends);
            let changes = changes.to_json();
            let pool = self.pool.name();
            tracing::info!(event = "operator", pool, backend = address, %changes, by, "changed by the API");
        }
        self.publish();
    }

    fn see_off(&self, found: &[Found], limit: Option<Duration>, by: &str, now: Instant) -> Result<(), Refusal> {
        self.check_not_last(found)?;
        self.set(found, AdminState::Drain, by, now);
        self.leavers.stay(&meant_by(found));
        for found in found {
            if is_idle(&found.backends) {
                self.remove(&found.address, &found.backends, by);
            } else {
                self.leavers.add(&found.address, &found.backends, by, limit.map(|limit| now + limit));
            }
        }
        Ok(())
    }

    /// Their open connections go on.
    fn remove(&self, address: &str, backends: &[Arc<Backend>], by: &str) {
        self.leavers.stay(&HashSet::from([address]));
        self.wishes.borrow_mut().remove(address, self.is_given(address), &self.pool.settings().backends);
        let (pool, open) = (self.pool.name(), backends.iter().map(|backend| backend.active()).sum::<usize>());
        tracing::info!(event = "operator", pool, backend = address, open, by, "removed by the API");
        self.arrange();
        self.publish();
    }

    /// One address of a name that is to go can't stay by itself.
    fn check_may_stay(&self, found: &[Found]) -> Result<(), Refusal> {
        let backends: HashSet<_> = found.iter().flat_map(|found| &found.backends).map(Arc::as_ptr).collect();
        let meant = meant_by(found);
        let goes_with = self.leavers.address_of(|leaving| {
            let has_one = leaving.backends.iter().any(|backend| backends.contains(&Arc::as_ptr(backend)));
            has_one && !meant.contains(&*leaving.address)
        });
        goes_with.map_or(Ok(()), |name| {
            let message = format!("it is removed with {name} from pool {}: enable that", self.pool.name());
            Err(Refusal::Conflict(message))
        })
    }

    /// A pool has at least one backend, as in the file.
    fn check_not_last(&self, found: &[Found]) -> Result<(), Refusal> {
        let leaving = self.leavers.backends();
        let going = found.iter().flat_map(|found| &found.backends).chain(&leaving);
        let going: HashSet<*const Backend> = going.map(Arc::as_ptr).collect();
        let none_goes = found.iter().all(|found| found.backends.is_empty());
        let stays = self.pool.backends().iter().any(|backend| !going.contains(&Arc::as_ptr(backend)));
        if stays || none_goes && self.entries.borrow().len() > found.len() {
            return Ok(());
        }
        let message = format!(
            "pool {} would have no backend without it: add another one first, or drain or disable it",
            self.pool.name()
        );
        Err(Refusal::Conflict(message))
    }

    /// Whether the configuration or a name gives this address, so that it would come back by itself.
    fn is_given(&self, address: &str) -> bool {
        let settings = self.pool.settings();
        let of_name = |entry: &Entry| {
            let is_other = entry.settings.address.to_string() != address;
            is_other && entry.endpoints().iter().any(|endpoint| endpoint.target.to_string() == address)
        };
        settings.backends.iter().any(|entry| entry.address.to_string() == address)
            || self.entries.borrow().iter().any(of_name)
    }

    /// `None`: nothing.
    fn find(&self, text: &str) -> Option<Vec<Found>> {
        let (entries, backends) = (self.entries.borrow(), self.pool.backends());
        let address = text.parse::<BackendAddress>().ok();
        let of_entry = |entry: &Entry| {
            let targets: HashSet<Target> = entry.endpoints().into_iter().map(|endpoint| endpoint.target).collect();
            let backends = backends.iter().filter(|backend| targets.contains(backend.target())).cloned().collect();
            let is_name = !matches!(entry.settings.address, BackendAddress::Address(_));
            Found { address: entry.settings.address.to_string(), is_name, backends }
        };
        let of_backend = |backend: &Arc<Backend>| Found {
            address: backend.label().to_owned(),
            is_name: false,
            backends: vec![backend.clone()],
        };
        let is_it = |known: &BackendAddress| match (known, &address) {
            (BackendAddress::Address(target), Some(BackendAddress::Address(wanted))) => target == wanted,
            (BackendAddress::Address(_), _) => false,
            (named, _) => named.to_string().eq_ignore_ascii_case(text),
        };
        if let Some(entry) = entries.iter().find(|entry| is_it(&entry.settings.address)) {
            return Some(vec![of_entry(entry)]);
        }
        if let Some(BackendAddress::Address(wanted)) = &address {
            let backend = backends.iter().find(|backend| backend.target() == wanted);
            return backend.map(|backend| vec![of_backend(backend)]);
        }
        let is_of_host = |entry: &&Entry| match &entry.settings.address {
            BackendAddress::Name(host, _) => host.eq_ignore_ascii_case(text),
            BackendAddress::Address(_) | BackendAddress::Srv(_) => false,
        };
        let mut found: Vec<Found> = entries.iter().filter(is_of_host).map(of_entry).collect();
        let known: HashSet<_> = found.iter().flat_map(|found| &found.backends).map(Arc::as_ptr).collect();
        let ip = text.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>().ok();
        let is_at_host = |backend: &&Arc<Backend>| {
            let has_ip = backend.target().ip_and_port().is_some_and(|address| Some(address.ip()) == ip);
            // Of a service: targets have the root at their end.
            let is_its = |host: &String| host.trim_end_matches('.').eq_ignore_ascii_case(text.trim_end_matches('.'));
            let is_named = || backend.check_place().host.as_ref().is_some_and(is_its);
            !known.contains(&Arc::as_ptr(backend)) && (has_ip || is_named())
        };
        found.extend(backends.iter().filter(is_at_host).map(of_backend));
        (!found.is_empty()).then_some(found)
    }

    fn unknown(&self, address: &str) -> Refusal {
        let (entries, backends, mut seen) = (self.entries.borrow(), self.pool.backends(), HashSet::new());
        let of_entries = entries.iter().map(|entry| entry.settings.address.to_string());
        let all = of_entries.chain(backends.iter().map(|backend| backend.label().to_owned()));
        let known: Vec<String> = all.filter(|address| seen.insert(address.clone())).collect();
        Refusal::not_found(&format!("pool {} has no backend {address}", self.pool.name()), address, &known)
    }
}

/// What is found, and each backend of it.
fn meant_by(found: &[Found]) -> HashSet<&str> {
    let labels = found.iter().flat_map(|found| &found.backends).map(|backend| backend.label());
    found.iter().map(|found| &*found.address).chain(labels).collect()
}

impl Refusal {
    /// With what was probably meant, or else what there is.
    pub fn not_found(message: &str, word: &str, known: &[String]) -> Self {
        Self::NotFound(match nearest_word(word, known) {
            Some(near) => format!("{message}; did you mean {near}? there are: {}", listed(known.iter())),
            None => format!("{message}; there are: {}", listed(known.iter())),
        })
    }

    pub fn message(&self) -> &str {
        match self {
            Self::NotFound(message) | Self::Invalid(message) | Self::Conflict(message) => message,
        }
    }
}
