//! States that come from other nodes: what is taken and what is not, what becomes of the state that is here, and what a disk that
//! fails on the way leaves.

use std::os::unix::fs::PermissionsExt;
use std::sync::Mutex;

use ehe::checkpoint::{Checkpoint, Signer};
use ehe::room::RoomState;
use ehe::time::UnixMs;
use tokio::sync::watch;

use super::scrub::as_if_erased;
use super::*;
use crate::checkpoint::{CLOCK_DIFFERS_MAX_MS, Published};
use crate::clock::Clock;
use crate::consensus::{MachineError, Stage};
use crate::cosign::Cosigned;
use crate::shard::entry::LogName;
use crate::shard::export::{Item, Parser};
use crate::shard::folder::Folder;
use crate::shard::incoming::{Arrived, Incoming};
use crate::shard::schema::{META_APPLIED, META_SHARD};
use crate::shard::segments;
use crate::shard::store::OpenFile;
use crate::test_disk::{Disk, Unsynced};
use crate::test_members::{Seat, seats};

/// Three hospitals and what their nodes have.
struct Alliance {
    seats: Vec<Seat>,
    place: Place,
}

impl Alliance {
    fn new() -> Self {
        let seats = seats("ABC", None);
        let charter = &seats[0].charter;
        let place = Place { alliance: charter.alliance_id(), shard_count: charter.shard_count(), shard: 0 };
        Self { seats, place }
    }

    /// A shard in which something was done.
    fn bench(&self) -> Bench {
        let mut bench = Bench::of(self.place);
        busy(&mut bench);
        bench
    }

    fn checkpoint(&self, (size, root): (u64, Hash)) -> Checkpoint {
        let charter = &self.seats[0].charter;
        Checkpoint { origin: charter.origin(0, 0), size, root, charter_version: charter.version() }
    }

    /// A note that the first `signers` nodes signed.
    fn note(&self, checkpoint: &Checkpoint, signers: usize) -> String {
        let signer = |seat: &Seat| (seat.name.clone(), seat.identity.clone());
        let (name, identity) = signer(&self.seats[0]);
        let mut note = checkpoint.sign(Signer { name: &name, key: identity.sign_key() }, NOON).unwrap();
        for (name, identity) in self.seats[1..signers].iter().map(signer) {
            note.cosign(&name, identity.sign_key(), NOON.0 / 1000);
        }
        note.to_string()
    }

    /// Of the log's first `size` leaves, by two of the three.
    fn quorum(&self, bench: &Bench, size: u64) -> String {
        let root = Peaks::load(&bench.store.view().unwrap(), size).unwrap().root();
        self.note(&self.checkpoint((size, root)), 2)
    }

    /// Has a machine show and judge notes. What is sent on the channel is the newest.
    fn attested(&self, machine: ShardMachine) -> (ShardMachine, watch::Sender<Checkpointed>) {
        let (shown, checkpoints) = watch::channel(Checkpointed::None);
        (machine.attested_by(self.notary(checkpoints)), shown)
    }

    fn notary(&self, checkpoints: watch::Receiver<Checkpointed>) -> Notary {
        let charter = self.seats[0].charter.clone();
        Notary::new(move |version| (version == charter.version()).then(|| Arc::clone(&charter)), checkpoints)
    }

    /// A replica that has the first blocks alone.
    fn behind(&self, sender: &Bench, blocks: usize) -> Bench {
        let Bench { place, dir, machine, store, blocks: none, now } = Bench::of(self.place);
        let mut bench = Bench { place, dir, machine: self.attested(machine).0, store, blocks: none, now };
        sender.blocks[..blocks].iter().for_each(|block| applied(&mut bench, block));
        bench
    }

    /// One that has the first block.
    fn receiver(&self, sender: &Bench) -> Bench {
        self.behind(sender, 1)
    }

    /// The state of a shard as it is sent, with a note of all of it.
    fn state(&self, bench: &Bench) -> Vec<u8> {
        rewritten(&snapshot(&bench.machine), Some(&self.quorum(bench, bench.root().0)), |_| {})
    }
}

