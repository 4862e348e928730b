//! Problems of a configuration. Knows neither YAML nor the rules that were broken.

use std::fmt;

use serde::Serialize;

/// The most problems that are reported of one configuration; more would help nobody.
pub(super) const MAX_PROBLEMS: usize = 100;

/// Something wrong with the configuration, and where to fix it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// `lb.yaml:3:5`, `--policy`, `LB_POLICY`.
    pub place: Option<String>,
    /// The key's path; empty for the whole file.
    pub path: String,
    /// What is wrong, and the remedy.
    pub message: String,
}

impl Problem {
    pub(crate) fn at(place: impl Into<String>, path: &str, message: impl Into<String>) -> Self {
        Self { place: Some(place.into()), path: path.to_owned(), message: message.into() }
    }

    /// A problem without a single place; the message has its origin.
    pub(crate) fn general(message: impl Into<String>) -> Self {
        Self { place: None, path: String::new(), message: message.into() }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(place) = &self.place {
            write!(f, "{place}: ")?;
        }
        if !self.path.is_empty() {
            write!(f, "{} ", self.path)?;
        }
        f.write_str(&self.message)
    }
}

/// All problems of a configuration, or the first hundred.
#[derive(Debug)]
pub struct Problems(pub Vec<Problem>);

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.0.iter().enumerate() {
            let separator = if index == 0 { "" } else { "\n" };
            write!(f, "{separator}{problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}
