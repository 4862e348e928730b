//! What the machine runs out of: the pipes of an ordinary user, local ports, and files (EMFILE alone: lifecycle).

use std::io::{BufRead, BufReader, Read};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use socket2::{Domain, Socket, Type};

use crate::harness::lacks;
use crate::support::{
    Ending, Lb, Pair, Pairs, Reader, Server, allow_open_files, bound, connect, is_in_a_network_of_its_own, open_files,
    ordinary_user, read_to_end, receive_pattern, required, reset, send_pattern, shrink_receive_buffer, wait_until,
};

const MIB: usize = 1024 * 1024;

/// Connections with much to send, whose readers wait; then they read.
fn bulk_through_an_ordinary_users_pipes(method: &str, has_pipe: bool) {
    const CONNECTIONS: usize = 80;
    /// More than all buffers on the way hold; of all connections together, less than the kernel gives TCP.
    const LENGTH: usize = 6 * MIB;
    /// Read before all wait: so much passes through in large pieces, however slow the server is.
    const FIRST: usize = 2 * MIB;
    let server = Server::that(|mut stream| send_pattern(&mut stream, LENGTH));
    let lb = Lb::in_front_of(&[server.address()])
        .by_ordinary_user()
        .with(&["--workers", "1"])
        .set("relay.mode", method)
        .start();
    let mut readers: Vec<TcpStream> = (0..CONNECTIONS)
        .map(|_| {
            let reader = connect(lb.address());
            shrink_receive_buffer(&reader);
            reader
        })
        .collect();
    let first = readers.iter_mut().map(|reader| {
        let mut bytes = vec![0; FIRST];
        reader.read_exact(&mut bytes).unwrap();
        bytes
    });
    let first: Vec<Vec<u8>> = first.collect();
    let mut last = 0.0;
    wait_until("nothing moves any more", || {
        let now = lb.metrics().sum("bytes_total", &[("direction", "out")]);
        thread::sleep(Duration::from_millis(100));
        std::mem::replace(&mut last, now) == now && now > 0.0
    });
    let pipes = |state| lb.metrics().sum("splice_pipes", &[("state", state)]) == 1.0;
    assert_eq!((pipes("open"), pipes("refused")), (has_pipe, !has_pipe), "{method}");
    assert_eq!(lb.metrics().sum("spliced_bytes_total", &[]) > 0.0, has_pipe, "{method}");
    // All at once: whoever waited for the others could wait for too long.
    thread::scope(|scope| {
        for (first, reader) in first.iter().zip(readers) {
            scope.spawn(|| assert_eq!(receive_pattern(&mut first.chain(reader)), LENGTH));
        }
    });
}

/// A program of the same user that has taken all pages that the user's pipes may have.
struct Hog(Child);

impl Hog {
    fn start() -> Self {
        // F_SETPIPE_SZ is 1031 (fcntl(2)).
        const TAKE_ALL: &str = r#"
            $| = 1;
            while (@pipes < 400) {
                pipe(my $out, my $in) or die "pipe: $!";
                push @pipes, $out, $in;
                fcntl($in, 1031, 1 << 20) or last;
            }
            print $!{EPERM} ? "taken\n" : "not taken: $!\n";
            <STDIN>;
        "#;
        let mut command = Command::new(required("perl"));
        command.args(["-e", TAKE_ALL]).stdin(Stdio::piped()).stdout(Stdio::piped()).current_dir("/");
        command.uid(ordinary_user()).gid(ordinary_user());
        let mut child = command.spawn().expect("perl starts");
        let mut said = String::new();
        let output = child.stdout.take().expect("piped");
        BufReader::new(output).read_line(&mut said).expect("a line of text");
        if said != "taken\n" {
            lacks("a limit of an ordinary user's pipes (fs.pipe-user-pages-soft)");
        }
        Self(child)
    }
}

impl Drop for Hog {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn bulk_is_copied_where_an_ordinary_user_gets_no_pipe() {
    for method in ["auto", "splice"] {
        bulk_through_an_ordinary_users_pipes(method, true);
    }
    // Another program has all that the system grants.
    let _hog = Hog::start();
    for method in ["auto", "splice"] {
        bulk_through_an_ordinary_users_pipes(method, false);
    }
}

/// A client at a port of its own, which it doesn't take from the range.
fn client_at(port: u16, lb: &Lb) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from(([127, 0, 0, 1], port)).into()).unwrap();
    socket.connect(&lb.address().into()).unwrap();
    let stream = socket.into();
    bound(&stream);
    stream
}

