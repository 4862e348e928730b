//! Rules on who is let in, and what they end.

use super::{frontend, imported};

/// What `deny` has where nobody is let in.
const NOBODY: &str = "0.0.0.0/0 ::/0";

/// `allow`, `deny` and the lines that change traffic of a frontend with these rules, the first of which is line 3.
fn access(rules: &[&str]) -> (String, String, Vec<usize>) {
    let (file, changes) = imported(&frontend(&format!("  bind :80\n  mode http\n{}", rules.join("\n"))));
    let listener = &file.listeners["f"];
    (listener.allow.join(" "), listener.deny.join(" "), changes.into_iter().map(|line| line - 3).collect())
}

/// Rules of `tcp-request`, `allow`, `deny`, and which of the rules change traffic.
type Case = (&'static [&'static str], &'static str, &'static str, &'static [usize]);

const CASES: [Case; 21] = [
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
    (&["connection reject if !{ src 10.0.0.0/8 } or !{ src 10.1.0.0/16 }"], "10.1.0.0/16", "", &[]),
    (&["connection reject if !{ src 10.0.0.0/8 } !{ src ::1 }"], "10.0.0.0/8 ::1", "", &[]),
    (&["connection accept if !{ src 6.6.6.6 }"], "", "", &[]),
    (&["connection accept if !{ src 6.6.6.6 }", "connection reject if { src 6.0.0.0/8 }"], "", "6.6.6.6", &[]),
    (
        &["connection accept if { src 10.1.0.0/16 }", "connection reject if { src 10.0.0.0/14 }"],
        "",
        "10.0.0.0/16 10.2.0.0/15",
        &[],
    ),
    // What a stage accepts, the next may refuse.
    (&["connection accept", "content reject if { src 6.6.6.6 }"], "", "6.6.6.6", &[]),
    (&["connection accept if { src 1.2.3.0/24 }", "content reject if !{ src 10.0.0.0/8 }"], "10.0.0.0/8", "", &[]),
    (
        &["session accept if { src 10.0.0.0/8 }", "session reject", "content reject if !{ src 10.1.0.0/16 }"],
        "10.1.0.0/16",
        "",
        &[],
    ),
    (&["session reject if !{ src 10.0.0.0/8 }", "content reject if !{ src 11.0.0.0/8 }"], "", NOBODY, &[]),
    (&["content accept if { src 10.0.0.0/8 }", "content reject"], "10.0.0.0/8", "", &[]),
    // What isn't an address alone.
    (&["connection reject if { src,in_table(bad) }"], "", "", &[1]),
    (&["connection reject if { src,ipmask(24) 7.7.7.0 }"], "", NOBODY, &[1]),
    (&["connection reject if { src }"], "", NOBODY, &[1]),
    (&["connection reject if !{ src -f /friends.lst }"], "", NOBODY, &[1]),
    (
        &["connection accept if { src -f /friends.lst }", "connection reject if !{ src 10.0.0.0/8 }"],
        "10.0.0.0/8",
        "",
        &[1],
    ),
    (&["connection accept if { src,in_table(white) }", "connection reject if { src 10.6.6.6 }"], "", "10.6.6.6", &[1]),
    // That clients of TLS are let in doesn't refuse them.
    (&["content accept if { req_ssl_hello_type 1 }", "content reject"], "", "", &[2]),
    (&["inspect-delay 5s", "content reject if { src 6.6.6.6 }"], "", "6.6.6.6", &[]),
];

#[test]
fn rules_let_in_whom_haproxy_lets_in() {
    for (rules, allow, deny, changes) in CASES {
        let rules: Vec<String> = rules.iter().map(|rule| format!("  tcp-request {rule}")).collect();
        let rules: Vec<&str> = rules.iter().map(String::as_str).collect();
        assert_eq!(access(&rules), (allow.to_owned(), deny.to_owned(), changes.to_vec()), "{rules:?}");
    }
    let of_requests =
        ["  tcp-request connection accept if { src 1.2.3.0/24 }", "  http-request deny if !{ src 10.0.0.0/8 }"];
    assert_eq!(access(&of_requests), ("10.0.0.0/8".to_owned(), String::new(), Vec::new()));
    // Each of these cuts the network that is refused into many.
    let friends: Vec<String> =
        (0..200).map(|at| format!("  tcp-request connection accept if {{ src 10.{at}.0.1 }}")).collect();
    let mut rules: Vec<&str> = friends.iter().map(String::as_str).collect();
    rules.push("  tcp-request connection reject if { src 10.0.0.0/8 }");
    assert_eq!(access(&rules), (String::new(), NOBODY.to_owned(), (1..=201).collect()));
}

#[test]
fn rules_of_backends_hold_for_their_clients() {
    let of = |frontend: &str, backend: &str| {
        let text = format!(
            "frontend f\n  bind :443\n{frontend}\n  default_backend b\nbackend b\n{backend}\n  server a 10.0.0.1:81\n\
             backend c\n  server a 10.0.0.1:82\n"
        );
        let (file, changes) = imported(&text);
        let listener = &file.listeners["f"];
        (listener.allow.join(" "), listener.deny.join(" "), changes)
    };
    let result = |allow: &str, deny: &str, changes: &[usize]| (allow.to_owned(), deny.to_owned(), changes.to_vec());
    let reject = "  tcp-request content reject if !{ src 10.0.0.0/8 }";
    assert_eq!(of("  mode tcp", reject), result("10.0.0.0/8", "", &[]));
    assert_eq!(of("  use_backend c if { req.ssl_sni a.example }", reject), result("10.0.0.0/8", "", &[6]));
    let deny = "  mode http\n  http-request deny if { src -f /bad.lst }";
    assert_eq!(of("  mode http", deny), result("", NOBODY, &[7]));
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
    let everybody = "0.0.0.0/0 ::/0";
    assert_eq!(of("connection reject if { src 128.0.0.0/1 }"), result("0.0.0.0/1 ::/0", "", "", &[]));
    assert_eq!(of("connection reject if { src -f /bad.lst }"), result(everybody, "", NOBODY, &[3]));
    assert_eq!(of("content reject if { src 10.0.0.5 }"), result("0.0.0.0/0 ::/0", "", "10.0.0.5", &[]));
}

#[test]
fn acls_of_defaults_are_their_own() {
    let text = "defaults d\n  acl bad src 6.6.6.6\n  tcp-request connection reject if bad\nfrontend f from d\n  \
                acl bad src 7.7.7.7\n  bind :80\n  default_backend b\nbackend b\n  server a 10.0.0.1:443\n";
    assert_eq!(imported(text).0.listeners["f"].deny, ["6.6.6.6"]);
}

#[test]
fn no_header_is_set_on_requests_that_a_rule_before_it_has_let_in() {
    let of = |rules: &str| {
        let (file, changes) = imported(&frontend(&format!("  mode http\n  bind :80\n{rules}")));
        (file.listeners["f"].http.set_headers.get("X-A").cloned().flatten(), changes)
    };
    let set = "  http-request set-header X-A b";
    assert_eq!(of(&format!("{set}\n  http-request allow")), (Some("b".to_owned()), Vec::new()));
    assert_eq!(of(&format!("  http-request allow\n{set}")), (None, Vec::new()));
    assert_eq!(of(&format!("  http-request allow if {{ src 10.0.0.0/8 }}\n{set}")), (None, vec![5]));
    assert_eq!(of(&format!("  http-request allow if {{ path /a }}\n{set}")), (None, vec![4, 5]));
    assert_eq!(of(&format!("  http-request allow if {{ ssl_fc }}\n{set}")), (Some("b".to_owned()), Vec::new()));
}
