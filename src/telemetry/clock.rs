//! The wall clock as text.

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
}
