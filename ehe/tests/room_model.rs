//! The room's rules against a model that is written another way: it keeps nothing but the list of what was accepted, and answers
//! each question by going through that list. Nobody ever reads or appends what no live grant covers; whoever is covered is never
//! refused; and a control event is accepted exactly where the model would accept it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::sync::LazyLock;

use ehe::author::Strand;
use ehe::control::{
    Authority, Change, Control, ControlLink, Ending, EpochRecord, Grant, Revoke, Right, Rights, RoomCreate, possession,
};
use ehe::event::CheckedEvent;
use ehe::id::{AllianceId, AuthorId, EheId, EpochId, Hash, Nonce, RoomId, StrandId, WrapId};
use ehe::identity::Identity;
use ehe::kem::KemSecret;
use ehe::read::{Part, Purpose, ReadRequest, Scope};
use ehe::room::{Ledger, Refused, RoomState, WrapFact, admit, author_key, decide};
use ehe::run::StrandEnd;
use ehe::time::{Hour, UnixMs};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use rand::SeedableRng;
use rand::rngs::StdRng;

const ALLIANCE: AllianceId = AllianceId([0xaa; 32]);
/// Stands for an epoch or grant that the room does not have; smaller numbers are taken round and round.
const UNKNOWN: usize = 40;
const HOUR_MS: u64 = 3_600_000;
const START: u64 = 480_000 * HOUR_MS;

/// Who may appear: the owner's four key pairs in turn, the recovery identities in turn, and four others.
struct Cast {
    owners: Vec<Identity>,
    recoveries: Vec<Identity>,
    others: Vec<Identity>,
    group: KemSecret,
}

static CAST: LazyLock<Cast> = LazyLock::new(|| {
    let mut rng = StdRng::seed_from_u64(4);
    let mut some = |count| (0..count).map(|_| Identity::generate(&mut rng)).collect::<Vec<_>>();
    let (owners, recoveries, others) = (some(4), some(3), some(4));
    Cast { owners, recoveries, others, group: KemSecret::generate(&mut rng) }
});

/// Somebody who acts, as the test's steps name them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Who {
    Owner,
    /// The owner with the keys of before the last rotation: a thief.
    Former,
    Recovery,
    Other(usize),
}

/// Hours from the start, and relations to now, small enough that they meet.
#[derive(Debug, Clone)]
enum Step {
    Wait {
        minutes: u64,
    },
    Epoch {
        by: Who,
        after: Option<usize>,
        continues: Vec<usize>,
    },
    Grant {
        by: Who,
        to: usize,
        right: Right,
        epochs: Vec<usize>,
        from: Option<u32>,
        until: Option<u32>,
        lives_h: Option<u64>,
    },
    Revoke {
        by: Who,
        grant: usize,
        drain_h: Option<u64>,
    },
    Delegate {
        by: Who,
        to: usize,
        rights: u8,
        lives_h: Option<u64>,
    },
    Withdraw {
        by: Who,
        from: usize,
    },
    Rotate {
        by: Who,
    },
    Recover {
        by: Who,
        distrust: Option<u64>,
    },
}

fn who() -> impl Strategy<Value = Who> {
    prop_oneof![
        8 => Just(Who::Owner),
        1 => Just(Who::Former),
        1 => Just(Who::Recovery),
        4 => (0usize..4).prop_map(Who::Other),
    ]
}

fn hour() -> impl Strategy<Value = Option<u32>> {
    prop_oneof![2 => Just(None), 3 => (0u32..30).prop_map(Some)]
}

fn lives() -> impl Strategy<Value = Option<u64>> {
    prop_oneof![1 => Just(None), 1 => (1u64..30).prop_map(Some)]
}

fn right() -> impl Strategy<Value = Right> {
    prop_oneof![Just(Right::Read), Just(Right::Append)]
}

fn one() -> impl Strategy<Value = usize> {
    prop_oneof![20 => 0..UNKNOWN, 1 => Just(UNKNOWN)]
}

