//! Which requests are answered: changes only with the bearer token if there is one, else only from this machine; and
//! neither a change nor anything to read for a page of another site in a browser (cross-site requests, DNS rebinding).

use std::collections::HashSet;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use hyper::StatusCode;
use hyper::header::{ACCEPT_LANGUAGE, AUTHORIZATION, HOST, HeaderMap, HeaderName, ORIGIN};

/// Sent by browsers where they trust the address (Fetch Metadata Request Headers).
const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// A refusal is logged at most so often for each reason: whoever reaches the port can cause any number of them.
const LOG_INTERVAL: Duration = Duration::from_secs(10);

/// From where the admin server can be reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// By a unix socket: by those who may write to its file, and not by a browser. They need no token.
    UnixSocket,
    /// From this machine only.
    Loopback,
    /// From other machines.
    Network,
}

/// Who a resource is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Readers {
    /// Anybody: it says nothing of worth.
    Everybody,
    /// Programs too, which ask under any name that leads here, such as a Kubernetes service's.
    Scrapers,
    /// Those who ask under an own name.
    Operators,
}

/// Judges requests.
#[derive(Debug)]
pub struct Guard {
    token: ArcSwapOption<String>,
    /// The admin server's names, beside addresses and localhost, in lower case.
    hosts: HashSet<String>,
    refused: [AtomicU64; AdminRefusal::ALL.len()],
    logged: Mutex<[Logged; AdminRefusal::ALL.len()]>,
}

/// What the log has of the refusals of one reason.
#[derive(Clone, Copy, Debug, Default)]
struct Logged {
    last: Option<Instant>,
    /// Those that came after it.
    unlogged: u64,
}

labels! {
    /// Why a request is refused.
    AdminRefusal {
        /// There is no token file, and the admin server can be reached from other machines.
        NoTokenFile = "no_token_file",
        /// The request has no token.
        NoToken = "no_token",
        /// The request's token is not the right one.
        WrongToken = "wrong_token",
        /// The request was made by a page of another site.
        ForeignOrigin = "foreign_origin",
        /// The request's Host is not one of the admin server's: a browser was made to resolve it to this address.
        ForeignHost = "foreign_host",
    }
}

impl AdminRefusal {
    pub(super) fn status(self) -> StatusCode {
        match self {
            Self::NoToken | Self::WrongToken => StatusCode::UNAUTHORIZED,
            Self::NoTokenFile | Self::ForeignOrigin | Self::ForeignHost => StatusCode::FORBIDDEN,
        }
    }

    pub(super) fn message(self) -> &'static str {
        match self {
            Self::NoTokenFile => {
                "changes need a token if other machines can reach the admin server: set admin.token_file, or bind it \
                 to 127.0.0.1 or a unix socket"
            }
            Self::NoToken => "changes need the header `Authorization: Bearer TOKEN` with the token of admin.token_file",
            Self::WrongToken => "the token is not the one of admin.token_file",
            Self::ForeignOrigin => "a page of another site gets no answer here",
            Self::ForeignHost => {
                "this is answered only under an IP address, localhost, the name in admin.bind, or a name of \
                 admin.allowed_hosts"
            }
        }
    }
}

impl Guard {
    /// `hosts` are names of the admin server, beside addresses and localhost.
    pub fn new(hosts: impl IntoIterator<Item = String>) -> Self {
        let hosts = hosts.into_iter().map(|host| host.to_ascii_lowercase()).collect();
        let (refused, logged) = Default::default();
        Self { token: ArcSwapOption::empty(), hosts, refused, logged }
    }

    /// The token that changes need from now on; `None`: they need none.
    pub fn set_token(&self, token: Option<String>) {
        self.token.store(token.map(Into::into));
    }

    /// Whether changes need no token, so that the page can offer them.
    pub(super) fn is_open(&self, reach: Reach) -> bool {
        reach == Reach::UnixSocket || reach == Reach::Loopback && self.token.load().is_none()
    }

    /// Whether there is a token that changes need.
    pub(super) fn has_token(&self) -> bool {
        self.token.load().is_some()
    }

    /// Judges a change by its headers, and counts a refusal.
    pub(super) fn judge_change(&self, headers: &HeaderMap, reach: Reach) -> Result<(), AdminRefusal> {
        self.counted(self.judge_page(headers).and_then(|()| self.judge_token(headers, reach)))
    }

    /// Judges a request to read by its headers, and counts a refusal.
    pub(super) fn judge_read(&self, headers: &HeaderMap, readers: Readers, reach: Reach) -> Result<(), AdminRefusal> {
        let is_answered = match readers {
            Readers::Everybody => true,
            Readers::Scrapers => !is_of_browser(headers),
            Readers::Operators => reach == Reach::UnixSocket,
        };
        self.counted(if is_answered { Ok(()) } else { self.judge_page(headers) })
    }

