//! Every state of a shard that moves, and whole moves with leaders that come and go.

use super::*;

fn node(n: u8) -> NodeId {
    NodeId([n; 8])
}

fn nodes(numbers: &[u8]) -> Nodes {
    numbers.iter().map(|n| node(*n)).collect()
}

fn far(numbers: &[u8]) -> Step {
    Step::Wait(Awaited::Log(nodes(numbers)))
}

fn no_successor(numbers: &[u8]) -> Step {
    Step::Wait(Awaited::Successor(nodes(numbers)))
}

/// Node 1 leads a shard that has been under charter 1 of group `group` since it began; all have the whole log.
fn shard(group: &[u8]) -> Seen {
    Seen {
        me: node(1),
        leads: true,
        committed: 1,
        group: nodes(group),
        before: None,
        next: None,
        newest: nodes(group),
        voters: nodes(group),
        changing: false,
        learners: nodes(&[]),
        matched: (1..10).map(|n| (node(n), Some(1000))).collect(),
        last: Some(1000),
        older: nodes(&[]),
        shown_under: Some(1),
    }
}

/// The same, and a charter is known that puts it to `next`.
fn moving(group: &[u8], next: &[u8]) -> Seen {
    Seen { next: Some(nodes(next)), newest: nodes(next), ..shard(group) }
}

/// The charter that puts it from `before` to `group` is committed, and both vote.
fn taken(before: &[u8], group: &[u8]) -> Seen {
    let voters = nodes(before).union(&nodes(group)).copied().collect();
    Seen { committed: 2, before: Some(nodes(before)), voters, ..shard(group) }
}

#[test]
fn every_state_has_its_step() {
    let lags = |by: u64, mut seen: Seen| {
        seen.matched.insert(node(3), Some(1000 - by));
        seen
    };
    let unheard = |n: u8, mut seen: Seen| {
        seen.matched.insert(node(n), None);
        seen
    };
    let table = [
        ("another leads", Seen { leads: false, ..moving(&[1], &[1, 2, 3]) }, Step::Follow),
        ("it lives where it should", shard(&[1]), Step::Rest),
        ("it always did, and nothing is written of it", Seen { committed: 0, ..shard(&[1]) }, Step::Rest),
        ("charter 1 comes first", Seen { committed: 0, ..moving(&[1], &[1, 2, 3]) }, Step::Take(1)),
        ("charter 1 comes first, also where nothing moves", Seen { committed: 0, ..moving(&[1], &[1]) }, Step::Take(1)),
        ("a charter that does not move it", moving(&[1, 2, 3], &[1, 2, 3]), Step::Take(2)),
        (
            "who never came, and the newest charter does without, gets no vote",
            unheard(3, Seen { voters: nodes(&[1, 2]), newest: nodes(&[1, 2]), ..moving(&[1, 2, 3], &[1, 2, 3]) }),
            Step::Take(2),
        ),
        (
            "who never came is given the log",
            unheard(3, Seen { voters: nodes(&[1, 2]), ..shard(&[1, 2, 3]) }),
            Step::Learn(node(3)),
        ),
        (
            "and is waited for until it has something",
            unheard(3, Seen { voters: nodes(&[1, 2]), learners: nodes(&[3]), ..shard(&[1, 2, 3]) }),
            far(&[3]),
        ),
        ("the first new node", moving(&[1], &[1, 2, 3]), Step::Learn(node(2))),
        ("the second", Seen { learners: nodes(&[2]), ..moving(&[1], &[1, 2, 3]) }, Step::Learn(node(3))),
        ("both lack it", lags(65, Seen { learners: nodes(&[2, 3]), ..moving(&[1], &[1, 2, 3]) }), far(&[3])),
        (
            "one was never heard of",
            unheard(2, Seen { learners: nodes(&[2, 3]), ..moving(&[1], &[1, 2, 3]) }),
            far(&[2]),
        ),
        (
            "close enough",
            lags(64, Seen { learners: nodes(&[2, 3]), ..moving(&[1], &[1, 2, 3]) }),
            Step::Vote(nodes(&[1, 2, 3])),
        ),
        ("both groups vote", Seen { learners: nodes(&[2]), ..moving(&[1], &[2]) }, Step::Vote(nodes(&[1, 2]))),
        (
            "a change that was left half done",
            Seen { voters: nodes(&[1, 2, 3]), changing: true, ..moving(&[1], &[1, 2, 3]) },
            Step::Vote(nodes(&[1, 2, 3])),
        ),
        ("who leads stays", Seen { voters: nodes(&[1, 2, 3]), ..moving(&[1], &[1, 2, 3]) }, Step::Take(2)),
        ("who leads leaves", Seen { voters: nodes(&[1, 2]), ..moving(&[1], &[2]) }, Step::HandOver(node(2))),
        (
            "the one that has most",
            lags(3, Seen { voters: nodes(&[1, 2, 3]), ..moving(&[1], &[2, 3, 4]) }),
            Step::Learn(node(4)),
        ),
        ("nobody may lead", lags(65, Seen { voters: nodes(&[1, 3]), ..moving(&[1], &[3]) }), no_successor(&[3])),
        ("no checkpoint under it", taken(&[1], &[1, 2, 3]), Step::Wait(Awaited::Checkpoint)),
        ("the checkpoint is there", Seen { shown_under: Some(2), ..taken(&[1], &[1, 2, 3]) }, Step::Vouch),
        ("one that must not order was elected", taken(&[1, 2, 3], &[2, 3, 4]), Step::HandOver(node(4))),
        (
            "the next charter waits until this one is done",
            Seen { next: Some(nodes(&[5])), newest: nodes(&[5]), ..taken(&[1], &[1, 2, 3]) },
            Step::Wait(Awaited::Checkpoint),
        ),
        (
            "vouched for: who left has no vote any more",
            Seen { before: None, ..taken(&[1, 4, 5], &[1, 2, 3]) },
            Step::Vote(nodes(&[1, 2, 3])),
        ),
        ("vouched for, and who leads is to go", Seen { before: None, ..taken(&[1], &[2]) }, Step::HandOver(node(2))),
        (
            "the next charter right behind it",
            Seen { next: Some(nodes(&[2])), newest: nodes(&[2]), before: None, ..taken(&[1], &[1, 2, 3]) },
            Step::HandOver(node(2)),
        ),
        (
            "a learner that no charter names any more",
            Seen { learners: nodes(&[7]), ..shard(&[1]) },
            Step::Unlearn(node(7)),
        ),
        (
            "a node that never came, and a later charter without it",
            unheard(3, Seen { learners: nodes(&[2, 3]), newest: nodes(&[1, 2, 4]), ..moving(&[1], &[1, 2, 3]) }),
            Step::Vote(nodes(&[1, 2])),
        ),
        (
            "two of three that never came: the charter in between cannot be done without them",
            unheard(2, unheard(3, Seen { learners: nodes(&[2, 3]), newest: nodes(&[1]), ..moving(&[1], &[1, 2, 3]) })),
            far(&[2, 3]),
        ),
    ];
    for (what, seen, step) in table {
        assert_eq!(next_step(&seen), step, "{what}");
    }
}

