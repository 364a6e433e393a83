//! M, C, H: Merkle trees, checkpoints, receipts, heads, charters.

use core::convert::Infallible;
use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ehe::cbor;
use ehe::charter::{Charter, CharterChain, Placement, SignedCharter, Trust};
use ehe::checkpoint::{Checkpoint, Signer};
use ehe::cose::{Domain, sign};
use ehe::event::Event;
use ehe::id::{AllianceId, Hash, MemberId, NodeId, Nonce};
use ehe::identity::Identity;
use ehe::leaf::{Leaf, Receipt};
use ehe::merkle::{self, NodeAt, Nodes, Peaks};
use ehe::note::Note;
use ehe::time::UnixMs;
use ehe::wire::{Head, HeadStatement, Item};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::Kit;
use super::scene::{EPOCH, Granted, NOW, Scene, hour};
use super::world::{Alliance, person, signed, world};
use crate::json::h;
use crate::run::ledger::Entry;
use crate::value::Cbor;

const FOLDER: &str = "log";

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
    shard: u16,
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
    fn not_cosigned(&self) -> String {
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

pub(super) fn cases(kit: &mut Kit) {
    trees(kit);
    checkpoints(kit);
    receipts(kit);
    heads(kit);
    charters(kit);
    charter_rules(kit);
}

fn trees(kit: &mut Kit) {
    let leaves: Vec<Vec<u8>> = (0..7u8).map(|i| vec![i; usize::from(i)]).collect();
    let hex: Vec<Value> = leaves.iter().map(h).collect();
    for size in [0, 1, 2, 3, 5, 7] {
        kit.case(FOLDER, "M1", &format!("ok-root-of-{size}"), "the root of a tree", "root")
            .input(json!({"leaves": hex[..size]}))
            .valid();
    }
    // The root of two leaves, the domain bytes left out.
    let plain = |bytes: &[u8]| -> [u8; 32] { Sha256::digest(bytes).into() };
    let bare = plain(&[plain(&leaves[0]), plain(&leaves[1])].concat());
    kit.case(FOLDER, "M1", "no-domain-bytes", "a root without the bytes 0x00 and 0x01", "root")
        .input(json!({"leaves": hex[..2], "root": h(bare)}))
        .invalid();
    let tree_of = |n: usize| {
        let mut tree = Tree::default();
        leaves[..n].iter().for_each(|leaf| tree.append(merkle::leaf_hash(leaf)));
        tree
    };
    let tree = tree_of(7);
    let proof = |hashes: &[Hash]| json!(hashes.iter().map(|hash| hash.to_string()).collect::<Vec<_>>());
    let inclusion = |leaf: usize, index: u64, size: u64, hashes: &[Hash]| json!({"leaf": hex[leaf], "index": index, "size": size, "proof": proof(hashes), "root": tree.root().to_string()});
    for index in [0usize, 3, 6] {
        let hashes = tree.inclusion(index.try_into().unwrap());
        kit.case(FOLDER, "M2", &format!("ok-inclusion-of-{index}-in-7"), "an inclusion proof", "inclusion")
            .input(inclusion(index, index.try_into().unwrap(), 7, &hashes))
            .valid();
    }
    let hashes = tree.inclusion(3);
    let mut swapped = hashes.clone();
    swapped.swap(0, 1);
    let long = [&hashes[..], &[Hash::ZERO]].concat();
    for (slug, title, input) in [
        ("other-leaf", "a proof of another leaf", inclusion(2, 3, 7, &hashes)),
        ("other-index", "a proof at another index", inclusion(3, 2, 7, &hashes)),
        ("index-outside", "an index that is not below the size", inclusion(3, 7, 7, &hashes)),
        ("other-size", "a proof in a tree of another size", inclusion(3, 3, 4, &hashes)),
        ("swapped", "a proof in another order", inclusion(3, 3, 7, &swapped)),
        ("short", "a proof with a hash too few", inclusion(3, 3, 7, &hashes[..2])),
        ("long", "a proof with a hash too many", inclusion(3, 3, 7, &long)),
        ("oversized", "a proof of 65 hashes", inclusion(3, 3, 7, &[Hash::ZERO; 65])),
    ] {
        kit.case(FOLDER, "M2", slug, title, "inclusion").input(input).invalid();
    }
    let consistency = |old: usize, old_root: Hash, new: usize, hashes: &[Hash]| json!({"old": old, "old_root": old_root.to_string(), "new": new, "new_root": tree_of(new).root().to_string(), "proof": proof(hashes)});
    let from = |old: u64| merkle::consistency_proof(&tree, old, 7).unwrap();
    for old in [1usize, 3, 4, 6, 7] {
        kit.case(FOLDER, "M3", &format!("ok-{old}-to-7"), "a consistency proof", "consistency")
            .input(consistency(old, tree_of(old).root(), 7, &from(old.try_into().unwrap())))
            .valid();
    }
    kit.case(FOLDER, "M3", "ok-from-nothing", "everything extends the empty tree", "consistency")
        .input(consistency(0, tree_of(0).root(), 7, &[]))
        .valid();
    let mut altered = from(3);
    altered[0].0[0] ^= 1;
    for (slug, title, input) in [
        ("rewritten", "a tree that does not extend the one before", consistency(3, tree_of(4).root(), 7, &from(3))),
        ("altered", "an altered proof", consistency(3, tree_of(3).root(), 7, &altered)),
        ("empty", "no proof", consistency(3, tree_of(3).root(), 7, &[])),
        (
            "shrunk",
            "a tree that became smaller",
            json!({"old": 7, "old_root": tree.root().to_string(), "new": 3, "new_root": tree_of(3).root().to_string(), "proof": []}),
        ),
        ("same-size-other-root", "two trees of one size", consistency(7, tree_of(6).root(), 7, &[])),
        (
            "long",
            "a proof with a hash too many",
            consistency(3, tree_of(3).root(), 7, &[from(3), vec![Hash::ZERO]].concat()),
        ),
    ] {
        kit.case(FOLDER, "M3", slug, title, "consistency").input(input).invalid();
    }
}

fn checkpoint_input(alliance: &Alliance, note: &str, shard: u16) -> Value {
    json!({"alliance": alliance.id.to_string(), "charter": h(alliance.chain()), "shard": shard, "note": note})
}

/// A note over any text: signed by each of `signers` under a name, cosigned by each of `cosigners` under theirs.
fn noted(text: &str, signers: &[(&str, &Identity)], cosigners: &[(&str, &Identity)]) -> String {
    let mut note = Note::new(text.into()).unwrap();
    for (name, identity) in signers {
        note.sign(name, identity.sign_key());
    }
    for (name, identity) in cosigners {
        note.cosign(name, identity.sign_key(), NOW / 1000);
    }
    note.to_string()
}

fn node(i: usize) -> (&'static str, &'static Identity) {
    (&world().three.charter.nodes[i].name, &world().nodes[i])
}

fn checkpoints(kit: &mut Kit) {
    let log = Log::of(&Scene::room(Granted::Append));
    let (good, shard) = (log.checkpoint(), log.shard);
    let three = Checkpoint { origin: world().three.verified().origin(shard, 1), ..good.clone() };
    let mut ok = |slug: &str, title: &str, note: &str| {
        let input = checkpoint_input(&world().three, note, shard);
        kit.case(FOLDER, "C1", slug, title, "checkpoint").input(input).valid();
    };
    let two_of_three = note(&three, &[0, 1]);
    ok("ok-two-of-three", "a checkpoint that two of three members cosigned", &two_of_three.to_string());
    ok("ok-three-of-three", "a checkpoint that all members cosigned", &note(&three, &[2, 0, 1]).to_string());
    let mut besides = two_of_three.clone();
    besides.cosign("stranger.example", world().stranger.sign_key(), 1);
    ok(
        "ok-a-stranger-besides",
        "a cosignature of somebody else counts for nothing and does no harm",
        &besides.to_string(),
    );
    let incarnation = Checkpoint { origin: world().three.verified().origin(shard, 7), ..good.clone() };
    ok("ok-incarnation-7", "a log in its seventh incarnation", &note(&incarnation, &[0, 1]).to_string());

    let text = format!("{}\n{}\n{}\ncharter 1\n", good.origin, good.size, STANDARD.encode(good.root.0));
    let by_node_0 = |text: &str, origin: &str| noted(text, &[(origin, node(0).1)], &[node(0)]);
    assert_eq!(by_node_0(&text, &good.origin), log.note());
    let size = |written: &str| text.replacen(&format!("\n{}\n", good.size), &format!("\n{written}\n"), 1);
    let other_shard = world().one.verified().origin((shard + 1) % 4, 1);
    let other_alliance = good.origin.replacen("ehe/", "ehe/00", 1);
    let line = log.note().lines().last().unwrap().to_owned();
    let lines = |more: usize| format!("{}{}", log.note(), format!("{line}\n").repeat(more));
    for (slug, title, note) in [
        ("leading-zero", "a size with a leading zero", by_node_0(&size(&format!("0{}", good.size)), &good.origin)),
        ("size-with-plus", "a size with a plus sign", by_node_0(&size(&format!("+{}", good.size)), &good.origin)),
        ("line-besides", "a line after the charter's", by_node_0(&format!("{text}more\n"), &good.origin)),
        ("no-charter-line", "no line for the charter", by_node_0(text.trim_end_matches("charter 1\n"), &good.origin)),
        (
            "other-charter",
            "under a charter that is not at hand",
            by_node_0(&text.replace("charter 1", "charter 2"), &good.origin),
        ),
        (
            "short-root",
            "a root of 31 bytes",
            by_node_0(&text.replace(&STANDARD.encode(good.root.0), &STANDARD.encode([1; 31])), &good.origin),
        ),
        ("other-shard", "the log of another shard", by_node_0(&text.replace(&good.origin, &other_shard), &other_shard)),
        (
            "other-alliance",
            "the log of another alliance",
            by_node_0(&text.replace(&good.origin, &other_alliance), &other_alliance),
        ),
        (
            "stranger-ordered",
            "signed by whom the charter does not know",
            noted(&text, &[(&good.origin, &world().stranger)], &[node(0)]),
        ),
        ("nobody-ordered", "cosigned by the one node, signed by none", noted(&text, &[], &[node(0)])),
        (
            "under-its-own-name",
            "signed under the node's name in place of the origin",
            noted(&text, &[node(0)], &[node(0)]),
        ),
        ("altered", "a text that was altered after signing", log.note().replacen(&text, &size("7"), 1)),
        ("no-blank-line", "no blank line before the signatures", log.note().replacen("\n\n", "\n", 1)),
        ("bad-base64", "signatures that are not base64", log.note().replace("=\n", "!\n")),
        ("no-final-newline", "no newline at the end", log.note().trim_end().to_string()),
        ("hyphen-for-dash", "signature lines that begin with a hyphen", log.note().replace('—', "-")),
        ("oversized", "a note of more than 8,192 bytes", lines(80)),
        ("lines-33", "a note with 33 signatures", lines(31)),
    ] {
        kit.case(FOLDER, "C1", slug, title, "checkpoint").input(checkpoint_input(&world().one, &note, shard)).invalid();
    }
    let twice = {
        let mut note = note(&three, &[0]);
        note.cosign(node(0).0, node(0).1.sign_key(), NOW / 1000 + 1);
        note.to_string()
    };
    let two_of_three = two_of_three.to_string();
    let (rest, last) = two_of_three.trim_end().rsplit_once('\n').unwrap();
    let (start, base64) = last.rsplit_once(' ').unwrap();
    let mut signature = STANDARD.decode(base64).unwrap();
    signature[11] ^= 1;
    let moved_time = format!("{rest}\n{start} {}\n", STANDARD.encode(signature));
    let text = format!("{}\n{}\n{}\ncharter 1\n", three.origin, three.size, STANDARD.encode(three.root.0));
    let origin = (three.origin.as_str(), node(0).1);
    for (slug, title, note) in [
        ("one-of-three", "a cosignature short of the quorum", note(&three, &[0]).to_string()),
        ("one-member-twice", "two cosignatures of one member", twice),
        (
            "false-cosignature",
            "a cosignature that another made in a node's name",
            noted(&text, &[origin], &[node(0), (node(1).0, &world().stranger)]),
        ),
        ("other-time", "a cosignature whose time was altered", moved_time),
        (
            "signature-for-cosignature",
            "a plain signature in place of a cosignature",
            noted(&text, &[origin, node(1)], &[node(0)]),
        ),
        (
            "cosigned-under-another-name",
            "a node's cosignature under another node's name",
            noted(&text, &[origin], &[node(0), (node(2).0, node(1).1)]),
        ),
    ] {
        kit.case(FOLDER, "C2", slug, title, "checkpoint")
            .input(checkpoint_input(&world().three, &note, shard))
            .invalid();
    }
    two_nodes_of_one_member(kit, &good);
}

/// Three nodes, two of them of hospital A: members are counted, not nodes. And a charter that asks for more.
fn two_nodes_of_one_member(kit: &mut Kit, good: &Checkpoint) {
    for (slug, title, change, nodes, stands) in [
        (
            "ok-two-members",
            "two nodes of two members",
            (|c: &mut Charter| c.nodes[1].member = c.nodes[0].member) as fn(&mut Charter),
            &[0, 2][..],
            true,
        ),
        (
            "two-nodes-of-one-member",
            "two nodes of one member are one voice",
            |c| c.nodes[1].member = c.nodes[0].member,
            &[0, 1],
            false,
        ),
        (
            "ok-all-where-asked",
            "three of three where the charter asks for three",
            |c| c.min_cosignatures = Some(3),
            &[0, 1, 2],
            true,
        ),
        (
            "short-of-what-is-asked",
            "a majority where the charter asks for all",
            |c| c.min_cosignatures = Some(3),
            &[0, 1],
            false,
        ),
    ] {
        let mut charter = world().three.charter.clone();
        change(&mut charter);
        let signed = signed(&charter, &[&world().members[0], &world().members[1]]);
        let alliance = AllianceId(signed.hash().0);
        let verified = signed.verify(Trust::Pinned(alliance)).unwrap();
        let checkpoint = Checkpoint { origin: verified.origin(1, 1), ..good.clone() };
        let input = json!({"alliance": alliance.to_string(), "charter": h(CharterChain(vec![signed]).encode()), "shard": 1, "note": note(&checkpoint, nodes).to_string()});
        let draft = kit.case(FOLDER, "C2", slug, title, "checkpoint").input(input);
        if stands { draft.valid() } else { draft.invalid() }
    }
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

fn receipts(kit: &mut Kit) {
    let scene = scene_with_readings(2);
    let log = Log::of(&scene);
    let input = |receipt: &Receipt| {
        json!({
            "alliance": world().one.id.to_string(),
            "charter": h(world().one.chain()),
            "run": h(&log.entries[1].run.0),
            "key": h(world().gateway.public().sign.0),
            "receipt": h(cbor::to_vec(receipt)),
        })
    };
    let good = log.receipt(1);
    kit.case(FOLDER, "C3", "ok-receipt", "a receipt for a run", "receipt").input(input(&good)).valid();
    let with = |change: &dyn Fn(&mut Receipt)| {
        let mut receipt = good.clone();
        change(&mut receipt);
        receipt
    };
    for (slug, title, receipt) in [
        ("another-run", "the receipt of another run", log.receipt(2)),
        ("another-room", "a leaf of another room", with(&|r| r.leaf.room.0[0] ^= 1)),
        ("other-index", "a wrong index in the log", with(&|r| r.log_index += 1)),
        ("other-time", "a leaf whose time was altered", with(&|r| r.leaf.accepted_at.0 += 1)),
        ("other-proof", "a proof of another leaf", with(&|r| r.proof = log.receipt(2).proof)),
        ("proof-oversized", "a proof of 65 hashes", with(&|r| r.proof = vec![Hash::ZERO; 65])),
        ("short-of-quorum", "a checkpoint that nobody cosigned", with(&|r| r.checkpoint = log.not_cosigned())),
    ] {
        kit.case(FOLDER, "C3", slug, title, "receipt").input(input(&receipt)).invalid();
    }
}

fn heads(kit: &mut Kit) {
    let scene = scene_with_readings(1);
    let log = Log::of(&scene);
    let nonce = Nonce([6; 16]);
    let good = log.head(nonce);
    let input = |head: &Head, now: u64| {
        json!({
            "alliance": world().one.id.to_string(),
            "charter": h(world().one.chain()),
            "room": scene.id.to_string(),
            "nonce": nonce.to_string(),
            "head": h(cbor::to_vec(head)),
            "now": now,
        })
    };
    let at = good.at.0;
    kit.case(FOLDER, "C4", "ok-head", "a head", "head").input(input(&good, at)).valid();
    kit.case(FOLDER, "C4", "ok-at-the-limit", "a head that is as old as the charter allows", "head")
        .input(input(&good, at + 60_000))
        .valid();
    kit.case(FOLDER, "C4", "stale", "a head that is a millisecond older than the charter allows", "head")
        .input(input(&good, at + 60_001))
        .invalid();
    let with = |change: &dyn Fn(&mut Head)| {
        let mut head = good.clone();
        change(&mut head);
        head
    };
    let mut elsewhere = Log::of(&scene);
    elsewhere.leaves.last_mut().unwrap().room.0[0] ^= 1;
    let elsewhere = Log::from_leaves(&scene, elsewhere.entries, elsewhere.leaves);
    for (slug, title, head) in [
        ("other-nonce", "a head over another nonce", log.head(Nonce([7; 16]))),
        ("nonce-altered", "a nonce that was altered after signing", {
            let mut head = log.head(Nonce([7; 16]));
            head.nonce = nonce;
            head
        }),
        ("time-altered", "a time that was altered after signing", with(&|head| head.at.0 += 1)),
        ("another-signed", "a head that no node signed", log.head_by(nonce, &world().stranger)),
        ("another-room", "the head of another room", elsewhere.head(nonce)),
        ("other-leaf", "a last leaf that is not in the tree", with(&|head| head.last.leaf.control += 1)),
        (
            "short-of-quorum",
            "a checkpoint that nobody cosigned",
            with(&|head| head.last.checkpoint = log.not_cosigned()),
        ),
        (
            "run-signature",
            "a signature for another purpose",
            with(&|head| {
                let statement = Cbor::parse(&head.signature).at(2).bytes().clone();
                head.signature = sign(&world().nodes[0], Domain::Run, statement);
            }),
        ),
    ] {
        kit.case(FOLDER, "C4", slug, title, "head").input(input(&head, at)).invalid();
    }
}

fn chain_input(charters: Vec<SignedCharter>, alliance: AllianceId) -> Value {
    json!({"alliance": alliance.to_string(), "charter": h(CharterChain(charters).encode())})
}

fn charters(kit: &mut Kit) {
    let world = world();
    let (members, alliance) = (&world.members, world.three.id);
    let one = world.three.signed.clone();
    let newcomers: Vec<Identity> = (0..3).map(|i| person(&format!("newcomer {i}"))).collect();
    let two = Charter {
        version: 2,
        predecessor: Some(one.hash()),
        alliance: "Renamed".into(),
        ..world.three.charter.clone()
    };
    let by = [&members[1], &members[2]];
    let mut replaced = two.clone();
    for (member, new) in replaced.members.iter_mut().zip(&newcomers) {
        member.identity = new.public().clone();
    }
    let mut ok = |rule: &str, slug: &str, title: &str, charters: Vec<SignedCharter>| {
        kit.case(FOLDER, rule, slug, title, "charter").input(chain_input(charters, alliance)).valid();
    };
    ok("H1", "ok-charter-1", "charter 1 under the alliance id that is its hash", vec![one.clone()]);
    ok("H2", "ok-charter-2", "a second charter", vec![one.clone(), signed(&two, &by)]);
    ok(
        "H3",
        "ok-members-replaced",
        "old members agree to be replaced, and a new one signs too",
        vec![one.clone(), signed(&replaced, &[&members[0], &members[1], &newcomers[0]])],
    );
    ok("H3", "ok-signed-twice", "one signature twice counts once and does no harm", {
        let mut wire = Cbor::parse(&one.encode());
        let Cbor::Array(signatures) = wire.at(1) else { panic!() };
        signatures.push(signatures[0].clone());
        vec![SignedCharter::decode(&wire.to_vec()).unwrap()]
    });
    let with_signatures = |charter: &Charter, change: &dyn Fn(&mut Vec<Cbor>)| {
        let mut wire = Cbor::parse(&signed(charter, &by).encode());
        let Cbor::Array(signatures) = wire.at(1) else { panic!() };
        change(signatures);
        SignedCharter::decode(&wire.to_vec()).unwrap()
    };
    let other = Charter { alliance: "Another".into(), ..world.three.charter.clone() };
    let foreign = Cbor::Bytes(sign(&members[0], Domain::Charter, signed(&other, &[]).hash().0.to_vec()));
    let as_run = Cbor::Bytes(sign(&members[0], Domain::Run, one.hash().0.to_vec()));
    let chain = |two: SignedCharter| vec![one.clone(), two];
    for (rule, slug, title, charters, alliance) in [
        (
            "H1",
            "other-pin",
            "a charter 1 that is not the one whose hash was given",
            vec![one.clone()],
            AllianceId([1; 32]),
        ),
        (
            "H1",
            "from-charter-2",
            "a chain that does not begin with charter 1",
            vec![signed(&two, &by)],
            AllianceId(signed(&two, &by).hash().0),
        ),
        ("H1", "empty-chain", "a chain without a charter", vec![], alliance),
        (
            "H2",
            "version-skipped",
            "a charter 3 after charter 1",
            chain(signed(&Charter { version: 3, ..two.clone() }, &by)),
            alliance,
        ),
        (
            "H2",
            "other-predecessor",
            "a charter that names another before it",
            chain(signed(&Charter { predecessor: Some(Hash([9; 32])), ..two.clone() }, &by)),
            alliance,
        ),
        (
            "H2",
            "other-shard-count",
            "a charter that changes the number of shards",
            chain(signed(&Charter { shard_count: 8.try_into().unwrap(), ..two.clone() }, &by)),
            alliance,
        ),
        ("H3", "minority", "one of three members signed", chain(signed(&two, &by[..1])), alliance),
        (
            "H3",
            "one-signed-twice",
            "one member signed twice",
            chain(with_signatures(&two, &|s| s[1] = s[0].clone())),
            alliance,
        ),
        (
            "H3",
            "stranger-besides",
            "a majority signed, and somebody else",
            chain(signed(&two, &[by[0], by[1], &world.stranger])),
            alliance,
        ),
        (
            "H3",
            "newcomers-alone",
            "the new members vote themselves in",
            chain(signed(&replaced, &[&newcomers[0], &newcomers[1], &newcomers[2]])),
            alliance,
        ),
        (
            "H3",
            "signature-of-another-charter",
            "a member's signature of another charter",
            chain(with_signatures(&two, &|s| s.push(foreign.clone()))),
            alliance,
        ),
        (
            "H3",
            "signature-for-another-purpose",
            "a member's signature for another purpose",
            vec![with_signatures(&world.three.charter, &|s| s.push(as_run.clone()))],
            alliance,
        ),
    ] {
        kit.case(FOLDER, rule, slug, title, "charter").input(chain_input(charters, alliance)).invalid();
    }
}

/// A charter that breaks its own rules cannot be made by the library: it is encoded and signed by hand here.
fn signed_by_hand(charter: &Charter) -> SignedCharter {
    let bytes = charter.to_bytes();
    let hash = Sha256::digest(&bytes).to_vec();
    let signatures = world().members[..charter.members.len().min(2)]
        .iter()
        .map(|m| Cbor::Bytes(sign(m, Domain::Charter, hash.clone())))
        .collect::<Vec<_>>();
    let wire = Cbor::Map(vec![(0, Cbor::Bytes(bytes)), (1, Cbor::Array(signatures))]);
    SignedCharter::decode(&wire.to_vec()).unwrap()
}

fn charter_rules(kit: &mut Kit) {
    type Change = fn(&mut Charter);
    let changes: [(&str, &str, Change); 26] = [
        ("version-0", "version 0", |c| c.version = 0),
        ("predecessor-in-1", "charter 1 names a predecessor", |c| c.predecessor = Some(Hash::ZERO)),
        ("node-id-twice", "two nodes of one id", |c| c.nodes[1].id = c.nodes[0].id),
        ("node-name-twice", "two nodes of one name", |c| c.nodes[1].name = c.nodes[0].name.clone()),
        ("node-key-twice", "two nodes of one key", |c| c.nodes[1].sign = c.nodes[0].sign),
        ("member-id-twice", "two members of one id", |c| c.members[1].id = c.members[0].id),
        ("member-name-twice", "two members of one name", |c| c.members[1].name = c.members[0].name.clone()),
        ("member-key-twice", "two members of one signing key", |c| {
            c.members[2].identity = c.members[0].identity.clone()
        }),
        ("node-twice-in-a-group", "one node twice in a group", |c| {
            c.placement = Placement::Everywhere(vec![c.nodes[0].id, c.nodes[1].id, c.nodes[1].id]);
        }),
        ("group-of-2", "a group of two nodes", |c| {
            c.placement = Placement::Everywhere(vec![c.nodes[0].id, c.nodes[1].id])
        }),
        ("group-of-0", "a group without a node", |c| c.placement = Placement::Everywhere(vec![])),
        ("unknown-node", "a group with a node that the charter does not have", |c| {
            c.placement = Placement::Everywhere(vec![NodeId([9; 8])])
        }),
        ("shards-not-covered", "three groups for four shards", |c| {
            c.placement = Placement::Listed(vec![vec![c.nodes[0].id]; 3])
        }),
        ("unknown-member", "a node of a member that the charter does not have", |c| {
            c.nodes[0].member = MemberId([9; 8])
        }),
        ("cosignatures-above-members", "more cosignatures asked for than there are members", |c| {
            c.min_cosignatures = Some(4)
        }),
        ("cosignatures-0", "no cosignature asked for", |c| c.min_cosignatures = Some(0)),
        ("name-upper-case", "a node's name in upper case", |c| c.nodes[0].name = "Node-a.example".into()),
        ("name-plus", "a node's name with a plus sign", |c| c.nodes[0].name = "node+a.example".into()),
        ("name-edge-hyphen", "a node's name with a label that begins with a hyphen", |c| {
            c.nodes[0].name = "-node.example".into()
        }),
        ("address-without-port", "an address without a port", |c| c.nodes[0].addresses = vec!["node-a.example".into()]),
        ("address-port-0", "an address with port 0", |c| c.nodes[0].addresses = vec!["node-a.example:0".into()]),
        ("no-address", "a node without an address", |c| c.nodes[0].addresses.clear()),
        ("addresses-5", "a node with five addresses", |c| c.nodes[0].addresses = vec!["node-a.example:1".into(); 5]),
        ("alliance-name-control", "a name with a line break", |c| c.alliance = "line\nbreak".into()),
        ("alliance-name-oversized", "a name of 201 bytes", |c| c.alliance = "x".repeat(201)),
        ("fresh-0", "heads that are never fresh", |c| c.head_fresh_ms = 0),
    ];
    for (slug, title, change) in changes {
        // Three nodes of one member, where it takes no second one: a member is 1.3 KB.
        let mut charter = world().three.charter.clone();
        if !slug.starts_with("member-") {
            charter.members.truncate(1);
            let member = charter.members[0].id;
            charter.nodes.iter_mut().for_each(|node| node.member = member);
        }
        change(&mut charter);
        let signed = signed_by_hand(&charter);
        let alliance = AllianceId(signed.hash().0);
        kit.case(FOLDER, "H5", slug, title, "charter").input(chain_input(vec![signed], alliance)).invalid();
    }
    let shards = {
        let mut wire = Cbor::parse(&world().one.charter.to_bytes());
        *wire.at(3) = Cbor::Int(1025);
        wire.to_vec()
    };
    let roles = {
        let mut wire = Cbor::parse(&world().one.charter.to_bytes());
        *wire.at(7).at(0) = Cbor::Int(16);
        wire.to_vec()
    };
    for (slug, title, bytes) in [
        ("shards-1025", "more shards than there may be", shards),
        ("role-unknown", "a set of roles with a bit that stands for none", roles),
    ] {
        let hash = Sha256::digest(&bytes).to_vec();
        let signatures =
            world().members[..1].iter().map(|m| Cbor::Bytes(sign(m, Domain::Charter, hash.clone()))).collect();
        let wire = Cbor::Map(vec![(0, Cbor::Bytes(bytes)), (1, Cbor::Array(signatures))]).to_vec();
        let signed = SignedCharter::decode(&wire).unwrap();
        let alliance = AllianceId(signed.hash().0);
        kit.case(FOLDER, "H5", slug, title, "charter").input(chain_input(vec![signed], alliance)).invalid();
    }
}
