//! A snapshot from one node to another: streamed while it is read, received whole and checked before openraft hears of it.
//!
//! openraft takes an error while it installs for a fault of the machine, and lets every heartbeat wait for the installation. So
//! nothing of the network is left when it is asked to install: the bytes are on this node's disk, the end was there, their hash was
//! right, and the machine has found them good ([`Stage`](crate::consensus::Stage)). What remains is one step of the machine.

use std::{
    io::{self, Read},
    pin::pin,
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use futures::Future;
use openraft::{
    Instant, OptionalSend,
    async_runtime::Select2,
    errors::{ReplicationClosed, StreamingError},
    raft::SnapshotResponse,
    type_config::TypeConfigExt,
};
use sha2::{Digest, Sha256};
use tokio::sync::mpsc;

use super::{
    accept::ServeError,
    call::{CallError, Patience, SMALL_FRAME_BYTES},
    check::{self, Known, Unsound},
    codec::{self, Header, Reason, Received},
    link::{FrameReceiver, FrameSender, Purpose},
    pace::BYTES_PER_S_MIN,
    router::Router,
};
use crate::consensus::{
    group::Group,
    ids::{GroupId, NodeId},
    runtime,
    state::{SnapshotData, Stages, Turn},
    types::{LogId, Snapshot, Types, Vote},
};
use crate::least_pace::LeastPace;

/// Bytes of a snapshot in one frame.
const PIECE_BYTES: usize = 1 << 20;
/// Frames between the disk and the network, in each direction.
const PIECES: usize = 2;
/// A receiver says that often that it is still there.
const SIGN_OF_LIFE: Duration = Duration::from_secs(5);
/// Between two looks at how far the machine is.
const A_MOMENT: Duration = Duration::from_millis(20);
/// It is in place within this time behind its end, or within what it may take to send, if that is longer.
const INSTALLED_WITHIN: Duration = Duration::from_secs(600);
/// The longest header: a membership has 64 nodes at most.
const HEADER_BYTES: usize = 16 << 10;

const PIECE: u8 = 1;
const END: u8 = 0;
const END_BYTES: usize = 1 + 8 + 32;

/// Sends `snapshot` and waits until it is installed there, or not needed.
pub(super) async fn send(
    router: &Router,
    peer: NodeId,
    group: GroupId,
    vote: Vote,
    snapshot: Snapshot,
    cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
) -> Result<SnapshotResponse<Types>, StreamingError<Types>> {
    let SnapshotData::Own(reader) = snapshot.snapshot else {
        return Err(ReplicationClosed::new("only this node's own state is sent").into());
    };
    let header = Header { vote, meta: snapshot.meta };
    let sending = pin!(transfer(router, peer, group, &header, reader));
    match Types::select2(pin!(cancel), sending).await {
        Select2::First(closed) => Err(closed.into()),
        Select2::Second(sent) => {
            let vote = sent.inspect_err(|error| router.caller().peers.failed(peer, error))?;
            Ok(SnapshotResponse { vote })
        }
    }
}

async fn transfer(
    router: &Router,
    peer: NodeId,
    group: GroupId,
    header: &Header,
    reader: Box<dyn Read + Send>,
) -> Result<Vote, CallError> {
    let (log, patience) = (router.log(group)?, router.caller().patience.snapshot);
    let _slot = router.pace().slot(peer).await?;
    // From here on the log behind it is kept for whoever receives it.
    let catching_up = router.catching_up().begin(group, peer, header.meta.last_log_id.as_ref().map(LogId::index));
    let (mut sender, mut answers) = router.caller().open(log, peer, Purpose::Snapshot).await?;
    sender.send(codec::encode_header(header)).await?;
    answers.welcome().await?;

    let (frames, mut read) = mpsc::channel::<io::Result<Bytes>>(PIECES);
    let reading = runtime::beside(async move { cut(reader, &frames).await });
    let sending = async {
        // Of the time that it takes, only what the other end does is its own.
        let (mut taking, mut pace) = (Duration::ZERO, LeastPace::of(BYTES_PER_S_MIN));
        while let Some(frame) = read.recv().await {
            let frame = frame.map_err(|error| CallError::Reading(error.to_string()))?;
            let bytes = frame.len();
            router.pace().wait(bytes).await;
            let begun = Types::now();
            let within = pace.limit().saturating_sub(taking);
            Types::timeout(within, sender.send(frame)).await.map_err(|_| CallError::Slow)??;
            taking = taking.saturating_add(begun.elapsed());
            if !pace.keeps(bytes, taking) {
                return Err(CallError::Slow);
            }
            catching_up.sent(bytes);
        }
        sender.finish();
        Ok::<_, CallError>(pace.limit())
    };
    let answer = async {
        loop {
            let word = Types::timeout(patience, answers.next(SMALL_FRAME_BYTES)).await;
            match codec::decode_received(&word.map_err(|_| CallError::Silent(patience))??)? {
                Received::Working => {}
                Received::NoSnapshot => return Err(CallError::NoSnapshot),
                Received::Done(vote) => return Ok(vote),
            }
        }
    };
    let mut answer = pin!(answer);
    let answered = match Types::select2(pin!(sending), answer.as_mut()).await {
        // Checking it and putting it in place is quicker than sending it.
        Select2::First(Ok(within)) => {
            Types::timeout(within.max(INSTALLED_WITHIN), answer).await.unwrap_or(Err(CallError::Slow))
        }
        Select2::First(Err(error)) => Err(error),
        Select2::Second(answered) => answered,
    };
    // It ends by itself: nobody takes what it reads.
    drop(reading);
    let vote = answered?;
    check::noted(log, check::term(&Known::of(log), &vote))?;
    let greater = vote.leader_id.term > header.vote.leader_id.term;
    if !greater && vote != header.vote {
        return Err(Unsound::Answer.into());
    }
    catching_up.installed();
    Ok(vote)
}

/// Reads a state into frames, as long as somebody takes them.
async fn cut(mut reader: Box<dyn Read + Send>, frames: &mpsc::Sender<io::Result<Bytes>>) {
    let (mut hash, mut length) = (Sha256::new(), 0_u64);
    loop {
        let mut frame = Vec::with_capacity(PIECE_BYTES.saturating_add(1));
        frame.push(PIECE);
        let frame = match (&mut reader).take(PIECE_BYTES as u64).read_to_end(&mut frame) {
            Ok(0) => {
                let mut end = BytesMut::with_capacity(END_BYTES);
                end.extend_from_slice(&[END]);
                end.extend_from_slice(&length.to_be_bytes());
                end.extend_from_slice(&hash.finalize());
                drop(runtime::hand(frames, Ok(end.freeze())).await);
                return;
            }
            Ok(read) => {
                length = length.saturating_add(read as u64);
                hash.update(frame.get(1..).unwrap_or_default());
                Ok(frame.into())
            }
            Err(error) => Err(error),
        };
        let failed = frame.is_err();
        if runtime::hand(frames, frame).await.is_err() || failed {
            return;
        }
    }
}

/// Receives a snapshot for `group` and installs it. The sender hears every few seconds that this goes on.
pub(super) async fn receive(
    group: &Group,
    peer: NodeId,
    receiver: Box<dyn FrameReceiver>,
    sender: &mut Box<dyn FrameSender>,
    patience: &Patience,
) -> Result<(), ServeError> {
    let mut working = pin!(take(group, peer, receiver, patience));
    let word = loop {
        match Types::select2(working.as_mut(), Types::sleep(SIGN_OF_LIFE)).await {
            Select2::First(word) => break word,
            Select2::Second(()) => sender.send(codec::encode_received(&Received::Working)).await?,
        }
    };
    let (word, error) = match word {
        Ok(vote) => (Received::Done(vote), None),
        Err(error) => (Received::NoSnapshot, Some(error)),
    };
    if let Some(ServeError::Stage(why)) = &error {
        group.accept.not_taken(patience.again);
        tracing::warn!(group = group.id.0, from = %peer, %why, "the state of a group, sent by its leader, is not taken; this node goes on");
    }
    sender.send(codec::encode_received(&word)).await?;
    sender.finish();
    error.map_or(Ok(()), Err)
}

async fn take(
    group: &Group,
    peer: NodeId,
    mut receiver: Box<dyn FrameReceiver>,
    &Patience { snapshot: patience, open, .. }: &Patience,
) -> Result<Vote, ServeError> {
    let silent = |_| ServeError::Silent(patience);
    let first = Types::timeout(patience, receiver.recv(HEADER_BYTES)).await.map_err(silent)??;
    let header = codec::decode_header(&first.ok_or(ServeError::Ended)?)?;
    let accept = &group.accept;
    accept.snapshot(&group.log, peer, &header)?;
    if let Some(vote) = accept.needs_no(&group.log, &header) {
        return Ok(vote);
    }

    // What is not newer than what is committed here, openraft does not take.
    let at = header.meta.last_log_id.as_ref().map_or(0, LogId::index);
    if !group.may_have(at, header.meta.last_membership.membership()) {
        return Err(ServeError::Members);
    }
    accept.takes_again()?;
    let _one = accept.one_of(peer, open).await?;
    // An earlier one may still be cleaning up.
    let turn = accept.turn().await?;
    let (pieces, arrived) = mpsc::channel::<Bytes>(PIECES);
    let stages = group.stages.clone();
    let mut staging = runtime::beside(stage(stages, arrived, turn));
    let feeding = async {
        let (mut coming, mut pace) = (Duration::ZERO, LeastPace::of(BYTES_PER_S_MIN));
        loop {
            let begun = Types::now();
            let frame =
                Types::timeout(patience, receiver.recv(PIECE_BYTES.saturating_add(1))).await.map_err(silent)??;
            let frame = frame.ok_or(ServeError::Ended)?;
            coming = coming.saturating_add(begun.elapsed());
            if !pace.keeps(frame.len(), coming) {
                return Err(ServeError::Slow);
            }
            let last = frame.first() == Some(&END);
            // If it does not take it, it says why.
            if pieces.send(frame).await.is_err() || last {
                return Ok::<_, ServeError>(());
            }
        }
    };
    let staged = match Types::select2(&mut staging, pin!(feeding)).await {
        Select2::First(staged) => staged,
        Select2::Second(fed) => {
            fed?;
            staging.await
        }
    };
    let staged = staged.map_err(|_| ServeError::Ended)??;
    install(group, peer, header, staged, patience).await
}

/// On a thread that may block.
async fn stage(stages: Stages, mut arrived: mpsc::Receiver<Bytes>, turn: Turn) -> Result<SnapshotData, ServeError> {
    let mut stage = stages.begin()?;
    let (mut hash, mut length) = (Sha256::new(), 0_u64);
    while let Some(frame) = runtime::take(&mut arrived).await {
        match frame.split_first() {
            Some((&PIECE, piece)) => {
                hash.update(piece);
                length = length.saturating_add(piece.len() as u64);
                stage.write(piece)?;
            }
            Some((&END, end)) => {
                let (counted, hashed) = end.split_at_checked(8).ok_or(ServeError::Damaged)?;
                if counted != length.to_be_bytes() || hashed != hash.finalize().as_slice() {
                    return Err(ServeError::Damaged);
                }
                let fits = stage.fits();
                return Ok(SnapshotData::Staged { state: stage.finish()?, fits, turn });
            }
            _ => return Err(ServeError::Damaged),
        }
    }
    Err(ServeError::Ended)
}

/// openraft would stop the core if this snapshot contradicted what is committed. So it is asked, while nothing else is handed in, what
/// that is. And what is installed is to have all that this node's state has: that is asked when the state has all that is committed, as
/// far as its log goes, and nothing can be added to it.
async fn install(
    group: &Group,
    peer: NodeId,
    header: Header,
    data: SnapshotData,
    patience: Duration,
) -> Result<Vote, ServeError> {
    let until = Types::now() + patience;
    let (alone, raft, committed) = loop {
        let alone = group.accept.alone().await;
        if group.has_let_go(peer) {
            return Err(ServeError::Refused(Reason::NotAMember));
        }
        group.accept.snapshot(&group.log, peer, &header)?;
        let raft = group.raft();
        let committed =
            raft.with_raft_state(|state| [state.local_committed().copied(), state.cluster_committed().copied()]);
        let committed = committed.await.map_err(|_| ServeError::Stopped)?;
        let [local, _] = &committed;
        if group.status().applied.map(|at| at.index) >= local.as_ref().map(LogId::index) {
            break (alone, raft, committed);
        }
        // Heartbeats come in meanwhile.
        drop(alone);
        if Types::now() >= until {
            return Err(ServeError::Applying);
        }
        Types::sleep(A_MOMENT).await;
    };
    let asked = runtime::blocking(move || (data.still_fits(), data)).await;
    let (fits, data) = asked.map_err(|_| ServeError::Ended)?;
    fits?;
    let last = header.meta.last_log_id;
    if !last.iter().all(|last| committed.iter().flatten().all(|committed| check::in_one_log(committed, last))) {
        return Err(Unsound::Order.into());
    }
    let snapshot = Snapshot { meta: header.meta, snapshot: data };
    let mut installing = pin!(raft.install_full_snapshot(header.vote, snapshot));
    // The first poll hands it in, to a queue of its own: what were handed in behind it might be heard before it, and move what is committed
    // to where this snapshot contradicts it. So nothing is, until openraft has taken it. What follows may take its time and nobody waits
    // for it.
    let response = loop {
        match Types::select2(installing.as_mut(), pin!(has_taken(group, last))).await {
            Select2::First(response) => break response,
            Select2::Second(Ok(false)) => {}
            Select2::Second(Ok(true)) => {
                drop(alone);
                break installing.await;
            }
            Select2::Second(Err(stopped)) => return Err(stopped),
        }
    };
    Ok(response.map_err(|_| ServeError::Stopped)?.vote)
}

/// Whether openraft's core knows of a snapshot up to `last`.
async fn has_taken(group: &Group, last: Option<LogId>) -> Result<bool, ServeError> {
    let raft = group.raft();
    raft.with_raft_state(move |state| state.snapshot_meta.last_log_id >= last).await.map_err(|_| ServeError::Stopped)
}
