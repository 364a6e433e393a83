//! E: one encoding for each value; each structure once, and each way to write one wrongly.

use ehe::cbor;
use ehe::charter::CharterChain;
use ehe::control::{Authority, Change, Control, Ending, EpochCategory, GrantNote, Private, Right, Rights};
use ehe::id::{Hash, Nonce};
use ehe::read::AccessRecord;
use ehe::refusal::Refusal;
use ehe::run::{Run, SeenCheckpoint, StrandEnd};
use ehe::time::{Hour, UnixMs};
use ehe::vital::Category;
use ehe::wire::{HeadStatement, Item, Submission};
use serde_json::json;

use super::Kit;
use super::log::Log;
use super::scene::{EPOCH, EPOCH_2, Granted, Scene, create, hour};
use super::world::{person, recovery, world};
use crate::json::h;
use crate::value::{Cbor, head};

const FOLDER: &str = "encoding";

pub(super) fn cases(kit: &mut Kit) {
    structures(kit);
    broken(kit);
}

fn seen() -> SeenCheckpoint {
    SeenCheckpoint { origin: "ehe/00112233445566778899aabbccddeeff/0/1".into(), size: 7, root: Hash([7; 32]) }
}

/// A run with every member.
pub(super) fn full_run(scene: &mut Scene) -> Run {
    let event = scene.content(&world().gateway, EPOCH, ehe::id::WrapId([3; 16]), hour());
    let mut run = scene.run(&world().gateway, &[event]);
    run.seen = Some(seen());
    run.continues = Some(StrandEnd { strand: ehe::id::StrandId([4; 8]), next: 300, link: Hash([4; 32]) });
    run
}

