//! Limits, and the way from a signal to a clean end.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::support::{
    Ending, Folder, Lb, Server, allow_open_files, connect, connect_and_read, get, get_from, read_to_end, short_read,
    wait_until,
};

/// A connection through the balancer that works.
#[track_caller]
fn established(lb: &Lb) -> TcpStream {
    let mut client = connect(lb.address());
    assert_works(&mut client);
    client
}

#[track_caller]
fn assert_works(client: &mut TcpStream) {
    client.write_all(b"are you there").unwrap();
    assert_eq!(short_read(client), "are you there");
}

#[test]
fn two_thousand_connections_at_once_are_all_served_and_leave_nothing_behind() {
    const CONNECTIONS: usize = 2_000;
    allow_open_files(3 * CONNECTIONS as u64);
    let (one, two) = (Server::echo(), Server::echo());
    let lb = Lb::in_front_of(&[one.address(), two.address()]).start();
    let mut clients: Vec<TcpStream> = (0..CONNECTIONS).map(|_| connect(lb.address())).collect();
    for (number, client) in clients.iter_mut().enumerate() {
        write!(client, "client {number}").unwrap();
    }
    for (number, client) in clients.iter_mut().enumerate() {
        assert_eq!(short_read(client), format!("client {number}"));
    }
    assert_eq!(lb.metrics().sum("connections_active", &[]), 2_000.0);
    assert_eq!([one.accepted(), two.accepted()], [CONNECTIONS / 2; 2]);
    drop(clients);
    assert!(lb.access_log(CONNECTIONS).iter().all(|line| line["cause"] == "client_closed"));
}

#[test]
fn refuses_and_counts_connections_over_the_limit() {
    let server = Server::echo();
    let lb = Lb::in_front_of(&[server.address()]).with(&["--max-connections", "3"]).start();
    let mut clients: Vec<TcpStream> = (0..3).map(|_| established(&lb)).collect();
    let (received, ending) = connect_and_read(lb.address());
    assert_eq!((received.as_slice(), ending), (b"".as_slice(), Ending::Reset));
    let line = lb.only_access();
    assert_eq!((&line["cause"], &line["reason"]), (&"rejected".into(), &"max_connections".into()));
    let metrics = lb.metrics();
    assert_eq!(metrics.sum("connections_rejected_total", &[("reason", "max_connections")]), 1.0);
    assert_eq!(metrics.sum("max_connections", &[]), 3.0);
    for client in &mut clients {
        assert_works(client);
    }
    drop(clients.pop());
    lb.access_log(2);
    wait_until("there is room again", || lb.metrics().sum("connections_active", &[]) == 2.0);
    clients.push(established(&lb));
    drop(clients);
}

#[test]
fn a_listener_has_a_limit_of_its_own() {
    let server = Server::echo();
    let lb = Lb::with_config(&format!(
        "listeners:\n  small: {{bind: 127.0.0.1:0, max_connections: 1}}\n  large: {{bind: 127.0.0.1:0}}\n\
         pools:\n  app: {{backends: ['{}']}}\n",
        server.address()
    ))
    .start();
    let mut first = connect(lb.address_of("small"));
    assert_works(&mut first);
    assert_eq!(connect_and_read(lb.address_of("small")), (Vec::new(), Ending::Reset));
    assert_works(&mut connect(lb.address_of("large")));
    let rejected = lb
        .metrics()
        .sum("connections_rejected_total", &[("listener", "small"), ("reason", "listener_max_connections")]);
    assert_eq!(rejected, 1.0);
    drop(first);
}

#[test]
fn running_out_of_files_passes_and_blames_nobody() {
    let server = Server::echo();
    let builder = Lb::in_front_of(&[server.address()]).with(&["--max-connections", "1000", "--workers", "1"]);
    let lb = builder.open_files_at_most(60).set("failure_detection.failures", 1).start();
    let clients: Vec<TcpStream> = (0..60).map(|_| connect(lb.address())).collect();
    wait_until("accept has failed", || lb.log_text().contains("accept failed"));
    drop(clients);
    wait_until("all are accepted after all", || lb.output_lines() >= 60);
    assert_works(&mut connect(lb.address()));
    assert_eq!(lb.state_of(server.address()), "up");
    assert!(lb.metrics().sum("accept_errors_total", &[("reason", "no_file")]) >= 1.0);
}

#[test]
fn a_stop_lets_connections_end_and_accepts_no_more() {
    for signal in [Signal::TERM, Signal::INT] {
        let server = Server::echo();
        let mut lb = Lb::in_front_of(&[server.address()]).start();
        let mut client = established(&lb);
        lb.signal(signal);
        wait_until("it is not ready any more", || lb.ask("/readyz").status == 503);
        let reason: serde_json::Value = serde_json::from_str(&lb.ask("/readyz").body).unwrap();
        assert_eq!(reason["error"], "draining");
        assert_eq!(lb.ask("/healthz").status, 200);
        assert_eq!(lb.api("/api/v1/status")["draining"], true);
        assert_eq!(lb.metrics().sum("draining", &[]), 1.0);
        wait_until("nobody is accepted", || TcpStream::connect(lb.address()).is_err());
        assert_works(&mut client);
        let address = client.local_addr().unwrap();
        drop(client);
        assert_eq!(lb.wait_for_end().code(), Some(0), "{signal:?}");
        // The attempts above may have been accepted before the stop was complete, and have lines of their own.
        assert_eq!(lb.access_of(address)["cause"], "client_closed");
    }
}

