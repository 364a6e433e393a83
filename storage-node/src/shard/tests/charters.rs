//! Charters in a shard's log: who may bring one, in which order, and who has to vouch for it.

use ehe::charter::{CHAIN_VERSIONS_MAX, SignedCharter, VerifiedCharter};

use tokio::sync::watch;

use super::incoming::{published, rewritten};
use super::*;
use crate::consensus::{MachineError, Stage};
use crate::shard::block::decode_outcomes;
use crate::shard::{CharterEntry, InEffect};
use crate::test_charters::Alliance;

struct Shard {
    _dir: tempfile::TempDir,
    place: Place,
    store: Store,
    board: Arc<Board>,
    machine: ShardMachine,
    blocks: u64,
}

impl Shard {
    fn of(charter: &VerifiedCharter) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let place = Place { alliance: charter.alliance_id(), ..PLACE };
        let store = Store::open(dir.path(), place.alliance, 0, CACHE).unwrap();
        let board = Arc::new(Board::default());
        let machine = ShardMachine::new(place, store.clone(), Arc::clone(&board)).unwrap();
        Self { _dir: dir, place, store, board, machine, blocks: 0 }
    }

    fn apply(&mut self, commands: Vec<Command>) -> Vec<Outcome> {
        self.blocks += 1;
        let position = Position { term: 1, index: self.blocks };
        let bytes = Bytes::from(Block::new(NOON, 1, commands).to_vec());
        let answers = self.machine.apply(&[consensus::Command { position, bytes }], b"meta").unwrap();
        decode_outcomes(&answers[0]).unwrap()
    }

    /// (version in effect, nobody has to vouch any more)
    fn entry(&mut self, signed: &SignedCharter, vouched: Option<String>) -> (u32, bool) {
        let entry = CharterEntry { signed: signed.encode(), vouched };
        match self.apply(vec![Command::Charter(entry)])[..] {
            [Outcome::Charter { version, vouched }] => (version, vouched),
            ref other => panic!("{other:?}"),
        }
    }

    fn a_leaf(&mut self) -> (u64, Hash) {
        let owner = Identity::generate(&mut rng());
        let mut patient = Patient::new(&owner, self.place.alliance, (0, 1), NOON);
        let events = patient.opening(NOON);
        let run = patient.writer.run(&events);
        assert!(matches!(self.apply(vec![Command::Submit(run)])[..], [Outcome::Submitted { .. }]));
        root(&self.store)
    }

    /// Takes over another's state, which that note stands behind.
    fn receive(
        &mut self,
        from: &mut Self,
        note: Option<&str>,
        charters: &[Arc<VerifiedCharter>],
    ) -> Result<(), MachineError> {
        let known = charters.to_vec();
        let of = move |version: u32| known.get(version as usize - 1).cloned();
        let (shown, checkpoints) = watch::channel(Checkpointed::None);
        let sends = ShardMachine::new(from.place, from.store.clone(), Arc::clone(&from.board)).unwrap();
        from.machine = sends.attested_by(Notary::new(of, checkpoints));
        if let Some(note) = note {
            shown.send_replace(published(root(&from.store).0, note));
        }
        let bytes = from.state();
        self.take(&bytes, charters)
    }

    /// Takes over the state in these bytes.
    fn take(&mut self, bytes: &[u8], charters: &[Arc<VerifiedCharter>]) -> Result<(), MachineError> {
        let charters = charters.to_vec();
        let of = move |version: u32| charters.get(version as usize - 1).cloned();
        let checkpoints = watch::channel(Checkpointed::None).1;
        let receives = ShardMachine::new(self.place, self.store.clone(), Arc::clone(&self.board)).unwrap();
        self.machine = receives.attested_by(Notary::new(of, checkpoints));
        let mut stage = self.machine.stager()()?;
        stage.write(bytes)?;
        self.machine.adopt(stage.finish()?, b"meta")
    }

    fn state(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.machine.snapshot().unwrap().read_to_end(&mut bytes).unwrap();
        bytes
    }
}

