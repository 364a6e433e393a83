//! Power that goes, disks that fail, and files that do not belong together.

use std::sync::Arc;

use openraft::{
    storage::{IOFlushed, RaftLogReader, RaftLogStorage},
    type_config::TypeConfigExt,
    vote::RaftLeaderId,
};
use redb::StorageBackend;

use super::{JournalError, frame::BLOCK, look_into, recover};
use crate::{
    consensus::{
        codec::NodeRecord,
        error::OpenError,
        fence::Fence,
        ids::{GroupId, NodeId, NodeUid},
        log::{
            file::{self, LogFile, Stored},
            group::{Durable, GroupLog},
            store::LogStore,
            writer::{self, LogQueue, What},
        },
        runtime::Thread,
        types::{Entry, EntryPayload, LeaderId, LogId, Payload, Types, Vote, log_id},
    },
    test_disk::{Disk, Unsynced},
};

mod moved;
mod stuck;

const GROUPS: u16 = 2;
/// Noted when a group is given up.
const UNDER: u32 = 7;

/// The two files of a log.
struct Disks {
    log: Disk,
    journal: Disk,
}

/// A log at work.
struct Log {
    file: Arc<LogFile>,
    stores: Vec<LogStore>,
    groups: Vec<Arc<GroupLog>>,
    queue: LogQueue,
    thread: Thread,
}

/// What a group should have.
#[derive(Clone, Debug, Default, PartialEq)]
struct Model {
    vote: Option<Vote>,
    purged: u64,
    entries: Vec<(LogId, usize)>,
    /// Where it ended when it was last given up.
    left: Option<LogId>,
}

impl Disks {
    fn new() -> Self {
        let log = Disk::default();
        let db = file::open(log.clone(), 1 << 20).unwrap();
        file::write_node(&db, &NodeRecord { uid: NodeUid([0; 16]), node: NodeId(1) }).unwrap();
        drop(db);
        Self { log, journal: Disk::default() }
    }

    fn copy(&self) -> Self {
        Self { log: self.log.copy(), journal: self.journal.copy() }
    }

    /// For both at one moment. The journal's first: it is written over only when redb has what was there.
    fn crash(&self, unsynced: Unsynced) -> Self {
        let journal = self.journal.crash(unsynced);
        Self { journal, log: self.log.crash(unsynced) }
    }

    fn open(&self, bytes: u64) -> Result<Log, OpenError> {
        open(self.log.clone(), self.journal.clone(), bytes)
    }
}

fn open(log: impl StorageBackend, journal: impl StorageBackend, bytes: u64) -> Result<Log, OpenError> {
    let db = file::open(log, 1 << 20).map_err(|error| OpenError::Log(error.into()))?;
    let journal = recover(&db, journal, bytes)?;
    let load = |group| file::load(&db, GroupId(group)).unwrap();
    let group =
        |group| GroupLog::new(Arc::new(Fence::new(GroupId(group))), Arc::new(Durable::unbounded()), 0, load(group));
    let groups: Vec<_> = (0..GROUPS).map(|number| Arc::new(group(number))).collect();
    let file = Arc::new(LogFile::new(db));
    let (queue, thread) = writer::spawn(file.clone(), journal, groups.clone()).unwrap();
    let stores = groups.iter().map(|group| LogStore::new(file.clone(), group.clone(), queue.clone())).collect();
    Ok(Log { file, stores, groups, queue, thread })
}

impl Log {
    async fn models(&mut self) -> Vec<Model> {
        let mut models = Vec::new();
        for (store, group) in self.stores.iter_mut().zip(&self.groups) {
            let mut reader = store.get_log_reader().await;
            let entries = reader.try_get_log_entries(..).await.unwrap();
            models.push(Model {
                vote: reader.read_vote().await.unwrap(),
                purged: group.purged_index().map_or(0, |index| index + 1),
                entries: entries.iter().map(|entry| (entry.log_id, length(entry))).collect(),
                left: group.left().map(|left| left.last),
            });
        }
        models
    }

    async fn close(self) {
        drop((self.stores, self.queue));
        self.thread.ended().await;
        self.file.close();
    }
}

fn length(entry: &Entry) -> usize {
    let EntryPayload::Normal(Payload(bytes)) = &entry.payload else { return 0 };
    let byte = u8::try_from(entry.log_id.index() % 251).unwrap();
    assert!(bytes.iter().all(|found| *found == byte), "another entry's bytes");
    bytes.len()
}

fn entry(id: LogId, length: usize) -> Entry {
    let byte = u8::try_from(id.index() % 251).unwrap();
    Entry { log_id: id, payload: EntryPayload::Normal(Payload(vec![byte; length].into())) }
}

