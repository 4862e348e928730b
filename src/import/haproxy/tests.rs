//! Small files: what they become, and which of their lines are said to change traffic.

use crate::config::file::File;
use crate::import::{Format, Impact, Import, MAX_BYTES, Surroundings, Unreadable};

fn import(text: &str) -> Result<Import, Unreadable> {
    let mut surroundings =
        Surroundings { files: &mut |_| Err("none".to_owned()), variable: &|_| None, bytes_left: MAX_BYTES };
    Import::of(Format::Haproxy, "file", text, &mut surroundings)
}

/// The file, and the lines of the notes on what changes traffic.
fn imported(text: &str) -> (File, Vec<usize>) {
    let import = import(text).unwrap_or_else(|error| panic!("{error:?} in:\n{text}"));
    let changes = import.notes.iter().filter(|note| note.impact == Impact::ChangesTraffic);
    let lines = changes.map(|note| note.place.line).collect();
    (import.file, lines)
}

/// A frontend `f` with these lines, the first of which is line 2, and a backend `b`.
fn frontend(lines: &str) -> String {
    format!("frontend f\n{lines}\n  default_backend b\nbackend b\n  server a 127.0.0.1:81\n")
}

/// `allow`, `deny` and the lines that change traffic of a frontend with these rules, the first of which is line 3.
fn access(rules: &[&str]) -> (String, String, Vec<usize>) {
    let (file, changes) = imported(&frontend(&format!("  bind :80\n  mode http\n{}", rules.join("\n"))));
    let listener = &file.listeners["f"];
    (listener.allow.join(" "), listener.deny.join(" "), changes.into_iter().map(|line| line - 3).collect())
}

#[test]
fn rules_let_in_whom_haproxy_lets_in() {
    let cases: [(&[&str], &str, &str, &[usize]); 16] = [
        // Whoever is in A goes on to the next rule.
        (
            &["connection reject if !{ src 10.0.0.0/8 }", "connection reject if { src 10.6.6.6 }"],
            "10.0.0.0/8",
            "10.6.6.6",
            &[],
        ),
        (&["connection reject unless { src 10.0.0.0/8 }"], "10.0.0.0/8", "", &[]),
        (
            &["connection accept if { src 1.1.1.1 }", "connection reject if !{ src 10.0.0.0/8 }"],
            "1.1.1.1 10.0.0.0/8",
            "",
            &[],
        ),
        (&["connection reject if !{ src 10.0.0.0/8 } or !{ src 10.1.0.0/16 }"], "", "", &[1]),
        (&["connection accept if !{ src 6.6.6.6 }"], "", "", &[]),
        (&["connection accept if !{ src 6.6.6.6 }", "connection reject if { src 6.0.0.0/8 }"], "", "", &[1, 2]),
        // What a stage accepts, the next may refuse.
        (&["connection accept", "content reject if { src 6.6.6.6 }"], "", "6.6.6.6", &[]),
        (&["connection accept if { src 1.2.3.0/24 }", "content reject if !{ src 10.0.0.0/8 }"], "10.0.0.0/8", "", &[]),
        (
            &["session accept if { src 10.0.0.0/8 }", "session reject", "content reject if !{ src 10.1.0.0/16 }"],
            "",
            "",
            &[1, 2, 3],
        ),
        (&["content accept if { src 10.0.0.0/8 }", "content reject"], "10.0.0.0/8", "", &[]),
        // What isn't an address alone.
        (&["connection reject if { src,ipmask(24) 7.7.7.0 }"], "", "", &[1]),
        (&["connection reject if { src,in_table(bad) }"], "", "", &[1]),
        (&["connection reject if { src }"], "", "", &[1]),
        (
            &["connection accept if { src,in_table(white) }", "connection reject if { src 10.6.6.6 }"],
            "",
            "10.6.6.6",
            &[1],
        ),
        // That clients of TLS are let in doesn't refuse them.
        (&["content accept if { req_ssl_hello_type 1 }", "content reject"], "", "", &[2]),
        (&["inspect-delay 5s", "content reject if { src 6.6.6.6 }"], "", "6.6.6.6", &[]),
    ];
    for (rules, allow, deny, changes) in cases {
        let rules: Vec<String> = rules.iter().map(|rule| format!("  tcp-request {rule}")).collect();
        let rules: Vec<&str> = rules.iter().map(String::as_str).collect();
        assert_eq!(access(&rules), (allow.to_owned(), deny.to_owned(), changes.to_vec()), "{rules:?}");
    }
    let of_requests =
        ["  tcp-request connection accept if { src 1.2.3.0/24 }", "  http-request deny if !{ src 10.0.0.0/8 }"];
    assert_eq!(access(&of_requests), ("10.0.0.0/8".to_owned(), String::new(), Vec::new()));
}

