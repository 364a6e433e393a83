//! What a room's control records mean to the one who follows them: epochs, categories, seeds, names.
//!
//! The rules' state ([`ehe::room::RoomState`]) says who may do what and is the same for everybody. This is the other half: what
//! only the parties can open. It learns from verified events only.

use std::collections::{BTreeMap, BTreeSet};

use ehe::control::{Authority, Change, Control, Private, SeedWrap};
use ehe::event::CheckedEvent;
use ehe::id::{AuthorId, EheId, EpochId};
use ehe::identity::{Identity, Party, PublicIdentity};
use ehe::kem::KemPublic;
use ehe::room::RoomState;
use ehe::run::{Run, StrandEnd};
use ehe::time::UnixMs;
use ehe::vital::Category;

/// Seeds of one epoch that are looked at.
const SEEDS_PER_EPOCH_MAX: usize = 8;

/// A key epoch as its record and the sealed parts show it.
#[derive(Debug, Clone)]
pub struct EpochView {
    /// Public half of the group key.
    pub group_key: KemPublic,
    /// That of the epoch that it follows, otherwise as the patient named it.
    pub category: Option<Category>,
    /// As a delegate's grant named it to the one who looks: not the patient's word (SPEC K5).
    hint: Option<Category>,
    /// The epoch that it follows.
    pub supersedes: Option<EpochId>,
    /// What is said to be the group key's seed, wrapped to the one who looks: the first [`SEEDS_PER_EPOCH_MAX`] of them.
    pub seeds: Vec<SeedWrap>,
}

/// A grant as its record and its sealed part show it.
#[derive(Debug, Clone)]
pub struct GrantView {
    /// Place in the patient's sequence.
    pub seq: u64,
    /// Who made it: the patient or a delegate.
    pub author: AuthorId,
    /// Whether it was made for keys that had been replaced by then, too.
    pub history: bool,
    /// Who was invited.
    pub subject: PublicIdentity,
    /// The party's name as the patient wrote it, where readable.
    pub name: Option<String>,
    /// The purpose as the patient wrote it, where readable.
    pub purpose: Option<String>,
}

/// A delegate as its record shows it.
#[derive(Debug, Clone)]
pub struct DelegateView {
    /// Its keys.
    pub keys: PublicIdentity,
    /// Its name as the patient wrote it, where readable.
    pub name: Option<String>,
}

/// A control event, for whoever looks through what happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ControlLine {
    /// Its place in the room's sequence.
    pub seq: u64,
    /// When it was accepted, by the ledger's time.
    pub at: UnixMs,
    /// Who made it.
    pub author: AuthorId,
    /// What it is.
    pub what: &'static str,
    /// Whom it is about, if it is about somebody.
    pub whom: Option<AuthorId>,
}

/// What the control records of one room mean to one identity.
#[derive(Debug, Clone, Default)]
pub struct RoomView {
    owner: Option<PublicIdentity>,
    owner_id: Option<AuthorId>,
    recovery: Option<PublicIdentity>,
    epochs: BTreeMap<EpochId, EpochView>,
    replaced: BTreeSet<EpochId>,
    grants: BTreeMap<EheId, GrantView>,
    delegates: BTreeMap<AuthorId, DelegateView>,
    name: Option<String>,
    own_strand: Option<StrandEnd>,
    control: Vec<ControlLine>,
}

