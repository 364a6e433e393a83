//! Asking several nodes: the next one where one fails, the right one where one says who it is.
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use crate::support::{World, liar};
use certs::Role;
use ehe::id::{NodeId, Nonce, RoomId};
use ehe::refusal::Refusal;
use ehe::wire::{Request, Response};
use ehe_reader::Error;
use ehe_reader::error::Made;
use ehe_reader::nodes::Nodes;

const NAMES: [&str; 3] = ["first", "second", "third"];

fn world() -> (World, Vec<NodeId>) {
    let world = World::with_nodes(&NAMES, &[("doctor", Role::Clinician)]);
    let ids = NAMES.iter().map(|name| world.credentials(name).peer().node().unwrap()).collect();
    (world, ids)
}

async fn ask(world: &World, patience_ms: u64) -> Result<(String, Response), Error> {
    let mut nodes = Nodes::new(world.credentials("doctor"), Duration::from_millis(patience_ms))?;
    ask_with(&mut nodes).await
}

async fn ask_with(nodes: &mut Nodes) -> Result<(String, Response), Error> {
    let mut answers = nodes.ask(RoomId([1; 16]), || Request::Head(RoomId([1; 16]), Nonce([2; 16]))).await?;
    let response = answers.next().await?;
    Ok((answers.node().to_owned(), response))
}

#[tokio::test(flavor = "multi_thread")]
async fn where_one_node_is_away_and_one_points_on_the_right_one_answers() {
    let (world, ids) = world();
    liar::parrot(&world, "second", 1, Response::AskNode(ids[2]));
    liar::parrot(&world, "third", 2, Response::Rooms(vec![]));
    let mut nodes = Nodes::new(world.credentials("doctor"), Duration::from_secs(20)).unwrap();
    assert_eq!(ask_with(&mut nodes).await.unwrap(), ("third.example".into(), Response::Rooms(vec![])));
    // Who was away is not waited for a second time.
    let again = tokio::time::timeout(Duration::from_secs(3), ask_with(&mut nodes)).await;
    assert_eq!(again.unwrap().unwrap().0, "third.example");
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_that_point_to_each_other_are_no_answer_and_no_endless_way() {
    let (world, ids) = world();
    liar::parrot(&world, "first", 0, Response::AskNode(ids[1]));
    liar::parrot(&world, "second", 1, Response::AskNode(ids[0]));
    liar::parrot(&world, "third", 2, Response::AskNode(NodeId([9; 8])));
    let failed = ask(&world, 300).await.unwrap_err();
    assert!(matches!(&failed, Error::NoNode { .. }), "{failed}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_without_a_leader_is_asked_again_elsewhere_and_a_refusal_by_rights_is_final() {
    let (world, _) = world();
    for (place, name) in NAMES.iter().enumerate() {
        let refusal = if place == 2 { Refusal::NotInvited } else { Refusal::NoLeader };
        liar::parrot(&world, name, place, Response::Refused(refusal));
    }
    assert!(matches!(ask(&world, 20_000).await, Err(Error::Refused(Refusal::NotInvited))));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_answer_to_the_request_is_said() {
    let (world, _) = world();
    for (place, name) in NAMES.iter().enumerate() {
        liar::parrot(&world, name, place, Response::Charter(vec![1, 2, 3]));
    }
    let room = "09090909090909090909090909090909";
    let ran = world.ehe("doctor", &format!("read --room {room}")).await;
    assert_eq!((ran.exit, ran.out.as_str()), (1, ""));
    assert!(ran.err.contains("gave an answer that is not one to this request: charters"), "{}", ran.err);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_is_gone_costs_a_moment_and_not_the_time_that_reaching_a_node_may_take() {
    let (world, ids) = world();
    liar::parrot(&world, "second", 1, Response::Rooms(vec![]));
    liar::parrot(&world, "third", 2, Response::Rooms(vec![]));
    let mut nodes = Nodes::new(world.credentials("doctor"), Duration::from_secs(20)).unwrap();
    // Five seconds are what a single node gets.
    let answered = tokio::time::timeout(Duration::from_secs(4), ask_with(&mut nodes)).await;
    assert_eq!(answered.unwrap().unwrap().0, "second.example");
    let mut order = ids.clone();
    nodes.by_answering(&mut order);
    assert_eq!(order, [ids[1], ids[2], ids[0]], "who did not answer is asked last");
    // All are asked: the one that is away is waited for once.
    let all = async {
        nodes.reach_all(&ids).await;
        nodes.ask_node(ids[0], &Request::Status).await.err().unwrap()
    };
    let why = tokio::time::timeout(Duration::from_secs(4), all).await.unwrap();
    assert!(why.to_string().starts_with("first.example: no answer at 127.0.0.1:"), "{why}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_is_put_to_one_node_after_the_other_and_never_to_two_at_once() {
    let (world, _) = world();
    let asked: Vec<_> =
        (0..3).map(|place| liar::counting(&world, NAMES[place], place, Response::Rooms(vec![]))).collect();
    let mut made = 0;
    let mut nodes = Nodes::new(world.credentials("doctor"), Duration::from_secs(20)).unwrap();
    let head = || {
        made += 1;
        Request::Head(RoomId([1; 16]), Nonce([2; 16]))
    };
    nodes.ask(RoomId([1; 16]), head).await.unwrap();
    assert_eq!((made, asked.iter().map(|node| node.load(SeqCst)).sum::<usize>()), (1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_waited_in_vain_for_the_time_that_was_given_only_looks_once_more_and_knows_that_nothing_was_sent() {
    let (world, _) = world();
    let mut nodes = Nodes::new(world.credentials("doctor"), Duration::from_secs(3)).unwrap();
    let mut given = Vec::new();
    for _ in 0..2 {
        let failed = ask_with(&mut nodes).await.unwrap_err();
        assert!(failed.never_sent() && failed.made() == Made::Not, "{failed}");
        let Error::NoNode { why, waited, .. } = failed else { panic!("{failed}") };
        assert_eq!(why.len(), 3, "{why:?}");
        given.push(waited);
    }
    assert_eq!(given, [Some(Duration::from_secs(3)), Some(Duration::from_secs(2))]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_room_for_which_no_node_is_there_was_not_made_and_nobody_is_left_in_doubt() {
    let world = World::new(&[("patient", Role::Patient)]);
    let ran = world.ehe("patient", "--timeout 1 room create").await;
    assert_eq!((ran.exit, ran.out.as_str()), (1, ""), "{ran:?}");
    assert!(ran.err.contains("this recovery key was not used: nothing was sent"), "{ran:?}");
    assert!(ran.err.contains("no node could answer within 1 s") && !ran.err.contains("could NOT"), "{ran:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listing_is_whole_without_a_node_that_is_away_and_says_which() {
    let (world, _) = world();
    liar::parrot(&world, "second", 1, Response::Rooms(vec![]));
    liar::parrot(&world, "third", 2, Response::Rooms(vec![]));
    let listed = world.ehe("doctor", "rooms").await;
    assert_eq!((listed.exit, listed.out.lines().count(), listed.err.lines().count()), (0, 1, 1), "{listed:?}");
    let said = "first.example did not tell its rooms: no answer at";
    assert!(listed.err.contains(said) && listed.err.contains("the list is whole"), "{listed:?}");
}
