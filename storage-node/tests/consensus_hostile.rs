//! A member of the group that says what no program of ours says: nobody else is harmed, nothing is written, no group stops.

#![allow(
    missing_docs,
    unreachable_pub,
    dead_code,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

use std::{sync::atomic::Ordering, time::Duration};

use bytes::Bytes;
use ehe_node::consensus::{MAX_FRAME_BYTES, NodeId, Purpose, Role, Status};
use minicbor::Encoder;
use sha2::Digest;

mod api {
    pub use ehe_node::consensus::{
        AppliedMeta, Command, Latch, Latched, Machine, MachineError, Position, Stage, Stager, Vetting,
    };
}
#[path = "support/disk.rs"]
mod disk;
#[path = "support/hub.rs"]
mod hub;
#[path = "support/journal.rs"]
mod journal;
#[path = "support/node.rs"]
mod node;
#[path = "support/three.rs"]
mod three;

use hub::Hub;
use node::id;
use three::{Several, Writer, until};

const UID: [u8; 16] = [3; 16];
/// The one that is hostile: a voter, whose program never runs.
const HOSTILE: u64 = 3;

/// Has the others begin without having met it: its program never runs.
fn without_the_hostile(three: &Several) {
    three.up.values().for_each(|consensus| consensus.gone([NodeId(HOSTILE)].into()));
}

/// A frame: the version, and what `body` writes.
fn frame(body: impl FnOnce(&mut Encoder<Vec<u8>>)) -> Bytes {
    let mut e = Encoder::new(vec![1]);
    body(&mut e);
    e.into_writer().into()
}

fn hello(purpose: u8, to: u64) -> Bytes {
    frame(|e| {
        e.array(5).unwrap().u8(purpose).unwrap().u16(0).unwrap().u64(to).unwrap().bytes(&UID).unwrap().null().unwrap();
    })
}

fn vote(e: &mut Encoder<Vec<u8>>, term: u64, node: u64, committed: bool) {
    e.array(3).unwrap().u64(term).unwrap().u64(node).unwrap().bool(committed).unwrap();
}

fn log_id(e: &mut Encoder<Vec<u8>>, id: (u64, u64)) {
    e.array(2).unwrap().u64(id.0).unwrap().u64(id.1).unwrap();
}

/// An append of blanks with these terms behind `prev`.
fn append(by: (u64, u64, bool), prev: Option<(u64, u64)>, commit: Option<(u64, u64)>, terms: &[u64]) -> Bytes {
    frame(|e| {
        e.array(4).unwrap();
        vote(e, by.0, by.1, by.2);
        for place in [prev, commit] {
            match place {
                Some(id) => log_id(e, id),
                None => drop(e.null().unwrap()),
            }
        }
        e.array(terms.len() as u64).unwrap();
        for term in terms {
            e.array(3).unwrap().u64(*term).unwrap().u8(0).unwrap().null().unwrap();
        }
    })
}

fn ask(kind: u8, by: (u64, u64, bool), last: (u64, u64)) -> Bytes {
    frame(|e| {
        e.array(4).unwrap().u8(kind).unwrap();
        vote(e, by.0, by.1, by.2);
        log_id(e, last);
        e.bool(true).unwrap();
    })
}

fn header(by: (u64, u64, bool), last: (u64, u64)) -> Bytes {
    frame(|e| {
        e.array(3).unwrap();
        vote(e, by.0, by.1, by.2);
        log_id(e, last);
        e.array(2).unwrap();
        log_id(e, (0, 0));
        e.array(2).unwrap().array(1).unwrap().array(1).unwrap().u64(3).unwrap().array(1).unwrap().u64(3).unwrap();
    })
}

/// Says all that to node `to`, and waits until it has heard enough. What it answered.
async fn say(hub: &Hub, to: u64, frames: Vec<Bytes>) -> Vec<Bytes> {
    say_as(hub, HOSTILE, to, frames).await
}

