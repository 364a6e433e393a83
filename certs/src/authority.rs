//! The alliance's certificate authority: a directory on a machine that needs no network.
//!
//! ECDSA P-256: the one signature algorithm that every TLS 1.3 implementation has to support (RFC 8446 §9.1), and that
//! security modules, TPMs and browsers do support; Ed25519 certificates are refused by many of them. aws-lc-rs signs and
//! verifies it in constant time. The ledger's own signatures stay Ed25519; the two never meet.

use std::path::{Path, PathBuf};

use ehe::charter::Role;
use ehe::id::hex;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, DnValue, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PublicKeyData, SerialNumber,
};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde::{Deserialize, Serialize};
use time::{Duration, OffsetDateTime};
use x509_parser::prelude::{FromDer, X509Certificate};
use zeroize::Zeroizing;

use crate::certificate::{Facts, Serial};
use crate::enrol::{HostNames, VerifiedRequest, subject_alt_names};
use crate::file::{self, FileError, SMALL_FILE_MAX_BYTES};
use crate::passphrase::{self, Protection, Source};
use crate::peer::{PeerError, PeerIdentity, server_name};
use crate::store::names;

/// Days that an authority is made for, if nobody says otherwise: twenty years.
pub const AUTHORITY_DAYS: u32 = 20 * 365;
/// Most days that a certificate is issued for.
pub const CERTIFICATE_DAYS_MAX: u32 = 10 * 365;
/// A new certificate is valid from a little earlier, for clocks that are late.
const BACKDATED: Duration = Duration::hours(1);
const NAME_MAX_BYTES: usize = 64;
const REMEDY: &str = "make an authority with `ehe-certs init`, or name its directory with --authority";

/// Why the authority did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// A file was not read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// The authority's name cannot stand in a certificate.
    #[error("an authority's name has 1 to {NAME_MAX_BYTES} bytes and no control characters")]
    Name,
    /// The request asks for another role than the one that is to be issued.
    #[error(
        "the request asks for the role {asked}, you are about to issue {given}: check with the applicant who they are"
    )]
    Role {
        /// The role in the request.
        asked: Role,
        /// The role in the command.
        given: Role,
    },
    /// Zero days, or more than allowed.
    #[error("a certificate or a revocation list is valid for 1 to {most} days")]
    Days {
        /// Most days.
        most: u32,
    },
    /// No certificate of this authority is meant.
    #[error("this authority has issued no certificate {0}")]
    NotIssued(String),
    /// The certificate that was given cannot be read.
    #[error("the certificate to revoke: {0}")]
    Certificate(#[from] PeerError),
    /// The library that makes certificates failed.
    #[error("cannot make the certificate: {0}")]
    Make(#[from] rcgen::Error),
    /// The date is outside what a certificate can say.
    #[error("the end of validity is outside the calendar")]
    Calendar,
}

/// A certificate that was issued.
#[derive(Debug, Clone)]
pub struct Issued {
    /// The certificate, PEM.
    pub pem: String,
    /// Whom it names.
    pub peer: PeerIdentity,
    /// Its serial number.
    pub serial: Serial,
    /// Its last second, seconds since 1970.
    pub not_after_unix_s: i64,
}

/// A line of `issued.jsonl`: what a revocation looks serial numbers up in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IssuedRecord {
    /// Serial number, hex.
    pub serial: String,
    /// The peer's URN.
    pub peer: String,
    /// When, seconds since 1970.
    pub issued_unix_s: i64,
    /// Valid to, seconds since 1970.
    pub not_after_unix_s: i64,
}

/// The authority. Its directory: `ca.key` (0600, an age file unless its owner wants it without a passphrase: `age -d ca.key`), `ca.crt`, `issued.jsonl`, `revoked.json`, `crl.pem`.
pub struct Authority {
    dir: PathBuf,
    pub(crate) issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl core::fmt::Debug for Authority {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Authority({})", self.dir.display())
    }
}

