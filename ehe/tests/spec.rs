//! SPEC.md says what the code does: its tables are held against the code's.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::collections::BTreeMap;

use base64::Engine;
use ehe::id::hex;
use ehe::reading::{Flags, Statistic, TimeMethod};
use ehe::refusal::{Fault, Refusal};
use ehe::unit::Unit;
use ehe::vital::Vital;

const SPEC: &str = include_str!("../SPEC.md");
const LIMITS: &str = include_str!("../src/limits.rs");

/// The rows of the table whose header line begins so.
fn table(header: &str) -> Vec<Vec<String>> {
    let mut lines = SPEC.lines().skip_while(|line| !line.starts_with(header));
    assert!(lines.next().is_some(), "no table {header}");
    lines
        .skip(1)
        .take_while(|line| line.starts_with('|'))
        .map(|line| line.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect())
        .collect()
}

#[test]
fn each_refusal_stands_in_the_spec_with_its_code_fault_and_text() {
    let written: Vec<Vec<String>> = table("| code | | fault |");
    let expected: Vec<Vec<String>> = Refusal::ALL
        .iter()
        .map(|refusal| {
            let fault = match refusal.fault() {
                Fault::Sender => "sender",
                Fault::Rights => "rights",
                Fault::Node => "node",
            };
            vec![refusal.code().to_string(), format!("{refusal:?}"), fault.into(), refusal.to_string()]
        })
        .collect();
    assert_eq!(written, expected);
}

#[test]
fn each_limit_stands_in_the_spec_with_its_value() {
    let mut values: BTreeMap<String, u64> = BTreeMap::new();
    for line in LIMITS.lines().filter_map(|line| line.strip_prefix("pub const ")) {
        let (name, rest) = line.split_once(": ").unwrap();
        let expression = rest.split_once("= ").unwrap().1.trim_end_matches(';').to_owned();
        let value = sum(&expression, &values);
        values.insert(name.into(), value);
    }
    let written: BTreeMap<String, u64> =
        table("| limit | value |").into_iter().map(|row| (row[0].clone(), row[1].parse().unwrap())).collect();
    assert_eq!(written, values);
}

#[test]
fn each_code_stands_in_the_spec_with_what_it_means() {
    let vitals: Vec<Vec<String>> = Vital::ALL
        .iter()
        .map(|v| vec![v.code().to_string(), v.to_string(), v.category().to_string(), v.unit().to_string()])
        .collect();
    assert_eq!(table("| vital | name |"), vitals);
    let units: Vec<Vec<String>> =
        Unit::ALL.iter().map(|u| vec![u.code().to_string(), format!("`{u}`"), format!("{:?}", u.quantity())]).collect();
    assert_eq!(table("| unit | UCUM |"), units);
    let statistics: Vec<Vec<String>> =
        Statistic::ALL.iter().map(|s| vec![s.code().to_string(), s.to_string()]).collect();
    assert_eq!(table("| statistic |"), statistics);
    let methods: Vec<Vec<String>> = TimeMethod::ALL.iter().map(|m| vec![m.code().to_string(), m.to_string()]).collect();
    assert_eq!(table("| time method |"), methods);
    let flags: Vec<Vec<String>> = (0..32)
        .filter_map(|bit| Flags(1 << bit).names().next().map(|name| vec![bit.to_string(), name.into()]))
        .collect();
    assert_eq!(table("| flag bit |"), flags);
}

#[test]
fn each_example_is_what_the_named_file_of_the_test_kit_holds() {
    let (_, examples) = SPEC.split_once("## 17. Examples").unwrap();
    let mut found = 0;
    for example in examples.split("\n\n```text\n").collect::<Vec<_>>().windows(2) {
        let Some((_, named)) = example[0].lines().last().unwrap().split_once(": `") else { continue };
        let (file, member) = named.trim_end_matches('`').split_once("`, `").unwrap();
        let path = format!("{}/testkit/{file}", env!("CARGO_MANIFEST_DIR"));
        let case: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
        let held = case.pointer(&format!("/{}", member.replace('.', "/"))).unwrap().as_str().unwrap();
        let held = match held.strip_prefix("base64:") {
            Some(text) => hex(&base64::engine::general_purpose::STANDARD.decode(text).unwrap()),
            None => held.to_owned(),
        };
        let (block, _) = example[1].split_once("```").unwrap();
        let shown: String = block.lines().map(|line| line.split(';').next().unwrap().trim()).collect();
        assert_eq!(shown, held, "{file} {member}");
        found += 1;
    }
    assert!(found >= 9, "only {found} examples");
}

/// `A * B + C - D`, of numbers and earlier names: all that limits.rs uses.
fn sum(expression: &str, values: &BTreeMap<String, u64>) -> u64 {
    let mut total = 0;
    for (sign, term) in expression.replace(" - ", " + -").split(" + ").map(|term| match term.strip_prefix('-') {
        Some(term) => (false, term.to_owned()),
        None => (true, term.to_owned()),
    }) {
        let product: u64 = term
            .split(" * ")
            .map(|factor| factor.replace('_', "").parse().unwrap_or_else(|_| values[factor]))
            .product();
        total = if sign { total + product } else { total - product };
    }
    total
}
