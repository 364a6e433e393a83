//! A credentials directory: everything that a program needs to be somebody in an alliance.
//!
//! | file | holds | comes from |
//! |---|---|---|
//! | `identity.json` | both secret seeds of the identity, 0600; protected by a passphrase where a person holds it | `enrol::prepare` |
//! | `identity.pub` | its public half | `enrol::prepare` |
//! | `channel.key` | the channel's private key, PKCS #8 PEM, 0600 | `enrol::prepare` |
//! | `request.json` | the enrolment request | `enrol::prepare` |
//! | `channel.crt` | the channel's certificate, PEM | the authority |
//! | `ca.crt` | the authority's certificate, PEM | the authority |
//! | `charter` | all charters of the alliance, CBOR | the members |
//! | `crl.pem` | revoked certificates; enforced where the file is there | the authority |
//!
//! Who puts `ca.crt` and `charter` into the directory decides whom the program trusts. A program whose configuration pins an
//! alliance id holds the directory against it with [`Credentials::expect_alliance`].

use std::path::{Path, PathBuf};
use std::sync::Arc;

use ehe::charter::{CHAIN_MAX_BYTES, CharterChain, CharterError, VerifiedCharter};
use ehe::id::{AllianceId, AuthorId};
use ehe::identity::Identity;
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PublicKeyData};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use x509_parser::prelude::{FromDer, X509Certificate};
use zeroize::{Zeroize, Zeroizing};

use crate::authority::is_key_of;
use crate::certificate::Facts;
use crate::crl::Revocations;
use crate::file::{self, FileError, SMALL_FILE_MAX_BYTES};
use crate::identity_file;
use crate::passphrase::Source;
use crate::peer::{PeerError, PeerIdentity};

/// Names of the files, in a credentials directory and in an authority's.
pub mod names {
    /// Secret identity.
    pub const IDENTITY: &str = "identity.json";
    /// Public identity.
    pub const IDENTITY_PUBLIC: &str = "identity.pub";
    /// Private key of the channel.
    pub const CHANNEL_KEY: &str = "channel.key";
    /// Enrolment request.
    pub const REQUEST: &str = "request.json";
    /// Certificate of the channel.
    pub const CHANNEL: &str = "channel.crt";
    /// Certificate of the authority.
    pub const CA: &str = "ca.crt";
    /// Chain of charters.
    pub const CHARTER: &str = "charter";
    /// Certificate revocation list.
    pub const CRL: &str = "crl.pem";
    /// Private key of the authority.
    pub const CA_KEY: &str = "ca.key";
    /// What the authority has issued.
    pub const ISSUED: &str = "issued.jsonl";
    /// What the authority has revoked.
    pub const REVOKED: &str = "revoked.json";

    pub(crate) const REMEDY_PREPARE: &str =
        "it is made together with the identity by `ehe identity new` or `ehe-certs identity new`";
}

const REMEDY_ISSUED: &str =
    "send `request.json` to the alliance's authority (`ehe-certs issue`) and put its answer here";
const REMEDY_CHARTER: &str = "get the alliance's signed charter from a member (`ehe-certs install`) and put it here";

/// Why a credentials directory cannot be used. Each text names the file and the remedy.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A file is missing, damaged, or open to others.
    #[error(transparent)]
    File(#[from] FileError),
    /// There is no such directory.
    #[error("{} is not there: name the directory that holds the credentials (in a configuration: `credentials_dir`)", .0.display())]
    NoDirectory(PathBuf),
    /// The certificate names no peer.
    #[error("{}: {source}: have it issued again", .path.display())]
    Certificate {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: PeerError,
    },
    /// The certificate is for another identity than the one beside it.
    #[error("{} names {named}, the identity beside it is {own}: these files are of different directories", .path.display())]
    OtherIdentity {
        /// The certificate's file.
        path: PathBuf,
        /// Whom it names.
        named: PeerIdentity,
        /// Whom the identity is in that role.
        own: PeerIdentity,
    },
    /// The certificate is for another channel key than the one beside it.
    #[error("{} is not the certificate of channel.key beside it: have one issued for the current `request.json`", .0.display())]
    OtherKey(PathBuf),
    /// The certificate is of another authority than the one beside it.
    #[error("{} was not issued by the authority of ca.crt beside it: get both from the same alliance", .0.display())]
    OtherAuthority(PathBuf),
    /// The charter is not accepted.
    #[error("{}: {source}{}", .path.display(), remedy(.source))]
    Charter {
        /// The file.
        path: PathBuf,
        /// Why.
        source: CharterError,
    },
    /// The charter is of another alliance than the one that is pinned.
    #[error("{} is of alliance {found}, configured is {pinned}: check where both come from", .path.display())]
    OtherAlliance {
        /// The file.
        path: PathBuf,
        /// The alliance of the file.
        found: AllianceId,
        /// The alliance that is pinned.
        pinned: AllianceId,
    },
}

