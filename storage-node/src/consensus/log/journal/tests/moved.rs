//! A log of a version that had no journal.

use redb::TableDefinition;

use super::{super::JournalRecord, *};

const NODE: TableDefinition<'static, &str, &[u8]> = TableDefinition::new("node");

/// The log of an earlier version, with something in it.
async fn earlier() -> (Disk, Vec<Model>) {
    let disks = Disks::new();
    let mut told = vec![Model::default(); usize::from(GROUPS)];
    let mut log = disks.open(0).unwrap();
    assert!(work(&mut log, &mut told, 3, 60).await.is_none());
    let vote = Vote { leader_id: LeaderId::new(1_000_000, 1), committed: true };
    log.stores[1].save_vote(&vote).await.unwrap();
    told[1].vote = Some(vote);
    told = log.models().await;
    assert!(told.iter().any(|model| model.entries.len() > 3 && model.purged > 0), "{told:?}");
    log.close().await;
    let db = file::open(disks.log.clone(), 1 << 20).unwrap();
    let mut txn = db.begin_write().unwrap();
    txn.set_two_phase_commit(true);
    txn.set_quick_repair(true);
    {
        let mut node = txn.open_table(NODE).unwrap();
        assert!(node.remove("journal").unwrap().is_some());
        node.insert("format", 1_u64.to_be_bytes().as_slice()).unwrap();
    }
    txn.commit().unwrap();
    drop(db);
    (disks.log.copy(), told)
}

fn format(db: &redb::Database) -> u64 {
    let table = redb::ReadableDatabase::begin_read(db).unwrap().open_table(NODE).unwrap();
    u64::from_be_bytes(table.get("format").unwrap().unwrap().value().try_into().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_of_an_earlier_version_gets_a_journal_once_and_loses_nothing_whatever_fails_meanwhile() {
    const BYTES: u64 = 32 * BLOCK as u64;
    let (log, told) = earlier().await;
    let db = file::open(log.copy(), 1 << 20).unwrap();
    assert_eq!((file::read_journal(&db).unwrap(), format(&db)), (None, 1));
    look_into(&db, None).unwrap();
    drop(db);
    for in_log in [true, false] {
        let mut failed = 0;
        for step in 1.. {
            let mut whole = false;
            for unsynced in [Unsynced::Lost, Unsynced::Kept, Unsynced::Some(step)] {
                let disks = Disks { log: log.copy(), journal: Disk::default() };
                if in_log { &disks.log } else { &disks.journal }.fail_at(step);
                if let Ok(log) = disks.open(BYTES) {
                    log.close().await;
                }
                whole = if in_log { &disks.log } else { &disks.journal }.steps() < step;
                let disks = disks.crash(unsynced);
                let mut taken_over = disks.open(BYTES).unwrap_or_else(|error| panic!("step {step}: {error}"));
                assert_eq!(taken_over.models().await, told, "step {step}, {unsynced:?}");
                let vote = Vote { leader_id: LeaderId::new(2_000_000, 1), committed: false };
                taken_over.stores[0].save_vote(&vote).await.unwrap();
                taken_over.close().await;
                let db = file::open(disks.log.copy(), 1 << 20).unwrap();
                assert_eq!(format(&db), 2, "an earlier version does not take it for everything");
                assert!(matches!(file::read_journal(&db).unwrap(), Some(JournalRecord { epoch: 1 | 2, .. })));
                drop(db);
                // It has one for good: without it, it does not start.
                assert!(matches!(
                    refused(&Disks { log: disks.log.copy(), journal: Disk::default() }),
                    JournalError::Missing
                ));
            }
            if whole {
                break;
            }
            failed += 1;
        }
        assert!(failed > 3, "{in_log} {failed}");
    }
}
