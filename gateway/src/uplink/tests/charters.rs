//! Charters that are longer than a frame, and nodes that do not show theirs as they should.

use super::world::{CharterLie, World};

#[tokio::test(flavor = "multi_thread")]
async fn charters_that_fit_no_answer_come_in_several_and_stay_after_a_restart() {
    let mut world = World::with_members(64, 1);
    let (patient, ..) = world.patient();
    (0..12).for_each(|_| world.next_charter());
    assert!(world.chain.encode().len() > ehe::limits::FRAME_MAX_BYTES);
    let _nodes = world.start_all();
    let home = world.home(&[patient.room]).await;
    let mut up = home.uplink();
    home.followed(patient.room).await;
    home.fill(patient.room, 1).await;
    let status = up.until("confirmed", |s| s.readings_confirmed == 1).await;
    assert_eq!((status.charter_version, status.proofs_refused), (13, 0));
    up.stop().await;
    let kept = std::fs::read(home.evidence().with_file_name("charters")).unwrap();
    assert!(kept == world.chain.encode());
    home.close();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_does_not_show_its_charters_as_they_follow_each_other_is_refused() {
    for (lie, why) in [
        (CharterLie::ForEver, "the number of versions in the chain is 257"),
        (CharterLie::FromTheFirst, "version 1 where version 3 follows"),
        (CharterLie::Nothing, "charter"),
    ] {
        let mut world = World::new(1);
        let (patient, ..) = world.patient();
        let _nodes = world.start_all();
        let home = world.home(&[patient.room]).await;
        let mut up = home.uplink_within(500, 0);
        home.followed(patient.room).await;
        world.next_charter();
        world.script(0, |script| script.charters_lie = Some(lie));
        home.fill(patient.room, 1).await;
        let said = |s: &crate::uplink::UplinkStatus| s.last_failure.as_ref().is_some_and(|said| said.contains(why));
        let status = up.until(&format!("{lie:?} is said"), said).await;
        assert_eq!((status.charter_version, status.readings_confirmed), (1, 0), "{lie:?}");
        assert_eq!(status.proofs_refused > 0, lie != CharterLie::Nothing, "{lie:?}: {status:?}");
        world.script(0, |script| script.charters_lie = None);
        up.until("it is mended", |s| s.readings_confirmed == 1 && s.charter_version == 2).await;
        up.stop().await;
        home.close();
    }
}
