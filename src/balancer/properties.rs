//! Properties of the policies: pools without sockets, driven through a simulated clock.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;

use crate::backends::{AdminState, Backend, BackendState, Lease};
use crate::config::{OnReturn, Policy, PoolConfig};
use crate::net::ConnectFailure;

use super::pick_request::PickError;
use super::round_robin::{order_of, turns_of};
use super::simulation::{World, clients, detection, endpoint, events, policies, settings, weighted};

/// Maglev tables are slow to build without optimization.
const FEW_CASES: u32 = 16;
/// For properties whose pools build one only for one of the policies.
const SOME_CASES: u32 = 48;

/// After any number of picks each has had its due, less or more than one turn.
fn assert_within_one(order: &[usize], weights: &[u16]) -> Result<(), TestCaseError> {
    let sum: f64 = weights.iter().map(|weight| f64::from(*weight)).sum();
    let mut turns = vec![0.0; weights.len()];
    for (picks, index) in (1u32..).zip(order) {
        turns[*index] += 1.0;
        for (turns, weight) in turns.iter().zip(weights) {
            let due = f64::from(picks) * f64::from(*weight) / sum;
            prop_assert!((turns - due).abs() < 1.0, "{} turns of {} after {} picks", turns, due, picks);
        }
    }
    Ok(())
}

