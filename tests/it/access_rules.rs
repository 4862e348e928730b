//! Who may connect: networks that are allowed and denied, and what one client may take.

use std::fmt::Write as _;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use crate::support::{
    Ending, Lb, Server, connect, connect_from, cpu_time, read_to_end, reset, send_and_read, short_read,
    try_connect_from, wait_for, wait_until,
};

const HELLO: &str = "hello";

/// In front of `server`, with these listener keys.
fn with_rules(server: &Server, rules: &str) -> Lb {
    Lb::with_config(&yaml(server, rules)).start()
}

fn yaml(server: &Server, rules: &str) -> String {
    format!("listen: 127.0.0.1:0\nbackends: ['{}']\n{rules}\n", server.address())
}

/// What becomes of a client: whether it is served, or reset without a byte. One that is served is given, too.
#[track_caller]
fn verdict(stream: io::Result<TcpStream>) -> Result<TcpStream, ()> {
    let mut greeting = [0; HELLO.len()];
    let greeted = stream.and_then(|mut stream| stream.read_exact(&mut greeting).map(|()| stream));
    match greeted {
        Ok(stream) => {
            assert_eq!(greeting, HELLO.as_bytes());
            Ok(stream)
        }
        Err(error) if error.kind() == io::ErrorKind::ConnectionReset => Err(()),
        Err(error) => panic!("neither served nor reset: {error}"),
    }
}

#[track_caller]
fn enter(host: u8, address: SocketAddr) -> Result<TcpStream, ()> {
    verdict(try_connect_from(IpAddr::from([127, 0, 0, host]), address))
}

/// The same where the header says who the client is.
#[track_caller]
fn enter_as(client: &str, lb: &Lb) -> Result<TcpStream, ()> {
    let client: IpAddr = client.parse().unwrap();
    let (family, server) = if client.is_ipv4() { ("TCP4", "192.0.2.1") } else { ("TCP6", "2001:db8::ffff") };
    let mut stream = connect(lb.address());
    write!(stream, "PROXY {family} {client} {server} 1 2\r\n").unwrap();
    verdict(Ok(stream))
}

/// A listener that wants a header of 127.0.0.1.
fn behind_a_proxy(server: &Server, rules: &str) -> Lb {
    with_rules(server, &format!("proxy_protocol: required\ntrusted_proxies: [127.0.0.1]\n{rules}"))
}

#[test]
fn only_those_who_are_allowed_are_served() {
    let server = Server::greeting(HELLO);
    let lb = with_rules(&server, "allow: [127.0.0.2, 127.0.0.16/28]");
    for (host, is_allowed) in [(1, false), (2, true), (3, false), (15, false), (16, true), (31, true), (32, false)] {
        assert_eq!(enter(host, lb.address()).is_ok(), is_allowed, "127.0.0.{host}");
    }
    assert_eq!(server.accepted(), 3, "a refused client costs the backend nothing");
    lb.wait_for_rejections("denied", 4);
    let lines = lb.access_log(7);
    let denied: Vec<_> = lines.iter().filter(|line| line["reason"] == "denied").collect();
    assert!(denied.len() == 4 && denied.iter().all(|line| line["cause"] == "rejected"), "{denied:?}");
}

#[test]
fn who_is_denied_is_not_served_even_where_allowed() {
    let server = Server::greeting(HELLO);
    for rules in
        ["deny: [127.0.0.3]", "allow: [127.0.0.0/8]\ndeny: [127.0.0.3]", "allow: [127.0.0.3]\ndeny: [127.0.0.2/31]"]
    {
        let lb = with_rules(&server, rules);
        assert!(enter(3, lb.address()).is_err(), "{rules}");
        assert_eq!(enter(4, lb.address()).is_ok(), !rules.contains("allow: [127.0.0.3]"), "{rules}");
        lb.wait_for_rejections("denied", 1 + usize::from(rules.contains("allow: [127.0.0.3]")));
    }
    let lb = with_rules(&server, "deny: [0.0.0.0/0, '::/0']");
    assert!(enter(1, lb.address()).is_err(), "everybody");
}

#[test]
fn rules_hold_in_http_mode_and_before_any_byte() {
    let server = Server::named("served");
    let lb = with_rules(&server, "mode: http\ndeny: [127.0.0.3]");
    let request = [&b"GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"[..]];
    let ask = |host| match try_connect_from(IpAddr::from([127, 0, 0, host]), lb.address()) {
        Ok(mut stream) => send_and_read(&mut stream, request, false),
        Err(_) => (Vec::new(), Ending::Reset),
    };
    assert_eq!(ask(3), (Vec::new(), Ending::Reset));
    assert!(ask(2).0.ends_with(b"served"));
    let denied = lb.access_log(2).iter().filter(|line| line["reason"] == "denied").count();
    assert_eq!(denied, 1);
}

