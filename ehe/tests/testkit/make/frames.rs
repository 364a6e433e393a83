//! W: messages in their frames.

use core::num::NonZeroU32;

use ehe::id::{Hash, Nonce};
use ehe::refusal::Refusal;
use ehe::time::UnixMs;
use ehe::wire::{
    GroupNode, GroupStatus, Head, Item, KnownRun, NodeStatus, Request, Response, RoomInfo, ScrubStatus, ShardStatus,
    Submission, Submitted,
};
use serde_json::json;

use super::Kit;
use super::log::Log;
use super::restored::restoration;
use super::scene::{EPOCH, Granted, Scene, hour};
use super::world::world;
use crate::json::h;
use crate::value::Cbor;

const FOLDER: &str = "wire";

pub(super) fn cases(kit: &mut Kit) {
    frames(kit);
}

/// One more than a node lists, and than an alliance may have: who reads an answer takes what its frame holds.
fn many(kit: &mut Kit, room: ehe::id::RoomId) {
    let info = RoomInfo { room, owner: world().patient.author_id(), grants: vec![], entries: 1 };
    let shard = |shard| ShardStatus { shard, leader: None, term: 1, applied: 0, leaves: 0, rooms: 0, faulted: false };
    let (node, at) = (ehe::id::NodeId([1; 8]), UnixMs(0));
    let status = NodeStatus {
        node,
        program: "0.1.0".into(),
        charter_version: 1,
        shards: (0..=ehe::limits::SHARDS_MAX).map(shard).collect(),
        at,
        groups: None,
        evidence: None,
        scrub: None,
        moved: None,
    };
    for (slug, title, message) in [
        ("rooms-1025", "1,025 rooms in an answer", Response::Rooms(vec![info; ehe::limits::ROOMS_PER_ANSWER_MAX + 1])),
        ("status-1025", "1,025 shards in a status", Response::Status(status)),
    ] {
        let message = message.to_vec();
        let framed = [&u32::try_from(message.len()).unwrap().to_be_bytes()[..], &message].concat();
        let input = json!({"direction": "response", "bytes": crate::json::packed(&framed)});
        kit.case(FOLDER, "W4", &format!("ok-response-{slug}"), title, "frame").input(input).valid();
    }
}

