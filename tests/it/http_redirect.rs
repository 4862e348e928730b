//! http mode: requests that are sent to https.

use crate::support::{Lb, LbBuilder, Origin, Reader, connect, get};

fn lb(further: &str) -> (Origin, LbBuilder) {
    let origin = Origin::new();
    let config =
        format!("listen: 127.0.0.1:0\nmode: http\nbackends: ['{}']\nhttp: {{redirect: https}}\n", origin.address());
    (origin, Lb::with_config(&(config + further)))
}

#[test]
fn each_request_is_sent_to_the_same_url_by_https_and_no_backend_sees_one() {
    let (origin, lb) = lb("");
    let lb = lb.start();
    let mut client = Reader::of(connect(lb.address()));
    for (target, host, url) in [
        ("/a/b?c=d", "example.com", "https://example.com/a/b?c=d"),
        ("/", "example.com:8080", "https://example.com/"),
        ("http://other.example/x", "example.com", "https://other.example/x"),
    ] {
        // On one connection: it is kept.
        client.send(format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n"));
        let response = client.response();
        assert_eq!((response.status(), response.header("Location")), (308, Some(url)));
    }
    // A body is not waited for.
    client.send("POST /form HTTP/1.1\r\nHost: example.com\r\nContent-Length: 100\r\n\r\n");
    let response = client.response();
    assert_eq!((response.status(), response.header("Connection")), (308, Some("close")));
    assert!(client.is_at_end());
    assert_eq!(origin.connections(), 0);
    let log = lb.access_log(4);
    assert_eq!(
        (&log[0]["status"], &log[0]["cause"], &log[0]["path"]),
        (&308.into(), &"completed".into(), &"/a/b?c=d".into())
    );
    assert_eq!(lb.metrics().sum("http_requests_total", &[("code", "308")]), 4.0);
}

#[test]
fn a_request_without_a_host_can_be_sent_nowhere() {
    let (_origin, lb) = lb("");
    let lb = lb.start();
    let mut client = Reader::of(connect(lb.address()));
    client.send("GET / HTTP/1.0\r\n\r\n");
    assert_eq!(client.response().status(), 400);
}

#[test]
fn what_a_trusted_proxy_got_by_https_is_served() {
    let (origin, lb) = lb("trusted_proxies: [127.0.0.1]\n");
    let lb = lb.start();
    assert_eq!(get(lb.address(), "/").status, 308);
    let mut client = Reader::of(connect(lb.address()));
    client.send("GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-Proto: https\r\n\r\n");
    assert_eq!(client.response().status(), 200);
    assert_eq!(origin.requests()[0].header("X-Forwarded-Proto"), Some("https"));
}
