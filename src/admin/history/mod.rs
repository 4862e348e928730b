//! What each listener, pool and backend has done in the last hour, a point each 5 s; and first-byte times of the last
//! minute.
//!
//! Memory is bounded: 11.5 KB for the hour of one that has done anything in it, up to [`MOST_HOURS`] of them; and for
//! the first-byte times of a backend that has answered about 3 KB more. One that is idle takes 150 bytes.

mod carried;
mod first_byte;
mod limits;
mod series;

use std::collections::{BTreeMap, HashSet};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use crate::backends::{Backend, Pool};
use crate::lifecycle::BackendId;
use crate::telemetry::{Latencies, ListenerStats, ListenerTotals};

use carried::{Expected, Name};
use first_byte::FirstByteTimes;
use limits::LimitWatch;
use series::Series;

pub use first_byte::FirstByte;
pub use series::{Counted, MOST_POINTS, Point};

/// The time of one point.
pub const STEP: Duration = Duration::from_secs(5);
/// Listeners, pools and backends whose hour is kept, 23 MB at most: those that came first.
const MOST_HOURS: usize = 2000;
/// Of all series in one answer together: some megabytes.
const MOST_ANSWERED_POINTS: usize = 200_000;

/// Written by one task, read by requests.
#[derive(Debug, Default)]
pub struct History(Mutex<Kept>);

#[derive(Debug, Default)]
struct Kept {
    /// Points so far.
    ticks: usize,
    /// When the last one ended; `None`: there is none.
    until: Option<SystemTime>,
    listeners: BTreeMap<String, Series>,
    pools: BTreeMap<String, Series>,
    backends: BTreeMap<BackendId, BackendHistory>,
    limits: LimitWatch,
    /// Of the old process of an upgrade.
    expected: Expected,
}

#[derive(Debug)]
struct BackendHistory {
    pool: String,
    backend: String,
    series: Series,
    first_byte: FirstByteTimes,
}

/// Series of points.
pub struct Past {
    pub series: Vec<PastSeries>,
    /// So many steps are one point.
    pub merged: usize,
    /// When the last one ended; `None`: there is none.
    pub until: Option<SystemTime>,
}

/// One series of points, the last one at the end.
pub struct PastSeries {
    pub listener: Option<String>,
    pub pool: Option<String>,
    pub backend: Option<String>,
    pub points: Vec<Point>,
}

/// Which series are asked for.
pub enum Wanted<'a> {
    /// Those of all listeners and pools.
    Overview,
    /// A pool's, and its backends'.
    Pool(&'a str),
    /// One backend's.
    Backend(&'a str, &'a str),
}

impl History {
    /// Adds a point: to be called each [`STEP`].
    pub(super) fn add_point(&self, listeners: &[&ListenerStats], pools: &[Arc<Pool>]) {
        self.lock().add_point(listeners, pools);
    }

    /// The first-byte times of a backend's last minute; `None`: it answered nobody in it.
    pub(super) fn first_byte(&self, backend: BackendId) -> Option<FirstByte> {
        self.lock().backends.get(&backend)?.first_byte.shown()
    }

    /// The series that are asked for, with so many points each at most; with fewer where there are very many series.
    pub(super) fn series(&self, wanted: &Wanted<'_>, most: usize) -> Past {
        let kept = self.lock();
        let most = most.min(MOST_ANSWERED_POINTS / kept.number(wanted).max(1)).max(1);
        let merged = kept.ticks.min(MOST_POINTS).div_ceil(most).max(1);
        Past { series: kept.series(wanted, merged), merged, until: kept.until }
    }

    /// For the process that an upgrade starts.
    pub fn carried(&self) -> Vec<u8> {
        let kept = self.lock();
        carried::written(kept.ticks, kept.named())
    }

    /// Continues what the old process has told: to be called before the first point.
    ///
    /// # Errors
    /// It is of another form.
    pub fn carry_on(&self, bytes: &[u8]) -> io::Result<()> {
        let (ticks, expected) = carried::read(bytes)?;
        let mut kept = self.lock();
        (kept.ticks, kept.expected) = (ticks, expected);
        Ok(())
    }

