//! Making control events, as the patient or a delegate. Pure: the room as it is, randomness and `now` go in, signed-to-be events
//! come out.

mod authority;
mod create;
mod grant;
mod hand_over;
mod renew;
mod revoke;
#[cfg(test)]
mod tests;

pub use authority::{
    Completed, Delegated, KeyChange, Recovery, complete_recovery, delegate, may_become_patients, may_recover,
    may_rotate, may_set_recovery, recover, rotate, set_recovery, withdraw,
};
pub use create::{NewRoom, RoomPlan, create, has_shard};
pub use grant::{Invitation, grant};
pub use hand_over::hand_over;
pub use renew::{Renewal, renew};
pub use revoke::{Revocation, grants_of_subject, nothing_to_end, revoke, still_appending};

use ehe::control::{Control, ControlError, ControlLink, EpochCategory, EpochRecord, Private, Rights, SeedWrap};
use ehe::event::CheckedEvent;
use ehe::id::{AuthorId, EheId, EpochId, RoomId};
use ehe::identity::{Identity, Party, PublicIdentity};
use ehe::kem::{KemSecret, WrapError};
use ehe::limits;
use ehe::refusal::Refusal;
use ehe::room::RoomState;
use ehe::time::UnixMs;
use ehe::vital::Category;
use getrandom::rand_core::CryptoRng;

use crate::keys::KeyError;
use crate::view::RoomView;
use crate::when;

/// Why control events were not made.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The command asks for something that cannot be.
    #[error("{0}")]
    Usage(String),
    /// Only the patient, or a delegate, makes control events.
    #[error("refused: only the patient whose room it is can do this")]
    NotThePatient,
    /// The room's rules would not allow it.
    #[error("refused: {0}")]
    Refused(Refusal),
    /// The right to do it in the patient's name was not delegated, or not any more.
    #[error(
        "refused: {}; ask the patient for it: `ehe authority delegate --room {room} --to FILE --may {may}` (FILE: this identity's identity.pub{})",
        lacking(*.why, .right),
        if *.replaces { "; it replaces the delegation that there is: where that has a --name, name it again" } else { "" }
    )]
    NotDelegated {
        /// Why not.
        why: Refusal,
        /// The name of the right that is lacking.
        right: String,
        /// The room.
        room: RoomId,
        /// What to ask for: the rights and the end of the delegation that would be replaced, and the right that is lacking.
        may: String,
        /// Whether it would replace one.
        replaces: bool,
    },
    /// A delegate would let others read what it may not read itself.
    #[error(
        "refused: a delegate lets nobody read what it may not read itself, nor for longer, which here is {categories}; ask the patient for it: \
         `ehe grant --room {room} --to FILE --read {categories}{}` (FILE: this identity's identity.pub), with --from, --until and --expires no narrower than here",
        if *.history { " --history" } else { "" }
    )]
    BeyondOwn {
        /// The room.
        room: RoomId,
        /// The categories' names.
        categories: String,
        /// Whether their earlier keys are wanted.
        history: bool,
    },
    /// What is to be ended has ended, or never was.
    #[error("nothing was changed: {0}")]
    NothingToEnd(String),
    /// Keys that are somebody in the room already cannot become its patient's (SPEC A14).
    #[error(
        "refused: room {room} knows these keys already, as {known}: they cannot become its patient's. Make new ones: \
         `ehe --home DIR identity new --role patient`"
    )]
    KnownKeys {
        /// The room.
        room: RoomId,
        /// As whose.
        known: &'static str,
    },
    /// The event.
    #[error(transparent)]
    Control(#[from] ControlError),
    /// A wrap.
    #[error(transparent)]
    Wrap(#[from] WrapError),
    /// A group key of the room does not open for the one who would hand it on.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The room has no current epoch of a category.
    #[error("the room has no current key epoch of category {0}, or it was not told to this identity")]
    NoEpoch(Category),
}

fn lacking(why: Refusal, right: &str) -> String {
    match why {
        Refusal::NotOwner => {
            format!("only the patient may do this, or whom the patient has given the right to it ({right})")
        }
        Refusal::NotDelegated => format!("the patient has not delegated the right to this ({right}) to this identity"),
        why => why.to_string(),
    }
}

impl BuildError {
    /// The error for somebody who may not do what takes `right`.
    fn not_delegated(why: Refusal, state: &RoomState, me: AuthorId, right: Rights, now: UnixMs) -> Self {
        let held = state.delegations.get(&me).filter(|delegation| delegation.is_live(now));
        let may = held.map_or(right, |delegation| delegation.rights.and(right));
        let named = |rights: Rights| rights.names().collect::<Vec<_>>().join(",");
        let expires = held.and_then(|held| held.expires).map(|end| format!(" --expires {}", when::shown(end)));
        let may = named(may) + &expires.unwrap_or_default();
        Self::NotDelegated { why, right: named(right), room: state.room, may, replaces: held.is_some() }
    }
}

impl From<Refusal> for BuildError {
    fn from(refusal: Refusal) -> Self {
        if refusal == Refusal::NotOwner { Self::NotThePatient } else { Self::Refused(refusal) }
    }
}

/// Control events that follow each other in the room's sequence.
struct Draft<'a> {
    /// Who makes them, as the room names it.
    me: &'a Identity,
    owner: Party<'a>,
    recovery: Option<&'a PublicIdentity>,
    room: RoomId,
    link: ControlLink,
    now: UnixMs,
    events: Vec<CheckedEvent>,
}

