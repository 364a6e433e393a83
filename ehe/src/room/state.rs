//! What a room's control events add up to.

use std::collections::{BTreeMap, BTreeSet};

use minicbor::{Decode, Encode};

use crate::cbor::{self, CborError};
use crate::control::{Authority, Change, Control, Ending, EpochRecord, Grant, Revoke, Right, RoomCreate};
use crate::id::{AllianceId, AuthorId, EheId, EpochId, Hash, RoomId};
use crate::kem::{self, KemPublic};
use crate::limits;
use crate::refusal::Refusal;
use crate::room::authority::{Delegation, OwnerKey};
use crate::sign::VerifyKey;
use crate::time::{Day, Hour, UnixMs};

/// A room's members, epochs and grants. Its encoding is stored by nodes: version it by [`RoomState::version`].
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct RoomState {
    /// Version of this structure on disk.
    #[n(0)]
    pub version: u8,
    /// The room.
    #[n(1)]
    pub room: RoomId,
    /// The alliance that it was made for.
    #[n(2)]
    pub alliance: AllianceId,
    /// The patient.
    #[n(3)]
    pub owner: AuthorId,
    /// The patient's keys, the first ones first, the present ones last.
    #[n(4)]
    pub owner_keys: Vec<OwnerKey>,
    /// Sequence number that the room's next control event must have.
    #[n(5)]
    pub next_control: u64,
    /// The room's last control event.
    #[n(6)]
    pub last_control: EheId,
    /// Key epochs.
    #[n(7)]
    pub epochs: BTreeMap<EpochId, EpochState>,
    /// Grants, ended ones included: their subjects' signatures stay verifiable.
    #[n(8)]
    pub grants: BTreeMap<EheId, GrantState>,
    /// Who may act for the patient, ended delegations included.
    #[n(9)]
    pub delegations: BTreeMap<AuthorId, Delegation>,
    /// Commits to the recovery identity; zeros: there is none.
    #[n(10)]
    pub recovery: Hash,
}

/// Why a stored room state is not used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StateError {
    /// Written by another version of this program.
    #[error("the room's state is of version {0}, this program knows version {known}", known = RoomState::VERSION)]
    Version(u8),
    /// Not the encoding of a room's state.
    #[error("the room's state: {0}")]
    Cbor(#[from] CborError),
}

/// A key epoch.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct EpochState {
    /// The epoch that followed it, if one did. Content sealed before is still accepted: it may have waited in a spool.
    #[n(0)]
    pub superseded_by: Option<EpochId>,
}

/// A grant and what became of it.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct GrantState {
    /// Who.
    #[n(0)]
    pub subject: AuthorId,
    /// The subject's signing key.
    #[n(1)]
    pub subject_key: VerifyKey,
    /// What.
    #[n(2)]
    pub right: Right,
    /// Where: the epochs of the grant and those that continued it.
    #[n(3)]
    pub epochs: Vec<EpochId>,
    /// First hour of readings.
    #[n(4)]
    pub from: Option<Hour>,
    /// Hour of readings that is no longer covered.
    #[n(5)]
    pub until: Option<Hour>,
    /// End by time.
    #[n(6)]
    pub expires: Option<UnixMs>,
    /// End by revocation.
    #[n(7)]
    pub ended: Option<GrantEnd>,
    /// The control event that made it.
    #[n(8)]
    pub seq: u64,
}

/// When and how a grant was revoked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct GrantEnd {
    /// When the revocation was accepted.
    #[n(0)]
    pub at: UnixMs,
    /// How.
    #[n(1)]
    pub ending: Ending,
}

