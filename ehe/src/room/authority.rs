//! Whose keys and whose word count: the owner's keys in the order in which they came, delegates, the recovery identity (SPEC 8).

use minicbor::{Decode, Encode};

use crate::control::{Authority, Change, Control, ControlLink, Ending, Grant, Right, Rights, possesses};
use crate::id::{AuthorId, Hash};
use crate::identity::PublicIdentity;
use crate::limits;
use crate::refusal::Refusal;
use crate::room::state::{GrantEnd, GrantState, RoomState, check_kem};
use crate::sign::VerifyKey;
use crate::time::{Hour, UnixMs};

/// Keys that the owner has or had.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct OwnerKey {
    /// The id of these keys (I1): who reads with them.
    #[n(0)]
    pub id: AuthorId,
    /// The signing key.
    #[n(1)]
    pub sign: VerifyKey,
    /// The control event that brought them; they sign what follows it.
    #[n(2)]
    pub from: u64,
    /// Where the owner said so on recovery: from this control event on, what they signed is not the owner's.
    #[n(3)]
    pub distrusted_from: Option<u64>,
}

/// What somebody may do for the owner, and what became of it.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Delegation {
    /// The delegate's signing key.
    #[n(0)]
    pub sign: VerifyKey,
    /// What.
    #[n(1)]
    pub rights: Rights,
    /// End by time.
    #[n(2)]
    pub expires: Option<UnixMs>,
    /// The control event that made it.
    #[n(3)]
    pub seq: u64,
    /// End by withdrawal or by recovery.
    #[n(4)]
    pub ended: Option<UnixMs>,
}

impl Delegation {
    /// Whether it was not ended and has not expired.
    pub fn is_live(&self, now: UnixMs) -> bool {
        self.ended.is_none() && self.expires.is_none_or(|end| now < end)
    }
}

impl RoomState {
    /// The owner's keys as they are now.
    pub fn owner_key(&self) -> Option<&OwnerKey> {
        self.owner_keys.last()
    }

    /// Whether these are the owner's present keys, by their id.
    pub fn has_owners_keys(&self, keys: AuthorId) -> bool {
        self.owner_key().is_some_and(|key| key.id == keys)
    }

    /// Whom keys stand for in this room, by their id: the owner's present keys for the owner, anybody else's for themselves. Keys
    /// that the owner replaced stand for nobody.
    pub fn author_of(&self, keys: AuthorId) -> Result<AuthorId, Refusal> {
        if self.has_owners_keys(keys) {
            return Ok(self.owner);
        }
        if self.owner_keys.iter().any(|key| key.id == keys) { Err(Refusal::KeysReplaced) } else { Ok(keys) }
    }

    /// The key under which an author's runs verify now.
    pub fn signing_key(&self, author: AuthorId) -> Option<VerifyKey> {
        if author == self.owner { self.owner_key().map(|key| key.sign) } else { self.key_of(author) }
    }

    /// The signing key of some keys that the room knows, by their id, whether or not they may still do anything: what a read
    /// request verifies under.
    pub fn key_of(&self, keys: AuthorId) -> Option<VerifyKey> {
        let owner = self.owner_keys.iter().find(|key| key.id == keys).map(|key| key.sign);
        let delegate = || self.delegations.get(&keys).map(|delegation| delegation.sign);
        let subject = || self.grants.values().find(|g| g.subject == keys).map(|g| g.subject_key);
        owner.or_else(delegate).or_else(subject)
    }

    /// Whether an identity is the one that the room is committed to for recovery, by its author id.
    pub fn is_recovery(&self, author: AuthorId) -> bool {
        self.recovery != Hash::ZERO && author == AuthorId::truncated(&self.recovery.0)
    }

    /// Whether `author`'s runs may come over the channel of `channel`: its own, or that of the owner's present keys. The recovery
    /// identity, a piece of paper, has no channel of its own.
    pub fn may_bring(&self, channel: AuthorId, author: AuthorId) -> bool {
        self.author_of(channel) == Ok(author) || self.is_recovery(author)
    }

    /// Whether what the owner signed in an entry was signed with keys that the owner distrusts from before it. `before` and
    /// `after`: the control events that the room counted before the entry and counts with it.
    pub fn distrusts(&self, before: u64, after: u64) -> bool {
        let signed = self.owner_keys.iter().rev().find(|key| key.from < before).or(self.owner_keys.first());
        signed.and_then(|key| key.distrusted_from).is_some_and(|from| after > from)
    }

