//! Evidence: how connections ended, and whether a backend fares so much worse than its peers that chance can't explain
//! it.
//!
//! How a connection ends is up to two parties. A backend that closes on rubbish is well, and one that closes on
//! everybody is not: only its peers, which serve the same clients, tell the two apart. This is outlier detection
//! (Envoy's name for it), with a test of significance in place of fixed rates, so that few connections are enough where
//! the difference is plain and many where it is not. Pure: time is an argument, as ticks of an eighth of the window.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::config::{self, FailureDetection};

/// Parts of a window. It slides by one part at a time, so it covers between 7/8 of its length and all of it.
const SLOTS: usize = 8;
const TICKS_PER_WINDOW: u64 = SLOTS as u64;

/// A backend whose share of bad outcomes is lower than this is left in use, whatever its peers do.
const LEAST_BAD_SHARE: f64 = 0.5;
/// Its share must exceed that of its peers by this much: of thousands of connections, chance explains no difference.
const LEAST_DIFFERENCE: f64 = 0.3;
/// Fewer outcomes of its peers are no measure.
const LEAST_COMPARED: u32 = 4;
/// The probability, at most, that a backend with its peers' share would look as bad as this one. Beside a peer without
/// a bad outcome, 4 of 4 are enough where it has 4 good ones, and 3 of 3 where it has 8. Of a peer that has served so
/// few the share is only a guess, so a pool's first connections may mislead; then its longer record keeps the guess
/// right.
const SIGNIFICANCE: f64 = 2.1e-4;
/// The same for probes of a backend that is out already: keeping it out a while longer costs less than a wrong
/// ejection.
const PROBE_SIGNIFICANCE: f64 = 0.05;
/// Outcomes that a backend's longer record holds at most; it then forgets every second one.
const MOST_REMEMBERED: u32 = 256;

labels! {
    /// How a connection (in http mode a request) ended that may be the backend's fault.
    Evidence {
        /// The backend closed or reset at once, before a byte went either way.
        ImmediateClose = "immediate_close",
        /// The backend closed or reset after the client had sent bytes, and before it sent one.
        EarlyClose = "early_close",
        /// The backend's answer can't be read (http mode).
        InvalidResponse = "invalid_response",
        /// The backend didn't answer, or didn't continue its answer, in time.
        NoAnswer = "no_answer",
        /// The backend's answer ended before it was complete (http mode).
        CutAnswer = "cut_answer",
        /// The backend answered 502, 503 or 504 (http mode).
        Status5xx = "status_5xx",
        /// The client had sent bytes, and the backend was silent until the idle timeout (tcp mode).
        Silence = "silence",
    }
}

impl Evidence {
    /// Whether it counts, by the settings of failure detection.
    pub(super) fn counts(self, detection: &FailureDetection) -> bool {
        match self {
            Self::EarlyClose => detection.count_early_close,
            Self::Status5xx => detection.count_5xx,
            Self::Silence => detection.count_silence,
            Self::ImmediateClose | Self::InvalidResponse | Self::NoAnswer | Self::CutAnswer => true,
        }
    }

    /// For people.
    pub(super) fn describe(self) -> &'static str {
        match self {
            Self::ImmediateClose => "closed at once",
            Self::EarlyClose => "closed without an answer",
            Self::InvalidResponse => "answers that can't be read",
            Self::NoAnswer => "no answer in time",
            Self::CutAnswer => "answers cut short",
            Self::Status5xx => "answers of 502, 503 or 504",
            Self::Silence => "silent until the idle timeout",
        }
    }
}

/// Outcomes of a backend's connections (in http mode requests).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Outcomes {
    /// It answered, or took what it was sent to the end.
    pub good: u32,
    /// It ended in a way that may be its fault.
    pub bad: u32,
}

impl Outcomes {
    /// Both together.
    pub fn total(self) -> u32 {
        self.good + self.bad
    }

    /// Whether the bad ones are enough, and enough of all, to be compared with those of the peers.
    pub(super) fn are_suspicious(self, least_bad: usize) -> bool {
        self.bad as usize >= least_bad && self.bad_share() >= LEAST_BAD_SHARE
    }

    fn bad_share(self) -> f64 {
        if self.total() == 0 { 0.0 } else { f64::from(self.bad) / f64::from(self.total()) }
    }

    /// The share to expect of the next ones: with half an outcome of each kind added (Jeffreys), so that none seen is
    /// not taken for none possible.
    fn expected_bad_share(self) -> f64 {
        (f64::from(self.bad) + 0.5) / (f64::from(self.total()) + 1.0)
    }