fn applied(bench: &mut Bench, block: &Bytes) {
    bench.blocks.push(block.clone());
    let position = Position { term: 1, index: bench.blocks.len() as u64 };
    let command = consensus::Command { position, bytes: block.clone() };
    bench.machine.apply(&[command], &position.index.to_be_bytes()).unwrap();
}

pub(super) fn published(size: u64, note: &str) -> Checkpointed {
    Checkpointed::At(Arc::new(Published {
        size,
        root: Hash::ZERO,
        incarnation: 0,
        charter_version: 1,
        rooms: 1,
        cosigners: Vec::new(),
        note: note.into(),
    }))
}

pub(super) type Rows = Vec<(u8, Vec<u8>, Vec<u8>)>;

/// A stream with another note, and other rows.
pub(super) fn rewritten(bytes: &[u8], note: Option<&str>, change: impl FnOnce(&mut Rows)) -> Vec<u8> {
    let (mut rows, mut said) = (Rows::new(), None);
    let taken = Parser::default().feed(bytes, |item| {
        match item {
            Item::Note(note) => said = note.map(str::to_owned),
            Item::Row { table, key, value } => rows.push((table, key.to_vec(), value.to_vec())),
            Item::End { .. } => {}
        }
        Ok(())
    });
    taken.unwrap();
    change(&mut rows);
    let note = note.map(str::to_owned).or(said).unwrap_or_default();
    let len = |bytes: &[u8]| u32::try_from(bytes.len()).unwrap().to_be_bytes();
    let mut out = bytes[..13].to_vec();
    out.extend(len(note.as_bytes()));
    out.extend(note.as_bytes());
    for (table, key, value) in &rows {
        out.push(*table);
        out.extend([len(key), len(value)].concat());
        out.extend([&key[..], value].concat());
    }
    out.push(0xff);
    out.extend((rows.len() as u64).to_be_bytes());
    out
}

/// In pieces that end anywhere.
fn staged(machine: &ShardMachine, bytes: &[u8]) -> Result<Arrived, MachineError> {
    let mut stage = machine.stager()()?;
    bytes.chunks(61).try_for_each(|piece| stage.write(piece))?;
    stage.finish()
}

fn refused(machine: &ShardMachine, bytes: &[u8]) -> String {
    let error = staged(machine, bytes).err().expect("it is refused");
    assert!(!error.is_at_home(), "{error}");
    error.to_string()
}

fn names(bench: &Bench) -> Vec<String> {
    let names = std::fs::read_dir(bench.dir.path()).unwrap();
    names.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

#[test]
fn a_state_with_a_quorum_behind_it_is_taken_whole_and_goes_on_the_same_way() {
    let alliance = Alliance::new();
    let mut sender = Bench::of(alliance.place);
    let mut home = home(&mut sender);
    sender.submit(home.gateway.run(&[home.sealer.wrap.clone(), home.sealer.seal(b"72 bpm")]));
    for n in 0..200u32 {
        sender.submit(home.gateway.run(&[home.sealer.seal(&n.to_be_bytes())]));
    }
    let (machine, shown) = alliance.attested(sender.machine);
    sender.machine = machine;
    let note = alliance.quorum(&sender, 150);
    shown.send_replace(published(150, &note));
    let bytes = snapshot(&sender.machine);
    let mut receiver = alliance.receiver(&sender);
    // The note is older than the state, as it mostly is.
    let arrived = staged(&receiver.machine, &bytes).unwrap();
    assert_eq!(names(&receiver).len(), 2, "it lies beside this node's own");
    receiver.machine.adopt(arrived, b"mine").unwrap();
    assert_eq!(names(&receiver), ["shard-0000.redb"]);
    let mode = receiver.dir.path().join("shard-0000.redb").metadata().unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);

    assert_eq!(receiver.machine.applied().unwrap().unwrap().0, b"mine");
    assert_eq!(snapshot(&receiver.machine), bytes, "its own note goes with it, too");
    let run = home.gateway.run(&[home.sealer.seal(b"73 bpm")]);
    receiver.now = sender.now;
    assert_eq!(sender.submit(run.clone()), receiver.submit(run));
    assert_eq!(receiver.root(), sender.root());
    // And so after a restart.
    receiver.machine.make_durable().unwrap();
    let (root, Bench { place, dir, machine, store, .. }) = (receiver.root(), receiver);
    drop((machine, store));
    let store = Store::open(dir.path(), place.alliance, 0, CACHE).unwrap();
    assert_eq!((super::root(&store), store.view().unwrap().note().unwrap()), (root, Some(note)));
}

