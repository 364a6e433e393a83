//! Each rule of SPEC.md has a file that breaks it, and each file names a rule that there is.

use std::collections::{BTreeMap, BTreeSet};

use crate::case::{self, Case, Verdict};

const SPEC: &str = include_str!("../../SPEC.md");

/// Rules that bytes alone cannot break, and why.
const NOT_BY_BYTES: &[(&str, &str)] = &[
    ("A11", "a permission: what it allows is in a valid file"),
    (
        "H4",
        "names no check of its own: a role is compared with the channel's certificate, a grant is asked for all the same",
    ),
    ("D4", "an order of two acts of a node; storage-node's tests hold it"),
    ("D5", "a matter of time while a stream runs; storage-node's tests hold it"),
    ("K5", "whose word a gateway or reader believes, which refuses nothing; the tests of gateway and reader hold it"),
    ("W0", "a step of the handshake; the tests of certs hold it"),
    ("W1", "compares with the channel's certificate; storage-node's tests hold it"),
];

/// Refusals up to 42 that are not the verdict on bytes.
const REFUSALS_NOT_BY_BYTES: &[(u16, &str)] = &[];

fn rules() -> BTreeSet<String> {
    let mut rules = BTreeSet::new();
    for (at, _) in SPEC.match_indices("**") {
        let Some((name, _)) = SPEC[at + 2..].split_once("**") else { continue };
        let mut chars = name.chars();
        let letter = chars.next().is_some_and(|c| c.is_ascii_uppercase());
        let digits = chars.as_str();
        if letter && !digits.is_empty() && digits.chars().all(|c| c.is_ascii_digit()) {
            rules.insert(name.to_owned());
        }
    }
    rules
}

fn cases() -> BTreeMap<String, Case> {
    case::files().into_iter().map(|(name, text)| (name, serde_json::from_str(&text).unwrap())).collect()
}

#[test]
fn each_rule_of_the_spec_has_a_file_that_breaks_it() {
    let broken: BTreeSet<String> =
        cases().into_values().filter(|case| case.verdict == Verdict::Invalid).map(|case| case.rule).collect();
    let excused: BTreeSet<String> = NOT_BY_BYTES.iter().map(|(rule, _)| (*rule).to_owned()).collect();
    let rules = rules();
    assert!(rules.len() > 30, "the rules are not found: {rules:?}");
    let missing: Vec<_> = rules.difference(&broken).filter(|rule| !excused.contains(*rule)).collect();
    assert!(missing.is_empty(), "no invalid file for {missing:?}");
    let needless: Vec<_> = excused.iter().filter(|rule| broken.contains(*rule) || !rules.contains(*rule)).collect();
    assert!(needless.is_empty(), "excused without need: {needless:?}");
}

#[test]
fn each_file_is_named_after_a_rule_that_the_spec_has() {
    let rules = rules();
    for (name, case) in cases() {
        assert!(rules.contains(&case.rule), "{name}: the SPEC has no rule {}", case.rule);
        let file = name.rsplit('/').next().unwrap();
        assert!(file.starts_with(&format!("{}-", case.rule)), "{name} is not named after its rule {}", case.rule);
    }
}

#[test]
fn each_refusal_of_a_submission_or_a_request_is_the_verdict_of_a_file() {
    let found: BTreeSet<u16> = cases().into_values().filter_map(|case| case.refusal).collect();
    let excused: BTreeSet<u16> = REFUSALS_NOT_BY_BYTES.iter().map(|(code, _)| *code).collect();
    let wanted: BTreeSet<u16> = ehe::refusal::Refusal::ALL.iter().map(|r| r.code()).filter(|c| *c <= 42).collect();
    let missing: Vec<_> = wanted.difference(&found).filter(|code| !excused.contains(code)).collect();
    assert!(missing.is_empty(), "no file is refused with {missing:?}");
}

/// What a room may hold (section 13), and the file that reaches it and then passes it.
const ROOM_LIMITS: &[(&str, &str)] = &[
    ("EPOCHS_PER_GRANT_MAX", "rights/A12-granted-epochs.json"),
    ("GRANTS_PER_ROOM_MAX", "rights/A12-grants.json"),
    ("GRANTED_EPOCHS_PER_ROOM_MAX", "rights/A12-granted-epochs.json"),
    ("EPOCHS_PER_ROOM_MAX", "rights/A12-epochs.json"),
    ("DELEGATIONS_PER_ROOM_MAX", "authority/A12-delegations.json"),
    ("OWNER_KEYS_BY_ROTATION_MAX", "authority/A14-as-many-keys-as-there-may-be.json"),
    ("OWNER_KEYS_PER_ROOM_MAX", "authority/A14-as-many-keys-as-there-may-be.json"),
    ("WRAPS_PER_CONTROL_MAX", "rights/A12-part-keys.json"),
];

#[test]
fn each_limit_of_a_room_has_a_file_that_reaches_it_and_passes_it() {
    let (cases, limits) = (cases(), include_str!("../../src/limits.rs"));
    let of_rooms = |name: &str| name.contains("_PER_ROOM_") || name.starts_with("OWNER_KEYS_");
    for name in limits.lines().filter_map(|line| line.strip_prefix("pub const ")?.split(':').next()) {
        let file = ROOM_LIMITS.iter().find(|(limit, _)| *limit == name);
        assert!(file.is_some() || !of_rooms(name), "no file for {name}");
    }
    for (limit, file) in ROOM_LIMITS {
        let case = &cases[*file];
        let outcomes = case.expect["outcomes"].as_array().unwrap();
        let (last, before) = outcomes.split_last().unwrap();
        assert!(limits.contains(limit) && case.refusal == Some(24) && last["refused"] == 24, "{file}");
        assert!(before.iter().any(|outcome| outcome == "accepted"), "{file}");
    }
}

#[test]
fn the_kit_stays_small() {
    let bytes: usize = case::files().values().map(String::len).sum();
    // What is many times the same (rooms begin alike, keys are used again) packs well: this bounds the checkout.
    assert!(bytes < 9_500_000, "{bytes} bytes");
}
