//! A stop with many connections, in the order of Kubernetes, by the API, and with clients in the kernel's queue.

use std::io::Write;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::support::{
    Ending, Lb, Load, Origin, Pairs, Reader, Server, allow_open_files, connect, get, is_listened_on, read_to_end,
    short_read, wait_until, wait_until_equal,
};

#[track_caller]
fn assert_works(client: &mut TcpStream) {
    client.write_all(b"are you there").unwrap();
    assert_eq!(short_read(client), "are you there");
}

#[test]
fn connections_that_end_in_time_see_no_error_and_the_rest_is_reset_and_counted() {
    const CONNECTIONS: usize = 500;
    // Enough for all that leave, on a busy machine, too.
    const DRAIN: Duration = Duration::from_secs(6);
    allow_open_files(3 * CONNECTIONS as u64);
    let server = Server::echo();
    let mut lb = Lb::in_front_of(&[server.address()]).set("drain.timeout", format!("{}s", DRAIN.as_secs())).start();
    let mut leaving: Vec<TcpStream> = (0..CONNECTIONS).map(|_| connect(lb.address())).collect();
    leaving.iter_mut().for_each(assert_works);
    let mut staying = leaving.split_off(CONNECTIONS / 2);
    let began = Instant::now();
    lb.signal(Signal::TERM);
    wait_until("it drains", || lb.ask("/readyz").status == 503);
    for client in &mut leaving {
        assert_works(client);
        client.shutdown(std::net::Shutdown::Write).unwrap();
        assert_eq!(read_to_end(client), (Vec::new(), Ending::Clean));
    }
    let active = || lb.api("/api/v1/status")["connections"]["active"].clone();
    wait_until_equal("connections that stay", &staying.len().into(), active);
    staying.iter_mut().for_each(assert_works);
    for client in &mut staying {
        assert_eq!(read_to_end(client), (Vec::new(), Ending::Reset));
    }
    assert!(began.elapsed() >= DRAIN, "they had only {:?}", began.elapsed());
    assert_eq!(lb.wait_for_end().code(), Some(0));
    let lines = lb.access_log(CONNECTIONS);
    let forced = lines.iter().filter(|line| line["cause"] == "drain_forced").count();
    assert_eq!(forced, staying.len());
    assert_eq!(lb.log_lines_with("stopped")[0]["forced"], staying.len());
}

#[test]
fn who_stops_coming_when_readiness_turns_sees_no_error_at_all() {
    let server = Load::server();
    let mut lb = Lb::in_front_of(&[server.address()]).set("drain.grace", "2s").with(&["--access-log", "off"]).start();
    let load = Load::on(lb.address(), 4, 20);
    load.goes_on(50);
    lb.signal(Signal::TERM);
    wait_until("it is not ready any more", || lb.ask("/readyz").status == 503);
    // The endpoint is taken out of the service only after a while: who doesn't know yet is served.
    load.goes_on(50);
    assert_eq!(lb.ask("/healthz").status, 200, "else it would be killed");
    load.end();
    wait_until("nobody listens", || !is_listened_on(lb.address()));
    assert_eq!(lb.wait_for_end().code(), Some(0));
    assert_eq!(lb.log_lines_with("stopped")[0]["forced"], 0);
}

#[test]
fn a_kept_http_client_that_asks_just_after_the_doors_closed_is_answered() {
    let origin = Origin::new();
    let mut lb = Lb::in_front_of(&[origin.address()]).with(&["--mode", "http"]).start();
    let mut client = Reader::of(connect(lb.address()));
    let mut ask = || {
        client.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n");
        let answer = client.response();
        (answer.status(), answer.header("connection").map(str::to_owned))
    };
    assert_eq!(ask(), (200, None));
    lb.signal(Signal::TERM);
    wait_until("nobody listens", || !is_listened_on(lb.address()));
    assert_eq!(ask(), (200, Some("close".to_owned())), "it hears of the stop with an answer, and loses nothing");
    assert_eq!(lb.wait_for_end().code(), Some(0));
    assert_eq!(lb.log_lines_with("stopped")[0]["forced"], 0);
}

#[test]
fn what_the_drain_closes_is_booked_on_it() {
    let request = "GET / HTTP/1.1\r\nHost: h\r\n\r\n";
    for grace in ["0s", "1h"] {
        let (origin, stalled) = (Origin::new(), Server::ignoring());
        let yaml = format!(
            "listeners:\n  web: {{bind: '127.0.0.1:0', mode: http, pool: web}}\n  \
             held: {{bind: '127.0.0.1:0', pool: held}}\n\
             pools:\n  web: {{backends: ['{}']}}\n  held: {{backends: ['{}']}}\ndrain: {{grace: {grace}}}\n",
            origin.address(),
            stalled.address(),
        );
        let mut lb = Lb::with_config(&yaml).start();
        // Keeps the drain, and so the metrics, going.
        let held = connect(lb.address_now("held"));
        let mut client = Reader::of(connect(lb.address_now("web")));
        client.send(request);
        assert_eq!(client.response().status(), 200);
        lb.signal(Signal::TERM);
        wait_until("it drains", || lb.ask("/readyz").status == 503);
        if grace == "1h" {
            client.send(request);
            assert_eq!(client.response().header("connection"), Some("close"));
        }
        assert!(client.is_at_end(), "cleanly");
        let closed = |reason| lb.metrics().sum("connections_closed_total", &[("listener", "web"), ("reason", reason)]);
        wait_until_equal("drained", &1.0, || closed("drained"));
        drop(client);
        assert_eq!(closed("client_closed") + closed("backend_closed"), 0.0);
        lb.signal(Signal::TERM);
        drop(held);
        assert_eq!(lb.wait_for_end().code(), Some(0));
    }
}

