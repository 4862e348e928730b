//! What a snippet means stays so, or its line is said to change traffic; nobody comes in whom nginx refuses.

use crate::import::{Format, Impact, Import, Surroundings};

/// The lines that change traffic, and the YAML without its heading.
fn import(text: &str) -> (Vec<usize>, String) {
    let mut surroundings =
        Surroundings { files: &mut |pattern| Err(format!("{pattern} is not there")), variable: &|_| None };
    let import = Import::of(Format::Nginx, "file", text, &mut surroundings);
    let import = import.unwrap_or_else(|error| panic!("{error:?} in:\n{text}"));
    let changes = import.notes.iter().filter(|note| note.impact == Impact::ChangesTraffic);
    let mut lines: Vec<usize> = changes.map(|note| note.place.line).collect();
    lines.dedup();
    let yaml = import.to_yaml("file");
    (lines, yaml.lines().filter(|line| !line.starts_with('#')).collect::<Vec<_>>().join("\n"))
}

/// Fails unless these lines change traffic, and the YAML has these parts, and none that begins with `!`.
#[track_caller]
fn assert_means(text: &str, lines: &[usize], parts: &[&str]) {
    let (changes, yaml) = import(text);
    assert_eq!(changes, lines, "{text}\n{yaml}");
    for part in parts {
        match part.strip_prefix('!') {
            Some(part) => assert!(!yaml.contains(part), "`{part}` for:\n{text}\n{yaml}"),
            None => assert!(yaml.contains(part), "no `{part}` for:\n{text}\n{yaml}"),
        }
    }
}

/// A server of `http` that passes on, with these lines from line 3 on, and another one beside it.
fn http(lines: &str) -> String {
    format!(
        "http {{ server {{ listen 9; location / {{ proxy_pass http://127.0.0.1:2; }} }}\n\
         server {{ location / {{ proxy_pass http://127.0.0.1:1; }}\n{lines} }} }}"
    )
}

/// A server of `stream`, in the same way.
fn stream(lines: &str) -> String {
    format!(
        "stream {{ server {{ listen 9; proxy_pass 127.0.0.1:2; }}\nserver {{ proxy_pass 127.0.0.1:1;\n{lines} }} }}"
    )
}

#[test]
fn what_is_no_network_lets_nobody_in() {
    for make in [http, stream] {
        let means = |lines: &str, changes: &[usize], parts: &[&str]| assert_means(&make(lines), changes, parts);
        means("listen 7;\nallow unix:;\nallow 10.0.0.0/8;\ndeny all;", &[], &["allow:\n    - 10.0.0.0/8", "!deny"]);
        means("listen 7;\nallow bad;\nallow 10.0.0.0/8;\ndeny all;", &[4], &["allow:\n    - 10.0.0.0/8", "!deny"]);
        means("listen 7;\nallow bad;\ndeny all;", &[4], &["deny:\n    - 0.0.0.0/0\n    - ::/0", "!allow:"]);
        means("listen 7;\nallow 10.0.0.0/8;\ndeny bad;", &[5], &["allow:\n    - 10.0.0.0/8", "!deny"]);
        let nested = "listen 7;\nallow 10.1.0.0/16;\ndeny 10.0.0.0/14;\nallow 11.0.0.0/8;";
        means(nested, &[], &["deny:\n    - 10.0.0.0/16\n    - 10.2.0.0/15", "!allow:"]);
        means(&format!("{nested}\ndeny all;"), &[], &["allow:\n    - 10.1.0.0/16\n    - 11.0.0.0/8", "!deny:"]);
        // Each of these cuts the network that is refused into many.
        let friends: String = (0..200).map(|at| format!("allow 10.{at}.0.1;")).collect();
        means(&format!("listen 7;\n{friends}\ndeny 10.0.0.0/8;"), &[4, 5], &["deny:\n    - 0.0.0.0/0\n    - ::/0"]);
    }
}

