//! What findings prove to somebody who has the file alone; and what evidence does to whom it is about.

use ehe::checkpoint::Checkpoint;
use ehe::evidence::{EvidenceError, Finding, Verdict};
use ehe::id::Hash;

use super::super::message::{Cosignature, Message, Point, Word};
use super::super::{Distrusted, Evidence, News, Refused};
use super::alliance::alliance;
use super::cluster::{Cluster, Crash, Peer};
use super::hostile::with_a_liar;

/// What a finding proves. Both of its sides are signed.
pub(super) fn judged(evidence: &Evidence, peer: &Peer) -> Result<Verdict, EvidenceError> {
    evidence.contradiction().expect("two signed sides")?.judge(&[&*peer.who.charter])
}

fn distrusted(cluster: &Cluster, node: usize, incarnation: u32) -> News {
    let node = cluster.peers[node].who.id;
    News { distrusted: [Distrusted { shard: 0, incarnation, node }].into(), ..News::default() }
}

#[test]
fn a_node_of_which_there_is_evidence_is_not_counted_by_those_who_have_it() {
    let mut three = Cluster::new(alliance("ABC", None), 1);
    three.commit(2);
    three.pass_ms(100);
    let news = distrusted(&three, 2, 0);
    three.round(0, news, Crash::No);
    // Of the three the leader and the one of which there is evidence are there.
    let second = three.peers[1].who.id;
    three.cut.insert(second);
    three.commit(5);
    three.pass_ms(5000);
    assert_eq!(three.shown()[0], 2, "its cosignature makes no quorum any more");
    three.cut.clear();
    three.pass_ms(9000);
    assert_eq!(three.shown()[0], 5);
    let third = three.peers[2].who.id;
    assert!(!three.peers[0].published.as_ref().unwrap().cosigners.contains(&third));
    assert!(three.peers.iter().all(|peer| peer.evidence.is_empty()), "it contradicted nothing here");
}

#[test]
fn evidence_of_one_incarnation_says_nothing_of_another() {
    let mut three = Cluster::new(alliance("ABC", None), 1);
    let second = three.peers[1].who.id;
    three.cut.insert(second);
    let news = distrusted(&three, 2, 7);
    three.round(0, news, Crash::No);
    three.commit(5);
    three.pass_ms(5000);
    assert_eq!(three.shown()[0], 5);
}

#[test]
fn a_node_that_is_shown_evidence_about_itself_signs_nothing_more() {
    let mut three = Cluster::new(alliance("ABC", None), 1);
    three.commit(2);
    three.pass_ms(100);
    let news = distrusted(&three, 2, 0);
    three.round(2, news, Crash::No);
    assert!(matches!(three.peers[2].fenced.as_deref(), Some(Refused::SignedBoth { shard: 0 })));
    three.commit(3);
    three.pass_ms(3000);
    assert_eq!(three.shown(), [3, 3, 2]);
}

/// What a node cosigns of shard 0.
pub(super) fn cosigned(cluster: &Cluster, node: usize, size: u64, root: Hash) -> Cosignature {
    let (who, time_s) = (&cluster.peers[node].who, cluster.wall().0 / 1000);
    let checkpoint = Checkpoint { origin: who.charter.origin(0, 0), size, root, charter_version: 1 };
    let signature = checkpoint.unsigned().unwrap().cosign(&who.name, who.identity.sign_key(), time_s).into();
    let point = Point { shard: 0, charter: 1, incarnation: 0, size, root };
    Cosignature { point, word: Word { time_s, signature }, order: None, wished_at: None }
}

#[test]
fn what_a_liar_said_before_counts_no_more_and_what_it_never_signed_is_not_held_against_it() {
    let mut three = Cluster::new(alliance("ABC", None), 1);
    let ids: Vec<_> = three.peers.iter().map(|peer| peer.who.id).collect();
    three.cut.extend(&ids[1..]);
    for size in [5, 8] {
        three.logs[0].grow(size, "agreed");
        three.apply(0, size);
        three.pass_ms(3000);
    }
    let say = |three: &mut Cluster, said: Cosignature| three.say(0, ids[2], Message::Cosignature(said).to_vec());
    let lie = cosigned(&three, 2, 8, Hash([7; 32]));
    say(&mut three, lie);
    // The first node cosigned five leaves; with one more member they would stand.
    let earlier = cosigned(&three, 2, 5, three.logs[0].root(5));
    say(&mut three, earlier);
    three.pass_ms(1000);
    assert_eq!(three.shown()[0], 0, "its word makes no quorum");
    // In its name, but not by its key: its own word alone would prove that it signed both.
    let word = Word { signature: [1; 64].into(), ..earlier.word };
    let agreed = three.logs[0].root(8);
    say(&mut three, Cosignature { point: Point { size: 8, root: agreed, ..earlier.point }, word, ..earlier });
    three.pass_ms(30_000);
    let first = &three.peers[0];
    assert!(first.fenced.is_none());
    let [evidence] = &first.evidence[..] else { panic!("{} pieces", first.evidence.len()) };
    assert_eq!(judged(evidence, first).unwrap().finding(), Finding::Sides, "no quorum stands against it");
}

#[test]
fn who_tells_each_half_another_story_is_proven_to_have_signed_both_once_the_halves_speak() {
    let mut five = with_a_liar(3, 3);
    let (liar, leader) = (five.peers[4].who.id, five.peers[0].who.id);
    // Nothing reaches the liar, or comes from it, but by the hand of this test.
    five.cut.insert(liar);
    five.logs[1].grow(8, "forged");
    five.logs[0].grow(8, "agreed");
    for n in 0..6 {
        five.apply(n, 8);
    }
    five.pass_ms(500);
    let wishes: Vec<_> = std::mem::take(&mut five.undelivered)
        .into_iter()
        .filter(|(from, to, message)| *from == leader && *to == liar && matches!(message, Message::Wish(_)))
        .collect();
    for (_, _, wish) in &wishes {
        five.say(4, leader, wish.to_vec());
        five.say(5, leader, wish.to_vec());
    }
    let agreed = five.logs[0].root(8);
    let said: Vec<_> = std::mem::take(&mut five.undelivered)
        .into_iter()
        .filter(|(from, _, message)| *from == liar && matches!(message, Message::Cosignature(_)))
        .collect();
    assert!(said.len() > 1, "both cores signed");
    for (_, _, message) in said {
        let halves = if message.point().unwrap().root == agreed { [0, 1] } else { [2, 3] };
        halves.into_iter().for_each(|n| five.say(n, liar, message.to_vec()));
    }
    five.pass_ms(3000);
    let found = |n: usize| {
        let peer = &five.peers[n];
        let verdict = judged(peer.evidence.last().expect("evidence"), peer).unwrap();
        assert_eq!(verdict.accused(), [liar].into(), "node {n}");
        verdict.finding()
    };
    assert_eq!([0, 1].map(found), [Finding::SignedBoth; 2], "they had heard the other story themselves");
    assert_eq!([2, 3].map(found), [Finding::AgainstQuorum; 2], "until the others' file comes");
}
