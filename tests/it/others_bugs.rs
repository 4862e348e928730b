//! What has broken other balancers, a test each; where the bug has a number, it is named.

use std::io::Write;
use std::net::{IpAddr, Shutdown, SocketAddr, TcpStream};
use std::thread;
use std::time::Duration;

use crate::support::{
    Ending, Lb, Pairs, Refusing, Server, Verdict, connect, cpu_time, is_in_a_network_of_its_own, proxy_headers,
    read_to_end, reset, resident_bytes, send_and_read, send_pattern_until_blocked, shrink_receive_buffer,
    try_connect_from, wait_until,
};

const KIB: usize = 1024;

/// What a write that is not taken may cost.
const SHORT: Duration = Duration::from_millis(300);

/// Both sides send until nothing is taken any more; then `end` makes an end of it.
fn ended_under_back_pressure(method: &str, end: impl Fn(TcpStream, TcpStream)) {
    const ROUNDS: usize = 2;
    let backends = Pairs::with_small_buffers();
    let lb = Lb::in_front_of(&[backends.address()])
        .set("relay.mode", method)
        .set("timeouts.half_closed", "1s")
        .with(&["--idle-timeout", "2s"])
        .start();
    for _ in 0..ROUNDS {
        let mut pair = backends.connect(&lb);
        shrink_receive_buffer(&pair.client);
        for stream in [&pair.client, &pair.backend] {
            stream.set_write_timeout(Some(SHORT)).unwrap();
        }
        let mut other = pair.client.try_clone().unwrap();
        let sending = thread::spawn(move || send_pattern_until_blocked(&mut other));
        send_pattern_until_blocked(&mut pair.backend);
        sending.join().unwrap();
        end(pair.client, pair.backend);
    }
    assert!(lb.access_log(ROUNDS).iter().all(|line| line["cause"] != "internal"));
    assert_eq!(lb.ask("/healthz").status, 200);
}

#[test]
fn bytes_on_a_closing_connection_that_is_stuck_break_nothing() {
    // Envoy CVE-2025-62409.
    for method in ["copy", "splice"] {
        ended_under_back_pressure(method, |client, backend| {
            reset(backend);
            drop(read_to_end(&mut { client }));
        });
        ended_under_back_pressure(method, |client, backend| {
            reset(client);
            drop(read_to_end(&mut { backend }));
        });
        ended_under_back_pressure(method, |client, backend| {
            client.shutdown(Shutdown::Write).unwrap();
            reset(backend);
            drop(read_to_end(&mut { client }));
        });
        ended_under_back_pressure(method, |client, backend| {
            backend.shutdown(Shutdown::Write).unwrap();
            reset(client);
            drop(read_to_end(&mut { backend }));
        });
        // Closed with bytes unread, while the other side still tries to send.
        ended_under_back_pressure(method, |mut client, backend| {
            drop(backend);
            while client.write(&[b'x'; KIB]).is_ok() {}
        });
    }
}

#[test]
fn bytes_that_come_before_the_connect_has_ended_are_not_kept() {
    // Envoy #42368: each such connection leaked.
    const ROUNDS: usize = 10;
    const CLIENTS: usize = 50;
    let hole = Server::blackhole();
    let lb = Lb::in_front_of(&[hole.address()])
        .with(&["--connect-timeout", "200ms"])
        .set("attempts", 1)
        .set("failure_detection", "off")
        .start();
    let round = || {
        let clients: Vec<TcpStream> = (0..CLIENTS)
            .map(|_| {
                let mut client = connect(lb.address());
                client.set_write_timeout(Some(SHORT)).unwrap();
                // Those of which the connect has failed already take no more.
                let _ = client.write_all(&[b'x'; 32 * KIB]);
                client
            })
            .collect();
        clients.into_iter().step_by(2).for_each(reset);
        wait_until("they have ended", || lb.metrics().sum("connections_active", &[]) == 0.0);
    };
    round();
    let before = resident_bytes(lb.pid());
    (0..ROUNDS).for_each(|_| round());
    let grown = resident_bytes(lb.pid()).saturating_sub(before);
    assert!(grown < 2 * (KIB * KIB) as u64, "{} connections left {grown} bytes", ROUNDS * CLIENTS);
}

#[test]
fn a_local_header_without_addresses_is_told_on_as_a_sound_one() {
    // Envoy CVE-2024-23327: it took addresses that were not there.
    let server = Server::mirror();
    for (version, policy) in [("v1", "round_robin"), ("v2", "source_hash")] {
        let lb = Lb::with_config(&format!(
            "listen: 127.0.0.1:0\nbackends: ['{}']\nsend_proxy: {version}\npolicy: {policy}\n\
             proxy_protocol: required\ntrusted_proxies: [127.0.0.1]\nallow: [127.0.0.0/8]\n\
             per_client: {{max_connections: 9, connections_per_second: 1000}}\n",
            server.address()
        ))
        .start();
        let local = proxy_headers().into_iter().filter(|vector| vector.facts["origin"] == "local");
        for vector in local {
            let mut stream = connect(lb.address());
            let own = stream.local_addr().unwrap();
            let bytes = [&vector.bytes[..vector.length], b"payload"].concat();
            let (got, ending) = send_and_read(&mut stream, [&bytes[..]], true);
            let told = match version {
                "v1" => {
                    format!("PROXY TCP4 127.0.0.1 127.0.0.1 {} {}\r\n", own.port(), lb.address().port()).into_bytes()
                }
                _ => {
                    let ports = [own.port().to_be_bytes(), lb.address().port().to_be_bytes()].concat();
                    let fixed = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\x7f\0\0\x01\x7f\0\0\x01";
                    [&fixed[..], &ports].concat()
                }
            };
            assert_eq!((got, ending), ([&told[..], b"payload"].concat(), Ending::Clean), "{}", vector.name);
        }
    }
}

