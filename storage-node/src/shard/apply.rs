//! What a block does to a shard. Deterministic: no clock, no chance; the same blocks give the same tables on every replica.
//!
//! A refusal is an outcome. An error is the store's, and stops the shard for good.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use redb::ReadableTable;

use ehe::cbor;
use ehe::event::{CheckedEvent, Event};
use ehe::id::{AuthorId, Hash, RoomId, WrapId};
use ehe::identity::PublicIdentity;
use ehe::leaf::Leaf;
use ehe::limits::REQUEST_SKEW_MAX_MS;
use ehe::merkle::Peaks;
use ehe::read::{AccessRecord, SignedRequest, record_hash};
use ehe::refusal::Refusal;
use ehe::room::{Admission, Refused, RoomState, admit, author_key, decide};
use ehe::run::{Run, SignedRun, StrandEnd, UnverifiedRun, VerifiedRun};
use ehe::sign::SIGNATURE_LEN;
use ehe::time::UnixMs;
use ehe::wire::Submission;

use super::block::{BLOCK_COMMANDS_MAX, Block, Command, Outcome};
use super::charters::{CharterEntry, Charters, META_CHARTERS};
use super::entry::{Admitted, LogName, Names};
use super::known;
use super::ledger::{Named, RoomLedger};
use super::place::Place;
use super::places::Head;
use super::recent::{Recent, Rooms};
use super::record::{Record, What};
use super::schema::{Look, META_SHARD, RUN_REFUSALS_KEPT, RunRefusal, ShardMeta, StoredWrap, Tables};
use super::segments::Tail;
use super::store::StoreError;
use super::tree::{LeafTail, Tree};
use super::view::{room_state, run_refusals};

/// Hourly summaries of refusals that one block writes at most; the next block goes on.
const SUMMARIES_PER_BLOCK_MAX: usize = 16;
/// Stale nonces that one block forgets at most: more than it adds, or the table would grow under load.
const NONCES_PER_BLOCK_MAX: usize = 2 * BLOCK_COMMANDS_MAX;
/// Roots that stay in memory: with a block every 10 ms, those of the last 40 seconds.
const ROOTS_KEPT: usize = 4096;

/// What stays in memory between blocks; all of it can be read from the tables again.
pub(super) struct Carried {
    pub(super) peaks: Peaks,
    pub(super) shard: ShardMeta,
    pub(super) charters: Charters,
    log: Tail,
    leaves: LeafTail,
    /// Shared with those who check runs before they are ordered; looking one up copies none of it.
    rooms: Rooms,
    /// Shared with those who make receipts.
    recent: Recent,
    /// Roots after the last blocks, by size. Runs name a checkpoint that was made lately; looking here saves computing its root.
    roots: BTreeMap<u64, Hash>,
    /// Rooms that were changed since this was last taken.
    pub(super) changed: BTreeSet<RoomId>,
}

impl Carried {
    /// As the tables have it. Reads O(log n) hashes, whatever the shard holds.
    pub(super) fn load(
        tables: &impl Look,
        shard: ShardMeta,
        charters: Charters,
        (rooms, recent): (Rooms, Recent),
    ) -> Result<Self, StoreError> {
        rooms.forget();
        recent.restart(&Tree(tables), shard.leaves)?;
        Ok(Self {
            peaks: Peaks::load(&Tree(tables), shard.leaves)?,
            shard,
            charters,
            log: Tail::load(tables.log())?,
            leaves: LeafTail::load(tables, shard.leaves)?,
            rooms,
            recent,
            roots: BTreeMap::new(),
            changed: BTreeSet::new(),
        })
    }
}

/// Applies blocks within one transaction.
pub(super) struct Apply<'a, 't> {
    place: Place,
    pub(super) tables: &'a mut Tables<'t>,
    carried: &'a mut Carried,
    /// The rules version in force before the block: what a charter in it raises, holds from the next one on. A program that is older than that
    /// applies the block as the others do.
    rules: u16,
}

impl<'a, 't> Apply<'a, 't> {
    pub(super) fn new(place: Place, tables: &'a mut Tables<'t>, carried: &'a mut Carried) -> Self {
        let rules = carried.charters.rules();
        Self { place, tables, carried, rules }
    }

