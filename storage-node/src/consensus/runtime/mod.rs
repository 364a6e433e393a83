//! What consensus runs on: tokio for what waits, threads for what blocks.
//!
//! A simulation puts one thread, a clock of its own and chance from a seed in their place, so that a run can be repeated step by
//! step. It is chosen when building (`--cfg ehe_sim`), and this module is all that it replaces: the code around is the same, to the
//! line. What blocks is written as `async` and run by [`thread`] or [`beside`]. On [`threads`] its awaits block, and nothing is ever
//! pending: it is the loop that it would be without; in a simulation its awaits are what they look like.
//!
//! | | [`threads`] | in a simulation |
//! |---|---|---|
//! | [`Runtime`] | tokio | one queue of tasks, time that jumps |
//! | [`thread`], [`beside`] | a thread | a task |
//! | [`channel`] | `std::sync::mpsc` | a queue of tasks' |
//! | [`blocking`] | a thread that tokio keeps | at once, after a moment |
//! | [`moment`] | nothing | some time, in which anything may happen elsewhere |
//! | [`random`] | the system's | from the seed |

#[cfg(all(ehe_sim, not(feature = "sim")))]
compile_error!("--cfg ehe_sim needs the feature `sim`");
#[cfg(ehe_sim)]
pub mod simulated;
#[cfg(not(ehe_sim))]
mod threads;

#[cfg(ehe_sim)]
pub(super) use simulated::{
    Receiver, Red, Runtime, Sender, Thread, Word, answer, beside, blocking, channel, detach, hand, moment, random, red,
    take, tell, thread,
};
#[cfg(not(ehe_sim))]
pub(super) use threads::{
    Receiver, Runtime, Sender, Thread, answer, beside, blocking, channel, detach, hand, moment, random, take, thread,
};

/// Nobody takes from the queue any more.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Closed;

/// Nothing came in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Late;

/// What is in a queue now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Now<T> {
    /// The next item.
    Item(T),
    /// Nothing, yet.
    Nothing,
    /// Nothing, and nobody is left who could put something in.
    Ended,
}
