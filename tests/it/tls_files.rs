//! The files of a listener's TLS: what is wrong with them is found before anything starts, changes are followed however
//! they come, and expiry is told in time.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use serde_json::Value;

use crate::support::{Authority, Lb, LbBuilder, RELOAD, Server, openssl, run_to_end, wait_until, wait_until_equal};

const RELOADED: &str = "TLS files reloaded; new connections meet what they hold now";
const REFUSED: &str = "TLS files can't be used; what they held before stays in use";

/// What `lb check` says of a listener with this `tls:` block, and its exit code.
#[track_caller]
fn check(folder: &Path, tls: &str) -> (Option<i32>, String) {
    let yaml = format!("listen: 127.0.0.1:0\nbackends: [127.0.0.1:1]\n{tls}\n");
    fs::write(folder.join("lb.yaml"), yaml).unwrap();
    let output = run_to_end(folder, &["check"], &[]);
    let said = if output.status.success() { output.stdout } else { output.stderr };
    (output.status.code(), String::from_utf8(said).unwrap())
}

#[test]
fn wrong_files_are_found_before_anything_starts() {
    let authority = Authority::new();
    authority.sign("one", "DNS:one.example").done();
    authority.sign("two", "DNS:two.example").rsa().done();
    authority.openssl(&mut openssl(), "pkey -in one.key -aes256 -passout pass:x -out secret.key");
    authority.openssl(&mut openssl(), "rsa -in two.key -traditional -aes128 -passout pass:x -out old.key");
    authority.folder.write("none.pem", "nothing here\n");
    fs::create_dir(authority.folder.path().join("empty")).unwrap();
    let passphrase = "has a private key with a passphrase, which lb can't ask for; store it without one";
    for (tls, expected) in [
        ("certificates: []", "tls.certificates is empty: add a certificate"),
        ("certificates: [{key: one.key}]", "tls.certificates[0] needs `cert`, and `key`"),
        ("certificates: [one.pem]", "tls.certificates[0].cert one.pem: has no private key"),
        ("certificates: [{cert: missing.pem}]", "tls.certificates[0].cert missing.pem: can't be read: No such file"),
        ("certificates: [{cert: none.pem}]", "tls.certificates[0].cert none.pem: has no certificate"),
        (
            "certificates: [{cert: one.pem, key: two.key}]",
            "tls.certificates[0].key two.key: the key is not that of the certificate one.example",
        ),
        (
            "certificates: [{cert: one.pem, key: secret.key}]",
            &format!("tls.certificates[0].key secret.key: {passphrase}"),
        ),
        ("certificates: [{cert: two.pem, key: old.key}]", &format!("tls.certificates[0].key old.key: {passphrase}")),
        ("certificates: [{directory: empty}]", "tls.certificates[0].directory empty: has no file NAME.pem"),
        ("certificates: [GOOD], client_auth: required", "tls.client_auth needs a `client_ca`"),
        ("certificates: [GOOD], client_ca: ca.pem", "tls.client_ca is not used"),
        (
            "certificates: [GOOD], client_auth: optional, client_ca: ca.pem, client_crl: ca.pem",
            "tls.client_crl ca.pem: has no revocation list",
        ),
    ] {
        let tls = tls.replace("GOOD", "{cert: one.pem, key: one.key}");
        let (code, said) = check(authority.folder.path(), &format!("tls: {{{tls}}}"));
        assert!(code == Some(2) && said.contains(expected), "{tls}:\n{said}");
    }
}

#[test]
fn both_of_two_files_with_every_kind_of_key_are_taken() {
    let authority = Authority::new();
    authority.sign("one", "DNS:one.example").done();
    authority.sign("two", "DNS:two.example").rsa().done();
    let convert = |arguments| authority.openssl(&mut openssl(), arguments);
    convert("ec -in one.key -out sec1.key");
    convert("rsa -in two.key -traditional -out pkcs1.key");
    authority.revoke(&["two"]);
    let pairs = "{cert: one.pem, key: sec1.key}, {cert: two.pem, key: pkcs1.key}, {directory: .}";
    let further = "client_auth: optional, client_ca: ca.pem, client_crl: crl.pem, min_version: 1.3, alpn: [h2, imap]";
    let (code, said) = check(authority.folder.path(), &format!("tls: {{certificates: [{pairs}], {further}}}"));
    // In the directory is a list, which is no certificate.
    assert!(code == Some(2) && said.contains("./crl.pem: has no certificate"), "{said}");
    fs::rename(authority.folder.path().join("crl.pem"), authority.folder.path().join("crl")).unwrap();
    let further = further.replace("crl.pem", "crl");
    let (code, said) = check(authority.folder.path(), &format!("tls: {{certificates: [{pairs}], {further}}}"));
    assert_eq!(code, Some(0), "{said}");
}

