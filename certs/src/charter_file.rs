//! The description that a charter is written from: a TOML file that members can read, discuss and compare.
//!
//! ```toml
//! alliance = "Two hospitals"
//! shards = 16                       # never changes later; default 16
//! head_fresh_ms = 60000             # a head older than this is stale; default 60000
//! # min_cosignatures = 2            # where that is more than the majority of a shard's members
//! # rules = 2                       # the rules version in force; as in the charter before unless it is raised here
//!
//! [[member]]
//! name = "St. Anna"
//! identity = "st-anna/identity.pub" # relative to this file
//!
//! [[node]]
//! name = "node1.st-anna.example"    # a DNS name in lower case
//! member = "St. Anna"
//! identity = "node1/identity.pub"
//! addresses = ["192.0.2.1:4433"]
//!
//! [placement]                       # default: all nodes hold all shards
//! everywhere = ["node1.st-anna.example"]
//! # shards = [["node1.st-anna.example"], …]   # or one group for each shard
//!
//! [permissions]                     # defaults as shown
//! submit = ["gateway", "patient", "clinician"]
//! read = ["gateway", "patient", "clinician"]
//! host = ["node"]
//! ```

use std::num::NonZeroU16;
use std::path::{Path, PathBuf};

use ehe::charter::{Charter, Member, Node, Permissions, Placement, RULES_FIRST, Role, RoleSet, VerifiedCharter};
use ehe::id::{MemberId, NodeId};
use serde::Deserialize;

use crate::file::{self, FileError};
use crate::identity_file;
use crate::peer::node_id;

/// Largest description.
pub const CHARTER_FILE_MAX_BYTES: usize = 1024 * 1024;
const SHARDS: u16 = 16;
const HEAD_FRESH_MS: u32 = 60_000;

