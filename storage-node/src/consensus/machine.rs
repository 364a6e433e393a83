//! What a shard implements to be driven by consensus.

use std::io::Read;
use std::sync::Arc;

use bytes::Bytes;

use super::ids::Position;

/// A replicated state, driven by the log of one group.
///
/// Consensus gives each machine a thread of its own and is its only caller, so every method may block on IO.
/// Calls never overlap.
///
/// The contract, on which the invariants in the [module's text](super) rest:
///
/// - **Atomic.** The effect of [`apply`](Self::apply) or [`adopt`](Self::adopt) and the `meta` given with it are
///   in one transaction: after a crash either both are there or neither.
/// - **Prefix.** After a crash the state is what it was after *some* earlier call, never a mixture, and never older
///   than the last [`make_durable`](Self::make_durable) that returned `Ok`.
/// - **Not ahead.** What was applied becomes durable when it is asked to ([`make_durable`](Self::make_durable)), and by nothing else that
///   [`abandon`](Self::abandon) could come before.
/// - **Deterministic.** The same commands at the same positions from the same state give the same state and responses.
///   Commands may be given again after a crash, from the state that the crash left.
/// - A machine may be [`outdated`](Self::outdated): then nothing more is applied to it, and the group is held, until a later program runs.
/// - An error stops the group for good on this node, until the program is started again. A command that is *refused*
///   is not an error: refusing is a response.
pub trait Machine: Send + 'static {
    /// How it receives the state of another machine.
    type Stage: Stage;

    /// The `meta` that was stored last, as found on disk. `None` if nothing was ever applied or installed.
    ///
    /// Called once, when consensus opens.
    ///
    /// # Errors
    /// If the state cannot be read; consensus then does not open.
    fn applied(&self) -> Result<Option<AppliedMeta>, MachineError>;

    /// Applies `batch` in order and stores `meta`, in one transaction, which need not be durable yet.
    ///
    /// Returns one response for each command, in order. `batch` may be empty: entries of consensus itself move only
    /// `meta`. `meta` is opaque, some 30 to 2,000 bytes.
    ///
    /// # Errors
    /// If the state cannot be written; or, with nothing of the batch applied, that its first commands have to be applied by themselves
    /// ([`MachineError::in_parts`]): whether the machine can go on behind them shows when they are in the state.
    fn apply(&mut self, batch: &[Command], meta: &[u8]) -> Result<Vec<Bytes>, MachineError>;

    /// Why nothing more can be applied by this program: what is committed asks for a later one. Asked when consensus opens, and whenever the
    /// state has changed. As long as it says so, the group is held (its log and its vote go on), and what is committed stays in the log; the
    /// later program applies it.
    fn outdated(&self) -> Option<String>;

    /// When this returns `Ok`, everything applied so far survives a crash.
    ///
    /// # Errors
    /// If the state cannot be synced.
    fn make_durable(&mut self) -> Result<(), MachineError>;

    /// Nothing that was applied since the last [`make_durable`](Self::make_durable) that returned `Ok` may become durable any more, in this life
    /// of the program: not when the machine is dropped, and not when whoever else holds its files lets go of them. The log does not have it
    /// for certain. What is applied can still be read. Called last; it may not wait for a disk. A storage library that stores what is there
    /// when it closes its file, can be put on a [`Latched`](super::Latched) one.
    fn abandon(&mut self);

    /// A consistent view of the state as of the last call to [`apply`](Self::apply), as a stream.
    ///
    /// This should be cheap, a read transaction say, and do its work when it is read: it is also called to mark a
    /// place up to which the log may be shortened, and then nobody reads. The stream may be read on any thread and
    /// outlive later calls.
    ///
    /// # Errors
    /// If the view cannot be opened.
    fn snapshot(&self) -> Result<Box<dyn Read + Send>, MachineError>;

    /// Opens the place where another machine's [`snapshot`](Self::snapshot) is received, beside this machine at work
    /// and on another thread. Called once; what it returns is called for each snapshot that arrives, one at a time.
    fn stager(&self) -> Stager<Self::Stage>;

    /// Judges what a leader sends before it is in this node's log, beside this machine at work. Called once; what it returns
    /// looks at nothing but a command's bytes and a clock. The very [`Bytes`] that it is given come to [`apply`](Self::apply) as a rule, so it may
    /// keep what it made of them.
    ///
    /// What it refuses is not stored here, so nothing becomes committed that the machines of a majority refuse. It must take
    /// whatever an honest leader ordered, however long ago: who comes back after years is sent all of it.
    ///
    /// Nothing here has a default: a machine that wraps another would take its place without a word.
    fn vetting(&self) -> Vetting;

    /// Replaces the whole state by what was staged, and stores `meta`. Durable when it returns `Ok`.
    ///
    /// Everything that this node is asked about the log waits meanwhile, and an error is a fault of this node and
    /// stops the group: so it should be quick, and whatever can be wrong with a stream is found before, while staging.
    ///
    /// # Errors
    /// If the state cannot be written.
    fn adopt(&mut self, staged: <Self::Stage as Stage>::Staged, meta: &[u8]) -> Result<(), MachineError>;

    /// Gives the whole state up: it is as if nothing had ever been applied. Durable when it returns `Ok`, and of its bytes nothing is left on
    /// this node's disk that the file system still has a name for.
    ///
    /// # Errors
    /// If the state cannot be removed.
    fn forget(&mut self) -> Result<(), MachineError>;
}