    /// A thread that panicked while it held the lock left whole values.
    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kept {
    fn add_point(&mut self, listeners: &[&ListenerStats], pools: &[Arc<Pool>]) {
        let tick = self.ticks;
        let may_grow = self.hours() < MOST_HOURS;
        self.ticks += 1;
        self.until = Some(SystemTime::now());
        self.forget_others(listeners, pools);
        self.expected.forget_old(tick);
        for listener in listeners {
            let totals = ListenerTotals::sum(&listener.counters);
            self.limits.look(&listener.name, &totals);
            let known = self.listeners.entry(listener.name.clone());
            let series = known.or_insert_with(|| self.expected.take(&Name::of_listener(&listener.name)));
            series.add(tick, Counted::of_listener(&totals), totals.active(), &Latencies::default(), may_grow);
        }
        for pool in pools {
            self.add_pool(pool, tick, may_grow);
        }
    }

    /// A pool is the sum of its backends, and has failures of its own.
    fn add_pool(&mut self, pool: &Pool, tick: usize, may_grow: bool) {
        let now = Instant::now();
        let (mut counted, mut active, mut all) = (Counted::default(), 0, Vec::new());
        for backend in pool.backends().iter() {
            let snapshot = backend.snapshot(now);
            let of_backend = Counted::of_backend(&snapshot);
            counted.add(&of_backend);
            active += snapshot.active as u64;
            let begin = || BackendHistory::new(pool, backend, &mut self.expected);
            let known = self.backends.entry(backend.id()).or_insert_with(begin);
            let latencies = known.first_byte.look(backend.first_byte(), &snapshot);
            known.series.add(tick, of_backend, snapshot.active as u64, &latencies, may_grow);
            all.push(latencies);
        }
        counted.failed = pool.failures().totals().all();
        let known = self.pools.entry(pool.name().to_owned());
        let series = known.or_insert_with(|| self.expected.take(&Name::of_pool(pool.name())));
        series.add(tick, counted, active, &Latencies::sum(&all), may_grow);
    }

    fn forget_others(&mut self, listeners: &[&ListenerStats], pools: &[Arc<Pool>]) {
        self.listeners.retain(|name, _| listeners.iter().any(|listener| listener.name == *name));
        self.pools.retain(|name, _| pools.iter().any(|pool| pool.name() == name));
        let of_pool = |pool: &Arc<Pool>| pool.backends().iter().map(|backend| backend.id()).collect::<Vec<_>>();
        let present: HashSet<BackendId> = pools.iter().flat_map(of_pool).collect();
        self.backends.retain(|id, _| present.contains(id));
    }

    fn named(&self) -> impl Iterator<Item = (Name, &Series)> {
        let listeners = self.listeners.iter().map(|(name, series)| (Name::of_listener(name), series));
        let pools = self.pools.iter().map(|(name, series)| (Name::of_pool(name), series));
        let backends = self.backends.values().map(|it| (Name::of_backend(&it.pool, &it.backend), &it.series));
        listeners.chain(pools).chain(backends)
    }

    fn hours(&self) -> usize {
        let others = self.listeners.values().chain(self.pools.values());
        others.chain(self.backends.values().map(|it| &it.series)).filter(|series| series.has_hour()).count()
    }

    fn number(&self, wanted: &Wanted<'_>) -> usize {
        match *wanted {
            Wanted::Overview => self.listeners.len() + self.pools.len(),
            Wanted::Pool(name) => 1 + self.backends.values().filter(|it| it.pool == name).count(),
            Wanted::Backend(..) => 1,
        }
    }

    fn series(&self, wanted: &Wanted<'_>, merged: usize) -> Vec<PastSeries> {
        let points = |series: &Series| series.points(self.ticks, merged);
        let of_pool = |name: &String, series: &Series| PastSeries {
            listener: None,
            pool: Some(name.clone()),
            backend: None,
            points: points(series),
        };
        let of_backend = |it: &BackendHistory| PastSeries {
            listener: None,
            pool: Some(it.pool.clone()),
            backend: Some(it.backend.clone()),
            points: points(&it.series),
        };
        match *wanted {
            Wanted::Overview => {
                let listeners = self.listeners.iter().map(|(name, series)| PastSeries {
                    listener: Some(name.clone()),
                    pool: None,
                    backend: None,
                    points: points(series),
                });
                listeners.chain(self.pools.iter().map(|(name, series)| of_pool(name, series))).collect()
            }
            Wanted::Pool(name) => {
                let pool = self.pools.iter().filter(|(it, _)| *it == name).map(|(name, series)| of_pool(name, series));
                pool.chain(self.backends.values().filter(|it| it.pool == name).map(of_backend)).collect()
            }
            Wanted::Backend(pool, backend) => {
                let is_it = |it: &&BackendHistory| it.pool == pool && it.backend == backend;
                self.backends.values().filter(is_it).map(of_backend).collect()
            }
        }
    }
}

impl BackendHistory {
    fn new(pool: &Pool, backend: &Backend, expected: &mut Expected) -> Self {
        Self {
            pool: pool.name().to_owned(),
            backend: backend.label().to_owned(),
            series: expected.take(&Name::of_backend(pool.name(), backend.label())),
            first_byte: FirstByteTimes::default(),
        }
    }
}
