//! What stands on disk: our own forms, so that a change of openraft's types never changes a stored byte.
//!
//! Each value is one version byte, [`VERSION`], and one item of deterministic CBOR (RFC 8949 §4.2.1):
//!
//! ```text
//! log id      = [term, index]
//! left        = [term, index, note]              where the log of a group ended that was given up
//! vote        = [term, node, committed: bool]
//! membership  = [[* [* voter]], [* node]]        two voter lists while a change is under way; ids rise
//! entry       = [term, kind, body]               the index is the key that it is stored under
//!               kind 0 blank, body null · kind 1 command, body bytes · kind 2 membership, body membership
//! applied     = [uid: bytes .size 16, log id, [log id / null, membership]]
//! node        = [uid: bytes .size 16, node id]
//! journal     = [id: bytes .size 16, epoch, settled]
//! ```
//!
//! A reader takes nothing that it does not know: another version, another kind, or bytes behind the end are errors.

use std::{collections::BTreeSet, convert::Infallible};

use bytes::Bytes;
use minicbor::{Decoder, Encoder, decode, encode};
use openraft::vote::RaftLeaderId;

use super::{
    ids::{NodeId, NodeUid},
    log::{JournalRecord, file::Left},
    types::{Entry, EntryPayload, LeaderId, LogId, Membership, Payload, StoredMembership, Vote, log_id},
};

/// The version byte in front of every value. A change of any form above is a new version, and a migration.
pub(super) const VERSION: u8 = 1;

const BLANK: u8 = 0;
const COMMAND: u8 = 1;
const MEMBERSHIP: u8 = 2;

/// Stored bytes are not one of the forms above.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct CodecError(pub(super) String);

impl From<decode::Error> for CodecError {
    fn from(error: decode::Error) -> Self {
        Self(error.to_string())
    }
}

pub(super) type Out = Encoder<Vec<u8>>;
pub(super) type Written = Result<(), encode::Error<Infallible>>;

pub(super) fn write(body: impl FnOnce(&mut Out) -> Written) -> Vec<u8> {
    let mut out = Encoder::new(vec![VERSION]);
    let written = body(&mut out);
    debug_assert!(written.is_ok(), "writing to memory cannot fail");
    out.into_writer()
}

pub(super) fn read<'b, T>(
    bytes: &'b [u8],
    body: impl FnOnce(&mut Decoder<'b>) -> Result<T, CodecError>,
) -> Result<T, CodecError> {
    let (version, rest) = bytes.split_first().ok_or_else(|| CodecError("empty value".into()))?;
    if *version != VERSION {
        return Err(CodecError(format!("version {version} of a value, this program knows {VERSION}")));
    }
    let mut decoder = Decoder::new(rest);
    let value = body(&mut decoder)?;
    if decoder.position() != rest.len() {
        return Err(CodecError("bytes behind the end of a value".into()));
    }
    Ok(value)
}

pub(super) fn array(d: &mut Decoder<'_>, len: u64) -> Result<(), CodecError> {
    match d.array()? {
        Some(found) if found == len => Ok(()),
        found => Err(CodecError(format!("array of {found:?} where {len} items belong"))),
    }
}

pub(super) fn any_array(d: &mut Decoder<'_>) -> Result<u64, CodecError> {
    d.array()?.ok_or_else(|| CodecError("array without a length".into()))
}

/// `[term, index]`
pub(super) fn encode_log_id(id: &LogId) -> Vec<u8> {
    write(|e| put_log_id(e, id))
}

/// See [`encode_log_id`].
pub(super) fn decode_log_id(bytes: &[u8]) -> Result<LogId, CodecError> {
    read(bytes, get_log_id)
}

/// `[term, index, note]`
pub(super) fn encode_left(left: &Left) -> Vec<u8> {
    write(|e| put_left(e, left))
}

/// See [`encode_left`].
pub(super) fn decode_left(bytes: &[u8]) -> Result<Left, CodecError> {
    read(bytes, get_left)
}

pub(super) fn put_left(e: &mut Out, left: &Left) -> Written {
    let Left { last, under } = left;
    e.array(3)?.u64(last.committed_leader_id().term)?.u64(last.index())?.u32(*under)?.ok()
}

