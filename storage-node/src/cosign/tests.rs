//! The file when it is damaged, torn, lost, or on a disk that fails.

use super::*;
use crate::test_disk::{Disk, Unsynced};

const ALLIANCE: AllianceId = AllianceId([1; 32]);
const NODE: NodeId = NodeId([2; 8]);

fn open(path: &Path) -> Result<CosignFile, CosignError> {
    CosignFile::open(path, ALLIANCE, NODE, 4, true)
}

fn at(size: u64, root: u8) -> Cosigned {
    Cosigned { incarnation: 0, size, root: Hash([root; 32]) }
}

#[test]
fn two_roots_of_one_size_and_smaller_sizes_are_refused_also_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("cosigned");
    let mut file = open(&path).unwrap();
    file.persist(&[(0, at(5, 1)), (3, at(7, 2))]).unwrap();
    file.persist(&[(0, at(6, 3))]).unwrap();
    for _ in 0..2 {
        assert!(matches!(file.persist(&[(0, at(6, 4))]), Err(CosignError::Contradicts { size: 6, .. })));
        assert!(matches!(file.persist(&[(0, at(5, 1))]), Err(CosignError::Contradicts { size: 5, .. })));
        file.persist(&[(0, at(6, 3))]).unwrap();
        file = open(&path).unwrap();
    }
    assert_eq!((file.newest(0), file.newest(1), file.newest(3)), (Some(at(6, 3)), None, Some(at(7, 2))));
    // A refused one takes the others of its round with it: nothing of the round is remembered or signed.
    assert!(file.persist(&[(1, at(1, 1)), (3, at(7, 9))]).is_err());
    assert_eq!(file.newest(1), None);
}

#[test]
fn a_write_that_a_crash_tore_leaves_the_one_before_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("cosigned");
    let mut file = open(&path).unwrap();
    file.persist(&[(2, at(1, 1))]).unwrap();
    file.persist(&[(2, at(2, 2))]).unwrap();
    let whole = std::fs::read(&path).unwrap();
    file.persist(&[(2, at(3, 3))]).unwrap();
    let next = std::fs::read(&path).unwrap();
    // However much of the third write reached the disk: the second or the third is there, never anything else.
    for kept in 0..=SECTOR {
        let mut torn = whole.clone();
        let from = usize::try_from(offset(2, 3)).unwrap();
        torn[from..from + kept].copy_from_slice(&next[from..from + kept]);
        std::fs::write(&path, &torn).unwrap();
        let mut file = open(&path).unwrap();
        let found = file.newest(2).unwrap();
        assert!(found == at(2, 2) || found == at(3, 3), "{kept}: {found:?}");
        // Written but not synced counts as possibly signed: only the same may follow.
        assert!(file.persist(&[(2, Cosigned { root: Hash([9; 32]), ..found })]).is_err());
        file.persist(&[(2, at(4, 4))]).unwrap();
    }
}

#[test]
fn a_file_that_is_gone_damaged_or_another_nodes_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("cosigned");
    let missing = CosignFile::open(&path, ALLIANCE, NODE, 4, false).unwrap_err();
    assert!(matches!(missing, CosignError::Missing(_)) && missing.to_string().contains("put it back"));
    let mut file = open(&path).unwrap();
    for size in 1..4 {
        file.persist(&[(0, at(size, 1))]).unwrap();
    }
    let other = CosignFile::open(&path, ALLIANCE, NodeId([3; 8]), 4, true).unwrap_err();
    assert!(matches!(other, CosignError::OtherNode { found: NODE, .. }), "{other}");
    assert!(other.to_string().contains("credentials_dir"), "{other}");
    assert!(CosignFile::open(&path, ALLIANCE, NODE, 5, true).is_err());
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[SECTOR + 40] ^= 1;
    bytes[2 * SECTOR + 40] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    assert!(matches!(open(&path), Err(CosignError::Damaged { .. })));
}

/// A disk with the file as it is made.
fn made() -> Disk {
    let disk = Disk::default();
    read(&disk).unwrap();
    disk.copy()
}

fn read(disk: &Disk) -> Result<CosignFile, CosignError> {
    CosignFile::open_with_backend(disk.clone(), ALLIANCE, NODE, 4)
}

const ROUNDS: u8 = 4;
/// A sync when it is opened, then two records and a sync each round.
const STEPS: u64 = 1 + 3 * ROUNDS as u64;

fn round(n: u8) -> [(u16, Cosigned); 2] {
    [(0, at(n.into(), n)), (3, at(2 * u64::from(n), n))]
}

/// Persists round after round until one fails, and one more then. Returns how many were persisted.
fn persisted(disk: &Disk) -> u8 {
    let Ok(mut file) = read(disk) else { return 0 };
    for n in 1..=ROUNDS {
        if file.persist(&round(n)).is_err() {
            assert!(
                matches!(file.persist(&round(n)), Err(CosignError::Stopped)),
                "nothing is confirmed after a failure"
            );
            return n - 1;
        }
    }
    ROUNDS
}

#[test]
fn a_disk_that_fails_at_any_step_forgets_nothing_that_was_persisted_and_the_file_goes_on() {
    let disk = made();
    assert_eq!(persisted(&disk), ROUNDS);
    assert_eq!(disk.steps(), STEPS);
    for step in 1..=STEPS {
        for unsynced in [Unsynced::Lost, Unsynced::Kept, Unsynced::Some(step), Unsynced::Some(step + 1000)] {
            let disk = made();
            disk.fail_at(step);
            let n = persisted(&disk);
            assert!(n < ROUNDS);
            let mut file = read(&disk.crash(unsynced)).unwrap();
            for ((shard, acknowledged), (_, tried)) in round(n).into_iter().zip(round(n + 1)) {
                let found = file.newest(shard);
                let old = (n > 0).then_some(acknowledged);
                assert!(found == old || found == Some(tried), "step {step}, {unsynced:?}: {found:?}");
                if n > 0 {
                    assert!(file.persist(&[(shard, Cosigned { root: Hash([99; 32]), ..acknowledged })]).is_err());
                }
            }
            file.persist(&round(n + 1)).unwrap();
            file.persist(&round(ROUNDS + 1)).unwrap();
        }
    }
}

#[test]
fn what_a_killed_process_left_unsynced_is_on_disk_before_it_counts_as_persisted() {
    for step in 1..=STEPS {
        let disk = made();
        disk.fail_at(step);
        let n = persisted(&disk);
        // The process is killed, the machine goes on: what was written is still there to be read.
        let disk = disk.restarted();
        let mut file = read(&disk).unwrap();
        file.persist(&round(n + 1)).unwrap();
        // Now the power goes.
        let file = read(&disk.crash(Unsynced::Lost)).unwrap();
        for (shard, cosigned) in round(n + 1) {
            assert_eq!(file.newest(shard), Some(cosigned), "step {step}");
        }
    }
}

#[test]
fn a_file_that_was_being_made_when_the_process_was_killed_is_made_again() {
    let whole = blank(ALLIANCE, NODE, 4);
    for kept in [0, 1, SECTOR, SECTOR + 1, whole.len()] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("cosigned");
        std::fs::write(path.with_extension("new"), &whole[..kept]).unwrap();
        open(&path).unwrap().persist(&round(1)).unwrap();
        assert_eq!(open(&path).unwrap().newest(3), Some(at(2, 1)));
    }
}
