//! Following a room from what a node shows, without believing the node: chain, signatures, rules, inclusion (SPEC 10).
//!
//! A [`Follower`] takes [`Item`]s in order and hands out what it verified. Which step failed is in the error. Until
//! [`Follower::confirm`] has tied the last leaf to a quorum's checkpoint, what was handed out is signed by its authors but not
//! yet proven to be the ledger's.

use std::collections::BTreeMap;

use crate::charter::VerifiedCharter;
use crate::checkpoint::VerifiedCheckpoint;
use crate::control::{Control, Right};
use crate::cose::{Domain, Unverified};
use crate::event::{CheckedEvent, Event, EventError, Kind, sha256};
use crate::id::{AuthorId, EheId, Hash, Nonce, RoomId, StrandId, WrapId};
use crate::leaf::{Leaf, ReceiptError};
use crate::limits::UNVOIDED_RUNS_MAX;
use crate::merkle;
use crate::read::AccessRecord;
use crate::refusal::Refusal;
use crate::room::{Ledger, Refused, RoomState, WrapFact, admit_known, author_key, names_each_once};
use crate::run::{Run, StrandEnd, VerifiedRun};
use crate::sign::SignedError;
use crate::void::{NotVoid, VoidRecord, false_signature};
use crate::wire::{Head, HeadStatement, Item};

/// What does not hold in what a node showed. Unless said otherwise the node is at fault, or somebody before it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LedgerError {
    /// The leaf does not follow the room's leaf before it.
    #[error("chain: entry {index} does not follow the entry before it")]
    Chain {
        /// The entry.
        index: u64,
    },
    /// The ledger's time never goes back.
    #[error("chain: entry {index} was accepted before the entry before it")]
    TimeWentBack {
        /// The entry.
        index: u64,
    },
    /// The entry is not the one that its leaf names.
    #[error("hash: entry {index} is not the one that its leaf names")]
    Entry {
        /// The entry.
        index: u64,
    },
    /// A signature, or the structure around it.
    #[error("signature: entry {index}: {why}")]
    Signature {
        /// The entry.
        index: u64,
        /// What failed.
        why: SignedError,
    },
    /// An event is not well formed or not one that its run names.
    #[error("event: entry {index}: {why}")]
    Event {
        /// The entry.
        index: u64,
        /// What failed.
        why: EventError,
    },
    /// An event is not in its run, or not in its place there.
    #[error("event: entry {index} brings an event that no run of it names, or not in the run's order, or twice")]
    NotInRun {
        /// The entry.
        index: u64,
    },
    /// A rule of the room.
    #[error("rules: entry {index} is in the ledger against its rules: {why}")]
    Rules {
        /// The entry.
        index: u64,
        /// The rule.
        why: Refusal,
    },
    /// A strand has a gap, or goes two ways.
    #[error("strand: entry {index} does not follow its author's strand")]
    Strand {
        /// The entry.
        index: u64,
    },
    /// A void record that voids nothing: it is malformed, or names a run that the author signed. The nodes that let it in are at fault.
    #[error("void record: entry {index}: {why}")]
    Void {
        /// The entry.
        index: u64,
        /// Why not.
        why: VoidFault,
    },
    /// More runs with false signatures than anybody should have to remember.
    #[error(
        "signature: entry {index}: the signatures of more than {UNVOIDED_RUNS_MAX} runs are false, and no entry so far says that they are void"
    )]
    Unvoided {
        /// The entry.
        index: u64,
    },
    /// The access record.
    #[error("access record: entry {index} is not one")]
    Access {
        /// The entry.
        index: u64,
    },
    /// The entry belongs to another room.
    #[error("entry {index} belongs to another room")]
    OtherRoom {
        /// The entry.
        index: u64,
    },
    /// A control event of the patient is left out: a revocation, a new key.
    #[error("entry {index} shows that a control event of the patient was left out before it")]
    ControlWithheld {
        /// The entry.
        index: u64,
    },
    /// Control events of a version that this program does not know: what they changed it cannot say, so it stops. Nobody is at
    /// fault; a newer program reads on.
    #[error("entry {index} brings control events of a version that this program does not know: update it")]
    ControlUnknown {
        /// The entry.
        index: u64,
    },
    /// Something that should be shown is left out.
    #[error("entry {index} is shown in part only")]
    Withheld {
        /// The entry.
        index: u64,
    },
    /// The head does not prove what was shown.
    #[error("inclusion: {0}")]
    Head(#[from] ReceiptError),
    /// The head is of another leaf than the last one shown.
    #[error("head: it is not of the last entry shown")]
    OtherHead,
    /// The node's signature on the head.
    #[error("head: {0}")]
    HeadSignature(SignedError),
    /// The head answers another question.
    #[error("head: it does not answer this request (nonce)")]
    Nonce,
    /// The log is older or other than one that was seen before.
    #[error("head: the log shows {shown} leaves, where {known} were seen before")]
    WentBack {
        /// Leaves seen before.
        known: u64,
        /// Leaves shown.
        shown: u64,
    },
}