#[test]
fn ipv6_clients_and_mapped_ones_are_judged_by_what_they_are() {
    let server = Server::greeting(HELLO);
    // One listener for both families: an IPv4 client shows there as an IPv4-mapped address.
    for (rules, [v6, two, three]) in [
        ("deny: [127.0.0.3]", [true, true, false]),
        ("deny: ['::1']", [false, true, true]),
        ("deny: ['::/64', 127.0.0.2]", [false, false, true]),
        ("allow: [127.0.0.3]", [false, false, true]),
        ("allow: ['::/0']", [true, false, false]),
        ("allow: [0.0.0.0/0]", [false, true, true]),
        ("allow: ['::1', 127.0.0.2/31]\ndeny: [127.0.0.2]", [true, false, true]),
    ] {
        let yaml = format!("listen: '*:0'\nbackends: ['{}']\n{rules}\n", server.address());
        let lb = Lb::with_config(&yaml).start();
        let port = lb.address().port();
        let by_v6 = verdict(try_connect_from(Ipv6Addr::LOCALHOST.into(), (Ipv6Addr::LOCALHOST, port).into())).is_ok();
        let by_v4 = [2, 3].map(|host| enter(host, ([127, 0, 0, 1], port).into()).is_ok());
        assert_eq!([by_v6, by_v4[0], by_v4[1]], [v6, two, three], "::1, 127.0.0.2, 127.0.0.3 with {rules}");
    }
}

#[test]
fn a_rule_written_as_a_mapped_address_means_the_ipv4_client() {
    let server = Server::greeting(HELLO);
    for rule in ["'::ffff:127.0.0.3'", "'::ffff:127.0.0.3/128'", "'::ffff:7f00:3'"] {
        let lb = with_rules(&server, &format!("deny: [{rule}]"));
        assert!(enter(2, lb.address()).is_ok(), "{rule}");
        assert!(enter(3, lb.address()).is_err(), "{rule} denies nobody");
    }
}

#[test]
fn ten_thousand_networks_start_quickly_and_each_of_them_counts() {
    let server = Server::greeting(HELLO);
    let mut rules = "proxy_protocol: required\ntrusted_proxies: [127.0.0.1]\ndeny:\n".to_owned();
    // Every other address, so that none can be merged with its neighbour.
    let denied = |number: u32| Ipv4Addr::from_bits(0x0A00_0000 + number * 2);
    (0..10_000).for_each(|number| writeln!(rules, "  - {}", denied(number)).unwrap());
    let lb = with_rules(&server, &rules);
    let used = cpu_time(lb.pid());
    assert!(used < Duration::from_secs(1), "the start took {used:?} of CPU time");
    let (mut refused, before) = (0, cpu_time(lb.pid()));
    for number in (0..10_000).step_by(500) {
        let address = denied(number);
        assert!(enter_as(&address.to_string(), &lb).is_err(), "{address}");
        let neighbour = Ipv4Addr::from_bits(address.to_bits() + 1);
        assert!(enter_as(&neighbour.to_string(), &lb).is_ok(), "{neighbour}");
        refused += 1;
    }
    let used = cpu_time(lb.pid()) - before;
    assert!(used < Duration::from_millis(500), "{} connections took {used:?} of CPU time", 2 * refused);
    lb.wait_for_rejections("denied", refused);
}

#[test]
fn changed_rules_hold_for_the_next_connection_and_spare_those_that_live() {
    let server = Server::greeting(HELLO);
    let lb = with_rules(&server, "deny: [127.0.0.3]");
    let live = enter(2, lb.address()).unwrap();
    assert!(enter(3, lb.address()).is_err());
    lb.reload_with(&yaml(&server, "deny: [127.0.0.2]"));
    assert!(enter(2, lb.address()).is_err());
    assert!(enter(3, lb.address()).is_ok());
    lb.reload_with(&yaml(&server, ""));
    assert!(enter(2, lb.address()).is_ok() && enter(3, lb.address()).is_ok());
    live.set_nonblocking(true).unwrap();
    let still = live.peek(&mut [0]).unwrap_err();
    assert_eq!(still.kind(), io::ErrorKind::WouldBlock, "it lives");
    drop(live);
    lb.wait_for_rejections("denied", 2);
}

#[test]
fn each_client_has_its_connections_and_gets_them_back() {
    let server = Server::greeting(HELLO);
    let lb = with_rules(&server, "per_client: {max_connections: 2}");
    let address = lb.address();
    let mut of_two = vec![enter(2, address).unwrap(), enter(2, address).unwrap()];
    assert!(enter(2, address).is_err());
    let line = lb.only_access();
    assert_eq!([&line["cause"], &line["reason"]], ["rejected", "client_max_connections"]);
    let of_three = [enter(3, address).unwrap(), enter(3, address).unwrap()];
    assert!(enter(3, address).is_err(), "another client has as many of its own");
    for round in 0..20 {
        drop(of_two.remove(0));
        let again = wait_for("there is room again", || enter(2, address).ok());
        of_two.push(again);
        assert!(enter(2, address).is_err(), "and no more, in round {round}");
    }
    drop((of_two, of_three));
}