#[test]
fn a_charter_beyond_the_limits_of_a_chain_is_not_taken_for_nobody_could_read_the_chain_again() {
    let alliance = Alliance::of(1);
    let chain = alliance.chain(&vec![&[1][..]; CHAIN_VERSIONS_MAX + 1]);
    let mut shard = Shard::of(&chain[0]);
    let entry = |charter: &Arc<VerifiedCharter>| CharterEntry { signed: charter.signed().encode(), vouched: None };
    let most = u32::try_from(CHAIN_VERSIONS_MAX).unwrap();
    let outcomes = shard.apply(chain.iter().map(|charter| Command::Charter(entry(charter))).collect());
    let taken = Outcome::Charter { version: most, vouched: true };
    assert_eq!(outcomes[CHAIN_VERSIONS_MAX - 1..], [taken.clone(), taken]);
    shard.machine = ShardMachine::new(shard.place, shard.store.clone(), Arc::clone(&shard.board)).unwrap();
    assert_eq!(shard.board.in_effect(0).unwrap().charter.version(), most, "after a restart");
}

#[test]
fn a_shard_takes_up_charters_one_after_the_other_and_none_that_too_few_have_signed() {
    let alliance = Alliance::of(3);
    let chain = alliance.chain(&[&[1], &[1, 2, 3], &[1]]);
    let [one, two, three] = [0, 1, 2].map(|n| chain[n].signed().clone());
    let mut shard = Shard::of(&chain[0]);
    assert_eq!(shard.board.in_effect(0), None, "charter 1 is in effect, and needs no entry");
    assert_eq!(shard.entry(&two, None), (0, true), "the log says nothing of the one before it");
    assert_eq!(shard.entry(&one, None), (1, true));
    assert_eq!(shard.entry(&one, None), (1, true), "said twice");
    assert_eq!(shard.entry(&three, None), (1, true), "one is skipped");
    let next = alliance.charter(Some(&chain[0]), &[1, 2, 3]);
    for by in 0..2 {
        assert_eq!(shard.entry(&alliance.signed(&next, by), None), (1, true), "{by} of three members have signed");
    }
    let strangers = Alliance::of(3);
    assert_eq!(shard.entry(&strangers.signed(&next, 3), None), (1, true), "strangers signed");
    let other = Alliance::of(3).chain(&[&[1]]);
    assert_eq!(shard.entry(other[0].signed(), None), (1, true), "another alliance's");
    let garbage = CharterEntry { signed: vec![0xff; 40], vouched: None };
    assert_eq!(shard.apply(vec![Command::Charter(garbage)]), [Outcome::Charter { version: 1, vouched: true }]);
    // Two of three is a majority. The shard has no leaf: there is nothing that the old group could vouch for.
    assert_eq!(shard.entry(&alliance.signed(&next, 2), None), (2, true));
    assert_eq!(shard.board.in_effect(0).unwrap().charter.version(), 2);
}

#[test]
fn a_charter_that_moves_the_shard_is_vouched_for_by_both_quorums_before_the_next_one_is_taken_up() {
    let alliance = Alliance::of(5);
    let chain = alliance.chain(&[&[1, 2, 3], &[3, 4, 5], &[5]]);
    let [one, two, three] = [0, 1, 2].map(|n| chain[n].signed().clone());
    let mut shard = Shard::of(&chain[0]);
    let at = shard.a_leaf();
    assert_eq!(shard.entry(&one, None), (1, true));
    assert_eq!(shard.entry(&two, None), (2, false));
    let InEffect { before, .. } = shard.board.in_effect(0).unwrap();
    assert_eq!(before.map(|before| before.version()), Some(1));
    assert_eq!(shard.entry(&three, None), (2, false), "not before this one is vouched for");
    for (what, note) in [
        ("the new group alone", alliance.note(&chain[1], at, &[3, 4, 5])),
        ("the old group alone", alliance.note(&chain[1], at, &[3, 1, 2])),
        ("one of the old group and one of the new", alliance.note(&chain[1], at, &[4, 1])),
        ("nobody of the new group ordered it", alliance.note(&chain[1], at, &[1, 2, 3, 4])),
        ("under the old charter", alliance.note(&chain[0], at, &[3, 1, 2, 4, 5])),
        ("no note", "no note".into()),
    ] {
        assert_eq!(shard.entry(&two, Some(note)), (2, false), "{what}");
    }
    let good = alliance.note(&chain[1], at, &[3, 2, 4]);
    assert_eq!(shard.entry(&one, Some(good.clone())), (2, false), "of another charter");
    assert_eq!(shard.entry(&two, Some(good.clone())), (2, true));
    assert_eq!(shard.entry(&two, Some(good)), (2, true), "said twice");
    assert_eq!(shard.board.in_effect(0).unwrap().before, None);
    assert_eq!(shard.entry(&three, None), (3, false));
}

