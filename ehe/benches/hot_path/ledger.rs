//! Wraps, the log, receipts.

use ehe::cbor;
use ehe::checkpoint::{Checkpoint, Signer};
use ehe::id::{AuthorId, EpochId, Hash, RoomId};
use ehe::kem::{self, KemSecret, WrapPurpose};
use ehe::leaf::{Leaf, Receipt};
use ehe::merkle::{NodeAt, Nodes, Peaks, inclusion_proof, leaf_hash};
use ehe::time::UnixMs;
use rand::SeedableRng;
use rand::rngs::StdRng;

use crate::bodies::run_of;
use crate::row::{Row, seconds, shares};
use crate::world::{START_MS, World};

/// Leaves of the log that receipts are verified in: a day of a busy shard.
const LEAVES: u64 = 100_000;

pub(crate) fn rows(world: &World) {
    wraps();
    merkle();
    receipt(world);
    charters(world);
}

fn wraps() {
    let mut rng = StdRng::seed_from_u64(2);
    let secret = KemSecret::generate(&mut rng);
    let public = secret.public();
    let day = UnixMs(START_MS).hour().day();
    let purpose =
        WrapPurpose::EventKey { room: RoomId([1; 16]), author: AuthorId([9; 16]), epoch: EpochId([3; 16]), day };
    let ek = kem::random_secret(&mut rng);
    let wrap = seconds(|| kem::wrap(&mut rng, &public, &purpose, &ek).unwrap());
    let place = |time: f64| format!("{:.0} µs: HPKE with X-Wing (ML-KEM-768, X25519)", time * 1e6);
    Row { what: "wrap an event key (HPKE)", target: None, unit: "wraps", rate: 1.0 / wrap, place: place(wrap) }.print();
    let wrapped = kem::wrap(&mut rng, &public, &purpose, &ek).unwrap();
    let open = seconds(|| kem::unwrap(&secret, &purpose, &wrapped).unwrap());
    Row { what: "unwrap an event key (HPKE)", target: None, unit: "wraps", rate: 1.0 / open, place: place(open) }
        .print();
}

fn leaf(index: u64) -> Leaf {
    Leaf {
        room: RoomId([1; 16]),
        index,
        previous: Hash([2; 32]),
        entry: Hash([3; 32]),
        accepted_at: UnixMs(START_MS + index),
        control: 3,
    }
}

fn merkle() {
    let mut peaks = Peaks::default();
    let mut index = 0;
    let append = seconds(|| {
        index += 1;
        peaks.append(leaf_hash(&cbor::to_vec(&leaf(index))), |at, hash| {
            std::hint::black_box((at, hash));
            Ok::<_, ()>(())
        })
    });
    let hash = seconds(|| leaf(index).hash());
    let place = shares(append, &[("the leaf's CBOR and hash", hash)], "inner nodes");
    Row {
        what: "append a leaf to the log (without storing it)",
        target: None,
        unit: "leaves",
        rate: 1.0 / append,
        place,
    }
    .print();
}

/// Stored hashes by level.
#[derive(Default)]
struct Tree(Vec<Vec<Hash>>);

impl Nodes for Tree {
    type Error = NodeAt;
    fn node(&self, at: NodeAt) -> Result<Hash, NodeAt> {
        let level = self.0.get(usize::from(at.level)).ok_or(at)?;
        level.get(usize::try_from(at.index).map_err(|_| at)?).copied().ok_or(at)
    }
}

fn receipt(world: &World) {
    let (signed, _) = run_of(world, 1);
    let run = signed.decode().unwrap().verify(&world.author.public().sign).unwrap();
    let ours = Leaf { entry: run.hash(), ..leaf(LEAVES / 3) };
    let (mut tree, mut peaks) = (Tree::default(), Peaks::default());
    for index in 0..LEAVES {
        let hash = if index == LEAVES / 3 { ours.hash() } else { leaf(index).hash() };
        let store = |at: NodeAt, hash| {
            let level = usize::from(at.level);
            tree.0.resize_with(tree.0.len().max(level + 1), Vec::new);
            tree.0[level].push(hash);
            Ok::<_, ()>(())
        };
        peaks.append(hash, store).unwrap();
    }
    let shard = run.run().room.shard(world.charter.shard_count());
    let checkpoint = Checkpoint {
        origin: world.charter.origin(shard, 1),
        size: LEAVES,
        root: peaks.root(),
        charter_version: world.charter.version(),
    };
    let signer = |i: usize| Signer { name: &world.charter.nodes()[i].name, key: world.nodes[i].sign_key() };
    let mut note = checkpoint.sign(signer(0), UnixMs(START_MS)).unwrap();
    note.cosign(signer(1).name, signer(1).key, START_MS / 1000);
    let proof = inclusion_proof(&tree, LEAVES / 3, LEAVES).unwrap();
    let receipt = Receipt { leaf: ours, log_index: LEAVES / 3, proof, checkpoint: note.to_string() };
    let time = seconds(|| receipt.verify(&run, &world.charter).unwrap());
    let key = world.charter.nodes()[0].sign;
    let one = seconds(|| note.verify(&checkpoint.origin, &key).unwrap());
    let place = shares(time, &[("three Ed25519 verifications", 3.0 * one)], "note, Merkle path of 17");
    Row {
        what: "verify a receipt (a quorum of two of three)",
        target: None,
        unit: "receipts",
        rate: 1.0 / time,
        place,
    }
    .print();
}

fn charters(world: &World) {
    let (chain, alliance) = (world.chain(), world.charter.alliance_id());
    let bytes = chain.encode();
    let time = seconds(|| ehe::charter::CharterChain::decode(&bytes).unwrap().verify(alliance).unwrap());
    let place = format!("{:.0} µs: six Ed25519 verifications, {} bytes", time * 1e6, bytes.len());
    Row {
        what: "verify a chain of two charters, three members each",
        target: None,
        unit: "chains",
        rate: 1.0 / time,
        place,
    }
    .print();
}
