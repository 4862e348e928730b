//! A block of the file while its values are checked, and the rules that several keys share.

use std::net::IpAddr;
use std::num::NonZeroUsize;
use std::str::FromStr;
use std::time::Duration;

use ipnet::IpNet;

use crate::config::file::duration_or_off::DurationOrOff;
use crate::config::file::units::DurationText;
use crate::config::networks::Networks;
use crate::config::yaml::{Reporter, join};

/// Names are part of metrics and of the paths of `--set`.
const MAX_NAME_LENGTH: usize = 64;

/// A block of the file: its path, and the reporter for problems with its keys.
pub struct Block<'a> {
    /// Empty for the file itself.
    path: String,
    pub report: &'a mut Reporter,
}

impl<'a> Block<'a> {
    /// The file itself.
    pub fn root(report: &'a mut Reporter) -> Self {
        Self { path: String::new(), report }
    }

    /// The block at `key`.
    pub fn inner(&mut self, key: &str) -> Block<'_> {
        Block { path: self.path(key), report: self.report }
    }

    /// The block of this name at `key`.
    pub fn named(&mut self, key: &str, name: &str) -> Block<'_> {
        let block = Block { path: join(&self.path(key), name), report: self.report };
        let is_valid = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
        if name.is_empty() || name.len() > MAX_NAME_LENGTH || !name.chars().all(is_valid) {
            let message = format!("`{name}` is not a name: use 1 to {MAX_NAME_LENGTH} letters, digits, `_` and `-`");
            block.report.problem(&block.path, message);
        }
        block
    }

    /// The path of one of its keys.
    pub fn path(&self, key: &str) -> String {
        join(&self.path, key)
    }

    /// Reports a problem with one of its keys.
    pub fn problem(&mut self, key: &str, message: impl Into<String>) {
        self.report.problem(&self.path(key), message);
    }

    /// Reports a problem with the block as a whole.
    pub fn problem_here(&mut self, message: impl Into<String>) {
        self.report.problem(&self.path, message);
    }

    /// Whether a problem with the value at `key`, or with something in it, was reported.
    pub fn has_problem_in(&self, key: &str) -> bool {
        self.report.knows_problem_in(&self.path(key))
    }

    /// Parses the value at `key`; `None`: a problem was reported.
    pub fn parsed<T: FromStr<Err = String>>(&mut self, key: &str, text: &str) -> Option<T> {
        text.parse().map_err(|error: String| self.problem(key, error)).ok()
    }

    /// A duration that must be more than zero.
    pub fn positive(&mut self, key: &str, duration: DurationText) -> Duration {
        if duration.0.is_zero() {
            self.problem(key, "must be more than zero");
        }
        duration.0
    }

    /// A duration that must be more than zero; `None`: no limit.
    pub fn limit(&mut self, key: &str, limit: DurationOrOff) -> Option<Duration> {
        if limit.0.is_some_and(|duration| duration.is_zero()) {
            self.problem(key, "must be more than zero; for no limit write `off`");
        }
        limit.0
    }

    /// A number from 1 to `max`.
    pub fn within(&mut self, key: &str, number: usize, max: usize) -> NonZeroUsize {
        if number == 0 || number > max {
            self.problem(key, format!("must be from 1 to {max}"));
        }
        NonZeroUsize::new(number).unwrap_or(NonZeroUsize::MIN)
    }

    /// A list of networks and addresses.
    pub fn networks(&mut self, key: &str, texts: &[String]) -> Networks {
        let mut networks: Vec<IpNet> = Vec::new();
        for (index, text) in texts.iter().enumerate() {
            match text.parse().or_else(|_| text.parse::<IpAddr>().map(IpNet::from)) {
                Ok(network) => networks.push(network),
                Err(_) => {
                    let message = format!("`{text}` is not a network; write it as 10.0.0.0/8, fd00::/8 or 192.0.2.7");
                    self.problem(&format!("{key}[{index}]"), message);
                }
            }
        }
        networks.into_iter().collect()
    }
}

/// Zero switches it off, too.
pub fn some_unless_zero(duration: DurationOrOff) -> Option<Duration> {
    duration.0.filter(|duration| !duration.is_zero())
}
