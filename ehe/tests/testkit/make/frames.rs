//! W: messages in their frames.

use ehe::id::Nonce;
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
        ("charter", Request::Charter),
        ("status", Request::Status),
        ("restorations", Request::Restorations(3, 7)),
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
    };
    let member =
        |node, votes, applied: Option<u64>| GroupNode { node, votes, applied, heard_ms: applied, faulted: false };
    let (other, doing) = (ehe::id::NodeId([2; 8]), Some("waits".to_owned()));
    let of_all = NodeStatus {
        groups: Some(vec![
            GroupStatus {
                shard: 0,
                charter: 2,
                leader: Some(node),
                nodes: vec![member(node, true, Some(2)), member(other, false, None)],
                doing,
            },
            GroupStatus { shard: 1, charter: 0, leader: None, nodes: vec![], doing: None },
        ]),
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
    for (slug, message) in [
        ("submitted", Response::Submitted(Submitted { receipt: log.receipt(0), control_seq: 4 })),
        ("known", Response::Known(vec![KnownRun { run, receipt: log.receipt(0) }])),
        ("refused", Response::Refused(Refusal::StrandGap)),
        ("ask-node", Response::AskNode(node)),
        ("item", Response::Item(Item { leaf: log.leaves[0].clone(), run: None, events: vec![], access: None })),
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
        ("status", Response::Status(status)),
        ("status-of-all-shards", Response::Status(of_all)),
        ("status-scrub", Response::Status(scrubbed)),
        ("wrap", Response::Wrap(wrap.event().clone())),
        ("restorations", Response::Restorations(vec![restoration().encode().into()])),
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