impl GrantState {
    /// Whether the grant holds at `now` for readings of `hour`; otherwise why not.
    pub fn holds(&self, hour: Option<Hour>, now: UnixMs) -> Result<(), Refusal> {
        match self.ended {
            None => {}
            Some(GrantEnd { at, ending: Ending::DrainUntil(until) })
                if self.right == Right::Append && now <= until && hour.is_some_and(|h| h <= at.hour()) => {}
            Some(_) => return Err(Refusal::GrantRevoked),
        }
        if self.expires.is_some_and(|end| now >= end) {
            return Err(Refusal::GrantExpired);
        }
        if let Some(hour) = hour
            && (self.from.is_some_and(|from| hour < from) || self.until.is_some_and(|until| hour >= until))
        {
            return Err(Refusal::HourNotCovered);
        }
        Ok(())
    }

    /// Whether what was measured before the grant's revocation is still accepted.
    pub fn drains(&self, now: UnixMs) -> bool {
        let draining = matches!(self.ended, Some(GrantEnd { ending: Ending::DrainUntil(until), .. }) if now <= until);
        draining && self.right == Right::Append && self.expires.is_none_or(|end| now < end)
    }

    /// Whether the grant has not been revoked and has not expired.
    pub fn is_live(&self, now: UnixMs) -> bool {
        self.ended.is_none() && self.expires.is_none_or(|end| now < end)
    }
}

impl RoomState {
    /// The version of the structure that this crate writes.
    pub const VERSION: u8 = 2;

    /// Reads a stored state, at most `limit` bytes of it. The version's place never changes: a state of another one is told from
    /// a damaged one.
    pub fn decode(bytes: &[u8], limit: usize) -> Result<Self, StateError> {
        let mut decoder = minicbor::Decoder::new(bytes);
        match decoder.map().and_then(|_| decoder.u8()).and_then(|key| Ok((key, decoder.u8()?))) {
            Ok((0, version)) if version != Self::VERSION => Err(StateError::Version(version)),
            _ => Ok(cbor::from_slice(bytes, limit)?),
        }
    }

    /// The room that a room-create event makes.
    pub(super) fn create(create: &RoomCreate, event: EheId) -> Result<Self, Refusal> {
        check_kem(&create.owner.kem)?;
        let owner = create.owner.author_id();
        // By the id, as later commitments are compared (A17): the room knows nobody by two names.
        if AuthorId::truncated(&create.recovery.0) == owner {
            return Err(Refusal::ControlMalformed);
        }
        Ok(Self {
            version: Self::VERSION,
            room: create.room_id(),
            alliance: create.alliance,
            owner,
            owner_keys: vec![OwnerKey { id: owner, sign: create.owner.sign, from: 0, distrusted_from: None }],
            next_control: 1,
            last_control: event,
            epochs: BTreeMap::new(),
            grants: BTreeMap::new(),
            delegations: BTreeMap::new(),
            recovery: create.recovery,
        })
    }

    /// All grants of one subject.
    pub fn grants_of(&self, author: AuthorId) -> impl Iterator<Item = (&EheId, &GrantState)> {
        self.grants.iter().filter(move |(_, g)| g.subject == author)
    }

    /// Whether keys, by their id, are the patient's or the recovery identity's, or have a delegation that holds or any grant that
    /// is live or draining.
    pub fn is_party(&self, keys: AuthorId, now: UnixMs) -> bool {
        self.has_owners_keys(keys)
            || self.is_recovery(keys)
            || self.is_delegate(keys, now)
            || self.grants_of(keys).any(|(_, g)| g.is_live(now) || g.drains(now))
    }

    /// Whether `author` may exercise `right` in an epoch, for readings of `hour`. Of several refusals the most telling wins.
    pub fn may(
        &self,
        author: AuthorId,
        right: Right,
        epoch: EpochId,
        hour: Option<Hour>,
        now: UnixMs,
    ) -> Result<(), Refusal> {
        if !self.epochs.contains_key(&epoch) {
            // A stranger learns nothing about which epochs there are.
            return Err(if author == self.owner { Refusal::EpochNotCovered } else { self.why_not(author, right, now) });
        }
        if author == self.owner {
            return Ok(());
        }
        self.any_grant(author, right, epoch, |grant| grant.holds(hour, now))
    }

