//! A log file for states that came from somewhere else than a log: those of a backup.

use std::{collections::BTreeSet, fs::File, io, path::Path};

use openraft::vote::RaftLeaderId;
use redb::backends::FileBackend;

use super::{
    codec::{self, Applied, NodeRecord},
    error::OpenError,
    ids::{GroupId, NodeId, NodeUid, Position},
    log::file::{self, Begin},
    open::LOG_FILE,
    types::{LeaderId, Membership, StoredMembership, Vote, log_id},
};

/// A group that goes on from a state that all of its voters have.
#[derive(Clone, Debug)]
pub struct Begun {
    /// The group.
    pub group: GroupId,
    /// Its voters.
    pub voters: BTreeSet<NodeId>,
    /// How often the group has begun anew; at least 1, below 2^20.
    pub incarnation: u32,
}

/// An incarnation has fewer than 2^20 elections: one in two seconds without a pause for 24 days. A voter that was begun without the state
/// never voted, and believes any such term ([`leaps`](super::leaps)).
const TERMS: u32 = 20;
/// And fewer than 2^40 entries, as its state has (`StoreError::Full`).
const INDEXES: u32 = 40;

/// Entries up to a place, since the log's incarnation began.
pub fn entries_until(place: Position) -> u64 {
    (place.index & ((1 << INDEXES) - 1)).saturating_add(1)
}

/// Of a number of entries that counts all incarnations: the incarnation of the last one, and the entries since that began.
pub fn entries_since(entries: u64) -> (u64, u64) {
    let Some(index) = entries.checked_sub(1) else { return (0, 0) };
    (index >> INDEXES, entries_until(Position { term: 0, index }))
}

/// Makes the log file of a node in `dir`, which has none, for groups whose states it has from elsewhere; and what each of these
/// states has to keep as its [`AppliedMeta`](super::AppliedMeta), in the order of `groups`.
///
/// Of each group the log is as if its state had been a snapshot at a place that no log of an earlier incarnation can have: a voter
/// that was begun without the state gets it as a snapshot, and is never elected by those that have it.
///
/// # Errors
/// [`OpenError`]. What was made then is of no use.
pub fn begin(dir: &Path, node_id: NodeId, groups: &[Begun]) -> Result<Vec<Vec<u8>>, OpenError> {
    let io = |source| OpenError::Io { doing: "making the log file raft.redb", source };
    let made = File::options().read(true).write(true).create_new(true).open(dir.join(LOG_FILE)).map_err(io)?;
    let backend = FileBackend::new(made).map_err(|error| OpenError::Log(error.into()))?;
    let db = file::open(backend, 1 << 20).map_err(|error| OpenError::Log(error.into()))?;
    let mut uid = NodeUid([0; 16]);
    getrandom::fill(&mut uid.0).map_err(|error| io(io::Error::other(error)))?;
    file::write_node(&db, &NodeRecord { uid, node: node_id }).map_err(OpenError::Log)?;
    let (mut begins, mut applied) = (Vec::new(), Vec::new());
    for Begun { group, voters, incarnation } in groups {
        let last = log_id(u64::from(*incarnation) << TERMS, u64::from(*incarnation) << INDEXES);
        let voters: BTreeSet<u64> = voters.iter().map(|voter| voter.0).collect();
        let membership = Membership::new(vec![voters.clone()], voters)
            .map_err(|error| io(io::Error::other(format!("the voters of group {group}: {error}"))))?;
        let vote = Vote { leader_id: LeaderId::new(last.committed_leader_id().term, node_id.0), committed: false };
        begins.push(Begin { group: *group, vote, purged: last });
        let membership = StoredMembership::new(Some(last), membership);
        applied.push(codec::encode_applied(&Applied { uid, last, membership }));
    }
    file::write_begun(&db, &begins).map_err(OpenError::Log)?;
    Ok(applied)
}
