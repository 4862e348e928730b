//! Bytes from one side to the other: all of them, unchanged, and the end as it was meant.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::Duration;

use crate::support::{
    Ending, Lb, Refusing, Server, connect, get, read_to_end, receive_pattern, reset, send_pattern,
    send_pattern_until_blocked, short_read,
};

const MIB: usize = 1024 * 1024;

/// A server that treats one connection with `serve`, and what that gave.
fn server_with_result<T: Send + 'static>(
    serve: impl Fn(TcpStream) -> T + Send + Sync + 'static,
) -> (Server, Receiver<T>) {
    let (sender, receiver) = mpsc::channel();
    let server = Server::that(move |stream| drop(sender.send(serve(stream))));
    (server, receiver)
}

/// Sends `length` bytes of the pattern and ends, while it receives and checks what comes: how much that was.
fn exchange(stream: TcpStream, length: usize) -> usize {
    let mut incoming = stream.try_clone().unwrap();
    let mut outgoing = stream;
    let sending = thread::spawn(move || {
        send_pattern(&mut outgoing, length);
        outgoing.shutdown(Shutdown::Write).unwrap();
    });
    let received = receive_pattern(&mut incoming);
    sending.join().unwrap();
    received
}

#[test]
fn carries_200_megabytes_each_way_at_once() {
    const LENGTH: usize = 200_000_000;
    let (server, served) = server_with_result(|stream| exchange(stream, LENGTH));
    let lb = Lb::in_front_of(&[server.address()]).start();
    assert_eq!(exchange(connect(lb.address()), LENGTH), LENGTH, "to the client");
    assert_eq!(served.recv().unwrap(), LENGTH, "to the backend");
    let line = lb.only_access();
    assert_eq!((&line["bytes_in"], &line["bytes_out"]), (&LENGTH.into(), &LENGTH.into()));
}

#[test]
fn a_client_that_ended_still_gets_everything() {
    const LENGTH: usize = 1024 * MIB;
    let (server, asked) = server_with_result(|mut stream| {
        let mut question = String::new();
        stream.read_to_string(&mut question).unwrap();
        send_pattern(&mut stream, LENGTH);
        question
    });
    let lb = Lb::in_front_of(&[server.address()]).start();
    let mut client = connect(lb.address());
    client.write_all(b"all of it, please").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(receive_pattern(&mut client), LENGTH);
    assert_eq!(asked.recv().unwrap(), "all of it, please");
    assert_eq!(lb.only_access()["cause"], "client_closed");
}

#[test]
fn a_backend_that_ended_still_gets_everything() {
    const LENGTH: usize = 1024 * MIB;
    let (server, received) = server_with_result(|mut stream| {
        stream.write_all(b"go on").unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        receive_pattern(&mut stream)
    });
    let lb = Lb::in_front_of(&[server.address()]).start();
    let mut client = connect(lb.address());
    assert_eq!(read_to_end(&mut client), (b"go on".to_vec(), Ending::Clean));
    send_pattern(&mut client, LENGTH);
    drop(client);
    assert_eq!(received.recv().unwrap(), LENGTH);
    assert_eq!(lb.only_access()["cause"], "backend_closed");
}

#[test]
fn the_end_comes_after_all_bytes_however_late_they_are_read() {
    const LENGTH: usize = 8 * MIB;
    let (server, sent) = server_with_result(|mut stream| {
        send_pattern(&mut stream, LENGTH);
        stream.shutdown(Shutdown::Write).unwrap();
        stream.read(&mut [0]).unwrap()
    });
    let lb = Lb::in_front_of(&[server.address()]).start();
    let mut client = connect(lb.address());
    thread::sleep(Duration::from_millis(300));
    assert_eq!(receive_pattern(&mut client), LENGTH);
    drop(client);
    assert_eq!(sent.recv().unwrap(), 0, "the client's end");
}

#[test]
fn a_reset_by_the_backend_reaches_the_client_as_a_reset() {
    let server = Server::that(|mut stream| {
        stream.write_all(b"half an ans").unwrap();
        // Not before the client has it.
        short_read(&mut stream);
        reset(stream);
    });
    let lb = Lb::in_front_of(&[server.address()]).start();
    let mut client = connect(lb.address());
    assert_eq!(short_read(&mut client), "half an ans");
    client.write_all(b"got it").unwrap();
    assert_eq!(read_to_end(&mut client), (Vec::new(), Ending::Reset));
    assert_eq!(lb.only_access()["cause"], "backend_reset");
}

#[test]
fn a_reset_by_the_client_reaches_the_backend_as_a_reset() {
    let (server, ended) = server_with_result(|mut stream| {
        stream.write_all(b"hello").unwrap();
        read_to_end(&mut stream)
    });
    let lb = Lb::in_front_of(&[server.address()]).start();
    let mut client = connect(lb.address());
    assert_eq!(short_read(&mut client), "hello");
    reset(client);
    assert_eq!(ended.recv().unwrap(), (Vec::new(), Ending::Reset));
    assert_eq!(lb.only_access()["cause"], "client_reset");
}

