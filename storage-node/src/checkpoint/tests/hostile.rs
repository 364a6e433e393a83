//! Nodes of the group that lie, flood, or send what is no message.

use std::time::Duration;

use ehe::evidence::Finding;
use ehe::id::{Hash, NodeId};
use ehe::time::UnixMs;

use super::super::message::{ClockDiffers, Conflict, Cosignature, Message, Point, Wish, Word};
use super::alliance::{Log, alliance};
use super::cluster::{Chance, Cluster};
use super::evidence::judged;

/// The fifth of five nodes says one thing to the first two and another to the rest: a second core signs in its name.
pub(super) fn with_a_liar(seed: u64, fork_at: u64) -> Cluster {
    let who = alliance("ABCDE", None);
    let double = who[4].clone();
    let mut five = Cluster::new(who, seed);
    let mut doubled = Cluster::new(vec![double], seed);
    five.peers.push(doubled.peers.pop().unwrap());
    five.logs.push(Log::of(fork_at, "agreed"));
    five.peers[5].log = 1;
    five.peers[4].liar = true;
    five.peers[5].liar = true;
    five
}

#[test]
fn a_node_that_cosigns_two_branches_is_found_out_with_evidence_and_counts_no_more() {
    for fork_at in [0, 3, 7] {
        let mut five = with_a_liar(fork_at + 1, fork_at);
        let liar = five.peers[4].who.id;
        five.logs[0].grow(8, "agreed");
        five.logs[1].grow(8, "forged");
        for n in 0..6 {
            five.apply(n, 8);
        }
        five.pass_ms(3000);
        assert_eq!(five.shown()[..4], [8, 8, 8, 8], "the honest go on");
        for peer in &five.peers[..4] {
            assert!(peer.fenced.is_none());
            assert!(peer.evidence.len() <= 2 && peer.evidence.iter().all(|evidence| evidence.of == liar));
            let verdict = judged(peer.evidence.last().unwrap(), peer).unwrap();
            assert_eq!((verdict.finding(), verdict.accused()), (Finding::SignedBoth, [liar].into()));
        }
        // From now on it takes one more of the others.
        five.cut.extend([five.peers[2].who.id, five.peers[3].who.id]);
        five.logs[0].grow(9, "agreed");
        (0..5).for_each(|n| five.apply(n, 9));
        five.pass_ms(9000);
        assert_eq!(five.shown()[..2], [8, 8], "two and a liar are no quorum of five");
    }
}

#[test]
fn whatever_one_node_of_the_group_sends_no_honest_node_is_fenced_holds_much_or_stops() {
    let mut three = Cluster::new(alliance("ABC", None), 7);
    three.commit(20);
    three.pass_ms(100);
    let mut chance = Chance::new(99);
    let hostile = three.peers[2].who.id;
    let roots: Vec<Hash> = (0..=20).map(|size| three.logs[0].root(size)).collect();
    three.cut.insert(hostile);
    for _ in 0..6000 {
        let size =
            [0, 1, 5, 19, 20, 21, 25, u64::MAX, chance.below(u64::MAX)][usize::try_from(chance.below(9)).unwrap()];
        let root = match roots.get(usize::try_from(size).unwrap_or(usize::MAX)) {
            Some(root) if chance.one_in(2) => *root,
            _ => Hash([u8::try_from(chance.below(256)).unwrap(); 32]),
        };
        let point = Point {
            shard: u16::try_from(chance.below(2)).unwrap(),
            charter: 1 + u32::from(chance.one_in(9)),
            incarnation: [0, 0, 0, 1, u32::MAX][usize::try_from(chance.below(5)).unwrap()],
            size,
            root,
        };
        let now = three.wall();
        let at = [now, now, now, UnixMs(0), UnixMs(u64::MAX)][usize::try_from(chance.below(5)).unwrap()];
        let word = Word { time_s: at.0 / 1000, signature: [7; 64].into() };
        let signer = three.peers[usize::try_from(chance.below(3)).unwrap()].who.id;
        let order = chance.one_in(2).then(|| [9; 64].into());
        let message = match chance.below(4) {
            0 => Message::Wish(Wish { point, at }),
            1 => Message::Cosignature(Cosignature { point, word, order, wished_at: Some(at) }),
            2 => Message::Conflict(Conflict { point, signer, word }),
            _ => Message::ClockDiffers(ClockDiffers { shard: 0, at, wished_at: now }),
        };
        let mut bytes = message.to_vec();
        if chance.one_in(5) {
            let at = usize::try_from(chance.below(u64::try_from(bytes.len()).unwrap())).unwrap();
            bytes[at] ^= 1 << chance.below(8);
        }
        let from = if chance.one_in(50) { NodeId([77; 8]) } else { hostile };
        let to = usize::try_from(chance.below(2)).unwrap();
        three.say(to, from, bytes);
        assert!(three.peers[to].core.held() <= 3 * 5, "bounded");
        if chance.one_in(40) {
            three.commit(three.logs[0].size());
            three.pass_ms(3);
        }
    }
    assert!(three.peers[..2].iter().all(|peer| peer.ignored > 500));
    three.commit(30);
    three.pass_ms(3000);
    assert_eq!(three.shown()[..2], [30, 30]);
    for peer in &three.peers[..2] {
        assert!(peer.fenced.is_none() && peer.evidence.is_empty() && peer.may_order);
    }
}

