//! What operators have changed of a pool's members while it runs, over what its configuration says of them.
//!
//! The last word holds: a wish ends when the configuration says something else of its backend than when the wish came.
//! An upgrade passes wishes on, each with what the configuration had said, so that the new process judges in the same
//! way. Knows no running backend.

use std::collections::{BTreeMap, HashMap, HashSet};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::config::{BackendAddress, BackendChanges, BackendConfig, PoolConfig};

use super::admin_state::AdminState;
use super::endpoint::Endpoint;

/// Why wishes end.
const SAYS_ELSE: &str = "the configuration says something else of it than before";
const HAS_NO_OTHER: &str = "the configuration has no backend any more but removed ones";

#[derive(Clone, Debug, Default)]
pub(super) struct Wishes {
    /// In the order in which they came; one for each address at most.
    members: Vec<Wish>,
    /// What the backends of a name are to be, also those that it gives later. The configuration ends none of these.
    states: BTreeMap<String, AdminState>,
}

#[derive(Clone, Debug)]
struct Wish {
    /// An entry's address as it is written, or one that a name gave.
    address: String,
    what: What,
    /// What the configuration said of this address then; `None`: nothing.
    configured: Option<BackendConfig>,
}

#[derive(Clone, Debug)]
enum What {
    /// And what was changed of it since.
    Added(BackendConfig, BackendChanges),
    Changed(BackendChanges),
    Removed,
}

impl Wishes {
    /// The entries of the pool, by the configuration and by these; those that were added come last.
    pub(super) fn entries(&self, configured: &[BackendConfig]) -> Vec<BackendConfig> {
        let (wishes, said) = (self.by_address(), said(configured));
        let entry = |entry: &BackendConfig| match wishes.get(&*entry.address.to_string()) {
            Some(What::Removed) => None,
            Some(What::Added(added, _)) => Some(added.clone()),
            Some(What::Changed(_)) | None => Some(entry.clone()),
        };
        let added = self.members.iter().filter_map(|wish| match &wish.what {
            What::Added(added, _) if !said.contains_key(&wish.address) => Some(added.clone()),
            _ => None,
        });
        configured.iter().filter_map(entry).chain(added).collect()
    }

    /// The backends of all entries, as they are wanted.
    pub(super) fn applied(&self, entries: Vec<(BackendAddress, Vec<Endpoint>)>) -> Vec<Endpoint> {
        if self.is_empty() {
            return entries.into_iter().flat_map(|(_, endpoints)| endpoints).collect();
        }
        let wishes = self.by_address();
        let of_entry = |(entry, mut endpoints): (BackendAddress, Vec<Endpoint>)| {
            let entry = entry.to_string();
            let changes = wishes.get(&*entry).map(|what| what.changes()).unwrap_or_default();
            endpoints.retain_mut(|endpoint| {
                let address = endpoint.target.to_string();
                endpoint.change(changes);
                endpoint.admin_state = self.states.get(&entry).copied().unwrap_or_default();
                match wishes.get(&*address) {
                    Some(What::Removed) => return false,
                    // Also where a name gives what was added.
                    Some(What::Added(added, _)) => endpoint.change(BackendChanges::all_of(added)),
                    Some(What::Changed(_)) | None => {}
                }
                endpoint.change(wishes.get(&*address).map(|what| what.changes()).unwrap_or_default());
                true
            });
            endpoints
        };
        entries.into_iter().flat_map(of_entry).collect()
    }

    pub(super) fn add(&mut self, entry: BackendConfig, configured: &[BackendConfig]) {
        let address = entry.address.to_string();
        self.states.remove(&address);
        self.set(address, What::Added(entry, BackendChanges::default()), configured);
    }

    pub(super) fn change(&mut self, address: &str, changes: BackendChanges, configured: &[BackendConfig]) {
        let what = match self.by_address().get(address) {
            Some(What::Added(entry, before)) => What::Added(entry.clone(), changes.over(*before)),
            Some(What::Changed(before)) => What::Changed(changes.over(*before)),
            Some(What::Removed) | None => What::Changed(changes),
        };
        self.set(address.to_owned(), what, configured);
    }

    /// What becomes of the addresses of this entry, also of later ones.
    pub(super) fn set_state(&mut self, entry: &str, admin_state: AdminState) {
        match admin_state {
            AdminState::Enable => self.states.remove(entry),
            AdminState::Drain | AdminState::Disable => self.states.insert(entry.to_owned(), admin_state),
        };
    }

    /// Of what was only added nothing is left; `is_given`: by the configuration, or by a name.
    pub(super) fn remove(&mut self, address: &str, is_given: bool, configured: &[BackendConfig]) {
        self.states.remove(address);
        if is_given {
            self.set(address.to_owned(), What::Removed, configured);
        } else {
            self.members.retain(|wish| wish.address != address);
        }
    }

