//! Maglev consistent hashing (Eisenbud et al., "Maglev: A Fast and Reliable Software Network Load Balancer", NSDI
//! 2016, section 3.4): a client keeps its backend while others come and go, and replicas agree without communication.

use std::hash::Hasher;
use std::net::IpAddr;

use siphasher::sip::SipHasher13;

/// A prime, as the permutations need. With a hundred times as many places as backends, shares are even within 1 %
/// (section 5.3).
const TABLE_SIZE: u64 = 65_537;
/// A prime too, for larger pools.
const LARGE_TABLE_SIZE: u64 = 655_373;
/// Backends beyond which the larger table is used.
const MOST_IN_SMALL_TABLE: usize = 600;

/// The keys are fixed: every replica must build the same table.
const OFFSET_KEY: u64 = 1;
const SKIP_KEY: u64 = 2;
const CLIENT_KEY: u64 = 3;

/// Marks a place without a backend; no backend has this index.
const VACANT: u16 = u16::MAX;

/// The index of a backend for each hash value.
#[derive(Debug)]
pub(super) struct Maglev(Vec<u16>);

/// One backend's way through the table: its own permutation of all places, `skip` places at a step.
struct Permutation {
    next: u64,
    skip: u64,
    /// Its weight as a share of the heaviest one: what it gains of a place in each round.
    pace: f64,
    credit: f64,
}

impl Maglev {
    /// Builds the table for backends of these labels and weights; at most 65,535 of them, and at least one weight
    /// above 0.
    pub(super) fn new(backends: &[(&str, u32)]) -> Self {
        let size = if backends.len() > MOST_IN_SMALL_TABLE { LARGE_TABLE_SIZE } else { TABLE_SIZE };
        let heaviest = f64::from(backends.iter().map(|(_, weight)| *weight).max().unwrap_or(1).max(1));
        let mut permutations: Vec<Permutation> = backends
            .iter()
            .map(|(label, weight)| Permutation {
                next: hash(OFFSET_KEY, label.as_bytes()) % size,
                skip: hash(SKIP_KEY, label.as_bytes()) % (size - 1) + 1,
                pace: f64::from(*weight) / heaviest,
                credit: 0.0,
            })
            .collect();
        let mut places = vec![VACANT; usize::try_from(size).expect("a small prime")];
        let mut free = places.len();
        // In each round every backend takes the next free place of its permutation; lighter ones sit out some rounds.
        while free > 0 {
            for (index, permutation) in (0u16..).zip(&mut permutations) {
                permutation.credit += permutation.pace;
                if permutation.credit < 1.0 || free == 0 {
                    continue;
                }
                permutation.credit -= 1.0;
                let place = permutation.next_free(&places, size);
                places[place] = index;
                free -= 1;
            }
        }
        Self(places)
    }

    /// The index of a client's backend, and of further ones to try for `attempt` 1, 2, …
    pub(super) fn lookup(&self, client: u64, attempt: u64) -> usize {
        // A fixed stride, so that every replica tries the same ones, and a large one, for places far from each other.
        let place = client.wrapping_add(attempt.wrapping_mul(0x9E37_79B9_7F4A_7C15)) % self.0.len() as u64;
        usize::from(self.0[usize::try_from(place).expect("below a length")])
    }
}

impl Permutation {
    fn next_free(&mut self, places: &[u16], size: u64) -> usize {
        loop {
            let place = usize::try_from(self.next).expect("below the table's size");
            // Not by `%`: divisions would be most of the time that the table takes to build.
            self.next += self.skip;
            if self.next >= size {
                self.next -= size;
            }
            if places[place] == VACANT {
                return place;
            }
        }
    }
}

/// A client's hash: of its address, not its port, so that all its connections go to one backend.
pub(super) fn hash_of(client: IpAddr) -> u64 {
    match client {
        IpAddr::V4(address) => hash(CLIENT_KEY, &address.octets()),
        IpAddr::V6(address) => hash(CLIENT_KEY, &address.octets()),
    }
}