impl RoomView {
    /// Learns from a control event that was verified.
    pub fn learn(&mut self, event: &CheckedEvent, me: &Identity) {
        let Ok(control) = Control::decode(event) else { return };
        // Not being a party is the ordinary case; a part that names us and does not open tells us nothing either.
        let private = Private::open(event, me).ok().flatten().unwrap_or_default();
        match control {
            Control::RoomCreate(create) => {
                (self.owner, self.owner_id) = (Some(create.owner), Some(event.core().author));
                (self.name, self.recovery) = (private.name, private.recovery);
            }
            Control::Authority(record) => self.learn_authority(event, record, private, me.author_id()),
            Control::Epoch(record) => {
                let (group_key, supersedes) = (record.group_key, record.supersedes);
                let category = supersedes.and_then(|before| self.category(before));
                let view = EpochView { group_key, category, hint: None, supersedes, seeds: Vec::new() };
                self.epochs.insert(record.epoch, view);
                self.replaced.extend(supersedes);
                self.learn_seeds(record.seeds, me.author_id());
                self.learn_categories(event, &private);
            }
            Control::Grant(grant) => {
                self.learn_seeds(grant.seeds, me.author_id());
                self.learn_categories(event, &private);
                if grant.subject.author_id() == me.author_id() {
                    self.learn_hints(&private);
                }
                let Private { name, purpose, .. } = private;
                let view = GrantView {
                    seq: grant.link.seq,
                    author: event.core().author,
                    history: grant.epochs.iter().any(|epoch| self.replaced.contains(epoch)),
                    subject: grant.subject,
                    name,
                    purpose,
                };
                self.grants.insert(event.id(), view);
            }
            Control::Revoke(_) | Control::Wrap(_) => {}
        }
    }

    /// Notes a control event that was verified, and accepted at `at`, for whoever looks through what happened.
    pub fn note(&mut self, event: &CheckedEvent, at: UnixMs) {
        let Ok(control) = Control::decode(event) else { return };
        let Some(link) = control.link() else { return };
        let (what, whom) = match &control {
            Control::RoomCreate(_) => ("room-create", None),
            Control::Epoch(_) => ("epoch", None),
            Control::Grant(grant) => ("grant", Some(grant.subject.author_id())),
            Control::Revoke(revoke) => ("revoke", self.grants.get(&revoke.grant).map(|g| g.subject.author_id())),
            Control::Wrap(_) => return,
            Control::Authority(record) => match &record.change {
                Change::Rotate(keys, _) => ("rotate", Some(keys.author_id())),
                Change::Delegate(keys, ..) => ("delegate", Some(keys.author_id())),
                Change::Withdraw(id) => ("withdraw", Some(*id)),
                Change::SetRecovery(_) => ("set-recovery", None),
                Change::Recover { keys, .. } => ("recover", Some(keys.author_id())),
                Change::HandOver => ("hand-over", None),
            },
        };
        self.control.push(ControlLine { seq: link.seq, at, author: event.core().author, what, whom });
    }

    fn learn_authority(&mut self, event: &CheckedEvent, record: Authority, private: Private, me: AuthorId) {
        self.learn_seeds(record.seeds, me);
        self.learn_categories(event, &private);
        let name = match record.change {
            Change::Delegate(keys, ..) => {
                self.delegates.insert(keys.author_id(), DelegateView { keys, name: private.name });
                None
            }
            Change::Rotate(keys, _) | Change::Recover { keys, .. } => {
                self.owner = Some(keys);
                private.name
            }
            _ => private.name,
        };
        self.name = self.name.take().or(name);
        // Worth what the room's commitment says of it, which is asked when it is used.
        self.recovery = private.recovery.or(self.recovery.take());
        for note in private.notes.unwrap_or_default() {
            if let Some(grant) = self.grants.get_mut(&note.grant) {
                grant.name = grant.name.take().or(note.name);
                grant.purpose = grant.purpose.take().or(note.purpose);
            }
        }
    }

    fn learn_seeds(&mut self, seeds: Vec<SeedWrap>, me: AuthorId) {
        for seed in seeds.into_iter().filter(|seed| seed.recipient == me) {
            if let Some(epoch) = self.epochs.get_mut(&seed.epoch) {
                // Whoever may make records may wrap anything: a false seed must not hide the right one, nor fill the memory.
                if epoch.seeds.len() < SEEDS_PER_EPOCH_MAX {
                    epoch.seeds.push(seed);
                }
            }
        }
    }

    /// Learns where one's own strand ended, so that the next one can say so.
    pub fn learn_run(&mut self, run: &Run, me: AuthorId) {
        if run.author == me {
            self.own_strand = Some(run.end());
        }
    }

    fn learn_categories(&mut self, event: &CheckedEvent, private: &Private) {
        let Some(owner) = self.owner_id else { return };
        for told in private.categories_told(event, owner) {
            let inherited = self.category(told.epoch);
            if let Some(epoch) = self.epochs.get_mut(&told.epoch) {
                epoch.category = inherited.or(Some(told.category));
            }
        }
    }

