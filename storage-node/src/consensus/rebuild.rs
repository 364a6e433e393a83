//! A state that is taken from another node while this one is stopped: does it belong to this node's log, and what is written down of it.
//!
//! What the other node says of the log (up to which entry it has applied it, and who votes) no quorum has signed. It is held against what
//! is known without that node: who may vote by the shard's charter, terms by this node's vote, and the place by what others of the group
//! have applied ([`applied_at`]).

use std::{collections::BTreeSet, fs::File, io, path::Path};

use redb::backends::FileBackend;

use super::{
    codec::{self, Applied},
    config::Config,
    error::{Fault, OpenError},
    ids::{GroupId, NodeId, Position},
    leaps::TERM_LEAP,
    log::{
        file::{self, Field, LoadError, Stored},
        group::next_index,
        journal,
    },
    open::{LOG_FILE, journal_backend},
    types::{LogId, position},
};

/// Up to where a node has applied the log, by what its machine keeps for consensus.
#[must_use]
pub fn applied_at(applied: &[u8]) -> Option<Position> {
    codec::decode_applied(applied).ok().map(|applied| position(&applied.last))
}

/// Notes in the log in `dir` that the state of `group` is going to be another node's, of which that node's machine kept `theirs` for
/// consensus; returns what this node's machine is to keep. `may_vote`: whether these can be a group's voters. The groups of the node must not
/// run.
///
/// # Errors
/// [`OpenError`]: nothing was changed, and that state does not belong to this log.
pub fn replace_state(
    dir: &Path,
    node: NodeId,
    group: GroupId,
    theirs: &[u8],
    may_vote: impl Fn(&BTreeSet<NodeId>) -> bool,
) -> Result<Vec<u8>, OpenError> {
    let corrupt = |what: String| OpenError::Fault { group, fault: Fault::Corrupt { group, what }.into() };
    let load = |error| match error {
        LoadError::Log(error) => OpenError::Log(error),
        LoadError::Corrupt(fault) => OpenError::Fault { group, fault: fault.into() },
    };
    let io = |source: io::Error| OpenError::Io { doing: "opening the log file raft.redb", source };
    let backend = File::options().read(true).write(true).open(dir.join(LOG_FILE)).map_err(io)?;
    let backend = FileBackend::new(backend).map_err(|error| OpenError::Log(error.into()))?;
    let db = file::open(backend, 1 << 20).map_err(|error| OpenError::Log(error.into()))?;
    let record = file::read_node(&db)?.ok_or(OpenError::LogMissing { group })?;
    file::check_node(&record, node)?;
    drop(journal::recover(&db, journal_backend(dir)?, Config::new(node).journal_bytes)?);
    let theirs = codec::decode_applied(theirs)
        .map_err(|error| corrupt(format!("what another node's state says of the log ({error})")))?;
    let stored = file::load(&db, group).map_err(load)?;
    plausible(&stored, &theirs, may_vote)
        .map_err(|what| corrupt(format!("what another node's state says of the log: {what}")))?;
    let index = theirs.last.index();
    let purged = stored.purged.map(|id| id.index());
    if index < next_index(stored.purged.as_ref()).saturating_sub(1) {
        return Err(OpenError::StateBehindLog { group, applied: Some(index), purged: purged.unwrap_or_default() });
    }
    let here = file::entry_id(&db, group, index).map_err(load)?;
    let here = here.or(stored.purged.filter(|purged| purged.index() == index));
    if here.is_some_and(|here| here != theirs.last) {
        return Err(OpenError::Diverged { group, index });
    }
    // As when a snapshot is installed: that the state may pass the end of the log, stands in the log first.
    let txn = file::begin(&db).map_err(OpenError::Log)?;
    file::put_field(&txn, group, Field::Installing, &codec::encode_log_id(&theirs.last)).map_err(OpenError::Log)?;
    txn.commit().map_err(|error| OpenError::Log(error.into()))?;
    let Applied { last, membership, .. } = theirs;
    Ok(codec::encode_applied(&Applied { uid: record.uid, last, membership }))
}

