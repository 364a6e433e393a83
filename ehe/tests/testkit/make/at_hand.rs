//! C2, C4: under which charter a checkpoint is judged while a shard moves.

use ehe::cbor;
use ehe::charter::{Charter, CharterChain, Placement, SignedCharter};
use ehe::checkpoint::Checkpoint;
use ehe::leaf::Receipt;
use ehe::wire::Head;
use serde_json::{Value, json};

use super::Kit;
use super::checkpoints::{FOLDER, checkpoint_input};
use super::follow::{self, NONCE, ledger_items};
use super::log::{Log, note, scene_with_readings};
use super::scene::Scene;
use super::world::{signed, world};
use crate::json::h;

/// Charter 1 of the alliance of one, and later ones of the same member: each with the group that it gives all shards to, by number.
fn chain(groups: &[&[usize]], change: impl Fn(&mut Charter)) -> CharterChain {
    let world = world();
    let mut charters: Vec<SignedCharter> = vec![world.one.signed.clone()];
    for group in groups {
        let nodes = world.three.charter.nodes.iter().cloned();
        let member = world.one.charter.members[0].id;
        let mut next = Charter {
            version: u32::try_from(charters.len()).unwrap() + 1,
            predecessor: charters.last().map(SignedCharter::hash),
            nodes: nodes.map(|node| ehe::charter::Node { member, ..node }).collect(),
            placement: Placement::Everywhere(group.iter().map(|i| world.three.charter.nodes[*i].id).collect()),
            ..world.one.charter.clone()
        };
        change(&mut next);
        charters.push(signed(&next, &[&world.members[0]]));
    }
    CharterChain(charters)
}

/// What a log shows, all of it signed by these nodes alone.
struct Shown {
    scene: Scene,
    log: Log,
}

impl Shown {
    fn note(&self, version: u32, node: usize) -> String {
        note(&Checkpoint { charter_version: version, ..self.log.checkpoint() }, &[node]).to_string()
    }

    /// The head, with the checkpoint under a charter of this version, of a node of its group; `by` signed the head.
    fn head(&self, version: u32, node: usize, by: usize) -> Head {
        let head = self.log.head_by(NONCE, &world().nodes[by]);
        Head { last: Receipt { checkpoint: self.note(version, node), ..head.last }, ..head }
    }

    fn head_input(&self, chain: &CharterChain, head: &Head, age: u64) -> Value {
        json!({
            "alliance": world().one.id.to_string(),
            "charter": h(chain.encode()),
            "room": self.scene.id.to_string(),
            "nonce": NONCE.to_string(),
            "head": h(cbor::to_vec(head)),
            "now": head.at.0 + age,
        })
    }
}

pub(super) fn cases(kit: &mut Kit) {
    let scene = scene_with_readings(1);
    let shown = Shown { log: Log::of(&scene), scene };
    heads(kit, &shown);
    staleness(kit, &shown);
    others(kit, &shown);
}

