//! The files of a node that was stopped, or killed, are sound; whatever byte of them is altered, it is found or does not matter.

use std::num::NonZeroU16;
use std::sync::Arc;

use bytes::Bytes;
use ehe::control::Right;
use ehe::id::{Hash, NodeId};
use ehe::identity::Identity;
use ehe::merkle::Peaks;
use ehe::time::UnixMs;

use super::*;
use crate::checkpoint::Board;
use crate::consensus::{self, Bootstrap, Consensus, Machine};
use crate::shard::tests::people::{Patient, Sealer, Writer, rng};
use crate::shard::{Place, ShardMachine, block_of_runs};

const ALLIANCE: AllianceId = AllianceId([7; 32]);
const NODE: NodeId = NodeId([0, 0, 0, 0, 0, 0, 0, 1]);
const NOW: UnixMs = UnixMs(1_790_000_000_000 - 1_790_000_000_000 % 3_600_000);

/// A node of one voter with one shard that has lived a little, stopped in order or not.
async fn node(dir: &Path, in_order: bool) {
    let place = Place { alliance: ALLIANCE, shard_count: NonZeroU16::MIN, shard: 0 };
    let store = Store::open(dir, ALLIANCE, 0, 4 << 20).unwrap();
    let machine = ShardMachine::new(place, store.clone(), Arc::new(Board::default())).unwrap();
    let config = consensus::Config {
        bootstrap: Bootstrap::Voters([raft_id(NODE)].into()),
        journal_bytes: 1 << 20,
        ..consensus::Config::new(raft_id(NODE))
    };
    let consensus = Consensus::open(config, dir, vec![(GroupId(0), machine)]).await.unwrap();
    let [owner, gateway] = [(); 2].map(|()| Identity::generate(&mut rng()));
    let mut patient = Patient::new(&owner, ALLIANCE, (0, 1), NOW);
    let mut events = patient.opening(NOW);
    events.push(patient.grant(gateway.public(), Right::Append, None, NOW));
    let mut runs = vec![patient.writer.run(&events)];
    let sealer = Sealer::new(&gateway, &patient, NOW);
    let mut gateway = Writer::new(&gateway, patient.room);
    runs.push(gateway.run(std::slice::from_ref(&sealer.wrap)));
    runs.extend((0..80u64).map(|n| gateway.run(&[sealer.seal(&n.to_be_bytes())])));
    for run in runs {
        consensus.propose(GroupId(0), Bytes::from(block_of_runs(NOW, vec![run]))).await.unwrap();
    }
    consensus.make_durable(GroupId(0)).await.unwrap();
    let view = store.view().unwrap();
    let (size, root) = (view.shard().leaves, Peaks::load(&view, view.shard().leaves).unwrap().root());
    let mut file = CosignFile::open(&dir.join(crate::daemon::COSIGN_FILE), ALLIANCE, NODE, 1, true).unwrap();
    file.persist(&[(0, Cosigned { incarnation: 0, size, root })]).unwrap();
    if !in_order {
        // As after kill -9: what lies in the directory now is all that is left.
        let left = dir.join("left");
        std::fs::create_dir(&left).unwrap();
        for name in [&file_name(0), LOG_FILE, JOURNAL_FILE, crate::daemon::COSIGN_FILE] {
            std::fs::copy(dir.join(name), left.join(name)).unwrap();
        }
    }
    drop(view);
    consensus.shutdown().await.unwrap();
}

fn looked(dir: &Path) -> Report {
    verify(dir, 2, &Progress::default()).unwrap()
}

