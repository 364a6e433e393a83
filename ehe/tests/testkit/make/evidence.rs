//! J: evidence, and what is none.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ehe::charter::{Charter, CharterChain, Placement, SignedCharter};
use ehe::evidence::{Contradiction, Evidence};
use ehe::id::Hash;
use ehe::identity::Identity;
use ehe::limits::{CONTRADICTION_MAX_BYTES, EVIDENCE_MAX_BYTES};
use ehe::merkle;
use serde_json::json;

use super::Kit;
use super::checkpoints::{node, noted};
use super::log::Tree;
use super::world::{person, signed, world};
use crate::json::{h, packed};
use crate::value::Cbor;

const FOLDER: &str = "evidence";
const OLD: u64 = 5;
const NEW: u64 = 12;

pub(super) fn cases(kit: &mut Kit) {
    valid(kit);
    forms(kit);
    statements(kit);
    signers(kit);
    consistent(kit);
}

/// Two logs that go apart after three leaves.
struct Logs {
    agreed: Tree,
    forged: Tree,
}

fn logs() -> Logs {
    let log = |what: &str| {
        let mut tree = Tree::default();
        for leaf in 0..NEW {
            let what = if leaf < 3 { "agreed" } else { what };
            tree.append(merkle::leaf_hash(format!("{what} {leaf}").as_bytes()));
        }
        tree
    };
    Logs { agreed: log("agreed"), forged: log("forged") }
}

impl Logs {
    fn root(tree: &Tree, size: u64) -> Hash {
        merkle::Peaks::load(tree, size).unwrap().root()
    }

    fn proof(tree: &Tree) -> Vec<Hash> {
        merkle::consistency_proof(tree, OLD, NEW).unwrap()
    }
}

fn text(origin: &str, size: u64, root: Hash, charter: u32) -> String {
    format!("{origin}\n{size}\n{}\ncharter {charter}\n", STANDARD.encode(root.0))
}

fn one() -> CharterChain {
    CharterChain(vec![world().one.signed.clone()])
}

fn three() -> CharterChain {
    CharterChain(vec![world().three.signed.clone()])
}

/// Hospitals A, B and C, whose charter 2 changes something.
fn changed(change: impl FnOnce(&mut Charter)) -> CharterChain {
    let one = world().three.signed.clone();
    let mut two = Charter { version: 2, predecessor: Some(one.hash()), ..world().three.charter.clone() };
    change(&mut two);
    let members = &world().members;
    CharterChain(vec![one, signed(&two, &[&members[0], &members[1]])])
}

fn origin(chain: &CharterChain) -> String {
    ehe::checkpoint::log_origin(chain.claimed_alliance().unwrap(), 2, 0)
}

/// A checkpoint of shard 2: ordered by the first of `by`, cosigned by all.
fn said(chain: &CharterChain, size: u64, root: Hash, charter: u32, by: &[(&str, &Identity)]) -> String {
    let origin = origin(chain);
    noted(&text(&origin, size, root, charter), &[(&origin, by[0].1)], by)
}

fn evidence(chain: &CharterChain, contradiction: Contradiction) -> Vec<u8> {
    Evidence { charters: chain.encode(), contradiction }.to_vec()
}

/// Two notes of one size, in their order.
fn roots(chain: &CharterChain, one: &str, other: &str) -> Vec<u8> {
    Evidence::of(chain, one, other, None).unwrap().to_vec()
}

fn case<'a>(kit: &'a mut Kit, rule: &str, slug: &str, title: &str, bytes: &[u8]) -> super::Draft<'a> {
    kit.case(FOLDER, rule, slug, title, "evidence").input(json!({"evidence": h(bytes)}))
}

/// Node 0 of the one hospital signed both.
fn both_of_one() -> (String, String) {
    let Logs { agreed, forged } = logs();
    let say = |tree: &Tree| said(&one(), OLD, Logs::root(tree, OLD), 1, &[node(0)]);
    (say(&agreed), say(&forged))
}

fn prefix_of_one() -> (String, String, Hash, Vec<Hash>) {
    let Logs { agreed, forged } = logs();
    let smaller = said(&one(), OLD, Logs::root(&forged, OLD), 1, &[node(0)]);
    let larger = said(&one(), NEW, agreed.root(), 1, &[node(0)]);
    (smaller, larger, Logs::root(&agreed, OLD), Logs::proof(&agreed))
}

