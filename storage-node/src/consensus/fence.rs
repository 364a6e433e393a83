//! The fence around a group that failed: the first fault is kept, logged once, and given to everybody who asks.

use std::{
    io,
    sync::{Arc, OnceLock},
};

use super::{error::Fault, ids::GroupId};

/// One for each group. Once raised it is never lowered: after a failed sync nobody knows what is on the disk, so
/// nothing may be confirmed on top of it.
#[derive(Debug)]
pub(super) struct Fence {
    group: GroupId,
    fault: OnceLock<Arc<Fault>>,
}

impl Fence {
    pub(super) fn new(group: GroupId) -> Self {
        Self { group, fault: OnceLock::new() }
    }

    pub(super) fn group(&self) -> GroupId {
        self.group
    }

    /// The fault that stopped the group, if it is stopped.
    pub(super) fn fault(&self) -> Option<Arc<Fault>> {
        self.fault.get().cloned()
    }

    /// Stops the group. Returns the fault that counts, which is the first one.
    pub(super) fn raise(&self, fault: impl Into<Arc<Fault>>) -> Arc<Fault> {
        let fault = fault.into();
        let mut first = false;
        let kept = self.fault.get_or_init(|| {
            first = true;
            fault
        });
        if first {
            tracing::error!(group = self.group.0, fault = %kept, "group stopped for good");
        }
        kept.clone()
    }

    /// Stops the group because of a rule that this program broke.
    pub(super) fn bug(&self, what: impl Into<String>) -> Arc<Fault> {
        self.raise(Fault::Bug { group: self.group, what: what.into() })
    }

    /// Stops the group because stored bytes are not what was written.
    pub(super) fn corrupt(&self, what: impl Into<String>) -> Arc<Fault> {
        self.raise(Fault::Corrupt { group: self.group, what: what.into() })
    }

    /// `Err` once the group is stopped.
    pub(super) fn check(&self) -> Result<(), Arc<Fault>> {
        self.fault().map_or(Ok(()), Err)
    }
}

/// A fault in the only form that openraft's storage traits take.
pub(super) fn io_error(fault: Arc<Fault>) -> io::Error {
    io::Error::other(fault.to_string())
}
