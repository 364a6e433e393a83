//! Evidence: what it proves about whom.

use ehe::evidence::{Finding, Side, Signer, judge};
use serde_json::{Value, json};

use super::{Facts, Fault};
use crate::json::{Members, h};

fn nodes(signers: &[Signer]) -> Value {
    json!(signers.iter().map(|signer| signer.node.to_string()).collect::<Vec<_>>())
}

fn side(side: &Side) -> Value {
    json!({
        "size": side.size,
        "root": h(side.root.0),
        "charter": side.charter_version,
        "signers": nodes(&side.signers),
        "stands": side.stands(),
    })
}

pub(super) fn evidence(input: &Value, facts: &mut Facts) -> Result<(), Fault> {
    let verdict = judge(&input.bytes("evidence"))?;
    let finding = match verdict.finding() {
        Finding::Sides => "sides",
        Finding::AgainstQuorum => "against quorum",
        Finding::TwoQuorums => "two quorums",
        Finding::SignedBoth => "signed both",
    };
    facts.insert("alliance".into(), h(verdict.alliance.0));
    facts.insert("origin".into(), json!(verdict.origin));
    facts.insert("shard".into(), json!(verdict.shard));
    facts.insert("incarnation".into(), json!(verdict.incarnation));
    facts.insert("first".into(), side(&verdict.first));
    facts.insert("second".into(), side(&verdict.second));
    facts.insert("finding".into(), json!(finding));
    facts.insert("culprits".into(), nodes(&verdict.culprits));
    let accused: Vec<String> = verdict.accused().iter().map(ToString::to_string).collect();
    facts.insert("accused".into(), json!(accused));
    Ok(())
}
