//! Rules that let clients in or refuse them, of which the first that fits decides, as `allow` and `deny` of lb.yaml, of
//! which `deny` wins.

use ipnet::IpNet;

/// One rule.
#[derive(Clone, Debug)]
pub struct Rule {
    pub allow: bool,
    /// Empty: everybody.
    pub networks: Vec<IpNet>,
}

/// The two lists of lb.yaml.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Lists {
    pub allow: Vec<String>,
    pub deny: Vec<String>,
}

/// The lists that mean the same as the rules; whom no rule fits is let in. `None`: there are none, as a network is
/// refused that lies within, or around, one that was let in before.
pub fn lists(rules: &[Rule]) -> Option<Lists> {
    let last = rules.iter().position(|rule| rule.networks.is_empty());
    let (rules, allow_rest) = match last {
        Some(at) => (&rules[..at], rules[at].allow),
        None => (rules, true),
    };
    // Rules at the end that say what holds for the rest anyway.
    let needed = rules.iter().rposition(|rule| rule.allow != allow_rest).map_or(0, |at| at + 1);
    let (mut allowed, mut denied): (Vec<IpNet>, Vec<IpNet>) = (Vec::new(), Vec::new());
    for rule in &rules[..needed] {
        if !rule.allow && rule.networks.iter().any(|one| allowed.iter().any(|other| overlap(one, other))) {
            return None;
        }
        if rule.allow { &mut allowed } else { &mut denied }.extend(&rule.networks);
    }
    if allow_rest {
        // What was let in by name is let in by default, too.
        allowed.clear();
    } else if allowed.is_empty() {
        // Nobody may connect, which an empty list can't say.
        denied = vec![IpNet::default(), IpNet::V6(ipnet::Ipv6Net::default())];
    }
    let texts = |networks: Vec<IpNet>| networks.iter().map(shown).collect();
    Some(Lists { allow: texts(allowed), deny: texts(denied) })
}

fn overlap(one: &IpNet, other: &IpNet) -> bool {
    one.contains(&other.network()) || other.contains(&one.network())
}

fn shown(network: &IpNet) -> String {
    if network.prefix_len() == network.max_prefix_len() { network.addr().to_string() } else { network.to_string() }
}

/// A network or an address.
pub fn network(text: &str) -> Option<IpNet> {
    text.parse().ok().or_else(|| text.parse().ok().map(|ip: std::net::IpAddr| IpNet::from(ip)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(rules: &[(bool, &str)]) -> Option<(String, String)> {
        let rules: Vec<Rule> = rules
            .iter()
            .map(|(allow, text)| Rule { allow: *allow, networks: network(text).into_iter().collect() })
            .collect();
        lists(&rules).map(|lists| (lists.allow.join(" "), lists.deny.join(" ")))
    }

    fn some(allow: &str, deny: &str) -> Option<(String, String)> {
        Some((allow.to_owned(), deny.to_owned()))
    }

    #[test]
    fn the_first_rule_that_fits_decides() {
        assert_eq!(of(&[(true, "10.0.0.0/8"), (true, "::1"), (false, "all")]), some("10.0.0.0/8 ::1", ""));
        assert_eq!(of(&[(false, "10.0.0.1"), (true, "10.0.0.0/8"), (false, "all")]), some("10.0.0.0/8", "10.0.0.1"));
        assert_eq!(of(&[(false, "10.0.0.1"), (true, "all")]), some("", "10.0.0.1"));
        assert_eq!(of(&[(true, "10.1.0.0/16"), (false, "10.0.0.0/8")]), None, "no lists say that");
        assert_eq!(of(&[(true, "10.1.0.0/16"), (false, "10.0.0.0/8"), (false, "all")]), some("10.1.0.0/16", ""));
        assert_eq!(of(&[(true, "10.1.0.0/16")]), some("", ""));
        assert_eq!(of(&[(false, "all"), (true, "10.0.0.0/8")]), some("", "0.0.0.0/0 ::/0"));
    }
}
