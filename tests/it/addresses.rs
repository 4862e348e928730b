//! Addresses in their corners: errors of connect(2) and whose fault they are, binds that overlap, names of the machine,
//! zones, and what must not block meanwhile.

use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;

use rustix::process::Signal;
use socket2::{Domain, SockAddr, Socket, Type};

use crate::support::{
    Folder, Lb, Server, free_port, get, greeting, greeting_unix_socket, is_in_a_network_of_its_own, put_in_place_of,
    run, run_to_end, switch_ipv6_off, try_greeting, wait_until,
};

/// A backend that can't be reached for this reason is ejected, and blamed.
#[track_caller]
fn assert_ejected(lb: &Lb, backend: &str, reason: &str) {
    wait_until(&format!("{backend} is ejected"), || {
        // It may be this backend's turn.
        let _ = try_greeting(lb.address());
        lb.metrics().sum("backend_up", &[("backend", backend)]) == 0.0
    });
    let labels = [("backend", backend), ("reason", reason)];
    assert!(lb.metrics().sum("backend_connect_failures_total", &labels) >= 3.0, "{backend}: {reason}");
    let local = [("backend", backend), ("reason", "local")];
    assert_eq!(lb.metrics().sum("backend_connect_failures_total", &local), 0.0);
}

#[test]
fn a_backend_that_this_machine_has_no_way_to_is_ejected() {
    if !is_in_a_network_of_its_own("addresses::a_backend_that_this_machine_has_no_way_to_is_ejected") {
        return;
    }
    switch_ipv6_off();
    for (kind, address) in [("prohibit", "10.9.9.1/32"), ("blackhole", "10.9.9.2/32"), ("unreachable", "10.9.9.3/32")] {
        run("ip", &["route", "add", kind, address]);
    }
    let server = Server::greeting("here");
    let none = [
        "[::1]:80",
        "10.9.9.1:80",
        "10.9.9.2:80",
        "10.9.9.3:80",
        "10.8.8.8:80",
        "[fe80::1%lo]:80",
        "[fe80::1%gone]:80",
    ];
    for backend in none {
        let lb = Lb::with_backends(&[backend, &server.address().to_string()]).set("attempts", 1).start();
        assert_ejected(&lb, backend, "unreachable");
    }
    let lb = Lb::with_backends(&["[::1]:80"]).set("health_check", "{interval: 20ms}").start();
    wait_until("its check fails", || lb.state_of("[::1]:80".parse().unwrap()) == "down");
}

#[test]
fn localhost_is_served_where_ipv6_is_off() {
    if !is_in_a_network_of_its_own("addresses::localhost_is_served_where_ipv6_is_off") {
        return;
    }
    switch_ipv6_off();
    let folder = Folder::new();
    put_in_place_of("/etc/hosts", &folder.write("hosts", "127.0.0.1 localhost\n::1 localhost\n"));
    let server = Server::greeting("here");
    let (port, admin, further) = (free_port().port(), free_port().port(), free_port().port());
    let yaml = |listen: &str| {
        format!(
            "listen: {listen}\nbackends: ['localhost:{}']\nattempts: 1\nadmin: {{bind: 'localhost:{admin}'}}\n",
            server.address().port()
        )
    };
    let file = folder.write("lb.yaml", yaml(&format!("'localhost:{port}'")));
    let lb = Lb::with_arguments(&["-c", &file.display().to_string()]).start();
    assert_eq!(lb.admin(), SocketAddr::from(([127, 0, 0, 1], admin)));
    assert_eq!(lb.address(), SocketAddr::from(([127, 0, 0, 1], port)));
    let told = || lb.log_lines_with("not listened on: it is no address of this machine now");
    assert_eq!(told()[0]["address"], format!("[::1]:{port}"));
    assert_ejected(&lb, &format!("[::1]:{}", server.address().port()), "unreachable");
    for _ in 0..4 {
        assert_eq!(greeting(lb.address()), "here");
    }
    fs::write(&file, yaml(&format!("['localhost:{port}', 'localhost:{further}']"))).unwrap();
    let (status, said) = lb.post("/api/v1/reload");
    assert_eq!((status, said.as_str()), (200, "configuration reloaded"));
    assert_eq!(greeting(([127, 0, 0, 1], further).into()), "here");
}

#[test]
fn a_unix_socket_without_permission_is_ejected() {
    let folder = Folder::new();
    let path = folder.path().join("app.sock");
    greeting_unix_socket(&path, "hello");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o000)).unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let backend = format!("unix:{}", path.display());
    let server = Server::greeting("here");
    let lb =
        Lb::with_backends(&[&backend, &server.address().to_string()]).by_ordinary_user().set("attempts", 1).start();
    assert_ejected(&lb, &backend, "unreachable");
}

