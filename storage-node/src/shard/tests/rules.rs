//! The rules version in a shard's log: what is applied, what is passed over, and where a program that is older stops.

use ehe::charter::{Charter, RULES_FIRST, SignedCharter, Trust, VerifiedCharter};

use super::*;
use crate::consensus::{MachineError, Stage};
use crate::shard::CharterEntry;
use crate::test_charters::Alliance;

struct Shard {
    dir: tempfile::TempDir,
    place: Place,
    store: Store,
    machine: ShardMachine,
}

fn position(index: u64) -> Position {
    Position { term: 1, index }
}

impl Shard {
    fn of(charter: &VerifiedCharter, knows: u16) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let place = Place { alliance: charter.alliance_id(), ..PLACE };
        let store = Store::open(dir.path(), place.alliance, 0, CACHE).unwrap();
        let machine = machine(place, &store, knows);
        Self { dir, place, store, machine }
    }

    fn apply(&mut self, blocks: &[Vec<u8>]) -> Result<Vec<Vec<Outcome>>, MachineError> {
        let command = |bytes: &Vec<u8>| consensus::Command { position: position(1), bytes: bytes.clone().into() };
        let batch: Vec<_> = blocks.iter().map(command).collect();
        let answers = self.machine.apply(&batch, b"meta")?;
        Ok(answers.iter().map(|answer| decode_outcomes(answer).unwrap()).collect())
    }

    /// The same file, under another version of the program.
    fn restarted(self, knows: u16) -> Self {
        let Self { dir, place, store, mut machine } = self;
        machine.make_durable().unwrap();
        drop((machine, store));
        let store = Store::open(dir.path(), place.alliance, 0, CACHE).unwrap();
        let machine = self::machine(place, &store, knows);
        Self { dir, place, store, machine }
    }

    fn state(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.machine.snapshot().unwrap().read_to_end(&mut bytes).unwrap();
        bytes
    }
}

fn machine(place: Place, store: &Store, knows: u16) -> ShardMachine {
    ShardMachine::new(place, store.clone(), Arc::new(Board::default())).unwrap().knowing(knows)
}

/// Charter 1, and one behind it that raises the rules version to 2.
fn charters() -> [Arc<VerifiedCharter>; 2] {
    let alliance = Alliance::of(3);
    let one = alliance.next(None, &[1, 2, 3]).unwrap();
    let raising = Charter { rules: Some(2), ..alliance.charter(Some(&one), &[1, 2, 3]) };
    let two = alliance.signed(&raising, 2).verify(Trust::Predecessor(&one)).unwrap();
    [Arc::new(one), Arc::new(two)]
}

fn brought(charters: &[Arc<VerifiedCharter>], rules: u16) -> Vec<u8> {
    let entry = |signed: &SignedCharter| Command::Charter(CharterEntry { signed: signed.encode(), vouched: None });
    Block::new(NOON, rules, charters.iter().map(|charter| entry(charter.signed())).collect()).to_vec()
}

/// A block that opens a room.
fn opening(place: Place, rules: u16) -> Vec<u8> {
    let owner = Identity::generate(&mut rng());
    let mut patient = Patient::new(&owner, place.alliance, (0, 1), NOON);
    let events = patient.opening(NOON);
    let run = patient.writer.run(&events);
    Block::new(NOON, rules, vec![Command::Submit(run)]).to_vec()
}

/// A block with a command that no program of today knows.
fn of_another_form(rules: u16) -> Vec<u8> {
    let mut bytes = Block::new(NOON, rules, vec![]).to_vec();
    *bytes.last_mut().unwrap() = 0x81;
    bytes.extend([0x81, 0x18, 0x63]);
    bytes
}

const PASSED_OVER: [Outcome; 1] = [Outcome::Refused(Refusal::NoLeader)];

#[test]
fn a_block_that_claims_rules_which_nobody_put_in_force_changes_nothing_whatever_program_meets_it() {
    let charters = charters();
    for knows in [1, 2, 9] {
        let mut shard = Shard::of(&charters[0], knows);
        let first = opening(shard.place, 1);
        assert!(matches!(shard.apply(&[first]).unwrap()[0][..], [Outcome::Submitted { .. }]));
        let before = shard.state();
        assert_eq!(shard.apply(&[opening(shard.place, 2)]).unwrap(), [PASSED_OVER], "known up to {knows}");
        assert_eq!(shard.apply(&[of_another_form(9)]).unwrap(), [[]], "known up to {knows}");
        assert_eq!(shard.state(), before, "known up to {knows}");
        assert!(shard.machine.outdated().is_none());
        // Of rules that are in force it has to be a block.
        let why = shard.apply(&[of_another_form(1)]).unwrap_err().to_string();
        assert!(why.contains("is not a block"), "{why}");
    }
}

