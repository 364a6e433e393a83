//! A machine's snapshots without its type: what consensus sends, receives and installs.

use std::{
    any::Any,
    fmt,
    io::{self, Read},
    sync::Arc,
};

use crate::consensus::machine::{Machine, MachineError, Stage};

/// The bytes of a snapshot.
pub(in crate::consensus) enum SnapshotData {
    /// This node's own state, to be read.
    Own(Box<dyn Read + Send>),
    /// Another node's, received whole and checked: the `Staged` of the group's machine.
    Staged(Box<dyn Any + Send>),
}

impl fmt::Debug for SnapshotData {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Own(_) => "Own",
            Self::Staged(_) => "Staged",
        })
    }
}

/// A [`Stage`] of any machine.
pub(in crate::consensus) trait AnyStage: Send {
    fn write(&mut self, piece: &[u8]) -> Result<(), MachineError>;
    fn finish(self: Box<Self>) -> Result<SnapshotData, MachineError>;
}

impl<S: Stage> AnyStage for S {
    fn write(&mut self, piece: &[u8]) -> Result<(), MachineError> {
        Stage::write(self, piece)
    }

    fn finish(self: Box<Self>) -> Result<SnapshotData, MachineError> {
        Ok(SnapshotData::Staged(Box::new(Stage::finish(*self)?)))
    }
}

/// Opens stages of one group's machine.
#[derive(Clone)]
pub(in crate::consensus) struct Stages(Arc<dyn Fn() -> Result<Box<dyn AnyStage>, MachineError> + Send + Sync>);

impl fmt::Debug for Stages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Stages")
    }
}

impl Stages {
    pub(super) fn of<M: Machine>(machine: &M) -> Self {
        let stager = machine.stager();
        Self(Arc::new(move || Ok(Box::new(stager()?))))
    }

    pub(in crate::consensus) fn begin(&self) -> Result<Box<dyn AnyStage>, MachineError> {
        (self.0)()
    }
}

/// What [`Machine::adopt`] takes. A snapshot of this node's own comes back only in openraft's test suite, and is staged
/// like any other.
pub(super) fn staged<M: Machine>(
    stages: &Stages,
    data: SnapshotData,
) -> Result<<M::Stage as Stage>::Staged, MachineError> {
    let staged = match data {
        SnapshotData::Staged(staged) => staged,
        SnapshotData::Own(mut reader) => {
            let mut stage = stages.begin()?;
            io::copy(&mut reader, &mut Writer(&mut *stage)).map_err(MachineError::new)?;
            match stage.finish()? {
                SnapshotData::Staged(staged) => staged,
                SnapshotData::Own(_) => return Err(MachineError::new("a stage finished with a stream")),
            }
        }
    };
    staged.downcast().map(|staged| *staged).map_err(|_| MachineError::new("a state was staged for another machine"))
}

struct Writer<'a>(&'a mut dyn AnyStage);

impl io::Write for Writer<'_> {
    fn write(&mut self, piece: &[u8]) -> io::Result<usize> {
        self.0.write(piece).map_err(io::Error::other)?;
        Ok(piece.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
