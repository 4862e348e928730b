//! Writes a header of either version. What a version can't express is left out.

use super::v2::SIGNATURE;
use super::{Header, Origin, tls_tlvs};
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

const LOCAL: u8 = 0x20;
const PROXY: u8 = 0x21;
const UNSPEC: u8 = 0x00;
const TCP_OVER_IPV4: u8 = 0x11;
const TCP_OVER_IPV6: u8 = 0x21;
const UNIX_STREAM: u8 = 0x31;
/// Two paths of 108 bytes each.
const UNIX_BYTES: usize = 216;

/// Which version is written; both are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyVersion {
    /// A line of text.
    V1,
    /// Binary.
    V2,
}

/// Client and server addresses of one family, as a header has only one.
enum Pair {
    V4([Ipv4Addr; 2]),
    V6([Ipv6Addr; 2]),
}

/// Appends the header. If the addresses are of two families, the IPv4 one is written as IPv4-mapped.
/// Version 1 can't express a unix socket, and has UNKNOWN instead.
pub fn write(version: ProxyVersion, header: &Header<'_>, out: &mut Vec<u8>) {
    match version {
        ProxyVersion::V1 => write_v1(header.origin, out),
        ProxyVersion::V2 => write_v2(header, out),
    }
}

fn write_v1(origin: Origin, out: &mut Vec<u8>) {
    let Origin::Tcp { client, server } = origin else {
        out.extend_from_slice(b"PROXY UNKNOWN\r\n");
        return;
    };
    let (family, [client_ip, server_ip]) = match Pair::new(client.ip(), server.ip()) {
        Pair::V4(pair) => ("TCP4", pair.map(|ip| ip.to_string())),
        Pair::V6(pair) => ("TCP6", pair.map(in_hexadecimal)),
    };
    let (client_port, server_port) = (client.port(), server.port());
    write!(out, "PROXY {family} {client_ip} {server_ip} {client_port} {server_port}\r\n").expect("a Vec takes all");
}

/// The specification's grammar for IPv6 has no dots, which Display uses for mapped addresses.
fn in_hexadecimal(ip: Ipv6Addr) -> String {
    match ip.segments() {
        [0, 0, 0, 0, 0, 0xffff, high, low] => format!("::ffff:{high:x}:{low:x}"),
        _ => ip.to_string(),
    }
}

fn write_v2(header: &Header<'_>, out: &mut Vec<u8>) {
    out.extend_from_slice(&SIGNATURE);
    let start = out.len();
    match header.origin {
        Origin::Local => out.extend_from_slice(&[LOCAL, UNSPEC, 0, 0]),
        Origin::Unix => {
            out.extend_from_slice(&[PROXY, UNIX_STREAM, 0, 0]);
            out.resize(out.len() + UNIX_BYTES, 0);
        }
        Origin::Tcp { client, server } => write_v2_tcp(client, server, out),
    }
    if let Some(tls) = &header.tls {
        tls_tlvs::write(tls, out);
    }
    // Of what follows these four bytes.
    let length = u16::try_from(out.len() - start - 4).expect("addresses and names are short");
    out[start + 2..start + 4].copy_from_slice(&length.to_be_bytes());
}

fn write_v2_tcp(client: SocketAddr, server: SocketAddr, out: &mut Vec<u8>) {
    match Pair::new(client.ip(), server.ip()) {
        Pair::V4(pair) => {
            out.extend_from_slice(&[PROXY, TCP_OVER_IPV4, 0, 0]);
            out.extend(pair.iter().flat_map(Ipv4Addr::octets));
        }
        Pair::V6(pair) => {
            out.extend_from_slice(&[PROXY, TCP_OVER_IPV6, 0, 0]);
            out.extend(pair.iter().flat_map(Ipv6Addr::octets));
        }
    }
    out.extend_from_slice(&client.port().to_be_bytes());
    out.extend_from_slice(&server.port().to_be_bytes());
}

impl Pair {
    fn new(client: IpAddr, server: IpAddr) -> Self {
        match (client.to_canonical(), server.to_canonical()) {
            (IpAddr::V4(client), IpAddr::V4(server)) => Self::V4([client, server]),
            _ => Self::V6([client, server].map(|ip| match ip {
                IpAddr::V4(ip) => ip.to_ipv6_mapped(),
                IpAddr::V6(ip) => ip,
            })),
        }
    }
}