/// What to do about a file that is no chain of charters; what is wrong with one that is, its members mend.
fn remedy(source: &CharterError) -> &'static str {
    match source {
        CharterError::Cbor(_) => {
            "; the file is torn or something else: get the charter again from a member, or name the file that `ehe-certs charter new` wrote"
        }
        _ => "",
    }
}

/// The channel's private key; our copy of it is cleared when it goes. rustls keeps one of its own in each endpoint.
pub(crate) struct ChannelKey(PrivateKeyDer<'static>);

impl ChannelKey {
    /// A copy, for a TLS configuration to keep.
    pub(crate) fn for_tls(&self) -> PrivateKeyDer<'static> {
        self.0.clone_key()
    }
}

impl Drop for ChannelKey {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

/// The TLS side of a credentials directory.
pub(crate) struct ChannelFiles {
    pub(crate) chain: Vec<CertificateDer<'static>>,
    pub(crate) key: ChannelKey,
    pub(crate) authority: CertificateDer<'static>,
    pub(crate) revocations: Option<Revocations>,
}

impl ChannelFiles {
    /// Whether a channel that is set up with one is a channel that is set up with the other.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        let Self { chain, key, authority, revocations } = self;
        *chain == other.chain
            && key.0.secret_der() == other.key.0.secret_der()
            && *authority == other.authority
            && *revocations == other.revocations
    }
}

struct Inner {
    dir: PathBuf,
    identity: Identity,
    peer: PeerIdentity,
    facts: Facts,
    channel: Arc<ChannelFiles>,
    charter: VerifiedCharter,
    chain: CharterChain,
}

/// A credentials directory that was read and whose files belong together. Cheap to clone.
#[derive(Clone)]
pub struct Credentials(Arc<Inner>);

impl core::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Credentials({} in {})", self.0.peer, self.0.dir.display())
    }
}

impl Credentials {
    /// Reads a directory. Whether its certificate is still valid is for the peer to say, whose clock may be the better one.
    /// Asks nobody: an identity that a passphrase protects is refused.
    pub fn load(dir: &Path) -> Result<Self, StoreError> {
        Self::open(dir, &Source::Nobody)
    }

    /// As [`Credentials::load`], with a passphrase where the identity is protected by one.
    pub fn open(dir: &Path, passphrase: &Source) -> Result<Self, StoreError> {
        if dir.try_exists().is_ok_and(|is_there| !is_there) {
            return Err(StoreError::NoDirectory(dir.into()));
        }
        let identity = identity_file::open(&dir.join(names::IDENTITY), passphrase)?;
        Self::of(dir, identity)
    }

    pub(crate) fn of(dir: &Path, identity: Identity) -> Result<Self, StoreError> {
        let (channel, facts) = load_channel(dir, identity.author_id())?;
        let (charter, chain) = load_charter(&dir.join(names::CHARTER))?;
        let channel = Arc::new(channel);
        Ok(Self(Arc::new(Inner { dir: dir.into(), identity, peer: facts.peer, facts, channel, charter, chain })))
    }

    /// The same under other charters of the alliance.
    pub(crate) fn under(&self, charter: VerifiedCharter, chain: CharterChain) -> Self {
        let Inner { dir, identity, peer, facts, channel, .. } = &*self.0;
        let (dir, identity, facts, channel) = (dir.clone(), identity.clone(), facts.clone(), Arc::clone(channel));
        Self(Arc::new(Inner { dir, identity, peer: *peer, facts, channel, charter, chain }))
    }

    /// The directory.
    pub fn dir(&self) -> &Path {
        &self.0.dir
    }

    /// The identity, with its secrets.
    pub fn identity(&self) -> &Identity {
        &self.0.identity
    }

    /// Who this is on channels.
    pub fn peer(&self) -> PeerIdentity {
        self.0.peer
    }

    /// What the channel's certificate says.
    pub fn certificate(&self) -> &Facts {
        &self.0.facts
    }

    /// The newest charter.
    pub fn charter(&self) -> &VerifiedCharter {
        &self.0.charter
    }

    /// All charters from version 1 on, for whoever has none yet.
    pub fn charter_chain(&self) -> &CharterChain {
        &self.0.chain
    }

    /// The alliance of the charter.
    pub fn alliance_id(&self) -> AllianceId {
        self.0.charter.alliance_id()
    }

    /// Holds the directory against the alliance id of a configuration.
    pub fn expect_alliance(&self, pinned: AllianceId) -> Result<(), StoreError> {
        let found = self.alliance_id();
        if found == pinned {
            return Ok(());
        }
        Err(StoreError::OtherAlliance { path: self.0.dir.join(names::CHARTER), found, pinned })
    }

