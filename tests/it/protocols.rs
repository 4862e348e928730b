//! Other people's protocols, by their own clients and servers, through the balancer.

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::support::{Folder, Lb, database_at, output_of, postgres, redis, required};

#[test]
fn redis_works_through_it() {
    let folder = Folder::new();
    let redis = redis(&folder, &[]);
    let lb = Lb::in_front_of(&[redis.address()]).start();
    let port = lb.address().port().to_string();
    let cli = required("redis-cli");
    let ask = |arguments: &[&str]| output_of(&cli, &[&["-h", "127.0.0.1", "-p", &port], arguments].concat());
    assert_eq!(ask(&["PING"]), "PONG\n");
    let large = "x".repeat(100_000);
    assert_eq!(ask(&["SET", "key", &large]), "OK\n");
    assert_eq!(ask(&["GET", "key"]).trim_end(), large);
    lb.access_log(3);
}

#[test]
fn a_long_quiet_session_goes_on_after_many_sweeps() {
    let folder = Folder::new();
    let redis = redis(&folder, &[]);
    // Limits of 6 s are swept every 750 ms: the silence is three sweeps long.
    let lb = Lb::in_front_of(&[redis.address()]).with(&["--idle-timeout", "6s"]).start();
    let mut session = Command::new(required("redis-cli"))
        .args(["-h", "127.0.0.1", "-p", &lb.address().port().to_string()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut questions = session.stdin.take().unwrap();
    let mut answers = BufReader::new(session.stdout.take().unwrap()).lines();
    for text in ["first", "after a silence"] {
        writeln!(questions, "ECHO \"{text}\"").unwrap();
        assert_eq!(answers.next().unwrap().unwrap().trim_matches('"'), text);
        std::thread::sleep(Duration::from_millis(2500));
    }
    drop(questions);
    assert!(session.wait().unwrap().success());
    assert_eq!(lb.only_access()["cause"], "client_closed", "one connection, which the client ended");
}

#[test]
fn postgresql_works_through_it() {
    let folder = Folder::new();
    let postgres = postgres(&folder);
    let lb = Lb::in_front_of(&[postgres.address()]).set("attempts", 1).start();
    let psql = required("psql");
    let query = |sql: &str| output_of(&psql, &["-Atc", sql, &database_at(lb.address())]);
    assert_eq!(query("select 6 * 7"), "42\n");
    let long = query("select string_agg(i::text, ',') from generate_series(1, 100000) i");
    assert_eq!(long.trim_end().rsplit(',').next(), Some("100000"));
    lb.access_log(2);
}
