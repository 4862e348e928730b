//! What is known of a client's TLS reaches its backend: in headers, in the PROXY protocol; and the access log.

use std::io::Read;
use std::process::{Command, Stdio};
use std::sync::mpsc::channel;
use std::time::Duration;

use crate::support::{
    Authority, Browser, Lb, LbBuilder, Origin, Server, free_port, get, haproxy, required, shake_hands, wait_until,
};

fn authority() -> Authority {
    let authority = Authority::new();
    authority.sign("site", "DNS:site.example").done();
    authority.sign("alice", "DNS:alice").subject("/O=Example/CN=alice").done();
    authority
}

/// The listener's TLS, with optional certificates of clients.
fn tls(authority: &Authority, further: &str) -> String {
    let (pair, ca) = (authority.pair("site"), authority.path("ca.pem"));
    format!("tls: {{certificates: [{pair}], client_auth: optional, client_ca: '{ca}'{further}}}\n")
}

fn in_http_mode(authority: &Authority, origin: &Origin, headers: &str) -> LbBuilder {
    let tls = tls(authority, "");
    let backend = origin.address();
    Lb::with_config(&format!("listen: 127.0.0.1:0\nmode: http\nbackends: ['{backend}']\n{tls}http: {{{headers}}}\n"))
}

/// What curl prints of `https://site.example/`.
fn curl(lb: &Lb, authority: &Authority, further: &[&str]) -> String {
    let port = lb.address().port();
    let mut command = Command::new(required("curl"));
    command.args(["--silent", "--show-error", "--max-time", "15", "--noproxy", "*", "--cacert", "ca.pem"]);
    command.args(["--resolve", &format!("site.example:{port}:127.0.0.1")]).args(further);
    command.arg(format!("https://site.example:{port}/x")).current_dir(authority.folder.path());
    let output = command.stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

const HEADERS: &str = "set_headers: {X-Subject: $ssl_client_s_dn, X-Version: $ssl_protocol, X-Cipher: $ssl_cipher, \
                       X-Name: $ssl_server_name}";

#[test]
fn headers_say_https_and_who_the_client_is() {
    let (authority, origin) = (authority(), Origin::new());
    let lb = in_http_mode(&authority, &origin, HEADERS).start();
    curl(&lb, &authority, &["--cert", "alice.pem", "--key", "alice.key", "--tlsv1.3"]);
    let request = &origin.requests()[0];
    let header = |name| request.header(name);
    assert_eq!(header("X-Forwarded-Proto"), Some("https"));
    assert_eq!(header("X-Subject"), Some("CN=alice,O=Example"));
    assert_eq!((header("X-Version"), header("X-Name")), (Some("TLSv1.3"), Some("site.example")));
    assert!(header("X-Cipher").is_some_and(|cipher| cipher.starts_with("TLS_")), "{}", request.head);
    let line = lb.only_access();
    assert_eq!((&line["tls_version"], &line["server_name"]), (&"TLSv1.3".into(), &"site.example".into()), "{line}");
    assert_eq!((&line["client_cert"], &line["path"]), (&"CN=alice,O=Example".into(), &"/x".into()), "{line}");
    assert_eq!(line["tls_cipher"].as_str(), header("X-Cipher"));
}

#[test]
fn nobody_can_claim_to_have_shown_a_certificate() {
    let (authority, origin) = (authority(), Origin::new());
    let lb = in_http_mode(&authority, &origin, HEADERS).start();
    let claims = ["-H", "X-Subject: CN=root", "-H", "X-Forwarded-Proto: http", "--tls-max", "1.2"];
    curl(&lb, &authority, &claims);
    let request = &origin.requests()[0];
    assert_eq!(request.header("X-Subject").unwrap_or_default(), "");
    assert_eq!(request.header("X-Forwarded-Proto"), Some("https"));
    assert_eq!(request.header("X-Version"), Some("TLSv1.2"));
    assert_eq!(lb.only_access()["client_cert"], serde_json::Value::Null);
}

#[test]
fn the_log_has_nothing_of_tls_where_there_is_none() {
    let (authority, origin) = (authority(), Origin::new());
    let lb = in_http_mode(&authority, &origin, "").start();
    curl(&lb, &authority, &["--http1.1"]);
    assert!(lb.only_access()["tls_version"].is_string());
    let plain =
        Lb::with_config(&format!("listen: 127.0.0.1:0\nmode: http\nbackends: ['{}']\n", origin.address())).start();
    assert_eq!(get(plain.address(), "/").status, 200);
    let line = plain.only_access();
    assert!(line.get("tls_version").is_none() && line.get("client_cert").is_none(), "{line}");
}

#[test]
fn a_browser_is_served_by_https() {
    let (authority, origin) = (authority(), Origin::new());
    let lb = in_http_mode(&authority, &origin, "set_headers: {X-Version: $ssl_protocol}").start();
    let browser = Browser::open(&format!("https://localhost:{}/page", lb.address().port()), 800, 600);
    wait_until("the page is there", || browser.text("body").contains("GET /page HTTP/1.1"));
    let shown = browser.text("body").to_lowercase();
    assert!(shown.contains("x-forwarded-proto: https") && shown.contains("x-version: tlsv1.3"), "{shown}");
}

/// The TLVs behind the addresses of an IPv4 header.
fn tlvs(header: &[u8]) -> Vec<(u8, Vec<u8>)> {
    let length = usize::from(u16::from_be_bytes([header[14], header[15]]));
    split(&header[16 + 12..16 + length])
}

fn split(mut bytes: &[u8]) -> Vec<(u8, Vec<u8>)> {
    let mut found = Vec::new();
    while let [kind, high, low, rest @ ..] = bytes {
        let (value, rest) = rest.split_at(usize::from(u16::from_be_bytes([*high, *low])));
        found.push((*kind, value.to_vec()));
        bytes = rest;
    }
    found
}

#[test]
fn the_proxy_protocol_says_version_cipher_names_and_who_the_client_is() {
    let authority = authority();
    let (sender, headers) = channel();
    let server = Server::that(move |mut stream| {
        let mut header = vec![0; 16];
        stream.read_exact(&mut header).unwrap();
        header.resize(16 + usize::from(u16::from_be_bytes([header[14], header[15]])), 0);
        stream.read_exact(&mut header[16..]).unwrap();
        let _ = sender.send(header);
        let _ = stream.read_to_end(&mut Vec::new());
    });
    let config = format!("listen: 127.0.0.1:0\nbackends: ['{}']\nsend_proxy: v2\n", server.address());
    let lb = Lb::with_config(&(config + &tls(&authority, ", alpn: [h2]"))).start();
    let header = |arguments: &str| {
        shake_hands(lb.address(), authority.folder.path(), arguments);
        tlvs(&headers.recv_timeout(Duration::from_secs(20)).unwrap())
    };
    let known = header("-tls1_3 -servername site.example -alpn h2 -cert alice.pem -key alice.key");
    let (names, ssl) = known.split_at(2);
    assert_eq!(names, [(1, b"h2".to_vec()), (2, b"site.example".to_vec())]);
    assert_eq!((ssl.len(), ssl[0].0, &ssl[0].1[..5]), (1, 0x20, &[7, 0, 0, 0, 0][..]), "a verified certificate");
    let inner = split(&ssl[0].1[5..]);
    assert_eq!(inner[0], (0x21, b"TLSv1.3".to_vec()));
    assert_eq!(inner[1], (0x22, b"alice".to_vec()));
    assert!(inner[2].0 == 0x23 && inner[2].1.starts_with(b"TLS_"), "{inner:?}");
    let unknown = header("-tls1_2 -noservername -cipher ECDHE-ECDSA-AES128-GCM-SHA256");
    assert_eq!((unknown.len(), &unknown[0].1[..5]), (1, &[1, 0, 0, 0, 1][..]), "TLS, and no certificate");
    let cipher = (0x23, b"ECDHE-ECDSA-AES128-GCM-SHA256".to_vec());
    assert_eq!(split(&unknown[0].1[5..]), [(0x21, b"TLSv1.2".to_vec()), cipher]);
}

#[test]
fn haproxy_as_a_backend_understands_it() {
    let (authority, address) = (authority(), free_port());
    let config = format!(
        "frontend in\n  mode http\n  bind {address} accept-proxy\n  http-request return status 200 content-type \
         text/plain lf-string \"%[fc_pp_authority]\"\n"
    );
    let backend = haproxy(&authority.folder, address, &config);
    let pool = format!("listen: 127.0.0.1:0\nbackends: ['{}']\nsend_proxy: v2\n", backend.address());
    let lb = Lb::with_config(&(pool + &tls(&authority, ""))).start();
    assert_eq!(curl(&lb, &authority, &["--http1.1"]), "site.example");
}

#[test]
fn routes_by_name_lead_to_pools_where_the_listener_ends_tls_too() {
    let authority = two_names();
    let (api, rest) = (Server::named("api"), Server::named("rest"));
    let tls = format!("tls: {{certificates: [{}]}}", authority.pair("site"));
    let config = format!(
        "listeners:\n  web: {{bind: 127.0.0.1:0, pool: rest, routes: [{{sni: api.example, pool: api}}], {tls}}}\n\
         pools: {{api: {{backends: ['{}']}}, rest: {{backends: ['{}']}}}}\n",
        api.address(),
        rest.address()
    );
    let lb = Lb::with_config(&config).start();
    for (name, expected) in [("api.example", "api"), ("site.example", "rest")] {
        let port = lb.address().port();
        let mut command = Command::new(required("curl"));
        command.args(["--silent", "--max-time", "15", "--noproxy", "*", "--cacert", "ca.pem"]);
        command.args(["--resolve", &format!("{name}:{port}:127.0.0.1"), &format!("https://{name}:{port}/")]);
        let output = command.current_dir(authority.folder.path()).stdin(Stdio::null()).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stdout), expected);
    }
}

fn two_names() -> Authority {
    let authority = Authority::new();
    authority.sign("site", "DNS:site.example,DNS:api.example").done();
    authority
}
