//! A shard under measurement, and homes that write to it.

use std::num::NonZeroU16;
use std::path::Path;
use std::sync::Arc;

use ehe::author::Linked;
use ehe::checkpoint::log_origin;
use ehe::control::Right;
use ehe::event::{CheckedEvent, Core, Event, Header, Kind, Suite, VERSION};
use ehe::id::{AllianceId, EheId, Hash, Nonce, RoomId, WrapId};
use ehe::identity::Identity;
use ehe::merkle::Peaks;
use ehe::run::SeenCheckpoint;
use ehe::time::UnixMs;
use ehe::wire::Submission;
use ehe_node::checkpoint::Board;
use ehe_node::consensus::{Command, Machine, Position};
use ehe_node::shard::{Place, ShardMachine, Store, block_of_runs};
use sha2::{Digest, Sha256};

use super::people::{Patient, Sealer, Writer, rng};

pub const ALLIANCE: AllianceId = AllianceId([7; 32]);
pub const PLACE: Place = Place { alliance: ALLIANCE, shard_count: NonZeroU16::MIN, shard: 0 };
/// 2026-11-20T00:00:00Z.
pub const MIDNIGHT: UnixMs = UnixMs(1_795_132_800_000);
/// As a node's default has it.
pub const CACHE_BYTES: usize = 32 << 20;
/// A state is made durable after this many bytes of commands, as by default.
const DURABLE_AFTER_BYTES: usize = 8 << 20;

/// A shard's machine on a file, driven as consensus drives it.
pub struct Shard {
    pub place: Place,
    pub store: Store,
    pub machine: ShardMachine,
    blocks: u64,
    since_durable: usize,
}

impl Shard {
    pub fn open(dir: &Path) -> Self {
        Self::of(dir, PLACE)
    }

    pub fn of(dir: &Path, place: Place) -> Self {
        let store = Store::open(dir, place.alliance, place.shard, CACHE_BYTES).unwrap();
        let machine = ShardMachine::new(place, store.clone(), Arc::new(Board::default())).unwrap();
        Self { place, store, machine, blocks: 0, since_durable: 0 }
    }

    pub fn apply(&mut self, block: Vec<u8>) {
        self.blocks += 1;
        self.since_durable += block.len();
        let command = Command { position: Position { term: 1, index: self.blocks }, bytes: block.into() };
        self.machine.apply(&[command], &[0; 64]).unwrap();
        if self.since_durable >= DURABLE_AFTER_BYTES {
            self.make_durable();
        }
    }

    pub fn make_durable(&mut self) {
        self.machine.make_durable().unwrap();
        self.since_durable = 0;
    }

    pub fn leaves(&self) -> u64 {
        self.store.view().unwrap().shard().leaves
    }

    /// The checkpoint that a gateway verifies after its run was accepted.
    pub fn checkpoint(&self) -> SeenCheckpoint {
        let view = self.store.view().unwrap();
        let (size, incarnation) = (view.shard().leaves, view.shard().incarnation);
        let root = Peaks::load(&view, size).unwrap().root();
        SeenCheckpoint { origin: log_origin(self.place.alliance, 0, incarnation), size, root }
    }
}

/// A patient and the gateway in the house.
pub struct Home {
    patient: Patient,
    pub gateway: Writer,
    sealer: Sealer,
    identity: Identity,
    linked: Option<Linked>,
    salts: u64,
}

impl Home {
    /// Makes the room.
    pub fn new(shard: &mut Shard, now: UnixMs) -> Self {
        Self::new_into(shard, now, &mut Vec::new())
    }

    /// Makes the room, and gives the block that made it.
    pub fn new_into(shard: &mut Shard, now: UnixMs, blocks: &mut Vec<Vec<u8>>) -> Self {
        let [owner, identity] = [(); 2].map(|()| Identity::generate(&mut rng()));
        let mut patient = Patient::new(&owner, shard.place.alliance, (0, 1), now);
        let mut events = patient.opening(now);
        events.push(patient.grant(identity.public(), Right::Append, None, now));
        let (opening, _) = patient.writer.linked(&events);
        let before = shard.leaves();
        let block = block_of_runs(now, vec![opening]);
        blocks.push(block.clone());
        shard.apply(block);
        assert_eq!(shard.leaves(), before + 1, "the room is there");
        Self::of(patient, identity, now)
    }

