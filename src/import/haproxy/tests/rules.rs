//! Rules on who is let in, and what they end.

use ipnet::IpNet;

use crate::import::access::network;

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

const CASES: [Case; 47] = [
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
    // Not any of several.
    (&["connection reject unless { src 10.0.0.0/8 } or { src ::1 }"], "10.0.0.0/8 ::1", "", &[]),
    (&["connection reject unless !{ src 6.6.6.6 } !{ src 7.7.7.7 }"], "", "6.6.6.6 7.7.7.7", &[]),
    (&["connection reject unless { src 10.0.0.0/8 } { src 10.1.0.0/16 }"], "10.1.0.0/16", "", &[]),
    (&["connection reject unless { src 10.0.0.0/8 } or TRUE"], "", "", &[]),
    (&["connection reject unless { src 10.0.0.0/8 } or FALSE"], "10.0.0.0/8", "", &[]),
    (&["connection reject unless FALSE { src 10.0.0.0/8 }"], "", NOBODY, &[]),
    (&["connection reject unless { src 10.0.0.0/8 } or !{ src 6.6.6.6 }"], "", NOBODY, &[1]),
    (
        &["connection accept unless { src 6.6.6.6 } or { src 7.7.7.7 }", "connection reject if { src 6.0.0.0/7 }"],
        "",
        "6.6.6.6 7.7.7.7",
        &[],
    ),
    (&["connection reject unless LOCALHOST"], "127.0.0.0/8 ::1", "", &[]),
    // Tests of other things beside that of the address.
    (&["content reject unless { src 10.0.0.0/8 } or { dst_port 81 }"], "", NOBODY, &[1]),
    (&["content reject unless { src 10.0.0.0/8 } { dst_port 81 }"], "10.0.0.0/8", "", &[1]),
    (&["content reject if { dst_port 81 } !{ src 10.0.0.0/8 }"], "", NOBODY, &[1]),
    (&["content reject if { dst_port 81 }"], "", "", &[1]),
    (
        &["content accept if { dst_port 81 } { src 10.0.0.0/8 }", "content reject if { src 10.0.0.0/7 }"],
        "",
        "10.0.0.0/7",
        &[1],
    ),
    (&["content accept if { req_ssl_hello_type 1 }", "content reject if !{ src 10.0.0.0/8 }"], "", NOBODY, &[2]),
    // Addresses that aren't the client's.
    (&["connection set-src hdr(x)", "connection reject if !{ src 10.0.0.0/8 }"], "", NOBODY, &[1, 2]),
    (&["connection set-src hdr(x)", "content reject if { src 6.6.6.6 }"], "", NOBODY, &[1, 2]),
    (&["connection reject if { src 6.6.6.6 }", "connection set-src hdr(x)"], "", "6.6.6.6", &[2]),
    (
        &["connection expect-proxy layer4 if { src 10.0.0.1 }", "content reject if !{ src 10.0.0.1 }"],
        "",
        NOBODY,
        &[1, 2],
    ),
    (&["connection set-src hdr(x)", "content accept if { src 10.0.0.0/8 }", "content reject"], "", NOBODY, &[1, 2]),
    // Clients of IPv4 are in networks of IPv6.
    (&["connection reject if { src ::/0 }"], "", "::/0 0.0.0.0/0", &[]),
    (&["connection reject if { src ::ffff:10.0.0.0/104 }"], "", "10.0.0.0/8", &[]),
    (&["connection reject if !{ src ::/64 }"], "::/64 0.0.0.0/0", "", &[]),
    (&["connection reject if { src 2000::/3 }"], "", "2000::/3", &[]),
    (&["connection reject if !{ src ::ffff:10.0.0.1 }"], "10.0.0.1", "", &[]),
    (&["connection reject if { src ::fffe:0:0/95 }"], "", "::fffe:0:0/95 0.0.0.0/0", &[]),
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
fn rules_of_requests_that_arent_of_the_address_alone_let_nobody_in() {
    let nobody = |changes: &[usize]| (String::new(), NOBODY.to_owned(), changes.to_vec());
    let some = |allow: &str, changes: &[usize]| (allow.to_owned(), String::new(), changes.to_vec());
    let set = "  http-request set-src hdr(x-forwarded-for)";
    let deny = "  http-request deny unless { src 10.0.0.0/8 } or { src 192.168.0.0/16 }";
    assert_eq!(access(&[deny]), some("10.0.0.0/8 192.168.0.0/16", &[]));
    assert_eq!(access(&[set, deny]), nobody(&[1, 2]));
    assert_eq!(access(&[deny, set]), some("10.0.0.0/8 192.168.0.0/16", &[2]));
    let joined = "  acl lan src 10.0.0.0/8\n  acl lan hdr(x-lan) 1\n  http-request deny if !lan";
    assert_eq!(access(&[joined]), nobody(&[3]));
    let own = "  acl LOCALHOST src 10.0.0.1\n  http-request deny unless LOCALHOST";
    assert_eq!(access(&[own]), some("10.0.0.1", &[]));
    let many = format!("  http-request deny unless {}", "{ src 10.0.0.1 } { src 10.0.0.2 } or ".repeat(7) + "FALSE");
    assert_eq!(access(&[&many]), nobody(&[1]));
    for answer in ["return status 403", "auth realm x"] {
        let answer = |condition: &str| access(&[&format!("  http-request {answer} {condition}")]);
        assert_eq!(answer("if !{ src 10.0.0.0/8 }"), some("10.0.0.0/8", &[1]));
        assert_eq!(answer("if { path /a }"), some("", &[1]));
    }
}

#[test]
fn conditions_of_addresses_let_in_nobody_whom_haproxy_refuses() {
    let mut random = fastrand::Rng::with_seed(11);
    for _ in 0..500 {
        let rules: Vec<RandomRule> = (0..random.usize(1..4)).map(|_| RandomRule::new(&mut random)).collect();
        let lines: Vec<String> = rules.iter().map(RandomRule::line).collect();
        let text = frontend(&format!("  bind :80\n{}", lines.join("\n")));
        let (file, changes) = imported(&text);
        let lists = ["allow", "deny"].map(|name| {
            let listener = &file.listeners["f"];
            let texts = if name == "allow" { &listener.allow } else { &listener.deny };
            texts.iter().filter_map(|text| network(text)).collect::<Vec<IpNet>>()
        });
        for last in 0..16 {
            let client: IpNet = format!("10.0.0.{last}/32").parse().expect("an address");
            let is_in = |networks: &[IpNet]| networks.iter().any(|network| network.contains(&client));
            let is_let_in = (lists[0].is_empty() || is_in(&lists[0])) && !is_in(&lists[1]);
            let decides = rules.iter().find(|rule| rule.fits(&client));
            let expected = decides.is_none_or(|rule| rule.allow);
            assert!(is_let_in == expected || expected && !changes.is_empty(), "{client}: {text}\n{lists:?}");
        }
    }
}

/// A rule whose condition is made of networks alone.
struct RandomRule {
    allow: bool,
    is_unless: bool,
    any: Vec<Vec<(bool, IpNet)>>,
}

impl RandomRule {
    fn new(random: &mut fastrand::Rng) -> Self {
        let mut test = || {
            let text = format!("10.0.0.{}/{}", random.u8(..16), random.u8(28..=32));
            (random.bool(), network(&text).expect("it is a network"))
        };
        let first = [test(), test(), test(), test()];
        let at = random.usize(1..=4);
        let (one, other) = first.split_at(at);
        let any = [one, other].into_iter().filter(|all| !all.is_empty()).map(|all| all[..all.len().min(2)].to_vec());
        Self { allow: random.bool(), is_unless: random.bool(), any: any.take(random.usize(1..=2)).collect() }
    }

    fn line(&self) -> String {
        let test = |(is_negated, network): &(bool, IpNet)| {
            format!("{}{{ src {network} }}", if *is_negated { "!" } else { "" })
        };
        let all = |all: &Vec<(bool, IpNet)>| all.iter().map(test).collect::<Vec<_>>().join(" ");
        let condition = self.any.iter().map(all).collect::<Vec<_>>().join(" or ");
        let (verb, word) = (if self.allow { "accept" } else { "reject" }, if self.is_unless { "unless" } else { "if" });
        format!("  tcp-request connection {verb} {word} {condition}")
    }

    fn fits(&self, client: &IpNet) -> bool {
        let holds = |(is_negated, network): &(bool, IpNet)| network.contains(client) != *is_negated;
        self.any.iter().any(|all| all.iter().all(holds)) != self.is_unless
    }
}

#[test]
fn unix_sockets_are_left_out_where_rules_refuse_their_clients() {
    let of = |bind: &str, rule: &str| {
        let (file, changes) = imported(&frontend(&format!("  bind :80,/x\n  bind {bind}\n  tcp-request {rule}")));
        let binds: Vec<String> = file.listeners.values().map(|listener| listener.bind.0.join(" ")).collect();
        (binds.join(" "), changes)
    };
    let refused = ["connection reject", "content reject unless { src 10.0.0.0/8 }", "session reject if !LOCALHOST"];
    for rule in refused {
        assert_eq!(of("/a", rule), ("0.0.0.0:80".to_owned(), vec![2, 3]), "{rule}");
        assert_eq!(of("/a accept-proxy", rule), ("0.0.0.0:80".to_owned(), vec![2, 3]), "{rule}");
    }
    assert_eq!(of("/a", "connection reject unless { src -f /x }"), ("0.0.0.0:80".to_owned(), vec![2, 3, 4]));
    for rule in ["connection reject if { src 6.6.6.6 }", "connection accept if !{ src 6.6.6.6 }", "inspect-delay 5s"] {
        assert_eq!(of("/a", rule), ("0.0.0.0:80 unix:/x unix:/a".to_owned(), Vec::new()), "{rule}");
    }
}

#[test]
fn binds_whose_header_lb_cant_read_arent_served() {
    let (file, changes) = imported(&frontend("  bind :80 accept-netscaler-cip 7\n  bind :81"));
    assert_eq!((file.listeners["f"].bind.0.join(" "), changes), ("0.0.0.0:81".to_owned(), vec![2, 2]));
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
    assert_eq!(of("connection reject"), result(everybody, "", NOBODY, &[]));
    // So many senders that they can't be listed.
    let senders: Vec<String> = (0..2100).map(|at| format!("10.0.{}.{}", at / 128, at % 128 * 2)).collect();
    let senders: String = senders.chunks(50).map(|some| format!("  acl ok src {}\n", some.join(" "))).collect();
    for (rules, lines) in [
        ("reject if !ok", &[45][..]),
        ("accept if ok\n  tcp-request connection reject", &[45, 46]),
        ("reject if ok", &[45]),
    ] {
        let text = format!("  bind :80 accept-proxy\n{senders}  tcp-request connection {rules}");
        let (file, changes) = imported(&frontend(&text));
        let listener = &file.listeners["f"];
        assert_eq!((listener.deny.join(" ").as_str(), &changes[..]), (NOBODY, lines), "{rules}");
    }
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
    assert_eq!(of(&format!("  http-request allow if {{ path /a }}\n{set}")), (None, vec![5]));
    assert_eq!(of(&format!("  http-request allow if {{ ssl_fc }}\n{set}")), (Some("b".to_owned()), Vec::new()));
}
