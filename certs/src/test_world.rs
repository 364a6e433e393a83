//! A small alliance in a temporary directory, made the way that the program makes it, for this crate's tests.

use std::path::{Path, PathBuf};

use ehe::charter::{CharterChain, Role};
use ehe::id::{AllianceId, NodeId};
use ehe::identity::Identity;
use time::OffsetDateTime;

use crate::authority::{AUTHORITY_DAYS, Authority};
use crate::charter_file::CharterFile;
use crate::enrol::{self, EnrolmentRequest, HostNames};
use crate::identity_file;
use crate::store::{Credentials, names};

pub(crate) struct World {
    dir: tempfile::TempDir,
    pub(crate) authority: Authority,
    member: Identity,
}

impl World {
    /// Authority, one member, one of each role; the node hosts everything.
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let now = OffsetDateTime::now_utc();
        let authority = Authority::create(&dir.path().join("alliance"), "Test alliance", AUTHORITY_DAYS, now).unwrap();
        let member = identity_file::generate().unwrap();
        let world = Self { dir, authority, member };
        for role in Role::ALL {
            world.enrol(&role.to_string(), role);
        }
        let (charter, alliance) = world.charter();
        std::fs::write(world.path("alliance").join(names::CHARTER), charter.encode()).unwrap();
        assert_eq!(charter.claimed_alliance(), Some(alliance));
        for role in Role::ALL {
            world.install(&world.dir_of(role));
        }
        world
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn dir_of(&self, role: Role) -> PathBuf {
        self.path(&role.to_string())
    }

    pub(crate) fn credentials(&self, role: Role) -> Credentials {
        Credentials::load(&self.dir_of(role)).unwrap()
    }

    pub(crate) fn node_id(&self) -> NodeId {
        self.credentials(Role::Node).peer().node().unwrap()
    }

    pub(crate) fn alliance(&self) -> AllianceId {
        self.charter().1
    }

    /// One more node, with the alliance's public files. The charter does not name it.
    pub(crate) fn another_node(&self, name: &str) -> PathBuf {
        let dir = self.enrol(name, Role::Node);
        self.install(&dir);
        dir
    }

    /// Identity, request and certificate in a directory of this name.
    pub(crate) fn enrol(&self, name: &str, role: Role) -> PathBuf {
        let dir = self.path(name);
        let dns = if role == Role::Node { vec!["node.example".to_owned()] } else { vec![] };
        let prepared = enrol::prepare(&dir, role, &HostNames { dns, ip: vec![] }).unwrap();
        let request = EnrolmentRequest::load(&prepared.request).unwrap().verify().unwrap();
        let issued = self.authority.issue(&request, role, 30, OffsetDateTime::now_utc()).unwrap();
        std::fs::write(dir.join(names::CHANNEL), issued.pem).unwrap();
        dir
    }

    /// The alliance's public files.
    pub(crate) fn install(&self, dir: &Path) {
        let from = self.path("alliance");
        for name in [names::CA, names::CHARTER, names::CRL] {
            if from.join(name).exists() {
                std::fs::copy(from.join(name), dir.join(name)).unwrap();
            }
        }
    }

    fn charter(&self) -> (CharterChain, AllianceId) {
        let public = self.path("member.pub");
        if !public.exists() {
            identity_file::create_public(&public, self.member.public()).unwrap();
        }
        let text = "
            alliance = 'Test alliance'
            shards = 4
            [[member]]
            name = 'Hospital'
            identity = 'member.pub'
            [[node]]
            name = 'node.example'
            member = 'Hospital'
            identity = 'node/identity.pub'
            addresses = ['127.0.0.1:4433']
        ";
        let charter = CharterFile::parse(text).unwrap().charter(self.dir.path(), None).unwrap();
        let mut signed = ehe::charter::SignedCharter::unsigned(&charter).unwrap();
        signed.sign(&self.member).unwrap();
        let alliance = AllianceId(signed.hash().0);
        (CharterChain(vec![signed]), alliance)
    }
}