#[test]
fn unix_sockets_are_left_out_where_rules_refuse_their_clients() {
    for make in [http, stream] {
        let means = |lines: &str, changes: &[usize], parts: &[&str]| assert_means(&make(lines), changes, parts);
        for rules in ["deny all;", "deny unix:;", "allow 10.0.0.0/8; deny all;", "deny unix:; allow all;", "deny bad;"]
        {
            let changes: &[usize] = if rules == "deny bad;" { &[2, 3, 4] } else { &[2, 3] };
            means(&format!("listen unix:/a;\n{rules}"), changes, &["!unix:"]);
        }
        means("listen unix:/a;\nlisten 7;\nallow 10.0.0.0/8; deny all;", &[3], &["0.0.0.0:7", "10.0.0.0/8", "!unix:"]);
        for rules in ["", "deny 6.6.6.6;", "allow unix:; deny all;", "allow all; deny unix:;", "deny 0.0.0.0/0;"] {
            means(&format!("listen unix:/a;\n{rules}"), &[], &["unix:/a"]);
        }
        let named = "listen unix:/a proxy_protocol; listen 7 proxy_protocol;\nreal_ip_header proxy_protocol;\n\
                     set_real_ip_from 11.0.0.0/8; allow 10.0.0.0/8; deny all;";
        means(named, &[3], &["trusted_proxies:\n    - 11.0.0.0/8", "allow:\n    - 10.0.0.0/8", "!unix:"]);
    }
}

#[test]
fn rules_of_ipv6_hold_for_clients_of_ipv4_as_nginx_has_it() {
    for make in [http, stream] {
        let means = |lines: &str, parts: &[&str]| assert_means(&make(lines), &[], parts);
        let (dual, ipv4) = ("listen [::]:7 ipv6only=off;", "listen 7;");
        let everybody = ["- 0.0.0.0/0", "- ::/0"];
        means(&format!("{dual}\ndeny ::/0;"), &everybody);
        means(&format!("{ipv4}\ndeny ::/0;"), &["- ::/0", "!- 0.0.0.0/0"]);
        means(&format!("{dual}\ndeny 10.0.0.1; deny ::/0;"), &["- 10.0.0.1", "- ::/0", "!- 0.0.0.0/0"]);
        // Where there are rules of IPv4, these hold for its clients, and no others.
        means(&format!("{dual}\nallow ::ffff:10.0.0.0/104; deny all;"), &everybody);
        means(&format!("{dual}\ndeny ::ffff:10.0.0.0/104;"), &["deny:\n    - 10.0.0.0/8"]);
    }
}

#[test]
fn rules_on_whom_a_header_of_http_names_let_nobody_in() {
    let of = |rules: &str| http(&format!("listen 7;\nset_real_ip_from 10.0.0.1;\n{rules}"));
    let header = "real_ip_header X-Forwarded-For;";
    for rules in ["allow 10.0.0.1;\ndeny all;", "deny 6.6.6.6;"] {
        assert_means(&of(rules), &[2, 4], &["!:7"]);
        assert_means(&of(&format!("{header}\n{rules}")), &[2, 5], &["!:7"]);
        // Without a PROXY header to name the client, it is who connects.
        assert_means(&of(&format!("real_ip_header proxy_protocol;\n{rules}")), &[], &[":7"]);
    }
    assert_means(&of("allow all;"), &[4], &[":7"]);
}

#[test]
fn rules_on_who_sends_a_proxy_header_say_whose_is_believed() {
    const BY_HEADER: &str = "real_ip_header proxy_protocol;";
    for make in [http, stream] {
        let means = |lines: &str, changes: &[usize], parts: &[&str]| assert_means(&make(lines), changes, parts);
        let required = "proxy_protocol: required";
        means("listen 7 proxy_protocol;", &[], &[required, "trusted_proxies:\n    - 0.0.0.0/0\n    - ::/0"]);
        let rules = "listen 7 proxy_protocol;\nallow 10.0.0.0/8;\ndeny all;";
        means(rules, &[], &[required, "trusted_proxies:\n    - 10.0.0.0/8", "!allow:", "!deny:"]);
        // Lists of clients, once the header is believed.
        let real = format!("{rules}\n{BY_HEADER} set_real_ip_from 11.0.0.0/8;");
        means(&real, &[], &["trusted_proxies:\n    - 11.0.0.0/8", "allow:\n    - 10.0.0.0/8"]);
        let senders = &["trusted_proxies:\n    - 0.0.0.0/1\n    - ::/0", "!deny"];
        means("listen 7 proxy_protocol;\ndeny 128.0.0.0/1;", &[], senders);
        let senders = &["trusted_proxies:\n    - 10.0.0.0/9", "!deny"];
        means("listen 7 proxy_protocol;\ndeny 10.128.0.0/9;\nallow 10.0.0.0/8;\ndeny all;", &[], senders);
        means("listen 7 proxy_protocol;\ndeny all;", &[2], &["!:7"]);
        let part =
            format!("listen 7 proxy_protocol;\n{BY_HEADER}\nset_real_ip_from unix:;\nset_real_ip_from 11.0.0.1;");
        means(&part, &[5], &["trusted_proxies:\n    - 11.0.0.1/32", "!0.0.0.0/0"]);
        let none = format!("listen 7 proxy_protocol;\n{BY_HEADER}\nset_real_ip_from unix:;\nset_real_ip_from name;");
        means(&none, &[2, 5, 6], &["!:7"]);
    }
}

