//! Seeded runs: delays, losses, reorderings, cuts, crashes, restarts with an older state, changes of leader, clocks that differ,
//! a liar. The cluster checks every signature and every checkpoint as it happens; here: that all comes to its end.

use super::super::News;
use super::alliance::alliance;
use super::cluster::{Chance, Cluster, Crash};
use super::evidence::judged;
use super::hostile::with_a_liar;
use crate::test_disk::Unsynced;

const SEEDS: u64 = 72;
const STEPS: u64 = 400;

fn run(seed: u64, mut cluster: Cluster, honest: usize) -> Cluster {
    let mut chance = Chance::new(seed ^ 0xabcd);
    let any = |chance: &mut Chance, n: usize| usize::try_from(chance.below(n as u64)).unwrap();
    cluster.delay_ms = [2, 20, 400][any(&mut chance, 3)];
    cluster.loses = [0, 20, 4][any(&mut chance, 3)];
    // A minority has a clock that is wrong by more than the bound.
    let wrong = any(&mut chance, honest);
    for n in 0..honest {
        cluster.peers[n].clock_ms = i64::try_from(chance.below(50_000)).unwrap() - 25_000;
    }
    if honest > 1 && chance.one_in(2) {
        cluster.peers[wrong].clock_ms = if chance.one_in(2) { 3_600_000 } else { -3_600_000 };
    }
    for _ in 0..STEPS {
        let n = any(&mut chance, cluster.peers.len());
        match chance.below(20) {
            0..6 => {
                let more = cluster.logs[0].size() + 1 + chance.below(4);
                cluster.logs[0].grow(more, "agreed");
                let forged = cluster.logs.get_mut(1);
                forged.into_iter().for_each(|log| log.grow(more, "forged"));
            }
            6..14 => {
                let (applied, there) = (cluster.peers[n].applied, cluster.logs[0].size());
                cluster.apply(n, applied + chance.below(there - applied + 1));
            }
            14 => cluster.leader = (!chance.one_in(4)).then(|| any(&mut chance, honest)),
            15 => {
                // Alone a node's log has all that was ever committed.
                let (applied, kept) = (cluster.peers[n].applied, Unsynced::Some(chance.below(1 << 40)));
                let lost = if honest == 1 { 0 } else { chance.below(applied / 2 + 1) };
                cluster.restart(n, applied - lost, kept);
            }
            16 => {
                let crash = if chance.one_in(2) { Crash::BeforeTheSync } else { Crash::AfterTheSync };
                cluster.round(n, News::default(), crash);
            }
            17 => {
                let id = cluster.peers[n].who.id;
                if !cluster.cut.remove(&id) {
                    cluster.cut.insert(id);
                }
            }
            18 => cluster.pass_ms(chance.below(8000)),
            _ => cluster.pass_ms(chance.below(200)),
        }
        cluster.pass_ms(chance.below(20));
    }
    // All is well again: every wish is answered.
    (cluster.loses, cluster.delay_ms) = (0, 20);
    cluster.cut.clear();
    cluster.peers[wrong].clock_ms = 0;
    cluster.leader = Some(any(&mut chance, honest));
    let size = cluster.logs[0].size() + 1;
    cluster.logs[0].grow(size, "agreed");
    for n in 0..honest {
        cluster.apply(n, size);
    }
    cluster.pass_ms(15_000);
    assert_eq!(cluster.shown()[..honest], vec![size; honest], "seed {seed}");
    for peer in &cluster.peers[..honest] {
        assert!(peer.fenced.is_none(), "seed {seed}: {:?}", peer.fenced);
        assert!(peer.core.held() <= 7 * 5, "seed {seed}");
        for evidence in &peer.evidence {
            assert!(
                cluster.peers.iter().any(|liar| liar.liar && liar.who.id == evidence.of),
                "seed {seed}: of an honest node"
            );
            let verdict = judged(evidence, peer).unwrap_or_else(|why| panic!("seed {seed}: {why}"));
            assert!(verdict.accused().contains(&evidence.of), "seed {seed}");
        }
    }
    cluster
}

#[test]
fn every_checkpoint_has_a_quorum_no_node_signs_two_branches_and_every_wish_is_answered() {
    for seed in 0..SEEDS {
        let members = ["ABC", "ABCDE", "AAB", "A", "AABBC", "ABCDEFG"][usize::try_from(seed % 6).unwrap()];
        run(seed, Cluster::new(alliance(members, None), seed), members.len());
    }
}

#[test]
fn a_liar_is_found_out_and_changes_nothing_for_the_others() {
    for seed in 0..16 {
        let five = run(seed, with_a_liar(seed, 0), 4);
        assert!(five.peers[..4].iter().any(|peer| !peer.evidence.is_empty()), "seed {seed}");
        let liar = five.peers[4].who.id;
        for peer in &five.peers[..4] {
            let proven = peer.evidence.iter().map(|evidence| judged(evidence, peer).unwrap());
            let culprits: Vec<_> = proven.flat_map(|verdict| verdict.culprits).map(|culprit| culprit.node).collect();
            assert!(culprits.iter().all(|culprit| *culprit == liar), "seed {seed}: {culprits:?}");
        }
    }
}
