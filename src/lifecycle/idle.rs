//! The idle timeouts of one worker's connections: one periodic sweep over all of them, in place of a timer each.
//!
//! Each move of bytes costs one store of the current tick; nothing is armed or cancelled. The sweep wakes the
//! connections whose limit has passed, and the connection itself decides what that means.
//!
//! The list of all connections serves for cutting those of a backend as well: each has noted which one it uses.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::task::Context;
use std::task::Waker;
use std::time::{Duration, Instant};

use slab::Slab;

use super::cut::{BackendId, Cut, CutOrder};

/// Sweeps within the shortest limit: a connection is closed at most an eighth of it late.
const SWEEPS_PER_LIMIT: u32 = 8;
const SHORTEST_PERIOD: Duration = Duration::from_millis(10);
const LONGEST_PERIOD: Duration = Duration::from_secs(1);

/// A limit that no time reaches: of [`Duration::MAX`], or of more ticks than are counted.
const NEVER: u32 = u32::MAX;

/// The timers of all connections of one worker.
#[derive(Debug)]
pub struct IdleTimeouts {
    timers: RefCell<Slab<TimerEntry>>,
    /// The length of a tick, the time between two sweeps.
    period: Duration,
    started: Instant,
    /// The tick of the last sweep.
    now: Cell<u32>,
    /// When that tick began.
    now_began: Cell<Instant>,
}

/// Times are in ticks.
#[derive(Debug)]
struct TimerEntry {
    last_active: Cell<u32>,
    limit: Cell<u32>,
    /// The backend that the connection uses.
    backend: Option<BackendId>,
    /// No cell: the slab marks a free place by one of its unused values.
    cut: Option<Cut>,
    /// Of the connection's task; `None`: it has not waited yet.
    waker: Option<Waker>,
}

/// One connection's timer; dropping it stops it.
#[derive(Debug)]
pub struct IdleTimer {
    idle_timeouts: Rc<IdleTimeouts>,
    key: usize,
}

impl IdleTimeouts {
    /// With a period fine enough for limits of `shortest_limit` and more.
    pub fn new(shortest_limit: Duration, now: Instant) -> Rc<Self> {
        let period = (shortest_limit / SWEEPS_PER_LIMIT).clamp(SHORTEST_PERIOD, LONGEST_PERIOD);
        let (timers, started, now_began) = (RefCell::default(), now, Cell::new(now));
        Rc::new(Self { timers, period, started, now: Cell::new(0), now_began })
    }

    /// The time between sweeps.
    pub fn period(&self) -> Duration {
        self.period
    }

    /// The timer of a connection that may be idle for `limit`; [`Duration::MAX`]: for ever.
    pub fn start(self: &Rc<Self>, limit: Duration) -> IdleTimer {
        let entry = TimerEntry {
            last_active: self.now.clone(),
            limit: Cell::new(self.ticks(limit)),
            backend: None,
            cut: None,
            waker: None,
        };
        let key = self.timers.borrow_mut().insert(entry);
        IdleTimer { idle_timeouts: self.clone(), key }
    }

    /// Moves the clock to `now` and wakes every connection whose limit has passed.
    pub fn expire(&self, now: Instant) {
        let elapsed = nanos(now.duration_since(self.started)) / nanos(self.period);
        // Wraps round, after 497 days of the shortest ticks: only differences are looked at.
        self.now.set(u32::try_from(elapsed & u64::from(u32::MAX)).expect("32 bits"));
        self.now_began.set(self.started + Duration::from_nanos(elapsed * nanos(self.period)));
        for (_, entry) in self.timers.borrow().iter() {
            if let Some(waker) = &entry.waker
                && entry.is_expired(self.now.get())
            {
                waker.wake_by_ref();
            }
        }
    }

    /// Notes for each connection of the order's backends that it is cut, and gives the wakers of those that wait: to
    /// be woken they are the caller's.
    pub fn cut(&self, order: &CutOrder) -> Vec<Waker> {
        let mut wakers = Vec::new();
        for (_, entry) in self.timers.borrow_mut().iter_mut() {
            if entry.backend.is_some_and(|backend| order.backends.contains(&backend)) {
                entry.cut = Some(order.why);
                wakers.extend(entry.waker.clone());
            }
        }
        wakers
    }

    /// The wakers of all connections that wait, for an event that concerns them all.
    pub fn wakers(&self) -> Vec<Waker> {
        self.timers.borrow().iter().filter_map(|(_, entry)| entry.waker.clone()).collect()
    }

    /// Ticks that must pass until at least `limit` has: one more, as only a part of the current one is left.
    fn ticks(&self, limit: Duration) -> u32 {
        let ticks = nanos(limit).div_ceil(nanos(self.period)) + 1;
        u32::try_from(ticks).unwrap_or(NEVER)
    }
}

/// A u64 is enough for 584 years, and divides several times faster than the u128 that `Duration` gives.
fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

impl TimerEntry {
    fn is_expired(&self, now: u32) -> bool {
        let limit = self.limit.get();
        limit != NEVER && now.wrapping_sub(self.last_active.get()) >= limit
    }
}

impl IdleTimer {
    /// The connection moved a byte.
    pub fn touch(&self) {
        self.idle_timeouts.timers.borrow()[self.key].last_active.set(self.idle_timeouts.now.get());
    }

    /// From now on the connection may be idle for `limit`, counted from its last byte.
    pub fn set_limit(&self, limit: Duration) {
        self.idle_timeouts.timers.borrow()[self.key].limit.set(self.idle_timeouts.ticks(limit));
    }

    /// The same, unless the limit is lower already.
    pub fn lower_limit(&self, limit: Duration) {
        let timers = self.idle_timeouts.timers.borrow();
        let entry = &timers[self.key];
        entry.limit.set(entry.limit.get().min(self.idle_timeouts.ticks(limit)));
    }