/// Why a void record voids nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VoidFault {
    /// It is of no form.
    #[error("it is not one")]
    Malformed,
    /// What it says of the run.
    #[error(transparent)]
    NotVoid(#[from] NotVoid),
    /// The entry that it names is another run.
    #[error("the entry that it names is another one")]
    Other,
}

/// What an item turned out to hold.
#[derive(Debug, Clone)]
pub enum Verified {
    /// A leaf alone.
    Skeleton,
    /// A run, or as much of it as the reader may have; its signature stands.
    Run {
        /// The author's run.
        run: Run,
        /// Its events that were shown.
        events: Vec<CheckedEvent>,
        /// Those that were shown and are of a version that this program does not know (V1): nothing is known of them but that they
        /// are the author's.
        unknown: Vec<EheId>,
    },
    /// A run whose signature is false: nothing of it counts. Until a later entry voids it, what is shown is not confirmed.
    Unsigned(Run),
    /// The entry by which such a run is void: of the run, and its index in the room.
    Void {
        /// Its index.
        index: u64,
        /// What it claims.
        run: Run,
    },
    /// An access record.
    Access(Box<AccessRecord>),
}

/// How far a room was followed.
#[derive(Debug, Clone)]
pub struct Follower {
    room_id: RoomId,
    /// The rules' state; none before room-create.
    room: Option<RoomState>,
    next: u64,
    last: Hash,
    last_leaf: Option<Leaf>,
    strands: BTreeMap<(AuthorId, StrandId), StrandEnd>,
    wraps: BTreeMap<WrapId, WrapFact>,
    /// Runs whose signature is false, by index, that nothing has voided yet: their hash, and what is false. No more than
    /// [`UNVOIDED_RUNS_MAX`], so a leader that lied for a second can have let in too many before the first record for whoever follows the
    /// whole ledger. Who reads content does not meet them: nodes show of a void run the leaf alone.
    unvoided: BTreeMap<u64, (Hash, SignedError)>,
    /// Whether every entry is shown whole: then strands and all rules are checked, not control alone.
    whole: bool,
}

impl Follower {
    /// Follows a room from its first entry. `whole`: the patient's view, in which nothing may be left out.
    pub fn new(room: RoomId, whole: bool) -> Self {
        Self {
            room_id: room,
            room: None,
            next: 0,
            last: Hash::ZERO,
            last_leaf: None,
            strands: BTreeMap::new(),
            wraps: BTreeMap::new(),
            unvoided: BTreeMap::new(),
            whole,
        }
    }

    /// Follows a room from a place that an earlier following reached: entry `next`, after the leaf with hash `last`, under the
    /// rules' state as of then.
    pub fn resume(room: RoomState, next: u64, last: Hash) -> Self {
        Self { next, last, room: Some(room.clone()), ..Self::new(room.room, false) }
    }

    /// The rules' state.
    pub fn room(&self) -> Option<&RoomState> {
        self.room.as_ref()
    }

    /// Index of the entry that comes next.
    pub fn next(&self) -> u64 {
        self.next
    }

    /// Merkle leaf hash of the last entry.
    pub fn last(&self) -> Hash {
        self.last
    }

    /// Verifies the next item.
    pub fn take(&mut self, item: Item, alliance: crate::id::AllianceId) -> Result<Verified, LedgerError> {
        self.taken(item, alliance).map_err(|why| match why {
            LedgerError::Rules { .. } | LedgerError::Void { .. } | LedgerError::Unvoided { .. } => why,
            // Nothing will void it any more, and it came first.
            why => self.first_unvoided().unwrap_or(why),
        })
    }

    fn first_unvoided(&self) -> Option<LedgerError> {
        let (index, (_, why)) = self.unvoided.first_key_value()?;
        Some(LedgerError::Signature { index: *index, why: why.clone() })
    }

