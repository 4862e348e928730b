//! Clients that mean harm, and what has broken other balancers: who waits for nothing, leaves at the wrong time, or comes too often.

use std::io::{Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use crate::support::{
    Ending, Lb, Pairs, Refusing, Server, Verdict, allow_open_files, client_hellos, connect, connect_and_read, cpu_time,
    proxy_headers, read_to_end, reset, resident_bytes, send_and_read, send_pattern_until_blocked,
    shrink_receive_buffer, try_connect_from, wait_until,
};

const KIB: usize = 1024;

/// What a write that is not taken may cost.
const SHORT: Duration = Duration::from_millis(300);

#[track_caller]
fn assert_lives(lb: &Lb) {
    assert_eq!(lb.ask("/healthz").status, 200);
    assert!(!lb.log_text().contains("panicked"), "{}", lb.log_text());
}

#[test]
fn a_client_that_resets_during_the_connect_is_not_waited_for() {
    // Envoy CVE-2021-43826 is about the same moment.
    const CLIENTS: usize = 50;
    let hole = Server::blackhole();
    let lb = Lb::in_front_of(&[hole.address()]).with(&["--connect-timeout", "10s"]).set("attempts", 1).start();
    let clients: Vec<TcpStream> = (0..CLIENTS)
        .map(|_| {
            let mut client = connect(lb.address());
            client.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
            client
        })
        .collect();
    wait_until("all are served", || lb.metrics().sum("connections_active", &[]) == CLIENTS as f64);
    clients.into_iter().for_each(reset);
    let started = Instant::now();
    wait_until("none is left", || lb.metrics().sum("connections_active", &[]) == 0.0);
    assert!(started.elapsed() < Duration::from_secs(1), "they held their places for {:?}", started.elapsed());
    lb.assert_balanced();
}

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
    assert_lives(&lb);
    lb.assert_balanced();
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
    lb.assert_balanced();
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
        lb.assert_balanced();
    }
}

#[test]
fn an_ipv6_header_is_told_on_where_all_else_is_ipv4() {
    // Envoy CVE-2024-23325: it ended.
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
        lb.assert_balanced();
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
    lb.assert_balanced();
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
    lb.assert_balanced();
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
    let started = Instant::now();
    lb.access_log(PAIRS).iter().for_each(|line| assert_eq!(line["cause"], "half_closed_timeout"));
    assert!(started.elapsed() < Duration::from_secs(5), "after {:?}", started.elapsed());
    lb.assert_balanced();
}

/// Listeners of each kind: `plain`, `proxied`, `routed`; and `bulk`, whose backend sends without end.
fn with_listeners_of_each_kind(echo: SocketAddr, flood: SocketAddr, limits: &str) -> Lb {
    Lb::with_config(&format!(
        "max_connections: 4000\nlisteners:\n\
         \x20 plain: {{bind: '127.0.0.1:0', pool: echo, {limits}}}\n\
         \x20 proxied: {{bind: '127.0.0.1:0', pool: echo, proxy_protocol: required, trusted_proxies: [127.0.0.1], {limits}}}\n\
         \x20 routed: {{bind: '127.0.0.1:0', pool: echo, routes: [{{sni: '*', pool: echo}}], {limits}}}\n\
         \x20 bulk: {{bind: '127.0.0.1:0', pool: flood, {limits}}}\n\
         pools:\n  echo: {{backends: ['{echo}']}}\n  flood: {{backends: ['{flood}']}}\n"
    ))
    .start()
}