proptest! {
    #[test]
    fn round_robin_honours_weights_within_one_turn(weights in prop::collection::vec(1u16..=256, 1..12)) {
        let round = weights.iter().map(|weight| usize::from(*weight)).sum();
        let mut world = World::new(settings(Policy::RoundRobin, None), weighted(&weights));
        let order = world.pick_and_hold(round);
        assert_within_one(&order, &weights)?;
    }

    #[test]
    fn any_whole_round_is_exact_wherever_it_begins(
        weights in prop::collection::vec(1u16..=20, 1..8),
        skipped in 0usize..200,
        rounds in 1usize..4,
    ) {
        let mut world = World::new(settings(Policy::RoundRobin, None), weighted(&weights));
        world.pick_and_hold(skipped);
        let round: usize = weights.iter().map(|weight| usize::from(*weight)).sum();
        let order = world.pick_and_hold(round * rounds);
        for (index, weight) in weights.iter().enumerate() {
            prop_assert_eq!(order.iter().filter(|turn| **turn == index).count(), usize::from(*weight) * rounds);
        }
    }

    #[test]
    fn the_order_has_each_backend_as_often_as_its_weight(weights in prop::collection::vec(0u32..2048, 1..40)) {
        let order = order_of(&weights);
        let turns = |index: usize| order.iter().filter(|turn| **turn as usize == index).count() as u64;
        for (index, weight) in weights.iter().enumerate() {
            // turns : weight is the same for all.
            prop_assert_eq!(turns(index) * u64::from(weights[0]), turns(0) * u64::from(*weight));
        }
    }

    #[test]
    fn rounds_are_exact_or_of_bounded_length_with_each_share_less_than_a_turn_off(
        weights in prop::collection::vec(0u32..=2048, 1..3000),
    ) {
        let (turns, most) = (turns_of(&weights), 32_768.max(32 * weights.len()));
        let [sum, length] = [&weights, &turns].map(|all| all.iter().map(|one| u64::from(*one)).sum::<u64>());
        prop_assert!(length <= (most + weights.len()) as u64, "{} turns of {} backends", length, weights.len());
        let is_exact = weights.iter().zip(&turns).all(|(weight, turns)| {
            u64::from(*turns) * sum == u64::from(*weight) * length
        });
        let mean = sum as f64 / weights.len() as f64;
        if is_exact {
            return Ok(());
        }
        for (weight, turns) in weights.iter().zip(&turns) {
            let due = most as f64 * f64::from(*weight) / sum as f64;
            prop_assert!((f64::from(*turns) - due).abs() < 1.0, "{} turns, due are {}", turns, due);
            prop_assert_eq!(*turns > 0, *weight > 0);
            // Of connections, not of turns: roundings change the round's length too.
            let share = f64::from(*turns) / length as f64 / (f64::from(*weight) / sum as f64);
            prop_assert!(f64::from(*weight) < mean || (0.95..1.05).contains(&share), "{} of its share", share);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(SOME_CASES))]

    #[test]
    fn counts_are_conserved(policy in policies(), backends in 1usize..6, events in events()) {
        let mut world = World::new(settings(policy, Some(detection())), weighted(&vec![1; backends]));
        for event in events {
            world.take(event);
            let active: usize = world.backends().iter().map(|backend| backend.active()).sum();
            prop_assert_eq!(active, world.leases.len());
        }
        let made: u64 = world.backends().iter().map(|backend| backend.snapshot(world.now).total).sum();
        prop_assert_eq!(made, world.made);
        world.leases.clear();
        prop_assert!(world.backends().iter().all(|backend| backend.active() == 0));
    }

    #[test]
    fn an_ejected_backend_is_picked_only_to_probe_it_or_when_none_is_usable(
        policy in policies(),
        backends in 1usize..6,
        events in events(),
    ) {
        let mut world = World::new(settings(policy, Some(detection())), weighted(&vec![1; backends]));
        for event in events {
            let (before, now) = (world.states(), world.now);
            let ejected_for = |index: usize| world.backends()[index].snapshot(now).ejected_for;
            let is_due = |index: usize| ejected_for(index).is_some_and(|wait| wait.is_zero());
            let due: Vec<bool> = (0..backends).map(is_due).collect();
            let some_usable = before.contains(&BackendState::Up);
            if let Some(Ok(index)) = world.take(event) {
                let may = before[index] == BackendState::Up || due[index] || !some_usable;
                // A probe that has lasted for long enough brings its backend back at this very pick.
                let settled = before[index] == BackendState::Probing && world.states()[index] != BackendState::Probing;
                prop_assert!(may || settled, "{:?} of {:?}", index, before);
            }
        }
    }

    #[test]
    fn never_two_probes_of_one_backend_at_once(policy in policies(), backends in 2usize..6, events in events()) {
        let mut world = World::new(settings(policy, Some(detection())), weighted(&vec![1; backends]));
        for event in events {
            let before = world.states();
            let picked = world.take(event);
            if let (Some(Ok(index)), true) = (picked, before.contains(&BackendState::Up)) {
                // A connection to a backend that is being probed would be a second probe.
                let both = [before[index], world.states()[index]];
                let still_probing = both == [BackendState::Probing; 2];
                prop_assert!(!still_probing, "backend {} of {:?}", index, before);
            }
        }
    }

    #[test]
    fn somebody_is_always_picked_while_there_is_a_backend(
        policy in policies(),
        backends in 1usize..5,
        events in events(),
    ) {
        let mut world = World::new(settings(policy, Some(detection())), weighted(&vec![1; backends]));
        for event in events {
            prop_assert!(!matches!(world.take(event), Some(Err(_))), "fail open");
        }
    }

    #[test]
    fn an_ejected_backend_comes_back_once_its_probe_goes_well(policy in policies(), backends in 2usize..6) {
        let mut world = World::new(settings(policy, Some(detection())), weighted(&vec![1; backends]));
        let failing = world.backends()[0].clone();
        for _ in 0..2 {
            Lease::take(&failing).expect("no limit").connect_failed(ConnectFailure::Timeout, world.now);
        }
        prop_assert_eq!(failing.state(), BackendState::Ejected);
        world.now += Duration::from_secs(12);
        let probe = world.pick(None, &[]).expect("a probe");
        prop_assert!(Arc::ptr_eq(probe.backend(), &failing));
        prop_assert_eq!(failing.state(), BackendState::Probing);
        probe.record_success(world.now);
        prop_assert_eq!(failing.state(), BackendState::Up);
    }

    #[test]
    fn none_is_tried_twice(
        policy in policies(),
        backends in 1usize..8,
        events in events(),
        client in clients(),
    ) {
        let mut world = World::new(settings(policy, Some(detection())), weighted(&vec![1; backends]));
        for event in events {
            world.take(event);
        }
        let mut tried: Vec<Arc<Backend>> = Vec::new();
        while let Ok(lease) = world.pick(Some(client), &tried) {
            prop_assert!(!tried.iter().any(|known| Arc::ptr_eq(known, lease.backend())));
            tried.push(lease.backend().clone());
        }
        prop_assert_eq!(tried.len(), backends);
        prop_assert!(matches!(world.pick(Some(client), &tried), Err(PickError::NoneLeft)));
    }

    #[test]
    fn backups_wait_until_no_primary_is_usable_and_weight_zero_for_ever(
        policy in policies(),
        primaries in 1usize..4,
        backups in 1usize..4,
        events in events(),
    ) {
        let make = |index| endpoint(index, u16::from(index > 0), u8::from(index > primaries), 0);
        let mut world = World::new(settings(policy, Some(detection())), (0..=primaries + backups).map(make).collect());
        for event in events {
            let before = world.states();
            let some_primary = before[1..=primaries].contains(&BackendState::Up);
            if let Some(Ok(index)) = world.take(event) {
                prop_assert!(index > 0, "weight 0");
                prop_assert!(index <= primaries || !some_primary || before[index] != BackendState::Up, "{:?}", before);
            }
        }
    }

    #[test]
    fn strict_ranks_give_a_client_backends_of_the_lowest_usable_rank_only(
        policy in policies(),
        backends in prop::collection::vec((0u8..3, any::<bool>()), 1..7),
        client in clients(),
    ) {
        let pool = PoolConfig { on_return: OnReturn::CloseBackups, ..settings(policy, None) };
        let make = |(index, (rank, _)): (usize, &(u8, bool))| endpoint(index, 1, *rank, 0);
        let world = World::new(pool, backends.iter().enumerate().map(make).collect());
        for (backend, (_, is_out)) in world.backends().iter().zip(&backends) {
            let wish = if *is_out { AdminState::Disable } else { AdminState::Enable };
            backend.set_admin_state(wish, world.now);
        }
        let usable: Vec<u8> = backends.iter().filter(|(_, is_out)| !is_out).map(|(rank, _)| *rank).collect();
        let best = usable.iter().min();
        let mut tried: Vec<Arc<Backend>> = Vec::new();
        while let Ok(lease) = world.pick(Some(client), &tried) {
            prop_assert_eq!(Some(&lease.backend().rank()), best);
            tried.push(lease.backend().clone());
        }
        prop_assert_eq!(tried.len(), usable.iter().filter(|rank| Some(*rank) == best).count());
    }

    #[test]
    fn max_connections_holds_and_only_full_backends_are_called_full(
        policy in policies(),
        limits in prop::collection::vec(1usize..5, 1..6),
        events in events(),
    ) {
        let make = |(index, limit): (usize, &usize)| endpoint(index, 1, 0, *limit);
        let mut world = World::new(settings(policy, None), limits.iter().enumerate().map(make).collect());
        for event in events {
            let picked = world.take(event);
            let is_full: Vec<bool> =
                world.backends().iter().zip(&limits).map(|(backend, limit)| backend.active() >= *limit).collect();
            prop_assert!(world.backends().iter().zip(&limits).all(|(backend, limit)| backend.active() <= *limit));
            if let Some(Err(error)) = picked {
                prop_assert_eq!(error, PickError::Full);
                prop_assert!(is_full.iter().all(|full| *full), "{:?}", is_full);
            }
        }
    }

    #[test]
    fn least_connections_takes_a_least_loaded_one(
        weights in prop::collection::vec(1u16..10, 1..8),
        events in events(),
    ) {
        let mut world = World::new(settings(Policy::LeastConnections, None), weighted(&weights));
        for event in events {
            let load = |(backend, weight): (&Arc<Backend>, &u16)| (backend.active() + 1) as f64 / f64::from(*weight);
            let loads: Vec<f64> = world.backends().iter().zip(&weights).map(load).collect();
            if let Some(Ok(index)) = world.take(event) {
                prop_assert!(loads.iter().all(|other| loads[index] <= *other), "{} of {:?}", index, loads);
            }
        }
    }

    #[test]
    fn held_connections_are_spread_by_weight(weights in prop::collection::vec(1u16..10, 1..8), rounds in 1usize..10) {
        let sum: usize = weights.iter().map(|weight| usize::from(*weight)).sum();
        let mut world = World::new(settings(Policy::LeastConnections, None), weighted(&weights));
        world.pick_and_hold(sum * rounds);
        for (backend, weight) in world.backends().iter().zip(&weights) {
            prop_assert_eq!(backend.active(), usize::from(*weight) * rounds);
        }
    }

    /// Two choices keep the fullest of n within about log log n of the mean; one choice alone would be far off.
    #[test]
    fn the_better_of_two_stays_close_to_the_mean(backends in 2usize..20, each in 1usize..100) {
        let mut world = World::new(settings(Policy::RandomTwo, None), weighted(&vec![1; backends]));
        world.pick_and_hold(backends * each);
        let fullest = world.backends().iter().map(|backend| backend.active()).max().unwrap_or(0);
        prop_assert!(fullest <= each + 8, "{} for a mean of {}", fullest, each);
    }

    #[test]
    fn backends_that_stay_keep_their_counts_when_others_come_and_go(
        policy in policies(),
        before in 1usize..6,
        events in events(),
        after in prop::collection::hash_set(0usize..10, 1..8),
    ) {
        let mut world = World::new(settings(policy, Some(detection())), weighted(&vec![1; before]));
        for event in events {
            world.take(event);
        }
        let counts_of = |world: &World| -> HashMap<String, (usize, u64, BackendState)> {
            let all = world.backends();
            let counts = |backend: &Backend| {
                (backend.active(), backend.snapshot(world.now).total, backend.state())
            };
            all.iter().map(|backend| (backend.label().to_owned(), counts(backend))).collect()
        };
        let was = counts_of(&world);
        world.balancer.pool().replace(after.iter().map(|index| endpoint(*index, 1, 0, 0)).collect(), world.now);
        let is = counts_of(&world);
        prop_assert_eq!(is.len(), after.len());
        for (label, counts) in &is {
            prop_assert_eq!(counts, was.get(label).unwrap_or(&(0, 0, BackendState::Up)), "{}", label);
        }
        let picked = world.pick(None, &[]).expect("there is a backend");
        prop_assert!(is.contains_key(picked.backend().label()), "one that is gone");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(FEW_CASES))]

    #[test]
    fn a_client_keeps_its_backend_and_replicas_agree(
        weights in prop::collection::vec(1u16..10, 1..8),
        clients in prop::collection::vec(clients(), 1..20),
    ) {
        let one = World::new(settings(Policy::SourceHash, None), weighted(&weights));
        let other = World::new(settings(Policy::SourceHash, None), weighted(&weights));
        let choice = |world: &World, client: IpAddr| {
            let lease = world.pick(Some(client), &[]).expect("no limit");
            world.index_of(lease.backend())
        };
        let first: Vec<usize> = clients.iter().map(|client| choice(&one, *client)).collect();
        prop_assert_eq!(&first, &clients.iter().map(|client| choice(&one, *client)).collect::<Vec<_>>());
        prop_assert_eq!(&first, &clients.iter().map(|client| choice(&other, *client)).collect::<Vec<_>>());
    }

    #[test]
    fn a_client_whose_backend_is_full_has_a_fixed_second_choice(client in clients(), backends in 2usize..8) {
        let make = |_| {
            let all = (0..backends).map(|index| endpoint(index, 1, 0, 1)).collect();
            World::new(settings(Policy::SourceHash, None), all)
        };
        let second_choice = |world: World| {
            let first = world.pick(Some(client), &[]).expect("room");
            let second = world.pick(Some(client), &[]).expect("room elsewhere");
            (world.index_of(first.backend()), world.index_of(second.backend()))
        };
        let [one, other] = [(); 2].map(make).map(second_choice);
        prop_assert!(one.0 != one.1);
        prop_assert_eq!(one, other);
    }
}

/// The smooth weighted round robin of nginx is 1.04 turns off here.
#[test]
fn uneven_weights_are_honoured_within_one_turn_too() {
    let weights = [1, 4, 6, 6, 25, 3, 53, 45, 49, 49, 7];
    let mut world = World::new(settings(Policy::RoundRobin, None), weighted(&weights));
    let order = world.pick_and_hold(weights.iter().map(|weight| usize::from(*weight)).sum());
    assert_within_one(&order, &weights).expect("within one");
}
