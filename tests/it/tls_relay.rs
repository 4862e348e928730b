//! What the relay promises, with TLS on one side or on both: all bytes, the end of each direction by itself, a reset
//! where somebody vanished, and nothing without bound.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::thread;

use crate::support::{
    Authority, Ending, Lb, Pairs, Server, TlsEnd, TlsEnding, connect, read_to_end, receive_pattern, reset,
    resident_bytes, send_pattern, send_until_stuck, tls_server, wait_until,
};

const BYTES: usize = 200_000_000;
/// What a connection may hold for a slow receiver, in plain bytes and in records.
const MOST_HELD: u64 = 1_500_000;

fn authority() -> Authority {
    let authority = Authority::new();
    authority.signed("app", "DNS:localhost,IP:127.0.0.1", None);
    authority
}

/// TLS from clients, to backends, or both.
fn lb(authority: &Authority, backend: SocketAddr, from_clients: bool, to_backends: bool, more: &str) -> Lb {
    let listener = format!("    tls: {{certificates: [{}]}}\n", authority.pair("app"));
    let pool = format!("    tls: {{ca_file: '{}'}}\n", authority.path("ca.pem"));
    let (listener, pool) = (if from_clients { &*listener } else { "" }, if to_backends { &*pool } else { "" });
    Lb::with_config(&format!(
        "{more}listeners:\n  main:\n    bind: 127.0.0.1:0\n    pool: app\n{listener}pools:\n  app:\n    \
         backends: ['{backend}']\n{pool}"
    ))
    .start()
}

/// One end, with TLS or without.
enum End {
    Plain(TcpStream),
    Tls(Box<TlsEnd>),
}

impl End {
    fn connect(lb: &Lb, authority: &Authority, with_tls: bool) -> Self {
        if with_tls {
            Self::Tls(Box::new(TlsEnd::connect(lb.address(), authority)))
        } else {
            Self::Plain(connect(lb.address()))
        }
    }

    /// Says that no more comes.
    fn end(&mut self) {
        match self {
            Self::Plain(stream) => stream.shutdown(Shutdown::Write).unwrap(),
            Self::Tls(tls) => tls.end().unwrap(),
        }
    }
}

impl Read for End {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.read(buffer),
            Self::Tls(tls) => tls.read(buffer),
        }
    }
}

impl Write for End {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.write(bytes),
            Self::Tls(tls) => tls.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(stream) => stream.flush(),
            Self::Tls(tls) => tls.flush(),
        }
    }
}

/// A backend, with TLS or without.
fn server(authority: &Authority, with_tls: bool, serve: impl Fn(End) + Send + Sync + 'static) -> Server {
    let config = tls_server(authority, "app");
    Server::that(move |stream| {
        if !with_tls {
            serve(End::Plain(stream));
        } else if let Ok(tls) = TlsEnd::accept(stream, &config) {
            serve(End::Tls(Box::new(tls)));
        }
    })
}

const WAYS: [(bool, bool); 3] = [(true, false), (false, true), (true, true)];

#[test]
fn two_hundred_megabytes_go_each_way_and_each_side_may_end_first() {
    let authority = authority();
    for (from_clients, to_backends) in WAYS {
        let takes_first = server(&authority, to_backends, |mut end| {
            assert_eq!(receive_pattern(&mut end), BYTES);
            send_pattern(&mut end, BYTES);
            end.end();
        });
        let gives_first = server(&authority, to_backends, |mut end| {
            send_pattern(&mut end, BYTES);
            end.end();
            assert_eq!(receive_pattern(&mut end), BYTES);
        });
        for (backend, cause) in [(&takes_first, "client_closed"), (&gives_first, "backend_closed")] {
            let lb = lb(&authority, backend.address(), from_clients, to_backends, "");
            let mut client = End::connect(&lb, &authority, from_clients);
            if cause == "client_closed" {
                send_pattern(&mut client, BYTES);
                client.end();
                assert_eq!(receive_pattern(&mut client), BYTES);
            } else {
                assert_eq!(receive_pattern(&mut client), BYTES);
                send_pattern(&mut client, BYTES);
                client.end();
            }
            let line = lb.only_access();
            assert_eq!((&line["bytes_in"], &line["bytes_out"]), (&BYTES.into(), &BYTES.into()), "{line}");
            assert_eq!(line["cause"], cause, "{line}");
            drop(client);
        }
    }
}

#[test]
fn both_ways_at_once_in_small_pieces() {
    let authority = authority();
    for (from_clients, to_backends) in WAYS {
        let echo = server(&authority, to_backends, |mut end| {
            let mut buffer = [0; 4096];
            while let Ok(length @ 1..) = end.read(&mut buffer) {
                end.write_all(&buffer[..length]).unwrap();
            }
            end.end();
        });
        let lb = lb(&authority, echo.address(), from_clients, to_backends, "");
        let mut client = End::connect(&lb, &authority, from_clients);
        for number in 0..2_000u32 {
            let message = number.to_le_bytes().repeat(usize::try_from(number % 50).unwrap() + 1);
            client.write_all(&message).unwrap();
            let mut answer = vec![0; message.len()];
            client.read_exact(&mut answer).unwrap();
            assert_eq!(answer, message);
        }
        client.end();
        assert_eq!(client.read(&mut [0]).unwrap(), 0);
        assert_eq!(lb.only_access()["cause"], "client_closed");
    }
}

