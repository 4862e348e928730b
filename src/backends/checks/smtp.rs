//! A check of a mail server (RFC 5321): its greeting, EHLO, QUIT.

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};

use super::failure::{CheckError, shown};
use super::stream::CheckStream;

pub(super) async fn check(stream: &mut CheckStream, hello: &str) -> Result<(), CheckError> {
    let mut stream = BufReader::new(stream);
    expect(&mut stream, b"220", "the greeting is").await?;
    stream.write_all(format!("EHLO {hello}\r\n").as_bytes()).await?;
    expect(&mut stream, b"250", "EHLO answered").await?;
    stream.write_all(b"QUIT\r\n").await?;
    Ok(())
}

/// Reads a reply of one or more lines, with a hyphen after the code in all but the last (RFC 5321, 4.2.1).
async fn expect(stream: &mut BufReader<&mut CheckStream>, code: &[u8], what: &str) -> Result<(), CheckError> {
    loop {
        let mut line = Vec::new();
        if stream.read_until(b'\n', &mut line).await? == 0 {
            return Err(CheckError::backend("closed without an answer"));
        }
        if !line.starts_with(code) || !matches!(line.get(code.len()), Some(b'-' | b' ' | b'\r' | b'\n')) {
            return Err(CheckError::backend(format!("{what} {}", shown(line.trim_ascii_end()))));
        }
        if line[code.len()] != b'-' {
            return Ok(());
        }
    }
}
