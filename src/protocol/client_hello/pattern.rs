//! Patterns of server names, as a configuration writes them, and which of several matches is the best. It knows nothing
//! of TLS.

use super::name::{BadName, is_ip_address, normalize};
use std::fmt;
use std::str::FromStr;

/// `example.com`: this name. `*.example.com`: every name below it, by one label or more, and not itself. `*`: every
/// name.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct ServerNamePattern(Kind);

#[derive(Clone, Debug, Eq, Hash, PartialEq)]
enum Kind {
    Exact(String),
    /// With the dot before it.
    Suffix(String),
    Any,
}

impl ServerNamePattern {
    /// Compares with a name as `ClientHello::server_name` has it. `*` matches every name; whether it also matches a
    /// hello without one is up to the caller.
    pub fn matches(&self, name: &str) -> bool {
        match &self.0 {
            Kind::Exact(exact) => name == exact,
            Kind::Suffix(suffix) => name.len() > suffix.len() && name.ends_with(suffix.as_str()),
            Kind::Any => true,
        }
    }

    /// The best of the patterns that match a name has the highest rank: the exact one, then the longest wildcard, then
    /// `*`. Two of the same rank that match one name are equal.
    pub fn rank(&self) -> usize {
        match &self.0 {
            Kind::Exact(_) => usize::MAX,
            Kind::Suffix(suffix) => suffix.len(),
            Kind::Any => 0,
        }
    }
}

impl FromStr for ServerNamePattern {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "*" {
            return Ok(Self(Kind::Any));
        }
        let (is_wildcard, name) = text.strip_prefix("*.").map_or((false, text), |name| (true, name));
        if is_ip_address(name.as_bytes()) {
            return Err(format!("`{text}`: clients send no IP addresses; write a host name, or * for every name"));
        }
        let name = normalize(name.as_bytes()).map_err(|bad| wrong(text, bad))?;
        Ok(Self(if is_wildcard { Kind::Suffix(format!(".{name}")) } else { Kind::Exact(name) }))
    }
}

fn wrong(text: &str, bad: BadName) -> String {
    let remedy = match bad {
        _ if text.starts_with('.') && text.len() > 1 => {
            return format!("`{text}`: write *{text} for all names below it");
        }
        BadName::Character if text.contains('*') => "write * alone or for the first labels, as in *.example.com",
        BadName::Character if text.contains([':', '/']) => "write the host name alone, without scheme, port and path",
        BadName::NotAscii => "write it as it is on the wire, in its xn-- form",
        BadName::TooLong => "a name has at most 253 characters",
        BadName::LongLabel => "each part of a name has at most 63 characters",
        BadName::Empty | BadName::EmptyLabel | BadName::Character => {
            "write a host name, such as example.com, or *.example.com, or * for every name"
        }
    };
    format!("`{text}` is not a valid server name; {remedy}")
}

impl fmt::Display for ServerNamePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Kind::Exact(name) => f.write_str(name),
            Kind::Suffix(suffix) => write!(f, "*{suffix}"),
            Kind::Any => f.write_str("*"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(text: &str) -> ServerNamePattern {
        text.parse().unwrap_or_else(|error| panic!("{error}"))
    }

    #[test]
    fn matches_one_name_or_all_below_it_or_all() {
        let exact = pattern("Example.COM.");
        assert!(exact.matches("example.com"));
        assert!(!exact.matches("www.example.com") && !exact.matches("example.co") && !exact.matches(""));
        let below = pattern("*.Example.com");
        assert!(below.matches("www.example.com") && below.matches("a.b.example.com"));
        assert!(!below.matches("example.com") && !below.matches("notexample.com"));
        assert!(!below.matches(".example.com") && !below.matches("www.example.com.evil.test"));
        assert!(pattern("*.com").matches("example.com"));
        assert!(pattern("*").matches("example.com") && pattern("*").matches("localhost"));
    }

    #[test]
    fn ranks_the_exact_name_before_the_longest_wildcard_before_all() {
        let mut patterns = ["*", "*.com", "a.example.com", "*.example.com"].map(pattern);
        patterns.sort_by_key(|pattern| std::cmp::Reverse(pattern.rank()));
        assert_eq!(patterns.map(|pattern| pattern.to_string()), ["a.example.com", "*.example.com", "*.com", "*"]);
        assert!(pattern("a").rank() > pattern(&format!("*.{}", "a.".repeat(126))).rank());
    }

    #[test]
    fn is_shown_in_the_form_that_is_compared() {
        for text in ["example.com", "*.example.com", "*", "_sip.a-b.example", "localhost", "xn--bcher-kva.example"] {
            assert_eq!(pattern(text).to_string(), text);
        }
        assert_eq!(pattern("*.EXAMPLE.com."), pattern("*.example.com"));
    }

    #[test]
    fn refuses_what_is_no_name_with_a_remedy() {
        for (text, remedy) in [
            ("", "such as example.com"),
            (".", "such as example.com"),
            ("*.", "such as example.com"),
            ("a..example", "such as example.com"),
            ("a b", "such as example.com"),
            (".example.com", "write *.example.com"),
            ("*example.com", "write * alone"),
            ("www.*.com", "write * alone"),
            ("*.*.com", "write * alone"),
            ("**", "write * alone"),
            ("https://example.com/", "without scheme"),
            ("example.com:443", "without scheme"),
            ("bücher.example", "xn--"),
            ("192.0.2.1", "no IP addresses"),
            ("*.192.0.2.1", "no IP addresses"),
            ("[2001:db8::1]", "no IP addresses"),
            (&"a".repeat(64), "at most 63"),
            (&"a.".repeat(130), "at most 253"),
        ] {
            let error = text.parse::<ServerNamePattern>().expect_err(text);
            assert!(error.contains(remedy) && error.contains(text), "{error}");
        }
    }
}
