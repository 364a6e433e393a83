//! What a block does to a shard. Deterministic: no clock, no chance; the same blocks give the same tables on every replica.
//!
//! A refusal is an outcome. An error is the store's, and stops the shard for good.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use redb::ReadableTable;

use ehe::cbor;
use ehe::event::CheckedEvent;
use ehe::id::{AuthorId, EheId, Hash, RoomId, StrandId, WrapId};
use ehe::identity::PublicIdentity;
use ehe::leaf::Leaf;
use ehe::limits::REQUEST_SKEW_MAX_MS;
use ehe::merkle::{NodeAt, Peaks};
use ehe::read::{AccessRecord, SignedRequest, record_hash};
use ehe::refusal::Refusal;
use ehe::room::{Admission, Ledger, Refused, RoomState, WrapFact, admit, author_key, decide};
use ehe::run::{StrandEnd, UnverifiedRun};
use ehe::time::UnixMs;
use ehe::wire::Submission;

use super::block::{BLOCK_COMMANDS_MAX, Block, Command, Outcome};
use super::place::Place;
use super::schema::{META_SHARD, RUN_REFUSALS_KEPT, RunRefusal, ShardMeta, Tables};
use super::store::StoreError;
use super::view::{room_state, run_refusals};

/// Hourly summaries of refusals that one block writes at most; the next block goes on.
const SUMMARIES_PER_BLOCK_MAX: usize = 16;
/// Stale nonces that one block forgets at most: more than it adds, or the table would grow under load.
const NONCES_PER_BLOCK_MAX: usize = 2 * BLOCK_COMMANDS_MAX;
/// Rooms whose rules stay decoded.
const ROOMS_CACHED_MAX: usize = 256;

/// What stays in memory between blocks; all of it can be read from the tables again.
pub(super) struct Carried {
    pub(super) peaks: Peaks,
    pub(super) shard: ShardMeta,
    /// Shared, so that looking one up copies none of it.
    rooms: BTreeMap<RoomId, Arc<RoomState>>,
}

impl Carried {
    pub(super) fn new(peaks: Peaks, shard: ShardMeta) -> Self {
        Self { peaks, shard, rooms: BTreeMap::new() }
    }
}

/// Applies blocks within one transaction.
pub(super) struct Apply<'a, 't> {
    place: Place,
    tables: &'a mut Tables<'t>,
    carried: &'a mut Carried,
}

impl<'a, 't> Apply<'a, 't> {
    pub(super) fn new(place: Place, tables: &'a mut Tables<'t>, carried: &'a mut Carried) -> Self {
        Self { place, tables, carried }
    }

    /// Writes the shard's record: once, after the transaction's last block.
    pub(super) fn finish(self) -> Result<(), StoreError> {
        self.carried.shard.leaves = self.carried.peaks.size();
        self.tables.meta.insert(META_SHARD, cbor::to_vec(&self.carried.shard).as_slice())?;
        Ok(())
    }

    /// Applies one block: one outcome for each command.
    pub(super) fn block(&mut self, block: &Block) -> Result<Vec<Outcome>, StoreError> {
        // An ordering party whose clock was set back, or a new one behind the old: the ledger's time stands still meanwhile.
        self.carried.shard.time = self.carried.shard.time.max(block.time);
        self.carried.shard.blocks += 1;
        self.summarise_refusals()?;
        self.forget_nonces()?;
        block.commands.iter().map(|command| self.command(command)).collect()
    }

    fn now(&self) -> UnixMs {
        self.carried.shard.time
    }

    fn command(&mut self, command: &Command) -> Result<Outcome, StoreError> {
        match command {
            Command::Submit(submission) => self.submit(submission),
            Command::Read(request, identity) => self.read(request, identity),
        }
    }

    // ---- runs

