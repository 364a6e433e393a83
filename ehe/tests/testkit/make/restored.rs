//! N: records of restored logs.

use ehe::charter::{Charter, CharterChain};
use ehe::checkpoint::Checkpoint;
use ehe::cose::{Domain, sign};
use ehe::id::Hash;
use ehe::identity::Identity;
use ehe::merkle::{self, Peaks};
use ehe::restoration::{Restoration, SignedRestoration};
use ehe::time::UnixMs;
use serde_json::{Value, json};

use super::Kit;
use super::log::{Tree, note};
use super::scene::NOW;
use super::world::{Alliance, signed, world};
use crate::json::h;
use crate::value::Cbor;

const FOLDER: &str = "restored";
const SHARD: u16 = 2;

pub(super) fn cases(kit: &mut Kit) {
    alone(kit);
    signatures(kit);
    followed(kit);
}

/// The log of all cases, `size` leaves of it.
fn tree(size: u64) -> Tree {
    let mut tree = Tree::default();
    (0..size).for_each(|leaf| tree.append(merkle::leaf_hash(&leaf.to_be_bytes())));
    tree
}

fn checkpoint(of: &Alliance, incarnation: u32, size: u64) -> Checkpoint {
    let origin = of.verified().origin(SHARD, incarnation);
    Checkpoint { origin, size, root: tree(size).root(), charter_version: 1 }
}

fn noted(of: &Alliance, incarnation: u32, size: u64) -> String {
    let nodes = if of.charter.nodes.len() == 1 { &[0][..] } else { &[0, 1] };
    note(&checkpoint(of, incarnation, size), nodes).to_string()
}

/// `kept` leaves of the log of this incarnation, proven by a checkpoint of `by` leaves.
fn kept(of: &Alliance, incarnation: u32, kept: u64, by: u64) -> Restoration {
    Restoration {
        alliance: of.id,
        shard: SHARD,
        incarnation,
        kept,
        root: tree(kept).root(),
        proof: merkle::consistency_proof(&tree(by), kept, by).unwrap(),
        checkpoint: Some(noted(of, incarnation, by)),
        newest: None,
        kept_until: UnixMs(NOW - 60_000),
        state: Hash([0x5a; 32]),
        charter_version: 1,
        at: UnixMs(NOW + 86_400_000 * u64::from(incarnation)),
    }
}

fn by(restoration: &Restoration, members: &[&Identity]) -> SignedRestoration {
    let mut signed = SignedRestoration::unsigned(restoration);
    members.iter().for_each(|member| signed.sign(member).unwrap());
    signed
}

/// Signed by two of the three members, or by the one.
fn quorum(of: &Alliance, restoration: &Restoration) -> SignedRestoration {
    let members = &world().members;
    let voters = if of.charter.members.len() == 1 { vec![&members[0]] } else { vec![&members[0], &members[2]] };
    by(restoration, &voters)
}

/// One that stands.
pub(super) fn restoration() -> SignedRestoration {
    let of = &world().one;
    quorum(of, &kept(of, 0, 5, 8))
}

fn input(of: &Alliance, records: &[SignedRestoration]) -> Value {
    let records: Vec<Value> = records.iter().map(|record| h(record.encode())).collect();
    json!({"alliance": of.id.to_string(), "charter": h(of.chain()), "shard": SHARD, "records": records})
}

