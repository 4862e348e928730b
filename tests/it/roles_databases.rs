//! Databases whose nodes change their roles: writers follow the primary, and nobody waits for a node that is gone.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, Stdio};

use rustix::process::Signal;

use crate::support::{
    Ending, Folder, Lb, Program, bound, connect, database_at, postgres, postgres_replica, psql, read_to_end, redis,
    required, send_and_read, short_read, wait_for_state, wait_until, wait_until_equal,
};

/// Sends a Redis command, and gives what is answered; empty: nothing is.
fn ask_redis(address: SocketAddr, command: &str) -> String {
    // A reset may come before connect(2) has told that it worked.
    let Ok(mut client) = TcpStream::connect(address) else { return String::new() };
    bound(&client);
    let command = format!("{command}\r\nQUIT\r\n");
    let (answer, _) = send_and_read(&mut client, [command.as_bytes()], false);
    String::from_utf8_lossy(&answer).into_owned()
}

fn redis_session(address: SocketAddr) -> TcpStream {
    let mut session = connect(address);
    session.write_all(b"PING\r\n").expect("the connection is open");
    assert_eq!(short_read(&mut session), "+PONG\r\n");
    session
}

#[test]
fn redis_clients_follow_the_master_and_hang_nowhere() {
    let folder = Folder::new();
    let nodes = [redis(&folder, &[]), redis(&folder, &[])];
    let [one, two] = nodes.each_ref().map(Program::address);
    let follow = |node: SocketAddr, master: SocketAddr| {
        assert!(ask_redis(node, &format!("REPLICAOF 127.0.0.1 {}", master.port())).starts_with("+OK"));
    };
    follow(two, one);
    let lb = Lb::in_front_of(&[one, two])
        .set("health_check", "{interval: 50ms, timeout: 1s, rise: 1, fall: 1, redis: {role: master}}")
        .set("on_down", "close")
        .start();
    wait_for_state(&lb, two, "standby");
    let reason = lb.backend(two)["reason"].clone();
    assert!(reason.as_str().is_some_and(|reason| reason.contains("master")), "{reason}");
    let mut session = redis_session(lb.address());
    assert!(ask_redis(lb.address(), "SET key 1").starts_with("+OK"));
    // They swap their roles: no write meets a replica, neither while nobody is master nor afterwards.
    follow(one, two);
    assert_eq!(read_to_end(&mut session).1, Ending::Reset);
    let refused = ask_redis(lb.address(), "SET key 2");
    assert!(refused.is_empty(), "nobody is master: {refused}");
    assert!(ask_redis(two, "REPLICAOF NO ONE").starts_with("+OK"));
    wait_for_state(&lb, two, "up");
    assert!(ask_redis(lb.address(), "SET key 3").starts_with("+OK"));
    assert!(ask_redis(two, "GET key").contains("\r\n3\r\n"));
    assert_eq!(lb.state_of(one), "standby");
    // The master stops to answer, and keeps its connections.
    let mut session = redis_session(lb.address());
    nodes[1].signal(Signal::STOP);
    assert_eq!(read_to_end(&mut session).1, Ending::Reset, "not before the check's timeout, and by nothing else");
    assert_eq!(lb.state_of(two), "down");
    assert!(ask_redis(lb.address(), "PING").is_empty(), "refused at once");
    assert!(ask_redis(one, "REPLICAOF NO ONE").starts_with("+OK"));
    wait_for_state(&lb, one, "up");
    assert!(ask_redis(lb.address(), "SET key 4").starts_with("+OK"));
    let causes = lb.metrics();
    assert!(causes.sum("connections_closed_total", &[("reason", "backend_down")]) >= 2.0);
    nodes[1].signal(Signal::CONT);
}

