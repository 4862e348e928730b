//! Primaries and backups by rank: who gets new connections, who is refused, and what becomes of the open ones when a
//! health check takes a backend out.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::support::{
    Ending, Lb, Node, ONE_CHECK, ROLE_CHECK, Server, closed_for, connect, connect_and_read, get, of_one_rank, ranked,
    read_to_end, session, short_read, wait_for_state, wait_until, wait_until_equal,
};

fn service(lb: &Lb) -> String {
    lb.api("/api/v1/pools")["pools"][0]["service"].as_str().expect("a text").to_owned()
}

#[test]
fn clients_are_refused_at_once_while_health_checks_let_no_backend_pass() {
    let nodes = [Node::new("a", 500), Node::new("b", 503)];
    let lb = of_one_rank(&nodes.each_ref()).start();
    wait_for_state(&lb, nodes[0].address(), "down");
    wait_for_state(&lb, nodes[1].address(), "standby");
    for _ in 0..10 {
        assert_eq!(connect_and_read(lb.address()), (Vec::new(), Ending::Reset));
    }
    for line in lb.access_log(10) {
        assert_eq!((&line["cause"], &line["attempts"]), (&"no_backend".into(), &serde_json::json!([])), "{line}");
    }
    assert_eq!(service(&lb), "refused");
    assert_eq!(lb.ask("/readyz").status, 200, "that says whether it takes clients, not whether a pool serves them");
    nodes[1].answer(200);
    wait_for_state(&lb, nodes[1].address(), "up");
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
    let lb = of_one_rank(&[&node]).with(&["--mode", "http"]).start();
    wait_for_state(&lb, node.address(), "standby");
    let answer = get(lb.address(), "/");
    assert_eq!(answer.status, 503);
    assert!(answer.body.contains("no backend"), "{answer:?}");
    assert_eq!(lb.only_access()["cause"], "no_backend");
    assert_eq!(node.sessions(), 0);
}

#[test]
fn try_all_gives_clients_any_backend_but_those_that_an_operator_took_out() {
    let nodes = [Node::new("a", 503), Node::new("b", 500), Node::new("c", 500)];
    let lb = of_one_rank(&nodes.each_ref()).set("when_all_down", "try_all").start();
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
    let lb = of_one_rank(&[&primary, &replica])
        .set("health_check", ONE_CHECK)
        .set("failure_detection", "{failures: 1, ejection: 1h, max_ejection: 1h}")
        .start();
    wait_for_state(&lb, replica.address(), "down");
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
    let lb = of_one_rank(&[&node]).set("backends", backend).set("queue", "{length: 9, timeout: 1h}").start();
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
    wait_for_state(&lb, first.address(), "down");
    assert_eq!(names(), ["second"; 4]);
    second.answer(500);
    wait_for_state(&lb, second.address(), "down");
    assert_eq!(names(), ["third"; 4]);
    first.answer(200);
    wait_for_state(&lb, first.address(), "up");
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
    let lb = of_one_rank(&[&primary, &backup]).set("backends", backends).start();
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
    let lb = of_one_rank(&nodes.each_ref())
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
    wait_for_state(&lb, nodes[0].address(), "down");
    assert_eq!(names(&[session(lb.address())]), "b");
}

#[test]
fn connections_of_a_backend_that_a_health_check_takes_out_are_reset() {
    let (old, new) = (Node::new("old", 200), Node::new("new", 503));
    let lb = of_one_rank(&[&old, &new]).set("on_down", "close").with(&["--workers", "3"]).start();
    wait_for_state(&lb, new.address(), "standby");
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
    wait_for_state(&lb, new.address(), "up");
    assert_eq!(session(lb.address()).1, "new");
    wait_until("the backend has none", || old.open() == 0);
    wait_until_equal("connections closed", &60.0, || closed_for(&lb, "backend_down"));
    assert_eq!(lb.backend(old.address())["failures"], 0, "it is no fault of a replica to be one");
}

#[test]
fn connections_stay_on_a_backend_that_a_health_check_takes_out_unless_they_are_to_be_closed() {
    let node = Node::new("a", 200);
    let lb = of_one_rank(&[&node]).start();
    let (mut client, _) = session(lb.address());
    node.answer(500);
    wait_for_state(&lb, node.address(), "down");
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
