//! A check of a PostgreSQL server: whether it answers a startup packet, or a login and the question whether it is in
//! recovery.
//!
//! <https://www.postgresql.org/docs/current/protocol-flow.html>

use std::error::Error;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_postgres::{Client, Config, NoTls, SimpleQueryMessage};

use crate::config::{PostgresCheck, PostgresRole};

use crate::telemetry::escaped;

use super::failure::{CheckError, shown};
use super::handshake::Handshake;
use super::stream::CheckStream;

/// Version 3.0 of the protocol.
const VERSION: i32 = 3 << 16;
/// A message before the login is over is shorter.
const MAX_MESSAGE: usize = 16 * 1024;
/// The question for TLS: a message of 8 bytes with a version that there is not.
const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 0x04, 0xD2, 0x16, 0x2F];
/// The message Terminate.
const TERMINATE: [u8; 5] = [b'X', 0, 0, 0, 4];
/// What the server's log and its statistics show.
const APPLICATION: &str = "lb";
/// Where the role is asked for; true: it takes no writes.
const IN_RECOVERY: &str = "select pg_is_in_recovery()";

pub(super) async fn check(
    mut stream: CheckStream,
    check: &PostgresCheck,
    handshake: Option<Handshake<'_>>,
) -> Result<Option<CheckStream>, CheckError> {
    if let Some(handshake) = handshake {
        stream = start_tls(stream, handshake).await?;
    }
    match check.role {
        PostgresRole::Any => {
            start(&mut stream, check).await?;
            Ok(Some(stream))
        }
        PostgresRole::Primary | PostgresRole::Replica => {
            let is_replica = is_in_recovery(stream, check).await?;
            match (check.role, is_replica) {
                (PostgresRole::Primary, true) => {
                    Err(CheckError::Standby("expected a primary, got a replica".to_owned()))
                }
                (PostgresRole::Replica, false) => {
                    Err(CheckError::Standby("expected a replica, got a primary".to_owned()))
                }
                _ => Ok(None),
            }
        }
    }
}

async fn start_tls(mut stream: CheckStream, handshake: Handshake<'_>) -> Result<CheckStream, CheckError> {
    stream.write_all(&SSL_REQUEST).await?;
    match stream.read_u8().await? {
        b'S' => handshake.over(stream).await,
        b'N' => Err(CheckError::backend("the server has TLS switched off (`ssl = off`)")),
        other => Err(CheckError::backend(format!("no PostgreSQL: {}", shown(&[other])))),
    }
}

/// Sends a startup packet. Any question for a password is answer enough; the server takes the end of the connection
/// after it for that of a client that has to ask its user, and logs nothing.
async fn start(stream: &mut CheckStream, check: &PostgresCheck) -> Result<(), CheckError> {
    stream.write_all(&startup_packet(check)).await?;
    loop {
        let kind = stream.read_u8().await?;
        let length = stream.read_i32().await?.checked_sub(4).and_then(|length| usize::try_from(length).ok());
        let length = length.filter(|length| *length <= MAX_MESSAGE);
        let length = length.ok_or_else(|| CheckError::backend(format!("no PostgreSQL: {}", shown(&[kind]))))?;
        let mut message = vec![0; length];
        stream.read_exact(&mut message).await?;
        match kind {
            // AuthenticationOk is followed by more; all others wait for a password.
            b'R' if message.iter().any(|byte| *byte != 0) => return Ok(()),
            b'Z' => return Ok(stream.write_all(&TERMINATE).await?),
            b'E' => return Err(CheckError::backend(error_text(&message))),
            // AuthenticationOk, ParameterStatus, BackendKeyData, NoticeResponse, NegotiateProtocolVersion.
            b'R' | b'S' | b'K' | b'N' | b'v' => {}
            other => return Err(CheckError::backend(format!("no PostgreSQL: {}", shown(&[other])))),
        }
    }
}

fn startup_packet(check: &PostgresCheck) -> Vec<u8> {
    let mut packet = vec![0; 4];
    packet.extend_from_slice(&VERSION.to_be_bytes());
    let database = check.database.as_ref().unwrap_or(&check.user);
    for text in ["user", &check.user, "database", database, "application_name", APPLICATION, ""] {
        packet.extend_from_slice(text.as_bytes());
        packet.push(0);
    }
    let length = i32::try_from(packet.len()).expect("names are short");
    packet[..4].copy_from_slice(&length.to_be_bytes());
    packet
}

/// The severity and the message of an ErrorResponse.
fn error_text(message: &[u8]) -> String {
    let field = |code: u8| message.split(|byte| *byte == 0).find_map(|field| field.strip_prefix(&[code]));
    let text = |code| escaped(&String::from_utf8_lossy(field(code).unwrap_or_default())).into_owned();
    format!("{}: {}", text(b'S'), text(b'M'))
}

/// Logs in and asks, and ends the session.
async fn is_in_recovery(stream: CheckStream, check: &PostgresCheck) -> Result<bool, CheckError> {
    let mut config = Config::new();
    config.user(&check.user).application_name(APPLICATION);
    config.dbname(check.database.as_ref().unwrap_or(&check.user));
    if let Some(password) = &check.password {
        config.password(&password.bytes);
    }
    let (client, connection) = config.connect_raw(stream, NoTls).await.map_err(|error| match &check.password {
        // Else the library would say that the configuration is invalid.
        None if error.as_db_error().is_none() && is_about_password(&error) => {
            CheckError::backend("the server wants a password (`password_file`)")
        }
        _ => failure(&error),
    })?;
    let (answer, ()) = tokio::join!(ask(client), async {
        // It ends with Terminate once the client is dropped; why it failed is in the answer.
        let _ = connection.await;
    });
    answer
}

fn is_about_password(error: &tokio_postgres::Error) -> bool {
    error.source().is_some_and(|source| source.to_string() == "password missing")
}

async fn ask(client: Client) -> Result<bool, CheckError> {
    let rows = client.simple_query(IN_RECOVERY).await.map_err(|error| failure(&error))?;
    let answer = rows.iter().find_map(|row| match row {
        SimpleQueryMessage::Row(row) => row.get(0),
        _ => None,
    });
    match answer {
        Some("t") => Ok(true),
        Some("f") => Ok(false),
        _ => Err(CheckError::backend(format!("no answer to `{IN_RECOVERY}`"))),
    }
}

fn failure(error: &tokio_postgres::Error) -> CheckError {
    match error.as_db_error() {
        Some(error) => CheckError::backend(format!("{}: {}", error.severity(), escaped(error.message()))),
        None => match error.source() {
            Some(source) => CheckError::backend(format!("{error}: {source}")),
            None => CheckError::backend(error.to_string()),
        },
    }
}