pub(super) fn get_left(d: &mut Decoder<'_>) -> Result<Left, CodecError> {
    array(d, 3)?;
    Ok(Left { last: log_id(d.u64()?, d.u64()?), under: d.u32()? })
}

pub(super) fn put_log_id(e: &mut Out, id: &LogId) -> Written {
    e.array(2)?.u64(id.committed_leader_id().term)?.u64(id.index())?.ok()
}

pub(super) fn get_log_id(d: &mut Decoder<'_>) -> Result<LogId, CodecError> {
    array(d, 2)?;
    Ok(log_id(d.u64()?, d.u64()?))
}

/// `[term, node, committed]`
pub(super) fn encode_vote(vote: &Vote) -> Vec<u8> {
    write(|e| put_vote(e, vote))
}

/// See [`encode_vote`].
pub(super) fn decode_vote(bytes: &[u8]) -> Result<Vote, CodecError> {
    read(bytes, get_vote)
}

pub(super) fn put_vote(e: &mut Out, vote: &Vote) -> Written {
    e.array(3)?.u64(vote.leader_id.term)?.u64(vote.leader_id.voted_for)?.bool(vote.committed)?.ok()
}

pub(super) fn get_vote(d: &mut Decoder<'_>) -> Result<Vote, CodecError> {
    array(d, 3)?;
    let leader_id = LeaderId::new(d.u64()?, d.u64()?);
    Ok(Vote { leader_id, committed: d.bool()? })
}

/// A log id, or null for the place before the first entry.
pub(super) fn put_place(e: &mut Out, id: Option<&LogId>) -> Written {
    match id {
        Some(id) => put_log_id(e, id),
        None => e.null()?.ok(),
    }
}

/// See [`put_place`].
pub(super) fn get_place(d: &mut Decoder<'_>) -> Result<Option<LogId>, CodecError> {
    if d.datatype()? == minicbor::data::Type::Null {
        d.null()?;
        return Ok(None);
    }
    get_log_id(d).map(Some)
}

pub(super) fn put_membership(e: &mut Out, membership: &Membership) -> Written {
    let configs = membership.get_joint_config();
    e.array(2)?.array(configs.len() as u64)?;
    for voters in configs {
        e.array(voters.len() as u64)?;
        for voter in voters {
            e.u64(*voter)?;
        }
    }
    e.array(membership.nodes().count() as u64)?;
    for (node, ()) in membership.nodes() {
        e.u64(*node)?;
    }
    Ok(())
}

pub(super) fn get_membership(d: &mut Decoder<'_>) -> Result<Membership, CodecError> {
    let ids = |d: &mut Decoder<'_>| -> Result<BTreeSet<u64>, CodecError> {
        let count = any_array(d)?;
        (0..count).map(|_| Ok(d.u64()?)).collect()
    };
    array(d, 2)?;
    let count = any_array(d)?;
    let configs = (0..count).map(|_| ids(d)).collect::<Result<Vec<_>, _>>()?;
    let nodes = ids(d)?;
    if configs.is_empty() && nodes.is_empty() {
        return Ok(Membership::default()); // what openraft has before the first membership, and `new` refuses
    }
    Membership::new(configs, nodes).map_err(|error| CodecError(format!("membership: {error}")))
}

/// The head of an entry's value and its body, so that a long command is copied once, into the page.
pub(super) fn encode_entry(entry: &Entry) -> (Vec<u8>, Bytes) {
    let mut body = Bytes::new();
    let head = write(|e| {
        body = put_entry_head(e, entry)?;
        Ok(())
    });
    (head, body)
}

/// Writes all of an entry but the bytes of a command, which are returned: they follow.
pub(super) fn put_entry_head(e: &mut Out, entry: &Entry) -> Result<Bytes, encode::Error<Infallible>> {
    e.array(3)?.u64(entry.log_id.committed_leader_id().term)?;
    match &entry.payload {
        EntryPayload::Blank => e.u8(BLANK)?.null()?.ok()?,
        EntryPayload::Normal(Payload(body)) => {
            e.u8(COMMAND)?.bytes_len(body.len() as u64)?;
            return Ok(body.clone());
        }
        EntryPayload::Membership(membership) => {
            e.u8(MEMBERSHIP)?;
            put_membership(e, membership)?;
        }
    }
    Ok(Bytes::new())
}

