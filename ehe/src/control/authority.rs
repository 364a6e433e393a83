//! Authority records: whose keys, and whose word, count in a room (SPEC 8).

use minicbor::decode::Decoder;
use minicbor::encode::{Encoder, Write};
use minicbor::{Decode, Encode};

use super::{ControlLink, SeedWrap};
use crate::cbor;
use crate::cose::{self, Domain, Unverified};
use crate::id::{AuthorId, Hash, RoomId};
use crate::identity::{Identity, PublicIdentity};
use crate::limits;
use crate::time::UnixMs;

/// Changes who may speak for the room's owner.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Authority {
    /// Place in the room's sequence.
    #[n(0)]
    pub link: ControlLink,
    /// The change.
    #[n(1)]
    pub change: Change,
    /// Seeds of group keys, wrapped anew: to the owner's new keys, to a new recovery identity.
    #[n(2)]
    pub seeds: Vec<SeedWrap>,
}

/// What an authority record changes. An array, its number first.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(flat)]
pub enum Change {
    /// From this record on the owner's keys are these; the owner's author id stays.
    #[n(0)]
    Rotate(
        /// The new keys.
        #[n(0)]
        PublicIdentity,
        /// [`possession`] of them.
        #[cbor(n(1), with = "minicbor::bytes")]
        Vec<u8>,
    ),
    /// Somebody may do these things for the owner.
    #[n(1)]
    Delegate(
        /// Who.
        #[n(0)]
        PublicIdentity,
        /// What.
        #[n(1)]
        Rights,
        /// Until the ledger's time reaches this; none: until withdrawn.
        #[n(2)]
        Option<UnixMs>,
    ),
    /// Ends a delegation.
    #[n(2)]
    Withdraw(
        /// The delegate.
        #[n(0)]
        AuthorId,
    ),
    /// Commits the room to a recovery identity, where it has none.
    #[n(3)]
    SetRecovery(
        /// Its commitment ([`PublicIdentity::commitment`]).
        #[n(0)]
        Hash,
    ),
    /// By the recovery identity: gives the owner new keys.
    #[n(4)]
    Recover {
        /// Who signs this: the identity that the room is committed to.
        #[n(0)]
        recovery: PublicIdentity,
        /// The owner's keys from now on.
        #[n(1)]
        keys: PublicIdentity,
        /// [`possession`] of them.
        #[cbor(n(2), with = "minicbor::bytes")]
        possession: Vec<u8>,
        /// What the room is committed to from now on; zeros: to none.
        #[n(3)]
        next: Hash,
        /// What the owner's keys signed from this control event on is not the owner's; none: the keys were lost, not stolen.
        #[n(4)]
        distrusted_from: Option<u64>,
    },
    /// Nothing but the seeds and the sealed part: what did not fit the record before.
    #[n(5)]
    HandOver,
}

/// Rights that can be delegated, as a set. One unsigned integer in CBOR: grant 1, revoke 2, epoch 4.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rights(u8);

