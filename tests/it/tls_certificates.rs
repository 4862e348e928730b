//! TLS from clients: which certificate each gets, which clients are let in, and what their backends are told.

use crate::support::{Authority, Lb, LbBuilder, Seen, Server, required, shake_hands, wait_until, wait_until_equal};

/// In mode tcp, in front of a server that greets.
fn lb(tls: &str) -> (Server, LbBuilder) {
    let server = Server::greeting("hello");
    let config = format!("listen: 127.0.0.1:0\nbackends: ['{}']\ntls: {{{tls}}}\n", server.address());
    (server, Lb::with_config(&config))
}

fn seen(lb: &Lb, authority: &Authority, arguments: &str) -> Seen {
    shake_hands(lb.address(), authority.folder.path(), arguments)
}

/// The name in the certificate that a client with these arguments gets.
fn shown(lb: &Lb, authority: &Authority, arguments: &str) -> Option<String> {
    seen(lb, authority, arguments).server()
}

fn three_certificates() -> Authority {
    let authority = Authority::new();
    authority.sign("first", "DNS:first.example").done();
    authority.sign("ecdsa", "DNS:a.example").done();
    authority.sign("rsa", "DNS:a.example,DNS:rsa.example").rsa().done();
    authority.sign("wild", "DNS:*.b.example").done();
    authority
}

fn pairs(authority: &Authority) -> String {
    let pairs = ["first", "rsa", "ecdsa", "wild"].map(|name| authority.pair(name));
    format!("certificates: [{}]", pairs.join(", "))
}

#[test]
fn the_name_and_what_a_client_can_verify_choose_the_certificate() {
    let authority = three_certificates();
    let (_server, lb) = lb(&pairs(&authority));
    let lb = lb.start();
    for (arguments, expected) in [
        ("-servername a.example", "ecdsa"),
        ("-servername A.Example", "ecdsa"),
        ("-servername a.example -sigalgs rsa_pss_rsae_sha256", "rsa"),
        ("-servername a.example -tls1_2 -cipher ECDHE-RSA-AES128-GCM-SHA256", "rsa"),
        ("-servername a.example -tls1_2", "ecdsa"),
        ("-servername rsa.example", "rsa"),
        ("-servername x.b.example", "wild"),
        ("-servername b.example", "first"),
        ("-servername x.y.b.example", "first"),
        ("-servername unknown.example", "first"),
        ("-noservername", "first"),
    ] {
        assert_eq!(shown(&lb, &authority, arguments).as_deref(), Some(expected), "{arguments}");
    }
}

#[test]
fn a_chain_is_shown_and_one_of_a_client_is_followed() {
    let authority = Authority::new();
    authority.sign("between", "DNS:between").authority().done();
    authority.sign("site", "DNS:site.example").by("between").done();
    authority.sign("alice", "DNS:alice").by("between").done();
    let read = |name| std::fs::read_to_string(authority.path(name)).unwrap();
    // All of it in one file.
    authority.folder.write("all.pem", read("site.pem") + &read("between.pem") + &read("site.key"));
    let auth = format!("client_auth: required, client_ca: '{}'", authority.path("ca.pem"));
    let (_server, lb) = lb(&format!("certificates: ['{}'], {auth}", authority.path("all.pem")));
    let lb = lb.start();
    let arguments =
        "-CAfile ca.pem -verify_hostname site.example -cert alice.pem -key alice.key -cert_chain between.pem";
    let seen = seen(&lb, &authority, arguments);
    assert_eq!(seen.after("Verify return code: "), Some("0 (ok)"), "{seen:?}");
    assert_eq!(lb.only_access()["client_cert"], "CN=alice");
}

#[test]
fn a_strict_listener_serves_the_names_of_its_certificates_alone() {
    let authority = three_certificates();
    let (_server, lb) = lb(&format!("{}, strict_sni: true", pairs(&authority)));
    let lb = lb.start();
    assert_eq!(shown(&lb, &authority, "-servername a.example").as_deref(), Some("ecdsa"));
    assert_eq!(shown(&lb, &authority, "-servername x.b.example").as_deref(), Some("wild"));
    for arguments in ["-servername unknown.example", "-noservername", "-servername unknown.example -tls1_2"] {
        assert_eq!(shown(&lb, &authority, arguments), None, "{arguments}");
    }
    lb.wait_for_rejections("tls_handshake", 3);
    let refused = lb.metrics().sum("tls_handshakes_total", &[("result", "unknown_name")]);
    assert_eq!(refused, 3.0);
}

