//! Control events: what nodes judge stands in the plain part, what only the parties may know in the sealed part (SPEC 8).

mod authority;

pub(crate) use authority::possesses;
pub use authority::{Authority, Change, Rights, possession};

use minicbor::{Decode, Encode};
use rand_core::CryptoRng;
use zeroize::Zeroizing;

use crate::cbor::{self, CborError};
use crate::event::{CheckedEvent, Core, Event, Kind, Suite, VERSION};
use crate::id::{AllianceId, AuthorId, EheId, EpochId, Hash, Nonce, RoomId, WrapId};
use crate::identity::{Identity, Party, PublicIdentity};
use crate::kem::{self, KemPublic, Secret32, WrapError, WrapPurpose, Wrapped, random_secret};
use crate::limits;
use crate::seal::{self, OpenError, TooLong};
use crate::time::{Day, Hour, UnixMs};
use crate::vital::Category;

/// Place of a control event in the room's one sequence of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct ControlLink {
    /// 0 is room-create.
    #[n(0)]
    pub seq: u64,
    /// The control event before it.
    #[n(1)]
    pub previous: EheId,
}

/// Makes the room. The room's id is the hash of this part's bytes.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct RoomCreate {
    /// The alliance that the room is made for.
    #[n(0)]
    pub alliance: AllianceId,
    /// Chosen freely: lands the room in an allowed shard.
    #[n(1)]
    pub nonce: Nonce,
    /// The patient's first keys.
    #[n(2)]
    pub owner: PublicIdentity,
    /// Commits to the recovery identity ([`PublicIdentity::commitment`]); zeros if there is none.
    #[n(3)]
    pub recovery: Hash,
}

/// Publishes a group key.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct EpochRecord {
    /// Place in the room's sequence.
    #[n(0)]
    pub link: ControlLink,
    /// The new epoch.
    #[n(1)]
    pub epoch: EpochId,
    /// Public half of the group key.
    #[n(2)]
    pub group_key: KemPublic,
    /// The epoch of the same category that it follows.
    #[n(3)]
    pub supersedes: Option<EpochId>,
    /// Grants that go on in the new epoch.
    #[n(4)]
    pub continues: Vec<EheId>,
    /// The group key's seed, for the patient, the recovery identity and each continuing reader.
    #[n(5)]
    pub seeds: Vec<SeedWrap>,
}

/// A group key's seed, wrapped to one reader.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct SeedWrap {
    /// Epoch of the group key.
    #[n(0)]
    pub epoch: EpochId,
    /// Who can open it.
    #[n(1)]
    pub recipient: AuthorId,
    /// The wrap.
    #[n(2)]
    pub wrapped: Wrapped,
}

/// What a grant allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cbor(index_only)]
pub enum Right {
    /// Read content of the epochs.
    #[n(1)]
    Read,
    /// Append content to the epochs.
    #[n(2)]
    Append,
}

/// Lets an identity read or append.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Grant {
    /// Place in the room's sequence.
    #[n(0)]
    pub link: ControlLink,
    /// Who is invited.
    #[n(1)]
    pub subject: PublicIdentity,
    /// To what.
    #[n(2)]
    pub right: Right,
    /// In which epochs.
    #[n(3)]
    pub epochs: Vec<EpochId>,
    /// Readings of this hour and later; none: from the beginning.
    #[n(4)]
    pub from: Option<Hour>,
    /// Readings before this hour; none: without end.
    #[n(5)]
    pub until: Option<Hour>,
    /// The grant ends at this instant of the ledger's time; none: with its revocation.
    #[n(6)]
    pub expires: Option<UnixMs>,
    /// Seeds of the epochs' group keys, for readers.
    #[n(7)]
    pub seeds: Vec<SeedWrap>,
}

/// How a right ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(flat)]
pub enum Ending {
    /// From the revocation's commit on, everything is refused.
    #[n(0)]
    Cut,
    /// Append only: what was measured before the revocation is accepted until this instant.
    #[n(1)]
    DrainUntil(#[n(0)] UnixMs),
}

/// Ends a grant.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Revoke {
    /// Place in the room's sequence.
    #[n(0)]
    pub link: ControlLink,
    /// The grant.
    #[n(1)]
    pub grant: EheId,
    /// How.
    #[n(2)]
    pub ending: Ending,
}

