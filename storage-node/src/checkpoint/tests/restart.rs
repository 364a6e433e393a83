//! Logs that have not caught up, and logs that were rewritten.

use super::super::message::{Conflict, Message, Point, Wish, Word};
use super::super::{News, Refused};
use super::alliance::{Log, alliance};
use super::cluster::{Cluster, Crash};
use super::evidence::judged;
use crate::cosign::CosignError;
use crate::test_disk::Unsynced;
use ehe::checkpoint::Checkpoint;

#[test]
fn a_restarted_replica_whose_state_is_behind_what_it_cosigned_waits_until_it_has_caught_up() {
    let mut three = Cluster::new(alliance("ABC", None), 1);
    three.commit(10);
    three.pass_ms(100);
    three.restart(2, 7, Unsynced::Lost);
    let said = |three: &Cluster| three.sent["cosignature"];
    let (before, from) = (said(&three), three.peers[0].who.id);
    // Not even a size that it has: it is not known yet to be of the same log.
    let point = Point { shard: 0, charter: 1, incarnation: 0, size: 5, root: three.logs[0].root(5) };
    let wish = Message::Wish(Wish { point, at: three.wall() });
    three.say(2, from, wish.to_vec());
    three.apply(2, 9);
    three.pass_ms(2500);
    assert!(three.peers[2].fenced.is_none());
    assert_eq!((said(&three), three.peers[2].ignored), (before, 0), "it signs nothing");
    three.apply(2, 10);
    three.pass_ms(100);
    assert!(said(&three) > before, "now it answers");
    three.commit(11);
    three.pass_ms(100);
    assert_eq!(three.shown(), [11, 11, 11]);
    assert!(three.peers.iter().all(|peer| peer.fenced.is_none() && peer.evidence.is_empty()));
}

#[test]
fn a_replica_whose_log_is_another_one_than_it_cosigned_is_fenced_when_it_has_caught_up_and_not_before() {
    for size in [10, 12, 16] {
        let mut three = Cluster::new(alliance("ABC", None), 1);
        three.commit(10);
        three.pass_ms(100);
        let mut other = Log::of(6, "agreed");
        other.grow(16, "rewritten");
        three.logs.push(other);
        three.peers[2].log = 1;
        three.restart(2, 8, Unsynced::Lost);
        assert!(three.peers[2].fenced.is_none());
        let before = three.sent["cosignature"];
        three.apply(2, size);
        assert!(matches!(
            three.peers[2].fenced.as_deref(),
            Some(Refused::Cosign(CosignError::Contradicts { cosigned: 10, .. }))
        ));
        assert_eq!(three.sent["cosignature"], before, "it signs nothing");
        let [evidence] = &three.peers[2].evidence[..] else { panic!("evidence") };
        assert_eq!((evidence.of, evidence.stated.size, evidence.log.size), (three.peers[2].who.id, 10, size));
        assert_ne!(evidence.prefix, evidence.stated.root);
        three.pass_ms(3000);
        three.logs[0].grow(13, "agreed");
        for n in [0, 1] {
            three.apply(n, 13);
        }
        three.pass_ms(3000);
        assert_eq!(three.shown()[..2], [13, 13], "the others go on");
    }
}

#[test]
fn a_node_alone_whose_log_is_smaller_than_what_it_cosigned_is_fenced_at_once() {
    let mut one = Cluster::new(alliance("A", None), 1);
    one.commit(10);
    one.restart(0, 9, Unsynced::Lost);
    assert!(one.peers[0].fenced.is_some(), "nobody else has the rest");
}

/// Three of which the third's file and state were replaced by others of the same id, after all had shown 4.
fn with_one_that_forgot() -> Cluster {
    let mut three = Cluster::new(alliance("ABC", None), 1);
    three.commit(4);
    three.pass_ms(100);
    let forgetful = three.peers.pop().unwrap();
    let mut fresh = Cluster::new(vec![forgetful.who], 1).peers.pop().unwrap();
    fresh.log = 1;
    three.logs.push(Log::of(6, "rewritten"));
    three.peers.push(fresh);
    three
}

#[test]
fn a_replica_that_forgot_what_it_signed_is_outvoted_before_it_signs_where_the_others_foresaw_the_wish() {
    let mut three = with_one_that_forgot();
    three.commit(6);
    three.pass_ms(3000);
    assert!(matches!(three.peers[2].fenced.as_deref(), Some(Refused::Outvoted { .. })));
    assert_eq!(three.shown(), [6, 6, 0]);
}

