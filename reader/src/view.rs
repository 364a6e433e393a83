//! What a room's control records mean to the one who follows them: epochs, categories, seeds, names.
//!
//! The rules' state ([`ehe::room::RoomState`]) says who may do what and is the same for everybody. This is the other half: what
//! only the parties can open. It learns from verified events only.

use std::collections::BTreeMap;

use ehe::control::{Control, Private, SeedWrap};
use ehe::event::CheckedEvent;
use ehe::id::{AuthorId, EheId, EpochId};
use ehe::identity::{Identity, PublicIdentity};
use ehe::kem::KemPublic;
use ehe::room::RoomState;
use ehe::run::{Run, StrandEnd};
use ehe::vital::Category;

/// A key epoch as its record and the sealed parts show it.
#[derive(Debug, Clone)]
pub struct EpochView {
    /// Public half of the group key.
    pub group_key: KemPublic,
    /// Its category, where a sealed part told it.
    pub category: Option<Category>,
    /// The group key's seed, wrapped to the one who looks.
    pub seed: Option<SeedWrap>,
}

/// A grant as its record and its sealed part show it.
#[derive(Debug, Clone)]
pub struct GrantView {
    /// Place in the patient's sequence.
    pub seq: u64,
    /// Who was invited.
    pub subject: PublicIdentity,
    /// The party's name as the patient wrote it, where readable.
    pub name: Option<String>,
    /// The purpose as the patient wrote it, where readable.
    pub purpose: Option<String>,
}

/// What the control records of one room mean to one identity.
#[derive(Debug, Clone, Default)]
pub struct RoomView {
    epochs: BTreeMap<EpochId, EpochView>,
    grants: BTreeMap<EheId, GrantView>,
    name: Option<String>,
    own_strand: Option<StrandEnd>,
}

impl RoomView {
    /// Learns from a control event that was verified.
    pub fn learn(&mut self, event: &CheckedEvent, me: &Identity) {
        let Ok(control) = Control::decode(event) else { return };
        // Not being a party is the ordinary case; a part that names us and does not open tells us nothing either.
        let private = Private::open(event, me).ok().flatten().unwrap_or_default();
        match control {
            Control::RoomCreate(_) => self.name = private.name,
            Control::Epoch(record) => {
                let seed = record.seeds.into_iter().find(|s| s.recipient == me.author_id() && s.epoch == record.epoch);
                self.epochs.insert(record.epoch, EpochView { group_key: record.group_key, category: None, seed });
                self.learn_categories(&private);
            }
            Control::Grant(grant) => {
                for seed in grant.seeds.into_iter().filter(|s| s.recipient == me.author_id()) {
                    if let Some(epoch) = self.epochs.get_mut(&seed.epoch) {
                        epoch.seed.get_or_insert(seed);
                    }
                }
                self.learn_categories(&private);
                let Private { name, purpose, .. } = private;
                let view = GrantView { seq: grant.link.seq, subject: grant.subject, name, purpose };
                self.grants.insert(event.id(), view);
            }
            Control::Authority(_) | Control::Revoke(_) | Control::Wrap(_) => {}
        }
    }

    /// Learns where one's own strand ended, so that the next one can say so.
    pub fn learn_run(&mut self, run: &Run, me: AuthorId) {
        if run.author == me {
            self.own_strand = Some(run.end());
        }
    }

    fn learn_categories(&mut self, private: &Private) {
        for told in &private.categories {
            if let Some(epoch) = self.epochs.get_mut(&told.epoch) {
                epoch.category.get_or_insert(told.category);
            }
        }
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

    /// The category of an epoch, where known.
    pub fn category(&self, epoch: EpochId) -> Option<Category> {
        self.epochs.get(&epoch).and_then(|e| e.category)
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
        let mut categories: Vec<Category> = epochs.into_iter().filter_map(|id| self.category(*id)).collect();
        categories.sort_unstable();
        categories.dedup();
        categories
    }
}
