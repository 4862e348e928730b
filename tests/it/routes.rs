//! Routes by what clients say first: several protocols on one port, with real clients and servers, and however the
//! network cuts what they say. By the server name of TLS alone: `sni_routes`.

use std::fs;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::support::{
    Authority, Ending, Folder, Lb, Program, Server, client_hellos, connect, free_port, mail_server, nginx, output_of,
    read_to_end, required, send_and_read, short_read,
};

/// A listener with these routes, in front of pools of one backend each.
fn routed(listener: &str, pools: &[(&str, SocketAddr)]) -> Lb {
    let pools: Vec<String> = pools.iter().map(|(name, at)| format!("  {name}: {{backends: ['{at}']}}\n")).collect();
    Lb::with_config(&format!("listeners:\n  one:\n    bind: 127.0.0.1:0\n{listener}pools:\n{}", pools.concat())).start()
}

/// An SSH server that lets in whoever runs the test, with the key `client` of the folder.
fn ssh_server(folder: &Folder) -> Program {
    if rustix::process::geteuid().is_root() {
        // Where its privileges are dropped to; Debian's service makes it, and nobody else does.
        let _ = fs::create_dir("/run/sshd");
    }
    let path = |file: &str| folder.path().join(file).display().to_string();
    for name in ["host", "client"] {
        output_of(&required("ssh-keygen"), &["-q", "-t", "ed25519", "-N", "", "-f", &path(name)]);
    }
    let address = free_port();
    let config = format!(
        "ListenAddress {address}\nHostKey {}\nAuthorizedKeysFile {}\nPidFile none\nStrictModes no\nUsePAM no\n\
         PermitRootLogin yes\n",
        path("host"),
        path("client.pub")
    );
    let config = folder.write("sshd.conf", config);
    Program::serving_at(address, Command::new(required("sshd")).args(["-D", "-f"]).arg(config))
}

