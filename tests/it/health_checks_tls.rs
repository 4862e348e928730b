//! Health checks over TLS: certificates that are good, expired, for others, unknown; and what is said of them.

use std::net::SocketAddr;
use std::path::Path;

use crate::support::{Authority, Lb, run_to_end, tls_nginx, wait_for, wait_until};

fn lb(backend: SocketAddr, check: &str) -> Lb {
    let quick = "interval: 50ms, timeout: 2s, rise: 2, fall: 3";
    Lb::in_front_of(&[backend]).set("health_check", format!("{{{quick}, {check}}}")).start()
}

#[track_caller]
fn assert_passes(backend: SocketAddr, check: &str) {
    let lb = lb(backend, check);
    wait_until("three checks went well", || {
        let report = lb.backend(backend);
        assert_ne!(report["state"], "down", "{check}: {report}");
        lb.metrics().sum("health_checks_total", &[("result", "success")]) >= 3.0
    });
}

#[track_caller]
fn assert_fails(backend: SocketAddr, check: &str, reason: &str) {
    let lb = lb(backend, check);
    let is_down = || Some(lb.backend(backend)).filter(|report| report["state"] == "down");
    let report = wait_for(&format!("it is down: {check}"), is_down);
    assert_eq!(report["last_check"]["reason"], reason, "{check}");
}

#[test]
fn a_good_certificate_passes_and_the_request_goes_inside() {
    let authority = Authority::new();
    authority.signed("good", "IP:127.0.0.1,DNS:app.example", None);
    let server = tls_nginx(&authority, "good", "");
    let tls = format!("tls: {{ca_file: '{}'}}", authority.path("ca.pem"));
    assert_passes(server.address(), &tls);
    assert_passes(server.address(), &format!("{tls}, http: {{path: /readyz, status: 200, body: {{contains: ready}}}}"));
    assert_passes(server.address(), &tls.replace('}', ", server_name: app.example}"));
    assert_fails(server.address(), &format!("{tls}, http: {{path: /gone}}"), "GET /gone answered 404");
}

#[test]
fn a_bad_certificate_is_said_to_be_what_it_is_and_passes_where_nobody_looks() {
    let authority = Authority::new();
    let ca = authority.path("ca.pem");
    let trusting = format!("tls: {{ca_file: '{ca}'}}");
    authority.signed("other", "DNS:a.example", None);
    let other = tls_nginx(&authority, "other", "");
    assert_fails(other.address(), &trusting, "certificate is for a.example, not 127.0.0.1");
    let named = format!("tls: {{ca_file: '{ca}', server_name: b.example}}");
    assert_fails(other.address(), &named, "certificate is for a.example, not b.example");
    authority.signed("old", "IP:127.0.0.1", Some("2020-01-01"));
    let old = tls_nginx(&authority, "old", "");
    assert_fails(old.address(), &trusting, "certificate expired on 2020-01-11");
    authority.self_signed("self", "IP:127.0.0.1");
    let own = tls_nginx(&authority, "self", "");
    let unknown = "certificate isn't signed by a known authority (self-signed; name it in `ca_file`, or `verify: off`)";
    assert_fails(own.address(), &trusting, unknown);
    for server in [&other, &old, &own] {
        assert_passes(server.address(), "tls: {verify: off}, http: {path: /readyz}");
    }
    assert_passes(own.address(), &format!("tls: {{ca_file: '{}'}}", authority.path("self.pem")));
    let misnamed = format!("tls: {{ca_file: '{}', server_name: a.example}}", authority.path("self.pem"));
    assert_fails(own.address(), &misnamed, "certificate is for 127.0.0.1, not a.example");
    assert_fails(own.address(), &trusting.replace("ca.pem", "other.pem"), unknown);
}

#[test]
fn a_server_that_wants_a_certificate_gets_one() {
    let authority = Authority::new();
    authority.signed("good", "IP:127.0.0.1", None);
    authority.signed("lb", "DNS:lb.example", None);
    let (ca, cert, key) = (authority.path("ca.pem"), authority.path("lb.pem"), authority.path("lb.key"));
    let server = tls_nginx(&authority, "good", &format!("ssl_client_certificate {ca}; ssl_verify_client on;"));
    let http = "http: {path: /readyz, status: 200}";
    assert_passes(server.address(), &format!("tls: {{ca_file: '{ca}', cert: '{cert}', key: '{key}'}}, {http}"));
    assert_fails(server.address(), &format!("tls: {{ca_file: '{ca}'}}, {http}"), "GET /readyz answered 400");
    // Both in one file.
    let both = std::fs::read_to_string(&cert).unwrap() + &std::fs::read_to_string(&key).unwrap();
    authority.folder.write("both.pem", both);
    let both = authority.path("both.pem");
    assert_passes(server.address(), &format!("tls: {{ca_file: '{ca}', cert: '{both}'}}, {http}"));
}

#[test]
fn a_server_without_tls_is_said_to_have_none() {
    let plain = crate::support::Server::that(|mut stream| {
        use std::io::{Read, Write};
        let _ = stream.read(&mut [0; 1024]);
        let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n");
    });
    assert_fails(plain.address(), "tls: {verify: off}", "the server doesn't speak TLS here");
    let silent = crate::support::Server::ignoring();
    // Without a check most of the time, so that none is open when files are counted.
    let check = "{interval: 600ms, timeout: 200ms, tls: {verify: off}}";
    let lb = Lb::in_front_of(&[silent.address()]).set("health_check", check).start();
    let reason = "health check: no end of the TLS handshake within 200ms";
    wait_until("it is down", || lb.backend(silent.address())["reason"] == reason);
}

#[track_caller]
fn refusal(folder: &Path, check: &str) -> String {
    let yaml = format!("listen: 127.0.0.1:0\nbackends: [127.0.0.1:1]\nhealth_check: {{{check}}}\n");
    std::fs::write(folder.join("lb.yaml"), yaml).unwrap();
    let output = run_to_end(folder, &["check"], &[]);
    assert_eq!(output.status.code(), Some(2), "{check}");
    String::from_utf8(output.stderr).unwrap()
}

#[test]
fn wrong_files_are_found_before_anything_starts() {
    let authority = Authority::new();
    authority.signed("one", "DNS:one.example", None);
    authority.signed("two", "DNS:two.example", None);
    authority.folder.write("none.pem", "nothing here\n");
    for (tls, expected) in [
        ("{ca_file: missing.pem}", "health_check.tls.ca_file missing.pem: can't be read: No such file"),
        ("{ca_file: none.pem}", "health_check.tls.ca_file none.pem: has no certificate (PEM, BEGIN CERTIFICATE)"),
        ("{verify: off, ca_file: ca.pem}", "health_check.tls.ca_file is not used with `verify: off`"),
        ("{ca_file: ca.pem, key: one.key}", "health_check.tls.key needs a `cert`"),
        ("{ca_file: ca.pem, cert: one.pem}", "health_check.tls.cert one.pem: has no private key"),
        ("{ca_file: ca.pem, cert: one.pem, key: none.pem}", "health_check.tls.key none.pem: has no private key"),
        (
            "{ca_file: ca.pem, cert: one.pem, key: two.key}",
            "health_check.tls.key the key is not that of the certificate",
        ),
        ("{ca_file: ca.pem, server_name: 'a b'}", "health_check.tls.server_name `a b` is not a host name"),
    ] {
        let errors = refusal(authority.folder.path(), &format!("tls: {tls}"));
        assert!(errors.contains(expected), "{tls}:\n{errors}");
    }
}