    fn submit(&mut self, submission: &Submission) -> Result<Outcome, StoreError> {
        let Ok(run) = submission.run.decode() else { return Ok(Outcome::Refused(Refusal::RunMalformed)) };
        let (room_id, author) = (run.claims().room, run.claims().author);
        if room_id.shard(self.place.shard_count) != self.place.shard {
            return Ok(Outcome::Refused(Refusal::WrongShard));
        }
        let room = self.room(room_id)?;
        match self.judge(run, &submission.events, room.as_deref())? {
            Ok((admission, events)) => {
                let control_seq = match &admission.room {
                    Some(changed) => changed.next_control,
                    None => room.as_ref().map_or(0, |room| room.next_control),
                };
                let log_index = self.append(room_id, control_seq, &submission.run.0)?;
                self.admit(log_index, room_id, author, room.as_deref(), admission, &events)?;
                Ok(Outcome::Submitted { log_index, control_seq })
            }
            Err(Judged::Known(ids)) => self.known(&ids),
            Err(Judged::Refused(why)) => {
                let party = room.as_ref().is_some_and(|room| room.key_of(author).is_some());
                if party {
                    self.keep_refusal(room_id, author, RunRefusal { run: submission.run.hash(), why, at: self.now() })?;
                }
                Ok(Outcome::Refused(why))
            }
            Err(Judged::Forged(why)) => Ok(Outcome::Refused(why)),
        }
    }

    /// Signature, form and rules.
    fn judge(
        &self,
        run: UnverifiedRun,
        events: &[ehe::event::Event],
        room: Option<&RoomState>,
    ) -> Result<Result<(Admission, Vec<CheckedEvent>), Judged>, StoreError> {
        let Ok(events) = events.iter().map(|e| e.clone().check()).collect::<Result<Vec<_>, _>>() else {
            return Ok(Err(Judged::Refused(Refusal::EventMalformed)));
        };
        let key = match author_key(room, run.claims(), &events) {
            Ok(key) => key,
            Err(why) => return Ok(Err(Judged::Forged(why))),
        };
        // A forged grant could not be undone, so no replica takes the ordering party's word for control events. Content is
        // verified by the ordering party, and again by the scrub.
        let controls = |e: &CheckedEvent| !e.core().kind.is_content();
        let verified = if events.iter().any(controls) {
            match run.verify(&key) {
                Ok(run) => run,
                Err(_) => return Ok(Err(Judged::Forged(Refusal::BadSignature))),
            }
        } else {
            run.trust_ordering_party()
        };
        let ledger = RoomLedger { tables: self.tables, room: verified.run().room };
        // This decides, too, whether one author's sequence is used twice: the strand's end is the table's.
        Ok(match admit(self.place.alliance, room, &verified, &events, &ledger, self.now())? {
            Ok(admission) => Ok((admission, events)),
            Err(Refused::Known(ids)) => Err(Judged::Known(ids)),
            Err(Refused::Because(why)) => Err(Judged::Refused(why)),
        })
    }

    fn admit(
        &mut self,
        log_index: u64,
        room: RoomId,
        author: AuthorId,
        before: Option<&RoomState>,
        admission: Admission,
        events: &[CheckedEvent],
    ) -> Result<(), StoreError> {
        for (position, event) in (0u16..).zip(events) {
            let at = (log_index, position);
            self.tables.headers.insert(at, event.event().header.as_slice())?;
            self.tables.bodies.insert(at, event.body())?;
            self.tables.events.insert(WrapId::from(event.id()).as_bytes(), at)?;
        }
        for (wrap, fact) in &admission.wraps {
            self.tables.wraps.insert((room.as_bytes(), wrap.as_bytes()), cbor::to_vec(fact).as_slice())?;
        }
        let end = admission.strand;
        let key = (room.as_bytes(), author.as_bytes(), end.strand.as_bytes());
        self.tables.strands.insert(key, (end.next, end.link.as_bytes()))?;
        if let Some(after) = admission.room {
            self.store_room(before, after)?;
        }
        Ok(())
    }

    fn store_room(&mut self, before: Option<&RoomState>, after: RoomState) -> Result<(), StoreError> {
        let room = after.room;
        let known: BTreeSet<AuthorId> = before.into_iter().flat_map(RoomState::known_ids).collect();
        if before.is_none() {
            self.carried.shard.rooms += 1;
        }
        let parties: BTreeSet<AuthorId> = after.known_ids().filter(|id| !known.contains(id)).collect();
        for party in parties {
            self.tables.parties.insert((party.as_bytes(), room.as_bytes()), ())?;
        }
        self.tables.rooms.insert(room.as_bytes(), cbor::to_vec(&after).as_slice())?;
        self.carried.rooms.insert(room, Arc::new(after));
        Ok(())
    }

    fn known(&self, ids: &[EheId]) -> Result<Outcome, StoreError> {
        let mut runs = BTreeSet::new();
        for id in ids {
            if let Some(at) = self.tables.events.get(WrapId::from(*id).as_bytes())? {
                runs.insert(at.value().0);
            }
        }
        Ok(Outcome::Known(runs.into_iter().collect()))
    }

