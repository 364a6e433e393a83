//! What a reader remembers of a room, so that a node cannot show it an older or another ledger later.

use ehe::checkpoint::Checkpoint;
use ehe::id::{Hash, RoomId};
use ehe::leaf::VerifiedReceipt;
use ehe::restoration::Moved;
use ehe::run::SeenCheckpoint;
use ehe::time::UnixMs;
use serde::{Deserialize, Serialize};

use crate::when;

/// The newest head that was verified. Positions only grow.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoomMemory {
    /// Origin of the shard's log.
    pub origin: String,
    /// Its leaves.
    pub size: u64,
    /// Its Merkle root.
    pub root: Hash,
    /// Entries of the room that were followed.
    pub entries: u64,
    /// Merkle leaf hash of the last of them.
    pub last_leaf: Hash,
    /// When the nodes accepted that entry, by their time. Files of earlier versions do not have it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accepted: Option<UnixMs>,
    /// What the directory's identity is in the room. Files of earlier versions do not have it.
    #[serde(default)]
    pub tie: Tie,
    /// Version of the charter under which the log was seen. Files of earlier versions do not have it.
    #[serde(default)]
    pub charter: u32,
    /// The signed checkpoint with that size and root: half of the evidence, if a node ever shows another one. Files of earlier versions
    /// do not have it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// What the identity of a directory is in a room that the directory remembers. A listing of rooms asks about rooms that no node
/// names by it: each refusal stands in the patient's audit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Tie {
    /// The patient, as verified records showed.
    Own,
    /// Somebody to whom the records were shown.
    #[default]
    Party,
    /// A party whose right ended, as a node said in a way in which honest nodes say it.
    Ended,
    /// A patient who moved to other keys.
    Moved,
    /// No party yet: what is remembered came with a recovery key, or with a rotation that is under way.
    Stranger,
}

impl Tie {
    /// Whether the nodes owe this identity an answer about the room.
    pub fn is_party(self) -> bool {
        matches!(self, Self::Own | Self::Party)
    }
}

/// What is shown contradicts what was verified before. The node, or whoever restored its store, is at fault.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MemoryError {
    /// Fewer leaves or entries.
    #[error(
        "the node shows {shown} {what}, where {known} were seen before: it is behind, or the ledger was rolled back"
    )]
    WentBack {
        /// What is counted.
        what: &'static str,
        /// Seen before.
        known: u64,
        /// Shown now.
        shown: u64,
    },
    /// The same size with another root, or another entry at the same place.
    #[error("the ledger was rewritten: {what} {at} is not the one that was seen before")]
    Rewritten {
        /// Where.
        what: &'static str,
        /// Which.
        at: u64,
    },
    /// Nobody shows that the log goes on from what was seen of it.
    #[error(
        "node {node} does not prove that its log of {shown} leaves begins with the {known} that were seen before ({why}): it lies, or \
         its program is faulty. Ask another node"
    )]
    NotExtended {
        /// Which.
        node: String,
        /// Leaves seen before.
        known: u64,
        /// Leaves shown.
        shown: u64,
        /// What its proof lacks.
        why: String,
    },
    /// The log is another one, and nothing that the members signed leads from the one that was seen to it.
    #[error(
        "the log is {shown} now, and was {known} before: {why}. A restored log counts by a record that a majority of the alliance's members \
         signed; ask those who run the nodes for it"
    )]
    OtherLog {
        /// Seen before.
        known: String,
        /// Shown now.
        shown: String,
        /// Why no record leads there.
        why: String,
    },
    /// There is no such room, says the node.
    #[error(
        "node {node} says that it has no room {room}, of which {entries} entries were seen, the last of them accepted {}: it is \
         withheld or lost. Ask those who run the nodes, and keep this room's file in the directory `rooms`: it says how far the room went",
        accepted(*.at)
    )]
    Gone {
        /// Who says so.
        node: String,
        /// The room.
        room: RoomId,
        /// Its entries that were seen.
        entries: u64,
        /// When the nodes accepted the last of them.
        at: Option<UnixMs>,
    },
}

fn accepted(at: Option<UnixMs>) -> String {
    at.map_or_else(|| "before".into(), |at| format!("on {}", when::shown(at)))
}

impl RoomMemory {
    /// What the receipt for the last entry of a room of one's own proves.
    pub fn of_receipt(receipt: &VerifiedReceipt) -> Self {
        let log = receipt.checkpoint().checkpoint();
        Self {
            origin: log.origin.clone(),
            size: log.size,
            root: log.root,
            entries: receipt.leaf().index.saturating_add(1),
            last_leaf: receipt.leaf().hash(),
            accepted: Some(receipt.leaf().accepted_at),
            tie: Tie::Own,
            charter: log.charter_version,
            note: Some(receipt.checkpoint().note().into()),
        }
    }

    /// The error for a node that says that there is no such room.
    pub fn gone(&self, node: String, room: RoomId) -> MemoryError {
        MemoryError::Gone { node, room, entries: self.entries, at: self.accepted }
    }

