//! Who gets the next connection, while all is well.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::thread;

use crate::support::{Lb, Server, connect, get, short_read};

/// The names that answer `count` GETs, one after the other.
fn answers(address: SocketAddr, count: usize) -> Vec<String> {
    (0..count).map(|_| get(address, "/").body).collect()
}

#[test]
fn alternates_between_two_backends() {
    let (one, two) = (Server::named("one"), Server::named("two"));
    let lb = Lb::in_front_of(&[one.address(), two.address()]).start();
    assert_eq!(answers(lb.address(), 6), ["one", "two", "one", "two", "one", "two"]);
}

#[test]
fn shares_exactly_over_workers_and_concurrent_clients() {
    const CLIENTS: usize = 50;
    const CONNECTIONS_EACH: usize = 40;
    let (one, two) = (Server::greeting("one"), Server::greeting("two"));
    let lb = Lb::in_front_of(&[one.address(), two.address()]).with(&["--workers", "2"]).start();
    let address = lb.address();
    let clients: Vec<_> = (0..CLIENTS)
        .map(|_| {
            thread::spawn(move || -> Vec<String> {
                (0..CONNECTIONS_EACH).map(|_| short_read(&mut connect(address))).collect()
            })
        })
        .collect();
    let mut shares: HashMap<String, usize> = HashMap::new();
    for name in clients.into_iter().flat_map(|client| client.join().unwrap()) {
        *shares.entry(name).or_default() += 1;
    }
    let half = CLIENTS * CONNECTIONS_EACH / 2;
    assert_eq!(shares, HashMap::from([("one".to_owned(), half), ("two".to_owned(), half)]));
}

#[test]
fn interleaves_weights_smoothly() {
    let (a, b, c) = (Server::named("a"), Server::named("b"), Server::named("c"));
    let backends = [format!("{},weight=5", a.address()), b.address().to_string(), c.address().to_string()];
    let lb = Lb::with_backends(&backends.each_ref().map(String::as_str)).start();
    assert_eq!(answers(lb.address(), 14).concat(), "aabacaaaabacaa");
}

#[test]
fn sends_nothing_to_a_backend_of_weight_zero() {
    let (a, idle) = (Server::named("a"), Server::named("idle"));
    let backends = [format!("{},weight=0", idle.address()), a.address().to_string()];
    let lb = Lb::with_backends(&backends.each_ref().map(String::as_str)).start();
    assert_eq!(answers(lb.address(), 4).concat(), "aaaa");
    assert_eq!(idle.accepted(), 0);
}
