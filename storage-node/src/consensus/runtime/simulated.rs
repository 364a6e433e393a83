//! One thread, a clock that jumps, chance from a seed, and processes that can be killed and stopped between any two steps of theirs.
//!
//! Tasks, time and queues are `openraft-rt-sim`'s: tasks run in the order in which they were woken, and when none can run the clock
//! goes on to the next timer. On top of it, every task belongs to a [`Process`], or to the simulation itself. What a task starts
//! belongs to its process. A process is killed by never running its tasks again: they are dropped where they stand, in the middle of
//! whatever they waited for. A process that is stopped keeps them, and time goes on without it.

use std::{
    any::Any,
    cell::RefCell,
    collections::BTreeMap,
    fmt,
    future::Future,
    io,
    panic::AssertUnwindSafe,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
    time::Duration,
};

use futures::FutureExt;
use openraft::{AsyncRuntime, OptionalSend};
use openraft_rt_sim::{Elapsed, SimInstant, SimRuntime, SimSleep, SimTimeout};
use tokio::sync::{mpsc, oneshot};

use super::{Closed, Late, Now};
use crate::consensus::ids::{GroupId, NodeId};

/// Numbers that follow from a seed (splitmix64). Not for secrets.
#[derive(Clone, Debug)]
pub struct Chance(u64);

impl Chance {
    /// The numbers of `seed`.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number.
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `end`; 0 if there is none.
    pub fn below(&mut self, end: u64) -> u64 {
        self.number().checked_rem(end).unwrap_or(0)
    }

    /// Whether what happens once in `times` happens.
    pub fn once_in(&mut self, times: u64) -> bool {
        self.below(times) == 0
    }

    /// A time up to `longest`; short ones are as likely as long ones, in powers of two.
    pub fn time(&mut self, longest: Duration) -> Duration {
        let nanos = u64::try_from(longest.as_nanos()).unwrap_or(u64::MAX);
        let shift = self.below(12);
        Duration::from_nanos(self.below((nanos >> shift).saturating_add(1)))
    }

    /// Another source, which goes its own way.
    pub fn split(&mut self) -> Self {
        Self(self.number())
    }
}

/// How a process keeps others waiting.
#[derive(Clone, Copy, Debug, Default)]
pub struct Pace {
    /// A task that can go on does so at once, but once in so many times it waits first. 0: never.
    pub hesitates: u64,
    /// For so long at most.
    pub hesitation: Duration,
    /// From when something is on the disk until whoever waits hears of it, at most.
    pub disk: Duration,
}

/// Rules of the product that can be broken, to see that it is noticed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Red {
    /// A vote is given before it is on disk.
    VoteBeforeSync,
    /// What is written to the log's journal is not synced.
    JournalUnsynced,
    /// Who a peer was does not matter.
    AnyUid,
    /// Nodes count on others that they have not met.
    Strangers,
    /// An answer of a follower counts for all requests that end at its place.
    AnswersAtOnce,
}

/// What a process said or knows, for whoever holds one against the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Word {
    /// It answers a candidate that it has its vote.
    Promised {
        /// The term.
        term: u64,
        /// Who has the vote.
        to: NodeId,
    },
    /// It begins a life, and finds this as its last vote.
    Remembers {
        /// The term; 0 if it never voted.
        term: u64,
        /// Who had it. None, if somebody led in that term, whoever had its vote.
        to: Option<NodeId>,
    },
}

/// Hears what each machine says of each group.
pub type Listener = Box<dyn Fn(u64, GroupId, Word)>;

/// One run, with its clock.
#[derive(Debug)]
pub struct World(SimRuntime);

impl World {
    /// A world in which `broken` does not hold.
    #[must_use]
    pub fn new(seed: u64, broken: Option<Red>) -> Self {
        BROKEN.with(|cell| *cell.borrow_mut() = broken);
        Self(SimRuntime::with_seed(seed))
    }

    /// Has `listener` told what processes say, as long as this world lasts.
    pub fn listen(&self, listener: Listener) {
        LISTENER.with(|cell| *cell.borrow_mut() = Some(listener));
    }

    /// Runs `work` to its end, and with it what it starts.
    pub fn run<T>(&mut self, work: impl Future<Output = T>) -> T {
        self.0.block_on(work)
    }
}

impl Drop for World {
    fn drop(&mut self) {
        BROKEN.with(|cell| *cell.borrow_mut() = None);
        // It may hold whatever lives in this world.
        drop(LISTENER.with(RefCell::take));
    }
}