    fn taken(&mut self, item: Item, alliance: crate::id::AllianceId) -> Result<Verified, LedgerError> {
        let index = self.next;
        if item.leaf.room != self.room_id {
            return Err(LedgerError::OtherRoom { index });
        }
        if item.leaf.index != index || item.leaf.previous != self.last {
            return Err(LedgerError::Chain { index });
        }
        if self.last_leaf.as_ref().is_some_and(|last| item.leaf.accepted_at < last.accepted_at) {
            return Err(LedgerError::TimeWentBack { index });
        }
        let verified = match (&item.run, &item.access, &item.void) {
            (Some(_), None, None) => self.take_run(&item, alliance)?,
            (None, _, _) if !item.events.is_empty() => return Err(LedgerError::NotInRun { index }),
            (None, None, Some(bytes)) => {
                if sha256(bytes) != item.leaf.entry {
                    return Err(LedgerError::Entry { index });
                }
                self.void(index, bytes).map_err(|why| LedgerError::Void { index, why })?
            }
            (None, Some(bytes), None) => {
                if sha256(bytes) != item.leaf.entry {
                    return Err(LedgerError::Entry { index });
                }
                Verified::Access(Box::new(self.access(index, bytes)?))
            }
            (None, None, None) if !self.whole => Verified::Skeleton,
            _ => return Err(LedgerError::Withheld { index }),
        };
        if item.leaf.control != self.room.as_ref().map_or(0, |room| room.next_control) {
            return Err(LedgerError::ControlWithheld { index });
        }
        self.next += 1;
        self.last = item.leaf.hash();
        self.last_leaf = Some(item.leaf);
        Ok(verified)
    }

    /// Whatever the node says: a run whose signature is true is not void.
    fn void(&mut self, index: u64, bytes: &[u8]) -> Result<Verified, VoidFault> {
        let record = VoidRecord::decode(bytes).map_err(|_| VoidFault::Malformed)?;
        let room = self.room.as_ref().ok_or(NotVoid::Author)?;
        let run = record.judge(room, index)?;
        match self.unvoided.get(&record.index) {
            Some((hash, _)) if *hash != record.run.hash() => return Err(VoidFault::Other),
            _ => self.unvoided.remove(&record.index),
        };
        Ok(Verified::Void { index: record.index, run })
    }

    fn access(&self, index: u64, bytes: &[u8]) -> Result<AccessRecord, LedgerError> {
        let record = AccessRecord::decode(bytes).map_err(|_| LedgerError::Access { index })?;
        let signature = |why| LedgerError::Signature { index, why };
        let request = record.request.decode().map_err(signature)?;
        let reader = request.claims().reader;
        if request.claims().room != self.room_id {
            return Err(LedgerError::OtherRoom { index });
        }
        // The request is the reader's own signed word: a node cannot make up that somebody read.
        match (&record.reader, self.room.as_ref().and_then(|r| r.key_of(reader))) {
            (_, Some(key)) => request.verify(&key).map_err(signature)?,
            (Some(identity), None) => request.verify_as(identity).map_err(signature)?,
            (None, None) => return Err(LedgerError::Access { index }),
        };
        Ok(record)
    }

