//! What evidence proves, in plain words.

use std::path::Path;

use ehe::evidence::{Finding, Kind, Side, Signer, Verdict};
use serde_json::{Value, json};

use super::{Printer, plain};
use crate::error::Error;
use crate::evidence::OfNode;
use crate::when;

fn node(signer: &Signer) -> String {
    format!("node {} ({}) of {}", signer.name, signer.node, signer.member_name)
}

fn list(signers: &[Signer]) -> String {
    signers.iter().map(node).collect::<Vec<_>>().join(", ")
}

/// What is proven, about whom.
fn proven(verdict: &Verdict) -> String {
    let log = format!("shard {} (incarnation {})", verdict.shard, verdict.incarnation);
    let (first, second) = (&verdict.first, &verdict.second);
    match verdict.finding() {
        Finding::SignedBoth => format!(
            "PROVEN: {} signed two statements about the log of {log} that cannot both be true.",
            list(&verdict.culprits)
        ),
        Finding::AgainstQuorum => {
            let (against, quorum) = if first.stands() { (second, first) } else { (first, second) };
            format!(
                "PROVEN: {} signed a log of {log} that contradicts the one which {} hospitals, a quorum, signed. Either all of the \
                 former are wrong, or all of the latter: {}.",
                list(&against.signers),
                quorum.members,
                list(&quorum.signers)
            )
        }
        Finding::TwoQuorums => format!(
            "PROVEN: two quorums signed two logs of {log} that cannot both be true, and no node signed both. All of one of the two are \
             wrong: {}; or {}.",
            list(&first.signers),
            list(&second.signers)
        ),
        Finding::Sides => format!(
            "PROVEN: two logs of {log} were signed that cannot both be true, neither by a quorum, and no node signed both. All of one \
             side are wrong, and it is not shown which: {}; or {}.",
            list(&first.signers),
            list(&second.signers)
        ),
    }
}

fn said(which: &str, side: &Side) -> Vec<String> {
    let mut lines = vec![format!(
        "{which}: of {} leaves the log has the root {}, under charter {}; {} of {} hospitals needed{}",
        side.size,
        side.root,
        side.charter_version,
        side.members,
        side.needed,
        if side.stands() { ": it stands as a checkpoint" } else { ": it does not stand as a checkpoint" }
    )];
    lines.extend(side.signers.iter().map(|signer| {
        let how = match (signer.ordered, signer.cosigned_at) {
            (true, Some(at)) => format!("as ordering party, and as cosigner on {}", when::shown(at)),
            (false, Some(at)) => format!("as cosigner on {}", when::shown(at)),
            (_, None) => "as ordering party".into(),
        };
        format!("  signed by {}, {how} (by its own clock)", node(signer))
    }));
    lines
}

fn lines(verdict: &Verdict, compared: bool) -> Vec<String> {
    let mut lines = vec![proven(verdict), String::new()];
    let (first, second) = match verdict.kind {
        Kind::Roots => ("one statement", "the other"),
        Kind::Prefix => ("the smaller one", "the larger one"),
    };
    lines.extend(said(first, &verdict.first));
    lines.extend(said(second, &verdict.second));
    lines.push(match verdict.kind {
        Kind::Roots => format!("A log has one root at a size; here are two at {} leaves.", verdict.first.size),
        Kind::Prefix => format!(
            "The larger log's first {} leaves have the root {}, by the proof in the file: it is not the smaller one grown.",
            verdict.first.size, verdict.prefix
        ),
    });
    lines.push(String::new());
    lines.push(
        "Not proven: why. Whoever changed what was signed does this; so does a node whose disk was put back to an older state, and \
         whoever has got hold of its key."
            .into(),
    );
    lines.push(if compared {
        format!("Alliance: {} ({}), as was asked for.", verdict.alliance, verdict.alliance_name)
    } else {
        format!(
            "Alliance: {}, which calls itself {:?}. The file brings its own charters: compare this id with that of your alliance \
             (`--alliance ID` does), for anybody can found one.",
            verdict.alliance, verdict.alliance_name
        )
    });
    lines
}

fn signer_json(signer: &Signer) -> Value {
    json!({ "node": signer.node, "name": signer.name, "member": signer.member, "member_name": signer.member_name,
            "ordered": signer.ordered, "cosigned_at": signer.cosigned_at.and_then(when::text) })
}

fn side_json(side: &Side) -> Value {
    json!({ "size": side.size, "root": side.root, "charter": side.charter_version, "members": side.members, "needed": side.needed,
            "stands": side.stands(), "signers": side.signers.iter().map(signer_json).collect::<Vec<_>>() })
}

/// A verdict for programs.
fn verdict_json(verdict: &Verdict) -> Value {
    let finding = match verdict.finding() {
        Finding::SignedBoth => "signed both",
        Finding::AgainstQuorum => "against quorum",
        Finding::TwoQuorums => "two quorums",
        Finding::Sides => "sides",
    };
    json!({ "proven": true, "finding": finding, "kind": verdict.kind.as_str(), "alliance": verdict.alliance,
            "alliance_name": verdict.alliance_name, "shard": verdict.shard, "incarnation": verdict.incarnation,
            "culprits": verdict.culprits.iter().map(signer_json).collect::<Vec<_>>(), "accused": verdict.accused(),
            "first": side_json(&verdict.first), "second": side_json(&verdict.second), "prefix": verdict.prefix })
}

impl Printer<'_> {
    /// What a file proves. `compared`: it is of the alliance that was asked for.
    pub fn evidence(&mut self, verdict: &Verdict, compared: bool) -> Result<(), Error> {
        if self.is_json() {
            return self.value(&verdict_json(verdict));
        }
        lines(verdict, compared).iter().try_for_each(|line| self.line(plain(line)))
    }

    /// What nodes keep.
    pub fn evidence_of(&mut self, nodes: &[OfNode]) -> Result<(), Error> {
        for OfNode { node, pieces } in nodes {
            match pieces {
                Err(why) if self.is_json() => self.value(&json!({ "name": node, "error": why.at(node) }))?,
                Err(why) => self.line(plain(&format!("{node}: {}", why.at(node))))?,
                Ok(pieces) => {
                    for piece in pieces {
                        self.piece(node, &piece.path, &piece.verdict)?;
                    }
                    if pieces.is_empty() && !self.is_json() {
                        self.line(plain(&format!("{node}: nothing that was not shown before")))?;
                    }
                }
            }
        }
        Ok(())
    }

    fn piece(&mut self, node: &str, path: &Path, verdict: &Verdict) -> Result<(), Error> {
        if self.is_json() {
            return self.value(
                &json!({ "name": node, "file": path.display().to_string(), "evidence": verdict_json(verdict) }),
            );
        }
        self.line(plain(&format!("{node}: {}", proven(verdict))))?;
        self.line(plain(&format!("  {}", path.display())))
    }
}