    /// Has the tables hold all that was appended. Before that, who looks at the log or the tree in them may miss the end.
    pub(super) fn settle(&mut self) -> Result<(), StoreError> {
        self.carried.log.store(&mut self.tables.log)?;
        self.carried.leaves.store(self.tables)
    }

    /// Writes what was appended last, and the shard's record: once, after the transaction's last block.
    pub(super) fn finish(mut self) -> Result<(), StoreError> {
        self.settle()?;
        self.carried.shard.leaves = self.carried.peaks.size();
        self.tables.meta.insert(META_SHARD, cbor::to_vec(&self.carried.shard).as_slice())?;
        Ok(())
    }

    /// Applies one block: one outcome for each command.
    pub(super) fn block(&mut self, block: Block) -> Result<Vec<Outcome>, StoreError> {
        self.rules = self.carried.charters.rules();
        if block.rules > self.rules {
            // Its author claims rules that nobody has put in force. Whoever waits for it may ask again.
            return Ok(block.commands.iter().map(|_| Outcome::Refused(Refusal::NoLeader)).collect());
        }
        // An ordering party whose clock was set back, or a new one behind the old: the ledger's time stands still meanwhile.
        self.carried.shard.time = self.carried.shard.time.max(block.time);
        self.carried.shard.blocks += 1;
        self.summarise_refusals()?;
        self.forget_nonces()?;
        let outcomes = block.commands.into_iter().map(|command| self.command(command)).collect();
        let Carried { peaks, roots, .. } = &mut *self.carried;
        roots.insert(peaks.size(), peaks.root());
        while roots.len() > ROOTS_KEPT {
            roots.pop_first();
        }
        outcomes
    }

    fn now(&self) -> UnixMs {
        self.carried.shard.time
    }

    fn command(&mut self, command: Command) -> Result<Outcome, StoreError> {
        match command {
            Command::Submit(submission) => self.submit(submission),
            // Whoever releases it: that is no matter of the rules.
            Command::Read(request, identity, _) => self.read(&request, &identity),
            Command::Charter(entry) => self.charter(&entry),
            Command::Void(found) => Ok(Outcome::Voided { record: self.void(&found)? }),
        }
    }

    /// The rules version in force for the block at hand.
    pub(super) fn rules(&self) -> u16 {
        self.rules
    }

    /// Leaves of the log.
    pub(super) fn leaves(&self) -> u64 {
        self.carried.peaks.size()
    }

    pub(super) fn shard(&self) -> u16 {
        self.place.shard
    }

    // ---- charters

    /// Every replica verifies it against the charter in effect: an ordering party could otherwise bring its own.
    fn charter(&mut self, entry: &CharterEntry) -> Result<Outcome, StoreError> {
        let empty = self.carried.peaks.size() == 0;
        match self.carried.charters.after(entry, self.place.alliance, self.place.shard, empty) {
            Ok(after) => {
                self.tables.meta.insert(META_CHARTERS, after.encode().as_slice())?;
                self.carried.charters = after;
            }
            Err(why) => tracing::debug!(shard = self.place.shard, %why, "a charter entry changes nothing"),
        }
        let now = self.carried.charters.in_effect();
        let version = now.as_ref().map_or(0, |now| now.committed);
        Ok(Outcome::Charter { version, vouched: now.is_none_or(|now| now.before.is_none()) })
    }

    // ---- runs

