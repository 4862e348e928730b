//! What must hold for every reader here: where the network cuts the bytes never changes the verdict. The unit tests
//! check it at every place, the fuzz targets (which compile this file by itself) at some.

use std::fmt::Debug;

/// Reads the prefixes of `bytes` whose lengths `cuts` gives, in rising order. Each must be undecided or have the
/// verdict of the whole, and once one is decided, every longer one must be. Returns that verdict.
pub fn check_prefixes<T, E>(
    bytes: &[u8],
    cuts: impl IntoIterator<Item = usize>,
    parse: impl Fn(&[u8]) -> Result<Option<T>, E>,
) -> Result<Option<T>, E>
where
    Result<Option<T>, E>: Debug + PartialEq,
{
    let whole = parse(bytes);
    let mut decided_at = None;
    for at in cuts {
        match parse(&bytes[..at]) {
            Ok(None) => assert_eq!(decided_at, None, "a verdict was taken back at {at}"),
            verdict => {
                assert_eq!(verdict, whole, "cut at {at}");
                decided_at.get_or_insert(at);
            }
        }
    }
    whole
}
