//! Active health checks, the deciding part: from results to up or down. Pure.

use serde::{Deserialize, Serialize};

use crate::config::HealthCheck;

/// What the checks of one backend say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CheckVerdict {
    /// No check has ended yet.
    #[default]
    Unknown,
    /// The last checks went well.
    Up,
    /// The last checks failed.
    Down,
}

/// What one check found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CheckFinding<'a> {
    /// The backend is well.
    Well,
    /// It is well, and in another role than the pool needs: which.
    Standby(&'a str),
    /// What went wrong.
    Failed(&'a str),
}

/// Counts results in a row.
#[derive(Debug)]
pub struct RiseFall {
    rise: usize,
    fall: usize,
    verdict: CheckVerdict,
    /// Results in a row that speak against the verdict.
    against: usize,
}

impl RiseFall {
    /// Knows nothing yet.
    pub fn new(settings: &HealthCheck) -> Self {
        Self { rise: settings.rise.get(), fall: settings.fall.get(), verdict: CheckVerdict::Unknown, against: 0 }
    }

    /// Continues under other settings, with its verdict.
    pub fn with_settings(self, settings: &HealthCheck) -> Self {
        Self { verdict: self.verdict, ..Self::new(settings) }
    }

    /// What the checks say now.
    pub fn verdict(&self) -> CheckVerdict {
        self.verdict
    }

    /// Results in a row that speak against the verdict.
    pub(super) fn against(&self) -> usize {
        self.against
    }

    /// Continues where another process was.
    pub(super) fn carry_on(&mut self, verdict: CheckVerdict, against: usize) {
        // The settings may be others now: one result is missing at least.
        (self.verdict, self.against) = (verdict, 0);
        self.against = against.min(self.missing().saturating_sub(1));
    }

    /// Results in a row that are still missing for a change of the verdict.
    pub fn missing(&self) -> usize {
        let needed = if self.verdict == CheckVerdict::Down { self.rise } else { self.fall };
        needed.saturating_sub(self.against)
    }

    /// Takes a result; true where it changed the verdict. The first result of all decides by itself: a backend that is
    /// down at the start gets no connections.
    pub fn record(&mut self, is_well: bool) -> bool {
        let (agrees, needed) = match self.verdict {
            CheckVerdict::Unknown => (false, 1),
            CheckVerdict::Up => (is_well, self.fall),
            CheckVerdict::Down => (!is_well, self.rise),
        };
        self.against = if agrees { 0 } else { self.against + 1 };
        if self.against < needed {
            return false;
        }
        self.against = 0;
        self.verdict = if is_well { CheckVerdict::Up } else { CheckVerdict::Down };
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two results bring it back, three take it out.
    fn rise_fall() -> RiseFall {
        RiseFall::new(&HealthCheck::example())
    }

    #[test]
    fn what_another_process_counted_is_no_more_than_these_settings_know() {
        let mut rise_fall = rise_fall();
        rise_fall.carry_on(CheckVerdict::Down, usize::MAX);
        assert_eq!(rise_fall.missing(), 1, "of two");
        assert!(rise_fall.record(true) && rise_fall.verdict() == CheckVerdict::Up);
    }

    #[test]
    fn the_first_result_decides_by_itself() {
        let mut rise_fall = rise_fall();
        assert!(rise_fall.record(false));
        assert_eq!(rise_fall.verdict(), CheckVerdict::Down);
    }

    #[test]
    fn falls_after_three_failures_in_a_row_and_rises_after_two_successes() {
        let mut rise_fall = rise_fall();
        rise_fall.record(true);
        let falling: Vec<bool> = [false, false, true, false, false, false].map(|well| rise_fall.record(well)).into();
        assert_eq!(falling, [false, false, false, false, false, true]);
        let rising: Vec<bool> = [true, false, true, true].map(|well| rise_fall.record(well)).into();
        assert_eq!(rising, [false, false, false, true]);
        assert_eq!(rise_fall.verdict(), CheckVerdict::Up);
    }
}
