//! What must hold, each with a name.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fmt;

use ehe::id::{AuthorId, EheId, Hash, NodeId, Nonce, RoomId};
use ehe::time::UnixMs;
use serde::Serialize;

use super::history::{Entry, Finals, History, Outcome, Read, Right, Room};

/// Bounds that are a matter of agreement.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// The ledger's time of a run may lie so far outside of the time between sending it and its receipt.
    pub clock_ms: u64,
}

impl Default for Limits {
    /// What cosigners allow a leader's clock (60 s), and a second.
    fn default() -> Self {
        Self { clock_ms: 61_000 }
    }
}

/// A promise that was broken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[allow(missing_docs, reason = "the fields are named, and the text says what they are")]
pub enum Violation {
    /// A receipt was given, and the run is not in a replica's ledger.
    Lost { node: NodeId, room: RoomId, run: Hash, index: u64 },
    /// The run stands at another place than its receipt says.
    Moved { node: NodeId, room: RoomId, run: Hash, said: u64, found: u64 },
    /// An event stands in a ledger twice.
    Doubled { node: NodeId, room: RoomId, event: EheId },
    /// An author's events stand in another order than the author gave them, or with a gap.
    Disordered { node: NodeId, room: RoomId, author: AuthorId, index: u64 },
    /// A ledger has content that nobody of the writers sent.
    Invented { node: NodeId, room: RoomId, run: Hash },
    /// A run was taken that its author has not signed.
    Forged { room: RoomId, run: Hash },
    /// A replica shows a room that does not verify, or does not show it.
    Unsound { node: NodeId, room: RoomId, why: String },
    /// Two replicas show different ledgers of a room.
    Differs { room: RoomId, one: NodeId, other: NodeId },
    /// Two checkpoints of one size have different roots.
    TwoRoots { origin: String, size: u64 },
    /// A node found that another one cosigned a log that contradicts its own.
    TwoBranches { found_by: NodeId, count: u64 },
    /// Content was served after the revocation of the right to it.
    ServedAfterRevocation { room: RoomId, reader: AuthorId, nonce: Nonce, revoked_at: u64 },
    /// Content was served, and no granted access record is in the ledger.
    NotAudited { node: NodeId, room: RoomId, reader: AuthorId, nonce: Nonce },
    /// Content was served before its access record was in what a quorum had cosigned.
    AuditedLate { room: RoomId, reader: AuthorId, nonce: Nonce, record: u64, head: u64 },
    /// The ledger's time is not the time.
    ClockLied { room: RoomId, run: Hash, accepted_at: UnixMs, sent_at: UnixMs, got_at: UnixMs },
    /// A gateway still holds what it was to hand in.
    StillSpooled { gateway: String, bytes: u64 },
    /// Something did not come back after a fault was healed.
    Unhealed { what: String },
    /// A client saw at once that something was wrong.
    Wrong { who: String, what: String },
    /// A history in which nothing happened proves nothing.
    Idle { what: &'static str },
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lost { node, room, run, index } => {
                write!(f, "lost: node {node} has no run {run} in room {room}, whose receipt says place {index}")
            }
            Self::Moved { node, room, run, said, found } => {
                write!(f, "moved: node {node} has run {run} of room {room} at {found}; its receipt says {said}")
            }
            Self::Doubled { node, room, event } => {
                write!(f, "doubled: node {node} has event {event} in room {room} twice")
            }
            Self::Disordered { node, room, author, index } => {
                write!(f, "disordered: node {node}, room {room}: entry {index} does not follow {author}'s strand")
            }
            Self::Invented { node, room, run } => {
                write!(f, "invented: node {node} has run {run} in room {room}, which nobody sent")
            }
            Self::Forged { room, run } => {
                write!(f, "forged: run {run} was taken in room {room}, with a false signature")
            }
            Self::Unsound { node, room, why } => write!(f, "unsound: node {node}, room {room}: {why}"),
            Self::Differs { room, one, other } => {
                write!(f, "differs: nodes {one} and {other} show different ledgers of room {room}")
            }
            Self::TwoRoots { origin, size } => write!(f, "two roots: of {origin} at size {size}"),
            Self::TwoBranches { found_by, count } => {
                write!(f, "two branches: node {found_by} found {count} logs of others that contradict its own")
            }
            Self::ServedAfterRevocation { room, reader, nonce, revoked_at } => write!(
                f,
                "served after revocation: {reader} had content of room {room} (request {nonce}) after entry {revoked_at} \
                 ended the right"
            ),
            Self::NotAudited { node, room, reader, nonce } => write!(
                f,
                "not audited: {reader} had content of room {room} (request {nonce}), and node {node} has no record of it"
            ),
            Self::AuditedLate { room, reader, nonce, record, head } => write!(
                f,
                "audited late: {reader} had content of room {room} (request {nonce}) as of entry {head}, and its record is \
                 entry {record}"
            ),
            Self::ClockLied { room, run, accepted_at, sent_at, got_at } => write!(
                f,
                "clock lied: run {run} of room {room} was sent at {}, confirmed at {}, and the ledger says {}",
                sent_at.0, got_at.0, accepted_at.0
            ),
            Self::StillSpooled { gateway, bytes } => write!(f, "still spooled: {bytes} bytes at gateway {gateway}"),
            Self::Unhealed { what } => write!(f, "unhealed: {what}"),
            Self::Wrong { who, what } => write!(f, "wrong: {who}: {what}"),
            Self::Idle { what } => write!(f, "idle: {what}"),
        }
    }
}

