//! The test kit: every file of `testkit/` is run; the files are what the generator here makes; each rule of SPEC.md has one
//! that breaks it.
//!
//! `EHE_TESTKIT=write cargo test -p ehe --test testkit` writes the files anew (and removes those that no case makes).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

mod case;
mod coverage;
mod json;
mod make;
mod run;
#[path = "../../src/test_rng.rs"]
#[allow(dead_code, reason = "the tests of the library use all of it")]
mod test_rng;
mod value;

use case::{Case, Verdict};

/// Runs one case; the text says what does not hold.
fn judge(case: &Case) -> Result<(), String> {
    let (outcome, facts) = run::run(case);
    match (case.verdict, &outcome) {
        (Verdict::Valid, Err(fault)) => return Err(format!("valid, but refused: {fault:?}")),
        (Verdict::Invalid, Ok(())) => return Err("invalid, but accepted".into()),
        (Verdict::Invalid, Err(fault)) if case.refusal != fault.refusal => {
            return Err(format!("refused with {fault:?} where {:?} is right", case.refusal));
        }
        _ => {}
    }
    let Some(expected) = case.expect.as_object() else { return Ok(()) };
    for (name, value) in expected {
        if facts.get(name) != Some(value) {
            return Err(format!("{name} is {:?} where {value} is right", facts.get(name)));
        }
    }
    Ok(())
}

#[test]
fn every_file_of_the_kit_has_the_verdict_that_it_carries() {
    let mut wrong = Vec::new();
    let files = case::files();
    assert!(files.len() > 150, "only {} files", files.len());
    for (name, text) in &files {
        let case: Case = serde_json::from_str(text).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!(case.kit, 1, "{name}");
        if let Err(why) = judge(&case) {
            wrong.push(format!("{name}: {why}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_files_are_what_the_generator_makes() {
    let made = make::kit();
    if std::env::var("EHE_TESTKIT").is_ok_and(|v| v == "write") {
        write(&made);
    }
    let files = case::files();
    let names = |of: &std::collections::BTreeMap<String, String>| of.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&files), names(&made), "run it with EHE_TESTKIT=write");
    for (name, text) in &made {
        assert!(files[name] == *text, "{name} differs from what the generator makes: run it with EHE_TESTKIT=write");
    }
}

#[test]
fn control_events_of_a_newer_version_are_told_apart_from_ones_that_are_left_out() {
    let why = |name: &str| {
        let case: Case = serde_json::from_str(&case::files()[name]).unwrap();
        run::run(&case).0.unwrap_err().why
    };
    for shown in ["in-a-part", "in-the-ledger"] {
        let why = why(&format!("follow/V1-unknown-control-{shown}.json"));
        assert!(why.contains("of a version that this program does not know"), "{why}");
    }
    let why = why("follow/C0-revocation-withheld.json");
    assert!(why.contains("left out"), "{why}");
}

fn write(made: &std::collections::BTreeMap<String, String>) {
    for name in case::files().keys().filter(|name| !made.contains_key(*name)) {
        std::fs::remove_file(case::folder().join(name)).unwrap();
    }
    for (name, text) in made {
        let path = case::folder().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
}