fn some(most: usize) -> impl Strategy<Value = Vec<usize>> {
    proptest::collection::vec(one(), 0..=most)
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (1u64..300).prop_map(|minutes| Step::Wait { minutes }),
        3 => (who(), proptest::option::weighted(0.7, one()), some(2))
            .prop_map(|(by, after, continues)| Step::Epoch { by, after, continues }),
        6 => (who(), 0usize..4, right(), some(3), hour(), hour(), lives()).prop_map(
            |(by, to, right, epochs, from, until, lives_h)| Step::Grant { by, to, right, epochs, from, until, lives_h }
        ),
        3 => (who(), one(), lives()).prop_map(|(by, grant, drain_h)| Step::Revoke { by, grant, drain_h }),
        2 => (who(), 0usize..4, 0u8..9, lives())
            .prop_map(|(by, to, rights, lives_h)| Step::Delegate { by, to, rights, lives_h }),
        1 => (who(), 0usize..4).prop_map(|(by, from)| Step::Withdraw { by, from }),
        1 => who().prop_map(|by| Step::Rotate { by }),
        1 => (prop_oneof![4 => Just(Who::Recovery), 1 => who()], proptest::option::of(0u64..12))
            .prop_map(|(by, distrust)| Step::Recover { by, distrust }),
    ]
}

// ---- the model: a list of facts, newest last

#[derive(Debug, Clone)]
enum Fact {
    Created,
    Epoch {
        id: EpochId,
        after: Option<EpochId>,
        continues: Vec<EheId>,
    },
    Grant {
        id: EheId,
        to: usize,
        right: Right,
        epochs: Vec<EpochId>,
        from: Option<u32>,
        until: Option<u32>,
        expires: Option<u64>,
    },
    Revoked {
        grant: EheId,
        ending: Ending,
    },
    Delegated {
        to: usize,
        rights: u8,
        expires: Option<u64>,
    },
    Withdrawn {
        from: usize,
    },
    Rotated,
    Recovered {
        distrust: Option<u64>,
    },
}

/// Facts with the ledger's time at which each was accepted; the place in the list is the control sequence number.
#[derive(Debug, Default)]
struct Model {
    facts: Vec<(u64, Fact)>,
}

impl Model {
    fn epochs(&self) -> Vec<EpochId> {
        let id = |fact: &Fact| if let Fact::Epoch { id, .. } = fact { Some(*id) } else { None };
        self.facts.iter().filter_map(|(_, fact)| id(fact)).collect()
    }

    fn grants(&self) -> Vec<EheId> {
        let id = |fact: &Fact| if let Fact::Grant { id, .. } = fact { Some(*id) } else { None };
        self.facts.iter().filter_map(|(_, fact)| id(fact)).collect()
    }

    /// Whether a later recovery distrusts the control event at this place.
    fn distrusted(&self, place: usize) -> bool {
        self.facts.iter().skip(place).any(|(_, fact)| {
            matches!(fact, Fact::Recovered { distrust: Some(from) } if *from <= u64::try_from(place).unwrap())
        })
    }

    fn covers(&self, grant: EheId, epoch: EpochId) -> bool {
        self.facts.iter().any(|(_, fact)| match fact {
            Fact::Grant { id, epochs, .. } => *id == grant && epochs.contains(&epoch),
            Fact::Epoch { id, continues, .. } => *id == epoch && continues.contains(&grant),
            _ => false,
        })
    }

    /// First time and last word of the revocations of a grant.
    fn revoked(&self, grant: EheId) -> Option<(u64, Ending)> {
        let of = |fact: &Fact| match fact {
            Fact::Revoked { grant: g, ending } if *g == grant => Some(*ending),
            _ => None,
        };
        let mut all = self.facts.iter().filter_map(|(at, fact)| Some((*at, of(fact)?)));
        let first = all.next()?;
        Some((first.0, all.next_back().unwrap_or(first).1))
    }