#[test]
fn a_replica_that_forgot_what_it_signed_is_found_out_by_the_others_and_outvoted() {
    let mut three = with_one_that_forgot();
    three.logs[0].grow(6, "agreed");
    for node in [0, 2, 1] {
        three.apply(node, 6);
        three.pass_ms(10);
    }
    three.pass_ms(3000);
    let liar = three.peers[2].who.id;
    assert!(three.peers[0].evidence.iter().any(|evidence| evidence.of == liar), "the others find out");
    assert!(three.peers[2].fenced.is_some());
    assert!(three.peers[0].evidence.iter().all(|evidence| judged(evidence, &three.peers[0]).is_ok()));
}

#[test]
fn a_replica_that_forgot_what_it_signed_is_fenced_when_one_node_shows_it_its_own_signature() {
    let (mut three, signed) = (Cluster::new(alliance("ABC", None), 1), Log::of(4, "agreed"));
    let ids: Vec<_> = three.peers.iter().map(|peer| peer.who.id).collect();
    three.cut.extend(&ids[..2]);
    three.logs.push(Log::of(6, "rewritten"));
    three.peers[2].log = 1;
    three.apply(2, 3);
    let who = three.peers[2].who.clone();
    let point = Point { shard: 0, charter: 1, incarnation: 0, size: 4, root: signed.root(4) };
    let checkpoint = Checkpoint { origin: who.charter.origin(0, 0), size: 4, root: point.root, charter_version: 1 };
    let signature = checkpoint.unsigned().unwrap().cosign(&who.name, who.identity.sign_key(), 5).into();
    let conflict = Conflict { point, signer: who.id, word: Word { time_s: 5, signature } };
    three.say(2, ids[0], Message::Conflict(conflict).to_vec());
    assert!(three.peers[2].fenced.is_none(), "it has not come so far yet");
    three.apply(2, 6);
    assert!(matches!(three.peers[2].fenced.as_deref(), Some(Refused::Cosign(CosignError::Contradicts { .. }))));
    let [evidence] = &three.peers[2].evidence[..] else { panic!("evidence") };
    assert_eq!((evidence.of, evidence.stated.root, evidence.log.size), (who.id, point.root, 6));
}

#[test]
fn what_the_others_cosigned_is_remembered_and_not_signed_before_it_is_shown() {
    let mut three = Cluster::new(alliance("ABC", None), 1);
    let third = three.peers[2].who.id;
    three.cut.insert(third);
    three.commit(3);
    three.pass_ms(100);
    assert_eq!(three.shown(), [3, 3, 0]);
    // Their cosignatures come through, their wishes do not.
    for (from, to, message) in std::mem::take(&mut three.undelivered) {
        if to == third && matches!(message, Message::Cosignature(_)) {
            three.say(2, from, message.to_vec());
        }
    }
    three.round(2, News::default(), Crash::No);
    assert_eq!(three.shown(), [3, 3, 3]);
    assert!(!three.peers[2].published.as_ref().unwrap().cosigners.contains(&third));
    three.restart(2, 2, Unsynced::Lost);
    assert!(three.peers[2].published.is_none() && three.peers[2].fenced.is_none(), "it knows that it showed more");
}

#[test]
fn a_crash_before_or_after_the_sync_forgets_nothing_that_was_signed() {
    for crash in [Crash::BeforeTheSync, Crash::AfterTheSync] {
        let mut three = Cluster::new(alliance("ABC", None), 1);
        three.commit(3);
        three.pass_ms(100);
        three.logs[0].grow(5, "agreed");
        for n in 0..3 {
            three.peers[n].applied = 5;
            let root = three.logs[0].root(5);
            let applied = super::super::Applied { size: 5, root, incarnation: 0, rooms: 1, time: three.wall() };
            three.round(n, News { applied: [(0, applied)].into(), ..News::default() }, crash);
        }
        three.pass_ms(5000);
        assert_eq!(three.shown(), [5, 5, 5]);
    }
}

#[test]
fn a_disk_that_fails_fences_its_own_node_only() {
    let mut three = Cluster::new(alliance("ABC", None), 1);
    three.commit(1);
    three.pass_ms(100);
    three.peers[1].disk.fail_now();
    three.commit(2);
    three.pass_ms(2000);
    assert_eq!(three.peers.iter().map(|peer| peer.fenced.is_some()).collect::<Vec<_>>(), [false, true, false]);
    assert!(!three.peers[1].may_order, "it leads nothing any more");
    assert_eq!(three.shown(), [2, 1, 2]);
}