/// What a command says that runs where SSH at `address` leads to.
fn over_ssh(folder: &Folder, address: SocketAddr, command: &str) -> String {
    let key = folder.path().join("client").display().to_string();
    let port = address.port().to_string();
    let options = ["StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "BatchMode=yes", "IdentitiesOnly=yes"];
    let mut arguments = vec!["-F", "none", "-q", "-i", &key, "-p", &port];
    arguments.extend(options.iter().flat_map(|option| ["-o", option]));
    arguments.extend(["127.0.0.1", command]);
    output_of(&required("ssh"), &arguments)
}

/// Passes on what clients say byte by byte, as far as the network likes, and in the other direction as it comes.
fn byte_by_byte(to: SocketAddr) -> Server {
    Server::that(move |mut client| {
        let mut lb = connect(to);
        lb.set_nodelay(true).unwrap();
        let (mut from_lb, mut to_client) = (lb.try_clone().unwrap(), client.try_clone().unwrap());
        let back = thread::spawn(move || {
            let _ = io::copy(&mut from_lb, &mut to_client);
            let _ = to_client.shutdown(Shutdown::Write);
        });
        let mut buffer = [0; 4096];
        while let Ok(length @ 1..) = client.read(&mut buffer) {
            if !buffer[..length].chunks(1).all(|byte| lb.write_all(byte).is_ok()) {
                break;
            }
        }
        let _ = lb.shutdown(Shutdown::Write);
        let _ = back.join();
    })
}

/// nginx at three addresses, each with TLS for all names; two of them speak HTTP/2 as well.
fn web_servers(authority: &Authority) -> (Program, [SocketAddr; 3]) {
    let addresses = [free_port(), free_port(), free_port()];
    let (cert, key) = (authority.path("web.pem"), authority.path("web.key"));
    let server = |index: usize, more: &str| {
        let address = addresses[index];
        format!(
            "server {{ listen {address} ssl {more}; ssl_certificate {cert}; ssl_certificate_key {key}; \
             location / {{ return 200 \"{index} $server_protocol\"; }} }}"
        )
    };
    let servers = [server(0, "http2"), server(1, ""), server(2, "http2")].concat();
    (nginx(&authority.folder, addresses[2], &format!("http {{ $TEMP {servers} }}")), addresses)
}

fn https(authority: &Authority, address: SocketAddr, name: &str, version: &str) -> String {
    let port = address.port();
    let to = format!("{name}:{port}:127.0.0.1");
    let (ca, url) = (authority.path("ca.pem"), format!("https://{name}:{port}/"));
    let arguments = [version, "--silent", "--show-error", "--max-time", "15", "--noproxy", "*", "--cacert", &ca];
    output_of(&required("curl"), &[&arguments[..], &["--resolve", &to, &url]].concat())
}

#[test]
fn ssh_tls_and_mail_share_a_port() {
    let authority = Authority::new();
    authority.sign("web", "DNS:one.example,DNS:two.example").done();
    let (_nginx, [h2, http1, two]) = web_servers(&authority);
    let (ssh, mail, rest) = (ssh_server(&authority.folder), mail_server(), Server::named("rest"));
    let routes = "    pool: rest\n    routes:\n      - {silent: 500ms, pool: mail}\n      \
                  - {starts_with: SSH-, pool: ssh}\n      - {sni: one.example, pool: one}\n      \
                  - {sni: one.example, alpn: h2, pool: h2}\n      - {sni: '*.example', pool: two}\n";
    let pools = [
        ("ssh", ssh.address()),
        ("mail", mail.address()),
        ("h2", h2),
        ("one", http1),
        ("two", two),
        ("rest", rest.address()),
    ];
    let lb = routed(routes, &pools);
    let slow = byte_by_byte(lb.address());
    for (address, times) in [(lb.address(), 1), (slow.address(), 2)] {
        assert_eq!(over_ssh(&authority.folder, address, "echo here"), "here\n");
        for (name, version, answer) in [
            ("one.example", "--http2", "0 HTTP/2.0"),
            ("one.example", "--http1.1", "1 HTTP/1.1"),
            ("two.example", "--http2", "2 HTTP/2.0"),
            ("two.example", "--http1.1", "2 HTTP/1.1"),
        ] {
            assert_eq!(https(&authority, address, name, version), answer, "{name} {version}");
        }
        let curl = ["--silent", "--show-error", "--max-time", "15", "--noproxy", "*"];
        let url = format!("smtp://{address}/");
        let said = output_of(&required("curl"), &[&curl[..], &["--request", "NOOP", &url]].concat());
        assert_eq!(said, "250 OK\r\n");
        assert_eq!(output_of(&required("curl"), &[&curl[..], &[&format!("http://{address}/")]].concat()), "rest");
        let lines = lb.access_log(7 * times).into_iter().skip(7 * (times - 1));
        let mut pools: Vec<_> = lines.map(|line| line["pool"].as_str().unwrap().to_owned()).collect();
        // A client's line comes when it has ended, which may be after the next one's.
        pools.sort();
        assert_eq!(pools, ["h2", "mail", "one", "rest", "ssh", "two", "two"]);
    }
}

#[test]
fn the_longest_of_the_first_bytes_decides_however_they_are_cut() {
    let servers: Vec<Server> = (0..4).map(|_| Server::mirror()).collect();
    let names = ["get", "admin", "binary", "rest"];
    let pools: Vec<_> = names.into_iter().zip(servers.iter().map(Server::address)).collect();
    let routes = "    pool: rest\n    routes:\n      - {starts_with: 'GET ', pool: get}\n      \
                  - {starts_with: 'GET /admin', pool: admin}\n      \
                  - {starts_with: '\\x00\\xff\\r\\n', pool: binary}\n";
    let lb = routed(routes, &pools);
    let cases: [(&[u8], &str); 9] = [
        (b"GET / HTTP/1.1\r\n", "get"),
        (b"GET /admin", "admin"),
        (b"GET /administrators", "admin"),
        (b"GET /admi", "get"),
        (b"GET ", "get"),
        (b"get /admin", "rest"),
        (b"\x00\xff\r\nmore", "binary"),
        (b"\x00\xff\n", "rest"),
        (b"P", "rest"),
    ];
    let mut connections = 0;
    for (bytes, pool) in cases {
        for length in [bytes.len(), 1] {
            let got = send_and_read(&mut connect(lb.address()), bytes.chunks(length), true);
            assert_eq!(got, (bytes.to_vec(), Ending::Clean), "{bytes:?} in pieces of {length}");
            connections += 1;
            let line = lb.access_log(connections).pop().unwrap();
            assert_eq!(line["pool"], pool, "{bytes:?} in pieces of {length}");
        }
    }
}

/// With a route for silent clients beside others, all of whose pools are the second server; there is no other pool.
fn with_silence(more: &str) -> ([Server; 2], Lb) {
    let servers = [Server::greeting("speak"), Server::greeting("spoken")];
    let routes = "    routes:\n      - {sni: '*', pool: spoken}\n      - {starts_with: SSH-, pool: spoken}\n      \
                  - {starts_with: SS, pool: spoken}\n      - {silent: 200ms, pool: silent}\n";
    let pools = [("silent", servers[0].address()), ("spoken", servers[1].address())];
    let lb = routed(&format!("{routes}{more}"), &pools);
    (servers, lb)
}

#[test]
fn a_client_that_stops_before_it_has_said_enough_is_a_silent_one() {
    let (_servers, lb) = with_silence("");
    let hello = client_hellos().remove(0).bytes;
    for (number, said) in [&b""[..], b"S", b"\x16", &hello[..hello.len() - 1]].into_iter().enumerate() {
        let started = Instant::now();
        let mut client = connect(lb.address());
        client.write_all(said).unwrap();
        assert_eq!(short_read(&mut client), "speak", "{said:?}");
        assert!(started.elapsed() >= Duration::from_millis(200), "{said:?}");
        drop(client);
        let line = lb.access_log(number + 1).pop().unwrap();
        assert_eq!(line["bytes_in"], said.len(), "{said:?}");
    }
}

#[test]
fn what_a_silent_client_has_said_reaches_its_pool_without_another_byte() {
    let server = Server::echo();
    for mode in ["auto", "copy", "splice"] {
        let lb = Lb::with_config(&format!(
            "relay: {{mode: {mode}}}\nlisteners:\n  one:\n    bind: 127.0.0.1:0\n    routes:\n      \
             - {{starts_with: SSH-, pool: all}}\n      - {{silent: 100ms, pool: all}}\n\
             pools:\n  all: {{backends: ['{}']}}\n",
            server.address()
        ))
        .start();
        for said in ["S", "SSH"] {
            let mut client = connect(lb.address());
            client.write_all(said.as_bytes()).unwrap();
            assert_eq!(short_read(&mut client), said, "{mode}");
            client.write_all(b"more").unwrap();
            assert_eq!(short_read(&mut client), "more", "{mode}");
        }
    }
}

#[test]
fn what_was_said_decides_for_a_client_that_says_no_more() {
    let (_servers, lb) = with_silence("");
    for (said, greeting) in [(&b"SS"[..], "spoken"), (b"SSH", "spoken"), (b"SSH-2.0", "spoken"), (b"", "speak")] {
        let mut client = connect(lb.address());
        client.write_all(said).unwrap();
        assert_eq!(short_read(&mut client), greeting, "{said:?}");
    }
    // An end says so at once: a client may still want to read.
    for (said, greeting) in [(&b"SS"[..], "spoken"), (b"S", "speak"), (b"", "speak")] {
        let got = send_and_read(&mut connect(lb.address()), [said], true);
        assert_eq!(got, (greeting.as_bytes().to_vec(), Ending::Clean), "{said:?}");
    }
}

#[test]
fn who_is_for_no_route_is_refused_where_there_is_no_other_pool() {
    let (_servers, lb) = with_silence("");
    for said in [&b"GET / HTTP/1.1\r\n"[..], b"SX", b"\x16\x03\x09"] {
        let got = send_and_read(&mut connect(lb.address()), [said], false);
        assert_eq!(got, (Vec::new(), Ending::Reset), "{said:?}");
    }
    lb.wait_for_rejections("no_route", 3);
}

#[test]
fn a_client_that_never_says_enough_is_refused_in_time() {
    let server = Server::greeting("spoken");
    let routes = "    pool: a\n    timeouts: {client_header: 300ms}\n    routes: [{starts_with: SSH-, pool: a}]\n";
    let lb = routed(routes, &[("a", server.address())]);
    for said in [&b""[..], b"S"] {
        let mut client = connect(lb.address());
        client.write_all(said).unwrap();
        assert_eq!(read_to_end(&mut client), (Vec::new(), Ending::Reset), "{said:?}");
    }
    // Whoever leaves before is no refused one.
    drop(connect(lb.address()));
    lb.wait_for_rejections("first_bytes", 2);
    let causes: Vec<_> = lb.access_log(3).iter().map(|line| [line["cause"].clone(), line["reason"].clone()]).collect();
    assert_eq!(causes[..2], [["rejected", "first_bytes"], ["rejected", "first_bytes"]]);
    assert_eq!(causes[2][0], "client_closed");
    assert_eq!(server.accepted(), 0);
}

#[test]
fn a_client_that_says_a_little_now_and_then_has_no_more_time_than_others() {
    let (_servers, lb) = with_silence("    timeouts: {client_header: 1s}\n");
    let hello = client_hellos().remove(0).bytes;
    let mut client = connect(lb.address());
    let mut greeting = [0; 5];
    client.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    let mut bytes = hello.iter();
    // It is never silent for so long; then its time is over, and it counts as one that is.
    let answered = std::iter::from_fn(|| {
        client.write_all(&[*bytes.next()?]).unwrap();
        Some(client.read_exact(&mut greeting).is_ok())
    });
    assert!(answered.take(hello.len() - 1).any(|is_answered| is_answered));
    assert_eq!(&greeting, b"speak");
}

#[test]
fn where_the_listener_ends_tls_routes_go_by_what_was_agreed_on_and_is_said_inside() {
    let authority = Authority::new();
    authority.signed("app", "DNS:localhost,DNS:b.example,IP:127.0.0.1", None);
    let names = ["h2", "b", "ssh", "silent", "rest"];
    let servers = names.map(Server::greeting);
    let pools: Vec<_> = names.into_iter().zip(servers.iter().map(Server::address)).collect();
    let lb = routed(
        &format!(
            "    pool: rest\n    tls: {{certificates: [{}], alpn: [http/1.1, h2]}}\n    routes:\n      \
             - {{alpn: h2, pool: h2}}\n      - {{sni: b.example, pool: b}}\n      \
             - {{starts_with: SSH-, pool: ssh}}\n      \
             - {{silent: 300ms, pool: silent}}\n",
            authority.pair("app")
        ),
        &pools,
    );
    for (arguments, said, greeting) in [
        ("-servername localhost -alpn h2", "", "h2"),
        ("-servername b.example", "", "b"),
        // The listener likes http/1.1 better.
        ("-servername b.example -alpn h2,http/1.1", "", "b"),
        ("-servername localhost", "SSH-2.0-x", "ssh"),
        ("-servername localhost", "GET / HTTP/1.1", "rest"),
        ("-servername localhost", "", "silent"),
    ] {
        let mut command = Command::new(required("openssl"));
        command.args(["s_client", "-quiet", "-connect", &lb.address().to_string()]);
        command.args(arguments.split(' ')).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut client = command.spawn().unwrap();
        let mut input = client.stdin.take().unwrap();
        input.write_all(said.as_bytes()).unwrap();
        let mut got = vec![0; greeting.len()];
        client.stdout.as_mut().unwrap().read_exact(&mut got).unwrap();
        assert_eq!(String::from_utf8_lossy(&got), greeting, "{arguments} {said:?}");
        client.kill().unwrap();
        client.wait().unwrap();
    }
}

#[test]
fn alpn_decides_between_routes_of_one_name_in_the_clients_order() {
    let servers = [Server::mirror(), Server::mirror(), Server::mirror()];
    let names = ["h1", "h2", "any"];
    let pools: Vec<_> = names.into_iter().zip(servers.iter().map(Server::address)).collect();
    let routes = "    routes:\n      - {alpn: http/1.1, pool: h1}\n      - {alpn: h2, pool: h2}\n      \
                  - {sni: example.com, alpn: h2, pool: h2}\n      - {sni: '*', pool: any}\n";
    let lb = routed(routes, &pools);
    let mut connections = 0;
    for (hello, pool) in [
        // h2 and http/1.1, for a name of which only `*` has a route.
        ("curl 7.88, OpenSSL 3.0", "any"),
        ("openssl s_client/-servername", "any"),
        // A name with a route, but not that protocol.
        ("python/TLS 1.2 and 1.3", "any"),
    ] {
        let bytes = client_hellos().into_iter().find(|vector| vector.name == hello).unwrap().bytes;
        assert_eq!(send_and_read(&mut connect(lb.address()), [&bytes[..]], true).0, bytes, "{hello}");
        connections += 1;
        assert_eq!(lb.access_log(connections).pop().unwrap()["pool"], pool, "{hello}");
    }
    // Without a name, which no route needs then.
    for (offered, pool) in [("h2,http/1.1", "h2"), ("http/1.1,h2", "h1"), ("h3,h2", "h2")] {
        let address = lb.address().to_string();
        let mut command = Command::new(required("openssl"));
        command.args(["s_client", "-connect", &address, "-noservername", "-alpn", offered]).stdin(Stdio::null());
        command.output().unwrap();
        connections += 1;
        assert_eq!(lb.access_log(connections).pop().unwrap()["pool"], pool, "{offered}");
    }
}
