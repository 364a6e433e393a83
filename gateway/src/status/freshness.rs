//! Whether the numbers of `status.json` are those of a gateway that runs now. Two witnesses, because each alone may be wrong: who holds the
//! run lock (numbers of an earlier run may be young), and the age of the numbers (a program that hangs, or whose disk is full, holds its lock
//! and writes nothing). Pure.

use std::fmt;
use std::time::Duration;

use ehe::time::UnixMs;
use serde::Deserialize;

use super::run_lock::{Holder, Run};

/// How often the running gateway writes its numbers.
pub const WRITTEN_EVERY: Duration = Duration::from_secs(2);
/// From this age on they are old: a busy disk may cost a few rounds. So far the clock may have been set back, too.
const OLD_AFTER_MS: u64 = 10_000;

/// What numbers say of themselves.
#[derive(Debug, Clone, Copy, Deserialize)]
pub struct Stamp {
    /// When they were written.
    pub written_ms: UnixMs,
    /// By which run; none in numbers of versions that did not say.
    #[serde(flatten)]
    pub run: Option<Run>,
}

/// How old numbers are, by the wall clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Age {
    /// Written so many ms ago.
    Past(u64),
    /// Written so many ms ahead of now: the clock was set back since.
    Ahead(u64),
}

impl Age {
    fn new(written: UnixMs, now: UnixMs) -> Self {
        match now.0.checked_sub(written.0) {
            Some(ms) => Self::Past(ms),
            None => Self::Ahead(written.0 - now.0),
        }
    }

    fn is_young(self) -> bool {
        let (Self::Past(ms) | Self::Ahead(ms)) = self;
        ms <= OLD_AFTER_MS
    }

    /// In ms; below zero where they are ahead of now.
    pub fn ms(self) -> i64 {
        match self {
            Self::Past(ms) => i64::try_from(ms).unwrap_or(i64::MAX),
            Self::Ahead(ms) => i64::try_from(ms).map_or(i64::MIN, |ms| -ms),
        }
    }
}

impl fmt::Display for Age {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Past(ms) => write!(f, "{} s ago", ms / 1000),
            Self::Ahead(ms) => write!(f, "{} s ahead of the present time (the clock was set back since)", ms / 1000),
        }
    }
}

/// Numbers that are not those of a gateway that runs now, and what to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Stale {
    /// A gateway runs, and does not write its numbers; or the clock was changed.
    #[error(
        "the gateway runs, and these numbers were written {0}, where it writes them every {every} s: its disk is full or fails, it hangs, or the \
         clock was changed; its log says which",
        every = WRITTEN_EVERY.as_secs()
    )]
    Old(Age),
    /// A gateway runs, and they are of another run.
    #[error(
        "these numbers are of an earlier run, written {0}: the gateway that runs now has not written any yet. It is still starting, or its \
         disk is full or fails; its log says which"
    )]
    EarlierRun(Age),
    /// No gateway runs.
    #[error("the gateway does not run: these are its last numbers, written {0}. Its log says why it ended")]
    Stopped(Age),
}

impl Stale {
    /// Whether a gateway runs.
    pub fn runs(self) -> bool {
        !matches!(self, Self::Stopped(_))
    }

    /// How old the numbers are.
    pub fn age(self) -> Age {
        let (Self::Old(age) | Self::EarlierRun(age) | Self::Stopped(age)) = self;
        age
    }
}

/// Judges numbers.
///
/// # Errors
/// They are not those of a gateway that runs now.
pub fn judge(holder: Holder, stamp: Stamp, now: UnixMs) -> Result<Age, Stale> {
    let age = Age::new(stamp.written_ms, now);
    match holder {
        Holder::Nobody => Err(Stale::Stopped(age)),
        Holder::Unnamed => Err(Stale::EarlierRun(age)),
        Holder::Run(run) if stamp.run != Some(run) => Err(Stale::EarlierRun(age)),
        Holder::Run(_) if age.is_young() => Ok(age),
        Holder::Run(_) => Err(Stale::Old(age)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixMs = UnixMs(1_700_000_000_000);
    const RUN: Run = Run { pid: 7, started_ms: UnixMs(1) };

    fn stamp(written: u64) -> Stamp {
        Stamp { written_ms: UnixMs(written), run: Some(RUN) }
    }

    #[test]
    fn numbers_are_relied_on_only_if_they_are_young_and_of_the_run_that_goes_on() {
        let (running, young) = (Holder::Run(RUN), stamp(NOW.0 - 2_500));
        assert_eq!(judge(running, young, NOW), Ok(Age::Past(2_500)));
        assert_eq!(judge(running, stamp(NOW.0 - 10_001), NOW), Err(Stale::Old(Age::Past(10_001))));
        assert_eq!(judge(Holder::Nobody, young, NOW), Err(Stale::Stopped(Age::Past(2_500))));
        // A gateway that has just started, which in a container has the number of the one before, and has not written yet.
        let others = [Run { pid: 8, ..RUN }, Run { started_ms: UnixMs(2), ..RUN }].map(Holder::Run);
        for holder in others.into_iter().chain([Holder::Unnamed]) {
            assert_eq!(judge(holder, young, NOW), Err(Stale::EarlierRun(Age::Past(2_500))));
        }
        let of_old = Stamp { run: None, ..young };
        assert_eq!(judge(running, of_old, NOW), Err(Stale::EarlierRun(Age::Past(2_500))));
    }

    #[test]
    fn numbers_from_before_the_clock_was_set_back_are_not_said_to_be_some_time_ago() {
        let hour = 3_600_000;
        let stale = judge(Holder::Run(RUN), stamp(NOW.0 + hour), NOW).unwrap_err();
        assert_eq!(stale, Stale::Old(Age::Ahead(hour)));
        assert!(stale.to_string().contains("3600 s ahead of the present time"), "{stale}");
        assert!(!stale.to_string().contains(" ago"), "{stale}");
        assert_eq!(stale.age().ms(), -3_600_000);
        // A time service that moves the clock a little.
        assert_eq!(judge(Holder::Run(RUN), stamp(NOW.0 + 5), NOW).map(Age::ms), Ok(-5));
        for (written, now) in [(0, u64::MAX), (u64::MAX, 0)] {
            assert!(judge(Holder::Run(RUN), stamp(written), UnixMs(now)).is_err_and(|stale| stale.age().ms() != 0));
        }
    }

    #[test]
    fn what_an_earlier_version_wrote_is_read_and_names_no_run() {
        let read = |text: &str| serde_json::from_str::<Stamp>(text);
        assert_eq!(read(r#"{"written_ms":5,"pid":7,"held":[]}"#).unwrap().run, None);
        assert_eq!(read(r#"{"written_ms":5,"pid":7,"started_ms":1}"#).unwrap().run, Some(RUN));
        assert!(read(r#"{"pid":7,"started_ms":1}"#).is_err());
    }
}