async fn append(store: &mut LogStore, range: std::ops::Range<u64>, length: usize) {
    let (sender, receiver) = Types::oneshot();
    let entries: Vec<_> = range.map(|index| entry(log_id(1, index), length)).collect();
    store.append(entries, IOFlushed::signal(sender)).await.unwrap();
    receiver.await.unwrap().unwrap();
}

/// What happens, from a seed: so many steps. Returns what was acknowledged, and what may be there instead.
async fn work(log: &mut Log, models: &mut [Model], seed: u64, steps: u64) -> Option<(usize, Model)> {
    let mut random = seed.wrapping_mul(2).wrapping_add(1);
    let mut chance = |end: u64| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random % end
    };
    for step in 0..steps {
        let at = usize::try_from(chance(u64::from(GROUPS))).unwrap();
        let (store, before) = (&mut log.stores[at], models[at].clone());
        let mut model = before.clone();
        let term = 1 + seed * 1000 + step;
        let next = before.purged + before.entries.len() as u64;
        let done = match chance(20) {
            0..10 => {
                let count = 1 + chance(3);
                let longest = if chance(6) == 0 { 20_000 } else { 2_000 };
                let new: Vec<_> =
                    (0..count).map(|n| (log_id(term, next + n), usize::try_from(chance(longest)).unwrap())).collect();
                model.entries.extend(&new);
                let (sender, receiver) = Types::oneshot();
                let entries: Vec<_> = new.into_iter().map(|(id, length)| entry(id, length)).collect();
                match store.append(entries, IOFlushed::signal(sender)).await {
                    Ok(()) => receiver.await.unwrap(),
                    Err(error) => Err(error),
                }
            }
            10..14 => {
                let vote = Vote { leader_id: LeaderId::new(term, 1), committed: false };
                model.vote = Some(vote);
                store.save_vote(&vote).await
            }
            14..16 if model.entries.len() > 1 => {
                model.entries.truncate(usize::try_from(1 + chance(before.entries.len() as u64 - 1)).unwrap());
                store.truncate_after(model.entries.last().map(|(id, _)| *id)).await
            }
            16..19 if model.entries.len() > 4 => {
                let gone = usize::try_from(1 + chance(before.entries.len() as u64)).unwrap();
                let upto = before.entries[gone - 1].0;
                model.entries.drain(..gone);
                model.purged = upto.index() + 1;
                store.purge(upto).await
            }
            19 if !model.entries.is_empty() => {
                let last = model.entries.last().map(|(id, _)| *id);
                model = Model { vote: model.vote, left: last.max(model.left), ..Model::default() };
                log.queue.leave(&log.groups[at], UNDER).await
            }
            _ => Ok(()),
        };
        if done.is_err() {
            return Some((at, model));
        }
        models[at] = model;
    }
    None
}

/// A purge that was begun may not have come so far, and whatever else was told is there.
fn same(found: &Model, expected: &Model) -> bool {
    let Some(earlier) = expected.purged.checked_sub(found.purged).and_then(|n| usize::try_from(n).ok()) else {
        return false;
    };
    let (vote, left) = (found.vote == expected.vote, found.left == expected.left);
    vote && left && found.entries.get(earlier..) == Some(&expected.entries)
}

fn check(found: &[Model], told: &[Model], instead: Option<&(usize, Model)>, when: &str) {
    for (group, found) in found.iter().enumerate() {
        let other = instead.filter(|(at, _)| *at == group).map(|(_, model)| model);
        assert!(
            same(found, &told[group]) || other.is_some_and(|other| same(found, other)),
            "{when}: group {group} has {found:?}, told was {:?}, or {other:?}",
            told[group]
        );
    }
}

/// Sides of 0, 3 and 16 blocks: nothing fits, few records do, all do.
const JOURNALS: [u64; 3] = [0, 6 * BLOCK as u64, 32 * BLOCK as u64];