    /// Whether some grant of this right lets somebody do something to readings of an hour of an epoch, now.
    fn may(&self, other: usize, right: Right, epoch: EpochId, hour: u32, now: u64) -> bool {
        self.epochs().contains(&epoch)
            && self.facts.iter().enumerate().any(|(place, (_, fact))| {
                let Fact::Grant { id, to, right: r, from, until, expires, .. } = fact else { return false };
                let within =
                    from.is_none_or(|f| f <= hour) && until.is_none_or(|u| hour < u) && expires.is_none_or(|e| now < e);
                let ended = match self.revoked(*id) {
                    None => false,
                    Some((at, Ending::DrainUntil(end))) => {
                        !(right == Right::Append && now <= end.0 && u64::from(hour) <= at / HOUR_MS)
                    }
                    Some((_, Ending::Cut)) => true,
                };
                *to == other && *r == right && within && !ended && !self.distrusted(place) && self.covers(*id, epoch)
            })
    }

    /// One grant for all hours of the request.
    fn may_read(&self, other: usize, epoch: EpochId, from: u32, until: u32, now: u64) -> bool {
        self.epochs().contains(&epoch)
            && self.facts.iter().enumerate().any(|(place, (_, fact))| {
                let Fact::Grant { id, to, right: Right::Read, from: f, until: u, expires, .. } = fact else {
                    return false;
                };
                *to == other
                    && f.is_none_or(|f| f <= from)
                    && u.is_none_or(|u| until <= u)
                    && expires.is_none_or(|e| now < e)
                    && self.revoked(*id).is_none()
                    && !self.distrusted(place)
                    && self.covers(*id, epoch)
            })
    }

    /// Whether somebody holds a right of the owner's: by the newest word about them.
    fn delegated(&self, other: usize, right: u8, now: u64) -> bool {
        let word = self.facts.iter().enumerate().rev().find_map(|(place, (_, fact))| match fact {
            Fact::Delegated { to, rights, expires } if *to == other => Some((place, *rights, *expires, false)),
            Fact::Withdrawn { from } if *from == other => Some((place, 0, None, true)),
            _ => None,
        });
        word.is_some_and(|(place, rights, expires, withdrawn)| {
            !withdrawn && rights & right != 0 && expires.is_none_or(|e| now < e) && !self.distrusted(place)
        })
    }

    /// Whether there is a delegation that can be withdrawn: expired ones can.
    fn withdrawable(&self, other: usize) -> bool {
        let word = self.facts.iter().enumerate().rev().find_map(|(place, (_, fact))| match fact {
            Fact::Delegated { to, .. } if *to == other => Some((place, true)),
            Fact::Withdrawn { from } if *from == other => Some((place, false)),
            _ => None,
        });
        word.is_some_and(|(place, made)| made && !self.distrusted(place))
    }

    fn key_changes(&self) -> usize {
        self.facts.iter().filter(|(_, fact)| matches!(fact, Fact::Rotated | Fact::Recovered { .. })).count()
    }

    fn recoveries(&self) -> usize {
        self.facts.iter().filter(|(_, fact)| matches!(fact, Fact::Recovered { .. })).count()
    }

