//! Evidence as `ehe-node status` shows it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use ehe::charter::VerifiedCharter;
use ehe::evidence::{Finding, Signer, Verdict};

use super::shelf::{Found, Kept, read};

/// The directory cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("{path}: {source}")]
pub struct NoStatus {
    /// The directory.
    pub path: PathBuf,
    /// What the system says.
    #[source]
    pub source: std::io::Error,
}

/// The number of pieces in a directory; of each what it is about, under these charters, and where it lies; and what lies there and is none.
pub fn lines(dir: &Path, charters: &[Arc<VerifiedCharter>]) -> Result<Vec<String>, NoStatus> {
    let Found { kept, strange } = read(dir, charters).map_err(|source| NoStatus { path: dir.into(), source })?;
    let mut lines = vec![format!("evidence: {}", kept.len())];
    for kept in &kept {
        lines.push(about(kept));
        lines.extend(kept.file.as_ref().map(|file| format!("  {}", file.display())));
    }
    if !kept.is_empty() {
        lines.push(
            "`ehe-node evidence --to DIR` writes each with its charters; `ehe verify --evidence FILE` then says what it proves, and needs nothing \
             but that file"
                .into(),
        );
    }
    lines.extend(strange.iter().map(|(path, why)| format!("no evidence: {}: {why}", path.display())));
    Ok(lines)
}

fn about(kept: &Kept) -> String {
    let Verdict { shard, incarnation, kind, first, second, culprits, .. } = &*kept.verdict;
    let who = |signers: &[Signer]| {
        let named = signers.iter().map(|it| format!("{} ({}) of {}", it.name, it.node, it.member_name));
        named.collect::<Vec<_>>().join(", ")
    };
    let finding = match kept.verdict.finding() {
        Finding::SignedBoth => format!("signed both: {}", who(culprits)),
        Finding::AgainstQuorum if first.stands() => format!("against a quorum: {}", who(&second.signers)),
        Finding::AgainstQuorum => format!("against a quorum: {}", who(&first.signers)),
        Finding::TwoQuorums => format!("two quorums: {} | {}", who(&first.signers), who(&second.signers)),
        Finding::Sides => format!("two sides: {} | {}", who(&first.signers), who(&second.signers)),
    };
    format!(
        "{}: shard {shard}, incarnation {incarnation}, sizes {} and {}; {finding}",
        kind.as_str(),
        first.size,
        second.size
    )
}