    /// Holds a verified checkpoint against what is known.
    pub fn check_log(&self, shown: &Checkpoint) -> Result<(), MemoryError> {
        if shown.origin != self.origin {
            let why = "no record of it was asked for".into();
            return Err(MemoryError::OtherLog { known: self.origin.clone(), shown: shown.origin.clone(), why });
        }
        if shown.size < self.size {
            return Err(MemoryError::WentBack { what: "leaves of the log", known: self.size, shown: shown.size });
        }
        if shown.size == self.size && shown.root != self.root {
            return Err(MemoryError::Rewritten { what: "the log of size", at: shown.size });
        }
        Ok(())
    }

    /// Holds the entry at the remembered place against the remembered one. `next` and `last` are a follower's position.
    pub fn check_entry(&self, next: u64, last: Hash) -> Result<(), MemoryError> {
        if next == self.entries && last != self.last_leaf {
            return Err(MemoryError::Rewritten { what: "the room's entry", at: next.saturating_sub(1) });
        }
        Ok(())
    }

    /// Holds a verified checkpoint of a restored log against what is known, by the records that lead there. Where something of what was seen
    /// is lost, the room's entries may be others.
    pub fn check_restored(&self, moved: &Moved, shown: &Checkpoint, entries: u64) -> Result<(), MemoryError> {
        moved.shows(&shown.seen()).map_err(|why| MemoryError::OtherLog {
            known: self.origin.clone(),
            shown: shown.origin.clone(),
            why: why.to_string(),
        })?;
        if moved.lost.is_empty() { self.check_end(entries) } else { Ok(()) }
    }

    /// Holds the room's last entry against what is known.
    pub fn check_end(&self, entries: u64) -> Result<(), MemoryError> {
        if entries < self.entries {
            return Err(MemoryError::WentBack { what: "entries of the room", known: self.entries, shown: entries });
        }
        Ok(())
    }

    /// Whether `other` is at least as far, so that it may take this one's place: or of a later incarnation of the log, which is only
    /// remembered when records led to it.
    pub fn may_become(&self, other: &Self) -> bool {
        if self.origin == other.origin {
            return other.size >= self.size && other.entries >= self.entries;
        }
        let parts = |origin: &str| {
            let (log, incarnation) = origin.rsplit_once('/')?;
            Some((log.to_owned(), incarnation.parse::<u32>().ok()?))
        };
        match (parts(&self.origin), parts(&other.origin)) {
            (Some((log, before)), Some((same, after))) => log == same && before < after,
            _ => false,
        }
    }

    /// What requests and runs say of it.
    pub fn seen(&self) -> SeenCheckpoint {
        SeenCheckpoint { origin: self.origin.clone(), size: self.size, root: self.root }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn memory() -> RoomMemory {
        let (root, last_leaf) = (Hash([1; 32]), Hash([2; 32]));
        RoomMemory {
            origin: "ehe/a/0/0".into(),
            size: 10,
            root,
            entries: 4,
            last_leaf,
            accepted: None,
            tie: Tie::Party,
            charter: 1,
            note: None,
        }
    }

    fn checkpoint(size: u64, root: u8) -> Checkpoint {
        Checkpoint { origin: "ehe/a/0/0".into(), size, root: Hash([root; 32]), charter_version: 1 }
    }

    #[test]
    fn a_smaller_log_and_the_same_size_with_another_root_are_refused() {
        assert_eq!(memory().check_log(&checkpoint(10, 1)), Ok(()));
        assert_eq!(memory().check_log(&checkpoint(11, 9)), Ok(()));
        assert!(matches!(
            memory().check_log(&checkpoint(9, 1)),
            Err(MemoryError::WentBack { known: 10, shown: 9, .. })
        ));
        assert!(matches!(memory().check_log(&checkpoint(10, 9)), Err(MemoryError::Rewritten { at: 10, .. })));
    }

    #[test]
    fn another_incarnation_of_the_log_is_refused_even_if_it_is_longer() {
        let other = Checkpoint { origin: "ehe/a/0/1".into(), ..checkpoint(99, 1) };
        assert!(matches!(memory().check_log(&other), Err(MemoryError::OtherLog { .. })));
    }

    #[test]
    fn only_a_later_incarnation_of_the_same_log_takes_the_place_of_what_is_remembered() {
        let of = |origin: &str| RoomMemory { origin: origin.into(), size: 1, entries: 1, ..memory() };
        assert!(memory().may_become(&of("ehe/a/0/1")));
        assert!(memory().may_become(&of("ehe/a/0/10")));
        assert!(!memory().may_become(&of("ehe/a/0/0")), "the same log, and shorter");
        assert!(!memory().may_become(&of("ehe/a/1/1")), "another shard's");
        assert!(!of("ehe/a/0/2").may_become(&of("ehe/a/0/1")));
    }

    #[test]
    fn another_entry_at_the_remembered_place_is_a_rewritten_room() {
        assert_eq!(memory().check_entry(3, Hash::ZERO), Ok(()));
        assert_eq!(memory().check_entry(4, Hash([2; 32])), Ok(()));
        assert!(matches!(memory().check_entry(4, Hash::ZERO), Err(MemoryError::Rewritten { at: 3, .. })));
        assert!(memory().check_end(3).is_err());
        assert!(memory().check_end(4).is_ok());
    }
}
