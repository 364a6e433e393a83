//! A log as a node keeps it: leaves, tree, checkpoint, receipts, heads.

use core::convert::Infallible;
use std::collections::BTreeMap;

use ehe::cbor;
use ehe::checkpoint::{Checkpoint, Signer};
use ehe::cose::{Domain, sign};
use ehe::event::Event;
use ehe::id::{Hash, Nonce};
use ehe::identity::Identity;
use ehe::leaf::{Leaf, Receipt};
use ehe::merkle::{self, NodeAt, Nodes, Peaks};
use ehe::note::Note;
use ehe::time::UnixMs;
use ehe::wire::{Head, HeadStatement, Item};

use super::scene::{EPOCH, Granted, NOW, Scene, hour};
use super::world::world;
use crate::run::ledger::Entry;

/// A tree in memory.
#[derive(Default)]
pub(super) struct Tree {
    nodes: BTreeMap<NodeAt, Hash>,
    peaks: Peaks,
}

impl Nodes for Tree {
    type Error = Infallible;
    fn node(&self, at: NodeAt) -> Result<Hash, Infallible> {
        Ok(self.nodes[&at])
    }
}

impl Tree {
    pub(super) fn append(&mut self, leaf: Hash) {
        let nodes = &mut self.nodes;
        self.peaks
            .append(leaf, |at, hash| {
                nodes.insert(at, hash);
                Ok::<_, Infallible>(())
            })
            .unwrap();
    }

    pub(super) fn root(&self) -> Hash {
        self.peaks.root()
    }

    pub(super) fn inclusion(&self, index: u64) -> Vec<Hash> {
        merkle::inclusion_proof(self, index, self.peaks.size()).unwrap()
    }
}

/// The entries of a scene as a node serves them: leaves, items, a checkpoint over all.
pub(super) struct Log {
    pub(super) entries: Vec<Entry>,
    pub(super) leaves: Vec<Leaf>,
    tree: Tree,
    pub(super) shard: u16,
    /// Leaves of other rooms before this room's first.
    before: u64,
}

impl Log {
    pub(super) fn of(scene: &Scene) -> Self {
        Self::from_entries(scene, scene.shard.entries.clone())
    }

    pub(super) fn from_entries(scene: &Scene, entries: Vec<Entry>) -> Self {
        let mut leaves: Vec<Leaf> = Vec::new();
        for (entry, index) in entries.iter().zip(0u64..) {
            leaves.push(Leaf {
                room: scene.id,
                index,
                previous: leaves.last().map_or(Hash::ZERO, Leaf::hash),
                entry: entry.run.hash(),
                accepted_at: entry.at,
                control: entry.control,
            });
        }
        Self::from_leaves(scene, entries, leaves)
    }

    pub(super) fn from_leaves(scene: &Scene, entries: Vec<Entry>, leaves: Vec<Leaf>) -> Self {
        let mut tree = Tree::default();
        let before = 3;
        for other in 0..before {
            tree.append(merkle::leaf_hash(&[u8::try_from(other).unwrap()]));
        }
        for leaf in &leaves {
            tree.append(leaf.hash());
        }
        let shard = scene.id.shard(world().one.verified().shard_count());
        Self { entries, leaves, tree, shard, before }
    }

    pub(super) fn checkpoint(&self) -> Checkpoint {
        Checkpoint {
            origin: world().one.verified().origin(self.shard, 1),
            size: self.before + u64::try_from(self.leaves.len()).unwrap(),
            root: self.tree.root(),
            charter_version: 1,
        }
    }

    /// The checkpoint, signed and cosigned by node 0.
    pub(super) fn note(&self) -> String {
        note(&self.checkpoint(), &[0]).to_string()
    }

    /// The checkpoint, signed by node 0 and cosigned by nobody.
    pub(super) fn not_cosigned(&self) -> String {
        let note = self.note();
        let (_, cosignature) = note.rsplit_once("\n— ").unwrap();
        note[..note.len() - cosignature.len() - "— ".len()].to_owned()
    }

    pub(super) fn receipt(&self, index: usize) -> Receipt {
        let log_index = self.before + u64::try_from(index).unwrap();
        Receipt {
            leaf: self.leaves[index].clone(),
            log_index,
            proof: self.tree.inclusion(log_index),
            checkpoint: self.note(),
        }
    }

    pub(super) fn head(&self, nonce: Nonce) -> Head {
        self.head_by(nonce, &world().nodes[0])
    }

    pub(super) fn head_by(&self, nonce: Nonce, node: &Identity) -> Head {
        let last = self.receipt(self.leaves.len() - 1);
        let at = UnixMs(NOW + 5_000);
        let statement = HeadStatement {
            room: last.leaf.room,
            last_leaf: last.leaf.hash(),
            log_size: self.checkpoint().size,
            at,
            nonce,
        };
        Head { last, nonce, at, signature: sign(node, Domain::Head, cbor::to_vec(&statement)) }
    }

    /// An entry, whole.
    pub(super) fn item(&self, index: usize) -> Item {
        let entry = &self.entries[index];
        Item {
            leaf: self.leaves[index].clone(),
            run: Some(entry.run.clone()),
            events: entry.events.iter().map(|e| e.event().clone()).collect(),
            access: None,
            void: None,
        }
    }

    /// An entry as the patient's view of the ledger has it: content without its bodies.
    pub(super) fn ledger_item(&self, index: usize) -> Item {
        let mut item = self.item(index);
        for (event, checked) in item.events.iter_mut().zip(&self.entries[index].events) {
            if checked.core().kind.is_content() {
                *event = Event { header: event.header.clone(), body: Vec::new() };
            }
        }
        item
    }
}

/// A checkpoint signed by the first of the nodes and cosigned by all of them.
pub(super) fn note(checkpoint: &Checkpoint, nodes: &[usize]) -> Note {
    let signer = |i: usize| Signer { name: &world().three.charter.nodes[i].name, key: world().nodes[i].sign_key() };
    let mut note = checkpoint.sign(signer(nodes[0]), UnixMs(NOW)).unwrap();
    for &i in &nodes[1..] {
        note.cosign(signer(i).name, signer(i).key, NOW / 1000 + 1);
    }
    note
}

/// A scene with runs of readings after the opening, the first with the wrap that opens all of them.
pub(super) fn scene_with_readings(runs: usize) -> Scene {
    let mut scene = Scene::room(Granted::Both);
    let gateway = &world().gateway;
    let wrap = scene.wrap(gateway, EPOCH, hour());
    for run in 0..runs {
        scene.now += 15_000;
        let content = scene.content(gateway, EPOCH, wrap.id().into(), hour());
        if run == 0 {
            scene.accept(gateway, &[wrap.clone(), content]);
        } else {
            scene.accept(gateway, &[content]);
        }
    }
    scene
}
