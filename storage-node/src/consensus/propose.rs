//! A proposal on its way.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use openraft::{
    errors::{ClientWriteError, Fatal},
    impls::ProgressResponder,
    type_config::alias::OneshotReceiverOf,
};
use tokio::sync::{OwnedSemaphorePermit, TryAcquireError};

use super::{
    error::ProposeError,
    group::Group,
    ids::{NodeId, Position},
    runtime,
    types::{Payload, Types, WriteResult, position},
};

type Receiver = OneshotReceiverOf<Types, WriteResult>;

/// A proposal that stands in the order, and whose response is still to come. A future.
///
/// Dropping it does not take the proposal back: it goes on, and only its response is lost.
#[derive(Debug)]
#[must_use = "the response, or that there is none, is what is awaited here"]
pub struct Pending {
    group: Arc<Group>,
    waiting: Option<(Receiver, Permits)>,
}

/// Its share of the limits, given back when it is over.
type Permits = (OwnedSemaphorePermit, OwnedSemaphorePermit);

/// Hands `command` in. Returns when it stands in the order of its group.
pub(super) async fn submit(group: Arc<Group>, command: Bytes) -> Result<Pending, ProposeError> {
    let permits = permits(&group, command.len())?;
    let (responder, receiver) = ProgressResponder::complete_only();
    match group.raft().client_write_ff(Payload(command), Some(responder)).await {
        Ok(()) => Ok(Pending { group, waiting: Some((receiver, permits)) }),
        Err(fatal) => Err(stopped(&group, &fatal)),
    }
}

fn permits(group: &Group, bytes: usize) -> Result<Permits, ProposeError> {
    let overloaded = |error| match error {
        TryAcquireError::NoPermits => ProposeError::Overloaded,
        TryAcquireError::Closed => ProposeError::Stopped,
    };
    let bytes = u32::try_from(bytes).map_err(|_| ProposeError::Overloaded)?;
    let slot = group.slots.clone().try_acquire_owned().map_err(overloaded)?;
    let share = group.bytes.clone().try_acquire_many_owned(bytes).map_err(overloaded)?;
    Ok((slot, share))
}

fn stopped(group: &Group, fatal: &Fatal<Types>) -> ProposeError {
    match group.stopped_by() {
        Some(fault) => ProposeError::Fault(fault),
        None if *fatal == Fatal::Stopped => ProposeError::Stopped,
        None => ProposeError::Fault(group.log.fence.bug(format!("consensus ended: {fatal}"))),
    }
}

impl Future for Pending {
    type Output = Result<(Position, Bytes), ProposeError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Some((receiver, _)) = &mut self.waiting else { return Poll::Ready(Err(ProposeError::Stopped)) };
        let received = match Pin::new(receiver).poll(cx) {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(received) => received,
        };
        self.waiting = None;
        Poll::Ready(match received {
            Ok(Ok(written)) => Ok((position(&written.log_id), written.data.0)),
            Ok(Err(ClientWriteError::ForwardToLeader(to))) => {
                Err(ProposeError::NotLeader { leader: to.leader_id.map(NodeId) })
            }
            Ok(Err(ClientWriteError::LogEntryDiscarded(_))) => Err(ProposeError::Unknown),
            Ok(Err(other)) => Err(ProposeError::Fault(self.group.log.fence.bug(other.to_string()))),
            // Nobody will answer: the group ended with the proposal under way.
            Err(_) => Err(self.group.stopped_by().map_or(ProposeError::Stopped, ProposeError::Fault)),
        })
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        // The limits bound what is really under way, so its share is held until it is over.
        if let Some((receiver, permits)) = self.waiting.take() {
            runtime::detach(async move {
                drop(receiver.await);
                drop(permits);
            });
        }
    }
}
