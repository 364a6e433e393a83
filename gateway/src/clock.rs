//! The gateway's clocks, as values that tests replace: wall time, monotonic time, and whether the wall clock can be believed.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use ehe::time::UnixMs;

/// The wall clock alone, as the uplink takes it.
pub type WallClock = Arc<dyn Fn() -> UnixMs + Send + Sync>;

/// One look at the clocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    /// UTC, milliseconds.
    pub utc: UnixMs,
    /// Milliseconds since this program started; never goes back, whatever is done to the wall clock.
    pub monotonic_ms: u64,
    /// Whether the wall clock was synchronised.
    pub synchronised: bool,
}

/// The system's clocks.
#[derive(Debug, Clone)]
pub struct SystemClock {
    start: Instant,
    synchronised_file: Arc<PathBuf>,
}

impl SystemClock {
    /// `synchronised_file` exists while the time service vouches for the clock (systemd-timesyncd:
    /// `/run/systemd/timesync/synchronized`).
    pub fn new(synchronised_file: PathBuf) -> Self {
        Self { start: Instant::now(), synchronised_file: Arc::new(synchronised_file) }
    }

    /// Looks at all clocks.
    pub fn now(&self) -> Moment {
        Moment { utc: utc(), monotonic_ms: self.monotonic_ms(), synchronised: self.synchronised_file.exists() }
    }

    /// UTC alone: cheaper, because whether the clock is synchronised is a file's existence.
    pub fn utc(&self) -> UnixMs {
        utc()
    }

    /// Milliseconds since the start.
    pub fn monotonic_ms(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// The wall clock alone.
    pub fn wall(&self) -> WallClock {
        wall()
    }
}

/// The system's wall clock alone.
pub fn wall() -> WallClock {
    Arc::new(utc)
}

/// The system's UTC; the epoch itself where the clock stands before it.
fn utc() -> UnixMs {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    UnixMs(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}