    fn keep_refusal(&mut self, room: RoomId, author: AuthorId, refusal: RunRefusal) -> Result<(), StoreError> {
        let mut kept = run_refusals(&self.tables.run_refusals, room, author)?;
        if kept.len() >= RUN_REFUSALS_KEPT {
            kept.remove(0);
        }
        kept.push(refusal);
        self.tables.run_refusals.insert((room.as_bytes(), author.as_bytes()), cbor::to_vec(&kept).as_slice())?;
        Ok(())
    }

    // ---- reads

    fn read(&mut self, signed: &SignedRequest, identity: &PublicIdentity) -> Result<Outcome, StoreError> {
        let refused = |why| Ok(Outcome::Refused(why));
        let Ok(request) = signed.decode() else { return refused(Refusal::RequestMalformed) };
        // The record stays for good, so nobody's word is taken for the signature.
        let Ok(request) = request.verify_as(identity) else { return refused(Refusal::BadSignature) };
        if request.room.shard(self.place.shard_count) != self.place.shard {
            return refused(Refusal::WrongShard);
        }
        let Some(room) = self.room(request.room)? else { return refused(Refusal::RoomUnknown) };
        let now = self.now();
        let fresh = request.made_at.since(now).max(now.since(request.made_at)) <= REQUEST_SKEW_MAX_MS;
        let nonce = (request.made_at.0, request.reader.as_bytes(), request.nonce.as_bytes());
        let decision = if !fresh {
            Err(Refusal::RequestStale)
        } else if self.tables.nonces.get(nonce)?.is_some() {
            Err(Refusal::RequestRepeated)
        } else {
            decide(self.place.alliance, &room, &request, now)
        };
        let reader = room.key_of(request.reader).is_none().then(|| identity.clone());
        let record = |refused, count| AccessRecord { request: signed.clone(), refused, reader, count, at: now };
        match decision {
            Ok(granted) if granted.needs_audit() => {
                self.tables.nonces.insert(nonce, ())?;
                let record = self.append(request.room, room.next_control, &record(None, 1).to_vec())?;
                Ok(Outcome::Granted { record: Some(record) })
            }
            Ok(_) => Ok(Outcome::Granted { record: None }),
            Err(why) => {
                self.record_refusal(request.room, request.reader, record(Some(why), 0))?;
                refused(why)
            }
        }
    }

    /// The first refusal of an identity in an hour is an entry of the room; later ones are counted until the hour is over.
    fn record_refusal(&mut self, room: RoomId, reader: AuthorId, mut record: AccessRecord) -> Result<(), StoreError> {
        let key = (record.at.hour().0, room.as_bytes(), reader.as_bytes());
        let counted = match self.tables.read_refusals.get(key)? {
            Some(bytes) => Some(decode_record(bytes.value())?.count),
            None => None,
        };
        match counted {
            Some(counted) => record.count = counted.saturating_add(1),
            None => {
                let first = AccessRecord { count: 1, ..record.clone() };
                self.append_record(room, &first)?;
            }
        }
        self.tables.read_refusals.insert(key, record.to_vec().as_slice())?;
        Ok(())
    }

    /// Hours that are over: what was only counted becomes one entry with the count, and the last such request in it.
    fn summarise_refusals(&mut self) -> Result<(), StoreError> {
        let hour = self.now().hour().0;
        for _ in 0..SUMMARIES_PER_BLOCK_MAX {
            let Some((key, value)) = self.tables.read_refusals.first()? else { return Ok(()) };
            let ((of, room, reader), record) = (key.value(), decode_record(value.value())?);
            if of >= hour {
                return Ok(());
            }
            let (room, reader) = (RoomId(*room), AuthorId(*reader));
            drop((key, value));
            self.tables.read_refusals.remove((of, room.as_bytes(), reader.as_bytes()))?;
            if record.count > 0 {
                self.append_record(room, &record)?;
            }
        }
        Ok(())
    }

    /// A request made that long ago is refused as stale before its nonce matters.
    fn forget_nonces(&mut self) -> Result<(), StoreError> {
        let oldest = self.now().0.saturating_sub(REQUEST_SKEW_MAX_MS);
        for _ in 0..NONCES_PER_BLOCK_MAX {
            let Some((key, _)) = self.tables.nonces.first()? else { return Ok(()) };
            let (made_at, reader, nonce) = key.value();
            if made_at >= oldest {
                return Ok(());
            }
            let (reader, nonce) = (*reader, *nonce);
            drop(key);
            self.tables.nonces.remove((made_at, &reader, &nonce))?;
        }
        Ok(())
    }