#[test]
fn what_was_opened_before_stays_what_it_was_and_nothing_of_the_old_file_is_left() {
    let alliance = Alliance::new();
    let sender = alliance.bench();
    let mut receiver = alliance.receiver(&sender);
    let before = snapshot(&receiver.machine);
    let (view, mut reading, other) =
        (receiver.store.view().unwrap(), receiver.machine.snapshot().unwrap(), receiver.store.clone());
    let arrived = staged(&receiver.machine, &alliance.state(&sender)).unwrap();
    receiver.machine.adopt(arrived, b"mine").unwrap();
    assert_eq!(super::root(&other), sender.root(), "every clone of the store has the new file");
    assert_eq!(view.shard().leaves, 1);
    assert!(view.entry(0).is_ok());
    let mut read = Vec::new();
    reading.read_to_end(&mut read).unwrap();
    assert!(read == before, "whoever was reading reads on");
    drop(reading);
    assert!(view.entry(0).is_ok(), "and who looks at it holds it alone");
    assert_eq!(held(&receiver), 1);
    drop(view);
    // A thread closes it.
    let since = std::time::Instant::now();
    while held(&receiver) > 0 {
        assert!(since.elapsed().as_secs() < 30, "it is never closed");
        std::thread::yield_now();
    }
    assert_eq!(names(&receiver), ["shard-0000.redb"]);
}

/// Files of a directory that are open and have no name any more.
fn held(bench: &Bench) -> usize {
    let open = std::fs::read_dir("/proc/self/fd").unwrap().flatten();
    let open =
        open.filter_map(|fd| std::fs::read_link(fd.path()).ok()).filter(|path| path.starts_with(bench.dir.path()));
    open.filter(|path| path.to_string_lossy().ends_with(" (deleted)")).count()
}

#[test]
fn a_state_that_ends_early_or_is_altered_anywhere_in_its_log_is_refused_and_leaves_nothing() {
    let alliance = Alliance::new();
    let sender = alliance.bench();
    let receiver = alliance.receiver(&sender);
    let (bytes, own) = (alliance.state(&sender), snapshot(&receiver.machine));
    for cut in (0..bytes.len()).step_by(97).chain(bytes.len() - 12..bytes.len()) {
        refused(&receiver.machine, &bytes[..cut]);
    }
    let longer = [&bytes[..], &[0]].concat();
    refused(&receiver.machine, &longer);
    // Everything that the log says, and what is found by it: a flipped bit in any row of these tables.
    let names = crate::shard::schema::ReadTables::NAMES;
    let covered = ["log", "known", "leaves", "nodes", "heads", "positions"];
    let mut flipped = 0;
    let mut count = 0;
    rewritten(&bytes, None, |rows| count = rows.len());
    for row in 0..count {
        let mut of_interest = false;
        let altered = rewritten(&bytes, None, |rows| {
            let (table, key, value) = &mut rows[row];
            of_interest = covered.contains(&names[usize::from(*table)]);
            let place = row * 31 % (key.len() + value.len());
            let byte = if place < key.len() { &mut key[place] } else { &mut value[place - key.len()] };
            *byte ^= 1 << (row % 8);
        });
        if of_interest {
            flipped += 1;
            assert!(staged(&receiver.machine, &altered).is_err(), "row {row}");
        }
    }
    assert!(flipped > 50, "{flipped}");
    assert_eq!(snapshot(&receiver.machine), own);
    assert_eq!(super::incoming::names(&receiver), ["shard-0000.redb"]);
    assert!(staged(&receiver.machine, &bytes).is_ok());
}