    /// Whether the event may be accepted from this author.
    fn accepts(&self, by: Who, fact: &Fact, now: u64) -> bool {
        let for_owner = |right| match by {
            Who::Owner => true,
            Who::Other(other) => self.delegated(other, right, now),
            Who::Former | Who::Recovery => false,
        };
        match fact {
            Fact::Created => false,
            Fact::Epoch { id, after, continues } => {
                let superseded = |epoch: &EpochId| {
                    self.facts.iter().any(|(_, f)| matches!(f, Fact::Epoch { after: Some(a), .. } if a == epoch))
                };
                let goes_on = |grant: &EheId| {
                    let place = self.facts.iter().position(|(_, f)| matches!(f, Fact::Grant { id, .. } if id == grant));
                    self.revoked(*grant).is_none()
                        && place.is_some_and(|place| !self.distrusted(place))
                        && after.is_some_and(|after| self.covers(*grant, after))
                };
                for_owner(4)
                    && !self.epochs().contains(id)
                    && after.is_none_or(|after| self.epochs().contains(&after) && !superseded(&after))
                    && continues.iter().all(goes_on)
            }
            Fact::Grant { right, epochs, from, until, expires, .. } => {
                let own = |epoch: &EpochId| match by {
                    Who::Other(other) if *right == Right::Read => {
                        // Every hour of the new grant is the delegate's own to read, for as long.
                        let (first, end) = (from.unwrap_or(0), until.unwrap_or(u32::MAX));
                        self.facts.iter().enumerate().any(|(place, (_, fact))| {
                            let Fact::Grant { id, to, right: Right::Read, from, until, expires: e, .. } = fact else {
                                return false;
                            };
                            *to == other
                                && from.unwrap_or(0) <= first
                                && end <= until.unwrap_or(u32::MAX)
                                && e.is_none_or(|e| now < e && expires.is_some_and(|mine| mine <= e))
                                && self.revoked(*id).is_none()
                                && !self.distrusted(place)
                                && self.covers(*id, *epoch)
                        })
                    }
                    _ => true,
                };
                for_owner(1)
                    && !epochs.is_empty()
                    && epochs.iter().all(|epoch| self.epochs().contains(epoch))
                    && from.is_none_or(|f| until.is_none_or(|u| f < u))
                    && epochs.iter().all(own)
            }
            Fact::Revoked { grant, ending } => {
                let made = self.facts.iter().enumerate().find_map(|(place, (_, f))| match f {
                    Fact::Grant { id, right, .. } if id == grant => Some((*right, self.distrusted(place))),
                    _ => None,
                });
                let Some((right, distrusted)) = made else { return false };
                let before = if distrusted { Some(Ending::Cut) } else { self.revoked(*grant).map(|(_, e)| e) };
                let fits = match (ending, before) {
                    (Ending::Cut, _) => true,
                    (Ending::DrainUntil(_), None) => right == Right::Append,
                    (Ending::DrainUntil(_), Some(Ending::Cut)) => false,
                    (Ending::DrainUntil(new), Some(Ending::DrainUntil(old))) => new <= &old && right == Right::Append,
                };
                for_owner(2) && fits
            }
            Fact::Delegated { rights, .. } => by == Who::Owner && (1..=7).contains(rights),
            Fact::Withdrawn { from } => by == Who::Owner && self.withdrawable(*from),
            Fact::Rotated => by == Who::Owner,
            Fact::Recovered { distrust } => {
                by == Who::Recovery
                    && distrust.is_none_or(|from| from > 0 && from <= u64::try_from(self.facts.len()).unwrap())
            }
        }
    }
}

// ---- the rules, driven by the same steps

struct World {
    rng: StdRng,
    id: RoomId,
    room: RoomState,
    model: Model,
    now: u64,
    strand: u64,
}

struct Empty;

impl Ledger for Empty {
    type Error = Infallible;
    fn strand(&self, _: AuthorId, _: StrandId) -> Result<Option<StrandEnd>, Infallible> {
        Ok(None)
    }
    fn wrap(&self, _: WrapId) -> Result<Option<WrapFact>, Infallible> {
        Ok(None)
    }
    fn has_event(&self, _: EheId) -> Result<bool, Infallible> {
        Ok(false)
    }
}

fn submit(
    room: Option<&RoomState>,
    id: RoomId,
    author: &Identity,
    event: CheckedEvent,
    strand: u64,
    now: u64,
) -> Result<RoomState, Refused> {
    let events = [event];
    let run = Strand::new(id, StrandId(strand.to_be_bytes()), None).link_events(author, &events).run.decode().unwrap();
    let key = author_key(room, run.claims(), &events)?;
    let run = run.verify(&key).map_err(|_| ehe::refusal::Refusal::BadSignature)?;
    let admission = admit(ALLIANCE, room, &run, &events, &Empty, UnixMs(now)).unwrap()?;
    Ok(admission.room.expect("a control event changes the room"))
}