    /// In a room that is there, and where this gateway may append.
    pub fn of(patient: Patient, identity: Identity, now: UnixMs) -> Self {
        let sealer = Sealer::new(&identity, &patient, now);
        let gateway = Writer::new(&identity, patient.room);
        Self { patient, gateway, sealer, identity, linked: None, salts: 0 }
    }

    /// What has to be submitted before what is sealed under it.
    pub fn wrap(&self) -> CheckedEvent {
        self.sealer.wrap.clone()
    }

    pub fn room(&self) -> RoomId {
        self.patient.room
    }

    /// A new event key; the wrap has to be submitted before what is sealed under it.
    pub fn new_day(&mut self, now: UnixMs) -> CheckedEvent {
        self.sealer = Sealer::new(&self.identity, &self.patient, now);
        self.sealer.wrap.clone()
    }

    pub fn seal(&self, plain: &[u8], at: UnixMs) -> CheckedEvent {
        self.sealer.seal_at(plain, at.hour())
    }

    /// An event whose body nobody can open: all that a node sees of one, without the work of sealing.
    pub fn opaque(&mut self, body: &[u8], body_hash: Hash, at: UnixMs) -> (EheId, Event) {
        self.salts += 1;
        let mut salt = [0; 16];
        salt[..8].copy_from_slice(&self.salts.to_be_bytes());
        let core = Core {
            version: VERSION,
            suite: Suite::One,
            kind: Kind::Vitals,
            room: self.patient.room,
            author: self.identity.author_id(),
            epoch: self.patient.epoch,
            wrap: WrapId::from(self.sealer.wrap.id()),
            hour: at.hour(),
            salt: Nonce(salt),
        };
        let header = ehe::cbor::to_vec(&Header { core, commitment: Hash([9; 32]), body_hash });
        (EheId(Sha256::digest(&header).into()), Event { header, body: body.to_vec() })
    }

    /// A run of events; taken as accepted once [`Home::saw`] is called.
    pub fn run(&mut self, events: &[CheckedEvent]) -> Submission {
        let (submission, linked) = self.gateway.linked(events);
        self.linked = Some(linked);
        submission
    }

    /// A run of opaque events, with nothing seen in between.
    pub fn opaque_run(&mut self, events: Vec<(EheId, Event)>, seen: &SeenCheckpoint) -> Submission {
        let linked = self.gateway.strand.link(&self.identity, events.iter().map(|(id, _)| *id));
        self.gateway.strand.accepted(&linked, seen.clone());
        Submission { run: linked.run, events: events.into_iter().map(|(_, event)| event).collect() }
    }

    /// The last run was accepted, and the gateway verified this checkpoint.
    pub fn saw(&mut self, seen: SeenCheckpoint) {
        if let Some(linked) = self.linked.take() {
            self.gateway.strand.accepted(&linked, seen);
        }
    }
}

/// Seconds of processor time that this process has used. Where the machine has other work to do, they say more than the clock.
pub fn cpu_seconds() -> f64 {
    // proc(5): after the name in brackets, fields 14 and 15 are user and system time in hundredths of a second.
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<_> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    fields[11..13].iter().map(|ticks| ticks.parse::<f64>().unwrap() / 100.0).sum()
}

/// Prints a row of `make bench`.
pub fn row(what: &str, target: &str, measured: &str, met: Option<bool>, place: &str) {
    let met = met.map_or("null".into(), |met| met.to_string());
    println!(
        "{{\"group\":\"node\",\"what\":\"{what}\",\"target\":\"{target}\",\"measured\":\"{measured}\",\"met\":{met},\"where\":\"{place}\"}}"
    );
}