#[test]
fn postgresql_writers_follow_the_primary_and_reach_no_replica() {
    let folders = [Folder::new(), Folder::new()];
    let primary = postgres(&folders[0]);
    let replica = postgres_replica(&folders[1], primary.address());
    let password = folders[0].path().join("password");
    let check = |role: &str| {
        format!(
            "{{interval: 100ms, timeout: 2s, rise: 1, fall: 1, postgres: {{role: {role}, user: tester, \
             database: postgres, password_file: '{}'}}}}",
            password.display()
        )
    };
    let backends = format!("['{}', '{}']", primary.address(), replica.address());
    let lb = Lb::with_config(&format!(
        "listeners:\n  write: {{bind: '127.0.0.1:0', pool: writer}}\n  read: {{bind: '127.0.0.1:0', pool: reader}}\n\
         pools:\n  writer: {{backends: {backends}, on_down: close, health_check: {}}}\n  \
         reader: {{backends: {backends}, health_check: {}}}\n",
        check("primary"),
        check("replica")
    ))
    // A check is always under way, at its start too: its files are nothing to compare with.
    .unwatched()
    .start();
    let state = |pool: &str, address: SocketAddr| {
        let pools = lb.api("/api/v1/pools");
        let pools = pools["pools"].as_array().expect("a list");
        let pool = pools.iter().find(|known| known["name"] == pool).expect("a pool of that name");
        let backends = pool["backends"].as_array().expect("a list");
        let backend = backends.iter().find(|known| known["address"] == address.to_string().as_str());
        backend.expect("a backend of that address")["state"].as_str().expect("a text").to_owned()
    };
    let wait_for = |pool: &str, address: SocketAddr, wanted: &str| {
        wait_until_equal(&format!("{address} in {pool}"), &wanted.to_owned(), || state(pool, address));
    };
    for (pool, one, other) in [("writer", "up", "standby"), ("reader", "standby", "up")] {
        wait_for(pool, primary.address(), one);
        wait_for(pool, replica.address(), other);
    }
    let (write, read) = (lb.address_of("write"), lb.address_of("read"));
    let insert = || {
        let ended = psql(write, "insert into t values (1) returning 'by', inet_server_port()");
        let said = String::from_utf8_lossy(&[ended.stdout, ended.stderr].concat()).into_owned();
        assert!(!said.contains("read-only"), "a write has reached a replica: {said}");
        ended.status.success().then_some(said)
    };
    assert!(psql(write, "create table t (i int)").status.success());
    assert!(insert().is_some_and(|said| said.contains(&format!("by|{}", primary.address().port()))));
    wait_until("the row is on the replica", || psql(read, "select count(*) from t").stdout == b"1\n");
    // A session that writes now and then, as a connection pool's do.
    let mut session = Command::new(required("psql"))
        .args(["-At", &database_at(write)])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut questions = session.stdin.take().unwrap();
    writeln!(questions, "select 'ready';").unwrap();
    let mut answers = BufReader::new(session.stdout.take().unwrap()).lines();
    assert_eq!(answers.next().unwrap().unwrap(), "ready");
    // The old primary stops to answer new clients; its sessions would go on.
    primary.signal(Signal::STOP);
    wait_for("writer", primary.address(), "down");
    wait_until("its session is cut", || {
        lb.metrics().sum("connections_closed_total", &[("listener", "write"), ("reason", "backend_down")]) == 1.0
    });
    assert_eq!(insert(), None, "nobody takes writes");
    wait_until("that is counted", || {
        lb.metrics().sum("connections_closed_total", &[("listener", "write"), ("reason", "no_backend")]) >= 1.0
    });
    // It finds out when it asks next. An error would mean that it has ended already.
    let _ = writeln!(questions, "select 'written';");
    drop((primary, questions));
    assert!(!session.wait().unwrap().success(), "psql has lost its server");
    assert!(psql(replica.address(), "select pg_promote()").status.success());
    wait_for("writer", replica.address(), "up");
    assert!(insert().is_some_and(|said| said.contains(&format!("by|{}", replica.address().port()))));
    wait_for("reader", replica.address(), "standby");
    assert!(!psql(read, "select 1").status.success(), "there is no replica any more");
    let new_primary = replica.address();
    drop(replica);
    wait_for("writer", new_primary, "down");
    assert_eq!(insert(), None, "both are gone: refused at once");
    lb.assert_all_ended();
}
