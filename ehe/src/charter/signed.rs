//! A charter with its members' signatures, and the chain from charter 1 to the newest.

use core::borrow::Borrow;

use minicbor::bytes::ByteVec;
use minicbor::{Decode, Encode};
use sha2::{Digest, Sha256};

use super::{CHAIN_MAX_BYTES, CHAIN_VERSIONS_MAX, Charter, CharterError, VerifiedCharter};
use crate::cbor;
use crate::cose::{self, Domain};
use crate::id::{AllianceId, AuthorId, Hash};
use crate::identity::Identity;
use crate::limits::{CHARTER_MAX_BYTES, MEMBERS_MAX};
use crate::sign::{SignedError, VerifyKey};

/// A COSE_Sign1 over a hash; ours has 135 bytes.
const SIGNATURE_MAX_BYTES: usize = 256;
/// Old and new members may sign.
const SIGNATURES_MAX: usize = 2 * MEMBERS_MAX;

/// A charter as it travels: its bytes, and COSE_Sign1 structures (domain [`Domain::Charter`]) over their SHA-256.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedCharter {
    pub(super) charter: Vec<u8>,
    pub(super) signatures: Vec<Vec<u8>>,
}

#[derive(Encode, Decode)]
#[cbor(map)]
struct Wire {
    #[n(0)]
    charter: ByteVec,
    #[n(1)]
    signatures: Vec<ByteVec>,
}

/// What a charter is verified against.
#[derive(Debug, Clone, Copy)]
pub enum Trust<'a> {
    /// Charter 1: the alliance id, from the device's configuration or from who installed it.
    Pinned(AllianceId),
    /// Any later charter: the one before it.
    Predecessor(&'a VerifiedCharter),
}

impl SignedCharter {
    /// A charter that nobody has signed yet. Refuses one that breaks its own rules.
    pub fn unsigned(charter: &Charter) -> Result<Self, CharterError> {
        charter.check()?;
        Ok(Self { charter: charter.to_bytes(), signatures: Vec::new() })
    }

    /// Adds a member's signature. Signing twice changes nothing. Whether the signer is a member shows when verifying.
    pub fn sign(&mut self, member: &Identity) -> Result<(), CharterError> {
        let signature = cose::sign(member, Domain::Charter, self.hash().0.to_vec());
        // Ed25519 is deterministic: the same member signs the same bytes.
        if self.signatures.contains(&signature) {
            return Ok(());
        }
        if self.signatures.len() >= SIGNATURES_MAX {
            return Err(too_many_signatures(self.signatures.len() + 1));
        }
        self.signatures.push(signature);
        Ok(())
    }

    /// SHA-256 of the charter's bytes. Of charter 1 it is the alliance id.
    pub fn hash(&self) -> Hash {
        Hash(Sha256::digest(&self.charter).into())
    }

    /// The charter, as somebody wrote it: well-formed, not verified. For showing it, and for finding its version.
    pub fn read(&self) -> Result<Charter, CharterError> {
        let charter: Charter = cbor::from_slice(&self.charter, CHARTER_MAX_BYTES)?;
        charter.check()?;
        Ok(charter)
    }

    /// Who claims to have signed.
    pub fn signers(&self) -> Result<Vec<AuthorId>, CharterError> {
        Ok(self.decoded_signatures()?.iter().map(cose::Unverified::signer).collect())
    }

    /// Encodes.
    pub fn encode(&self) -> Vec<u8> {
        let signatures = self.signatures.iter().cloned().map(ByteVec::from).collect();
        cbor::to_vec(&Wire { charter: self.charter.clone().into(), signatures })
    }

    /// Decodes at most [`CHARTER_MAX_BYTES`], without judging the charter.
    pub fn decode(bytes: &[u8]) -> Result<Self, CharterError> {
        let wire: Wire = cbor::from_slice(bytes, CHARTER_MAX_BYTES)?;
        if wire.signatures.len() > SIGNATURES_MAX {
            return Err(too_many_signatures(wire.signatures.len()));
        }
        let signatures = wire.signatures.into_iter().map(Vec::from).collect();
        Ok(Self { charter: wire.charter.into(), signatures })
    }