    fn take_run(&mut self, item: &Item, alliance: crate::id::AllianceId) -> Result<Verified, LedgerError> {
        let index = self.next;
        let signature = |why| LedgerError::Signature { index, why };
        let signed_run = item.run.as_ref().ok_or(LedgerError::Withheld { index })?;
        if signed_run.hash() != item.leaf.entry {
            return Err(LedgerError::Entry { index });
        }
        let run = signed_run.decode().map_err(signature)?;
        if run.claims().room != self.room_id {
            return Err(LedgerError::OtherRoom { index });
        }
        let (mut events, mut unknown, mut shown) = (Vec::new(), Vec::new(), Vec::new());
        for event in &item.events {
            match self.check(event) {
                Ok(event) => {
                    shown.push(event.id());
                    events.push(event);
                }
                // The hash of its header is its id in every version.
                Err(EventError::Version(_)) => {
                    let id = EheId(sha256(&event.header).0);
                    shown.push(id);
                    unknown.push(id);
                }
                Err(why) => return Err(LedgerError::Event { index, why }),
            }
        }
        // In the run's order, none twice: a node must not show one reading as two.
        let mut ids = run.claims().ids.iter();
        if !shown.iter().all(|shown| ids.any(|id| id == shown)) {
            return Err(LedgerError::NotInRun { index });
        }
        let complete = shown.len() == run.claims().ids.len();
        // Who signs a room's first run, and a recovery, stands in the run's first event.
        let opens = events.first().map(CheckedEvent::id).as_ref() == run.claims().ids.first();
        let key = author_key(self.room.as_ref(), run.claims(), if opens { &events } else { &[] });
        let key = key.map_err(|why| LedgerError::Rules { index, why })?;
        let verified = run.clone().verify(&key);
        let unsigned = verified.as_ref().err().cloned();
        let run = match verified {
            Ok(run) => run,
            // Every replica checks the owner's runs, and all that are more than content, before they are in the log.
            Err(why) => {
                let content = events.iter().all(|event| event.core().kind.is_content());
                let false_one = self.room.as_ref().and_then(|room| false_signature(room, run.clone()).ok()).flatten();
                if !content || false_one.is_none() {
                    return Err(signature(why));
                }
                run.trust_ordering_party()
            }
        };
        // The patient's own runs are judged in every view: rights must not rest on a node's word.
        let counted = |e: &&CheckedEvent| !e.core().kind.is_content() && e.core().kind != Kind::Wrap;
        let counted = u64::try_from(events.iter().filter(counted).count()).unwrap_or(u64::MAX);
        let judged = self.whole || counted > 0;
        if judged && !complete {
            return Err(LedgerError::Withheld { index });
        }
        let known = self.room.as_ref().map_or(0, |room| room.next_control).saturating_add(counted);
        if !unknown.is_empty() && item.leaf.control != known {
            return Err(LedgerError::ControlUnknown { index });
        }
        if judged {
            self.judge(index, &run, &events, item.leaf.accepted_at, alliance)?;
        } else {
            self.judge_shown(index, run.run(), &events, item.leaf.accepted_at)?;
        }
        if let Some(why) = unsigned {
            if self.unvoided.len() >= UNVOIDED_RUNS_MAX {
                return Err(LedgerError::Unvoided { index });
            }
            self.unvoided.insert(index, (item.leaf.entry, why));
            return Ok(Verified::Unsigned(run.run().clone()));
        }
        Ok(Verified::Run { run: run.run().clone(), events, unknown })
    }

    /// In the whole view bodies of content may be left out (empty): their hash stands in the signed header.
    fn check(&self, event: &Event) -> Result<CheckedEvent, EventError> {
        if self.whole && event.body.is_empty() {
            return CheckedEvent::without_body(event.header.clone());
        }
        event.clone().check()
    }

    fn judge(
        &mut self,
        index: u64,
        run: &VerifiedRun,
        events: &[CheckedEvent],
        now: crate::time::UnixMs,
        alliance: crate::id::AllianceId,
    ) -> Result<(), LedgerError> {
        let view = View { follower: self, whole: self.whole, run: run.run() };
        let admission = match admit_known(alliance, self.room.as_ref(), run, events, &view, now) {
            Ok(Ok(admission)) => admission,
            Ok(Err(Refused::Because(Refusal::StrandGap))) => return Err(LedgerError::Strand { index }),
            Ok(Err(Refused::Because(why))) => return Err(LedgerError::Rules { index, why }),
            Ok(Err(Refused::Known(_))) => return Err(LedgerError::Rules { index, why: Refusal::EventRepeated }),
            Err(never) => match never {},
        };
        self.strands.insert((run.run().author, admission.strand.strand), admission.strand);
        self.wraps.extend(admission.wraps);
        if admission.room.is_some() {
            self.room = admission.room;
        }
        Ok(())
    }

    /// Of a run that is shown in part: each shown event is the run's, and its author had the right to append it at that entry.
    fn judge_shown(
        &self,
        index: u64,
        run: &Run,
        events: &[CheckedEvent],
        accepted_at: crate::time::UnixMs,
    ) -> Result<(), LedgerError> {
        let rules = |why| LedgerError::Rules { index, why };
        names_each_once(run).map_err(rules)?;
        let room = self.room.as_ref().ok_or(rules(Refusal::RoomUnknown))?;
        for core in events.iter().map(CheckedEvent::core) {
            if core.room != run.room || core.author != run.author {
                return Err(rules(Refusal::EventOutOfPlace));
            }
            if core.kind.is_content() {
                room.may(core.author, Right::Append, core.epoch, Some(core.hour), accepted_at).map_err(rules)?;
            }
        }
        Ok(())
    }

    /// Ties what was shown to the ledger: the head is of the last entry, its leaf is in a quorum's checkpoint, and the node
    /// has signed it over this nonce. `known` is the newest log size that the reader saw before.
    pub fn confirm(
        &self,
        head: &Head,
        nonce: Nonce,
        known: Option<u64>,
        charter: &VerifiedCharter,
    ) -> Result<VerifiedCheckpoint, LedgerError> {
        if let Some(why) = self.first_unvoided() {
            return Err(why);
        }
        let checkpoint = self.ends(head, nonce, charter)?;
        // A room begins with its creation, which everybody who may follow it is shown.
        if self.room.is_none() {
            return Err(LedgerError::Withheld { index: 0 });
        }
        let shown = checkpoint.checkpoint().size;
        match known {
            Some(known) if shown < known => Err(LedgerError::WentBack { known, shown }),
            _ => Ok(checkpoint),
        }
    }