    fn submit(&mut self, submission: Submission) -> Result<Outcome, StoreError> {
        let Submission { run: signed, events } = submission;
        let Ok(run) = signed.decode() else { return Ok(Outcome::Refused(Refusal::RunMalformed)) };
        let (room_id, author) = (run.claims().room, run.claims().author);
        if room_id.shard(self.place.shard_count) != self.place.shard {
            return Ok(Outcome::Refused(Refusal::WrongShard));
        }
        let room = self.room(room_id)?;
        let signature = run.signature();
        match self.judge(run, events, room.as_deref())? {
            Ok((admission, run, events, named)) => {
                let control_seq = match &admission.room {
                    Some(changed) => changed.next_control,
                    None => room.as_ref().map_or(0, |room| room.next_control),
                };
                let run = Entering { signed: &signed, run: run.run(), signature, events: &events };
                let log_index = self.enter(&run, named, control_seq, room.as_deref(), admission)?;
                Ok(Outcome::Submitted { log_index, control_seq })
            }
            Err(Judged::Known(runs)) => Ok(Outcome::Known(runs.into_iter().collect())),
            Err(Judged::Refused(why)) => {
                let party = room.as_ref().is_some_and(|room| room.key_of(author).is_some());
                if party {
                    self.keep_refusal(room_id, author, RunRefusal { run: signed.hash(), why, at: self.now() })?;
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
        events: Vec<Event>,
        room: Option<&RoomState>,
    ) -> Result<Result<Admissible, Judged>, StoreError> {
        let Ok(events) = events.into_iter().map(Event::check).collect::<Result<Vec<_>, _>>() else {
            return Ok(Err(Judged::Refused(Refusal::EventMalformed)));
        };
        let key = match author_key(room, run.claims(), &events) {
            Ok(key) => key,
            Err(why) => return Ok(Err(Judged::Forged(why))),
        };
        // A forged grant could not be undone, so no replica takes the ordering party's word for control events. Content is
        // verified by the ordering party, and again by the scrub; but the owner's under keys that may have been replaced since,
        // and every follower would stumble over a run that the present ones did not sign.
        let controls = |e: &CheckedEvent| !e.core().kind.is_content();
        let owners = room.is_some_and(|room| room.owner == run.claims().author);
        let verified = if owners || events.iter().any(controls) {
            match run.verify(&key) {
                Ok(run) => run,
                Err(_) => return Ok(Err(Judged::Forged(Refusal::BadSignature))),
            }
        } else {
            run.trust_ordering_party()
        };
        let ledger = RoomLedger::new(self.tables, verified.run().room, &events);
        // This decides, too, whether one author's sequence is used twice: the strand's end is the table's.
        Ok(match admit(self.place.alliance, room, &verified, &events, &ledger, self.now())? {
            Ok(_) if !known::have_rows_of_their_own(events.iter().map(|event| (event.core().hour, event.id()))) => {
                Err(Judged::Refused(Refusal::EventRepeated))
            }
            Ok(admission) => {
                let named = ledger.into_named();
                Ok((admission, verified, events, named))
            }
            Err(Refused::Known(_)) => Err(Judged::Known(ledger.into_found())),
            Err(Refused::Because(why)) => Err(Judged::Refused(why)),
        })
    }

    /// Takes an admitted run into the log. Returns its log index.
    fn enter(
        &mut self,
        entering: &Entering<'_>,
        mut named: Named,
        control: u64,
        before: Option<&RoomState>,
        admission: Admission,
    ) -> Result<u64, StoreError> {
        let Entering { signed, run, signature, events } = *entering;
        let (room, log_index) = (run.room, self.carried.peaks.size());
        for (wrap, fact) in &admission.wraps {
            let of = |event: &CheckedEvent| WrapId::from(event.id()) == *wrap;
            let position = events.iter().position(of).and_then(|n| u16::try_from(n).ok());
            let position = position.ok_or(StoreError::Corrupt("an admitted wrap is not in its run"))?;
            let number = self.carried.shard.wraps;
            self.carried.shard.wraps += 1;
            let stored = StoredWrap { fact: *fact, number, log_index, position };
            self.tables.wraps.insert((room.as_bytes(), wrap.as_bytes()), cbor::to_vec(&stored).as_slice())?;
            self.tables.wrap_names.insert(number, (wrap.as_bytes(), fact.epoch.as_bytes()))?;
            named.wraps.insert(*wrap, stored);
        }
        let strand = self.strand(run, admission.strand, named.strand)?;
        let head = Head::load(self.tables, room)?;
        let admitted = Admitted {
            log_index,
            index: head.entries,
            accepted_at: self.now(),
            control,
            signed,
            run,
            signature,
            events,
            incarnation: self.carried.shard.incarnation,
            strand,
            wraps: &named.wraps,
        };
        // A run may name any size, also one that this very block made: then its root is computed from the tables.
        if run.seen.as_ref().is_some_and(|seen| seen.size > self.carried.leaves.stored()) {
            self.settle()?;
        }
        let names = Names::new(&*self.tables, self.log(), Some(&self.carried.roots));
        names.found(&admitted);
        let record = admitted.record(&names)?;
        self.append(room, head, control, signed.hash(), &record)?;
        for (position, event) in (0u16..).zip(events) {
            known::insert(&mut self.tables.known, event.core().hour, event.id(), (log_index, position))?;
        }
        if let Some(after) = admission.room {
            self.store_room(before, after)?;
        }
        Ok(log_index)
    }

    /// Stores a strand's new end. Returns the strand's number: the one that was found, or a new one for a new strand.
    fn strand(&mut self, run: &Run, end: StrandEnd, number: Option<u64>) -> Result<u64, StoreError> {
        let key = (run.room.as_bytes(), run.author.as_bytes(), end.strand.as_bytes());
        let number = match number {
            Some(number) => number,
            None => {
                let number = self.carried.shard.strands;
                self.carried.shard.strands += 1;
                self.tables.strand_names.insert(number, key)?;
                number
            }
        };
        self.tables.strands.insert(key, (end.next, end.link.as_bytes(), number))?;
        Ok(number)
    }

    fn log(&self) -> LogName {
        LogName { alliance: self.place.alliance, shard: self.place.shard }
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
        self.carried.changed.insert(room);
        Ok(())
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
                let record = self.append_record(request.room, &record(None, 1))?;
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

    pub(super) fn room(&mut self, room: RoomId) -> Result<Option<Arc<RoomState>>, StoreError> {
        if let Some(state) = self.carried.rooms.get(room) {
            return Ok(Some(state));
        }
        let state = room_state(&self.tables.rooms, room)?.map(Arc::new);
        if let Some(state) = &state {
            self.carried.rooms.insert(room, state.clone());
        }
        Ok(state)
    }

    /// Appends an access record of a room that is there.
    fn append_record(&mut self, room: RoomId, record: &AccessRecord) -> Result<u64, StoreError> {
        self.append_bytes(room, &record.to_vec())
    }

    /// Appends what applying the log made for a room that is there: an access record, or a void record.
    pub(super) fn append_bytes(&mut self, room: RoomId, bytes: &[u8]) -> Result<u64, StoreError> {
        let control = self.room(room)?.map_or(0, |room| room.next_control);
        let head = Head::load(self.tables, room)?;
        let what = What::Access { room, bytes };
        let record = Record { index: head.entries, accepted_at: self.now(), control, what };
        self.append(room, head, control, record_hash(bytes), &record.to_vec())
    }

    /// Appends an entry to a room and its leaf to the shard's log. `control`: the patient's control events in the room, with this
    /// entry's; `entry`: SHA-256 of the entry's bytes; `record`: its stored form. Returns its log index.
    fn append(
        &mut self,
        room: RoomId,
        head: Head,
        control: u64,
        entry: Hash,
        record: &[u8],
    ) -> Result<u64, StoreError> {
        let Carried { peaks, log, leaves, shard, recent, .. } = &mut *self.carried;
        let log_index = peaks.size();
        let leaf = Leaf { room, index: head.entries, previous: head.leaf, entry, accepted_at: shard.time, control };
        let hash = leaf.hash();
        log.append(&mut self.tables.log, log_index, record)?;
        leaves.append(self.tables, peaks, hash)?;
        head.append(self.tables, room, log_index, hash)?;
        recent.push(leaf, hash);
        Ok(log_index)
    }
}

/// A run that was admitted, as it came.
struct Entering<'a> {
    signed: &'a SignedRun,
    run: &'a Run,
    signature: [u8; SIGNATURE_LEN],
    events: &'a [CheckedEvent],
}

/// A run that may enter: what it changes, the run, its events, and what was found of what they name.
type Admissible = (Admission, VerifiedRun, Vec<CheckedEvent>, Named);

/// Why a run does not enter.
enum Judged {
    /// Some of its events are in the log, by the runs at these places.
    Known(BTreeSet<u64>),
    Refused(Refusal),
    /// Nobody knows who sent it, so nothing is kept of it.
    Forged(Refusal),
}

fn decode_record(bytes: &[u8]) -> Result<AccessRecord, StoreError> {
    AccessRecord::decode(bytes).map_err(|_| StoreError::Corrupt("a counted refusal does not decode"))
}