fn alone(kit: &mut Kit) {
    // The alliance of one where votes do not matter: a member is 1.3 KB in each file.
    let of = &world().one;
    let nothing = Restoration { checkpoint: None, ..kept(of, 0, 0, 8) };
    for (rule, slug, title, record) in [
        ("N2", "ok-beginning", "five leaves kept of a log whose checkpoint has eight", kept(of, 0, 5, 8)),
        ("N2", "ok-all", "all kept that the checkpoint is of: no proof is needed", kept(of, 0, 8, 8)),
        ("N2", "ok-nothing", "nothing was kept, and no checkpoint is known", nothing.clone()),
        ("N2", "ok-nothing-of-eight", "nothing was kept of a log that had eight leaves", kept(of, 0, 0, 8)),
        ("N1", "ok-ninth-incarnation", "the log's tenth life begins", kept(of, 9, 5, 8)),
        (
            "N3",
            "ok-newest",
            "eleven leaves are known to have been",
            Restoration { newest: Some(noted(of, 0, 11)), ..kept(of, 0, 5, 8) },
        ),
        (
            "N3",
            "ok-newest-alone",
            "nothing was kept, and three leaves are known to have been",
            Restoration { newest: Some(noted(of, 0, 3)), ..nothing.clone() },
        ),
    ] {
        kit.case(FOLDER, rule, slug, title, "restoration").input(input(of, &[quorum(of, &record)])).valid();
    }
    let with = |change: &dyn Fn(&mut Restoration)| {
        let mut record = kept(of, 0, 5, 8);
        change(&mut record);
        record
    };
    for (rule, slug, title, record) in [
        ("N1", "other-alliance", "of another alliance", with(&|r| r.alliance = world().three.id)),
        ("N1", "other-shard", "of another shard than it was asked for", with(&|r| r.shard = 1)),
        ("N1", "no-such-shard", "of a shard that the alliance does not have", with(&|r| r.shard = 4)),
        (
            "N1",
            "last-incarnation",
            "of an incarnation that has none after it",
            Restoration { checkpoint: Some(noted(of, u32::MAX, 8)), ..with(&|r| r.incarnation = u32::MAX) },
        ),
        ("N1", "unknown-charter", "under a charter that is not at hand", with(&|r| r.charter_version = 2)),
        ("N1", "proof-oversized", "a proof of 65 hashes", with(&|r| r.proof = vec![Hash::ZERO; 65])),
        ("N2", "no-checkpoint", "no checkpoint for what was kept", with(&|r| r.checkpoint = None)),
        (
            "N2",
            "nothing-with-another-root",
            "nothing was kept, and the root is not that of nothing",
            Restoration { root: Hash::ZERO, ..nothing.clone() },
        ),
        (
            "N2",
            "nothing-with-a-proof",
            "nothing was kept, and a proof of it",
            Restoration { proof: vec![Hash::ZERO], ..nothing.clone() },
        ),
        ("N2", "other-root", "the root of other leaves", with(&|r| r.root = Hash([7; 32]))),
        (
            "N2",
            "more-than-the-checkpoint",
            "more kept than the checkpoint is of",
            Restoration { checkpoint: Some(noted(of, 0, 8)), ..kept(of, 0, 9, 9) },
        ),
        ("N2", "other-proof", "the proof of another size", with(&|r| r.proof = kept(of, 0, 3, 8).proof)),
        (
            "N2",
            "checkpoint-of-another-incarnation",
            "the checkpoint of the incarnation before",
            with(&|r| r.incarnation = 1),
        ),
        (
            "N2",
            "checkpoint-under-a-newer-charter",
            "a checkpoint under a charter that is not at hand",
            with(&|r| {
                r.checkpoint =
                    Some(note(&Checkpoint { charter_version: 2, ..checkpoint(of, 0, 8) }, &[0, 1]).to_string());
            }),
        ),
        (
            "N3",
            "newest-is-no-newer",
            "the newest checkpoint is the other one",
            with(&|r| r.newest = r.checkpoint.clone()),
        ),
        (
            "N3",
            "newest-is-older",
            "the newest checkpoint has fewer leaves",
            with(&|r| r.newest = Some(noted(of, 0, 6))),
        ),
        (
            "N3",
            "newest-of-another-incarnation",
            "the newest checkpoint is of another incarnation",
            with(&|r| r.newest = Some(noted(of, 1, 9))),
        ),
    ] {
        kit.case(FOLDER, rule, slug, title, "restoration").input(input(of, &[quorum(of, &record)])).invalid();
    }
    short_of_quorum(kit);
    under_two_charters(kit);
}

