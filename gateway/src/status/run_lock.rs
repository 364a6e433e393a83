//! Which run of the gateway goes on now on a data directory: the running program holds a lock there, which the kernel lets go however the
//! program ends, and says in the locked file which run it is.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::time::Duration;

use ehe::time::UnixMs;
use serde::{Deserialize, Serialize};

/// In the data directory.
const FILE: &str = "running.lock";
/// Of what it holds, padded: it is overwritten in place, which needs no space on a full disk.
const BYTES: usize = 64;
/// Whoever asks holds the lock for an instant: the gateway that starts in that instant tries again so often.
const ATTEMPTS: u32 = 20;
const BETWEEN_ATTEMPTS: Duration = Duration::from_millis(5);

/// One run of the program. The process id alone does not tell it from the one before: in a container both may have the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    /// Process id.
    pub pid: u32,
    /// When it began.
    pub started_ms: UnixMs,
}

/// Held while the gateway runs.
#[derive(Debug)]
#[must_use]
pub struct RunLock {
    _file: File,
}

impl RunLock {
    /// Says from now on that this run goes on. May wait for some 100 ms.
    ///
    /// # Errors
    /// The file cannot be made or written, or is locked by another program: `ehe-gateway status` will then take this run for stopped. What
    /// keeps two gateways off the same data is the lock of the spool itself.
    pub fn take(data_dir: &Path, run: Run) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        let file = options.write(true).create(true).truncate(false).mode(0o600).open(data_dir.join(FILE))?;
        let mut attempts = 1;
        while let Err(error) = file.try_lock() {
            if attempts == ATTEMPTS || !matches!(error, TryLockError::WouldBlock) {
                return Err(error.into());
            }
            attempts += 1;
            std::thread::sleep(BETWEEN_ATTEMPTS);
        }
        let text = format!("{:<width$}\n", serde_json::to_string(&run)?, width = BYTES - 1);
        file.write_all_at(text.as_bytes(), 0)?;
        Ok(Self { _file: file })
    }
}

/// Who holds the lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Holder {
    /// No gateway runs.
    Nobody,
    /// A gateway runs that has not said yet which run it is.
    Unnamed,
    /// This run goes on.
    Run(Run),
}

/// Who holds the lock of this data directory.
pub fn holder(data_dir: &Path) -> io::Result<Holder> {
    let mut file = match File::open(data_dir.join(FILE)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Holder::Nobody),
        file => file?,
    };
    // Shared: two who ask at the same time do not take each other for the gateway.
    match file.try_lock_shared() {
        Ok(()) => return Ok(Holder::Nobody),
        Err(TryLockError::WouldBlock) => {}
        Err(TryLockError::Error(error)) => return Err(error),
    }
    let mut text = Vec::with_capacity(BYTES);
    (&mut file).take(BYTES as u64).read_to_end(&mut text)?;
    Ok(serde_json::from_slice(&text).map_or(Holder::Unnamed, Holder::Run))
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: Run = Run { pid: 4_294_967_295, started_ms: UnixMs(u64::MAX) };
    const SECOND: Run = Run { pid: 7, started_ms: UnixMs(1) };

    #[test]
    fn a_run_is_known_from_its_beginning_to_its_end_whoever_asks_and_however_often() {
        let dir = tempfile::tempdir().unwrap();
        let asked = || holder(dir.path()).unwrap();
        assert_eq!(asked(), Holder::Nobody);
        let lock = RunLock::take(dir.path(), FIRST).unwrap();
        assert_eq!([asked(), asked()], [Holder::Run(FIRST); 2]);
        assert!(RunLock::take(dir.path(), SECOND).is_err());
        assert_eq!(asked(), Holder::Run(FIRST), "another one is not taken for it");
        drop(lock);
        // Somebody else asks at the same moment.
        let asking = File::open(dir.path().join(FILE)).unwrap();
        asking.try_lock_shared().unwrap();
        assert_eq!(asked(), Holder::Nobody);
        let other = std::thread::spawn(move || {
            std::thread::sleep(BETWEEN_ATTEMPTS);
            drop(asking);
        });
        let _lock = RunLock::take(dir.path(), SECOND).unwrap();
        assert_eq!(asked(), Holder::Run(SECOND));
        other.join().unwrap();
    }

    #[test]
    fn a_locked_file_that_names_no_run_is_that_of_a_gateway_all_the_same() {
        let dir = tempfile::tempdir().unwrap();
        for text in ["", "{\"pid\":1}", "rubbish", &"[".repeat(1_000)] {
            std::fs::write(dir.path().join(FILE), text).unwrap();
            let file = File::open(dir.path().join(FILE)).unwrap();
            file.lock().unwrap();
            assert_eq!(holder(dir.path()).unwrap(), Holder::Unnamed, "{text}");
        }
    }
}