#[test]
fn a_state_is_refused_unless_a_quorum_cosigned_its_log() {
    let alliance = Alliance::new();
    let sender = alliance.bench();
    let receiver = alliance.receiver(&sender);
    let bytes = snapshot(&sender.machine);
    let (size, root) = sender.root();
    let checkpoint = alliance.checkpoint((size, root));
    let with = |note: &str| rewritten(&bytes, Some(note), |_| {});
    assert!(refused(&receiver.machine, &bytes).contains("no quorum"));
    assert!(refused(&receiver.machine, &with(&alliance.note(&checkpoint, 1))).contains("members"));
    let charter = &alliance.seats[0].charter;
    let others: [(Checkpoint, &str); 5] = [
        (Checkpoint { root: Hash([7; 32]), ..checkpoint.clone() }, "not the one that the quorum cosigned"),
        (Checkpoint { size: size - 1, ..checkpoint.clone() }, "not the one that the quorum cosigned"),
        (Checkpoint { size: size + 1, ..checkpoint.clone() }, "longer log"),
        (Checkpoint { origin: charter.origin(0, 1), ..checkpoint.clone() }, "incarnation"),
        (Checkpoint { charter_version: 2, ..checkpoint.clone() }, "charter 2"),
    ];
    for (other, why) in others {
        let said = refused(&receiver.machine, &with(&alliance.note(&other, 3)));
        assert!(said.contains(why), "{said}");
    }
    let strangers = Alliance::new();
    refused(&receiver.machine, &with(&strangers.note(&strangers.checkpoint((size, root)), 3)));
    refused(&receiver.machine, &with(&strangers.note(&checkpoint, 3)));
    refused(&receiver.machine, &with("no note"));
    // Who has no charter takes nothing but a state in which nothing has happened.
    let alone = Bench::of(alliance.place);
    assert!(refused(&alone.machine, &with(&alliance.note(&checkpoint, 3))).contains("no charter"));
    let empty = Bench::of(alliance.place);
    assert!(staged(&empty.machine, &snapshot(&alone.machine)).is_ok(), "where nothing has happened here either");
    assert!(staged(&receiver.machine, &with(&alliance.note(&checkpoint, 2))).is_ok());
}

#[test]
fn a_state_is_refused_unless_it_has_all_that_this_node_has() {
    let alliance = Alliance::new();
    let sender = alliance.bench();
    let receiver = alliance.behind(&sender, 20);
    let own = snapshot(&receiver.machine);
    let empty = snapshot(&Bench::of(alliance.place).machine);
    assert!(refused(&receiver.machine, &empty).contains("shorter"), "a state without a leaf needs no quorum");
    let earlier = alliance.state(&alliance.behind(&sender, 19));
    assert!(refused(&receiver.machine, &earlier).contains("shorter"), "a quorum's note of then stands behind it");
    let other = alliance.bench();
    assert!(other.root().0 > receiver.root().0);
    assert!(refused(&receiver.machine, &alliance.state(&other)).contains("not this node's and more"));
    assert!(staged(&receiver.machine, &alliance.state(&alliance.behind(&sender, 20))).is_ok(), "the same");
    assert!(staged(&receiver.machine, &alliance.state(&sender)).is_ok(), "and more");
    assert_eq!(snapshot(&receiver.machine), own);
    assert_eq!(names(&receiver), ["shard-0000.redb"]);
}

