//! SPEC.md says what the code does: its tables are held against the code's.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::collections::BTreeMap;

use ehe::refusal::{Fault, Refusal};

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
