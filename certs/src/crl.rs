//! The signed revocation list (CRL, RFC 5280 §5) as ends read it. TLS enforces it at handshakes; what is kept here says whose open
//! connections have to end, and how long the list still serves.

use std::collections::BTreeSet;
use std::path::Path;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer};
use x509_parser::num_bigint::BigUint;
use x509_parser::prelude::{CertificateRevocationList, FromDer, X509Certificate};

use crate::certificate::Serial;
use crate::file::{self, FileError, SMALL_FILE_MAX_BYTES};
use crate::store::names;

/// Largest list: some hundred thousand entries.
const CRL_MAX_BYTES: usize = 16 * 1024 * 1024;

/// A list that is whole and signed by the authority beside it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Revocations {
    der: CertificateRevocationListDer<'static>,
    number: BigUint,
    next_update_unix_s: i64,
    serials: BTreeSet<Serial>,
}

impl Revocations {
    /// Reads a list. `None` if the file is not there: this end enforces none.
    pub(crate) fn load(path: &Path, authority: &[u8]) -> Result<Option<Self>, FileError> {
        let pem = match file::read_public(path, CRL_MAX_BYTES, "") {
            Err(FileError::Missing { .. }) => return Ok(None),
            other => other?,
        };
        // A file that is there and says nothing must not pass for "nobody is revoked".
        let bad = |why: &str| FileError::format(path, format!("{why}: get it again from the authority"));
        let der =
            CertificateRevocationListDer::from_pem_slice(&pem).map_err(|_| bad("not a revocation list in PEM"))?;
        let (number, next_update_unix_s, serials) = read(&der, authority).map_err(bad)?;
        Ok(Some(Self { der, number, next_update_unix_s, serials }))
    }

    /// The list in a directory, by the `ca.crt` beside it. `None` where there is no list.
    pub fn in_dir(dir: &Path) -> Result<Option<Self>, FileError> {
        let path = dir.join(names::CA);
        let pem = file::read_public(&path, SMALL_FILE_MAX_BYTES, "get it from the authority")?;
        let authority = CertificateDer::from_pem_slice(&pem)
            .map_err(|_| FileError::format(&path, "not a certificate in PEM: get it again"))?;
        Self::load(&dir.join(names::CRL), &authority)
    }

    /// Its number: of two lists, the higher one is the newer.
    pub fn number(&self) -> String {
        self.number.to_string()
    }

    /// Whether it is older than another one.
    pub fn is_older_than(&self, other: &Self) -> bool {
        self.number < other.number
    }

    /// Once this time (seconds since 1970) is over, handshakes of everybody are refused.
    pub fn next_update_unix_s(&self) -> i64 {
        self.next_update_unix_s
    }

    /// Whether it revokes this certificate.
    pub fn revokes(&self, serial: &Serial) -> bool {
        self.serials.contains(serial)
    }

    /// Certificates that it revokes.
    pub fn count(&self) -> usize {
        self.serials.len()
    }

    pub(crate) fn der(&self) -> &CertificateRevocationListDer<'static> {
        &self.der
    }
}

fn read(der: &[u8], authority: &[u8]) -> Result<(BigUint, i64, BTreeSet<Serial>), &'static str> {
    let (rest, list) = CertificateRevocationList::from_der(der).map_err(|_| "a damaged revocation list")?;
    if !rest.is_empty() {
        return Err("a revocation list with something behind it");
    }
    // The TLS verifier would refuse everybody on account of such a list: better to say so than to lock all out.
    let (_, authority) = X509Certificate::from_der(authority).map_err(|_| "no authority to verify it with")?;
    if list.issuer() != authority.subject() || list.verify_signature(authority.public_key()).is_err() {
        return Err("not signed by the authority of ca.crt beside it");
    }
    // Both have to be there (RFC 5280 §5.1.2.5, §5.2.3).
    let number = list.crl_number().cloned().ok_or("a revocation list without a number")?;
    let next_update = list.next_update().ok_or("a revocation list that does not say when the next one comes")?;
    let serials = list.iter_revoked_certificates().map(|entry| Serial::new(entry.raw_serial())).collect();
    Ok((number, next_update.timestamp(), serials))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Role;
    use crate::revocation::{CRL_DAYS, Which};
    use crate::store::names;
    use crate::test_world::World;
    use time::OffsetDateTime;

    /// The authority's certificate and the path of its list.
    fn authority(world: &World) -> (Vec<u8>, std::path::PathBuf) {
        let authority = world.credentials(Role::Node).channel().authority.to_vec();
        (authority, world.authority.dir().join(names::CRL))
    }

    #[test]
    fn a_list_says_whom_it_revokes_and_how_long_it_serves() {
        let world = World::new();
        let now = OffsetDateTime::now_utc();
        let (authority, path) = authority(&world);
        assert_eq!(Revocations::load(&path, &authority).unwrap(), None);
        world.authority.revoke(&Which::Refresh, CRL_DAYS, now).unwrap();
        let first = Revocations::load(&path, &authority).unwrap().unwrap();
        let gateway = world.credentials(Role::Gateway);
        let list = world.authority.revoke(&Which::Peer(gateway.peer()), CRL_DAYS, now).unwrap();
        let second = Revocations::load(&path, &authority).unwrap().unwrap();
        assert!(first.is_older_than(&second) && !second.is_older_than(&first) && !first.is_older_than(&first));
        assert_eq!((second.number(), second.count()), ("2".to_owned(), 1));
        assert_eq!(second.next_update_unix_s(), list.next_update_unix_s);
        assert!(second.revokes(&gateway.certificate().serial) && !first.revokes(&gateway.certificate().serial));
        assert!(!second.revokes(&world.credentials(Role::Patient).certificate().serial));
    }

    #[test]
    fn a_list_of_another_authority_or_a_torn_one_is_no_list() {
        let (world, other) = (World::new(), World::new());
        let ((own, path), (others, _)) = (authority(&world), authority(&other));
        world.authority.revoke(&Which::Refresh, CRL_DAYS, OffsetDateTime::now_utc()).unwrap();
        let error = Revocations::load(&path, &others).unwrap_err().to_string();
        assert!(error.contains("not signed by the authority"), "{error}");
        let whole = std::fs::read(&path).unwrap();
        for length in 0..whole.len() - 1 {
            std::fs::write(&path, &whole[..length]).unwrap();
            // Without the last line's end it is whole already.
            let torn = Revocations::load(&path, &own);
            assert!(
                matches!(torn, Err(FileError::Format { .. })) || whole[length..].iter().all(u8::is_ascii_whitespace)
            );
        }
        std::fs::write(&path, &whole).unwrap();
        Revocations::load(&path, &own).unwrap().unwrap();
    }
}
