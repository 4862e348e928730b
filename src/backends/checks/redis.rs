//! A check of a Redis server: PING or ROLE, after AUTH where it has a password; then QUIT.

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};

use crate::config::{RedisCheck, RedisRole};

use super::failure::{CheckError, shown};
use super::stream::CheckStream;

/// A text that ROLE answers with is shorter.
const MAX_TEXT: usize = 1024;

type Replies<'a> = BufReader<&'a mut CheckStream>;

pub(super) async fn check(stream: &mut CheckStream, check: &RedisCheck) -> Result<(), CheckError> {
    stream.write_all(&request(check)).await?;
    let mut replies = BufReader::new(stream);
    if check.login.is_some() {
        read_reply(&mut replies).await.map_err(|error| error.into_check_error("AUTH", check))?;
    }
    let command = if check.role == RedisRole::Any { "PING" } else { "ROLE" };
    let reply = read_reply(&mut replies).await.map_err(|error| error.into_check_error(command, check))?;
    let expected = match (check.role, reply.as_slice()) {
        (RedisRole::Any, b"PONG") | (RedisRole::Master, b"master") | (RedisRole::Replica, b"slave") => return Ok(()),
        (RedisRole::Any, other) => return Err(CheckError::backend(format!("PING answered {}", shown(other)))),
        (RedisRole::Master, _) => "master",
        (RedisRole::Replica, _) => "slave",
    };
    let reason = format!("expected role `{expected}`, got {}", shown(&reply));
    let is_standby = matches!(reply.as_slice(), b"master" | b"slave");
    Err(if is_standby { CheckError::Standby(reason) } else { CheckError::backend(reason) })
}

/// All of it at once: the server answers in order.
fn request(check: &RedisCheck) -> Vec<u8> {
    let mut request = Vec::new();
    if let Some(login) = &check.login {
        let user = login.username.as_ref().map(String::as_bytes);
        let words = [Some(&b"AUTH"[..]), user, Some(&login.password.bytes)];
        write_command(&mut request, &words.into_iter().flatten().collect::<Vec<_>>());
    }
    write_command(&mut request, &[if check.role == RedisRole::Any { b"PING" } else { b"ROLE" }]);
    write_command(&mut request, &[b"QUIT"]);
    request
}

fn write_command(request: &mut Vec<u8>, words: &[&[u8]]) {
    request.extend_from_slice(format!("*{}\r\n", words.len()).as_bytes());
    for word in words {
        request.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
        request.extend_from_slice(word);
        request.extend_from_slice(b"\r\n");
    }
}

/// A reply that is none, or an error.
enum NoReply {
    /// The server's words.
    Refused(Vec<u8>),
    Other(CheckError),
}

impl NoReply {
    /// A server that doesn't know a command may answer with its arguments, the password among them.
    fn into_check_error(self, command: &str, check: &RedisCheck) -> CheckError {
        match self {
            Self::Refused(words) => {
                let words = check.login.as_ref().map_or(words.clone(), |login| login.password.hide_in(&words));
                CheckError::backend(format!("{command} answered {}", shown(&words)))
            }
            Self::Other(error) => error,
        }
    }
}

impl<E: Into<CheckError>> From<E> for NoReply {
    fn from(error: E) -> Self {
        Self::Other(error.into())
    }
}

/// A reply's text; of a list the first item's, without reading the others.
async fn read_reply(replies: &mut Replies<'_>) -> Result<Vec<u8>, NoReply> {
    let mut line = read_line(replies).await?;
    if line.starts_with(b"*") {
        line = read_line(replies).await?;
    }
    match line.split_first() {
        Some((b'+' | b':', text)) => Ok(text.to_vec()),
        Some((b'-', words)) => Err(NoReply::Refused(words.to_vec())),
        Some((b'$', length)) => {
            let length = std::str::from_utf8(length).ok().and_then(|length| length.parse().ok());
            let length: usize = length.filter(|length| *length <= MAX_TEXT).ok_or_else(|| no_redis(&line))?;
            let mut text = vec![0; length];
            replies.read_exact(&mut text).await?;
            Ok(text)
        }
        _ => Err(no_redis(&line).into()),
    }
}

async fn read_line(replies: &mut Replies<'_>) -> Result<Vec<u8>, CheckError> {
    let mut line = Vec::new();
    if replies.read_until(b'\n', &mut line).await? == 0 {
        return Err(CheckError::backend("closed without an answer"));
    }
    match line.strip_suffix(b"\r\n") {
        Some(text) => Ok(text.to_vec()),
        None => Err(no_redis(&line)),
    }
}

fn no_redis(received: &[u8]) -> CheckError {
    CheckError::backend(format!("no Redis: {}", shown(received)))
}
