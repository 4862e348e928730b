//! The wall clock as text.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use humantime::{Rfc3339Timestamp, format_rfc3339_millis};

/// 9999-12-31T23:59:59Z: RFC 3339 has four digits for the year.
const LAST: Duration = Duration::from_secs(253_402_300_799);

/// `time` as RFC 3339 in UTC, with milliseconds. A wall clock that is set to before 1970 or after 9999 gives the
/// nearest time between.
pub fn rfc3339(time: SystemTime) -> Rfc3339Timestamp {
    let since_epoch = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    format_rfc3339_millis(UNIX_EPOCH + since_epoch.min(LAST))
}

const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// `time` as Apache's and nginx's access logs have it, in UTC: `22/Nov/2026:18:31:52 +0000`.
pub struct CommonLogTime(pub SystemTime);

impl fmt::Display for CommonLogTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (month, text) = with_month(self.0);
        write!(f, "{}/{month}/{}:{} +0000", &text[8..10], &text[..4], &text[11..19])
    }
}

/// `time` as syslog had it before RFC 5424, in UTC: `Nov  2 18:31:52`.
pub struct OldSyslogTime(pub SystemTime);

impl fmt::Display for OldSyslogTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (month, text) = with_month(self.0);
        write!(f, "{month} {:>2} {}", text[8..10].trim_start_matches('0'), &text[11..19])
    }
}

/// The month's name, and the time as in `2026-11-22T18:31:52.123Z`.
fn with_month(time: SystemTime) -> (&'static str, String) {
    let text = rfc3339(time).to_string();
    let month: usize = text[5..7].parse().expect("RFC 3339 has digits there");
    (MONTHS[month - 1], text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_time_has_a_text() {
        let text_of = |time| rfc3339(time).to_string();
        assert_eq!(text_of(UNIX_EPOCH + Duration::from_millis(951_827_696_789)), "2000-02-29T12:34:56.789Z");
        assert_eq!(text_of(UNIX_EPOCH - Duration::from_secs(1)), "1970-01-01T00:00:00.000Z");
        assert_eq!(text_of(UNIX_EPOCH + LAST + Duration::from_secs(1)), "9999-12-31T23:59:59.000Z");
    }

    #[test]
    fn other_programs_have_their_own_forms() {
        let time = UNIX_EPOCH + Duration::from_secs(951_827_696 + 86_400);
        assert_eq!(CommonLogTime(time).to_string(), "01/Mar/2000:12:34:56 +0000");
        assert_eq!(OldSyslogTime(time).to_string(), "Mar  1 12:34:56");
    }
}
