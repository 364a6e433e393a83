//! Newer charters that a peer shows: taken up if they extend the directory's own, and kept in it.

use ehe::charter::{CharterChain, CharterError};

use crate::file;
use crate::store::{Credentials, StoreError, load_charter, names};

/// Why charters are not taken up. Whoever showed them is at fault, or the directory has been given those of another history.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ExtensionError {
    /// They do not verify from the alliance's first charter on.
    #[error("they do not verify: {0}")]
    Charter(#[from] CharterError),
    /// One of them is another than the one here of the same version: members signed two.
    #[error("they have another charter {0} than the one here")]
    Other(u32),
}

impl Credentials {
    /// The same credentials under these charters; `None` if there is none among them that is newer than those here.
    pub fn extended_by(&self, chain: &CharterChain) -> Result<Option<Self>, ExtensionError> {
        let newest = chain.verify(self.alliance_id())?;
        if let Some(version) = self.charter_chain().parts_from(chain) {
            return Err(ExtensionError::Other(version));
        }
        if newest.version() <= self.charter().version() {
            return Ok(None);
        }
        Ok(Some(self.under(newest, chain.clone())))
    }

    /// Keeps these charters in the directory, unless it has as new ones: a crash leaves the old file or the new one.
    pub fn keep_charters(&self) -> Result<(), StoreError> {
        let path = self.dir().join(names::CHARTER);
        // Another program may have been first; and what is no charter any more is mended by this.
        if let Ok((there, _)) = load_charter(&path) {
            let (found, pinned) = (there.alliance_id(), self.alliance_id());
            if found != pinned {
                return Err(StoreError::OtherAlliance { path, found, pinned });
            }
            if there.version() >= self.charter().version() {
                return Ok(());
            }
        }
        Ok(file::replace(&path, &self.charter_chain().encode())?)
    }
}