/// Members that are no numbers of their kind, and others that are not there.
fn numbers(kit: &mut Kit, status: &NodeStatus) {
    let framed = |message: Cbor| {
        let message = message.to_vec();
        [&u32::try_from(message.len()).unwrap().to_be_bytes()[..], &message].concat()
    };
    let altered = |message: &[u8], at: usize, value: Cbor| {
        let Cbor::Array(mut items) = Cbor::parse(message) else { panic!() };
        items[at] = value;
        framed(Cbor::Array(items))
    };
    let member = |key: i128, value: Option<Cbor>| {
        let Cbor::Array(mut items) = Cbor::parse(&Response::Status(status.clone()).to_vec()) else { panic!() };
        let Cbor::Map(members) = &mut items[1] else { panic!() };
        members.retain(|(number, _)| *number != key);
        members.extend(value.map(|value| (key, value)));
        framed(Cbor::Array(items))
    };
    let scrub = |members: Vec<(i128, Cbor)>| member(7, Some(Cbor::Array(vec![Cbor::Map(members)])));
    let of_group = |key: i128, value: Cbor| {
        let mut group = Cbor::Map(vec![(0, Cbor::Int(0)), (1, Cbor::Int(2)), (3, Cbor::Array(vec![]))]);
        group.set(key, value);
        member(5, Some(Cbor::Array(vec![group])))
    };
    let of_node = |known: i128| {
        let says = [(0, Cbor::Bytes(vec![2; 8])), (1, Cbor::Bool(true)), (4, Cbor::Bool(false)), (5, Cbor::Int(known))];
        of_group(3, Cbor::Array(vec![Cbor::Map(says.into())]))
    };
    let counted =
        |held: Cbor| vec![(0, Cbor::Int(0)), (1, Cbor::Int(3)), (2, Cbor::Int(3)), (3, Cbor::Int(0)), (4, held)];
    let (wide, hash) = (Cbor::Int(1 << 32), |bytes: usize| Cbor::Bytes(vec![5; bytes]));
    let charters = Request::Charter(1).to_vec();
    let (asks, shows) = (Request::Evidence(1).to_vec(), Response::Evidence(2, vec![1]).to_vec());
    let extends = Request::Extends(3, 7, 9).to_vec();
    let proof = Response::Extends(Hash([5; 32]), vec![Hash([6; 32])]).to_vec();
    for (slug, title, direction, bytes) in [
        ("charter-wide", "a version of 33 bits", "request", altered(&charters, 1, wide.clone())),
        (
            "charter-of-no-version",
            "charters are asked for, and not from which on",
            "request",
            framed(Cbor::Array(vec![Cbor::Int(6)])),
        ),
        ("evidence-wide", "a place of 33 bits", "request", altered(&asks, 1, wide.clone())),
        ("evidence-kept-wide", "a count of 33 bits", "response", altered(&shows, 1, wide.clone())),
        ("evidence-as-text", "evidence as a text", "response", altered(&shows, 2, Cbor::Text("x".into()))),
        ("status-evidence-0", "a status that counts no evidence", "response", member(6, Some(Cbor::Int(0)))),
        ("status-evidence-wide", "a count of evidence of 33 bits", "response", member(6, Some(wide))),
        ("status-evidence-null", "a count of evidence that is null", "response", member(6, Some(Cbor::Null))),
        ("status-rules-wide", "a rules version of 17 bits", "response", of_group(5, Cbor::Int(1 << 16))),
        ("status-rules-null", "a rules version in force that is null", "response", of_group(5, Cbor::Null)),
        ("status-scrub-null", "a scrub that is null", "response", member(7, Some(Cbor::Null))),
        ("status-scrub-held", "a scrub that is held by a number", "response", scrub(counted(Cbor::Int(1)))),
        (
            "status-scrub-short",
            "a scrub that does not say whether it is held",
            "response",
            scrub(counted(Cbor::Bool(true)).into_iter().take(4).collect()),
        ),
        (
            "status-unknown-member",
            "a status with a member that there is not",
            "response",
            member(9, Some(Cbor::Int(1))),
        ),
        ("status-moved-null", "what moved away that is null", "response", member(8, Some(Cbor::Null))),
        ("status-groups-map", "the shards of all nodes as a map", "response", member(5, Some(Cbor::Map(vec![])))),
        ("status-known-rules-wide", "a program that knows a rules version of 17 bits", "response", of_node(1 << 16)),
        ("extends-shard", "a shard of 17 bits", "request", altered(&extends, 1, Cbor::Int(1 << 16))),
        ("extends-negative", "a negative size", "request", altered(&extends, 2, Cbor::Int(-1))),
        ("extends-root", "a root of 31 bytes", "response", altered(&proof, 1, hash(31))),
        (
            "extends-proof",
            "a proof with a hash of 33 bytes",
            "response",
            altered(&proof, 2, Cbor::Array(vec![hash(33)])),
        ),
    ] {
        let input = json!({"direction": direction, "bytes": h(bytes)});
        kit.case(FOLDER, "W4", slug, title, "frame").input(input).invalid();
    }
}

