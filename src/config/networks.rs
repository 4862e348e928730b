//! Sets of networks, and whether an address is in one of them.

use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// A set of addresses, written as networks (`10.0.0.0/8`, `fd00::/8`) or single addresses.
///
/// Overlapping and adjacent networks are merged, so that a lookup is one binary search: 10,000 networks cost 14
/// comparisons.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Networks {
    /// Disjoint and in order.
    v4: Vec<Ipv4Net>,
    /// Disjoint and in order.
    v6: Vec<Ipv6Net>,
}

impl Networks {
    pub fn is_empty(&self) -> bool {
        self.v4.is_empty() && self.v6.is_empty()
    }

    /// Whether `address` is in one of the networks; an IPv4-mapped one counts as IPv4.
    pub fn contains(&self, address: IpAddr) -> bool {
        match address.to_canonical() {
            // Only the last network that begins at or before the address can contain it.
            IpAddr::V4(address) => {
                let after = self.v4.partition_point(|network| network.network() <= address);
                after > 0 && self.v4[after - 1].contains(&address)
            }
            IpAddr::V6(address) => {
                let after = self.v6.partition_point(|network| network.network() <= address);
                after > 0 && self.v6[after - 1].contains(&address)
            }
        }
    }
}

impl FromIterator<IpNet> for Networks {
    fn from_iter<I: IntoIterator<Item = IpNet>>(networks: I) -> Self {
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for network in networks {
            match network {
                IpNet::V4(network) => v4.push(network),
                IpNet::V6(network) => match unmapped(network) {
                    Some(network) => v4.push(network),
                    None => v6.push(network),
                },
            }
        }
        Self { v4: Ipv4Net::aggregate(&v4), v6: Ipv6Net::aggregate(&v6) }
    }
}

/// A network within ::ffff:0:0/96 is one of IPv4 clients (RFC 4291, 2.5.5.2), which are looked up as IPv4.
fn unmapped(network: Ipv6Net) -> Option<Ipv4Net> {
    let prefix = network.prefix_len().checked_sub(96)?;
    Ipv4Net::new(network.network().to_ipv4_mapped()?, prefix).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn mapped_addresses_count_as_ipv4() {
        let networks: Networks = ["10.0.0.0/8".parse().expect("a network")].into_iter().collect();
        assert!(networks.contains("::ffff:10.1.2.3".parse().expect("an address")));
        assert!(!networks.contains("::a01:203".parse().expect("an address")));
        let mapped: Networks = ["::ffff:10.0.0.0/104".parse().expect("a network")].into_iter().collect();
        assert_eq!(mapped, networks);
    }

    proptest! {
        #[test]
        fn an_address_is_in_the_set_if_it_is_in_a_network(
            networks in prop::collection::vec((any::<u16>(), 16u8..=32), 0..40),
            address in any::<u16>(),
        ) {
            // 10.1.x.y: few enough that addresses are in some of the networks.
            let at = |low: u16| IpAddr::from([10, 1, (low >> 8) as u8, (low & 0xFF) as u8]);
            let networks: Vec<IpNet> =
                networks.into_iter().map(|(low, prefix)| IpNet::new(at(low), prefix).expect("a prefix")).collect();
            let expected = networks.iter().any(|network| network.contains(&at(address)));
            prop_assert_eq!(networks.into_iter().collect::<Networks>().contains(at(address)), expected);
        }
    }
}
