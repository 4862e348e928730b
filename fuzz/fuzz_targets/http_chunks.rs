//! Chunked bodies: one verdict wherever the input is cut or data bypasses the scanner, the same data as a plain reader
//! finds, and no trailer that is left out. The first two bytes choose how long the pieces are.
#![no_main]

use lb_fuzz::http1::{Body, ChunkError, ChunkedScanner, Framing, Passes, TrailerFilter};
use libfuzzer_sys::fuzz_target;

/// Bytes consumed, and whether the body is complete.
type Verdict = Result<(usize, bool), ChunkError>;

fuzz_target!(|input: &[u8]| {
    let Some((lengths, data)) = input.split_at_checked(2) else { return };
    let (length, other_length) = (usize::from(lengths[0]) + 1, usize::from(lengths[1]) + 1);
    let of_request = in_pieces(Passes::Chunks, data, usize::MAX);
    let of_response = in_pieces(Passes::Data, data, usize::MAX);
    for length in [1, length, other_length] {
        assert_eq!(in_pieces(Passes::Chunks, data, length), of_request, "the same wherever it is cut");
        assert_eq!(in_pieces(Passes::Data, data, length), of_response, "the same wherever it is cut");
    }
    assert_eq!(bypassing(data, length), of_request.0);
    let (verdict, passed) = of_request;
    match verdict {
        Ok((consumed, true)) => {
            let data_alone = Some(of_response.1);
            assert_eq!(decoded(&data[..consumed]), data_alone, "the data of a plain reader");
            assert_eq!(decoded(&passed), data_alone);
            let again = in_pieces(Passes::Chunks, &passed, usize::MAX);
            assert_eq!(again, (Ok((passed.len(), true)), passed), "nothing more is left out");
            let short = in_pieces(Passes::Chunks, &data[..consumed - 1], usize::MAX);
            assert_eq!(short.0, Ok((consumed - 1, false)), "done at the last byte, not before");
            let all = Passes::ChunksAndTrailers(TrailerFilter::OfResponse);
            assert_eq!(decoded(&in_pieces(all, data, length).1), data_alone);
        }
        Ok((consumed, false)) => assert_eq!(consumed, data.len(), "an open body takes all"),
        Err(_) => {}
    }
});

/// The verdict, and what is passed on.
fn in_pieces(passes: Passes<'_>, data: &[u8], length: usize) -> (Verdict, Vec<u8>) {
    let (mut scanner, mut out, mut consumed) = (ChunkedScanner::new(passes), Vec::new(), 0);
    for piece in data.chunks(length) {
        match scanner.advance(piece) {
            Ok(advance) => {
                consumed += advance.consumed;
                out.extend_from_slice(&advance.passed);
            }
            // How much was passed on before depends on the pieces.
            Err(error) => return (Err(error), Vec::new()),
        }
    }
    (Ok((consumed, scanner.is_done())), out)
}

/// What may bypass the scanner does, as spliced data does.
fn bypassing(data: &[u8], length: usize) -> Verdict {
    let (mut body, mut consumed) = (Body::new(Framing::Chunked, Passes::Chunks), 0);
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
    Ok((consumed, body.is_done()))
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
    }
    rest.is_empty().then_some(out)
}

fn line<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let end = rest.windows(2).position(|two| two == b"\r\n")?;
    let line = &rest[..end];
    *rest = &rest[end + 2..];
    Some(line)
}