    /// Whether a read was made with keys that the owner distrusts from before its entry, whether or not they were the owner's yet
    /// (A18). `reader` and `refused` are the access record's, `control` its leaf's count of control events. Who is refused read
    /// nothing.
    pub fn distrusts_read(&self, reader: AuthorId, refused: Option<Refusal>, control: u64) -> bool {
        let key = self.owner_keys.iter().find(|key| key.id == reader && refused.is_none());
        key.and_then(|key| key.distrusted_from).is_some_and(|from| control > from)
    }

    /// Every id that the room knows: whoever is or was a party.
    pub fn known_ids(&self) -> impl Iterator<Item = AuthorId> {
        let owner = self.owner_keys.iter().map(|key| key.id);
        owner.chain(self.delegations.keys().copied()).chain(self.grants.values().map(|grant| grant.subject))
    }

    /// Whether a delegation holds.
    pub fn is_delegate(&self, author: AuthorId, now: UnixMs) -> bool {
        self.delegations.get(&author).is_some_and(|delegation| delegation.is_live(now))
    }

    /// Whether `author` may exercise a right of the owner's: the owner, or a delegate who has it.
    pub fn may_for_owner(&self, author: AuthorId, right: Rights, now: UnixMs) -> Result<(), Refusal> {
        if author == self.owner {
            return Ok(());
        }
        let delegation = self.delegations.get(&author).ok_or(Refusal::NotOwner)?;
        if !delegation.is_live(now) {
            return Err(Refusal::DelegationEnded);
        }
        if delegation.rights.hold(right) { Ok(()) } else { Err(Refusal::NotDelegated) }
    }

    /// Whether `author` may make this control event (A4).
    pub(super) fn may_control(&self, author: AuthorId, control: &Control, now: UnixMs) -> Result<(), Refusal> {
        match control {
            Control::Authority(Authority { change: Change::Recover { recovery, .. }, .. }) => {
                let right = self.recovery != Hash::ZERO
                    && recovery.commitment() == self.recovery
                    && author == recovery.author_id();
                if right { Ok(()) } else { Err(Refusal::NotRecovery) }
            }
            Control::Grant(grant) => {
                self.may_for_owner(author, Rights::GRANT, now)?;
                if author == self.owner { Ok(()) } else { self.within_own(author, grant, now) }
            }
            Control::Revoke(_) => self.may_for_owner(author, Rights::REVOKE, now),
            Control::Epoch(_) => self.may_for_owner(author, Rights::EPOCH, now),
            Control::RoomCreate(_) | Control::Authority(_) | Control::Wrap(_) => {
                if author == self.owner {
                    Ok(())
                } else {
                    Err(Refusal::NotOwner)
                }
            }
        }
    }

    /// A delegate lets nobody read what it may not read itself, nor longer (A19).
    pub fn within_own(&self, delegate: AuthorId, grant: &Grant, now: UnixMs) -> Result<(), Refusal> {
        if grant.right != Right::Read {
            return Ok(());
        }
        let wide = |own: &GrantState| {
            let from = own.from.unwrap_or(Hour(0)) <= grant.from.unwrap_or(Hour(0));
            let until = own.until.is_none_or(|end| grant.until.is_some_and(|until| until <= end));
            let expires = own.expires.is_none_or(|end| grant.expires.is_some_and(|expires| expires <= end));
            own.right == Right::Read && own.is_live(now) && from && until && expires
        };
        let covered = |epoch| self.grants_of(delegate).any(|(_, own)| wide(own) && own.epochs.contains(epoch));
        if grant.epochs.iter().all(covered) { Ok(()) } else { Err(Refusal::BeyondOwnRights) }
    }