#[test]
fn modern_versions_and_suites_are_spoken_and_no_others() {
    let authority = three_certificates();
    let (_server, lb) = lb(&format!("{}, alpn: [h2, imap]", pairs(&authority)));
    let lb = lb.start();
    let agreed = |arguments: &str| seen(&lb, &authority, arguments).agreed();
    for suite in ["TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256"] {
        assert_eq!(agreed(&format!("-tls1_3 -ciphersuites {suite}")), Some(format!("TLSv1.3 {suite}")));
    }
    for key in ["ECDSA", "RSA"] {
        for cipher in ["AES128-GCM-SHA256", "AES256-GCM-SHA384", "CHACHA20-POLY1305"] {
            let suite = format!("ECDHE-{key}-{cipher}");
            let arguments = format!("-tls1_2 -servername a.example -cipher {suite}");
            assert_eq!(agreed(&arguments), Some(format!("TLSv1.2 {suite}")));
        }
    }
    for old in [
        "-tls1_1 -cipher ALL:@SECLEVEL=0",
        "-tls1_2 -cipher AES128-GCM-SHA256",
        "-tls1_2 -cipher ECDHE-RSA-AES128-SHA256",
        "-tls1_2 -cipher DHE-RSA-AES128-GCM-SHA256",
    ] {
        assert_eq!(agreed(old), None, "{old}");
    }
    for (offered, agreed) in [("imap,h2", "h2"), ("imap", "imap")] {
        let seen = seen(&lb, &authority, &format!("-alpn {offered}"));
        assert_eq!(seen.after("ALPN protocol: "), Some(agreed), "{seen:?}");
    }
    let none_shared = seen(&lb, &authority, "-alpn http/1.1");
    assert!(none_shared.errors.contains("no application protocol"), "{none_shared:?}");
    let (_server, strict) = self::lb(&format!("{}, min_version: \"1.3\"", pairs(&authority)));
    let strict = strict.start();
    let old = seen(&strict, &authority, "-tls1_2");
    assert_eq!(old.agreed(), None);
    assert!(old.errors.contains("protocol version"), "{old:?}");
    assert!(seen(&strict, &authority, "-tls1_3").agreed().is_some());
}

/// Certificates of clients, good and otherwise, and the lists that judge them.
fn clients() -> Authority {
    let authority = Authority::new();
    authority.sign("site", "DNS:site.example").done();
    authority.sign("alice", "DNS:alice").subject("/O=Example/CN=alice").done();
    authority.sign("bob", "DNS:bob").done();
    authority.signed("old", "DNS:old", Some("2020-01-01"));
    authority.self_signed("self", "DNS:self");
    authority.sign("foreign", "DNS:foreign").by("self").done();
    authority.revoke(&["bob"]);
    authority
}

fn certificate(name: &str) -> String {
    format!("-cert {name}.pem -key {name}.key -ign_eof")
}

#[test]
fn clients_without_a_good_certificate_are_told_why_and_reach_no_backend() {
    let authority = clients();
    let (ca, crl) = (authority.path("ca.pem"), authority.path("crl.pem"));
    let auth = format!("client_auth: required, client_ca: '{ca}', client_crl: '{crl}'");
    let (server, lb) = lb(&format!("certificates: [{}], {auth}", authority.pair("site")));
    let lb = lb.start();
    for (arguments, alert, result) in [
        ("-ign_eof", "certificate required", "no_certificate"),
        (&certificate("bob"), "certificate revoked", "certificate_revoked"),
        (&certificate("old"), "certificate expired", "certificate_expired"),
        (&certificate("self"), "unknown ca", "unknown_ca"),
        (&certificate("foreign"), "unknown ca", "unknown_ca"),
    ] {
        let counted = || lb.metrics().sum("tls_handshakes_total", &[("result", result)]);
        let before = counted();
        let seen = seen(&lb, &authority, arguments);
        assert!(seen.errors.contains(alert), "{arguments}: {seen:?}");
        wait_until_equal(result, &(before + 1.0), counted);
    }
    assert_eq!(server.accepted(), 0);
    lb.wait_for_rejections("tls_handshake", 5);
    let alice = shake_hands(lb.address(), authority.folder.path(), "-cert alice.pem -key alice.key");
    assert!(alice.agreed().is_some(), "{alice:?}");
    wait_until("she reaches the backend", || server.accepted() == 1);
    let line = lb.access_log(6).remove(5);
    assert_eq!(
        (&line["client_cert"], &line["cause"]),
        (&"CN=alice,O=Example".into(), &"client_closed".into()),
        "{line}"
    );
}