/// An event key, wrapped once to its epoch's group key. Authored by an appender; the wrap id is its EHE id, truncated.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct WrapRecord {
    /// Epoch whose group key opens it.
    #[n(0)]
    pub epoch: EpochId,
    /// UTC day of the readings.
    #[n(1)]
    pub day: Day,
    /// The wrap.
    #[n(2)]
    pub wrapped: Wrapped,
}

/// The plain part of a control event, by kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Control {
    /// [`RoomCreate`].
    RoomCreate(RoomCreate),
    /// [`Authority`].
    Authority(Authority),
    /// [`EpochRecord`].
    Epoch(EpochRecord),
    /// [`Grant`].
    Grant(Grant),
    /// [`Revoke`].
    Revoke(Revoke),
    /// [`WrapRecord`].
    Wrap(WrapRecord),
}

/// The sealed part: what a node must not read. Each kind of control event fills what it needs.
#[derive(Debug, Clone, PartialEq, Eq, Default, Encode, Decode)]
#[cbor(map)]
pub struct Private {
    /// Which category each epoch is.
    #[n(0)]
    pub categories: Vec<EpochCategory>,
    /// For what purpose a grant is given, or why it ended.
    #[n(1)]
    pub purpose: Option<String>,
    /// The party's name as the patient wrote it.
    #[n(2)]
    pub name: Option<String>,
    /// The room's recovery identity, for whoever wraps keys to it. The room's commitment says whether it is the one.
    #[n(3)]
    pub recovery: Option<PublicIdentity>,
    /// For the owner's new keys: what earlier sealed parts said of grants.
    #[n(4)]
    pub notes: Option<Vec<GrantNote>>,
}

/// What the sealed part of a grant said.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct GrantNote {
    /// The grant.
    #[n(0)]
    pub grant: EheId,
    /// Its purpose.
    #[n(1)]
    pub purpose: Option<String>,
    /// The party's name.
    #[n(2)]
    pub name: Option<String>,
}

/// Category of an epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct EpochCategory {
    /// The epoch.
    #[n(0)]
    pub epoch: EpochId,
    /// Its category.
    #[n(1)]
    pub category: Category,
}

#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
struct Body {
    #[cbor(n(0), with = "minicbor::bytes")]
    plain: Vec<u8>,
    #[cbor(n(1), with = "minicbor::bytes")]
    sealed: Option<Vec<u8>>,
    #[n(2)]
    parties: Vec<PartKey>,
}

#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
struct PartKey {
    #[n(0)]
    recipient: AuthorId,
    #[n(1)]
    wrapped: Wrapped,
}