fn short_of_quorum(kit: &mut Kit) {
    let of = &world().three;
    let short = |size: u64, node: usize| Some(note(&checkpoint(of, 0, size), &[node]).to_string());
    for (rule, slug, title, record) in [
        (
            "N2",
            "checkpoint-short-of-quorum",
            "a checkpoint that one of three cosigned",
            Restoration { checkpoint: short(8, 0), ..kept(of, 0, 5, 8) },
        ),
        (
            "N3",
            "newest-short-of-quorum",
            "the newest checkpoint has one cosignature of three",
            Restoration { newest: short(9, 1), ..kept(of, 0, 5, 8) },
        ),
    ] {
        kit.case(FOLDER, rule, slug, title, "restoration").input(input(of, &[quorum(of, &record)])).invalid();
    }
}

/// The alliance agreed on a second charter meanwhile.
fn under_two_charters(kit: &mut Kit) {
    let of = &world().three;
    let one = world().three.signed.clone();
    let two = Charter {
        version: 2,
        predecessor: Some(one.hash()),
        alliance: "Renamed".into(),
        ..world().three.charter.clone()
    };
    let two = signed(&two, &[&world().members[0], &world().members[1]]);
    let chain = CharterChain(vec![one, two]).encode();
    let newer = Checkpoint { charter_version: 2, ..checkpoint(of, 0, 11) };
    let newer = Some(note(&newer, &[0, 2]).to_string());
    let later = Restoration { charter_version: 2, newest: newer.clone(), ..kept(of, 0, 5, 8) };
    let earlier = Restoration { newest: newer, ..kept(of, 0, 5, 8) };
    let given = |record: &Restoration| {
        let mut input = input(of, &[quorum(of, record)]);
        input["charter"] = h(&chain);
        input
    };
    let title = "checkpoints under charters 1 and 2, signed under charter 2";
    kit.case(FOLDER, "N2", "ok-two-charters", title, "restoration").input(given(&later)).valid();
    let title = "signed under charter 1, with a checkpoint under charter 2";
    kit.case(FOLDER, "N2", "older-charter", title, "restoration").input(given(&earlier)).invalid();
}

fn signatures(kit: &mut Kit) {
    let of = &world().three;
    let (record, members) = (kept(of, 0, 5, 8), &world().members);
    for (slug, title, signed) in [
        ("ok-all-three", "all members signed", by(&record, &[&members[0], &members[1], &members[2]])),
        ("ok-signed-twice", "one signature twice does no harm", twice(&quorum(of, &record))),
    ] {
        kit.case(FOLDER, "N4", slug, title, "restoration").input(input(of, &[signed])).valid();
    }
    let mut for_another = quorum(of, &record).encode();
    let other = quorum(of, &kept(of, 0, 6, 8)).encode();
    let mut wire = Cbor::parse(&for_another);
    *wire.at(1) = Cbor::parse(&other).at(1).clone();
    for_another = wire.to_vec();
    let of_a_charter = {
        let mut wire = Cbor::parse(&by(&record, &[&members[0]]).encode());
        let signature = sign(&members[1], Domain::Charter, by(&record, &[]).hash().0.to_vec());
        let Cbor::Array(signatures) = wire.at(1) else { panic!() };
        signatures.push(Cbor::Bytes(signature));
        wire.to_vec()
    };
    for (slug, title, bytes) in [
        ("one-of-three", "one member signed of three", by(&record, &[&members[0]]).encode()),
        ("one-member-twice", "one member's signature twice", twice(&by(&record, &[&members[0]])).encode()),
        (
            "stranger",
            "somebody signed who is no member",
            by(&record, &[&members[0], &members[1], &world().stranger]).encode(),
        ),
        ("node", "a node signed in place of its member", by(&record, &[&members[0], &world().nodes[1]]).encode()),
        ("for-another-record", "the signatures of another record", for_another),
        ("for-another-purpose", "a signature as of a charter", of_a_charter),
        ("nobody", "nobody signed", by(&record, &[]).encode()),
    ] {
        let mut input = input(of, &[]);
        input["records"] = json!([h(bytes)]);
        kit.case(FOLDER, "N4", slug, title, "restoration").input(input).invalid();
    }
}

fn twice(signed: &SignedRestoration) -> SignedRestoration {
    let mut wire = Cbor::parse(&signed.encode());
    let Cbor::Array(signatures) = wire.at(1) else { panic!() };
    signatures.push(signatures[0].clone());
    SignedRestoration::decode(&wire.to_vec()).unwrap()
}

