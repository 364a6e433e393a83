//! Asking several nodes: the next one where one fails, the right one where one says who it is.
use std::time::Duration;

use crate::support::{World, liar};
use certs::Role;
use ehe::id::{NodeId, Nonce, RoomId};
use ehe::refusal::Refusal;
use ehe::wire::{Request, Response};
use ehe_reader::Error;
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
