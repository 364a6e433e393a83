//! A ledger in memory that takes submissions and requests in order, as a node's apply does; and a follower of what a node shows.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;

use ehe::cbor;
use ehe::charter::VerifiedCharter;
use ehe::control::{Right, Rights};
use ehe::event::CheckedEvent;
use ehe::id::{AllianceId, AuthorId, EheId, EpochId, Nonce, RoomId, StrandId, WrapId};
use ehe::identity::PublicIdentity;
use ehe::ledger::{Follower, LedgerError, Verified};
use ehe::limits;
use ehe::read::SignedRequest;
use ehe::refusal::Refusal;
use ehe::room::{Ledger, Refused, RoomState, WrapFact, admit, author_key, decide};
use ehe::run::{SignedRun, StrandEnd};
use ehe::time::{Hour, UnixMs};
use ehe::wire::{Head, Item, Submission};
use serde_json::{Value, json};

use super::keys::end_json;
use super::log::charter_at_hand;
use super::{Facts, Fault};
use crate::json::{Members, unhex};
use crate::value::Cbor;

/// What became of a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    Accepted,
    Granted,
    Known(Vec<EheId>),
    Refused(Refusal),
}

impl Outcome {
    pub(crate) fn json(&self) -> Value {
        match self {
            Self::Accepted => json!("accepted"),
            Self::Granted => json!("granted"),
            Self::Known(ids) => json!({"known": ids.iter().map(|id| id.to_string()).collect::<Vec<_>>()}),
            Self::Refused(why) => json!({"refused": why.code()}),
        }
    }
}

/// An accepted run, for making leaves of it.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) at: UnixMs,
    pub(crate) run: SignedRun,
    pub(crate) events: Vec<CheckedEvent>,
    pub(crate) control: u64,
}

/// A shard's rooms, in memory.
#[derive(Debug, Clone)]
pub(crate) struct Shard {
    alliance: AllianceId,
    pub(crate) rooms: BTreeMap<RoomId, RoomState>,
    pub(crate) strands: BTreeMap<(RoomId, AuthorId, StrandId), StrandEnd>,
    wraps: BTreeMap<(RoomId, WrapId), WrapFact>,
    events: BTreeSet<EheId>,
    nonces: BTreeSet<(UnixMs, AuthorId, Nonce)>,
    pub(crate) entries: Vec<Entry>,
}

struct OfRoom<'a>(&'a Shard, RoomId);

impl Ledger for OfRoom<'_> {
    type Error = Infallible;
    fn strand(&self, author: AuthorId, strand: StrandId) -> Result<Option<StrandEnd>, Infallible> {
        Ok(self.0.strands.get(&(self.1, author, strand)).copied())
    }
    fn wrap(&self, wrap: WrapId) -> Result<Option<WrapFact>, Infallible> {
        Ok(self.0.wraps.get(&(self.1, wrap)).copied())
    }
    fn has_event(&self, id: EheId) -> Result<bool, Infallible> {
        Ok(self.0.events.contains(&id))
    }
}

impl Shard {
    pub(crate) fn new(alliance: AllianceId) -> Self {
        Self {
            alliance,
            rooms: BTreeMap::new(),
            strands: BTreeMap::new(),
            wraps: BTreeMap::new(),
            events: BTreeSet::new(),
            nonces: BTreeSet::new(),
            entries: Vec::new(),
        }
    }

    pub(crate) fn submit(&mut self, at: UnixMs, bytes: &[u8]) -> Outcome {
        let Ok(submission) = cbor::from_slice::<Submission>(bytes, limits::SUBMISSION_MAX_BYTES) else {
            return Outcome::Refused(Refusal::FrameMalformed);
        };
        match self.judge(at, submission) {
            Ok(()) => Outcome::Accepted,
            Err(Refused::Known(ids)) => Outcome::Known(ids),
            Err(Refused::Because(why)) => Outcome::Refused(why),
        }
    }

    fn judge(&mut self, at: UnixMs, submission: Submission) -> Result<(), Refused> {
        let run = submission.run.decode().map_err(|_| Refusal::RunMalformed)?;
        let events: Result<Vec<_>, _> = submission.events.into_iter().map(|event| event.check()).collect();
        let events = events.map_err(|_| Refusal::EventMalformed)?;
        let id = run.claims().room;
        let room = self.rooms.get(&id);
        let key = author_key(room, run.claims(), &events)?;
        let run = run.verify(&key).map_err(|_| Refusal::BadSignature)?;
        let admission = admit(self.alliance, room, &run, &events, &OfRoom(self, id), at).unwrap()?;
        if let Some(room) = admission.room {
            self.rooms.insert(id, room);
        }
        self.strands.insert((id, run.run().author, admission.strand.strand), admission.strand);
        self.wraps.extend(admission.wraps.into_iter().map(|(wrap, fact)| ((id, wrap), fact)));
        self.events.extend(run.run().ids.iter().copied());
        let control = self.rooms[&id].next_control;
        self.entries.push(Entry { at, run: submission.run, events, control });
        Ok(())
    }