thread_local! {
    static LISTENER: RefCell<Option<Listener>> = const { RefCell::new(None) };
    static CURRENT: RefCell<Option<Process>> = const { RefCell::new(None) };
    static BROKEN: RefCell<Option<Red>> = const { RefCell::new(None) };
}

/// Whether a rule does not hold in this world.
pub(in crate::consensus) fn red(rule: Red) -> bool {
    BROKEN.with(|cell| *cell.borrow() == Some(rule))
}

/// The process that runs says a word of a group.
pub(in crate::consensus) fn tell(group: GroupId, word: Word) {
    let Some(process) = Process::current() else { return };
    LISTENER.with(|cell| {
        if let Some(listener) = &*cell.borrow() {
            listener(process.number(), group, word);
        }
    });
}

/// The time since the world began.
#[must_use]
pub fn now() -> Duration {
    SimInstant::try_now().map_or(Duration::ZERO, SimInstant::elapsed_since_start)
}

/// Lets time pass.
pub fn sleep(time: Duration) -> impl Future<Output = ()> + Send {
    SimRuntime::sleep(time)
}

/// `None` if `work` takes longer than `limit`.
pub async fn within<T: Send>(limit: Duration, work: impl Future<Output = T> + Send) -> Option<T> {
    SimRuntime::timeout(limit, work).await.ok()
}

/// Starts a task that belongs to no process.
pub fn spawn(work: impl Future<Output = ()> + Send + 'static) {
    drop(SimRuntime::spawn(work));
}

/// A program on one of the machines: tasks that live and die together.
#[derive(Clone)]
pub struct Process(Arc<Mutex<State>>);

struct State {
    number: u64,
    pace: Pace,
    chance: Chance,
    dead: bool,
    stopped: bool,
    /// How to wake each task.
    tasks: BTreeMap<u64, Option<Waker>>,
    next: u64,
    panics: Vec<String>,
}

impl fmt::Debug for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Process({})", self.state().number)
    }
}

impl Process {
    /// A program that runs on machine `number`.
    #[must_use]
    pub fn new(number: u64, pace: Pace, chance: Chance) -> Self {
        let (tasks, panics) = (BTreeMap::new(), Vec::new());
        Self(Arc::new(Mutex::new(State { number, pace, chance, dead: false, stopped: false, tasks, next: 0, panics })))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The machine that it runs on.
    #[must_use]
    pub fn number(&self) -> u64 {
        self.state().number
    }

    /// Starts a task of its.
    pub fn spawn<T: Send + 'static>(&self, work: impl Future<Output = T> + Send + 'static) -> Joined<T> {
        let (sender, receiver) = oneshot::channel();
        let id = {
            let mut state = self.state();
            state.next = state.next.saturating_add(1);
            let id = state.next;
            state.tasks.insert(id, None);
            id
        };
        let work = AssertUnwindSafe(work).catch_unwind().map(move |output| {
            let output = output.map_err(|panic| JoinError::Panicked(said(&*panic)));
            let panicked = output.as_ref().err().map(ToString::to_string);
            drop(sender.send(output));
            panicked
        });
        drop(SimRuntime::spawn(Task { process: self.clone(), id, work: Some(work.boxed()), hesitating: None }));
        Joined(receiver)
    }

    /// None of its tasks takes another step. Those that are not at work now are dropped before anything else happens.
    pub fn kill(&self) {
        self.state().dead = true;
        self.wake();
    }

    /// Whether it was killed.
    #[must_use]
    pub fn is_dead(&self) -> bool {
        self.state().dead
    }

    /// As SIGSTOP does.
    pub fn stop(&self) {
        self.state().stopped = true;
    }

    /// As SIGCONT does.
    pub fn go_on(&self) {
        self.state().stopped = false;
        self.wake();
    }

    /// What tasks of its panicked with.
    #[must_use]
    pub fn panics(&self) -> Vec<String> {
        self.state().panics.clone()
    }

    fn wake(&self) {
        let wakers: Vec<Waker> = self.state().tasks.values().flatten().cloned().collect();
        wakers.into_iter().for_each(Waker::wake);
    }

    fn current() -> Option<Self> {
        CURRENT.with(|current| current.borrow().clone())
    }
}

fn said(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "something else than a text".to_owned())
}

/// While this is held, what is started belongs to a process.
struct Inside(Option<Process>);

impl Inside {
    fn of(process: &Process) -> Self {
        Self(CURRENT.with(|current| current.borrow_mut().replace(process.clone())))
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        CURRENT.with(|current| *current.borrow_mut() = self.0.take());
    }
}