#[test]
fn a_leader_that_wishes_for_less_again_and_again_does_not_keep_the_others_from_hearing_the_largest() {
    let mut three = Cluster::new(alliance("ABC", None), 1);
    three.commit(1);
    three.pass_ms(1000);
    let [leader, second, third] = [0, 1, 2].map(|n| three.peers[n].who.id);
    three.cut.extend([leader, third]);
    three.logs[0].grow(20, "agreed");
    three.apply(1, 20);
    for (size, wait_ms) in [(2, 10), (19, 90), (3, 100), (4, 100), (5, 100), (6, 100)] {
        let point = Point { shard: 0, charter: 1, incarnation: 0, size, root: three.logs[0].root(size) };
        three.say(1, leader, Message::Wish(Wish { point, at: three.wall() }).to_vec());
        // It is there just when all are to be told.
        three.pass_ms(wait_ms - 1);
        three.now += Duration::from_millis(1);
    }
    let heard = three.undelivered.iter().filter(|(from, to, _)| (*from, *to) == (second, third));
    let heard: Vec<u64> = heard
        .filter_map(|(_, _, message)| match message {
            Message::Cosignature(said) => Some(said.point.size),
            _ => None,
        })
        .collect();
    assert_eq!(heard, [20, 19, 6], "its guess; then once in so long, and the largest of what was signed");
}

#[test]
fn a_cosignature_in_anothers_name_does_not_count() {
    let mut three = Cluster::new(alliance("ABC", None), 1);
    let [leader, second] = [0, 1].map(|n| three.peers[n].who.id);
    three.cut.extend([second, three.peers[2].who.id]);
    three.commit(2);
    // The second one's true word, said by the third.
    let mut pair = Cluster::new(vec![three.peers[1].who.clone()], 1);
    pair.logs[0].grow(2, "agreed");
    let point = Point { shard: 0, charter: 1, incarnation: 0, size: 2, root: pair.logs[0].root(2) };
    let checkpoint = ehe::checkpoint::Checkpoint {
        origin: three.peers[0].who.charter.origin(0, 0),
        size: 2,
        root: point.root,
        charter_version: 1,
    };
    let time_s = three.wall().0 / 1000;
    let mut note = checkpoint.unsigned().unwrap();
    let signature = note.cosign(&three.peers[1].who.name, three.peers[1].who.identity.sign_key(), time_s);
    let said = Cosignature { point, word: Word { time_s, signature: signature.into() }, order: None, wished_at: None };
    let message = Message::Cosignature(said).to_vec();
    for from in [three.peers[2].who.id, leader, NodeId([9; 8])] {
        three.say(0, from, message.clone());
        assert_eq!(three.shown()[0], 0);
    }
    three.say(0, second, message);
    assert_eq!(three.shown()[0], 2, "in its own name it does");
}

#[test]
fn a_majority_that_signed_another_log_fences_the_one_that_differs() {
    let mut three = Cluster::new(alliance("ABC", None), 1);
    three.logs.push(Log::of(5, "altered"));
    three.peers[2].log = 1;
    three.logs[0].grow(5, "agreed");
    (0..3).for_each(|n| three.apply(n, 5));
    three.pass_ms(3000);
    assert_eq!(three.shown(), [5, 5, 0]);
    assert_eq!(three.peers.iter().map(|peer| peer.fenced.is_some()).collect::<Vec<_>>(), [false, false, true]);
}