#[test]
fn an_end_without_close_notify_is_a_reset() {
    let (authority, pairs) = (authority(), Pairs::new());
    let lb = lb(&authority, pairs.address(), true, false, "");
    let mut client = TlsEnd::connect(lb.address(), &authority);
    let mut backend = pairs.accept();
    client.write_all(b"part").unwrap();
    client.socket.shutdown(Shutdown::Write).unwrap();
    assert_eq!(read_to_end(&mut backend), (b"part".to_vec(), Ending::Reset));
    assert_eq!(lb.only_access()["cause"], "client_reset");
    assert_eq!(client.read_all(), (Vec::new(), TlsEnding::Reset));
}

#[test]
fn a_client_that_vanishes_within_a_record_is_a_reset_and_none_of_the_record_is_passed_on() {
    let (authority, pairs) = (authority(), Pairs::new());
    let lb = lb(&authority, pairs.address(), true, false, "");
    for (number, resets) in [(1, false), (2, true)] {
        let mut client = TlsEnd::connect(lb.address(), &authority);
        let mut backend = pairs.accept();
        let records = client.records_of(&[7; 20_000]);
        client.socket.write_all(&records[..18_000]).unwrap();
        let mut first = vec![0; 16_384];
        backend.read_exact(&mut first).unwrap();
        assert!(first.iter().all(|byte| *byte == 7));
        if resets {
            reset(client.socket);
        } else {
            drop(client);
        }
        assert_eq!(read_to_end(&mut backend), (Vec::new(), Ending::Reset));
        assert_eq!(lb.access_log(number)[number - 1]["cause"], "client_reset");
    }
}

#[test]
fn a_changed_record_is_a_reset_and_the_client_is_told() {
    let (authority, pairs) = (authority(), Pairs::new());
    let lb = lb(&authority, pairs.address(), true, false, "");
    let mut client = TlsEnd::connect(lb.address(), &authority);
    let mut backend = pairs.accept();
    let mut record = client.records_of(b"message");
    *record.last_mut().unwrap() ^= 1;
    client.socket.write_all(&record).unwrap();
    assert_eq!(read_to_end(&mut backend), (Vec::new(), Ending::Reset));
    assert_eq!(lb.only_access()["cause"], "client_reset");
}

#[test]
fn a_backend_that_ends_without_close_notify_is_a_reset() {
    let authority = authority();
    let backend = server(&authority, true, |mut end| {
        let _ = end.read(&mut [0; 16]);
        let _ = end.write_all(b"part");
    });
    for from_clients in [false, true] {
        let lb = lb(&authority, backend.address(), from_clients, true, "");
        let mut client = End::connect(&lb, &authority, from_clients);
        client.write_all(b"ask").unwrap();
        match client {
            End::Plain(mut stream) => assert_eq!(read_to_end(&mut stream), (b"part".to_vec(), Ending::Reset)),
            End::Tls(mut tls) => assert_eq!(tls.read_all(), (b"part".to_vec(), TlsEnding::Reset)),
        }
        assert_eq!(lb.only_access()["cause"], "backend_reset");
    }
}

#[test]
fn keys_are_updated_while_bytes_flow() {
    let authority = authority();
    let echo = Server::echo();
    let lb = lb(&authority, echo.address(), true, false, "");
    let mut client = TlsEnd::connect(lb.address(), &authority);
    for number in 0..20u8 {
        client.update_keys();
        client.write_all(&[number; 1000]).unwrap();
        let mut answer = [0; 1000];
        client.read_exact(&mut answer).unwrap();
        assert_eq!(answer, [number; 1000]);
    }
    client.end().unwrap();
    assert_eq!(client.read_all(), (Vec::new(), TlsEnding::Clean));
    assert_eq!(lb.only_access()["cause"], "client_closed");
}

#[test]
fn a_receiver_that_does_not_read_stops_the_sender_and_loses_nothing() {
    let authority = authority();
    let pairs = Pairs::with_small_buffers();
    let lb = lb(&authority, pairs.address(), true, false, "workers: 1\n");
    let warm = TlsEnd::connect(lb.address(), &authority);
    drop((warm, pairs.accept()));
    wait_until("it has ended", || lb.output_lines() == 1);
    let mut client = TlsEnd::connect(lb.address(), &authority);
    let mut backend = pairs.accept();
    let before = resident_bytes(lb.pid());
    let sent = send_until_stuck(&lb, &mut backend);
    let held = resident_bytes(lb.pid()).saturating_sub(before);
    assert!(held < MOST_HELD, "{held} bytes are held for one slow receiver");
    let rest = thread::spawn(move || {
        backend.shutdown(Shutdown::Write).unwrap();
        assert_eq!(read_to_end(&mut backend), (Vec::new(), Ending::Clean));
    });
    assert_eq!(receive_pattern(&mut client), sent);
    client.end().unwrap();
    rest.join().unwrap();
    assert_eq!(lb.access_log(2)[1]["cause"], "backend_closed");
}

#[test]
fn an_end_whose_word_the_socket_has_no_room_for_is_said_later() {
    let authority = authority();
    // So many bytes that the send buffer is full when the backend ends.
    let backend = server(&authority, false, |mut end| {
        send_pattern(&mut end, BYTES / 10);
        end.end();
        let _ = end.read(&mut [0]);
    });
    let lb = lb(&authority, backend.address(), true, false, "");
    let mut client = TlsEnd::connect(lb.address(), &authority);
    client.end().unwrap();
    assert_eq!(receive_pattern(&mut client), BYTES / 10);
    assert_eq!(lb.only_access()["cause"], "client_closed");
}
