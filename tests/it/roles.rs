//! Primaries, backups by rank, and what follows when they go and return: who gets new connections, what becomes of the
//! open ones, and who is refused.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use crate::support::{
    Ending, Lb, LbBuilder, Node, Server, bound, connect, connect_and_read, get, read_to_end, send_and_read, session,
    short_read, wait_until, wait_until_equal,
};

/// Asks for the role often, and believes the first answer.
const ROLE_CHECK: &str =
    "{interval: 50ms, timeout: 5s, rise: 1, fall: 1, http: {path: /role, status: 200, standby_status: 503}}";

/// The same, but once: what it has found at the start stays.
const ONE_CHECK: &str = "{interval: 1h, timeout: 5s, rise: 1, fall: 1, http: {path: /role, status: 200}}";

/// In front of these nodes, each with its rank.
fn ranked(nodes: &[(&Node, u8)]) -> LbBuilder {
    let backend = |(node, rank): &(&Node, u8)| match rank {
        0 => node.address().to_string(),
        rank => format!("{},backup={rank}", node.address()),
    };
    let backends: Vec<String> = nodes.iter().map(backend).collect();
    Lb::with_backends(&backends.iter().map(String::as_str).collect::<Vec<_>>()).set("health_check", ROLE_CHECK)
}

fn in_front_of(nodes: &[&Node]) -> LbBuilder {
    ranked(&nodes.iter().map(|node| (*node, 0)).collect::<Vec<_>>())
}

#[track_caller]
fn wait_for_state(lb: &Lb, node: &Node, state: &str) {
    wait_until_equal(&format!("the state of {}", node.address()), &state.to_owned(), || lb.state_of(node.address()));
}

fn service(lb: &Lb) -> String {
    lb.api("/api/v1/pools")["pools"][0]["service"].as_str().expect("a text").to_owned()
}

/// Connections that ended for this cause.
fn closed_for(lb: &Lb, cause: &str) -> f64 {
    lb.metrics().sum("connections_closed_total", &[("reason", cause)])
}

#[test]
fn clients_are_refused_at_once_while_health_checks_let_no_backend_pass() {
    let nodes = [Node::new("a", 500), Node::new("b", 503)];
    let lb = in_front_of(&nodes.each_ref()).start();
    wait_for_state(&lb, &nodes[0], "down");
    wait_for_state(&lb, &nodes[1], "standby");
    for _ in 0..10 {
        assert_eq!(connect_and_read(lb.address()), (Vec::new(), Ending::Reset));
    }
    for line in lb.access_log(10) {
        assert_eq!((&line["cause"], &line["attempts"]), (&"no_backend".into(), &serde_json::json!([])), "{line}");
    }
    assert_eq!(service(&lb), "refused");
    assert_eq!(lb.ask("/readyz").status, 200, "that says whether it takes clients, not whether a pool serves them");
    nodes[1].answer(200);
    wait_for_state(&lb, &nodes[1], "up");
    assert_eq!(session(lb.address()).1, "b");
    assert_eq!([nodes[0].sessions(), nodes[1].sessions()], [0, 1]);
    // Once each, and not for each client.
    assert_eq!(lb.wait_for_log("clients are served again", 1).len(), 1);
    let refused = lb.log_lines_with("no backend may be used: clients are refused");
    assert_eq!(refused.len(), 1);
    assert_eq!(refused[0]["states"], "1 down, 1 standby");
}

#[test]
fn http_clients_get_503_at_once_while_health_checks_let_no_backend_pass() {
    let node = Node::new("a", 503);
    let lb = in_front_of(&[&node]).with(&["--mode", "http"]).start();
    wait_for_state(&lb, &node, "standby");
    let answer = get(lb.address(), "/");
    assert_eq!(answer.status, 503);
    assert!(answer.body.contains("no backend"), "{answer:?}");
    assert_eq!(lb.only_access()["cause"], "no_backend");
    assert_eq!(node.sessions(), 0);
}