#[test]
fn an_address_of_one_interface_is_written_with_the_interfaces_name() {
    if !is_in_a_network_of_its_own("addresses::an_address_of_one_interface_is_written_with_the_interfaces_name") {
        return;
    }
    run("ip", &["address", "add", "fe80::7/64", "dev", "lo", "nodad"]);
    let index: u32 = fs::read_to_string("/sys/class/net/lo/ifindex").unwrap().trim().parse().unwrap();
    let at = |port: u16| std::net::SocketAddrV6::new("fe80::7".parse().unwrap(), port, 0, index);
    let backend = TcpListener::bind(at(0)).unwrap();
    let port = backend.local_addr().unwrap().port();
    let config = format!("listen: '[fe80::7%lo]:7777'\nbackends: ['[fe80::7%lo]:{port}']\n");
    let lb = Lb::with_config(&config).start();
    let client = TcpStream::connect(at(7777)).unwrap();
    let (_accepted, peer) = backend.accept().unwrap();
    assert_eq!(peer.ip(), std::net::IpAddr::from(*at(0).ip()));
    drop((client, _accepted));
    assert_eq!(lb.only_access()["backend"], format!("[fe80::7%lo]:{port}"));
}

/// What a configuration with these listeners would be, each in front of a server of its name.
fn overlapping(binds: &[String], servers: &[Server]) -> String {
    let listeners: Vec<String> =
        (0..).zip(binds).map(|(n, bind)| format!("l{n}: {{bind: '{bind}', pool: p{n}}}")).collect();
    let pools: Vec<String> =
        (0..).zip(servers).map(|(n, server)| format!("p{n}: {{backends: ['{}']}}", server.address())).collect();
    format!("listeners: {{{}}}\npools: {{{}}}\n", listeners.join(", "), pools.join(", "))
}

#[test]
fn addresses_that_overlap_are_taken_by_a_start_and_by_a_reload_alike() {
    let servers = [Server::named("all"), Server::named("one")];
    for all in ["0.0.0.0", "*"] {
        let port = free_port().port();
        let both = [format!("{all}:{port}"), format!("127.0.0.1:{port}")];
        let yaml = overlapping(&both, &servers);
        for order in [0, 1] {
            let first = overlapping(&both[order..=order], &servers[order..=order]).replace("l0", &format!("l{order}"));
            let first = first.replace("p0", &format!("p{order}"));
            let lb = Lb::with_config(&first).start();
            assert_eq!(lb.reload_with(&yaml), "configuration reloaded");
            assert_eq!(get(([127, 0, 0, 1], port).into(), "/").body, "one");
            assert_eq!(get(([127, 0, 0, 2], port).into(), "/").body, "all");
        }
        let lb = Lb::with_config(&yaml).start();
        assert_eq!(get(([127, 0, 0, 1], port).into(), "/").body, "one");
        assert_eq!(get(([127, 0, 0, 2], port).into(), "/").body, "all");
        let other = run_to_end(lb.folder(), &["-c", "test.yaml", "--admin", "off"], &[]);
        let said = String::from_utf8_lossy(&other.stderr).into_owned();
        assert!(other.status.code() == Some(1) && said.contains("another process has it"), "{said}");
    }
}

#[test]
fn the_admin_server_may_have_an_address_that_a_listener_overlaps() {
    let server = Server::named("here");
    let (port, other) = (free_port().port(), free_port().port());
    let yaml = |listen: u16| format!("listen: '0.0.0.0:{listen}'\nbackends: ['{}']\n", server.address());
    let folder = Folder::new();
    let file = folder.write("lb.yaml", yaml(port));
    let arguments = ["-c", &file.display().to_string(), "--admin", &format!("127.0.0.1:{port}")];
    let lb = Lb::with_arguments(&arguments).start();
    assert_eq!(lb.ask("/healthz").status, 200);
    assert_eq!(get(([127, 0, 0, 2], port).into(), "/").body, "here");
    drop(lb);
    fs::write(&file, yaml(other)).unwrap();
    let lb = Lb::with_arguments(&arguments).start();
    fs::write(&file, yaml(port)).unwrap();
    assert_eq!(lb.post("/api/v1/reload").0, 200);
    assert_eq!(lb.ask("/healthz").status, 200);
    assert_eq!(get(([127, 0, 0, 2], port).into(), "/").body, "here");
}

#[test]
fn two_texts_for_one_address_are_refused_by_a_start_and_by_a_reload_alike() {
    let servers = [Server::named("one"), Server::named("two")];
    let port = free_port().port();
    let yaml = overlapping(&[format!("localhost:{port}"), format!("127.0.0.1:{port}")], &servers);
    let lb = Lb::with_config(&overlapping(&[format!("localhost:{port}")], &servers[..1])).start();
    let said = lb.fail_to_reload_with(&yaml);
    let expected = format!(
        "127.0.0.1:{port} (listener `l1`) and localhost:{port} (listener `l0`) are the same address, 127.0.0.1:{port}"
    );
    assert!(said.contains(&expected), "{said}");
    assert_eq!(get(lb.address(), "/").body, "one");
    let folder = Folder::new();
    folder.write("lb.yaml", &yaml);
    drop(lb);
    let start = run_to_end(folder.path(), &["--admin", "off"], &[]);
    let said = String::from_utf8_lossy(&start.stderr).into_owned();
    assert!(start.status.code() == Some(1) && said.contains(&expected), "{said}");
}