#[test]
fn a_stop_without_connections_is_immediate() {
    let server = Server::echo();
    let mut lb = Lb::in_front_of(&[server.address()]).with(&["--drain-timeout", "1h"]).start();
    lb.signal(Signal::TERM);
    assert_eq!(lb.wait_for_end().code(), Some(0));
}

#[test]
fn the_drain_ends_by_force_when_its_time_is_over() {
    let server = Server::echo();
    let mut lb = Lb::in_front_of(&[server.address()]).with(&["--drain-timeout", "300ms"]).start();
    let mut clients = [established(&lb), established(&lb)];
    let started = Instant::now();
    lb.signal(Signal::TERM);
    assert_eq!(lb.wait_for_end().code(), Some(0));
    assert!(started.elapsed() >= Duration::from_millis(300), "they had only {:?}", started.elapsed());
    for client in &mut clients {
        assert_eq!(read_to_end(client), (Vec::new(), Ending::Reset));
    }
    for line in lb.access_log(2) {
        assert_eq!(line["cause"], "drain_forced");
    }
    assert_eq!(lb.log_lines_with("stopped")[0]["forced"], 2, "counted");
}

#[test]
fn a_second_signal_stops_at_once() {
    let server = Server::echo();
    let mut lb = Lb::in_front_of(&[server.address()]).with(&["--drain-timeout", "1h"]).start();
    let mut client = established(&lb);
    lb.signal(Signal::TERM);
    wait_until("it drains", || lb.ask("/readyz").status == 503);
    lb.signal(Signal::TERM);
    assert_eq!(lb.wait_for_end().code(), Some(0));
    assert_eq!(read_to_end(&mut client), (Vec::new(), Ending::Reset));
    assert_eq!(lb.only_access()["cause"], "drain_forced");
}

#[test]
fn during_the_grace_time_it_still_accepts() {
    let server = Server::named("here");
    let mut lb = Lb::in_front_of(&[server.address()]).set("drain.grace", "2s").start();
    lb.signal(Signal::TERM);
    wait_until("it is not ready any more", || lb.ask("/readyz").status == 503);
    assert_eq!(get(lb.address(), "/").body, "here");
    wait_until("the grace time ends", || get_from(lb.address(), "/").is_err());
    assert_eq!(lb.wait_for_end().code(), Some(0));
}

#[test]
fn the_access_log_is_whole_after_a_stop_under_load() {
    const CLIENTS: usize = 300;
    let server = Server::named("here");
    let mut lb = Lb::in_front_of(&[server.address()]).start();
    for _ in 0..CLIENTS {
        assert_eq!(get(lb.address(), "/").body, "here");
    }
    lb.signal(Signal::TERM);
    lb.wait_for_end();
    lb.access_log(CLIENTS);
}

#[test]
fn listens_on_a_unix_socket_and_replaces_one_left_behind() {
    let folder = Folder::new();
    let path = folder.path().join("lb.sock");
    let server = Server::echo();
    let address = format!("unix:{}", path.display());
    for _ in 0..2 {
        // The second one finds the file of the first, which was killed.
        let backend = server.address().to_string();
        let lb = Lb::with_arguments(&["--listen", &address, "--backend", &backend, "--admin", "127.0.0.1:0"]).start();
        let mut client = UnixStream::connect(&path).unwrap();
        client.write_all(b"by file").unwrap();
        let mut answer = [0; 7];
        client.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"by file");
        drop(client);
        assert_eq!(lb.only_access()["client"], "unix:");
    }
}

#[test]
fn serves_several_addresses_of_both_families() {
    let server = Server::named("here");
    let config = format!("listen: ['127.0.0.1:0', '[::1]:0', '*:0']\nbackends: ['{}']\n", server.address());
    let lb = Lb::with_config(&config).start();
    let [v4, v6, any] = lb.addresses()[..] else { panic!("three addresses: {:?}", lb.addresses()) };
    assert!(v4.is_ipv4() && v6.is_ipv6() && any.is_ipv6());
    for address in [v4, v6, ([127, 0, 0, 1], any.port()).into(), (std::net::Ipv6Addr::LOCALHOST, any.port()).into()] {
        assert_eq!(get(address, "/").body, "here", "{address}");
    }
    let lines = lb.access_log(4);
    let of_v4 = lines.iter().filter(|line| line["client"].as_str().unwrap().starts_with("127.0.0.1:")).count();
    assert_eq!(of_v4, 2, "IPv4 clients have IPv4 addresses, wherever they connect: {lines:?}");
}
