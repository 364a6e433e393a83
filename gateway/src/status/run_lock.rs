//! Whether the numbers of `status.json` are those of a gateway that runs now. Two witnesses, because each alone may be wrong: a lock
//! that the running program holds (the kernel lets it go however the program ends) and the age of the numbers (a program that hangs, or
//! whose disk is full, holds its lock and writes nothing).

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

use ehe::time::UnixMs;

/// How often the running gateway writes its numbers.
pub const WRITTEN_EVERY: Duration = Duration::from_secs(2);
/// From this age on they are old: a busy disk may cost a few rounds.
const OLD_AFTER: Duration = Duration::from_secs(10);
/// In the data directory. Empty; only its lock says something.
const LOCK_FILE: &str = "running.lock";
/// Whoever asks holds the lock for an instant: the gateway that starts in that instant tries again so often.
const ATTEMPTS: u32 = 20;
const BETWEEN_ATTEMPTS: Duration = Duration::from_millis(5);

/// Held while the gateway runs.
#[derive(Debug)]
#[must_use]
pub struct Alive {
    _lock: File,
}

impl Alive {
    /// Says from now on that the gateway on this data directory runs. May wait for some 100 ms.
    ///
    /// # Errors
    /// The file cannot be made, or is locked by another program: `ehe-gateway status` will then take this one for stopped. What keeps
    /// two gateways off the same data is the lock of the spool itself.
    pub fn begin(data_dir: &Path) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        let file = options.write(true).create(true).truncate(false).mode(0o600).open(data_dir.join(LOCK_FILE))?;
        for _ in 1..ATTEMPTS {
            match file.try_lock() {
                Err(TryLockError::WouldBlock) => std::thread::sleep(BETWEEN_ATTEMPTS),
                done => return done.map(|()| Self { _lock: file }).map_err(Into::into),
            }
        }
        file.try_lock()?;
        Ok(Self { _lock: file })
    }
}

/// Whether a gateway runs on this data directory.
pub fn runs(data_dir: &Path) -> io::Result<bool> {
    let file = match File::open(data_dir.join(LOCK_FILE)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        file => file?,
    };
    // Shared: two who ask at the same time do not take each other for the gateway.
    match file.try_lock_shared() {
        Ok(()) => Ok(false),
        Err(TryLockError::WouldBlock) => Ok(true),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

/// What numbers are worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Worth {
    /// The running gateway's, of now; so old.
    Fresh(Duration),
    /// A gateway runs and has not written them for so long; or the wall clock was set back.
    Old(Duration),
    /// No gateway runs; they were written so long ago.
    Stopped(Duration),
}

/// Judges numbers that were written at `written`.
pub fn judge(runs: bool, written: UnixMs, now: UnixMs) -> Worth {
    let age = Duration::from_millis(now.0.abs_diff(written.0));
    match runs {
        false => Worth::Stopped(age),
        true if age <= OLD_AFTER => Worth::Fresh(age),
        true => Worth::Old(age),
    }
}

/// What to do about numbers that are not of now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotNow {
    /// [`Worth::Old`].
    #[error(
        "these numbers are {} s old, and the gateway, which runs, writes them every {} s: it is still starting, its disk is full or fails, \
         or the clock was changed; its log says which",
        .0.as_secs(),
        WRITTEN_EVERY.as_secs()
    )]
    Old(Duration),
    /// [`Worth::Stopped`].
    #[error("the gateway does not run: these are its last numbers, written {} s ago. Its log says why it ended", .0.as_secs())]
    Stopped(Duration),
}

impl Worth {
    /// Whether a gateway runs.
    pub fn runs(self) -> bool {
        !matches!(self, Self::Stopped(_))
    }

    /// How old they are.
    pub fn age(self) -> Duration {
        let (Self::Fresh(age) | Self::Old(age) | Self::Stopped(age)) = self;
        age
    }

    /// Whether they can be relied on.
    pub fn relied_on(self) -> Result<(), NotNow> {
        match self {
            Self::Fresh(_) => Ok(()),
            Self::Old(age) => Err(NotNow::Old(age)),
            Self::Stopped(age) => Err(NotNow::Stopped(age)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_relied_on_only_if_they_are_young_and_their_gateway_runs() {
        let (hour, now) = (3_600_000, UnixMs(1_700_000_000_000));
        let at = |before: u64| UnixMs(now.0 - before);
        assert_eq!(judge(true, at(2_500), now), Worth::Fresh(Duration::from_millis(2_500)));
        assert_eq!(judge(true, at(10_001), now), Worth::Old(Duration::from_millis(10_001)));
        assert_eq!(judge(false, at(0), now), Worth::Stopped(Duration::ZERO));
        // A clock that was set back by an hour.
        assert_eq!(judge(true, at(0), at(hour)), Worth::Old(Duration::from_millis(hour)));
        assert_eq!(judge(true, UnixMs(0), UnixMs(u64::MAX)), Worth::Old(Duration::from_millis(u64::MAX)));
    }

    #[test]
    fn a_gateway_runs_from_its_beginning_to_its_end_whoever_asks_and_however_often() {
        let dir = tempfile::tempdir().unwrap();
        assert!(!runs(dir.path()).unwrap());
        let alive = Alive::begin(dir.path()).unwrap();
        assert!(runs(dir.path()).unwrap() && runs(dir.path()).unwrap());
        assert!(Alive::begin(dir.path()).is_err(), "another one is not taken for it");
        drop(alive);
        // Somebody else asks at the same moment.
        let asking = File::open(dir.path().join(LOCK_FILE)).unwrap();
        asking.try_lock_shared().unwrap();
        assert!(!runs(dir.path()).unwrap());
        let asked = std::thread::spawn(move || {
            std::thread::sleep(BETWEEN_ATTEMPTS);
            drop(asking);
        });
        let _alive = Alive::begin(dir.path()).unwrap();
        assert!(runs(dir.path()).unwrap());
        asked.join().unwrap();
    }
}