/// Whether what another node's state says of the log can be so, by what stands in this node's.
fn plausible(stored: &Stored, theirs: &Applied, may_vote: impl Fn(&BTreeSet<NodeId>) -> bool) -> Result<(), String> {
    let Applied { last, membership, .. } = theirs;
    let known = [stored.last, stored.purged].into_iter().flatten().map(|id| id.committed_leader_id().term);
    let known = known.chain(stored.vote.map(|vote| vote.leader_id.term)).max().unwrap_or(0);
    let term = last.committed_leader_id().term;
    if term > known.saturating_add(TERM_LEAP) {
        return Err(format!("term {term}, {known} is known here"));
    }
    if membership.log_id().as_ref().map(LogId::index) > Some(last.index()) {
        return Err("a membership from behind its end".into());
    }
    let configs = membership.membership().get_joint_config();
    let voters = configs.iter().map(|voters| voters.iter().copied().map(NodeId).collect::<BTreeSet<_>>());
    if configs.is_empty() || !voters.into_iter().all(|voters| may_vote(&voters)) {
        return Err("voters that the shard's charter does not name".into());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use openraft::vote::RaftLeaderId;

    use super::super::{
        codec::encode_applied,
        ids::NodeUid,
        types::{LeaderId, Membership, StoredMembership, Vote, log_id},
    };
    use super::*;

    fn applied(last: LogId, at: LogId, configs: Vec<BTreeSet<u64>>) -> Applied {
        let nodes = configs.iter().flatten().map(|node| (*node, ())).collect::<std::collections::BTreeMap<_, _>>();
        let membership =
            if configs.is_empty() { Membership::default() } else { Membership::new(configs, nodes).unwrap() };
        Applied { uid: NodeUid([1; 16]), last, membership: StoredMembership::new(Some(at), membership) }
    }

    #[test]
    fn what_a_state_says_of_the_log_is_held_against_the_charter_and_this_nodes_vote() {
        let group = |nodes: &[u64]| nodes.iter().copied().collect::<BTreeSet<_>>();
        let vote = Vote { leader_id: LeaderId::new(7, 1), committed: true };
        let stored = Stored { vote: Some(vote), last: Some(log_id(6, 90)), ..Stored::default() };
        let of_charter = |voters: &BTreeSet<NodeId>| {
            voters.iter().all(|node| (1..=4).contains(&node.0)) && voters.iter().filter(|node| node.0 <= 3).count() > 1
        };
        let judged = |applied: &Applied| plausible(&stored, applied, of_charter);
        let (last, at) = (log_id(7, 100), log_id(1, 3));
        let good = applied(last, at, vec![group(&[1, 2, 3])]);
        assert_eq!(judged(&good), Ok(()));
        assert_eq!(applied_at(&encode_applied(&good)), Some(Position { term: 7, index: 100 }));
        assert_eq!(applied_at(b"nothing of that"), None);
        assert_eq!(judged(&applied(last, at, vec![group(&[1, 2, 3]), group(&[2, 3, 4])])), Ok(()), "it is changing");
        let lies = [
            applied(last, at, vec![group(&[1])]),
            applied(last, at, vec![group(&[1, 2, 3]), group(&[4])]),
            applied(last, at, vec![group(&[1, 2, 3, 9])]),
            applied(last, at, vec![]),
            applied(last, log_id(7, 101), vec![group(&[1, 2, 3])]),
            applied(log_id(8 + TERM_LEAP, 100), at, vec![group(&[1, 2, 3])]),
        ];
        for lie in lies {
            assert!(judged(&lie).is_err(), "{lie:?}");
        }
        assert_eq!(judged(&applied(log_id(7 + TERM_LEAP, 100), at, vec![group(&[1, 2, 3])])), Ok(()));
    }
}
