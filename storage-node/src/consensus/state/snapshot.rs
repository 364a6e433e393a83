//! A machine's snapshots without its type: what consensus sends, receives and installs.

use std::{
    any::Any,
    fmt,
    io::{self, Read},
    sync::Arc,
};

use tokio::sync::{OwnedMutexGuard, OwnedSemaphorePermit};

use crate::consensus::machine::{Machine, MachineError, Stage};

/// The bytes of a snapshot.
pub(in crate::consensus) enum SnapshotData {
    /// This node's own state, to be read.
    Own(Box<dyn Read + Send>),
    /// Another node's, received whole and checked.
    Staged {
        /// The `Staged` of the group's machine.
        state: Box<dyn Any + Send>,
        /// Whether it may still be installed: [`Stage::still_fits`].
        fits: Fits,
        /// Given back behind that.
        turn: Turn,
    },
}

/// The right to receive a snapshot: the group's only one, and one of the node's few.
#[derive(Debug)]
pub(in crate::consensus) struct Turn {
    pub(in crate::consensus) _group: OwnedMutexGuard<()>,
    pub(in crate::consensus) _node: OwnedSemaphorePermit,
}

/// Asks something of the `Staged` of a group's machine.
pub(in crate::consensus) type Fits = fn(&(dyn Any + Send)) -> Result<(), MachineError>;

const OTHER: &str = "a state was staged for another machine";

impl SnapshotData {
    /// Whether it may still be installed.
    pub(in crate::consensus) fn still_fits(&self) -> Result<(), MachineError> {
        match self {
            Self::Own(_) => Ok(()),
            Self::Staged { state, fits, .. } => fits(&**state),
        }
    }
}

impl fmt::Debug for SnapshotData {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Own(_) => "Own",
            Self::Staged { .. } => "Staged",
        })
    }
}

/// A [`Stage`] of any machine.
pub(in crate::consensus) trait AnyStage: Send {
    fn write(&mut self, piece: &[u8]) -> Result<(), MachineError>;
    fn finish(self: Box<Self>) -> Result<Box<dyn Any + Send>, MachineError>;
    fn fits(&self) -> Fits;
}

impl<S: Stage> AnyStage for S {
    fn write(&mut self, piece: &[u8]) -> Result<(), MachineError> {
        Stage::write(self, piece)
    }

    fn finish(self: Box<Self>) -> Result<Box<dyn Any + Send>, MachineError> {
        Ok(Box::new(Stage::finish(*self)?))
    }

    fn fits(&self) -> Fits {
        |state| state.downcast_ref().map_or_else(|| Err(MachineError::new(OTHER)), S::still_fits)
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

/// Has a machine adopt a snapshot. One of this node's own comes back only in openraft's test suite, and is staged like any other.
pub(super) fn adopt<M: Machine>(
    machine: &mut M,
    stages: &Stages,
    data: SnapshotData,
    meta: &[u8],
) -> Result<(), MachineError> {
    let (state, _turn) = match data {
        SnapshotData::Staged { state, turn, .. } => (state, Some(turn)),
        SnapshotData::Own(mut reader) => {
            let mut stage = stages.begin()?;
            io::copy(&mut reader, &mut Writer(&mut *stage)).map_err(MachineError::new)?;
            (stage.finish()?, None)
        }
    };
    let staged = state.downcast::<<M::Stage as Stage>::Staged>();
    let staged = staged.map_err(|_| MachineError::new(OTHER))?;
    machine.adopt(*staged, meta)
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
