//! Rules that let clients in or refuse them, of which the first that fits decides, as `allow` and `deny` of lb.yaml, of
//! which `deny` wins.

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// Networks that a list may need. Each rule within an earlier one's network cuts that into up to 128.
const MAX_NETWORKS: usize = 2_000;

/// One rule.
#[derive(Clone, Debug)]
pub struct Rule {
    pub allow: bool,
    /// Empty: everybody.
    pub networks: Vec<IpNet>,
}

/// The two lists of lb.yaml.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lists {
    /// Empty: everybody.
    pub allow: Vec<IpNet>,
    pub deny: Vec<IpNet>,
}

impl Lists {
    /// Those that let in whom the rules let in; whom no rule fits is let in. `None`: they would be too long.
    pub fn of(rules: &[Rule]) -> Option<Self> {
        let last = rules.iter().position(|rule| rule.networks.is_empty());
        let (rules, allow_rest) = match last {
            Some(at) => (&rules[..at], rules[at].allow),
            None => (rules, true),
        };
        // Rules at the end that say what holds for the rest anyway.
        let needed = rules.iter().rposition(|rule| rule.allow != allow_rest).map_or(0, |at| at + 1);
        let rules = &rules[..needed];
        if allow_rest {
            // What is let in by name is let in by default, too.
            let (_, deny) = as_written(rules).or_else(|| apart(rules))?;
            return Some(Self { allow: Vec::new(), deny });
        }
        let (allow, deny) = as_written(rules).or_else(|| Some((apart(rules)?.0, Vec::new())))?;
        Some(if allow.is_empty() { Self::nobody() } else { Self { allow, deny } })
    }

    /// Nobody may connect, which an empty list can't say.
    pub fn nobody() -> Self {
        Self { allow: Vec::new(), deny: everybody() }
    }

    /// Those that let in whom both of them let in.
    pub fn and(self, other: Self) -> Self {
        let mut deny = self.deny;
        deny.extend(other.deny.into_iter().filter(|one| !deny.contains(one)).collect::<Vec<_>>());
        match (self.allow.is_empty(), other.allow.is_empty()) {
            (true, _) => Self { allow: other.allow, deny },
            (_, true) => Self { allow: self.allow, deny },
            (false, false) => {
                let allow = common(&self.allow, &other.allow);
                if allow.is_empty() { Self::nobody() } else { Self { allow, deny } }
            }
        }
    }

    /// All networks that are let in. `None`: there are too many.
    pub fn let_in(&self) -> Option<Vec<IpNet>> {
        let allow = if self.allow.is_empty() { everybody() } else { self.allow.clone() };
        without(&allow, &self.deny)
    }
}

/// The networks as the rules name them, where no refused one lies within, or around, one that was let in before.
fn as_written(rules: &[Rule]) -> Option<(Vec<IpNet>, Vec<IpNet>)> {
    let (mut allowed, mut denied): (Vec<IpNet>, Vec<IpNet>) = (Vec::new(), Vec::new());
    for rule in rules {
        if !rule.allow && rule.networks.iter().any(|one| allowed.iter().any(|other| overlap(one, other))) {
            return None;
        }
        if rule.allow { &mut allowed } else { &mut denied }.extend(&rule.networks);
    }
    Some((allowed, denied))
}

/// Networks that don't overlap: each rule has what the earlier ones leave to it.
fn apart(rules: &[Rule]) -> Option<(Vec<IpNet>, Vec<IpNet>)> {
    let (mut allowed, mut denied): (Vec<IpNet>, Vec<IpNet>) = (Vec::new(), Vec::new());
    for rule in rules {
        let left = without(&without(&rule.networks, &allowed)?, &denied)?;
        if rule.allow { &mut allowed } else { &mut denied }.extend(left);
    }
    Some((allowed, denied))
}