/// Judges a command before it is stored. See [`Machine::vetting`].
pub type Vetting = Arc<dyn Fn(&Bytes) -> Result<(), Unfit> + Send + Sync>;

/// Why a command that a leader sent is not stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    /// By this node's clock it was not made yet. Whose clock is wrong, a majority's refusal tells.
    #[error("it is {ahead_ms} ms ahead of this node's clock: that one or the leader's is wrong")]
    Ahead {
        /// By how much.
        ahead_ms: u64,
    },
    /// No command that this program would apply.
    #[error("it is no command that this version applies: the leader is faulty, or of another version")]
    Unknown,
}

/// Begins to receive a snapshot.
pub type Stager<S> = Box<dyn Fn() -> Result<S, MachineError> + Send + Sync>;

/// A snapshot on its way to this node. It is fed and finished on a thread that may block, and dropped wherever the transfer
/// ends early: then it must leave nothing behind, at the latest after the next start. Another one begins only when this one, or
/// what is left of it when it is finished, is gone or adopted.
pub trait Stage: Send + 'static {
    /// What is left when everything was received and found good: all that [`Machine::adopt`] needs.
    type Staged: Send + 'static;

    /// Takes the next piece of the stream, of any length.
    ///
    /// # Errors
    /// If it is not part of a snapshot, or cannot be stored. Nothing is lost but the transfer.
    fn write(&mut self, piece: &[u8]) -> Result<(), MachineError>;

    /// Everything is here: checks it as far as that can be done.
    ///
    /// # Errors
    /// As [`write`](Self::write); also if the end is missing.
    fn finish(self) -> Result<Self::Staged, MachineError>;

    /// Whether what was staged may still take the place of the machine's state, which may have gone on meanwhile. Asked just before it is
    /// installed, when the machine has applied all that is committed; what is found later, in [`Machine::adopt`], stops the group.
    ///
    /// # Errors
    /// If it may not. Nothing is lost but the transfer.
    fn still_fits(staged: &Self::Staged) -> Result<(), MachineError>;
}

/// One committed command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Command {
    /// Where it stands in the log. Positions rise by one index at a time, except that consensus keeps some for itself.
    pub position: Position,
    /// What was proposed, byte for byte.
    pub bytes: Bytes,
}

/// What a machine stores for consensus beside its state. Opaque.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AppliedMeta(pub Vec<u8>);

/// A machine cannot go on. Stops its group for good; or a stage cannot, and that costs only the transfer.
#[derive(Debug, thiserror::Error)]
#[error("{source}")]
pub struct MachineError {
    source: Box<dyn std::error::Error + Send + Sync>,
    at_home: bool,
    in_parts: Option<usize>,
}

impl MachineError {
    /// Wraps what went wrong; a plain text will do.
    pub fn new(source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self { source: source.into(), at_home: false, in_parts: None }
    }

    /// Of a stage: nothing is wrong with what came, but with this node's disk.
    pub fn at_home(source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self { source: source.into(), at_home: true, in_parts: None }
    }

    /// Of [`Machine::apply`]: nothing was applied, and the first `commands` of the batch, at least one and not all, have to be by themselves.
    pub fn in_parts(commands: usize) -> Self {
        Self { in_parts: Some(commands), ..Self::new("the batch has to be applied in parts") }
    }

    pub(crate) fn first_part(&self) -> Option<usize> {
        self.in_parts
    }

    /// Whether the one who sent a state has no part in it.
    #[must_use]
    pub fn is_at_home(&self) -> bool {
        self.at_home
    }
}