    pub(crate) fn read(&mut self, at: UnixMs, request: Vec<u8>, reader: &PublicIdentity) -> Outcome {
        self.decided(at, request, reader).map_or_else(Outcome::Refused, |()| Outcome::Granted)
    }

    fn decided(&mut self, at: UnixMs, request: Vec<u8>, reader: &PublicIdentity) -> Result<(), Refusal> {
        let request = SignedRequest(request).decode().map_err(|_| Refusal::RequestMalformed)?;
        let request = request.verify_as(reader).map_err(|_| Refusal::BadSignature)?;
        let room = self.rooms.get(&request.room).ok_or(Refusal::RoomUnknown)?;
        if at.since(request.made_at).max(request.made_at.since(at)) > limits::REQUEST_SKEW_MAX_MS {
            return Err(Refusal::RequestStale);
        }
        let nonce = (request.made_at, request.reader, request.nonce);
        if self.nonces.contains(&nonce) {
            return Err(Refusal::RequestRepeated);
        }
        let granted = decide(self.alliance, room, &request, at)?;
        if granted.needs_audit() {
            self.nonces.insert(nonce);
        }
        Ok(())
    }

    fn step(&mut self, step: &Value) -> Outcome {
        let at = UnixMs(step.number("at"));
        match step.get("submit") {
            Some(bytes) => self.submit(at, &unhex(bytes.as_str().unwrap())),
            None => {
                let reader: PublicIdentity = cbor::from_slice(&step.bytes("reader"), limits::FRAME_MAX_BYTES).unwrap();
                self.read(at, step.bytes("read"), &reader)
            }
        }
    }

    /// The state of the one room, or none.
    pub(crate) fn state(&self) -> Value {
        let Some((id, room)) = self.rooms.iter().next() else { return Value::Null };
        let epochs: Vec<Value> = room
            .epochs
            .iter()
            .map(|(id, e)| json!({"epoch": id.to_string(), "superseded_by": e.superseded_by.map(|e| e.to_string())}))
            .collect();
        let grants: Vec<Value> = room
            .grants
            .iter()
            .map(|(id, g)| {
                json!({
                    "grant": id.to_string(),
                    "subject": g.subject.to_string(),
                    "right": if g.right == Right::Read { "read" } else { "append" },
                    "epochs": g.epochs.iter().map(|e| e.to_string()).collect::<Vec<_>>(),
                    "revoked": g.ended.is_some(),
                })
            })
            .collect();
        let owner_keys: Vec<Value> = room
            .owner_keys
            .iter()
            .map(|key| json!({"id": key.id.to_string(), "from": key.from, "distrusted_from": key.distrusted_from}))
            .collect();
        let rights = [(Rights::GRANT, 1), (Rights::REVOKE, 2), (Rights::EPOCH, 4)];
        let delegations: Vec<Value> = room
            .delegations
            .iter()
            .map(|(delegate, delegation)| {
                let held = rights.iter().filter(|(right, _)| delegation.rights.hold(*right));
                json!({
                    "delegate": delegate.to_string(),
                    "rights": held.map(|(_, bit)| bit).sum::<u64>(),
                    "ended": delegation.ended.is_some(),
                })
            })
            .collect();
        json!({
            "room": id.to_string(),
            "owner": room.owner.to_string(),
            "owner_keys": owner_keys,
            "recovery": room.recovery.to_string(),
            "delegations": delegations,
            "next_control": room.next_control,
            "last_control": room.last_control.to_string(),
            "epochs": epochs,
            "grants": grants,
        })
    }

    pub(crate) fn may(&self, ask: &Value) -> Value {
        let Some(room) = self.rooms.values().next() else { return json!(Refusal::RoomUnknown.code()) };
        let right = match ask.text("may") {
            "read" => Right::Read,
            "append" => Right::Append,
            other => panic!("no right {other}"),
        };
        let hour = Hour(u32::try_from(ask.number("hour")).unwrap());
        let (author, epoch) = (AuthorId(ask.fixed("author")), EpochId(ask.fixed("epoch")));
        match room.may(author, right, epoch, Some(hour), UnixMs(ask.number("at"))) {
            Ok(()) => json!("yes"),
            Err(why) => json!(why.code()),
        }
    }
}

