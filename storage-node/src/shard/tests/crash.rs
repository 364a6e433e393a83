//! The shard's file when its disk fails at any step, or the power goes there: what is left is the state after some block, none
//! older than the last that was made durable, and going on from it leads to the same state.

use super::*;
use crate::test_disk::{Disk, Unsynced};

/// What happens to a shard.
enum Step {
    Apply(usize),
    MakeDurable,
}

/// A shard that is about to fill its rows of the log, of leaf hashes and of places; the blocks that do it; and the state before
/// each of them and after the last.
struct Script {
    disk: Disk,
    blocks: Vec<Bytes>,
    states: Vec<Vec<u8>>,
    room: ehe::id::RoomId,
}

/// What may be left of unsynced writes when the power goes; the step chooses which of them.
fn after_crash(step: u64) -> [Unsynced; 3] {
    [Unsynced::Lost, Unsynced::Kept, Unsynced::Some(step)]
}

fn open(disk: &Disk) -> Result<(Store, ShardMachine), StoreError> {
    let store = Store::open_with_backend(disk.clone(), PLACE.alliance, 0, CACHE)?;
    let machine = ShardMachine::new(PLACE, store.clone(), Arc::new(Board::default()))?;
    Ok((store, machine))
}

fn apply(machine: &mut ShardMachine, blocks: &[Bytes], index: usize) -> Result<(), consensus::MachineError> {
    let position = Position { term: 1, index: index as u64 };
    let command = consensus::Command { position, bytes: blocks[index].clone() };
    machine.apply(&[command], &index.to_be_bytes()).map(drop)
}

/// Blocks after the first one that are applied one by one.
const LATER: usize = 9;

fn script() -> Script {
    let mut bench = Bench::new();
    let mut home = home(&mut bench);
    bench.submit(home.gateway.run(&[home.sealer.wrap.clone()]));
    let stranger = Identity::generate(&mut rng());
    for n in 0..120u64 {
        bench.submit(home.gateway.run(&[home.sealer.seal(&n.to_be_bytes())]));
    }
    let base = bench.blocks.len();
    for n in 0..LATER as u64 {
        bench.now = NOON.plus_ms(n * 1_800_000);
        let run = home.gateway.run(&[home.sealer.seal(&n.to_be_bytes())]);
        let large = Writer::new(&home.gateway.identity, home.patient.room);
        let large = large.linked(&[home.sealer.seal(&[7; 9000])]).0;
        bench.block(vec![
            Command::Submit(run),
            Command::Submit(large),
            Command::Read(content(&stranger, &home.patient, bench.now), stranger.public().clone(), NODE),
            Command::Read(content(&home.clinician, &home.patient, bench.now), home.clinician.public().clone(), NODE),
        ]);
    }
    let (disk, blocks) = (Disk::default(), bench.blocks);
    let (store, mut machine) = open(&disk).unwrap();
    for index in 0..base {
        apply(&mut machine, &blocks, index).unwrap();
    }
    machine.make_durable().unwrap();
    drop((store, machine));
    let disk = disk.crash(Unsynced::Kept);
    let (store, mut machine) = open(&disk.copy()).unwrap();
    let mut states = vec![snapshot(&machine)];
    for index in base..blocks.len() {
        apply(&mut machine, &blocks, index).unwrap();
        states.push(snapshot(&machine));
    }
    let (leaves, _) = root(&store);
    assert!(leaves > 127 + 6, "a row of leaf hashes is filled on the way, and a list of places");
    Script { disk, blocks: blocks[base - 1..].to_vec(), states, room: home.patient.room }
}

/// Runs the steps until one fails. Returns how many blocks were made durable.
fn run(disk: &Disk, blocks: &[Bytes], steps: &[Step]) -> usize {
    let Ok((_store, mut machine)) = open(disk) else { return 0 };
    let (mut applied, mut durable) = (0, 0);
    for step in steps {
        let done = match step {
            Step::Apply(index) => apply(&mut machine, blocks, *index).map(|()| applied = *index),
            Step::MakeDurable => machine.make_durable().map(|()| durable = applied),
        };
        if done.is_err() {
            break;
        }
    }
    durable
}