fn valid(kit: &mut Kit) {
    let Logs { agreed, forged } = logs();
    let [agreed_old, forged_old] = [&agreed, &forged].map(|tree| Logs::root(tree, OLD));
    let by = |by: &[usize]| by.iter().map(|i| node(*i)).collect::<Vec<_>>();
    let old = |root: Hash, signers: &[usize]| said(&three(), OLD, root, 1, &by(signers));
    let new = |signers: &[usize]| said(&three(), NEW, agreed.root(), 1, &by(signers));
    let larger = |smaller: &str, larger: &str| {
        let prefix = Some((agreed_old, Logs::proof(&agreed)));
        Evidence::of(&three(), smaller, larger, prefix).unwrap().to_vec()
    };
    let own_origin = origin(&three());
    let ordered_only = noted(&text(&own_origin, OLD, forged_old, 1), &[(&own_origin, node(1).1)], &[]);
    for (slug, title, bytes) in [
        (
            "ok-two-roots",
            "two roots of one size, each with a quorum: node B signed both",
            roots(&three(), &old(agreed_old, &[0, 1]), &old(forged_old, &[2, 1])),
        ),
        (
            "ok-other-prefix",
            "a log that does not begin with what nodes A and B signed before",
            larger(&old(forged_old, &[0, 1]), &new(&[1, 0, 2])),
        ),
        (
            "ok-one-against-a-quorum",
            "node C alone against a quorum",
            roots(&three(), &old(agreed_old, &[0, 1]), &old(forged_old, &[2])),
        ),
        (
            "ok-one-against-a-later-quorum",
            "node C alone against what a quorum signed later",
            larger(&old(forged_old, &[2]), &new(&[0, 1])),
        ),
        (
            "ok-one-against-one",
            "two nodes, neither of them with a quorum: one of the two broke the rules, and it is not shown which",
            roots(&three(), &old(agreed_old, &[0]), &old(forged_old, &[2])),
        ),
        (
            "ok-ordered-alone",
            "signed as ordering party on the one side, cosigned on the other",
            roots(&three(), &old(agreed_old, &[0, 1]), &ordered_only),
        ),
    ] {
        case(kit, "J5", slug, title, &bytes).valid();
    }

    // Charter 2 replaces all nodes: quorums need not share one any more.
    let fresh: Vec<Identity> = (3..6).map(|i| person(&format!("node {i}"))).collect();
    let names: Vec<String> = world().three.charter.nodes.iter().map(|node| format!("new-{}", node.name)).collect();
    let moved = changed(|two| {
        for ((node, identity), name) in two.nodes.iter_mut().zip(&fresh).zip(&names) {
            node.id = ehe::id::NodeId(identity.author_id().0[..8].try_into().unwrap());
            node.sign = identity.public().sign;
            node.name.clone_from(name);
        }
        two.placement = Placement::Everywhere(two.nodes.iter().map(|node| node.id).collect());
    });
    let before = said(&moved, OLD, agreed_old, 1, &by(&[0, 1]));
    let after = said(&moved, OLD, forged_old, 2, &[(&names[2], &fresh[2]), (&names[0], &fresh[0])]);
    let bytes = roots(&moved, &before, &after);
    case(kit, "J5", "ok-two-quorums", "two quorums without a common node, under two charters", &bytes).valid();

    let renamed = changed(|two| two.alliance = "Renamed".into());
    let before = said(&renamed, OLD, agreed_old, 1, &by(&[0, 1]));
    let after = said(&renamed, OLD, forged_old, 2, &by(&[1, 2]));
    let bytes = roots(&renamed, &before, &after);
    case(kit, "J3", "ok-two-charters", "node B signed both, under two charters", &bytes).valid();

    // The members may give a node's id other keys. What those sign, the node has not signed.
    let rekeyed = changed(|two| two.nodes[1].sign = fresh[1].public().sign);
    let before = said(&rekeyed, OLD, agreed_old, 1, &by(&[0, 1]));
    let after = said(&rekeyed, OLD, forged_old, 2, &[(node(1).0, &fresh[1])]);
    let bytes = roots(&rekeyed, &before, &after);
    case(kit, "J4", "ok-other-key", "one node id under two keys: it is not shown that one signed both", &bytes).valid();
}