/// Applies all steps; the verdict is the last one's.
pub(super) fn ledger(input: &Value, facts: &mut Facts) -> Result<(), Fault> {
    let mut shard = Shard::new(AllianceId(input.fixed("alliance")));
    let outcomes: Vec<Outcome> = input.list("steps").iter().map(|step| shard.step(step)).collect();
    facts.insert("outcomes".into(), json!(outcomes.iter().map(Outcome::json).collect::<Vec<_>>()));
    facts.insert("state".into(), shard.state());
    let ends: Vec<Value> = shard
        .strands
        .iter()
        .map(|((_, author, _), end)| {
            let mut json = end_json(end);
            json["author"] = json!(author.to_string());
            json
        })
        .collect();
    facts.insert("strands".into(), json!(ends));
    if let Some(asks) = input.get("asks") {
        let answers: Vec<Value> = asks.as_array().unwrap().iter().map(|ask| shard.may(ask)).collect();
        facts.insert("answers".into(), json!(answers));
    }
    match outcomes.last() {
        Some(Outcome::Accepted | Outcome::Granted) => Ok(()),
        Some(Outcome::Refused(why)) => Err(Fault { refusal: Some(why.code()), why: why.to_string() }),
        Some(Outcome::Known(_)) => Err(Fault::new("known")),
        None => panic!("a ledger without steps"),
    }
}

/// What was followed: what each entry held, and how many control events the room had before and after it.
pub(super) struct Followed {
    pub(super) room: RoomState,
    pub(super) entries: Vec<(Verified, u64, u64)>,
}

/// The items' bytes: a list of byte strings, or one that is the encoding of an array of them, where a thousand are alike.
fn items(input: &Value) -> Vec<Vec<u8>> {
    match &input["items"] {
        Value::String(packed) => match Cbor::parse(&unhex(packed)) {
            Cbor::Array(items) => items.into_iter().map(|mut item| std::mem::take(item.bytes())).collect(),
            other => panic!("items that are no array: {other:?}"),
        },
        _ => input.list("items").iter().map(|item| unhex(item.as_str().unwrap())).collect(),
    }
}

/// Follows a room from what a node served, and ties it to the head.
pub(super) fn follow(input: &Value, facts: &mut Facts) -> Result<Followed, Fault> {
    let room = RoomId(input.fixed("room"));
    let head: Head = cbor::from_slice(&input.bytes("head"), limits::FRAME_MAX_BYTES)?;
    let shard = |newest: &VerifiedCharter| room.shard(newest.shard_count());
    let (charter, _) = charter_at_hand(input, shard, &head.last.checkpoint)?;
    let mut follower = Follower::new(room, input["whole"].as_bool().unwrap());
    let refused = |why: LedgerError| {
        let refusal = match &why {
            LedgerError::Rules { why, .. } => Some(why.code()),
            _ => None,
        };
        Fault { refusal, why: why.to_string() }
    };
    let mut entries = Vec::new();
    for item in items(input) {
        let item: Item = cbor::from_slice(&item, limits::FRAME_MAX_BYTES)?;
        let (before, after) = (follower.room().map_or(0, |room| room.next_control), item.leaf.control);
        let taken = follower.take(item, charter.alliance_id());
        facts.insert("verified".into(), json!(follower.next()));
        entries.push((taken.map_err(refused)?, before, after));
    }
    let known = input.get("known").and_then(Value::as_u64);
    let checkpoint = follower.confirm(&head, Nonce(input.fixed("nonce")), known, &charter).map_err(refused)?;
    facts.insert("size".into(), json!(checkpoint.checkpoint().size));
    let room = follower.room().unwrap().clone();
    facts.insert("next_control".into(), json!(room.next_control));
    let (mut distrusted, mut reads, mut unknown) = (Vec::new(), Vec::new(), Vec::new());
    let of_void = |(entry, ..): &(Verified, u64, u64)| match entry {
        Verified::Void { index, .. } => Some(json!(index)),
        _ => None,
    };
    let void: Vec<_> = entries.iter().filter_map(of_void).collect();
    if !void.is_empty() {
        facts.insert("void".into(), json!(void));
    }
    for (index, (entry, before, after)) in entries.iter().enumerate() {
        if let Verified::Run { unknown: of_run, .. } = entry {
            unknown.extend(of_run.iter().map(|id| json!(id.to_string())));
        }
        match entry {
            Verified::Access(record) => {
                let reader = record.request.decode()?.claims().reader;
                if room.distrusts_read(reader, record.refused, *after) {
                    reads.push(json!(index));
                }
            }
            Verified::Run { run, .. } if run.author == room.owner && room.distrusts(*before, *after) => {
                distrusted.extend(run.ids.iter().map(|id| json!(id.to_string())));
            }
            _ => {}
        }
    }
    facts.insert("distrusted".into(), json!(distrusted));
    facts.insert("distrusted_reads".into(), json!(reads));
    if !unknown.is_empty() {
        facts.insert("unknown".into(), json!(unknown));
    }
    Ok(Followed { room, entries })
}
