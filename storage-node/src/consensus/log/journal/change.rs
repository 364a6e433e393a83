//! What a record of the journal says: the changes of a batch, in order.
//!
//! ```text
//! body   = version ‖ [* change]                           version and deterministic CBOR as in `codec`
//! change = [0, group, index, bytes]                       an entry, its value as redb has it
//!        / [1, group, field, bytes]                       a field of a group
//!        / [2, group, index]                              entries from there on are cut off
//!        / [3, group, log id, whole: bool]                entries up to there are forgotten
//!        / [4, node, uid: bytes .size 16]                 who a peer is
//!        / [5, group, left]                               the group is given up: all goes but its vote, and this comes
//! ```

use bytes::Bytes;
use minicbor::{Decoder, Encoder};

use super::frame::BLOCK;

use crate::consensus::{
    codec::{self, CodecError, Out, Written},
    ids::{GroupId, NodeId, NodeUid},
    log::file::{Field, Left},
    types::LogId,
};

const ENTRY: u8 = 0;
const FIELD: u8 = 1;
const CUT: u8 = 2;
const PURGE: u8 = 3;
const PEER: u8 = 4;
const LEAVE: u8 = 5;

/// One change of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::consensus::log) enum Change {
    /// `head` and `body` together are the value.
    Entry {
        group: GroupId,
        index: u64,
        head: Vec<u8>,
        body: Bytes,
    },
    Field {
        group: GroupId,
        field: Field,
        value: Vec<u8>,
    },
    /// Everything from `from` on goes.
    Cut {
        group: GroupId,
        from: u64,
    },
    /// Everything up to `upto` goes; `whole`: and nothing is left behind it.
    Purge {
        group: GroupId,
        upto: LogId,
        whole: bool,
    },
    Peer {
        node: NodeId,
        uid: NodeUid,
    },
    /// Everything of the group goes but its vote, and `left` is noted. One change, so that no record has half of it.
    Leave {
        group: GroupId,
        left: Left,
    },
}

/// Puts a record's body behind what is in `out`.
pub(in crate::consensus::log) fn encode(changes: &[Change], mut out: Vec<u8>) -> Vec<u8> {
    // At once, with what fills its last block: a record under load has megabytes.
    out.reserve(changes.iter().map(most_bytes).fold(BLOCK, usize::saturating_add));
    out.push(codec::VERSION);
    let mut e = Encoder::new(out);
    let mut put = || -> Written {
        e.array(changes.len() as u64)?;
        changes.iter().try_for_each(|change| put(&mut e, change))
    };
    let written = put();
    debug_assert!(written.is_ok(), "writing to memory cannot fail");
    e.into_writer()
}

/// No change takes more.
fn most_bytes(change: &Change) -> usize {
    const REST: usize = 64;
    match change {
        Change::Entry { head, body, .. } => head.len().saturating_add(body.len()).saturating_add(REST),
        Change::Field { value, .. } => value.len().saturating_add(REST),
        Change::Cut { .. } | Change::Purge { .. } | Change::Peer { .. } | Change::Leave { .. } => REST,
    }
}

fn put(e: &mut Out, change: &Change) -> Written {
    match change {
        Change::Entry { group, index, head, body } => {
            let length = head.len().saturating_add(body.len());
            e.array(4)?.u8(ENTRY)?.u16(group.0)?.u64(*index)?.bytes_len(length as u64)?;
            e.writer_mut().extend_from_slice(head);
            e.writer_mut().extend_from_slice(body);
            Ok(())
        }
        Change::Field { group, field, value } => {
            e.array(4)?.u8(FIELD)?.u16(group.0)?.u8(*field as u8)?.bytes(value)?.ok()
        }
        Change::Cut { group, from } => e.array(3)?.u8(CUT)?.u16(group.0)?.u64(*from)?.ok(),
        Change::Purge { group, upto, whole } => {
            e.array(4)?.u8(PURGE)?.u16(group.0)?;
            codec::put_log_id(e, upto)?;
            e.bool(*whole)?.ok()
        }
        Change::Peer { node, uid } => e.array(3)?.u8(PEER)?.u64(node.0)?.bytes(&uid.0)?.ok(),
        Change::Leave { group, left } => {
            e.array(3)?.u8(LEAVE)?.u16(group.0)?;
            codec::put_left(e, left)
        }
    }
}