    /// The revocation list; none is enforced where the file is not there.
    pub fn revocations(&self) -> Option<&Revocations> {
        self.0.channel.revocations.as_ref()
    }

    pub(crate) fn channel(&self) -> &ChannelFiles {
        &self.0.channel
    }
}

/// Who an author is in the alliance of a directory: what can be said of it without the identity's secrets.
pub fn enrolment(dir: &Path, author: AuthorId) -> Result<(PeerIdentity, AllianceId), StoreError> {
    let (_, facts) = load_channel(dir, author)?;
    let (charter, _) = load_charter(&dir.join(names::CHARTER))?;
    Ok((facts.peer, charter.alliance_id()))
}

/// Reads and verifies a chain of charters. The file itself is the pin: whoever installed it decided for its alliance.
pub fn load_charter(path: &Path) -> Result<(VerifiedCharter, CharterChain), StoreError> {
    let chain = read_charters(path, REMEDY_CHARTER)?;
    let failed = |source| StoreError::Charter { path: path.into(), source };
    let alliance = chain.claimed_alliance().ok_or_else(|| failed(CharterError::EmptyChain))?;
    Ok((chain.verify(alliance).map_err(failed)?, chain))
}

/// Reads a chain of charters without judging them, at least one. The remedy says how the file comes to be.
pub fn read_charters(path: &Path, remedy: &'static str) -> Result<CharterChain, StoreError> {
    let bytes = file::read_public(path, CHAIN_MAX_BYTES, remedy)?;
    let failed = |source| StoreError::Charter { path: path.into(), source };
    let chain = CharterChain::decode(&bytes).map_err(failed)?;
    if chain.0.is_empty() { Err(failed(CharterError::EmptyChain)) } else { Ok(chain) }
}

fn load_channel(dir: &Path, author: AuthorId) -> Result<(ChannelFiles, Facts), StoreError> {
    let key_path = dir.join(names::CHANNEL_KEY);
    let key_pem = file::read_secret(&key_path, SMALL_FILE_MAX_BYTES, names::REMEDY_PREPARE)?;
    let bad_key = || FileError::format(&key_path, "not an ECDSA P-256 key in PKCS #8 PEM: restore it");
    let key = PrivateKeyDer::from_pem_slice(&key_pem).map_err(|_| bad_key())?;
    let key = ChannelKey(key);
    let pair = KeyPair::from_der_and_sign_algo(&key.0, &PKCS_ECDSA_P256_SHA256).map_err(|_| bad_key())?;
    let public = Zeroizing::new(pair).subject_public_key_info();

    let path = dir.join(names::CHANNEL);
    let leaf = read_certificate(&path)?;
    let facts = Facts::read(&leaf).map_err(|source| StoreError::Certificate { path: path.clone(), source })?;
    let own = PeerIdentity::of(facts.peer.role(), author);
    if facts.peer != own {
        return Err(StoreError::OtherIdentity { path, named: facts.peer, own });
    }
    if !is_key_of(&public, &leaf) {
        return Err(StoreError::OtherKey(path));
    }
    let authority = read_certificate(&dir.join(names::CA))?;
    if !is_signed_by(&leaf, &authority) {
        return Err(StoreError::OtherAuthority(path));
    }
    let revocations = Revocations::load(&dir.join(names::CRL), &authority)?;
    Ok((ChannelFiles { chain: vec![leaf], key, authority, revocations }, facts))
}

fn read_certificate(path: &Path) -> Result<CertificateDer<'static>, FileError> {
    let pem = file::read_public(path, SMALL_FILE_MAX_BYTES, REMEDY_ISSUED)?;
    CertificateDer::from_pem_slice(&pem).map_err(|_| FileError::format(path, "not a certificate in PEM: get it again"))
}

