//! Handshakes that fail: what the client is told, what is counted, and that nobody waits for it.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::process::Command;

use crate::support::{
    Authority, Ending, Lb, Server, TlsEnd, connect, read_to_end, required, reset, run_to_output, send_and_read,
    shake_hands, tls_server, wait_until_equal,
};

fn authority() -> Authority {
    let authority = Authority::new();
    authority.signed("app", "DNS:localhost,IP:127.0.0.1", None);
    authority
}

fn lb(authority: &Authority, backend: SocketAddr, listener: &str, tls: &str) -> Lb {
    let certificate = authority.pair("app");
    Lb::with_config(&format!(
        "listeners:\n  main:\n    bind: 127.0.0.1:0\n    pool: app\n{listener}    tls: {{certificates: [{certificate}]\
         {tls}}}\npools:\n  app:\n    backends: ['{backend}']\n"
    ))
    .start()
}

#[track_caller]
fn assert_counted(lb: &Lb, result: &str, times: f64) {
    wait_until_equal(result, &times, || lb.metrics().sum("tls_handshakes_total", &[("result", result)]));
    let failures =
        lb.metrics().sum("tls_handshakes_total", &[]) - lb.metrics().sum("tls_handshakes_total", &[("result", "ok")]);
    wait_until_equal("rejections", &failures, || {
        lb.metrics().sum("connections_rejected_total", &[("reason", "tls_handshake")])
    });
}

#[test]
fn http_without_tls_is_answered_in_its_own_words() {
    let (authority, echo) = (authority(), Server::echo());
    for mode in ["", "    mode: http\n"] {
        let lb = lb(&authority, echo.address(), mode, "");
        for request in
            ["GET / HTTP/1.1\r\nHost: h\r\n\r\n", "POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc"]
        {
            let (answer, ending) = send_and_read(&mut connect(lb.address()), [request.as_bytes()], false);
            let answer = String::from_utf8(answer).unwrap();
            assert!(answer.starts_with("HTTP/1.1 400 Bad Request\r\n"), "{answer}");
            assert!(answer.contains("this port speaks TLS; use https"), "{answer}");
            assert_eq!(ending, Ending::Clean);
        }
        assert_counted(&lb, "plain_http", 2.0);
        assert_eq!(echo.accepted(), 0);
    }
}

#[test]
fn a_client_with_nothing_in_common_is_told_so() {
    let (authority, echo) = (authority(), Server::echo());
    let old = "-cipher DEFAULT@SECLEVEL=0";
    let cases = [
        ("", format!("-tls1_1 {old}"), "no_shared_version", "alert"),
        (", min_version: '1.3'", "-tls1_2".to_owned(), "no_shared_version", "alert protocol version"),
        ("", "-tls1_2 -cipher AES128-SHA".to_owned(), "no_shared_cipher", "alert handshake failure"),
        ("", "-tls1_2 -cipher ECDHE-RSA-AES128-GCM-SHA256".to_owned(), "no_shared_cipher", "alert handshake failure"),
        (", alpn: [h2]", "-alpn foo".to_owned(), "no_shared_protocol", "alert no application protocol"),
    ];
    for (tls, arguments, result, alert) in cases {
        let lb = lb(&authority, echo.address(), "", tls);
        let seen = shake_hands(lb.address(), authority.folder.path(), &arguments);
        assert!(seen.errors.contains(alert), "{arguments}: {}", seen.errors);
        assert_counted(&lb, result, 1.0);
        let line = lb.only_access();
        assert_eq!((&line["cause"], &line["reason"]), (&"rejected".into(), &"tls_handshake".into()));
    }
}

#[test]
fn a_client_that_is_silent_slow_or_gone_is_counted_as_that() {
    let (authority, echo) = (authority(), Server::echo());
    let lb = lb(&authority, echo.address(), "    timeouts: {client_header: 300ms}\n", "");
    // Silent, and after a part of a hello.
    for part in [0, 20] {
        let mut client = TlsEnd::before_handshake(connect(lb.address()), &authority);
        let hello = client.records_of(b"");
        client.socket.write_all(&hello[..part]).unwrap();
        assert_eq!(read_to_end(&mut client.socket), (Vec::new(), Ending::Reset));
    }
    assert_counted(&lb, "timeout", 2.0);
    // Gone: at once, and within the handshake.
    let leaving = connect(lb.address());
    leaving.shutdown(Shutdown::Write).unwrap();
    let mut client = TlsEnd::before_handshake(connect(lb.address()), &authority);
    let hello = client.records_of(b"");
    client.socket.write_all(&hello).unwrap();
    client.socket.read_exact(&mut [0; 5]).unwrap();
    reset(client.socket);
    drop(leaving);
    assert_counted(&lb, "client_left", 2.0);
    assert_eq!(echo.accepted(), 0);
}

#[test]
fn what_is_no_tls_gets_an_alert() {
    let (authority, echo) = (authority(), Server::echo());
    let lb = lb(&authority, echo.address(), "", "");
    for bytes in [&b"SSH-2.0-OpenSSH_9.2\r\n"[..], &[0; 64], &[0x16, 3, 1, 0xff, 0xff, 1, 2, 3]] {
        let (answer, ending) = send_and_read(&mut connect(lb.address()), [bytes], true);
        // A fatal alert (RFC 8446, 6).
        assert_eq!((answer.first(), answer.get(5)), (Some(&0x15), Some(&2)), "{answer:?} to {bytes:?}");
        assert_eq!(ending, Ending::Clean);
    }
    assert_counted(&lb, "not_tls", 3.0);
}

