//! A check of a MySQL or MariaDB server: its greeting, a login without a password, COM_QUIT.
//!
//! <https://dev.mysql.com/doc/dev/mysql-server/latest/page_protocol_connection_phase.html>

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::config::MysqlCheck;

use super::failure::{CheckError, shown};
use super::handshake::Handshake;
use super::stream::CheckStream;

/// A packet of the connection phase is shorter.
const MAX_PACKET: usize = 16 * 1024;

/// The version of the protocol that a greeting begins with.
const PROTOCOL_10: u8 = 10;

/// First bytes of the server's packets.
const OK: u8 = 0x00;
const MORE_DATA: u8 = 0x01;
const SWITCH: u8 = 0xFE;
const ERROR: u8 = 0xFF;

/// What this client can: CLIENT_LONG_PASSWORD, CLIENT_PROTOCOL_41, CLIENT_SECURE_CONNECTION, CLIENT_PLUGIN_AUTH.
const CAPABILITIES: u32 = 0x0000_0001 | 0x0000_0200 | 0x0000_8000 | 0x0008_0000;
const CLIENT_SSL: u32 = 0x0000_0800;
/// Bytes of a login before the user's name.
const LOGIN_HEAD: usize = 32;
/// The largest packet that it takes.
const MAX_ALLOWED_PACKET: u32 = 1 << 24;
/// utf8mb4_general_ci.
const CHARACTER_SET: u8 = 45;
const NATIVE_PASSWORD: &[u8] = b"mysql_native_password\0";
const COM_QUIT: u8 = 0x01;

pub(super) async fn check(
    mut stream: CheckStream,
    check: &MysqlCheck,
    handshake: Option<Handshake<'_>>,
) -> Result<Option<CheckStream>, CheckError> {
    let (sequence, greeting) = read_packet(&mut stream).await?;
    match greeting.first() {
        Some(&PROTOCOL_10) => {}
        Some(&ERROR) => return Err(refusal("the greeting is", &greeting)),
        _ => return Err(CheckError::backend(format!("no MySQL: {}", shown(&greeting)))),
    }
    // Without a user, as nobody: MySQL blocks a host that often ends a connection after the greeting, but not one whose
    // logins are refused.
    let user = check.user.as_deref().unwrap_or_default();
    let mut sequence = sequence.wrapping_add(1);
    let capabilities = CAPABILITIES | if handshake.is_some() { CLIENT_SSL } else { 0 };
    let login = login(capabilities, user);
    if let Some(handshake) = handshake {
        // The login up to the user's name asks for TLS.
        write_packet(&mut stream, sequence, &login[..LOGIN_HEAD]).await?;
        stream = handshake.over(stream).await?;
        sequence = sequence.wrapping_add(1);
    }
    write_packet(&mut stream, sequence, &login).await?;
    loop {
        let (sequence, packet) = read_packet(&mut stream).await?;
        match packet.split_first() {
            Some((&OK, _)) => break,
            Some((&MORE_DATA, _)) => {}
            Some((&SWITCH, plugin)) => {
                write_packet(&mut stream, sequence.wrapping_add(1), empty_password(plugin)).await?;
            }
            Some((&ERROR, _)) if check.user.is_none() => return Ok(Some(stream)),
            Some((&ERROR, _)) => return Err(refusal("the login is refused:", &packet)),
            _ => return Err(CheckError::backend(format!("no answer to a login: {}", shown(&packet)))),
        }
    }
    write_packet(&mut stream, 0, &[COM_QUIT]).await?;
    Ok(Some(stream))
}

/// HandshakeResponse41.
fn login(capabilities: u32, user: &str) -> Vec<u8> {
    let mut packet = Vec::new();
    packet.extend_from_slice(&capabilities.to_le_bytes());
    packet.extend_from_slice(&MAX_ALLOWED_PACKET.to_le_bytes());
    packet.push(CHARACTER_SET);
    packet.extend_from_slice(&[0; 23]);
    packet.extend_from_slice(user.as_bytes());
    // The end of the name, and no password.
    packet.extend_from_slice(&[0, 0]);
    packet.extend_from_slice(NATIVE_PASSWORD);
    packet
}

/// What says "no password" to an authentication plugin.
fn empty_password(plugin: &[u8]) -> &'static [u8] {
    if plugin.starts_with(NATIVE_PASSWORD) { &[] } else { &[0] }
}

/// An error packet in words: its number, and what the server says.
fn refusal(what: &str, packet: &[u8]) -> CheckError {
    let [_, low, high, message @ ..] = packet else { return CheckError::backend(format!("{what} an error")) };
    // A number sign and five characters of SQL state may come before the message.
    let message = if message.first() == Some(&b'#') { message.get(6..).unwrap_or_default() } else { message };
    CheckError::backend(format!("{what} error {}, {}", u16::from_le_bytes([*low, *high]), shown(message)))
}

async fn read_packet(stream: &mut CheckStream) -> Result<(u8, Vec<u8>), CheckError> {
    let mut head = [0; 4];
    stream.read_exact(&mut head).await?;
    let [a, b, c, sequence] = head;
    let length = usize::try_from(u32::from_le_bytes([a, b, c, 0])).unwrap_or(usize::MAX);
    if length > MAX_PACKET {
        return Err(CheckError::backend(format!("no MySQL: {}", shown(&head))));
    }
    let mut packet = vec![0; length];
    stream.read_exact(&mut packet).await?;
    Ok((sequence, packet))
}

async fn write_packet(stream: &mut CheckStream, sequence: u8, content: &[u8]) -> Result<(), CheckError> {
    let [a, b, c, _] = u32::try_from(content.len()).expect("names are short").to_le_bytes();
    let mut packet = vec![a, b, c, sequence];
    packet.extend_from_slice(content);
    Ok(stream.write_all(&packet).await?)
}
