//! Evidence for people: each piece with the charters that it takes to judge it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use certs::FileError;
use ehe::charter::{CharterChain, VerifiedCharter};
use ehe::evidence::{Contradiction, EvidenceError};
use ehe::id::Hash;
use sha2::{Digest, Sha256};

use super::lines::NoStatus;
use super::shelf::read;

/// Why evidence is not made into files.
#[derive(Debug, thiserror::Error)]
pub enum NotExported {
    /// What is kept cannot be read.
    #[error(transparent)]
    Kept(#[from] NoStatus),
    /// A piece does not go with the charters, which it did when it was read.
    #[error("what is kept is no evidence: {0}")]
    NoEvidence(#[from] EvidenceError),
    /// A file cannot be written.
    #[error(transparent)]
    File(#[from] FileError),
}

/// Writes every piece in the directory `kept` as a file of its own into the directory `to`, which is made if it is not there: what anybody can
/// judge without another file. They are durable when this returns.
pub fn export(kept: &Path, charters: &[Arc<VerifiedCharter>], to: &Path) -> Result<Vec<PathBuf>, NotExported> {
    let found = read(kept, charters).map_err(|source| NoStatus { path: kept.into(), source })?;
    let chain = CharterChain::of(charters);
    certs::file::create_dir(to)?;
    let mut files = Vec::new();
    for kept in found.kept {
        let contradiction = Contradiction::decode(&kept.bytes).map_err(EvidenceError::from)?;
        let bytes = contradiction.with(&chain)?.to_vec();
        let path = to.join(format!("{}.cbor", Hash(Sha256::digest(&bytes).into())));
        certs::file::replace(&path, &bytes)?;
        files.push(path);
    }
    Ok(files)
}
