//! How many clients change their backend when a replica of the balancer, or a backend, goes or comes: a simulation with
//! the program's own tables, for docs/guide/scaling-out.md. `cargo bench --bench replicas` prints its table.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use lb::bench::backends::{Endpoint, Pool};
use lb::bench::balancer::{Balancer, PickRequest};
use lb::bench::config::{Policy, PoolConfig};
use lb::bench::lifecycle::Cutter;
use lb::bench::net::Target;

const CLIENTS: u32 = 20_000;

/// One replica in front of these backends.
fn replica(policy: Policy, backends: impl Iterator<Item = u32>) -> Arc<Balancer> {
    let now = Instant::now();
    let pool = Pool::new(PoolConfig { policy, ..PoolConfig::example() }, 1, Cutter::default(), now);
    let endpoint =
        |number| Endpoint::new(Target::Tcp(SocketAddr::from((Ipv4Addr::from_bits(0x0A00_0000 + number), 80))));
    pool.replace(backends.map(endpoint).collect(), now);
    Balancer::new(pool)
}

/// The replica that a router in front picks for a client: by a hash of its address, as ECMP does; the routers here
/// spread again over those that are left, the worst that may happen.
fn replica_of(client: u32, replicas: u32) -> u32 {
    (client.wrapping_mul(0x9E37_79B9) >> 8) % replicas
}

/// The backend of each client.
fn placed(replicas: &[Arc<Balancer>], clients: impl Iterator<Item = u32>) -> Vec<String> {
    let now = Instant::now();
    let count = u32::try_from(replicas.len()).expect("few replicas");
    let place = |client| {
        let address = IpAddr::V4(Ipv4Addr::from_bits(0xC000_0000 + client));
        let request = PickRequest { now, client: Some(address), tried: &[] };
        let replica = &replicas[replica_of(client, count) as usize];
        replica.pick(&request).expect("there are backends").backend().label().to_owned()
    };
    clients.map(place).collect()
}

#[allow(clippy::cast_precision_loss, reason = "a percentage")]
fn moved(before: &[String], after: &[String]) -> f64 {
    let changed = before.iter().zip(after).filter(|(before, after)| before != after).count();
    100.0 * changed as f64 / before.len() as f64
}

fn replicas(count: u32, policy: Policy, backends: std::ops::Range<u32>) -> Vec<Arc<Balancer>> {
    (0..count).map(|_| replica(policy, backends.clone())).collect()
}

fn main() {
    println!("| Backends | Replicas | Policy | a replica goes | a backend goes (its own clients) | a backend comes |");
    println!("|---|---|---|---|---|---|");
    for backends in [10, 100] {
        for count in [1, 2, 4, 8, 16, 32, 64] {
            for policy in [Policy::SourceHash, Policy::RoundRobin] {
                let placed_by = |count, range| placed(&replicas(count, policy, range), 0..CLIENTS);
                let before = placed_by(count, 0..backends);
                let replica_goes = match count {
                    1 => "–".to_owned(),
                    _ => format!("{:.1} %", moved(&before, &placed_by(count - 1, 0..backends))),
                };
                let goes = moved(&before, &placed_by(count, 1..backends));
                let comes = moved(&before, &placed_by(count, 0..backends + 1));
                let own = 100.0 / f64::from(backends);
                let word = if policy == Policy::SourceHash { "source_hash" } else { "round_robin" };
                println!(
                    "| {backends} | {count} | {word} | {replica_goes} | {goes:.1} % ({own:.1} %) | {comes:.1} % |"
                );
            }
        }
    }
}