#[test]
fn a_node_that_went_on_while_a_state_was_found_good_keeps_what_it_has() {
    let alliance = Alliance::new();
    let sender = alliance.bench();
    let mut receiver = alliance.behind(&sender, 20);
    let as_it_was = staged(&receiver.machine, &alliance.state(&receiver)).unwrap();
    assert!(Incoming::still_fits(&as_it_was).is_ok());
    applied(&mut receiver, &sender.blocks[20]);
    let own = snapshot(&receiver.machine);
    let why = Incoming::still_fits(&as_it_was).unwrap_err();
    assert!(why.to_string().contains("shorter") && !why.is_at_home(), "asked before it is installed: {why}");
    let why = receiver.machine.adopt(as_it_was, b"theirs").unwrap_err();
    assert!(why.to_string().contains("shorter"), "{why}");
    assert!(snapshot(&receiver.machine) == own && receiver.machine.applied().unwrap().unwrap().0 != b"theirs");
    assert_eq!(names(&receiver), ["shard-0000.redb"]);
    let more = staged(&receiver.machine, &alliance.state(&sender)).unwrap();
    applied(&mut receiver, &sender.blocks[21]);
    receiver.machine.adopt(more, b"theirs").unwrap();
    assert_eq!(receiver.root(), sender.root());
}

#[test]
fn a_node_whose_own_state_is_damaged_takes_none_that_lacks_what_it_has_signed() {
    let alliance = Alliance::new();
    let sender = alliance.bench();
    let (earlier, other, dir) = (alliance.behind(&sender, 19), alliance.bench(), tempfile::tempdir().unwrap());
    let offered = |signed: Option<Cosigned>, bytes: &[u8]| {
        let own = signed.map(crate::shard::Extent::from).unwrap_or_default();
        let (notary, now) = (alliance.notary(watch::channel(Checkpointed::None).1), sender.now);
        let stage = crate::shard::receive(dir.path(), alliance.place, notary, (own, Clock::new(move || now)), CACHE);
        let mut stage = stage.map_err(|error| error.to_string())?;
        stage.write(bytes).and_then(|()| stage.finish()).map(drop).map_err(|error| error.to_string())
    };
    let signed = |bench: &Bench| {
        let (size, root) = bench.root();
        Some(Cosigned { incarnation: 0, size, root })
    };
    let all = alliance.state(&sender);
    assert_eq!(offered(signed(&earlier), &all), Ok(()));
    assert_eq!(offered(signed(&sender), &all), Ok(()));
    assert_eq!(offered(None, &all), Ok(()), "it has signed nothing");
    assert!(offered(signed(&sender), &alliance.state(&earlier)).unwrap_err().contains("shorter"));
    assert!(offered(signed(&earlier), &snapshot(&Bench::of(alliance.place).machine)).unwrap_err().contains("shorter"));
    assert!(offered(signed(&earlier), &alliance.state(&other)).unwrap_err().contains("not this node's and more"));
    let next = signed(&earlier).map(|signed| Cosigned { incarnation: 1, ..signed });
    assert!(offered(next, &all).unwrap_err().contains("incarnation"));
}

#[test]
fn a_state_from_ahead_of_this_nodes_clock_or_older_than_its_own_entries_is_refused() {
    let alliance = Alliance::new();
    let sender = alliance.bench();
    let mut receiver = alliance.receiver(&sender);
    let (bytes, now) = (alliance.state(&sender), sender.now);
    receiver.machine = receiver.machine.attended(Readers::default(), Clock::new(move || now));
    let at = |time: UnixMs| {
        rewritten(&bytes, None, |rows| {
            let row = rows.iter_mut().find(|row| row.0 == 0 && row.1 == META_SHARD.as_bytes()).unwrap();
            let meta: ShardMeta = ehe::cbor::from_slice(&row.2, 256).unwrap();
            row.2 = ehe::cbor::to_vec(&ShardMeta { time, ..meta });
        })
    };
    assert!(staged(&receiver.machine, &at(now.plus_ms(CLOCK_DIFFERS_MAX_MS))).is_ok());
    for ahead in [now.plus_ms(CLOCK_DIFFERS_MAX_MS + 1), UnixMs(u64::MAX)] {
        let error = staged(&receiver.machine, &at(ahead)).err().unwrap();
        assert!(error.to_string().contains("ahead of this node's clock"), "{error}");
        assert!(error.is_at_home(), "which of the clocks is wrong, nobody knows here");
    }
    let before = UnixMs(now.0 - 1);
    assert!(refused(&receiver.machine, &at(before)).contains("last entry"));
}