/// Why a description makes no charter. Its author is at fault.
#[derive(Debug, thiserror::Error)]
pub enum CharterFileError {
    /// Not TOML, or with unknown or missing members.
    #[error("the charter's description: {0}")]
    Toml(String),
    /// A public identity was not read.
    #[error("the charter's description: {0}")]
    Identity(#[from] FileError),
    /// A node or the placement names what is not described.
    #[error("the charter's description: there is no {what} {name:?}")]
    Unknown {
        /// A member or a node.
        what: &'static str,
        /// The name.
        name: String,
    },
    /// Both or neither of `everywhere` and `shards`.
    #[error("the charter's description: [placement] has either `everywhere` or `shards`")]
    Placement,
}

/// The description as it stands in the file.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CharterFile {
    alliance: String,
    shards: Option<NonZeroU16>,
    head_fresh_ms: Option<u32>,
    min_cosignatures: Option<u16>,
    rules: Option<u16>,
    #[serde(rename = "member")]
    members: Vec<MemberEntry>,
    #[serde(rename = "node")]
    nodes: Vec<NodeEntry>,
    placement: Option<PlacementEntry>,
    permissions: Option<PermissionsEntry>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct MemberEntry {
    name: String,
    identity: PathBuf,
    /// Kept through a change of identity; otherwise it follows from the first one.
    id: Option<MemberId>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct NodeEntry {
    name: String,
    member: String,
    identity: PathBuf,
    addresses: Vec<String>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct PlacementEntry {
    everywhere: Option<Vec<String>>,
    shards: Option<Vec<Vec<String>>>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct PermissionsEntry {
    submit: Option<Vec<Role>>,
    read: Option<Vec<Role>>,
    host: Option<Vec<Role>>,
}

impl CharterFile {
    /// Reads the text.
    pub fn parse(text: &str) -> Result<Self, CharterFileError> {
        toml::from_str(text).map_err(|error| CharterFileError::Toml(file::toml_fault(text, &error)))
    }

    /// The charter that it describes: version 1, or the one that follows `before`. Identity files are looked up from `base`.
    /// The charter's own rules are checked when it is to be signed.
    pub fn charter(&self, base: &Path, before: Option<&VerifiedCharter>) -> Result<Charter, CharterFileError> {
        let members = self.members.iter().map(|entry| entry.member(base)).collect::<Result<Vec<_>, _>>()?;
        let nodes = self.nodes.iter().map(|entry| entry.node(base, &members)).collect::<Result<Vec<_>, _>>()?;
        Ok(Charter {
            version: before.map_or(1, |before| before.version().saturating_add(1)),
            alliance: self.alliance.clone(),
            predecessor: before.map(VerifiedCharter::hash),
            shard_count: self
                .shards
                .or(before.map(VerifiedCharter::shard_count))
                .or(NonZeroU16::new(SHARDS))
                .unwrap_or(NonZeroU16::MIN),
            placement: self.placed(&nodes)?,
            members,
            nodes,
            permissions: self.permitted(),
            head_fresh_ms: self.head_fresh_ms.unwrap_or(HEAD_FRESH_MS),
            min_cosignatures: self.min_cosignatures,
            rules: self.rules.or(before.map(VerifiedCharter::rules)).filter(|rules| *rules != RULES_FIRST),
        })
    }

    fn placed(&self, nodes: &[Node]) -> Result<Placement, CharterFileError> {
        let id = |name: &String| {
            let found = nodes.iter().find(|node| node.name == *name).map(|node| node.id);
            found.ok_or_else(|| CharterFileError::Unknown { what: "node", name: name.clone() })
        };
        let group = |names: &Vec<String>| names.iter().map(id).collect::<Result<Vec<NodeId>, _>>();
        match &self.placement {
            None => Ok(Placement::Everywhere(nodes.iter().map(|node| node.id).collect())),
            Some(PlacementEntry { everywhere: Some(names), shards: None }) => Ok(Placement::Everywhere(group(names)?)),
            Some(PlacementEntry { everywhere: None, shards: Some(groups) }) => {
                Ok(Placement::Listed(groups.iter().map(group).collect::<Result<_, _>>()?))
            }
            Some(_) => Err(CharterFileError::Placement),
        }
    }

    fn permitted(&self) -> Permissions {
        let mut permissions = Permissions::default();
        if let Some(entry) = &self.permissions {
            let set = |to: &mut RoleSet, roles: &Option<Vec<Role>>| {
                if let Some(roles) = roles {
                    *to = RoleSet::of(roles);
                }
            };
            set(&mut permissions.submit, &entry.submit);
            set(&mut permissions.read, &entry.read);
            set(&mut permissions.host, &entry.host);
        }
        permissions
    }
}

impl MemberEntry {
    fn member(&self, base: &Path) -> Result<Member, CharterFileError> {
        let identity = identity_file::load_public(&base.join(&self.identity))?;
        let id = self.id.unwrap_or_else(|| member_id(&identity));
        Ok(Member { id, name: self.name.clone(), identity })
    }
}

impl NodeEntry {
    fn node(&self, base: &Path, members: &[Member]) -> Result<Node, CharterFileError> {
        let identity = identity_file::load_public(&base.join(&self.identity))?;
        let member = members.iter().find(|member| member.name == self.member);
        let unknown = || CharterFileError::Unknown { what: "member", name: self.member.clone() };
        Ok(Node {
            id: node_id(identity.author_id()),
            member: member.ok_or_else(unknown)?.id,
            name: self.name.clone(),
            sign: identity.sign,
            addresses: self.addresses.clone(),
        })
    }
}

/// A member's id, where the description gives none: the first 8 bytes of its identity's author id.
fn member_id(identity: &ehe::identity::PublicIdentity) -> MemberId {
    MemberId(node_id(identity.author_id()).0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TWO: &str = "
        alliance = 'Two'
        [[member]]
        name = 'A'
        identity = 'a.pub'
        [[node]]
        name = 'n1.example'
        member = 'A'
        identity = 'n1.pub'
        addresses = ['127.0.0.1:1']
    ";

    fn with_identities() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for name in ["a.pub", "n1.pub"] {
            let identity = identity_file::generate().unwrap();
            identity_file::create_public(&dir.path().join(name), identity.public()).unwrap();
        }
        dir
    }

    #[test]
    fn a_short_description_gets_the_defaults() {
        let dir = with_identities();
        let charter = CharterFile::parse(TWO).unwrap().charter(dir.path(), None).unwrap();
        charter.check().unwrap();
        assert_eq!((charter.version, charter.shard_count.get(), charter.head_fresh_ms), (1, 16, 60_000));
        assert_eq!(charter.permissions, Permissions::default());
        let node = identity_file::load_public(&dir.path().join("n1.pub")).unwrap();
        assert_eq!(charter.nodes[0].id, node_id(node.author_id()));
        assert_eq!(charter.placement, Placement::Everywhere(vec![charter.nodes[0].id]));
    }

    #[test]
    fn placement_and_permissions_can_be_written_out() {
        let dir = with_identities();
        let text = format!(
            "shards = 2\n{TWO}\n[placement]\nshards = [['n1.example'], ['n1.example']]\n[permissions]\nread = ['clinician']"
        );
        let charter = CharterFile::parse(&text).unwrap().charter(dir.path(), None).unwrap();
        charter.check().unwrap();
        assert!(matches!(&charter.placement, Placement::Listed(groups) if groups.len() == 2));
        assert_eq!(charter.permissions.read.iter().collect::<Vec<_>>(), [Role::Clinician]);
        assert_eq!(charter.permissions.submit, Permissions::default().submit);
    }

    #[test]
    fn a_description_with_an_unknown_name_says_which() {
        let dir = with_identities();
        let verdict = |text: &str| match CharterFile::parse(text) {
            Ok(file) => file.charter(dir.path(), None).unwrap_err().to_string(),
            Err(error) => error.to_string(),
        };
        assert!(verdict(&TWO.replace("member = 'A'", "member = 'B'")).contains("no member \"B\""));
        assert!(
            verdict(&format!("{TWO}\n[placement]\neverywhere = ['n2.example']")).contains("no node \"n2.example\"")
        );
        assert!(verdict(&format!("{TWO}\n[placement]")).contains("either"));
        assert!(verdict(&TWO.replace("n1.pub", "n2.pub")).contains("n2.pub is missing"));
        assert!(verdict(&format!("shard = 3\n{TWO}")).contains("shard"));
        assert!(verdict(&format!("{TWO}\n[permissions]\nread = ['nurse']")).contains("nurse"));
    }
}
