//! A shard that is given up while its disk fails at any step, or the power goes there: it is there whole, or nothing of it is.

use super::incoming::Disks;
use super::*;
use crate::shard::entry::LogName;
use crate::test_disk::{Disk, Unsynced};

#[test]
fn a_shard_that_is_given_up_is_gone_or_whole_whatever_fails_on_the_way() {
    let mut bench = Bench::new();
    home(&mut bench);
    let (base, log) = (Disk::default(), LogName { alliance: PLACE.alliance, shard: PLACE.shard });
    let whole = {
        let store = Store::open_beside(base.clone(), None, log, CACHE).unwrap();
        let mut machine = ShardMachine::new(PLACE, store, Arc::default()).unwrap();
        for (index, bytes) in (1..).zip(&bench.blocks) {
            let command = consensus::Command { position: Position { term: 1, index }, bytes: bytes.clone() };
            machine.apply(&[command], b"own").unwrap();
        }
        machine.make_durable().unwrap();
        snapshot(&machine)
    };
    // Whether it was said to be done, and whether it is.
    let attempt = |disks: Disks, unsynced: Unsynced| {
        let (disks, main) = (Arc::new(disks), base.copy());
        let store = Store::open_beside(main.clone(), Some(disks.clone()), log, CACHE).unwrap();
        let mut machine = ShardMachine::new(PLACE, store, Arc::default()).unwrap();
        let done = machine.forget().is_ok();
        if done {
            assert_eq!(machine.applied().unwrap(), None, "nothing of it is shown while the program goes on");
        }
        let replaced = *disks.replaced.lock().unwrap();
        let left = if replaced { disks.incoming.lock().unwrap().crash(unsynced) } else { main.crash(unsynced) };
        let steps = disks.incoming.lock().unwrap().steps();
        let store = Store::open_beside(left, None, log, CACHE).unwrap();
        let machine = ShardMachine::new(PLACE, store.clone(), Arc::default()).unwrap();
        let gone = machine.applied().unwrap().is_none();
        if gone {
            assert_eq!(root(&store).0, 0);
        } else {
            assert!(snapshot(&machine) == whole && machine.applied().unwrap().unwrap().0 == b"own");
        }
        assert_eq!(gone, replaced);
        (done, gone, steps)
    };
    let (done, gone, steps) = attempt(Disks::default(), Unsynced::Lost);
    assert!(done && gone && steps > 10, "{steps} steps of IO");
    for unsynced in [Unsynced::Lost, Unsynced::Kept, Unsynced::Some(7)] {
        for took_place in [false, true] {
            let (done, gone, _) = attempt(Disks { renames: Some(took_place), ..Disks::default() }, unsynced);
            assert!(!done && gone == took_place);
        }
    }
    for step in 1..=steps {
        for unsynced in [Unsynced::Lost, Unsynced::Kept, Unsynced::Some(step)] {
            let (done, gone, _) = attempt(Disks { fail_at: Some(step), ..Disks::default() }, unsynced);
            assert_eq!(done, gone, "step {step}, {unsynced:?}");
        }
    }
}
