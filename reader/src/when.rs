//! Dates and times as people write and read them: RFC 3339 in UTC, or a day.

use ehe::time::{Hour, UnixMs};
use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;

/// A text that names no instant.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no time: write YYYY-MM-DD (midnight UTC) or RFC 3339 like 2026-11-20T10:00:00Z")]
pub struct NotATime(String);

/// An instant from RFC 3339, or midnight UTC of a day.
pub fn instant(text: &str) -> Result<UnixMs, NotATime> {
    let wrong = || NotATime(text.chars().take(64).collect());
    let timestamp = if text.len() == "2026-11-20".len() {
        let day: Date = text.parse().map_err(|_| wrong())?;
        day.to_zoned(TimeZone::UTC).map_err(|_| wrong())?.timestamp()
    } else {
        text.parse::<Timestamp>().map_err(|_| wrong())?
    };
    u64::try_from(timestamp.as_millisecond()).map(UnixMs).map_err(|_| wrong())
}

/// A full hour, for the bounds of a grant: nodes see hours and no finer time.
pub fn full_hour(text: &str) -> Result<Hour, String> {
    let at = instant(text).map_err(|e| e.to_string())?;
    if at.hour().start() == at {
        Ok(at.hour())
    } else {
        Err(format!("{text:?} is not a full hour: grants count in hours (UTC)"))
    }
}

/// RFC 3339 in UTC with milliseconds; `None` for what lies after the year 9999, as only a broken clock says.
pub fn text(at: UnixMs) -> Option<String> {
    let timestamp = i64::try_from(at.0).ok().and_then(|ms| Timestamp::from_millisecond(ms).ok())?;
    Some(format!("{timestamp:.3}"))
}

/// [`text`], with a question mark for what is no time.
pub fn shown(at: UnixMs) -> String {
    text(at).unwrap_or_else(|| "?".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_and_rfc_3339_name_instants_and_other_texts_are_refused() {
        assert_eq!(instant("1970-01-02"), Ok(UnixMs(86_400_000)));
        assert_eq!(instant("1970-01-01T01:00:00+01:00"), Ok(UnixMs(0)));
        assert_eq!(instant("2026-11-20T10:00:00.250Z"), Ok(UnixMs(1_795_168_800_250)));
        for bad in
            ["", "yesterday", "2026-13-01", "1969-12-31", "2026-11-20T10:00:00", "1969-12-31T23:00:00Z", "ääääääääää"]
        {
            assert!(instant(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn instants_are_written_in_utc_with_milliseconds() {
        assert_eq!(text(UnixMs(1_795_168_800_250)).unwrap(), "2026-11-20T10:00:00.250Z");
        assert_eq!(text(UnixMs(0)).unwrap(), "1970-01-01T00:00:00.000Z");
        assert_eq!(text(UnixMs(u64::MAX)), None);
    }

    #[test]
    fn a_grants_bounds_are_full_hours() {
        assert_eq!(full_hour("1970-01-01T05:00:00Z"), Ok(Hour(5)));
        assert!(full_hour("1970-01-01T05:30:00Z").unwrap_err().contains("full hour"));
    }
}
