//! The log's own promises, where openraft's suite does not ask.

use std::sync::Arc;

use openraft::{
    storage::{IOFlushed, RaftLogReader, RaftLogStorage},
    type_config::TypeConfigExt,
    vote::RaftLeaderId,
};
use redb::backends::InMemoryBackend;

use super::{
    file::{self, ENTRIES, LogFile, Stored},
    group::{Durable, GroupLog},
    journal,
    store::LogStore,
    writer,
};
use crate::consensus::{
    codec::NodeRecord,
    error::Fault,
    fence::Fence,
    ids::{GroupId, NodeId, NodeUid},
    types::{Entry, EntryPayload, LeaderId, Payload, Types, Vote, log_id},
};

struct Log {
    file: Arc<LogFile>,
    groups: Vec<Arc<GroupLog>>,
    stores: Vec<LogStore>,
}

/// A log of so many groups, that keeps next to nothing in memory, and whose journal has room for nothing: redb has what is acknowledged.
fn log(groups: u16) -> Log {
    let db = file::open(InMemoryBackend::new(), 1 << 20).unwrap();
    file::write_node(&db, &NodeRecord { uid: NodeUid([0; 16]), node: NodeId(1) }).unwrap();
    let journal = journal::recover(&db, InMemoryBackend::new(), 0).unwrap();
    log_in(db, journal, groups)
}

fn log_in(db: redb::Database, journal: journal::Journal, groups: u16) -> Log {
    let file = Arc::new(LogFile::new(db));
    let group = |group| GroupLog::new(Arc::new(Fence::new(GroupId(group))), Arc::default(), 0, Stored::default());
    let groups: Vec<_> = (0..groups).map(|number| Arc::new(group(number))).collect();
    let (queue, _thread) = writer::spawn(file.clone(), journal, groups.clone()).unwrap();
    let stores = groups.iter().map(|group| LogStore::new(file.clone(), group.clone(), queue.clone())).collect();
    Log { file, groups, stores }
}

fn entries(range: std::ops::Range<u64>) -> Vec<Entry> {
    let payload = |index: u64| EntryPayload::Normal(Payload(index.to_be_bytes().to_vec().into()));
    range.map(|index| Entry { log_id: log_id(1, index), payload: payload(index) }).collect()
}

async fn append(store: &mut LogStore, range: std::ops::Range<u64>) -> std::io::Result<()> {
    let (sender, receiver) = Types::oneshot();
    store.append(entries(range), IOFlushed::signal(sender)).await?;
    receiver.await.unwrap()
}

async fn indexes(store: &mut LogStore, range: std::ops::Range<u64>) -> Vec<u64> {
    let read = store.get_log_reader().await.try_get_log_entries(range).await.unwrap();
    read.iter().map(|entry| entry.log_id.index()).collect()
}

#[tokio::test]
async fn a_purge_past_the_durable_state_is_refused_and_stops_the_group() {
    let mut log = log(2);
    append(&mut log.stores[0], 0..10).await.unwrap();
    log.groups[0].durable.advance(5);
    log.stores[0].purge(log_id(1, 5)).await.unwrap();
    assert_eq!(indexes(&mut log.stores[0], 0..10).await, [6, 7, 8, 9]);
    log.stores[0].purge(log_id(1, 6)).await.unwrap_err();
    assert!(matches!(*log.groups[0].fence.fault().unwrap(), Fault::Bug { .. }));
    append(&mut log.stores[0], 10..11).await.unwrap_err();
    append(&mut log.stores[1], 0..3).await.unwrap();
}

#[tokio::test]
async fn a_purge_goes_on_in_steps_beside_appends_and_ends_where_it_should() {
    let mut log = log(1);
    append(&mut log.stores[0], 0..3000).await.unwrap();
    log.groups[0].durable.advance(2500);
    log.stores[0].purge(log_id(1, 1000)).await.unwrap();
    log.stores[0].purge(log_id(1, 2500)).await.unwrap();
    let mut next = 3000;
    loop {
        append(&mut log.stores[0], next..next + 1).await.unwrap();
        next += 1;
        let stored = log.file.with(|db| Ok::<_, redb::Error>(file::load(db, GroupId(0)).unwrap())).unwrap();
        assert_eq!(stored.last, Some(log_id(1, next - 1)));
        if stored.purged == Some(log_id(1, 2500)) {
            break;
        }
        assert!(next < 3100, "the purge does not end");
    }
    let left =
        log.file.with(|db| file::read_entries(db, GroupId(0), 0, u64::MAX, usize::MAX).map_err(|_| bad())).unwrap();
    assert_eq!(left.len() as u64, next - 2501);
}

fn bad() -> redb::Error {
    redb::Error::Corrupted("test".into())
}

