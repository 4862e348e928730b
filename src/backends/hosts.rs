//! The system's file of names, hosts(5): names that need no name server.
//!
//! As in the system's own lookup, a name that is in the file is looked up there alone, in both families.

use std::collections::HashMap;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Where it is.
pub(super) const HOSTS_FILE: &str = "/etc/hosts";

/// What the file has.
#[derive(Debug, Default)]
pub(super) struct Hosts(HashMap<String, Vec<IpAddr>>);

impl Hosts {
    /// The system's; empty if there is none.
    pub(super) fn read() -> Self {
        Self::parse(&String::from_utf8_lossy(&fs::read(HOSTS_FILE).unwrap_or_default()))
    }

    /// Lines of an address and its names. Lines that are none are left out.
    fn parse(text: &str) -> Self {
        let mut hosts: HashMap<String, Vec<IpAddr>> = HashMap::new();
        for line in text.lines() {
            let mut words = line.split('#').next().unwrap_or_default().split_whitespace();
            let Some(ip) = words.next().and_then(|word| word.parse::<IpAddr>().ok()) else { continue };
            for name in words {
                let addresses = hosts.entry(key(name)).or_default();
                if !addresses.contains(&ip) {
                    addresses.push(ip);
                }
            }
        }
        Self(hosts)
    }

    /// The addresses of a name; `None`: a name server is to be asked.
    pub(super) fn addresses(&self, name: &str) -> Option<Vec<IpAddr>> {
        let name = key(name);
        // RFC 6761, 6.3: no name server is asked for it.
        let is_localhost = || name == "localhost" || name.ends_with(".localhost");
        let loopback = || vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
        self.0.get(&name).cloned().or_else(|| is_localhost().then(loopback))
    }
}

/// Names are compared in lower case, and with or without the root.
fn key(name: &str) -> String {
    name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_has_the_addresses_of_all_its_lines_and_of_no_comment() {
        let hosts =
            Hosts::parse("127.0.0.1 a A.test # b\n#127.0.0.2 a\nnone c\n::1\ta\n127.0.0.1 a\n127.0.0.3 my_app\r\n");
        let texts = |name| hosts.addresses(name).map(|all| all.iter().map(ToString::to_string).collect::<Vec<_>>());
        assert_eq!(texts("a"), Some(vec!["127.0.0.1".to_owned(), "::1".to_owned()]));
        assert_eq!(texts("a.TEST."), Some(vec!["127.0.0.1".to_owned()]));
        assert_eq!(texts("my_app"), Some(vec!["127.0.0.3".to_owned()]));
        assert_eq!((texts("b"), texts("c")), (None, None));
    }

    #[test]
    fn localhost_is_loopback_unless_the_file_says_which_family() {
        let both = vec![IpAddr::from(Ipv4Addr::LOCALHOST), Ipv6Addr::LOCALHOST.into()];
        assert_eq!(Hosts::default().addresses("localhost"), Some(both));
        let hosts = Hosts::parse("127.0.0.1 localhost");
        assert_eq!(hosts.addresses("localhost"), Some(vec![Ipv4Addr::LOCALHOST.into()]));
    }
}
