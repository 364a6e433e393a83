//! What a certificate says, read from its DER. Whether it is to be believed is decided elsewhere, by the TLS verifier.

use core::fmt;
use core::str::FromStr;
use std::net::IpAddr;

use ehe::id::hex;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::peer::{PeerError, PeerIdentity, URN_PREFIX};

/// A certificate's serial number: at most 20 bytes (RFC 5280 §4.1.2.2), big-endian, without leading zeros.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Serial(Vec<u8>);

/// The text is no serial number.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a certificate's serial number (2 to 40 hexadecimal digits)")]
pub struct ParseSerialError;

impl Serial {
    pub(crate) fn new(bytes: &[u8]) -> Self {
        let start = bytes.iter().position(|b| *b != 0).unwrap_or(bytes.len());
        Self(bytes.get(start..).unwrap_or_default().to_vec())
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Display for Serial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(&self.0))
    }
}

impl fmt::Debug for Serial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Serial({self})")
    }
}

impl FromStr for Serial {
    type Err = ParseSerialError;
    fn from_str(text: &str) -> Result<Self, ParseSerialError> {
        let digits = text.as_bytes();
        if !(2..=40).contains(&digits.len())
            || !digits.len().is_multiple_of(2)
            || !digits.iter().all(u8::is_ascii_hexdigit)
        {
            return Err(ParseSerialError);
        }
        let nibble = |b: &u8| char::from(*b).to_digit(16).and_then(|d| u8::try_from(d).ok()).unwrap_or(0);
        let bytes: Vec<u8> =
            digits.chunks(2).map(|pair| pair.iter().fold(0, |byte, b| byte << 4 | nibble(b))).collect();
        Ok(Self::new(&bytes))
    }
}

/// What a certificate says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// The one peer that it names.
    pub peer: PeerIdentity,
    /// Its serial number.
    pub serial: Serial,
    /// Valid from, seconds since 1970.
    pub not_before_unix_s: i64,
    /// Valid to, seconds since 1970.
    pub not_after_unix_s: i64,
    /// DNS names, the one that stands for the node id included.
    pub dns: Vec<String>,
    /// IP addresses.
    pub ip: Vec<IpAddr>,
    /// Issuer's name.
    pub issuer: String,
    /// Public key, as SubjectPublicKeyInfo in DER.
    pub public_key: Vec<u8>,
}

impl Facts {
    /// Whether its time is over (RFC 5280 §4.1.2.5: the last second belongs to it).
    pub fn is_over(&self, now_unix_s: i64) -> bool {
        now_unix_s > self.not_after_unix_s
    }

    /// Reads a DER certificate. It has to have exactly one `urn:ehe:` name.
    pub fn read(der: &[u8]) -> Result<Self, PeerError> {
        let (rest, certificate) = X509Certificate::from_der(der).map_err(|_| PeerError::NotACertificate)?;
        if !rest.is_empty() {
            return Err(PeerError::NotACertificate);
        }
        let names = certificate.subject_alternative_name().map_err(|_| PeerError::NotACertificate)?;
        let names = names.map(|extension| extension.value.general_names.as_slice()).unwrap_or_default();
        let (mut urns, mut dns, mut ip) = (Vec::new(), Vec::new(), Vec::new());
        for name in names {
            match name {
                // A urn's prefix is case-insensitive (RFC 8141): another spelling counts, and is then refused as a spelling.
                GeneralName::URI(uri) if is_ours(uri) => urns.push(*uri),
                GeneralName::DNSName(name) => dns.push((*name).to_owned()),
                GeneralName::IPAddress(bytes) => ip.extend(address(bytes)),
                _ => {}
            }
        }
        let [urn] = urns.as_slice() else { return Err(PeerError::Names(urns.len())) };
        Ok(Self {
            peer: urn.parse()?,
            serial: Serial::new(certificate.raw_serial()),
            not_before_unix_s: certificate.validity().not_before.timestamp(),
            not_after_unix_s: certificate.validity().not_after.timestamp(),
            dns,
            ip,
            issuer: certificate.issuer().to_string(),
            public_key: certificate.public_key().raw.to_vec(),
        })
    }
}

/// What an authority's own certificate says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuthorityFacts {
    /// Its name, as the certificates that it issues give their issuer; the number of its key is part of it.
    pub name: String,
    /// Its serial number.
    pub serial: Serial,
    /// Valid from, seconds since 1970.
    pub not_before_unix_s: i64,
    /// Valid to, seconds since 1970.
    pub not_after_unix_s: i64,
    /// Public key, as SubjectPublicKeyInfo in DER: the same key is the same authority.
    pub public_key: Vec<u8>,
}

impl AuthorityFacts {
    /// Reads an authority's certificate, PEM. `None` for everything else.
    pub fn from_pem(pem: &[u8]) -> Option<Self> {
        let der = CertificateDer::from_pem_slice(pem).ok()?;
        let (_, certificate) = X509Certificate::from_der(&der).ok()?;
        certificate.is_ca().then(|| Self {
            name: certificate.subject().to_string(),
            serial: Serial::new(certificate.raw_serial()),
            not_before_unix_s: certificate.validity().not_before.timestamp(),
            not_after_unix_s: certificate.validity().not_after.timestamp(),
            public_key: certificate.public_key().raw.to_vec(),
        })
    }
}

fn is_ours(uri: &str) -> bool {
    uri.get(..URN_PREFIX.len()).is_some_and(|start| start.eq_ignore_ascii_case(URN_PREFIX))
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    v4.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, KeyPair, SanType};

    fn with_uris(uris: &[&str]) -> Vec<u8> {
        let mut params = CertificateParams::new(vec!["host.example".to_owned(), "192.0.2.7".to_owned()]).unwrap();
        params.subject_alt_names.extend(uris.iter().map(|uri| SanType::URI((*uri).try_into().unwrap())));
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().to_vec()
    }

    #[test]
    fn a_certificate_names_exactly_one_peer() {
        let node = "urn:ehe:node:0102030405060708";
        let facts = Facts::read(&with_uris(&["https://example.org/", node])).unwrap();
        assert_eq!(facts.peer.to_string(), node);
        assert_eq!((facts.dns.len(), facts.ip.len()), (1, 1));
        assert_eq!(Facts::read(&with_uris(&[])), Err(PeerError::Names(0)));
        assert_eq!(Facts::read(&with_uris(&[node, node])), Err(PeerError::Names(2)));
        assert_eq!(
            Facts::read(&with_uris(&[node, "URN:EHE:gateway:00"])),
            Err(PeerError::Names(2)),
            "another spelling does not hide a second name"
        );
        assert!(matches!(Facts::read(&with_uris(&["urn:ehe:nurse:00"])), Err(PeerError::Urn(_))));
        assert_eq!(Facts::read(b"no certificate"), Err(PeerError::NotACertificate));
        assert_eq!(Facts::read(&[]), Err(PeerError::NotACertificate));
    }

    #[test]
    fn a_serial_number_is_hex_there_and_back() {
        let serial = Serial::new(&[0, 0x12, 0xab]);
        assert_eq!(serial.to_string(), "12ab");
        assert_eq!("12AB".parse::<Serial>(), Ok(serial));
        for bad in ["", "1", "123", "zz", &"11".repeat(21)] {
            assert_eq!(bad.parse::<Serial>(), Err(ParseSerialError), "{bad}");
        }
    }
}
