//! Connections without a byte, and readers that are slow.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use crate::support::{
    Ending, Lb, Server, connect, has_keepalive_at_peer, read_to_end, receive_pattern, resident_bytes, send_pattern,
    short_read, shrink_receive_buffer, wait_until,
};

const MIB: usize = 1024 * 1024;

#[test]
fn an_idle_connection_is_closed_when_its_time_is_over() {
    let server = Server::greeting("hello");
    let lb = Lb::in_front_of(&[server.address()]).with(&["--idle-timeout", "1s"]).start();
    let started = Instant::now();
    let mut client = connect(lb.address());
    assert_eq!(short_read(&mut client), "hello");
    assert_eq!(read_to_end(&mut client), (Vec::new(), Ending::Reset), "it may not look like the whole answer");
    let lived = started.elapsed();
    assert!(lived >= Duration::from_secs(1), "closed after {lived:?}");
    assert_eq!(lb.only_access()["cause"], "idle_timeout");
}

#[test]
fn without_an_idle_limit_a_connection_stays() {
    let server = Server::echo();
    let yaml = format!(
        "listeners:\n  short: {{bind: '127.0.0.1:0', timeouts: {{idle: 300ms}}}}\n  \
         off: {{bind: '127.0.0.1:0', timeouts: {{idle: off}}}}\n  \
         no: {{bind: '127.0.0.1:0', timeouts: {{idle: false, half_closed: off}}}}\n\
         pools:\n  app: {{backends: ['{}'], tcp: {{keepalive: off}}}}\n",
        server.address()
    );
    let lb = Lb::with_config(&yaml).start();
    let [mut staying, mut half_closed] = ["off", "no"].map(|listener| connect(lb.address_now(listener)));
    half_closed.write_all(b"answer").unwrap();
    assert_eq!(short_read(&mut half_closed), "answer");
    // Those came first, and were idle for as long at least.
    for _ in 0..2 {
        assert_eq!(read_to_end(&mut connect(lb.address_now("short"))), (Vec::new(), Ending::Reset));
    }
    staying.write_all(b"still here").unwrap();
    assert_eq!(short_read(&mut staying), "still here");
    half_closed.shutdown(Shutdown::Write).unwrap();
    assert_eq!(read_to_end(&mut half_closed), (Vec::new(), Ending::Clean));
    drop(staying);
}

#[test]
fn the_sockets_to_clients_have_the_options_of_their_listener() {
    let server = Server::greeting("here");
    let config = |keepalive: &str| {
        format!(
            "listeners:\n  web: {{bind: '127.0.0.1:0', tcp: {{keepalive: {keepalive}}}}}\n\
             pools:\n  app: {{backends: ['{}'], tcp: {{keepalive: 0s}}}}\n",
            server.address()
        )
    };
    let lb = Lb::with_config(&config("1m")).start();
    let is_kept_alive = || {
        let mut client = connect(lb.address_now("web"));
        short_read(&mut client);
        has_keepalive_at_peer(&client)
    };
    assert!(is_kept_alive(), "though its pool has none");
    lb.reload_with(&config("off"));
    assert!(!is_kept_alive());
}

#[test]
fn a_connection_with_bytes_one_way_is_never_idle() {
    // For longer than the limit; a byte would have to be late by twenty times its pause to be idle.
    const BYTES: usize = 30;
    let server = Server::that(|mut stream| {
        for _ in 0..BYTES {
            stream.write_all(b".").unwrap();
            thread::sleep(Duration::from_millis(100));
        }
    });
    let lb = Lb::in_front_of(&[server.address()]).with(&["--idle-timeout", "2s"]).start();
    assert_eq!(read_to_end(&mut connect(lb.address())), (vec![b'.'; BYTES], Ending::Clean));
}

#[test]
fn a_quiet_connection_outlives_many_sweeps() {
    // Limits of 6 s are swept every 750 ms; each silence is three sweeps long and well within the limit.
    let server = Server::echo();
    let lb = Lb::in_front_of(&[server.address()]).with(&["--idle-timeout", "6s"]).start();
    let mut client = connect(lb.address());
    for _ in 0..2 {
        thread::sleep(Duration::from_millis(2500));
        client.write_all(b"still here").unwrap();
        assert_eq!(short_read(&mut client), "still here");
    }
    drop(client);
    assert_eq!(lb.only_access()["cause"], "client_closed");
}

#[test]
fn a_half_closed_connection_is_closed_when_its_time_is_over() {
    let server = Server::ignoring();
    let lb = Lb::in_front_of(&[server.address()]).set("timeouts.half_closed", "300ms").start();
    let mut client = connect(lb.address());
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(read_to_end(&mut client), (Vec::new(), Ending::Reset));
    assert_eq!(lb.only_access()["cause"], "half_closed_timeout");
}

#[test]
fn readers_that_stop_cost_little_memory_and_disturb_nobody() {
    const READERS: usize = 10;
    const LENGTH: usize = 24 * MIB;
    let sender = Server::that(|mut stream| {
        if short_read(&mut stream) == "ping" {
            stream.write_all(b"pong").unwrap();
        } else {
            send_pattern(&mut stream, LENGTH);
        }
    });
    let lb = Lb::in_front_of(&[sender.address()]).start();
    let before = resident_bytes(lb.pid());
    let mut readers: Vec<_> = (0..READERS)
        .map(|_| {
            let mut reader = connect(lb.address());
            shrink_receive_buffer(&reader);
            reader.write_all(b"everything").unwrap();
            reader
        })
        .collect();
    let bytes_out = || lb.metrics().sum("bytes_total", &[("direction", "out")]);
    let mut last = 0.0;
    wait_until("nothing moves any more", || {
        let now = bytes_out();
        thread::sleep(Duration::from_millis(100));
        std::mem::replace(&mut last, now) == now && now > 0.0
    });
    let grown = resident_bytes(lb.pid()).saturating_sub(before);
    assert!(grown < 8 * MIB as u64, "{READERS} stopped readers cost {grown} bytes");
    let mut other = connect(lb.address());
    other.write_all(b"ping").unwrap();
    assert_eq!(short_read(&mut other), "pong");
    for reader in &mut readers {
        assert_eq!(receive_pattern(reader), LENGTH);
    }
    drop((readers, other));
}

#[test]
fn a_backend_whose_first_byte_was_waited_for_is_probed_once_the_connection_stays() {
    let (sender, served) = mpsc::channel();
    let server = Server::that(move |mut stream| {
        let _ = stream.read(&mut [0; 8]);
        let _ = stream.write_all(b"answer");
        let _ = sender.send(stream.try_clone().unwrap());
        let _ = stream.read(&mut [0; 8]);
    });
    let lb = Lb::in_front_of(&[server.address()]).set("first_byte_timeout", "30s").set("tcp.keepalive", "1s").start();
    let mut client = connect(lb.address());
    client.write_all(b"a").unwrap();
    assert_eq!(short_read(&mut client), "answer");
    let at_backend = served.recv().unwrap();
    wait_until("the backend's connection is probed", || has_keepalive_at_peer(&at_backend));
}
