//! The recipes of docs/guide/recipes: each block is valid, and does what stands beside it before the servers that it is
//! for.

use std::fs;
use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

use crate::support::{
    Folder, Lb, LbBuilder, PASSWORD, Program, Server, agent, bound, connect, free_port, is_in_a_network_of_its_own,
    postgres, postgres_replica, psql, redis, required, run_to_end, send_and_read, short_read, teller, told, wait_until,
    wait_until_equal,
};

/// Where the recipes have files.
const ETC: &str = "/etc/lb/";

fn guide() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/guide/recipes")
}

/// The blocks of YAML in a recipe.
fn blocks(file: &Path) -> Vec<String> {
    let text = fs::read_to_string(file).unwrap();
    let blocks = text.split("```yaml\n").skip(1);
    blocks.map(|block| block.split("```").next().unwrap().to_owned()).collect()
}

/// A recipe's block with other addresses; each must stand in it.
pub fn recipe(name: &str, block: usize, replaced: &[(&str, String)]) -> LbBuilder {
    let mut yaml = blocks(&guide().join(name)).swap_remove(block);
    for (from, to) in replaced {
        assert!(yaml.contains(from), "{name}: no `{from}` in:\n{yaml}");
        yaml = yaml.replace(from, to);
    }
    // A check may be under way at any time: its files are nothing to compare with.
    Lb::with_config(&yaml).unwatched()
}

/// Any free port of this machine.
pub fn any() -> String {
    "127.0.0.1:0".to_owned()
}

#[test]
fn every_block_is_valid() {
    let folder = Folder::new();
    folder.write("postgres-password", "secret\n");
    let mut checked = 0;
    for entry in fs::read_dir(guide()).unwrap() {
        let file = entry.unwrap().path();
        for block in blocks(&file) {
            let yaml = block.replace(ETC, &format!("{}/", folder.path().display()));
            folder.write("lb.yaml", &yaml);
            let output = run_to_end(folder.path(), &["check"], &[]);
            let errors = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(0), "{}: {errors}\n{yaml}", file.display());
            checked += 1;
        }
    }
    assert!(checked >= 12, "{checked} blocks");
}

#[test]
fn of_a_patroni_cluster_the_leader_gets_the_writes() {
    if !is_in_a_network_of_its_own("guide::of_a_patroni_cluster_the_leader_gets_the_writes") {
        return;
    }
    let _servers = [11, 12, 13].map(|number| teller(&format!("127.0.0.{number}:5432"), &number.to_string()));
    let states = [200, 503, 503].map(|status| Arc::new(AtomicU16::new(status)));
    let addresses = [11, 12, 13].map(|number| format!("127.0.0.{number}:8008"));
    let _patroni: Vec<_> = addresses.iter().zip(&states).map(|(address, status)| agent(address, status)).collect();
    let lb =
        recipe("databases.md", 0, &[("10.0.0.", "127.0.0.1".into()), ("0.0.0.0:5000", any()), ("0.0.0.0:5001", any())])
            .start();
    let write = lb.address_of("write").to_string();
    wait_until_equal("the first leads", &"11|hello\n".to_owned(), || told(&write));
    states[0].store(503, Ordering::Relaxed);
    wait_until_equal("nobody leads", &String::new(), || told(&write));
    states[2].store(200, Ordering::Relaxed);
    wait_until_equal("the third leads", &"13|hello\n".to_owned(), || told(&write));
}

#[test]
fn postgresql_without_patroni_is_written_to_at_the_primary_and_read_at_the_replica() {
    let folders = [Folder::new(), Folder::new()];
    let primary = postgres(&folders[0]);
    let replica = postgres_replica(&folders[1], primary.address());
    let created = psql(primary.address(), &format!("create user lb password '{PASSWORD}'"));
    assert!(created.status.success(), "{created:?}");
    let etc = Folder::new();
    etc.write("postgres-password", format!("{PASSWORD}\n"));
    let lb = recipe(
        "databases.md",
        1,
        &[
            ("10.0.0.1:5432", primary.address().to_string()),
            ("10.0.0.2:5432", replica.address().to_string()),
            ("0.0.0.0:5000", any()),
            ("0.0.0.0:5001", any()),
            (ETC, format!("{}/", etc.path().display())),
        ],
    )
    .start();
    let port = |listener: &str| {
        let answer = psql(lb.address_of(listener), "select inet_server_port()");
        String::from_utf8_lossy(&answer.stdout).trim().to_owned()
    };
    wait_until_equal("writes go to the primary", &primary.address().port().to_string(), || port("write"));
    wait_until_equal("reads go to the replica", &replica.address().port().to_string(), || port("read"));
}

/// What Redis answers to a command; empty: nothing.
pub fn ask_redis(address: SocketAddr, command: &str) -> String {
    let Ok(mut client) = TcpStream::connect(address) else { return String::new() };
    bound(&client);
    let (answer, _) = send_and_read(&mut client, [format!("{command}\r\nQUIT\r\n").as_bytes()], false);
    String::from_utf8_lossy(&answer).into_owned()
}

