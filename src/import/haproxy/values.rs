//! HAProxy's own notations: times, addresses of servers and binds.

use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use crate::config::{BackendAddress, BindAddress};
use crate::import::values;

/// Microseconds; the first is for a number alone ("2.5. Time format").
const TIME_UNITS: [(&str, u64); 7] = [
    ("", 1_000),
    ("us", 1),
    ("ms", 1_000),
    ("s", 1_000_000),
    ("m", 60_000_000),
    ("h", 3_600_000_000),
    ("d", 86_400_000_000),
];

/// `30s`; a number alone is milliseconds.
pub fn time(text: &str) -> Option<Duration> {
    values::duration(text, &TIME_UNITS)
}

/// The host and the port of an address; `::1:80` is both.
fn split(text: &str) -> (String, Option<&str>) {
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (text, None),
    };
    let inner = host.trim_start_matches('[').trim_end_matches(']');
    let host = if inner.parse::<Ipv6Addr>().is_ok() { format!("[{inner}]") } else { host.to_owned() };
    (host, port.filter(|port| !port.is_empty()))
}

/// Without the prefix that says its family; `None`: a family that lb doesn't have.
fn without_family(text: &str) -> Option<String> {
    for family in ["ipv4@", "ipv6@", "tcp4@", "tcp6@", "tcp@", "ip@"] {
        if let Some(rest) = text.strip_prefix(family) {
            return Some(rest.to_owned());
        }
    }
    if let Some(path) = text.strip_prefix("unix@").or_else(|| text.starts_with('/').then_some(text)) {
        return Some(format!("unix:{path}"));
    }
    let has_other = ["abns@", "abnsz@", "sockpair@", "quic", "udp", "rhttp@", "stdout", "uxst@", "mptcp"]
        .iter()
        .any(|family| text.starts_with(family));
    (!has_other).then(|| text.to_owned())
}

/// The address of a server; `port` is that of the clients, which one without a port gets.
///
/// # Errors
/// lb has no such address.
pub fn server(text: &str, port: Option<u16>) -> Result<String, String> {
    let text = without_family(text).ok_or_else(|| format!("lb has no addresses such as `{text}`"))?;
    if text.starts_with("unix:") {
        return text.parse().map(|address: BackendAddress| address.to_string());
    }
    if text.starts_with('_') {
        let service = text.split(':').next().unwrap_or_default();
        return format!("srv:{service}").parse().map(|address: BackendAddress| address.to_string());
    }
    let (host, own) = split(&text);
    if matches!(host.as_str(), "" | "*" | "0.0.0.0" | "[::]") {
        return Err("where its connections go depends on where the client wanted to go".to_owned());
    }
    let port = match own {
        Some(own) if own.starts_with(['+', '-']) => return Err("its port depends on the client's".to_owned()),
        Some(own) => own.to_owned(),
        None => port.ok_or("it has no port, and no client comes by one")?.to_string(),
    };
    format!("{host}:{port}").parse().map(|address: BackendAddress| address.to_string())
}

/// Ports of one `bind`; more must be a mistake.
const MAX_PORTS: usize = 1000;

/// The addresses of a `bind`. `both_families`: IPv6 wildcards take IPv4 clients, too.
///
/// # Errors
/// lb can't listen there.
pub fn binds(text: &str, both_families: bool) -> Result<Vec<String>, String> {
    let mut all = Vec::new();
    for text in text.split(',') {
        if text.starts_with("fd@") {
            all.push(text.parse::<BindAddress>()?.to_string());
            continue;
        }
        let text = without_family(text).ok_or_else(|| format!("lb can't listen at `{text}`"))?;
        if text.starts_with("unix:") {
            all.push(text.parse::<BindAddress>()?.to_string());
            continue;
        }
        let (host, port) = split(&text);
        let host = match host.as_str() {
            "" | "*" => "0.0.0.0",
            "[::]" | "::" if both_families => "*",
            other => other,
        };
        let ports = port.ok_or_else(|| format!("`{text}` has no port"))?;
        let (first, last) = ports.split_once('-').unwrap_or((ports, ports));
        let wrong = || format!("`{text}` has no port from 1 to 65535");
        let range = first.parse::<u16>().map_err(|_| wrong())?..=last.parse::<u16>().map_err(|_| wrong())?;
        if range.is_empty() || *range.start() == 0 || range.len() + all.len() > MAX_PORTS {
            return Err(wrong());
        }
        for port in range {
            all.push(format!("{host}:{port}").parse::<BindAddress>()?.to_string());
        }
    }
    Ok(all)
}

/// The port of an address of lb.yaml.
pub fn port_of(address: &str) -> Option<u16> {
    address.rsplit_once(':')?.1.parse().ok()
}

/// Whether it is an address, and no name.
pub fn is_ip(address: &str) -> bool {
    let (host, _) = split(address);
    host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>().is_ok()
}

/// `5353482d`; `None`: it isn't hexadecimal.
pub fn bytes_of_hex(hex: &str) -> Option<Vec<u8>> {
    let is_hex = !hex.is_empty() && hex.len().is_multiple_of(2) && hex.bytes().all(|byte| byte.is_ascii_hexdigit());
    let byte = |pair: &[u8]| u8::from_str_radix(str::from_utf8(pair).ok()?, 16).ok();
    if is_hex { hex.as_bytes().chunks(2).map(byte).collect() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_read_from_hexadecimal() {
        assert_eq!(bytes_of_hex("50494E470d0a"), Some(b"PING\r\n".to_vec()));
        assert_eq!((bytes_of_hex("5"), bytes_of_hex("zz")), (None, None));
    }

    #[test]
    fn times_are_in_milliseconds() {
        for (text, millis) in [("5000", 5000), ("5s", 5000), ("1m", 60_000), ("500us", 0), ("0", 0)] {
            assert_eq!(time(text).map(|time| time.as_millis()), Some(millis), "{text}");
        }
        assert_eq!((time("x"), time("5 s"), time("5w")), (None, None, None));
    }

    #[test]
    fn addresses_have_families_and_ports() {
        let servers = [
            ("10.0.0.1:80", "10.0.0.1:80"),
            ("::1:80", "[::1]:80"),
            ("[::1]:80", "[::1]:80"),
            ("ipv4@app:80", "app:80"),
            ("/run/app.sock", "unix:/run/app.sock"),
            ("app", "app:99"),
            ("_web._tcp.app", "srv:_web._tcp.app"),
        ];
        for (text, address) in servers {
            assert_eq!(server(text, Some(99)).as_deref(), Ok(address), "{text}");
        }
        for text in ["*:80", ":80", "a:+1", "abns@x", "app"] {
            assert!(server(text, None).is_err(), "{text}");
        }
        assert_eq!(
            binds(":80,*:81,10.0.0.1:82", false),
            Ok(["0.0.0.0:80", "0.0.0.0:81", "10.0.0.1:82"].map(str::to_owned).to_vec())
        );
        assert_eq!(
            (binds(":::80", true), binds("[::]:80", false)),
            (Ok(vec!["*:80".to_owned()]), Ok(vec!["[::]:80".to_owned()]))
        );
        assert_eq!(binds(":80-82", false).map(|all| all.len()), Ok(3));
    }
}
