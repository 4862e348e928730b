//! The order of turns: each backend as often as its weight, well spread over a round.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;

/// Turns of a round at most, however uneven the weights of a pool of up to 1,024 backends are: 128 KiB, built in some
/// milliseconds.
const MOST_TURNS: u64 = 32_768;
/// Larger pools may have this many for each backend.
const MOST_TURNS_A_BACKEND: u64 = 32;

/// The number of turns that each weight gets in a round: the weights divided by their greatest common divisor, and
/// exact, where that gives no more than [`MOST_TURNS`]. A slow start multiplies weights by 8 and takes the divisor
/// away, and weights of 1 to 256 have none to begin with: longer rounds are shortened to about that many turns.
///
/// Then each number is rounded, and at least 1 for a weight above 0: less than one turn off its due. A backend of mean
/// weight or more is within 5 % of its share.
pub(super) fn turns_of(weights: &[u32]) -> Vec<u32> {
    let divisor = weights.iter().fold(0, |divisor, weight| greatest_common_divisor(divisor, *weight)).max(1);
    let sum: u64 = weights.iter().map(|weight| u64::from(weight / divisor)).sum();
    let most = MOST_TURNS.max(MOST_TURNS_A_BACKEND * weights.len() as u64);
    if sum <= most {
        return weights.iter().map(|weight| weight / divisor).collect();
    }
    let shortened = |weight: u32| {
        let rounded = (u64::from(weight / divisor) * most + sum / 2) / sum;
        u32::try_from(rounded).expect("no more than the weight").max(u32::from(weight > 0))
    };
    weights.iter().map(|weight| shortened(*weight)).collect()
}

/// One round: each index as often as it has turns, well spread. Empty where all have the same number: the order is then
/// that of the indices.
///
/// After any number of turns each has had its due, less or more than one turn, however many and uneven the numbers are:
/// Tijdeman, "The chairman assignment problem", Discrete Mathematics 32 (1980). 5/1/1 gives a a b a c a a, as nginx's
/// smooth weighted round robin does, which can be more than a turn off.
///
/// The theorem makes it a scheduling problem: turn number k of a backend may be taken from one place of the round on
/// and must be taken up to another, both known beforehand; and taking at each place the turn with the earliest
/// deadline, of those that may be taken, meets all of them.
pub(super) fn order_of(turns: &[u32]) -> Vec<u32> {
    if turns.windows(2).all(|pair| pair[0] == pair[1]) {
        return Vec::new();
    }
    let places = turns.iter().map(|turns| u64::from(*turns)).sum();
    // In parts of a turn: how far ahead of its due a turn may be taken, and how far behind.
    let parts = 2 * turns.len() as u64 - 2;
    // By the place where they may begin. Only the next turn of each backend is in one of the heaps.
    let mut waiting: BinaryHeap<Reverse<(u64, Turn)>> = (0u32..)
        .zip(turns)
        .filter(|(_, turns)| **turns > 0)
        .map(|(index, turns)| Turn { index, turns: u64::from(*turns), number: 0, parts })
        .map(|turn| Reverse((turn.may_begin_at(places), turn)))
        .collect();
    // By their deadline.
    let mut ready: BinaryHeap<Reverse<Turn>> = BinaryHeap::new();
    let next = |place| {
        while let Some(Reverse((_, turn))) = waiting.peek().filter(|next| next.0.0 <= place).copied() {
            waiting.pop();
            ready.push(Reverse(turn));
        }
        let Reverse(turn) = ready.pop().expect("Tijdeman's theorem: a turn is due at every place");
        let following = Turn { number: turn.number + 1, ..turn };
        if following.number < following.turns {
            waiting.push(Reverse((following.may_begin_at(places), following)));
        }
        turn.index
    };
    (1..=places).map(next).collect()
}

/// One turn of a backend, ordered by when it must be taken at the latest.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Turn {
    index: u32,
    /// Of its backend in a round.
    turns: u64,
    /// Which of them it is, from 0.
    number: u64,
    parts: u64,
}

impl Turn {
    /// The first place, from 1, at which its due has grown enough.
    fn may_begin_at(&self, places: u64) -> u64 {
        (places * (1 + self.parts * self.number)).div_ceil(self.parts * self.turns)
    }

    /// Its latest place in parts of a round, times its backend's turns.
    fn deadline(&self) -> u64 {
        self.parts - 1 + self.parts * self.number
    }
}

impl Ord for Turn {
    fn cmp(&self, other: &Self) -> Ordering {
        // Fractions compared without dividing them. Among equals one of few turns goes first, and then the order of the
        // indices decides: the same round on every replica.
        let by_deadline = (self.deadline() * other.turns).cmp(&(other.deadline() * self.turns));
        by_deadline.then(self.turns.cmp(&other.turns)).then(self.index.cmp(&other.index))
    }
}

impl PartialOrd for Turn {
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
