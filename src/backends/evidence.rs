//! Evidence: how connections ended, and whether a backend fares so much worse than its peers that chance can't explain
//! it.
//!
//! How a connection ends is up to two parties. A backend that closes on rubbish is well, and one that closes on
//! everybody is not: only its peers, which serve the same clients, tell the two apart. This is outlier detection
//! (Envoy's name for it), with a test of significance in place of fixed rates, so that few connections are enough where
//! the difference is plain and many where it is not. Pure: time is an argument, as ticks of an eighth of the window.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::config::FailureDetection;

/// Parts of a window. It slides by one part at a time, so it covers between 7/8 of its length and all of it.
const SLOTS: usize = 8;
const TICKS_PER_WINDOW: u64 = SLOTS as u64;

/// A backend whose share of bad outcomes is lower than this is left in use, whatever its peers do.
const LEAST_BAD_SHARE: f64 = 0.5;
/// Its share must exceed that of its peers by this much: of thousands of connections, chance explains no difference.
const LEAST_DIFFERENCE: f64 = 0.3;
/// Fewer outcomes of its peers are no measure.
const LEAST_COMPARED: u32 = 4;
/// The probability, at most, that a backend like its peers would look as bad as this one. Beside a peer without a bad
/// outcome, 4 of 4 are enough where it has 4 good ones, and 3 of 3 where it has 8.
const SIGNIFICANCE: f64 = 2.1e-4;
/// The same for probes of a backend that is out already: keeping it out a while longer costs less than a wrong
/// ejection.
const PROBE_SIGNIFICANCE: f64 = 0.05;

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

/// Outcomes of a backend's connections (in http mode requests) within a window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
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

    fn bad_share(self) -> f64 {
        if self.total() == 0 { 0.0 } else { f64::from(self.bad) / f64::from(self.total()) }
    }

    /// The share to expect of the next ones: with half an outcome of each kind added (Jeffreys), so that none seen is
    /// not taken for none possible.
    fn expected_bad_share(self) -> f64 {
        (f64::from(self.bad) + 0.5) / (f64::from(self.total()) + 1.0)
    }

    fn with(self, other: Self) -> Self {
        Self { good: self.good + other.good, bad: self.bad + other.bad }
    }
}

/// Counts outcomes in a sliding window, from any thread, without a lock. A slot holds the tick that it counts (24
/// bits), bad outcomes and good ones (20 bits each).
#[derive(Debug, Default)]
pub(super) struct OutcomeWindow([AtomicU64; SLOTS]);

const COUNT_BITS: u32 = 20;
const COUNT_MASK: u64 = (1 << COUNT_BITS) - 1;
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

    /// The slot after one more outcome at `tick`. Where a count is full, both are halved: their ratio is what counts.
    fn add(self, tick: u64, is_good: bool) -> Self {
        let mut outcomes = if self.tick == tick { self.outcomes } else { Outcomes::default() };
        if u64::from(outcomes.good.max(outcomes.bad)) == COUNT_MASK {
            outcomes = Outcomes { good: outcomes.good / 2, bad: outcomes.bad / 2 };
        }
        if is_good {
            outcomes.good += 1;
        } else {
            outcomes.bad += 1;
        }
        Self { tick, outcomes }
    }
}

impl OutcomeWindow {
    /// Counts one outcome at `tick`.
    pub(super) fn record(&self, tick: u64, is_good: bool) {
        let slot = &self.0[slot_of(tick)];
        let add = |packed| Some(Slot::unpack(packed).add(tick & TICK_MASK, is_good).pack());
        // It always stores: an error can't come back.
        let _ = slot.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add);
    }

    /// The outcomes of the window that ends with `tick`.
    pub(super) fn sum(&self, tick: u64) -> Outcomes {
        self.0
            .iter()
            .map(|slot| Slot::unpack(slot.load(Ordering::Relaxed)))
            .filter(|slot| tick.wrapping_sub(slot.tick) & TICK_MASK < TICKS_PER_WINDOW)
            .fold(Outcomes::default(), |sum, slot| sum.with(slot.outcomes))
    }

    /// Forgets everything.
    pub(super) fn clear(&self) {
        self.0.iter().for_each(|slot| slot.store(0, Ordering::Relaxed));
    }
}

