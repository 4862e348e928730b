//! The balancer's own answers, for requests that no backend answers; and a close that doesn't destroy them.

use std::future::poll_fn;
use std::task::{Context, Poll};
use std::time::Duration;

use crate::lifecycle::IdleTimer;
use crate::net::Transport;
use crate::protocol::http1::Version;
use crate::relay::Scratch;

/// For this long, what a client still sends is received and dropped before the close. The kernel answers a close with
/// unread bytes by a reset, which can destroy the answer before the client has read it (RFC 9112 section 9.6).
const LINGER: Duration = Duration::from_secs(2);

/// A response with `status`, whose body is a line with the reason.
pub(in crate::proxy) fn page(status: u16, reason: &str, version: Version, keeps: bool, is_head: bool) -> Vec<u8> {
    page_with(status, reason, "", version, keeps, is_head)
}

/// A redirect that keeps method and body (RFC 9110 section 15.4.9).
pub(super) fn redirect(url: &str, version: Version, keeps: bool, is_head: bool) -> Vec<u8> {
    page_with(308, url, &format!("Location: {url}\r\n"), version, keeps, is_head)
}

/// `header` is a line of its own, or none.
fn page_with(status: u16, reason: &str, header: &str, version: Version, keeps: bool, is_head: bool) -> Vec<u8> {
    let phrase = phrase(status);
    let text = format!("{status} {phrase}: {reason}\n");
    let connection = match (keeps, version) {
        (false, _) => "Connection: close\r\n",
        (true, Version::Http10) => "Connection: keep-alive\r\n",
        (true, Version::Http11) => "",
    };
    let body = if is_head { "" } else { &text };
    let length = text.len();
    format!(
        "HTTP/1.1 {status} {phrase}\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {length}\r\n\
         Cache-Control: no-store\r\n{header}{connection}\r\n{body}"
    )
    .into_bytes()
}

/// RFC 9110 section 15, and RFC 6585 for 431.
fn phrase(status: u16) -> &'static str {
    match status {
        308 => "Permanent Redirect",
        400 => "Bad Request",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        414 => "URI Too Long",
        431 => "Request Header Fields Too Large",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        505 => "HTTP Version Not Supported",
        _ => "Error",
    }
}

/// Sends all of it; `false`: the client is gone, or took nothing until the timer expired.
pub(in crate::proxy) async fn send(client: &Transport, bytes: &[u8], idle_timer: &IdleTimer) -> bool {
    let mut sent = 0;
    poll_fn(|cx| {
        while sent < bytes.len() {
            match client.poll_send(cx, &bytes[sent..]) {
                Poll::Ready(Ok(taken)) => sent += taken,
                Poll::Ready(Err(_)) => return Poll::Ready(false),
                Poll::Pending if idle_timer.poll_expired(cx) => return Poll::Ready(false),
                Poll::Pending => return Poll::Pending,
            }
        }
        match client.poll_all_taken(cx) {
            Poll::Pending if !idle_timer.poll_expired(cx) => Poll::Pending,
            taken => Poll::Ready(matches!(taken, Poll::Ready(Ok(())))),
        }
    })
    .await
}

/// Ends our side, and waits until the client has ended its own, or for [`LINGER`].
pub(in crate::proxy) async fn linger(client: &Transport, scratch: &Scratch, idle_timer: &IdleTimer) {
    poll_fn(|cx| {
        client.shutdown_write(cx);
        Poll::Ready(())
    })
    .await;
    // Touched only here: bytes that still come don't prolong the wait.
    idle_timer.touch();
    idle_timer.set_limit(LINGER);
    poll_fn(|cx: &mut Context<'_>| {
        loop {
            let has_ended = match scratch.poll_receive(cx, client, |_, bytes| bytes.is_empty()) {
                Poll::Pending if idle_timer.poll_expired(cx) => true,
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(is_end)) => is_end || idle_timer.poll_expired(cx),
                Poll::Ready(Err(_)) => true,
            };
            if has_ended {
                return Poll::Ready(());
            }
        }
    })
    .await;
}
