//! Smooth weighted round robin: a fixed order in which each backend stands as often as its weight, well spread.
//!
//! The order is nginx's (commit 52327e0627f4, "Upstream: smooth weighted round-robin balancing"), computed once for a
//! set of weights; a pick is then one atomic add and one look-up, and exact over all workers.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use crate::backends::Backend;

use super::take_turn;

/// Backends in an order of turns.
#[derive(Debug)]
pub(super) struct Rotation {
    backends: Vec<Arc<Backend>>,
    /// Indices into `backends`. Empty where all weights are equal: the order is then that of `backends`.
    order: Vec<u32>,
}

impl Rotation {
    pub(super) fn new(backends: Vec<Arc<Backend>>) -> Self {
        let weights: Vec<u16> = backends.iter().map(|backend| backend.weight()).collect();
        let order = if weights.windows(2).all(|pair| pair[0] == pair[1]) { Vec::new() } else { smooth_order(&weights) };
        Self { backends, order }
    }

    /// The backend whose turn it is; where that one is not `usable`, the next one after it that is.
    pub(super) fn next(&self, turn: &AtomicU64, usable: impl Fn(&Arc<Backend>) -> bool) -> Option<&Arc<Backend>> {
        let length = if self.order.is_empty() { self.backends.len() } else { self.order.len() };
        if length == 0 {
            return None;
        }
        let start = usize::try_from(take_turn(turn) % length as u64).expect("less than a length");
        (0..length).map(|step| self.at((start + step) % length)).find(|backend| usable(backend))
    }

    fn at(&self, place: usize) -> &Arc<Backend> {
        match self.order.get(place) {
            Some(index) => &self.backends[*index as usize],
            None => &self.backends[place],
        }
    }
}

/// One round: each index as often as its weight divided by the weights' greatest common divisor.
fn smooth_order(weights: &[u16]) -> Vec<u32> {
    let divisor = weights.iter().fold(0, |divisor, weight| greatest_common_divisor(divisor, *weight)).max(1);
    let weights: Vec<i64> = weights.iter().map(|weight| i64::from(weight / divisor)).collect();
    let total: i64 = weights.iter().sum();
    let mut current = vec![0i64; weights.len()];
    (0..total)
        .map(|_| {
            let mut best = 0;
            for (index, weight) in weights.iter().enumerate() {
                current[index] += weight;
                if current[index] > current[best] {
                    best = index;
                }
            }
            current[best] -= total;
            u32::try_from(best).expect("fewer backends than 2^32")
        })
        .collect()
}

fn greatest_common_divisor(a: u16, b: u16) -> u16 {
    if b == 0 { a } else { greatest_common_divisor(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_interleave_smoothly() {
        assert_eq!(smooth_order(&[5, 1, 1]), [0, 0, 1, 0, 2, 0, 0]);
        assert_eq!(smooth_order(&[10, 2, 2]), [0, 0, 1, 0, 2, 0, 0], "only the ratio matters");
        assert_eq!(smooth_order(&[1, 1]), [0, 1]);
        assert_eq!(smooth_order(&[2, 3]), [1, 0, 1, 0, 1]);
    }
}