    /// Whether `author` may append to an epoch in some hour of a day: what a wrap needs.
    pub(super) fn may_append_on(&self, author: AuthorId, epoch: EpochId, day: Day, now: UnixMs) -> Result<(), Refusal> {
        if author == self.owner || !self.epochs.contains_key(&epoch) {
            return self.may(author, Right::Append, epoch, None, now);
        }
        let first = day.0.saturating_mul(24);
        self.any_grant(author, Right::Append, epoch, |grant| {
            let mut held = Err(Refusal::HourNotCovered);
            for hour in first..=first.saturating_add(23) {
                held = grant.holds(Some(Hour(hour)), now);
                if held.is_ok() {
                    break;
                }
            }
            held
        })
    }

    /// Looks through the epochs of each grant once: a room may hold many.
    fn any_grant(
        &self,
        author: AuthorId,
        right: Right,
        epoch: EpochId,
        holds: impl Fn(&GrantState) -> Result<(), Refusal>,
    ) -> Result<(), Refusal> {
        let mut refusal = Refusal::NotInvited;
        for (_, grant) in self.grants_of(author).filter(|(_, g)| g.right == right) {
            let covers = grant.epochs.contains(&epoch);
            match holds(grant) {
                Ok(()) if covers => return Ok(()),
                Ok(()) => refusal = telling(refusal, Refusal::EpochNotCovered),
                // That it ended says more than that the epoch which followed its end is none of its own.
                Err(why) => refusal = telling(refusal, why),
            }
        }
        Err(refusal)
    }

    fn why_not(&self, author: AuthorId, right: Right, now: UnixMs) -> Refusal {
        self.grants_of(author).filter(|(_, g)| g.right == right).fold(Refusal::NotInvited, |refusal, (_, grant)| {
            telling(refusal, grant.holds(None, now).err().unwrap_or(Refusal::EpochNotCovered))
        })
    }

    /// Applies a control event; its signature and author are the caller's to check.
    pub(super) fn apply(&mut self, control: &Control, event: EheId, now: UnixMs) -> Result<(), Refusal> {
        let link = control.link().ok_or(Refusal::KindNotAllowed)?;
        let placed = link.seq == self.next_control && link.previous == self.last_control;
        // A thief or a delegate who writes without a pause must not keep these out: they may name any place that the room had.
        let urgent = matches!(
            control,
            Control::Authority(Authority { change: Change::Recover { .. } | Change::Withdraw(_), .. })
        );
        if !(placed || urgent && (1..self.next_control).contains(&link.seq)) {
            return Err(Refusal::ControlOutOfSequence);
        }
        match control {
            Control::RoomCreate(_) => return Err(Refusal::RoomExists),
            Control::Authority(record) => self.apply_authority(record, now)?,
            Control::Epoch(record) => self.apply_epoch(record)?,
            Control::Grant(grant) => self.apply_grant(grant, event)?,
            Control::Revoke(revoke) => self.apply_revoke(revoke, now)?,
            Control::Wrap(_) => return Err(Refusal::KindNotAllowed),
        }
        self.next_control += 1;
        self.last_control = event;
        Ok(())
    }

    fn apply_epoch(&mut self, record: &EpochRecord) -> Result<(), Refusal> {
        check_kem(&record.group_key)?;
        if self.epochs.len() >= limits::EPOCHS_PER_ROOM_MAX || !self.takes_granted(record.continues.len()) {
            return Err(Refusal::LimitReached);
        }
        // What the record says by itself and of epochs comes before what it says of grants (A5).
        let follows = |before| self.epochs.get(&before).is_some_and(|state| state.superseded_by.is_none());
        if record.epoch == EpochId::ZERO
            || self.epochs.contains_key(&record.epoch)
            || !record.supersedes.is_none_or(follows)
            || repeats(&record.continues)
        {
            return Err(Refusal::ControlMalformed);
        }
        for id in &record.continues {
            let grant = self.grants.get(id).ok_or(Refusal::GrantUnknown)?;
            // A grant goes on only where it was: a new epoch never widens it, and never revives it.
            let covered = record.supersedes.is_some_and(|before| grant.epochs.contains(&before));
            if grant.ended.is_some() || !covered {
                return Err(Refusal::ControlMalformed);
            }
        }
        if let Some(state) = record.supersedes.and_then(|before| self.epochs.get_mut(&before)) {
            state.superseded_by = Some(record.epoch);
        }
        for id in &record.continues {
            if let Some(grant) = self.grants.get_mut(id) {
                grant.epochs.push(record.epoch);
            }
        }
        self.epochs.insert(record.epoch, EpochState { superseded_by: None });
        Ok(())
    }

