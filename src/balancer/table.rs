//! The usable backends by rank, as they were at one generation of their pool.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::backends::{Backend, Lease, Pool};
use crate::config::Policy;

use super::pick_request::PickRequest;
use super::policy::{Tier, Turn};

#[derive(Debug)]
pub(super) struct Table {
    generation: u64,
    policy: Policy,
    /// Those that are usable by rank, the lowest first. None is empty.
    tiers: Vec<(u8, Tier)>,
    /// Those that may be tried although none is usable. Empty while any is: it is not needed then, and costs as much to
    /// build as the others.
    fail_open: Tier,
}

impl Table {
    pub(super) fn new(pool: &Pool) -> Self {
        // Read before the states: a change that comes in between makes the table count as out of date, and not a table
        // with old states count as current.
        let generation = pool.generation();
        let backends = pool.backends();
        let policy = pool.settings().policy;
        let mut by_rank: BTreeMap<u8, Vec<Arc<Backend>>> = BTreeMap::new();
        for backend in backends.iter().filter(|backend| backend.is_usable()) {
            by_rank.entry(backend.rank()).or_default().push(backend.clone());
        }
        let mut rest = Vec::new();
        if by_rank.is_empty() {
            let service = pool.service();
            rest.extend(backends.iter().filter(|backend| service.fails_open_to(backend)).cloned());
        }
        let tiers = by_rank.into_iter().map(|(rank, backends)| (rank, Tier::new(policy, backends))).collect();
        Self { generation, policy, tiers, fail_open: Tier::new(policy, rest) }
    }

    pub(super) fn generation(&self) -> u64 {
        self.generation
    }

    pub(super) fn policy(&self) -> Policy {
        self.policy
    }

    /// One of the lowest rank that was usable, by policy. Is that rank above 0, a backend of a lower one may have come
    /// back since.
    pub(super) fn choose_best(&self, request: &PickRequest<'_>, turn: &Turn<'_>) -> Option<Lease> {
        let (rank, tier) = self.tiers.first()?;
        let is_usable =
            |backend: &Arc<Backend>| backend.is_usable() && backend.rank() == *rank && request.is_untried(backend);
        // A retry prefers backends without a recent failure: attempts are few, and the client waits.
        let is_promising = |backend: &Arc<Backend>| is_usable(backend) && !backend.is_suspect(request.now);
        if !request.tried.is_empty()
            && let Some(lease) = tier.choose(turn, request.client, &is_promising)
        {
            return Some(lease);
        }
        tier.choose(turn, request.client, &is_usable)
    }

    /// Whether the lowest rank that was usable is the lowest that there can be.
    pub(super) fn has_primaries(&self) -> bool {
        self.tiers.first().is_some_and(|(rank, _)| *rank == 0)
    }

    /// Those of this rank that were usable.
    pub(super) fn tier(&self, rank: u8) -> Option<&Tier> {
        self.tiers.iter().find(|(known, _)| *known == rank).map(|(_, tier)| tier)
    }

    /// Those that may be tried although none is usable.
    pub(super) fn fail_open(&self) -> &Tier {
        &self.fail_open
    }
}
