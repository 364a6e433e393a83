//! What was refused is tried again: a few at a time, behind what is new.

use super::behaviour::start;
use super::*;

fn events(salts: std::ops::Range<u8>) -> Vec<CheckedEvent> {
    salts.map(|salt| content(1, salt, WrapId::ZERO, &[reading(60)])).collect()
}

async fn order(spool: &Spool) -> Vec<EheId> {
    spool.batch(room(1), usize::MAX, usize::MAX).await.unwrap().iter().map(|stored| stored.id).collect()
}

#[tokio::test]
async fn refused_events_come_back_a_few_at_a_time_and_each_once_a_round() {
    let mut lab = Lab::new();
    lab.limits.quarantine_max_bytes = 1 << 20;
    let (_disk, spool, _thread) = start(&lab);
    let all = events(0..100);
    let ids: Vec<EheId> = all.iter().map(CheckedEvent::id).collect();
    spool.seal(vec![], vec![], all.into_iter().map(|event| new_event(event, 1, false)).collect()).await.unwrap();
    for id in &ids {
        spool.quarantine(room(1), *id, Refusal::GrantRevoked).await.unwrap();
    }
    let (first, next) = spool.release(room(1), Retry::RIGHTS).await.unwrap();
    assert_eq!((first, next.is_some()), (64, true));
    assert_eq!(order(&spool).await, ids[..64], "those that were refused first, in their order");
    // They are refused again: the round goes on with the others, and ends.
    for id in &ids[..64] {
        spool.quarantine(room(1), *id, Refusal::GrantRevoked).await.unwrap();
    }
    assert_eq!(spool.release(room(1), next.unwrap()).await.unwrap(), (36, None));
    assert_eq!(order(&spool).await, ids[64..]);
    for id in &ids[64..] {
        spool.quarantine(room(1), *id, Refusal::GrantRevoked).await.unwrap();
    }
    assert_eq!(spool.release(room(1), next.unwrap()).await.unwrap(), (0, None), "nothing twice in a round");
    assert_eq!(spool.release(room(1), Retry::RIGHTS).await.unwrap().0, 64, "the next round begins anew");
}

#[tokio::test]
async fn what_is_tried_again_waits_for_what_is_new_and_no_alarm_waits_for_it() {
    let lab = Lab::new();
    let (_disk, spool, _thread) = start(&lab);
    let wrap = wrap(1, 1);
    let old = content(1, 2, WrapId::from(wrap.id()), &[reading(200)]);
    let (wrap_id, old_id) = (wrap.id(), old.id());
    spool.seal(vec![], vec![], vec![new_event(wrap, 0, false), new_event(old, 1, true)]).await.unwrap();
    spool.quarantine(room(1), old_id, Refusal::GrantRevoked).await.unwrap();
    spool.quarantine(room(1), wrap_id, Refusal::GrantRevoked).await.unwrap();
    let [new, alarm, later] = <[CheckedEvent; 3]>::try_from(events(10..13)).unwrap();
    let ids = [&new, &alarm, &later].map(CheckedEvent::id);
    spool.seal(vec![], vec![], vec![new_event(new, 1, false), new_event(alarm, 1, true)]).await.unwrap();
    assert_eq!(spool.release(room(1), Retry::RIGHTS).await.unwrap(), (2, None));
    spool.seal(vec![], vec![], vec![new_event(later, 1, true)]).await.unwrap();
    assert_eq!(order(&spool).await, [wrap_id, ids[1], ids[2], ids[0], old_id]);
}