impl Rights {
    /// Make grants.
    pub const GRANT: Self = Self(1);
    /// End grants.
    pub const REVOKE: Self = Self(2);
    /// Publish group keys.
    pub const EPOCH: Self = Self(4);
    const KNOWN: u8 = 7;
    /// Each right and its name.
    pub const EACH: [(Self, &'static str); 3] =
        [(Self::GRANT, "grant"), (Self::REVOKE, "revoke"), (Self::EPOCH, "epoch")];

    /// The names of those that are held.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        Self::EACH.into_iter().filter(move |(right, _)| self.hold(*right)).map(|(_, name)| name)
    }

    /// These and those.
    pub fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether all of `other` are among them.
    pub fn hold(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

impl<C> Encode<C> for Rights {
    fn encode<W: Write>(&self, e: &mut Encoder<W>, _: &mut C) -> Result<(), minicbor::encode::Error<W::Error>> {
        e.u8(self.0)?.ok()
    }
}

impl<'b, C> Decode<'b, C> for Rights {
    fn decode(d: &mut Decoder<'b>, _: &mut C) -> Result<Self, minicbor::decode::Error> {
        match d.u8()? {
            bits @ 1..=Self::KNOWN => Ok(Self(bits)),
            _ => Err(minicbor::decode::Error::message("delegated rights are one or more of 1, 2 and 4")),
        }
    }
}

/// What the new keys sign: the room, and the place of the record that names them.
#[derive(Encode)]
#[cbor(map)]
struct Statement {
    #[n(0)]
    room: RoomId,
    #[n(1)]
    link: ControlLink,
}

/// Proof that who writes the record at `link` holds the keys that it names: without it a mistaken file would lock a patient out.
pub fn possession(keys: &Identity, room: RoomId, link: ControlLink) -> Vec<u8> {
    // The keys' own id, which binds the encryption key too, not that of the owner in whose place they come.
    let keys = keys.acting_as(keys.public().author_id());
    cose::sign(&keys, Domain::Possession, cbor::to_vec(&Statement { room, link }))
}

/// Whether `proof` is the [`possession`] of `keys`.
pub(crate) fn possesses(keys: &PublicIdentity, room: RoomId, link: ControlLink, proof: &[u8]) -> bool {
    Unverified::decode(proof, limits::POSSESSION_MAX_BYTES).is_ok_and(|cose| {
        cose.signer() == keys.author_id()
            && cose.payload() == cbor::to_vec(&Statement { room, link })
            && cose.verify(Domain::Possession, &keys.sign).is_ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::EheId;
    use crate::test_rng::rng;

    fn encoded(change: &Change) -> Vec<u8> {
        let bytes = cbor::to_vec(change);
        assert_eq!(cbor::from_slice::<Change>(&bytes, 4096).as_ref(), Ok(change));
        bytes
    }

    #[test]
    fn a_change_is_an_array_with_its_number_first_and_what_is_absent_at_its_end_is_left_out() {
        assert_eq!(encoded(&Change::HandOver), [0x81, 5]);
        let withdraw = encoded(&Change::Withdraw(AuthorId([7; 16])));
        assert_eq!(withdraw[..3], [0x82, 2, 0x50]);
        let keys = Identity::generate(&mut rng(1)).public().clone();
        let rights = Rights::GRANT.and(Rights::EPOCH);
        let endless = encoded(&Change::Delegate(keys.clone(), rights, None));
        assert_eq!((endless[0], endless.last()), (0x83, Some(&5)));
        let ending = encoded(&Change::Delegate(keys, rights, Some(UnixMs(1))));
        assert_eq!((ending[0], ending.last()), (0x84, Some(&1)));
    }

    #[test]
    fn rights_that_this_version_does_not_know_and_none_at_all_are_no_rights() {
        for bits in 1..=7 {
            assert!(cbor::from_slice::<Rights>(&[bits], 1).is_ok());
        }
        for bits in [0, 8, 9, 15] {
            assert!(cbor::from_slice::<Rights>(&[bits], 1).is_err(), "{bits}");
        }
        assert!(Rights::GRANT.and(Rights::REVOKE).hold(Rights::REVOKE));
        assert!(!Rights::GRANT.and(Rights::REVOKE).hold(Rights::EPOCH));
    }

    #[test]
    fn possession_is_proven_by_the_keys_themselves_for_one_place_of_one_room() {
        let (keys, other) = (Identity::generate(&mut rng(1)), Identity::generate(&mut rng(2)));
        let (room, link) = (RoomId([1; 16]), ControlLink { seq: 4, previous: EheId([2; 32]) });
        let proof = possession(&keys.acting_as(AuthorId([9; 16])), room, link);
        assert!(proof.len() <= limits::POSSESSION_MAX_BYTES);
        assert!(possesses(keys.public(), room, link, &proof));
        assert!(!possesses(other.public(), room, link, &proof));
        assert!(!possesses(keys.public(), RoomId([3; 16]), link, &proof));
        assert!(!possesses(keys.public(), room, ControlLink { seq: 5, ..link }, &proof));
        assert!(!possesses(keys.public(), room, link, &possession(&other, room, link)));
        let mixed = PublicIdentity { sign: keys.public().sign, kem: other.public().kem.clone() };
        assert!(!possesses(&mixed, room, link, &proof), "the encryption key is bound too");
        assert!(!possesses(keys.public(), room, link, &[]));
        let statement = cbor::to_vec(&Statement { room, link });
        let in_its_name = cose::sign(&other.acting_as(keys.author_id()), Domain::Possession, statement.clone());
        assert!(!possesses(keys.public(), room, link, &in_its_name), "by its name, not by its key");
        let of_another_kind = cose::sign(&keys, Domain::Enrolment, statement);
        assert!(!possesses(keys.public(), room, link, &of_another_kind));
    }
}
