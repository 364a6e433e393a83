//! The log's file looked at as it lies there: by `ehe-node verify`, which never writes.

use std::collections::BTreeMap;

use redb::{Database, ReadableDatabase, ReadableTable, StorageBackend};

use super::{
    file::{self, ENTRIES, FIELDS, LoadError, Stored},
    journal,
};
use crate::consensus::{
    codec::{self, NodeRecord},
    error::OpenError,
    ids::{GroupId, NodeId, NodeUid},
    restart,
    types::{EntryPayload, LogId},
};

/// What the log's file holds.
#[derive(Debug)]
pub struct LogFound {
    node: Option<NodeRecord>,
    db: Database,
    /// Its groups.
    pub groups: BTreeMap<GroupId, GroupFound>,
    /// What is wrong with it.
    pub wrong: Vec<String>,
}

/// A group in the log's file.
#[derive(Debug, Default)]
pub struct GroupFound {
    /// Its entries.
    pub entries: u64,
    stored: Option<Stored>,
}

impl LogFound {
    /// Looks through an open file, after it got what is in `journal`, if there is such a file: the two are written to, so they should not
    /// be the files themselves. `each` is told of every command, and says what is wrong with it; `read`, how many entries more were
    /// read.
    ///
    /// # Errors
    /// If it cannot be read, or is of another format.
    pub fn look(
        db: Database,
        journal: Option<Box<dyn StorageBackend>>,
        mut each: impl FnMut(GroupId, u64, &[u8]) -> Option<String>,
        mut read: impl FnMut(u64),
    ) -> Result<Self, OpenError> {
        let node = file::read_node(&db)?;
        let mut wrong = Vec::new();
        if let Err(error) = journal::look_into(&db, journal) {
            wrong.push(error.to_string());
        }
        if let Err(error) = file::read_peers(&db) {
            wrong.push(format!("what it says of other nodes: {error}"));
        }
        let mut groups: BTreeMap<GroupId, GroupFound> = BTreeMap::new();
        if node.is_some() {
            let txn = db.begin_read().map_err(|error| OpenError::Log(error.into()))?;
            let log = |error: redb::Error| OpenError::Log(error);
            let entries = txn.open_table(ENTRIES).map_err(|error| log(error.into()))?;
            let fields = txn.open_table(FIELDS).map_err(|error| log(error.into()))?;
            for row in fields.iter().map_err(|error| log(error.into()))? {
                let (key, _) = row.map_err(|error| log(error.into()))?;
                let (group, field) = key.value();
                if field > file::LAST_FIELD {
                    wrong.push(format!("group {group} has a field {field}, of which this program knows nothing"));
                }
                groups.entry(GroupId(group)).or_default();
            }
            let mut before: Option<(GroupId, LogId)> = None;
            for row in entries.iter().map_err(|error| log(error.into()))? {
                let (key, value) = row.map_err(|error| log(error.into()))?;
                let (group, index) = key.value();
                let group = GroupId(group);
                groups.entry(group).or_default().entries += 1;
                read(1);
                let entry = match codec::decode_entry(index, value.value()) {
                    Ok(entry) => entry,
                    Err(error) => {
                        wrong.push(format!("entry {index} of group {group} does not decode ({error})"));
                        before = None;
                        continue;
                    }
                };
                if let Some((of, last)) = before.filter(|(of, _)| *of == group) {
                    if last.index().checked_add(1) != Some(index) {
                        wrong.push(format!("group {of} has a hole between entries {} and {index}", last.index()));
                    }
                    if last.committed_leader_id().term > entry.log_id.committed_leader_id().term {
                        wrong.push(format!(
                            "the term of entry {index} of group {group} is lower than that of the one before"
                        ));
                    }
                }
                before = Some((group, entry.log_id));
                if let EntryPayload::Normal(command) = &entry.payload
                    && let Some(what) = each(group, index, &command.0)
                {
                    wrong.push(format!("entry {index} of group {group}: {what}"));
                }
            }
        }
        for (group, found) in &mut groups {
            match file::load(&db, *group) {
                Ok(stored) => {
                    wrong.extend(ends(*group, &stored));
                    found.stored = Some(stored);
                }
                Err(LoadError::Corrupt(fault)) => wrong.push(fault.to_string()),
                Err(LoadError::Log(error)) => return Err(OpenError::Log(error)),
            }
        }
        Ok(Self { node, db, groups, wrong })
    }

    /// Whose log it is; none if it was never used.
    #[must_use]
    pub fn node(&self) -> Option<(NodeId, NodeUid)> {
        self.node.as_ref().map(|node| (node.node, node.uid))
    }

    /// Whether a state belongs to it: `applied` is what the state's machine kept for consensus.
    ///
    /// # Errors
    /// As when the node starts.
    pub fn fits(&self, group: GroupId, applied: Option<&[u8]>) -> Result<(), String> {
        // A state that is left over of a group that was given up: the next start removes it.
        if self.groups.get(&group).and_then(|found| found.stored.as_ref()).is_some_and(Stored::is_given_up) {
            return Ok(());
        }
        let applied = applied.map(codec::decode_applied).transpose();
        let applied = applied.map_err(|error| format!("what the state says of the log does not decode ({error})"))?;
        let stored = self.groups.get(&group).and_then(|found| found.stored.clone());
        let entry = match &applied {
            Some(applied) if self.node.is_some() => {
                let entry = file::entry_id(&self.db, group, applied.last.index());
                entry.map_err(|_| format!("the entry at which the state of group {group} ends does not decode"))?
            }
            _ => None,
        };
        restart::check(group, self.node.as_ref(), &stored.unwrap_or_default(), applied.as_ref(), entry)
            .map_err(|error| error.to_string())
    }
}

/// What the small things of a group say of each other.
fn ends(group: GroupId, stored: &Stored) -> Vec<String> {
    let mut wrong = Vec::new();
    let term = |id: &LogId| id.committed_leader_id().term;
    if let (Some(last), Some(vote)) = (&stored.last, &stored.vote)
        && term(last) > vote.leader_id.term
    {
        wrong
            .push(format!("group {group} has an entry of a later term than the one that it voted in: a vote was lost"));
    }
    if stored.vote.is_none() && stored.last.as_ref().is_some_and(|last| term(last) > 0) {
        wrong.push(format!("group {group} has entries and no vote: a vote was lost"));
    }
    wrong
}