fn heads(kit: &mut Kit, shown: &Shown) {
    // Charter 1 gives all shards to node 0. What the later ones give them to; then the version that the checkpoint names, and its node.
    type Row = (&'static str, &'static str, &'static [&'static [usize]], (u32, usize), bool);
    let rows: [Row; 9] = [
        ("ok-not-there-yet", "under charter 1, where charter 2 moves the shard", &[&[1]], (1, 0), true),
        ("ok-moved", "under charter 2, which moved the shard", &[&[1]], (2, 1), true),
        ("ok-grown", "under charter 1, where charter 2 adds nodes to the group", &[&[0, 1, 2]], (1, 0), true),
        ("not-moved", "under charter 1, where charter 2 leaves the shard where it is", &[&[0]], (1, 0), false),
        ("ok-two-behind", "under charter 1, where charters 2 and 3 move the shard", &[&[1], &[1]], (1, 0), true),
        ("same-as-the-newest", "under charter 2, whose group charter 3 has as well", &[&[1], &[1]], (2, 1), false),
        (
            "given-back",
            "under charter 1, where charter 3 gives back what charter 2 moved",
            &[&[1], &[0]],
            (1, 0),
            false,
        ),
        (
            "ok-to-be-given-back",
            "under charter 2, where charter 3 gives back what it moved",
            &[&[1], &[0]],
            (2, 1),
            true,
        ),
        (
            "same-nodes",
            "under charter 2, where charter 3 names the same nodes in another order",
            &[&[0, 1, 2], &[2, 0, 1]],
            (2, 1),
            false,
        ),
    ];
    for (slug, title, groups, (version, node), stands) in rows {
        let input = shown.head_input(&chain(groups, |_| {}), &shown.head(version, node, node), 0);
        let draft = kit.case(FOLDER, "C2", slug, &format!("a head {title}"), "head").input(input);
        if stands { draft.valid() } else { draft.invalid() }
    }
    let moved = chain(&[&[1]], |_| {});
    for (slug, title, version, node, by) in [
        ("signed-by-the-group-after", "a head under charter 1, signed by a node of charter 2's group", 1, 0, 1),
        ("signed-by-the-group-before", "a head under charter 2, signed by a node of charter 1's group", 2, 1, 0),
    ] {
        let input = shown.head_input(&moved, &shown.head(version, node, by), 0);
        kit.case(FOLDER, "C4", slug, title, "head").input(input).invalid();
    }
}

/// The newest charter says how old a head may be, also where the shard is not under it yet.
fn staleness(kit: &mut Kit, shown: &Shown) {
    let head = shown.head(1, 0, 0);
    let shorter = chain(&[&[1]], |charter| charter.head_fresh_ms = 30_000);
    let title = "a head under charter 1, as old as charter 2 allows, which is less";
    kit.case(FOLDER, "C4", "ok-as-old-as-the-newest-allows", title, "head")
        .input(shown.head_input(&shorter, &head, 30_000))
        .valid();
    let title = "a head under charter 1, older than charter 2 allows, not than charter 1 does";
    kit.case(FOLDER, "C4", "older-than-the-newest-allows", title, "head")
        .input(shown.head_input(&shorter, &head, 30_001))
        .invalid();
}

/// What else brings a checkpoint: receipts and what is followed are judged as heads are, a checkpoint by itself under the newest charter.
fn others(kit: &mut Kit, shown: &Shown) {
    let (moved, stays) = (chain(&[&[1]], |_| {}), chain(&[&[0]], |_| {}));
    let (log, head) = (&shown.log, shown.head(1, 0, 0));
    for (slug, title, chain, stands) in [
        ("ok-receipt-not-there-yet", "a receipt under charter 1, where charter 2 moves the shard", &moved, true),
        ("receipt-not-moved", "a receipt under charter 1, where charter 2 leaves the shard where it is", &stays, false),
    ] {
        let input = json!({
            "alliance": world().one.id.to_string(),
            "charter": h(chain.encode()),
            "run": h(&log.entries[1].run.0),
            "key": h(world().gateway.public().sign.0),
            "receipt": h(cbor::to_vec(&Receipt { checkpoint: shown.note(1, 0), ..log.receipt(1) })),
        });
        let draft = kit.case(FOLDER, "C2", slug, title, "receipt").input(input);
        if stands { draft.valid() } else { draft.invalid() }
    }
    for (slug, title, chain, stands) in [
        ("ok-followed-not-there-yet", "a room under charter 1, where charter 2 moves its shard", &moved, true),
        ("followed-not-moved", "a room under charter 1, where charter 2 leaves its shard where it is", &stays, false),
    ] {
        let mut input = follow::input(true, &ledger_items(log), &head);
        input["charter"] = h(chain.encode());
        let draft = kit.case(follow::FOLDER, "C2", slug, title, "follow").input(input);
        if stands { draft.valid() } else { draft.invalid() }
    }
    let mut alone = checkpoint_input(&world().one, &shown.note(1, 0), log.shard);
    alone["charter"] = h(moved.encode());
    let title = "a checkpoint by itself under charter 1, where charter 2 moves the shard: the newest is asked";
    kit.case(FOLDER, "C1", "earlier-charter", title, "checkpoint").input(alone).invalid();
}