#[test]
fn the_address_in_headers_is_said_to_differ_where_nginx_has_that_of_who_sends_a_proxy_header() {
    let of = |listen: &str, value: &str| http(&format!("{listen}\nproxy_set_header X-A {value};"));
    for value in ["$remote_addr", "$proxy_add_x_forwarded_for", "a,${realip_remote_addr}"] {
        assert_means(&of("listen 7 proxy_protocol;", value), &[4], &[]);
        assert_means(&of("listen 7;", value), &[], &[]);
    }
    assert_means(&of("listen 7 proxy_protocol;", "$proxy_protocol_addr"), &[], &["X-A: $remote_addr"]);
    assert_means(&of("listen 7;", "a$proxy_protocol_addr"), &[], &["X-A: a\n"]);
    let named = "listen 7 proxy_protocol; set_real_ip_from 10.0.0.0/8; real_ip_header proxy_protocol;";
    assert_means(&of(named, "$remote_addr"), &[], &["X-A: $remote_addr"]);
    assert_means(&of(named, "$realip_remote_addr"), &[4], &["X-A: null"]);
    assert_means(&stream("listen 7 proxy_protocol;\nproxy_protocol on;"), &[4], &[]);
    let named = "listen 7 proxy_protocol; set_real_ip_from 10.0.0.0/8;\nproxy_protocol on;";
    assert_means(&stream(named), &[], &["send_proxy: v1"]);
}

#[test]
fn http_reads_clients_from_x_real_ip_unless_told_otherwise() {
    assert_means(&http("listen 7;\nset_real_ip_from 10.0.0.0/8;"), &[4], &[]);
    let lines = "listen 7 proxy_protocol;\nset_real_ip_from 10.0.0.0/8;";
    assert_means(&http(lines), &[4], &["trusted_proxies:\n    - 0.0.0.0/0"]);
    assert_means(&stream(lines), &[], &["trusted_proxies:\n    - 10.0.0.0/8"]);
    let guarded = format!("{lines}\nallow 10.0.0.0/8;\ndeny all;");
    assert_means(&http(&guarded), &[2, 4], &["!:7"]);
}

#[test]
fn locations_are_alike_only_if_what_is_left_out_of_them_is_said() {
    let other = |line: &str| http(&format!("listen 7;\nlocation /a {{\n{line}\nproxy_pass http://127.0.0.1:1; }}"));
    assert_means(&other("proxy_connect_timeout 2s;"), &[], &[]);
    assert_means(&other("allow bad;"), &[5], &[]);
    assert_means(&other("proxy_bind $remote_addr transparent;"), &[5], &[]);
    assert_means(&other("allow 10.1.0.0/16; deny 10.0.0.0/8; allow 11.0.0.0/8; deny all;"), &[4], &["!allow"]);
}

#[test]
fn pages_become_the_admin_server_only_if_everybody_may_see_them() {
    let beside = |page: &str, around: &str| {
        format!("http {{ {around}\nserver {{ listen 80; location / {{ proxy_pass http://127.0.0.1:1; }} }}\n{page} }}")
    };
    let status = "location /s { stub_status; }";
    let page = |inner: &str| format!("server {{ listen 8081; access_log off; {inner} }}");
    assert_means(&beside(&page(status), ""), &[], &["bind: 0.0.0.0:8081"]);
    let health = "location = /healthz { add_header Content-Type text/plain; return 200 ok; }";
    assert_means(&beside(&page(health), ""), &[], &["bind: 0.0.0.0:8081"]);
    for guard in ["allow 127.0.0.1; deny all;", "auth_basic x;", "if ($a) { return 403; }", "satisfy any;"] {
        assert_means(&beside(&page(&format!("{guard} {status}")), ""), &[3], &["!8081"]);
        let inside = format!("location /s {{ stub_status; {guard} }}");
        assert_means(&beside(&page(&inside), ""), &[3], &["!8081"]);
    }
    let (changes, yaml) = import(&beside(&page(status), "allow 10.0.0.0/8; deny all;"));
    assert!(changes == [3] && !yaml.contains("8081"), "{changes:?} {yaml}");
    assert_means(&beside(&page(status).replace("8081", "8081 proxy_protocol"), ""), &[3], &["!8081"]);
    // An address that a server that passes on has is no admin server's.
    let default = "server { listen 80 default_server; location / { return 200; } }";
    assert_means(&beside(default, ""), &[3], &["- 0.0.0.0:80", "!admin"]);
}