fn structures(kit: &mut Kit) {
    let mut scene = Scene::room(Granted::Both);
    let log = Log::of(&scene);
    let content = scene.content(&world().gateway, EPOCH, ehe::id::WrapId([3; 16]), hour());
    let run = full_run(&mut scene);
    let request = scene.request(&world().clinician);
    let mut full_request = request.clone();
    full_request.actor = Some(Nonce([8; 16]));
    full_request.head = Some(seen());
    let plain = |control: &Control| control.plain_bytes();
    let grant = scene.grant_record(&world().clinician, Right::Read, |g| {
        g.epochs = vec![EPOCH, EPOCH_2];
        g.from = Some(Hour(480_000));
        g.until = Some(Hour(490_000));
        g.expires = Some(UnixMs(1_770_000_000_000));
    });
    let mut epoch = scene.epoch(EPOCH_2, Some(EPOCH), vec![scene.append]);
    let seed = scene.seed_wrap(EPOCH_2, &world().patient);
    if let Control::Epoch(record) = &mut epoch {
        record.seeds.push(seed);
    }
    let revoke =
        |ending| plain(&Control::Revoke(ehe::control::Revoke { link: scene.link, grant: scene.append, ending }));
    let wrap_event = Scene::room(Granted::Both).wrap(&world().gateway, EPOCH, hour());
    let wrap = Cbor::parse(wrap_event.body()).at(0).bytes().clone();
    let private = Private {
        categories: vec![
            EpochCategory { epoch: EPOCH, category: Category::Cardiac },
            EpochCategory { epoch: EPOCH_2, category: Category::Device },
        ],
        purpose: Some("Blutdruck".into()),
        name: None,
        recovery: None,
        notes: None,
    };
    let long = Some("x".repeat(ehe::limits::LABEL_MAX_BYTES + 1));
    let long_private = Private { purpose: long.clone(), name: long.clone(), ..private.clone() };
    let mut long_charter = world().one.charter.clone();
    long_charter.alliance = long.clone().unwrap();
    long_charter.members[0].name = long.clone().unwrap();
    long_charter.nodes[0].name = "x".repeat(ehe::limits::NODE_NAME_MAX_BYTES + 1);
    for (slug, title, name, bytes) in [
        ("private", "a sealed part whose texts have 201 bytes", "Private", cbor::to_vec(&long_private)),
        ("charter", "a charter whose names have 201, 201 and 129 bytes", "Charter", cbor::to_vec(&long_charter)),
    ] {
        let input = json!({"type": name, "bytes": h(bytes)});
        let title = format!("{title}: well formed; whether they are too long is asked where it is used");
        kit.case(FOLDER, "E3", &format!("ok-{slug}-long-texts"), &title, "decode").input(input).valid();
    }
    let note = GrantNote { grant: scene.append, purpose: None, name: Some("Gateway".into()) };
    let full_private =
        Private { recovery: Some(recovery().public().clone()), notes: Some(vec![note]), ..private.clone() };
    let authority = |change| plain(&Control::Authority(Authority { link: scene.link, change, seeds: vec![] }));
    let keys = person("patient's new keys").public().clone();
    let until = Some(UnixMs(1_770_000_000_000));
    let statement = HeadStatement {
        room: scene.id,
        last_leaf: Hash([1; 32]),
        log_size: 1,
        at: UnixMs(scene.now),
        nonce: Nonce([2; 16]),
    };
    let record = |refused, reader| AccessRecord {
        request: request.sign(&world().clinician),
        refused,
        reader,
        count: 1,
        at: UnixMs(scene.now),
    };
    let signed = run.sign(&world().gateway);
    let submission = Submission { run: signed.clone(), events: vec![content.event().clone()] };
    for (slug, title, name, bytes) in [
        ("identity", "a public identity", "PublicIdentity", cbor::to_vec(world().patient.public())),
        ("core", "a core", "Core", cbor::to_vec(content.core())),
        ("header", "a header", "Header", content.event().header.clone()),
        ("event", "an event", "Event", cbor::to_vec(content.event())),
        ("run", "a run with every member", "Run", cbor::to_vec(&run)),
        ("room-create", "the plain part of room-create", "RoomCreate", plain(&Control::RoomCreate(create()))),
        ("epoch", "the plain part of an epoch with a seed", "EpochRecord", plain(&epoch)),
        ("grant", "the plain part of a grant with every bound", "Grant", plain(&grant)),
        ("revoke-cut", "the plain part of a revocation", "Revoke", revoke(Ending::Cut)),
        ("revoke-drain", "the plain part of a draining revocation", "Revoke", revoke(Ending::DrainUntil(UnixMs(1)))),
        ("wrap", "the plain part of a wrap", "WrapRecord", wrap),
        ("private", "what a sealed part opens to", "Private", cbor::to_vec(&private)),
        ("private-full", "a sealed part with every member", "Private", cbor::to_vec(&full_private)),
        (
            "rotate",
            "an authority record that rotates",
            "Authority",
            authority(Change::Rotate(keys.clone(), vec![1; 9])),
        ),
        (
            "delegate",
            "an authority record that delegates",
            "Authority",
            authority(Change::Delegate(keys.clone(), Rights::GRANT, None)),
        ),
        (
            "delegate-until",
            "a delegation with an end",
            "Authority",
            authority(Change::Delegate(keys.clone(), Rights::EPOCH, until)),
        ),
        ("withdraw", "an authority record that withdraws", "Authority", authority(Change::Withdraw(keys.author_id()))),
        (
            "set-recovery",
            "an authority record that sets recovery",
            "Authority",
            authority(Change::SetRecovery(keys.commitment())),
        ),
        (
            "recover",
            "an authority record that recovers",
            "Authority",
            authority(Change::Recover {
                recovery: recovery().public().clone(),
                keys: keys.clone(),
                possession: vec![1; 9],
                next: Hash::ZERO,
                distrusted_from: Some(3),
            }),
        ),
        ("hand-over", "an authority record that hands over", "Authority", authority(Change::HandOver)),
        ("request", "a read request", "ReadRequest", cbor::to_vec(&request)),
        ("request-full", "a read request with every member", "ReadRequest", cbor::to_vec(&full_request)),
        ("access", "the record of a read", "AccessRecord", record(None, None).to_vec()),
        (
            "access-refused",
            "the record of a stranger's refused read",
            "AccessRecord",
            record(Some(Refusal::NotInvited), Some(world().clinician.public().clone())).to_vec(),
        ),
        ("leaf", "a leaf", "Leaf", cbor::to_vec(&log.leaves[0])),
        ("receipt", "a receipt", "Receipt", cbor::to_vec(&log.receipt(0))),
        ("head", "a head", "Head", cbor::to_vec(&log.head(Nonce([6; 16])))),
        ("head-statement", "what a head's signature is over", "HeadStatement", cbor::to_vec(&statement)),
        ("submission", "a submission", "Submission", cbor::to_vec(&submission)),
        ("item", "an item of a run", "Item", cbor::to_vec(&log.item(0))),
        (
            "item-leaf",
            "an item that is its leaf alone",
            "Item",
            cbor::to_vec(&Item { leaf: log.leaves[0].clone(), run: None, events: vec![], access: None, void: None }),
        ),
        ("charter", "a charter", "Charter", world().one.charter.to_bytes()),
        ("signed-charter", "a charter with its signatures", "SignedCharter", world().one.signed.encode()),
        ("charter-chain", "a chain of charters", "CharterChain", world().three.chain()),
        (
            "charter-chain-empty",
            "a chain without a charter is well formed",
            "CharterChain",
            CharterChain::default().encode(),
        ),
    ] {
        let input = json!({"type": name, "bytes": h(bytes)});
        let title = format!("{title}: decodes, and encodes to the same bytes");
        kit.case(FOLDER, "E1", &format!("ok-{slug}"), &title, "decode").input(input).valid();
    }
}

