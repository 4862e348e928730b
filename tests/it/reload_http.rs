//! A reload in http mode: kept connections, and requests under way.

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::thread;

use crate::support::{Lb, Origin, Pairs, Reader, connect, free_port, get, wait_until, wait_until_equal};

#[test]
fn a_kept_http_connection_is_told_to_come_back_and_loses_nothing() {
    let (one, two) = (Origin::new(), Origin::new());
    let config = |backend: SocketAddr, name: &str| {
        format!("mode: http\nlisten: 127.0.0.1:0\nbackends: ['{backend}']\nhttp: {{set_headers: {{X-Set: {name}}}}}\n")
    };
    let lb = Lb::with_config(&config(one.address(), "first")).start();
    let mut client = Reader::of(connect(lb.address()));
    let request = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    for _ in 0..3 {
        client.send(request);
        assert_eq!(client.response().header("Connection"), None);
    }
    lb.post("/api/v1/reload");
    client.send(request);
    assert_eq!(client.response().header("Connection"), None, "nothing has changed");
    lb.reload_with(&config(two.address(), "second"));
    // Sent ahead, the second request is not answered any more; the client knows by the close, and asks again elsewhere.
    client.send(request);
    let last = client.response();
    assert_eq!((last.status(), last.header("Connection")), (200, Some("close")));
    assert!(client.is_at_end());
    wait_until_equal("booked on the reload", &1.0, || {
        lb.metrics().sum("connections_closed_total", &[("reason", "reloaded")])
    });
    let mut client = Reader::of(connect(lb.address()));
    client.send(request);
    let answer = client.response();
    assert!(answer.text().contains("X-Set: second"), "{}", answer.text());
    assert_eq!(answer.header("Connection"), None);
    drop(client);
    wait_until("no connection is active", || lb.metrics().sum("connections_active", &[]) == 0.0);
    assert_eq!(lb.metrics().sum("http_requests_total", &[("code", "200")]), 6.0);
}

#[test]
fn a_kept_http_connection_follows_its_pool_and_is_not_closed() {
    let (one, two) = (Origin::new(), Origin::new());
    let config = |backend: SocketAddr| format!("mode: http\nlisten: 127.0.0.1:0\nbackends: ['{backend}']\n");
    let lb = Lb::with_config(&config(one.address())).start();
    let mut client = Reader::of(connect(lb.address()));
    for (origin, requests) in [(&one, 1), (&two, 1), (&one, 2), (&two, 2)] {
        lb.reload_with(&config(origin.address()));
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        let answer = client.response();
        assert_eq!((answer.status(), answer.header("Connection")), (200, None));
        assert_eq!(origin.requests().len(), requests);
    }
}

#[test]
fn kept_connections_to_what_a_reload_takes_away_are_closed() {
    let (backend, other) = (Origin::new(), Origin::new());
    let config = |pools: &str| {
        format!(
            "listeners:\n  a: {{bind: '127.0.0.1:0', mode: http, pool: a}}\npools:\n  a: {{backends: ['{}']}}\n{pools}",
            other.address()
        )
    };
    let listener = "  b: {bind: '127.0.0.1:0', mode: http, pool: b}\n";
    let with_both = |backends: &str| {
        config(&format!("  b: {{backends: [{backends}]}}\n")).replace("pools:", &format!("{listener}pools:"))
    };
    let [gone, stays] = [&backend, &other].map(|origin| origin.address().to_string());
    let lb = Lb::with_config(&with_both(&format!("'{gone}'"))).start();
    let ask = || assert_eq!(get(lb.address_now("b"), "/").status, 200);
    // The backend goes, then the whole pool: each would keep its connections for a minute more.
    for next in [with_both(&format!("'{stays}'")), config("")] {
        lb.reload_with(&with_both(&format!("'{gone}'")));
        ask();
        assert_eq!(backend.open_connections(), 1);
        lb.reload_with(&next);
        wait_until_equal("connections that it still has", &0, || backend.open_connections());
    }
}

#[test]
fn no_more_connections_are_kept_than_are_allowed_before_and_after_a_reload() {
    const CLIENTS: usize = 4;
    let origin = Origin::new();
    let config = |most: usize| {
        format!(
            "mode: http\nworkers: 1\nlisten: 127.0.0.1:0\nbackends: ['{}']\n\
             http: {{backend_keep_alive: {{idle_connections: {most}}}}}\n",
            origin.address()
        )
    };
    let lb = Lb::with_config(&config(3)).start();
    let kept = || lb.metrics().sum("backend_connections_idle", &[]);
    let mut clients: Vec<Reader> = (0..CLIENTS).map(|_| Reader::of(connect(lb.address()))).collect();
    // All at once: each has a connection of its own.
    clients.iter_mut().for_each(|client| client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\n"));
    wait_until_equal("connections", &CLIENTS, || origin.open_connections());
    for client in &mut clients {
        client.send("x");
        assert_eq!(client.response().status(), 200);
    }
    wait_until_equal("kept connections", &3.0, kept);
    wait_until_equal("connections", &3, || origin.open_connections());
    lb.reload_with(&config(1));
    assert_eq!(get(lb.address(), "/").status, 200);
    wait_until_equal("kept connections", &1.0, kept);
    wait_until_equal("connections", &1, || origin.open_connections());
}

#[test]
fn a_request_under_way_is_answered_by_the_backend_that_has_it() {
    let pairs = Pairs::new();
    let other = Origin::new();
    let (address, further) = (free_port(), free_port());
    let config = |bind: SocketAddr, backend: SocketAddr| {
        format!("mode: http\nlisten: '{bind}'\nbackends: ['{backend}']\ntimeouts: {{idle: 5m}}\n")
    };
    let lb = Lb::with_config(&config(address, pairs.address())).start();
    let mut client = Reader::of(connect(address));
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n12345");
    let mut backend = pairs.accept();
    let mut head = Vec::new();
    wait_until("the first half arrives", || {
        let mut piece = [0; 1000];
        let length = backend.read(&mut piece).unwrap();
        head.extend_from_slice(&piece[..length]);
        head.ends_with(b"\r\n\r\n12345")
    });
    // The listener moves away, its pool has another backend.
    lb.reload_with(&config(further, other.address()));
    client.send("67890");
    let mut rest = [0; 5];
    backend.read_exact(&mut rest).unwrap();
    assert_eq!(&rest, b"67890");
    let answering = thread::spawn(move || {
        backend.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ndo").unwrap();
        backend.write_all(b"ne").unwrap();
        backend
    });
    let answer = client.response();
    assert_eq!((answer.text().as_str(), answer.header("Connection")), ("done", Some("close")));
    assert!(client.is_at_end());
    drop(answering.join().unwrap());
    lb.access_log(1);
    assert_eq!(other.connections(), 0);
}
