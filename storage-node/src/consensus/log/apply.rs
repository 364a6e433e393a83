//! Changes of the log, made in redb's tables: by the settler as they were written, and by the replay of a journal.

use std::collections::BTreeMap;

use redb::{ReadableTable, Table, WriteTransaction};

use super::{
    file::{self, ENTRIES, FIELDS, Field},
    group::next_index,
    journal::{JournalRecord, change::Change},
};
use crate::consensus::{codec, ids::GroupId, types::LogId};

/// Entries that one step purges of one group.
const PURGE_STEP: u64 = 512;

/// The tables of a transaction.
pub(super) struct Tables<'txn> {
    txn: &'txn WriteTransaction,
    entries: Table<'txn, (u16, u64), &'static [u8]>,
    fields: Table<'txn, (u16, u8), &'static [u8]>,
}

impl<'txn> Tables<'txn> {
    pub(super) fn open(txn: &'txn WriteTransaction) -> Result<Self, redb::Error> {
        Ok(Self { txn, entries: txn.open_table(ENTRIES)?, fields: txn.open_table(FIELDS)? })
    }

    /// How far the journal is settled by this transaction.
    pub(super) fn journal(&self, record: &JournalRecord) -> Result<(), redb::Error> {
        file::put_journal(self.txn, record)
    }

    /// Makes one change; a purge of a part is only begun, in `purges`.
    pub(super) fn apply(&mut self, change: &Change, purges: &mut Purges) -> Result<(), redb::Error> {
        match change {
            Change::Entry { group, index, head, body } => {
                let mut value =
                    self.entries.insert_reserve((group.0, *index), head.len().saturating_add(body.len()))?;
                let (first, second) = value.as_mut().split_at_mut(head.len());
                first.copy_from_slice(head);
                second.copy_from_slice(body);
            }
            Change::Field { group, field, value } => {
                self.fields.insert((group.0, *field as u8), value.as_slice())?;
            }
            Change::Cut { group, from } => {
                self.entries.retain_in((group.0, *from)..=(group.0, u64::MAX), |_, _| false)?;
            }
            Change::Purge { group, upto, whole: true } => {
                // Only after a snapshot was installed. In one transaction, since what is appended next must not
                // stand behind a hole.
                purges.0.remove(group);
                self.entries.retain_in((group.0, 0)..=(group.0, u64::MAX), |_, _| false)?;
                self.fields.insert((group.0, Field::Purged as u8), codec::encode_log_id(upto).as_slice())?;
                self.fields.remove((group.0, Field::Installing as u8))?;
            }
            Change::Purge { group, upto, whole: false } => {
                // From where redb's log begins: of a purge before this one, a crash may have undone a part.
                let purged = self.fields.get((group.0, Field::Purged as u8))?;
                let purged = purged.map(|value| codec::decode_log_id(value.value())).transpose();
                let purged = purged.map_err(|error| redb::Error::Corrupted(format!("a purged position: {error}")))?;
                let next = next_index(purged.as_ref());
                purges.0.entry(*group).or_insert(Purge { next, upto: *upto }).upto = *upto;
            }
            Change::Leave { group, left } => {
                // In one transaction: half a log is none that a restart could go on with.
                purges.0.remove(group);
                self.entries.retain_in((group.0, 0)..=(group.0, u64::MAX), |_, _| false)?;
                for field in [Field::Committed, Field::Purged, Field::Installing] {
                    self.fields.remove((group.0, field as u8))?;
                }
                self.fields.insert((group.0, Field::Left as u8), codec::encode_left(left).as_slice())?;
            }
            Change::Peer { node, uid } => file::write_peer(self.txn, *node, uid)?,
        }
        Ok(())
    }
}

/// Purges that go on step by step.
#[derive(Debug, Default)]
pub(super) struct Purges(BTreeMap<GroupId, Purge>);

#[derive(Debug)]
struct Purge {
    next: u64,
    upto: LogId,
}

impl Purges {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Goes one step on with every purge. A crash between steps leaves a log that begins a little earlier. Returns the groups, and the
    /// entry of each, that do not decode: their purges have ended.
    pub(super) fn step(&mut self, tables: &mut Tables<'_>) -> Result<Vec<(GroupId, u64)>, redb::Error> {
        let (mut finished, mut wrong) = (Vec::new(), Vec::new());
        for (group, purge) in &mut self.0 {
            let g = group.0;
            let end = purge.next.saturating_add(PURGE_STEP).min(next_index(Some(&purge.upto)));
            let last = end.saturating_sub(1);
            let id = match tables.entries.get((g, last))? {
                _ if last == purge.upto.index() => Some(purge.upto),
                Some(value) => codec::decode_entry_id(last, value.value()).ok(),
                None => None,
            };
            let Some(id) = id else {
                wrong.push((*group, last));
                finished.push(*group);
                continue;
            };
            tables.entries.retain_in((g, purge.next)..(g, end), |_, _| false)?;
            tables.fields.insert((g, Field::Purged as u8), codec::encode_log_id(&id).as_slice())?;
            purge.next = end;
            if last == purge.upto.index() {
                tables.fields.remove((g, Field::Installing as u8))?;
                finished.push(*group);
            }
        }
        for group in finished {
            self.0.remove(&group);
        }
        Ok(wrong)
    }
}