fn slot_of(tick: u64) -> usize {
    usize::try_from(tick % TICKS_PER_WINDOW).expect("a few slots")
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

/// Compares a backend with its peers, of which the half with fewer bad outcomes is the measure: others may be failing
/// too. Gives that half's outcomes if the backend stands out by its bad ones, of which it must have `least_bad`.
///
/// The probability that it looks as bad by chance is bounded by Chernoff's inequality, exp(-n KL(share || peers'
/// share)) (Hoeffding, "Probability Inequalities for Sums of Bounded Random Variables", 1963, theorem 1). Each peer is
/// one more backend that might have stood out by chance, so the significance is divided among them (Bonferroni).
pub(super) fn stands_out(own: Outcomes, peers: Vec<Outcomes>, least_bad: usize) -> Option<Outcomes> {
    let share = own.bad_share();
    if (own.bad as usize) < least_bad || share < LEAST_BAD_SHARE {
        return None;
    }
    let compared = f64::from(u32::try_from(peers.len()).unwrap_or(u32::MAX)).max(1.0);
    let peers = better_half(peers);
    if peers.total() < LEAST_COMPARED {
        return None;
    }
    let expected = peers.expected_bad_share();
    let is_plain = share - peers.bad_share() >= LEAST_DIFFERENCE && share > expected;
    let by_chance = (-f64::from(own.total()) * divergence(share, expected)).exp();
    (is_plain && by_chance <= SIGNIFICANCE / compared).then_some(peers)
}

/// Those of the better half of the peers, by the share of bad outcomes to expect of them, that served anybody. One that
/// served a few and none of them badly is not better than one that served many so: it would be no measure.
pub(super) fn better_half(mut peers: Vec<Outcomes>) -> Outcomes {
    peers.retain(|peer| peer.total() > 0);
    // Of equals the one that served more, so that the order of the configuration decides nothing.
    peers.sort_by(|a, b| a.expected_bad_share().total_cmp(&b.expected_bad_share()).then(b.total().cmp(&a.total())));
    let half = peers.len().div_ceil(2);
    peers.into_iter().take(half).fold(Outcomes::default(), Outcomes::with)
}

/// The Kullback-Leibler divergence of two coins, in nats; 0 < q < 1.
fn divergence(p: f64, q: f64) -> f64 {
    let term = |a: f64, b: f64| if a == 0.0 { 0.0 } else { a * (a / b).ln() };
    term(p, q) + term(1.0 - p, 1.0 - q)
}

/// Whether so many bad probes in a row are more than the clients of this pool cause anyway: where one in two
/// connections to healthy peers ends badly, one bad probe shows nothing. Without a peer to compare with, the probe
/// alone decides.
pub(super) fn probes_have_failed(bad_in_a_row: u32, peers: Outcomes) -> bool {
    peers.total() == 0
        || peers.expected_bad_share().powi(i32::try_from(bad_in_a_row).unwrap_or(i32::MAX)) <= PROBE_SIGNIFICANCE
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcomes(bad: u32, good: u32) -> Outcomes {
        Outcomes { good, bad }
    }

    #[test]
    fn a_window_forgets_what_is_older_than_itself() {
        let window = OutcomeWindow::default();
        for tick in 100..104 {
            window.record(tick, tick % 2 == 0);
        }
        assert_eq!(window.sum(103), outcomes(2, 2));
        assert_eq!(window.sum(107), outcomes(2, 2), "the first is within it still");
        assert_eq!(window.sum(108), outcomes(2, 1));
        assert_eq!(window.sum(111), outcomes(0, 0));
        window.record(108, true);
        assert_eq!(window.sum(108), outcomes(2, 2), "the slot of tick 100 was reused");
    }

    #[test]
    fn a_full_count_keeps_the_ratio() {
        let half = Slot { tick: 9, outcomes: outcomes((1 << 20) - 1, 1 << 19) }.add(9, false);
        assert_eq!(half.outcomes, outcomes(1 << 19, 1 << 18));
        assert_eq!(Slot::unpack(half.pack()).outcomes, half.outcomes);
    }

    #[test]
    fn few_are_enough_where_the_difference_is_plain() {
        for (own, peer) in [(outcomes(4, 0), outcomes(0, 4)), (outcomes(3, 0), outcomes(0, 8))] {
            assert_eq!(stands_out(own, vec![peer], 3), Some(peer), "{own:?} beside {peer:?}");
        }
        for (own, peer) in [(outcomes(3, 0), outcomes(0, 4)), (outcomes(9, 0), outcomes(0, 3))] {
            assert_eq!(stands_out(own, vec![peer], 3), None, "{own:?} beside {peer:?}");
        }
    }

    #[test]
    fn a_peer_that_hardly_served_anybody_hides_nothing() {
        let (light, heavy) = (outcomes(0, 1), outcomes(1, 200));
        for peers in [vec![light, heavy], vec![heavy, light]] {
            assert_eq!(stands_out(outcomes(9, 0), peers, 3), Some(heavy));
        }
    }

    #[test]
    fn nothing_stands_out_without_a_peer_or_beside_one_as_bad() {
        assert_eq!(stands_out(outcomes(100, 0), Vec::new(), 3), None);
        assert_eq!(stands_out(outcomes(100, 0), vec![outcomes(0, 0)], 3), None, "one that served nobody is no measure");
        assert_eq!(stands_out(outcomes(100, 0), vec![outcomes(80, 20)], 3), None);
        assert_eq!(stands_out(outcomes(30, 70), vec![outcomes(0, 100)], 3), None, "most connections end well");
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
    fn other_bad_peers_hide_nothing() {
        let good = outcomes(0, 20);
        assert_eq!(stands_out(outcomes(20, 0), vec![good, outcomes(20, 0)], 3), Some(good));
        let half = outcomes(20, 20);
        assert_eq!(stands_out(outcomes(20, 0), vec![outcomes(20, 0), outcomes(20, 0), good], 3), Some(half));
    }
}