/// What a reader remembers, and where records lead it.
fn followed(kit: &mut Kit) {
    let of = &world().one;
    let leads = |records: &[Restoration], remembered: (u32, u64), shown: (u32, u64)| {
        let records: Vec<_> = records.iter().map(|record| quorum(of, record)).collect();
        let mut input = input(of, &records);
        let (incarnation, size) = remembered;
        input["remembered"] = json!({"incarnation": incarnation, "size": size, "root": h(tree(size).root().0)});
        input["shown"] = json!(noted(of, shown.0, shown.1));
        input
    };
    // What was kept twice over: 5 of the first log, then 7 of the second.
    let chain = [kept(of, 0, 5, 8), kept(of, 1, 7, 7), kept(of, 2, 3, 7)];
    for (rule, slug, title, input) in [
        ("N6", "ok-nothing-lost", "less was remembered than was kept", leads(&chain[..1], (0, 4), (1, 9))),
        (
            "N6",
            "ok-just-kept",
            "just that was remembered which was kept, and nothing came since",
            leads(&chain[..1], (0, 5), (1, 5)),
        ),
        ("N6", "ok-lost", "two leaves that were seen are lost", leads(&chain[..1], (0, 7), (1, 9))),
        (
            "N5",
            "ok-three-in-a-row",
            "three restorations, two of which lost what was remembered",
            leads(&chain, (0, 6), (3, 4)),
        ),
        ("N5", "ok-from-the-middle", "from the second incarnation on", leads(&chain[1..], (1, 2), (3, 3))),
    ] {
        kit.case(FOLDER, rule, slug, title, "restoration").input(input).valid();
    }
    let peaks = h(Peaks::default().root().0);
    let mut rewritten = leads(&chain[..1], (0, 5), (1, 9));
    rewritten["remembered"]["root"] = peaks;
    let mut wrong_end = leads(&chain[..1], (0, 4), (1, 5));
    let other = Checkpoint { root: Hash([9; 32]), ..checkpoint(of, 1, 5) };
    wrong_end["shown"] = json!(note(&other, &[0, 1]).to_string());
    let mut left_behind = leads(&chain[..1], (0, 4), (1, 9));
    left_behind["remembered"]["charter"] = json!(2);
    let earlier = Restoration { at: UnixMs(chain[0].at.0 - 1), ..chain[1].clone() };
    for (rule, slug, title, input) in [
        ("N5", "no-record", "another incarnation without a record", leads(&[], (0, 4), (1, 9))),
        ("N5", "back", "an earlier incarnation than is remembered", leads(&[], (1, 4), (0, 9))),
        (
            "N5",
            "begins-later",
            "the record of the incarnation after the remembered one",
            leads(&chain[1..2], (0, 4), (2, 9)),
        ),
        (
            "N5",
            "one-is-missing",
            "a record is missing between two",
            leads(&[chain[0].clone(), chain[2].clone()], (0, 4), (3, 9)),
        ),
        (
            "N5",
            "ends-early",
            "the log that is shown is of a later incarnation than the last record begins",
            leads(&chain[..1], (0, 4), (2, 9)),
        ),
        (
            "N5",
            "in-another-order",
            "two records in the wrong order",
            leads(&[chain[1].clone(), chain[0].clone()], (0, 4), (2, 9)),
        ),
        (
            "N5",
            "time-goes-back",
            "the second record was made before the first",
            leads(&[chain[0].clone(), earlier], (0, 4), (2, 9)),
        ),
        ("N5", "earlier-charter", "signed under an earlier charter than the log was seen under", left_behind),
        ("N6", "other-root", "what was kept is not what was remembered", rewritten),
        (
            "N6",
            "less-than-was-kept",
            "a restored log that is shorter than what was kept",
            leads(&chain[..1], (0, 4), (1, 4)),
        ),
        ("N6", "not-what-was-kept", "a restored log as long as what was kept, with another root", wrong_end),
    ] {
        kit.case(FOLDER, rule, slug, title, "restoration").input(input).invalid();
    }
}