#[test]
fn an_answer_sent_before_a_reset_is_delivered() {
    let server = Server::that(|mut stream| {
        short_read(&mut stream);
        stream.write_all(b"413 too large").unwrap();
        // Closes with bytes unread, which resets.
    });
    let lb = Lb::in_front_of(&[server.address()]).start();
    let mut client = connect(lb.address());
    let mut uploading = client.try_clone().unwrap();
    let upload = thread::spawn(move || while uploading.write_all(&[b'x'; 64 * 1024]).is_ok() {});
    assert_eq!(short_read(&mut client), "413 too large");
    upload.join().unwrap();
}

#[test]
fn a_reset_by_the_client_is_noticed_while_the_backend_does_not_read() {
    let server = Server::ignoring();
    let lb = Lb::in_front_of(&[server.address()]).start();
    let mut client = connect(lb.address());
    client.set_write_timeout(Some(Duration::from_millis(300))).unwrap();
    while client.write_all(&[b'x'; 64 * 1024]).is_ok() {}
    reset(client);
    assert_eq!(lb.only_access()["cause"], "client_reset");
}

#[test]
fn a_reset_by_a_client_that_had_ended_is_noticed_while_the_backend_is_silent() {
    let (asked, question) = mpsc::channel();
    let server = Server::that(move |mut stream| {
        let mut question = Vec::new();
        stream.read_to_end(&mut question).unwrap();
        asked.send(question).unwrap();
        // It thinks, without a word, until nobody waits for the answer any more.
        let hung_up = rustix::event::PollFlags::HUP | rustix::event::PollFlags::ERR;
        let half_a_minute = rustix::event::Timespec { tv_sec: 30, tv_nsec: 0 };
        let _ = rustix::event::poll(&mut [rustix::event::PollFd::new(&stream, hung_up)], Some(&half_a_minute));
    });
    let lb = Lb::in_front_of(&[server.address()]).start();
    let mut client = connect(lb.address());
    client.write_all(b"question").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(question.recv().unwrap(), b"question");
    reset(client);
    assert_eq!(lb.only_access()["cause"], "client_reset");
}

#[test]
fn what_came_before_a_reset_by_the_backend_is_delivered_to_a_slow_client() {
    let (server, sent) = server_with_result(|mut stream| {
        stream.set_write_timeout(Some(Duration::from_millis(300))).unwrap();
        send_pattern_until_blocked(&mut stream);
        reset(stream);
    });
    let lb = Lb::in_front_of(&[server.address()]).start();
    let mut client = connect(lb.address());
    sent.recv().unwrap();
    let (received, ending) = read_to_end(&mut client);
    assert_eq!(ending, Ending::Reset, "never a clean end");
    assert!(received.len() > MIB, "only {} bytes", received.len());
    assert_eq!(receive_pattern(&mut received.as_slice()), received.len());
    assert_eq!(lb.only_access()["cause"], "backend_reset");
}

#[test]
fn bytes_sent_one_by_one_arrive_in_order() {
    const BYTES: usize = 5_000;
    let server = Server::echo();
    let lb = Lb::in_front_of(&[server.address()]).start();
    let mut client = connect(lb.address());
    client.set_nodelay(true).unwrap();
    let mut answers = client.try_clone().unwrap();
    let receiving = thread::spawn(move || read_to_end(&mut answers));
    let sent: Vec<u8> = (0..BYTES).map(|number| (number % 251).to_le_bytes()[0]).collect();
    for byte in &sent {
        client.write_all(&[*byte]).unwrap();
    }
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(receiving.join().unwrap(), (sent, Ending::Clean));
}

#[test]
fn bytes_sent_while_backends_are_tried_reach_one_of_them_once() {
    let (hole, dead) = (Server::blackhole(), Refusing::new());
    let (server, received) = server_with_result(|mut stream| read_to_end(&mut stream));
    let addresses = [hole.address(), dead.address(), server.address()];
    let lb = Lb::in_front_of(&addresses).with(&["--connect-timeout", "300ms"]).start();
    let mut client = connect(lb.address());
    client.write_all(b"early words").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(received.recv().unwrap(), (b"early words".to_vec(), Ending::Clean));
    assert_eq!(read_to_end(&mut client), (Vec::new(), Ending::Clean));
    assert_eq!(lb.only_access()["attempts"].as_array().map(Vec::len), Some(3));
}

#[test]
fn a_client_that_leaves_during_the_connect_leaves_nothing_behind() {
    let (hole, good) = (Server::blackhole(), Server::named("good"));
    let lb = Lb::in_front_of(&[hole.address(), good.address()]).with(&["--connect-timeout", "300ms"]).start();
    let mut impatient = connect(lb.address());
    impatient.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    reset(impatient);
    lb.only_access();
    assert_eq!(get(lb.address(), "/").body, "good");
    assert_eq!(lb.state_of(good.address()), "up");
}
