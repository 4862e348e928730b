//! `to: server_name`: clients are led to the host that their TLS names, and nowhere else: by which names, to which
//! addresses, and what is kept of them.

use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::support::{
    Dns, DnsStub, Ending, Fleet, Lb, Network, Reply, connect, is_in_a_network_of_its_own, read_to_end, resident_bytes,
    short_read, wait_until,
};

/// A ClientHello with this name, and nothing else that it needn't have.
fn hello(name: &str) -> Vec<u8> {
    let u16 = |length: usize| u16::try_from(length).unwrap().to_be_bytes();
    let entry = [&[0][..], &u16(name.len()), name.as_bytes()].concat();
    let list = [&u16(entry.len())[..], &entry].concat();
    let extension = [&[0, 0][..], &u16(list.len()), &list].concat();
    let body = [&[3, 3][..], &[7; 32], b"\0\0\x02\x13\x01\x01\0", &u16(extension.len()), &extension].concat();
    let message = [&[1, 0][..], &u16(body.len()), &body].concat();
    [&[22, 3, 1][..], &u16(message.len()), &message].concat()
}

fn ask_for(lb: &Lb, name: &str) -> TcpStream {
    let mut client = connect(lb.address());
    client.write_all(&hello(name)).unwrap();
    client
}

/// Leads clients that ask for a name below `internal.test` there, as `more` says; names are asked of `dns`.
fn lb(port: u16, dns: SocketAddr, more: &str) -> Lb {
    Lb::with_config(&format!(
        "listeners:\n  egress:\n    bind: 127.0.0.1:0\n    timeouts: {{client_header: 2s}}\n    routes:\n      \
         - {{sni: '*.internal.test', to: server_name, port: {port}, pool: egress{more}}}\n\
         pools:\n  egress: {{resolve: {{min_ttl: 1m, max_ttl: 1m, nameservers: ['{dns}']}}}}\n"
    ))
    .start()
}

const LOCAL: &str = ", allow_local: true";

#[test]
fn a_client_meets_the_host_that_it_names() {
    let fleet = Fleet::start();
    let records = [("a.internal.test", "127.0.0.2"), ("b.internal.test", "127.0.0.3"), ("c.internal.test", "::1")];
    let dns = Dns::with_hosts(&records);
    let lb = lb(fleet.port(), dns.address(), LOCAL);
    // It is ready, although it can't know any backend.
    assert_eq!((lb.ask("/readyz").status, lb.ask("/readyz?pool=egress").status), (200, 200));
    for (number, (name, address)) in records.into_iter().enumerate() {
        assert_eq!(short_read(&mut ask_for(&lb, &name.to_uppercase())), address);
        let line = lb.access_log(number + 1).pop().unwrap();
        assert_eq!([&line["pool"], &line["backend"]], ["egress", &fleet.at(address).to_string()]);
    }
}

#[test]
fn who_names_something_else_is_refused_and_it_is_counted_why() {
    let fleet = Fleet::start();
    let records = [
        ("here.internal.test", "127.0.0.2"),
        ("any.internal.test", "0.0.0.0"),
        ("six.internal.test", "::1"),
        ("link.internal.test", "169.254.169.254"),
        ("link6.internal.test", "fe80::1"),
        ("other.test", "127.0.0.2"),
    ];
    let dns = Dns::with_hosts(&records);
    let lb = lb(fleet.port(), dns.address(), "");
    for (reason, names) in [
        ("no_route", &["other.test", "internal.test", "localhost", "internal.test.evil.test", "127.0.0.2", "::1"][..]),
        (
            "server_local",
            &[
                "here.internal.test",
                "any.internal.test",
                "six.internal.test",
                "link.internal.test",
                "link6.internal.test",
            ],
        ),
        ("server_unresolved", &["nobody.internal.test"]),
    ] {
        for name in names {
            assert_eq!(read_to_end(&mut ask_for(&lb, name)), (Vec::new(), Ending::Reset), "{name}");
        }
        lb.wait_for_rejections(reason, names.len());
    }
    assert!(fleet.peers().is_empty());
}