/// Judges a history by what the replicas show at its end.
pub fn judge(history: &History, finals: &Finals, limits: Limits) -> Vec<Violation> {
    let mut found = Vec::new();
    for (what, nothing) in
        [("no receipt was given", history.received.is_empty()), ("no replica was asked", finals.replicas.is_empty())]
    {
        if nothing {
            found.push(Violation::Idle { what });
        }
    }
    found.extend(history.wrong.iter().map(|w| Violation::Wrong { who: w.who.clone(), what: w.what.clone() }));
    found.extend(finals.unhealed.iter().map(|what| Violation::Unhealed { what: what.clone() }));
    let spooled = finals.spooled.iter().filter(|(_, bytes)| **bytes > 0);
    found.extend(spooled.map(|(gateway, bytes)| Violation::StillSpooled { gateway: gateway.clone(), bytes: *bytes }));
    receipts(history, limits, &mut found);
    roots(history, finals, &mut found);
    for node in finals.replicas.keys() {
        ledgers(*node, history, finals, &mut found);
    }
    replicas(finals, &mut found);
    reads(history, finals, &mut found);
    found
}

fn receipts(history: &History, limits: Limits, found: &mut Vec<Violation>) {
    let forged: HashSet<Hash> = history.sent.iter().filter(|sent| !sent.genuine).map(|sent| sent.run).collect();
    for it in &history.received {
        if forged.contains(&it.run) {
            found.push(Violation::Forged { room: it.room, run: it.run });
        }
        let (earliest, latest) = (it.sent_at.0.saturating_sub(limits.clock_ms), it.got_at.0 + limits.clock_ms);
        if !(earliest..=latest).contains(&it.accepted_at.0) {
            let (room, run, accepted_at) = (it.room, it.run, it.accepted_at);
            found.push(Violation::ClockLied { room, run, accepted_at, sent_at: it.sent_at, got_at: it.got_at });
        }
    }
}

fn roots(history: &History, finals: &Finals, found: &mut Vec<Violation>) {
    let mut known: BTreeMap<(&str, u64), Hash> = BTreeMap::new();
    let mut two = BTreeSet::new();
    for shown in history.shown.iter().chain(finals.replicas.values().flat_map(|replica| &replica.shown)) {
        let place = (shown.origin.as_str(), shown.size);
        if *known.entry(place).or_insert(shown.root) != shown.root {
            two.insert(place);
        }
    }
    found.extend(two.into_iter().map(|(origin, size)| Violation::TwoRoots { origin: origin.into(), size }));
    for (node, replica) in finals.replicas.iter().filter(|(_, replica)| replica.evidence > 0) {
        found.push(Violation::TwoBranches { found_by: *node, count: replica.evidence });
    }
}

/// Every receipt's run is in this replica's ledger, at its place, once, in its strand's order; and nothing else is.
fn ledgers(node: NodeId, history: &History, finals: &Finals, found: &mut Vec<Violation>) {
    let Some(replica) = finals.replicas.get(&node) else { return };
    let sent: HashSet<Hash> = history.sent.iter().filter(|sent| sent.genuine).map(|sent| sent.run).collect();
    let mut places: HashMap<(RoomId, Hash), u64> = HashMap::new();
    for (id, room) in &replica.rooms {
        let room = match room {
            Ok(room) => room,
            Err(why) => {
                found.push(Violation::Unsound { node, room: *id, why: why.clone() });
                continue;
            }
        };
        let (mut events_seen, mut strands) = (HashSet::new(), HashMap::new());
        for (index, (entry, _)) in (0..).zip(&room.entries) {
            let Entry::Run { run, author, strand, from, events, content } = entry else { continue };
            places.insert((*id, *run), index);
            for event in events.iter().filter(|event| !events_seen.insert(**event)) {
                found.push(Violation::Doubled { node, room: *id, event: *event });
            }
            let next = strands.entry((*author, *strand)).or_insert(0);
            if *next != *from {
                found.push(Violation::Disordered { node, room: *id, author: *author, index });
            }
            *next = from + u64::try_from(events.len()).unwrap_or(u64::MAX);
            if *content && finals.own.contains(id) && !sent.contains(run) {
                found.push(Violation::Invented { node, room: *id, run: *run });
            }
        }
    }
    for Received { room, run, index } in history.received.iter().map(Received::of) {
        match places.get(&(room, run)) {
            Some(place) if *place == index => {}
            Some(place) => found.push(Violation::Moved { node, room, run, said: index, found: *place }),
            // A room that cannot be judged is told already.
            None if matches!(replica.rooms.get(&room), Some(Err(_))) => {}
            None => found.push(Violation::Lost { node, room, run, index }),
        }
    }
}

