//! A name server that answers as a test wants, by UDP alone: late, cut short, or not at all. What a good one does is
//! dnsmasq's to show.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::{Arc, Mutex};
use std::thread;

/// A question: the name in lower case without the root, and the type, `A`, `AAAA` or another's number.
pub type Question = (String, &'static str);

/// What a question is answered with.
pub enum Reply {
    V4(Vec<Ipv4Addr>),
    V6(Vec<Ipv6Addr>),
    /// The name exists, without such a record.
    Nothing,
    /// The first ones of more.
    Truncated(Vec<Ipv4Addr>),
    /// None.
    Silence,
}

/// Answers until the process ends. TCP is refused at its address.
pub struct DnsStub {
    address: SocketAddr,
    asked: Arc<Mutex<BTreeMap<Question, usize>>>,
}

impl DnsStub {
    pub fn that(answer: impl FnMut(&str, &str) -> Reply + Send + 'static) -> Self {
        Self::at(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), answer)
    }

    pub fn at(address: SocketAddr, mut answer: impl FnMut(&str, &str) -> Reply + Send + 'static) -> Self {
        let socket = UdpSocket::bind(address).expect("the address is free");
        let address = socket.local_addr().expect("it is bound");
        let asked: Arc<Mutex<BTreeMap<Question, usize>>> = Arc::default();
        let seen = asked.clone();
        thread::spawn(move || {
            let mut query = [0; 1500];
            while let Ok((length, client)) = socket.recv_from(&mut query) {
                let (question, end) = question(&query[..length]);
                *seen.lock().unwrap().entry(question.clone()).or_default() += 1;
                if let Some(reply) = message(&query[..end], answer(&question.0, question.1)) {
                    let _ = socket.send_to(&reply, client);
                }
            }
        });
        Self { address, asked }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// How often each question was asked.
    pub fn asked(&self) -> BTreeMap<Question, usize> {
        self.asked.lock().unwrap().clone()
    }
}

/// The question of a query, and where it ends (RFC 1035, 4.1).
fn question(query: &[u8]) -> (Question, usize) {
    let (mut labels, mut at) = (Vec::new(), 12);
    while query[at] != 0 {
        let end = at + 1 + usize::from(query[at]);
        labels.push(String::from_utf8_lossy(&query[at + 1..end]).to_lowercase());
        at = end;
    }
    let record_type = match query[at + 2] {
        1 => "A",
        28 => "AAAA",
        33 => "SRV",
        _ => "other",
    };
    ((labels.join("."), record_type), at + 5)
}

fn message(query: &[u8], reply: Reply) -> Option<Vec<u8>> {
    let is_truncated = matches!(reply, Reply::Truncated(_));
    let records: Vec<Vec<u8>> = match reply {
        Reply::V4(addresses) | Reply::Truncated(addresses) => {
            addresses.iter().map(|ip| record(1, &ip.octets())).collect()
        }
        Reply::V6(addresses) => addresses.iter().map(|ip| record(28, &ip.octets())).collect(),
        Reply::Nothing => Vec::new(),
        Reply::Silence => return None,
    };
    let mut message = query.to_vec();
    // A response with recursion, maybe truncated; one question, the answers, and nothing else.
    message[2..4].copy_from_slice(&[0x81 | if is_truncated { 2 } else { 0 }, 0x80]);
    message[4..12].copy_from_slice(&[0, 1, 0, u8::try_from(records.len()).unwrap(), 0, 0, 0, 0]);
    message.extend(records.concat());
    Some(message)
}

/// With the question's name and a TTL of 0.
fn record(record_type: u8, data: &[u8]) -> Vec<u8> {
    let head = [0xc0, 12, 0, record_type, 0, 1, 0, 0, 0, 0, 0, u8::try_from(data.len()).unwrap()];
    [&head[..], data].concat()
}
