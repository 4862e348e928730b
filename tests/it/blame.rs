//! Who is to blame: backends that fail in ways that only their answers show are taken out, and healthy ones stay in,
//! whatever their clients do.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::Duration;

use crate::support::{
    Folder, Lb, LbBuilder, Program, Refusing, Server, connect, connect_from, get, get_from, nginx, run_to_end,
    wait_until,
};

/// More than any client of a healthy backend would wait for its first byte here.
const SILENCE: &str = "500ms";
const CHECK: &str = "{interval: 50ms, timeout: 1s, rise: 1, fall: 3}";
/// Bytes that are no protocol's beginning.
const RUBBISH: &[u8] = b"\x00\x07\xff\xfe\x01\x02\x03\x04";

fn http(backends: &[SocketAddr]) -> LbBuilder {
    Lb::in_front_of(backends).with(&["--mode", "http"])
}

fn ejections(lb: &Lb) -> f64 {
    lb.metrics().sum("backend_ejections_total", &[])
}

/// How many of this many GETs, each on a connection of its own, were not answered by 200.
fn failures_of(lb: &Lb, requests: usize) -> usize {
    (0..requests).filter(|_| !get_from(lb.address(), "/").is_ok_and(|answer| answer.status == 200)).count()
}

/// Reads a request, answers it with `answer`, and closes.
fn answering(answer: impl Into<Vec<u8>>) -> Server {
    let answer = answer.into();
    Server::that(move |mut stream| {
        if stream.read(&mut [0; 4096]).is_ok_and(|length| length > 0) {
            let _ = stream.write_all(&answer);
        }
    })
}

/// An HTTP server that closes without an answer on what is no GET, as PostgreSQL, mosquitto and TLS servers close on
/// what they don't understand, and on a client that says nothing for a while.
fn closing_on_rubbish(name: &str) -> Server {
    let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{name}", name.len());
    Server::that(move |mut stream| {
        stream.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
        let mut request = [0; 4096];
        if let Ok(length) = stream.read(&mut request)
            && request[..length].starts_with(b"GET ")
        {
            let _ = stream.write_all(answer.as_bytes());
        }
    })
}

#[test]
fn a_backend_that_gives_no_good_answer_costs_a_few_requests_and_is_out() {
    let huge = format!("HTTP/1.1 200 OK\r\nX: {}\r\n\r\n", "x".repeat(40 * 1024));
    let bad = [
        ("silent", Server::ignoring()),
        (
            "SSH",
            Server::that(|mut stream| {
                let _ = stream.write_all(b"SSH-2.0-OpenSSH_9.2\r\n");
                let _ = stream.read_to_end(&mut Vec::new());
            }),
        ),
        ("TLS", answering(b"\x15\x03\x01\x00\x02\x02\x46")),
        ("half a head", answering("HTTP/1.1 200 OK\r\nContent-Le")),
        ("carriage returns only", answering("HTTP/1.1 200 OK\rContent-Length: 0\r\r")),
        ("a head of 40 KB", answering(huge)),
        ("a body cut short", answering("HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nabc")),
    ];
    for (what, bad) in bad {
        let good = Server::named("good");
        let lb = http(&[bad.address(), good.address()])
            .set("listeners.default.http.timeouts.response_header", SILENCE)
            .start();
        let failed = failures_of(&lb, 40);
        assert!(failed <= 5, "{what}: {failed} of 40 failed");
        assert_eq!((lb.state_of(bad.address()).as_str(), lb.state_of(good.address()).as_str()), ("ejected", "up"));
    }
}

#[test]
fn a_silent_backend_is_out_in_tcp_mode_where_its_first_byte_has_a_limit() {
    let (silent, good) = (Server::ignoring(), Server::named("good"));
    let lb = Lb::in_front_of(&[silent.address(), good.address()]).set("first_byte_timeout", SILENCE).start();
    let failed = failures_of(&lb, 40);
    assert!(failed <= 5, "{failed} of 40 failed");
    assert_eq!(lb.state_of(silent.address()), "ejected");
    assert!(lb.access_log(40).iter().any(|line| line["cause"] == "first_byte_timeout"));
    let reason = lb.backend(silent.address())["reason"].as_str().unwrap().to_owned();
    assert!(reason.ends_with("no answer in time"), "{reason}");
}