/// See [`encode`].
pub(super) fn decode(body: &[u8]) -> Result<Vec<Change>, CodecError> {
    codec::read(body, |d| {
        let count = codec::any_array(d)?;
        (0..count).map(|_| get(d)).collect()
    })
}

fn get(d: &mut Decoder<'_>) -> Result<Change, CodecError> {
    let items = codec::any_array(d)?;
    let (kind, expected) = match d.u8()? {
        kind @ (ENTRY | FIELD | PURGE) => (kind, 4),
        kind @ (CUT | PEER | LEAVE) => (kind, 3),
        other => return Err(CodecError(format!("a change of kind {other}"))),
    };
    if items != expected {
        return Err(CodecError(format!("a change of kind {kind} of {items} items")));
    }
    if kind == PEER {
        return Ok(Change::Peer { node: NodeId(d.u64()?), uid: codec::get_uid(d)? });
    }
    let group = GroupId(d.u16()?);
    Ok(match kind {
        ENTRY => Change::Entry { group, index: d.u64()?, head: d.bytes()?.to_vec(), body: Bytes::new() },
        FIELD => {
            let number = d.u8()?;
            let field = Field::of(number).ok_or_else(|| CodecError(format!("a field {number}")))?;
            Change::Field { group, field, value: d.bytes()?.to_vec() }
        }
        CUT => Change::Cut { group, from: d.u64()? },
        LEAVE => Change::Leave { group, left: codec::get_left(d)? },
        _ => Change::Purge { group, upto: codec::get_log_id(d)?, whole: d.bool()? },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::consensus::types::log_id;

    fn all() -> Vec<Change> {
        let group = GroupId(300);
        vec![
            Change::Entry { group, index: u64::MAX, head: vec![1, 2], body: Bytes::new() },
            Change::Field { group, field: Field::Installing, value: vec![7; 70_000] },
            Change::Cut { group, from: 9 },
            Change::Purge { group, upto: log_id(3, 8), whole: true },
            Change::Peer { node: NodeId(u64::MAX), uid: NodeUid([5; 16]) },
            Change::Leave { group, left: Left { last: log_id(3, 8), under: u32::MAX } },
        ]
    }

    #[test]
    fn what_is_written_is_what_is_read_and_anything_less_or_more_is_an_error() {
        let bytes = encode(&all(), b"before".to_vec());
        let body = &bytes[6..];
        assert_eq!(decode(body).unwrap(), all());
        let short = encode(&[all().remove(3), all().remove(4), all().remove(5), all().remove(0)], Vec::new());
        for cut in 0..short.len() {
            decode(&short[..cut]).unwrap_err();
        }
        decode(&[short.as_slice(), &[0]].concat()).unwrap_err();
    }

    #[test]
    fn no_change_takes_more_than_is_reserved_for_it() {
        for change in all() {
            let bytes = encode(std::slice::from_ref(&change), Vec::new()).len();
            assert!(bytes <= most_bytes(&change), "{bytes}: {change:?}");
        }
    }

    /// Disk forms are for good: these bytes must never change under version 1.
    #[test]
    fn the_stored_bytes_are_these() {
        let entry = Change::Entry { group: GroupId(2), index: 5, head: vec![1], body: Bytes::from_static(b"ab") };
        assert_eq!(encode(&[entry], Vec::new()), [1, 0x81, 0x84, 0, 2, 5, 0x43, 1, b'a', b'b']);
        let purge = Change::Purge { group: GroupId(2), upto: log_id(3, 8), whole: false };
        assert_eq!(encode(&[purge], Vec::new()), [1, 0x81, 0x84, 3, 2, 0x82, 3, 8, 0xf4]);
        let leave = Change::Leave { group: GroupId(2), left: Left { last: log_id(3, 8), under: 9 } };
        assert_eq!(encode(&[leave], Vec::new()), [1, 0x81, 0x83, 5, 2, 0x83, 3, 8, 9]);
    }
}
