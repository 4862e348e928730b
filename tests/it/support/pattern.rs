//! A long stream of bytes that shows every loss, repeat, shift and change: stronger than a checksum, and cheap.

use std::io::{Read, Write};
use std::sync::LazyLock;

/// A prime: no power of two that a buffer may have divides it, so every shift shows.
const PERIOD: usize = 1_000_003;
const CHUNK: usize = 256 * 1024;

/// The period twice, so that every chunk is one slice.
static PATTERN: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    };
    let period: Vec<u8> = std::iter::repeat_with(next).take(PERIOD).collect();
    [period.as_slice(), period.as_slice()].concat()
});

fn chunk_at(position: usize, length: usize) -> &'static [u8] {
    let start = position % PERIOD;
    &PATTERN[start..start + length.min(CHUNK)]
}

/// Sends the first `length` bytes of the pattern.
#[track_caller]
pub fn send_pattern(to: &mut impl Write, length: usize) {
    send_pattern_from(to, 0, length);
}

/// Sends `length` bytes of the pattern from `position` on.
#[track_caller]
pub fn send_pattern_from(to: &mut impl Write, position: usize, length: usize) {
    let mut sent = 0;
    while sent < length {
        let chunk = chunk_at(position + sent, length - sent);
        to.write_all(chunk).unwrap_or_else(|error| panic!("sending failed after {sent} of {length} bytes: {error}"));
        sent += chunk.len();
    }
}

/// Sends from the beginning of the pattern until a write takes nothing in its time.
pub fn send_pattern_until_blocked(to: &mut impl Write) {
    let mut sent = 0;
    while let Ok(length @ 1..) = to.write(chunk_at(sent, CHUNK)) {
        sent += length;
    }
}

/// Receives until the end of the stream, and gives the number of bytes; fails at the first that is not the pattern's.
#[track_caller]
pub fn receive_pattern(from: &mut impl Read) -> usize {
    let mut buffer = vec![0; CHUNK];
    let mut received = 0;
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return received,
            Ok(length) => {
                let (got, expected) = (&buffer[..length], chunk_at(received, length));
                // Compared as slices first: byte by byte is slow in an unoptimized build.
                if got != expected {
                    let same = got.iter().zip(expected).take_while(|(got, expected)| got == expected).count();
                    panic!("byte {} differs from what was sent", received + same);
                }
                received += length;
            }
            Err(error) => panic!("receiving failed after {received} bytes: {error}"),
        }
    }
}
