//! Small files: what they become, and which of their lines are said to change traffic.

mod routes;
mod rules;

use std::path::Path;

use crate::config::file::File;
use crate::config::file::off::{OffOr, OnOffOr};
use crate::import::{Format, Impact, Import, Surroundings, Unreadable};

fn import(text: &str) -> Result<Import, Unreadable> {
    let mut surroundings = Surroundings { files: &mut |_| Err("none".to_owned()), variable: &|_| None };
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
    format!("frontend f\n{lines}\n  default_backend b\nbackend b\n  server a 10.9.9.9:81\n")
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

#[test]
fn servers_without_a_port_have_that_of_each_client() {
    let (file, changes) =
        imported("listen f\n  bind :80,127.0.0.1:80,:443\n  server a 10.0.0.1\n  server b 10.0.0.2:9\n");
    assert_eq!(changes, Vec::<usize>::new());
    let listeners = file.listeners.values().map(|listener| {
        let backends = &file.pools[listener.pool.as_deref().expect("it has one")].backends;
        let addresses: Vec<&str> = backends.iter().map(|backend| backend.address.as_str()).collect();
        (listener.bind.0.join(" "), addresses.join(" "))
    });
    let expected = [("0.0.0.0:80 127.0.0.1:80", "10.0.0.1:80 10.0.0.2:9"), ("0.0.0.0:443", "10.0.0.1:443 10.0.0.2:9")];
    let expected: Vec<_> = expected.iter().map(|(bind, to)| ((*bind).to_owned(), (*to).to_owned())).collect();
    assert_eq!(listeners.collect::<Vec<_>>(), expected);
}

#[test]
fn requests_that_only_their_host_leads_somewhere_all_go_to_the_first_of_these() {
    let text = "frontend f\n  mode http\n  bind :80\n  use_backend b if { hdr(host) b.example }\n  \
                use_backend c if { hdr(host) c.example }\nbackend b\n  server a 10.0.0.1:81\nbackend c\n  \
                server a 10.0.0.1:82\n";
    let (file, changes) = imported(text);
    assert_eq!((file.listeners["f"].pool.as_deref(), changes), (Some("b"), vec![4, 5]));
    assert!(import(&text.replace("mode http", "mode tcp")).is_err(), "connections say no host");
}

#[test]
fn what_a_pool_has_once_is_said_of_each_server_that_has_it_otherwise() {
    let changes = |one: &str, other: &str| {
        let text = format!("listen f\n  bind :80\n  server a 10.0.0.1:81 {one}\n  server b 10.0.0.2:81 {other}\n");
        imported(&text).1
    };
    for (one, other) in [
        ("check inter 1s", "check inter 2s"),
        ("check rise 3", "check"),
        ("check fall 3", "check fall 4"),
        ("check ssl verify none", "check ssl verify none no-check-ssl"),
        ("slowstart 5s", ""),
        ("check observe layer4", "check"),
        ("check on-marked-down shutdown-sessions", "check"),
        ("source 10.0.0.9", ""),
    ] {
        assert_eq!(changes(one, other), [4], "{one} | {other}");
        assert_eq!(changes(one, one), Vec::<usize>::new(), "{one}");
    }
    // A primary that cuts the connections on backups is enough.
    assert_eq!(changes("check on-marked-up shutdown-backup-sessions", "check backup"), Vec::<usize>::new());
}

#[test]
fn each_bind_has_its_own_tls_and_proxy_header() {
    let lines = "  mode http\n  bind :443 ssl crt /a.pem ca-file /ca.pem verify required\n  \
                 bind :8443 ssl crt /b.pem\n  bind :80\n  bind :81\n  bind 127.0.0.1:8080 accept-proxy";
    let (file, changes) = imported(&frontend(lines));
    assert_eq!(changes, Vec::<usize>::new());
    let mut of: Vec<(String, bool, usize)> = Vec::new();
    for listener in file.listeners.values() {
        let has_client_ca = matches!(&listener.tls, OffOr::On(tls) if tls.client_ca.is_some());
        of.push((listener.bind.0.join(" "), has_client_ca, listener.trusted_proxies.len()));
    }
    of.sort();
    let expected = [
        ("0.0.0.0:443", true, 0),
        ("0.0.0.0:80 0.0.0.0:81", false, 0),
        ("0.0.0.0:8443", false, 0),
        ("127.0.0.1:8080", false, 2),
    ];
    assert_eq!(of, expected.map(|(bind, has_ca, trusted)| (bind.to_owned(), has_ca, trusted)));
}

#[test]
fn binds_of_many_ports_are_read_once_and_bounded() {
    let binds = |lines: usize| -> String {
        (0..lines).map(|at| format!("  bind :::{}-{}\n", at * 1000 + 1, at * 1000 + 1000)).collect()
    };
    let (file, _) = imported(&frontend(&format!("{}  bind :30000", binds(8))));
    assert_eq!(file.listeners["f"].bind.0.len(), 8001);
    let error = import(&frontend(&binds(60))).expect_err("too many");
    assert_eq!((error.place.line, error.message.as_str()), (12, "more than 10000 addresses"));
}

#[test]
fn pages_become_the_admin_server_only_where_nothing_limits_who_may_ask() {
    let admin = |defaults: &str, lines: &str| {
        let text = format!("{defaults}listen stats\n  mode http\n{lines}\n");
        let at = text.lines().position(|line| line.starts_with("listen")).map(|line| line + 1);
        let (file, changes) = imported(&format!("{text}{}", frontend("  bind :80\n  mode tcp")));
        (file.admin.bind, changes.into_iter().map(Some).eq([at]))
    };
    let usual = crate::config::file::File::default().admin.bind;
    let open = "  bind :8404\n  stats enable\n  stats uri /\n  monitor-uri /healthz\n  log global";
    assert_eq!(admin("", open), ("0.0.0.0:8404".to_owned(), false));
    let metrics = "  bind :8404\n  http-request use-service prometheus-exporter if { path /metrics }";
    assert_eq!(admin("", metrics), ("0.0.0.0:8404".to_owned(), false));
    for closed in [
        "  bind :8404 ssl crt /a.pem\n  stats enable",
        "  bind :8404 accept-proxy\n  stats enable",
        "  bind :8404\n  stats enable\n  stats auth a:b",
        "  bind :8404\n  stats enable\n  http-request deny if !{ src 10.0.0.0/8 }",
        "  bind :8404\n  stats enable\n  tcp-request connection reject if !{ src 10.0.0.0/8 }",
        "  bind :8404\n  stats enable\n  acl a src 10.0.0.0/8\n  stats http-request deny unless a",
    ] {
        assert_eq!(admin("", closed), (usual.clone(), true), "{closed}");
    }
    let defaults = "defaults\n  stats enable\n";
    assert_eq!(admin(defaults, "  bind :8404"), (usual.clone(), true), "pages are the defaults' alone");
    assert_eq!(admin("defaults\n  stats auth a:b\n", open), (usual, true));
}

#[test]
fn a_bind_that_would_verify_no_client_is_not_served() {
    for verify in ["verify required ca-verify-file /ca.pem", "verify optional", "verify required ca-file @system-ca"] {
        let error = import(&frontend(&format!("  bind :443 ssl crt /a.pem {verify}"))).expect_err(verify);
        assert!(error.message.contains("authorities"), "{error:?}");
    }
}

#[test]
fn files_of_tls_are_where_their_bases_say() {
    let global = "global\n  ca-base /ca\n  crt-base /crt/\n";
    let lines = "  bind :443 ssl crt site.pem crt /x/b.pem ca-file clients.pem verify required";
    let (file, changes) = imported(&format!("{global}{}", frontend(lines)));
    assert_eq!(changes, Vec::<usize>::new());
    let OffOr::On(tls) = &file.listeners["f"].tls else { panic!("{file:?}") };
    let certs: Vec<&Path> = tls.certificates.iter().filter_map(|one| one.cert.as_deref()).collect();
    assert_eq!(certs, [Path::new("/crt/site.pem"), Path::new("/x/b.pem")]);
    assert_eq!(tls.client_ca.as_deref(), Some(Path::new("/ca/clients.pem")));
}

#[test]
fn what_limits_tls_otherwise_is_said() {
    let changes = |global: &str, bind: &str, server: &str| {
        let text = format!(
            "global\n  {global}\nfrontend f\n  bind :443 ssl {bind}\n  default_backend b\nbackend b\n  \
             server a 10.0.0.1:443 {server}\n"
        );
        imported(&text).1
    };
    let none = Vec::<usize>::new();
    assert_eq!(changes("maxconn 9", "crt /a.pem", ""), none);
    assert_eq!(changes("ssl-server-verify none", "crt /a.pem", ""), [2]);
    assert_eq!(changes("ssl-server-verify required", "crt /a.pem", ""), none);
    assert_eq!(changes("ssl-default-bind-options ssl-min-ver TLSv1.3", "crt /a.pem", ""), [2]);
    assert_eq!(changes("ssl-default-bind-options ssl-min-ver TLSv1.2 no-tls-tickets", "crt /a.pem", ""), none);
    assert_eq!(changes("maxconn 9", "crt /a.pem force-tlsv12", ""), [4]);
    assert_eq!(changes("maxconn 9", "crt /etc/haproxy/certs", ""), [4]);
    assert_eq!(changes("maxconn 9", "crt /etc/haproxy/certs/", ""), none);
    // Names of servers.
    for server in [
        "ssl verify required ca-file /ca.pem",
        "ssl verify required ca-file /ca.pem sni req.hdr(host)",
        "ssl verify none sni ssl_fc_sni",
    ] {
        assert_eq!(changes("maxconn 9", "crt /a.pem", server), [7], "{server}");
    }
    for server in ["ssl verify none", "ssl verify required ca-file /ca.pem sni str(a.example)"] {
        assert_eq!(changes("maxconn 9", "crt /a.pem", server), none, "{server}");
    }
    let bind = "crt /a.pem no-tlsv12";
    let (file, _) = imported(&frontend(&format!("  bind :443 ssl {bind}")));
    assert!(crate::config::print(&file).contains("min_version: '1.3'"), "{}", crate::config::print(&file));
}

#[test]
fn checks_have_the_tls_that_haproxys_have() {
    let check = |check: &str, server: &str| {
        let text = format!(
            "frontend f\n  bind :80\n  default_backend b\nbackend b\n  {check}\n  \
             server a 10.0.0.1:443 {server} check\n"
        );
        let OffOr::On(check) = imported(&text).0.pools["b"].health_check.clone() else { panic!("{text}") };
        match check.tls {
            OnOffOr::On(tls) => (true, tls.verify.0, tls.server_name.unwrap_or_default()),
            OnOffOr::Off => (false, false, String::new()),
        }
    };
    let tls = |is_verified: bool, name: &str| (true, is_verified, name.to_owned());
    let plain = (false, false, String::new());
    let connect = "option httpchk\n  http-check connect ssl sni x.example";
    assert_eq!(check(connect, "verify none"), tls(false, "x.example"));
    assert_eq!(check("option tcp-check\n  tcp-check connect ssl", "verify none"), tls(false, ""));
    assert_eq!(check("option httpchk", "ssl verify none"), tls(false, ""));
    assert_eq!(check("option httpchk", "ssl verify none port 8008"), plain);
    assert_eq!(check("option httpchk", "ssl verify none port 8008 check-ssl"), tls(false, ""));
    assert_eq!(check("option httpchk", "ssl verify none no-check-ssl"), plain);
    assert_eq!(check("option httpchk", "ssl verify none no-check-ssl check-ssl"), tls(false, ""));
    // What a line says of its connect, it says of all of it.
    assert_eq!(check("option httpchk\n  http-check connect", "ssl verify none"), plain);
    assert_eq!(check("option tcp-check\n  tcp-check connect port 9", "ssl verify none check-ssl"), plain);
    assert_eq!(check("option httpchk\n  http-check connect default", "ssl verify none"), tls(false, ""));
    // The name of the check alone.
    let text = "frontend f\n  bind :80\n  default_backend b\nbackend b\n  \
                server a 10.0.0.1:443 check-sni c.example sni str(r.example) ssl verify none check\n";
    let OnOffOr::On(tls) = imported(text).0.pools["b"].tls.clone() else { panic!("{text}") };
    assert_eq!(tls.server_name.as_deref(), Some("r.example"));
}

#[test]
fn the_first_rule_that_fits_a_name_decides() {
    let text = "frontend f\n  bind :443\n  use_backend b if { req.ssl_sni -m end .example.org }\n  \
                use_backend c if { req.ssl_sni api.example.org other.example }\n  \
                use_backend c if { req.ssl_sni -m end .a.example.org }\n  default_backend b\nbackend b\n  \
                server a 127.0.0.1:81\nbackend c\n  server a 127.0.0.1:82\n";
    let (file, changes) = imported(text);
    let routes: Vec<&str> = file.listeners["f"].routes.iter().filter_map(|route| route.sni.as_deref()).collect();
    assert_eq!((routes, changes), (vec!["*.example.org", "other.example"], Vec::new()));
}

#[test]
fn a_note_on_what_changes_traffic_wins_over_one_that_is_harmless() {
    let of = |binds: &str, rule: &str| imported(&frontend(&format!("  mode http\n{binds}\n  {rule}")));
    let both = "  bind :443 ssl crt a.pem\n  bind :80";
    assert_eq!(of(both, "http-request set-path /x if !{ ssl_fc }").1, [5]);
    for rule in ["http-request redirect scheme https if !{ ssl_fc }", "redirect scheme https code 301 if !{ ssl_fc }"] {
        let (file, changes) = of(both, rule);
        let redirects: Vec<bool> = file
            .listeners
            .values()
            .map(|one| one.http.redirect == crate::config::file::http::Redirect::Https)
            .collect();
        assert_eq!((redirects, changes), (vec![false, true], Vec::new()), "{rule}");
    }
    assert_eq!(of("  bind :80", "http-request redirect scheme https if { path /a }").1, [4]);
    let server = "server a app.example:443 ssl verify required ca-file c";
    assert_eq!(imported(&format!("frontend f\n  bind :80\n  default_backend b\nbackend b\n  {server}\n")).1, [5]);
}

#[test]
fn rules_on_addresses_choose_no_backend_for_all() {
    let of = |lines: &str| imported(&frontend(&format!("  mode http\n  bind :80\n{lines}"))).1;
    assert_eq!(of("  use_backend b if { path /a }"), Vec::<usize>::new(), "the others go there, too");
    assert_eq!(of("  use_backend c if { path /a }\n  use_backend b if { path /b }"), [4]);
    assert_eq!(of("  use_backend b if { path /a }\n  use_backend c if { path / }"), [4, 5]);
    let text = "frontend f\n  mode http\n  bind :80\n  use_backend b if { src 10.0.0.0/8 }\nfrontend g\n  bind :81\n  \
                default_backend b\nbackend b\n  server a 1.1.1.1:81\n";
    assert!(imported(text).0.listeners.keys().eq(["g"]));
}

#[test]
fn servers_and_binds_are_read_as_haproxy_reads_them() {
    let text = "frontend f\n  bind :80 interface eth1\n  bind :81\n  timeout client 15min\n  default_backend b\n\
                backend b\n  timeout connect 2s\n  timeout check 10s\n  \
                server a 1.1.1.1:81 weight 80% check inter 1s\n  \
                server b 1.1.1.2:81 weight 20 check inter 1s\n";
    let (file, changes) = imported(text);
    let pool = &file.pools["b"];
    assert_eq!(pool.backends.iter().map(|backend| backend.weight).collect::<Vec<_>>(), [80, 20]);
    let OffOr::On(check) = &pool.health_check else { panic!("{text}") };
    assert_eq!(check.timeout.0.as_secs(), 1, "a connect has the interval alone");
    assert_eq!((file.listeners["f"].bind.0.join(" ").as_str(), &changes[..]), ("0.0.0.0:81", &[2, 2, 4][..]));
    let asked = text.replace("timeout connect", "option httpchk\n  timeout connect");
    let OffOr::On(check) = &imported(&asked).0.pools["b"].health_check.clone() else { panic!("{text}") };
    assert_eq!(check.timeout.0.as_secs(), 11);
}
