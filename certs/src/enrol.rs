//! Asking for a channel certificate. Both private keys are made where they are used and never leave: what travels is a request
//! that the channel key and the identity have signed.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ehe::charter::{Role, host_name_is_valid};
use ehe::cose::{self, Domain};
use ehe::identity::{Identity, PublicIdentity};
use ehe::sign::SignedError;
use rcgen::{
    CertificateParams, CertificateSigningRequestParams, DistinguishedName, KeyPair, PKCS_ECDSA_P256_SHA256, SanType,
};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use crate::file::{self, FileError, SMALL_FILE_MAX_BYTES};
use crate::identity_file::{self, PublicIdentityError};
use crate::passphrase::{Protection, Source};
use crate::peer::{PeerError, PeerIdentity, SERVER_NAME_SUFFIX};
use crate::store::names;

pub use crate::peer::node_id;

const TYPE: &str = "ehe enrolment request";
const VERSION: u32 = 1;
/// DNS names and IP addresses in one request.
pub const HOST_NAMES_MAX: usize = 16;
/// Largest certificate signing request.
const CSR_MAX_BYTES: usize = 8 * 1024;
const SIGNATURE_MAX_BYTES: usize = 256;

/// Names of the host that a certificate is for. Only nodes have any; everybody else is only ever a client.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HostNames {
    /// DNS names in lower case.
    pub dns: Vec<String>,
    /// IP addresses.
    pub ip: Vec<IpAddr>,
}