    /// Refusals so far, by reason.
    pub(super) fn refused(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        AdminRefusal::ALL
            .iter()
            .map(|refusal| (refusal.as_str(), self.refused[*refusal as usize].load(Ordering::Relaxed)))
    }

    /// Whether a refusal at `now` is to be logged: the number of those like it that were not, since the last one that
    /// was.
    pub(super) fn to_log(&self, refusal: AdminRefusal, now: Instant) -> Option<u64> {
        let logged = &mut self.logged.lock().unwrap_or_else(PoisonError::into_inner)[refusal as usize];
        if logged.last.is_some_and(|last| now.duration_since(last) < LOG_INTERVAL) {
            logged.unlogged += 1;
            return None;
        }
        let unlogged = logged.unlogged;
        *logged = Logged { last: Some(now), unlogged: 0 };
        Some(unlogged)
    }

    fn counted(&self, verdict: Result<(), AdminRefusal>) -> Result<(), AdminRefusal> {
        if let Err(refusal) = verdict {
            self.refused[refusal as usize].fetch_add(1, Ordering::Relaxed);
        }
        verdict
    }

    /// In a browser, only a page of the admin server's own may ask.
    fn judge_page(&self, headers: &HeaderMap) -> Result<(), AdminRefusal> {
        let text = |name: HeaderName| headers.get(name).map(|value| value.to_str().unwrap_or_default());
        let host = text(HOST).unwrap_or_default();
        if !self.is_own_host(host) {
            return Err(AdminRefusal::ForeignHost);
        }
        let is_own = |origin: &str| origin.strip_prefix("http://").is_some_and(|own| own.eq_ignore_ascii_case(host));
        if text(ORIGIN).is_some_and(|origin| !is_own(origin)) {
            return Err(AdminRefusal::ForeignOrigin);
        }
        Ok(())
    }

    fn judge_token(&self, headers: &HeaderMap, reach: Reach) -> Result<(), AdminRefusal> {
        match (&*self.token.load(), headers.get(AUTHORIZATION)) {
            _ if self.is_open(reach) => Ok(()),
            (None, _) => Err(AdminRefusal::NoTokenFile),
            (Some(_), None) => Err(AdminRefusal::NoToken),
            (Some(token), Some(given)) if is_bearer_of(given.as_bytes(), token.as_bytes()) => Ok(()),
            (Some(_), Some(_)) => Err(AdminRefusal::WrongToken),
        }
    }

    /// Whether it is an address or a name of ours. With DNS rebinding, Host has the attacker's name, which resolves to
    /// this address; an address can't be rebound.
    fn is_own_host(&self, host: &str) -> bool {
        let name = match host.rsplit_once(':') {
            Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
            _ => host,
        };
        let bare = name.trim_start_matches('[').trim_end_matches(']');
        let name = name.to_ascii_lowercase();
        bare.parse::<IpAddr>().is_ok() || name == "localhost" || self.hosts.contains(&name)
    }
}

/// Whether a browser sends it, by headers that a page can't take away. Scrapers and probes send none of them.
fn is_of_browser(headers: &HeaderMap) -> bool {
    [ORIGIN, SEC_FETCH_SITE, ACCEPT_LANGUAGE].iter().any(|name| headers.contains_key(name))
}

/// `Bearer` in any case (RFC 9110, 11.1), spaces, and the token.
fn is_bearer_of(given: &[u8], token: &[u8]) -> bool {
    const SCHEME: usize = "Bearer".len();
    match given.split_at_checked(SCHEME) {
        Some((scheme, rest)) if rest.starts_with(b" ") => {
            scheme.eq_ignore_ascii_case(b"Bearer") && is_same(rest.trim_ascii(), token)
        }
        _ => false,
    }
}