    /// Verifies that the head is of the last entry that was shown, whatever that is worth: what was shown stands in the ledger, and holds once
    /// [`confirm`](Self::confirm) says so.
    pub fn ends(
        &self,
        head: &Head,
        nonce: Nonce,
        charter: &VerifiedCharter,
    ) -> Result<VerifiedCheckpoint, LedgerError> {
        let checkpoint = verify_head(self.room_id, head, nonce, charter)?;
        if head.last.leaf.hash() != self.last {
            return Err(LedgerError::OtherHead);
        }
        Ok(checkpoint)
    }

    /// The first entry that is a run with a false signature which nothing shown so far voids: until something does, no head confirms anything.
    pub fn unvoided(&self) -> Option<u64> {
        self.unvoided.first_key_value().map(|(index, _)| *index)
    }
}

/// Verifies a head by itself: signature of one of the shard's nodes, inclusion, quorum.
pub fn verify_head(
    room: RoomId,
    head: &Head,
    nonce: Nonce,
    charter: &VerifiedCharter,
) -> Result<VerifiedCheckpoint, LedgerError> {
    let shard = room.shard(charter.shard_count());
    let checkpoint = VerifiedCheckpoint::verify(&head.last.checkpoint, shard, charter).map_err(ReceiptError::from)?;
    let tree = checkpoint.checkpoint();
    if head.last.leaf.room != room {
        return Err(LedgerError::OtherHead);
    }
    let leaf = head.last.leaf.hash();
    merkle::verify_inclusion(&leaf, head.last.log_index, tree.size, &head.last.proof, &tree.root)
        .map_err(ReceiptError::from)?;
    if head.nonce != nonce {
        return Err(LedgerError::Nonce);
    }
    let statement = HeadStatement { room, last_leaf: leaf, log_size: tree.size, at: head.at, nonce };
    let cose = Unverified::decode(&head.signature, crate::limits::HEAD_SIGNATURE_MAX_BYTES)
        .map_err(LedgerError::HeadSignature)?;
    if cose.payload() != crate::cbor::to_vec(&statement) {
        return Err(LedgerError::HeadSignature(SignedError::Limit("the head's signature is of another statement")));
    }
    let mut verified = Err(LedgerError::HeadSignature(SignedError::OtherAuthor));
    for node in charter.group(shard).iter().filter_map(|id| charter.node(*id)) {
        if cose.verify(Domain::Head, &node.sign).is_ok() {
            verified = Ok(());
        }
    }
    verified.map(|()| checkpoint)
}

/// What a follower knows, for the rules. A partial view cannot know strands or wraps, so it takes them as the run has them.
struct View<'a> {
    follower: &'a Follower,
    whole: bool,
    run: &'a Run,
}

impl Ledger for View<'_> {
    type Error = core::convert::Infallible;

    fn strand(&self, author: AuthorId, strand: StrandId) -> Result<Option<StrandEnd>, Self::Error> {
        let known = self.follower.strands.get(&(author, strand)).copied();
        Ok(if self.whole { known } else { Some(self.run.from) })
    }

    fn wrap(&self, wrap: WrapId) -> Result<Option<WrapFact>, Self::Error> {
        Ok(self.follower.wraps.get(&wrap).copied())
    }

    fn has_event(&self, _: EheId) -> Result<bool, Self::Error> {
        // A repeated event would stand in a strand twice; keeping every id of a room in memory is not worth more.
        Ok(false)
    }
}

/// Reads a [`Response::Wrap`](crate::wire::Response::Wrap): the id by which content names it, its author, and the record. No
/// signature is needed: whoever names the wrap names the hash of its header, which holds the hash of its body.
pub fn wrap_of(event: Event) -> Option<(WrapId, AuthorId, crate::control::WrapRecord)> {
    let event = event.check().ok()?;
    match Control::decode(&event) {
        Ok(Control::Wrap(record)) => Some((event.id().into(), event.core().author, record)),
        _ => None,
    }
}

/// Reads a control event that a follower verified.
pub fn control_of(event: &CheckedEvent) -> Option<Control> {
    Control::decode(event).ok()
}
