//! A log that is not the one that was seen before, though a quorum signs it: smaller, or begun otherwise. What was seen outlives the
//! program.

use std::sync::Arc;

use certs::Credentials;
use certs::revocation::{CRL_DAYS, Which};
use certs::store::names;
use ehe::evidence::{Kind, Verdict, judge};

use super::world::{Home, World};

fn kept(home: &Home) -> Vec<Verdict> {
    let Ok(files) = std::fs::read_dir(home.evidence()) else { return Vec::new() };
    files.map(|file| judge(&std::fs::read(file.unwrap().path()).unwrap()).unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_restart_a_log_that_went_back_or_begins_otherwise_takes_nothing_out_of_the_spool() {
    let world = World::new(1);
    let (patient, ..) = world.patient();
    let leaves = world.ledger.lock().unwrap().leaves();
    let _nodes = world.start_all();
    let home = world.home(&[patient.room]).await;
    let up = home.uplink_within(500, 0);
    home.followed(patient.room).await;
    up.stop().await;
    home.close();
    // The log grows, and that is seen by what is done for another room.
    let (other, ..) = world.patient();
    let home = world.home(&[other.room]).await;
    let mut up = home.uplink_within(500, 0);
    up.until("the other room is followed", |s| s.rooms_followed == 1).await;
    up.stop().await;
    home.close();

    // It goes back to where the first room is as it was seen.
    let honest = world.ledger.lock().unwrap().clone();
    world.ledger.lock().unwrap().roll_back(leaves);
    let home = world.home(&[patient.room]).await;
    let mut up = home.uplink_within(500, 0);
    home.fill(patient.room, 1).await;
    let behind = |s: &crate::uplink::UplinkStatus| s.last_failure.as_ref().is_some_and(|why| why.contains("is behind"));
    let status = up.until("it is smaller", behind).await;
    assert_eq!((status.runs_submitted, status.evidence), (0, 0), "what is smaller may be a true beginning");

    world.ledger.lock().unwrap().grow(20);
    let status = up.until("it is larger, and begins otherwise", |s| s.evidence == 1).await;
    assert_eq!(status.runs_submitted, 0);
    let [verdict] = &kept(&home)[..] else { panic!() };
    assert_eq!((verdict.kind, verdict.accused()), (Kind::Prefix, [world.node_id(0)].into()));

    *world.ledger.lock().unwrap() = honest;
    up.until("the true log again", |s| s.readings_confirmed == 1).await;
    home.waiting(0).await;
    up.stop().await;
    home.close();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_whose_newer_head_is_of_another_log_is_caught_where_the_members_are_asked() {
    let world = World::new(3);
    let (patient, ..) = world.patient();
    {
        let mut forked = world.ledger.lock().unwrap().clone();
        forked.fork(2);
        forked.grow(4);
        world.script(1, |script| script.forks = Some(Arc::new(forked.clone())));
        world.script(2, |script| script.forks = Some(Arc::new(forked)));
    }
    let _nodes = world.start_all();
    let home = world.home(&[patient.room]).await;
    let mut up = home.uplink_within(500, 60);
    let status = up.until("both are caught", |s| s.rooms_unconfirmed > 0).await;
    assert!(status.evidence >= 1 && status.proofs_refused >= 1, "{status:?}");
    assert!(kept(&home).iter().all(|verdict| verdict.kind == Kind::Prefix));
    up.stop().await;
    home.close();
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_restart_an_earlier_charter_s_quorum_takes_nothing_out_of_the_spool() {
    let mut world = World::new(1);
    let (patient, ..) = world.patient();
    let first = world.ledger.lock().unwrap().charter.clone();
    world.next_charter();
    let _nodes = world.start_all();
    let home = world.home(&[patient.room]).await;
    let mut up = home.uplink_within(500, 0);
    home.followed(patient.room).await;
    let status = up.until("the newer charter", |s| s.charter_version == 2).await;
    assert_eq!(status.proofs_refused, 0);
    up.stop().await;
    home.close();

    // Who was a quorum by the first charter signs by it again.
    let second = std::mem::replace(&mut world.ledger.lock().unwrap().charter, first);
    for charters_are_there in [true, false] {
        let home = world.home(&[patient.room]).await;
        let file = home.evidence().with_file_name("charters");
        assert!(file.exists());
        if !charters_are_there {
            std::fs::remove_file(file).unwrap();
        }
        let mut up = home.uplink_within(500, 0);
        home.fill(patient.room, 1).await;
        let status = up.until("it is refused", |s| s.last_failure.is_some()).await;
        assert_eq!((status.runs_submitted, status.readings_confirmed), (0, 0), "{status:?}");
        assert_eq!(status.charter_version, 2, "the nodes show it again");
        up.stop().await;
        home.close();
    }
    world.ledger.lock().unwrap().charter = second;
    let home = world.home(&[patient.room]).await;
    let mut up = home.uplink_within(500, 0);
    up.until("what waited is confirmed", |s| s.readings_confirmed >= 2).await;
    home.waiting(0).await;
    up.stop().await;
    home.close();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newer_revocation_list_ends_the_connection_to_whom_it_revokes_without_a_restart() {
    let world = World::new(1);
    let (patient, ..) = world.patient();
    let _nodes = world.start_all();
    let home = world.home(&[patient.room]).await;
    let mut up = home.uplink_within(500, 0);
    home.followed(patient.room).await;
    let now = time::OffsetDateTime::now_utc();
    let revoke = |which: &Which| {
        world.authority.revoke(which, CRL_DAYS, now).unwrap();
        let list = world.dir.path().join("alliance").join(names::CRL);
        std::fs::copy(list, world.gateway.dir().join(names::CRL)).unwrap();
    };
    revoke(&Which::Refresh);
    home.fill(patient.room, 1).await;
    up.until("a list that revokes nobody changes nothing", |s| s.readings_confirmed == 1).await;
    let node = Credentials::load(&world.dir.path().join("node-0")).unwrap();
    revoke(&Which::Serial(node.certificate().serial.clone()));
    up.until("the node is not talked to any more", |s| s.connected_nodes == 0).await;
    home.fill(patient.room, 1).await;
    let why = |s: &crate::uplink::UplinkStatus| s.last_failure.as_ref().is_some_and(|why| why.contains("revoke"));
    let status = up.until("and not again", why).await;
    assert_eq!(status.readings_confirmed, 1);
    up.stop().await;
    home.close();
}