/// What is in the one and not in the other. `None`: it takes too many networks to say.
pub fn without(networks: &[IpNet], holes: &[IpNet]) -> Option<Vec<IpNet>> {
    let (mut left, mut whole) = (networks.to_vec(), Vec::new());
    while let Some(network) = left.pop() {
        match holes.iter().find(|hole| overlap(&network, hole)) {
            None => whole.push(network),
            Some(hole) if hole.contains(&network) => {}
            Some(_) => left.extend(halves(&network)),
        }
        if left.len() + whole.len() > MAX_NETWORKS {
            return None;
        }
    }
    whole.sort();
    Some(whole)
}

fn common(one: &[IpNet], other: &[IpNet]) -> Vec<IpNet> {
    let mut both: Vec<IpNet> = Vec::new();
    for (a, b) in one.iter().flat_map(|a| other.iter().map(move |b| (a, b))) {
        let inner = if a.contains(b) { b } else { a };
        if overlap(a, b) && !both.contains(inner) {
            both.push(*inner);
        }
    }
    both
}

/// The two halves of a network; nothing of a single address.
fn halves(network: &IpNet) -> Vec<IpNet> {
    network.subnets(network.prefix_len() + 1).map(Iterator::collect).unwrap_or_default()
}

fn overlap(one: &IpNet, other: &IpNet) -> bool {
    one.contains(other) || other.contains(one)
}

/// All addresses.
pub fn everybody() -> Vec<IpNet> {
    vec![IpNet::V4(Ipv4Net::default()), IpNet::V6(Ipv6Net::default())]
}

/// As lb.yaml has them.
pub fn texts(networks: &[IpNet]) -> Vec<String> {
    let shown = |network: &IpNet| {
        if network.prefix_len() == network.max_prefix_len() { network.addr().to_string() } else { network.to_string() }
    };
    networks.iter().map(shown).collect()
}

/// A network or an address. Those of IPv4 within `::ffff:0:0/96` are networks of IPv4.
pub fn network(text: &str) -> Option<IpNet> {
    let network: Option<IpNet> = text.parse().ok();
    let network = network.or_else(|| text.parse().ok().map(|ip: std::net::IpAddr| IpNet::from(ip)))?.trunc();
    let IpNet::V6(mapped) = network else { return Some(network) };
    let ipv4 = mapped.prefix_len().checked_sub(96).zip(mapped.network().to_ipv4_mapped());
    Some(ipv4.and_then(|(prefix, address)| IpNet::new(address.into(), prefix).ok()).unwrap_or(network))
}