#[test]
fn try_all_gives_clients_any_backend_but_those_that_an_operator_took_out() {
    let nodes = [Node::new("a", 503), Node::new("b", 500), Node::new("c", 500)];
    let lb = in_front_of(&nodes.each_ref()).set("when_all_down", "try_all").start();
    wait_until("none passes", || service(&lb) == "all_tried");
    assert_eq!(lb.post(&format!("/api/v1/pools/default/backends/{}/drain", nodes[2].address())).0, 200);
    let mut names: Vec<String> = (0..4).map(|_| session(lb.address()).1).collect();
    names.sort();
    assert_eq!(names, ["a", "a", "b", "b"]);
    wait_until("it is logged", || !lb.log_lines_with("no backend passes its health check: all are tried").is_empty());
}

#[test]
fn neither_a_retry_nor_failing_open_leads_to_a_backend_that_health_checks_keep_out() {
    let (primary, replica) = (Node::new("primary", 200), Node::new("replica", 503));
    let lb = in_front_of(&[&primary, &replica])
        .set("health_check", ONE_CHECK)
        .set("failure_detection", "{failures: 1, ejection: 1h, max_ejection: 1h}")
        .start();
    wait_for_state(&lb, &replica, "down");
    let address = primary.address();
    let stopped = primary.stop();
    assert_eq!(connect_and_read(lb.address()), (Vec::new(), Ending::Reset));
    assert_eq!(lb.only_access()["attempts"].as_array().map(Vec::len), Some(1), "the replica is not tried");
    assert_eq!(lb.state_of(address), "ejected");
    // Failure detection alone has it out, and may be wrong: it is tried, since no other passes its check.
    let primary = Node::on(stopped, "primary", 200);
    for _ in 0..5 {
        assert_eq!(session(lb.address()).1, "primary");
    }
    assert_eq!((primary.sessions(), replica.sessions()), (5, 0));
}

#[test]
fn the_queue_holds_nobody_once_no_backend_passes() {
    let node = Node::new("a", 200);
    let backend = format!("[{{address: '{}', max_connections: 1}}]", node.address());
    let lb = in_front_of(&[&node]).set("backends", backend).set("queue", "{length: 9, timeout: 1h}").start();
    let (mut live, _) = session(lb.address());
    let mut waiting: Vec<TcpStream> = (0..3).map(|_| connect(lb.address())).collect();
    wait_until("they wait", || lb.metrics().sum("pool_queue_length", &[]) == 3.0);
    node.answer(500);
    for client in &mut waiting {
        assert_eq!(read_to_end(client), (Vec::new(), Ending::Reset));
    }
    // Also those that come later, though the queue has room.
    assert_eq!(connect_and_read(lb.address()), (Vec::new(), Ending::Reset));
    for line in lb.access_log(4) {
        assert_eq!(line["cause"], "no_backend", "{line}");
    }
    live.write_all(b"still here").expect("it stays open");
    assert_eq!(short_read(&mut live), "still here");
}

#[test]
fn a_backup_is_used_only_while_no_backend_of_a_lower_rank_is_usable() {
    let [first, second, third] = [Node::new("first", 200), Node::new("second", 200), Node::new("third", 200)];
    let lb = ranked(&[(&third, 2), (&second, 1), (&first, 0)]).start();
    let names = || (0..4).map(|_| session(lb.address()).1).collect::<Vec<_>>();
    assert_eq!(names(), ["first"; 4]);
    first.answer(500);
    wait_for_state(&lb, &first, "down");
    assert_eq!(names(), ["second"; 4]);
    second.answer(500);
    wait_for_state(&lb, &second, "down");
    assert_eq!(names(), ["third"; 4]);
    first.answer(200);
    wait_for_state(&lb, &first, "up");
    assert_eq!(names(), ["first"; 4]);
    let ranks = [&first, &second, &third].map(|node| lb.backend(node.address())["rank"].clone());
    assert_eq!(ranks, [0, 1, 2].map(serde_json::Value::from));
    assert_eq!(lb.metrics().sum("backend_rank", &[("backend", &third.address().to_string())]), 2.0);
}