#[test]
fn running_out_of_local_ports_passes_and_blames_nobody() {
    const PORTS: u16 = 64;
    if !is_in_a_network_of_its_own("exhaustion::running_out_of_local_ports_passes_and_blames_nobody") {
        return;
    }
    let backends = Pairs::new();
    let server = backends.address();
    let lb = Lb::in_front_of(&[server]).set("failure_detection.failures", 1).start();
    // From now on: a listener's port would not be used for connecting.
    let range = format!("10000 {}", 10_000 + PORTS - 1);
    std::fs::write("/proc/sys/net/ipv4/ip_local_port_range", range).expect("root may set it in a network of its own");
    let mut client_ports = 12_000..;
    let mut client = || client_at(client_ports.next().unwrap(), &lb);
    let mut pairs: Vec<Pair> = (0..PORTS).map(|_| Pair { client: client(), backend: backends.accept() }).collect();
    for _ in 0..5 {
        assert_eq!(read_to_end(&mut client()), (Vec::new(), Ending::Reset));
    }
    for line in lb.access_log(5) {
        assert_eq!((&line["cause"], &line["attempts"][0]["outcome"]), (&"internal".into(), &"local".into()), "{line}");
    }
    let failures = |reason| lb.metrics().sum("backend_connect_failures_total", &[("reason", reason)]);
    assert_eq!(failures("local"), 5.0);
    assert_eq!(lb.metrics().sum("backend_connect_failures_total", &[]), 5.0, "of no other kind");
    assert_eq!((lb.state_of(server).as_str(), &lb.backend(server)["failures"]), ("up", &0.into()));
    // Those that have a port are not disturbed, and the next get the ports of those that leave.
    for pair in &mut pairs {
        pair.ping(b"still here");
    }
    for pair in pairs.drain(..usize::from(PORTS) / 2) {
        reset(pair.client);
    }
    lb.access_log(5 + usize::from(PORTS) / 2);
    for _ in 0..PORTS / 2 {
        let mut pair = Pair { client: client(), backend: backends.accept() };
        pair.ping(b"here now");
        pairs.push(pair);
    }
    drop(pairs);
}

#[test]
fn a_connection_to_itself_is_no_backend() {
    const PORT: u16 = 20_010;
    const TRIES: u16 = 400;
    if !is_in_a_network_of_its_own("exhaustion::a_connection_to_itself_is_no_backend") {
        return;
    }
    // Few local ports, and the one of the backend, which is down, among them.
    std::fs::write("/proc/sys/net/ipv4/ip_local_port_range", "20000 20063").expect("root may set it here");
    let backend = SocketAddr::from(([127, 0, 0, 1], PORT));
    let config = format!("listen: 127.0.0.1:12000\nbackends: ['{backend}']\nattempts: 1\nfailure_detection: off\n");
    let lb = Lb::with_config(&config).start();
    for number in 0..TRIES {
        assert_eq!(read_to_end(&mut client_at(12_001 + number, &lb)), (Vec::new(), Ending::Reset));
    }
    for line in lb.access_log(TRIES.into()) {
        assert_eq!(line["attempts"][0]["outcome"], "refused", "{line}");
    }
    std::net::TcpListener::bind(backend).expect("the backend can be started");
}

/// An HTTP server at this port of every loopback address, which keeps connections.
fn http_everywhere() -> u16 {
    let listener = std::net::TcpListener::bind("0.0.0.0:0").expect("a free port");
    let port = listener.local_addr().expect("it is bound").port();
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            std::thread::spawn(move || {
                let mut reader = Reader::of(stream);
                while reader.message(false).is_some() {
                    reader.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
                }
            });
        }
    });
    port
}

#[test]
fn kept_connections_leave_files_for_clients_and_for_the_admin_server() {
    const BACKENDS: u8 = 40;
    const FILES: u16 = 1_000;
    allow_open_files(4 * u64::from(FILES));
    let port = http_everywhere();
    let backends: Vec<SocketAddr> = (1..=BACKENDS).map(|last| ([127, 0, 0, last], port).into()).collect();
    let lb =
        Lb::in_front_of(&backends).with(&["--mode", "http", "--workers", "2"]).open_files_at_most(FILES.into()).start();
    let most = lb.api("/api/v1/status")["connections"]["max"].as_u64().unwrap();
    assert!((100..400).contains(&most), "{most}");
    let mut clients: Vec<Reader> = (0..most).map(|_| Reader::of(connect(lb.address()))).collect();
    // Waves of requests, which leave kept connections to all backends behind.
    for _ in 0..4 {
        for client in &mut clients {
            client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        }
        for client in &mut clients {
            assert_eq!(client.response().status(), 200);
        }
        assert_eq!(lb.ask("/healthz").status, 200);
    }
    let metrics = lb.metrics();
    let idle = metrics.sum("backend_connections_idle", &[]);
    assert!((20.0..=300.0).contains(&idle), "{idle} kept connections");
    assert_eq!(metrics.sum("accept_errors_total", &[]), 0.0);
    assert_eq!(metrics.sum("backend_connect_failures_total", &[]), 0.0);
    let open = open_files(lb.pid());
    assert!(
        open.others + 200 < usize::from(FILES),
        "{open:?}: files for the admin server and the relay's pipes are left"
    );
    drop(clients);
}