struct Received {
    room: RoomId,
    run: Hash,
    index: u64,
}

impl Received {
    fn of(received: &super::history::Received) -> Self {
        Self { room: received.room, run: received.run, index: received.index }
    }
}

/// Rooms are fetched one node after the other, and each fetch by the patient may leave a record: the shorter one is the beginning of
/// the longer one.
fn replicas(finals: &Finals, found: &mut Vec<Violation>) {
    let mut first: BTreeMap<RoomId, (NodeId, &Room)> = BTreeMap::new();
    for (node, replica) in &finals.replicas {
        for (id, room) in replica.rooms.iter().filter_map(|(id, room)| Some((id, room.as_ref().ok()?))) {
            let (one, known) = *first.entry(*id).or_insert((*node, room));
            let same = known.entries.iter().zip(&room.entries).all(|(a, b)| a == b);
            let ends = known.entries.len() != room.entries.len() || known.last == room.last;
            if !(same && ends) {
                found.push(Violation::Differs { room: *id, one, other: *node });
            }
            if room.entries.len() > known.entries.len() {
                first.insert(*id, (*node, room));
            }
        }
    }
}

fn reads(history: &History, finals: &Finals, found: &mut Vec<Violation>) {
    let mut rights: HashMap<(RoomId, AuthorId), Vec<&Right>> = HashMap::new();
    for right in &history.rights {
        rights.entry((right.room, right.reader)).or_default().push(right);
    }
    for rights in rights.values_mut() {
        rights.sort_by_key(|right| right.index);
    }
    let mut records: HashMap<(RoomId, AuthorId, Nonce), u64> = HashMap::new();
    let mut has: HashMap<NodeId, HashSet<(RoomId, AuthorId, Nonce)>> = HashMap::new();
    for (node, replica) in &finals.replicas {
        let own = has.entry(*node).or_default();
        for (id, room) in replica.rooms.iter().filter_map(|(id, room)| Some((id, room.as_ref().ok()?))) {
            for (index, (entry, _)) in (0..).zip(&room.entries) {
                if let Entry::Access { reader, nonce, refused: false } = entry {
                    records.insert((*id, *reader, *nonce), index);
                    own.insert((*id, *reader, *nonce));
                }
            }
        }
    }
    for read in &history.reads {
        let Outcome::Served { last, head, .. } = read.outcome else { continue };
        let (room, reader, nonce) = (read.room, read.reader, read.nonce);
        let key = (room, reader, nonce);
        for (node, own) in &has {
            let shown = finals.replicas.get(node).and_then(|replica| replica.rooms.get(&room));
            if matches!(shown, Some(Ok(_))) && !own.contains(&key) {
                found.push(Violation::NotAudited { node: *node, room, reader, nonce });
            }
        }
        let record = records.get(&key).copied();
        if let (Some(record), Some(head)) = (record, head.filter(|head| record.is_some_and(|record| record > *head))) {
            found.push(Violation::AuditedLate { room, reader, nonce, record, head });
        }
        let rights = rights.get(&(room, reader)).map_or(&[][..], Vec::as_slice);
        if let Some(revoked_at) = revoked(read, record, last, rights) {
            found.push(Violation::ServedAfterRevocation { room, reader, nonce, revoked_at });
        }
    }
}

/// The revocation that forbids what was served, if one does.
fn revoked(read: &Read, record: Option<u64>, last: u64, rights: &[&Right]) -> Option<u64> {
    let before = |index: u64| rights.iter().rfind(|right| right.index < index);
    // By the ledger's order: the moment of the decision is the record's place; what lies behind a revocation is not for who was
    // in before it, unless a new right came in between.
    let by_order = record.and_then(|record| {
        let decided = before(record).filter(|right| !right.granted);
        let delivered = before(last).filter(|right| !right.granted && right.index > record);
        decided.or(delivered).map(|right| right.index)
    });
    // By the clock, whatever the ledger says: the request was sent after a revocation's receipt came, and no new right was even
    // asked for before its answer ended.
    let by_clock = || {
        let over = rights.iter().rfind(|right| right.got_ms < read.sent_ms)?;
        let again =
            rights.iter().any(|right| right.granted && right.index > over.index && right.sent_ms <= read.ended_ms);
        (!over.granted && !again).then_some(over.index)
    };
    by_order.or_else(by_clock)
}
