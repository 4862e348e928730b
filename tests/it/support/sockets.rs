//! What the kernel tells of sockets (proc_net_tcp(5), proc_net_unix(5)).

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpStream};

/// Whether a socket listens at an IPv4 address.
pub fn is_listened_on(address: SocketAddr) -> bool {
    let wanted = in_table(address);
    listening("tcp").any(|row| row[1] == wanted)
}

/// Whether the peer's end of a connection has a keep-alive timer (2).
pub fn has_keepalive_at_peer(stream: &TcpStream) -> bool {
    let (local, remote) = (stream.peer_addr().expect("connected"), stream.local_addr().expect("connected"));
    let mut of_peer = rows("tcp").filter(|row| row[1] == in_table(local) && row[2] == in_table(remote));
    of_peer.next().expect("the peer's end is on this machine")[5].starts_with("02:")
}

/// Whether a process holds a listening socket of its own making: 3 is the number of one that it was started with, which
/// it keeps.
pub(super) fn listens(pid: u32) -> bool {
    let Ok(folder) = fs::read_dir(format!("/proc/{pid}/fd")) else { return false };
    let open: BTreeSet<String> = folder
        .filter_map(|file| file.ok().filter(|file| file.file_name() != "3"))
        .filter_map(|file| Some(fs::read_link(file.path()).ok()?.to_string_lossy().into_owned()))
        .collect();
    let is_open = |inode: &String| open.contains(&format!("socket:[{inode}]"));
    // A listening unix socket has the flag __SO_ACCEPTCON.
    ["tcp", "tcp6"].iter().any(|table| listening(table).any(|row| is_open(&row[9])))
        || rows("unix").any(|row| row[3] == "00010000" && is_open(&row[6]))
}

/// The table begins with the sockets that listen (state 0A): no more of it is read, for the others may be many
/// thousands.
fn listening(table: &str) -> impl Iterator<Item = Vec<String>> {
    rows(table).take_while(|row| row[3] == "0A")
}

fn rows(table: &str) -> impl Iterator<Item = Vec<String>> {
    let file = File::open(format!("/proc/net/{table}")).expect("Linux has it");
    let lines = BufReader::new(file).lines().skip(1).map_while(Result::ok);
    lines.map(|line| line.split_whitespace().map(str::to_owned).collect())
}

fn in_table(address: SocketAddr) -> String {
    let SocketAddr::V4(address) = address else { panic!("{address} is not an IPv4 address") };
    format!("{:08X}:{:04X}", u32::from_ne_bytes(address.ip().octets()), address.port())
}