/// Only to tell a mixed-up directory early; what counts is the TLS verifier's judgement.
fn is_signed_by(leaf: &[u8], authority: &[u8]) -> bool {
    let (Ok((_, leaf)), Ok((_, authority))) = (X509Certificate::from_der(leaf), X509Certificate::from_der(authority))
    else {
        return false;
    };
    leaf.issuer() == authority.subject() && leaf.verify_signature(Some(authority.public_key())).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Role;
    use crate::enrol;
    use crate::test_world::World;

    #[test]
    fn a_complete_directory_is_somebody_in_the_alliance() {
        let world = World::new();
        for role in Role::ALL {
            let credentials = world.credentials(role);
            assert_eq!(credentials.peer(), PeerIdentity::of(role, credentials.identity().author_id()));
            assert_eq!(credentials.charter().version(), 1);
            credentials.expect_alliance(world.alliance()).unwrap();
            let error = credentials.expect_alliance(AllianceId::ZERO).unwrap_err();
            assert!(matches!(error, StoreError::OtherAlliance { .. }));
        }
    }

    #[test]
    fn what_holds_secrets_shows_none_in_debug_output() {
        use crate::passphrase::{Passphrase, Protection};
        let world = World::new();
        let dir = world.dir_of(Role::Gateway);
        let read = |path: &Path| std::fs::read_to_string(path).unwrap();
        // Each word of four letters and more that only a secret has.
        let secrets =
            [dir.join(names::IDENTITY), dir.join(names::CHANNEL_KEY), world.authority.dir().join(names::CA_KEY)];
        let secrets: String = secrets.iter().map(|path| read(path)).collect();
        let lines: Vec<&str> =
            secrets.lines().filter(|l| l.contains("seed") || !l.contains(['-', '"', '{', '}'])).collect();
        let secrets: Vec<&str> = lines.iter().map(|l| l.split('"').nth(3).unwrap_or(l)).collect();
        assert!(secrets.len() > 6 && secrets.iter().all(|s| s.len() > 8), "{secrets:?}");
        let words = || Passphrase::new(Zeroizing::new("open sesame".to_owned())).unwrap();
        let credentials = world.credentials(Role::Gateway);
        for shown in [
            format!("{credentials:?} {:?}", credentials.identity()),
            format!("{:?} {:?}", world.authority, enrol::prepare(&world.path("x"), Role::Patient, &Default::default())),
            format!("{:?} {:?}", words(), Protection::Passphrase(words(), crate::age::WorkFactor::MIN)),
        ] {
            assert!(!shown.contains("sesame") && secrets.iter().all(|s| !shown.contains(&s[..8])), "{shown}");
        }
    }

    #[test]
    fn each_missing_file_is_named_with_its_remedy() {
        let world = World::new();
        let dir = world.dir_of(Role::Gateway);
        for name in [names::IDENTITY, names::CHANNEL_KEY, names::CHANNEL, names::CA, names::CHARTER] {
            let (path, aside) = (dir.join(name), dir.join("aside"));
            std::fs::rename(&path, &aside).unwrap();
            let text = Credentials::load(&dir).unwrap_err().to_string();
            assert!(text.contains(name) && text.contains("missing"), "{text}");
            std::fs::rename(&aside, &path).unwrap();
        }
        Credentials::load(&dir).unwrap();
    }

    #[test]
    fn a_directory_of_which_any_file_is_torn_anywhere_is_nobody() {
        let world = World::new();
        let dir = world.dir_of(Role::Gateway);
        for name in [names::IDENTITY, names::CHANNEL_KEY, names::CHANNEL, names::CA, names::CHARTER] {
            let path = dir.join(name);
            let whole = std::fs::read(&path).unwrap();
            for end in (0..whole.len()).step_by(3) {
                std::fs::write(&path, &whole[..end]).unwrap();
                match Credentials::load(&dir) {
                    Ok(_) => assert!(whole[end..].iter().all(u8::is_ascii_whitespace), "{name} of {end} bytes"),
                    Err(error) => assert!(error.to_string().contains(name), "{name} of {end} bytes: {error}"),
                }
            }
            std::fs::write(&path, &whole).unwrap();
        }
        Credentials::load(&dir).unwrap();
    }

    #[test]
    fn files_of_two_directories_do_not_pass_for_one() {
        let world = World::new();
        let other = World::new();
        let (one, two) = (world.dir_of(Role::Gateway), world.dir_of(Role::Patient));
        let with = |name: &str, from: &Path| {
            let kept = std::fs::read(one.join(name)).unwrap();
            std::fs::copy(from.join(name), one.join(name)).unwrap();
            let error = Credentials::load(&one).unwrap_err();
            std::fs::write(one.join(name), kept).unwrap();
            error
        };
        assert!(matches!(with(names::CHANNEL, &two), StoreError::OtherIdentity { .. }));
        assert!(matches!(with(names::IDENTITY, &two), StoreError::OtherIdentity { .. }));
        assert!(matches!(with(names::CHANNEL_KEY, &two), StoreError::OtherKey(_)));
        let nowhere = two.join("not-there");
        let error = Credentials::load(&nowhere).unwrap_err();
        assert!(matches!(&error, StoreError::NoDirectory(path) if *path == nowhere), "{error}");
        assert!(matches!(with(names::CA, &other.dir_of(Role::Gateway)), StoreError::OtherAuthority(_)));
        std::fs::write(two.join(names::CHARTER), b"\x80").unwrap();
        assert!(matches!(with(names::CHARTER, &two), StoreError::Charter { source: CharterError::EmptyChain, .. }));
        std::fs::write(one.join(names::CRL), b"nothing").unwrap();
        assert!(matches!(Credentials::load(&one), Err(StoreError::File(FileError::Format { .. }))));
    }
}
