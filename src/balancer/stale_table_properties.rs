//! Properties of picks while the table is older than the pool's state: what must not be picked never is, and no client
//! is refused while a backend could serve it.

use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;

use crate::backends::{AdminState, Backend, BackendState, Lease};
use crate::config::Policy;
use crate::net::ConnectFailure;

use super::pick_request::PickError;
use super::simulation::{Event, World, detection, endpoint, events, policies, settings, weighted};

/// Backends that a world may have at most.
const MOST: usize = 6;

/// What may happen to a world whose table isn't rebuilt by itself.
#[derive(Clone, Copy, Debug)]
enum StaleEvent {
    Event(Event),
    /// A client connects, and the table is as old as it is.
    Pick,
    Rebuild,
    Set(usize, AdminState),
    /// The pool's backends are others from now on: those whose bits are set. Every third is a backup, of its own rank.
    Replace(u8),
}

fn stale_events() -> impl Strategy<Value = Vec<StaleEvent>> {
    let admin_states = prop::sample::select(vec![AdminState::Enable, AdminState::Drain, AdminState::Disable]);
    let event = prop_oneof![
        6 => events().prop_map(|events| StaleEvent::Event(events[0])),
        8 => Just(StaleEvent::Pick),
        1 => Just(StaleEvent::Rebuild),
        2 => (0..MOST, admin_states).prop_map(|(index, state)| StaleEvent::Set(index, state)),
        1 => (1u8..1 << MOST).prop_map(StaleEvent::Replace),
    ];
    prop::collection::vec(event, 1..120)
}

fn rank_of(index: usize) -> u8 {
    if index % 3 == 2 { u8::try_from(index).expect("few") } else { 0 }
}

fn set_of(bits: u8) -> Vec<crate::backends::Endpoint> {
    let chosen = (0..MOST).filter(|index| bits & (1 << index) != 0);
    chosen.map(|index| endpoint(index, u16::try_from(index).expect("few"), rank_of(index), 0)).collect()
}

/// Picks are made by the last table; `World::take` would rebuild it for each.
fn happen(world: &mut World, event: StaleEvent) {
    match event {
        StaleEvent::Event(Event::Wait(time)) => world.now += time,
        StaleEvent::Event(Event::IsRefused(client)) => {
            if let Ok(lease) = world.pick_with_old_table(Some(client), &[]) {
                lease.connect_failed(ConnectFailure::Refused, world.now);
            }
        }
        StaleEvent::Event(Event::Connects(client)) => world.leases.extend(world.pick_with_old_table(Some(client), &[])),
        StaleEvent::Event(event) => {
            let _ = world.take(event);
        }
        StaleEvent::Rebuild => world.balancer.rebuild(),
        StaleEvent::Set(index, state) => {
            if let Some(backend) = world.backends().get(index) {
                backend.set_admin_state(state, world.now);
            }
        }
        StaleEvent::Replace(bits) => world.balancer.pool().replace(set_of(bits), world.now),
        StaleEvent::Pick => {}
    }
}

