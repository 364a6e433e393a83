//! An alliance of one member with two nodes, made as `ehe-certs` makes it.

use std::path::Path;

use certs::Credentials;
use certs::authority::{AUTHORITY_DAYS, Authority};
use certs::charter_file::CharterFile;
use certs::enrol::{EnrolmentRequest, HostNames, prepare};
use certs::identity_file;
use certs::store::names;
use ehe::charter::{CharterChain, Node, Role, SignedCharter};
use time::OffsetDateTime;

pub(crate) struct World {
    _folder: tempfile::TempDir,
    /// The node that connects.
    pub(crate) near: Credentials,
    /// The node that is connected to.
    pub(crate) far: Credentials,
    /// As the charter names it.
    pub(crate) entry: Node,
}

impl World {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (root, now) = (folder.path(), OffsetDateTime::now_utc());
        let authority = Authority::create(&root.join("alliance"), "Bench", AUTHORITY_DAYS, now).unwrap();
        let member = identity_file::generate().unwrap();
        identity_file::create_public(&root.join("member.pub"), member.public()).unwrap();
        for name in ["near", "far"] {
            let host = HostNames { dns: vec![format!("{name}.example")], ip: vec![] };
            let prepared = prepare(&root.join(name), Role::Node, &host).unwrap();
            let request = EnrolmentRequest::load(&prepared.request).unwrap().verify().unwrap();
            let issued = authority.issue(&request, Role::Node, 30, now).unwrap();
            std::fs::write(root.join(name).join(names::CHANNEL), issued.pem).unwrap();
        }
        let charter = charter(root, &member);
        let load = |name: &str| {
            let own = root.join(name);
            std::fs::write(own.join(names::CHARTER), charter.encode()).unwrap();
            std::fs::copy(root.join("alliance").join(names::CA), own.join(names::CA)).unwrap();
            Credentials::load(&own).unwrap()
        };
        let (near, far) = (load("near"), load("far"));
        let entry = far.charter().node(far.peer().node().unwrap()).unwrap().clone();
        Self { _folder: folder, near, far, entry }
    }
}

fn charter(root: &Path, member: &ehe::identity::Identity) -> CharterChain {
    let node = |name: &str| {
        format!(
            "[[node]]\nname = '{name}.example'\nmember = 'Hospital'\nidentity = '{name}/identity.pub'\n\
             addresses = ['127.0.0.1:4433']\n"
        )
    };
    let text = format!(
        "alliance = 'Bench'\n[[member]]\nname = 'Hospital'\nidentity = 'member.pub'\n{}{}[placement]\neverywhere = ['far.example']\n",
        node("near"),
        node("far")
    );
    let charter = CharterFile::parse(&text).unwrap().charter(root, None).unwrap();
    let mut signed = SignedCharter::unsigned(&charter).unwrap();
    signed.sign(member).unwrap();
    CharterChain(vec![signed])
}