#[test]
fn what_is_on_by_default_changes_traffic_if_it_is_off() {
    for name in ["proxy_pass_request_body", "proxy_pass_request_headers", "mirror_request_body"] {
        assert_means(&http(&format!("listen 7;\n{name} off;")), &[4], &[]);
        assert_means(&http(&format!("listen 7;\n{name} on;")), &[], &[]);
    }
    assert_means(&http("listen 7;\ngzip off;"), &[], &[]);
}

#[test]
fn other_paths_than_those_of_an_exact_location_are_said() {
    assert_means("http { server { listen 7;\nlocation = / { proxy_pass http://127.0.0.1:1; } } }", &[2], &[]);
    assert_means("http { server { listen 7;\nlocation / { proxy_pass http://127.0.0.1:1; } } }", &[], &[]);
}

#[test]
fn redirects_of_backends_are_said_to_pass_as_they_are() {
    const HOST: &str = "proxy_set_header Host $host;";
    for (line, is_said) in [
        ("proxy_redirect off;".to_owned(), false),
        ("proxy_redirect default;".to_owned(), true),
        (format!("{HOST} proxy_redirect default;"), false),
        (format!("{HOST} proxy_redirect http:// https://;"), true),
        (format!("{HOST} proxy_redirect off;"), false),
    ] {
        let lines: &[usize] = if is_said { &[4] } else { &[] };
        assert_means(&http(&format!("listen 7;\n{line}")), lines, &[]);
    }
}

#[test]
fn names_of_tls_that_lb_cant_ask_for_are_said() {
    let of = |lines: &str| {
        format!("http {{ server {{ listen 7; location / {{ proxy_pass https://a.example;\n{lines} }} }} }}")
    };
    assert_means(&of("proxy_ssl_server_name on;\nproxy_ssl_name b.example;"), &[], &["server_name: b.example"]);
    assert_means(&of("proxy_ssl_server_name on;\nproxy_ssl_name $host;"), &[3], &["!server_name"]);
    assert_means(&of("proxy_ssl_name $host;"), &[], &["!server_name"]);
}

#[test]
fn clients_have_certificates_of_an_authority_that_the_file_names() {
    let of = |lines: &str| http(&format!("listen 7 ssl; ssl_certificate a; ssl_certificate_key b;\n{lines}"));
    let on = "ssl_verify_client on;";
    assert_means(&of(on), &[2, 3], &["!:7", "!client_auth"]);
    assert_means(&of(&format!("{on} ssl_trusted_certificate c;")), &[], &["client_auth: required", "client_ca: c"]);
    assert_means(&of(&format!("{on} ssl_client_certificate c;")), &[], &["client_ca: c"]);
}

#[test]
fn addresses_without_end_are_said() {
    let listens: String = (1..=10).map(|number| format!("listen 127.0.1.{number}:1-1000;")).collect();
    assert_means(&stream(&format!("{listens}\nlisten 2000-2999;")), &[3, 4], &["!:2000"]);
}

