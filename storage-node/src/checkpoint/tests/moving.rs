//! A shard that moves: two quorums at first, then the new group's alone, and nothing of who was let go.

use std::sync::Arc;

use ehe::charter::{CharterChain, VerifiedCharter};
use ehe::evidence::judge;
use ehe::id::Hash;
use ehe::note::Note;

use super::super::{Core, Message, Who};
use super::cluster::Cluster;
use super::evidence::cosigned;
use crate::shard::InEffect;
use crate::test_charters::{self as made, Alliance};

/// All nodes of an alliance, as they begin: under charter 1.
pub(super) fn cluster(alliance: &Alliance, first: &Arc<VerifiedCharter>) -> Cluster {
    let who = (1u8..).zip(&alliance.nodes).map(|(n, identity)| Who {
        id: made::node(n),
        name: made::name(n),
        identity: Arc::clone(identity),
        charter: Arc::clone(first),
    });
    Cluster::new(who.collect(), 7)
}

pub(super) fn in_effect(chain: &[Arc<VerifiedCharter>], version: usize, vouched: bool) -> InEffect {
    let before = (!vouched).then(|| Arc::clone(&chain[version - 2]));
    let charter = Arc::clone(&chain[version - 1]);
    InEffect { committed: charter.version(), charter, before }
}

/// Versions of the charters under which each shows its newest checkpoint.
fn under(cluster: &Cluster) -> Vec<u32> {
    cluster.peers.iter().map(|peer| peer.published.as_ref().map_or(0, |it| it.charter_version)).collect()
}

#[test]
fn the_first_checkpoint_of_a_shard_that_grows_has_the_old_members_quorum_too() {
    let alliance = Alliance::of(3);
    let chain = alliance.chain(&[&[1], &[1, 2, 3]]);
    let mut three = cluster(&alliance, &chain[0]);
    three.commit(3);
    three.pass_ms(5000);
    assert_eq!(three.shown(), [3, 0, 0], "who has only the log shows nothing and signs nothing");
    assert_eq!(three.sent.get("cosignature"), None);

    // The old member's node is cut off; two of three are a quorum of the new group.
    let ids: Vec<_> = three.peers.iter().map(|peer| peer.who.id).collect();
    three.cut.insert(ids[0]);
    three.leader = Some(1);
    (0..3).for_each(|n| three.under(n, in_effect(&chain, 2, false)));
    three.commit(4);
    three.pass_ms(10_000);
    assert_eq!((three.shown(), under(&three)), (vec![3, 0, 0], vec![1, 0, 0]), "the old quorum has not spoken");
    three.cut.clear();
    three.pass_ms(10_000);
    assert_eq!((three.shown(), under(&three)), (vec![4, 4, 4], vec![2, 2, 2]));
    let old = chain[1].node(ids[0]).unwrap();
    for peer in &three.peers {
        let note = Note::parse(&peer.published.as_ref().unwrap().note).unwrap();
        note.verify_cosignature(&old.name, &old.sign).unwrap();
    }

    // From when that is written down, the new group counts alone.
    (0..3).for_each(|n| three.under(n, in_effect(&chain, 2, true)));
    three.cut.insert(ids[0]);
    three.commit(5);
    three.pass_ms(10_000);
    assert_eq!(three.shown(), [4, 5, 5]);
}

#[test]
fn the_same_size_is_shown_anew_under_the_new_charter() {
    let alliance = Alliance::of(2);
    let chain = alliance.chain(&[&[1], &[2]]);
    let mut two = cluster(&alliance, &chain[0]);
    two.commit(9);
    two.pass_ms(100);
    assert_eq!(two.shown(), [9, 0]);
    two.leader = Some(1);
    (0..2).for_each(|n| two.under(n, in_effect(&chain, 2, false)));
    two.pass_ms(5000);
    assert_eq!((two.shown(), under(&two)), (vec![9, 9], vec![2, 2]), "nothing was written meanwhile");
}

