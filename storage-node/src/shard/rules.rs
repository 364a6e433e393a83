//! The rules version under which a shard is applied, and the one up to which this program knows them (SPEC 15).

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

use ehe::charter::{RULES_FIRST, RULES_KNOWN};

/// Of one shard. Clones are the same.
#[derive(Debug, Clone)]
pub struct Rules {
    known: u16,
    in_force: Arc<AtomicU16>,
}

impl Default for Rules {
    fn default() -> Self {
        Self { known: RULES_KNOWN, in_force: Arc::new(AtomicU16::new(RULES_FIRST)) }
    }
}

impl Rules {
    /// Of a program that knows them up to this version. The product's is [`RULES_KNOWN`]; tests of a rolling upgrade run older programs.
    #[must_use]
    pub fn knowing(self, known: u16) -> Self {
        Self { known, ..self }
    }

    /// Up to which version they are known.
    pub fn known(&self) -> u16 {
        self.known
    }

    /// The version in force behind everything that was applied: under that one a block is written now.
    pub fn in_force(&self) -> u16 {
        self.in_force.load(Ordering::Acquire)
    }

    pub(super) fn show(&self, in_force: u16) {
        self.in_force.store(in_force, Ordering::Release);
    }

    /// Whether the version in force is later than those that are known.
    pub(crate) fn are_later(&self) -> bool {
        self.in_force() > self.known
    }

    /// Why this program cannot apply what follows, if it cannot.
    pub(super) fn outdated(&self) -> Option<String> {
        self.are_later().then(|| outdated(self.in_force(), self.known))
    }
}

/// What is to be done about it.
pub(super) fn outdated(in_force: u16, known: u16) -> String {
    format!(
        "this program is older than the rules in force: the alliance's charter has raised them to version {in_force}, this program knows \
         version {known}; install a version of it that knows them, and the node goes on from here, without loss"
    )
}
