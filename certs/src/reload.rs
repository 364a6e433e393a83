//! Reading a credentials directory again while a program runs: what may change under it, and what takes a restart.

use ehe::id::{AllianceId, AuthorId};

use crate::certificate::Facts;
use crate::channel::CloseCode;
use crate::file::FileError;
use crate::store::{Credentials, StoreError, names};

/// Why new files are not taken up. The old ones stay in use; each text says what to do.
#[derive(Debug, thiserror::Error)]
pub enum ReloadError {
    /// They do not belong together, or cannot be read; perhaps only because somebody is writing them.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// They are another identity's.
    #[error(
        "the files are now those of author {found}, this program runs as {own}: put the right ones back, or restart"
    )]
    OtherIdentity {
        /// Whose they are.
        found: AuthorId,
        /// Who this is.
        own: AuthorId,
    },
    /// They are of another alliance.
    #[error("the charter is now of alliance {found}, this program runs in {own}: put the right one back")]
    OtherAlliance {
        /// The alliance of the file.
        found: AllianceId,
        /// The alliance that this program is in.
        own: AllianceId,
    },
    /// The authority's certificate is another one: connections that are open were let in by the old one.
    #[error("{} has changed: restart the program to trust the new one", names::CA)]
    OtherAuthority,
    /// The revocation list is gone. Whoever it revoked must not get in by that.
    #[error(
        "{} is gone; the one read before stays in force: put a current one there, or restart to go without",
        names::CRL
    )]
    ListGone,
    /// The revocation list is older than the one in use: it would let in whom the newer one revokes.
    #[error("{} is number {found}, older than number {own} that is in force: put the newest one there", names::CRL)]
    ListOlder {
        /// Number of the file.
        found: String,
        /// Number of the list in use.
        own: String,
    },
}

impl Credentials {
    /// Why a connection to the holder of a certificate has to end; `None` while it may stay.
    pub fn ends(&self, certificate: &Facts, now_unix_s: i64) -> Option<CloseCode> {
        if self.revokes(certificate) {
            Some(CloseCode::Revoked)
        } else if certificate.is_over(now_unix_s) {
            Some(CloseCode::Expired)
        } else {
            None
        }
    }

    /// Whether the list in use revokes a certificate.
    pub(crate) fn revokes(&self, certificate: &Facts) -> bool {
        self.revocations().is_some_and(|list| list.revokes(&certificate.serial))
    }

    /// Reads the directory again. `None` if nothing of the channel has changed. What may change is the channel's key, its
    /// certificate and the revocation list; never who this is, in which alliance, or who may say so. Reads files: not for an
    /// async worker.
    pub fn reload(&self) -> Result<Option<Self>, ReloadError> {
        let new = match Self::load(self.dir()) {
            // Protected by a passphrase, which was given once: the identity that is in use is the only one that may come of it.
            Err(StoreError::File(FileError::Passphrase { .. })) => Self::of(self.dir(), self.identity().clone())?,
            other => other?,
        };
        new.may_follow(self)?;
        Ok((!new.channel().is_same(self.channel())).then_some(new))
    }