    /// Whether grants may cover so many epochs more. Nodes read the whole state at once: it has to stay within a bound.
    fn takes_granted(&self, more: usize) -> bool {
        let covered: usize = self.grants.values().map(|grant| grant.epochs.len()).sum();
        covered.saturating_add(more) <= limits::GRANTED_EPOCHS_PER_ROOM_MAX
    }

    fn apply_grant(&mut self, grant: &Grant, event: EheId) -> Result<(), Refusal> {
        check_kem(&grant.subject.kem)?;
        if self.grants.len() >= limits::GRANTS_PER_ROOM_MAX || !self.takes_granted(grant.epochs.len()) {
            return Err(Refusal::LimitReached);
        }
        if grant.epochs.is_empty() || !grant.epochs.iter().all(|epoch| self.epochs.contains_key(epoch)) {
            return Err(Refusal::EpochNotCovered);
        }
        let subject = grant.subject.author_id();
        if repeats(&grant.epochs)
            || self.is_or_was_owner(subject)
            || matches!((grant.from, grant.until), (Some(from), Some(until)) if from >= until)
        {
            return Err(Refusal::ControlMalformed);
        }
        let state = GrantState {
            subject,
            subject_key: grant.subject.sign,
            right: grant.right,
            epochs: grant.epochs.clone(),
            from: grant.from,
            until: grant.until,
            expires: grant.expires,
            ended: None,
            seq: grant.link.seq,
        };
        self.grants.insert(event, state);
        Ok(())
    }

    fn apply_revoke(&mut self, revoke: &Revoke, now: UnixMs) -> Result<(), Refusal> {
        let grant = self.grants.get_mut(&revoke.grant).ok_or(Refusal::GrantUnknown)?;
        if grant.right == Right::Read && revoke.ending != Ending::Cut {
            return Err(Refusal::ControlMalformed);
        }
        // Revoking again may shorten an end, never lengthen it.
        let lengthens = match (grant.ended, revoke.ending) {
            (None, _) | (Some(_), Ending::Cut) => false,
            (Some(GrantEnd { ending: Ending::Cut, .. }), Ending::DrainUntil(_)) => true,
            (Some(GrantEnd { ending: Ending::DrainUntil(old), .. }), Ending::DrainUntil(new)) => new > old,
        };
        if lengthens {
            return Err(Refusal::ControlMalformed);
        }
        let at = grant.ended.map_or(now, |end| end.at);
        grant.ended = Some(GrantEnd { at, ending: revoke.ending });
        Ok(())
    }
}

/// Whether one stands there twice.
fn repeats<T: Ord>(ids: &[T]) -> bool {
    ids.iter().collect::<BTreeSet<_>>().len() != ids.len()
}

/// Of two refusals of one right by two grants, the one that says more: what was there and ended says more than what never was.
fn telling(a: Refusal, b: Refusal) -> Refusal {
    let rank = |r: Refusal| match r {
        Refusal::HourNotCovered => 4,
        Refusal::EpochNotCovered => 3,
        Refusal::GrantRevoked => 2,
        Refusal::GrantExpired => 1,
        _ => 0,
    };
    if rank(b) > rank(a) { b } else { a }
}

pub(super) fn check_kem(key: &KemPublic) -> Result<(), Refusal> {
    if kem::is_public_key(key) { Ok(()) } else { Err(Refusal::BadKey) }
}
