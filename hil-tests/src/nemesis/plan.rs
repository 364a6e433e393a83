//! The plan: the same seed gives the same faults in the same order.

use std::collections::BTreeMap;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};

use super::fault::{Change, Cut, Fault, Planned, Sort, Whom};

/// What is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// Nodes of the alliance.
    pub nodes: usize,
    /// How many faults of each sort. Sorts that this machine cannot do are left out by the caller.
    pub counts: BTreeMap<Sort, usize>,
}

impl Wanted {
    /// So many kills, and so many of each other sort that is possible.
    pub fn kills_and_others(nodes: usize, kills: usize, others: usize, possible: impl Fn(Sort) -> bool) -> Self {
        let count = |sort| if sort == Sort::Kill { kills } else { others };
        let counts = Sort::ALL.into_iter().filter(|sort| possible(*sort)).map(|sort| (sort, count(sort))).collect();
        Self { nodes, counts }
    }
}

/// Within what clocks may differ by: nobody minds.
const AHEAD_S: i64 = 45;
/// Far beyond it: nobody takes what such a leader orders, and it gives way.
const FAR_AHEAD_S: i64 = 600;
/// A leader that is behind only lets time stand still; a follower that is, takes nothing until it is mended.
const BEHIND_S: i64 = -600;

/// Makes it.
pub fn plan(seed: u64, wanted: &Wanted) -> Vec<Planned> {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut sorts: Vec<Sort> =
        wanted.counts.iter().flat_map(|(sort, count)| std::iter::repeat_n(*sort, *count)).collect();
    sorts.shuffle(&mut rng);
    // Of a sort that comes more than once, none of its shapes is left to chance.
    let mut turns: BTreeMap<Sort, usize> = BTreeMap::new();
    let planned = sorts.into_iter().map(|sort| {
        let turn = turns.entry(sort).or_insert_with(|| rng.random_range(0..4));
        *turn += 1;
        one(sort, *turn, wanted.nodes, &mut rng)
    });
    planned.collect()
}

fn one(sort: Sort, turn: usize, nodes: usize, rng: &mut StdRng) -> Planned {
    let odd = turn % 2 == 1;
    let follower = Whom::Follower(rng.random_range(0..nodes.saturating_sub(1).max(1)));
    let rest = if turn % 4 < 2 { None } else { Some(rng.random()) };
    let either = if odd { Whom::Leader } else { follower };
    let (fault, from_ms, to_ms) = match sort {
        // Two of three by the leader; now and then everybody.
        Sort::Kill if turn.is_multiple_of(10) => (Fault::Kill(Whom::Everybody), 200, 1_500),
        Sort::Kill if turn % 3 == 2 => (Fault::Kill(follower), 200, 2_500),
        Sort::Kill => (Fault::Kill(Whom::Leader), 800, 2_500),
        // A majority's disks forget at once: nothing but what was synced is anywhere.
        Sort::PowerCut if odd => (Fault::PowerCut(Whom::Everybody, rest), 100, 800),
        Sort::PowerCut => (Fault::PowerCut(Whom::Leader, rest), 800, 2_000),
        Sort::Pause => (Fault::Pause(either), 1_500, 4_000),
        Sort::Apart => (Fault::Cut(either, Cut::Apart), 1_500, 4_000),
        Sort::OneWay => (Fault::Cut(either, if turn % 4 < 2 { Cut::Mute } else { Cut::Deaf }), 1_500, 4_000),
        Sort::Flapping => (Fault::Cut(either, Cut::Flapping), 3_000, 6_000),
        Sort::Unreached => (Fault::Cut(Whom::Leader, Cut::Unreached), 1_500, 3_000),
        Sort::FullDisk => (Fault::FullDisk, 2_000, 4_000),
        Sort::Skew => (Fault::Skew(either, if turn % 4 < 2 { AHEAD_S } else { BEHIND_S }), 2_000, 4_000),
        Sort::Ahead => (Fault::Skew(Whom::Leader, FAR_AHEAD_S), 3_000, 6_000),
        Sort::MoveLeader => (Fault::MoveLeader, 300, 1_000),
        Sort::Members if turn % 4 == 3 => (Fault::MembersAndKill(follower, Change::Replace), 50, 800),
        Sort::Members if odd => (Fault::Members(Whom::Leader, Change::Replace), 0, 0),
        Sort::Members => (Fault::Members(either, Change::Drain), 0, 0),
        Sort::KillGateway => (Fault::KillGateway, 300, 2_000),
    };
    let lasts = Duration::from_millis(rng.random_range(from_ms..=to_ms));
    Planned { after: Duration::from_millis(rng.random_range(0..=700)), fault, lasts }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_one_plan_and_a_plan_has_what_was_wanted_in_every_shape() {
        let wanted = Wanted::kills_and_others(3, 20, 4, |sort| sort != Sort::FullDisk);
        assert_eq!(plan(1, &wanted), plan(1, &wanted));
        assert_ne!(plan(1, &wanted), plan(2, &wanted));
        for seed in 0..20 {
            let planned = plan(seed, &wanted);
            let mut counts: BTreeMap<Sort, usize> = BTreeMap::new();
            for it in &planned {
                *counts.entry(it.fault.sort()).or_default() += 1;
            }
            assert_eq!(counts, wanted.counts);
            let has = |fault: fn(&Fault) -> bool| planned.iter().any(|it| fault(&it.fault));
            assert!(has(|fault| matches!(fault, Fault::Kill(Whom::Everybody))));
            assert!(has(|fault| matches!(fault, Fault::PowerCut(Whom::Everybody, _))));
            assert!(has(|fault| matches!(fault, Fault::Cut(_, Cut::Mute))));
            assert!(has(|fault| matches!(fault, Fault::Cut(_, Cut::Deaf))));
            assert!(has(|fault| matches!(fault, Fault::Skew(_, AHEAD_S))));
            assert!(has(|fault| matches!(fault, Fault::Skew(Whom::Leader, FAR_AHEAD_S))));
            assert!(has(|fault| matches!(fault, Fault::Members(Whom::Leader, Change::Replace))));
            assert!(has(|fault| matches!(fault, Fault::Members(_, Change::Drain))));
            assert!(has(|fault| matches!(fault, Fault::MembersAndKill(..))));
            assert!(has(|fault| matches!(fault, Fault::Skew(_, BEHIND_S))));
            assert!(planned.iter().all(|it| it.lasts <= Duration::from_secs(6)));
        }
    }
}
