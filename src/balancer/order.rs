//! The order of turns: each backend as often as its weight, well spread over a round.

/// Above this many steps (places times backends) the exact algorithm gives way to one that costs a logarithm a place.
const MOST_EXACT_STEPS: usize = 4_000_000;

/// One round: each index as often as its weight divided by the weights' greatest common divisor. Empty where all
/// weights are equal: the order is then that of the indices.
pub(super) fn order_of(weights: &[u32]) -> Vec<u32> {
    if weights.windows(2).all(|pair| pair[0] == pair[1]) {
        return Vec::new();
    }
    let divisor = weights.iter().fold(0, |divisor, weight| greatest_common_divisor(divisor, *weight)).max(1);
    let weights: Vec<i64> = weights.iter().map(|weight| i64::from(weight / divisor)).collect();
    let places = weights.iter().sum::<i64>();
    if usize::try_from(places).unwrap_or(usize::MAX).saturating_mul(weights.len()) <= MOST_EXACT_STEPS {
        smooth(&weights, places)
    } else {
        by_deadline(&weights)
    }
}

/// nginx's smooth weighted round robin (its commit 52327e0627f4): 5/1/1 gives a a b a c a a.
fn smooth(weights: &[i64], places: i64) -> Vec<u32> {
    let mut current = vec![0i64; weights.len()];
    let next = |_| {
        let mut best = 0;
        for (index, weight) in weights.iter().enumerate() {
            current[index] += weight;
            if current[index] > current[best] {
                best = index;
            }
        }
        current[best] -= places;
        u32::try_from(best).expect("fewer backends than 2^32")
    };
    (0..places).map(next).collect()
}

/// The k-th turn of weight w is due at (2k+1)/2w of the round; turns in the order of their deadlines.
fn by_deadline(weights: &[i64]) -> Vec<u32> {
    let mut turns: Vec<(f64, u32)> = Vec::new();
    for (index, weight) in (0u32..).zip(weights) {
        let weight = u32::try_from(*weight).expect("weights are at most 256 parts of a share");
        turns.extend((0..weight).map(|turn| (f64::from(2 * turn + 1) / f64::from(2 * weight), index)));
    }
    turns.sort_by(|a, b| a.0.total_cmp(&b.0));
    turns.into_iter().map(|(_, index)| index).collect()
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
    fn both_algorithms_keep_the_weights_in_every_stretch() {
        let weights = [5, 3, 1, 7];
        for order in [smooth(&weights, 16), by_deadline(&weights)] {
            for length in 1..=16 {
                for (index, weight) in weights.iter().enumerate() {
                    let turns = order[..length].iter().filter(|turn| **turn as usize == index).count();
                    let due = *weight as f64 * length as f64 / 16.0;
                    assert!((turns as f64 - due).abs() <= 1.5, "{index} after {length}: {turns} for {due}");
                }
            }
            assert_eq!(order.len(), 16);
        }
    }
}