#[test]
fn a_certificate_may_be_optional_and_a_bad_one_is_refused_all_the_same() {
    let authority = clients();
    let auth = format!("client_auth: optional, client_ca: '{}'", authority.path("ca.pem"));
    let (_server, lb) = lb(&format!("certificates: [{}], {auth}", authority.pair("site")));
    let lb = lb.start();
    for (arguments, subject) in [("", None), ("-cert bob.pem -key bob.key", Some("CN=bob"))] {
        let before = lb.output_lines();
        assert!(seen(&lb, &authority, arguments).agreed().is_some());
        assert_eq!(lb.access_log(before + 1)[before]["client_cert"].as_str(), subject);
    }
    let seen = seen(&lb, &authority, &certificate("self"));
    assert!(seen.errors.contains("unknown ca"), "{seen:?}");
}

fn session_file(version: &str) -> String {
    format!("session{}", version.replace(' ', ""))
}

#[test]
fn an_old_revocation_list_lets_nobody_in_and_is_told_of() {
    let authority = clients();
    authority.revoke_on(&[], Some("2020-01-01"));
    let (ca, crl) = (authority.path("ca.pem"), authority.path("crl.pem"));
    let auth = format!("client_auth: required, client_ca: '{ca}', client_crl: '{crl}'");
    let (server, lb) = lb(&format!("certificates: [{}], {auth}", authority.pair("site")));
    let lb = lb.start();
    lb.wait_for_log("a revocation list is over its date: clients are refused; renew it", 1);
    let alice = seen(&lb, &authority, &certificate("alice"));
    assert!(alice.errors.contains("alert"), "{alice:?}");
    lb.wait_for_rejections("tls_handshake", 1);
    assert_eq!(server.accepted(), 0);
    authority.revoke(&[]);
    lb.wait_for_log("TLS files reloaded; new connections meet what they hold now", 1);
    assert!(seen(&lb, &authority, "-cert alice.pem -key alice.key").agreed().is_some());
    wait_until("she reaches the backend", || server.accepted() == 1);
}

/// Connects twice: with the session of before, if there is one in `file`.
fn resumes(lb: &Lb, authority: &Authority, version: &str, further: &str) -> bool {
    let file = session_file(version);
    let known = authority.folder.path().join(&file).exists();
    let given = if known { format!("-sess_in {file}") } else { String::new() };
    // The tickets of TLS 1.3 come with the greeting.
    let arguments = format!("{version} {given} -sess_out {file} {further}");
    let seen = read_greeting(lb, authority, &arguments);
    assert!(seen.agreed().is_some(), "{seen:?}");
    seen.is_resumed()
}

/// openssl's client reads until the backend, which ends by itself, has ended.
fn read_greeting(lb: &Lb, authority: &Authority, arguments: &str) -> Seen {
    seen(lb, authority, &format!("{arguments} -ign_eof"))
}

fn ending(tls: &str) -> (Server, LbBuilder) {
    let server = Server::that(|mut stream| {
        use std::io::Write;
        let _ = stream.write_all(b"hello");
    });
    let config = format!("listen: 127.0.0.1:0\nworkers: 2\nbackends: ['{}']\ntls: {{{tls}}}\n", server.address());
    (server, Lb::with_config(&config))
}

#[test]
fn sessions_are_resumed_on_every_worker_and_after_a_renewal() {
    let authority = three_certificates();
    let (_server, lb) = ending(&pairs(&authority));
    let lb = lb.start();
    for version in ["-tls1_3", "-tls1_2", "-tls1_2 -no_ticket"] {
        assert!(!resumes(&lb, &authority, version, ""));
        for _ in 0..8 {
            assert!(resumes(&lb, &authority, version, ""), "{version}");
        }
        std::fs::remove_file(authority.folder.path().join(session_file(version))).unwrap();
    }
    assert!(!resumes(&lb, &authority, "-tls1_3", ""));
    let reloaded = "TLS files reloaded; new connections meet what they hold now";
    authority.sign("first", "DNS:first.example").done();
    lb.wait_for_log(reloaded, 1);
    assert!(resumes(&lb, &authority, "-tls1_3", ""), "a certificate was renewed");
    assert_eq!(lb.post(crate::support::RELOAD).0, 200);
    assert!(resumes(&lb, &authority, "-tls1_3", ""), "the configuration was loaded again");
}

