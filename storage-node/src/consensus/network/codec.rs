//! What nodes say to each other: our own forms, as on disk ([`crate::consensus::codec`], whose `log id`, `vote`,
//! `membership` and `entry` these use). Each frame is the version byte and one item of CBOR; a snapshot's pieces alone are raw.
//!
//! ```text
//! place     = log id / null                                  null: before the first entry
//! hello     = [purpose, group, to: node id, uid, uid of `to` if known / null]       first on every stream; uid: the sender's own
//!             purpose 0 append · 1 beat · 2 request · 3 snapshot
//! welcome   = [0, uid] / [1, reason]                         the acceptor's first; reason 0 no such group · 1 your uid is not
//!                                                            the one I know · 2 mine is not the one you know · 3 stopped · 4 busy
//!                                                            5 you are not of the group · 6 I have not met all with whom I begin it
//! append    = [vote, prev: place, commit: place, [* entry]]  the entries follow `prev` without a gap, so none says its index
//! appended  = [0, place] / [1, log id] / [2, vote]           as far as asked / `prev` is not here / there is a greater vote
//!           / [3, ms] / [4]                                  not stored: so far ahead of my clock / no command of my version
//! request   = [0, vote, last: place, transfer: bool]         vote
//!           / [1, vote, last: place, transfer: bool]         pre-vote
//!           / [2, vote, to: node id, last: place]            stand for election now
//!           / [3]                                            how far must a reader have applied
//! answer    = [0, vote, granted: bool, last: place]          to 0 and 1
//!           / [1] / [2, vote, vote] / [3, place, place]      to 2: it will / other vote (expected, own) / log not flushed (expected, own)
//!           / [4, log id] / [5, node id / null]              to 3: up to here / ask that node
//! snapshot  = [vote, last: log id, [place, membership]]      then pieces: 1 ‖ bytes, and the end: 0 ‖ length (8) ‖ SHA-256
//! received  = [0, vote] / [1] / [2]                          installed or not needed, my vote / it was no snapshot / still at work
//! ```
//!
//! Strict: another version, another number, a longer item, or a number that nothing honest reaches is an error, and the stream ends.

use bytes::Bytes;
use minicbor::{Decoder, Encoder};
use openraft::raft::{
    AppendEntriesRequest, StreamAppendError, StreamAppendResult, TransferLeaderRequest, VoteRequest, VoteResponse,
};

use super::link::Purpose;
use crate::consensus::{
    codec::{
        self, CodecError, Out, VERSION, Written, any_array, array, get_entry, get_stored_membership, get_uid,
        put_entry_head, put_log_id, put_place, put_stored_membership, put_vote,
    },
    ids::{GroupId, NodeUid},
    machine::Unfit,
    types::{EntryPayload, LogId, Membership, SnapshotMeta, Types, Vote},
};

/// Terms and indices stay below: openraft adds to them without looking.
const NUMBERS: u64 = 1 << 62;
/// Most nodes and voter lists of a membership: groups have seven at most, twice while they move.
const MEMBERS: usize = 64;
const CONFIGS: usize = 4;
/// Most entries of one append: openraft reads 300 at once.
const ENTRIES: u64 = 4096;

/// First on every stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Hello {
    pub(super) purpose: Purpose,
    pub(super) group: GroupId,
    pub(super) to: u64,
    pub(super) uid: NodeUid,
    pub(super) known: Option<NodeUid>,
}

/// The acceptor's first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Welcome {
    Yes(NodeUid),
    No(Reason),
}

/// Why a stream is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Reason {
    #[error("it does not run the group")]
    NoSuchGroup,
    #[error("it knows this node under another uid: this node lost its log, and must be enrolled anew under another id")]
    OtherUid,
    #[error("it has another uid than it had: it lost its log, and must be enrolled anew under another id")]
    NotWhoYouKnow,
    #[error("the group is stopped there")]
    Stopped,
    #[error("it has too many requests at once")]
    Busy,
    #[error("it knows of no part that this node has in the group")]
    NotAMember,
    #[error("it has no part in the group before it has met all with whom it begins it")]
    NotYet,
}

const REASONS: [Reason; 7] = [
    Reason::NoSuchGroup,
    Reason::OtherUid,
    Reason::NotWhoYouKnow,
    Reason::Stopped,
    Reason::Busy,
    Reason::NotAMember,
    Reason::NotYet,
];

/// One request.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Request {
    Vote(VoteRequest<Types>),
    PreVote(VoteRequest<Types>),
    Transfer(TransferLeaderRequest<Types>),
    ReadIndex,
}

