//! Voiding a run whose author did not sign it (SPEC 10: void runs).
//!
//! Replicas take the ordering party's word for the signatures of content and look at them again in the background. What is found false there
//! is ordered to be void; each replica finds out for itself whether it may be, by the leaf that it has in its own tree: the command brings
//! what that leaf is the hash of. So nobody voids a run that its author signed, and whether an entry is readable on one replica's disk makes no
//! difference to what the replicas decide.
//!
//! That a run is void is not written down twice: its events are known no more by it, and may be linked again.

use minicbor::bytes::ByteVec;
use minicbor::{Decode, Encode};

use ehe::event::{Header, decode_header};
use ehe::id::EheId;
use ehe::leaf::Leaf;
use ehe::limits;
use ehe::merkle::{NodeAt, Nodes};
use ehe::read::record_hash;
use ehe::room::RoomState;
use ehe::run::SignedRun;
use ehe::time::Hour;
use ehe::void::{RULES_VOID, VoidRecord, false_signature};

use super::apply::Apply;
use super::known;
use super::store::StoreError;
use super::tree::Tree;
use super::view::View;

/// A run that is to be void, and all that it takes to judge that.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct FalseRun {
    /// Where it is in the log.
    #[n(0)]
    pub log_index: u64,
    /// Its leaf.
    #[n(1)]
    leaf: Leaf,
    /// It.
    #[n(2)]
    run: SignedRun,
    /// Its events' headers, in the run's order.
    #[n(3)]
    headers: Vec<ByteVec>,
}

impl FalseRun {
    /// The run at a place of the log, if it may be void: its signature is false, and every replica took the ordering party's word for it.
    pub(crate) fn at(view: &View, log_index: u64) -> Result<Option<Self>, StoreError> {
        let entry = view.entry(log_index)?;
        if !entry.is_run() {
            return Ok(None);
        }
        let headers = entry.events.iter().map(|event| ByteVec::from(event.header.clone())).collect();
        let found = Self { log_index, leaf: view.own_leaf(log_index, &entry)?, run: SignedRun(entry.bytes), headers };
        let Some(room) = view.room(found.leaf.room)? else { return Ok(None) };
        let Some(events) = found.events() else { return Ok(None) };
        let (signed, first) = (found.run.decode(), events.first().copied());
        let is_false = signed.is_ok_and(|run| matches!(false_signature(&room, run), Ok(Some(_))));
        let known = match first {
            Some((hour, id)) => view.known_at(hour, id)?,
            None => None,
        };
        Ok((is_false && known == Some((log_index, 0))).then_some(found))
    }

    /// What a lying leader could order.
    #[cfg(test)]
    pub(super) fn of_parts(log_index: u64, leaf: Leaf, run: SignedRun, headers: Vec<Vec<u8>>) -> Self {
        Self { log_index, leaf, run, headers: headers.into_iter().map(ByteVec::from).collect() }
    }

    /// Bytes that it takes in a block.
    pub(super) fn bytes(&self) -> usize {
        let headers: usize = self.headers.iter().map(|header| header.len() + 8).sum();
        self.run.0.len() + headers + 256
    }

    /// Hour and id of each of its events, if what it brings is of one piece, and content alone.
    fn events(&self) -> Option<Vec<(Hour, EheId)>> {
        let run = self.run.decode().ok()?;
        let run = run.claims();
        if run.room != self.leaf.room
            || run.ids.len() != self.headers.len()
            || record_hash(&self.run.0) != self.leaf.entry
        {
            return None;
        }
        let event = |(id, header): (&EheId, &ByteVec)| {
            let decoded: Header = decode_header(header).ok()?;
            (record_hash(header).0 == id.0 && decoded.core.kind.is_content()).then_some((decoded.core.hour, *id))
        };
        run.ids.iter().zip(&self.headers).map(event).collect()
    }
}

impl View {
    /// Whether a run of the log is void; of its first event the hour, and the header. That it is not known by its events any more does not say so
    /// alone: what its author signed is not left out because a row of a table is damaged.
    pub(crate) fn is_void(
        &self,
        room: &RoomState,
        log_index: u64,
        signed: &[u8],
        (hour, header): (Hour, &[u8]),
    ) -> Result<bool, StoreError> {
        if self.known_at(hour, EheId(record_hash(header).0))?.is_some_and(|(by, _)| by == log_index) {
            return Ok(false);
        }
        let Ok(run) = SignedRun(signed.to_vec()).decode() else { return Ok(false) };
        Ok(matches!(false_signature(room, run), Ok(Some(_))))
    }

    /// The same of the entry at a place.
    pub(crate) fn is_void_at(&self, log_index: u64) -> Result<bool, StoreError> {
        let entry = self.entry(log_index)?;
        let (Some(room), Some(first)) = (self.room(entry.room)?, entry.events.first()) else { return Ok(false) };
        let Ok(header) = decode_header(&first.header) else { return Ok(false) };
        Ok(entry.is_run() && self.is_void(&room, log_index, &entry.bytes, (header.core.hour, &first.header))?)
    }
}

impl Apply<'_, '_> {
    /// Voids a run. Returns where the record of it is; none where nothing is changed: it may not be void, or is already.
    pub(super) fn void(&mut self, found: &FalseRun) -> Result<Option<u64>, StoreError> {
        let log_index = found.log_index;
        if self.rules() < RULES_VOID || log_index >= self.leaves() {
            return Ok(None);
        }
        let Some(events) = found.events() else { return Ok(None) };
        self.settle()?;
        if Tree(&*self.tables).node(NodeAt { level: 0, index: log_index })? != found.leaf.hash() {
            return Ok(None);
        }
        let (Some(room), Ok(run)) = (self.room(found.leaf.room)?, found.run.decode()) else { return Ok(None) };
        if !matches!(false_signature(&room, run), Ok(Some(_))) {
            return Ok(None);
        }
        for ((hour, id), position) in events.iter().zip(0u16..) {
            if known::find(&self.tables.known, *hour, *id)? != Some((log_index, position)) {
                return Ok(None);
            }
        }
        for (hour, id) in events {
            known::remove(&mut self.tables.known, hour, id)?;
        }
        let record = VoidRecord { index: found.leaf.index, run: found.run.clone() }.to_vec();
        debug_assert!(record.len() <= limits::VOID_RECORD_MAX_BYTES, "a run and little else");
        let at = self.append_bytes(found.leaf.room, &record)?;
        tracing::warn!(
            shard = self.shard(),
            entry = log_index,
            record = at,
            "a run that its author did not sign, and that a node which led the shard had let in, is void"
        );
        Ok(Some(at))
    }
}
