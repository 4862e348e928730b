//! Which clients get to which pool.

use super::imported;

/// The routes and the pool of a frontend with these lines, each `key value -> backend`, and the lines that change
/// traffic.
fn routes_of(lines: &str) -> (Vec<String>, Option<String>, Vec<usize>) {
    let backends: String = ["a", "b", "c"].map(|name| format!("backend {name}\n  server s 127.0.0.1:81\n")).concat();
    let (file, changes) = imported(&format!("frontend f\n  bind :443\n{lines}\n{backends}"));
    let listener = &file.listeners["f"];
    let written = listener.routes.iter().map(|route| {
        let silent = route.silent.map(|silent| format!("silent {:?}", silent.0));
        let of = |key: &str, value: &Option<String>| value.as_ref().map(|value| format!("{key} {value}"));
        let keys = [of("sni", &route.sni), of("alpn", &route.alpn), of("bytes", &route.starts_with), silent];
        format!("{} -> {}", keys.into_iter().flatten().collect::<Vec<_>>().join(" "), route.pool)
    });
    (written.collect(), listener.pool.clone(), changes)
}

#[test]
fn clients_are_told_apart_by_what_they_say_first() {
    const DELAY: &str = "tcp-request inspect-delay 20s";
    let ssh = "use_backend a if { req.payload(0,4) -m bin 5353482d }";
    let waits = ["bytes SSH- -> a", "silent 20s -> b"].map(str::to_owned).to_vec();
    assert_eq!(routes_of(&format!("{DELAY}\n{ssh}\ndefault_backend b")), (waits, Some("b".into()), vec![]));
    for (lines, routes, default, changes) in [
        ("use_backend a if { payload(0,4) -m str SSH- }", &["bytes SSH- -> a"][..], None, &[][..]),
        // What is compared is longer or shorter than what was said.
        ("use_backend a if { payload(0,7) -m str SSH- }\ndefault_backend b", &[], Some("b"), &[3]),
        ("use_backend a if { payload(1,4) -m str SSH- }\ndefault_backend b", &[], Some("b"), &[3]),
        ("use_backend a if { payload(0,9) -m beg SSH- }", &["bytes SSH- -> a"], None, &[]),
        (
            "acl x payload(0,1) -m bin 05\nacl x payload(0,1) -m bin 04\nuse_backend a if x",
            &[r"bytes \x05 -> a", r"bytes \x04 -> a"],
            None,
            &[],
        ),
        (
            "use_backend a if { payload(0,2) -m str SS }\nuse_backend b if { payload(0,3) -m str SSH }",
            &["bytes SS -> a"],
            None,
            &[],
        ),
        (
            "use_backend a if { req.ssl_alpn -m sub h2 }\ndefault_backend b",
            &["alpn h2 -> a", r"bytes \x16\x03 -> b"],
            Some("b"),
            &[],
        ),
        (
            "use_backend a if { req.ssl_sni x.io } { req.ssl_alpn h2 }\nuse_backend b if { req.ssl_sni x.io }",
            &["sni x.io alpn h2 -> a", "sni x.io -> b"],
            None,
            &[],
        ),
        // The name decides before what is offered.
        (
            "use_backend a if { req.ssl_alpn h2 }\nuse_backend b if { req.ssl_sni x.example }",
            &["alpn h2 -> a", "sni x.example -> b"],
            None,
            &[4],
        ),
        ("use_backend a if !{ req.ssl_hello_type 1 }\ndefault_backend b", &[r"bytes \x16\x03 -> b"], Some("a"), &[]),
        (
            "use_backend a if !{ req.ssl_hello_type 1 }\nuse_backend b if { req.ssl_sni x.example }",
            &["sni x.example -> b"],
            Some("a"),
            &[1],
        ),
        ("use_backend a if { req.ssl_hello_type 1 }\ndefault_backend b", &[r"bytes \x16\x03 -> a"], Some("b"), &[]),
        ("use_backend a if { req.len 0 }\ndefault_backend b", &[], Some("b"), &[3]),
        (
            "tcp-request inspect-delay 3s\nuse_backend a if { req.len 0 }\ndefault_backend b",
            &["silent 3s -> a"],
            Some("b"),
            &[],
        ),
    ] {
        let routes = routes.iter().map(|route| (*route).to_owned()).collect();
        assert_eq!(routes_of(lines), (routes, default.map(str::to_owned), changes.to_vec()), "{lines}");
    }
}

#[test]
fn who_speaks_no_tls_goes_where_haproxy_sends_him() {
    let rule = "use_backend a if { req.ssl_sni x.io }\ndefault_backend b";
    let with = |line: &str| routes_of(&format!("{line}\n{rule}")).0;
    assert_eq!(with("")[1..], [r"bytes \x16\x03 -> b"]);
    assert_eq!(with("tcp-request inspect-delay 5s")[1..], [r"bytes \x16\x03 -> b", "silent 5s -> b"]);
    assert_eq!(with("tcp-request content reject unless { req.ssl_hello_type 1 }").len(), 1);
    assert_eq!(routes_of("use_backend a if { req.ssl_sni x.io }").0.len(), 1);
}
