//! One flow that takes all it can, beside a thousand that say little.

use std::io::{Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use crate::support::{Lb, Pair, Pairs, Server, allow_open_files, connect, wait_until};

const PING_PONGS: usize = 1_000;
const ROUNDS: usize = 4;

/// A flow without an end, read as fast as it comes.
fn one_flow_beside_a_thousand_ping_pongs(method: &str) {
    let (bulk, small) =
        (Server::that(|mut stream| while stream.write_all(&[b'b'; 256 * 1024]).is_ok() {}), Pairs::new());
    let lb = Lb::with_config(&format!(
        "workers: 1\nrelay: {{mode: {method}}}\n\
         listeners:\n  bulk: {{bind: 127.0.0.1:0, pool: bulk}}\n  small: {{bind: 127.0.0.1:0, pool: small}}\n\
         pools:\n  bulk: {{backends: ['{}']}}\n  small: {{backends: ['{}']}}\n",
        bulk.address(),
        small.address()
    ))
    .start();
    let mut pairs: Vec<Pair> = (0..PING_PONGS).map(|_| small.connect_to(lb.address_of("small"))).collect();
    let (stop, bulk_bytes) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let mut flow = connect(lb.address_of("bulk"));
    let reading = {
        let (stop, bulk_bytes) = (stop.clone(), bulk_bytes.clone());
        thread::spawn(move || {
            let mut buffer = vec![0; 256 * 1024];
            while !stop.load(Ordering::Relaxed) {
                bulk_bytes.fetch_add(flow.read(&mut buffer).unwrap(), Ordering::Relaxed);
            }
        })
    };
    wait_until("the flow is under way", || bulk_bytes.load(Ordering::Relaxed) > 16 << 20);
    for _ in 0..ROUNDS {
        let flowed = bulk_bytes.load(Ordering::Relaxed);
        // A starved one would wait for as long as the flow lasts, and its reader give up.
        ping_all(&mut pairs);
        wait_until("the flow went on, too", || bulk_bytes.load(Ordering::Relaxed) > flowed);
    }
    stop.store(true, Ordering::Relaxed);
    reading.join().unwrap();
    drop(pairs);
}

/// A message there and back on every connection, all at once.
fn ping_all(pairs: &mut [Pair]) {
    for (number, pair) in pairs.iter_mut().enumerate() {
        pair.client.write_all(&number.to_le_bytes()).unwrap();
    }
    for pair in &mut *pairs {
        let mut question = [0; size_of::<usize>()];
        pair.backend.read_exact(&mut question).unwrap();
        pair.backend.write_all(&question).unwrap();
    }
    for (number, pair) in pairs.iter_mut().enumerate() {
        let mut answer = [0; size_of::<usize>()];
        pair.client.read_exact(&mut answer).unwrap();
        assert_eq!(usize::from_le_bytes(answer), number);
    }
}

#[test]
fn a_bulk_flow_starves_none_of_a_thousand_ping_pongs_on_its_worker() {
    allow_open_files(4 * PING_PONGS as u64);
    for method in ["auto", "copy"] {
        one_flow_beside_a_thousand_ping_pongs(method);
    }
}