#[test]
fn a_full_primary_is_waited_for_and_no_reason_to_use_a_backup() {
    let (primary, backup) = (Node::new("primary", 200), Node::new("backup", 200));
    let backends = format!(
        "[{{address: '{}', max_connections: 1}}, {{address: '{}', backup: true}}]",
        primary.address(),
        backup.address()
    );
    let lb = in_front_of(&[&primary, &backup]).set("backends", backends).start();
    let (_live, name) = session(lb.address());
    assert_eq!(name, "primary");
    assert_eq!(connect_and_read(lb.address()), (Vec::new(), Ending::Reset));
    lb.wait_for_rejections("backends_full", 1);
    assert_eq!(backup.sessions(), 0);
}

#[test]
fn first_fills_the_backends_in_the_order_of_the_file() {
    let nodes = [Node::new("a", 200), Node::new("b", 200), Node::new("c", 200)];
    let backends = nodes.each_ref().map(|node| format!("{{address: '{}', max_connections: 2}}", node.address()));
    let lb = in_front_of(&nodes.each_ref())
        .set("backends", format!("[{}]", backends.join(", ")))
        .set("policy", "first")
        .start();
    let mut sessions: Vec<(TcpStream, String)> = (0..5).map(|_| session(lb.address())).collect();
    let names = |sessions: &[(TcpStream, String)]| sessions.iter().map(|(_, name)| name.clone()).collect::<String>();
    assert_eq!(names(&sessions), "aabbc");
    drop(sessions.remove(0));
    wait_until("its place is free", || lb.backend(nodes[0].address())["active"] == 1);
    sessions.push(session(lb.address()));
    assert_eq!(names(&sessions), "abbca", "the first in the file that has room");
    drop(sessions);
    wait_until("all are free", || lb.metrics().sum("backend_connections_active", &[]) == 0.0);
    nodes[0].answer(500);
    wait_for_state(&lb, &nodes[0], "down");
    assert_eq!(names(&[session(lb.address())]), "b");
}

#[test]
fn connections_of_a_backend_that_a_health_check_takes_out_are_reset() {
    let (old, new) = (Node::new("old", 200), Node::new("new", 503));
    let lb = in_front_of(&[&old, &new]).set("on_down", "close").with(&["--workers", "3"]).start();
    wait_for_state(&lb, &new, "standby");
    let mut sessions: Vec<TcpStream> = (0..60).map(|_| session(lb.address()).0).collect();
    assert_eq!(old.open(), 60);
    // The old primary is demoted: it stays well, and nothing but its role changes.
    new.answer(200);
    old.answer(503);
    for client in &mut sessions {
        assert_eq!(read_to_end(client), (Vec::new(), Ending::Reset), "by nothing but the verdict");
    }
    for line in lb.access_log(60) {
        assert_eq!((&line["cause"], &line["backend"]), (&"backend_down".into(), &old.address().to_string().into()));
    }
    wait_for_state(&lb, &new, "up");
    assert_eq!(session(lb.address()).1, "new");
    wait_until("the backend has none", || old.open() == 0);
    wait_until_equal("connections closed", &60.0, || closed_for(&lb, "backend_down"));
    assert_eq!(lb.backend(old.address())["failures"], 0, "it is no fault of a replica to be one");
}

#[test]
fn connections_stay_on_a_backend_that_a_health_check_takes_out_unless_they_are_to_be_closed() {
    let node = Node::new("a", 200);
    let lb = in_front_of(&[&node]).start();
    let (mut client, _) = session(lb.address());
    node.answer(500);
    wait_for_state(&lb, &node, "down");
    client.write_all(b"still here").expect("it stays open");
    assert_eq!(short_read(&mut client), "still here");
}