impl<'a> Draft<'a> {
    /// Goes on in a room where `me` is the patient, or a delegate who has the right.
    fn continuing(
        state: &RoomState,
        view: &'a RoomView,
        me: &'a Identity,
        right: Rights,
        now: UnixMs,
    ) -> Result<Self, BuildError> {
        state
            .may_for_owner(me.author_id(), right, now)
            .map_err(|why| BuildError::not_delegated(why, state, me.author_id(), right, now))?;
        Self::of(state, view, me, now)
    }

    /// Goes on in a room of one's own.
    fn owners(state: &RoomState, view: &'a RoomView, me: &'a Identity, now: UnixMs) -> Result<Self, BuildError> {
        if state.owner != me.author_id() {
            return Err(BuildError::NotThePatient);
        }
        Self::of(state, view, me, now)
    }

    fn of(state: &RoomState, view: &'a RoomView, me: &'a Identity, now: UnixMs) -> Result<Self, BuildError> {
        let owner = view.owner(state).ok_or(BuildError::NotThePatient)?;
        let link = ControlLink { seq: state.next_control, previous: state.last_control };
        Ok(Self { me, owner, recovery: view.recovery(state), room: state.room, link, now, events: Vec::new() })
    }

    /// Who can read everything: the patient and the recovery identity.
    fn keepers(&self) -> Vec<Party<'a>> {
        [self.owner].into_iter().chain(self.recovery.map(Party::of)).collect()
    }

    /// Parties of a sealed part: the keepers, whoever makes the event, and `others`, each once.
    fn parties<'b>(&self, others: impl IntoIterator<Item = Party<'b>>) -> Vec<Party<'b>>
    where
        'a: 'b,
    {
        let mut parties: Vec<Party<'b>> = self.keepers();
        for party in [self.me.party()].into_iter().chain(others) {
            if !parties.iter().any(|known| known.id == party.id) {
                parties.push(party);
            }
        }
        parties
    }

    /// Makes the next event. `control` must carry [`Draft::link`].
    fn push(
        &mut self,
        rng: &mut impl CryptoRng,
        control: &Control,
        private: Option<(&Private, &[Party<'_>])>,
    ) -> Result<EheId, BuildError> {
        let event = control.event(rng, self.room, self.me.author_id(), self.now, private)?;
        let id = event.id();
        self.link = ControlLink { seq: self.link.seq + 1, previous: id };
        self.events.push(event);
        Ok(id)
    }

    /// A category's next epoch: its key is new, its seed goes to the patient, the recovery identity and the continuing readers.
    fn push_epoch(&mut self, rng: &mut impl CryptoRng, next: NextEpoch<'_>) -> Result<EpochId, BuildError> {
        let readers = self.keepers().into_iter().chain(next.readers.iter().copied().map(Party::of)).collect::<Vec<_>>();
        let told = next.readers.iter().chain(&next.appenders).copied().map(Party::of).collect::<Vec<_>>();
        let parties = self.parties(told.iter().copied());
        if next.continues.len() > limits::WRAPS_PER_CONTROL_MAX || parties.len() > limits::WRAPS_PER_CONTROL_MAX {
            return Err(ControlError::Limit("more parties than a control event may have").into());
        }
        let mut epoch = EpochId::ZERO;
        rng.fill_bytes(&mut epoch.0);
        let key = KemSecret::generate(rng);
        let mut seeds = Vec::with_capacity(readers.len());
        for reader in readers {
            seeds.push(SeedWrap::make(rng, self.room, epoch, reader, key.seed())?);
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
    /// Who does not read: told the category, not the key.
    appenders: Vec<&'a PublicIdentity>,
}