    /// The connection uses this backend from now on, or none for now, and nothing of what was ordered for the last one
    /// concerns it. In the step of its task in which the backend was picked: an order to cut its connections may come
    /// after it.
    pub fn use_backend(&self, backend: Option<BackendId>) {
        let mut timers = self.idle_timeouts.timers.borrow_mut();
        let entry = &mut timers[self.key];
        (entry.backend, entry.cut) = (backend, None);
    }

    /// Its place among the worker's timers, which is its own while it exists.
    pub fn key(&self) -> usize {
        self.key
    }

    /// How long the connection has been without a byte, in whole ticks.
    pub fn idle(&self) -> Duration {
        let IdleTimeouts { timers, period, now, .. } = &*self.idle_timeouts;
        *period * now.get().wrapping_sub(timers.borrow()[self.key].last_active.get())
    }

    /// When the tick began in which the connection moved its last byte.
    pub fn last_active(&self) -> Instant {
        self.idle_timeouts.now_began.get() - self.idle()
    }

    /// Why the connection is to end, where its backend's connections were cut.
    pub fn cut(&self) -> Option<Cut> {
        self.idle_timeouts.timers.borrow()[self.key].cut
    }

    /// Whether the limit has passed; else the task of `cx` is woken when it has.
    pub fn poll_expired(&self, cx: &Context<'_>) -> bool {
        let mut timers = self.idle_timeouts.timers.borrow_mut();
        let entry = &mut timers[self.key];
        match &mut entry.waker {
            // Costs nothing where it is the same waker, as it nearly always is.
            Some(waker) => waker.clone_from(cx.waker()),
            waker => *waker = Some(cx.waker().clone()),
        }
        entry.is_expired(self.idle_timeouts.now.get())
    }
}

impl Drop for IdleTimer {
    fn drop(&mut self) {
        self.idle_timeouts.timers.borrow_mut().remove(self.key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timer_expires_after_its_limit_and_never_before() {
        let start = Instant::now();
        let idle_timeouts = IdleTimeouts::new(Duration::from_secs(8), start);
        let idle_timer = idle_timeouts.start(Duration::from_secs(8));
        let cx = Context::from_waker(Waker::noop());
        idle_timeouts.expire(start + Duration::from_millis(8_900));
        assert!(!idle_timer.poll_expired(&cx));
        idle_timeouts.expire(start + Duration::from_secs(9));
        assert!(idle_timer.poll_expired(&cx));
        idle_timer.touch();
        assert!(!idle_timer.poll_expired(&cx));
        assert_eq!(idle_timer.idle(), Duration::ZERO);
        idle_timer.set_limit(Duration::from_secs(1));
        idle_timeouts.expire(start + Duration::from_secs(11));
        assert!(idle_timer.poll_expired(&cx));
        assert_eq!(idle_timer.idle(), Duration::from_secs(2));
        assert_eq!(idle_timer.last_active(), start + Duration::from_secs(9));
    }

    #[test]
    fn a_timer_expires_when_the_clock_of_ticks_has_wrapped_round() {
        let start = Instant::now();
        let idle_timeouts = IdleTimeouts::new(Duration::ZERO, start);
        let wrap = start + idle_timeouts.period() * u32::MAX;
        idle_timeouts.expire(wrap);
        let idle_timer = idle_timeouts.start(Duration::from_secs(1));
        let cx = Context::from_waker(Waker::noop());
        idle_timeouts.expire(wrap + Duration::from_millis(900));
        assert!(!idle_timer.poll_expired(&cx));
        idle_timeouts.expire(wrap + Duration::from_millis(1_100));
        assert!(idle_timer.poll_expired(&cx));
    }

    #[test]
    fn a_timer_without_a_limit_never_expires() {
        let start = Instant::now();
        let idle_timeouts = IdleTimeouts::new(Duration::ZERO, start);
        let idle_timer = idle_timeouts.start(Duration::MAX);
        idle_timeouts.expire(start + idle_timeouts.period() * u32::MAX);
        assert!(!idle_timer.poll_expired(&Context::from_waker(Waker::noop())));
    }

    #[test]
    fn an_order_cuts_the_connections_of_its_backends_and_no_later_ones() {
        let idle_timeouts = IdleTimeouts::new(Duration::from_secs(1), Instant::now());
        let timers = [(); 3].map(|()| idle_timeouts.start(Duration::from_secs(1)));
        let [one, other] = [(); 2].map(|()| BackendId::unique());
        timers[0].use_backend(Some(one));
        timers[1].use_backend(Some(other));
        assert!(!timers[0].poll_expired(&Context::from_waker(Waker::noop())));
        let order = CutOrder { backends: std::sync::Arc::new([one].into()), why: Cut::BackendDown };
        assert_eq!(idle_timeouts.cut(&order).len(), 1, "only one has waited");
        assert_eq!(timers.each_ref().map(IdleTimer::cut), [Some(Cut::BackendDown), None, None]);
        timers[0].use_backend(Some(one));
        assert_eq!(timers[0].cut(), None);
    }

    #[test]
    fn a_connections_place_in_the_list_takes_32_bytes() {
        // As the slab has it: a place is an entry, or the number of the next free one.
        assert_eq!(size_of::<Result<TimerEntry, usize>>(), 32);
    }

    #[test]
    fn a_dropped_timer_takes_no_memory() {
        let idle_timeouts = IdleTimeouts::new(Duration::from_secs(1), Instant::now());
        drop(idle_timeouts.start(Duration::from_secs(1)));
        assert!(idle_timeouts.timers.borrow().is_empty());
    }
}
