//! The recipes before clusters: Galera with one writer, PostgreSQL with Patroni, RabbitMQ.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::process::Signal;

use crate::guide::{any, recipe};
use crate::support::{
    Folder, Lb, Mariadb, Program, Refusing, Server, as_user, free_port, give_to, output_of, required, wait_for_state,
    wait_until, wait_until_equal,
};

/// Where the nodes of the cluster are: each has the same ports, as in the recipe.
const NODES: [IpAddr; 2] = [IpAddr::V4(Ipv4Addr::new(127, 91, 0, 1)), IpAddr::V4(Ipv4Addr::new(127, 91, 0, 2))];

/// Whether the node of this folder takes part in the cluster and has all of its data.
fn is_synced(folder: &Path) -> bool {
    let mut asking = Command::new(required("mariadb"));
    asking.args(["-uroot", "-NBe", "show status like 'wsrep_local_state'", "-S"]).arg(folder.join("socket"));
    asking.stderr(Stdio::null()).output().is_ok_and(|said| said.stdout.ends_with(b"\t4\n"))
}

/// What `clustercheck` does.
fn clustercheck(address: SocketAddr, folder: &Path) -> Server {
    let folder = folder.to_owned();
    Server::on(Refusing::at(address), move |mut stream| {
        let _ = stream.read(&mut [0; 4096]);
        let status = if is_synced(&folder) { "200 OK" } else { "503 Service Unavailable" };
        let _ = write!(stream, "HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    })
}

/// The node of this folder; `others` is the address of the cluster.
fn galera(node: usize, folder: &Folder, ports: [u16; 4], others: &str) -> Mariadb {
    let at = |port: u16| SocketAddr::new(NODES[node], port);
    let [sql, group, increments, state] = ports.map(at);
    let provider = required("/usr/lib/galera/libgalera_smm.so");
    let arguments = [
        "--wsrep-on=ON".to_owned(),
        format!("--wsrep-provider={}", provider.display()),
        format!("--wsrep-provider-options=gmcast.listen_addr=tcp://{group};ist.recv_addr={increments}"),
        format!("--wsrep-node-address={}", NODES[node]),
        format!("--wsrep-node-name={node}"),
        format!("--wsrep-sst-receive-address={state}"),
        "--wsrep-sst-method=rsync".to_owned(),
        format!("--wsrep-cluster-address=gcomm://{others}"),
        "--binlog-format=ROW".to_owned(),
        "--innodb-autoinc-lock-mode=2".to_owned(),
        "--innodb-flush-log-at-trx-commit=0".to_owned(),
    ];
    Mariadb::serving_at(sql, folder, &arguments.each_ref().map(String::as_str))
}

/// A client that goes through lb and runs a statement.
fn client(lb: &Lb, statement: &str) -> Command {
    let mut command = Command::new(required("mariadb"));
    command.args(["-uwriter", "-psecret", "-h127.0.0.1", &format!("-P{}", lb.address().port()), "-NBe", statement]);
    command.stdin(Stdio::null()).stderr(Stdio::null());
    command
}

#[test]
fn a_galera_cluster_is_written_to_at_one_node_at_a_time() {
    required("rsync");
    let folders = [Folder::new(), Folder::new()];
    folders.iter().for_each(Mariadb::install);
    let ports = [(); 4].map(|()| free_port().port());
    let group = [0, 1].map(|node: usize| SocketAddr::new(NODES[node], ports[1]).to_string());
    let first = galera(0, &folders[0], ports, "");
    wait_until("the cluster begins", || is_synced(folders[0].path()));
    first.sql("create user writer identified by 'secret'; create database d; create table d.t (n int primary key)");
    first.sql("grant all on d.* to writer");
    let second = galera(1, &folders[1], ports, &group[0]);
    wait_until("both are synced", || folders.iter().all(|folder| is_synced(folder.path())));
    let check_port = free_port().port();
    let _checks = [0, 1].map(|node| clustercheck(SocketAddr::new(NODES[node], check_port), folders[node].path()));
    let [one, two] = NODES.map(|node| SocketAddr::new(node, ports[0]));
    let replaced = [
        ("0.0.0.0:3306", any()),
        ("10.0.0.1:3306", one.to_string()),
        ("10.0.0.2:3306", two.to_string()),
        ("10.0.0.3:3306", free_port().to_string()),
        ("port: 9200", format!("port: {check_port}")),
    ];
    let lb = recipe("databases.md", 2, &replaced).start();
    let writes_at = |row: u32| {
        let statement = format!("insert into d.t values ({row}); select @@wsrep_node_name");
        let said = client(&lb, &statement).output().expect("it starts");
        String::from_utf8_lossy(&said.stdout).trim().to_owned()
    };
    assert_eq!(writes_at(1), "0");
    wait_for_state(&lb, one, "up");
    wait_for_state(&lb, two, "up");

    // It is stopped for maintenance, and the other one goes on with all that was written.
    drop(first);
    let mut row = 1;
    let mut written_at = || {
        row += 1;
        writes_at(row)
    };
    wait_until_equal("who takes writes", &"1".to_owned(), &mut written_at);
    assert!(second.sql("select n from d.t").starts_with("1\n"));

    // It comes back, and a session that the other one still has is ended: no two are written to.
    let mut session = client(&lb, "select sleep(600)").stdout(Stdio::null()).spawn().expect("it starts");
    wait_until("the session is there", || second.sql("show processlist").contains("select sleep(600)"));
    let first = galera(0, &folders[0], ports, &group[1]);
    wait_until("the session has ended", || session.try_wait().unwrap().is_some());
    assert!(!session.wait().unwrap().success(), "it was cut");
    wait_until_equal("who takes writes", &"0".to_owned(), &mut written_at);
    let rows = "select count(*) from d.t";
    wait_until_equal("what the other has", &first.sql(rows), || second.sql(rows));
}

/// Where Patroni's nodes keep who leads.
fn etcd(folder: &Folder) -> Program {
    let (clients, peers) = (free_port(), format!("http://{}", free_port()));
    let url = format!("http://{clients}");
    let mut command = Command::new(required("etcd"));
    command.args(["--listen-client-urls", &url, "--advertise-client-urls", &url, "--unsafe-no-fsync"]);
    command.args(["--listen-peer-urls", &peers, "--initial-advertise-peer-urls", &peers]);
    command.args(["--initial-cluster", &format!("default={peers}"), "--data-dir"]).arg(folder.path().join("etcd"));
    Program::serving_at(clients, &mut command)
}

/// A node of a cluster, with PostgreSQL and Patroni's API at these addresses.
fn patroni(folder: &Folder, etcd: SocketAddr, postgres: SocketAddr, api: SocketAddr) -> Program {
    required("/usr/lib/python3/dist-packages/etcd");
    let name = api.ip();
    let bin = required("/usr/lib/postgresql/*/bin/initdb");
    let (at, bin) = (folder.path().display(), bin.parent().expect("a folder").display());
    let config = format!(
        "{{scope: test, name: node-{name}, etcd3: {{hosts: '{etcd}'}},\n\
         restapi: {{listen: '{api}', connect_address: '{api}'}},\n\
         bootstrap: {{dcs: {{ttl: 20, loop_wait: 1, retry_timeout: 3}}, initdb: [{{locale: C}}],\n  \
         pg_hba: [host all all 127.0.0.0/8 trust, host replication all 127.0.0.0/8 trust]}},\n\
         postgresql: {{listen: '{postgres}', connect_address: '{postgres}', bin_dir: '{bin}',\n  \
         data_dir: '{at}/data', pgpass: '{at}/pgpass',\n  \
         parameters: {{unix_socket_directories: '{at}', fsync: 'off'}},\n  \
         authentication: {{superuser: {{username: postgres}}, replication: {{username: replicator}}}}}}}}\n"
    );
    let config = folder.write("patroni.yml", config);
    give_to("postgres", folder.path());
    let mut command = as_user("postgres", &required("patroni"));
    Program::serving_at(api, command.arg(config)).ended_by(Signal::TERM)
}

#[test]
fn writes_follow_the_leader_of_a_patroni_cluster() {
    let folders = [Folder::new(), Folder::new()];
    let [postgres, api] = [(); 2].map(|()| free_port().port());
    let etcd = etcd(&folders[0]);
    let at = |node: usize, port: u16| SocketAddr::new(NODES[node], port);
    let start = |node: usize| patroni(&folders[node], etcd.address(), at(node, postgres), at(node, api));
    let mut nodes = vec![start(0), start(1)];
    let replaced = [
        ("0.0.0.0:5000", any()),
        ("0.0.0.0:5001", any()),
        ("10.0.0.1:5432", at(0, postgres).to_string()),
        ("10.0.0.2:5432", at(1, postgres).to_string()),
        ("10.0.0.3:5432", free_port().to_string()),
        ("port: 8008", format!("port: {api}")),
    ];
    let lb = recipe("databases.md", 0, &replaced).start();
    let node_of = |listener: &str| {
        let port = lb.address_of(listener).port().to_string();
        let mut psql = Command::new(required("psql"));
        psql.args(["-h", "127.0.0.1", "-p", &port, "-U", "postgres", "-Atc"]);
        psql.args(["select pg_is_in_recovery(), inet_server_addr()", "postgres"]).env("PGCONNECT_TIMEOUT", "5");
        let said = psql.stdin(Stdio::null()).output().expect("psql starts");
        String::from_utf8_lossy(&said.stdout).trim().to_owned()
    };
    let reads_at = |node: usize| format!("t|{}", NODES[node]);
    let writes_at = |node: usize| format!("f|{}", NODES[node]);
    wait_until("one of them replicates the other", || (0..2).any(|node| node_of("read") == reads_at(node)));
    let leader = usize::from(node_of("write") == writes_at(1));
    assert_eq!(node_of("write"), writes_at(leader));
    assert_eq!(node_of("read"), reads_at(1 - leader));

    // The other one is promoted, and nobody writes elsewhere.
    drop(nodes.remove(leader));
    wait_until_equal("who takes writes", &writes_at(1 - leader), || node_of("write"));
    wait_until_equal("who is read, without a replica", &String::new(), || node_of("read"));
}

/// A broker that keeps all it has in `folder`, and the daemon for names of Erlang's nodes that it needs.
fn rabbitmq(folder: &Folder) -> [Program; 2] {
    let (names, address, nodes) = (free_port(), free_port(), free_port());
    let mut epmd = Command::new(required("epmd"));
    let epmd = Program::serving_at(names, epmd.args(["-address", "127.0.0.1", "-port", &names.port().to_string()]));
    let at = |name: &str| folder.path().join(name);
    // Not the one on the PATH, which becomes the user `rabbitmq`.
    let mut broker = Command::new(required("/usr/lib/rabbitmq/bin/rabbitmq-server"));
    broker
        .env("HOME", folder.path())
        .env("ERL_EPMD_PORT", names.port().to_string())
        .env("RABBITMQ_NODENAME", "rabbit@localhost")
        .env("RABBITMQ_NODE_IP_ADDRESS", "127.0.0.1")
        .env("RABBITMQ_NODE_PORT", address.port().to_string())
        .env("RABBITMQ_DIST_PORT", nodes.port().to_string())
        .env("RABBITMQ_CONF_ENV_FILE", "/dev/null")
        .env("RABBITMQ_CONFIG_FILE", at("none"))
        .env("RABBITMQ_MNESIA_BASE", at("data"))
        .env("RABBITMQ_LOG_BASE", at("logs"))
        .env("RABBITMQ_PID_FILE", at("pid"))
        .env("RABBITMQ_ENABLED_PLUGINS_FILE", at("plugins"));
    [Program::serving_at(address, &mut broker).ended_by(Signal::TERM), epmd]
}

#[test]
fn amqp_clients_get_a_broker_that_speaks_amqp() {
    let (publish, get) = (required("amqp-publish"), required("amqp-get"));
    let folder = Folder::new();
    let [broker, _epmd] = rabbitmq(&folder);
    // It takes connections, and never says a word.
    let hung = Server::that(|mut stream| while stream.read(&mut [0; 64]).is_ok_and(|length| length > 0) {});
    let replaced = [
        ("0.0.0.0:5672", any()),
        ("10.0.0.1:5672", broker.address().to_string()),
        ("10.0.0.2:5672", hung.address().to_string()),
        ("10.0.0.3:5672", free_port().to_string()),
    ];
    let lb = recipe("messaging.md", 0, &replaced).start();
    wait_for_state(&lb, hung.address(), "down");
    wait_for_state(&lb, broker.address(), "up");
    let url = format!("amqp://guest:guest@{}", lb.address());
    output_of(&required("amqp-declare-queue"), &["-u", &url, "-q", "jobs"]);
    for job in ["1", "2", "3"] {
        output_of(&publish, &["-u", &url, "-r", "jobs", "-b", job]);
    }
    for job in ["1", "2", "3"] {
        assert_eq!(output_of(&get, &["-u", &url, "-q", "jobs"]), job);
    }
    let address = broker.stop();
    wait_for_state(&lb, address, "down");
}