fn frames(kit: &mut Kit) {
    let mut scene = Scene::room(Granted::Both);
    let log = Log::of(&scene);
    let framed = |message: &[u8]| [&u32::try_from(message.len()).unwrap().to_be_bytes()[..], message].concat();
    let request = scene.request(&world().clinician).sign(&world().clinician);
    let content = scene.content(&world().gateway, EPOCH, ehe::id::WrapId([3; 16]), hour());
    let run = scene.run(&world().gateway, std::slice::from_ref(&content)).sign(&world().gateway);
    let submission = Submission { run: run.clone(), events: vec![content.event().clone()] };
    let reader = world().clinician.public().clone();
    let head_of: Head = log.head(Nonce([6; 16]));
    let wrap = scene.wrap(&world().gateway, EPOCH, hour());
    let mut good = Vec::new();
    for (slug, message) in [
        ("submit", Request::Submit(submission)),
        ("fetch", Request::Fetch(request.clone(), reader.clone())),
        ("subscribe", Request::Subscribe(request, reader)),
        ("head", Request::Head(scene.id, Nonce([6; 16]))),
        ("rooms-of", Request::RoomsOf),
        ("charter", Request::Charter(1)),
        ("status", Request::Status),
        ("evidence", Request::Evidence(u32::MAX)),
        ("restorations", Request::Restorations(3, 7)),
        ("extends", Request::Extends(3, 7, 1 << 40)),
    ] {
        good.push(("request", slug, message.to_vec()));
    }
    let node = ehe::id::NodeId([1; 8]);
    let status = NodeStatus {
        node,
        program: "0.1.0".into(),
        charter_version: 1,
        shards: vec![
            ShardStatus { shard: 0, leader: Some(node), term: 1, applied: 2, leaves: 3, rooms: 1, faulted: false },
            ShardStatus { shard: 1, leader: None, term: 1, applied: 0, leaves: 0, rooms: 0, faulted: true },
        ],
        at: UnixMs(scene.now),
        groups: None,
        evidence: None,
        scrub: None,
        moved: None,
    };
    let member = |node, votes, applied: Option<u64>| GroupNode {
        node,
        votes,
        applied,
        heard_ms: applied,
        faulted: false,
        knows: None,
    };
    let (other, doing) = (ehe::id::NodeId([2; 8]), Some("waits".to_owned()));
    let of_all = NodeStatus {
        groups: Some(vec![
            GroupStatus {
                shard: 0,
                charter: 2,
                leader: Some(node),
                nodes: vec![member(node, true, Some(2)), member(other, false, None)],
                doing: doing.clone(),
                rules: None,
            },
            GroupStatus { shard: 1, charter: 0, leader: None, nodes: vec![], doing: None, rules: None },
        ]),
        ..status.clone()
    };
    let knows = |id, knows| GroupNode { knows, ..member(id, true, knows.map(u64::from)) };
    let under_rules = NodeStatus {
        groups: Some(vec![GroupStatus {
            shard: 0,
            charter: 3,
            leader: Some(node),
            nodes: vec![knows(node, Some(2)), knows(other, Some(1)), knows(ehe::id::NodeId([3; 8]), None)],
            doing: None,
            rules: Some(2),
        }]),
        ..status.clone()
    };
    let first = Some("shard 1, entry 7: it is not the entry that the log's tree has".to_owned());
    let whole = ScrubStatus {
        shard: 0,
        checked: 3,
        entries: 3,
        found: 0,
        held: false,
        ended: Some(UnixMs(scene.now)),
        took_ms: Some(12),
        first: None,
    };
    let damaged = ScrubStatus { shard: 1, found: 1, held: true, ended: None, took_ms: None, first, ..whole.clone() };
    let scrubbed = NodeStatus { scrub: Some(vec![whole, damaged]), ..status.clone() };
    let keeps = NodeStatus { evidence: NonZeroU32::new(2), ..status.clone() };
    let too_many = ehe::limits::RESTORATIONS_PER_ANSWER_MAX + 1;
    numbers(kit, &keeps);
    let kept = ehe::wire::MovedStatus { shard: 1, leaves: 7, why: "kept for 60 s more".to_owned() };
    let moved = NodeStatus { moved: Some(vec![kept]), ..status.clone() };
    let nothing =
        NodeStatus { groups: Some(vec![]), scrub: Some(vec![]), moved: Some(vec![]), shards: vec![], ..status.clone() };
    // Versions that nobody writes so: any number of 16 bits is well formed.
    let rules = |shard, rules, known| GroupStatus {
        shard,
        charter: 1,
        leader: None,
        nodes: vec![knows(node, Some(known))],
        doing: None,
        rules: Some(rules),
    };
    let any_rules =
        NodeStatus { groups: Some(vec![rules(0, 0, 0), rules(1, 1, 1), rules(2, 65_535, 65_535)]), ..status.clone() };
    for (slug, message) in [
        ("submitted", Response::Submitted(Submitted { receipt: log.receipt(0), control_seq: 4 })),
        ("known", Response::Known(vec![KnownRun { run, receipt: log.receipt(0) }])),
        ("refused", Response::Refused(Refusal::StrandGap)),
        ("ask-node", Response::AskNode(node)),
        (
            "item",
            Response::Item(Item { leaf: log.leaves[0].clone(), run: None, events: vec![], access: None, void: None }),
        ),
        ("head", Response::Head(head_of)),
        (
            "rooms",
            Response::Rooms(vec![RoomInfo {
                room: scene.id,
                owner: world().patient.author_id(),
                grants: vec![scene.append],
                entries: 1,
            }]),
        ),
        ("charter", Response::Charter(world().one.chain())),
        ("charter-none", Response::Charter(vec![0x80])),
        ("status", Response::Status(status)),
        ("status-of-all-shards", Response::Status(of_all)),
        ("status-scrub", Response::Status(scrubbed)),
        ("status-evidence", Response::Status(keeps)),
        ("status-moved", Response::Status(moved)),
        ("status-rules", Response::Status(under_rules)),
        ("status-rules-any", Response::Status(any_rules)),
        ("status-nothing", Response::Status(nothing)),
        ("wrap", Response::Wrap(wrap.event().clone())),
        ("evidence", Response::Evidence(2, vec![0x80])),
        ("evidence-none", Response::Evidence(u32::MAX, vec![])),
        ("restorations", Response::Restorations(vec![restoration().encode().into()])),
        ("restorations-17", Response::Restorations(vec![vec![].into(); too_many])),
        ("extends", Response::Extends(Hash([5; 32]), vec![Hash([6; 32]), Hash([7; 32])])),
        ("extends-65", Response::Extends(Hash([5; 32]), vec![Hash([6; 32]); ehe::limits::PROOF_HASHES_MAX + 1])),
    ] {
        good.push(("response", slug, message.to_vec()));
    }
    for (direction, slug, message) in good {
        let input = json!({"direction": direction, "bytes": h(framed(&message))});
        let title = format!("a {direction} in its frame: {slug}");
        kit.case(FOLDER, "W4", &format!("ok-{direction}-{slug}"), &title, "frame").input(input).valid();
    }
    many(kit, scene.id);
    let status = framed(&Request::Status.to_vec());
    let too_long = u32::try_from(ehe::limits::FRAME_MAX_BYTES).unwrap() + 1;
    for (slug, title, direction, bytes) in [
        (
            "length-above",
            "a length that is more than the bytes that follow",
            "request",
            [&[0, 0, 0, 3], &status[4..]].concat(),
        ),
        ("length-below", "a byte after the message", "request", [&[0, 0, 0, 2], &status[4..], &[0]].concat()),
        (
            "length-oversized",
            "a length above the limit: refused before anything is read",
            "request",
            too_long.to_be_bytes().to_vec(),
        ),
        ("unknown-request", "a request with a number that there is not", "request", framed(&[0x81, 0x18, 0x63])),
        ("unknown-response", "a response with a number that there is not", "response", framed(&[0x81, 0x18, 0x63])),
        ("unknown-refusal", "a refusal with a number that there is not", "response", framed(&[0x82, 0x03, 0x18, 0x63])),
        ("member-missing", "a request for a head without its nonce", "request", {
            let mut message = Cbor::parse(&Request::Head(scene.id, Nonce([6; 16])).to_vec());
            if let Cbor::Array(items) = &mut message {
                items.pop();
            }
            framed(&message.to_vec())
        }),
        ("not-an-array", "a map", "request", framed(&[0xa0])),
        ("empty", "nothing", "request", framed(&[])),
    ] {
        let input = json!({"direction": direction, "bytes": h(bytes)});
        kit.case(FOLDER, "W4", slug, title, "frame").input(input).invalid();
    }
    let largest = ehe::limits::FRAME_MAX_BYTES;
    for (slug, title, start) in [
        ("nested", "the largest frame, full of arrays within each other", &[][..]),
        ("nested-in-an-item", "the largest frame, an item that is arrays within each other", &[0x82, 0x05]),
    ] {
        let bytes = [&u32::try_from(largest).unwrap().to_be_bytes(), start].concat();
        let input = json!({"direction": "response", "bytes": h(bytes), "nested": largest - start.len()});
        kit.case(FOLDER, "W4", slug, title, "frame").input(input).invalid();
    }
    let (id, event) = (wrap.id(), wrap.event());
    let wrap_case = |named: ehe::id::WrapId, body: &[u8]| json!({"named": named.to_string(), "header": h(&event.header), "body": h(body)});
    let named = ehe::id::WrapId::from(id);
    kit.case(FOLDER, "W3", "ok-wrap", "a wrap whose header has the id by which content names it", "wrap_record")
        .input(wrap_case(named, &event.body))
        .valid();
    kit.case(FOLDER, "W3", "another-wrap", "a wrap in place of the one that was named", "wrap_record")
        .input(wrap_case(ehe::id::WrapId([1; 16]), &event.body))
        .invalid();
    let mut body = event.body.clone();
    let last = body.len() - 40;
    body[last] ^= 1;
    kit.case(FOLDER, "W3", "altered-wrap", "a wrap whose body was altered on the way", "wrap_record")
        .input(wrap_case(named, &body))
        .invalid();
}