/// See [`encode_entry`]; `index` is the key.
pub(super) fn decode_entry(index: u64, bytes: &[u8]) -> Result<Entry, CodecError> {
    read(bytes, |d| get_entry(d, index))
}

/// The entry that belongs at `index`.
pub(super) fn get_entry(d: &mut Decoder<'_>, index: u64) -> Result<Entry, CodecError> {
    array(d, 3)?;
    let log_id = log_id(d.u64()?, index);
    let payload = match d.u8()? {
        BLANK => {
            d.null()?;
            EntryPayload::Blank
        }
        COMMAND => EntryPayload::Normal(Payload(Bytes::copy_from_slice(d.bytes()?))),
        MEMBERSHIP => EntryPayload::Membership(get_membership(d)?),
        other => return Err(CodecError(format!("entry of kind {other}"))),
    };
    Ok(Entry { log_id, payload })
}

/// The id of a stored entry, without its body.
pub(super) fn decode_entry_id(index: u64, bytes: &[u8]) -> Result<LogId, CodecError> {
    match bytes.split_first() {
        Some((&VERSION, rest)) => {
            let mut d = Decoder::new(rest);
            array(&mut d, 3)?;
            Ok(log_id(d.u64()?, index))
        }
        _ => Err(CodecError("entry of an unknown version".into())),
    }
}

/// What a machine keeps for consensus: whose state it is, how far it goes, and the membership there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Applied {
    pub(super) uid: NodeUid,
    pub(super) last: LogId,
    pub(super) membership: StoredMembership,
}

/// See [`Applied`].
pub(super) fn encode_applied(applied: &Applied) -> Vec<u8> {
    write(|e| {
        e.array(3)?.bytes(&applied.uid.0)?;
        put_log_id(e, &applied.last)?;
        put_stored_membership(e, &applied.membership)
    })
}

/// See [`Applied`].
pub(super) fn decode_applied(bytes: &[u8]) -> Result<Applied, CodecError> {
    read(bytes, |d| {
        array(d, 3)?;
        let uid = get_uid(d)?;
        let last = get_log_id(d)?;
        Ok(Applied { uid, last, membership: get_stored_membership(d)? })
    })
}

pub(super) fn put_stored_membership(e: &mut Out, stored: &StoredMembership) -> Written {
    e.array(2)?;
    put_place(e, stored.log_id().as_ref())?;
    put_membership(e, stored.membership())
}

pub(super) fn get_stored_membership(d: &mut Decoder<'_>) -> Result<StoredMembership, CodecError> {
    array(d, 2)?;
    let at = get_place(d)?;
    Ok(StoredMembership::new(at, get_membership(d)?))
}

/// Whose log file this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NodeRecord {
    pub(super) uid: NodeUid,
    pub(super) node: NodeId,
}

/// See [`NodeRecord`].
pub(super) fn encode_node(record: &NodeRecord) -> Vec<u8> {
    write(|e| e.array(2)?.bytes(&record.uid.0)?.u64(record.node.0)?.ok())
}

/// See [`NodeRecord`].
pub(super) fn decode_node(bytes: &[u8]) -> Result<NodeRecord, CodecError> {
    read(bytes, |d| {
        array(d, 2)?;
        Ok(NodeRecord { uid: get_uid(d)?, node: NodeId(d.u64()?) })
    })
}

/// See [`JournalRecord`].
pub(super) fn encode_journal(record: &JournalRecord) -> Vec<u8> {
    write(|e| e.array(3)?.bytes(&record.id)?.u64(record.epoch)?.u64(record.settled)?.ok())
}

/// See [`JournalRecord`].
pub(super) fn decode_journal(bytes: &[u8]) -> Result<JournalRecord, CodecError> {
    read(bytes, |d| {
        array(d, 3)?;
        let id = d.bytes()?;
        let id = id.try_into().map_err(|_| CodecError(format!("a journal's id of {} bytes", id.len())))?;
        Ok(JournalRecord { id, epoch: d.u64()?, settled: d.u64()? })
    })
}

