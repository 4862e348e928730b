//! Clients that mean harm: who says nothing or half of what is due, never reads, leaves at the wrong time, or comes too
//! often.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use crate::support::{
    Ending, Lb, Pairs, Reader, Server, allow_open_files, client_hellos, connect, connect_and_read, cpu_time, exchange,
    read_to_end, reset, resident_bytes, send_pattern_until_blocked, shrink_receive_buffer, wait_for_within, wait_until,
};

const KIB: usize = 1024;

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
    for mode in ["tcp", "http"] {
        let builder = Lb::in_front_of(&[hole.address()]).with(&["--connect-timeout", "1m", "--mode", mode]);
        let lb = builder.set("attempts", 1).start();
        let clients: Vec<TcpStream> = (0..CLIENTS)
            .map(|_| {
                let mut client = connect(lb.address());
                client.write_all(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n").unwrap();
                client
            })
            .collect();
        let backends = || lb.metrics().sum("backend_connections_active", &[]);
        wait_until("all wait for the backend", || backends() == CLIENTS as f64);
        clients.into_iter().for_each(reset);
        wait_until(&format!("none is left in mode {mode}"), || lb.metrics().sum("connections_active", &[]) == 0.0);
        assert_eq!(lb.backend(hole.address())["failures"], 0, "nobody knows whether the backend would have answered");
    }
}

#[test]
fn half_a_header_that_waits_costs_no_time() {
    const ATTACKERS: usize = 300;
    allow_open_files(4096);
    let echo = Server::echo();
    let lb = with_listeners_of_each_kind(echo.address(), echo.address(), "timeouts: {client_header: 1h}");
    let hello = client_hellos().remove(0).bytes;
    let attackers: Vec<TcpStream> = (0..ATTACKERS)
        .map(|number| {
            let (listener, bytes) = [("proxied", &b"PROXY TCP4 "[..]), ("routed", &hello[..200])][number % 2];
            let mut stream = connect(lb.address_of(listener));
            stream.write_all(bytes).unwrap();
            stream
        })
        .collect();
    wait_until("all wait", || lb.metrics().sum("connections_active", &[]) == ATTACKERS as f64);
    let before = cpu_time(lb.pid());
    thread::sleep(Duration::from_secs(1));
    let used = cpu_time(lb.pid()) - before;
    assert!(used < Duration::from_millis(100), "{used:?} of CPU time in a second of waiting");
    drop(attackers);
}

/// Listeners of each kind: `plain`, `proxied`, `routed`; and `bulk`, whose backend sends without end.
fn with_listeners_of_each_kind(echo: SocketAddr, flood: SocketAddr, limits: &str) -> Lb {
    Lb::with_config(&format!(
        "max_connections: 8000\nlisteners:\n\
         \x20 plain: {{bind: '127.0.0.1:0', pool: echo, {limits}}}\n\
         \x20 proxied: {{bind: '127.0.0.1:0', pool: echo, proxy_protocol: required, \
         trusted_proxies: [127.0.0.1], {limits}}}\n\
         \x20 routed: {{bind: '127.0.0.1:0', pool: echo, routes: [{{sni: '*', pool: echo}}], {limits}}}\n\
         \x20 bulk: {{bind: '127.0.0.1:0', pool: flood, {limits}}}\n\
         pools:\n  echo: {{backends: ['{echo}']}}\n  flood: {{backends: ['{flood}']}}\n"
    ))
    .start()
}

