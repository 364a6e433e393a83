//! Wraps outlive their receipts for a while. A ledger that was restored from a backup may have lost the wrap of a key under which events
//! that still wait were sealed; they could never be sent, for nobody else has it. A wrap is sealed to the patient's key and tells nothing.

use ehe::cbor;
use ehe::id::{RoomId, WrapId};
use minicbor::{Decode, Encode};
use redb::{ReadableTable, ReadableTableMetadata};

use super::{Apply, ApplyError};
use crate::spool::request::Answer;
use crate::spool::tables::{Class, OutboxRow, end_of, id_key};

/// Wraps that are kept; the oldest give way. A room and category has one a day: half a MiB in all.
const KEPT_MAX: u64 = 256;

/// A wrap that the ledger has, or had.
#[derive(Debug, Encode, Decode)]
#[cbor(map)]
struct KeptWrap {
    /// Its number in the outbox: below that of all that was sealed under its key.
    #[n(0)]
    number: u64,
    #[n(1)]
    row: OutboxRow,
    /// Grows with each wrap that is kept.
    #[n(2)]
    kept: u64,
}

impl Apply<'_, '_> {
    /// A wrap leaves the outbox against its receipt.
    pub(super) fn keep_wrap(&mut self, room: RoomId, number: u64, row: &OutboxRow) -> Result<(), ApplyError> {
        let Ok(id) = row.id.as_slice().try_into().map(ehe::id::EheId) else { return Ok(()) };
        let kept = KeptWrap { number, row: OutboxRow { report: None, ..row.clone() }, kept: self.row() };
        self.wraps.insert(id_key(room, &id).as_slice(), cbor::to_vec(&kept).as_slice())?;
        if self.wraps.len()? <= KEPT_MAX {
            return Ok(());
        }
        let mut oldest: Option<(u64, Vec<u8>)> = None;
        for entry in self.wraps.iter()? {
            let (key, value) = entry?;
            let kept = minicbor::decode::<KeptWrap>(value.value()).map_or(0, |wrap| wrap.kept);
            if oldest.as_ref().is_none_or(|(least, _)| kept < *least) {
                oldest = Some((kept, key.value().to_vec()));
            }
        }
        if let Some((_, key)) = oldest {
            self.wraps.remove(key.as_slice())?;
        }
        Ok(())
    }

    /// Puts a wrap that was confirmed back before all that needs it. [`Answer::Rewrapped`] says whether it was kept.
    pub(super) fn rewrap(&mut self, room: RoomId, wrap: WrapId) -> Result<Answer, ApplyError> {
        let mut prefix = room.0.to_vec();
        prefix.extend_from_slice(&wrap.0);
        let end = end_of(&prefix);
        let kept = {
            let mut range = self.wraps.range(prefix.as_slice()..end.as_slice())?;
            range.next().transpose()?.map(|(key, value)| (key.value().to_vec(), value.value().to_vec()))
        };
        let Some((key, value)) = kept else { return Ok(Answer::Rewrapped(false)) };
        let Ok(KeptWrap { number, row, .. }) = minicbor::decode(&value) else { return Ok(Answer::Rewrapped(false)) };
        if self.outbox_index.get(key.as_slice())?.is_none() {
            self.insert_event(room, Class::Urgent, number, &row)?;
        }
        Ok(Answer::Rewrapped(true))
    }
}