#[test]
fn who_was_let_go_signs_nothing_and_is_not_heard() {
    let alliance = Alliance::of(3);
    let chain = alliance.chain(&[&[1, 2, 3], &[1]]);
    let mut three = cluster(&alliance, &chain[0]);
    three.commit(3);
    three.pass_ms(5000);
    assert_eq!(three.shown(), [3, 3, 3]);
    (0..3).for_each(|n| three.under(n, in_effect(&chain, 2, false)));
    three.pass_ms(5000);
    assert_eq!(under(&three), [2, 2, 2]);
    (0..3).for_each(|n| three.under(n, in_effect(&chain, 2, true)));
    let said = |three: &Cluster| (three.sent["cosignature"], three.sent["wish"]);
    let before = said(&three);
    for size in [8, 9] {
        three.commit(size);
        three.pass_ms(5000);
    }
    assert_eq!(three.shown(), [9, 3, 3]);
    assert_eq!(said(&three), before, "one signs, and has nobody to tell; the others ask for nothing");

    // One of them knows nothing of all this, and cosigns under the old charter; another claims a root under the new one.
    let old = Core::new(three.peers[1].who.clone(), [(0, None)]);
    three.peers[1].core = old;
    three.peers[1].in_effect = None;
    three.leader = Some(1);
    three.apply(1, 9);
    let ignored = three.peers[0].ignored;
    three.pass_ms(5000);
    assert!(three.peers[0].ignored > ignored, "it is heard, and not taken");
    assert_eq!((three.shown(), under(&three)), (vec![9, 3, 3], vec![2, 2, 2]));
    assert!(three.peers.iter().all(|peer| peer.fenced.is_none() && peer.evidence.is_empty()));
}

#[test]
fn what_is_said_under_a_charter_that_is_not_in_effect_here_yet_waits() {
    let alliance = Alliance::of(3);
    let chain = alliance.chain(&[&[1], &[1, 2, 3]]);
    let mut three = cluster(&alliance, &chain[0]);
    three.commit(3);
    three.pass_ms(100);
    // The leader has come to the entry, the others not yet; its wish is for what they have.
    three.under(0, in_effect(&chain, 2, false));
    three.pass_ms(20);
    assert_eq!(three.sent.get("cosignature"), Some(&2), "the leader's own");
    (1..3).for_each(|n| three.under(n, in_effect(&chain, 2, false)));
    three.pass_ms(20);
    assert_eq!(under(&three)[0], 2, "the wish had waited: nobody had to say it again");
}

#[test]
fn a_lie_under_the_charter_before_stays_a_lie_and_stops_nobody_under_the_new_one() {
    let alliance = Alliance::of(3);
    let chain = alliance.chain(&[&[1, 2, 3], &[1, 2, 3]]);
    let mut three = cluster(&alliance, &chain[0]);
    let ids: Vec<_> = three.peers.iter().map(|peer| peer.who.id).collect();
    three.cut.extend(&ids[1..]);
    three.commit(8);
    three.pass_ms(3000);
    let lie = cosigned(&three, 2, 8, Hash([7; 32]));
    three.say(0, ids[2], Message::Cosignature(lie).to_vec());
    // Evidence waits for a quorum's note; meanwhile another charter is in effect.
    three.under(0, in_effect(&chain, 2, true));
    three.pass_ms(30_000);
    let first = &three.peers[0];
    assert!(first.fenced.is_none());
    let [evidence] = &first.evidence[..] else { panic!("{} pieces", first.evidence.len()) };
    let charters = CharterChain::of(&chain);
    let verdict = judge(&evidence.contradiction().unwrap().unwrap().with(&charters).unwrap().to_vec()).unwrap();
    assert_eq!((verdict.first.charter_version.min(verdict.second.charter_version), evidence.of), (1, ids[2]));
    assert!(verdict.accused().contains(&ids[2]));
}