#[test]
fn sessions_are_resumed_by_the_process_that_takes_over() {
    let authority = clients();
    authority.revoke(&[]);
    let (ca, crl) = (authority.path("ca.pem"), authority.path("crl.pem"));
    let auth = format!("client_auth: required, client_ca: '{ca}', client_crl: '{crl}'");
    let (_server, lb) = ending(&format!("certificates: [{}], {auth}", authority.pair("site")));
    let mut lb = lb.start();
    let bob = "-cert bob.pem -key bob.key";
    assert!(!resumes(&lb, &authority, "-tls1_3", bob));
    lb.upgrade();
    assert!(resumes(&lb, &authority, "-tls1_3", bob));
    // Of a process that judges otherwise, none is resumed.
    authority.revoke(&["bob"]);
    lb.upgrade();
    let seen = read_greeting(&lb, &authority, &format!("-tls1_3 -sess_in {} {bob}", session_file("-tls1_3")));
    assert!(seen.errors.contains("certificate revoked"), "{seen:?}");
}

#[test]
fn a_revoked_client_can_not_resume_its_session() {
    let authority = clients();
    authority.revoke(&[]);
    let (ca, crl) = (authority.path("ca.pem"), authority.path("crl.pem"));
    let auth = format!("client_auth: required, client_ca: '{ca}', client_crl: '{crl}'");
    let (_server, lb) = ending(&format!("certificates: [{}], {auth}", authority.pair("site")));
    let lb = lb.start();
    let bob = "-cert bob.pem -key bob.key";
    assert!(!resumes(&lb, &authority, "-tls1_3", bob));
    assert!(resumes(&lb, &authority, "-tls1_3", bob));
    assert_eq!(lb.access_log(2)[1]["client_cert"], "CN=bob", "a resumed session is of the client that it began with");
    authority.revoke(&["bob"]);
    lb.wait_for_log("TLS files reloaded; new connections meet what they hold now", 1);
    let seen = read_greeting(&lb, &authority, &format!("-tls1_3 -sess_in {} {bob}", session_file("-tls1_3")));
    assert!(seen.errors.contains("certificate revoked"), "{seen:?}");
}

#[test]
fn a_client_whose_certificate_has_expired_since_can_not_resume_its_session() {
    let authority = clients();
    authority.sign("brief", "DNS:brief").days(10).done();
    let auth = format!("client_auth: required, client_ca: '{}'", authority.path("ca.pem"));
    let (server, lb) = ending(&format!("certificates: [{}], {auth}", authority.pair("site")));
    let lb = lb
        .with_file("clock", "+0\n")
        .env("LD_PRELOAD", required("/usr/lib/*/faketime/libfaketime.so.1").to_str().unwrap())
        .env("FAKETIME_TIMESTAMP_FILE", "clock")
        .env("FAKETIME_NO_CACHE", "1")
        .env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
    let mut lb = lb.start();
    let brief = "-cert brief.pem -key brief.key";
    for version in ["-tls1_3", "-tls1_2"] {
        assert!(!resumes(&lb, &authority, version, brief));
        assert!(resumes(&lb, &authority, version, brief));
    }
    let before = server.accepted();
    std::fs::write(lb.folder().join("clock"), "+11d\n").unwrap();
    for version in ["-tls1_3", "-tls1_2"] {
        read_greeting(&lb, &authority, &format!("{version} -sess_in {} {brief}", session_file(version)));
    }
    let expired = || lb.metrics().sum("tls_handshakes_total", &[("result", "certificate_expired")]);
    wait_until_equal("refusals", &2.0, expired);
    assert_eq!(server.accepted(), before);
    lb.assert_balanced();
    // Killed, it would leave the library's shared memory behind.
    lb.signal(rustix::process::Signal::TERM);
    assert!(lb.wait_for_end().success());
}