#[tokio::test(flavor = "multi_thread")]
async fn what_was_told_survives_a_failure_at_any_step_of_either_file_and_a_second_one() {
    let made = Disks::new();
    for bytes in JOURNALS {
        for seed in 0..3 {
            let whole = made.copy();
            let mut told = vec![Model::default(); usize::from(GROUPS)];
            let mut log = whole.open(bytes).unwrap();
            assert!(work(&mut log, &mut told, seed, 40).await.is_none());
            let ends = (whole.log.steps(), whole.journal.steps());
            // Redb lacks some of it, and memory keeps no more than it must.
            check(&log.models().await, &told, None, "at work");
            // The power goes after the last step, and nothing fails.
            let mut again = whole.crash(Unsynced::Lost).open(bytes).unwrap();
            check(&again.models().await, &told, None, "at the end");
            let steps = (1..=ends.0).map(|step| (true, step)).chain((1..=ends.1).map(|step| (false, step)));
            for (in_log, step) in steps {
                let unsynced = match step % 3 {
                    0 => Unsynced::Lost,
                    1 => Unsynced::Kept,
                    _ => Unsynced::Some(step * 7 + seed),
                };
                let when = format!(
                    "{bytes} bytes, seed {seed}, step {step} of the {}, {unsynced:?}",
                    if in_log { "log" } else { "journal" }
                );
                let disks = made.copy();
                if in_log { &disks.log } else { &disks.journal }.fail_at(step);
                let mut told = vec![Model::default(); usize::from(GROUPS)];
                let instead = match disks.open(bytes) {
                    Ok(mut log) => work(&mut log, &mut told, seed, 40).await,
                    Err(_) => None,
                };
                let disks = disks.crash(unsynced);
                let mut log = disks.open(bytes).unwrap_or_else(|error| panic!("{when}: {error}"));
                let found = log.models().await;
                check(&found, &told, instead.as_ref(), &when);
                // It goes on from there, and the power goes again.
                let mut told = found;
                assert!(work(&mut log, &mut told, seed + 100, 12).await.is_none(), "{when}");
                let mut log =
                    disks.crash(unsynced).open(bytes).unwrap_or_else(|error| panic!("{when}, again: {error}"));
                check(&log.models().await, &told, None, &format!("{when}, again"));
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_was_closed_in_order_has_everything_without_its_journals_records() {
    let disks = Disks::new();
    let mut told = vec![Model::default(); usize::from(GROUPS)];
    let mut log = disks.open(32 * BLOCK as u64).unwrap();
    assert!(work(&mut log, &mut told, 1, 10).await.is_none());
    log.close().await;
    let journal = &disks.journal;
    let header = 2 * BLOCK as u64;
    let length = usize::try_from(journal.len().unwrap() - header).unwrap();
    journal.write(header, &vec![0; length]).unwrap();
    let mut log = disks.open(0).unwrap();
    check(&log.models().await, &told, None, "closed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_purge_that_a_crash_stopped_halfway_is_gone_on_with_by_the_next_one_in_the_journal() {
    let disks = Disks::new();
    let mut log = disks.open(256 << 10).unwrap();
    append(&mut log.stores[0], 0..3000, 8).await;
    // Larger than a side: redb has everything, durably.
    append(&mut log.stores[0], 3000..3001, 200_000).await;
    log.stores[0].purge(log_id(1, 1500)).await.unwrap();
    let vote = Vote { leader_id: LeaderId::new(3, 1), committed: false };
    log.stores[0].save_vote(&vote).await.unwrap();
    append(&mut log.stores[0], 3001..3002, 200_000).await;
    // Of the first purge one step is durable, the others are not synced.
    log.stores[0].purge(log_id(1, 2900)).await.unwrap();
    log.stores[0].save_vote(&Vote { leader_id: LeaderId::new(4, 1), committed: false }).await.unwrap();
    let found = disks.crash(Unsynced::Lost).open(0).unwrap().models().await.remove(0);
    assert_eq!((found.purged, found.entries.len()), (2901, 101));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_that_was_given_up_in_the_journal_has_nothing_but_its_vote_and_where_it_ended() {
    let vote = Vote { leader_id: LeaderId::new(3, 1), committed: false };
    // What is given up is in redb, or only in the journal; and a crash comes first, or redb is given it at work.
    for (settled, crash) in [(true, true), (true, false), (false, true), (false, false)] {
        let disks = Disks::new();
        let mut log = disks.open(512 << 10).unwrap();
        append(&mut log.stores[0], 0..3000, 8).await;
        append(&mut log.stores[1], 0..10, 8).await;
        if settled {
            append(&mut log.stores[1], 10..11, 600_000).await;
        }
        log.stores[0].save_vote(&vote).await.unwrap();
        log.stores[0].save_committed(Some(log_id(1, 2000))).await.unwrap();
        let installing = log.queue.request(&log.groups[0], What::Installing(log_id(1, 1000))).unwrap();
        installing.await.unwrap().unwrap();
        // A purge that has not come to its end does not go on in what comes afterwards.
        log.stores[0].purge(log_id(1, 1500)).await.unwrap();
        log.queue.leave(&log.groups[0], UNDER).await.unwrap();
        if !crash {
            append(&mut log.stores[1], 11 - u64::from(!settled)..12, 600_000).await;
        }
        log.groups.iter().for_each(|group| assert!(group.fence.fault().is_none(), "{:?}", group.fence.fault()));
        let after = disks.crash(Unsynced::Lost);
        for life in 0..2 {
            let log = after.open(0).unwrap();
            let stored = log.file.with(|db| Ok::<_, redb::Error>(file::load(db, GroupId(0)).unwrap())).unwrap();
            let Stored { left: Some(left), .. } = stored else { panic!("life {life}: {stored:?}") };
            assert!(stored.is_given_up() && stored.committed.is_none() && stored.bytes == 0, "life {life}: {stored:?}");
            assert_eq!((left.last, left.under, stored.vote), (log_id(1, 2999), UNDER, Some(vote)), "life {life}");
            log.close().await;
        }
        // And it is given the group anew.
        let mut log = after.open(0).unwrap();
        append(&mut log.stores[0], 0..5, 8).await;
        assert_eq!(after.crash(Unsynced::Lost).open(0).unwrap().models().await[0].entries.len(), 5);
    }
}

/// A log with records in its journal, and nothing of them in redb.
async fn full() -> (Disks, Vec<Model>) {
    let disks = Disks::new();
    let mut told = vec![Model::default(); usize::from(GROUPS)];
    let mut log = disks.open(1 << 20).unwrap();
    assert!(work(&mut log, &mut told, 5, 20).await.is_none());
    // What would be missed, if it were lost.
    let vote = Vote { leader_id: LeaderId::new(1_000_000, 1), committed: false };
    log.stores[0].save_vote(&vote).await.unwrap();
    told[0].vote = Some(vote);
    (disks.crash(Unsynced::Lost), told)
}

fn refused(disks: &Disks) -> JournalError {
    match disks.open(1 << 20) {
        Err(OpenError::Journal(error)) => error,
        Err(error) => panic!("{error}"),
        Ok(_) => panic!("it opened"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_journal_that_is_gone_exchanged_older_or_damaged_is_refused_and_as_long_as_it_is_not_put_back() {
    let (disks, told) = full().await;
    let with = |journal: Disk| Disks { log: disks.log.copy(), journal };
    assert!(matches!(refused(&with(Disk::default())), JournalError::Missing));
    let zeroed = disks.journal.copy();
    zeroed.write(0, &vec![0; usize::try_from(zeroed.len().unwrap()).unwrap()]).unwrap();
    assert!(matches!(refused(&with(zeroed)), JournalError::Damaged(_)));
    let shorter = disks.journal.copy();
    shorter.set_len(shorter.len().unwrap() - BLOCK as u64).unwrap();
    assert!(matches!(refused(&with(shorter)), JournalError::Damaged(_)));
    let later = disks.journal.copy();
    for block in 0..2 {
        later.write(block * BLOCK as u64 + 11, &[2]).unwrap();
    }
    assert!(matches!(refused(&with(later.copy())), JournalError::Version(2)));
    let unknown = Disks { log: Disks::new().log, journal: later };
    assert!(matches!(refused(&unknown), JournalError::Other), "it is not written over");
    let (other, _) = full().await;
    assert!(matches!(refused(&with(other.journal)), JournalError::Other));
    // Of a log that is not there any more.
    let removed = Disks { log: Disks::new().log, journal: disks.journal.copy() };
    assert!(matches!(refused(&removed), JournalError::Other));
    assert!(matches!(refused(&removed), JournalError::Other), "nothing was made in its place");
    // Two lives later, an older copy of either.
    let later = disks.copy();
    for _ in 0..2 {
        later.open(0).unwrap().close().await;
    }
    let older = Disks { log: later.log.copy(), journal: disks.journal.copy() };
    assert!(matches!(refused(&older), JournalError::OtherTime { journal: 1, log: 3 }));
    let older = Disks { log: disks.log.copy(), journal: later.journal.copy() };
    assert!(matches!(refused(&older), JournalError::OtherTime { journal: 3, log: 1 }));

    let db = file::open(disks.log.copy(), 1 << 20).unwrap();
    assert!(matches!(look_into(&db, None), Err(OpenError::Journal(JournalError::Missing))));
    drop(db);
    let mut log = disks.open(0).unwrap();
    check(&log.models().await, &told, None, "put back");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_record_is_refused_if_another_follows_and_ends_the_replay_if_none_does() {
    let (disks, told) = full().await;
    let bytes = usize::try_from(disks.journal.len().unwrap()).unwrap();
    let mut file = vec![0; bytes];
    disks.journal.read(0, &mut file).unwrap();
    let marks: Vec<usize> = (2 * BLOCK..bytes).step_by(BLOCK).filter(|at| file[*at..].starts_with(b"ehej")).collect();
    assert!(marks.len() > 8);
    let (last, others) = marks.split_last().unwrap();
    for at in others {
        for byte in [0, 5, 12, 20, 30, 60] {
            let damaged = disks.copy();
            damaged.journal.write((at + byte) as u64, &[file[at + byte] ^ 1]).unwrap();
            let JournalError::Hole { missing, later } = refused(&damaged) else { panic!("record at {at}") };
            assert_eq!(later, missing + 1);
            refused(&damaged);
        }
    }
    let torn = disks.copy();
    torn.journal.write((last + 70) as u64, &[file[last + 70] ^ 1]).unwrap();
    let found = torn.open(0).unwrap().models().await;
    assert_ne!(found, told);
}