fn hash(key: u64, bytes: &[u8]) -> u64 {
    let mut hasher = SipHasher13::new_with_keys(key, 0);
    hasher.write(bytes);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn labels(count: usize) -> Vec<String> {
        (1..=count).map(|n| format!("10.0.0.{n}:80")).collect()
    }

    fn table(labels: &[String]) -> Maglev {
        Maglev::new(&labels.iter().map(|label| (label.as_str(), 8)).collect::<Vec<_>>())
    }

    fn shares(table: &Maglev, backends: usize) -> Vec<usize> {
        let mut shares = vec![0; backends];
        table.0.iter().for_each(|index| shares[usize::from(*index)] += 1);
        shares
    }

    #[test]
    fn shares_are_even_within_one_percent() {
        for backends in [2, 3, 10, 100] {
            let shares = shares(&table(&labels(backends)), backends);
            let even = TABLE_SIZE as f64 / backends as f64;
            assert!(shares.iter().all(|share| (*share as f64 / even - 1.0).abs() < 0.01), "{shares:?}");
        }
    }

    #[test]
    fn weights_give_shares_in_proportion() {
        let shares = shares(&Maglev::new(&[("a", 40), ("b", 8), ("c", 0)]), 3);
        assert!((shares[0] as f64 / shares[1] as f64 - 5.0).abs() < 0.05, "{shares:?}");
        assert_eq!(shares[2], 0);
    }

    /// The paper's figure 12: with a table a hundred times the backends, removing one of them moves few other places.
    #[test]
    fn removing_one_backend_moves_few_clients_of_the_others() {
        let before = labels(10);
        let after: Vec<String> = before.iter().filter(|label| *label != "10.0.0.4:80").cloned().collect();
        let (old, new) = (table(&before), table(&after));
        let moved = (0..TABLE_SIZE)
            .map(|client| (&before[old.lookup(client, 0)], &after[new.lookup(client, 0)]))
            .filter(|(was, is)| *was != "10.0.0.4:80" && was != is)
            .count();
        let share = moved as f64 / TABLE_SIZE as f64;
        assert!(share < 0.03, "{:.2} % of the clients moved needlessly", share * 100.0);
    }

    #[test]
    fn the_table_is_the_same_on_every_replica_and_in_every_release() {
        let table = table(&labels(3));
        let client = hash_of(IpAddr::from([192, 0, 2, 1]));
        let first: Vec<usize> = (0..4).map(|attempt| table.lookup(client, attempt)).collect();
        assert_eq!(first, [0, 2, 1, 0]);
    }

    fn weighted_table(labels: &[String], weights: &[u32]) -> Maglev {
        Maglev::new(&labels.iter().map(String::as_str).zip(weights.iter().copied()).collect::<Vec<_>>())
    }

    fn any_labels(count: std::ops::Range<usize>) -> impl Strategy<Value = Vec<String>> {
        prop::collection::hash_set("[a-z]{1,12}:[1-9][0-9]{0,3}", count).prop_map(|labels| labels.into_iter().collect())
    }

    proptest! {
        // Tables are slow to build without optimization.
        #![proptest_config(ProptestConfig::with_cases(16))]

        #[test]
        fn maglev_is_balanced_within_one_percent(labels in any_labels(2..600)) {
            let table = weighted_table(&labels, &vec![8; labels.len()]);
            let even = table.0.len() as f64 / labels.len() as f64;
            for share in shares(&table, labels.len()) {
                prop_assert!((share as f64 / even - 1.0).abs() <= 0.01, "{} for {}", share, even);
            }
        }

        #[test]
        fn maglev_honours_weights_within_one_percent(
            labels in any_labels(2..20),
            seed in prop::collection::vec(1u32..16, 20),
        ) {
            let weights = &seed[..labels.len()];
            let sum: u32 = weights.iter().sum();
            let table = weighted_table(&labels, weights);
            for (share, weight) in shares(&table, labels.len()).into_iter().zip(weights) {
                let due = table.0.len() as f64 * f64::from(*weight) / f64::from(sum);
                prop_assert!((share as f64 / due - 1.0).abs() <= 0.01, "{} for {}", share, due);
            }
        }

        #[test]
        fn maglev_moves_few_clients_of_the_backends_that_stay(
            labels in any_labels(2..100),
            removed in any::<prop::sample::Index>(),
        ) {
            let removed = labels[removed.index(labels.len())].clone();
            let after: Vec<String> = labels.iter().filter(|label| **label != removed).cloned().collect();
            let [old, new] = [&labels, &after].map(|labels| weighted_table(labels, &vec![8; labels.len()]));
            let moved = (0..old.0.len() as u64)
                .map(|client| (&labels[old.lookup(client, 0)], &after[new.lookup(client, 0)]))
                .filter(|(was, is)| **was != removed && was != is)
                .count();
            // The paper's figure 12 has 2 to 4 % for tables a hundred times the backends.
            prop_assert!(moved as f64 / old.0.len() as f64 <= 0.04, "{} of {} places", moved, old.0.len());
        }
    }
}