    fn with(self, other: Self) -> Self {
        Self { good: self.good.saturating_add(other.good), bad: self.bad.saturating_add(other.bad) }
    }

    /// With one more. Those that would be more than `most` are halved first: their ratio is what counts.
    fn and(self, is_good: bool, most: u32) -> Self {
        let Self { good, bad } =
            if self.total() < most { self } else { Self { good: self.good / 2, bad: self.bad / 2 } };
        if is_good { Self { good: good + 1, bad } } else { Self { good, bad: bad + 1 } }
    }
}

/// How a backend has fared, or several together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TrackRecord {
    /// Within the window.
    pub window: Outcomes,
    /// The last ones, however long ago: what its clients are like when few of them come.
    pub longer: Outcomes,
}

impl TrackRecord {
    fn with(self, other: Self) -> Self {
        Self { window: self.window.with(other.window), longer: self.longer.with(other.longer) }
    }

    fn bad_share(self) -> f64 {
        self.window.bad_share().max(self.longer.bad_share())
    }

    /// The worse of the two: clients that misbehave now count at once, and those that did are not forgotten.
    fn expected_bad_share(self) -> f64 {
        self.window.expected_bad_share().max(self.longer.expected_bad_share())
    }
}

/// The other usable backends of a pool: what a backend is compared with.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Peers {
    number: u32,
    together: TrackRecord,
}

impl Peers {
    /// Adds one. Where nobody has found it well within the window, it may be failing too, and is no measure.
    pub(super) fn and(self, peer: TrackRecord, least_bad: usize) -> Self {
        let is_in_doubt = peer.window.good == 0 && peer.window.bad as usize >= least_bad;
        let together = if is_in_doubt { self.together } else { self.together.with(peer) };
        Self { number: self.number + 1, together }
    }

    /// Those that are a measure, together.
    pub(super) fn together(self) -> TrackRecord {
        self.together
    }
}

/// Counts outcomes in a sliding window and in a longer record, from any thread, without a lock. A slot holds the tick
/// that it counts (24 bits), bad outcomes and good ones (20 bits each).
#[derive(Debug, Default)]
pub(super) struct OutcomeCounts {
    slots: [AtomicU64; SLOTS],
    /// A slot of no tick.
    longer: AtomicU64,
}

const COUNT_BITS: u32 = 20;
const MOST_IN_SLOT: u32 = (1 << COUNT_BITS) - 1;
const COUNT_MASK: u64 = MOST_IN_SLOT as u64;
const TICK_MASK: u64 = (1 << 24) - 1;

#[derive(Clone, Copy)]
struct Slot {
    tick: u64,
    outcomes: Outcomes,
}

impl Slot {
    fn unpack(packed: u64) -> Self {
        let count = |shift: u32| u32::try_from(packed >> shift & COUNT_MASK).expect("20 bits");
        Self { tick: packed >> (2 * COUNT_BITS), outcomes: Outcomes { bad: count(COUNT_BITS), good: count(0) } }
    }

    fn pack(self) -> u64 {
        self.tick << (2 * COUNT_BITS) | u64::from(self.outcomes.bad) << COUNT_BITS | u64::from(self.outcomes.good)
    }

    /// The slot after one more outcome at `tick`, of `most` that it can hold.
    fn and(self, tick: u64, is_good: bool, most: u32) -> Self {
        let outcomes = if self.tick == tick { self.outcomes } else { Outcomes::default() };
        Self { tick, outcomes: outcomes.and(is_good, most) }
    }
}

impl OutcomeCounts {
    /// Counts one outcome at `tick`.
    pub(super) fn record(&self, tick: u64, is_good: bool) {
        let add = |slot: &AtomicU64, tick, most| {
            let add = |packed| Some(Slot::unpack(packed).and(tick, is_good, most).pack());
            // It always stores: an error can't come back.
            let _ = slot.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add);
        };
        add(&self.slots[slot_of(tick)], tick & TICK_MASK, MOST_IN_SLOT);
        add(&self.longer, 0, MOST_REMEMBERED);
    }

    /// The outcomes of the window that ends with `tick`.
    pub(super) fn window(&self, tick: u64) -> Outcomes {
        self.slots
            .iter()
            .map(|slot| Slot::unpack(slot.load(Ordering::Relaxed)))
            .filter(|slot| tick.wrapping_sub(slot.tick) & TICK_MASK < TICKS_PER_WINDOW)
            .fold(Outcomes::default(), |sum, slot| sum.with(slot.outcomes))
    }

    /// The window that ends with `tick`, and the longer record.
    pub(super) fn track_record(&self, tick: u64) -> TrackRecord {
        TrackRecord { window: self.window(tick), longer: self.longer() }
    }

    /// The longer record.
    pub(super) fn longer(&self) -> Outcomes {
        Slot::unpack(self.longer.load(Ordering::Relaxed)).outcomes
    }

    /// Begins with a longer record.
    pub(super) fn set_longer(&self, outcomes: Outcomes) {
        let Outcomes { good, bad } = outcomes;
        let outcomes = Outcomes { good: good.min(MOST_REMEMBERED), bad: bad.min(MOST_REMEMBERED) };
        self.longer.store(Slot { tick: 0, outcomes }.pack(), Ordering::Relaxed);
    }

    /// Forgets everything.
    pub(super) fn clear(&self) {
        self.slots.iter().chain([&self.longer]).for_each(|slot| slot.store(0, Ordering::Relaxed));
    }
}