/// With all of IPv4 where its clients, as `::ffff:a.b.c.d`, are in a network of IPv6.
pub fn with_ipv4(mut networks: Vec<IpNet>) -> Vec<IpNet> {
    let mapped: IpNet = "::ffff:0:0/96".parse().expect("it is a network");
    if networks.iter().any(|network| network.contains(&mapped)) {
        networks.push(IpNet::V4(Ipv4Net::default()));
    }
    networks
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(rules: &[(bool, &str)]) -> Vec<Rule> {
        let rule = |(allow, text): &(bool, &str)| Rule { allow: *allow, networks: network(text).into_iter().collect() };
        rules.iter().map(rule).collect()
    }

    fn of(of: &[(bool, &str)]) -> (String, String) {
        let lists = Lists::of(&rules(of)).expect("they are short");
        (texts(&lists.allow).join(" "), texts(&lists.deny).join(" "))
    }

    fn some(allow: &str, deny: &str) -> (String, String) {
        (allow.to_owned(), deny.to_owned())
    }

    #[test]
    fn the_first_rule_that_fits_decides() {
        assert_eq!(of(&[(true, "10.0.0.0/8"), (true, "::1"), (false, "all")]), some("10.0.0.0/8 ::1", ""));
        assert_eq!(of(&[(false, "10.0.0.1"), (true, "10.0.0.0/8"), (false, "all")]), some("10.0.0.0/8", "10.0.0.1"));
        assert_eq!(of(&[(false, "10.0.0.1"), (true, "all")]), some("", "10.0.0.1"));
        assert_eq!(of(&[(true, "10.1.0.0/16"), (false, "10.0.0.0/8"), (false, "all")]), some("10.1.0.0/16", ""));
        assert_eq!(of(&[(true, "10.1.0.0/16")]), some("", ""));
        assert_eq!(of(&[(false, "all"), (true, "10.0.0.0/8")]), some("", "0.0.0.0/0 ::/0"));
    }

    #[test]
    fn networks_of_ipv4_may_be_written_as_ipv6() {
        for (text, expected) in [
            ("::ffff:10.0.0.0/104", "10.0.0.0/8"),
            ("::ffff:10.1.2.3", "10.1.2.3"),
            ("::ffff:0:0/96", "0.0.0.0/0"),
            ("::ffff:0:0/95", "::fffe:0:0/95"),
            ("10.1.2.3/8", "10.0.0.0/8"),
        ] {
            assert_eq!(texts(network(text).as_slice()), [expected], "{text}");
        }
    }

    #[test]
    fn what_is_let_in_of_a_network_that_is_refused_is_cut_out_of_it() {
        assert_eq!(of(&[(true, "10.1.0.0/16"), (false, "10.0.0.0/14")]), some("", "10.0.0.0/16 10.2.0.0/15"));
        assert_eq!(of(&[(true, "10.0.0.0/8"), (false, "10.0.0.0/8")]), some("", ""));
    }

    #[test]
    fn the_lists_say_of_every_address_what_the_rules_say() {
        let mut random = fastrand::Rng::with_seed(7);
        for _ in 0..500 {
            let rule = |random: &mut fastrand::Rng| {
                let prefix = random.u8(27..=32);
                let text = format!("10.0.0.{}/{prefix}", random.u8(..32));
                let networks = if random.u8(..8) == 0 { Vec::new() } else { network(&text).into_iter().collect() };
                Rule { allow: random.bool(), networks }
            };
            let rules: Vec<Rule> = (0..random.usize(0..6)).map(|_| rule(&mut random)).collect();
            let lists = Lists::of(&rules).expect("they are short");
            for last in 0..32 {
                let client: IpNet = format!("10.0.0.{last}/32").parse().expect("an address");
                let fits = |networks: &[IpNet]| networks.iter().any(|network| network.contains(&client));
                let decides = rules.iter().find(|rule| rule.networks.is_empty() || fits(&rule.networks));
                let expected = decides.is_none_or(|rule| rule.allow);
                let is_let_in = (lists.allow.is_empty() || fits(&lists.allow)) && !fits(&lists.deny);
                assert_eq!(is_let_in, expected, "{client}: {rules:?} {lists:?}");
                assert_eq!(fits(&lists.let_in().expect("it is short")), expected, "{client}: {lists:?}");
            }
        }
    }

    #[test]
    fn who_is_to_be_in_both_lists_is_in_both() {
        let one = Lists::of(&rules(&[(true, "10.0.0.0/8"), (false, "all")])).expect("it is short");
        let other = Lists::of(&rules(&[(false, "10.1.1.1"), (true, "10.1.0.0/16"), (false, "all")])).expect("short");
        let both = one.clone().and(other);
        assert_eq!((texts(&both.allow), texts(&both.deny)), (vec!["10.1.0.0/16".into()], vec!["10.1.1.1".into()]));
        let apart = Lists::of(&rules(&[(true, "11.0.0.0/8"), (false, "all")])).expect("it is short");
        assert_eq!(one.and(apart), Lists::nobody());
    }

    #[test]
    fn lists_without_end_are_none() {
        let mut many: Vec<(bool, String)> = (0..200).map(|at| (true, format!("10.{at}.0.1"))).collect();
        many.push((false, "10.0.0.0/8".to_owned()));
        let many: Vec<(bool, &str)> = many.iter().map(|(allow, text)| (*allow, text.as_str())).collect();
        assert_eq!(Lists::of(&rules(&many)), None);
    }
}
