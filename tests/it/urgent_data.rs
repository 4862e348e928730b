//! TCP urgent data (MSG_OOB, which FTP, telnet and Oracle send): every byte arrives in its place, and what comes behind
//! an urgent one doesn't wait.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener};
use std::os::fd::AsFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::thread;

use rustix::process::Signal;
use socket2::SockRef;

use crate::support::{Folder, Lb, METHODS, Pair, Pairs, Server, connect, receive_pattern, send_pattern, short_read};

fn send_urgent(to: &impl AsFd, byte: u8) {
    assert_eq!(SockRef::from(to).send_out_of_band(&[byte]).unwrap(), 1);
}

/// Sends these bytes so that the balancer finds all of them in its socket: the middle one is urgent.
fn send_behind_its_back<S: Write + AsFd>(lb: &Lb, to: &mut S, before: &[u8], urgent: u8, behind: &[u8]) {
    lb.signal(Signal::STOP);
    to.write_all(before).unwrap();
    send_urgent(to, urgent);
    to.write_all(behind).unwrap();
    lb.signal(Signal::CONT);
}

#[track_caller]
fn assert_receives(from: &mut impl Read, expected: &[u8]) {
    let mut got = vec![0; expected.len()];
    from.read_exact(&mut got).unwrap();
    assert_eq!(got, expected);
}

/// Each way, what is behind an urgent byte comes with it.
#[track_caller]
fn assert_passes_in_place<S: Read + Write + AsFd>(lb: &Lb, client: &mut S, backend: &mut S) {
    send_behind_its_back(lb, client, b"abc", b'!', b"def");
    assert_receives(backend, b"abc!def");
    send_behind_its_back(lb, backend, b"ABC", b'?', b"DEF");
    assert_receives(client, b"ABC?DEF");
}

#[test]
fn bytes_behind_an_urgent_one_do_not_wait() {
    for method in METHODS {
        let backends = Pairs::new();
        let lb = Lb::in_front_of(&[backends.address()]).set("relay.mode", method).start();
        let Pair { mut client, mut backend } = backends.connect(&lb);
        for _ in 0..3 {
            assert_passes_in_place(&lb, &mut client, &mut backend);
        }
    }
}

#[test]
fn bulk_with_an_urgent_byte_arrives_whole() {
    const BEFORE: usize = 8_000_000;
    const LENGTH: usize = 13_000_001;
    let mut pattern = Vec::new();
    send_pattern(&mut pattern, LENGTH);
    for method in METHODS {
        let backends = Pairs::new();
        let lb = Lb::in_front_of(&[backends.address()]).set("relay.mode", method).start();
        for upwards in [true, false] {
            let Pair { client, backend } = backends.connect(&lb);
            let (mut sender, mut receiver) = if upwards { (client, backend) } else { (backend, client) };
            let received = thread::scope(|scope| {
                scope.spawn(|| {
                    sender.write_all(&pattern[..BEFORE]).unwrap();
                    send_urgent(&sender, pattern[BEFORE]);
                    sender.write_all(&pattern[BEFORE + 1..]).unwrap();
                    sender.shutdown(Shutdown::Write).unwrap();
                });
                receive_pattern(&mut receiver)
            });
            assert_eq!(received, LENGTH, "{method}");
        }
    }
}

#[test]
fn urgent_bytes_among_others_stay_in_their_order() {
    const LENGTH: usize = 3_000_000;
    let mut pattern = Vec::new();
    send_pattern(&mut pattern, LENGTH);
    for method in METHODS {
        let server = Server::echo();
        let lb = Lb::in_front_of(&[server.address()]).set("relay.mode", method).start();
        let mut client = connect(lb.address());
        client.set_nodelay(true).unwrap();
        let mut echoed = client.try_clone().unwrap();
        let receiving = thread::spawn(move || receive_pattern(&mut echoed));
        // Pieces of many lengths, from none to more than a receive takes, an urgent byte behind each.
        let (mut rest, mut length) = (pattern.as_slice(), 0);
        while let Some((piece, [urgent, behind @ ..])) = rest.split_at_checked(length) {
            client.write_all(piece).unwrap();
            send_urgent(&client, *urgent);
            (rest, length) = (behind, (length * 7 + 13) % 300_007 % (1 + length * 5 + 1_000));
        }
        client.write_all(rest).unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        assert_eq!(receiving.join().unwrap(), LENGTH, "{method}");
    }
}

#[test]
fn urgent_bytes_through_unix_sockets_stay_in_their_place() {
    let folder = Folder::new();
    let [front, back] = ["front", "back"].map(|name| folder.path().join(name));
    let listener = UnixListener::bind(&back).unwrap();
    for method in METHODS {
        let yaml = format!("listen: 'unix:{}'\nbackends: ['unix:{}']\n", front.display(), back.display());
        let lb = Lb::with_config(&yaml).set("relay.mode", method).start();
        let mut client = UnixStream::connect(&front).unwrap();
        let mut backend = listener.accept().unwrap().0;
        assert_passes_in_place(&lb, &mut client, &mut backend);
    }
}

#[test]
fn a_connection_older_than_the_balancer_keeps_its_urgent_byte() {
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let backends = Pairs::new();
    let mut client = connect(socket.local_addr().unwrap());
    client.write_all(b"abc").unwrap();
    send_urgent(&client, b'!');
    client.write_all(b"def").unwrap();
    let yaml = format!("listen: fd@3\nbackends: ['{}']\n", backends.address());
    // At its start it has a task more than at its end.
    let _lb = Lb::with_config(&yaml).with_socket(socket).unwatched().start();
    let mut backend = backends.accept();
    assert_receives(&mut backend, b"abc!def");
    drop((client, backend));
}

#[test]
fn heads_and_bodies_of_http_with_an_urgent_byte_are_whole() {
    let server = Server::that(|mut stream| {
        let request = short_read(&mut stream);
        assert!(request.starts_with("GET /whole HTTP/1.1\r\n"), "{request}");
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Le").unwrap();
        send_urgent(&stream, b'n');
        stream.write_all(b"gth: 7\r\n\r\nab").unwrap();
        send_urgent(&stream, b'c');
        stream.write_all(b"!def").unwrap();
        short_read(&mut stream);
    });
    let lb = Lb::in_front_of(&[server.address()]).with(&["--mode", "http"]).start();
    let mut client = connect(lb.address());
    send_behind_its_back(&lb, &mut client, b"GET /wh", b'o', b"le HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_receives(&mut client, b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\nabc!def");
}