    fn learn_hints(&mut self, private: &Private) {
        for told in &private.categories {
            if let Some(epoch) = self.epochs.get_mut(&told.epoch) {
                epoch.hint.get_or_insert(told.category);
            }
        }
    }

    /// What changed the room's rights and keys, in order.
    pub fn control(&self) -> &[ControlLine] {
        &self.control
    }

    /// The room's name, where readable.
    pub fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// An epoch.
    pub fn epoch(&self, id: EpochId) -> Option<&EpochView> {
        self.epochs.get(&id)
    }

    /// All epochs.
    pub fn epochs(&self) -> impl Iterator<Item = (EpochId, &EpochView)> {
        self.epochs.iter().map(|(id, epoch)| (*id, epoch))
    }

    /// The patient, as a recipient.
    pub fn owner(&self, state: &RoomState) -> Option<Party<'_>> {
        self.owner.as_ref().map(|keys| Party { id: state.owner, keys })
    }

    /// The recovery identity, where it was told: the one that the room is committed to.
    pub fn recovery(&self, state: &RoomState) -> Option<&PublicIdentity> {
        self.recovery.as_ref().filter(|keys| keys.commitment() == state.recovery)
    }

    /// All grants.
    pub fn grants(&self) -> impl Iterator<Item = (EheId, &GrantView)> {
        self.grants.iter().map(|(id, grant)| (*id, grant))
    }

    /// A delegate.
    pub fn delegate(&self, id: AuthorId) -> Option<&DelegateView> {
        self.delegates.get(&id)
    }

    /// All delegates.
    pub fn delegates(&self) -> impl Iterator<Item = (AuthorId, &DelegateView)> {
        self.delegates.iter().map(|(id, delegate)| (*id, delegate))
    }

    /// The category of an epoch, where the patient's word for it is known: what is sealed, granted and renewed goes by it.
    pub fn category(&self, epoch: EpochId) -> Option<Category> {
        self.back_from(epoch, |epoch| epoch.category)
    }

    /// The category that an epoch is read as: the patient's word, or else that of the delegate who invited the one who looks.
    pub fn read_as(&self, epoch: EpochId) -> Option<Category> {
        self.category(epoch).or_else(|| self.back_from(epoch, |epoch| epoch.hint))
    }

    /// Goes back along the epochs that followed each other, until one says it. Epochs follow earlier ones only, so that this ends.
    fn back_from(&self, epoch: EpochId, said: impl Fn(&EpochView) -> Option<Category>) -> Option<Category> {
        let mut next = self.epochs.get(&epoch);
        while let Some(epoch) = next {
            let found = said(epoch);
            if found.is_some() {
                return found;
            }
            next = epoch.supersedes.and_then(|before| self.epochs.get(&before));
        }
        None
    }

    /// A grant.
    pub fn grant(&self, id: EheId) -> Option<&GrantView> {
        self.grants.get(&id)
    }

    /// The name that the patient gave to somebody, from the newest grant that has one.
    pub fn name_of(&self, author: AuthorId) -> Option<&str> {
        let named = self.grants.values().filter(|g| g.name.is_some() && g.subject.author_id() == author);
        named.max_by_key(|g| g.seq).and_then(|g| g.name.as_deref())
    }

    /// Where one's own last strand ended.
    pub fn own_strand(&self) -> Option<StrandEnd> {
        self.own_strand
    }

    /// The epoch of a category that content is sealed to now.
    pub fn current_epoch(&self, state: &RoomState, category: Category) -> Option<EpochId> {
        state
            .epochs
            .iter()
            .find(|(id, epoch)| epoch.superseded_by.is_none() && self.category(**id) == Some(category))
            .map(|(id, _)| *id)
    }

    /// The categories of some epochs, each once, in the order of their codes.
    pub fn categories_of<'a>(&self, epochs: impl IntoIterator<Item = &'a EpochId>) -> Vec<Category> {
        let mut categories: Vec<Category> = epochs.into_iter().filter_map(|id| self.read_as(*id)).collect();
        categories.sort_unstable();
        categories.dedup();
        categories
    }
}