impl World {
    fn new(seed: u64) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let owner = &CAST.owners[0];
        let create = RoomCreate {
            alliance: ALLIANCE,
            nonce: Nonce([1; 16]),
            owner: owner.public().clone(),
            recovery: CAST.recoveries[0].public().commitment(),
        };
        let id = create.room_id();
        let event = Control::RoomCreate(create);
        let event = event.event(&mut rng, RoomId::ZERO, owner.author_id(), UnixMs(START), None).unwrap();
        let room = submit(None, id, owner, event, 0, START).unwrap();
        let model = Model { facts: vec![(START, Fact::Created)] };
        let mut world = Self { rng, id, room, model, now: START, strand: 0 };
        // Epochs to grant, and a delegate: most steps then have something to act on.
        for _ in 0..2 {
            world.step(&Step::Epoch { by: Who::Owner, after: None, continues: vec![] });
        }
        world.step(&Step::Delegate { by: Who::Owner, to: 0, rights: 7, lives_h: None });
        let own = Step::Grant {
            by: Who::Owner,
            to: 0,
            right: Right::Read,
            epochs: vec![0, 1],
            from: None,
            until: Some(25),
            lives_h: Some(18),
        };
        world.step(&own);
        world
    }

    fn identity(&self, who: Who) -> Option<Identity> {
        let owner = CAST.owners[0].author_id();
        let changes = self.model.key_changes();
        Some(match who {
            Who::Owner => CAST.owners.get(changes)?.acting_as(owner),
            Who::Former => CAST.owners.get(changes.checked_sub(1)?)?.acting_as(owner),
            Who::Recovery => CAST.recoveries.get(self.model.recoveries())?.clone(),
            Who::Other(other) => CAST.others[other].clone(),
        })
    }

    fn link(&self) -> ControlLink {
        ControlLink { seq: self.room.next_control, previous: self.room.last_control }
    }

    /// Carries a step out in both; they have to agree.
    fn step(&mut self, step: &Step) {
        let (epochs, grants) = (self.model.epochs(), self.model.grants());
        let unknown_epoch = EpochId([0xee; 16]);
        let epoch = |at: &usize| if *at == UNKNOWN { unknown_epoch } else { epochs[at % epochs.len()] };
        let grant = |at: &usize| {
            if *at == UNKNOWN || grants.is_empty() { EheId([0xdd; 32]) } else { grants[at % grants.len()] }
        };
        let start_hour = u32::try_from(START / HOUR_MS).unwrap();
        let hour = |h: &Option<u32>| h.map(|h| start_hour + h);
        let expires = |h: &Option<u64>| h.map(|h| self.now + h * HOUR_MS);
        let link = self.link();
        let (by, control, mut fact) = match step {
            Step::Wait { minutes } => {
                self.now += minutes * 60_000;
                return;
            }
            Step::Epoch { by, after, continues } => {
                let after = after.as_ref().map(&epoch);
                let continues: Vec<_> = continues.iter().map(&grant).collect::<BTreeSet<_>>().into_iter().collect();
                let mut id = EpochId([0; 16]);
                id.0[..8].copy_from_slice(&(u64::try_from(epochs.len()).unwrap() + 1).to_be_bytes());
                let record = EpochRecord {
                    link,
                    epoch: id,
                    group_key: CAST.group.public(),
                    supersedes: after,
                    continues: continues.clone(),
                    seeds: vec![],
                };
                (*by, Control::Epoch(record), Fact::Epoch { id, after, continues })
            }
            Step::Grant { by, to, right, epochs, from, until, lives_h } => {
                let epochs: Vec<_> = epochs.iter().map(&epoch).collect::<BTreeSet<_>>().into_iter().collect();
                let (from, until, expires) = (hour(from), hour(until), expires(lives_h));
                let grant = Grant {
                    link,
                    subject: CAST.others[*to].public().clone(),
                    right: *right,
                    epochs: epochs.clone(),
                    from: from.map(Hour),
                    until: until.map(Hour),
                    expires: expires.map(UnixMs),
                    seeds: vec![],
                };
                let id = EheId([0; 32]);
                (*by, Control::Grant(grant), Fact::Grant { id, to: *to, right: *right, epochs, from, until, expires })
            }
            Step::Revoke { by, grant: at, drain_h } => {
                let ending = expires(drain_h).map_or(Ending::Cut, |end| Ending::DrainUntil(UnixMs(end)));
                let revoke = Revoke { link, grant: grant(at), ending };
                (*by, Control::Revoke(revoke), Fact::Revoked { grant: grant(at), ending })
            }
            Step::Delegate { by, to, rights, lives_h } => {
                let all = [(1, Rights::GRANT), (2, Rights::REVOKE), (4, Rights::EPOCH)];
                let chosen = all.into_iter().filter(|(bit, _)| rights & bit != 0).map(|(_, right)| right);
                // No rights, or unknown ones, have no value of the type: the encoding tests cover them.
                let Some(set) = chosen.reduce(Rights::and) else { return };
                let expires = expires(lives_h);
                let change = Change::Delegate(CAST.others[*to].public().clone(), set, expires.map(UnixMs));
                let authority = Authority { link, change, seeds: vec![] };
                (*by, Control::Authority(authority), Fact::Delegated { to: *to, rights: rights & 7, expires })
            }
            Step::Withdraw { by, from } => {
                let change = Change::Withdraw(CAST.others[*from].author_id());
                (*by, Control::Authority(Authority { link, change, seeds: vec![] }), Fact::Withdrawn { from: *from })
            }
            Step::Rotate { by } => {
                let Some(keys) = CAST.owners.get(self.model.key_changes() + 1) else { return };
                let change = Change::Rotate(keys.public().clone(), possession(keys, self.id, link));
                (*by, Control::Authority(Authority { link, change, seeds: vec![] }), Fact::Rotated)
            }
            Step::Recover { by, distrust } => {
                let Some(keys) = CAST.owners.get(self.model.key_changes() + 1) else { return };
                let made = self.model.recoveries();
                let Some(recovery) = CAST.recoveries.get(made) else { return };
                let change = Change::Recover {
                    // Whoever else tries calls itself the recovery identity.
                    recovery: self
                        .identity(*by)
                        .filter(|_| matches!(by, Who::Other(_)))
                        .as_ref()
                        .unwrap_or(recovery)
                        .public()
                        .clone(),
                    keys: keys.public().clone(),
                    possession: possession(keys, self.id, link),
                    next: CAST.recoveries.get(made + 1).map_or(Hash::ZERO, |next| next.public().commitment()),
                    distrusted_from: *distrust,
                };
                let fact = Fact::Recovered { distrust: *distrust };
                (*by, Control::Authority(Authority { link, change, seeds: vec![] }), fact)
            }
        };
        let Some(author) = self.identity(by) else { return };
        let event = control.event(&mut self.rng, self.id, author.author_id(), UnixMs(self.now), None).unwrap();
        if let Fact::Grant { id, .. } = &mut fact {
            *id = event.id();
        }
        self.strand += 1;
        let expected = self.model.accepts(by, &fact, self.now);
        let result = submit(Some(&self.room), self.id, &author, event, self.strand, self.now);
        assert_eq!(result.is_ok(), expected, "{by:?} {fact:?}: {:?}\nafter {:#?}", result.err(), self.model.facts);
        if let Ok(room) = result {
            self.room = room;
            self.model.facts.push((self.now, fact));
        }
    }

    fn reads(&self, keys: AuthorId, epoch: EpochId, from: u32, until: u32) -> bool {
        let request = ReadRequest {
            alliance: ALLIANCE,
            room: self.id,
            reader: keys,
            nonce: Nonce::ZERO,
            scope: Scope { part: Part::Content, epochs: vec![epoch], from: Hour(from), until: Hour(until) },
            purpose: Purpose::Treatment,
            actor: None,
            head: None,
            from_index: 0,
            made_at: UnixMs(self.now),
        };
        decide(ALLIANCE, &self.room, &request, UnixMs(self.now)).is_ok()
    }

    /// Asks for everybody, every epoch and many hours: the rules and the model agree on each.
    fn compare(&self) {
        let mut epochs = self.model.epochs();
        let known = epochs.len();
        epochs.push(EpochId([0xee; 16]));
        let start = u32::try_from(START / HOUR_MS).unwrap();
        let now_hour = u32::try_from(self.now / HOUR_MS).unwrap();
        let owner = CAST.owners[0].author_id();
        let changes = self.model.key_changes();
        for (at, epoch) in epochs.iter().enumerate() {
            for (from, until) in [
                (0, u32::MAX),
                (start, start + 1),
                (start + 3, start + 12),
                (start + 10, start + 30),
                (now_hour, now_hour + 1),
            ] {
                for (other, identity) in CAST.others.iter().enumerate() {
                    let read = self.reads(identity.author_id(), *epoch, from, until);
                    let covered = self.model.may_read(other, *epoch, from, until, self.now);
                    assert_eq!(read, covered, "{other} reads {epoch:?} {from}..{until}\nafter {:#?}", self.model.facts);
                }
                for (number, keys) in CAST.owners.iter().enumerate() {
                    let read = self.reads(keys.author_id(), *epoch, from, until);
                    assert_eq!(read, number == changes && at < known, "the owner's keys {number} of {changes}");
                }
                for recovery in &CAST.recoveries {
                    assert!(!self.reads(recovery.author_id(), *epoch, from, until));
                }
            }
            for hour in [0, start, start + 1, start + 7, start + 29, now_hour] {
                let may =
                    |author| self.room.may(author, Right::Append, *epoch, Some(Hour(hour)), UnixMs(self.now)).is_ok();
                assert_eq!(may(owner), at < known);
                for (other, identity) in CAST.others.iter().enumerate() {
                    let covered = self.model.may(other, Right::Append, *epoch, hour, self.now);
                    assert_eq!(
                        may(identity.author_id()),
                        covered,
                        "{other} appends {epoch:?} {hour}\nafter {:#?}",
                        self.model.facts
                    );
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, max_shrink_iters: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn nobody_reads_or_appends_what_no_live_grant_covers_and_whoever_is_covered_is_never_refused(
        seed in any::<u64>(),
        steps in proptest::collection::vec(step(), 1..40),
    ) {
        let mut world = World::new(seed);
        for step in &steps {
            world.step(step);
            world.compare();
        }
    }
}

#[test]
fn the_steps_reach_every_kind_of_change() {
    // A model that never accepts anything would agree with rules that never do.
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let mut accepted = BTreeMap::<String, usize>::new();
    for seed in 0..60 {
        let steps = proptest::collection::vec(step(), 20..40).new_tree(&mut runner).unwrap().current();
        let mut world = World::new(seed);
        steps.iter().for_each(|step| world.step(step));
        for (_, fact) in &world.model.facts {
            let name = format!("{fact:?}");
            *accepted.entry(name.split([' ', '{']).next().unwrap().to_owned()).or_default() += 1;
        }
    }
    for kind in ["Created", "Epoch", "Grant", "Revoked", "Delegated", "Withdrawn", "Rotated", "Recovered"] {
        assert!(accepted.get(kind).is_some_and(|count| *count >= 10), "{kind}: {accepted:?}");
    }
}
