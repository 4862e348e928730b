//! The last hour on its way to the process that an upgrade starts: a line of JSON that names the series, then the
//! packed hour of each. First-byte times of the last minute and counters are not among it.

use std::io;

use serde::{Deserialize, Serialize};

use super::series::{HOUR_BYTES, Series};

/// Bounds the file, 5.8 MB, and the time that it takes.
const MOST_SERIES: usize = 500;
/// What names give later than this many steps after the start begins anew: a minute.
const KEPT_STEPS: usize = 12;

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct Heading {
    /// So far.
    ticks: usize,
    /// In the order of their hours.
    series: Vec<Name>,
}

/// A listener, a pool, or a backend of a pool.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Name {
    pub(super) listener: Option<String>,
    pub(super) pool: Option<String>,
    pub(super) backend: Option<String>,
}

/// What was carried on of those that are not there yet.
#[derive(Debug, Default)]
pub(super) struct Expected {
    series: Vec<(Name, Series)>,
    until_tick: usize,
}

/// What the new process is told, after so many steps.
pub(super) fn written<'a>(ticks: usize, series: impl Iterator<Item = (Name, &'a Series)>) -> Vec<u8> {
    let hours = series.filter_map(|(name, series)| Some((name, series.hour_bytes()?)));
    let (series, hours): (_, Vec<_>) = hours.take(MOST_SERIES).unzip();
    let mut bytes = serde_json::to_vec(&Heading { ticks, series }).expect("texts and a number");
    bytes.push(b'\n');
    bytes.extend(hours.concat());
    bytes
}

/// What the old process has told: its steps and series.
///
/// # Errors
/// It is of another form.
pub(super) fn read(bytes: &[u8]) -> io::Result<(usize, Expected)> {
    let end = bytes.iter().position(|byte| *byte == b'\n').ok_or(io::ErrorKind::UnexpectedEof)?;
    let Heading { ticks, series } = serde_json::from_slice(&bytes[..end])?;
    let hours = bytes[end + 1..].chunks_exact(HOUR_BYTES).map(Series::of_bytes);
    let until_tick = ticks.saturating_add(KEPT_STEPS);
    Ok((ticks, Expected { series: series.into_iter().zip(hours).collect(), until_tick }))
}

impl Expected {
    /// What was carried on of it, or an empty one.
    pub(super) fn take(&mut self, name: &Name) -> Series {
        let place = self.series.iter().position(|(known, _)| known == name);
        place.map(|place| self.series.swap_remove(place).1).unwrap_or_default()
    }

    pub(super) fn forget_old(&mut self, tick: usize) {
        if tick > self.until_tick {
            self.series.clear();
        }
    }
}

impl Name {
    pub(super) fn of_listener(name: &str) -> Self {
        Self { listener: Some(name.to_owned()), ..Self::default() }
    }

    pub(super) fn of_pool(name: &str) -> Self {
        Self { pool: Some(name.to_owned()), ..Self::default() }
    }

    pub(super) fn of_backend(pool: &str, backend: &str) -> Self {
        Self { pool: Some(pool.to_owned()), backend: Some(backend.to_owned()), ..Self::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::super::series::Counted;
    use super::*;
    use crate::telemetry::Latencies;

    #[test]
    fn an_hour_arrives_as_it_was_and_what_makes_no_sense_is_refused() {
        let mut series = Series::default();
        for tick in 0..900 {
            let counted = Counted { connections: tick as u64 * 3, ..Counted::default() };
            series.add(tick, counted, 7, &Latencies::default(), true);
        }
        let (pool, idle) = (Name::of_pool("app"), Series::default());
        let bytes = written(900, [(Name::of_pool("idle"), &idle), (pool.clone(), &series)].into_iter());
        let (ticks, mut expected) = read(&bytes).expect("its own form");
        assert_eq!((ticks, expected.series.len()), (900, 1), "there is no hour of the other");
        assert_eq!(expected.take(&pool).points(900, 1), series.points(900, 1));
        assert!(expected.series.is_empty());
        for wrong in [&b""[..], b"{}", b"7\n", b"{\"ticks\": -1}\n"] {
            assert!(read(wrong).is_err());
        }
        assert!(read(b"{\"series\": [{}]}\nshort").is_ok(), "it has fewer hours than names");
    }
}
