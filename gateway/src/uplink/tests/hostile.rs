//! A node of the alliance that turned: whatever it answers, nothing leaves the spool without proof, nothing is put aside for what
//! is the node's own fault, and the way is open again once an honest node answers.

use ehe::refusal::{Fault, Refusal};
use ehe::wire::Response;

use super::world::{Lie, World};

/// So often each lie is told before the node is honest again.
const TIMES: usize = 2;

fn lies() -> Vec<(&'static str, Lie)> {
    let response = Lie::Response;
    vec![
        ("no answer", Lie::Nothing),
        ("an empty frame", Lie::Bytes(Vec::new())),
        ("garbage", Lie::Bytes((0..=255).cycle().take(5_000).collect())),
        ("the largest frame, of arrays in arrays", Lie::Bytes(vec![0x81; ehe::limits::FRAME_MAX_BYTES])),
        (
            "a list that says that it is endless",
            Lie::Bytes(vec![0x82, 0x02, 0x9b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]),
        ),
        ("an answer to another question", response(Response::Rooms(Vec::new()))),
        ("a charter", response(Response::Charter(vec![0; 100]))),
        ("known, and nothing shown", response(Response::Known(Vec::new()))),
        ("a receipt of another run", Lie::EarlierReceipt),
        ("another run as known", Lie::EarlierRun),
        ("another leaf", Lie::Altered(|r| r.leaf.index += 1)),
        ("another room's leaf", Lie::Altered(|r| r.leaf.room.0[0] ^= 1)),
        ("another place in the log", Lie::Altered(|r| r.log_index += 1)),
        ("a place beyond all logs", Lie::Altered(|r| r.log_index = u64::MAX)),
        ("no inclusion proof", Lie::Altered(|r| r.proof.clear())),
        ("a proof without end", Lie::Altered(|r| r.proof = vec![ehe::id::Hash([0; 32]); 64])),
        ("no checkpoint", Lie::Altered(|r| r.checkpoint.clear())),
        ("a checkpoint of another log", Lie::Altered(|r| r.checkpoint = r.checkpoint.replacen("/0/0", "/1/0", 1))),
        ("a checkpoint of a larger log", Lie::Altered(|r| r.checkpoint = r.checkpoint.replacen('\n', "\n9", 1))),
        ("a checkpoint without signatures", Lie::Altered(|r| r.checkpoint.truncate(r.checkpoint.find('—').unwrap()))),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn no_lie_about_a_submission_takes_an_event_out_of_the_spool() {
    let world = World::new(1);
    let (patient, ..) = world.patient();
    let _nodes = world.start_all();
    let home = world.home(&[patient.room]).await;
    let mut up = home.uplink_within(500, 0);
    home.followed(patient.room).await;
    // An honest run first, so that there is a run and a receipt to lie with.
    home.fill(patient.room, 1).await;
    let mut readings = 1;
    up.until("the first", |s| s.readings_confirmed == readings).await;
    for (what, lie) in lies() {
        world.script(0, |script| script.lie = Some((lie, TIMES)));
        let (told, failures) = (|| world.scripts[0].lock().unwrap().lie.is_none(), up.status.borrow().failures);
        let faults = up.status.borrow().proofs_refused;
        home.fill(patient.room, 1).await;
        readings += 1;
        let status = up.until(what, |s| s.readings_confirmed == readings && told()).await;
        assert!(status.failures > failures || status.proofs_refused > faults, "{what}: it was noticed");
        assert_eq!((status.readings_confirmed, status.events_quarantined), (readings, 0), "{what}");
        home.waiting(0).await;
    }
    up.stop().await;
    home.close();
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_that_sign_two_logs_leave_a_file_that_proves_it_to_anybody() {
    let world = World::new(1);
    let (patient, ..) = world.patient();
    let _nodes = world.start_all();
    let home = world.home(&[patient.room]).await;
    let mut up = home.uplink_within(500, 0);
    home.followed(patient.room).await;
    home.fill(patient.room, 1).await;
    up.until("the first", |s| s.readings_confirmed == 1).await;
    assert_eq!(up.status.borrow().evidence, 0);
    world.script(0, |script| script.lie = Some((Lie::Fork, 1)));
    home.fill(patient.room, 1).await;
    let status = up.until("the second", |s| s.readings_confirmed == 2).await;
    assert_eq!((status.evidence, status.proofs_refused), (1, 1), "told once, found once");
    let files: Vec<_> = std::fs::read_dir(home.evidence()).unwrap().collect();
    let [Ok(file)] = &files[..] else { panic!("{files:?}") };
    let verdict = ehe::evidence::judge(&std::fs::read(file.path()).unwrap()).unwrap();
    assert_eq!(verdict.alliance, world.gateway.alliance_id());
    assert_eq!(verdict.accused(), [world.node_id(0)].into());
    assert!(verdict.first.stands() && verdict.second.stands());
    up.stop().await;
    home.close();
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_of_every_code_lose_nothing_and_the_nodes_own_put_nothing_aside() {
    let world = World::new(1);
    let (patient, ..) = world.patient();
    let _nodes = world.start_all();
    let home = world.home(&[patient.room]).await;
    let mut up = home.uplink_within(500, 0);
    home.followed(patient.room).await;
    home.fill(patient.room, 1).await;
    up.until("the first", |s| s.readings_confirmed == 1).await;
    let mut filled = 1;
    for refusal in Refusal::ALL {
        let before = up.status.borrow().events_quarantined;
        world.script(0, |script| script.lie = Some((Lie::Response(Response::Refused(*refusal)), 3)));
        home.fill(patient.room, 2).await;
        filled += 2;
        let kept = || home.spool.status().totals.quarantine_events;
        let status = up.until("each is confirmed or kept", |s| s.readings_confirmed + kept() == filled).await;
        if refusal.fault() == Fault::Node {
            assert_eq!(status.events_quarantined, before, "{refusal:?} is the node's own fault");
        }
        home.waiting(0).await;
    }
    assert!(up.status.borrow().events_quarantined > 0, "a refusal of one event puts it aside");
    up.stop().await;
    home.close();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_shows_entries_without_end_is_left_and_another_is_asked() {
    let world = World::new(3);
    let (patient, ..) = world.patient();
    world.script(0, |script| script.endless = true);
    let _nodes = world.start_all();
    let home = world.home(&[patient.room]).await;
    let mut up = home.uplink_within(200, 600);
    home.followed(patient.room).await;
    home.fill(patient.room, 3).await;
    let status = up.until("confirmed", |s| s.readings_confirmed == 3).await;
    assert!(status.failures + status.proofs_refused >= 1, "{status:?}");
    world.script(0, |script| script.endless = false);
    up.stop().await;
    home.close();
}