fn export(path: &Path) -> Option<Vec<u8>> {
    use std::io::Read;
    let store = caught(|| Ok(Store::open_as_it_is(Overlay::open(path)?, 4 << 20, true)?.0)).ok()?;
    let place = Place { alliance: ALLIANCE, shard_count: NonZeroU16::MIN, shard: 0 };
    caught(|| {
        let machine = ShardMachine::new(place, store, Arc::new(Board::default()))?;
        let mut out = Vec::new();
        let mut snapshot = machine.snapshot().map_err(|_| StoreError::Corrupt("no snapshot"))?;
        snapshot.read_to_end(&mut out)?;
        Ok(out)
    })
    .ok()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_files_of_a_node_are_sound_whether_it_was_stopped_or_killed_and_are_not_touched() {
    let dir = tempfile::tempdir().unwrap();
    node(dir.path(), false).await;
    for dir in [dir.path().to_path_buf(), dir.path().join("left")] {
        let before: Vec<_> = [&file_name(0), LOG_FILE, JOURNAL_FILE, crate::daemon::COSIGN_FILE]
            .map(|name| std::fs::read(dir.join(name)).unwrap())
            .into();
        let report = looked(&dir);
        assert!(report.is_sound(), "{report}");
        assert_eq!(report.files.iter().map(|file| file.entries).collect::<Vec<_>>()[2], 82, "{report}");
        assert!(report.to_string().contains("shard-0000.redb: sound, 82 entries, 84 events"), "{report}");
        let after: Vec<_> = [&file_name(0), LOG_FILE, JOURNAL_FILE, crate::daemon::COSIGN_FILE]
            .map(|name| std::fs::read(dir.join(name)).unwrap())
            .into();
        assert!(before == after, "not a byte of it is written");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_byte_of_a_file_is_altered_it_is_found_or_nothing_that_is_stored_is_another_for_it() {
    let dir = tempfile::tempdir().unwrap();
    node(dir.path(), true).await;
    std::panic::set_hook(Box::new(|_| {}));
    let path = dir.path().join(file_name(0));
    let (sound, state) = (std::fs::read(&path).unwrap(), export(&path).unwrap());
    let (mut found, mut harmless) = (0, 0);
    // The header, and places all over the file.
    let step = sound.len() / 300 + 1;
    for at in (0..320).step_by(5).chain((320..sound.len()).step_by(step)) {
        let mut altered = sound.clone();
        altered[at] ^= 1 << (at % 8);
        std::fs::write(&path, &altered).unwrap();
        if looked(dir.path()).is_sound() {
            assert!(export(&path) == Some(state.clone()), "byte {at} is another, and so is the state");
            harmless += 1;
        } else {
            found += 1;
        }
    }
    drop(std::panic::take_hook());
    assert!(found > 60, "{found} found, {harmless} in pages that are not in use");
    // Cut off.
    for len in [0, 100, 4096, sound.len() / 2, sound.len() - 1] {
        std::fs::write(&path, &sound[..len]).unwrap();
        assert!(!looked(dir.path()).is_sound(), "{len} bytes are left");
    }
    std::fs::remove_file(&path).unwrap();
    let report = looked(dir.path());
    assert!(report.to_string().contains("shard-0000.redb is gone"), "{report}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_is_damaged_or_gone_costs_the_node_its_identity_and_that_is_said() {
    let dir = tempfile::tempdir().unwrap();
    node(dir.path(), true).await;
    let path = dir.path().join(LOG_FILE);
    let sound = std::fs::read(&path).unwrap();
    let mut noticed = 0;
    for at in (0..sound.len()).step_by(sound.len() / 80 + 1) {
        let mut altered = sound.clone();
        altered[at] ^= 4;
        std::fs::write(&path, &altered).unwrap();
        let report = looked(dir.path());
        let log = report.files.iter().find(|file| file.file == LOG_FILE).unwrap();
        if log.found > 0 {
            noticed += 1;
            assert!(log.findings[0].next.contains("new identity"), "{report}");
        }
    }
    assert!(noticed > 3, "{noticed}");
    std::fs::remove_file(&path).unwrap();
    assert!(!looked(dir.path()).is_sound());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_journal_of_a_killed_node_is_part_of_its_log_and_is_missed() {
    let dir = tempfile::tempdir().unwrap();
    node(dir.path(), false).await;
    let dir = dir.path().join("left");
    let entries = |report: &Report| report.files.iter().find(|file| file.file == LOG_FILE).unwrap().entries;
    let whole = looked(&dir);
    assert!(whole.is_sound() && entries(&whole) > 80, "{whole}");
    let path = dir.join(JOURNAL_FILE);
    let journal = std::fs::read(&path).unwrap();
    for at in [30, 4096 + 30, 2 * 4096, 2 * 4096 + 60] {
        let mut altered = journal.clone();
        altered[at] ^= 1;
        std::fs::write(&path, &altered).unwrap();
        // The first block of the header is of an earlier epoch: whatever stands there, it does not count.
        assert_eq!(looked(&dir).is_sound(), at == 30, "byte {at}");
    }
    std::fs::remove_file(&path).unwrap();
    let report = looked(&dir);
    assert!(report.to_string().contains("raft.journal: it is gone"), "{report}");
    std::fs::write(&path, b"").unwrap();
    assert!(!looked(&dir).is_sound());
    std::fs::write(&path, &journal).unwrap();
    assert!(looked(&dir).is_sound());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_cosigned_has_to_be_what_the_shard_has() {
    let dir = tempfile::tempdir().unwrap();
    node(dir.path(), true).await;
    let path = dir.path().join(crate::daemon::COSIGN_FILE);
    std::fs::remove_file(&path).unwrap();
    let mut file = CosignFile::open(&path, ALLIANCE, NODE, 1, true).unwrap();
    file.persist(&[(0, Cosigned { incarnation: 0, size: 40, root: Hash([3; 32]) })]).unwrap();
    drop(file);
    let report = looked(dir.path());
    assert!(report.to_string().contains("the tree of 40 leaves is not the one that was cosigned"), "{report}");
    // A state that is an older copy, with a log that goes on: the log replays the rest, and nothing is wrong.
    std::fs::remove_file(&path).unwrap();
    let mut file = CosignFile::open(&path, ALLIANCE, NODE, 1, true).unwrap();
    file.persist(&[(0, Cosigned { incarnation: 0, size: 400, root: Hash([3; 32]) })]).unwrap();
    drop(file);
    let report = looked(dir.path());
    assert!(report.is_sound() && report.to_string().contains("318 entries that were cosigned"), "{report}");
    std::fs::write(&path, b"something else").unwrap();
    assert!(!looked(dir.path()).is_sound());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_node_is_told_apart_from_a_damaged_one() {
    let dir = tempfile::tempdir().unwrap();
    node(dir.path(), true).await;
    let store = Store::open(dir.path(), ALLIANCE, 0, 4 << 20).unwrap();
    let why = verify(dir.path(), 1, &Progress::default()).unwrap_err();
    assert!(matches!(&why, VerifyError::Running(file) if *file == file_name(0)), "{why}");
    drop(store);
    assert!(looked(dir.path()).is_sound());
    let empty = tempfile::tempdir().unwrap();
    assert!(matches!(verify(empty.path(), 1, &Progress::default()), Err(VerifyError::Empty(_))));
}
