//! Appending to a peer: requests go out one behind the other, answers come back in their order.
//!
//! There is no task here. One stream of answers is polled by openraft, and polling it also sends: when openraft drops it,
//! whatever was under way is dropped with it, and nothing is left to stop, to leak or to hold a lock.

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
    check::Asked,
    codec,
    link::{FrameSender, MAX_FRAME_BYTES, Purpose},
    router::Router,
};
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
    bytes: Arc<Semaphore>,
    requests: Arc<Semaphore>,
}

struct Sent {
    asked: Asked,
    at: InstantOf<Types>,
    _share: (OwnedSemaphorePermit, OwnedSemaphorePermit),
}

impl Flight {
    fn new() -> Arc<Self> {
        let (bytes, requests) = (Arc::new(Semaphore::new(BYTES)), Arc::new(Semaphore::new(REQUESTS)));
        Arc::new(Self { asked: Mutex::default(), bytes, requests })
    }

    fn asked(&self) -> MutexGuard<'_, VecDeque<Sent>> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until there is room for `bytes` more, and notes what is about to be sent.
    async fn depart(&self, asked: Asked, bytes: usize) -> Result<(), CallError> {
        // The longest frame alone is all that there is room for.
        let share = u32::try_from(bytes.clamp(1, BYTES)).unwrap_or(u32::MAX);
        let closed = |_| CallError::Ended;
        let request = self.requests.clone().acquire_owned().await.map_err(closed)?;
        let bytes = self.bytes.clone().acquire_many_owned(share).await.map_err(closed)?;
        self.asked().push_back(Sent { asked, at: Types::now(), _share: (request, bytes) });
        Ok(())
    }
}

/// Opens a stream for `input` and returns the stream of its answers. It ends after the answer to the last request, or with
/// the first that is no "yes".
pub(super) async fn append<S>(
    router: &Router,
    peer: NodeId,
    group: GroupId,
    input: S,
) -> Result<BoxStream<'static, Appended>, CallError>
where
    S: Stream<Item = AppendEntriesRequest<Types>> + Send + Unpin + 'static,
{
    let (sender, answers) = router.caller().open(router.log(group)?, peer, Purpose::Append).await?;
    let flight = Flight::new();
    let sending = send(input, sender, flight.clone()).boxed();
    let receiving = Receiving { answers, flight: flight.clone(), router: router.clone(), peer, group };
    let answers = futures::stream::unfold(Some(receiving), |receiving| async {
        let mut receiving = receiving?;
        let appended = receiving.next().await;
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
    async fn next(&mut self) -> Result<StreamAppendResult<Types>, CallError> {
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
        let result = codec::decode_appended(&frame)?;
        let sent = self.flight.asked().pop_front().ok_or(CallError::Unsound(super::check::Unsound::OtherQuestion))?;
        judge(&self.router, self.peer, self.group, &sent.asked, &result)?;
        Ok(result)
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
    let term = router.log(group)?.known().0.map_or(0, |vote| vote.leader_id.term);
    asked.answered(term, result)?;
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