impl Authority {
    /// As [`Authority::create_with`], without a passphrase.
    pub fn create(dir: &Path, name: &str, days: u32, now: OffsetDateTime) -> Result<Self, AuthorityError> {
        Self::create_with(dir, name, days, now, &Protection::None)
    }

    /// Makes a new authority in a directory. Overwrites nothing.
    pub fn create_with(
        dir: &Path,
        name: &str,
        days: u32,
        now: OffsetDateTime,
        protection: &Protection,
    ) -> Result<Self, AuthorityError> {
        if !(1..=NAME_MAX_BYTES).contains(&name.len()) || name.chars().any(char::is_control) {
            return Err(AuthorityError::Name);
        }
        file::create_dir(dir)?;
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let mut params = validity(days, u32::MAX, now)?;
        params.distinguished_name = common_name(name);
        // Two authorities of one name (a new key, another alliance) have to have different issuer names: verifiers look
        // authorities and revocation lists up by name. X.520 serialNumber, from the key.
        let key_id = params.key_identifier(&key);
        let key_id = hex(key_id.get(..8).unwrap_or_default());
        params
            .distinguished_name
            .push(DnType::CustomDnType(vec![2, 5, 4, 5]), DnValue::PrintableString(key_id.try_into()?));
        params.serial_number = Some(serial()?);
        // Issues to peers only, never to another authority.
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let pem = params.self_signed(&key)?.pem();
        // The key first: a certificate without its key would be worth nothing and in the way.
        let key_path = dir.join(names::CA_KEY);
        let key_pem = Zeroizing::new(key.serialize_pem());
        passphrase::create(&key_path, key_pem.as_bytes(), protection)?;
        file::create_public(&dir.join(names::CA), pem.as_bytes())?;
        Self::with_key(dir, key)
    }

    /// Opens an authority's directory. Asks nobody: a key that a passphrase protects is refused.
    pub fn open(dir: &Path) -> Result<Self, AuthorityError> {
        Self::open_with(dir, &Source::Nobody)
    }

    /// As [`Authority::open`], with a passphrase where the key is protected by one.
    pub fn open_with(dir: &Path, passphrase: &Source) -> Result<Self, AuthorityError> {
        let path = dir.join(names::CA_KEY);
        let pem = passphrase::read(&path, REMEDY, passphrase)?;
        Self::with_key(dir, parse_key(&path, &pem)?)
    }

    fn with_key(dir: &Path, key: KeyPair) -> Result<Self, AuthorityError> {
        let pem_path = dir.join(names::CA);
        let pem = file::read_text(&pem_path, SMALL_FILE_MAX_BYTES, REMEDY)?;
        let bad = |why: &str| FileError::format(&pem_path, why);
        let der =
            CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|_| bad("not a certificate in PEM: restore it"))?;
        if !is_key_of(&key.subject_public_key_info(), &der) {
            return Err(bad("the certificate is not that of ca.key beside it: restore both").into());
        }
        let issuer =
            Issuer::from_ca_cert_der(&der, key).map_err(|_| bad("not a certificate of an authority: restore it"))?;
        Ok(Self { dir: dir.into(), issuer, pem })
    }

    /// The authority's directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The authority's own certificate, PEM: what everybody installs as `ca.crt`.
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// Issues what a verified request asks for, and records it. The caller names the role that they mean to give.
    pub fn issue(
        &self,
        request: &VerifiedRequest,
        role: Role,
        days: u32,
        now: OffsetDateTime,
    ) -> Result<Issued, AuthorityError> {
        let peer = request.peer();
        if peer.role() != role {
            return Err(AuthorityError::Role { asked: peer.role(), given: role });
        }
        let mut params = validity(days, CERTIFICATE_DAYS_MAX, now)?;
        let serial_number = serial()?;
        params.serial_number = Some(serial_number.clone());
        // Everything that is issued is written here; nothing but the key and the checked names is taken from the request.
        params.distinguished_name = common_name(&peer.to_string());
        params.subject_alt_names = subject_alt_names(peer, &host_names(request))?;
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        if role == Role::Node {
            params.extended_key_usages.push(ExtendedKeyUsagePurpose::ServerAuth);
        }
        params.use_authority_key_identifier_extension = true;
        let not_after_unix_s = params.not_after.unix_timestamp();
        let certificate = params.signed_by(&request.csr.public_key, &self.issuer)?;
        let issued =
            Issued { pem: certificate.pem(), peer, serial: Serial::new(serial_number.as_ref()), not_after_unix_s };
        let record = IssuedRecord {
            serial: issued.serial.to_string(),
            peer: peer.to_string(),
            issued_unix_s: now.unix_timestamp(),
            not_after_unix_s,
        };
        let line = serde_json::to_string(&record).unwrap_or_default(); // strings and numbers: cannot fail
        // Recorded before anybody has it: what is not recorded could not be revoked by name.
        file::append_line(&self.dir.join(names::ISSUED), &line)?;
        Ok(issued)
    }

    /// Everything that this authority has issued.
    pub fn issued(&self) -> Result<Vec<IssuedRecord>, AuthorityError> {
        const LIMIT: usize = 256 * 1024 * 1024;
        let path = self.dir.join(names::ISSUED);
        let text = match file::read_text(&path, LIMIT, "") {
            Err(FileError::Missing { .. }) => return Ok(Vec::new()),
            other => other?,
        };
        // A crash may have left half a last line; such a certificate was never handed out.
        Ok(text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect())
    }
}