fn forms(kit: &mut Kit) {
    let (first, second) = both_of_one();
    let good = roots(&one(), &first, &second);
    let with = |change: &dyn Fn(&mut Cbor)| {
        let mut value = Cbor::parse(&good);
        change(&mut value);
        value.to_vec()
    };
    let chain = |change: &dyn Fn(&mut Cbor)| {
        with(&|value| {
            let mut chain = Cbor::parse(value.at(0).bytes());
            change(&mut chain);
            *value.at(0) = Cbor::Bytes(chain.to_vec());
        })
    };
    let unsigned = SignedCharter::unsigned(&world().one.charter).unwrap();
    for (slug, title, bytes) in [
        ("trailing-byte", "a byte after the structure", [&good[..], &[0]].concat()),
        ("cut-off", "cut off in the middle", good[..good.len() / 2].to_vec()),
        ("further-member", "a further member", with(&|value| value.set(2, Cbor::Int(1)))),
        ("kind-3", "a contradiction of a kind that there is not", with(&|value| *value.at(1).at(0) = Cbor::Int(3))),
        ("no-charters", "a chain without a charter", chain(&|chain| *chain = Cbor::Array(vec![]))),
        (
            "charter-not-signed",
            "charters that no member signed",
            chain(&|chain| *chain.at(0) = Cbor::Bytes(unsigned.encode())),
        ),
        ("note-as-bytes", "a checkpoint as a byte string", {
            let note = first.clone().into_bytes();
            with(&|value| *value.at(1).at(1) = Cbor::Bytes(note.clone()))
        }),
    ] {
        case(kit, "J1", slug, title, &bytes).invalid();
    }
    let long = with(&|value| *value.at(1).at(1) = Cbor::Text("x".repeat(CONTRADICTION_MAX_BYTES)));
    let (what, input) = ("a contradiction of more than CONTRADICTION_MAX_BYTES", json!({"evidence": packed(&long)}));
    kit.case(FOLDER, "J1", "oversized-contradiction", what, "evidence").input(input).invalid();
    let mut oversized = Cbor::parse(&good);
    let fill = EVIDENCE_MAX_BYTES - good.len() + 1;
    oversized.at(0).bytes().extend(vec![0; fill]);
    let input = json!({"evidence": packed(&oversized.to_vec())});
    kit.case(FOLDER, "J1", "oversized", "more than EVIDENCE_MAX_BYTES", "evidence").input(input).invalid();
}

fn statements(kit: &mut Kit) {
    let Logs { agreed, forged } = logs();
    let [agreed_old, forged_old] = [&agreed, &forged].map(|tree| Logs::root(tree, OLD));
    let (first, second) = both_of_one();
    let chain = one();
    let alliance = chain.claimed_alliance().unwrap();
    let in_log = |origin: &str, root: Hash| noted(&text(origin, OLD, root, 1), &[(origin, node(0).1)], &[node(0)]);
    let pair = |origin: &str| roots(&chain, &in_log(origin, agreed_old), &in_log(origin, forged_old));
    let other = |shard: u16, incarnation: u32| ehe::checkpoint::log_origin(alliance, shard, incarnation);
    let foreign = world().three.verified().origin(2, 0);
    let not_a_checkpoint = noted("one line\n", &[], &[node(0)]);
    let signed_both = |first: &str, second: &str| {
        evidence(&chain, Contradiction::Roots { first: first.into(), second: second.into() })
    };
    let ordered = |one: &str, other: &str| roots(&chain, one, other);
    for (slug, title, bytes) in [
        (
            "other-incarnation",
            "the second statement is of the log's next incarnation: a restore began it",
            ordered(&in_log(&other(2, 0), agreed_old), &in_log(&other(2, 1), forged_old)),
        ),
        (
            "other-shard",
            "the two are of two shards",
            ordered(&in_log(&other(2, 0), agreed_old), &in_log(&other(3, 0), forged_old)),
        ),
        ("other-alliance", "both are of a log of another alliance than the charters'", pair(&foreign)),
        ("no-such-shard", "both are of a shard that the alliance does not have", pair(&other(4, 0))),
        ("shard-with-zero", "both name the shard with a leading zero", pair(&other(2, 0).replace("/2/", "/02/"))),
        ("no-checkpoint", "one is no checkpoint", signed_both(&first, &not_a_checkpoint)),
        ("no-note", "one is no note", signed_both(first.split("\n\n").next().unwrap(), &second)),
    ] {
        case(kit, "J2", slug, title, &bytes).invalid();
    }

    let later = said(&chain, OLD, forged_old, 2, &[node(0)]);
    let bytes = roots(&chain, &first, &later);
    case(kit, "J3", "no-such-charter", "one is under a charter that the file does not hold", &bytes).invalid();
    let renamed = changed(|two| two.alliance = "Renamed".into());
    let say = |root: Hash| said(&renamed, OLD, root, 1, &[node(0)]);
    let mut pair = [(agreed_old, say(agreed_old)), (forged_old, say(forged_old))];
    pair.sort();
    let [(_, first), (_, second)] = pair;
    let bytes = evidence(&renamed, Contradiction::Roots { first, second });
    case(kit, "J3", "needless-charter", "a charter after the newest that the statements name", &bytes).invalid();
    let zero = said(&chain, OLD, forged_old, 0, &[node(0)]);
    let bytes = roots(&chain, &both_of_one().0, &zero);
    case(kit, "J3", "charter-0", "one is under charter 0", &bytes).invalid();
}

