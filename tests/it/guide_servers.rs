//! The recipes before further servers: Redis without Sentinel, MQTT, IMAP.

use std::fs;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr};
use std::process::Command;

use rustix::process::Signal;

use crate::guide::{any, ask_redis, recipe};
use crate::support::{
    Authority, Folder, Lb, Program, TlsEnd, connect_from, free_port, output_of, redis, required, wait_until,
    wait_until_equal,
};

fn state_of(lb: &Lb, pool: &str, backend: SocketAddr) -> String {
    let pools = lb.api("/api/v1/pools");
    let pool = pools["pools"].as_array().unwrap().iter().find(|known| known["name"] == pool).unwrap();
    let backends = pool["backends"].as_array().unwrap();
    let backend = backends.iter().find(|known| known["address"] == backend.to_string()).unwrap();
    backend["state"].as_str().unwrap().to_owned()
}

#[test]
fn a_redis_master_that_returns_waits_for_an_operator() {
    let folders = [Folder::new(), Folder::new(), Folder::new()];
    let (old, new) = (redis(&folders[0], &[]), redis(&folders[1], &["--replicaof", "127.0.0.1", "1"]));
    ask_redis(new.address(), &format!("REPLICAOF 127.0.0.1 {}", old.address().port()));
    let (one, two) = (old.address(), new.address());
    wait_until("the replica follows", || ask_redis(two, "INFO replication").contains("master_link_status:up"));
    let nodes = [("10.0.0.1:6379", one.to_string()), ("10.0.0.2:6379", two.to_string())];
    let listeners = [("0.0.0.0:6379", any()), ("0.0.0.0:6380", any())];
    let lb = recipe("redis.md", 1, &[listeners, nodes].concat()).start();
    let (writes, reads) = (lb.address_of("write"), lb.address_of("read"));
    wait_until("the master takes writes", || ask_redis(writes, "SET key 1").starts_with("+OK"));
    wait_until("the replica is read", || ask_redis(reads, "GET key").contains("\r\n1\r\n"));
    let address = old.stop();
    wait_until_equal("the master", &"down".to_owned(), || state_of(&lb, "master", one));
    assert_eq!(ask_redis(writes, "SET key 2"), "", "nobody takes it");
    assert!(ask_redis(two, "REPLICAOF NO ONE").starts_with("+OK"));
    wait_until("the promoted one takes writes", || ask_redis(writes, "SET key 3").starts_with("+OK"));
    // It believes that it is the master, as it was.
    let mut command = Command::new(required("redis-server"));
    command.args(["--port", &address.port().to_string(), "--bind", "127.0.0.1", "--save", ""]);
    let _old = Program::serving_at(address, command.current_dir(folders[2].path()));
    wait_until_equal("the old master", &"waiting".to_owned(), || state_of(&lb, "master", one));
    for _ in 0..10 {
        assert!(ask_redis(writes, "GET key").contains("\r\n3\r\n"));
    }
}

#[test]
fn an_mqtt_client_finds_its_session_at_the_broker_that_it_had() {
    let (publish, subscribe) = (required("mosquitto_pub"), required("mosquitto_sub"));
    let folder = Folder::new();
    let brokers = ["one", "two"].map(|name| {
        let address = free_port();
        let config = format!("listener {} 127.0.0.1\nallow_anonymous true\n", address.port());
        let mut command = Command::new(required("mosquitto"));
        Program::serving_at(address, command.arg("-c").arg(folder.write(name, config)))
    });
    let [one, two] = [0, 1].map(|broker: usize| brokers[broker].address().to_string());
    let replaced = [
        ("0.0.0.0:1883", any()),
        ("10.0.0.1:1883", one),
        ("10.0.0.2:1883", two),
        // Debian's Mosquitto takes no PROXY header.
        ("send_proxy: v2", String::new()),
    ];
    let lb = recipe("messaging.md", 1, &replaced).start();
    let port = lb.address().port().to_string();
    let session = ["-p", &port, "-i", "client", "-c", "-q", "1", "-t", "news"];
    // It subscribes and leaves; what comes meanwhile is kept for it by its broker alone.
    output_of(&subscribe, &[&session[..], &["-E"]].concat());
    output_of(&publish, &["-p", &port, "-q", "1", "-t", "news", "-m", "kept"]);
    assert_eq!(output_of(&subscribe, &[&session[..], &["-C", "1", "-W", "10"]].concat()).trim(), "kept");
}

#[test]
fn an_imap_server_sees_its_clients_addresses() {
    let (authority, folder) = (Authority::new(), Folder::new());
    authority.signed("mail", "DNS:localhost", None);
    let addresses = [free_port(), free_port()];
    let _servers = addresses.map(|address| {
        let own = folder.path().join(address.port().to_string());
        fs::create_dir(&own).unwrap();
        let own = own.display();
        let config = format!(
            "base_dir = {own}/run\nstate_dir = {own}/state\nlog_path = {own}/log\nlisten = 127.0.0.1\n\
             protocols = imap\nssl = required\nssl_cert = <{}\nssl_key = <{}\nhaproxy_trusted_networks = 127.0.0.0/8\n\
             passdb {{\n driver = static\n args = nopassword=y\n}}\n\
             userdb {{\n driver = static\n args = uid=nobody gid=nogroup home={own}/home\n}}\n\
             service imap-login {{\n inet_listener imap {{\n port = 0\n }}\n \
             inet_listener imaps {{\n port = {}\n ssl = yes\n haproxy = yes\n }}\n}}\n",
            authority.path("mail.pem"),
            authority.path("mail.key"),
            address.port()
        );
        let mut command = Command::new(required("dovecot"));
        command.arg("-F").arg("-c").arg(folder.write(&format!("{address}.conf"), config));
        Program::serving_at(address, &mut command).ended_by(Signal::TERM)
    });
    let replaced = [
        ("0.0.0.0:25", any()),
        ("0.0.0.0:993", any()),
        ("10.0.0.1:10025", free_port().to_string()),
        ("10.0.0.2:10025", free_port().to_string()),
        ("10.0.0.1:10993", addresses[0].to_string()),
        ("10.0.0.2:10993", addresses[1].to_string()),
        ("interval: 10s", "interval: 100ms".to_owned()),
    ];
    let lb = recipe("mail.md", 0, &replaced).start();
    for address in addresses {
        wait_until_equal("the check's verdict", &"up".to_owned(), || state_of(&lb, "imaps", address));
    }
    let source = IpAddr::from([127, 0, 7, 7]);
    let mut client = TlsEnd::over(connect_from(source, lb.address_of("imaps")), &authority);
    client.write_all(b"a LOGOUT\r\n").unwrap();
    let mut said = String::new();
    client.read_to_string(&mut said).unwrap();
    assert!(said.starts_with("* OK") && said.contains("a OK"), "{said}");
    wait_until("its log names the client", || {
        addresses.iter().any(|address| {
            let log = folder.path().join(address.port().to_string()).join("log");
            fs::read_to_string(log).is_ok_and(|log| log.contains(&format!("rip={source}")))
        })
    });
}
