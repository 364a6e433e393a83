//! Nodes that show a room's control records, and not the newest of them.

use std::sync::Arc;

use ehe::vital::Category;

use super::world::World;

#[tokio::test(flavor = "multi_thread")]
async fn what_one_node_leaves_out_of_the_control_records_another_one_brings_to_light() {
    let world = World::new(3);
    let (mut patient, ..) = world.patient();
    let before = Arc::new(world.ledger.lock().unwrap().clone());
    let body = patient.epoch(&mut world.ledger.lock().unwrap(), Category::Body, None, &[], &[]);
    // The node that is asked first has forgotten the last record, and proves everything before it.
    world.script(0, |script| script.withholds = Some(before));
    let _nodes = world.start_all();
    let home = world.home(&[patient.room]).await;
    let mut up = home.uplink();
    home.followed(patient.room).await;
    let followed = home.rooms.get(patient.room).unwrap();
    assert!(followed.room().epochs.contains_key(&body), "the newest record is here at the first look");
    let status = up.until("it was told", |s| s.records_missing == 1).await;
    assert_eq!((status.rooms_unconfirmed, status.proofs_refused), (0, 0), "it may only lag");
    up.stop().await;
    home.close();
}

#[tokio::test(flavor = "multi_thread")]
async fn records_that_no_quorum_calls_the_newest_are_used_and_the_status_says_that_they_may_be_stale() {
    let world = World::new(3);
    let (patient, ..) = world.patient();
    (1..3).for_each(|node| world.script(node, |script| script.headless = true));
    let _nodes = world.start_all();
    let home = world.home(&[patient.room]).await;
    let mut up = home.uplink();
    home.followed(patient.room).await;
    let status = up.until("it was told", |s| s.rooms_unconfirmed > 0).await;
    let why = status.last_failure.unwrap();
    assert!(why.contains("stale: 1 of 2 members"), "{why}");
    // Readings go on.
    home.fill(patient.room, 3).await;
    up.until("confirmed", |s| s.readings_confirmed == 3).await;
    up.stop().await;
    home.close();
}
