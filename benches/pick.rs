//! What a pick costs, by policy and number of backends; what building the tables anew costs; a line of the access log.
//! `just bench` runs it.

use std::hint::black_box;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

use lb::bench::access_log::{Attempt, Entry};
use lb::bench::backends::{AdminState, Endpoint, Pool};
use lb::bench::balancer::{Balancer, PickRequest};
use lb::bench::config::{Policy, PoolConfig};
use lb::bench::lifecycle::{ConnectionIds, Cutter};
use lb::bench::net::Target;

const POLICIES: [(&str, Policy); 4] = [
    ("round_robin", Policy::RoundRobin),
    ("least_connections", Policy::LeastConnections),
    ("random_two", Policy::RandomTwo),
    ("source_hash", Policy::SourceHash),
];
const SIZES: [usize; 3] = [2, 10, 1000];
const CLIENT: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));

fn identities(count: usize, weight: impl Fn(usize) -> u16) -> Vec<Endpoint> {
    let identity = |index: usize| {
        let [high, low] = u16::try_from(index).expect("few backends").to_be_bytes();
        Endpoint { weight: weight(index), ..Endpoint::new(Target::Tcp(SocketAddr::from(([10, 0, high, low], 80)))) }
    };
    (0..count).map(identity).collect()
}

fn balancer(policy: Policy, backends: Vec<Endpoint>) -> Arc<Balancer> {
    let now = Instant::now();
    let pool = Pool::new(PoolConfig { policy, ..PoolConfig::example() }, 1, Cutter::default(), now);
    pool.replace(backends, now);
    Balancer::new(pool)
}

/// A pick and the end of its connection, as each connection pays for them.
fn pick(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("pick");
    group.throughput(Throughput::Elements(1));
    for (name, policy) in POLICIES {
        for size in SIZES {
            let balancer = balancer(policy, identities(size, |_| 1));
            let mut client = 0_u32;
            group.bench_function(BenchmarkId::new(name, size), |bencher| {
                bencher.iter(|| {
                    client = client.wrapping_add(1);
                    let client = Some(IpAddr::from(client.to_be_bytes()));
                    black_box(balancer.pick(&PickRequest { now: Instant::now(), client, tried: &[] }))
                });
            });
        }
    }
    group.finish();
}

/// A change of the backends, the table that is built for it, and a pick.
fn rebuild(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("rebuild");
    for (name, policy) in POLICIES {
        for size in SIZES {
            let balancer = balancer(policy, identities(size, |_| 1));
            let mut sets = [identities(size, |_| 1), identities(size - 1, |_| 1)].into_iter().cycle();
            group.bench_function(BenchmarkId::new(name, size), |bencher| {
                bencher.iter(|| {
                    let now = Instant::now();
                    balancer.pool().replace(sets.next().expect("a cycle never ends"), now);
                    balancer.rebuild();
                    black_box(balancer.pick(&PickRequest { now, client: Some(CLIENT), tried: &[] }))
                });
            });
        }
    }
    let uneven = |size| identities(size, |index| u16::try_from(index % 7 + 1).expect("small"));
    for size in SIZES {
        let balancer = balancer(Policy::RoundRobin, uneven(size));
        let mut sets = [uneven(size), uneven(size - 1)].into_iter().cycle();
        group.bench_function(BenchmarkId::new("round_robin_uneven", size), |bencher| {
            bencher.iter(|| {
                let now = Instant::now();
                balancer.pool().replace(sets.next().expect("a cycle never ends"), now);
                balancer.rebuild();
                black_box(balancer.pick(&PickRequest { now, client: Some(CLIENT), tried: &[] }))
            });
        });
    }
    group.finish();
}

/// 1,000 backends of weights from 1 to 256, one of which starts slowly: what a change of it costs the next pick, what
/// it costs the thread that builds the tables, and what a pick costs meanwhile.
fn slow_start_in_a_thousand(criterion: &mut Criterion) {
    let mut random = fastrand::Rng::with_seed(1);
    let weights: Vec<u16> = (0..1000).map(|_| random.u16(1..=256)).collect();
    let now = Instant::now();
    let pool = Pool::new(
        PoolConfig { slow_start: Duration::from_secs(3600), ..PoolConfig::example() },
        1,
        Cutter::default(),
        now,
    );
    pool.replace(identities(weights.len(), |index| weights[index]), now);
    let balancer = Balancer::new(pool);
    let starting = balancer.pool().backends()[0].clone();
    let change = || {
        starting.set_admin_state(AdminState::Disable, now);
        starting.set_admin_state(AdminState::Enable, now);
    };
    let pick = || balancer.pick(&PickRequest { now, client: None, tried: &[] });
    let mut group = criterion.benchmark_group("slow_start_in_a_thousand");
    group.bench_function("change_and_pick", |bencher| {
        bencher.iter(|| {
            change();
            black_box(pick())
        });
    });
    group.bench_function("change_and_rebuild", |bencher| {
        bencher.iter(|| {
            change();
            balancer.rebuild();
        });
    });
    group.bench_function("pick", |bencher| bencher.iter(|| black_box(pick())));
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                change();
                balancer.rebuild();
            }
        });
        group.bench_function("pick_during_rebuilds", |bencher| bencher.iter(|| black_box(pick())));
        is_over.store(true, Ordering::Relaxed);
    });
    group.finish();
}

fn access_log_line(criterion: &mut Criterion) {
    let client: SocketAddr = ([192, 0, 2, 1], 50_000).into();
    let attempts = [Attempt { backend: "10.0.0.1:80", outcome: "connected" }];
    let entry = Entry {
        connection: ConnectionIds::new(0, 1).next(),
        time: SystemTime::UNIX_EPOCH + Duration::from_millis(1_700_000_000_123),
        listener: "web",
        client: &client,
        pool: Some("app"),
        backend: Some("10.0.0.1:80"),
        attempts: &attempts,
        bytes_in: 77,
        bytes_out: 853,
        connect: Some(Duration::from_micros(210)),
        first_byte: Some(Duration::from_micros(420)),
        duration: Duration::from_micros(3_500),
        cause: "client_closed",
        reason: None,
        http: None,
        server_name: None,
        tls: None,
    };
    let mut group = criterion.benchmark_group("access_log_line");
    let mut out = Vec::with_capacity(1024);
    group.bench_function("text", |bencher| {
        bencher.iter(|| {
            out.clear();
            entry.write_text(black_box(&mut out));
        });
    });
    group.bench_function("json", |bencher| {
        bencher.iter(|| {
            out.clear();
            entry.write_json(black_box(&mut out));
        });
    });
    group.finish();
}

criterion_group!(benches, pick, rebuild, slow_start_in_a_thousand, access_log_line);
criterion_main!(benches);