#[test]
fn what_charter_is_in_effect_survives_a_restart_and_travels_with_the_state() {
    let alliance = Alliance::of(3);
    let chain = alliance.chain(&[&[1], &[1, 2, 3], &[1]]);
    let mut shard = Shard::of(&chain[0]);
    let at = shard.a_leaf();
    shard.entry(chain[0].signed(), None);
    shard.entry(chain[1].signed(), None);
    let now = shard.board.in_effect(0);
    assert_eq!(now.as_ref().map(|now| (now.charter.version(), now.before.is_some())), Some((2, true)));

    let board = Arc::new(Board::default());
    shard.machine = ShardMachine::new(shard.place, shard.store.clone(), Arc::clone(&board)).unwrap();
    assert_eq!(board.in_effect(0), now);
    let mut other = Shard::of(&chain[0]);
    // The note is under the charter that was in effect before: the move is not vouched for yet.
    let note = alliance.note(&chain[0], at, &[1]);
    other.receive(&mut shard, Some(&note), &chain).unwrap();
    assert_eq!(other.board.in_effect(0), now);
    assert_eq!(other.state(), shard.state());
    // Both go on alike.
    other.blocks = shard.blocks;
    shard.board = board;
    for it in [&mut shard, &mut other] {
        assert_eq!(it.entry(chain[1].signed(), Some(alliance.note(&chain[1], at, &[1, 2]))), (2, true));
        assert_eq!(it.entry(chain[2].signed(), None), (3, false));
    }
    assert_eq!(other.state(), shard.state());
    // One from before is none that this node has any use for.
    let before = snapshot(&shard.machine);
    assert_eq!(shard.entry(chain[2].signed(), Some(alliance.note(&chain[2], at, &[1, 2]))), (3, true));
    let why = shard.take(&before, &chain).unwrap_err().to_string();
    assert!(why.contains("charter is older"), "{why}");
    // Nor one that has lost those under which its note was cosigned.
    let (note, mut empty) = (alliance.note(&chain[1], at, &[1, 2]), Shard::of(&chain[0]));
    let whole = rewritten(&before, Some(&note), |_| {});
    let lost = rewritten(&whole, None, |rows| rows.retain(|row| row.0 != 0 || row.1 != b"charters"));
    let why = empty.take(&lost, &chain).unwrap_err().to_string();
    assert!(why.contains("later charter"), "{why}");
    empty.take(&whole, &chain).unwrap();
    // A state whose charters somebody wrote is none.
    let forged = Alliance::of(1).chain(&[&[1]]);
    let mut another = Shard::of(&forged[0]);
    another.entry(forged[0].signed(), None);
    assert!(shard.receive(&mut another, None, &chain).is_err());
}

#[test]
fn a_command_that_this_program_does_not_know_stops_the_replica_with_its_state_as_it_was() {
    let alliance = Alliance::of(1);
    let chain = alliance.chain(&[&[1]]);
    let mut shard = Shard::of(&chain[0]);
    shard.a_leaf();
    let before = shard.state();
    let known = Block::new(NOON, 1, vec![]).to_vec();
    let at = known.len() - 1;
    assert_eq!(known[at], 0x80, "an array of no commands");
    let unknown = [&known[..at], &[0x81, 0x82, 0x17, 0x40]].concat();
    let good = CharterEntry { signed: chain[0].signed().encode(), vouched: None };
    let good = Block::new(NOON, 1, vec![Command::Charter(good)]).to_vec();
    let command = |index, bytes: &[u8]| consensus::Command {
        position: Position { term: 1, index },
        bytes: Bytes::copy_from_slice(bytes),
    };
    let batch = [command(2, &good), command(3, &unknown)];
    let why = shard.machine.apply(&batch, b"later").unwrap_err().to_string();
    assert!(why.contains("is not a block") && why.contains("another version"), "{why}");
    assert_eq!(shard.state(), before, "nothing of the batch was applied");
    // A program that knows it goes on from there.
    let mut again = ShardMachine::new(shard.place, shard.store.clone(), Arc::clone(&shard.board)).unwrap();
    again.apply(&batch[..1], b"later").unwrap();
    assert_eq!(shard.board.in_effect(0).unwrap().charter.version(), 1);
}