/// A ClientHello of 60,000 bytes, as its first record says, of which each has a record of its own: 360 KB, more than is
/// kept of anybody. Such a client is let go.
#[test]
fn a_hello_in_records_of_a_byte_each_is_let_go() {
    let (authority, echo) = (authority(), Server::echo());
    let lb = lb(&authority, echo.address(), "", "");
    let record = |bytes: &[u8]| [&[22, 3, 1, 0, u8::try_from(bytes.len()).unwrap()], bytes].concat();
    let mut hello = record(&[1, 0, 0xEA, 0x60]);
    hello.extend((0..60_000).flat_map(|_| record(b"x")));
    let mut client = connect(lb.address());
    // It may be reset before all is sent.
    let _ = client.write_all(&hello);
    let _ = client.read(&mut [0; 64]);
    let rejected = || lb.metrics().sum("connections_rejected_total", &[("reason", "tls_handshake")]);
    wait_until_equal("rejections", &1.0, rejected);
}

#[test]
fn a_client_that_does_not_trust_the_certificate_is_counted_as_that() {
    let (authority, stranger, echo) = (authority(), Authority::new(), Server::echo());
    let lb = lb(&authority, echo.address(), "", "");
    let curl = |ca: String| {
        let mut command = Command::new(required("curl"));
        command.args(["--silent", "--show-error", "--noproxy", "*", "--cacert", &ca]);
        run_to_output(command.arg(format!("https://localhost:{}/", lb.address().port())), "").1
    };
    let complaint = curl(stranger.path("ca.pem"));
    assert!(complaint.contains("SSL certificate problem"), "{complaint}");
    assert_counted(&lb, "refused_by_client", 1.0);
}

#[test]
fn a_handshake_that_works_is_counted_with_its_version_and_whether_it_was_resumed() {
    let authority = authority();
    let greeting = Server::that(|mut stream| {
        let _ = stream.write_all(b"hello");
    });
    let lb = lb(&authority, greeting.address(), "", "");
    let folder = authority.folder.path();
    for (version, argument) in [("TLSv1.2", "-tls1_2"), ("TLSv1.3", "-tls1_3")] {
        // It waits for the backend's end: the tickets of TLS 1.3 come before that.
        shake_hands(lb.address(), folder, &format!("{argument} -ign_eof -sess_out {version}"));
        shake_hands(lb.address(), folder, &format!("{argument} -ign_eof -sess_in {version}"));
        for resumed in ["false", "true"] {
            let labels = [("result", "ok"), ("version", version), ("resumed", resumed)];
            let count = || lb.metrics().sum("tls_handshakes_total", &labels);
            wait_until_equal(&format!("{labels:?}"), &1.0, count);
        }
    }
}

#[test]
fn a_backend_whose_handshake_fails_is_not_used_and_said_to_be_at_fault() {
    let (authority, stranger) = (authority(), Authority::new());
    stranger.self_signed("bad", "DNS:localhost,IP:127.0.0.1");
    let serve = |authority: &Authority, name: &str, said: &'static str| {
        let config = tls_server(authority, name);
        Server::that(move |stream| {
            if let Ok(mut tls) = TlsEnd::accept(stream, &config) {
                let _ = tls.write_all(said.as_bytes()).and_then(|()| tls.end());
                let _ = tls.read(&mut [0]);
            }
        })
    };
    let (good, bad) = (serve(&authority, "app", "good"), serve(&stranger, "bad", "bad"));
    let silent = Server::ignoring();
    let plain = Server::greeting("220 no TLS here\r\n");
    let cases = [
        (bad.address(), "tls", "certificate isn't signed by a known authority (self-signed;"),
        (plain.address(), "tls", "the server doesn't speak TLS here"),
        (silent.address(), "timeout", "no end of the TLS handshake in time"),
    ];
    for (backend, reason, words) in cases {
        let lb = Lb::with_config(&format!(
            "log: {{level: debug}}\npools:\n  app:\n    connect_timeout: 500ms\n    policy: first\n    \
             backends: ['{backend}', '{}']\n    tls: {{ca_file: '{}'}}\nlisteners:\n  main: {{bind: 127.0.0.1:0, \
             pool: app}}\n",
            good.address(),
            authority.path("ca.pem")
        ))
        .start();
        let mut client = connect(lb.address());
        assert_eq!(read_to_end(&mut client), (b"good".to_vec(), Ending::Clean));
        drop(client);
        let line = lb.only_access();
        assert_eq!(line["attempts"][0]["outcome"], reason, "{line}");
        let labels = [("backend", &*backend.to_string()), ("reason", reason)];
        assert_eq!(lb.metrics().sum("backend_connect_failures_total", &labels), 1.0);
        let logged = lb.wait_for_log("connect failed", 1).remove(0)["error"].to_string();
        assert!(logged.contains(words), "{logged}");
    }
}