#[test]
fn a_state_in_which_a_body_is_gone_is_refused_though_its_leaves_are_the_logs() {
    let alliance = Alliance::new();
    let sender = alliance.bench();
    let (receiver, bytes) = (alliance.receiver(&sender), alliance.state(&sender));
    let view = sender.store.view().unwrap();
    let mut tried = 0;
    for log_index in 0..view.shard().leaves {
        let record = segments::read(&view.tables().log, log_index).unwrap();
        let Some(lie) = as_if_erased(&record) else { continue };
        let mut lied = false;
        let altered = rewritten(&bytes, None, |rows| {
            for (.., row) in rows {
                if let Some(at) = row.windows(record.len()).position(|window| window == record) {
                    row[at..at + record.len()].copy_from_slice(&lie);
                    lied = true;
                }
            }
        });
        if lied {
            tried += 1;
            assert!(refused(&receiver.machine, &altered).contains("not whole"));
        }
    }
    assert!(tried > 10, "{tried}");
}

#[test]
fn a_state_whose_tables_do_not_fit_its_log_is_refused() {
    let alliance = Alliance::new();
    let sender = alliance.bench();
    let receiver = alliance.receiver(&sender);
    let bytes = alliance.state(&sender);
    let names = crate::shard::schema::ReadTables::NAMES;
    let number = |name: &str| u8::try_from(names.iter().position(|it| *it == name).unwrap()).unwrap();
    let judged = |change: &dyn Fn(&mut Rows)| refused(&receiver.machine, &rewritten(&bytes, None, change));
    // A row too few, of any table that has rows and is counted.
    for name in
        ["meta", "log", "known", "leaves", "nodes", "heads", "rooms", "strands", "strand_names", "wraps", "wrap_names"]
    {
        let of = number(name);
        judged(&|rows: &mut Rows| {
            let at = rows.iter().position(|(table, ..)| *table == of).unwrap_or_else(|| panic!("no row of {name}"));
            rows.remove(at);
        });
    }
    let room = number("rooms");
    judged(&|rows| rows.iter_mut().filter(|row| row.0 == room).for_each(|row| row.2.truncate(row.2.len() - 1)));
    judged(&|rows| rows.iter_mut().filter(|row| row.0 == room).for_each(|row| row.1[0] ^= 1));
    // Rules that the room's records do not give: somebody else's key, in their one encoding.
    let other = Identity::generate(&mut rng());
    let ruled = judged(&|rows| {
        for row in rows.iter_mut().filter(|row| row.0 == room) {
            let mut state = RoomState::decode(&row.2, usize::MAX).unwrap();
            state.grants.values_mut().for_each(|grant| grant.subject_key = other.public().sign);
            row.2 = ehe::cbor::to_vec(&state);
        }
    });
    assert!(ruled.contains("records lead"), "{ruled}");
    let wraps = number("wraps");
    judged(&|rows| rows.iter_mut().filter(|row| row.0 == wraps).for_each(|row| row.2.truncate(row.2.len() - 1)));
    for (name, key) in [("read_refusals", 36), ("run_refusals", 32)] {
        judged(&|rows| {
            let after = rows.iter().position(|row| row.0 > number(name)).unwrap_or(rows.len());
            rows.insert(after, (number(name), vec![0xff; key], vec![0xff]));
        });
    }
    // What redb would take on trust, or panic on.
    let known = number("known");
    assert!(
        judged(&|rows| rows.iter_mut().filter(|row| row.0 == known).for_each(|row| row.1.push(0))).contains("width")
    );
    assert!(judged(&|rows| rows.insert(0, (0, vec![0xff, 0xfe], vec![1]))).contains("name"));
    assert!(judged(&|rows| rows.push((99, vec![1], vec![1]))).contains("table"));
    assert!(judged(&|rows| rows.swap(4, 5)).contains("order"));
    assert!(judged(&|rows| rows.insert(4, rows[4].clone())).contains("order"));
    assert!(judged(&|rows| rows.insert(0, (0, META_APPLIED.into(), vec![1]))).contains("itself"));
    // Of another shard, or alliance.
    let other = Alliance::new();
    let said = refused(&receiver.machine, &snapshot(&Bench::of(other.place).machine));
    assert!(said.contains("alliance"), "{said}");
    assert_eq!(super::incoming::names(&receiver), ["shard-0000.redb"]);
}