/// Why a request was not made, or is not accepted.
#[derive(Debug, thiserror::Error)]
pub enum EnrolError {
    /// A file was not read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// Not a request, or made by a newer program.
    #[error("not an enrolment request: {0}")]
    Shape(String),
    /// The applicant's public identity is damaged.
    #[error("enrolment request: {0}")]
    Identity(#[from] PublicIdentityError),
    /// The signing request is damaged, or its own signature does not verify: the applicant does not hold the channel key.
    #[error("enrolment request: the signing request (PKCS #10) is not accepted: {0}")]
    SigningRequest(#[source] rcgen::Error),
    /// The channel key is of another kind than ours.
    #[error("enrolment request: the channel key has to be an ECDSA P-256 key")]
    KeyKind,
    /// It names no peer or several.
    #[error("enrolment request: {0}")]
    Peer(#[from] PeerError),
    /// It asks for a name that is not the applicant's.
    #[error("enrolment request: it asks for {asked}, the identity that signed it is {own}")]
    OtherPeer {
        /// The name asked for.
        asked: PeerIdentity,
        /// The name that the identity has in that role.
        own: PeerIdentity,
    },
    /// The identity's signature is missing, of another request, or does not verify.
    #[error("enrolment request: the identity's signature is not accepted: {0}")]
    Signature(#[from] SignedError),
    /// The identity has signed another signing request.
    #[error("enrolment request: the identity has signed another signing request")]
    OtherRequest,
    /// It asks for a host name that it cannot have.
    #[error(
        "enrolment request: the host name {0:?} is not allowed (DNS names in lower case, at most {HOST_NAMES_MAX}, for nodes only)"
    )]
    HostName(String),
    /// The library that makes keys and requests failed.
    #[error("cannot make the channel key or the signing request: {0}")]
    Make(#[source] rcgen::Error),
}

/// A request as it travels, in JSON text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EnrolmentRequest {
    r#type: String,
    version: u32,
    /// The applicant's public identity, one line.
    identity: String,
    /// PKCS #10, DER, base64: channel key, role and host names.
    csr: String,
    /// COSE_Sign1 by the identity over SHA-256 of the DER, base64.
    signature: String,
}

/// A request whose two signatures were checked, and which asks for nothing but the applicant's own name.
#[derive(Debug, Clone)]
pub struct VerifiedRequest {
    pub(crate) csr: CertificateSigningRequestParams,
    peer: PeerIdentity,
    host: HostNames,
    identity: PublicIdentity,
}

impl VerifiedRequest {
    /// The name asked for.
    pub fn peer(&self) -> PeerIdentity {
        self.peer
    }

    /// The host names asked for.
    pub fn host_names(&self) -> &HostNames {
        &self.host
    }

    /// Who asks.
    pub fn identity(&self) -> &PublicIdentity {
        &self.identity
    }
}

/// What [`prepare`] made.
#[derive(Debug)]
pub struct Prepared {
    /// The new identity.
    pub identity: Identity,
    /// Its name on channels.
    pub peer: PeerIdentity,
    /// The request, to be sent to the alliance's authority.
    pub request: PathBuf,
}

/// As [`prepare_with`], without a passphrase: for what a daemon holds.
pub fn prepare(dir: &Path, role: Role, host: &HostNames) -> Result<Prepared, EnrolError> {
    prepare_with(dir, role, host, &Protection::None)
}

/// Makes a directory with a new identity (`identity.json`, `identity.pub`), a new channel key (`channel.key`) and the request
/// for its certificate (`request.json`). Overwrites nothing. The protection is the identity's: the channel key opens nothing and
/// grants nothing, so it stays as files are, 0600.
pub fn prepare_with(dir: &Path, role: Role, host: &HostNames, protection: &Protection) -> Result<Prepared, EnrolError> {
    check_host_names(role, host)?;
    file::create_dir(dir)?;
    let identity = identity_file::generate()?;
    identity_file::create_with(&dir.join(names::IDENTITY), &identity, protection)?;
    identity_file::create_public(&dir.join(names::IDENTITY_PUBLIC), identity.public())?;
    let key = new_key(dir)?;
    let request = dir.join(names::REQUEST);
    file::create_public(&request, EnrolmentRequest::make(&identity, role, host, &key)?.to_text().as_bytes())?;
    Ok(Prepared { peer: PeerIdentity::of(role, identity.author_id()), identity, request })
}

/// Makes a new request from the identity of a directory, for renewing a certificate. Replaces `request.json`, which holds no
/// secret. The channel key stays; where there is none (its owner moved it away, or [`prepare`] was interrupted), a new one is
/// made.
pub fn renew(dir: &Path, role: Role, host: &HostNames, passphrase: &Source) -> Result<Prepared, EnrolError> {
    check_host_names(role, host)?;
    let identity = identity_file::open(&dir.join(names::IDENTITY), passphrase)?;
    let public = dir.join(names::IDENTITY_PUBLIC);
    if !public.exists() {
        identity_file::create_public(&public, identity.public())?;
    }
    let key = match load_key(&dir.join(names::CHANNEL_KEY)) {
        Err(FileError::Missing { .. }) => new_key(dir)?,
        other => other?,
    };
    let request = dir.join(names::REQUEST);
    file::replace(&request, EnrolmentRequest::make(&identity, role, host, &key)?.to_text().as_bytes())?;
    Ok(Prepared { peer: PeerIdentity::of(role, identity.author_id()), identity, request })
}

fn new_key(dir: &Path) -> Result<Zeroizing<KeyPair>, EnrolError> {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map(Zeroizing::new).map_err(EnrolError::Make)?;
    file::create_secret(&dir.join(names::CHANNEL_KEY), Zeroizing::new(key.serialize_pem()).as_bytes())?;
    Ok(key)
}

fn load_key(path: &Path) -> Result<Zeroizing<KeyPair>, FileError> {
    let pem = file::read_secret(path, SMALL_FILE_MAX_BYTES, names::REMEDY_PREPARE)?;
    let key = std::str::from_utf8(&pem).ok();
    key.and_then(|pem| KeyPair::from_pkcs8_pem_and_sign_algo(pem, &PKCS_ECDSA_P256_SHA256).ok())
        .map(Zeroizing::new)
        .ok_or_else(|| FileError::format(path, "not an ECDSA P-256 key in PKCS #8 PEM: restore it"))
}

impl EnrolmentRequest {
    fn make(identity: &Identity, role: Role, host: &HostNames, key: &KeyPair) -> Result<Self, EnrolError> {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        let peer = PeerIdentity::of(role, identity.author_id());
        params.subject_alt_names = subject_alt_names(peer, host).map_err(EnrolError::Make)?;
        let csr = params.serialize_request(key).map_err(EnrolError::Make)?;
        let signature = cose::sign(identity, Domain::Enrolment, Sha256::digest(csr.der()).to_vec());
        Ok(Self {
            r#type: TYPE.into(),
            version: VERSION,
            identity: identity_file::public_line(identity.public()),
            csr: STANDARD.encode(csr.der()),
            signature: STANDARD.encode(signature),
        })
    }

    /// The file's text.
    pub fn to_text(&self) -> String {
        // Strings and a number: writing them to memory cannot fail.
        serde_json::to_string_pretty(self).map(|text| text + "\n").unwrap_or_default()
    }

    /// Reads a file's text.
    pub fn from_text(text: &str) -> Result<Self, EnrolError> {
        if text.len() > SMALL_FILE_MAX_BYTES {
            return Err(EnrolError::Shape(format!("larger than {SMALL_FILE_MAX_BYTES} bytes")));
        }
        let request: Self = serde_json::from_str(text).map_err(|e| EnrolError::Shape(e.to_string()))?;
        if request.r#type != TYPE || request.version != VERSION {
            let found = format!("type {:?}, version {}", request.r#type, request.version);
            return Err(EnrolError::Shape(format!("{found}, expected {TYPE:?}, version {VERSION}")));
        }
        Ok(request)
    }

    /// Reads a request from its file.
    pub fn load(path: &Path) -> Result<Self, EnrolError> {
        Self::from_text(&file::read_text(path, SMALL_FILE_MAX_BYTES, "ask the applicant for their `request.json`")?)
    }

    /// Checks that the applicant holds the channel key (its signature on the signing request) and the identity (its signature
    /// on the request's hash), and asks for the identity's own name.
    pub fn verify(&self) -> Result<VerifiedRequest, EnrolError> {
        let identity = identity_file::parse_public(&self.identity)?;
        let decode = |text: &str| STANDARD.decode(text).map_err(|e| EnrolError::Shape(e.to_string()));
        let der = decode(&self.csr)?;
        if der.len() > CSR_MAX_BYTES {
            return Err(EnrolError::Shape(format!("a signing request of {} bytes", der.len())));
        }
        let signature = cose::Unverified::decode(&decode(&self.signature)?, SIGNATURE_MAX_BYTES)?;
        if signature.signer() != identity.author_id() {
            return Err(EnrolError::Signature(SignedError::OtherAuthor));
        }
        signature.verify(Domain::Enrolment, &identity.sign)?;
        if signature.payload() != Sha256::digest(&der).as_slice() {
            return Err(EnrolError::OtherRequest);
        }
        let csr = CertificateSigningRequestParams::from_der(&der.into()).map_err(EnrolError::SigningRequest)?;
        if csr.public_key.algorithm() != &PKCS_ECDSA_P256_SHA256 {
            return Err(EnrolError::KeyKind);
        }
        let (peer, host) = asked_for(&csr)?;
        let own = PeerIdentity::of(peer.role(), identity.author_id());
        if peer != own {
            return Err(EnrolError::OtherPeer { asked: peer, own });
        }
        check_host_names(peer.role(), &host)?;
        Ok(VerifiedRequest { csr, peer, host, identity })
    }
}

/// The names of a certificate or a request: the peer's URN, then the host's.
pub(crate) fn subject_alt_names(peer: PeerIdentity, host: &HostNames) -> Result<Vec<SanType>, rcgen::Error> {
    let mut names = vec![SanType::URI(peer.to_string().try_into()?)];
    for name in &host.dns {
        names.push(SanType::DnsName(name.as_str().try_into()?));
    }
    names.extend(host.ip.iter().copied().map(SanType::IpAddress));
    Ok(names)
}

fn asked_for(csr: &CertificateSigningRequestParams) -> Result<(PeerIdentity, HostNames), EnrolError> {
    let mut urns = Vec::new();
    let mut host = HostNames::default();
    for name in &csr.params.subject_alt_names {
        match name {
            SanType::URI(uri) => urns.push(uri.as_str()),
            SanType::DnsName(name) => host.dns.push(name.as_str().to_owned()),
            SanType::IpAddress(ip) => host.ip.push(*ip),
            other => return Err(EnrolError::HostName(format!("{other:?}"))),
        }
    }
    let [urn] = urns.as_slice() else { return Err(PeerError::Names(urns.len()).into()) };
    Ok((urn.parse()?, host))
}

fn check_host_names(role: Role, host: &HostNames) -> Result<(), EnrolError> {
    let count = host.dns.len() + host.ip.len();
    if count > HOST_NAMES_MAX || (role != Role::Node && count != 0) {
        return Err(EnrolError::HostName(format!("{count} names for a {role}")));
    }
    // A name under the reserved suffix would let one node pass for another.
    let bad = |name: &&String| !host_name_is_valid(name) || format!(".{name}").ends_with(SERVER_NAME_SUFFIX);
    match host.dns.iter().find(bad) {
        Some(name) => Err(EnrolError::HostName(name.chars().take(80).collect())),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> KeyPair {
        KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap()
    }

    fn node_host() -> HostNames {
        HostNames { dns: vec!["node.example".into()], ip: vec!["127.0.0.1".parse().unwrap()] }
    }

    #[test]
    fn a_request_asks_for_the_applicants_own_name() {
        let identity = identity_file::generate().unwrap();
        let request = EnrolmentRequest::make(&identity, Role::Node, &node_host(), &key()).unwrap();
        let verified = EnrolmentRequest::from_text(&request.to_text()).unwrap().verify().unwrap();
        assert_eq!(verified.peer(), PeerIdentity::Node(node_id(identity.author_id())));
        assert_eq!(*verified.host_names(), node_host());
        assert_eq!(verified.identity(), identity.public());
    }

    #[test]
    fn a_request_put_together_from_two_applicants_is_refused() {
        let (one, two) = (identity_file::generate().unwrap(), identity_file::generate().unwrap());
        let none = HostNames::default();
        let request = EnrolmentRequest::make(&one, Role::Patient, &none, &key()).unwrap();
        let other = EnrolmentRequest::make(&two, Role::Patient, &none, &key()).unwrap();
        let again = EnrolmentRequest::make(&one, Role::Patient, &none, &key()).unwrap();
        let verdict = |change: &dyn Fn(&mut EnrolmentRequest)| {
            let mut bad = request.clone();
            change(&mut bad);
            bad.verify().unwrap_err()
        };
        assert!(matches!(verdict(&|r| r.identity = other.identity.clone()), EnrolError::Signature(_)));
        assert!(matches!(verdict(&|r| r.signature = other.signature.clone()), EnrolError::Signature(_)));
        assert!(matches!(verdict(&|r| r.csr = again.csr.clone()), EnrolError::OtherRequest));
        // The thief signs another's signing request with his own identity.
        let stolen =
            cose::sign(&two, Domain::Enrolment, Sha256::digest(STANDARD.decode(&request.csr).unwrap()).to_vec());
        let thief = |r: &mut EnrolmentRequest| {
            r.identity = other.identity.clone();
            r.signature = STANDARD.encode(&stolen);
        };
        assert!(matches!(verdict(&thief), EnrolError::OtherPeer { .. }));
        // A signature of another purpose.
        let run = cose::sign(&one, Domain::Run, Sha256::digest(STANDARD.decode(&request.csr).unwrap()).to_vec());
        assert!(matches!(verdict(&|r| r.signature = STANDARD.encode(&run)), EnrolError::Signature(_)));
    }

    #[test]
    fn a_signing_request_that_its_own_key_has_not_signed_is_refused() {
        let identity = identity_file::generate().unwrap();
        let mut request = EnrolmentRequest::make(&identity, Role::Patient, &HostNames::default(), &key()).unwrap();
        let mut der = STANDARD.decode(&request.csr).unwrap();
        *der.last_mut().unwrap() ^= 1;
        request.csr = STANDARD.encode(&der);
        request.signature = STANDARD.encode(cose::sign(&identity, Domain::Enrolment, Sha256::digest(&der).to_vec()));
        assert!(matches!(request.verify(), Err(EnrolError::SigningRequest(_))));
    }

    #[test]
    fn only_nodes_have_host_names_and_nobody_gets_the_name_of_another_node() {
        let identity = identity_file::generate().unwrap();
        let verdict = |role, dns: &str| {
            let host = HostNames { dns: vec![dns.into()], ip: vec![] };
            EnrolmentRequest::make(&identity, role, &host, &key()).unwrap().verify()
        };
        assert!(verdict(Role::Node, "node.example").is_ok());
        for bad in ["0102030405060708.node.ehe.alt", "node.ehe.alt", "UPPER.example", "*.example", "a b"] {
            assert!(matches!(verdict(Role::Node, bad), Err(EnrolError::HostName(_))), "{bad}");
        }
        for role in [Role::Gateway, Role::Patient, Role::Clinician] {
            assert!(matches!(verdict(role, "node.example"), Err(EnrolError::HostName(_))), "{role}");
        }
    }

    #[test]
    fn preparing_twice_overwrites_nothing_and_renewing_keeps_the_keys() {
        let dir = tempfile::tempdir().unwrap();
        let first = prepare(dir.path(), Role::Gateway, &HostNames::default()).unwrap();
        let error = prepare(dir.path(), Role::Gateway, &HostNames::default()).unwrap_err();
        assert!(matches!(error, EnrolError::File(FileError::Exists(_))));
        let before = EnrolmentRequest::load(&first.request).unwrap().verify().unwrap();
        let second = renew(dir.path(), Role::Gateway, &HostNames::default(), &Source::Nobody).unwrap();
        let after = EnrolmentRequest::load(&second.request).unwrap().verify().unwrap();
        assert_eq!(before.csr.public_key, after.csr.public_key);
        assert_eq!(second.peer, first.peer);

        std::fs::remove_file(dir.path().join(names::CHANNEL_KEY)).unwrap();
        let third = renew(dir.path(), Role::Gateway, &HostNames::default(), &Source::Nobody).unwrap();
        let rekeyed = EnrolmentRequest::load(&third.request).unwrap().verify().unwrap();
        assert_ne!(rekeyed.csr.public_key, after.csr.public_key);
    }

    #[test]
    fn rubbish_is_no_request() {
        for bad in ["", "{}", "[]", &"x".repeat(SMALL_FILE_MAX_BYTES + 1)] {
            assert!(matches!(EnrolmentRequest::from_text(bad), Err(EnrolError::Shape(_))));
        }
    }
}
