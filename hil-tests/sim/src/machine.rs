//! A machine that tells the checker what it applies.

use std::io::Read;

use bytes::Bytes;
use ehe_node::consensus::{AppliedMeta, Command, GroupId, Machine, MachineError, Stage, Stager, Vetting};

use crate::ledger::Ledger;

/// `M`, watched.
pub struct Watched<M> {
    pub inner: M,
    pub node: u64,
    pub group: GroupId,
    pub ledger: Ledger,
}

impl<M: Machine> Machine for Watched<M> {
    type Stage = M::Stage;

    fn applied(&self) -> Result<Option<AppliedMeta>, MachineError> {
        self.inner.applied()
    }

    fn apply(&mut self, batch: &[Command], meta: &[u8]) -> Result<Vec<Bytes>, MachineError> {
        let responses = self.inner.apply(batch, meta)?;
        for command in batch {
            self.ledger.applied(self.node, self.group, command.position, &command.bytes);
        }
        Ok(responses)
    }

    fn outdated(&self) -> Option<String> {
        self.inner.outdated()
    }

    fn make_durable(&mut self) -> Result<(), MachineError> {
        self.inner.make_durable()
    }

    fn abandon(&mut self) {
        self.inner.abandon();
    }

    fn snapshot(&self) -> Result<Box<dyn Read + Send>, MachineError> {
        self.inner.snapshot()
    }

    fn stager(&self) -> Stager<M::Stage> {
        self.inner.stager()
    }

    fn vetting(&self) -> Vetting {
        self.inner.vetting()
    }

    fn adopt(&mut self, staged: <M::Stage as Stage>::Staged, meta: &[u8]) -> Result<(), MachineError> {
        self.inner.adopt(staged, meta)
    }

    fn forget(&mut self) -> Result<(), MachineError> {
        self.inner.forget()
    }
}
