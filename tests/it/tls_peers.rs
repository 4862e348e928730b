//! TLS with other people's programs: openssl, Python and curl in front of the balancer, nginx and HAProxy behind it.

use std::io::Write;
use std::net::SocketAddr;
use std::process::{Command, Stdio};

use crate::support::{
    Authority, Lb, Program, Reader, Server, connect, free_port, haproxy, nginx, openssl, required, run_to_output,
};

fn authority() -> Authority {
    let authority = Authority::new();
    authority.signed("app", "DNS:localhost,IP:127.0.0.1", None);
    authority.sign("rsa", "DNS:localhost,IP:127.0.0.1").rsa().done();
    authority
}

/// With an ECDSA and an RSA certificate.
fn ending(authority: &Authority, mode: &str, backend: SocketAddr) -> Lb {
    let (ecdsa, rsa) = (authority.pair("app"), authority.pair("rsa"));
    Lb::with_config(&format!(
        "listeners:\n  main:\n    bind: 127.0.0.1:0\n    mode: {mode}\n    pool: app\n    \
         tls: {{certificates: [{ecdsa}, {rsa}]}}\npools:\n  app:\n    backends: ['{backend}']\n"
    ))
    .start()
}

/// What openssl's client shows that sends `input` to an echo.
fn s_client(lb: &Lb, authority: &Authority, arguments: &str, input: &str) -> (String, String) {
    let mut command = openssl();
    command.args(["s_client", "-connect", &lb.address().to_string(), "-CAfile", "ca.pem", "-verify_return_error"]);
    command.args(arguments.split_whitespace()).current_dir(authority.folder.path());
    run_to_output(&mut command, input)
}

#[test]
fn openssl_can_use_each_suite_of_both_versions() {
    let (authority, server) = (authority(), Server::named("answer"));
    let lb = ending(&authority, "tcp", server.address());
    let suites = [
        "-tls1_3 -ciphersuites TLS_AES_128_GCM_SHA256",
        "-tls1_3 -ciphersuites TLS_AES_256_GCM_SHA384",
        "-tls1_3 -ciphersuites TLS_CHACHA20_POLY1305_SHA256",
        "-tls1_2 -cipher ECDHE-ECDSA-AES128-GCM-SHA256",
        "-tls1_2 -cipher ECDHE-ECDSA-AES256-GCM-SHA384",
        "-tls1_2 -cipher ECDHE-ECDSA-CHACHA20-POLY1305",
        "-tls1_2 -cipher ECDHE-RSA-AES128-GCM-SHA256",
        "-tls1_2 -cipher ECDHE-RSA-AES256-GCM-SHA384",
        "-tls1_2 -cipher ECDHE-RSA-CHACHA20-POLY1305",
        "-tls1_3 -groups P-256",
        "-tls1_3 -groups P-384",
        "-tls1_3 -groups X25519",
    ];
    for arguments in suites {
        let suite = arguments.split(' ').nth(2).unwrap();
        let (shown, errors) = s_client(&lb, &authority, &format!("{arguments} -ign_eof"), "GET / HTTP/1.1\r\n\r\n");
        assert!(shown.contains("answer"), "{arguments}: {shown} {errors}");
        let is_group = arguments.contains("-groups");
        assert!(is_group || shown.contains(&format!("Cipher is {suite}")), "{arguments}: {shown} {errors}");
    }
}

#[test]
fn renegotiation_is_refused_and_the_connection_lives_as_long_as_openssl_lets_it() {
    let (authority, echo) = (authority(), Server::echo());
    let lb = ending(&authority, "tcp", echo.address());
    // `R` on a line of its own asks for it (openssl-s_client(1)).
    let (_, errors) = s_client(&lb, &authority, "-tls1_2", "R\n");
    assert!(errors.contains("no renegotiation"), "{errors}");
}

#[test]
fn python_ends_its_side_and_gets_everything() {
    let script = "
import socket, ssl, sys
context = ssl.create_default_context(cafile='ca.pem')
with socket.create_connection(('127.0.0.1', int(sys.argv[1]))) as plain:
    with context.wrap_socket(plain, server_hostname='localhost') as tls:
        data = bytes(range(256)) * 4000
        received = b''
        for start in range(0, len(data), 8192):
            tls.sendall(data[start:start + 8192])
            while len(received) < min(start + 8192, len(data)):
                received += tls.recv(65536)
        assert received == data
        tls.unwrap()
print('whole')
";
    let (authority, echo) = (authority(), Server::echo());
    let lb = ending(&authority, "tcp", echo.address());
    let mut command = Command::new(required("python3"));
    command.args(["-c", script, &lb.address().port().to_string()]).current_dir(authority.folder.path());
    let (output, errors) = run_to_output(&mut command, "");
    assert_eq!(output, "whole\n", "{errors}");
    assert_eq!(lb.only_access()["cause"], "client_closed");
}