    /// Verifies: the charter keeps its own rules, follows what is trusted, and a majority of members signed it.
    ///
    /// Charter 1 is signed by a majority of its own members. A later one is signed by a majority of its *predecessor's*
    /// members; new members may sign too. A signature that does not verify, or a stranger's, refuses the whole.
    pub fn verify(&self, trust: Trust<'_>) -> Result<VerifiedCharter, CharterError> {
        let charter = self.read()?;
        let (alliance, voters) = match trust {
            Trust::Pinned(pin) => {
                if charter.version != 1 || self.hash().0 != pin.0 {
                    return Err(CharterError::OtherAlliance);
                }
                (pin, &charter.members)
            }
            Trust::Predecessor(before) => {
                let expected = before.version().saturating_add(1);
                if charter.version != expected {
                    return Err(CharterError::VersionSkip { expected, found: charter.version });
                }
                if charter.predecessor != Some(before.hash()) {
                    return Err(CharterError::OtherPredecessor);
                }
                if charter.shard_count != before.shard_count() {
                    let (before, after) = (before.shard_count().get(), charter.shard_count.get());
                    return Err(CharterError::ShardCountChanged { before, after });
                }
                if charter.rules() < before.rules() {
                    return Err(CharterError::RulesLowered { before: before.rules(), after: charter.rules() });
                }
                (before.alliance_id(), &before.charter().members)
            }
        };
        let voters: Vec<(AuthorId, VerifyKey)> =
            voters.iter().map(|m| (m.identity.author_id(), m.identity.sign)).collect();
        let others: Vec<(AuthorId, VerifyKey)> =
            charter.members.iter().map(|m| (m.identity.author_id(), m.identity.sign)).collect();
        let mut signed: Vec<AuthorId> = Vec::new();
        for signature in self.decoded_signatures()? {
            let signer = signature.signer();
            let key = voters.iter().chain(&others).find(|(author, _)| *author == signer);
            let (_, key) = key.ok_or(CharterError::Stranger(signer))?;
            signature.verify(Domain::Charter, key).map_err(CharterError::Signature)?;
            if signature.payload() != self.hash().as_bytes() {
                return Err(CharterError::Signature(SignedError::Limit("the signature is for another charter")));
            }
            if voters.iter().any(|(author, _)| *author == signer) && !signed.contains(&signer) {
                signed.push(signer);
            }
        }
        let needed = voters.len() / 2 + 1;
        if signed.len() < needed {
            return Err(CharterError::Quorum { signed: signed.len(), needed });
        }
        Ok(VerifiedCharter::proven(alliance, charter, self.clone()))
    }

    fn decoded_signatures(&self) -> Result<Vec<cose::Unverified>, CharterError> {
        let decode = |bytes: &Vec<u8>| cose::Unverified::decode(bytes, SIGNATURE_MAX_BYTES);
        Ok(self.signatures.iter().map(decode).collect::<Result<_, _>>()?)
    }
}

fn check_versions(found: usize) -> Result<(), CharterError> {
    let (what, most) = ("the number of versions in the chain", CHAIN_VERSIONS_MAX);
    if found > most { Err(CharterError::Limit { what, found, least: 1, most }) } else { Ok(()) }
}

/// Whether a chain of so many versions and bytes is one that [`CharterChain::decode`] takes.
pub(super) fn check_chain(versions: usize, found: usize) -> Result<(), CharterError> {
    check_versions(versions)?;
    let (what, most) = ("the size of the chain", CHAIN_MAX_BYTES);
    if found > most { Err(CharterError::Limit { what, found, least: 1, most }) } else { Ok(()) }
}

fn too_many_signatures(found: usize) -> CharterError {
    CharterError::Limit { what: "the number of signatures", found, least: 0, most: SIGNATURES_MAX }
}

/// All charters of an alliance from version 1 on: what the file `charter` holds, so that whoever pins the alliance id can
/// verify the newest one without asking anybody.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CharterChain(pub Vec<SignedCharter>);

impl CharterChain {
    /// Encodes: an array of byte strings, each an encoded [`SignedCharter`].
    pub fn encode(&self) -> Vec<u8> {
        let charters: Vec<ByteVec> = self.0.iter().map(|c| c.encode().into()).collect();
        cbor::to_vec(&charters)
    }

    /// Of charters that were verified.
    pub fn of<C: Borrow<VerifiedCharter>>(charters: &[C]) -> Self {
        Self(charters.iter().map(|charter| charter.borrow().signed().clone()).collect())
    }

    /// Whether it is no longer than what [`Self::decode`] takes, encoded.
    pub fn check_limits(&self) -> Result<(), CharterError> {
        check_chain(self.0.len(), self.encode().len())
    }

    /// Decodes at most [`CHAIN_MAX_BYTES`], without judging the charters.
    pub fn decode(bytes: &[u8]) -> Result<Self, CharterError> {
        let charters: Vec<ByteVec> = cbor::from_slice(bytes, CHAIN_MAX_BYTES)?;
        check_versions(charters.len())?;
        Ok(Self(charters.iter().map(|c| SignedCharter::decode(c)).collect::<Result<_, _>>()?))
    }

    /// The alliance that this chain claims to be of: the hash of its first charter.
    pub fn claimed_alliance(&self) -> Option<AllianceId> {
        self.0.first().map(|first| AllianceId(first.hash().0))
    }

    /// The first version of which another chain has another charter; `None` if one of them goes on where the other ends.
    pub fn parts_from(&self, other: &Self) -> Option<u32> {
        let mut both = (1..).zip(self.0.iter().zip(&other.0));
        both.find(|(_, (own, theirs))| own.hash() != theirs.hash()).map(|(version, _)| version)
    }

    /// Verifies every charter from the pinned first one on; the result is the newest.
    pub fn verify(&self, alliance: AllianceId) -> Result<VerifiedCharter, CharterError> {
        let (first, later) = self.0.split_first().ok_or(CharterError::EmptyChain)?;
        let first = first.verify(Trust::Pinned(alliance))?;
        later.iter().try_fold(first, |before, next| next.verify(Trust::Predecessor(&before)))
    }

    /// Verifies as [`Self::verify`]; the result are all of them, for what still stands under an earlier one. At least one.
    pub fn verify_each(&self, alliance: AllianceId) -> Result<Vec<VerifiedCharter>, CharterError> {
        let mut each: Vec<VerifiedCharter> = Vec::with_capacity(self.0.len());
        for signed in &self.0 {
            let next = signed.verify(each.last().map_or(Trust::Pinned(alliance), Trust::Predecessor))?;
            each.push(next);
        }
        if each.is_empty() { Err(CharterError::EmptyChain) } else { Ok(each) }
    }
}