#[test]
fn clients_are_told_apart_by_what_preread_tells() {
    let map = |variable: &str, entries: &str| {
        let listen = "listen 7; ssl_preread on; proxy_pass $to;";
        format!(
            "stream {{ upstream a {{ server 127.0.0.1:81; }} upstream b {{ server 127.0.0.1:82; }}\n\
                 map $ssl_preread_{variable} $to {{\n{entries} }}\nserver {{ {listen} }} }}"
        )
    };
    // Who offers nothing, or speaks no TLS, gets to the default.
    let rest = "- starts_with: \\x16\\x03\n      pool: b";
    assert_means(&map("server_name", "a.example a;\ndefault b;"), &[], &["- sni: a.example", rest]);
    let by_alpn = "~\\bacme-tls/1\\b a;\ndefault b;";
    assert_means(&map("alpn_protocols", by_alpn), &[], &["- alpn: acme-tls/1\n      pool: a", "pool: b"]);
    // Two of them may be offered by one client; a list of all that are offered is something else.
    assert_means(&map("alpn_protocols", "~\\bh2\\b a;\n~\\bh3\\b b;"), &[4], &["alpn: h2", "alpn: h3"]);
    assert_means(&map("alpn_protocols", "h2 a;\ndefault b;"), &[3], &["!alpn", "pool: b"]);

    let tls = "- starts_with: \\x16\\x03\n      pool: b";
    assert_means(&map("protocol", "\"\" a;\ndefault b;"), &[], &[tls, "pool: a\n", "!silent"]);
    assert_means(&map("protocol", "\"\" a;\nTLSv1.2 b;\nTLSv1.3 b;"), &[], &[tls]);
    assert_means(&map("protocol", "\"\" a;\nTLSv1.2 a;\ndefault b;"), &[4], &[tls]);
    assert_means(&map("protocol", "TLSv1.2 a;\ndefault b;"), &[3], &["!routes", "pool: b"]);

    let named = "- sni: a.example\n      pool: a\n    - sni: '*'\n      to: server_name\n      port: 8443";
    let hosts = map("server_name", "a.example a;\ndefault $ssl_preread_server_name:8443;");
    assert_means(&hosts, &[4], &[named, "server-name:"]);
    let all = "resolver 127.0.0.53 ipv6=off; server { listen 7;\nproxy_pass $ssl_preread_server_name:$server_port; }";
    assert_means(
        &format!("stream {{ {all} }}"),
        &[1],
        &["to: server_name\n      port: 7", "127.0.0.53", "family: ipv4"],
    );
}

#[test]
fn locations_that_clients_dont_reach_pass_on_nothing_of_theirs() {
    let pass = "proxy_pass http://127.0.0.1:1;";
    let of = |locations: &str| {
        http(&format!("listen 7;\n{locations}")).replace("location / { proxy_pass http://127.0.0.1:1; }\n", "")
    };
    let hidden = format!("location /a {{ internal; proxy_pass http://127.0.0.1:5; }}\nlocation / {{ {pass} }}");
    assert_means(&of(&hidden), &[3], &["127.0.0.1:1", "!127.0.0.1:5"]);
    let first = hidden.replace("location / {", "location /b {");
    assert_means(&of(&first), &[3, 4], &["127.0.0.1:1", "!127.0.0.1:5"]);
    let named = format!("location / {{ allow 10.0.0.0/8; deny all; try_files $uri @a; }}\nlocation @a {{ {pass} }}");
    assert_means(&of(&named), &[2], &["!:7"]);
    assert_means(&of(&named.replace("allow 10.0.0.0/8; deny all;", "")), &[3, 4], &[":7"]);
    let rest = format!("location /x {{ {pass} }}\nlocation / {{ return 403; }}");
    assert_means(&of(&rest), &[2], &["!:7"]);
}

#[test]
fn servers_that_send_everybody_to_https_do_so() {
    let text = |lines: &str| {
        let first = "server { listen 9; location / { proxy_pass http://127.0.0.1:2; } }";
        format!("http {{ {first}\nserver {{ listen 8;\n{lines} }} }}")
    };
    for target in ["$host$request_uri", "$server_name$request_uri"] {
        assert_means(&text(&format!("return 301 https://{target};")), &[], &["redirect: https", "0.0.0.0:8"]);
    }
    assert_means(&text("rewrite ^(.*)$ https://$host$1 permanent;"), &[], &["redirect: https"]);
    assert_means(&text("location / { return 301 https://$host$request_uri; }"), &[], &["redirect: https"]);
    let acme = "location /.well-known/ { root /a; }\nlocation / { return 301 https://$host$request_uri; }";
    assert_means(&text(acme), &[3], &["redirect: https"]);
    assert_means(&text("return 301 https://other.example$request_uri;"), &[2], &["!redirect", "!0.0.0.0:8"]);
    assert_means(&text("deny 6.6.6.6; return 301 https://$host$request_uri;"), &[], &["redirect: https", "- 6.6.6.6"]);
}

#[test]
fn name_servers_are_for_names_that_nginx_asks_for_again() {
    let of = |pass: &str| {
        let location = format!("location / {{ set $up app:80; proxy_pass http://{pass}; }}");
        format!("http {{ resolver 127.0.0.53; server {{ listen 7; {location} }} }}")
    };
    assert_means(&of("app:80"), &[], &["app:80", "!nameservers"]);
    assert_means(&of("$up"), &[], &["app:80", "127.0.0.53"]);
    // With a variable, nginx takes the path as it stands.
    assert_means(&of("$up/a/"), &[1], &[]);
}
