//! Chooses among the backends of one pool: by the table that was built last, and if that gives none, by the pool's
//! current state.
//!
//! A pick never builds a table. The table gives the order of turns; whether a backend may be picked is read from its
//! current state:
//!
//! - A backend that failed, was taken out of service or has left its pool is skipped at once, however old the table is.
//! - One that has recovered gets its turns with the next table. Until then it is picked if the table gives no other, so
//!   that no client is refused or has to wait while there is a usable backend.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;

use crate::backends::{Backend, Lease, Pool};

use super::pick_request::{PickError, PickRequest};
use super::policy::{Eligible, Tier, Turn, first_with_room};
use super::table::Table;

/// After a table was built, the next one waits for this many times as long: a pool whose backends change without end
/// takes at most a fifth of the main thread's time, and a table is never out of date by more than six times as long as
/// it takes to build one.
const PAUSES: u32 = 4;
/// Timers are no finer: a shorter pause gives only other tasks a turn.
const SHORTEST_PAUSE: Duration = Duration::from_millis(1);

/// Chooses among the backends of one pool. Shared by all workers.
#[derive(Debug)]
pub struct Balancer {
    pool: Arc<Pool>,
    /// Counts the picks of all workers together, so that consecutive ones get consecutive places of the order.
    turn: AtomicU64,
    table: ArcSwap<Table>,
}

impl Balancer {
    /// Starts with the pool's backends as they are.
    pub fn new(pool: Arc<Pool>) -> Arc<Self> {
        let table = ArcSwap::from_pointee(Table::new(&pool));
        Arc::new(Self { pool, turn: AtomicU64::new(0), table })
    }

    /// How many turns it has given.
    pub fn turn(&self) -> u64 {
        self.turn.load(Ordering::Relaxed)
    }

    /// Continues behind so many turns.
    pub fn continue_at(&self, turn: u64) {
        self.turn.store(turn, Ordering::Relaxed);
    }

    pub fn pool(&self) -> &Arc<Pool> {
        &self.pool
    }

    /// Builds the table anew whenever the pool has changed, until dropped. To be run by one task, on the main thread.
    pub async fn follow_pool(&self) -> Infallible {
        loop {
            self.pool.generation_after(self.table.load().generation()).await;
            let began = Instant::now();
            self.rebuild();
            let pause = began.elapsed() * PAUSES;
            if pause < SHORTEST_PAUSE {
                tokio::task::yield_now().await;
            } else {
                tokio::time::sleep(pause).await;
            }
        }
    }

    /// Builds the table anew if the pool has changed, so that the very next pick sees the change. Not for the path of a
    /// connection: a large pool takes milliseconds.
    pub fn rebuild(&self) {
        if !self.is_current() {
            self.table.store(Arc::new(Table::new(&self.pool)));
        }
    }

    /// Whether nothing has changed since the table was built.
    pub(super) fn is_current(&self) -> bool {
        self.table.load().generation() == self.pool.generation()
    }

    /// Chooses a backend and counts the connection on it.
    ///
    /// # Errors
    /// None can be chosen.
    pub fn pick(&self, request: &PickRequest<'_>) -> Result<Lease, PickError> {
        // An ejected backend whose time is over gets one connection as its probe, before any policy.
        if let Some(probe) = self.pool.due_probe(request.now, |backend| request.is_untried(backend)) {
            return Ok(probe);
        }
        let table = self.table.load();
        let turn = Turn::new(table.policy(), &self.turn);
        if (table.has_primaries() || table.generation() == self.pool.generation())
            && let Some(lease) = table.choose_best(request, &turn)
        {
            return Ok(lease);
        }
        self.pick_from_rest(&table, request, &turn)
    }

    /// The table gives none: the pool's current state decides, by rank.
    fn pick_from_rest(&self, table: &Table, request: &PickRequest<'_>, turn: &Turn<'_>) -> Result<Lease, PickError> {
        let backends = self.pool.backends();
        let is_strict = self.pool.settings().has_strict_ranks();
        // Where ranks are strict, a backend that was tried in vain has its role all the same.
        let holds_rank = |backend: &&Arc<Backend>| is_strict || request.is_untried(backend);
        let best = backends.iter().filter(|backend| backend.is_usable()).filter(holds_rank).map(|it| it.rank()).min();
        if let Some(rank) = best {
            let is_eligible =
                |backend: &Arc<Backend>| backend.rank() == rank && backend.is_usable() && request.is_untried(backend);
            return choose_among(table.tier(rank), &backends, request, turn, &is_eligible);
        }
        let service = self.pool.service();
        let allowed = backends.iter().filter(|backend| service.fails_open_to(backend));
        let only = if is_strict { allowed.map(|backend| backend.rank()).min() } else { None };
        let is_eligible = |backend: &Arc<Backend>| {
            only.is_none_or(|rank| backend.rank() == rank)
                && service.fails_open_to(backend)
                && request.is_untried(backend)
        };
        choose_among(Some(table.fail_open()), &backends, request, turn, &is_eligible)
    }
}

/// By policy from the tier, else whoever has room: the tier may be older than the backends' states.
fn choose_among(
    tier: Option<&Tier>,
    backends: &[Arc<Backend>],
    request: &PickRequest<'_>,
    turn: &Turn<'_>,
    is_eligible: Eligible<'_>,
) -> Result<Lease, PickError> {
    tier.and_then(|tier| tier.choose(turn, request.client, is_eligible))
        .or_else(|| first_with_room(backends, turn, is_eligible))
        .ok_or_else(|| if backends.iter().any(is_eligible) { PickError::Full } else { PickError::NoneLeft })
}