#[test]
fn a_host_elsewhere_is_reached_and_no_address_of_this_machine() {
    let test = "server_name_routes::a_host_elsewhere_is_reached_and_no_address_of_this_machine";
    if !is_in_a_network_of_its_own(test) {
        return;
    }
    let elsewhere = Network::joined("cable", "10.2.0", "fd02");
    let server = "import socket\nlistener = socket.create_server(('10.2.0.2', 7000))\nwhile True:\n    \
                  listener.accept()[0].sendall(b'elsewhere')";
    let mut server = elsewhere.command("python3").args(["-c", server]).spawn().unwrap();
    wait_until("it accepts", || TcpStream::connect("10.2.0.2:7000").is_ok());
    let dns = DnsStub::that(|name, record_type| match (name, record_type) {
        ("far.internal.test", "A") => Reply::V4(vec![Ipv4Addr::new(10, 2, 0, 2)]),
        ("near.internal.test", "A") => Reply::V4(vec![Ipv4Addr::new(10, 2, 0, 1)]),
        ("both.internal.test", "A") => Reply::V4(vec![Ipv4Addr::new(10, 2, 0, 1), Ipv4Addr::new(10, 2, 0, 2)]),
        _ => Reply::Nothing,
    });
    let lb = lb(7000, dns.address(), "");
    for name in ["far.internal.test", "both.internal.test"] {
        assert_eq!(short_read(&mut ask_for(&lb, name)), "elsewhere", "{name}");
    }
    assert_eq!(read_to_end(&mut ask_for(&lb, "near.internal.test")), (Vec::new(), Ending::Reset));
    lb.wait_for_rejections("server_local", 1);
    drop(lb);
    server.kill().unwrap();
    server.wait().unwrap();
}

#[test]
fn the_next_address_is_tried_where_one_refuses() {
    let fleet = Fleet::start();
    // No connection can be made to the first.
    let dns = Dns::with_hosts(&[("a.internal.test", "255.255.255.255"), ("a.internal.test", "::1")]);
    let lb = lb(fleet.port(), dns.address(), LOCAL);
    assert_eq!(short_read(&mut ask_for(&lb, "a.internal.test")), "::1");
    let attempts = lb.only_access()["attempts"].as_array().unwrap().len();
    assert_eq!(attempts, 2);
}

#[test]
fn a_name_is_looked_up_once_while_it_is_good_and_thousands_take_little_memory() {
    let fleet = Fleet::start();
    let dns = DnsStub::that(|_, record_type| match record_type {
        "A" => Reply::V4(vec![Ipv4Addr::new(127, 0, 0, 2)]),
        _ => Reply::Nothing,
    });
    let lb = lb(fleet.port(), dns.address(), LOCAL);
    for _ in 0..50 {
        assert_eq!(short_read(&mut ask_for(&lb, "one.internal.test")), "127.0.0.2");
    }
    assert_eq!(dns.asked().get(&("one.internal.test".to_owned(), "A")), Some(&1));
    let ask_all = |from: usize, to: usize| {
        for number in from..to {
            assert_eq!(short_read(&mut ask_for(&lb, &format!("{number}.internal.test"))), "127.0.0.2");
        }
    };
    // As many as are kept; from then on it grows no more.
    ask_all(0, 1_100);
    let full = resident_bytes(lb.pid());
    ask_all(1_100, 3_000);
    let grown = resident_bytes(lb.pid()).saturating_sub(full);
    assert!(grown < 4_000_000, "{grown} bytes more");
}

#[test]
fn lookups_that_nobody_answers_are_bounded_and_hold_nobody_else_up() {
    let fleet = Fleet::start();
    let answers = Arc::new(AtomicBool::new(false));
    let dns = DnsStub::that({
        let answers = answers.clone();
        move |_, record_type| match record_type {
            _ if !answers.load(Ordering::Relaxed) => Reply::Silence,
            "A" => Reply::V4(vec![Ipv4Addr::new(127, 0, 0, 2)]),
            _ => Reply::Nothing,
        }
    });
    let lb = lb(fleet.port(), dns.address(), LOCAL);
    let mut waiting: Vec<_> = (0..200).map(|number| ask_for(&lb, &format!("{number}.internal.test"))).collect();
    lb.wait_for_rejections("server_lookups", 200 - 128);
    for client in &mut waiting {
        assert_eq!(read_to_end(client), (Vec::new(), Ending::Reset));
    }
    lb.wait_for_rejections("server_unresolved", 128);
    answers.store(true, Ordering::Relaxed);
    wait_until("lookups were given up, and there is room", || {
        let mut client = ask_for(&lb, "late.internal.test");
        read_to_end(&mut client).0 == b"127.0.0.2"
    });
}
