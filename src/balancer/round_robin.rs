//! The order of turns in a round: each backend as often as its weight demands, evenly spread.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;

/// The most turns of a round for pools of up to 1,024 backends, however uneven their weights: 128 KiB, built in a few
/// milliseconds.
const MOST_TURNS: u64 = 32_768;
/// Larger pools may have this many for each backend.
const MOST_TURNS_A_BACKEND: u64 = 32;

/// The number of turns that each weight gets in a round.
///
/// They are exact, the weights divided by their greatest common divisor, if that makes no more than [`MOST_TURNS`].
/// Weights of 1 to 256 often have no common divisor, and a slow start, which counts weights in eighths, leaves none: a
/// longer round is then shortened to about [`MOST_TURNS`]. For that each number is rounded, but to at least 1 for a
/// weight above 0: it is less than one turn off its due, and a backend of mean weight or more within 5 % of its share.
pub(super) fn turns_of(weights: &[u32]) -> Vec<u32> {
    // At least 1, also where all weights are 0.
    let divisor = weights.iter().fold(0, |divisor, weight| greatest_common_divisor(divisor, *weight)).max(1);
    let sum: u64 = weights.iter().map(|weight| u64::from(weight / divisor)).sum();
    let most = MOST_TURNS.max(MOST_TURNS_A_BACKEND * weights.len() as u64);
    if sum <= most {
        return weights.iter().map(|weight| weight / divisor).collect();
    }
    let shorten = |weight: &u32| {
        let rounded = (u64::from(weight / divisor) * most + sum / 2) / sum;
        u32::try_from(rounded).expect("no more than the weight").max(u32::from(*weight > 0))
    };
    weights.iter().map(shorten).collect()
}

/// One round: the index of each backend as often as it has turns, evenly spread. Empty if all have the same number of
/// turns: the order is then that of the indices.
///
/// After any number of places each backend has had its due but for less than one turn, however many and uneven the
/// numbers are: Tijdeman, "The chairman assignment problem", Discrete Mathematics 32 (1980). 5/1/1 gives a a b a c a a.
/// nginx's smooth weighted round robin gives the same there, but can be more than a turn off elsewhere.
///
/// The theorem makes it a scheduling problem. A backend's due grows by turns / places with each place. Turn number k of
/// it may be taken from the place on where its due exceeds the k turns before by 1 / (2n - 2) of a turn, and must be
/// taken before its due exceeds them by a whole turn less that much. Taking at each place the released turn with the
/// earliest deadline meets all deadlines.
pub(super) fn order_of(turns: &[u32]) -> Vec<u32> {
    if turns.windows(2).all(|pair| pair[0] == pair[1]) {
        return Vec::new();
    }
    let places = turns.iter().map(|turns| u64::from(*turns)).sum();
    let parts = 2 * turns.len() as u64 - 2;
    // Each backend's next turn is in one of the heaps: here until it may be taken, by the place where that is.
    let mut waiting: BinaryHeap<Reverse<(u64, ScheduledTurn)>> = (0u32..)
        .zip(turns)
        .filter(|(_, turns)| **turns > 0)
        .map(|(index, turns)| ScheduledTurn { index, turns: u64::from(*turns), number: 0, parts })
        .map(|turn| Reverse((turn.release(places), turn)))
        .collect();
    // Then here, by its deadline.
    let mut ready: BinaryHeap<Reverse<ScheduledTurn>> = BinaryHeap::new();
    let mut order = Vec::new();
    for place in 1..=places {
        while let Some(Reverse((release, turn))) = waiting.peek().copied()
            && release <= place
        {
            waiting.pop();
            ready.push(Reverse(turn));
        }
        let Reverse(turn) = ready.pop().expect("Tijdeman's theorem: a turn is due at every place");
        order.push(turn.index);
        let following = ScheduledTurn { number: turn.number + 1, ..turn };
        if following.number < following.turns {
            waiting.push(Reverse((following.release(places), following)));
        }
    }
    order
}

/// One turn of a backend; the earliest deadline is the smallest.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct ScheduledTurn {
    index: u32,
    /// Of its backend in a round.
    turns: u64,
    /// Which of them it is, from 0.
    number: u64,
    /// Into which the theorem's bounds divide a turn: 2n - 2 for n backends.
    parts: u64,
}

impl ScheduledTurn {
    /// The first place, from 1, at which it may be taken: where its backend's due is `number` turns and one part.
    fn release(&self, places: u64) -> u64 {
        (places * (1 + self.parts * self.number)).div_ceil(self.parts * self.turns)
    }

    /// The due, in parts, beyond which it must have been taken: `number` turns and all parts but one of the next. It is
    /// reached at the place `deadline * places / (parts * turns)`.
    fn deadline(&self) -> u64 {
        self.parts - 1 + self.parts * self.number
    }
}

impl Ord for ScheduledTurn {
    fn cmp(&self, other: &Self) -> Ordering {
        // Compares the places of the deadlines, of which only `deadline / turns` differs, without a division. Among
        // equals a backend of few turns goes first, then the lower index: every replica has the same round.
        let by_deadline = (self.deadline() * other.turns).cmp(&(other.deadline() * self.turns));
        by_deadline.then(self.turns.cmp(&other.turns)).then(self.index.cmp(&other.index))
    }
}

impl PartialOrd for ScheduledTurn {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

fn greatest_common_divisor(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { greatest_common_divisor(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_interleave_smoothly() {
        assert_eq!(order_of(&[5, 1, 1]), [0, 0, 1, 0, 2, 0, 0]);
        assert_eq!(turns_of(&[40, 8, 8]), [5, 1, 1], "only the ratio matters");
        assert_eq!(order_of(&[2, 3]), [1, 0, 1, 0, 1]);
        assert!(order_of(&[7, 7, 7]).is_empty());
    }

    #[test]
    fn a_slow_start_does_not_lengthen_the_round_of_a_thousand() {
        let mut weights: Vec<u32> = (0..1000u32).map(|index| 8 * (index * 7919 % 256 + 1)).collect();
        weights[0] /= 8;
        let sum: u32 = weights.iter().sum();
        let turns = turns_of(&weights);
        let length: u32 = turns.iter().sum();
        assert!(sum > 1_000_000 && length.abs_diff(32_768) < 500, "{length} turns");
        assert_eq!(order_of(&turns).len(), length as usize);
    }

    #[test]
    fn a_heavy_backend_among_a_thousand_light_ones_never_waits_long() {
        let weights: Vec<u32> = std::iter::once(255).chain(std::iter::repeat_n(16, 999)).collect();
        let order = order_of(&weights);
        assert_eq!(order.len(), 255 + 16 * 999);
        let turns: Vec<usize> = (0..order.len()).filter(|place| order[*place] == 0).collect();
        let gaps = turns.windows(2).map(|pair| pair[1] - pair[0]);
        assert!(gaps.clone().max() < Some(130), "its due is every 63.7 places: {:?}", gaps.max());
        assert!(turns.windows(2).all(|pair| pair[1] - pair[0] > 1), "never two in a row");
    }
}