/// Answers a request with a head and a part of the body only, and keeps connections.
fn slow_server(asked: Arc<AtomicBool>) -> impl Fn(TcpStream) + Send + Sync {
    move |mut stream| {
        let mut buffer = [0; 4096];
        while let Ok(length @ 1..) = stream.read(&mut buffer) {
            let request = String::from_utf8_lossy(&buffer[..length]).into_owned();
            let answer: &[u8] = match request.split(' ').nth(1) {
                Some("/begun") => b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf",
                Some("/silent") => b"",
                Some("/role") if asked.load(Ordering::SeqCst) => b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n",
                _ => b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
            };
            if stream.write_all(answer).is_err() {
                return;
            }
        }
    }
}

#[test]
fn requests_under_way_and_idle_connections_end_with_their_backend() {
    let is_out = Arc::new(AtomicBool::new(false));
    let server = Server::that(slow_server(is_out.clone()));
    let lb = Lb::in_front_of(&[server.address()])
        .with(&["--mode", "http"])
        .set("health_check", ROLE_CHECK)
        .set("on_down", "close")
        .start();
    let mut idle = connect(lb.address());
    idle.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    assert!(short_read(&mut idle).ends_with("ok"));
    let mut begun = connect(lb.address());
    begun.write_all(b"GET /begun HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    assert!(short_read(&mut begun).ends_with("half"));
    let mut silent = connect(lb.address());
    silent.write_all(b"GET /silent HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    wait_until("both are under way", || lb.backend(server.address())["active"] == 2);
    // The idle one was reused for one of them, so another is made idle.
    assert_eq!(get(lb.address(), "/").body, "ok");
    wait_until("one is idle", || lb.metrics().sum("backend_connections_idle", &[]) >= 1.0);
    is_out.store(true, Ordering::SeqCst);
    let (rest, ending) = read_to_end(&mut begun);
    assert_eq!((rest.as_slice(), ending), (&b""[..], Ending::Reset), "half an answer ends as one");
    let answer = short_read(&mut silent);
    assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains("taken out of service"), "{answer}");
    wait_until("no connection is idle", || lb.metrics().sum("backend_connections_idle", &[]) == 0.0);
    for path in ["/begun", "/silent"] {
        let of_path = |line: &serde_json::Value| line["path"] == path && line["cause"] == "backend_down";
        wait_until(path, || lb.access_log(4).iter().any(of_path));
    }
    // Clients that wait between two requests stay, and are served by whoever comes next.
    is_out.store(false, Ordering::SeqCst);
    wait_until("it is back", || lb.state_of(server.address()) == "up");
    for client in [&mut idle, &mut silent] {
        client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
        assert!(short_read(client).ends_with("ok"));
    }
}

/// Clients that connect without a pause, keep their sessions until they are cut, and note whom they got.
fn clients_without_a_pause(address: SocketAddr, is_over: &Arc<AtomicBool>) -> Vec<thread::JoinHandle<usize>> {
    let client = |is_over: Arc<AtomicBool>| {
        move || {
            let mut sessions = 0;
            while !is_over.load(Ordering::SeqCst) {
                let Ok(mut stream) = TcpStream::connect(address) else { continue };
                crate::support::bound(&stream);
                let mut buffer = [0; 64];
                while !is_over.load(Ordering::SeqCst)
                    && stream.write_all(b"x").is_ok()
                    && stream.read(&mut buffer).is_ok_and(|length| length > 0)
                {
                    sessions += 1;
                }
            }
            sessions
        }
    };
    (0..8).map(|_| thread::spawn(client(is_over.clone()))).collect()
}

#[test]
fn of_a_cluster_with_one_writer_one_node_at_a_time_has_connections() {
    let nodes = [Node::new("first", 200), Node::new("second", 200), Node::new("third", 200)];
    let lb = ranked(&[(&nodes[0], 0), (&nodes[1], 1), (&nodes[2], 2)])
        .set("on_return", "close_backups")
        .set("on_down", "close")
        .set("failure_detection", "off")
        .with(&["--workers", "2"])
        .start();
    nodes.iter().for_each(|node| wait_for_state(&lb, node, "up"));
    let is_over = Arc::new(AtomicBool::new(false));
    let clients = clients_without_a_pause(lb.address(), &is_over);
    // Who is to have the connections after each change: the lowest rank that is up.
    let steps = [(0, 500, 1), (1, 500, 2), (0, 200, 0), (1, 200, 0), (0, 500, 1), (0, 200, 0)];
    wait_until("the first has all of them", || nodes[0].open() == 8);
    for (changed, status, writer) in steps {
        nodes[changed].answer(status);
        wait_for_state(&lb, &nodes[changed], if status == 200 { "up" } else { "down" });
        // From now on nobody else gets any, and soon nobody else has any.
        wait_until("the others are empty", || (0..3).all(|index| index == writer || nodes[index].open() == 0));
        let before: Vec<usize> = nodes.iter().map(Node::sessions).collect();
        wait_until("the writer has all of them", || nodes[writer].open() == 8);
        for (index, node) in nodes.iter().enumerate() {
            assert!(index == writer || (node.sessions() == before[index] && node.open() == 0), "node {index}");
        }
    }
    is_over.store(true, Ordering::SeqCst);
    for client in clients {
        assert!(client.join().expect("no client panics") > 0);
    }
    assert!(closed_for(&lb, "backup_closed") >= 16.0, "twice all of them were on a backup when the first returned");
    assert!(closed_for(&lb, "backend_down") >= 24.0);
}

#[test]
fn one_connect_that_fails_is_no_reason_for_a_second_writer() {
    for (on_return, serves) in [("close_backups", false), ("use", true)] {
        let (primary, backup) = (Node::new("primary", 200), Node::new("backup", 200));
        let lb = ranked(&[(&primary, 0), (&backup, 1)])
            .set("health_check", ONE_CHECK)
            .set("failure_detection", "off")
            .set("on_return", on_return)
            .start();
        assert_eq!(session(lb.address()).1, "primary");
        // No check has noticed yet.
        drop(primary.stop());
        // A reset may come before connect(2) has told that it worked.
        let received = TcpStream::connect(lb.address()).map_or_else(
            |_| Vec::new(),
            |mut client| {
                bound(&client);
                send_and_read(&mut client, [&b"hello"[..]], true).0
            },
        );
        assert_eq!(received.starts_with(b"backup"), serves, "{on_return}");
        assert_eq!(backup.sessions(), usize::from(serves), "{on_return}");
    }
}

#[test]
fn a_backend_that_returns_waits_for_an_operator_where_it_is_to() {
    let (primary, backup) = (Node::new("primary", 200), Node::new("backup", 200));
    let yaml = |more: &str| {
        format!(
            "listen: 127.0.0.1:0\nbackends: ['{}', {{address: '{}', backup: true}}]\nhealth_check: {ROLE_CHECK}\n\
             on_return: wait\n{more}",
            primary.address(),
            backup.address()
        )
    };
    let lb = Lb::with_config(&yaml("")).start();
    assert_eq!(session(lb.address()).1, "primary");
    primary.answer(500);
    wait_for_state(&lb, &primary, "down");
    assert_eq!(session(lb.address()).1, "backup");
    primary.answer(200);
    wait_for_state(&lb, &primary, "waiting");
    let reason = lb.backend(primary.address())["reason"].clone();
    assert!(reason.as_str().is_some_and(|reason| reason.contains("lb backend enable")), "{reason}");
    lb.reload_with(&yaml("attempts: 2\n"));
    assert_eq!(lb.state_of(primary.address()), "waiting");
    assert_eq!(session(lb.address()).1, "backup");
    let enable = format!("/api/v1/pools/default/backends/{}/enable", primary.address());
    assert_eq!(lb.post(&enable), (200, "up".to_owned()));
    assert_eq!(session(lb.address()).1, "primary");
    // Enabled while it is down, it needs no second word.
    primary.answer(500);
    wait_for_state(&lb, &primary, "down");
    lb.post(&enable);
    primary.answer(200);
    wait_for_state(&lb, &primary, "up");
}

#[test]
fn a_backend_that_comes_for_the_first_time_waits_for_nobody() {
    let node = Node::new("a", 500);
    let lb = in_front_of(&[&node]).set("on_return", "wait").start();
    wait_for_state(&lb, &node, "down");
    node.answer(200);
    wait_for_state(&lb, &node, "up");
}

#[test]
fn ranks_and_policy_change_by_a_reload_and_states_stay() {
    let nodes = [Node::new("a", 200), Node::new("b", 200), Node::new("c", 503)];
    let yaml = |ranks: [u8; 3], policy: &str| {
        let backends = nodes.iter().zip(ranks).map(|(node, rank)| match rank {
            0 => format!("'{}'", node.address()),
            rank => format!("{{address: '{}', backup: {rank}}}", node.address()),
        });
        let backends: Vec<String> = backends.collect();
        format!(
            "listen: 127.0.0.1:0\nbackends: [{}]\nhealth_check: {ROLE_CHECK}\npolicy: {policy}\n",
            backends.join(", ")
        )
    };
    let lb = Lb::with_config(&yaml([0, 1, 2], "round_robin")).start();
    wait_for_state(&lb, &nodes[2], "standby");
    let (mut live, name) = session(lb.address());
    assert_eq!(name, "a");
    let total = lb.backend(nodes[0].address())["total"].clone();
    lb.reload_with(&yaml([2, 1, 1], "first"));
    assert_eq!(lb.state_of(nodes[2].address()), "standby");
    assert_eq!(lb.backend(nodes[0].address())["total"], total);
    assert_eq!(session(lb.address()).1, "b");
    live.write_all(b"still here").expect("it stays open");
    assert_eq!(short_read(&mut live), "still here");
    lb.reload_with(&yaml([0, 0, 0], "first"));
    assert_eq!([(); 3].map(|()| session(lb.address()).1), ["a"; 3]);
}

#[test]
fn metrics_and_the_table_know_roles() {
    let (primary, replica, idle) = (Node::new("primary", 200), Node::new("replica", 503), Node::new("idle", 200));
    let backends = format!(
        "['{}', '{}', {{address: '{}', weight: 0, backup: 2}}]",
        primary.address(),
        replica.address(),
        idle.address()
    );
    let lb = in_front_of(&[&primary, &replica, &idle]).set("backends", backends).start();
    wait_for_state(&lb, &replica, "standby");
    let metrics = lb.metrics();
    let of = |node: &Node, name: &str, labels: &[(&str, &str)]| {
        let address = node.address().to_string();
        metrics.sum(name, &[&[("backend", address.as_str())], labels].concat())
    };
    assert_eq!(metrics.sum("pool_usable_backends", &[("pool", "default")]), 1.0);
    assert_eq!(metrics.sum("pool_queue_length", &[("pool", "default")]), 0.0);
    assert_eq!([&primary, &replica, &idle].map(|node| of(node, "backend_up", &[])), [1.0, 0.0, 0.0]);
    assert_eq!([&primary, &replica, &idle].map(|node| of(node, "backend_weight", &[])), [1.0, 1.0, 0.0]);
    assert_eq!([&primary, &replica, &idle].map(|node| of(node, "backend_rank", &[])), [0.0, 0.0, 2.0]);
    for (node, state) in [(&primary, "up"), (&replica, "standby"), (&idle, "up")] {
        assert_eq!(of(node, "backend_state", &[]), 1.0, "one state each");
        assert_eq!(of(node, "backend_state", &[("state", state)]), 1.0, "{state}");
    }
    let report = lb.backend(replica.address());
    let reason = report["reason"].as_str().expect("it says why");
    assert!(reason.starts_with("standby: ") && reason.ends_with("answered 503"), "{reason}");
    assert!(report["last_error"].is_null(), "it is no failure: {report}");
}
