//! Work that blocks or computes, off the runtime's workers, a bounded number at a time.

use std::sync::Arc;

use tokio::sync::Semaphore;

/// Runs closures on blocking threads.
#[derive(Debug, Clone)]
pub struct Blocking {
    permits: Arc<Semaphore>,
}

/// The closure did not come to an end: the node is stopping, or it panicked (a bug).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the work was not done: the node is stopping")]
pub struct NotDone;

impl Blocking {
    /// At most `threads` at a time; whoever comes later waits.
    pub fn new(threads: usize) -> Self {
        Self { permits: Arc::new(Semaphore::new(threads.clamp(1, Semaphore::MAX_PERMITS))) }
    }

    /// Runs `work`.
    pub async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, NotDone> {
        let permit = Arc::clone(&self.permits).acquire_owned().await.map_err(|_| NotDone)?;
        let task = tokio::task::spawn_blocking(move || {
            let out = work();
            drop(permit);
            out
        });
        task.await.map_err(|_| NotDone)
    }
}
