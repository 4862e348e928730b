//! What a request's path and query say.

use std::collections::BTreeMap;

use percent_encoding::percent_decode_str;

/// What the query gives for a parameter.
pub(super) fn values<'a>(query: Option<&'a str>, name: &'a str) -> impl Iterator<Item = String> + 'a {
    pairs(query).filter(move |(key, _)| key == name).map(|(_, value)| value)
}

fn pairs(query: Option<&str>) -> impl Iterator<Item = (String, String)> {
    let pairs = query.unwrap_or_default().split('&').filter(|pair| !pair.is_empty());
    pairs.map(|pair| pair.split_once('=').unwrap_or((pair, ""))).map(|(name, value)| (decoded(name), decoded(value)))
}

pub(super) fn decoded(segment: &str) -> String {
    percent_decode_str(segment).decode_utf8_lossy().into_owned()
}

/// A request's parameters. Every one must be known: a misspelt one would leave out what was meant.
pub(super) struct Parameters(BTreeMap<String, String>);

impl Parameters {
    /// # Errors
    /// One is given twice.
    pub(super) fn of(query: Option<&str>) -> Result<Self, String> {
        Self::new(pairs(query))
    }

    /// # Errors
    /// One is given twice.
    pub(super) fn new(pairs: impl IntoIterator<Item = (String, String)>) -> Result<Self, String> {
        let mut parameters = BTreeMap::new();
        for (name, value) in pairs {
            let twice = format!("{name} is given twice");
            if parameters.insert(name, value).is_some() {
                return Err(twice);
            }
        }
        Ok(Self(parameters))
    }

    pub(super) fn take_text(&mut self, name: &str) -> Option<String> {
        self.0.remove(name)
    }

    /// # Errors
    /// It is not what is expected.
    pub(super) fn take<T>(
        &mut self,
        name: &str,
        expected: &str,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Result<Option<T>, String> {
        let Some(text) = self.take_text(name) else { return Ok(None) };
        parse(&text).map(Some).ok_or_else(|| format!("{name} is to be {expected}, not {text:?}"))
    }

    /// # Errors
    /// There are others than those that were taken.
    pub(super) fn finish(self) -> Result<(), String> {
        match self.0.into_keys().next() {
            Some(unknown) => Err(format!("there is no parameter {unknown:?} here")),
            None => Ok(()),
        }
    }
}