#[test]
fn a_client_whose_connect_hangs_at_the_end_of_the_drain_is_reset() {
    let hanging = Server::blackhole();
    for mode in ["tcp", "http"] {
        let lb = Lb::in_front_of(&[hanging.address()]).with(&["--mode", mode, "--drain-timeout", "100ms"]);
        let mut lb = lb.set("connect_timeout", "1h").start();
        let mut client = connect(lb.address());
        client.write_all(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n").unwrap();
        wait_until("it connects", || lb.backend(hanging.address())["active"] == 1);
        lb.signal(Signal::TERM);
        assert_eq!(read_to_end(&mut client), (Vec::new(), Ending::Reset), "mode {mode}");
        assert_eq!(lb.wait_for_end().code(), Some(0));
        assert_eq!(lb.only_access()["cause"], "drain_forced");
    }
}

#[test]
fn the_api_asks_for_a_drain_and_one_signal_then_cuts_it_short() {
    for is_cut in [false, true] {
        let server = Server::echo();
        let mut lb = Lb::in_front_of(&[server.address()]).with(&["--drain-timeout", "1h"]).start();
        let mut held = connect(lb.address());
        assert_works(&mut held);
        assert_eq!(lb.post("/api/v1/shutdown").0, 202);
        wait_until("nobody listens", || !is_listened_on(lb.address()));
        assert_eq!(lb.ask("/readyz").status, 503);
        assert_eq!(lb.post("/api/v1/shutdown").0, 202, "asking again changes nothing");
        assert_works(&mut held);
        if is_cut {
            lb.signal(Signal::INT);
            assert_eq!(read_to_end(&mut held), (Vec::new(), Ending::Reset));
        } else {
            drop(held);
        }
        assert_eq!(lb.wait_for_end().code(), Some(0));
        let cause = if is_cut { "drain_forced" } else { "client_closed" };
        assert_eq!(lb.only_access()["cause"], cause);
    }
}

#[test]
fn a_second_signal_cuts_the_grace_time_short() {
    let server = Server::named("here");
    let mut lb = Lb::in_front_of(&[server.address()]).set("drain.grace", "1h").start();
    lb.signal(Signal::TERM);
    wait_until("it is not ready any more", || lb.ask("/readyz").status == 503);
    assert_eq!(get(lb.address(), "/").body, "here");
    // A reload or an upgrade has no meaning any more.
    lb.signal(Signal::HUP);
    lb.signal(Signal::USR2);
    assert_eq!(get(lb.address(), "/").body, "here");
    lb.signal(Signal::TERM);
    assert_eq!(lb.wait_for_end().code(), Some(0));
    assert!(lb.log_lines_with("upgrading: a new process was started").is_empty());
}

#[test]
fn a_reload_that_is_asked_for_during_the_drain_is_answered() {
    let pairs = Pairs::new();
    let config = format!("listen: 127.0.0.1:0\nbackends: ['{}']\n", pairs.address());
    let mut lb = Lb::with_config(&config).with(&["--drain-timeout", "5s"]).start();
    let held = pairs.connect(&lb);
    lb.signal(Signal::TERM);
    wait_until("it is not ready any more", || lb.ask("/readyz").status == 503);
    let (status, said) = lb.post("/api/v1/reload");
    assert!(status == 503 && said.contains("stopping"), "{status} {said}");
    drop(held);
    assert_eq!(lb.wait_for_end().code(), Some(0));
}

#[test]
fn clients_in_the_kernels_queue_at_the_signal_are_served() {
    const CLIENTS: usize = 40;
    let server = Server::echo();
    let mut lb = Lb::in_front_of(&[server.address()]).start();
    // Stopped, it accepts nobody; the kernel does, and keeps them for it, and the signal too.
    lb.signal(Signal::STOP);
    let mut clients: Vec<TcpStream> = (0..CLIENTS).map(|_| connect(lb.address())).collect();
    clients.iter_mut().for_each(|client| client.write_all(b"let me in").unwrap());
    lb.signal(Signal::TERM);
    lb.signal(Signal::CONT);
    for client in &mut clients {
        assert_eq!(short_read(client), "let me in");
    }
    drop(clients);
    assert_eq!(lb.wait_for_end().code(), Some(0));
    assert!(lb.access_log(CLIENTS).iter().all(|line| line["cause"] == "client_closed"));
}

#[test]
fn clients_in_the_kernels_queue_at_an_upgrade_are_served() {
    let server = Server::echo();
    let mut lb = Lb::in_front_of(&[server.address()]).start();
    lb.signal(Signal::STOP);
    let mut clients: Vec<TcpStream> = (0..40).map(|_| connect(lb.address())).collect();
    clients.iter_mut().for_each(|client| client.write_all(b"let me in").unwrap());
    lb.signal(Signal::USR2);
    lb.signal(Signal::CONT);
    for client in &mut clients {
        assert_eq!(short_read(client), "let me in");
    }
    drop(clients);
    assert_eq!(lb.first_process_ended(), Some(0));
    lb.access_log(40);
}