fn slot_of(tick: u64) -> usize {
    usize::try_from(tick % TICKS_PER_WINDOW).expect("a few slots")
}

/// The length of the detection's window; 0: failure detection is off.
pub(super) fn window_millis(settings: &config::PoolConfig) -> u64 {
    let millis = |window: Duration| u64::try_from(window.as_millis()).unwrap_or(u64::MAX).max(1);
    settings.failure_detection.as_ref().map_or(0, |detection| millis(detection.window))
}

/// Spreads client addresses over the bits in which they are counted.
pub(super) fn hash_of(client: Option<IpAddr>) -> u64 {
    let mut hasher = DefaultHasher::new();
    client.hash(&mut hasher);
    hasher.finish()
}

/// The tick of a point in time, in milliseconds on the pool's clock, for a window of so many milliseconds.
pub(super) fn tick_of(millis: u64, window_millis: u64) -> u64 {
    // One whole window after 0, so that an empty slot is never within it.
    millis / (window_millis / TICKS_PER_WINDOW).max(1) + TICKS_PER_WINDOW
}

/// How many different clients were involved in bad outcomes within the window: at least so many as it says, for two may
/// share one of the 64 bits of a slot.
#[derive(Debug, Default)]
pub(super) struct ClientsSeen([(u64, u64); SLOTS]);

impl ClientsSeen {
    /// Notes the client whose address has this hash.
    pub(super) fn note(&mut self, tick: u64, hash: u64) {
        let (of_tick, bits) = &mut self.0[slot_of(tick)];
        if *of_tick != tick {
            (*of_tick, *bits) = (tick, 0);
        }
        *bits |= 1 << (hash % 64);
    }

    /// Clients of the window that ends with `tick`.
    pub(super) fn count(&self, tick: u64) -> u32 {
        let within = self.0.iter().filter(|(of_tick, _)| tick.wrapping_sub(*of_tick) < TICKS_PER_WINDOW);
        within.fold(0, |all, (_, bits)| all | bits).count_ones()
    }
}

/// Compares a backend's outcomes with its peers', and gives theirs if it stands out by its bad ones, of which it must
/// have `least_bad`.
///
/// The probability that it looks as bad by chance is bounded by Chernoff's inequality, exp(-n KL(share || peers'
/// share)) (Hoeffding, "Probability Inequalities for Sums of Bounded Random Variables", 1963, theorem 1). Each peer is
/// one more backend that might have stood out by chance, so the significance is divided among them (Bonferroni).
pub(super) fn stands_out(own: Outcomes, peers: Peers, least_bad: usize) -> Option<Outcomes> {
    let Peers { number, together } = peers;
    if !own.are_suspicious(least_bad) || together.window.total() < LEAST_COMPARED {
        return None;
    }
    let (share, expected) = (own.bad_share(), together.expected_bad_share());
    let is_plain = share - together.bad_share() >= LEAST_DIFFERENCE && share > expected;
    let by_chance = (-f64::from(own.total()) * divergence(share, expected)).exp();
    (is_plain && by_chance <= SIGNIFICANCE / f64::from(number)).then_some(together.window)
}

/// The Kullback-Leibler divergence of two coins, in nats; 0 < q < 1.
fn divergence(p: f64, q: f64) -> f64 {
    let term = |a: f64, b: f64| if a == 0.0 { 0.0 } else { a * (a / b).ln() };
    term(p, q) + term(1.0 - p, 1.0 - q)
}