pub(super) fn get_uid(d: &mut Decoder<'_>) -> Result<NodeUid, CodecError> {
    let bytes = d.bytes()?;
    bytes.try_into().map(NodeUid).map_err(|_| CodecError(format!("uid of {} bytes", bytes.len())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn membership() -> Membership {
        Membership::new(vec![BTreeSet::from([1, 2, 3]), BTreeSet::from([3, 4])], BTreeSet::from([1, 2, 3, 4, 900]))
            .unwrap()
    }

    fn entries() -> Vec<Entry> {
        [
            EntryPayload::Blank,
            EntryPayload::Normal(Payload(Bytes::new())),
            EntryPayload::Normal(Payload(Bytes::from(vec![7; 70_000]))),
            EntryPayload::Membership(membership()),
        ]
        .into_iter()
        .map(|payload| Entry { log_id: log_id(300, u64::MAX), payload })
        .collect()
    }

    fn joined(entry: &Entry) -> Vec<u8> {
        let (mut bytes, body) = encode_entry(entry);
        bytes.extend_from_slice(&body);
        bytes
    }

    #[test]
    fn what_is_written_is_what_is_read() {
        for entry in entries() {
            assert_eq!(decode_entry(u64::MAX, &joined(&entry)).unwrap(), entry);
            assert_eq!(decode_entry_id(u64::MAX, &joined(&entry)).unwrap(), entry.log_id);
        }
        let vote = Vote { leader_id: LeaderId::new(9, 70_000), committed: true };
        assert_eq!(decode_vote(&encode_vote(&vote)).unwrap(), vote);
        for at in [None, Some(log_id(1, 2))] {
            let membership = StoredMembership::new(at, membership());
            let applied = Applied { uid: NodeUid([5; 16]), last: log_id(3, 4), membership };
            assert_eq!(decode_applied(&encode_applied(&applied)).unwrap(), applied);
        }
        let empty = Applied { uid: NodeUid([5; 16]), last: log_id(3, 4), membership: StoredMembership::default() };
        assert_eq!(decode_applied(&encode_applied(&empty)).unwrap(), empty);
        let node = NodeRecord { uid: NodeUid([5; 16]), node: NodeId(u64::MAX) };
        assert_eq!(decode_node(&encode_node(&node)).unwrap(), node);
        let journal = JournalRecord { id: [5; 16], epoch: u64::MAX, settled: 70_000 };
        assert_eq!(decode_journal(&encode_journal(&journal)).unwrap(), journal);
    }

    /// Disk forms are for good: these bytes must never change under version 1.
    #[test]
    fn the_stored_bytes_are_these() {
        let vote = Vote { leader_id: LeaderId::new(2, 7), committed: true };
        assert_eq!(encode_vote(&vote), [1, 0x83, 2, 7, 0xf5]);
        assert_eq!(encode_log_id(&log_id(2, 300)), [1, 0x82, 2, 0x19, 1, 44]);
        let entry = Entry { log_id: log_id(2, 5), payload: EntryPayload::Normal(Payload(Bytes::from_static(b"ab"))) };
        assert_eq!(joined(&entry), [1, 0x83, 2, 1, 0x42, b'a', b'b']);
    }

    #[test]
    fn damaged_bytes_are_an_error_and_never_a_panic() {
        for bytes in entries().iter().map(joined).filter(|bytes| bytes.len() < 1000) {
            for cut in 0..bytes.len() {
                assert!(decode_entry(0, &bytes[..cut]).is_err(), "cut at {cut}");
            }
            let mut longer = bytes.clone();
            longer.push(0);
            assert!(decode_entry(0, &longer).is_err());
            let mut other = bytes;
            other[0] = VERSION + 1;
            assert!(decode_entry(0, &other).is_err());
        }
        // A list that claims more items than memory has.
        assert!(decode_entry(0, &[1, 0x83, 2, 2, 0x82, 0x9b, 255, 255, 255, 255, 255, 255, 255, 255]).is_err());
    }
}