#[test]
fn rules_before_a_proxy_header_are_on_its_sender() {
    let of = |rule: &str| {
        let (file, changes) = imported(&frontend(&format!("  bind :80 accept-proxy\n  tcp-request {rule}")));
        let listener = &file.listeners["f"];
        (listener.trusted_proxies.join(" "), listener.allow.join(" "), listener.deny.join(" "), changes)
    };
    let result = |trusted: &str, allow: &str, deny: &str, changes: &[usize]| {
        (trusted.to_owned(), allow.to_owned(), deny.to_owned(), changes.to_vec())
    };
    assert_eq!(of("connection reject unless { src 10.0.0.5 }"), result("10.0.0.5", "", "", &[]));
    assert_eq!(of("connection reject if { src 10.0.0.5 }"), result("0.0.0.0/0 ::/0", "", "", &[3]));
    assert_eq!(of("content reject if { src 10.0.0.5 }"), result("0.0.0.0/0 ::/0", "", "10.0.0.5", &[]));
}

#[test]
fn rules_and_default_servers_of_defaults_add_up() {
    let text = "defaults d\n  mode http\n  http-request deny if { src 6.6.6.6 }\n  http-request del-header X-User\n  \
                default-server maxconn 7 weight 3\nfrontend f from d\n  bind :80\n  http-request set-header X-A b\n  \
                default_backend b\nbackend b from d\n  default-server weight 5\n  server a 10.0.0.1:443\n";
    let (file, changes) = imported(text);
    let listener = &file.listeners["f"];
    assert_eq!((listener.deny.join(" ").as_str(), changes), ("6.6.6.6", Vec::new()));
    assert_eq!(listener.http.set_headers["X-User"], None);
    assert_eq!(listener.http.set_headers["X-A"].as_deref(), Some("b"));
    let backend = &file.pools["b"].backends[0];
    assert_eq!((backend.max_connections, backend.weight), (7, 5));
}

#[test]
fn acls_of_defaults_are_their_own() {
    let text = "defaults d\n  acl bad src 6.6.6.6\n  tcp-request connection reject if bad\nfrontend f from d\n  \
                acl bad src 7.7.7.7\n  bind :80\n  default_backend b\nbackend b\n  server a 10.0.0.1:443\n";
    assert_eq!(imported(text).0.listeners["f"].deny, ["6.6.6.6"]);
}

#[test]
fn headers_are_those_of_haproxy_and_not_forged() {
    let of = |lines: &str, name: &str| {
        let (file, changes) = imported(&frontend(&format!("  mode http\n  bind :80\n{lines}")));
        (file.listeners["f"].http.set_headers[name].clone(), changes)
    };
    let set = |value: &str| Some(value.to_owned());
    // What lb can't compute isn't taken from the client.
    let verified = "  http-request set-header X-Verified %[ssl_c_verify]";
    assert_eq!(of(verified, "X-Verified"), (None, vec![4]));
    // HAProxy adds the address after its rules.
    let forwarded = |rule: &str| of(&format!("  option forwardfor\n  http-request {rule}"), "X-Forwarded-For").0;
    assert_eq!(forwarded("set-header X-A b"), set("$proxy_add_x_forwarded_for"));
    assert_eq!(forwarded("del-header X-Forwarded-For"), set("$remote_addr"));
    assert_eq!(forwarded("set-header X-Forwarded-For x"), set("x, $remote_addr"));
}