fn signers(kit: &mut Kit) {
    let Logs { agreed, forged } = logs();
    let [agreed_old, forged_old] = [&agreed, &forged].map(|tree| Logs::root(tree, OLD));
    let chain = one();
    let good = said(&chain, OLD, agreed_old, 1, &[node(0)]);
    let forged_text = text(&origin(&chain), OLD, forged_old, 1);
    let stranger = noted(&forged_text, &[(&origin(&chain), &world().stranger)], &[(node(0).0, &world().stranger)]);
    // Signed at the agreed root, the text changed afterwards.
    let altered = good.replacen(&text(&origin(&chain), OLD, agreed_old, 1), &forged_text, 1);
    let under_its_name = noted(&forged_text, &[node(0)], &[(&origin(&chain), node(0).1)]);
    for (slug, title, note) in [
        ("stranger", "one was signed by somebody else in a node's name", stranger),
        ("altered", "one was altered after it was signed", altered),
        ("other-names", "signed under the node's name and cosigned under the origin: neither counts", under_its_name),
    ] {
        case(kit, "J4", slug, title, &roots(&chain, &good, &note)).invalid();
    }
    // Node A holds shards 0 and 1 alone, node B the others.
    let nodes = &world().three.charter.nodes;
    let placed = changed(|two| {
        two.placement = Placement::Listed([0, 0, 1, 1].iter().map(|i: &usize| vec![nodes[*i].id]).collect());
    });
    let say = |root: Hash, by: usize| said(&placed, OLD, root, 2, &[node(by)]);
    let bytes = roots(&placed, &say(agreed_old, 1), &say(forged_old, 0));
    case(kit, "J4", "not-of-the-group", "one was signed by a node that does not hold the shard", &bytes).invalid();
}

fn consistent(kit: &mut Kit) {
    let Logs { agreed, forged } = logs();
    let [agreed_old, forged_old] = [&agreed, &forged].map(|tree| Logs::root(tree, OLD));
    let chain = one();
    let say = |size: u64, root: Hash| said(&chain, size, root, 1, &[node(0)]);
    let (smaller, larger, prefix, proof) = prefix_of_one();
    let larger_than = |smaller: &str, prefix: Hash, proof: &[Hash]| {
        let (smaller, larger, proof) = (smaller.into(), larger.clone(), proof.to_vec());
        evidence(&chain, Contradiction::Prefix { smaller, larger, prefix, proof })
    };
    let agreed_note = say(OLD, agreed_old);
    let two = |first: String, second: String| evidence(&chain, Contradiction::Roots { first, second });
    // In the order of J6, so that their sizes alone are wrong.
    let by_root = |one: &str, other: &str| {
        let mut pair = [(forged_old, one), (agreed.root(), other)];
        pair.sort();
        two(pair[0].1.into(), pair[1].1.into())
    };
    let long = [&proof[..], &[Hash::ZERO]].concat();
    for (slug, title, bytes) in [
        ("one-root", "the two say the same", two(agreed_note.clone(), agreed_note.clone())),
        ("its-prefix", "the larger log begins with the smaller one", larger_than(&agreed_note, prefix, &proof)),
        (
            "its-prefix-called-another",
            "the larger log begins with the smaller one, and another beginning is claimed of it",
            larger_than(&agreed_note, forged_old, &proof),
        ),
        (
            "other-beginning",
            "a beginning that the larger log does not have",
            larger_than(&smaller, Hash([7; 32]), &proof),
        ),
        ("proof-short", "a proof with a hash too few", larger_than(&smaller, prefix, &proof[1..])),
        ("proof-long", "a proof with a hash too many", larger_than(&smaller, prefix, &long)),
        ("no-proof", "no proof", larger_than(&smaller, prefix, &[])),
        ("two-sizes", "two sizes, and no word of how the larger one begins", by_root(&smaller, &larger)),
        (
            "one-size-with-a-proof",
            "one size, in the form for two",
            evidence(
                &chain,
                Contradiction::Prefix {
                    smaller: say(OLD, forged_old),
                    larger: agreed_note.clone(),
                    prefix: agreed_old,
                    proof: vec![],
                },
            ),
        ),
    ] {
        case(kit, "J5", slug, title, &bytes).invalid();
    }
    let mut pair = [(agreed_old, agreed_note), (forged_old, say(OLD, forged_old))];
    pair.sort();
    let [(_, first), (_, second)] = pair;
    case(kit, "J6", "other-order", "the greater root stands first", &two(second, first)).invalid();
    let bytes = evidence(
        &chain,
        Contradiction::Prefix { smaller: larger.clone(), larger: smaller.clone(), prefix, proof: proof.clone() },
    );
    case(kit, "J6", "larger-first", "the larger one stands first", &bytes).invalid();
}
