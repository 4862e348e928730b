//! Chunked bodies: one verdict wherever the input is cut or data bypasses the scanner, and the same data as a plain
//! reader finds. The first two bytes choose how long the pieces are.
#![no_main]

use lb_fuzz::http1::{Body, ChunkError, ChunkedScanner, Framing, Progress};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let Some((lengths, data)) = input.split_at_checked(2) else { return };
    let whole = ChunkedScanner::default().advance(data);
    let pieces = |length: u8| in_pieces(data, usize::from(length) + 1);
    for (verdict, out) in [pieces(0), pieces(lengths[0]), pieces(lengths[1])] {
        assert_eq!(verdict, whole, "one verdict");
        if let Ok(Progress { done: true, consumed }) = whole {
            assert_eq!(decoded(&data[..consumed]), Some(out), "the data of a plain reader");
        }
    }
    assert_eq!(bypassing(data, usize::from(lengths[0]) + 1), whole);
    if let Ok(Progress { done: true, consumed }) = whole {
        let mut scanner = ChunkedScanner::default();
        let short = scanner.advance(&data[..consumed - 1]);
        assert_eq!(short, Ok(Progress { consumed: consumed - 1, done: false }), "done at the last byte, not before");
    } else if whole.is_ok() {
        assert_eq!(whole.map(|progress| progress.consumed), Ok(data.len()), "an open body takes all");
    }
});

fn in_pieces(data: &[u8], length: usize) -> (Result<Progress, ChunkError>, Vec<u8>) {
    let (mut scanner, mut out, mut consumed) = (ChunkedScanner::default(), Vec::new(), 0);
    for piece in data.chunks(length) {
        match scanner.decode(piece, &mut out) {
            Ok(progress) => consumed += progress.consumed,
            Err(error) => return (Err(error), out),
        }
    }
    (Ok(Progress { consumed, done: scanner.is_done() }), out)
}

/// What may bypass the scanner does, as spliced data does.
fn bypassing(data: &[u8], length: usize) -> Result<Progress, ChunkError> {
    let (mut body, mut consumed) = (Body::new(Framing::Chunked), 0);
    while consumed < data.len() && !body.is_done() {
        let rest = &data[consumed..];
        let free = usize::try_from(body.data_remaining()).unwrap_or(usize::MAX).min(rest.len()).min(length);
        if free > 0 {
            body.skip_data(free as u64);
            consumed += free;
        } else {
            consumed += body.advance(&rest[..rest.len().min(length)])?.consumed;
        }
    }
    Ok(Progress { consumed, done: body.is_done() })
}

/// An accepted body, read as plainly as can be: a size, that much data, and so on to the empty line after the trailers.
fn decoded(mut rest: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    loop {
        let line = line(&mut rest)?;
        let digits = line.split(|byte| *byte == b';').next()?;
        let size = usize::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
        if size == 0 {
            break;
        }
        let (data, after) = rest.split_at_checked(size)?;
        out.extend_from_slice(data);
        rest = after.strip_prefix(b"\r\n")?;
    }
    while let Some(trailer) = line(&mut rest).filter(|line| !line.is_empty()) {
        assert!(trailer.contains(&b':'));
        let name = trailer.split(|byte| *byte == b':').next()?.to_ascii_lowercase();
        assert!(![&b"content-length"[..], b"transfer-encoding", b"host"].contains(&&name[..]));
    }
    rest.is_empty().then_some(out)
}

fn line<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let end = rest.windows(2).position(|two| two == b"\r\n")?;
    let line = &rest[..end];
    *rest = &rest[end + 2..];
    Some(line)
}