    // ---- the log

    fn room(&mut self, room: RoomId) -> Result<Option<Arc<RoomState>>, StoreError> {
        if let Some(state) = self.carried.rooms.get(&room) {
            return Ok(Some(state.clone()));
        }
        let state = room_state(&self.tables.rooms, room)?.map(Arc::new);
        if let Some(state) = &state {
            if self.carried.rooms.len() >= ROOMS_CACHED_MAX {
                self.carried.rooms.clear();
            }
            self.carried.rooms.insert(room, state.clone());
        }
        Ok(state)
    }

    /// Appends an access record of a room that is there.
    fn append_record(&mut self, room: RoomId, record: &AccessRecord) -> Result<u64, StoreError> {
        let control = self.room(room)?.map_or(0, |room| room.next_control);
        self.append(room, control, &record.to_vec())
    }

    /// Appends an entry to a room and its leaf to the shard's log. `control`: the patient's control events in the room, with this
    /// entry's. Returns its log index.
    fn append(&mut self, room: RoomId, control: u64, entry: &[u8]) -> Result<u64, StoreError> {
        let log_index = self.carried.peaks.size();
        let before = {
            let mut range = self.tables.positions.range((room.as_bytes(), 0)..=(room.as_bytes(), u64::MAX))?;
            match range.next_back() {
                None => None,
                Some(row) => {
                    let (key, at) = row?;
                    Some((key.value().1, at.value()))
                }
            }
        };
        let (index, previous) = match before {
            None => (0, Hash::ZERO),
            Some((last, at)) => (last + 1, self.node(NodeAt { level: 0, index: at })?),
        };
        let now = self.now();
        let leaf = Leaf { room, index, previous, entry: record_hash(entry), accepted_at: now, control };
        self.tables.entries.insert(log_index, (room.as_bytes(), index, now.0, control, entry))?;
        self.tables.positions.insert((room.as_bytes(), index), log_index)?;
        let nodes = &mut self.tables.nodes;
        self.carried.peaks.append(leaf.hash(), |at, hash| -> Result<(), StoreError> {
            nodes.insert((at.level, at.index), hash.as_bytes())?;
            Ok(())
        })?;
        Ok(log_index)
    }

    fn node(&self, at: NodeAt) -> Result<Hash, StoreError> {
        let hash = self.tables.nodes.get((at.level, at.index))?;
        hash.map(|hash| Hash(*hash.value())).ok_or(StoreError::Corrupt("a hash of the Merkle tree is missing"))
    }
}

/// Why a run does not enter.
enum Judged {
    Known(Vec<EheId>),
    Refused(Refusal),
    /// Nobody knows who sent it, so nothing is kept of it.
    Forged(Refusal),
}

fn decode_record(bytes: &[u8]) -> Result<AccessRecord, StoreError> {
    AccessRecord::decode(bytes).map_err(|_| StoreError::Corrupt("a counted refusal does not decode"))
}

/// What admission asks about one room.
struct RoomLedger<'a, 't> {
    tables: &'a Tables<'t>,
    room: RoomId,
}

impl Ledger for RoomLedger<'_, '_> {
    type Error = StoreError;

    fn strand(&self, author: AuthorId, strand: StrandId) -> Result<Option<StrandEnd>, StoreError> {
        let end = self.tables.strands.get((self.room.as_bytes(), author.as_bytes(), strand.as_bytes()))?;
        Ok(end.map(|end| {
            let (next, link) = end.value();
            StrandEnd { strand, next, link: Hash(*link) }
        }))
    }

    fn wrap(&self, wrap: WrapId) -> Result<Option<WrapFact>, StoreError> {
        let Some(fact) = self.tables.wraps.get((self.room.as_bytes(), wrap.as_bytes()))? else { return Ok(None) };
        let fact = cbor::from_slice(fact.value(), 128).map_err(|_| StoreError::Corrupt("a wrap does not decode"))?;
        Ok(Some(fact))
    }

    fn has_event(&self, id: EheId) -> Result<bool, StoreError> {
        Ok(self.tables.events.get(WrapId::from(id).as_bytes())?.is_some())
    }
}
