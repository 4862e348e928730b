//! The order of turns: each backend as often as its weight, well spread over a round.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;

/// One round: each index as often as its weight divided by the weights' greatest common divisor. Empty where all
/// weights are equal: the order is then that of the indices.
///
/// After any number of turns each has had its due, less or more than one turn, however many and uneven the weights are:
/// Tijdeman, "The chairman assignment problem", Discrete Mathematics 32 (1980). 5/1/1 gives a a b a c a a, as nginx's
/// smooth weighted round robin does, which can be more than a turn off.
pub(super) fn order_of(weights: &[u32]) -> Vec<u32> {
    if weights.windows(2).all(|pair| pair[0] == pair[1]) {
        return Vec::new();
    }
    let divisor = weights.iter().fold(0, |divisor, weight| greatest_common_divisor(divisor, *weight)).max(1);
    let shares = weights.iter().map(|weight| u64::from(weight / divisor));
    let places = shares.clone().sum();
    // In parts of a turn: how far ahead of its due a turn may be taken, and how far behind.
    let parts = 2 * weights.len() as u64 - 2;
    let mut waiting: BinaryHeap<Reverse<(u64, Turn)>> = (0u32..)
        .zip(shares)
        .filter(|(_, weight)| *weight > 0)
        .map(|(index, weight)| Turn { index, weight, number: 0, parts })
        .map(|turn| Reverse((turn.may_begin_at(places), turn)))
        .collect();
    let mut ready: BinaryHeap<Reverse<Turn>> = BinaryHeap::new();
    let next = |place| {
        while let Some(Reverse((_, turn))) = waiting.peek().filter(|next| next.0.0 <= place).copied() {
            waiting.pop();
            ready.push(Reverse(turn));
        }
        let Reverse(turn) = ready.pop().expect("Tijdeman's theorem: a turn is due at every place");
        let following = Turn { number: turn.number + 1, ..turn };
        if following.number < following.weight {
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
    weight: u64,
    /// From 0.
    number: u64,
    parts: u64,
}

impl Turn {
    /// The first place, from 1, at which its due has grown enough.
    fn may_begin_at(&self, places: u64) -> u64 {
        (places * (1 + self.parts * self.number)).div_ceil(self.parts * self.weight)
    }

    /// Its latest place in parts of a round, times its weight.
    fn deadline(&self) -> u64 {
        self.parts - 1 + self.parts * self.number
    }
}

impl Ord for Turn {
    fn cmp(&self, other: &Self) -> Ordering {
        let by_deadline = (self.deadline() * other.weight).cmp(&(other.deadline() * self.weight));
        by_deadline.then(self.weight.cmp(&other.weight)).then(self.index.cmp(&other.index))
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
        assert_eq!(order_of(&[40, 8, 8]), [0, 0, 1, 0, 2, 0, 0], "only the ratio matters");
        assert_eq!(order_of(&[2, 3]), [1, 0, 1, 0, 1]);
        assert!(order_of(&[7, 7, 7]).is_empty());
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