#[test]
fn a_clients_share_is_given_back_however_its_connection_ended() {
    let server = Server::echo();
    let lb = with_rules(
        &server,
        "proxy_protocol: required\ntrusted_proxies: [127.0.0.1]\nper_client: {max_connections: 1}\n\
         timeouts: {idle: 2s}",
    );
    let open = || {
        let mut stream = connect(lb.address());
        stream.write_all(b"PROXY TCP4 203.0.113.7 192.0.2.1 1 2\r\nhello").unwrap();
        stream.read_exact(&mut [0; 5]).map(|()| stream)
    };
    let endings: [fn(TcpStream); 4] = [
        drop,
        reset,
        // Until it is idle.
        |mut stream| drop(read_to_end(&mut stream)),
        |mut stream| drop(send_and_read(&mut stream, [], true)),
    ];
    for end in endings {
        let stream = wait_for("the share is free", || open().ok());
        assert!(open().is_err());
        end(stream);
    }
    drop(wait_for("the share is free", || open().ok()));
}

#[test]
fn a_clients_rate_is_kept_and_refills() {
    const RATE: usize = 5;
    let server = Server::greeting(HELLO);
    let lb = with_rules(&server, &format!("per_client: {{connections_per_second: {RATE}}}"));
    let started = Instant::now();
    let served = (0..40).filter(|_| enter(2, lb.address()).is_ok()).count();
    let refilled = started.elapsed().as_secs_f64() * RATE as f64;
    assert!(served >= RATE && served as f64 <= RATE as f64 + refilled.ceil(), "{served} of 40, {refilled} refilled");
    assert!(enter(3, lb.address()).is_ok(), "another client has a rate of its own");
    lb.wait_for_rejections("client_rate", 40 - served);
    wait_until("the rate refills", || enter(2, lb.address()).is_ok());
}

#[test]
fn a_client_behind_a_proxy_is_judged_by_its_own_address() {
    let server = Server::greeting(HELLO);
    let lb = behind_a_proxy(&server, "allow: [203.0.113.0/24, '2001:db8::/32']\ndeny: [203.0.113.9, '2001:db8::bad']");
    for (client, is_served) in [
        ("203.0.113.7", true),
        ("203.0.113.9", false),
        ("198.51.100.1", false),
        ("127.0.0.1", false),
        ("2001:db8::1", true),
        ("2001:db8::bad", false),
        ("::ffff:203.0.113.9", false),
    ] {
        assert_eq!(enter_as(client, &lb).is_ok(), is_served, "{client}");
    }
    let mut own = connect(lb.address());
    own.write_all(b"PROXY UNKNOWN\r\n").unwrap();
    assert!(verdict(Ok(own)).is_err(), "the proxy itself is not allowed");
    lb.wait_for_rejections("denied", 6);
    assert_eq!(server.accepted(), 2);
    assert_eq!(lb.access_of("203.0.113.9:1")["reason"], "denied");
}

#[test]
fn clients_of_one_ipv6_network_share_and_those_behind_one_proxy_do_not() {
    let server = Server::greeting(HELLO);
    let lb = behind_a_proxy(&server, "per_client: {max_connections: 1}");
    let first = enter_as("2001:db8::1", &lb).unwrap();
    assert!(enter_as("2001:db8::ffff:2", &lb).is_err(), "of the same /64");
    let others = ["2001:db8:0:1::1", "203.0.113.7", "203.0.113.8"].map(|client| enter_as(client, &lb).unwrap());
    assert!(enter_as("203.0.113.7", &lb).is_err());
    lb.wait_for_rejections("client_max_connections", 2);
    drop((first, others));
}

#[test]
fn a_reload_forgets_nothing_that_clients_have_taken() {
    let server = Server::greeting(HELLO);
    let rules = "per_client: {max_connections: 2}";
    let lb = with_rules(&server, rules);
    let first = enter(2, lb.address()).unwrap();
    let second = enter(2, lb.address()).unwrap();
    lb.reload_with(&yaml(&server, &format!("{rules}\nlog: {{level: info}}")));
    assert!(enter(2, lb.address()).is_err(), "both count still");
    drop(first);
    let third = wait_for("there is room", || enter(2, lb.address()).ok());
    lb.reload_with(&yaml(&server, "per_client: {max_connections: 3}"));
    let fourth = enter(2, lb.address()).unwrap();
    assert!(enter(2, lb.address()).is_err());
    drop((second, third, fourth));
}

#[test]
fn a_limit_that_comes_by_reload_counts_from_then_on() {
    let server = Server::echo();
    let lb = with_rules(&server, "");
    let mut before = connect_from(IpAddr::from([127, 0, 0, 2]), lb.address());
    before.write_all(b"here").unwrap();
    assert_eq!(short_read(&mut before), "here");
    lb.reload_with(&yaml(&server, "per_client: {max_connections: 1}"));
    let mut one = connect_from(IpAddr::from([127, 0, 0, 2]), lb.address());
    one.write_all(b"here").unwrap();
    assert_eq!(short_read(&mut one), "here");
    drop(before);
    lb.reload_with(&yaml(&server, ""));
    drop(one);
}