#[test]
fn idle_attackers_disturb_nobody_and_are_gone_when_their_time_is_over() {
    const ATTACKERS: usize = 480;
    const NEVER_READING: usize = 20;
    const HONEST: usize = 51;
    allow_open_files(4096);
    let echo = Server::echo();
    let flood = Server::that(|mut stream| {
        stream.set_write_timeout(Some(Duration::from_secs(10))).unwrap();
        send_pattern_until_blocked(&mut stream);
    });
    let limits = "timeouts: {client_header: 4s, idle: 4s, half_closed: 4s}";
    let lb = with_listeners_of_each_kind(echo.address(), flood.address(), limits);
    let [plain, proxied, routed] = ["plain", "proxied", "routed"].map(|name| lb.address_of(name));
    let hello = client_hellos().into_iter().find(|vector| vector.name == "curl 7.88, OpenSSL 3.0").unwrap().bytes;
    let header = b"PROXY TCP4 203.0.113.7 192.0.2.1 4711 443\r\n".as_slice();
    let kinds: [(SocketAddr, &[u8]); 6] = [
        (plain, b""),
        (proxied, b""),
        (proxied, &header[..30]),
        (routed, b""),
        (routed, &hello[..3]),
        (routed, &hello[..hello.len() - 1]),
    ];
    let mut attackers: Vec<TcpStream> = (0..ATTACKERS)
        .map(|number| {
            let (address, bytes) = kinds[number % kinds.len()];
            let mut stream = connect(address);
            stream.write_all(bytes).unwrap();
            stream
        })
        .collect();
    attackers.extend((0..NEVER_READING).map(|_| {
        let stream = connect(lb.address_of("bulk"));
        shrink_receive_buffer(&stream);
        stream
    }));
    wait_until("all attack", || {
        lb.metrics().sum("connections_accepted_total", &[]) == (ATTACKERS + NEVER_READING) as f64
    });
    for number in 0..HONEST {
        let started = Instant::now();
        let (address, first) = [(plain, &b""[..]), (proxied, header), (routed, &hello[..])][number % 3];
        let mut stream = connect(address);
        stream.write_all(&[first, b"a question"].concat()).unwrap();
        let expected = if address == routed { [&hello[..], b"a question"].concat() } else { b"a question".to_vec() };
        let mut answer = vec![0; expected.len()];
        stream.read_exact(&mut answer).unwrap();
        assert!(answer == expected, "client {number}");
        assert!(started.elapsed() < Duration::from_secs(1), "client {number} was served after {:?}", started.elapsed());
    }
    for stream in attackers.iter_mut().take(ATTACKERS) {
        assert_eq!(read_to_end(stream), (Vec::new(), Ending::Reset));
    }
    // Those who never read hold their sockets still: they are ended without their help.
    wait_until("none is left", || lb.metrics().sum("connections_active", &[]) == 0.0);
    assert_lives(&lb);
    lb.assert_balanced();
    let metrics = lb.metrics();
    let of = |reason| metrics.sum("connections_rejected_total", &[("reason", reason)]);
    assert_eq!([of("proxy_header"), of("client_hello")], [160.0, 240.0]);
    assert_eq!(metrics.sum("connections_closed_total", &[("reason", "idle_timeout")]), (80 + NEVER_READING) as f64);
}

#[test]
fn a_flood_over_the_limit_harms_no_live_session() {
    const SESSIONS: usize = 100;
    const FLOOD: usize = 5_000;
    allow_open_files(4096);
    let backends = Pairs::new();
    let limit = SESSIONS.to_string();
    let lb = Lb::in_front_of(&[backends.address()]).with(&["--max-connections", &limit]).start();
    let mut sessions: Vec<_> = (0..SESSIONS).map(|_| backends.connect(&lb)).collect();
    sessions.iter_mut().for_each(|pair| pair.ping(b"before"));
    let before = resident_bytes(lb.pid());
    let address = lb.address();
    let flood: Vec<_> = (0..4)
        .map(|_| {
            thread::spawn(move || {
                for _ in 0..FLOOD / 4 {
                    assert_eq!(connect_and_read(address), (Vec::new(), Ending::Reset));
                }
            })
        })
        .collect();
    let mut slowest = Duration::ZERO;
    while flood.iter().any(|thread| !thread.is_finished()) {
        for pair in &mut sessions {
            let started = Instant::now();
            pair.ping(b"meanwhile");
            slowest = slowest.max(started.elapsed());
        }
        let started = Instant::now();
        assert_eq!(lb.ask("/readyz").status, 200);
        slowest = slowest.max(started.elapsed());
    }
    flood.into_iter().for_each(|thread| thread.join().unwrap());
    assert!(slowest < Duration::from_secs(1), "a message took {slowest:?}");
    lb.wait_for_rejections("max_connections", FLOOD);
    sessions.iter_mut().for_each(|pair| pair.ping(b"after"));
    let grown = resident_bytes(lb.pid()).saturating_sub(before);
    assert!(grown < 16 * (KIB * KIB) as u64, "the flood left {grown} bytes");
    drop(sessions);
    lb.assert_balanced();
}
