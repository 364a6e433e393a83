//! The uplink against nodes on this machine that answer well, badly, and not at all.

mod charters;
mod history;
mod hostile;
mod newest;
mod world;

use std::sync::Arc;

use ehe::event::Kind;
use ehe::id::{EpochId, RoomId};
use ehe::reading::Reading;
use ehe::refusal::Refusal;
use ehe::time::UnixMs;
use ehe::vital::Category;

use tokio::sync::{Notify, mpsc, watch};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use self::world::{WITHIN, World, distinct};
use crate::clock::SystemClock;
use crate::rooms::testing::NOW;
use crate::rooms::{Commit, SealHold, Sealer};
use crate::seal::{Closing, Outcome, Seal};
use crate::spool::{Body, Intake, Place, Row, WindowKey};
use crate::window::WindowLimits;

#[tokio::test(flavor = "multi_thread")]
async fn events_leave_the_spool_against_a_verified_receipt() {
    let world = World::new(1);
    let (patient, ..) = world.patient();
    let (other, ..) = world.patient();
    let _nodes = world.start_all();
    let home = world.home(&[patient.room, other.room]).await;
    let mut up = home.uplink();
    home.followed(patient.room).await;
    home.followed(other.room).await;
    let ids = home.fill(patient.room, 20).await;
    home.fill(other.room, 5).await;
    up.until("all confirmed", |s| s.readings_confirmed == 25).await;
    let status = up.until("the wraps too", |s| s.events_confirmed == 27).await;
    assert_eq!((status.failures, status.proofs_refused, status.events_quarantined), (0, 0, 0));
    home.waiting(0).await;
    assert!(ids.iter().all(|id| world.ledger.lock().unwrap().has(patient.room, *id)));
    up.stop().await;
    assert_eq!(
        home.spool.load_rooms().await.unwrap().len(),
        2,
        "what was verified is kept for a start without network"
    );
    home.close();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_committed_before_its_answer_was_lost_is_confirmed_and_not_appended_again() {
    let world = World::new(1);
    let (patient, ..) = world.patient();
    let _nodes = world.start_all();
    let home = world.home(&[patient.room]).await;
    let mut up = home.uplink();
    home.followed(patient.room).await;
    world.script(0, |script| script.lose_answers = 2);
    let mut ids = home.fill(patient.room, 10).await;
    up.until("the first ten", |s| s.readings_confirmed == 10).await;
    let entries = world.ledger.lock().unwrap().entries(patient.room);
    assert!(up.status.borrow().events_known > 0);
    up.stop().await;

    // Killed between the commit and the answer: the next start knows nothing of the strand.
    world.script(0, |script| script.lose_answers = 1);
    ids.extend(home.fill(patient.room, 10).await);
    let mut up = home.uplink();
    up.until("the second ten", |s| s.readings_confirmed == 10).await;
    home.waiting(0).await;
    assert!(world.ledger.lock().unwrap().entries(patient.room) > entries);
    assert_eq!(distinct(&ids), 20);
    up.stop().await;
    home.close();
}

#[tokio::test(flavor = "multi_thread")]
async fn one_refused_event_is_put_aside_and_those_behind_it_go_on() {
    let world = World::new(1);
    let (patient, ..) = world.patient();
    let nodes = world.start_all();
    let home = world.home(&[patient.room]).await;
    let mut up = home.uplink();
    home.followed(patient.room).await;
    for node in nodes {
        node.stop().await; // so that one run takes them all
    }
    let ids = home.fill(patient.room, 100).await;
    world.script(0, |script| {
        script.refuse.insert(ids[37], Refusal::EventMalformed);
        script.refuse.insert(ids[90], Refusal::EventMalformed);
    });
    let _nodes = world.start_all();
    let status = up.until("all but two", |s| s.readings_confirmed == 98 && s.events_quarantined == 2).await;
    assert_eq!(status.proofs_refused, 0);
    assert!(world.scripts[0].lock().unwrap().submissions < 60);
    let committed = |id| world.ledger.lock().unwrap().has(patient.room, id);
    assert!(ids.iter().enumerate().all(|(at, id)| committed(*id) != [37, 90].contains(&at)));
    home.waiting(0).await;
    up.stop().await;
    home.close();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receipt_without_a_quorum_deletes_nothing() {
    let world = World::new(3);
    let (patient, ..) = world.patient();
    let _nodes = world.start_all();
    let home = world.home(&[patient.room]).await;
    let mut up = home.uplink();
    home.followed(patient.room).await;
    world.ledger.lock().unwrap().cosigners = 1;
    home.fill(patient.room, 3).await;
    let status = up.until("refused proofs", |s| s.proofs_refused >= 2).await;
    assert_eq!(status.events_confirmed, 0);
    home.waiting(4).await;
    assert!(status.distrusted_node.is_some());
    world.ledger.lock().unwrap().cosigners = 3;
    up.until("confirmed under a quorum", |s| s.events_confirmed == 4).await;
    up.stop().await;
    home.close();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_is_sent_to_a_restored_log_by_its_record_also_where_that_lost_the_wrap_of_its_key() {
    let world = World::new(3);
    let (patient, ..) = world.patient();
    let _nodes = world.start_all();
    let home = world.home(&[patient.room]).await;
    let mut up = home.uplink();
    home.followed(patient.room).await;
    let kept = world.ledger.lock().unwrap().leaves();
    home.fill(patient.room, 3).await;
    up.until("a wrap and three events", |s| s.events_confirmed == 4).await;
    world.restore(kept, 2);
    // Sealed under the key whose wrap is lost.
    let ids = home.fill(patient.room, 2).await;
    let status = up.until("both, and the wrap again", |s| s.events_confirmed == 7).await;
    assert_eq!((status.proofs_refused, status.distrusted_node), (0, None));
    assert!(ids.iter().all(|id| world.ledger.lock().unwrap().has(patient.room, *id)));
    let origin = world.ledger.lock().unwrap().charter.origin(0, 1);
    // And the room is followed in the new log, from its first entry, by a program that knows the old one only.
    up.stop().await;
    let mut up = home.uplink();
    let mut looked = home.rooms.changed();
    let moved = |_: &u64| home.rooms.get(patient.room).is_some_and(|followed| followed.seen().origin == origin);
    tokio::time::timeout(WITHIN, looked.wait_for(moved)).await.expect("followed anew in time").unwrap();
    // A second time: records follow each other.
    let kept = world.ledger.lock().unwrap().leaves();
    world.restore(kept, 3);
    home.fill(patient.room, 1).await;
    up.until("one more", |s| s.events_confirmed == 1).await;
    up.stop().await;
    home.close();
}

#[tokio::test(flavor = "multi_thread")]
async fn another_log_without_a_record_of_the_members_majority_is_not_believed_and_nothing_is_deleted() {
    let world = World::new(3);
    let (patient, ..) = world.patient();
    let _nodes = world.start_all();
    let home = world.home(&[patient.room]).await;
    let mut up = home.uplink();
    home.followed(patient.room).await;
    home.fill(patient.room, 1).await;
    up.until("a wrap and an event", |s| s.events_confirmed == 2).await;
    let kept = world.ledger.lock().unwrap().leaves();
    world.restore(kept, 1);
    home.fill(patient.room, 1).await;
    let status = up.until("refused proofs", |s| s.proofs_refused >= 2).await;
    assert_eq!(status.events_confirmed, 2);
    assert!(status.distrusted_node.is_some());
    home.waiting(1).await;
    up.stop().await;
    home.close();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receipt_that_proves_another_entry_deletes_nothing_and_another_node_is_asked() {
    let world = World::new(3);
    let (patient, ..) = world.patient();
    let _nodes = world.start_all();
    let home = world.home(&[patient.room]).await;
    let mut up = home.uplink();
    home.followed(patient.room).await;
    world.script(0, |script| script.wrong_root = true);
    home.fill(patient.room, 3).await;
    let status = up.until("confirmed", |s| s.events_confirmed == 4).await;
    assert!(status.proofs_refused > 0);
    assert_eq!(status.distrusted_node, Some(world.node_id(0)));
    up.stop().await;
    home.close();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backlog_drains_unaided_when_the_node_is_back() {
    let world = World::new(1);
    let (patient, ..) = world.patient();
    let mut nodes = world.start_all();
    let home = world.home(&[patient.room]).await;
    let mut up = home.uplink();
    home.followed(patient.room).await;
    nodes.remove(0).stop().await;
    home.fill(patient.room, 50).await;
    let status = up.until("some failures", |s| s.failures >= 3).await;
    assert_eq!(status.events_confirmed, 0);
    home.waiting(51).await;
    let _node = world.start(0);
    up.until("drained", |s| s.events_confirmed == 51).await;
    up.stop().await;
    home.close();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_names_the_leader_is_believed_and_the_leader_is_asked() {
    let world = World::new(3);
    let (patient, ..) = world.patient();
    let _nodes = world.start_all();
    let leader = world.node_id(2);
    for index in [0, 1] {
        world.script(index, |script| script.ask = Some(leader));
    }
    let home = world.home(&[patient.room]).await;
    let mut up = home.uplink();
    home.followed(patient.room).await;
    home.fill(patient.room, 3).await;
    let status = up.until("confirmed", |s| s.events_confirmed == 4).await;
    assert_eq!(status.failures, 0);
    assert!(world.scripts[2].lock().unwrap().submissions > 0);
    up.stop().await;
    home.close();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_cannot_store_deletes_and_quarantines_nothing() {
    let world = World::new(1);
    let (patient, ..) = world.patient();
    let _nodes = world.start_all();
    let home = world.home(&[patient.room]).await;
    let mut up = home.uplink();
    home.followed(patient.room).await;
    for refusal in [Refusal::StorageFault, Refusal::Overloaded, Refusal::NoLeader, Refusal::RoomUnknown] {
        world.script(0, |script| script.refuse_all = Some(refusal));
        home.fill(patient.room, 1).await;
        let before = up.status.borrow().failures;
        up.until("more failures", |s| s.failures > before + 2).await;
    }
    assert_eq!(up.status.borrow().events_quarantined, 0);
    home.waiting(5).await;
    world.script(0, |script| script.refuse_all = None);
    up.until("confirmed", |s| s.events_confirmed == 5).await;
    up.stop().await;
    home.close();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotation_is_picked_up_with_the_next_receipt() {
    let world = World::new(1);
    let (mut patient, epoch, grant) = world.patient();
    let _nodes = world.start_all();
    let home = world.home(&[patient.room]).await;
    let mut up = home.uplink();
    home.followed(patient.room).await;
    let mut changed = home.rooms.changed();
    changed.mark_unchanged();
    let next = patient.epoch(&mut world.ledger.lock().unwrap(), Category::Cardiac, Some(epoch), &[grant], &[]);
    home.fill(patient.room, 1).await;
    up.until("confirmed", |s| s.events_confirmed == 2).await;
    changed.changed().await.unwrap();
    home.fill(patient.room, 1).await;
    up.until("confirmed in the new epoch", |s| s.events_confirmed == 4).await;
    let followed = home.rooms.get(patient.room).unwrap();
    let us = home.rooms.identity().author_id();
    let now = crate::rooms::testing::NOW;
    let current = followed.keys().current(followed.room(), us, Category::Cardiac, now.hour(), now).unwrap();
    assert_eq!(current.epoch, next);
    up.stop().await;
    home.close();
}

/// Seals as the gateway does, and tells to which epoch.
struct Witness(Sealer, mpsc::UnboundedSender<EpochId>);

impl Seal for Witness {
    type Commit = Commit;

    fn seal(&self, r: RoomId, c: Category, readings: &[Reading], now: UnixMs) -> Result<Outcome<Commit>, SealHold> {
        let sealed = Seal::seal(&self.0, r, c, readings, now)?;
        let readings = sealed.0.iter().map(|(event, _)| event.core()).filter(|core| core.kind == Kind::Vitals);
        readings.for_each(|core| self.1.send(core.epoch).unwrap());
        Ok(sealed)
    }

    fn about_to_seal(&self, room: RoomId) {
        Seal::about_to_seal(&self.0, room);
    }

    fn committed(&self, commit: Commit) {
        Seal::committed(&self.0, commit);
    }

    fn changed(&self) -> watch::Receiver<u64> {
        Seal::changed(&self.0)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reading_after_a_rotation_is_sealed_to_the_new_epoch_though_the_room_was_quiet() {
    let world = World::new(1);
    let (mut patient, epoch, grant) = world.patient();
    let _nodes = world.start_all();
    let home = world.home(&[patient.room]).await;
    let up = home.uplink();
    home.followed(patient.room).await;
    let next = patient.epoch(&mut world.ledger.lock().unwrap(), Category::Cardiac, Some(epoch), &[grant], &[]);

    let clock = SystemClock::new("/nonexistent".into());
    let (epochs, mut sealed_to) = mpsc::unbounded_channel();
    let (arrivals, queue) = mpsc::channel(1);
    let (stop, counters) = (CancellationToken::new(), crate::status::counters());
    let closing = Closing {
        spool: home.spool.clone(),
        sealer: Witness(home.sealer.clone(), epochs),
        clock: clock.clone(),
        limits: WindowLimits { window_ms: 6_000, readings_max: 100 },
        hold_retry: WITHIN,
        report: false,
        counters,
    };
    let task = tokio::spawn(closing.run(vec![], queue, stop.clone()));
    let reading = crate::rooms::tests::reading(clock.now().utc, "61", "strap");
    let window = WindowKey { room: patient.room, category: Category::Cardiac, hour: reading.at().hour() };
    let rows = vec![Row { place: Place::Window(window), body: Body::pack(&[reading], false).unwrap().remove(0) }];
    let stored = home.spool.store(Intake { mark: None, position: None, rows }).await.unwrap();
    arrivals.send(stored.durable().await.unwrap().arrivals).await.unwrap();

    let sealed = timeout(WITHIN, sealed_to.recv()).await.expect("sealed in time");
    stop.cancel();
    task.await.unwrap();
    up.stop().await;
    home.close();
    assert_eq!(sealed, Some(next));
}

#[tokio::test(flavor = "multi_thread")]
async fn events_refused_after_a_revocation_are_kept_and_sent_when_the_patient_grants_again() {
    let world = World::new(1);
    let (mut patient, epoch, grant) = world.patient();
    let _nodes = world.start_all();
    let home = world.home(&[patient.room]).await;
    let up = home.uplink();
    home.followed(patient.room).await;
    // All four are sealed under the old rights, and one wrap, before the first of them is refused.
    up.stop().await;
    patient.revoke(&mut world.ledger.lock().unwrap(), grant);
    home.fill(patient.room, 4).await;
    let mut up = home.uplink();
    let status = up.until("put aside", |s| s.events_quarantined == 5).await;
    assert_eq!(status.events_confirmed, 0);
    home.waiting(0).await;
    let subject = home.rooms.identity().public().clone();
    patient.grant(&mut world.ledger.lock().unwrap(), &subject, &[(epoch, Category::Cardiac)], None);
    let status = up.until("sent after all", |s| s.events_confirmed == 5).await;
    assert_eq!(status.events_released, 5);
    up.stop().await;
    home.close();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receipt_under_a_newer_charter_is_judged_under_that_charter() {
    let mut world = World::new(3);
    let (patient, ..) = world.patient();
    let _nodes = world.start_all();
    let home = world.home(&[patient.room]).await;
    let mut up = home.uplink();
    home.followed(patient.room).await;
    world.next_charter();
    home.fill(patient.room, 3).await;
    let status = up.until("confirmed", |s| s.events_confirmed == 4).await;
    assert_eq!((status.charter_version, status.proofs_refused), (2, 0));
    assert_eq!(status.later_rules, None);
    up.stop().await;
    home.close();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_charter_with_rules_that_this_program_does_not_know_is_told_of_also_after_a_restart_and_sending_goes_on() {
    let mut world = World::new(3);
    let (patient, ..) = world.patient();
    let _nodes = world.start_all();
    let home = world.home(&[patient.room]).await;
    let mut up = home.uplink();
    home.followed(patient.room).await;
    let later = ehe::charter::RULES_KNOWN + 1;
    world.raise_rules(later);
    home.fill(patient.room, 3).await;
    let status = up.until("confirmed", |s| s.events_confirmed == 4).await;
    assert_eq!((status.charter_version, status.later_rules, status.proofs_refused), (2, Some(later), 0));
    up.stop().await;
    let mut up = home.uplink();
    up.until("said from the start", |s| s.later_rules == Some(later)).await;
    up.stop().await;
    home.close();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_node_is_asked_whether_it_is_there_and_then_waited_for() {
    let world = World::new(1);
    let (patient, ..) = world.patient();
    let _nodes = world.start_all();
    let home = world.home(&[patient.room]).await;
    let mut up = home.uplink();
    home.followed(patient.room).await;
    let released = Arc::new(Notify::new());
    world.script(0, |script| script.slow = Some(released.clone()));
    home.fill(patient.room, 1).await;
    let probed = world.scripts[0].lock().unwrap().probed.clone();
    timeout(WITHIN, probed.notified()).await.expect("asked in time");
    world.script(0, |script| script.slow = None);
    released.notify_one();
    let status = up.until("confirmed", |s| s.readings_confirmed == 1).await;
    assert_eq!((status.failures, status.connections), (0, 1));
    up.stop().await;
    home.close();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_on_which_nothing_comes_back_is_replaced() {
    let world = World::new(1);
    let (patient, ..) = world.patient();
    world.script(0, |script| script.silent = 1);
    let _nodes = world.start_all();
    let home = world.home(&[patient.room]).await;
    let mut up = home.uplink();
    home.followed(patient.room).await;
    home.fill(patient.room, 1).await;
    let status = up.until("confirmed", |s| s.readings_confirmed == 1).await;
    assert_eq!((status.failures, status.connections), (1, 2));
    up.stop().await;
    home.close();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_goes_while_nothing_is_sent_is_missed_at_once() {
    let world = World::new(1);
    let (patient, ..) = world.patient();
    let mut nodes = world.start_all();
    let home = world.home(&[patient.room]).await;
    let mut up = home.uplink();
    home.followed(patient.room).await;
    up.until("connected", |s| s.connected_nodes == 1).await;
    nodes.remove(0).stop().await;
    let status = up.until("missed", |s| s.connected_nodes == 0 && s.failures == 1).await;
    assert!(status.last_failure.is_some_and(|why| why.contains(&world.node_id(0).to_string())));
    assert_eq!(status.last_failure_ms, Some(NOW));
    let _node = world.start(0);
    up.until("found again with nothing to send", |s| s.connected_nodes == 1).await;
    let status = up.status.clone();
    up.stop().await;
    assert_eq!(status.borrow().connected_nodes, 0);
    home.close();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_node_wrongly_called_malformed_is_sent_again_after_a_restart() {
    let world = World::new(1);
    let (patient, ..) = world.patient();
    let nodes = world.start_all();
    let home = world.home(&[patient.room]).await;
    let mut up = home.uplink();
    home.followed(patient.room).await;
    for node in nodes {
        node.stop().await;
    }
    let ids = home.fill(patient.room, 5).await;
    world.script(0, |script| script.refuse.extend([(ids[2], Refusal::EventMalformed)]));
    let _nodes = world.start_all();
    up.until("put aside", |s| s.readings_confirmed == 4 && s.events_quarantined == 1).await;
    up.stop().await;
    world.script(0, |script| script.refuse.clear());
    let mut up = home.uplink();
    let status = up.until("sent again", |s| s.readings_confirmed == 1).await;
    assert_eq!(status.events_released, 1);
    assert_eq!(home.spool.status().totals.quarantine_events, 0);
    up.stop().await;
    home.close();
}