#[test]
fn a_name_that_nobody_answers_for_blocks_nothing_but_its_reload() {
    if !is_in_a_network_of_its_own("addresses::a_name_that_nobody_answers_for_blocks_nothing_but_its_reload") {
        return;
    }
    let folder = Folder::new();
    put_in_place_of("/etc/resolv.conf", &folder.write("resolv.conf", "nameserver 127.0.0.9\n"));
    let silent = UdpSocket::bind("127.0.0.9:53").unwrap();
    let server = Server::named("here");
    let yaml = |listen: &str| format!("listen: {listen}\nbackends: ['{}']\n", server.address());
    let lb = Lb::with_config(&yaml("127.0.0.1:7777")).start();
    lb.rewrite(&yaml("['127.0.0.1:7777', 'nobody.knows.test:7778']"));
    lb.signal(Signal::HUP);
    silent.recv(&mut [0; 512]).unwrap();
    assert_eq!(lb.ask("/healthz").status, 200);
    let failed = || lb.log_lines_with("the configuration was not reloaded; the previous one stays in use");
    assert!(failed().is_empty(), "the name is being looked up");
    wait_until("the reload fails", || !failed().is_empty());
    let error = failed()[0]["error"].as_str().unwrap().to_owned();
    assert!(error.contains("nobody.knows.test:7778") && error.contains("timed out"), "{error}");
    assert_eq!(get(lb.address(), "/").body, "here");
}

#[test]
fn a_unix_path_whose_owner_is_stuck_is_in_use_and_blocks_nothing() {
    let server = Server::named("here");
    let lb = Lb::with_config(&format!("listen: 127.0.0.1:0\nbackends: ['{}']\n", server.address())).start();
    let path = lb.folder().join("stuck.sock");
    let owner = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
    owner.bind(&SockAddr::unix(&path).unwrap()).unwrap();
    owner.listen(0).unwrap();
    let queued: Vec<Socket> = (0..4)
        .map(|_| {
            let client = Socket::new(Domain::UNIX, Type::STREAM.nonblocking(), None).unwrap();
            let _ = client.connect(&SockAddr::unix(&path).unwrap());
            client
        })
        .collect();
    let yaml = format!("listen: ['127.0.0.1:0', 'unix:{}']\nbackends: ['{}']\n", path.display(), server.address());
    let said = lb.fail_to_reload_with(&yaml);
    assert!(said.contains("in use"), "{said}");
    drop(queued);
    drop(owner);
    // Its owner is gone: the file is stale.
    lb.reload_with(&yaml);
    drop(UnixListener::bind(&path).unwrap_err());
}

#[test]
fn a_new_process_that_takes_no_socket_blocks_nothing() {
    const LISTENERS: usize = 600;
    let server = Server::named("here");
    let binds = vec!["127.0.0.1:0"; LISTENERS];
    let config = format!("listen: {binds:?}\nbackends: ['{}']\n", server.address());
    // It is asked to take over, and never ends by itself.
    let lb = Lb::with_config(&config).with(&["--workers", "1"]).in_its_folder().unwatched().start();
    let program = lb.folder().join("lb");
    fs::remove_file(&program).unwrap();
    fs::write(&program, "#!/bin/sh\nexec sleep 60\n").unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    lb.signal(Signal::USR2);
    wait_until("it was started", || !lb.log_lines_with("upgrading: a new process was started").is_empty());
    assert_eq!(lb.ask("/healthz").status, 200);
    assert!(!lb.log_text().contains("the upgrade failed"));
}

#[test]
fn a_listener_that_is_its_own_backend_by_an_address_of_the_machine_is_told() {
    if !is_in_a_network_of_its_own("addresses::a_listener_that_is_its_own_backend_by_an_address_of_the_machine_is_told")
    {
        return;
    }
    run("ip", &["address", "add", "10.7.7.7/32", "dev", "lo"]);
    let server = Server::named("here");
    let config =
        format!("listen: '0.0.0.0:7777'\nbackends: ['{}', '10.7.7.8:7777', '10.7.7.7:7777']\n", server.address());
    let lb = Lb::with_config(&config).start();
    let told = || lb.log_lines_with("the backend is the listener itself: each connection makes another one; remove it");
    assert_eq!(told().len(), 1);
    assert_eq!(told()[0]["backend"], "10.7.7.7:7777");
}
