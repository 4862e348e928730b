//! What follows when a primary returns, when roles change hands, and when a reload changes them.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use crate::support::{
    Lb, Node, ONE_CHECK, ROLE_CHECK, bound, closed_for, of_one_rank, ranked, send_and_read, session, short_read,
    wait_for_state, wait_until,
};

/// Clients that connect without a pause, keep their sessions until they are cut, and note whom they got.
fn clients_without_a_pause(address: SocketAddr, is_over: &Arc<AtomicBool>) -> Vec<thread::JoinHandle<usize>> {
    let client = |is_over: Arc<AtomicBool>| {
        move || {
            let mut sessions = 0;
            while !is_over.load(Ordering::SeqCst) {
                let Ok(mut stream) = TcpStream::connect(address) else { continue };
                bound(&stream);
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
    nodes.iter().for_each(|node| wait_for_state(&lb, node.address(), "up"));
    let is_over = Arc::new(AtomicBool::new(false));
    let clients = clients_without_a_pause(lb.address(), &is_over);
    // Who is to have the connections after each change: the lowest rank that is up.
    let steps = [(0, 500, 1), (1, 500, 2), (0, 200, 0), (1, 200, 0), (0, 500, 1), (0, 200, 0)];
    wait_until("the first has all of them", || nodes[0].open() == 8);
    for (changed, status, writer) in steps {
        nodes[changed].answer(status);
        wait_for_state(&lb, nodes[changed].address(), if status == 200 { "up" } else { "down" });
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
    wait_for_state(&lb, primary.address(), "down");
    assert_eq!(session(lb.address()).1, "backup");
    primary.answer(200);
    wait_for_state(&lb, primary.address(), "waiting");
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
    wait_for_state(&lb, primary.address(), "down");
    lb.post(&enable);
    primary.answer(200);
    wait_for_state(&lb, primary.address(), "up");
}

#[test]
fn a_backend_that_comes_for_the_first_time_waits_for_nobody() {
    let node = Node::new("a", 500);
    let lb = of_one_rank(&[&node]).set("on_return", "wait").start();
    wait_for_state(&lb, node.address(), "down");
    node.answer(200);
    wait_for_state(&lb, node.address(), "up");
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
    wait_for_state(&lb, nodes[2].address(), "standby");
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
    let lb = of_one_rank(&[&primary, &replica, &idle]).set("backends", backends).start();
    wait_for_state(&lb, replica.address(), "standby");
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