#[test]
fn an_ipv6_header_is_told_on_where_the_machine_has_no_ipv6() {
    // Envoy CVE-2024-23325: it ended.
    if !is_in_a_network_of_its_own("others_bugs::an_ipv6_header_is_told_on_where_the_machine_has_no_ipv6") {
        return;
    }
    // The file is not there where the kernel has no IPv6 at all.
    let _ = std::fs::write("/proc/sys/net/ipv6/conf/all/disable_ipv6", "1");
    assert!(std::net::TcpListener::bind("[::1]:0").is_err(), "IPv6 was to be off");
    let server = Server::mirror();
    for policy in ["round_robin", "source_hash"] {
        let lb = Lb::with_config(&format!(
            "listen: 127.0.0.1:0\nbackends: ['{}']\nsend_proxy: v1\npolicy: {policy}\nsource: [127.0.0.5]\n\
             proxy_protocol: required\ntrusted_proxies: [127.0.0.1]\nper_client: {{max_connections: 9}}\n",
            server.address()
        ))
        .start();
        for header in ["PROXY TCP6 2001:db8::1 2001:db8::2 1 2\r\n", "PROXY TCP6 :: ::1 0 0\r\n"] {
            let bytes = format!("{header}payload");
            let got = send_and_read(&mut connect(lb.address()), [bytes.as_bytes()], true);
            assert_eq!(got, (bytes.into_bytes(), Ending::Clean));
        }
    }
}

#[test]
fn no_tlv_takes_a_byte_of_what_follows_the_header() {
    // CVE-2026-47692: a TLV longer than its header took the payload for its own.
    let server = Server::mirror();
    let yaml = "listen: 127.0.0.1:0\nproxy_protocol: required\ntrusted_proxies: [127.0.0.1]\n";
    let lb = Lb::with_config(&format!("{yaml}backends: ['{}']\n", server.address())).start();
    let tail = [b"\x04\xff\xff".as_slice(), &[b'x'; 70_000]].concat();
    let (mut sound, mut refused) = (0, 0);
    for vector in proxy_headers().iter().filter(|vector| vector.name.contains("TLV")) {
        let bytes = [&vector.bytes[..vector.length], &tail].concat();
        match vector.verdict {
            Verdict::Accept => {
                let got = send_and_read(&mut connect(lb.address()), [&bytes[..]], true);
                assert!(got == (tail.clone(), Ending::Clean), "{}: {} bytes", vector.name, got.0.len());
                sound += 1;
            }
            Verdict::Reject => {
                let got = send_and_read(&mut connect(lb.address()), [&bytes[..]], false);
                assert_eq!(got, (Vec::new(), Ending::Reset), "{}", vector.name);
                refused += 1;
            }
            Verdict::Incomplete => {}
        }
    }
    assert!(sound >= 5 && refused >= 5, "{sound} and {refused}");
    lb.wait_for_rejections("proxy_header", refused);
    assert_eq!(server.accepted(), sound);
}

#[test]
fn a_hash_policy_whose_backends_are_all_down_costs_little() {
    // nginx 1.13.6: it spun.
    const BACKENDS: usize = 50;
    const CLIENTS: usize = 200;
    let dead: Vec<Refusing> = (0..BACKENDS).map(|_| Refusing::new()).collect();
    let addresses: Vec<SocketAddr> = dead.iter().map(Refusing::address).collect();
    let lb = Lb::in_front_of(&addresses)
        .set("policy", "source_hash")
        .set("attempts", 16)
        .set("failure_detection.failures", 1)
        .set("failure_detection.ejection", "1h")
        .set("failure_detection.max_ejection", "1h")
        .start();
    let before = cpu_time(lb.pid());
    for client in 0..CLIENTS {
        let source = IpAddr::from([127, 0, 1, u8::try_from(client).unwrap()]);
        if let Ok(mut stream) = try_connect_from(source, lb.address()) {
            assert_eq!(read_to_end(&mut stream), (Vec::new(), Ending::Reset));
        }
    }
    lb.access_log(CLIENTS);
    let used = cpu_time(lb.pid()) - before;
    assert!(used < Duration::from_secs(2), "{CLIENTS} clients cost {used:?} of CPU time");
    let before = cpu_time(lb.pid());
    thread::sleep(Duration::from_secs(1));
    let idle = cpu_time(lb.pid()) - before;
    assert!(idle < Duration::from_millis(100), "{idle:?} of CPU time in a second of nothing");
}

#[test]
fn half_closed_connections_are_not_kept() {
    // Envoy #41086, HAProxy #2520: for an hour.
    const PAIRS: usize = 50;
    let backends = Pairs::new();
    let lb = Lb::in_front_of(&[backends.address()]).set("timeouts.half_closed", "500ms").start();
    let mut pairs: Vec<_> = (0..PAIRS).map(|_| backends.connect(&lb)).collect();
    for (number, pair) in pairs.iter_mut().enumerate() {
        pair.ping(b"hello");
        let ends = if number % 2 == 0 { &pair.client } else { &pair.backend };
        ends.shutdown(Shutdown::Write).unwrap();
    }
    lb.access_log(PAIRS).iter().for_each(|line| assert_eq!(line["cause"], "half_closed_timeout"));
}
