//! What a step of the relay costs: one small message there and back, through `relay::run`, all on one thread.
//!
//! Client, relay and backend share a runtime as a worker has it, so that no time goes into waking other threads.
//! *direct* is the same exchange without the relay: the difference is the relay's, and holds two sends, two receives
//! and their turns of epoll.

use std::future::poll_fn;
use std::hint::black_box;
use std::net::{Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use lb::bench::config::RelayMode;
use lb::bench::lifecycle::IdleTimeouts;
use lb::bench::net::{
    DialOptions, ListenAddress, ListenSocket, Purpose, Source, Target, TcpOptions, Transport, bind_listen_sockets,
    dial, local_address,
};
use lb::bench::relay::{self, Limits, Meter, Pipes, RelayResources, Start, Tally, WorkerPipe};
use lb::bench::telemetry::ByteCounters;
use tokio::runtime::{Builder, LocalOptions, LocalRuntime};
use tokio::task::spawn_local;

/// A request or answer that fits one segment.
const SMALL_BYTES: usize = 100;
/// A response of several reads.
const LARGE_BYTES: usize = 256 * 1024;
/// Longer than a bench runs.
const NEVER: Duration = Duration::from_secs(3600);

/// Two sockets of one connection: who connected, who accepted.
async fn connection() -> (Transport, Transport) {
    let options = TcpOptions { nodelay: true, keepalive: None, user_timeout: None };
    let sockets = bind_listen_sockets(&ListenAddress::Tcp((Ipv4Addr::LOCALHOST, 0).into()), &options, 1);
    let socket = sockets.expect("a free port").remove(0);
    let address: SocketAddr = local_address(&socket).parse().expect("a TCP address");
    let listener = ListenSocket::new(socket).expect("within the runtime");
    let dial_options =
        DialOptions { timeout: Duration::from_secs(5), nodelay: true, user_timeout: None, purpose: Purpose::Talk };
    let target = Target::Tcp(address);
    let (dialled, accepted) = tokio::join!(dial(&target, Source::Any, &dial_options), listener.accept());
    let (accepted, _) = accepted.expect("somebody connects");
    (dialled.expect("it listens"), accepted.into_transport().expect("within the runtime"))
}

/// A client and a backend, with nothing or with the relay between them.
async fn ends(method: Option<RelayMode>) -> (Transport, Transport) {
    let (client, from_client) = connection().await;
    let Some(method) = method else { return (client, from_client) };
    let (to_backend, backend) = connection().await;
    drop(spawn_local(relay(method, from_client, to_backend)));
    (client, backend)
}

async fn relay(method: RelayMode, client: Transport, backend: Transport) {
    let pipe = Rc::new(WorkerPipe::open(&Pipes::new(method, 1)));
    let resources = RelayResources { scratch: Rc::default(), pipe, credit: Rc::default(), mode: method };
    let (of_listener, of_backend, tally) = (ByteCounters::default(), ByteCounters::default(), Tally::default());
    let meter = Meter {
        tally: &tally,
        listener: &of_listener,
        backend: &of_backend,
        on_first_byte: &|first| _ = black_box(first),
    };
    let idle_timer = IdleTimeouts::new(NEVER, Instant::now()).start(NEVER);
    let limits = Limits { idle: NEVER, half_closed: NEVER, first_byte: None, keepalive: None };
    relay::run(&client, &backend, &resources, &meter, &idle_timer, &limits, Start::Fresh { may_retry: false }).await;
}

async fn send(to: &Transport, bytes: &[u8]) {
    let mut sent = 0;
    while sent < bytes.len() {
        sent += poll_fn(|cx| to.poll_send(cx, &bytes[sent..])).await.expect("the other end is there");
    }
}

async fn receive(from: &Transport, buffer: &mut [u8], length: usize) {
    let mut received = 0;
    while received < length {
        received += poll_fn(|cx| from.poll_receive(cx, buffer)).await.expect("the other end is there");
    }
}

/// A small question, and an answer of `length` bytes.
async fn exchange(client: &Transport, backend: &Transport, answer: &[u8], buffers: &mut (Vec<u8>, Vec<u8>)) {
    let question = [b'?'; SMALL_BYTES];
    send(client, &question).await;
    receive(backend, &mut buffers.0, SMALL_BYTES).await;
    // The client receives while the backend sends: neither waits for the other's buffers.
    tokio::join!(send(backend, answer), receive(client, &mut buffers.1, answer.len()));
}

fn runtime() -> LocalRuntime {
    let builder = Builder::new_current_thread().enable_all().build_local(LocalOptions::default());
    builder.expect("descriptors for a runtime")
}

fn exchanges(criterion: &mut Criterion, group: &str, length: usize) {
    let mut group = criterion.benchmark_group(group);
    group.throughput(Throughput::Bytes((SMALL_BYTES + length) as u64));
    let methods = [
        ("direct", None),
        ("copy", Some(RelayMode::Copy)),
        ("splice", Some(RelayMode::Splice)),
        ("auto", Some(RelayMode::Auto)),
    ];
    for (name, method) in methods {
        let runtime = runtime();
        let (client, backend) = runtime.block_on(ends(method));
        let answer = vec![b'!'; length];
        let mut buffers = (vec![0; 64 * 1024], vec![0; 64 * 1024]);
        group.bench_function(name, |bencher| {
            bencher.iter_custom(|iterations| {
                runtime.block_on(async {
                    let started = Instant::now();
                    for _ in 0..iterations {
                        exchange(&client, &backend, &answer, &mut buffers).await;
                    }
                    started.elapsed()
                })
            });
        });
    }
    group.finish();
}

fn relay_step(criterion: &mut Criterion) {
    exchanges(criterion, "small message there and back", SMALL_BYTES);
    exchanges(criterion, "answer of 256 KiB", LARGE_BYTES);
}

criterion_group!(benches, relay_step);
criterion_main!(benches);
