//! The upkeep of a listener's TLS while it runs: its files are read again when they change, and its certificates'
//! expiry is told in time.

use std::convert::Infallible;
use std::io;
use std::time::{Duration, SystemTime};

use tokio::time::{Instant, sleep_until};

use crate::file_watch::FileWatch;
use crate::telemetry::rfc3339;
use crate::tls::{Server, described};

use super::off_thread::off_thread;

/// How often expiry is told.
const DAY: Duration = Duration::from_secs(24 * 3600);
/// Lists are good for a week, say, and told of once a day.
const LISTS_SOON: Duration = Duration::from_secs(2 * 24 * 3600);
/// Ten thousand certificates from a slow disk take less.
const LONGEST_READ: Duration = Duration::from_secs(60);

/// Never ends by itself.
pub(super) async fn keep_up(listener: String, server: Server) -> Infallible {
    let mut watched = server.files();
    let mut watch = FileWatch::new(watched.clone());
    loop {
        // At first, too: the files may have changed since the configuration was read.
        read_again(&listener, &server).await;
        let files = server.files();
        if files != watched {
            // Others are in a directory now, and may have changed since they were read.
            watch = FileWatch::new(files.clone());
            watched = files;
            continue;
        }
        let mut tell_at = Instant::now();
        loop {
            tokio::select! {
                () = watch.changed() => break,
                () = sleep_until(tell_at) => {
                    tell_expiry(&listener, &server);
                    tell_at = Instant::now() + DAY;
                }
            }
        }
        watch.mark_read();
    }
}

async fn read_again(listener: &str, server: &Server) {
    let of_thread = server.clone();
    let result = match off_thread("lb-certificates", LONGEST_READ, move || of_thread.reload()).await {
        Ok(result) => result.map_err(|problems| described(&problems)),
        Err(error) if error.kind() == io::ErrorKind::TimedOut => Err("the files take too long to read".to_owned()),
        Err(error) => Err(error.to_string()),
    };
    match result {
        Ok(true) => {
            let certificates = server.loaded().certificates().len();
            let event = "tls_reloaded";
            tracing::info!(
                event,
                listener,
                certificates,
                "TLS files reloaded; new connections meet what they hold now"
            );
        }
        Ok(false) => {}
        Err(error) => {
            let event = "tls_failed";
            tracing::error!(event, listener, %error, "TLS files can't be used; what they held before stays in use");
        }
    }
}

fn tell_expiry(listener: &str, server: &Server) {
    let (now, loaded) = (SystemTime::now(), server.loaded());
    if let Some(expires) = loaded.lists_expire().filter(|expires| *expires < now + LISTS_SOON) {
        let (is_over, expires) = (expires <= now, rfc3339(expires));
        if is_over {
            tracing::error!(listener, %expires, "a revocation list is over its date: clients are refused; renew it");
        } else {
            tracing::warn!(listener, %expires, "a revocation list is soon over its date; renew it");
        }
    }
    for certificate in loaded.certificates().filter(|it| it.expires_soon(now)) {
        let (name, expires) = (&certificate.name, rfc3339(certificate.expires));
        if certificate.expires <= now {
            tracing::error!(event = "expired", listener, name, %expires, "a certificate has expired");
        } else {
            tracing::warn!(event = "expires_soon", listener, name, %expires, "a certificate expires soon; renew it");
        }
    }
}