/// A shard that does what it is told, between leaders that die at any moment.
struct Model {
    charters: Vec<Nodes>,
    seen: Seen,
    /// Steps that leave who leads where he is.
    log: Vec<Step>,
}

impl Model {
    fn new(charters: &[&[u8]]) -> Self {
        let charters: Vec<Nodes> = charters.iter().map(|group| nodes(group)).collect();
        let seen = Seen {
            group: charters[0].clone(),
            voters: charters[0].clone(),
            newest: charters[charters.len() - 1].clone(),
            committed: 0,
            ..shard(&[])
        };
        Self { charters, seen, log: Vec::new() }
    }

    fn look(&mut self) -> Step {
        let version = self.seen.committed.max(1) as usize;
        self.seen.group = self.charters[version - 1].clone();
        self.seen.next = self.charters.get(version).cloned();
        next_step(&self.seen)
    }

    fn act(&mut self, step: &Step) {
        let seen = &mut self.seen;
        match step {
            Step::Learn(new) => {
                seen.learners.insert(*new);
            }
            Step::Unlearn(old) => {
                seen.learners.remove(old);
            }
            Step::Vote(voters) => {
                let may = |node: &&NodeId| !seen.voters.contains(*node) && !seen.learners.contains(*node);
                assert_eq!(voters.iter().find(may), None, "a voter has to be a learner first");
                seen.learners.retain(|node| !voters.contains(node));
                seen.voters = voters.clone();
            }
            Step::HandOver(to) => {
                assert!(seen.voters.contains(to));
                seen.me = *to;
            }
            Step::Take(version) => {
                assert_eq!(*version, seen.committed + 1, "no charter is skipped");
                assert!(seen.before.is_none(), "one at a time");
                let (old, new) = (
                    self.charters[version.saturating_sub(2) as usize].clone(),
                    self.charters[*version as usize - 1].clone(),
                );
                assert!(new.contains(&seen.me) && new.union(&old).all(|node| seen.voters.contains(node)));
                seen.committed = *version;
                seen.before = (old != new).then_some(old);
            }
            Step::Vouch => {
                assert_eq!(seen.shown_under, Some(seen.committed));
                seen.before = None;
            }
            Step::Wait(Awaited::Checkpoint) => {
                let group = &self.charters[seen.committed as usize - 1];
                assert!(group.contains(&seen.me), "only one of the new group orders a checkpoint");
                assert!(group.iter().all(|node| seen.voters.contains(node)));
                seen.shown_under = Some(seen.committed);
            }
            Step::Wait(_) | Step::Follow | Step::Rest => {}
        }
        self.log.push(step.clone());
    }
}

