//! C: checkpoints, receipts, heads.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ehe::cbor;
use ehe::charter::{Charter, CharterChain, Placement, Trust};
use ehe::checkpoint::Checkpoint;
use ehe::cose::{Domain, sign};
use ehe::id::{AllianceId, Hash, Nonce};
use ehe::identity::Identity;
use ehe::leaf::Receipt;
use ehe::note::Note;
use ehe::wire::Head;
use serde_json::{Value, json};

use super::Kit;
use super::log::{Log, note, scene_with_readings};
use super::scene::{Granted, NOW, Scene};
use super::world::{Alliance, signed, world};
use crate::json::h;
use crate::value::Cbor;

pub(super) const FOLDER: &str = "log";

pub(super) fn cases(kit: &mut Kit) {
    checkpoints(kit);
    receipts(kit);
    heads(kit);
}

pub(super) fn checkpoint_input(alliance: &Alliance, note: &str, shard: u16) -> Value {
    json!({"alliance": alliance.id.to_string(), "charter": h(alliance.chain()), "shard": shard, "note": note})
}

/// A note over any text: signed by each of `signers` under a name, cosigned by each of `cosigners` under theirs.
pub(super) fn noted(text: &str, signers: &[(&str, &Identity)], cosigners: &[(&str, &Identity)]) -> String {
    let mut note = Note::new(text.into()).unwrap();
    for (name, identity) in signers {
        note.sign(name, identity.sign_key());
    }
    for (name, identity) in cosigners {
        note.cosign(name, identity.sign_key(), NOW / 1000);
    }
    note.to_string()
}

pub(super) fn node(i: usize) -> (&'static str, &'static Identity) {
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
    let other_alliance = {
        let (start, digits) = good.origin.split_at("ehe/".len());
        let (digit, rest) = digits.split_at(1);
        format!("{start}{}{rest}", if digit == "0" { "1" } else { "0" })
    };
    // The last signature line, its base64 written otherwise.
    let line_with = |change: &dyn Fn(&str) -> String| {
        let whole = log.note();
        let (start, base64) = whole.trim_end().rsplit_once(' ').unwrap();
        format!("{start} {}\n", change(base64))
    };
    let first_line = log.note().lines().find(|line| line.starts_with("— ehe/")).unwrap().to_owned();
    // One byte too many for a multiple of three leaves bits over in the last letter before the padding.
    let left_over = |base64: &str| {
        let at = base64.find('=').unwrap() - 1;
        let next = char::from(base64.as_bytes()[at] + 1);
        format!("{}{next}{}", &base64[..at], &base64[at + 1..])
    };
    let root = STANDARD.encode(good.root.0);
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
        ("bad-base64", "a cosignature that is not base64", line_with(&|base64| base64.replacen('A', "!", 1))),
        ("not-padded", "a cosignature without its padding", line_with(&|base64| base64.trim_end_matches('=').into())),
        ("bits-left-over", "a cosignature whose base64 has bits left over that are not zero", line_with(&left_over)),
        (
            "bad-base64-ordering",
            "the ordering party's signature is not base64",
            log.note().replacen(&first_line, &first_line.replace('=', "!"), 1),
        ),
        (
            "root-not-padded",
            "a root without its padding",
            by_node_0(&text.replace(&root, root.trim_end_matches('=')), &good.origin),
        ),
        (
            "root-bits-left-over",
            "a root whose base64 has bits left over that are not zero",
            by_node_0(&text.replace(&root, &left_over(&root)), &good.origin),
        ),
        (
            "line-without-name",
            "a signature line without a name",
            line_with(&|base64| base64.into()).replacen("— node-a.example ", "— ", 1),
        ),
        (
            "name-with-plus",
            "a line of somebody else whose name has a plus sign",
            format!("{}{}\n", log.note(), line.replacen("node-a", "node+a", 1)),
        ),
        (
            "name-with-no-break-space",
            "a line of somebody else whose name has a white space that is not ASCII (U+00A0)",
            format!("{}{}\n", log.note(), line.replacen("node-a", "node\u{a0}a", 1)),
        ),
        (
            "name-oversized",
            "a line of somebody else whose name has 129 bytes",
            format!("{}{}\n", log.note(), line.replacen("node-a.example", &"x".repeat(129), 1)),
        ),
        ("size-above-64-bits", "a size of 2^64", by_node_0(&size("18446744073709551616"), &good.origin)),
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
    shards_on_groups(kit, &good);
}

/// Placement form 1: shard 0 lives on one node, the others on all three.
fn shards_on_groups(kit: &mut Kit, good: &Checkpoint) {
    let mut charter = world().three.charter.clone();
    let all: Vec<_> = charter.nodes.iter().map(|node| node.id).collect();
    charter.placement = Placement::Listed(vec![vec![all[1]], all.clone(), all.clone(), vec![all[2]]]);
    let signed = signed(&charter, &[&world().members[0], &world().members[1]]);
    let alliance = AllianceId(signed.hash().0);
    let verified = signed.verify(Trust::Pinned(alliance)).unwrap();
    let chain = h(CharterChain(vec![signed]).encode());
    let title = "groups of one and of three nodes, listed by shard";
    kit.case(FOLDER, "H5", "ok-groups-listed", title, "charter")
        .input(json!({"alliance": alliance.to_string(), "charter": chain}))
        .valid();
    for (slug, title, shard, nodes, stands) in [
        ("ok-group-of-shard-1", "two of three nodes, for a shard whose group has three", 1, &[0, 2][..], true),
        ("ok-group-of-shard-3", "the one node of a shard's group", 3, &[2], true),
        ("short-in-its-group", "one node, for a shard whose group has three", 2, &[0], false),
        ("another-shards-group", "a node that holds other shards", 3, &[0, 1], false),
    ] {
        let checkpoint = Checkpoint { origin: verified.origin(shard, 1), ..good.clone() };
        let input = json!({"alliance": alliance.to_string(), "charter": chain, "shard": shard, "note": note(&checkpoint, nodes).to_string()});
        let draft = kit.case(FOLDER, "C2", slug, title, "checkpoint").input(input);
        if stands { draft.valid() } else { draft.invalid() }
    }
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