    /// Ends those about which the configuration says something else now, and removals that would leave a pool without
    /// an entry: gives their addresses, and why.
    pub(super) fn end_overruled(&mut self, configured: &[BackendConfig]) -> Vec<(String, &'static str)> {
        let said = said(configured);
        let is_overruled = |wish: &mut Wish| said.get(&*wish.address).copied() != wish.configured.as_ref();
        let overruled = self.members.extract_if(.., is_overruled).map(|wish| (wish.address, SAYS_ELSE));
        let mut ended: Vec<_> = overruled.collect();
        if self.entries(configured).is_empty() {
            let is_removal = |wish: &mut Wish| said.contains_key(&wish.address);
            ended.extend(self.members.extract_if(.., is_removal).map(|wish| (wish.address, HAS_NO_OTHER)));
        }
        ended
    }

    /// Ends those about addresses that no entry and no name gives any more: who has such an address later is another.
    pub(super) fn forget_others(&mut self, present: &HashSet<String>, configured: &[BackendConfig]) {
        let said = said(configured);
        self.states.retain(|entry, _| present.contains(entry));
        self.members.retain(|wish| {
            matches!(wish.what, What::Added(..)) || present.contains(&wish.address) || said.contains_key(&*wish.address)
        });
    }

    pub(super) fn is_empty(&self) -> bool {
        self.members.is_empty() && self.states.is_empty()
    }

    /// For the process that an upgrade starts.
    pub(super) fn carried(&self) -> Vec<Value> {
        let wish = |wish: &Wish| CarriedWish {
            address: wish.address.clone(),
            is_removed: matches!(wish.what, What::Removed),
            added: if let What::Added(entry, _) = &wish.what { entry.to_json() } else { Value::Null },
            changes: wish.what.changes().to_json(),
            configured: wish.configured.as_ref().map_or(Value::Null, BackendConfig::to_json),
            admin_state: AdminState::Enable,
        };
        let state = |(address, admin_state): (&String, &AdminState)| CarriedWish {
            address: address.clone(),
            admin_state: *admin_state,
            ..CarriedWish::default()
        };
        let all = self.members.iter().map(wish).chain(self.states.iter().map(state));
        all.map(|it| serde_json::to_value(it).expect("texts and numbers")).collect()
    }

    /// Those that the old process has told. One that makes no sense here is passed over.
    pub(super) fn carry_on(&mut self, wishes: Vec<Value>, pool: &PoolConfig) {
        for value in wishes {
            if let Err(error) = self.take(value, pool) {
                tracing::warn!(pool = pool.name, error, "the old process's word of an operator can't be read");
            }
        }
    }

    fn take(&mut self, value: Value, pool: &PoolConfig) -> Result<(), String> {
        let carried: CarriedWish = serde_json::from_value(value).map_err(|error| error.to_string())?;
        if carried.admin_state != AdminState::Enable {
            self.states.insert(carried.address, carried.admin_state);
            return Ok(());
        }
        let entry = |value: &Value| match value {
            Value::Null => Ok(None),
            value => BackendConfig::from_json(value, pool).map(Some).map_err(|problems| problems.to_string()),
        };
        let changes = BackendChanges::from_json(&carried.changes);
        let what = match entry(&carried.added)? {
            _ if carried.is_removed => What::Removed,
            Some(added) => What::Added(added, changes.unwrap_or_default()),
            None => What::Changed(changes.map_err(|problems| problems.to_string())?),
        };
        self.members.push(Wish { address: carried.address, what, configured: entry(&carried.configured)? });
        Ok(())
    }

    fn set(&mut self, address: String, what: What, configured: &[BackendConfig]) {
        let configured = configured.iter().find(|entry| entry.address.to_string() == address).cloned();
        let wish = Wish { address, what, configured };
        match self.members.iter_mut().find(|known| known.address == wish.address) {
            Some(known) => *known = wish,
            None => self.members.push(wish),
        }
    }

    fn by_address(&self) -> HashMap<&str, &What> {
        self.members.iter().map(|wish| (&*wish.address, &wish.what)).collect()
    }
}

fn said(configured: &[BackendConfig]) -> HashMap<String, &BackendConfig> {
    configured.iter().map(|entry| (entry.address.to_string(), entry)).collect()
}

impl What {
    /// Of a backend, or of all that a name stands for.
    fn changes(&self) -> BackendChanges {
        match self {
            Self::Added(_, changes) | Self::Changed(changes) => *changes,
            Self::Removed => BackendChanges::default(),
        }
    }
}

/// A wish on its way to another process.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct CarriedWish {
    address: String,
    is_removed: bool,
    /// Null: it was not added.
    added: Value,
    changes: Value,
    /// Null: the configuration said nothing of it.
    configured: Value,
    /// Of the backends of a name, and then nothing else is said.
    admin_state: AdminState,
}