/// Compares in a time that doesn't depend on where they differ.
fn is_same(given: &[u8], token: &[u8]) -> bool {
    let differences = given.iter().zip(token).fold(0, |sum, (a, b)| sum | (a ^ b));
    given.len() == token.len() && differences == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
        let parsed = |(name, value): &(&str, &str)| {
            (name.parse::<HeaderName>().expect("a name"), value.parse().expect("a value"))
        };
        pairs.iter().map(parsed).collect()
    }

    #[test]
    fn without_a_token_changes_are_accepted_from_this_machine_only() {
        let (guard, here) = (Guard::new([]), headers(&[("host", "127.0.0.1:9900")]));
        assert_eq!(guard.judge_change(&here, Reach::Loopback), Ok(()));
        assert_eq!(guard.judge_change(&here, Reach::UnixSocket), Ok(()));
        assert_eq!(guard.judge_change(&here, Reach::Network), Err(AdminRefusal::NoTokenFile));
        guard.set_token(Some("secret".to_owned()));
        assert_eq!(guard.judge_change(&here, Reach::Loopback), Err(AdminRefusal::NoToken));
        assert_eq!(guard.judge_change(&here, Reach::UnixSocket), Ok(()), "the file's mode has judged");
    }

    #[test]
    fn the_token_must_be_the_right_one() {
        let guard = Guard::new([]);
        guard.set_token(Some("secret".to_owned()));
        let with = |token: &str| headers(&[("host", "[::1]:9900"), ("authorization", token)]);
        assert_eq!(guard.judge_change(&with("Bearer secret"), Reach::Network), Ok(()));
        for wrong in ["Bearer secre", "Bearer secrets", "Bearer ", "Basic secret", "secret"] {
            assert_eq!(guard.judge_change(&with(wrong), Reach::Network), Err(AdminRefusal::WrongToken), "{wrong}");
        }
        assert_eq!(guard.judge_change(&headers(&[("host", "10.0.0.1")]), Reach::Network), Err(AdminRefusal::NoToken));
        assert_eq!(guard.refused().map(|(_, count)| count).collect::<Vec<_>>(), [0, 1, 5, 0, 0]);
    }

    #[test]
    fn pages_of_other_sites_and_rebound_names_are_refused() {
        let guard = Guard::new(["LB.internal".to_owned()]);
        let judge = |host: &str, origin: &str| {
            guard.judge_change(&headers(&[("host", host), ("origin", origin)]), Reach::Loopback)
        };
        assert_eq!(judge("localhost:9900", "http://localhost:9900"), Ok(()));
        assert_eq!(judge("lb.internal", "http://lb.internal"), Ok(()));
        assert_eq!(judge("localhost:9900", "http://localhost:9901"), Err(AdminRefusal::ForeignOrigin));
        assert_eq!(judge("127.0.0.1:9900", "null"), Err(AdminRefusal::ForeignOrigin));
        assert_eq!(judge("evil.example:9900", "http://evil.example:9900"), Err(AdminRefusal::ForeignHost));
        assert_eq!(guard.judge_change(&headers(&[]), Reach::Loopback), Err(AdminRefusal::ForeignHost));
    }

    #[test]
    fn what_is_to_be_read_is_guarded_against_rebound_names_as_far_as_probes_allow() {
        let guard = Guard::new(["lb.internal".to_owned()]);
        let read = |readers, pairs: &[(&str, &str)]| guard.judge_read(&headers(pairs), readers, Reach::Network);
        let foreign = Err(AdminRefusal::ForeignHost);
        for own in ["10.0.0.7:9900", "[::1]:9900", "localhost", "LB.internal:9900"] {
            let browser = [("host", own), ("accept-language", "en")];
            assert_eq!(read(Readers::Operators, &browser), Ok(()), "{own}");
            assert_eq!(read(Readers::Scrapers, &browser), Ok(()), "{own}");
        }
        for host in ["evil.example:9900", "lb.default.svc:9900", "127.0.0.1.evil.example", ""] {
            assert_eq!(read(Readers::Operators, &[("host", host)]), foreign, "{host}");
            assert_eq!(read(Readers::Scrapers, &[("host", host)]), Ok(()), "{host}");
            for sign in ["origin", "sec-fetch-site", "accept-language"] {
                assert_eq!(read(Readers::Scrapers, &[("host", host), (sign, "")]), foreign, "{host}, {sign}");
                assert_eq!(read(Readers::Everybody, &[("host", host), (sign, "")]), Ok(()), "{host}, {sign}");
            }
        }
        let page_of_another = [("host", "10.0.0.7"), ("origin", "http://evil.example")];
        assert_eq!(read(Readers::Operators, &page_of_another), Err(AdminRefusal::ForeignOrigin));
        let by_any_name = headers(&[("host", "any")]);
        assert_eq!(guard.judge_read(&by_any_name, Readers::Operators, Reach::UnixSocket), Ok(()));
    }

    #[test]
    fn refusals_are_logged_seldom_and_their_number_is_told() {
        let (guard, began) = (Guard::new([]), Instant::now());
        let log = |refusal, seconds| guard.to_log(refusal, began + Duration::from_secs(seconds));
        let (host, token) = (AdminRefusal::ForeignHost, AdminRefusal::NoToken);
        assert_eq!([log(host, 0), log(host, 1), log(token, 1), log(host, 9)], [Some(0), None, Some(0), None]);
        assert_eq!([log(host, 10), log(host, 11), log(host, 30)], [Some(2), None, Some(1)]);
    }
}
