//! A run that an ordering party let in without its author's signature, and the record by which it is void (SPEC 10: voided runs).
//!
//! The log only grows: the run's leaf stays where it is. The record brings the run, so that everybody sees for themselves that the signature
//! is false; nobody can void what the author signed.

use minicbor::{Decode, Encode};

use crate::cbor::{self, CborError};
use crate::limits;
use crate::room::RoomState;
use crate::run::{Run, SignedRun, UnverifiedRun};
use crate::sign::SignedError;

/// From this rules version on runs are voided.
pub const RULES_VOID: u16 = 2;

/// The entry by which a run is void.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct VoidRecord {
    /// Index of the run's entry in the room.
    #[n(0)]
    pub index: u64,
    /// The run, as it is there.
    #[n(1)]
    pub run: SignedRun,
}

/// Why a record voids nothing. Whoever let it into the log is at fault.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotVoid {
    /// It does not come before the record.
    #[error("the entry that it names does not come before it")]
    NotBefore,
    /// The run of no form, or of another room.
    #[error("what it names is no run of the room")]
    NoRun,
    /// Everybody checks the owner's runs when they take them in, and a stranger has none.
    #[error("the run's author is the owner, or not known to the room")]
    Author,
    /// The author signed it.
    #[error("the run's signature is true")]
    Signed,
}

impl VoidRecord {
    /// The encoded record.
    pub fn to_vec(&self) -> Vec<u8> {
        cbor::to_vec(self)
    }

    /// Decodes a record.
    pub fn decode(bytes: &[u8]) -> Result<Self, CborError> {
        cbor::from_slice(bytes, limits::VOID_RECORD_MAX_BYTES)
    }

    /// Judges the record as the room's entry of place `at`. Returns the run.
    pub fn judge(&self, room: &RoomState, at: u64) -> Result<Run, NotVoid> {
        if self.index >= at {
            return Err(NotVoid::NotBefore);
        }
        let run = self.run.decode().map_err(|_| NotVoid::NoRun)?;
        if run.claims().room != room.room {
            return Err(NotVoid::NoRun);
        }
        let claims = run.claims().clone();
        if false_signature(room, run)?.is_some() { Ok(claims) } else { Err(NotVoid::Signed) }
    }
}

/// What is false about the signature of a run in the room's log; none: it is true. `Err`: of such a run no signature is false, because every
/// replica checks it.
pub fn false_signature(room: &RoomState, run: UnverifiedRun) -> Result<Option<SignedError>, NotVoid> {
    // The keys of everybody else never change: their id is the hash of them. So it does not matter when this is asked.
    let author = run.claims().author;
    let key = room.signing_key(author).filter(|_| author != room.owner).ok_or(NotVoid::Author)?;
    Ok(run.verify(&key).err())
}