/// Why a control event was not made, or not understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ControlError {
    /// Not the encoding of its kind. The author's fault.
    #[error("control body: {0}")]
    Cbor(#[from] CborError),
    /// The kind is no control event, or its rules are not written yet.
    #[error("not a control event that this version knows")]
    Kind,
    /// More than the format allows.
    #[error("{0}")]
    Limit(&'static str),
    /// The sealed part does not fit.
    #[error(transparent)]
    TooLong(#[from] TooLong),
    /// A wrap was not made or does not open.
    #[error(transparent)]
    Wrap(#[from] WrapError),
    /// The sealed part does not open.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The sealed part is not meant for this identity.
    #[error("the sealed part is not meant for this identity")]
    NotAParty,
}

impl Control {
    /// The event's kind.
    pub fn kind(&self) -> Kind {
        match self {
            Self::RoomCreate(_) => Kind::RoomCreate,
            Self::Authority(_) => Kind::Authority,
            Self::Epoch(_) => Kind::Epoch,
            Self::Grant(_) => Kind::Grant,
            Self::Revoke(_) => Kind::Revoke,
            Self::Wrap(_) => Kind::Wrap,
        }
    }

    /// The plain part's bytes.
    pub fn plain_bytes(&self) -> Vec<u8> {
        match self {
            Self::RoomCreate(c) => cbor::to_vec(c),
            Self::Authority(c) => cbor::to_vec(c),
            Self::Epoch(c) => cbor::to_vec(c),
            Self::Grant(c) => cbor::to_vec(c),
            Self::Revoke(c) => cbor::to_vec(c),
            Self::Wrap(c) => cbor::to_vec(c),
        }
    }

    /// Place in the room's sequence, for the kinds that have one.
    pub fn link(&self) -> Option<ControlLink> {
        match self {
            Self::RoomCreate(_) => Some(ControlLink { seq: 0, previous: EheId::ZERO }),
            Self::Authority(c) => Some(c.link),
            Self::Epoch(c) => Some(c.link),
            Self::Grant(c) => Some(c.link),
            Self::Revoke(c) => Some(c.link),
            Self::Wrap(_) => None,
        }
    }

    /// Reads the plain part of a control event and checks its counts.
    pub fn decode(event: &CheckedEvent) -> Result<Self, ControlError> {
        // A kind without rules has no form that could be judged either.
        let known = [Kind::RoomCreate, Kind::Authority, Kind::Epoch, Kind::Grant, Kind::Revoke, Kind::Wrap];
        if !known.contains(&event.core().kind) {
            return Err(ControlError::Kind);
        }
        let body: Body = cbor::from_slice(event.body(), limits::CONTROL_BODY_MAX_BYTES)?;
        if body.parties.len() > limits::WRAPS_PER_CONTROL_MAX {
            return Err(ControlError::Limit("more parties than a control event may have"));
        }
        let plain = body.plain.as_slice();
        let limit = limits::CONTROL_BODY_MAX_BYTES;
        let control = match event.core().kind {
            Kind::RoomCreate => Self::RoomCreate(cbor::from_slice(plain, limit)?),
            Kind::Authority => Self::Authority(cbor::from_slice(plain, limit)?),
            Kind::Epoch => Self::Epoch(cbor::from_slice(plain, limit)?),
            Kind::Grant => Self::Grant(cbor::from_slice(plain, limit)?),
            Kind::Revoke => Self::Revoke(cbor::from_slice(plain, limit)?),
            Kind::Wrap => Self::Wrap(cbor::from_slice(plain, limit)?),
            _ => return Err(ControlError::Kind),
        };
        match &control {
            Self::Epoch(c)
                if c.seeds.len() > limits::WRAPS_PER_CONTROL_MAX
                    || c.continues.len() > limits::WRAPS_PER_CONTROL_MAX =>
            {
                Err(ControlError::Limit("more readers than an epoch record may have"))
            }
            Self::Grant(c)
                if c.epochs.len() > limits::EPOCHS_PER_GRANT_MAX || c.seeds.len() > limits::EPOCHS_PER_GRANT_MAX =>
            {
                Err(ControlError::Limit("more epochs than a grant may name"))
            }
            Self::Authority(c) if c.seeds.len() > limits::WRAPS_PER_CONTROL_MAX => {
                Err(ControlError::Limit("more seeds than an authority record may have"))
            }
            _ => Ok(control),
        }
    }

    /// Makes the event. `private`, if given, is sealed to the parties; name the author too, or they cannot read it again.
    pub fn event(
        &self,
        rng: &mut impl CryptoRng,
        room: RoomId,
        author: AuthorId,
        now: UnixMs,
        private: Option<(&Private, &[Party<'_>])>,
    ) -> Result<CheckedEvent, ControlError> {
        let mut salt = Nonce::ZERO;
        rng.fill_bytes(&mut salt.0);
        let room = if matches!(self, Self::RoomCreate(_)) { RoomId::ZERO } else { room };
        let core = Core {
            version: VERSION,
            suite: Suite::One,
            kind: self.kind(),
            room,
            author,
            epoch: EpochId::ZERO,
            wrap: WrapId::ZERO,
            hour: now.hour(),
            salt,
        };
        let mut body = Body { plain: self.plain_bytes(), sealed: None, parties: Vec::new() };
        let mut commitment = Hash::ZERO;
        if let Some((private, parties)) = private {
            if parties.len() > limits::WRAPS_PER_CONTROL_MAX {
                return Err(ControlError::Limit("more parties than a control event may have"));
            }
            private.check()?;
            let key = random_secret(rng);
            let (part_commitment, sealed) = seal::seal_part(&key, &core, &Zeroizing::new(cbor::to_vec(private)))?;
            commitment = part_commitment;
            body.sealed = Some(sealed);
            for party in parties {
                let recipient = party.id;
                let purpose = WrapPurpose::ControlPart { room, author, salt, recipient };
                body.parties.push(PartKey { recipient, wrapped: kem::wrap(rng, &party.keys.kem, &purpose, &key)? });
            }
        }
        let body = cbor::to_vec(&body);
        if body.len() > limits::CONTROL_BODY_MAX_BYTES {
            return Err(ControlError::Limit("the control event is too large"));
        }
        Ok(Event::assemble(core, commitment, body))
    }
}

impl Private {
    /// What this sealed part of `event` says of categories that counts (K5): a delegate's word could have readings sealed to a key
    /// that is not meant for them. Records of authority are the owner's or, with its rank, the recovery identity's alone.
    pub fn categories_told(&self, event: &CheckedEvent, owner: AuthorId) -> &[EpochCategory] {
        let core = event.core();
        if core.author == owner || core.kind == Kind::Authority { &self.categories } else { &[] }
    }

    fn check(&self) -> Result<(), ControlError> {
        let too_long = |text: &Option<String>| text.as_ref().is_some_and(|t| t.len() > limits::LABEL_MAX_BYTES);
        let notes = self.notes.as_deref().unwrap_or_default();
        if self.categories.len() > limits::EPOCHS_PER_GRANT_MAX
            || notes.len() > limits::EPOCHS_PER_GRANT_MAX
            || too_long(&self.purpose)
            || too_long(&self.name)
            || notes.iter().any(|note| too_long(&note.purpose) || too_long(&note.name))
        {
            return Err(ControlError::Limit("a member of the sealed part is too long"));
        }
        Ok(())
    }

    /// Opens the sealed part of a control event as one of its parties. `Ok(None)`: the event has none.
    pub fn open(event: &CheckedEvent, identity: &Identity) -> Result<Option<Self>, ControlError> {
        let body: Body = cbor::from_slice(event.body(), limits::CONTROL_BODY_MAX_BYTES)?;
        let Some(sealed) = body.sealed else { return Ok(None) };
        let recipient = identity.author_id();
        let part = body.parties.iter().find(|p| p.recipient == recipient).ok_or(ControlError::NotAParty)?;
        let core = event.core();
        let purpose = WrapPurpose::ControlPart { room: core.room, author: core.author, salt: core.salt, recipient };
        let key = kem::unwrap(identity.kem_secret(), &purpose, &part.wrapped)?;
        let plain = seal::open_body(&key, core, event.header().commitment, &sealed)?;
        let private: Self = cbor::from_slice(&plain, limits::CONTROL_BODY_MAX_BYTES)?;
        private.check()?;
        Ok(Some(private))
    }
}

impl RoomCreate {
    /// SHA-256 of the plain body, truncated to 16 bytes.
    pub fn room_id(&self) -> RoomId {
        RoomId::truncated(&crate::event::sha256(&cbor::to_vec(self)).0)
    }
}

impl SeedWrap {
    /// Wraps a group key's seed to a reader.
    pub fn make(
        rng: &mut impl CryptoRng,
        room: RoomId,
        epoch: EpochId,
        to: Party<'_>,
        seed: &Secret32,
    ) -> Result<Self, WrapError> {
        let recipient = to.id;
        let wrapped = kem::wrap(rng, &to.keys.kem, &WrapPurpose::GroupSeed { room, epoch, recipient }, seed)?;
        Ok(Self { epoch, recipient, wrapped })
    }

    /// Opens the seed that was wrapped to this identity.
    pub fn open(&self, identity: &Identity, room: RoomId) -> Result<Secret32, WrapError> {
        let purpose = WrapPurpose::GroupSeed { room, epoch: self.epoch, recipient: identity.author_id() };
        kem::unwrap(identity.kem_secret(), &purpose, &self.wrapped)
    }
}
