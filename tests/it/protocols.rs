//! Other people's protocols, by their own clients and servers, through the balancer.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::Signal;

use crate::support::{Folder, Lb, Program, free_port, output_of, required, wait_until};

fn redis_server(folder: &Folder) -> Program {
    let address = free_port();
    let mut command = Command::new(required("redis-server"));
    command.args(["--port", &address.port().to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]);
    Program::serving_at(address, command.current_dir(folder.path()))
}

#[test]
fn redis_works_through_it() {
    let folder = Folder::new();
    let redis = redis_server(&folder);
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
    let redis = redis_server(&folder);
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

/// PostgreSQL refuses to run as root: then it runs as the user that its package made.
fn as_postgres(program: &Path) -> Command {
    if !rustix::process::geteuid().is_root() {
        return Command::new(program);
    }
    // Not runuser: setpriv becomes the program, so that its process is ours to end.
    let mut command = Command::new(required("setpriv"));
    command.args(["--reuid", "postgres", "--regid", "postgres", "--clear-groups", "--"]).arg(program);
    command
}

fn postgres_server(folder: &Folder) -> Program {
    let initdb = required("/usr/lib/postgresql/*/bin/initdb");
    let data = folder.path().join("data");
    if rustix::process::geteuid().is_root() {
        output_of(&required("chown"), &["postgres".as_ref(), folder.path()]);
    }
    let made = as_postgres(&initdb)
        .args(["--no-sync", "--auth=trust", "--username=tester", "--locale=C", "-D"])
        .arg(&data)
        .current_dir("/")
        .output()
        .unwrap();
    assert!(made.status.success(), "initdb failed: {}", String::from_utf8_lossy(&made.stderr));
    let address = free_port();
    let mut command = as_postgres(&initdb.with_file_name("postgres"));
    command.arg("-D").arg(&data).arg("-k").arg(folder.path()).current_dir("/");
    command.args(["-p", &address.port().to_string(), "-h", "127.0.0.1", "-c", "fsync=off"]);
    Program::serving_at(address, &mut command).ended_by(Signal::INT)
}

#[test]
fn postgresql_works_through_it() {
    let folder = Folder::new();
    let postgres = postgres_server(&folder);
    let lb = Lb::in_front_of(&[postgres.address()]).set("attempts", 1).start();
    let psql = required("psql");
    let port = lb.address().port().to_string();
    let query = |sql: &str| {
        let arguments = ["-h", "127.0.0.1", "-p", &port, "-U", "tester", "-d", "postgres", "-Atc", sql];
        output_of(&psql, &arguments)
    };
    wait_until("PostgreSQL has started", || {
        let mut first = Command::new(&psql);
        first.args(["-h", "127.0.0.1", "-p", &postgres.address().port().to_string(), "-U", "tester", "-d", "postgres"]);
        first.args(["-Atc", "select 1"]).stderr(Stdio::null()).output().unwrap().status.success()
    });
    assert_eq!(query("select 6 * 7"), "42\n");
    let long = query("select string_agg(i::text, ',') from generate_series(1, 100000) i");
    assert_eq!(long.trim_end().rsplit(',').next(), Some("100000"));
    lb.access_log(2);
}
