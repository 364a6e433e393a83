//! The simulation itself: that it repeats, and that it notices what is broken on purpose.

#![cfg(ehe_sim)]
#![allow(missing_docs, clippy::unwrap_used, clippy::panic)]

use ehe_node::consensus::sim::Red;
use ehe_sim::{
    plan::Broken,
    run::{Report, run},
};

/// The first of so many seeds that shows it.
fn red(broken: Broken, seeds: u64) -> Report {
    std::panic::set_hook(Box::new(|_| {}));
    let found = (0..seeds).map(|seed| run(seed, Some(broken), false)).find(|report| !report.violations.is_empty());
    found.unwrap_or_else(|| panic!("{broken:?} was not noticed in {seeds} seeds"))
}

#[test]
fn the_same_seed_is_the_same_run() {
    for seed in [1, 2, 3] {
        let (once, again) = (run(seed, None, false), run(seed, None, false));
        assert_eq!(once.hash, again.hash, "seed {seed}");
        assert!(once.frames > 100 && once.hash.1 > once.frames);
    }
    assert_ne!(run(1, None, false).hash, run(2, None, false).hash);
}

#[test]
fn disks_that_lie_about_syncing_are_noticed() {
    red(Broken::LyingDisks, 4);
}

#[test]
fn a_vote_that_is_given_before_it_is_on_disk_is_noticed() {
    red(Broken::Rule(Red::VoteBeforeSync), 10);
}

#[test]
fn a_journal_that_is_not_synced_is_noticed() {
    red(Broken::Rule(Red::JournalUnsynced), 4);
}

#[test]
fn a_node_that_lost_its_disks_and_is_let_in_is_noticed() {
    red(Broken::WipedNodes, 100);
}

#[test]
fn a_node_that_lost_its_disks_and_is_taken_for_new_by_who_never_met_it_is_noticed() {
    red(Broken::Rule(Red::Strangers), 100);
}

#[test]
fn an_answer_that_counts_for_a_later_question_lets_a_reader_see_less_than_was_acknowledged() {
    let report = red(Broken::Rule(Red::AnswersAtOnce), 30);
    assert!(report.violations.iter().all(|what| what.contains("let a reader")), "{:?}", report.violations);
}