#[test]
fn idle_attackers_disturb_nobody_and_are_gone_when_their_time_is_over() {
    const ATTACKERS: usize = 4_920;
    /// Each has several MB in the kernel, which gives TCP some GB of a machine's memory for all.
    const NEVER_READING: usize = 80;
    const HONEST: usize = 99;
    allow_open_files(8_000);
    let echo = Server::echo();
    let flood = Server::that(|mut stream| {
        stream.set_write_timeout(Some(Duration::from_secs(60))).unwrap();
        send_pattern_until_blocked(&mut stream);
    });
    let limits = "timeouts: {client_header: 15s, idle: 15s, half_closed: 15s}";
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
        let (address, first) = [(plain, &b""[..]), (proxied, header), (routed, &hello[..])][number % 3];
        let mut stream = connect(address);
        stream.write_all(&[first, b"a question"].concat()).unwrap();
        let expected = if address == routed { [&hello[..], b"a question"].concat() } else { b"a question".to_vec() };
        let mut answer = vec![0; expected.len()];
        stream.read_exact(&mut answer).unwrap();
        assert!(answer == expected, "client {number}");
    }
    // All were served within the attackers' time of 15 s, so in 150 ms each on average.
    let still_there = lb.metrics().sum("connections_active", &[]);
    assert!(still_there >= (ATTACKERS + NEVER_READING) as f64, "{still_there}: all attack the whole time");
    for stream in attackers.iter_mut().take(ATTACKERS) {
        assert_eq!(read_to_end(stream), (Vec::new(), Ending::Reset));
    }
    // Those who never read hold their sockets still: they are ended without their help, once nothing more is sent.
    wait_for_within(Duration::from_secs(60), "none is left", || {
        (lb.metrics().sum("connections_active", &[]) == 0.0).then_some(())
    });
    assert_lives(&lb);
    lb.assert_balanced();
    let metrics = lb.metrics();
    let of = |reason| metrics.sum("connections_rejected_total", &[("reason", reason)]);
    assert_eq!([of("proxy_header"), of("client_hello")], [ATTACKERS / 3, ATTACKERS / 2].map(|n| n as f64));
    assert_eq!(
        metrics.sum("connections_closed_total", &[("reason", "idle_timeout")]),
        (ATTACKERS / 6 + NEVER_READING) as f64
    );
}

#[test]
fn a_flood_over_the_limit_harms_no_live_session() {
    const SESSIONS: usize = 100;
    const FLOOD: usize = 50_000;
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
    let (started, mut messages) = (Instant::now(), 0);
    while flood.iter().any(|thread| !thread.is_finished()) {
        sessions.iter_mut().for_each(|pair| pair.ping(b"meanwhile"));
        assert_eq!(lb.ask("/readyz").status, 200);
        messages += SESSIONS + 1;
    }
    let took = started.elapsed().div_f64(messages as f64);
    flood.into_iter().for_each(|thread| thread.join().unwrap());
    assert!(took < Duration::from_millis(100), "a message took {took:?} on average");
    lb.wait_for_rejections("max_connections", FLOOD);
    sessions.iter_mut().for_each(|pair| pair.ping(b"after"));
    let grown = resident_bytes(lb.pid()).saturating_sub(before);
    assert!(grown < 16 * (KIB * KIB) as u64, "the flood left {grown} bytes");
    drop(sessions);
}

#[test]
fn clients_that_ask_ahead_of_a_stalled_answer_cost_little_memory() {
    const ATTACKERS: usize = 200;
    const MOST_KIB: u64 = 24;
    allow_open_files(4096);
    let server = Server::that(|stream| {
        let mut reader = Reader::of(stream);
        while let Some(request) = reader.message(false) {
            if request.head.starts_with("GET /fine ") {
                reader.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
            }
        }
    });
    let lb = Lb::in_front_of(&[server.address()]).with(&["--mode", "http"]).start();
    let is_served = || exchange(&mut connect(lb.address()), "/fine").unwrap().status == 200;
    assert!(is_served());
    let get = "GET / HTTP/1.1\r\nHost: h\r\n\r\n";
    // Behind a request without a body, behind the end of chunks, and behind chunks that have come by themselves.
    let chunked = "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n";
    let kinds = [(get, ""), (chunked, "1\r\na\r\n0\r\n\r\n"), (chunked, "")];
    let before = resident_bytes(lb.pid());
    let attackers: Vec<TcpStream> = (0..ATTACKERS)
        .map(|number| {
            let (head, body) = kinds[number % kinds.len()];
            let mut stream = connect(lb.address());
            stream.write_all(&[head, body].concat().into_bytes()).unwrap();
            stream
        })
        .collect();
    let active = || lb.metrics().sum("backend_connections_active", &[]);
    wait_until("all wait for an answer", || active() == ATTACKERS as f64);
    for (number, mut stream) in attackers.iter().enumerate() {
        let rest = if number % kinds.len() == 2 { "1\r\na\r\n0\r\n\r\n" } else { "" };
        stream.set_nonblocking(true).unwrap();
        // What lb takes of it, and what the sockets take.
        let _ = stream.write_all(&[rest, &get.repeat(4_000)].concat().into_bytes());
    }
    assert!(is_served());
    let grown = resident_bytes(lb.pid()).saturating_sub(before) / ATTACKERS as u64 / 1024;
    assert!(grown <= MOST_KIB, "each costs {grown} KiB");
    attackers.into_iter().for_each(reset);
    wait_until("they are gone", || active() == 0.0);
    assert_lives(&lb);
}