fn steps() -> Vec<Step> {
    let each = (1..=LATER).map(|index| (Step::Apply(index), index % 3 == 0));
    each.flat_map(|(apply, durable)| [Some(apply), durable.then_some(Step::MakeDurable)]).flatten().collect()
}

#[test]
fn a_shard_whose_disk_fails_at_any_step_comes_back_as_it_was_after_some_block_and_goes_on() {
    let script = script();
    let count = {
        let disk = script.disk.copy();
        let before = disk.steps();
        assert_eq!(run(&disk, &script.blocks, &steps()), LATER);
        disk.steps() - before
    };
    assert!(count > 30, "{count} steps of IO");
    for step in 1..=count {
        for unsynced in after_crash(step) {
            let disk = script.disk.copy();
            disk.fail_at(step);
            let durable = run(&disk, &script.blocks, &steps());
            let (store, mut machine) = open(&disk.crash(unsynced)).unwrap();
            let applied = machine.applied().unwrap().unwrap().0.try_into().map(usize::from_be_bytes).unwrap();
            // The base's last block has another number there: it is block 0 here.
            let applied = if applied > LATER { 0 } else { applied };
            assert!(applied >= durable, "step {step}, {unsynced:?}: {applied} blocks, {durable} were durable");
            assert!(snapshot(&machine) == script.states[applied], "step {step}, {unsynced:?}: a mixture");
            for index in applied + 1..=LATER {
                apply(&mut machine, &script.blocks, index).unwrap();
            }
            assert!(snapshot(&machine) == script.states[LATER], "step {step}, {unsynced:?}: it went on another way");
            // Every entry decodes; in the snapshot it is a part of a row.
            let view = store.view().unwrap();
            (110..view.shard().leaves)
                .for_each(|at| assert_eq!(view.leaf(&view.entry(at).unwrap()).unwrap().room, script.room));
        }
    }
}

#[test]
fn what_a_crash_left_while_the_file_was_made_does_not_pass_for_a_shard() {
    let count = {
        let disk = Disk::default();
        open(&disk).unwrap();
        disk.steps()
    };
    for step in 1..=count {
        for unsynced in after_crash(step) {
            let disk = Disk::default();
            disk.fail_at(step);
            let made = open(&disk).is_ok();
            match open(&disk.crash(unsynced)) {
                Ok((store, _)) => assert_eq!(root(&store).0, 0, "step {step}, {unsynced:?}"),
                // `Store::open` gives a file its name when it is whole.
                Err(_) => assert!(!made, "step {step}, {unsynced:?}"),
            }
        }
    }
}

#[test]
fn what_a_shard_that_is_let_go_of_had_not_made_durable_is_never_stored_whoever_closes_its_file_last() {
    let script = script();
    for (abandoned, last) in [(false, "machine"), (true, "machine"), (true, "store"), (true, "view")] {
        let disk = script.disk.copy();
        let (store, mut machine) = open(&disk).unwrap();
        apply(&mut machine, &script.blocks, 1).unwrap();
        let (rows, view) = (store.view().unwrap().rows_of(0).unwrap(), store.view().unwrap());
        if abandoned {
            machine.abandon();
            assert!(apply(&mut machine, &script.blocks, 2).unwrap_err().to_string().contains("started again"));
            assert!(machine.make_durable().is_err() && store.mend(0, &rows).is_err());
        }
        assert!(snapshot(&machine) == script.states[1], "it can be looked at");
        match last {
            "machine" => drop((store, view, machine)),
            "store" => drop((view, machine, store)),
            _ => drop((machine, store, view)),
        }
        for left in [disk.copy(), disk.crash(Unsynced::Lost)] {
            let (_, machine) = open(&left).unwrap();
            assert!(snapshot(&machine) == script.states[usize::from(!abandoned)], "{abandoned}, {last}");
        }
    }
}
