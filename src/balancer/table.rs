//! The usable backends by rank, as they were at one generation of their pool.

use std::sync::Arc;

use crate::backends::{Backend, Lease, Pool};

use super::pick_request::PickRequest;
use super::policy::{Tier, Turn};

#[derive(Debug)]
pub(super) struct Table {
    generation: u64,
    primaries: Tier,
    backups: Tier,
    /// Every backend but those that an operator took out of service, for failing open. Empty while any is usable: it is
    /// not needed then, and costs as much to build as the others.
    all: Tier,
}

impl Table {
    pub(super) fn new(pool: &Pool) -> Self {
        // Read before the states: a change that comes in between makes the table count as out of date, and not a table
        // with old states count as current.
        let generation = pool.generation();
        let backends = pool.backends();
        let policy = pool.settings().policy;
        let tier = |is_member: &dyn Fn(&Backend) -> bool| {
            Tier::new(policy, backends.iter().filter(|backend| is_member(backend)).cloned().collect())
        };
        let primaries = tier(&|backend| backend.is_usable() && !backend.is_backup());
        let backups = tier(&|backend| backend.is_usable() && backend.is_backup());
        let is_any_usable = !primaries.is_empty() || !backups.is_empty();
        let all = tier(&|backend| !is_any_usable && backend.may_fail_open());
        Self { generation, primaries, backups, all }
    }

    pub(super) fn generation(&self) -> u64 {
        self.generation
    }

    /// One of the usable primaries, by policy.
    pub(super) fn choose_primary(&self, request: &PickRequest<'_>, turn: &Turn<'_>) -> Option<Lease> {
        let is_usable = |backend: &Arc<Backend>| backend.is_usable() && request.is_untried(backend);
        // A retry prefers backends without a recent failure: attempts are few, and the client waits.
        let is_promising = |backend: &Arc<Backend>| is_usable(backend) && !backend.is_suspect(request.now);
        if !request.tried.is_empty()
            && let Some(lease) = self.primaries.choose(turn, request.client, &is_promising)
        {
            return Some(lease);
        }
        self.primaries.choose(turn, request.client, &is_usable)
    }

    /// One of the usable backups, by policy.
    pub(super) fn choose_backup(&self, request: &PickRequest<'_>, turn: &Turn<'_>) -> Option<Lease> {
        self.backups.choose(turn, request.client, &|backend| backend.is_usable() && request.is_untried(backend))
    }

    /// With none usable, one of all that may be tried, by policy.
    pub(super) fn fail_open(&self, request: &PickRequest<'_>, turn: &Turn<'_>) -> Option<Lease> {
        self.all.choose(turn, request.client, &|backend| backend.may_fail_open() && request.is_untried(backend))
    }
}