#[test]
fn curl_gets_and_sends_large_bodies_over_one_connection() {
    let authority = authority();
    let folder = authority.folder.path();
    let body: Vec<u8> = (0..3_000_000u32).flat_map(u32::to_le_bytes).collect();
    authority.folder.write("body", &body);
    let address = free_port();
    let nginx = nginx(
        &authority.folder,
        address,
        &format!(
            "http {{ $TEMP client_max_body_size 0; server {{ listen {address}; location / {{ root {}; }} \
             location /put {{ client_body_buffer_size 16m; return 200 ok; }} }} }}",
            folder.display()
        ),
    );
    let lb = ending(&authority, "http", nginx.address());
    let url = |path: &str| format!("https://localhost:{}/{path}", lb.address().port());
    let mut command = Command::new(required("curl"));
    command.args(["--silent", "--show-error", "--fail", "--noproxy", "*", "--cacert", "ca.pem", "--http1.1"]);
    command.args(["--output", "got-1", &url("body"), "--output", "got-2", &url("body"), "--next"]);
    command.args(["--silent", "--fail", "--noproxy", "*", "--cacert", "ca.pem", "--http1.1"]);
    command.args(["--upload-file", "body", &url("put"), "--output", "got-3"]).current_dir(folder);
    let (_, errors) = run_to_output(&mut command, "");
    for got in ["got-1", "got-2"] {
        assert!(std::fs::read(folder.join(got)).unwrap() == body, "{got}: {errors}");
    }
    let lines = lb.access_log(3);
    assert!(lines.iter().all(|line| line["status"] == 200), "{lines:?}");
    assert_eq!(lb.metrics().sum("tls_handshakes_total", &[("result", "ok")]), 1.0);
}

/// A pool of this server, reached by TLS.
fn towards(authority: &Authority, mode: &str, server: &Program) -> Lb {
    Lb::with_config(&format!(
        "listeners:\n  main:\n    bind: 127.0.0.1:0\n    mode: {mode}\n    pool: app\nworkers: 1\npools:\n  app:\n    \
         backends: ['{}']\n    tls: {{ca_file: '{}', server_name: localhost}}\n",
        server.address(),
        authority.path("ca.pem")
    ))
    .start()
}

#[test]
fn nginx_and_haproxy_behind_it_are_reached_by_tls_and_their_connections_reused() {
    let authority = authority();
    let path = |file: &str| authority.path(file);
    authority
        .folder
        .write("both.pem", [std::fs::read(path("app.pem")).unwrap(), std::fs::read(path("app.key")).unwrap()].concat());
    let (first, second) = (free_port(), free_port());
    let by_nginx = |protocols: &str, address: SocketAddr| {
        nginx(
            &authority.folder,
            address,
            &format!(
                "http {{ $TEMP server {{ listen {address} ssl; ssl_protocols {protocols}; ssl_certificate {}; \
                 ssl_certificate_key {}; location / {{ return 200 \"over $ssl_protocol\"; }} }} }}",
                path("app.pem"),
                path("app.key")
            ),
        )
    };
    let haproxy = haproxy(
        &authority.folder,
        second,
        &format!(
            "frontend told\n  mode http\n  bind {second} ssl crt {}\n  http-request return status 200 content-type \
             text/plain lf-string \"over %sslv\"",
            path("both.pem")
        ),
    );
    let servers = [
        (by_nginx("TLSv1.2", first), "over TLSv1.2"),
        (by_nginx("TLSv1.3", free_port()), "over TLSv1.3"),
        (haproxy, "over TLSv1.3"),
    ];
    for (server, told) in servers {
        for mode in ["tcp", "http"] {
            let lb = towards(&authority, mode, &server);
            for number in 1..=3 {
                let mut client = Reader::of(connect(lb.address()));
                for _ in 0..2 {
                    client.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n");
                    assert_eq!(client.response().text(), told, "in mode {mode}");
                }
                drop(client);
                if mode == "http" {
                    // All but the first request find the connection of the one before, tickets or not.
                    let lines = lb.access_log(2 * number);
                    let outcomes = lines.iter().map(|line| line["attempts"][0]["outcome"].as_str().unwrap());
                    assert!(outcomes.skip(1).all(|outcome| outcome == "reused"), "{lines:?}");
                }
            }
        }
    }
}

#[test]
fn routes_by_name_work_where_tls_is_ended() {
    let authority = authority();
    authority.signed("b", "DNS:b.example", None);
    let (a, b) = (Server::greeting("a"), Server::greeting("b"));
    let lb = Lb::with_config(&format!(
        "listeners:\n  main:\n    bind: 127.0.0.1:0\n    pool: a\n    routes: [{{sni: b.example, pool: b}}]\n    \
         tls: {{certificates: [{}, {}]}}\npools:\n  a: {{backends: ['{}']}}\n  b: {{backends: ['{}']}}\n",
        authority.pair("app"),
        authority.pair("b"),
        a.address(),
        b.address()
    ))
    .start();
    for (name, greeting) in [("localhost", "a"), ("b.example", "b"), ("other.example", "a")] {
        let mut command = openssl();
        command.args(["s_client", "-quiet", "-connect", &lb.address().to_string(), "-servername", name]);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut got = [0];
        std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut got).unwrap();
        assert_eq!(std::str::from_utf8(&got).unwrap(), greeting, "{name}");
        let _ = child.stdin.take().unwrap().flush();
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