#[test]
fn a_shard_comes_to_every_group_that_charters_name_one_after_the_other_whoever_leads_meanwhile() {
    let histories: &[&[&[u8]]] = &[
        &[&[1], &[1, 2, 3]],
        &[&[1], &[1, 2, 3], &[1]],
        &[&[1], &[2]],
        &[&[1, 2, 3], &[4, 5, 6]],
        &[&[1, 2, 3], &[1, 2, 4], &[1, 5, 4], &[6, 5, 4]],
        &[&[1, 2, 3], &[1, 2, 3], &[1, 2, 3, 4, 5]],
        &[&[1, 2, 3, 4, 5], &[5], &[5, 6, 7]],
    ];
    let mut chance = 88_172_645_463_325_252_u64;
    let mut below = |n: usize| {
        chance ^= chance << 13;
        chance ^= chance >> 7;
        chance ^= chance << 17;
        usize::try_from(chance >> 33).unwrap() % n
    };
    for history in histories {
        for round in 0..200 {
            let mut model = Model::new(history);
            model.seen.me = *model.seen.voters.first().unwrap();
            let mut steps = 0;
            while model.look() != Step::Rest {
                steps += 1;
                assert!(steps < 400, "{history:?}: it does not come to rest: {:?}", model.log);
                let step = model.look();
                // The leader dies: before the step, in the middle of a change, or after the step and before it heard so.
                let dies = if round > 0 && steps < 60 { below(4) } else { 9 };
                if dies != 0 {
                    model.act(&step);
                    model.seen.changing = dies == 1 && matches!(step, Step::Vote(_));
                }
                if dies < 2 {
                    let voters: Vec<NodeId> = model.seen.voters.iter().copied().collect();
                    model.seen.me = voters[below(voters.len())];
                    model.seen.shown_under = model.seen.shown_under.filter(|_| below(2) == 0);
                } else if matches!(step, Step::Vote(_)) {
                    model.seen.changing = false;
                }
            }
            let last = nodes(history[history.len() - 1]);
            assert_eq!((&model.seen.voters, &model.seen.group), (&last, &last));
            assert_eq!(model.seen.committed as usize, history.len());
            assert!(model.seen.learners.is_empty() && model.seen.before.is_none());
        }
    }
}

#[test]
fn a_charter_that_raises_the_rules_waits_for_who_does_not_know_them_and_nothing_else_does() {
    let older = |mut seen: Seen, n: u8| {
        seen.older = nodes(&[n]);
        seen
    };
    let program = Step::Wait(Awaited::Program(nodes(&[2])));
    assert_eq!(next_step(&older(moving(&[1, 2, 3], &[1, 2, 3]), 2)), program);
    assert_eq!(next_step(&moving(&[1, 2, 3], &[1, 2, 3])), Step::Take(2));
    // What leads there is done all the same, and what the shard began with raises nothing.
    assert_eq!(next_step(&older(moving(&[1, 2, 3], &[2, 3, 4]), 2)), Step::Learn(node(4)));
    let begun = Seen { committed: 0, ..older(moving(&[1, 2, 3], &[1, 2, 3]), 2) };
    assert_eq!(next_step(&begun), Step::Take(1));
    assert_eq!(next_step(&older(shard(&[1, 2, 3]), 2)), Step::Rest);
}

#[test]
fn a_node_that_never_knows_the_rules_keeps_no_charter_from_coming_that_does_without_it() {
    let seen = |group: &[u8], older: &[u8], newest: &[u8]| Seen {
        older: nodes(older),
        newest: nodes(newest),
        ..moving(group, group)
    };
    let program = |older: &[u8]| Step::Wait(Awaited::Program(nodes(older)));
    assert_eq!(next_step(&seen(&[1, 2, 3], &[2], &[1, 3, 4])), Step::Take(2));
    assert_eq!(next_step(&seen(&[1, 2, 3], &[2, 3], &[1, 3, 4])), program(&[2, 3]), "node 3 stays");
    assert_eq!(next_step(&seen(&[1, 2, 3], &[2, 3], &[1, 4, 5])), program(&[2, 3]), "they are more than half");
    assert_eq!(next_step(&seen(&[1, 2], &[2], &[1, 3])), program(&[2]), "one of two");
    assert_eq!(next_step(&seen(&[1, 2, 3, 4, 5], &[2, 3], &[1, 4, 5])), Step::Take(2));
}