fn parse_key(path: &Path, pem: &[u8]) -> Result<KeyPair, FileError> {
    let key = std::str::from_utf8(pem).ok();
    key.and_then(|pem| KeyPair::from_pkcs8_pem_and_sign_algo(pem, &PKCS_ECDSA_P256_SHA256).ok())
        .ok_or_else(|| FileError::format(path, "not an ECDSA P-256 key in PKCS #8 PEM: restore it"))
}

/// Protects an authority's key in another way: a new passphrase, the first one, or none any more.
pub fn protect_key(
    path: &Path,
    old: &Source,
    new: impl FnOnce() -> Result<Protection, FileError>,
) -> Result<(), FileError> {
    let pem = passphrase::read(path, REMEDY, old)?;
    parse_key(path, &pem)?;
    passphrase::replace(path, &pem, &new()?)
}

/// Whether a certificate is that of a public key.
pub(crate) fn is_key_of(public: &[u8], certificate: &[u8]) -> bool {
    X509Certificate::from_der(certificate).is_ok_and(|(_, c)| c.public_key().raw == public)
}

/// Reads whom a PEM certificate names, and its serial number.
pub fn read_certificate(pem: &str) -> Result<Facts, PeerError> {
    let der = CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|_| PeerError::NotACertificate)?;
    Facts::read(&der)
}

fn host_names(request: &VerifiedRequest) -> HostNames {
    let mut host = request.host_names().clone();
    if let Some(node) = request.peer().node() {
        host.dns.insert(0, server_name(node));
    }
    host
}

fn common_name(name: &str) -> DistinguishedName {
    let mut distinguished = DistinguishedName::new();
    distinguished.push(DnType::CommonName, name);
    distinguished
}

fn validity(days: u32, most: u32, now: OffsetDateTime) -> Result<CertificateParams, AuthorityError> {
    if days == 0 || days > most {
        return Err(AuthorityError::Days { most });
    }
    let mut params = CertificateParams::default();
    params.not_before = now.checked_sub(BACKDATED).ok_or(AuthorityError::Calendar)?;
    params.not_after = now.checked_add(Duration::days(days.into())).ok_or(AuthorityError::Calendar)?;
    Ok(params)
}

/// 126 random bits, positive, never zero.
fn serial() -> Result<SerialNumber, AuthorityError> {
    let random = file::random_32()?;
    let mut bytes = random.get(..16).unwrap_or_default().to_vec();
    if let Some(first) = bytes.first_mut() {
        *first = (*first & 0x7f) | 0x40;
    }
    Ok(SerialNumber::from_slice(&bytes))
}
