//! What all clients write into.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use ehe::run::SeenCheckpoint;
use ehe::time::UnixMs;
use tokio::sync::watch;

use crate::checker::history::{History, Shown, Wrong};

/// A client asks one node for so long before it asks another one.
pub const ATTEMPT: Duration = Duration::from_millis(700);
/// No fault lasts so long that a client would be without an answer for this time.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// The history as it is written.
#[derive(Debug, Clone)]
pub struct Book {
    history: Arc<Mutex<History>>,
    begun: Instant,
}

impl Book {
    /// Of a campaign that began then.
    pub fn new(begun: Instant) -> Self {
        Self { history: Arc::default(), begun }
    }

    /// Writes.
    pub fn write<T>(&self, line: impl FnOnce(&mut History) -> T) -> T {
        line(&mut self.history.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// What stands in it.
    pub fn read(&self) -> History {
        self.write(|history| history.clone())
    }

    /// Somebody saw a checkpoint.
    pub fn saw(&self, checkpoint: &SeenCheckpoint) {
        let SeenCheckpoint { origin, size, root } = checkpoint.clone();
        self.write(|history| history.shown.insert(Shown { origin, size, root }));
    }

    /// Somebody saw that something is wrong.
    pub fn wrong(&self, who: &str, what: impl ToString) {
        let wrong = Wrong { who: who.into(), what: what.to_string() };
        self.write(|history| history.wrong.push(wrong));
    }

    /// Milliseconds since the beginning.
    pub fn ms(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

/// This machine's time, which no fault touches.
pub fn now() -> UnixMs {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    UnixMs(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// Sleeps, unless the campaign ends meanwhile. True: go on.
pub async fn rest(stop: &mut watch::Receiver<bool>, pause: Duration) -> bool {
    tokio::select! {
        _ = stop.wait_for(|stop| *stop) => false,
        () = tokio::time::sleep(pause) => true,
    }
}
