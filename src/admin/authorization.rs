//! Who may make changes by the API: requests with the bearer token if there is one, else only this machine; and never a
//! page of another site in a browser (cross-site requests, DNS rebinding).

use std::collections::HashSet;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwapOption;
use hyper::StatusCode;
use hyper::header::{AUTHORIZATION, HOST, HeaderMap, HeaderName, ORIGIN};

/// Judges requests that change something.
#[derive(Debug)]
pub struct Guard {
    /// The admin server can be reached from this machine only.
    is_local: bool,
    token: ArcSwapOption<String>,
    /// Names under which changes are accepted, in lower case.
    hosts: HashSet<String>,
    refused: [AtomicU64; AdminRefusal::ALL.len()],
}

labels! {
    /// Why a change is refused.
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
            Self::ForeignOrigin => "changes are not accepted from a page of another site",
            Self::ForeignHost => {
                "changes are accepted only under an IP address, localhost, or a name of admin.allowed_hosts"
            }
        }
    }
}

impl Guard {
    /// `is_local`: the admin server can be reached from this machine only. `hosts` are its names.
    pub fn new(is_local: bool, hosts: impl IntoIterator<Item = String>) -> Self {
        let hosts = hosts.into_iter().map(|host| host.to_ascii_lowercase()).collect();
        Self { is_local, token: ArcSwapOption::empty(), hosts, refused: Default::default() }
    }

    /// The token that changes need from now on; `None`: they need none.
    pub fn set_token(&self, token: Option<String>) {
        self.token.store(token.map(Into::into));
    }

    /// Whether changes need no token, so that the page can offer them.
    pub(super) fn is_open(&self) -> bool {
        self.is_local && self.token.load().is_none()
    }

    /// Judges a request by its headers, and counts a refusal.
    pub(super) fn judge(&self, headers: &HeaderMap) -> Result<(), AdminRefusal> {
        let verdict = self.verdict(headers);
        if let Err(refusal) = verdict {
            self.refused[refusal as usize].fetch_add(1, Ordering::Relaxed);
        }
        verdict
    }

    /// Refusals so far, by reason.
    pub(super) fn refused(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        AdminRefusal::ALL
            .iter()
            .map(|refusal| (refusal.as_str(), self.refused[*refusal as usize].load(Ordering::Relaxed)))
    }

    fn verdict(&self, headers: &HeaderMap) -> Result<(), AdminRefusal> {
        let text = |name: HeaderName| headers.get(name).map(|value| value.to_str().unwrap_or_default());
        let host = text(HOST).unwrap_or_default();
        if !self.is_own_host(host) {
            return Err(AdminRefusal::ForeignHost);
        }
        let is_own = |origin: &str| origin.strip_prefix("http://").is_some_and(|own| own.eq_ignore_ascii_case(host));
        if text(ORIGIN).is_some_and(|origin| !is_own(origin)) {
            return Err(AdminRefusal::ForeignOrigin);
        }
        match (&*self.token.load(), headers.get(AUTHORIZATION)) {
            (None, _) if self.is_local => Ok(()),
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
        let here = headers(&[("host", "127.0.0.1:9900")]);
        assert_eq!(Guard::new(true, []).judge(&here), Ok(()));
        assert_eq!(Guard::new(false, []).judge(&here), Err(AdminRefusal::NoTokenFile));
    }

    #[test]
    fn the_token_must_be_the_right_one() {
        let guard = Guard::new(false, []);
        guard.set_token(Some("secret".to_owned()));
        let with = |token: &str| headers(&[("host", "[::1]:9900"), ("authorization", token)]);
        assert_eq!(guard.judge(&with("Bearer secret")), Ok(()));
        for wrong in ["Bearer secre", "Bearer secrets", "Bearer ", "Basic secret", "secret"] {
            assert_eq!(guard.judge(&with(wrong)), Err(AdminRefusal::WrongToken), "{wrong}");
        }
        assert_eq!(guard.judge(&headers(&[("host", "10.0.0.1")])), Err(AdminRefusal::NoToken));
        assert_eq!(guard.refused().map(|(_, count)| count).collect::<Vec<_>>(), [0, 1, 5, 0, 0]);
    }

    #[test]
    fn pages_of_other_sites_and_rebound_names_are_refused() {
        let guard = Guard::new(true, ["LB.internal".to_owned()]);
        let judge = |host: &str, origin: &str| guard.judge(&headers(&[("host", host), ("origin", origin)]));
        assert_eq!(judge("localhost:9900", "http://localhost:9900"), Ok(()));
        assert_eq!(judge("lb.internal", "http://lb.internal"), Ok(()));
        assert_eq!(judge("localhost:9900", "http://localhost:9901"), Err(AdminRefusal::ForeignOrigin));
        assert_eq!(judge("127.0.0.1:9900", "null"), Err(AdminRefusal::ForeignOrigin));
        assert_eq!(judge("evil.example:9900", "http://evil.example:9900"), Err(AdminRefusal::ForeignHost));
        assert_eq!(guard.judge(&headers(&[])), Err(AdminRefusal::ForeignHost));
    }
}