#[test]
fn what_a_crash_left_of_a_transfer_is_gone_at_the_next_start() {
    let alliance = Alliance::new();
    let Bench { place, dir, machine, store, .. } = alliance.bench();
    let root = super::root(&store);
    drop((machine, store));
    std::fs::write(dir.path().join("shard-0000.redb.incoming"), b"half a state").unwrap();
    let store = Store::open(dir.path(), place.alliance, 0, CACHE).unwrap();
    assert_eq!(super::root(&store), root);
    assert!(!dir.path().join("shard-0000.redb.incoming").exists());
}

/// Two places on disks that fail.
#[derive(Default)]
pub(super) struct Disks {
    pub(super) incoming: Mutex<Disk>,
    /// At which step of its IO the new file's disk fails.
    pub(super) fail_at: Option<u64>,
    /// Whether the change of names fails, and then, whether it took place.
    pub(super) renames: Option<bool>,
    pub(super) replaced: Mutex<bool>,
}

impl Folder for Disks {
    fn begin(&self, builder: &redb::Builder) -> Result<OpenFile, StoreError> {
        let disk = Disk::default();
        self.fail_at.iter().for_each(|step| disk.fail_at(*step));
        *self.incoming.lock().unwrap() = disk.clone();
        OpenFile::on(builder, disk)
    }

    fn has_room(&self) -> Result<bool, StoreError> {
        Ok(true)
    }

    fn replace(&self) -> Result<(), StoreError> {
        *self.replaced.lock().unwrap() = self.renames.unwrap_or(true);
        match self.renames {
            None => Ok(()),
            Some(_) => Err(StoreError::Io(std::io::ErrorKind::Other.into())),
        }
    }

    fn discard(&self) {}
}

