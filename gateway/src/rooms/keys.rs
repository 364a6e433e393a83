//! Which key epoch each category of a room is in, learnt from the records of the patient and of delegates (DESIGN: keys and
//! authority).
//!
//! An epoch that follows another is of the same category, whoever made it. What else an epoch is for stands in the sealed parts of
//! our append grant and of later epoch records, and counts in the patient's own alone (SPEC K5): a delegate who knows the key of a
//! harmless category must not have another one's readings sealed to it. Superseded epochs keep no key here: nothing new may be sealed to them.

use ehe::control::{Control, ControlError, EpochCategory, EpochRecord, Grant, Private, Right};
use ehe::event::CheckedEvent;
use ehe::id::{AuthorId, EheId, EpochId};
use ehe::identity::Identity;
use ehe::kem::KemPublic;
use ehe::refusal::Refusal;
use ehe::room::RoomState;
use ehe::time::{Hour, UnixMs};
use ehe::vital::Category;
use minicbor::{Decode, Encode};

/// The group keys of one room, in the order of the patient's records.
#[derive(Debug, Clone, PartialEq, Eq, Default, Encode, Decode)]
#[cbor(map)]
pub struct KeyRing {
    #[n(0)]
    epochs: Vec<KnownEpoch>,
}

#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
struct KnownEpoch {
    #[n(0)]
    epoch: EpochId,
    /// None once the epoch is superseded.
    #[n(1)]
    group_key: Option<KemPublic>,
    /// That of the epoch before it, otherwise as the patient named it. None: as the epoch before it may be named later.
    #[n(2)]
    category: Option<Category>,
    #[n(3)]
    supersedes: Option<EpochId>,
}

/// An epoch that may be sealed to.
#[derive(Debug, Clone, Copy)]
pub struct Current<'a> {
    /// The epoch.
    pub epoch: EpochId,
    /// Its group key, from the signed record.
    pub group_key: &'a KemPublic,
}

/// Why there is no epoch to seal to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoEpoch {
    /// No record says which epoch the category is in, or a newer one does not go on for us.
    #[error("no current key epoch of this category is known")]
    Unknown,
    /// Our append grant covers an epoch of which the patient has not said what it is for: a delegate made the grant.
    #[error("only a delegate has said what the key epoch is for")]
    Untold,
    /// There is one, and our append grant does not cover it for these readings.
    #[error("the append grant does not cover these readings: {0}")]
    NotCovered(Refusal),
}

/// A record that cannot be used. It stands in the ledger with its author's signature, so their program is at fault.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the sealed part of control event {event} does not open: {why}")]
pub struct Unreadable {
    /// The event.
    pub event: EheId,
    /// What failed.
    pub why: ControlError,
}

impl KeyRing {
    /// Takes in a control event of the patient, whose id is `owner`, or of a delegate. The caller has verified it and that its author
    /// had the right ([`ehe::ledger::Follower`]); what is not about keys is passed over.
    pub fn learn(&mut self, event: &CheckedEvent, owner: AuthorId, identity: &Identity) -> Result<(), Unreadable> {
        match Control::decode(event) {
            Ok(Control::Epoch(record)) => self.learn_epoch(&record, event, owner, identity),
            Ok(Control::Grant(grant)) => self.learn_grant(&grant, event, owner, identity),
            Ok(_) => Ok(()),
            Err(why) => Err(Unreadable { event: event.id(), why }),
        }
    }

    fn learn_epoch(
        &mut self,
        record: &EpochRecord,
        event: &CheckedEvent,
        owner: AuthorId,
        us: &Identity,
    ) -> Result<(), Unreadable> {
        if let Some(before) = record.supersedes
            && let Some(known) = self.epochs.iter_mut().find(|k| k.epoch == before)
        {
            known.group_key = None;
        }
        // The epoch counts even where its sealed part cannot be read: it ends the one before it.
        let private = open(event, us);
        let before = record.supersedes.and_then(|before| self.epochs.iter().rposition(|k| k.epoch == before));
        let inherited = before.and_then(|at| self.category_at(at));
        let told = || private.as_ref().ok().and_then(|p| category_in(p.categories_told(event, owner), record.epoch));
        let category = inherited.or_else(told);
        self.epochs.push(KnownEpoch {
            epoch: record.epoch,
            group_key: Some(record.group_key.clone()),
            category,
            supersedes: record.supersedes,
        });
        private.map(|_| ())
    }

    fn learn_grant(
        &mut self,
        grant: &Grant,
        event: &CheckedEvent,
        owner: AuthorId,
        us: &Identity,
    ) -> Result<(), Unreadable> {
        if grant.right != Right::Append || grant.subject.author_id() != us.author_id() {
            return Ok(());
        }
        let private = open(event, us)?;
        let told = private.categories_told(event, owner);
        for at in 0..self.epochs.len() {
            let inherited = self.category_at(at);
            if let Some(known) = self.epochs.get_mut(at).filter(|k| grant.epochs.contains(&k.epoch)) {
                known.category = inherited.or_else(|| category_in(told, known.epoch));
            }
        }
        Ok(())
    }

    /// The epoch to seal readings of `hour` to: of those that nothing superseded and that our grant covers, the newest.
    pub fn current(
        &self,
        room: &RoomState,
        us: AuthorId,
        category: Category,
        hour: Hour,
        now: UnixMs,
    ) -> Result<Current<'_>, NoEpoch> {
        let (mut why, mut untold) = (NoEpoch::Unknown, false);
        for (at, known) in self.epochs.iter().enumerate().rev() {
            let Some(group_key) = &known.group_key else { continue };
            let of = self.category_at(at);
            if of != Some(category) {
                untold |= of.is_none() && room.may(us, Right::Append, known.epoch, Some(hour), now).is_ok();
                continue;
            }
            match room.may(us, Right::Append, known.epoch, Some(hour), now) {
                Ok(()) => return Ok(Current { epoch: known.epoch, group_key }),
                Err(refusal) if why == NoEpoch::Unknown => why = NoEpoch::NotCovered(refusal),
                Err(_) => {}
            }
        }
        Err(if untold && why == NoEpoch::Unknown { NoEpoch::Untold } else { why })
    }

    /// Goes back along the epochs that followed each other, until one names its category. A record only supersedes an
    /// earlier one, so this ends.
    fn category_at(&self, mut at: usize) -> Option<Category> {
        loop {
            let known = self.epochs.get(at)?;
            if known.category.is_some() {
                return known.category;
            }
            let before = known.supersedes?;
            at = self.epochs.get(..at)?.iter().rposition(|k| k.epoch == before)?;
        }
    }
}

/// The sealed part, empty where it is not meant for us.
fn open(event: &CheckedEvent, us: &Identity) -> Result<Private, Unreadable> {
    match Private::open(event, us) {
        Ok(private) => Ok(private.unwrap_or_default()),
        Err(ControlError::NotAParty) => Ok(Private::default()),
        Err(why) => Err(Unreadable { event: event.id(), why }),
    }
}

fn category_in(told: &[EpochCategory], epoch: EpochId) -> Option<Category> {
    told.iter().find(|c| c.epoch == epoch).map(|c| c.category)
}