#[test]
fn silence_until_the_idle_timeout_counts_where_that_is_wanted() {
    for (counts, state) in [(true, "ejected"), (false, "up")] {
        let (silent, good) = (Server::ignoring(), Server::named("good"));
        let lb = Lb::in_front_of(&[silent.address(), good.address()])
            .set("failure_detection.count_silence", counts)
            .with(&["--idle-timeout", SILENCE])
            .start();
        failures_of(&lb, 12);
        assert_eq!(lb.state_of(silent.address()), state, "count_silence: {counts}");
    }
}

/// Three nginx that hang up on requests for unknown hosts, and on clients that are silent for two seconds.
fn nginx_that_hangs_up(folder: &Folder) -> (Vec<SocketAddr>, Vec<Program>) {
    let servers = (0..3).map(|_| Refusing::new().address()).map(|address| {
        let blocks = format!(
            "http {{ $TEMP access_log off; client_header_timeout 2s; \
             server {{ listen {address} default_server; return 444; }} \
             server {{ listen {address}; server_name known; return 200 known; }} }}"
        );
        (address, nginx(folder, address, &blocks))
    });
    servers.unzip()
}

/// A GET for a host; whether it was answered.
fn asks_for(address: SocketAddr, host: &str) -> bool {
    let mut client = connect(address);
    let request = format!("GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    let mut answer = Vec::new();
    let _ = client.write_all(request.as_bytes()).and_then(|()| client.read_to_end(&mut answer).map(drop));
    answer.starts_with(b"HTTP/1.1 200")
}

#[test]
fn bots_that_servers_hang_up_on_eject_nobody() {
    let folder = Folder::new();
    let (servers, _running) = nginx_that_hangs_up(&folder);
    for mode in ["tcp", "http"] {
        for check in ["off", CHECK] {
            let lb = Lb::in_front_of(&servers).with(&["--mode", mode]).set("health_check", check).start();
            for _ in 0..30 {
                asks_for(lb.address(), "unknown");
                assert!(asks_for(lb.address(), "known"), "mode {mode}, check {check}");
            }
            assert_eq!(ejections(&lb), 0.0, "mode {mode}, check {check}");
        }
    }
}

#[test]
fn silent_clients_that_servers_hang_up_on_eject_nobody() {
    let folder = Folder::new();
    let (servers, _running) = nginx_that_hangs_up(&folder);
    for mode in ["tcp", "http"] {
        let lb = Lb::in_front_of(&servers).with(&["--mode", mode]).set("timeouts.client_header", "2s").start();
        let mut silent: Vec<TcpStream> = (0..12).map(|_| connect(lb.address())).collect();
        for client in &mut silent {
            let _ = client.read_to_end(&mut Vec::new());
        }
        assert!(asks_for(lb.address(), "known"));
        assert_eq!(ejections(&lb), 0.0, "mode {mode}");
        assert_eq!(lb.metrics().sum("retries_total", &[]), 0.0, "nobody is handed on after such a silence");
    }
}

#[test]
fn rubbish_moves_nobody_to_the_backup() {
    for check in ["off", CHECK] {
        for primaries in [1, 2] {
            let servers: Vec<Server> = (0..primaries).map(|_| closing_on_rubbish("primary")).collect();
            let backup = closing_on_rubbish("backup");
            let mut backends: Vec<String> = servers.iter().map(|server| server.address().to_string()).collect();
            backends.push(format!("{},backup", backup.address()));
            let backends: Vec<&str> = backends.iter().map(String::as_str).collect();
            let lb = Lb::with_backends(&backends).set("health_check", check).start();
            for _ in 0..6 {
                let mut client = connect(lb.address());
                client.write_all(RUBBISH).unwrap();
                let _ = client.read_to_end(&mut Vec::new());
            }
            assert!((0..6).all(|_| get(lb.address(), "/").body == "primary"), "{primaries} primaries, check {check}");
            assert_eq!(ejections(&lb), 0.0);
        }
    }
}

#[test]
fn half_the_clients_misbehaving_eject_none_of_three_healthy_backends() {
    let servers: Vec<Server> = (0..3).map(|_| closing_on_rubbish("well")).collect();
    let addresses: Vec<SocketAddr> = servers.iter().map(Server::address).collect();
    let lb = Lb::in_front_of(&addresses).start();
    // A fixed pseudo-random mix: each backend gets its part of both.
    let mut state = 1_u32;
    for _ in 0..120 {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        if state >> 31 == 0 {
            assert_eq!(get(lb.address(), "/").body, "well");
        } else {
            let mut client = connect(lb.address());
            client.write_all(RUBBISH).unwrap();
            let _ = client.read_to_end(&mut Vec::new());
        }
    }
    assert_eq!(ejections(&lb), 0.0);
}

#[test]
fn clients_that_misbehave_in_step_with_the_turns_eject_nobody() {
    let ask = |lb: &Lb| assert_eq!(get(lb.address(), "/").body, "well");
    let send_rubbish = |lb: &Lb| {
        let mut client = connect(lb.address());
        client.write_all(RUBBISH).unwrap();
        let _ = client.read_to_end(&mut Vec::new());
    };
    let say_nothing = |lb: &Lb| drop(connect(lb.address()).read_to_end(&mut Vec::new()));
    type Visit<'a> = &'a dyn Fn(&Lb);
    let patterns: [&[Visit<'_>]; 4] = [
        &[&ask, &send_rubbish],
        &[&ask, &ask, &send_rubbish],
        &[&ask, &ask, &ask, &send_rubbish],
        &[&ask, &send_rubbish, &ask, &say_nothing],
    ];
    // Turns are given up at random, so that nearly all of these are told from a backend's fault.
    let mut ejected = Vec::new();
    for backends in [2, 3, 4] {
        for (number, pattern) in patterns.iter().enumerate() {
            let servers: Vec<Server> = (0..backends).map(|_| closing_on_rubbish("well")).collect();
            let addresses: Vec<SocketAddr> = servers.iter().map(Server::address).collect();
            let lb = Lb::in_front_of(&addresses).start();
            pattern.iter().cycle().take(40).for_each(|visit| visit(&lb));
            if ejections(&lb) > 0.0 {
                ejected.push((backends, number));
            }
            assert_eq!(lb.metrics().sum("retries_total", &[]), 0.0, "{backends} backends, pattern {number}");
        }
    }
    assert!(ejected.len() <= 1, "backends, pattern: {ejected:?}");
}

#[test]
fn backends_that_are_all_equally_bad_stay_in_use() {
    let servers: Vec<Server> = (0..3).map(|_| Server::closing_after_first_bytes()).collect();
    let addresses: Vec<SocketAddr> = servers.iter().map(Server::address).collect();
    let lb = Lb::in_front_of(&addresses).start();
    assert_eq!(failures_of(&lb, 60), 60);
    assert_eq!(ejections(&lb), 0.0);
    assert!(servers.iter().all(|server| server.accepted() == 20), "all in turn");
}

#[test]
fn a_backend_alone_is_never_left_unused() {
    let closing = Server::closing_after_first_bytes();
    let lb = Lb::in_front_of(&[closing.address()]).start();
    assert_eq!(failures_of(&lb, 30), 30);
    assert_eq!((lb.state_of(closing.address()).as_str(), closing.accepted()), ("up", 30));
}

#[test]
fn a_probe_that_hangs_is_a_failed_probe_and_the_next_ejection_is_longer() {
    let (silent, good) = (Server::ignoring(), Server::named("good"));
    let lb = http(&[silent.address(), good.address()])
        .set("listeners.default.http.timeouts.response_header", SILENCE)
        .set("failure_detection.ejection", "300ms")
        .start();
    let ejected = || lb.log_lines_with("backend ejected");
    wait_until("its probe has failed", || {
        let _ = get_from(lb.address(), "/");
        ejected().len() >= 2
    });
    let lines = ejected();
    let seconds = |index: usize| lines[index]["seconds"].as_f64().unwrap();
    assert!(seconds(1) > 1.5 * seconds(0), "{lines:?}");
    assert_eq!(lines[1]["reason"], "the probe failed: no answer in time");
}

/// Addresses of 127/8, so many for each of the backends that `source_hash` gives their clients to, by its name.
fn clients_by_backend(lb: &Lb, each: usize) -> HashMap<String, Vec<IpAddr>> {
    let mut found: HashMap<String, Vec<IpAddr>> = HashMap::new();
    for host in 2..=u8::MAX {
        let client = IpAddr::from([127, 0, 9, host]);
        let mut stream = connect_from(client, lb.address());
        stream.write_all(b"GET / HTTP/1.0\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        found.entry(answer.lines().last().unwrap().to_owned()).or_default().push(client);
        if found.len() == 3 && found.values().all(|clients| clients.len() >= each) {
            return found;
        }
    }
    panic!("every backend has clients among 253: {found:?}");
}

#[test]
fn many_addresses_can_take_one_backend_out_for_a_while_and_none_that_a_health_check_passes() {
    let servers: Vec<Server> = ["a", "b", "c"].map(closing_on_rubbish).into();
    let addresses: Vec<SocketAddr> = servers.iter().map(Server::address).collect();
    for (check, ejected) in [("off", 1), (CHECK, 0)] {
        let lb = Lb::in_front_of(&addresses)
            .with(&["--policy", "source_hash"])
            .set("health_check", check)
            .set("failure_detection.window", "60s")
            .set("failure_detection.ejection", "60s")
            .start();
        if check != "off" {
            wait_until("the checks say up", || servers.iter().all(|server| server.accepted() > 0));
        }
        let clients = clients_by_backend(&lb, 20);
        let victims = &clients["a"];
        // He knows which addresses reach one backend, and sends nothing but rubbish from them: all honest clients of it
        // are outnumbered.
        for _ in 0..1000 / victims.len() {
            for attacker in &victims[1..] {
                let mut stream = connect_from(*attacker, lb.address());
                let _ = stream.write_all(RUBBISH);
                let _ = stream.read_to_end(&mut Vec::new());
            }
        }
        let states: Vec<String> = addresses.iter().map(|address| lb.state_of(*address)).collect();
        assert_eq!(states.iter().filter(|state| *state == "ejected").count(), ejected, "check {check}: {states:?}");
        // The honest client of that backend is served, there or elsewhere.
        let mut honest = connect_from(victims[0], lb.address());
        honest.write_all(b"GET / HTTP/1.0\r\n\r\n").unwrap();
        let mut answer = String::new();
        honest.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
}

#[test]
fn why_a_backend_is_out_is_seen_everywhere() {
    let (closing, good) = (Server::closing_after_first_bytes(), Server::named("good"));
    let lb = Lb::in_front_of(&[closing.address(), good.address()]).start();
    failures_of(&lb, 20);
    let reason = lb.backend(closing.address())["reason"].as_str().unwrap().to_owned();
    assert!(
        reason.contains("ended badly in 10s, of its peers' 0 of ") && reason.ends_with("without an answer"),
        "{reason}"
    );
    assert_eq!(lb.wait_for_log("backend ejected", 1)[0]["reason"], reason);
    let labels = [("reason", "early_close")];
    assert_eq!(lb.metrics().sum("backend_ejections_total", &labels), 1.0);
    assert!(lb.metrics().sum("backend_bad_ends_total", &labels) >= 3.0);
    let status = run_to_end(Folder::new().path(), &["status", "--admin", &lb.admin().to_string()], &[]);
    assert!(String::from_utf8_lossy(&status.stdout).contains(&reason), "{status:?}");
    assert_eq!(lb.backend(good.address())["reason"], serde_json::Value::Null);

    let dead = Refusing::new();
    let lb = Lb::in_front_of(&[dead.address(), good.address()]).start();
    failures_of(&lb, 8);
    assert_eq!(lb.backend(dead.address())["reason"], "3 failed connects in 10s, the last: refused");
}

#[test]
fn backends_that_come_back_are_used_again_within_their_ejection() {
    let good = Server::named("good");
    let (closing, dead) = (Server::closing_after_first_bytes(), Refusing::new());
    let lb = Lb::in_front_of(&[good.address(), closing.address(), dead.address()])
        .set("failure_detection.ejection", "1s")
        .start();
    failures_of(&lb, 30);
    let addresses = [closing.address(), dead.address()];
    let is_ejected = |address: &SocketAddr| {
        lb.log_lines_with("backend ejected").iter().any(|line| line["backend"] == address.to_string())
    };
    assert!(addresses.iter().all(is_ejected));
    let _back = [Server::named_on(closing.stop(), "back"), Server::named_on(dead, "back")];
    wait_until("both are up", || {
        assert_eq!(get(lb.address(), "/").status, 200);
        addresses.iter().all(|address| lb.state_of(*address) == "up")
    });
}
