//! Real nodes under real faults, and the checker's verdict. What is broken on purpose must not pass.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

use std::path::{Path, PathBuf};

use hil_tests::campaign::{Campaign, Report, run};
use hil_tests::lab::process::Programs;
use hil_tests::nemesis::fault::Sort;
use hil_tests::red;
use hil_tests::view::View;

/// Beside the built programs, so that the logs of a campaign that failed stay.
fn out(name: &str) -> PathBuf {
    Programs::built().unwrap().path("").parent().unwrap().join("faults").join(name)
}

fn passed(report: &Report, out: &Path) {
    let violations: Vec<String> = report.violations.iter().map(ToString::to_string).collect();
    assert_eq!(violations, Vec::<String>::new(), "logs and histories are in {}", out.display());
    // However slow the machine is: a campaign in which little happened proves little.
    assert!(report.receipts > 100 && report.reads.0 > 10 && report.reads.1 > 5, "{}", report.told());
    assert!(report.rights > 10 && report.forged > 1 && report.readings > 20, "{}", report.told());
    std::fs::remove_dir_all(out).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn three_hospitals_keep_every_promise_through_kills_and_every_sort_of_fault() {
    let out = out("three");
    let campaign = Campaign { kills: 18, others: 1, ..Campaign::new(&out, 41) };
    let report = run(&campaign, &View::new([], false)).await.unwrap();
    let counted = report.counted();
    assert!(counted[&Sort::Kill] >= 20, "{counted:?}");
    // A machine that lets nobody mount has no disk to fill; that was said.
    let missing = Sort::ALL.iter().filter(|sort| **sort != Sort::FullDisk && !counted.contains_key(sort));
    assert_eq!(missing.count(), 0, "{counted:?}");
    assert_eq!(report.whole, 3, "each node showed its rooms whole");
    passed(&report, &out);
}

#[tokio::test(flavor = "multi_thread")]
async fn five_hospitals_keep_every_promise_where_packets_are_lost_in_a_relay() {
    let out = out("five");
    let campaign = Campaign { nodes: 5, kills: 5, others: 1, writers: 6, relay: true, ..Campaign::new(&out, 42) };
    let report = run(&campaign, &View::new([], false)).await.unwrap();
    passed(&report, &out);
}

#[tokio::test(flavor = "multi_thread")]
async fn disks_that_lie_about_syncs_do_not_pass_the_checker() {
    let out = out("lies");
    red::goes_red(red::NO_FSYNC, None, &out, &View::new([], false)).await.unwrap();
    std::fs::remove_dir_all(out).unwrap();
}

#[test]
fn the_program_that_is_shipped_has_nothing_in_it_that_is_broken_on_purpose() {
    let program = std::fs::read(Programs::built().unwrap().path("ehe-node")).unwrap();
    let has = |text: &str| program.windows(text.len()).any(|window| window == text.as_bytes());
    assert!(has("group stopped for good"), "texts of the program are found");
    assert!(!has("EHE_RED"), "a build with --cfg ehe_red");
}