/// One task of a process. Its work ends with what it panicked with, if it did.
struct Task {
    process: Process,
    id: u64,
    work: Option<futures::future::BoxFuture<'static, Option<String>>>,
    hesitating: Option<Pin<Box<SimSleep>>>,
}

impl Future for Task {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let task = &mut *self;
        let hesitation = {
            let mut state = task.process.state();
            if state.dead {
                drop(state);
                return task.end();
            }
            state.tasks.insert(task.id, Some(cx.waker().clone()));
            if state.stopped {
                return Poll::Pending;
            }
            let (pace, chance) = (state.pace, &mut state.chance);
            let hesitates = task.hesitating.is_none() && pace.hesitates > 0 && chance.once_in(pace.hesitates);
            hesitates.then(|| chance.time(pace.hesitation))
        };
        if let Some(time) = hesitation {
            task.hesitating = Some(Box::pin(SimRuntime::sleep(time)));
        }
        if let Some(hesitating) = &mut task.hesitating {
            if hesitating.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            task.hesitating = None;
        }
        let _inside = Inside::of(&task.process);
        let Some(work) = &mut task.work else { return Poll::Ready(()) };
        let polled = work.as_mut().poll(cx);
        if let Poll::Ready(Some(panic)) = &polled {
            // What is dead has not panicked: it met the end of its disks.
            let mut state = task.process.state();
            if !state.dead {
                state.panics.push(panic.clone());
            }
        }
        if polled.is_ready() || task.process.is_dead() { task.end() } else { Poll::Pending }
    }
}

impl Task {
    fn end(&mut self) -> Poll<()> {
        self.process.state().tasks.remove(&self.id);
        let _inside = Inside::of(&self.process);
        self.work = None;
        Poll::Ready(())
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        let _inside = Inside::of(&self.process);
        self.work = None;
    }
}

/// Why a task gave no result.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JoinError {
    /// It panicked.
    #[error("the task panicked: {0}")]
    Panicked(String),
    /// Its process was killed.
    #[error("the task's process was killed")]
    Killed,
}

/// Waits for a task. To drop it lets the task go on.
#[derive(Debug)]
pub struct Joined<T>(oneshot::Receiver<Result<T, JoinError>>);

impl<T> Future for Joined<T> {
    type Output = Result<T, JoinError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.poll_unpin(cx).map(|received| received.unwrap_or(Err(JoinError::Killed)))
    }
}

/// What openraft runs on.
#[derive(Debug)]
pub struct Runtime(SimRuntime);

impl AsyncRuntime for Runtime {
    type JoinError = JoinError;
    type JoinHandle<T: OptionalSend + 'static> = Joined<T>;
    type Sleep = SimSleep;
    type Instant = SimInstant;
    type TimeoutError = Elapsed;
    type Timeout<R, T: Future<Output = R> + OptionalSend> = SimTimeout<T>;
    type ThreadLocalRng = <SimRuntime as AsyncRuntime>::ThreadLocalRng;
    type Mpsc = <SimRuntime as AsyncRuntime>::Mpsc;
    type Watch = <SimRuntime as AsyncRuntime>::Watch;
    type Oneshot = <SimRuntime as AsyncRuntime>::Oneshot;
    type Mutex<T: OptionalSend + 'static> = <SimRuntime as AsyncRuntime>::Mutex<T>;

    /// A task of the process that is at work.
    ///
    /// # Panics
    /// If none is: nodes run in processes.
    #[allow(clippy::expect_used, reason = "a mistake of the simulation, which ends it")]
    fn spawn<T>(work: T) -> Joined<T::Output>
    where
        T: Future + OptionalSend + 'static,
        T::Output: OptionalSend + 'static,
    {
        Process::current().expect("a task of no process").spawn(work)
    }

    fn sleep(time: Duration) -> SimSleep {
        SimRuntime::sleep(time)
    }

    fn sleep_until(deadline: SimInstant) -> SimSleep {
        SimRuntime::sleep_until(deadline)
    }

    fn timeout<R, F: Future<Output = R> + OptionalSend>(time: Duration, work: F) -> SimTimeout<F> {
        SimRuntime::timeout(time, work)
    }

    fn timeout_at<R, F: Future<Output = R> + OptionalSend>(deadline: SimInstant, work: F) -> SimTimeout<F> {
        SimRuntime::timeout_at(deadline, work)
    }

    fn is_panic(error: &JoinError) -> bool {
        matches!(error, JoinError::Panicked(_))
    }

