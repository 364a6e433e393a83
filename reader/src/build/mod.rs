//! Making the patient's control events. Pure: the room as it is, randomness and `now` go in, signed-to-be events come out.

mod create;
mod grant;
mod revoke;
#[cfg(test)]
mod tests;

pub use create::{NewRoom, create};
pub use grant::{Invitation, grant};
pub use revoke::{Revocation, grants_of_subject, revoke};

use ehe::control::{Control, ControlError, ControlLink, EpochCategory, EpochRecord, Private, SeedWrap};
use ehe::event::CheckedEvent;
use ehe::id::{EheId, EpochId, RoomId};
use ehe::identity::{Identity, Party, PublicIdentity};
use ehe::kem::{KemSecret, WrapError};
use ehe::limits;
use ehe::room::RoomState;
use ehe::time::UnixMs;
use ehe::vital::Category;
use getrandom::rand_core::CryptoRng;

use crate::keys::KeyError;

/// Why control events were not made.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The command asks for something that cannot be.
    #[error("{0}")]
    Usage(String),
    /// Only the patient makes control events.
    #[error("refused: only the patient whose room it is can do this")]
    NotThePatient,
    /// The event.
    #[error(transparent)]
    Control(#[from] ControlError),
    /// A wrap.
    #[error(transparent)]
    Wrap(#[from] WrapError),
    /// A group key of the room does not open for the patient.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The room has no current epoch of a category.
    #[error("the room has no current key epoch of category {0}")]
    NoEpoch(Category),
}

/// Control events that follow each other in the patient's sequence.
struct Draft<'a> {
    patient: &'a Identity,
    room: RoomId,
    link: ControlLink,
    now: UnixMs,
    events: Vec<CheckedEvent>,
}

impl<'a> Draft<'a> {
    fn continuing(state: &RoomState, patient: &'a Identity, now: UnixMs) -> Result<Self, BuildError> {
        if state.owner != patient.author_id() {
            return Err(BuildError::NotThePatient);
        }
        let link = ControlLink { seq: state.next_control, previous: state.last_control };
        Ok(Self { patient, room: state.room, link, now, events: Vec::new() })
    }

    /// Makes the next event. `control` must carry [`Draft::link`].
    fn push(
        &mut self,
        rng: &mut impl CryptoRng,
        control: &Control,
        private: Option<(&Private, &[Party<'_>])>,
    ) -> Result<EheId, BuildError> {
        let event = control.event(rng, self.room, self.patient.author_id(), self.now, private)?;
        let id = event.id();
        self.link = ControlLink { seq: self.link.seq + 1, previous: id };
        self.events.push(event);
        Ok(id)
    }

    /// A category's next epoch: its key is new, its seed goes to the patient and to the continuing readers.
    fn push_epoch(&mut self, rng: &mut impl CryptoRng, next: NextEpoch<'_>) -> Result<EpochId, BuildError> {
        if next.continues.len() > limits::WRAPS_PER_CONTROL_MAX
            || next.readers.len() + next.appenders.len() >= limits::WRAPS_PER_CONTROL_MAX
        {
            return Err(ControlError::Limit("more parties than a control event may have").into());
        }
        let mut epoch = EpochId::ZERO;
        rng.fill_bytes(&mut epoch.0);
        let key = KemSecret::generate(rng);
        let mut seeds = vec![SeedWrap::make(rng, self.room, epoch, self.patient.party(), key.seed())?];
        for reader in &next.readers {
            seeds.push(SeedWrap::make(rng, self.room, epoch, Party::of(reader), key.seed())?);
        }
        let record = EpochRecord {
            link: self.link,
            epoch,
            group_key: key.public(),
            supersedes: next.supersedes,
            continues: next.continues,
            seeds,
        };
        let categories = vec![EpochCategory { epoch, category: next.category }];
        let private = Private { categories, ..Private::default() };
        let mut parties = vec![self.patient.party()];
        parties.extend(next.readers.iter().chain(&next.appenders).map(|keys| Party::of(keys)));
        self.push(rng, &Control::Epoch(record), Some((&private, &parties)))?;
        Ok(epoch)
    }
}

/// What a category's next epoch is made of. Readers and appenders: each identity once, the patient not among them.
struct NextEpoch<'a> {
    category: Category,
    supersedes: Option<EpochId>,
    continues: Vec<EheId>,
    readers: Vec<&'a PublicIdentity>,
    /// Who appends and does not read: told the category, not the key.
    appenders: Vec<&'a PublicIdentity>,
}
