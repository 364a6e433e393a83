//! What people are told who decide about files: in `ehe-certs` and in `ehe-node` by the same words.

use ehe::restoration::Restoration;
use ehe::time::UnixMs;
use time::OffsetDateTime;

/// RFC 3339 in UTC, to the second.
pub fn utc(unix_s: i64) -> String {
    OffsetDateTime::from_unix_timestamp(unix_s)
        .map_or_else(|_| format!("{unix_s} s after 1970"), |at| format!("{}Z", to_second(at)))
}

/// RFC 3339 in UTC, with milliseconds; what lies after the year 9999, as only a broken clock says, by its number.
pub fn instant(at: UnixMs) -> String {
    let nanos = i128::from(at.0) * 1_000_000;
    OffsetDateTime::from_unix_timestamp_nanos(nanos).map_or_else(
        |_| format!("{} ms after 1970", at.0),
        |time| format!("{}.{:03}Z", to_second(time), time.millisecond()),
    )
}

fn to_second(t: OffsetDateTime) -> String {
    let (year, month, day) = (t.year(), u8::from(t.month()), t.day());
    format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}", t.hour(), t.minute(), t.second())
}

/// What a record keeps of a shard's log, and what is lost: known to be, and not known. `known` are the leaves that the lost log is known to
/// have had, by [`SignedRestoration::sound`](ehe::restoration::SignedRestoration::sound).
pub fn kept_and_lost(said: &Restoration, known: u64) -> String {
    let kept = match said.kept {
        0 => "no leaf is kept".to_owned(),
        kept => format!("{kept} leaves are kept, accepted until {}", instant(said.kept_until)),
    };
    let lost = match known.saturating_sub(said.kept) {
        0 => String::new(),
        lost => format!("{lost} known leaves are lost, numbers {} to {}; ", said.kept, known.saturating_sub(1)),
    };
    let unknown = match (&said.newest, said.kept) {
        (Some(_), _) => "whatever was confirmed after the newest checkpoint that was shown is lost too".to_owned(),
        (None, 0) => "no checkpoint was shown (`--newest`): whatever was ever confirmed is lost".to_owned(),
        (None, _) => format!(
            "no later checkpoint was shown (`--newest`): whatever was confirmed after {} is lost",
            instant(said.kept_until)
        ),
    };
    format!("{kept}; {lost}{unknown}")
}

#[cfg(test)]
mod tests {
    use ehe::id::{AllianceId, Hash};

    use super::*;

    fn record(kept: u64, newest: bool) -> Restoration {
        Restoration {
            alliance: AllianceId::ZERO,
            shard: 0,
            incarnation: 1,
            kept,
            root: Hash::ZERO,
            proof: vec![],
            checkpoint: None,
            newest: newest.then(String::new),
            kept_until: UnixMs(1_795_255_718_186),
            state: Hash::ZERO,
            charter_version: 1,
            at: UnixMs(0),
        }
    }

    #[test]
    fn times_are_told_as_dates_and_what_is_none_as_a_number() {
        assert_eq!(instant(UnixMs(0)), "1970-01-01T00:00:00.000Z");
        assert_eq!(instant(UnixMs(1_795_255_718_186)), "2026-11-21T10:08:38.186Z");
        assert_eq!(utc(1_795_255_718), "2026-11-21T10:08:38Z");
        assert_eq!(instant(UnixMs(u64::MAX)), "18446744073709551615 ms after 1970");
        assert_eq!(utc(i64::MAX), "9223372036854775807 s after 1970");
    }

    #[test]
    fn that_nothing_is_known_to_be_lost_is_never_told_as_if_nothing_were_lost() {
        let until = "2026-11-21T10:08:38.186Z";
        assert_eq!(
            kept_and_lost(&record(5, false), 5),
            format!(
                "5 leaves are kept, accepted until {until}; no later checkpoint was shown (`--newest`): whatever was confirmed after \
                 {until} is lost"
            )
        );
        assert_eq!(
            kept_and_lost(&record(5, true), 8),
            format!(
                "5 leaves are kept, accepted until {until}; 3 known leaves are lost, numbers 5 to 7; whatever was confirmed after the newest \
                 checkpoint that was shown is lost too"
            )
        );
        assert!(
            kept_and_lost(&record(5, false), 7)
                .contains("2 known leaves are lost, numbers 5 to 6; no later checkpoint")
        );
        assert!(kept_and_lost(&record(0, false), 0).starts_with("no leaf is kept; no checkpoint was shown"));
    }
}