#[test]
fn redis_clients_follow_whom_sentinel_promotes() {
    let folders = [Folder::new(), Folder::new(), Folder::new()];
    let master = redis(&folders[0], &[]);
    let replica = redis(&folders[1], &["--replicaof", "127.0.0.1", &master.address().port().to_string()]);
    let (one, two) = (master.address(), replica.address());
    wait_until("the replica follows", || ask_redis(two, "INFO replication").contains("master_link_status:up"));
    let sentinel = format!(
        "sentinel monitor m 127.0.0.1 {} 1\nsentinel down-after-milliseconds m 500\nsentinel failover-timeout m 3000\n",
        one.port()
    );
    let (file, address) = (folders[2].write("sentinel.conf", sentinel), free_port());
    let mut command = Command::new(required("redis-server"));
    command.arg(file).args(["--sentinel", "--port", &address.port().to_string(), "--bind", "127.0.0.1"]);
    let _sentinel = Program::serving_at(address, &mut command);
    wait_until("Sentinel knows both", || {
        let mut client = connect(address);
        client.write_all(b"SENTINEL MASTER m\r\n").unwrap();
        let mut received = String::new();
        while !received.contains("num-other-sentinels") {
            let more = short_read(&mut client);
            assert!(!more.is_empty(), "Sentinel has ended: {received}");
            received += &more;
        }
        received.contains("num-slaves\r\n$1\r\n1")
    });
    let nobody = free_port();
    let lb = recipe(
        "redis.md",
        0,
        &[
            ("0.0.0.0:6379", any()),
            ("10.0.0.1:6379", one.to_string()),
            ("10.0.0.2:6379", two.to_string()),
            ("10.0.0.3:6379", nobody.to_string()),
        ],
    )
    .start();
    wait_until("the master takes writes", || ask_redis(lb.address(), "SET key 1").starts_with("+OK"));
    drop(master);
    wait_until("the other one takes writes", || ask_redis(lb.address(), "SET key 2").starts_with("+OK"));
    assert!(ask_redis(two, "GET key").contains("\r\n2\r\n"));
}

/// Servers that expect a PROXY header, and tell at `VRFY` whom it names.
const MAIL_SERVER: &str = "
import sys, time
from aiosmtpd.controller import Controller
class Handler:
    async def handle_PROXY(self, server, session, envelope, proxy_data):
        return True
    async def handle_VRFY(self, server, session, envelope, address):
        return '252 ' + str(session.proxy_data.src_addr)
Controller(Handler(), hostname='127.0.0.1', port=int(sys.argv[1]), proxy_protocol_timeout=5).start()
time.sleep(3600)
";

#[test]
fn a_mail_server_sees_its_clients_addresses() {
    // Debian's own Python has its packages.
    required("aiosmtpd");
    let addresses = [free_port(), free_port()];
    let _servers = addresses.map(|address| {
        let mut command = Command::new("/usr/bin/python3");
        Program::serving_at(address, command.args(["-c", MAIL_SERVER, &address.port().to_string()]))
    });
    let nobody = free_port();
    let lb = recipe(
        "mail.md",
        0,
        &[
            ("0.0.0.0:25", any()),
            ("0.0.0.0:993", any()),
            ("10.0.0.1:10025", addresses[0].to_string()),
            ("10.0.0.2:10025", addresses[1].to_string()),
            ("10.0.0.1:10993", nobody.to_string()),
            ("10.0.0.2:10993", free_port().to_string()),
        ],
    )
    .start();
    let smtp = lb.address_of("smtp");
    wait_until("a client gets through", || {
        let Ok(mut client) = TcpStream::connect(smtp) else { return false };
        bound(&client);
        let (answer, _) = send_and_read(&mut client, [&b"EHLO x\r\nVRFY a\r\nQUIT\r\n"[..]], false);
        String::from_utf8_lossy(&answer).contains("252 127.0.0.1")
    });
}

#[test]
fn ssh_and_others_share_a_port() {
    let [ssh, api, web] = ["SSH-2.0-server\r\n", "api", "web"].map(Server::greeting);
    let nobody = free_port();
    let lb = recipe(
        "one-port.md",
        0,
        &[
            ("0.0.0.0:443", any()),
            ("silent: 2s", "silent: 500ms".to_owned()),
            ("10.0.0.1:22", ssh.address().to_string()),
            ("10.0.0.2:443", api.address().to_string()),
            ("10.0.0.3:443", nobody.to_string()),
            ("10.0.0.4:443", web.address().to_string()),
            (", 10.0.0.5:443", String::new()),
        ],
    )
    .start();
    let greeted = |first: &str| {
        let mut client = connect(lb.address());
        client.write_all(first.as_bytes()).unwrap();
        short_read(&mut client)
    };
    assert_eq!(greeted("SSH-2.0-client\r\n"), "SSH-2.0-server\r\n");
    assert_eq!(greeted(""), "SSH-2.0-server\r\n", "who waits for the greeting");
    assert_eq!(greeted("GET / HTTP/1.1\r\n\r\n"), "web");
}