async fn say_as(hub: &Hub, from: u64, to: u64, frames: Vec<Bytes>) -> Vec<Bytes> {
    let mut stream = hub.dial(from, to).unwrap();
    let mut heard = Vec::new();
    for frame in frames {
        if stream.sender.send(frame).await.is_err() {
            break;
        }
    }
    // Some are answered and the stream goes on: what waits for more is let go.
    stream.sender.finish();
    while let Ok(Ok(Some(frame))) =
        tokio::time::timeout(Duration::from_secs(5), stream.receiver.recv(MAX_FRAME_BYTES)).await
    {
        heard.push(frame);
    }
    heard
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hostile_member_harms_nobody_and_stops_nothing() {
    let mut three = Several::new(&[1, 2, 3], 1);
    three.nodes.remove(&HOSTILE);
    three.open_all().await;
    without_the_hostile(&three);
    let leader = three.leader(0, &[1, 2]).await;
    let follower = 3 - leader;
    let writer = Writer::start(&three, 0, 0, 0);
    writer.more(100).await;
    let term = three.status(leader, 0).term;
    // Far enough that none of these attempts brings it into reach: each one that is refused counts a little.
    let (mine, far) = ((term + 1, HOSTILE, true), term + (1 << 40));
    let last = three.status(follower, 0).applied.unwrap().index;
    // What a machine takes: one command of no bytes. And ends, of nothing and of that, that fit.
    let state = [0; 24];
    let piece = Bytes::from([&[1][..], &state].concat());
    let end =
        |of: &[u8]| Bytes::from([&[0][..], &(of.len() as u64).to_be_bytes(), &sha2::Sha256::digest(of)[..]].concat());
    let other_hash = Bytes::from([&end(&state)[..9], &[0; 32]].concat());
    let other_length = Bytes::from([&[0; 9][..], &end(&state)[9..]].concat());

    let mut attacks: Vec<(&str, Vec<Bytes>)> = vec![
        ("nothing", vec![]),
        ("an empty frame", vec![Bytes::new()]),
        ("noise", vec![Bytes::from(vec![0x9b; 900])]),
        ("a long first frame", vec![Bytes::from(vec![1; MAX_FRAME_BYTES])]),
        ("another version", vec![Bytes::from_static(b"\x02\x85")]),
        ("another node's hello", vec![hello(0, 77)]),
        ("noise for an append", vec![hello(0, 0), Bytes::from(vec![1; MAX_FRAME_BYTES])]),
        ("another's vote", vec![hello(0, 0), append((term + 1, 1, true), None, None, &[])]),
        ("a candidate that leads", vec![hello(0, 0), append((term + 1, 3, false), None, None, &[])]),
        ("a term out of reach", vec![hello(0, 0), append((far, 3, true), None, None, &[])]),
        ("entries from beyond its term", vec![hello(0, 0), append(mine, None, None, &[term + 2])]),
        ("terms that fall", vec![hello(0, 0), append(mine, Some((term, last)), None, &[term + 1, term])]),
        ("another past", vec![hello(0, 0), append(mine, Some((term + 1, 5)), None, &[])]),
        ("a commit that cannot be", vec![hello(0, 0), append(mine, None, Some((term + 1, 5)), &[])]),
        ("an index at the end of all", vec![hello(0, 0), append(mine, Some((0, u64::MAX)), None, &[0, 0])]),
        ("entries in a heartbeat", vec![hello(1, 0), append(mine, Some((term, last)), None, &[term])]),
        ("a long heartbeat", vec![hello(1, 0), Bytes::from(vec![1; 100_000])]),
        ("noise for a request", vec![hello(2, 0), Bytes::from(vec![0xff; 1000])]),
        ("another's candidature", vec![hello(2, 0), ask(0, (term + 1, 1, false), (term, 1 << 40))]),
        ("a leader that is a candidate", vec![hello(2, 0), ask(0, (term + 1, 3, true), (term, 1 << 40))]),
        ("a candidate out of reach", vec![hello(2, 0), ask(0, (far, 3, false), (term, 1 << 40))]),
        ("a handing over by who does not lead", vec![hello(2, 0), ask(2, (term, 1, true), (term, last))]),
        ("noise for a snapshot", vec![hello(3, 0), Bytes::from(vec![0xff; 10_000])]),
        ("another's snapshot", vec![hello(3, 0), header((term + 1, 1, true), (term, last + 100)), end(&[])]),
        ("a snapshot from beyond its term", vec![hello(3, 0), header(mine, (term + 2, last + 100)), end(&[])]),
        ("a snapshot of another past", vec![hello(3, 0), header(mine, (term + 1, 5)), end(&[])]),
        ("a snapshot that ends early", vec![hello(3, 0), header(mine, (term, 1 << 30)), piece.clone()]),
        ("a snapshot whose hash is wrong", vec![hello(3, 0), header(mine, (term, 1 << 30)), piece.clone(), other_hash]),
        (
            "a snapshot whose length is wrong",
            vec![hello(3, 0), header(mine, (term, 1 << 30)), piece.clone(), other_length],
        ),
        (
            "a snapshot that the machine cannot read",
            vec![hello(3, 0), header(mine, (term, 1 << 30)), Bytes::from_static(b"\x01xxx"), end(b"xxx")],
        ),
        (
            "a snapshot in pieces of no kind",
            vec![hello(3, 0), header(mine, (term, 1 << 30)), Bytes::from_static(b"\x07")],
        ),
        ("a snapshot in long pieces", vec![hello(3, 0), header(mine, (term, 1 << 30)), Bytes::from(vec![1; 3 << 20])]),
    ];
    for (what, frames) in &mut attacks {
        for to in [leader, follower] {
            let frames: Vec<Bytes> = frames
                .iter()
                .enumerate()
                .map(|(at, frame)| {
                    // A hello to whoever it is said to.
                    let first = at == 0 && frame.len() == 23 && frame[4] == 0;
                    if first { hello(frame[2], to) } else { frame.clone() }
                })
                .collect();
            let heard = say(&three.hub, to, frames).await;
            // A welcome, that a snapshot was none, that a log does not match: never that something was taken.
            assert!(heard.iter().skip(1).all(|frame| frame[..] == [1, 0x81, 1]), "{what}: {heard:?}");
            writer.more(2).await;
            for id in [leader, follower] {
                let status = three.status(id, 0);
                assert!(status.fault.is_none() && status.role != Role::Stopped, "{what}: {status:?}");
                assert_eq!(status.term, term, "{what}");
            }
        }
    }
    until("all was noticed", || (three.hub.faults().len() >= 40).then_some(())).await;
    let acknowledged = writer.stop().await;
    let states = three.close(0).await;
    node::assert_contains(&states[&leader], &acknowledged);
    assert!(Purpose::Snapshot.priority() < Purpose::Append.priority());
}

/// Whoever leads may say of any state that it goes up to any place. Sound in itself, it would have a node let go of what it has confirmed.
#[tokio::test(flavor = "multi_thread")]
async fn a_state_that_has_less_than_the_nodes_own_is_not_installed() {
    let mut three = Several::new(&[1, 2, 3], 1);
    three.nodes.remove(&HOSTILE);
    three.open_all().await;
    without_the_hostile(&three);
    let leader = three.leader(0, &[1, 2]).await;
    let writer = Writer::start(&three, 0, 0, 0);
    writer.more(50).await;
    let term = three.status(leader, 0).term;
    // One command of no bytes.
    let state = [0; 24];
    let piece = Bytes::from([&[1][..], &state].concat());
    let end = [&[0][..], &(state.len() as u64).to_be_bytes(), &sha2::Sha256::digest(state)[..]].concat();
    for to in [3 - leader, leader] {
        let header = header((term + 1, HOSTILE, true), (term, 1 << 30));
        let frames = vec![hello(3, to), header, piece.clone(), Bytes::from(end.clone())];
        let heard = say(&three.hub, to, frames).await;
        assert_eq!(heard.get(1).map(|frame| &frame[..]), Some(&[1, 0x81, 1][..]), "{heard:?}");
        assert_eq!(three.nodes[&to].probes[0].staged.load(Ordering::SeqCst), 1, "it came as far as that");
        assert_eq!(three.nodes[&to].probes[0].adopted.load(Ordering::SeqCst), 0);
        assert!(three.status(to, 0).fault.is_none(), "and nothing stops for it");
    }
    writer.more(5).await;
    let acknowledged = writer.stop().await;
    let states = three.close(0).await;
    node::assert_contains(&states[&leader], &acknowledged);
}

/// It leads, says it, and what it orders is well-formed: that it alone be the group from now on.
#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_makes_itself_the_group_is_not_followed() {
    let mut three = Several::new(&[1, 2, 3], 1);
    three.nodes.remove(&HOSTILE);
    three.open_all().await;
    without_the_hostile(&three);
    let leader = three.leader(0, &[1, 2]).await;
    for consensus in three.up.values() {
        consensus.judge_members(id(0), Box::new(|lists| lists.iter().all(|list| list.len() > 1)));
    }
    let writer = Writer::start(&three, 0, 0, 0);
    writer.more(20).await;
    let term = three.status(leader, 0).term;
    let mine = (term + 1, HOSTILE, true);
    let state = [0; 24];
    let piece = Bytes::from([&[1][..], &state].concat());
    let end = [&[0][..], &(state.len() as u64).to_be_bytes(), &sha2::Sha256::digest(state)[..]].concat();
    for to in [3 - leader, leader] {
        let snapshot = vec![hello(3, to), header(mine, (term, 1 << 30)), piece.clone(), Bytes::from(end.clone())];
        let heard = say(&three.hub, to, snapshot).await;
        assert!(heard.iter().skip(1).all(|frame| frame[..] == [1, 0x81, 1]), "it is not taken: {heard:?}");
        let last = three.status(to, 0).applied.unwrap();
        let members = frame(|e| {
            e.array(4).unwrap();
            vote(e, mine.0, mine.1, mine.2);
            log_id(e, (last.term, last.index));
            e.null().unwrap().array(1).unwrap().array(3).unwrap().u64(term + 1).unwrap().u8(2).unwrap();
            e.array(2).unwrap().array(1).unwrap().array(1).unwrap().u64(3).unwrap().array(1).unwrap().u64(3).unwrap();
        });
        let heard = say(&three.hub, to, vec![hello(0, to), members]).await;
        assert_eq!(heard.len(), 1, "a welcome, and no answer: {heard:?}");
        let status = three.status(to, 0);
        assert_eq!((status.voters, status.changing), (three::voters(&[1, 2, 3]), false));
        writer.more(5).await;
    }
    let acknowledged = writer.stop().await;
    let states = three.close(0).await;
    node::assert_contains(&states[&leader], &acknowledged);
}