    /// Applies an authority record; its author is the caller's to check.
    pub(super) fn apply_authority(&mut self, record: &Authority, now: UnixMs) -> Result<(), Refusal> {
        // The place that the record takes, which is not always the one that it names.
        let (link, seq) = (record.link, self.next_control);
        match &record.change {
            Change::Rotate(keys, proof) => self.take_keys(keys, (link, seq), proof, limits::OWNER_KEYS_BY_ROTATION_MAX),
            Change::Delegate(delegate, rights, expires) => self.delegate(delegate, *rights, *expires, seq),
            Change::Withdraw(delegate) => {
                let delegation = self.delegations.get_mut(delegate).ok_or(Refusal::DelegationUnknown)?;
                if delegation.ended.is_some() {
                    return Err(Refusal::DelegationUnknown);
                }
                delegation.ended = Some(now);
                Ok(())
            }
            Change::SetRecovery(recovery) => {
                if self.recovery != Hash::ZERO {
                    return Err(Refusal::RecoverySet);
                }
                if *recovery == Hash::ZERO {
                    return Err(Refusal::ControlMalformed);
                }
                self.commit_to(*recovery)
            }
            Change::Recover { keys, possession, next, distrusted_from, .. } => {
                if distrusted_from.is_some_and(|from| from == 0 || from > seq) {
                    return Err(Refusal::ControlMalformed);
                }
                if let Some(from) = distrusted_from {
                    self.distrust(*from, now);
                }
                self.take_keys(keys, (link, seq), possession, limits::OWNER_KEYS_PER_ROOM_MAX)?;
                self.commit_to(*next)
            }
            Change::HandOver => Ok(()),
        }
    }

    /// The owner's keys become these (A14).
    fn take_keys(
        &mut self,
        keys: &PublicIdentity,
        (link, seq): (ControlLink, u64),
        proof: &[u8],
        most: usize,
    ) -> Result<(), Refusal> {
        check_kem(&keys.kem)?;
        let id = keys.author_id();
        // Not the recovery key either: it lies on paper, and was in the machine that is used now.
        if self.known_ids().any(|known| known == id) || self.is_recovery(id) {
            return Err(Refusal::ControlMalformed);
        }
        if !possesses(keys, self.room, link, proof) {
            return Err(Refusal::NotPossessed);
        }
        if self.owner_keys.len() >= most {
            return Err(Refusal::LimitReached);
        }
        self.owner_keys.push(OwnerKey { id, sign: keys.sign, from: seq, distrusted_from: None });
        Ok(())
    }

    fn delegate(
        &mut self,
        delegate: &PublicIdentity,
        rights: Rights,
        expires: Option<UnixMs>,
        seq: u64,
    ) -> Result<(), Refusal> {
        check_kem(&delegate.kem)?;
        let id = delegate.author_id();
        if self.is_or_was_owner(id) {
            return Err(Refusal::ControlMalformed);
        }
        if !self.delegations.contains_key(&id) && self.delegations.len() >= limits::DELEGATIONS_PER_ROOM_MAX {
            return Err(Refusal::LimitReached);
        }
        self.delegations.insert(id, Delegation { sign: delegate.sign, rights, expires, seq, ended: None });
        Ok(())
    }

    /// Commits the room to a recovery identity, which is nobody that the room knows by another name.
    fn commit_to(&mut self, recovery: Hash) -> Result<(), Refusal> {
        let id = AuthorId::truncated(&recovery.0);
        if recovery != Hash::ZERO && self.known_ids().any(|known| known == id) {
            return Err(Refusal::ControlMalformed);
        }
        self.recovery = recovery;
        Ok(())
    }

    /// What control events from `from` on gave ends now; what they took away stays away (A18).
    fn distrust(&mut self, from: u64, now: UnixMs) {
        for grant in self.grants.values_mut().filter(|grant| grant.seq >= from) {
            let at = grant.ended.map_or(now, |end| end.at);
            grant.ended = Some(GrantEnd { at, ending: Ending::Cut });
        }
        for delegation in self.delegations.values_mut().filter(|delegation| delegation.seq >= from) {
            delegation.ended.get_or_insert(now);
        }
        // Keys that were replaced before then signed nothing after it.
        let mut next = u64::MAX;
        for key in self.owner_keys.iter_mut().rev() {
            if next >= from {
                key.distrusted_from = Some(key.distrusted_from.map_or(from, |before| before.min(from)));
            }
            next = key.from;
        }
    }

    /// Whether an id is that of keys which the owner has or had, or of the recovery identity: nobody else may come by it.
    pub(super) fn is_or_was_owner(&self, id: AuthorId) -> bool {
        id == self.owner || self.owner_keys.iter().any(|key| key.id == id) || self.is_recovery(id)
    }
}
