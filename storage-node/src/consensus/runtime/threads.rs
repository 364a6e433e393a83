//! Tokio and threads: what a node runs on.

use std::{
    fmt,
    future::Future,
    io,
    pin::pin,
    sync::{Arc, mpsc as std_mpsc},
    task::{Context, Poll, Wake, Waker},
    time::Duration,
};

use tokio::{
    runtime::Handle,
    sync::{mpsc, oneshot},
    task::{JoinError, JoinHandle},
};

use super::{Closed, Late, Now};

/// openraft's own choice.
#[allow(deprecated, reason = "it moves to a crate of its own, which openraft's default names in the same way")]
pub(in crate::consensus) type Runtime = openraft::impls::TokioRuntime;

/// The end of a queue where things are put in.
pub(in crate::consensus) struct Sender<T>(std_mpsc::Sender<T>);

/// The end of a queue that belongs to a [`thread`].
#[derive(Debug)]
pub(in crate::consensus) struct Receiver<T>(std_mpsc::Receiver<T>);

/// A queue without a bound, into a thread.
pub(in crate::consensus) fn channel<T>() -> (Sender<T>, Receiver<T>) {
    let (sender, receiver) = std_mpsc::channel();
    (Sender(sender), Receiver(receiver))
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T> fmt::Debug for Sender<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sender")
    }
}

impl<T> Sender<T> {
    pub(in crate::consensus) fn send(&self, item: T) -> Result<(), Closed> {
        self.0.send(item).map_err(|_| Closed)
    }
}

impl<T> Receiver<T> {
    /// The next item; `None` when nobody is left who could put one in.
    pub(in crate::consensus) async fn next(&mut self) -> Option<T> {
        self.0.recv().ok()
    }

    /// As [`next`](Self::next), for so long.
    pub(in crate::consensus) async fn next_within(&mut self, limit: Duration) -> Result<Option<T>, Late> {
        match self.0.recv_timeout(limit) {
            Ok(item) => Ok(Some(item)),
            Err(std_mpsc::RecvTimeoutError::Disconnected) => Ok(None),
            Err(std_mpsc::RecvTimeoutError::Timeout) => Err(Late),
        }
    }

    /// What is there without waiting.
    pub(in crate::consensus) fn now(&mut self) -> Now<T> {
        match self.0.try_recv() {
            Ok(item) => Now::Item(item),
            Err(std_mpsc::TryRecvError::Empty) => Now::Nothing,
            Err(std_mpsc::TryRecvError::Disconnected) => Now::Ended,
        }
    }
}

/// A thread at work.
#[derive(Debug)]
pub(in crate::consensus) struct Thread(std::thread::JoinHandle<()>);

/// Runs `work` on a thread of its own. Nothing of tokio's may be awaited in it but by way of this module.
pub(in crate::consensus) fn thread(
    name: String,
    work: impl Future<Output = ()> + Send + 'static,
) -> io::Result<Thread> {
    std::thread::Builder::new().name(name).spawn(move || here(work)).map(Thread)
}

impl Thread {
    /// Returns when it has ended, to another [`thread`].
    pub(in crate::consensus) async fn joined(self) {
        drop(self.0.join());
    }

    /// Returns when it has ended.
    pub(in crate::consensus) async fn ended(self) {
        drop(tokio::task::spawn_blocking(move || self.0.join()).await);
    }
}

/// Runs `work`, which may block, beside the tasks.
pub(in crate::consensus) fn beside<T: Send + 'static>(work: impl Future<Output = T> + Send + 'static) -> JoinHandle<T> {
    tokio::task::spawn_blocking(move || here(work))
}

/// Runs `body`, which may block, beside the tasks, and waits for it.
pub(in crate::consensus) async fn blocking<T: Send + 'static>(
    body: impl FnOnce() -> T + Send + 'static,
) -> Result<T, JoinError> {
    tokio::task::spawn_blocking(body).await
}

/// Waits for an answer, in a [`thread`].
pub(in crate::consensus) async fn answer<T>(receiver: oneshot::Receiver<T>) -> Result<T, oneshot::error::RecvError> {
    receiver.blocking_recv()
}

/// Hands `item` to a task, [`beside`] the tasks. `Err`: nobody takes it.
pub(in crate::consensus) async fn hand<T>(sender: &mpsc::Sender<T>, item: T) -> Result<(), Closed> {
    sender.blocking_send(item).map_err(|_| Closed)
}

/// Takes the next item from a task, [`beside`] the tasks.
pub(in crate::consensus) async fn take<T>(receiver: &mut mpsc::Receiver<T>) -> Option<T> {
    receiver.blocking_recv()
}

/// Runs `work` to its end though nobody waits for it, unless the runtime is shutting down.
pub(in crate::consensus) fn detach(work: impl Future<Output = ()> + Send + 'static) {
    if let Ok(runtime) = Handle::try_current() {
        drop(runtime.spawn(work));
    }
}

/// Between the disk and whoever waits for it there is nothing.
pub(in crate::consensus) async fn moment() {}

/// Fills `out` with what nobody can guess.
pub(in crate::consensus) fn random(out: &mut [u8]) -> io::Result<()> {
    getrandom::fill(out).map_err(io::Error::other)
}

struct Unpark(std::thread::Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Runs `work` on this thread. Its awaits block, so that it is done at the first look; were it ever not, the thread sleeps
/// until it is woken.
fn here<F: Future>(work: F) -> F::Output {
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut cx = Context::from_waker(&waker);
    let mut work = pin!(work);
    loop {
        match work.as_mut().poll(&mut cx) {
            Poll::Ready(output) => return output,
            Poll::Pending => std::thread::park(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_ready_at_once_is_waited_for() {
        let (sender, receiver) = oneshot::channel();
        let (asked, answered) = channel();
        let thread = thread("waits".into(), async move { asked.send(receiver.await).unwrap() }).unwrap();
        sender.send(7).unwrap();
        thread.0.join().unwrap();
        assert_eq!(answered.0.recv().unwrap(), Ok(7));
    }
}