fn lb(certificates: &str) -> LbBuilder {
    Lb::with_config(&format!("listen: 127.0.0.1:0\nbackends: [127.0.0.1:1]\ntls: {{certificates: [{certificates}]}}\n"))
}

fn tls_report(lb: &Lb) -> Value {
    lb.api("/api/v1/status")["listeners"][0]["tls"].clone()
}

fn names(lb: &Lb) -> Vec<String> {
    let report = tls_report(lb);
    let certificates = report["certificates"].as_array().unwrap();
    certificates.iter().map(|it| it["name"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn a_renewed_certificate_is_followed_and_a_broken_one_is_not() {
    let authority = Authority::new();
    authority.sign("site", "DNS:one.example").done();
    let lb = lb(&authority.pair("site")).start();
    assert_eq!(names(&lb), ["one.example"]);
    authority.sign("site", "DNS:two.example").done();
    wait_until_equal("the new one", &vec!["two.example".to_owned()], || names(&lb));
    lb.wait_for_log(RELOADED, 1);
    assert_eq!(tls_report(&lb)["problem"], Value::Null);
    authority.folder.write("site.pem", "-----BEGIN CERTIFICATE-----\nnothing\n");
    let lines = lb.wait_for_log(REFUSED, 1);
    assert!(lines[0]["error"].as_str().unwrap().contains("site.pem: is no valid PEM"), "{lines:?}");
    assert_eq!(names(&lb), ["two.example"]);
    assert!(tls_report(&lb)["problem"].as_str().unwrap().contains("site.pem"));
    // So does a reload of the whole configuration: it is refused.
    assert_eq!(lb.post(RELOAD).0, 422);
    assert_eq!(names(&lb), ["two.example"]);
    authority.sign("site", "DNS:three.example").done();
    wait_until_equal("a good one again", &vec!["three.example".to_owned()], || names(&lb));
    assert_eq!(tls_report(&lb)["problem"], Value::Null);
}

#[test]
fn links_are_followed_as_certbot_and_kubernetes_make_them() {
    let authority = Authority::new();
    let folder = authority.folder.path();
    // certbot: live/NAME.pem is a link to archive/NAME1.pem, then to archive/NAME2.pem.
    for (name, san) in [("a1", "DNS:one.example"), ("a2", "DNS:two.example"), ("k1", "DNS:three.example")] {
        authority.sign(name, san).done();
    }
    let link = |number: &str| {
        for extension in ["pem", "key"] {
            symlink(format!("{number}.{extension}"), folder.join("fresh")).unwrap();
            fs::rename(folder.join("fresh"), folder.join(format!("live.{extension}"))).unwrap();
        }
    };
    link("a1");
    // kubelet: the directory's files are links into `..data`, a link that is replaced by a rename.
    let volume = folder.join("volume");
    let publish = |version: &str, from: &str| {
        fs::create_dir_all(volume.join(version)).unwrap();
        for extension in ["pem", "key"] {
            let to = volume.join(version).join(format!("tls.{extension}"));
            fs::copy(folder.join(format!("{from}.{extension}")), to).unwrap();
        }
        symlink(version, volume.join("..tmp")).unwrap();
        fs::rename(volume.join("..tmp"), volume.join("..data")).unwrap();
    };
    publish("..1", "k1");
    for extension in ["pem", "key"] {
        symlink(format!("..data/tls.{extension}"), volume.join(format!("tls.{extension}"))).unwrap();
    }
    let lb = lb(&format!("{}, {{directory: '{}'}}", authority.pair("live"), volume.display())).start();
    assert_eq!(names(&lb), ["one.example", "three.example"]);
    link("a2");
    wait_until("certbot's link is followed", || names(&lb) == ["two.example", "three.example"]);
    publish("..2", "a1");
    wait_until("kubelet's link is followed", || names(&lb) == ["two.example", "one.example"]);
    // One more in the directory; then one that changes there.
    fs::copy(folder.join("k1.key"), volume.join("more.key")).unwrap();
    fs::copy(folder.join("k1.pem"), volume.join("more.pem")).unwrap();
    wait_until("a new file is found", || names(&lb) == ["two.example", "three.example", "one.example"]);
    fs::copy(folder.join("a2.key"), volume.join("more.key")).unwrap();
    fs::copy(folder.join("a2.pem"), volume.join("more.pem")).unwrap();
    wait_until("and watched", || names(&lb) == ["two.example", "two.example", "one.example"]);
    fs::remove_file(volume.join("more.pem")).unwrap();
    wait_until("and missed", || names(&lb) == ["two.example", "one.example"]);
}

#[test]
fn expiry_is_told_from_thirty_days_on() {
    let authority = Authority::new();
    authority.sign("far", "DNS:far.example").subject("/CN=far/O=Example").days(31).done();
    authority.sign("soon", "DNS:soon.example").days(29).done();
    authority.signed("past", "DNS:past.example", Some("2020-01-01"));
    let all = ["far", "soon", "past"].map(|name| authority.pair(name)).join(", ");
    let lb = lb(&all).start();
    let names_in = |lines: Vec<Value>| lines.iter().map(|line| line["name"].clone()).collect::<Vec<_>>();
    assert_eq!(names_in(lb.wait_for_log("a certificate expires soon; renew it", 1)), ["soon.example"]);
    assert_eq!(names_in(lb.wait_for_log("a certificate has expired", 1)), ["past.example"]);
    let report = tls_report(&lb);
    let soon = report["certificates"].as_array().unwrap().iter().map(|it| it["expires_soon"].as_bool().unwrap());
    assert_eq!(soon.collect::<Vec<_>>(), [false, true, true]);
    assert_eq!(report["certificates"][2]["expires"], "2020-01-11T12:00:00.000Z");
    let metrics = lb.metrics();
    let expiry = |name| metrics.sum("certificate_expiry_timestamp_seconds", &[("listener", "default"), ("name", name)]);
    assert_eq!(expiry("past.example"), 1_578_744_000.0);
    assert!(expiry("far.example") - expiry("soon.example") > 86_400.0);
    let status = run_to_end(lb.folder(), &["status", "--admin", &lb.admin().to_string()], &[]);
    let status = String::from_utf8_lossy(&status.stdout);
    assert!(status.contains("listener default: certificate past.example expires 2020-01-11T12:00:00.000Z"), "{status}");
    assert!(!status.contains("far.example"), "{status}");
    let (code, said) = check(authority.folder.path(), &format!("tls: {{certificates: [{all}]}}"));
    assert_eq!(code, Some(0));
    assert!(said.contains("the certificate past.example has expired on 2020-01-11"), "{said}");
    assert!(said.contains("the certificate soon.example expires on"), "{said}");
}

/// A client of the authority, for as many handshakes as are wanted.
fn client(ca: &Path) -> Arc<rustls::ClientConfig> {
    use rustls::pki_types::CertificateDer;
    use rustls::pki_types::pem::PemObject;
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(ca).unwrap()).unwrap();
    let mut config = rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    config.resumption = rustls::client::Resumption::disabled();
    Arc::new(config)
}

#[test]
fn a_thousand_reloads_of_certificates_fail_no_handshake() {
    let authority = Authority::new();
    for half in ["one", "two"] {
        authority.sign(half, "DNS:site.example").done();
    }
    let server = Server::echo();
    let config = |name: &str| {
        let pair = authority.pair(name);
        format!("listen: 127.0.0.1:0\nbackends: ['{}']\ntls: {{certificates: [{pair}]}}\n", server.address())
    };
    // Its own files, which each reload finds changed.
    let swap = |from: &str| {
        for extension in ["key", "pem"] {
            let (from, to) = (format!("{from}.{extension}"), format!("site.{extension}"));
            std::fs::copy(authority.folder.path().join(from), authority.folder.path().join(to)).unwrap();
        }
    };
    swap("one");
    let lb = Lb::with_config(&config("site")).set("log.access", "off").start();
    let (stopped, handshakes) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let client_config = client(&authority.folder.path().join("ca.pem"));
    let clients: Vec<_> = (0..4)
        .map(|_| {
            let (stopped, handshakes) = (stopped.clone(), handshakes.clone());
            let (config, address) = (client_config.clone(), lb.address());
            thread::spawn(move || {
                while !stopped.load(Ordering::Relaxed) {
                    let name = rustls::pki_types::ServerName::try_from("site.example").unwrap();
                    let session = rustls::ClientConnection::new(config.clone(), name).unwrap();
                    let mut stream = rustls::StreamOwned::new(session, crate::support::connect(address));
                    stream.write_all(b"ping").unwrap();
                    let mut answer = [0; 4];
                    stream.read_exact(&mut answer).unwrap();
                    stream.conn.send_close_notify();
                    stream.flush().unwrap();
                    handshakes.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    for round in 0..1000 {
        swap(if round % 2 == 0 { "two" } else { "one" });
        assert_eq!(lb.post(RELOAD).0, 200, "round {round}");
    }
    stopped.store(true, Ordering::Relaxed);
    clients.into_iter().for_each(|client| client.join().expect("no handshake failed"));
    let made = handshakes.load(Ordering::Relaxed);
    assert!(made > 100, "only {made} handshakes beside the reloads");
    let worked = || lb.metrics().sum("tls_handshakes_total", &[("result", "ok")]) - made as f64;
    wait_until_equal("handshakes that went well", &0.0, worked);
    assert_eq!(lb.metrics().sum("connections_rejected_total", &[]), 0.0);
}
