//! A log's file that does not come back from a sync, and syncs that fail once.

use std::{
    io,
    sync::{
        Condvar, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use super::*;

/// A disk whose syncs can be kept waiting, or be made to fail once.
#[derive(Clone, Debug)]
struct Odd {
    disk: Disk,
    shut: Arc<(Mutex<bool>, Condvar)>,
    fail: Arc<AtomicBool>,
    /// Writes and syncs since that failure.
    since: Arc<AtomicU64>,
}

impl Odd {
    fn new(disk: &Disk) -> Self {
        Self {
            disk: disk.clone(),
            shut: Arc::default(),
            fail: Arc::default(),
            since: Arc::new(AtomicU64::new(u64::MAX)),
        }
    }

    fn shut(&self, shut: bool) {
        *self.shut.0.lock().unwrap_or_else(PoisonError::into_inner) = shut;
        self.shut.1.notify_all();
    }

    fn step(&self) {
        let more = |since: u64| since.checked_add(1);
        let _ = self.since.fetch_update(Ordering::SeqCst, Ordering::SeqCst, more);
    }
}

impl StorageBackend for Odd {
    fn len(&self) -> io::Result<u64> {
        self.disk.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.disk.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.disk.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        let shut = self.shut.0.lock().unwrap_or_else(PoisonError::into_inner);
        drop(self.shut.1.wait_while(shut, |shut| *shut).unwrap_or_else(PoisonError::into_inner));
        if self.fail.swap(false, Ordering::SeqCst) {
            self.since.store(0, Ordering::SeqCst);
            return Err(io::Error::from_raw_os_error(5));
        }
        self.step();
        self.disk.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.step();
        self.disk.write(offset, data)
    }
}

/// An append of an entry to its end.
async fn write(store: &mut LogStore, index: u64) -> io::Result<()> {
    let (sender, receiver) = Types::oneshot();
    store.append([entry(log_id(1, index), 2000)], IOFlushed::signal(sender)).await?;
    receiver.await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_logs_file_hangs_two_sides_are_acknowledged_and_no_record_is_written_over() {
    const SIDE: u64 = 6;
    for crash in [true, false] {
        let disks = Disks::new();
        let odd = Odd::new(&disks.log);
        let mut log = open(odd.clone(), disks.journal.clone(), 2 * SIDE * BLOCK as u64).unwrap();
        odd.shut(true);
        // Each is a record of one block.
        for index in 0..2 * SIDE {
            write(&mut log.stores[0], index).await.unwrap();
        }
        let (sender, mut waiting) = Types::oneshot();
        log.stores[0].append([entry(log_id(1, 2 * SIDE), 2000)], IOFlushed::signal(sender)).await.unwrap();
        let early = tokio::time::timeout(Duration::from_millis(300), &mut waiting).await;
        assert!(early.is_err(), "there is no room for it: {early:?}");
        let told = log.models().await.remove(0).entries.len();
        assert_eq!(told, 13, "what redb lacks is read from memory, what waits included");
        if crash {
            let journal = disks.journal.crash(Unsynced::Lost);
            let after = Disks { journal, log: disks.log.crash(Unsynced::Lost) };
            odd.shut(false);
            assert_eq!(after.open(0).unwrap().models().await[0].entries.len(), 12);
        } else {
            odd.shut(false);
            waiting.await.unwrap().unwrap();
            for index in 2 * SIDE + 1..5 * SIDE {
                write(&mut log.stores[0], index).await.unwrap();
            }
            let found = disks.crash(Unsynced::Lost).open(0).unwrap().models().await;
            assert_eq!(found[0].entries.len(), 30);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sync_that_failed_once_is_not_tried_again_and_nothing_is_acknowledged_from_then_on() {
    for in_log in [true, false] {
        for unsynced in [Unsynced::Lost, Unsynced::Kept] {
            let disks = Disks::new();
            let (of_log, of_journal) = (Odd::new(&disks.log), Odd::new(&disks.journal));
            let odd = if in_log { &of_log } else { &of_journal };
            let mut log = open(of_log.clone(), of_journal.clone(), 8 * BLOCK as u64).unwrap();
            write(&mut log.stores[0], 0).await.unwrap();
            odd.fail.store(true, Ordering::SeqCst);
            // The journal at once, redb when the side is full.
            let mut told = 1;
            while log.groups.iter().all(|group| group.fence.fault().is_none()) {
                match write(&mut log.stores[0], told).await {
                    Ok(()) => told += 1,
                    Err(_) => break,
                }
                assert!(told < 20);
            }
            for (group, store) in log.groups.iter().zip(&mut log.stores) {
                assert!(group.fence.fault().is_some());
                let vote = Vote { leader_id: LeaderId::new(9, 1), committed: false };
                assert!(store.save_vote(&vote).await.is_err());
            }
            assert!(write(&mut log.stores[0], told).await.is_err());
            log.close().await;
            assert_eq!(odd.since.load(Ordering::SeqCst), 0, "{in_log}: nobody knows what that file has");
            let found = disks.crash(unsynced).open(0).unwrap().models().await.remove(0);
            let entries = u64::try_from(found.entries.len()).unwrap();
            assert!(entries == told || entries == told + 1, "{in_log}, {unsynced:?}: {entries} of {told}");
            assert_eq!(found.vote, None);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_gathers_under_load_has_room_in_the_journal_and_does_not_wait_for_the_logs_file() {
    const BYTES: usize = 100 << 10;
    let disks = Disks::new();
    let (of_log, of_journal) = (Odd::new(&disks.log), Odd::new(&disks.journal));
    // Sides of 2 MiB, and a little more than that gathers while the journal syncs.
    let mut log = open(of_log.clone(), of_journal.clone(), 4 << 20).unwrap();
    of_log.shut(true);
    of_journal.shut(true);
    let mut told = Vec::new();
    for index in 0..22 {
        let (sender, receiver) = Types::oneshot();
        log.stores[0].append([entry(log_id(1, index), BYTES)], IOFlushed::signal(sender)).await.unwrap();
        told.push(receiver);
    }
    of_journal.shut(false);
    for receiver in told {
        tokio::time::timeout(Duration::from_secs(20), receiver).await.unwrap().unwrap().unwrap();
    }
    of_log.shut(false);
}

/// The pool for what blocks has one thread here, so that a read can be kept waiting between the two places where a log lies.
fn one_blocking_thread() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).max_blocking_threads(1).enable_all().build().unwrap()
}

#[test]
fn a_read_that_the_log_is_cut_under_reads_what_is_there_then_and_finds_nothing_damaged() {
    for (kept, again) in [(4, 0), (4, 3)] {
        one_blocking_thread().block_on(async {
            let disks = Disks::new();
            let mut log = disks.open(256 << 10).unwrap();
            append(&mut log.stores[0], 0..10, 8).await;
            // Larger than a side: redb has all of it, and memory nothing.
            append(&mut log.stores[1], 0..1, 200_000).await;
            let (shut, waits) = std::sync::mpsc::channel::<()>();
            let occupied = tokio::task::spawn_blocking(move || waits.recv().is_err());
            let mut reader = log.stores[0].get_log_reader().await;
            let mut reading = Box::pin(async move { reader.try_get_log_entries(0..10).await });
            assert!(futures::poll!(&mut reading).is_pending(), "it waits for the thread");
            log.stores[0].truncate_after(Some(log_id(1, kept - 1))).await.unwrap();
            for index in kept..kept + again {
                let (sender, receiver) = Types::oneshot();
                log.stores[0].append([entry(log_id(2, index), 8)], IOFlushed::signal(sender)).await.unwrap();
                receiver.await.unwrap().unwrap();
            }
            append(&mut log.stores[1], 1..2, 200_000).await;
            drop(shut);
            occupied.await.unwrap();
            let read = reading.await.unwrap();
            let terms: Vec<u64> = read.iter().map(|entry| entry.log_id.committed_leader_id().term).collect();
            let expected: Vec<u64> = (0..kept).map(|_| 1).chain((0..again).map(|_| 2)).collect();
            assert_eq!(terms, expected);
            assert!(log.groups[0].fence.fault().is_none());
        });
    }
}