/// Its answer.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Answer {
    Vote(VoteResponse<Types>),
    Transferring,
    OtherVote { expected: Vote, actual: Vote },
    NotFlushed { expected: Option<LogId>, actual: Option<LogId> },
    ReadIndex(LogId),
    NotLeader(Option<u64>),
}

/// What a snapshot is, ahead of it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) vote: Vote,
    pub(super) meta: SnapshotMeta,
}

/// What the receiver of a snapshot says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Received {
    Done(Vote),
    NoSnapshot,
    Working,
}

fn write(body: impl FnOnce(&mut Out) -> Written) -> Bytes {
    codec::write(body).into()
}

fn below(what: &str, number: u64) -> Result<u64, CodecError> {
    if number < NUMBERS { Ok(number) } else { Err(CodecError(format!("{what} {number}"))) }
}

fn known(id: LogId) -> Result<LogId, CodecError> {
    below("term", id.committed_leader_id().term)?;
    below("index", id.index())?;
    Ok(id)
}

fn get_log_id(d: &mut Decoder<'_>) -> Result<LogId, CodecError> {
    known(codec::get_log_id(d)?)
}

fn get_place(d: &mut Decoder<'_>) -> Result<Option<LogId>, CodecError> {
    codec::get_place(d)?.map(known).transpose()
}

fn get_vote(d: &mut Decoder<'_>) -> Result<Vote, CodecError> {
    let vote = codec::get_vote(d)?;
    below("term", vote.leader_id.term)?;
    Ok(vote)
}

fn get_count(d: &mut Decoder<'_>) -> Result<u64, CodecError> {
    any_array(d)
}

fn tagged(d: &mut Decoder<'_>, lengths: &[u64]) -> Result<u8, CodecError> {
    let found = get_count(d)?;
    let tag = d.u8()?;
    match lengths.get(usize::from(tag)) {
        Some(length) if *length == found => Ok(tag),
        _ => Err(CodecError(format!("{found} items of kind {tag}"))),
    }
}

fn membership_is_sound(membership: &Membership) -> Result<(), CodecError> {
    let configs = membership.get_joint_config();
    let sound = !configs.is_empty()
        && configs.len() <= CONFIGS
        && configs.iter().all(|voters| !voters.is_empty())
        && membership.nodes().count() <= MEMBERS;
    if sound { Ok(()) } else { Err(CodecError("a membership that no group has".into())) }
}

pub(super) fn encode_hello(hello: &Hello) -> Bytes {
    write(|e| {
        e.array(5)?.u8(purpose_number(hello.purpose))?.u16(hello.group.0)?.u64(hello.to)?.bytes(&hello.uid.0)?;
        match &hello.known {
            Some(uid) => e.bytes(&uid.0)?.ok(),
            None => e.null()?.ok(),
        }
    })
}

const fn purpose_number(purpose: Purpose) -> u8 {
    match purpose {
        Purpose::Append => 0,
        Purpose::Beat => 1,
        Purpose::Request => 2,
        Purpose::Snapshot => 3,
    }
}

pub(super) fn decode_hello(bytes: &[u8]) -> Result<Hello, CodecError> {
    codec::read(bytes, |d| {
        array(d, 5)?;
        let purpose = match d.u8()? {
            0 => Purpose::Append,
            1 => Purpose::Beat,
            2 => Purpose::Request,
            3 => Purpose::Snapshot,
            other => return Err(CodecError(format!("a stream of purpose {other}"))),
        };
        let (group, to, uid) = (GroupId(d.u16()?), d.u64()?, get_uid(d)?);
        let known = if d.datatype()? == minicbor::data::Type::Null {
            d.null()?;
            None
        } else {
            Some(get_uid(d)?)
        };
        Ok(Hello { purpose, group, to, uid, known })
    })
}

pub(super) fn encode_welcome(welcome: &Welcome) -> Bytes {
    write(|e| match welcome {
        Welcome::Yes(uid) => e.array(2)?.u8(0)?.bytes(&uid.0)?.ok(),
        Welcome::No(reason) => e.array(2)?.u8(1)?.u8(reason_number(*reason))?.ok(),
    })
}

fn reason_number(reason: Reason) -> u8 {
    match reason {
        Reason::NoSuchGroup => 0,
        Reason::OtherUid => 1,
        Reason::NotWhoYouKnow => 2,
        Reason::Stopped => 3,
        Reason::Busy => 4,
        Reason::NotAMember => 5,
        Reason::NotYet => 6,
    }
}

