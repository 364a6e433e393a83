//! Appending to a peer: requests go out one behind the other, answers come back in their order.
//!
//! There is no task here. One stream of answers is polled by openraft, and polling it also sends: when openraft drops it,
//! whatever was under way is dropped with it, and nothing is left to stop, to leak or to hold a lock.
//!
//! # Answers that are held back
//!
//! openraft takes the answer "I have up to entry 100" for one to *every* request that is under way and ends at entry 100, and notes that
//! the peer was heard at the time when the last of them was **sent**. Requests without entries, which tell of a commit, end where
//! the one before them does; so with requests under way an answer from before a read would confirm the leader for that read, and a
//! leader that was cut off could serve what is out of date. (It was seen: one test in eight.) So such an answer is kept until all
//! that end at its place are answered; it is about the same time, since they wait for the same disk.

use std::{
    collections::VecDeque,
    pin::{Pin, pin},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
};

use futures::{FutureExt, Stream, StreamExt, future::BoxFuture, stream::BoxStream};
use openraft::{
    Instant,
    async_runtime::Select2,
    errors::RPCError,
    raft::{AppendEntriesRequest, StreamAppendError, StreamAppendResult},
    type_config::{TypeConfigExt, alias::InstantOf},
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{
    call::{Answers, CallError, SMALL_FRAME_BYTES},
    check::{self, Asked, Known, Unsound},
    codec,
    link::{FrameSender, MAX_FRAME_BYTES, Purpose},
    router::Router,
};
#[cfg(ehe_sim)]
use crate::consensus::runtime;
use crate::consensus::{
    ids::{GroupId, NodeId},
    types::Types,
};

/// Most requests and bytes to one peer in one group that wait for an answer.
const REQUESTS: usize = 64;
pub(super) const BYTES: usize = 16 << 20;

/// What openraft makes of an answer.
pub(super) type Appended = Result<StreamAppendResult<Types>, RPCError<Types>>;

/// Requests that were sent and not answered.
struct Flight {
    asked: Mutex<VecDeque<Sent>>,
    shares: Mutex<VecDeque<(OwnedSemaphorePermit, OwnedSemaphorePermit)>>,
    bytes: Arc<Semaphore>,
    requests: Arc<Semaphore>,
}

struct Sent {
    asked: Asked,
    at: InstantOf<Types>,
}

impl Flight {
    fn new() -> Arc<Self> {
        let (bytes, requests) = (Arc::new(Semaphore::new(BYTES)), Arc::new(Semaphore::new(REQUESTS)));
        Arc::new(Self { asked: Mutex::default(), shares: Mutex::default(), bytes, requests })
    }

    fn asked(&self) -> MutexGuard<'_, VecDeque<Sent>> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes what openraft has given, and so counts as sent, and waits until there is room for its `bytes`.
    async fn depart(&self, asked: Asked, bytes: usize) -> Result<(), CallError> {
        self.asked().push_back(Sent { asked, at: Types::now() });
        // The longest frame alone is all that there is room for.
        let share = u32::try_from(bytes.clamp(1, BYTES)).unwrap_or(u32::MAX);
        let closed = |_| CallError::Ended;
        let request = self.requests.clone().acquire_owned().await.map_err(closed)?;
        let bytes = self.bytes.clone().acquire_many_owned(share).await.map_err(closed)?;
        self.shares.lock().unwrap_or_else(PoisonError::into_inner).push_back((request, bytes));
        Ok(())
    }

    /// The first that has no answer has one now. Returns what it was, and whether the next that has none ends at the same place.
    fn arrive(&self) -> Option<(Asked, bool)> {
        drop(self.shares.lock().unwrap_or_else(PoisonError::into_inner).pop_front());
        let mut asked = self.asked();
        let Sent { asked: first, .. } = asked.pop_front()?;
        let same = asked.front().is_some_and(|next| next.asked.last == first.last);
        Some((first, same))
    }
}

/// Opens a stream for `input` and returns the stream of its answers. It ends after the answer to the last request, or with
/// the first that is no "yes".
pub(super) async fn append<S>(
    router: &Router,
    peer: NodeId,
    group: GroupId,
    mut input: S,
) -> Result<BoxStream<'static, Appended>, CallError>
where
    S: Stream<Item = AppendEntriesRequest<Types>> + Send + Unpin + 'static,
{
    // Before a stream is opened: openraft waits between two attempts to reach a peer while it makes the request, and nowhere else. Without
    // one, a peer that is away was tried again as fast as this node could.
    let Some(first) = input.next().await else { return Ok(futures::stream::empty().boxed()) };
    let (sender, answers) = router.caller().open(router.log(group)?, peer, Purpose::Append).await?;
    let flight = Flight::new();
    let sending = send(futures::stream::iter([first]).chain(input), sender, flight.clone()).boxed();
    let receiving = Receiving { answers, flight: flight.clone(), router: router.clone(), peer, group };
    let answers = futures::stream::unfold(Some(receiving), |receiving| async {
        let mut receiving = receiving?;
        let appended = receiving.released().await;
        if let Err(error) = &appended {
            receiving.router.caller().peers.failed(receiving.peer, error);
        }
        let goes_on = matches!(appended, Ok(Ok(_)));
        Some((appended.map_err(RPCError::from), goes_on.then_some(receiving)))
    });
    Ok(Session { sending: Some(sending), answers: answers.boxed(), flight }.boxed())
}

async fn send<S>(mut input: S, mut sender: Box<dyn FrameSender>, flight: Arc<Flight>) -> Result<(), CallError>
where
    S: Stream<Item = AppendEntriesRequest<Types>> + Unpin,
{
    while let Some(request) = input.next().await {
        let frame = codec::encode_append(&request);
        if frame.len() > MAX_FRAME_BYTES {
            return Err(CallError::TooLong(frame.len()));
        }
        flight.depart(Asked::of(&request), frame.len()).await?;
        sender.send(frame).await?;
    }
    sender.finish();
    Ok(())
}

struct Session {
    /// `None` when the input has ended and everything was sent.
    sending: Option<BoxFuture<'static, Result<(), CallError>>>,
    answers: BoxStream<'static, Appended>,
    flight: Arc<Flight>,
}

impl Stream for Session {
    type Item = Appended;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Appended>> {
        if let Some(sending) = &mut self.sending
            && let Poll::Ready(sent) = sending.poll_unpin(cx)
        {
            self.sending = None;
            if let Err(error) = sent {
                // What was confirmed in between is confirmed; openraft asks again for the rest.
                self.answers = futures::stream::empty().boxed();
                return Poll::Ready(Some(Err(error.into())));
            }
        }
        if self.sending.is_none() && self.flight.asked().is_empty() {
            return Poll::Ready(None);
        }
        self.answers.poll_next_unpin(cx)
    }
}

struct Receiving {
    answers: Answers,
    flight: Arc<Flight>,
    router: Router,
    peer: NodeId,
    group: GroupId,
}

impl Receiving {
    /// The next answer that openraft may hear. Of those that say the same it hears the last.
    async fn released(&mut self) -> Result<StreamAppendResult<Types>, CallError> {
        loop {
            let (result, more) = self.next().await?;
            #[cfg(ehe_sim)]
            let more = more && !runtime::red(runtime::Red::AnswersAtOnce);
            if !more || result.is_err() {
                return Ok(result);
            }
        }
    }

    /// The next answer, and whether one to the same place is to come.
    async fn next(&mut self) -> Result<(StreamAppendResult<Types>, bool), CallError> {
        let silence = self.answers_within();
        let frame = {
            let mut next = pin!(self.answers.next(SMALL_FRAME_BYTES));
            loop {
                match Types::select2(next.as_mut(), Types::sleep(silence)).await {
                    Select2::First(frame) => break frame?,
                    Select2::Second(()) => {
                        let oldest = self.flight.asked().front().map(|sent| sent.at.elapsed());
                        if oldest.is_some_and(|oldest| oldest >= silence) {
                            return Err(CallError::Silent(silence));
                        }
                    }
                }
            }
        };
        if let Some(why) = codec::decode_not_stored(&frame) {
            let (asked, _) = self.flight.arrive().ok_or(CallError::Unsound(Unsound::OtherQuestion))?;
            self.router.refusals().note(self.group, self.peer, asked.vote);
            return Err(CallError::NotStored(why));
        }
        let result = codec::decode_appended(&frame)?;
        let (asked, same) = self.flight.arrive().ok_or(CallError::Unsound(Unsound::OtherQuestion))?;
        judge(&self.router, self.peer, self.group, &asked, &result)?;
        if result.is_ok() && asked.prev != asked.last {
            self.router.refusals().forget(self.group, self.peer);
        }
        Ok((result, same))
    }

    fn answers_within(&self) -> std::time::Duration {
        self.router.caller().patience.silence
    }
}

/// Holds an answer against what was asked, and against what this follower said before.
pub(super) fn judge(
    router: &Router,
    peer: NodeId,
    group: GroupId,
    asked: &Asked,
    result: &StreamAppendResult<Types>,
) -> Result<(), CallError> {
    let log = router.log(group)?;
    check::noted(log, asked.answered(&Known::of(log), result))?;
    let confirmed = router.confirmed();
    match result {
        Ok(Some(last)) => confirmed.note(group, peer, asked.vote, *last),
        Err(StreamAppendError::Conflict(at)) if confirmed.denies(group, peer, &asked.vote, at) => {
            router.caller().peers.denied(peer);
            return Err(super::peers::NotAdmitted::Denied.into());
        }
        Ok(None) | Err(_) => {}
    }
    Ok(())
}
