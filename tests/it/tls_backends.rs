//! TLS to backends: whose certificates are good, and what is said of the others.

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use crate::support::{Authority, Lb, Program, Server, get, get_from, tls_nginx, wait_until_equal};

/// In http mode; nothing is ejected, so that each backend is asked.
fn lb(backends: &[SocketAddr], tls: &str) -> Lb {
    let backends = backends.iter().map(|address| format!("'{address}'")).collect::<Vec<_>>().join(", ");
    let config = format!(
        "listeners: {{web: {{bind: 127.0.0.1:0, mode: http}}}}\n\
         pools: {{app: {{backends: [{backends}], failure_detection: off, tls: {tls}}}}}\n"
    );
    Lb::with_config(&config).start()
}

#[track_caller]
fn assert_refused(backend: &Program, tls: &str, words: &str) {
    let lb = lb(&[backend.address()], tls);
    assert_eq!(get(lb.address(), "/readyz").status, 503, "{tls}");
    let error = lb.backend(backend.address())["last_error"].to_string();
    assert!(error.contains(words), "{tls}: {error}");
    let failures = lb.metrics().sum("backend_connect_failures_total", &[("reason", "tls")]);
    assert_eq!(failures, 1.0, "{tls}");
}

#[test]
fn a_bad_certificate_is_a_failed_connect_and_said_to_be_what_it_is() {
    let authority = Authority::new();
    authority.signed("good", "IP:127.0.0.1,DNS:app.example", None);
    authority.signed("old", "IP:127.0.0.1", Some("2020-01-01"));
    authority.signed("revoked", "IP:127.0.0.1", None);
    authority.self_signed("self", "IP:127.0.0.1");
    authority.sign("foreign", "IP:127.0.0.1").by("self").done();
    authority.revoke(&["revoked"]);
    let [good, old, revoked, own, foreign] =
        ["good", "old", "revoked", "self", "foreign"].map(|name| tls_nginx(&authority, name, ""));
    let ca = format!("ca_file: '{}'", authority.path("ca.pem"));
    let crl = format!("{ca}, crl_file: '{}'", authority.path("crl.pem"));
    assert_refused(&old, &format!("{{{ca}}}"), "certificate expired on 2020-01-11");
    assert_refused(&revoked, &format!("{{{crl}}}"), "certificate was revoked");
    assert_refused(&own, &format!("{{{ca}}}"), "isn't signed by a known authority (self-signed");
    assert_refused(&foreign, &format!("{{{ca}}}"), "isn't signed by a known authority");
    let other = format!("{{{ca}, server_name: b.example}}");
    assert_refused(&good, &other, "certificate is for 127.0.0.1, app.example, not b.example");
    // The good one takes what the others fail at.
    let lb = lb(&[old.address(), good.address()], &format!("{{{crl}, server_name: app.example}}"));
    for _ in 0..4 {
        assert_eq!(get(lb.address(), "/readyz").status, 200);
    }
    assert!(lb.metrics().sum("retries_total", &[]) >= 2.0);
}

#[test]
fn a_backend_gets_the_certificate_that_it_wants() {
    let authority = Authority::new();
    authority.signed("good", "IP:127.0.0.1", None);
    authority.sign("lb", "DNS:lb.example").subject("/O=Example/CN=lb").done();
    let wants = format!(
        "ssl_client_certificate {}; ssl_verify_client on; location /who {{ return 200 $ssl_client_s_dn; }}",
        authority.path("ca.pem")
    );
    let backend = tls_nginx(&authority, "good", &wants);
    let (ca, cert, key) = (authority.path("ca.pem"), authority.path("lb.pem"), authority.path("lb.key"));
    let with = lb(&[backend.address()], &format!("{{ca_file: '{ca}', cert: '{cert}', key: '{key}'}}"));
    assert_eq!(get(with.address(), "/who").body, "CN=lb,O=Example");
    let without = lb(&[backend.address()], &format!("{{ca_file: '{ca}'}}"));
    assert_eq!(get_from(without.address(), "/who").unwrap().status, 400, "nginx says so within TLS");
    wait_until_equal("both were asked", &1.0, || without.metrics().sum("backend_connections_total", &[]));
}

#[test]
fn after_a_reload_that_adds_tls_no_request_goes_by_a_connection_without() {
    let first_bytes = Arc::<Mutex<Vec<u8>>>::default();
    let server = Server::that({
        let first_bytes = first_bytes.clone();
        move |mut stream| {
            let mut request = [0; 4096];
            let received = stream.read(&mut request).unwrap_or(0);
            first_bytes.lock().unwrap().push(request[0]);
            // Plain HTTP, for as many requests as come; of TLS it knows nothing.
            let mut more = received;
            while more > 0 && request[0] == b'G' {
                stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").unwrap();
                more = stream.read(&mut request).unwrap_or(0);
            }
        }
    });
    let yaml = |tls: &str| {
        let pool = format!("{{backends: ['{}']{tls}}}", server.address());
        format!("workers: 1\nlisteners: {{a: {{bind: '127.0.0.1:0', mode: http, pool: p}}}}\npools: {{p: {pool}}}\n")
    };
    let lb = Lb::with_config(&yaml("")).start();
    for _ in 0..2 {
        assert_eq!(get(lb.address(), "/").status, 200);
    }
    assert_eq!(*first_bytes.lock().unwrap(), b"G", "the connection is reused");
    assert_eq!(lb.reload_with(&yaml(", tls: {verify: off}")), "configuration reloaded");
    assert_eq!(get(lb.address(), "/").status, 503);
    // A handshake record (RFC 8446, 5.1).
    assert_eq!(first_bytes.lock().unwrap()[1], 22);
}
