//! Revocation: the authority's list of revoked serial numbers, and the signed list (CRL, RFC 5280 §5) that ends enforce.

use std::path::PathBuf;

use rcgen::{CertificateRevocationListParams, KeyIdMethod, RevocationReason, RevokedCertParams, SerialNumber};
use serde::{Deserialize, Serialize};
use time::{Duration, OffsetDateTime};

use crate::authority::{Authority, AuthorityError};
use crate::certificate::Serial;
use crate::file::{self, FileError};
use crate::peer::PeerIdentity;
use crate::store::names;

/// Days after which a list counts as too old, if nobody says otherwise. Ends refuse *everybody* once their list is older.
pub const CRL_DAYS: u32 = 30;
/// Most days that a list may serve.
pub const CRL_DAYS_MAX: u32 = 366;
const REVOKED_MAX_BYTES: usize = 64 * 1024 * 1024;
const TYPE: &str = "ehe revocations";

/// `revoked.json`: what the next list is made of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Revoked {
    r#type: String,
    version: u32,
    /// Number of the newest list; each list has a higher one.
    crl_number: u64,
    certificates: Vec<RevokedCertificate>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RevokedCertificate {
    serial: String,
    revoked_unix_s: i64,
}

/// Which certificates to revoke.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Which {
    /// One, by its serial number.
    Serial(Serial),
    /// All that name this peer.
    Peer(PeerIdentity),
    /// None: sign a fresh list before the old one is too old.
    Refresh,
}

/// A new list.
#[derive(Debug, Clone)]
pub struct NewList {
    /// Where it was written: `crl.pem` in the authority's directory.
    pub path: PathBuf,
    /// Its number.
    pub number: u64,
    /// Serial numbers that it holds, the older ones included.
    pub revoked: usize,
    /// From when on it is too old, seconds since 1970.
    pub next_update_unix_s: i64,
}

impl Authority {
    /// Revokes, and signs a new list. Only certificates that this authority has issued can be meant.
    pub fn revoke(&self, which: &Which, days: u32, now: OffsetDateTime) -> Result<NewList, AuthorityError> {
        if days == 0 || days > CRL_DAYS_MAX {
            return Err(AuthorityError::Days { most: CRL_DAYS_MAX });
        }
        let mut revoked = self.revoked()?;
        for serial in self.serials(which)? {
            if revoked.certificates.iter().all(|c| c.serial != serial) {
                revoked.certificates.push(RevokedCertificate { serial, revoked_unix_s: now.unix_timestamp() });
            }
        }
        revoked.crl_number += 1;
        let next_update = now.checked_add(Duration::days(days.into())).ok_or(AuthorityError::Calendar)?;
        let pem = self.sign_list(&revoked, now, next_update)?;
        // What is revoked is durable before the list that says so goes anywhere.
        let text = serde_json::to_string_pretty(&revoked).unwrap_or_default(); // strings and numbers: cannot fail
        file::replace(&self.dir().join(names::REVOKED), text.as_bytes())?;
        let path = self.dir().join(names::CRL);
        file::replace(&path, pem.as_bytes())?;
        Ok(NewList {
            path,
            number: revoked.crl_number,
            revoked: revoked.certificates.len(),
            next_update_unix_s: next_update.unix_timestamp(),
        })
    }

    fn serials(&self, which: &Which) -> Result<Vec<String>, AuthorityError> {
        let issued = self.issued()?;
        let (meant, found): (String, Vec<String>) = match which {
            Which::Refresh => return Ok(Vec::new()),
            Which::Serial(serial) => {
                let serial = serial.to_string();
                let found = issued.iter().filter(|r| r.serial == serial).map(|r| r.serial.clone()).collect();
                (serial, found)
            }
            Which::Peer(peer) => {
                let peer = peer.to_string();
                let found = issued.iter().filter(|r| r.peer == peer).map(|r| r.serial.clone()).collect();
                (peer, found)
            }
        };
        if found.is_empty() { Err(AuthorityError::NotIssued(meant)) } else { Ok(found) }
    }

    fn revoked(&self) -> Result<Revoked, AuthorityError> {
        let path = self.dir().join(names::REVOKED);
        let text = match file::read_text(&path, REVOKED_MAX_BYTES, "") {
            Err(FileError::Missing { .. }) => {
                return Ok(Revoked { r#type: TYPE.into(), version: 1, crl_number: 0, certificates: Vec::new() });
            }
            other => other?,
        };
        let revoked: Revoked = serde_json::from_str(&text)
            .map_err(|e| FileError::format(&path, format!("damaged list of revoked certificates ({e}): restore it")))?;
        if revoked.r#type != TYPE || revoked.version != 1 {
            return Err(FileError::format(&path, "made by a newer program: update this one").into());
        }
        Ok(revoked)
    }

    fn sign_list(
        &self,
        revoked: &Revoked,
        now: OffsetDateTime,
        next_update: OffsetDateTime,
    ) -> Result<String, AuthorityError> {
        let mut revoked_certs = Vec::with_capacity(revoked.certificates.len());
        for certificate in &revoked.certificates {
            let damaged = || FileError::format(&self.dir().join(names::REVOKED), "damaged entry: restore the file");
            let serial: Serial = certificate.serial.parse().map_err(|_| damaged())?;
            let when = OffsetDateTime::from_unix_timestamp(certificate.revoked_unix_s).map_err(|_| damaged())?;
            revoked_certs.push(RevokedCertParams {
                serial_number: SerialNumber::from_slice(serial.as_bytes()),
                revocation_time: when,
                reason_code: Some(RevocationReason::CessationOfOperation),
                invalidity_date: None,
            });
        }
        let list = CertificateRevocationListParams {
            this_update: now,
            next_update,
            crl_number: SerialNumber::from_slice(&revoked.crl_number.to_be_bytes()),
            issuing_distribution_point: None,
            revoked_certs,
            key_identifier_method: KeyIdMethod::Sha256,
        };
        Ok(list.signed_by(&self.issuer)?.pem()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Role;
    use crate::test_world::World;

    #[test]
    fn what_is_issued_after_a_crash_left_half_a_record_can_be_revoked() {
        let world = World::new();
        let issued = world.authority.dir().join(names::ISSUED);
        let whole = std::fs::read(&issued).unwrap();
        std::fs::write(&issued, &whole[..whole.len() - 20]).unwrap();
        world.enrol("later", Role::Patient);
        world.install(&world.path("later"));
        let later = crate::Credentials::load(&world.path("later")).unwrap();
        let which = Which::Serial(later.certificate().serial.clone());
        assert_eq!(world.authority.revoke(&which, CRL_DAYS, OffsetDateTime::now_utc()).unwrap().revoked, 1);
    }
}
