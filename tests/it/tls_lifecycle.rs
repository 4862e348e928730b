//! Open TLS connections while the balancer is reloaded, handed over, stopped.

use std::io::{Read, Write};

use rustix::process::Signal;

use crate::support::{Authority, Lb, Origin, Server, TlsEnd, TlsEnding, connect, has_ended, tls_server, wait_until};

const CONNECTIONS: usize = 20;

fn authority() -> Authority {
    let authority = Authority::new();
    authority.signed("app", "DNS:localhost,IP:127.0.0.1", None);
    authority
}

/// With TLS from clients and to an echo server.
fn yaml(authority: &Authority, backend: &Server, more: &str) -> String {
    format!(
        "{more}listeners:\n  main:\n    bind: 127.0.0.1:0\n    pool: app\n    tls: {{certificates: [{}]}}\npools:\n  \
         app:\n    backends: ['{}']\n    tls: {{ca_file: '{}'}}\n",
        authority.pair("app"),
        backend.address(),
        authority.path("ca.pem")
    )
}

fn echo(authority: &Authority) -> Server {
    let config = tls_server(authority, "app");
    Server::that(move |stream| {
        let Ok(mut tls) = TlsEnd::accept(stream, &config) else { return };
        let mut buffer = [0; 4096];
        while let Ok(length @ 1..) = tls.read(&mut buffer) {
            tls.write_all(&buffer[..length]).unwrap();
        }
        // The client may have been reset.
        let _ = tls.end();
    })
}

#[track_caller]
fn assert_echoes(client: &mut TlsEnd, message: &str) {
    client.write_all(message.as_bytes()).unwrap();
    let mut answer = vec![0; message.len()];
    client.read_exact(&mut answer).unwrap();
    assert_eq!(answer, message.as_bytes());
}

#[track_caller]
fn end_cleanly(mut client: TlsEnd) {
    client.end().unwrap();
    assert_eq!(client.read_all(), (Vec::new(), TlsEnding::Clean));
}

#[test]
fn open_connections_are_served_through_reloads_and_upgrades_to_their_clean_end() {
    let authority = authority();
    let server = echo(&authority);
    let mut lb = Lb::with_config(&yaml(&authority, &server, "")).start();
    let mut clients: Vec<TlsEnd> = Vec::new();
    let mut former = Vec::new();
    for round in 0..4 {
        clients.extend((0..CONNECTIONS / 4).map(|_| TlsEnd::connect(lb.address(), &authority)));
        if round % 2 == 0 {
            // Other settings of the TLS to backends and of the listener: what is open keeps its own.
            let changed = yaml(&authority, &server, "").replace("tls: {cert", "tls: {min_version: '1.3', cert");
            lb.reload_with(&changed.replace("ca_file:", &format!("alpn: [round-{round}], ca_file:")));
        } else {
            former.push(lb.upgrade());
        }
        clients.iter_mut().for_each(|client| assert_echoes(client, &format!("round {round}")));
    }
    assert!(former.iter().all(|pid| !has_ended(*pid)), "they have connections");
    clients.into_iter().for_each(end_cleanly);
    assert_eq!(lb.first_process_ended(), Some(0));
    wait_until("the former processes end", || former.iter().all(|pid| has_ended(*pid)));
    let stopped = lb.wait_for_log("stopped", former.len());
    assert!(stopped.iter().all(|line| line["forced"] == 0), "{stopped:?}");
    let lines = lb.access_log(CONNECTIONS);
    assert!(lines.iter().all(|line| line["cause"] == "client_closed" && line["tls_version"] == "TLSv1.3"), "{lines:?}");
}

#[test]
fn a_drain_lets_connections_end_by_themselves_and_resets_the_rest() {
    let authority = authority();
    let server = echo(&authority);
    let mut lb = Lb::with_config(&yaml(&authority, &server, "drain: {timeout: 3s}\n")).start();
    let mut leaving = TlsEnd::connect(lb.address(), &authority);
    let mut staying = TlsEnd::connect(lb.address(), &authority);
    for client in [&mut leaving, &mut staying] {
        assert_echoes(client, "before");
    }
    let silent = connect(lb.address());
    wait_until("all are accepted", || lb.metrics().sum("connections_accepted_total", &[]) == 3.0);
    lb.signal(Signal::TERM);
    wait_until("it drains", || lb.ask("/readyz").status == 503);
    for client in [&mut leaving, &mut staying] {
        assert_echoes(client, "meanwhile");
    }
    end_cleanly(leaving);
    assert_eq!(staying.read_all(), (Vec::new(), TlsEnding::Reset), "not a clean end");
    assert_eq!(lb.wait_for_end().code(), Some(0));
    drop(silent);
    let causes: Vec<_> = lb.access_log(3).iter().map(|line| line["cause"].clone()).collect();
    for (cause, connections) in [("client_closed", 1), ("drain_forced", 2)] {
        assert_eq!(causes.iter().filter(|of| **of == cause).count(), connections, "{cause}: {causes:?}");
    }
}

#[test]
fn an_idle_https_client_is_told_of_the_drain_by_close_notify() {
    let authority = authority();
    let origin = Origin::new();
    let yaml = format!(
        "listen: 127.0.0.1:0\nmode: http\ntls: {{certificates: [{}]}}\nbackends: ['{}']\ndrain: {{timeout: 30s}}\n",
        authority.pair("app"),
        origin.address()
    );
    let mut lb = Lb::with_config(&yaml).start();
    let mut client = TlsEnd::connect(lb.address(), &authority);
    client.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    let mut first = [0; 15];
    client.read_exact(&mut first).unwrap();
    assert_eq!(&first, b"HTTP/1.1 200 OK");
    lb.access_log(1);
    lb.signal(Signal::TERM);
    // What is left of the answer, and the end.
    assert_eq!(client.read_all().1, TlsEnding::Clean);
    assert_eq!(lb.wait_for_end().code(), Some(0));
    assert_eq!(lb.log_lines_with("stopped")[0]["forced"], 0);
}