#[test]
fn a_state_whose_arrival_fails_at_any_step_is_there_whole_or_not_at_all_and_the_shard_goes_on() {
    let alliance = Alliance::new();
    let mut sender = Bench::of(alliance.place);
    let mut home = home(&mut sender);
    let here = alliance.receiver(&sender);
    let (block, log) = (here.blocks[0].clone(), LogName { alliance: alliance.place.alliance, shard: 0 });
    let run = home.gateway.run(&[home.sealer.wrap.clone()]);
    let later = Block::new(NOON, 1, vec![Command::Submit(run)]).to_vec();
    busy(&mut sender);
    let (after, old) = (alliance.state(&sender), snapshot(&here.machine));
    let base = Disk::default();
    let apply = |machine: &mut ShardMachine, bytes: &[u8]| {
        let position = Position { term: 1, index: 1 };
        let bytes = Bytes::copy_from_slice(bytes);
        machine.apply(&[consensus::Command { position, bytes }], b"own").unwrap();
    };
    {
        let store = Store::open_beside(base.clone(), None, log, CACHE).unwrap();
        let mut machine = ShardMachine::new(alliance.place, store, Arc::default()).unwrap();
        apply(&mut machine, &block);
        machine.make_durable().unwrap();
        assert!(snapshot(&machine) == old);
    }
    // What is left of one attempt, and whether it succeeded.
    let attempt = |disks: Disks, unsynced: Unsynced| {
        let (disks, main) = (Arc::new(disks), base.copy());
        let store = Store::open_beside(main.clone(), Some(disks.clone()), log, CACHE).unwrap();
        let machine = ShardMachine::new(alliance.place, store, Arc::default()).unwrap();
        let mut machine = alliance.attested(machine).0;
        let arrived = staged(&machine, &after);
        let adopted = match arrived {
            Ok(arrived) => machine.adopt(arrived, b"theirs").is_ok(),
            Err(error) => {
                assert!(error.is_at_home(), "{error}");
                // It was only a transfer: what is here goes on.
                apply(&mut machine, &later);
                machine.make_durable().unwrap();
                assert!(machine.snapshot().is_ok());
                false
            }
        };
        let steps = disks.incoming.lock().unwrap().steps();
        let replaced = *disks.replaced.lock().unwrap();
        let left = if replaced { disks.incoming.lock().unwrap().crash(unsynced) } else { main.crash(unsynced) };
        let store = Store::open_beside(left, None, log, CACHE).unwrap();
        let machine = ShardMachine::new(alliance.place, store, Arc::default()).unwrap();
        let (state, meta) = (snapshot(&machine), machine.applied().unwrap().unwrap().0);
        // Its note is there as well, and what it says of the log is the same.
        let taken = state == after && meta == b"theirs";
        assert!(taken == replaced && (taken || meta == b"own"), "{taken} {replaced} {meta:?}");
        (adopted, taken, steps)
    };
    let (adopted, taken, steps) = attempt(Disks::default(), Unsynced::Lost);
    assert!(adopted && taken && steps > 30, "{steps} steps of IO");
    for unsynced in [Unsynced::Lost, Unsynced::Kept, Unsynced::Some(7)] {
        for took_place in [false, true] {
            let (adopted, taken, _) = attempt(Disks { renames: Some(took_place), ..Disks::default() }, unsynced);
            assert!(!adopted && taken == took_place);
        }
    }
    for step in 1..=steps {
        for unsynced in [Unsynced::Lost, Unsynced::Kept, Unsynced::Some(step)] {
            let (adopted, taken, _) = attempt(Disks { fail_at: Some(step), ..Disks::default() }, unsynced);
            assert_eq!(adopted, taken, "step {step}, {unsynced:?}");
        }
    }
}

/// A directory on a disk that becomes full.
struct Filling {
    dir: crate::shard::folder::Dir,
    /// Times that there is room.
    room: Mutex<u32>,
}

impl Folder for Filling {
    fn begin(&self, builder: &redb::Builder) -> Result<OpenFile, StoreError> {
        self.dir.begin(builder)
    }

    fn has_room(&self) -> Result<bool, StoreError> {
        let mut room = self.room.lock().unwrap();
        *room = room.saturating_sub(1);
        Ok(*room > 0)
    }

    fn replace(&self) -> Result<(), StoreError> {
        self.dir.replace()
    }

    fn discard(&self) {
        self.dir.discard();
    }
}

#[test]
fn a_disk_without_room_for_a_second_state_is_not_filled_and_told_apart_from_a_faulty_sender() {
    let alliance = Alliance::new();
    let bytes = alliance.state(&alliance.bench());
    let log = LogName { alliance: alliance.place.alliance, shard: 0 };
    for room in 1..4 {
        let dir = tempfile::tempdir().unwrap();
        let filling = Filling { dir: crate::shard::folder::Dir::new(dir.path(), 0), room: Mutex::new(room) };
        let store = Store::open_beside(Disk::default(), Some(Arc::new(filling)), log, CACHE).unwrap();
        let machine = ShardMachine::new(alliance.place, store, Arc::default()).unwrap();
        let machine = alliance.attested(machine).0;
        let error = staged(&machine, &bytes).err().unwrap();
        assert!(error.is_at_home() && error.to_string().contains("no room"), "{error}");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "nothing is left of it");
    }
    // And as the system says it.
    let full = || std::io::Error::from(std::io::ErrorKind::StorageFull);
    let path = || std::path::PathBuf::from("shard-0000.redb.incoming");
    for error in [StoreError::File { path: path(), source: full() }, redb::StorageError::Io(full()).into()] {
        assert!(matches!(crate::shard::staging::room(error), StoreError::NoRoom));
    }
}