pub(super) fn decode_welcome(bytes: &[u8]) -> Result<Welcome, CodecError> {
    codec::read(bytes, |d| match tagged(d, &[2, 2])? {
        0 => Ok(Welcome::Yes(get_uid(d)?)),
        _ => {
            let number = d.u8()?;
            let reason = REASONS.get(usize::from(number));
            reason.map(|reason| Welcome::No(*reason)).ok_or_else(|| CodecError(format!("reason {number}")))
        }
    })
}

/// Of one append; at most some 12 MiB, see [`MAX_FRAME_BYTES`](super::link::MAX_FRAME_BYTES).
pub(super) fn encode_append(request: &AppendEntriesRequest<Types>) -> Bytes {
    let bodies: usize = request.entries.iter().map(|entry| body_len(&entry.payload).saturating_add(24)).sum();
    let mut out = Vec::with_capacity(bodies.saturating_add(64));
    out.push(VERSION);
    let mut e = Encoder::new(out);
    let written = put_append(&mut e, request);
    debug_assert!(written.is_ok(), "writing to memory cannot fail");
    e.into_writer().into()
}

fn put_append(e: &mut Out, request: &AppendEntriesRequest<Types>) -> Written {
    e.array(4)?;
    put_vote(e, &request.vote)?;
    put_place(e, request.prev_log_id.as_ref())?;
    put_place(e, request.leader_commit.as_ref())?;
    e.array(request.entries.len() as u64)?;
    for entry in &request.entries {
        let body = put_entry_head(e, entry)?;
        e.writer_mut().extend_from_slice(&body);
    }
    Ok(())
}

fn body_len(payload: &EntryPayload) -> usize {
    match payload {
        EntryPayload::Normal(command) => command.0.len(),
        EntryPayload::Blank | EntryPayload::Membership(_) => 0,
    }
}

pub(super) fn decode_append(bytes: &[u8]) -> Result<AppendEntriesRequest<Types>, CodecError> {
    codec::read(bytes, |d| {
        array(d, 4)?;
        let (vote, prev_log_id, leader_commit) = (get_vote(d)?, get_place(d)?, get_place(d)?);
        let (first, count) = (prev_log_id.map_or(0, |id| id.index().saturating_add(1)), get_count(d)?);
        if count > ENTRIES {
            return Err(CodecError(format!("{count} entries")));
        }
        let mut entries = Vec::new();
        for index in (first..).take(usize::try_from(count).unwrap_or_default()) {
            let entry = get_entry(d, index)?;
            known(entry.log_id)?;
            if let EntryPayload::Membership(membership) = &entry.payload {
                membership_is_sound(membership)?;
            }
            entries.push(entry);
        }
        Ok(AppendEntriesRequest { vote, prev_log_id, leader_commit, entries })
    })
}

pub(super) fn encode_appended(result: &StreamAppendResult<Types>) -> Bytes {
    write(|e| match result {
        Ok(place) => put_place(e.array(2)?.u8(0)?, place.as_ref()),
        Err(StreamAppendError::Conflict(id)) => put_log_id(e.array(2)?.u8(1)?, id),
        Err(StreamAppendError::HigherVote(vote)) => put_vote(e.array(2)?.u8(2)?, vote),
    })
}

pub(super) fn decode_appended(bytes: &[u8]) -> Result<StreamAppendResult<Types>, CodecError> {
    codec::read(bytes, |d| {
        Ok(match tagged(d, &[2, 2, 2])? {
            0 => Ok(get_place(d)?),
            1 => Err(StreamAppendError::Conflict(get_log_id(d)?)),
            _ => Err(StreamAppendError::HigherVote(get_vote(d)?)),
        })
    })
}

/// In place of the answer to an append of which nothing is taken; the stream ends.
pub(super) fn encode_not_stored(why: Unfit) -> Bytes {
    write(|e| match why {
        Unfit::Ahead { ahead_ms } => e.array(2)?.u8(3)?.u64(ahead_ms)?.ok(),
        Unfit::Unknown => e.array(1)?.u8(4)?.ok(),
    })
}

/// `None`: it is something else.
pub(super) fn decode_not_stored(bytes: &[u8]) -> Option<Unfit> {
    let read = codec::read(bytes, |d| {
        Ok(match (any_array(d)?, d.u8()?) {
            (2, 3) => Some(Unfit::Ahead { ahead_ms: d.u64()? }),
            (1, 4) => Some(Unfit::Unknown),
            _ => None,
        })
    });
    read.ok().flatten()
}