fn broken(kit: &mut Kit) {
    let mut scene = Scene::room(Granted::Both);
    let event = scene.content(&world().gateway, EPOCH, ehe::id::WrapId([3; 16]), hour());
    let header = event.event().header.clone();
    let header_with = |change: &dyn Fn(&mut Cbor)| {
        let mut value = Cbor::parse(&header);
        change(&mut value);
        value.to_vec()
    };
    let core = header_with(&|_| {});
    assert_eq!(core, header);
    let long = |n: u8| Cbor::Raw(vec![0x18, n]);
    let mut indefinite = vec![0xbf];
    indefinite.extend_from_slice(&header[1..]);
    indefinite.push(0xff);
    let trailing = [header.clone(), vec![0x00]].concat();
    let run = full_run(&mut scene);
    let run_with = |change: &dyn Fn(&mut Cbor)| {
        let mut value = Cbor::parse(&cbor::to_vec(&run));
        change(&mut value);
        value.to_vec()
    };
    let chunks = |salt: &[u8]| {
        let mut out = vec![0x5f, 0x48];
        out.extend_from_slice(&salt[..8]);
        out.push(0x48);
        out.extend_from_slice(&salt[8..]);
        out.push(0xff);
        Cbor::Raw(out)
    };
    let mut tagged = vec![0xd8, 0x18];
    tagged.extend_from_slice(&header);
    let wide = |value: &mut Cbor| {
        let Cbor::Bytes(bytes) = value else { panic!() };
        let mut out = Vec::new();
        head(&mut out, 2, 0x100);
        out.truncate(1);
        out.extend_from_slice(&[0, 16]);
        out.extend_from_slice(bytes);
        *value = Cbor::Raw(out);
    };
    let delegation = |change: &dyn Fn(&mut Vec<Cbor>)| {
        let change_to = Change::Delegate(world().other.public().clone(), Rights::GRANT, None);
        let record = Authority { link: scene.link, change: change_to, seeds: vec![] };
        let mut value = Cbor::parse(&cbor::to_vec(&record));
        let Cbor::Array(items) = value.at(1) else { panic!() };
        change(items);
        value.to_vec()
    };
    for (rule, slug, title, name, bytes) in [
        (
            "E2",
            "null-at-the-end",
            "an absent last member of an array written as null",
            "Authority",
            delegation(&|items| items.push(Cbor::Null)),
        ),
        (
            "E1",
            "unknown-change",
            "a change that there is not",
            "Authority",
            delegation(&|items| items[0] = Cbor::Int(6)),
        ),
        (
            "E1",
            "array-too-long",
            "a change with a member too many",
            "Authority",
            delegation(&|items| items.extend([Cbor::Int(1), Cbor::Int(2)])),
        ),
        (
            "E1",
            "array-too-short",
            "a change with a member too few",
            "Authority",
            delegation(&|items| items.truncate(2)),
        ),
        (
            "E1",
            "long-integer",
            "the version in two bytes where one does",
            "Header",
            header_with(&|v| *v.at(0).at(0) = long(1)),
        ),
        ("E1", "long-length", "a byte string's length in three bytes", "Header", header_with(&|v| wide(v.at(0).at(8)))),
        ("E1", "indefinite-map", "a map of indefinite length", "Header", indefinite),
        (
            "E1",
            "indefinite-bytes",
            "a byte string in chunks",
            "Header",
            header_with(&|v| {
                let salt = v.at(0).at(8).bytes().clone();
                *v.at(0).at(8) = chunks(&salt);
            }),
        ),
        (
            "E1",
            "duplicate-key",
            "a key twice, with the same value",
            "Header",
            header_with(&|v| {
                let version = v.at(0).members()[0].clone();
                v.at(0).members().insert(1, version);
            }),
        ),
        (
            "E1",
            "unknown-key",
            "a key that the structure does not have",
            "Header",
            header_with(&|v| v.set(3, Cbor::Int(0))),
        ),
        ("E1", "keys-out-of-order", "keys descending", "Header", header_with(&|v| v.members().reverse())),
        ("E1", "trailing-byte", "a byte after the value", "Header", trailing),
        ("E1", "tag", "a tagged value", "Header", tagged),
        (
            "E1",
            "map-claims-too-much",
            "a map that claims 2^32 members",
            "Header",
            [&[0xbb, 0, 0, 0, 1, 0, 0, 0, 0], &header[1..]].concat(),
        ),
        (
            "E1",
            "array-claims-too-much",
            "an array that claims 2^40 items",
            "Authority",
            delegation(&|items| items[1] = Cbor::Raw(vec![0x9b, 0, 0, 1, 0, 0, 0, 0, 0])),
        ),
        (
            "E1",
            "bytes-claim-too-much",
            "a byte string that claims 2^63 bytes",
            "Header",
            header_with(&|v| *v.at(0).at(8) = Cbor::Raw(vec![0x5b, 0x80, 0, 0, 0, 0, 0, 0, 0])),
        ),
        ("E1", "text-key", "a key that is text", "Header", [&[0xa4, 0x61, 0x30, 0x00], &header[1..]].concat()),
        ("E1", "negative-key", "a key below zero", "Header", [&[0xa4, 0x20, 0x00], &header[1..]].concat()),
        (
            "E4",
            "bool-for-integer",
            "a version that is true",
            "Header",
            header_with(&|v| *v.at(0).at(0) = Cbor::Bool(true)),
        ),
        (
            "E4",
            "text-for-integer",
            "an hour as text",
            "Header",
            header_with(&|v| *v.at(0).at(7) = Cbor::Text("488888".into())),
        ),
        (
            "E4",
            "integer-for-bytes",
            "a salt that is a number",
            "Header",
            header_with(&|v| *v.at(0).at(8) = Cbor::Int(1)),
        ),
        ("E1", "truncated", "a byte too few", "Header", header[..header.len() - 1].to_vec()),
        ("E2", "null-member", "an absent member written as null", "Run", run_with(&|v| *v.at(4) = Cbor::Null)),
        (
            "E2",
            "member-missing",
            "a member that is not optional is absent",
            "Header",
            header_with(&|v| v.members().truncate(2)),
        ),
        (
            "E4",
            "integer-as-float",
            "the hour as a float",
            "Header",
            header_with(&|v| *v.at(0).at(7) = Cbor::Raw(vec![0xfa, 0x48, 0xee, 0xb7, 0x00])),
        ),
        ("E4", "short-bytes", "a room id of 15 bytes", "Header", header_with(&|v| v.at(0).at(3).bytes().truncate(15))),
        (
            "E4",
            "text-for-bytes",
            "a room id as text",
            "Header",
            header_with(&|v| *v.at(0).at(3) = Cbor::Text("0123456789abcdef".into())),
        ),
        ("E4", "version-0", "version 0: there is none", "Header", header_with(&|v| *v.at(0).at(0) = Cbor::Int(0))),
        (
            "E4",
            "version-2",
            "version 2, which is another structure (V1)",
            "Header",
            header_with(&|v| *v.at(0).at(0) = Cbor::Int(2)),
        ),
        ("E4", "negative", "a negative hour", "Header", header_with(&|v| *v.at(0).at(7) = Cbor::Int(-1))),
        ("E4", "hour-too-large", "an hour of 33 bits", "Header", header_with(&|v| *v.at(0).at(7) = Cbor::Int(1 << 32))),
        (
            "E4",
            "not-utf8",
            "an origin that is not UTF-8",
            "Run",
            run_with(&|v| *v.at(4).at(0) = Cbor::Raw(vec![0x62, 0xc3, 0x28])),
        ),
        (
            "E4",
            "array-for-map",
            "a map written as an array",
            "Header",
            header_with(&|v| {
                let members = v.members().iter().map(|(_, value)| value.clone()).collect();
                *v = Cbor::Array(members);
            }),
        ),
        ("E3", "ids-none", "a run over no event", "Run", run_with(&|v| *v.at(3) = Cbor::Bytes(vec![]))),
        ("E3", "ids-257", "a run over 257 events", "Run", run_with(&|v| *v.at(3) = Cbor::Bytes(vec![1; 257 * 32]))),
        (
            "E3",
            "ids-ragged",
            "ids of a run that are not a multiple of 32 bytes",
            "Run",
            run_with(&|v| *v.at(3) = Cbor::Bytes(vec![1; 33])),
        ),
        (
            "E3",
            "header-oversized",
            "a header of more than 512 bytes",
            "Header",
            header_with(&|v| v.set(9, Cbor::Bytes(vec![0; 400]))),
        ),
    ] {
        let input = json!({"type": name, "bytes": h(bytes)});
        kit.case(FOLDER, rule, slug, title, "decode").input(input).invalid();
    }
    // Arrays within arrays: whoever reads them by calling itself needs as deep a stack.
    for (slug, title, name, start) in [
        ("nested-arrays", "a million arrays within each other", "Item", &[][..]),
        ("nested-in-a-member", "500 arrays within each other in a member that there is not", "Header", &[0xa1, 0x09]),
        (
            "nested-in-an-array",
            "a million arrays within each other as an event",
            "Submission",
            &[0xa2, 0x00, 0x40, 0x01],
        ),
    ] {
        let input = json!({"type": name, "bytes": h(start), "nested": if name == "Header" { 500 } else { 1_000_000 }});
        kit.case(FOLDER, "E1", slug, title, "decode").input(input).invalid();
    }
}