#[tokio::test]
async fn an_append_that_would_leave_a_hole_is_refused_and_stops_the_group() {
    for range in [4..5, 2..3] {
        let mut log = log(1);
        append(&mut log.stores[0], 0..3).await.unwrap();
        append(&mut log.stores[0], range).await.unwrap_err();
        assert!(matches!(*log.groups[0].fence.fault().unwrap(), Fault::Bug { .. }));
    }
}

#[tokio::test]
async fn what_follows_a_truncation_is_read_and_what_was_cut_is_not() {
    let mut log = log(1);
    append(&mut log.stores[0], 0..10).await.unwrap();
    log.stores[0].truncate_after(Some(log_id(1, 4))).await.unwrap();
    assert_eq!(indexes(&mut log.stores[0], 0..10).await, [0, 1, 2, 3, 4]);
    let other = Entry { log_id: log_id(2, 5), payload: EntryPayload::Blank };
    let (sender, receiver) = Types::oneshot();
    log.stores[0].append([other.clone()], IOFlushed::signal(sender)).await.unwrap();
    let read = log.stores[0].get_log_reader().await.try_get_log_entries(5..10).await.unwrap();
    assert_eq!(read, std::slice::from_ref(&other), "readable before it is synced");
    receiver.await.unwrap().unwrap();
    let read = log.stores[0].get_log_reader().await.try_get_log_entries(5..10).await.unwrap();
    assert_eq!(read, [other]);
}

#[tokio::test]
async fn a_reader_made_before_a_vote_sees_it_and_it_is_on_disk() {
    let mut log = log(1);
    let mut reader = log.stores[0].get_log_reader().await;
    assert_eq!(reader.read_vote().await.unwrap(), None);
    let vote = Vote { leader_id: LeaderId::new(3, 1), committed: false };
    log.stores[0].save_vote(&vote).await.unwrap();
    assert_eq!(reader.read_vote().await.unwrap(), Some(vote));
    let stored = log.file.with(|db| Ok::<_, redb::Error>(file::load(db, GroupId(0)).unwrap())).unwrap();
    assert_eq!(stored.vote, Some(vote));
}

#[tokio::test]
async fn the_committed_position_rides_along_and_is_never_past_the_log() {
    let mut log = log(1);
    append(&mut log.stores[0], 0..4).await.unwrap();
    log.stores[0].save_committed(Some(log_id(1, 3))).await.unwrap();
    let stored = |log: &Log| log.file.with(|db| Ok::<_, redb::Error>(file::load(db, GroupId(0)).unwrap())).unwrap();
    assert_eq!(stored(&log).committed, None);
    append(&mut log.stores[0], 4..5).await.unwrap();
    assert_eq!(stored(&log).committed, Some(log_id(1, 3)));
    log.stores[0].save_committed(Some(log_id(1, 9))).await.unwrap();
    assert_eq!(log.stores[0].read_committed().await.unwrap(), Some(log_id(1, 4)));
}

#[tokio::test]
async fn a_corrupt_or_missing_entry_stops_its_group_and_no_other() {
    for corrupt in [true, false] {
        let mut log = log(2);
        append(&mut log.stores[0], 0..10).await.unwrap();
        append(&mut log.stores[1], 0..10).await.unwrap();
        let damage = |db: &redb::Database| -> Result<(), redb::Error> {
            let txn = db.begin_write()?;
            if corrupt {
                txn.open_table(ENTRIES)?.insert((0, 5), b"junk".as_slice())?;
            } else {
                txn.open_table(ENTRIES)?.remove((0, 5))?;
            }
            Ok(txn.commit()?)
        };
        log.file.with(damage).unwrap();
        log.stores[0].get_log_reader().await.try_get_log_entries(0..10).await.unwrap_err();
        assert!(matches!(*log.groups[0].fence.fault().unwrap(), Fault::Corrupt { group: GroupId(0), .. }));
        append(&mut log.stores[0], 10..11).await.unwrap_err();
        assert_eq!(indexes(&mut log.stores[1], 0..10).await.len(), 10);
        append(&mut log.stores[1], 10..11).await.unwrap();
    }
}

#[test]
fn the_durable_mark_only_rises() {
    let durable = Durable::default();
    assert_eq!(durable.index(), None);
    durable.advance(7);
    durable.advance(3);
    assert_eq!(durable.index(), Some(7));
}

#[test]
fn what_was_under_way_when_a_group_was_given_up_says_nothing_of_what_came_afterwards() {
    let group = GroupLog::new(Arc::new(Fence::new(GroupId(0))), Arc::default(), 0, Stored::default());
    group.ends().push(&entries(0..10)).unwrap();
    let before = group.ends().epoch;
    group.leave(7).unwrap();
    group.ends().push(&entries(0..5)).unwrap();
    // Another thread tells of those that are gone.
    group.flushed(10, before);
    group.stored(10, before);
    assert_eq!(group.flushed_end(), 0, "nothing is on disk");
    assert_eq!(group.ends().tail(0, 5, usize::MAX), (0, entries(0..5)), "memory is all that has them");
}