pub(super) fn encode_request(request: &Request) -> Bytes {
    let vote = |e: &mut Out, kind: u8, request: &VoteRequest<Types>| {
        put_vote(e.array(4)?.u8(kind)?, &request.vote)?;
        put_place(e, request.last_log_id.as_ref())?;
        e.bool(request.leadership_transfer)?.ok()
    };
    write(|e| match request {
        Request::Vote(request) => vote(e, 0, request),
        Request::PreVote(request) => vote(e, 1, request),
        Request::Transfer(request) => {
            put_vote(e.array(4)?.u8(2)?, request.from_leader())?;
            e.u64(*request.to_node_id())?;
            put_place(e, request.last_log_id())
        }
        Request::ReadIndex => e.array(1)?.u8(3)?.ok(),
    })
}

pub(super) fn decode_request(bytes: &[u8]) -> Result<Request, CodecError> {
    let vote = |d: &mut Decoder<'_>| -> Result<VoteRequest<Types>, CodecError> {
        Ok(VoteRequest { vote: get_vote(d)?, last_log_id: get_place(d)?, leadership_transfer: d.bool()? })
    };
    codec::read(bytes, |d| {
        Ok(match tagged(d, &[4, 4, 4, 1])? {
            0 => Request::Vote(vote(d)?),
            1 => Request::PreVote(vote(d)?),
            2 => Request::Transfer(TransferLeaderRequest::new(get_vote(d)?, d.u64()?, get_place(d)?)),
            _ => Request::ReadIndex,
        })
    })
}

pub(super) fn encode_answer(answer: &Answer) -> Bytes {
    write(|e| match answer {
        Answer::Vote(answer) => {
            put_vote(e.array(4)?.u8(0)?, &answer.vote)?;
            put_place(e.bool(answer.vote_granted)?, answer.last_log_id.as_ref())
        }
        Answer::Transferring => e.array(1)?.u8(1)?.ok(),
        Answer::OtherVote { expected, actual } => {
            put_vote(e.array(3)?.u8(2)?, expected)?;
            put_vote(e, actual)
        }
        Answer::NotFlushed { expected, actual } => {
            put_place(e.array(3)?.u8(3)?, expected.as_ref())?;
            put_place(e, actual.as_ref())
        }
        Answer::ReadIndex(id) => put_log_id(e.array(2)?.u8(4)?, id),
        Answer::NotLeader(Some(leader)) => e.array(2)?.u8(5)?.u64(*leader)?.ok(),
        Answer::NotLeader(None) => e.array(2)?.u8(5)?.null()?.ok(),
    })
}

pub(super) fn decode_answer(bytes: &[u8]) -> Result<Answer, CodecError> {
    codec::read(bytes, |d| {
        Ok(match tagged(d, &[4, 1, 3, 3, 2, 2])? {
            0 => {
                let (vote, vote_granted) = (get_vote(d)?, d.bool()?);
                Answer::Vote(VoteResponse { vote, vote_granted, last_log_id: get_place(d)? })
            }
            1 => Answer::Transferring,
            2 => Answer::OtherVote { expected: get_vote(d)?, actual: get_vote(d)? },
            3 => Answer::NotFlushed { expected: get_place(d)?, actual: get_place(d)? },
            4 => Answer::ReadIndex(get_log_id(d)?),
            _ if d.datatype()? == minicbor::data::Type::Null => {
                d.null()?;
                Answer::NotLeader(None)
            }
            _ => Answer::NotLeader(Some(d.u64()?)),
        })
    })
}

pub(super) fn encode_header(header: &Header) -> Bytes {
    write(|e| {
        put_vote(e.array(3)?, &header.vote)?;
        put_place(e, header.meta.last_log_id.as_ref())?;
        put_stored_membership(e, &header.meta.last_membership)
    })
}

pub(super) fn decode_header(bytes: &[u8]) -> Result<Header, CodecError> {
    codec::read(bytes, |d| {
        array(d, 3)?;
        let (vote, last) = (get_vote(d)?, get_log_id(d)?);
        let last_membership = get_stored_membership(d)?;
        last_membership.log_id().map(known).transpose()?;
        membership_is_sound(last_membership.membership())?;
        Ok(Header { vote, meta: SnapshotMeta { last_log_id: Some(last), last_membership } })
    })
}

pub(super) fn encode_received(received: &Received) -> Bytes {
    write(|e| match received {
        Received::Done(vote) => put_vote(e.array(2)?.u8(0)?, vote),
        Received::NoSnapshot => e.array(1)?.u8(1)?.ok(),
        Received::Working => e.array(1)?.u8(2)?.ok(),
    })
}

pub(super) fn decode_received(bytes: &[u8]) -> Result<Received, CodecError> {
    codec::read(bytes, |d| {
        Ok(match tagged(d, &[2, 1, 1])? {
            0 => Received::Done(get_vote(d)?),
            1 => Received::NoSnapshot,
            _ => Received::Working,
        })
    })
}
