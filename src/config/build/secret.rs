//! Texts of the configuration that may hold secrets: from the environment, from files, with escapes.

use std::fs;
use std::path::Path;

use crate::config::health_check::Secret;

use super::block::Block;

/// A password is shorter; a larger file must be another one.
const MAX_SECRET_BYTES: u64 = 4096;

/// `text` with a variable of the environment in place of each `${NAME}`; `$${` stands for `${`. What is written between
/// the variables passes through `literal`.
pub fn expanded(
    key: &str,
    text: &str,
    block: &mut Block<'_>,
    mut literal: impl FnMut(&str, &mut Block<'_>) -> Vec<u8>,
) -> Secret {
    let mut secret = Secret::default();
    let mut rest = text;
    while let Some(at) = rest.find("${") {
        let (before, from) = rest.split_at(at);
        if let Some(before) = before.strip_suffix('$') {
            secret.bytes.extend(literal(before, block));
            secret.bytes.extend_from_slice(b"${");
            rest = &from[2..];
            continue;
        }
        secret.bytes.extend(literal(before, block));
        let Some(end) = from.find('}') else {
            block.problem(key, "has a `${` without a `}`; write ${NAME}, or $${ for the characters themselves");
            return secret;
        };
        let name = &from[2..end];
        match std::env::var(name) {
            Ok(value) => {
                secret.bytes.extend_from_slice(value.as_bytes());
                secret.values.push(value.into_bytes());
            }
            Err(_) => block.problem(key, format!("needs the variable {name}, which the environment doesn't have")),
        }
        rest = &from[end + 1..];
    }
    secret.bytes.extend(literal(rest, block));
    secret
}

/// The bytes of `text`, with `\r`, `\n`, `\t`, `\\` and `\xNN` for those that can't be typed.
pub fn unescaped(key: &str, text: &str, block: &mut Block<'_>) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        bytes.extend_from_slice(&rest.as_bytes()[..at]);
        let escape = &rest[at + 1..];
        let (byte, length) = match escape.as_bytes() {
            [b'r', ..] => (Some(b'\r'), 1),
            [b'n', ..] => (Some(b'\n'), 1),
            [b't', ..] => (Some(b'\t'), 1),
            [b'\\', ..] => (Some(b'\\'), 1),
            [b'x', high, low, ..] => (hex(*high, *low), 3),
            _ => (None, 0),
        };
        let Some(byte) = byte else {
            block.problem(key, format!("has an unknown escape at `{}`; there are \\r \\n \\t \\\\ \\xNN", &rest[at..]));
            return bytes;
        };
        bytes.push(byte);
        rest = &escape[length..];
    }
    bytes.extend_from_slice(rest.as_bytes());
    bytes
}

fn hex(high: u8, low: u8) -> Option<u8> {
    let digit = |byte: u8| char::from(byte).to_digit(16);
    u8::try_from(digit(high)? * 16 + digit(low)?).ok()
}

/// What the file says, without the line break at its end.
pub fn secret_of_file(key: &str, file: &Path, block: &mut Block<'_>) -> Option<Secret> {
    let read = fs::metadata(file).and_then(|found| {
        if !found.is_file() {
            return Err(std::io::Error::other("it is no regular file"));
        }
        if found.len() > MAX_SECRET_BYTES {
            return Err(std::io::Error::other(format!("it is larger than {MAX_SECRET_BYTES} bytes")));
        }
        fs::read(file)
    });
    match read {
        Ok(bytes) => {
            let line = bytes.strip_suffix(b"\n").unwrap_or(&bytes);
            let secret = line.strip_suffix(b"\r").unwrap_or(line);
            if secret.is_empty() || secret.contains(&0) {
                block.problem(key, format!("{}: has no password", file.display()));
            }
            Some(Secret { bytes: secret.to_vec(), values: vec![secret.to_vec()] })
        }
        Err(error) => {
            block.problem(key, format!("{}: can't be read: {error}", file.display()));
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::config::yaml::Reporter;

    use super::*;

    #[test]
    fn escapes_stand_for_bytes() {
        let mut reporter = Reporter::default();
        let mut block = Block::root(&mut reporter);
        assert_eq!(unescaped("send", r"a\r\n\t\\\x00\xfF", &mut block), b"a\r\n\t\\\x00\xff");
        assert_eq!(unescaped("expect", r"\xé1", &mut block), b"");
        assert!(block.has_problem_in("expect") && !block.has_problem_in("send"));
    }

    #[test]
    fn names_stand_for_variables_unless_the_dollar_is_doubled() {
        let mut reporter = Reporter::default();
        let mut block = Block::root(&mut reporter);
        let value = std::env::var("PATH").expect("there is one");
        let plain = |text: &str, _: &mut Block<'_>| text.to_uppercase().into_bytes();
        let expected = format!("A{value}B${{PATH}}$1").into_bytes();
        assert_eq!(expanded("send", "a${PATH}b$${path}$1", &mut block, plain).bytes, expected);
        assert!(!block.has_problem_in("send"));
        expanded("open", "${PATH", &mut block, plain);
        expanded("missing", "${NOBODY_SETS_THIS}", &mut block, plain);
        assert!(block.has_problem_in("open") && block.has_problem_in("missing"));
    }
}