/// Whether so many bad probes in a row are more than the clients of this pool cause anyway: where one in two
/// connections to healthy peers ends badly, one bad probe shows nothing. Without a peer to compare with, the probe
/// alone decides.
pub(super) fn probes_have_failed(bad_in_a_row: u32, peers: TrackRecord) -> bool {
    peers.window.total() == 0
        || peers.expected_bad_share().powi(i32::try_from(bad_in_a_row).unwrap_or(i32::MAX)) <= PROBE_SIGNIFICANCE
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcomes(bad: u32, good: u32) -> Outcomes {
        Outcomes { good, bad }
    }

    fn now(window: Outcomes) -> TrackRecord {
        TrackRecord { window, longer: window }
    }

    fn peers(all: &[TrackRecord]) -> Peers {
        all.iter().fold(Peers::default(), |peers, peer| peers.and(*peer, 3))
    }

    #[test]
    fn a_window_forgets_what_is_older_than_itself() {
        let counts = OutcomeCounts::default();
        for tick in 100..104 {
            counts.record(tick, tick % 2 == 0);
        }
        assert_eq!(counts.window(103), outcomes(2, 2));
        assert_eq!(counts.window(107), outcomes(2, 2), "the first is within it still");
        assert_eq!(counts.window(108), outcomes(2, 1));
        assert_eq!(counts.window(111), outcomes(0, 0));
        counts.record(108, true);
        assert_eq!(counts.window(108), outcomes(2, 2), "the slot of tick 100 was reused");
    }

    #[test]
    fn the_longer_record_keeps_the_ratio_and_follows_what_is_newer() {
        let counts = OutcomeCounts::default();
        let longer = || counts.track_record(0).longer;
        (0..100_000).for_each(|number| counts.record(number, number % 4 > 0));
        assert!((0.2..0.3).contains(&longer().bad_share()), "{:?}", longer());
        assert!((128..=256).contains(&longer().total()), "{:?}", longer());
        (0..1_000).for_each(|number| counts.record(number, true));
        assert!(longer().bad_share() < 0.01, "{:?}", longer());
        counts.clear();
        assert_eq!(longer(), Outcomes::default());
    }

    #[test]
    fn a_full_count_keeps_the_ratio() {
        let half = Slot { tick: 9, outcomes: outcomes((1 << 20) - 1, 1 << 19) }.and(9, false, MOST_IN_SLOT);
        assert_eq!(half.outcomes, outcomes(1 << 19, 1 << 18));
        assert_eq!(Slot::unpack(half.pack()).outcomes, half.outcomes);
    }

    #[test]
    fn few_are_enough_where_the_difference_is_plain() {
        for (own, peer) in [(outcomes(4, 0), outcomes(0, 4)), (outcomes(3, 0), outcomes(0, 8))] {
            assert_eq!(stands_out(own, peers(&[now(peer)]), 3), Some(peer), "{own:?} beside {peer:?}");
        }
        for (own, peer) in [(outcomes(3, 0), outcomes(0, 4)), (outcomes(9, 0), outcomes(0, 3))] {
            assert_eq!(stands_out(own, peers(&[now(peer)]), 3), None, "{own:?} beside {peer:?}");
        }
    }

    #[test]
    fn clients_that_misbehaved_before_are_remembered_where_few_come() {
        let now = outcomes(0, 8);
        let peer = |longer| peers(&[TrackRecord { window: now, longer }]);
        assert_eq!(stands_out(outcomes(6, 0), peer(outcomes(0, 200)), 3), Some(now));
        assert_eq!(stands_out(outcomes(6, 0), peer(outcomes(100, 100)), 3), None);
        assert_eq!(stands_out(outcomes(20, 0), peer(outcomes(100, 100)), 3), Some(now));
    }

    #[test]
    fn nothing_stands_out_without_a_peer_or_beside_one_as_bad() {
        for peer in [outcomes(0, 0), outcomes(80, 20), outcomes(100, 0)] {
            assert_eq!(stands_out(outcomes(100, 0), peers(&[now(peer)]), 3), None, "{peer:?}");
        }
        assert_eq!(stands_out(outcomes(100, 0), peers(&[]), 3), None);
        let well = peers(&[now(outcomes(0, 100))]);
        assert_eq!(stands_out(outcomes(30, 70), well, 3), None, "most connections end well");
    }

    #[test]
    fn clients_are_counted_once_and_forgotten_with_the_window() {
        let mut clients = ClientsSeen::default();
        for (tick, hash) in [(10, 1), (10, 1), (11, 1), (12, 2), (13, 67)] {
            clients.note(tick, hash);
        }
        assert_eq!(clients.count(13), 3);
        assert_eq!(clients.count(19), 2, "that of tick 11 and before is forgotten");
        assert_eq!(clients.count(100), 0);
    }

    #[test]
    fn peers_that_fail_too_hide_nothing() {
        let (good, bad) = (outcomes(0, 20), outcomes(20, 0));
        assert_eq!(stands_out(bad, peers(&[now(bad), now(good), now(bad)]), 3), Some(good));
    }
}