/// A node of the alliance that has no part in this group, though it may have in others of this node.
#[tokio::test(flavor = "multi_thread")]
async fn whoever_is_not_of_the_group_is_not_listened_to() {
    const STRANGER: u64 = 9;
    let mut three = Several::new(&[1, 2, 3], 1);
    three.open_all().await;
    let leader = three.leader(0, &[1, 2, 3]).await;
    let term = three.status(leader, 0).term;
    let by = (term + 1, STRANGER, false);
    for (purpose, said) in [
        (0, append((term + 1, STRANGER, true), None, None, &[])),
        (1, append((term + 1, STRANGER, true), None, None, &[])),
        (2, ask(0, by, (term, 1 << 40))),
        (3, header((term + 1, STRANGER, true), (term, 1 << 40))),
    ] {
        let heard = say_as(&three.hub, STRANGER, leader, vec![hello(purpose, leader), said]).await;
        assert_eq!(heard.len(), 1, "{purpose}: sent away, and nothing answered: {heard:?}");
    }
    assert_eq!(three.status(leader, 0).term, term);
    assert_eq!(three.status(leader, 0).role, Role::Leader);
    three.close(0).await;
}

/// A stream that is opened and then says nothing costs a little memory, and one of a kind: the next ends it.
#[tokio::test(flavor = "multi_thread")]
async fn whoever_is_let_go_is_not_listened_to_on_a_stream_that_it_has_open() {
    let mut three = Several::new(&[1, 2, 3], 1);
    three.nodes.remove(&HOSTILE);
    three.open_all().await;
    without_the_hostile(&three);
    let leader = three.leader(0, &[1, 2]).await;
    let term = three.status(leader, 0).term;
    // A member, it has said hello, and is welcome. Then the members go on without it.
    let mut stream = three.hub.dial(HOSTILE, leader).unwrap();
    stream.sender.send(hello(0, leader)).await.unwrap();
    let welcome = stream.receiver.recv(MAX_FRAME_BYTES).await.unwrap();
    assert!(welcome.is_some());
    let stay = [1, 2].map(NodeId).into();
    three.up[&leader].change_voters(id(0), &stay).await.unwrap();
    let gone = |it: &Status| it.voters == stay && !it.changing && it.applied.map(|at| at.index) == it.last_index;
    let last = three.up[&leader].wait(id(0), Duration::from_secs(10), gone).await.unwrap().applied.unwrap();
    // It was elected, it says.
    let claim = append((term + 1, HOSTILE, true), Some((last.term, last.index)), None, &[term + 1]);
    let _ = stream.sender.send(claim).await;
    let heard = tokio::time::timeout(Duration::from_secs(10), stream.receiver.recv(MAX_FRAME_BYTES)).await.unwrap();
    assert!(!matches!(heard, Ok(Some(_))), "it is answered: {heard:?}");
    let status = three.status(leader, 0);
    assert_eq!((status.term, status.role), (term, Role::Leader), "nobody follows it");
    three.close(0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_that_are_opened_and_left_do_not_gather() {
    let mut three = Several::new(&[1, 2, 3], 1);
    three.nodes.remove(&HOSTILE);
    three.open_all().await;
    without_the_hostile(&three);
    let leader = three.leader(0, &[1, 2]).await;
    let tasks = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
    let before = tasks();
    let mut left = Vec::new();
    for round in 0..200_u8 {
        let mut stream = three.hub.dial(HOSTILE, leader).unwrap();
        stream.sender.send(hello([0, 1, 3][usize::from(round % 3)], leader)).await.unwrap();
        stream.receiver.recv(100).await.unwrap().unwrap();
        left.push(stream);
    }
    until("only the last of each kind is left", || (tasks() <= before + 16).then_some(())).await;
    drop(left);
    three.close(0).await;
}