fn disable(world: &World, backend: &Arc<Backend>) {
    backend.set_admin_state(AdminState::Disable, world.now);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn what_may_not_be_picked_never_is_and_nobody_is_turned_away(policy in policies(), events in stale_events()) {
        let mut world = World::new(settings(policy, Some(detection())), set_of(0b11_1111));
        for event in events {
            happen(&mut world, event);
            let before = world.backends();
            let usable: Vec<bool> = before.iter().map(|backend| backend.is_usable()).collect();
            let tried: Vec<bool> = before.iter().map(|backend| backend.is_in_service()).collect();
            let is_some_usable = usable.contains(&true);
            let best = before.iter().filter(|backend| backend.is_usable()).map(|backend| backend.rank()).min();
            match world.pick_with_old_table(None, &[]) {
                Ok(lease) => {
                    let index = before.iter().position(|known| Arc::ptr_eq(known, lease.backend()));
                    let Some(index) = index else { panic!("one that has left the pool") };
                    prop_assert!(tried[index], "weight 0, or taken out of service by an operator");
                    // Also a backend whose probe is due, and one whose probe has lasted for long enough.
                    let now = before[index].state();
                    let is_probe = now == BackendState::Probing || (now == BackendState::Up && !usable[index]);
                    let is_of_best = !usable[index] || Some(before[index].rank()) == best;
                    prop_assert!(is_of_best, "a backup beside a usable backend of a lower rank");
                    prop_assert!(usable[index] || is_probe || !is_some_usable, "{:?} beside usable ones", now);
                }
                Err(error) => {
                    prop_assert_eq!(error, PickError::NoneLeft, "no limits here");
                    prop_assert!(!tried.contains(&true), "turned away beside {:?}", tried);
                }
            }
        }
    }

    #[test]
    fn one_that_came_back_has_exactly_its_turns_from_the_next_table_on(
        weights in prop::collection::vec(1u16..10, 2..8),
        picks in 0usize..20,
    ) {
        let mut world = World::new(settings(Policy::RoundRobin, None), weighted(&weights));
        let away = world.backends()[0].clone();
        disable(&world, &away);
        world.balancer.rebuild();
        away.set_admin_state(AdminState::Enable, world.now);
        for _ in 0..picks {
            let lease = world.pick_with_old_table(None, &[]).expect("no limit");
            prop_assert!(!Arc::ptr_eq(lease.backend(), &away), "the others have all turns until then");
        }
        let round: usize = weights.iter().map(|weight| usize::from(*weight)).sum();
        let order = world.pick_and_hold(round);
        prop_assert_eq!(order.iter().filter(|index| **index == 0).count(), usize::from(weights[0]));
    }

    #[test]
    fn fails_open_though_the_table_has_usable_ones_only(policy in policies(), backends in 1usize..MOST) {
        let world = World::new(settings(policy, Some(detection())), weighted(&vec![1; backends]));
        for backend in world.backends().iter() {
            for _ in 0..2 {
                Lease::take(backend).expect("no limit").connect_failed(ConnectFailure::Refused, world.now);
            }
            prop_assert_eq!(backend.state(), BackendState::Ejected);
        }
        prop_assert!(world.pick_with_old_table(None, &[]).is_ok());
        // The table that is built now has none that is usable; one that comes back then is found all the same.
        world.balancer.rebuild();
        let back = world.backends()[backends - 1].clone();
        let lease = Lease::take(&back).expect("no limit");
        lease.record_success(world.now);
        for _ in 0..3 {
            let picked = world.pick_with_old_table(None, &[]).expect("no limit");
            prop_assert!(Arc::ptr_eq(picked.backend(), &back));
        }
    }

    #[test]
    fn one_that_came_back_has_room_while_all_others_are_full(policy in policies(), backends in 2usize..MOST) {
        let all = (0..backends).map(|index| endpoint(index, 1, 0, 1)).collect();
        let mut world = World::new(settings(policy, None), all);
        let away = world.backends()[0].clone();
        disable(&world, &away);
        world.balancer.rebuild();
        for _ in 1..backends {
            world.leases.push(world.pick_with_old_table(None, &[]).expect("room"));
        }
        prop_assert_eq!(world.pick_with_old_table(None, &[]).map(drop), Err(PickError::Full));
        away.set_admin_state(AdminState::Enable, world.now);
        let lease = world.pick_with_old_table(None, &[]).expect("room on the one that came back");
        prop_assert!(Arc::ptr_eq(lease.backend(), &away));
        prop_assert_eq!(world.pick_with_old_table(None, &[]).map(drop), Err(PickError::Full));
    }
}

#[tokio::test]
async fn the_table_follows_the_pool_within_moments() {
    let weights: Vec<u16> = (0..1000u32).map(|index| u16::try_from(index * 79 % 256 + 1).expect("small")).collect();
    let world = World::new(settings(Policy::RoundRobin, None), weighted(&weights));
    let balancer = world.balancer.clone();
    let following = tokio::spawn(async move { balancer.follow_pool().await });
    world.balancer.pool().replace(weighted(&weights[500..]), world.now);
    let staying = world.backends();
    let is_current = async {
        while !world.balancer.is_current() {
            let picked = world.pick_with_old_table(None, &[]).expect("no limit");
            assert!(staying.iter().any(|known| Arc::ptr_eq(known, picked.backend())), "one that has left");
            tokio::task::yield_now().await;
        }
    };
    // Long enough for a busy machine and a build without optimization.
    let waited = tokio::time::timeout(Duration::from_secs(10), is_current).await;
    assert!(waited.is_ok(), "the table is still the old one");
    following.abort();
}