#[test]
fn rules_are_in_force_behind_the_block_that_brings_their_charter_and_not_within_it() {
    let charters = charters();
    let mut shard = Shard::of(&charters[0], 2);
    assert_eq!(shard.machine.rules().in_force(), RULES_FIRST);
    let under_two = opening(shard.place, 2);
    // In the same batch, in front of the charter and behind it.
    let outcomes = shard.apply(&[under_two.clone(), brought(&charters, 1), under_two]).unwrap();
    assert_eq!(outcomes[0], PASSED_OVER);
    assert_eq!(outcomes[1][1], Outcome::Charter { version: 2, vouched: true });
    assert!(matches!(outcomes[2][..], [Outcome::Submitted { .. }]), "{outcomes:?}");
    assert_eq!(shard.machine.rules().in_force(), 2);
    // What was written before its author had applied the charter, is not lost.
    let late = opening(shard.place, 1);
    assert!(matches!(shard.apply(&[late]).unwrap()[0][..], [Outcome::Submitted { .. }]));
    // A block whose form only the later rules tell, which were not in force in front of the batch.
    let mut again = Shard::of(&charters[0], 2);
    let parts = again.apply(&[brought(&charters, 1), of_another_form(2)]).unwrap_err();
    assert_eq!(parts.first_part(), Some(1));
    assert_eq!(again.machine.rules().in_force(), RULES_FIRST, "nothing was applied");
}

#[test]
fn an_older_program_applies_nothing_behind_the_charter_and_a_later_one_goes_on_from_there_without_loss() {
    let charters = charters();
    let (mut older, mut later) = (Shard::of(&charters[0], 1), Shard::of(&charters[0], 2));
    let blocks = [brought(&charters, 1), opening(older.place, 1), opening(older.place, 2)];
    later.apply(&blocks).unwrap();

    let parts = older.apply(&blocks).unwrap_err();
    assert_eq!(parts.first_part(), Some(1), "the charter by itself");
    assert_eq!(older.store.view().unwrap().shard().blocks, 0, "nothing was applied");
    older.apply(&blocks[..1]).unwrap();
    let why = older.machine.outdated().unwrap();
    assert!(why.contains("version 2") && why.contains("knows version 1") && why.contains("install"), "{why}");
    let held = older.state();
    assert!(older.apply(&blocks[1..]).is_err(), "not even those that were written before the charter");
    assert_eq!(older.state(), held);
    let mut older = older.restarted(1);
    assert!(older.machine.outdated().is_some(), "a restart changes nothing");
    assert!(older.apply(&blocks[1..]).is_err());
    let mut upgraded = older.restarted(2);
    assert!(upgraded.machine.outdated().is_none());
    upgraded.apply(&blocks[1..]).unwrap();
    assert_eq!(root(&upgraded.store), root(&later.store));
    assert_eq!(upgraded.state(), later.state());
}

#[test]
fn an_older_program_takes_no_state_under_rules_that_it_cannot_judge() {
    let charters = charters();
    let mut shard = Shard::of(&charters[0], 2);
    shard.apply(&[brought(&charters, 1)]).unwrap();
    let state = shard.state();
    let take = |knows| {
        let mut receives = Shard::of(&charters[0], knows);
        let mut stage = receives.machine.stager()()?;
        stage.write(&state)?;
        receives.machine.adopt(stage.finish()?, b"meta")
    };
    // Before all of it is there: it would be sent again and again.
    let older = Shard::of(&charters[0], 1);
    let mut stage = older.machine.stager()().unwrap();
    let early = stage.write(&state[..state.len() - 40]).unwrap_err().to_string();
    assert!(early.contains("install a version"), "{early}");
    drop(stage);
    let why = take(1).unwrap_err();
    assert!(why.is_at_home(), "the fault is nobody else's");
    assert!(why.to_string().contains("install a version"), "{why}");
    take(2).unwrap();
    // Whoever says so without the members is at fault, and nobody is told to install anything.
    let raised = charters[1].signed().encode();
    let at = state.windows(raised.len()).position(|bytes| bytes == raised).unwrap();
    let mut forged = state.clone();
    // In the last signature.
    forged[at + raised.len() - 1] ^= 1;
    let why = older.machine.stager()().unwrap().write(&forged).unwrap_err();
    assert!(!why.is_at_home() && !why.to_string().contains("install a version"), "{why}");
}