    fn thread_rng() -> Self::ThreadLocalRng {
        SimRuntime::thread_rng()
    }

    fn new(threads: usize) -> Self {
        Self(SimRuntime::new(threads))
    }

    fn block_on<F: Future<Output = T>, T>(&mut self, work: F) -> T {
        self.0.block_on(work)
    }

    fn spawn_blocking<F, T>(body: F) -> impl Future<Output = Result<T, io::Error>> + Send
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        blocking(body).map(|done| done.map_err(io::Error::other))
    }
}

/// The end of a queue where things are put in.
pub(in crate::consensus) struct Sender<T>(mpsc::UnboundedSender<T>);

/// The end of a queue that belongs to a [`thread`].
#[derive(Debug)]
pub(in crate::consensus) struct Receiver<T>(mpsc::UnboundedReceiver<T>);

/// A queue without a bound.
pub(in crate::consensus) fn channel<T>() -> (Sender<T>, Receiver<T>) {
    let (sender, receiver) = mpsc::unbounded_channel();
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

impl<T: Send> Receiver<T> {
    pub(in crate::consensus) async fn next(&mut self) -> Option<T> {
        self.0.recv().await
    }

    pub(in crate::consensus) async fn next_within(&mut self, limit: Duration) -> Result<Option<T>, Late> {
        SimRuntime::timeout(limit, self.0.recv()).await.map_err(|_| Late)
    }

    pub(in crate::consensus) fn now(&mut self) -> Now<T> {
        match self.0.try_recv() {
            Ok(item) => Now::Item(item),
            Err(mpsc::error::TryRecvError::Empty) => Now::Nothing,
            Err(mpsc::error::TryRecvError::Disconnected) => Now::Ended,
        }
    }
}

/// A task that is a thread elsewhere.
#[derive(Debug)]
pub(in crate::consensus) struct Thread(Joined<()>);

/// Runs `work` as if on a thread of its own.
pub(in crate::consensus) fn thread(
    _name: String,
    work: impl Future<Output = ()> + Send + 'static,
) -> io::Result<Thread> {
    Ok(Thread(Runtime::spawn(work)))
}

impl Thread {
    pub(in crate::consensus) async fn joined(self) {
        drop(self.0.await);
    }

    pub(in crate::consensus) async fn ended(self) {
        drop(self.0.await);
    }
}

/// Runs `work` as if on a thread of its own.
pub(in crate::consensus) fn beside<T: Send + 'static>(work: impl Future<Output = T> + Send + 'static) -> Joined<T> {
    Runtime::spawn(work)
}

/// Runs `body`, after a moment.
pub(in crate::consensus) async fn blocking<T: Send + 'static>(
    body: impl FnOnce() -> T + Send + 'static,
) -> Result<T, JoinError> {
    moment().await;
    Ok(body())
}

/// Waits for an answer.
pub(in crate::consensus) async fn answer<T>(receiver: oneshot::Receiver<T>) -> Result<T, oneshot::error::RecvError> {
    receiver.await
}

/// Hands `item` to a task. `Err`: nobody takes it.
pub(in crate::consensus) async fn hand<T: Send>(sender: &mpsc::Sender<T>, item: T) -> Result<(), Closed> {
    sender.send(item).await.map_err(|_| Closed)
}

/// Takes the next item from a task.
pub(in crate::consensus) async fn take<T>(receiver: &mut mpsc::Receiver<T>) -> Option<T> {
    receiver.recv().await
}

/// Runs `work` to its end though nobody waits for it, unless the process is dead.
pub(in crate::consensus) fn detach(work: impl Future<Output = ()> + Send + 'static) {
    if let Some(process) = Process::current().filter(|process| !process.is_dead()) {
        drop(process.spawn(work));
    }
}

/// The time that a disk takes.
pub(in crate::consensus) async fn moment() {
    let time = Process::current().map(|process| {
        let mut state = process.state();
        let longest = state.pace.disk;
        state.chance.time(longest)
    });
    if let Some(time) = time.filter(|time| !time.is_zero()) {
        SimRuntime::sleep(time).await;
    }
}

/// Fills `out` from the seed.
pub(in crate::consensus) fn random(out: &mut [u8]) -> io::Result<()> {
    let process = Process::current().ok_or(io::ErrorKind::Other)?;
    let mut state = process.state();
    for piece in out.chunks_mut(8) {
        let number = state.chance.number().to_le_bytes();
        piece.iter_mut().zip(number).for_each(|(out, byte)| *out = byte);
    }
    Ok(())
}