    fn may_follow(&self, old: &Self) -> Result<(), ReloadError> {
        let (found, own) = (self.identity().author_id(), old.identity().author_id());
        // The same identity in another role is as much somebody else.
        if found != own || self.peer() != old.peer() {
            return Err(ReloadError::OtherIdentity { found, own });
        }
        let (found, own) = (self.alliance_id(), old.alliance_id());
        if found != own {
            return Err(ReloadError::OtherAlliance { found, own });
        }
        if self.channel().authority != old.channel().authority {
            return Err(ReloadError::OtherAuthority);
        }
        match (self.revocations(), old.revocations()) {
            (None, Some(_)) => Err(ReloadError::ListGone),
            (Some(new), Some(old)) if new.is_older_than(old) => {
                Err(ReloadError::ListOlder { found: new.number(), own: old.number() })
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Role;
    use crate::revocation::{CRL_DAYS, Which};
    use crate::test_world::World;
    use time::OffsetDateTime;

    #[test]
    fn a_newer_list_is_taken_and_never_an_older_one_or_none() {
        let world = World::new();
        let (node, dir) = (world.credentials(Role::Node), world.dir_of(Role::Node));
        assert!(node.reload().unwrap().is_none(), "nothing has changed");
        let (now, list) = (OffsetDateTime::now_utc(), dir.join(names::CRL));
        let next = |which: &Which| {
            world.authority.revoke(which, CRL_DAYS, now).unwrap();
            world.install(&dir);
            std::fs::read(&list).unwrap()
        };
        let older = next(&Which::Refresh);
        let node = node.reload().unwrap().expect("the first list");
        next(&Which::Peer(world.credentials(Role::Gateway).peer()));
        let node = node.reload().unwrap().expect("a newer list");
        assert!(node.revocations().unwrap().revokes(&world.credentials(Role::Gateway).certificate().serial));
        assert!(node.reload().unwrap().is_none());
        std::fs::write(&list, &older).unwrap();
        let error = node.reload().unwrap_err();
        assert!(matches!(&error, ReloadError::ListOlder { found, own } if (&**found, &**own) == ("1", "2")), "{error}");
        std::fs::write(&list, &older[..older.len() / 2]).unwrap();
        assert!(matches!(node.reload(), Err(ReloadError::Store(StoreError::File(_)))));
        std::fs::remove_file(&list).unwrap();
        assert!(matches!(node.reload(), Err(ReloadError::ListGone)));
    }

    #[test]
    fn a_renewed_certificate_is_taken() {
        let world = World::new();
        let (node, dir) = (world.credentials(Role::Node), world.dir_of(Role::Node));
        let request = crate::enrol::EnrolmentRequest::load(&dir.join(names::REQUEST)).unwrap().verify().unwrap();
        let issued = world.authority.issue(&request, Role::Node, 60, OffsetDateTime::now_utc()).unwrap();
        std::fs::write(dir.join(names::CHANNEL), issued.pem).unwrap();
        let renewed = node.reload().unwrap().expect("a new certificate");
        assert!(renewed.certificate().not_after_unix_s > node.certificate().not_after_unix_s);
    }

    #[test]
    fn who_this_is_and_in_which_alliance_does_not_change_under_a_program() {
        let (world, other) = (World::new(), World::new());
        let (node, dir) = (world.credentials(Role::Node), world.dir_of(Role::Node));
        let become_ = |from: &std::path::Path| {
            for file in std::fs::read_dir(from).unwrap() {
                let file = file.unwrap();
                std::fs::copy(file.path(), dir.join(file.file_name())).unwrap();
            }
            node.reload().unwrap_err()
        };
        assert!(matches!(become_(&world.dir_of(Role::Gateway)), ReloadError::OtherIdentity { .. }));
        assert!(matches!(become_(&other.dir_of(Role::Node)), ReloadError::OtherIdentity { .. }));
    }

    #[test]
    fn another_charter_and_another_authority_are_not_taken_up_in_passing() {
        let (world, other) = (World::new(), World::new());
        let (node, dir) = (world.credentials(Role::Node), world.dir_of(Role::Node));
        let own = std::fs::read(dir.join(names::CHARTER)).unwrap();
        std::fs::copy(other.dir_of(Role::Node).join(names::CHARTER), dir.join(names::CHARTER)).unwrap();
        assert!(matches!(node.reload(), Err(ReloadError::OtherAlliance { .. })));
        std::fs::write(dir.join(names::CHARTER), own).unwrap();
        // Another authority that certified the very same identity and key.
        let request = crate::enrol::EnrolmentRequest::load(&dir.join(names::REQUEST)).unwrap().verify().unwrap();
        let issued = other.authority.issue(&request, Role::Node, 60, OffsetDateTime::now_utc()).unwrap();
        std::fs::write(dir.join(names::CHANNEL), issued.pem).unwrap();
        std::fs::copy(other.authority.dir().join(names::CA), dir.join(names::CA)).unwrap();
        assert!(matches!(node.reload(), Err(ReloadError::OtherAuthority)));
    }
}
