//! The description that a charter is written from: a TOML file that members can read, discuss and compare.
//! [`EXAMPLE`] has every option.

use std::num::NonZeroU16;
use std::path::{Path, PathBuf};

use ehe::charter::{
    Charter, CharterError, GROUP_SIZES, Member, Node, Permissions, Placement, RULES_FIRST, Role, RoleSet,
    VerifiedCharter,
};
use ehe::id::{MemberId, NodeId};
use serde::Deserialize;

use crate::file::{self, FileError};
use crate::identity_file;
use crate::peer::node_id;

/// A description with every option, explained.
pub const EXAMPLE: &str = include_str!("../alliance.example.toml");
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
    /// Charter 1 without a placement, of a number of nodes that no group has.
    #[error(
        "the charter's description has {0} nodes and no [placement], so that all of them would hold each shard; a shard's group has 1, 3, 5 or 7 \
         nodes: name those in `[placement]`, as in `everywhere = [\"node1.example\"]` (`ehe-certs charter example` shows it)"
    )]
    Everywhere(usize),
    /// A node that still holds shards is not described any more.
    #[error(
        "the charter's description has no node {node}, on which {shards} shards live by charter {version}: move them away first (`ehe-node drain` \
         or `replace`), or say in `[placement]` where they are to live"
    )]
    StillHolds {
        /// The node's name.
        node: String,
        /// The charter before.
        version: u32,
        /// How many shards it gives to the node.
        shards: usize,
    },
    /// The description goes against the charter before.
    #[error("{0}")]
    Charter(#[from] CharterError),
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
    ///
    /// What other commands than the description's author decide stays as it was `before`, unless it is described: where shards live, and the
    /// rules in force.
    pub fn charter(&self, base: &Path, before: Option<&VerifiedCharter>) -> Result<Charter, CharterFileError> {
        if let (Some(before), Some(after)) = (before.map(VerifiedCharter::shard_count), self.shards)
            && before != after
        {
            return Err(CharterError::ShardCountChanged { before: before.get(), after: after.get() }.into());
        }
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
            placement: self.placed(&nodes, before)?,
            members,
            nodes,
            permissions: self.permitted(),
            head_fresh_ms: self.head_fresh_ms.unwrap_or(HEAD_FRESH_MS),
            min_cosignatures: self.min_cosignatures,
            rules: self.rules.or(before.map(VerifiedCharter::rules)).filter(|rules| *rules != RULES_FIRST),
        })
    }

    fn placed(&self, nodes: &[Node], before: Option<&VerifiedCharter>) -> Result<Placement, CharterFileError> {
        let id = |name: &String| {
            let found = nodes.iter().find(|node| node.name == *name).map(|node| node.id);
            found.ok_or_else(|| CharterFileError::Unknown { what: "node", name: name.clone() })
        };
        let group = |names: &Vec<String>| names.iter().map(id).collect::<Result<Vec<NodeId>, _>>();
        match &self.placement {
            None => match before {
                Some(before) => kept(nodes, before),
                None if GROUP_SIZES.contains(&nodes.len()) => {
                    Ok(Placement::Everywhere(nodes.iter().map(|node| node.id).collect()))
                }
                None => Err(CharterFileError::Everywhere(nodes.len())),
            },
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

/// Where shards live by the charter before, if all who hold any are still there.
fn kept(nodes: &[Node], before: &VerifiedCharter) -> Result<Placement, CharterFileError> {
    for node in before.nodes().iter().filter(|node| nodes.iter().all(|it| it.id != node.id)) {
        let shards = before.shards_of(node.id).count();
        if shards != 0 {
            let (node, version) = (format!("{} ({})", node.name, node.id), before.version());
            return Err(CharterFileError::StillHolds { node, version, shards });
        }
    }
    Ok(before.charter().placement.clone())
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
    use ehe::charter::{SignedCharter, Trust};
    use ehe::id::AllianceId;

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
    fn a_charter_that_follows_leaves_shards_where_they_are_unless_its_placement_moves_them() {
        let dir = tempfile::tempdir().unwrap();
        let member = identity_file::generate().unwrap();
        identity_file::create_public(&dir.path().join("a.pub"), member.public()).unwrap();
        let mut text = "alliance = 'Four'\n[[member]]\nname = 'A'\nidentity = 'a.pub'\n".to_owned();
        for n in 1..=4 {
            let identity = identity_file::generate().unwrap();
            identity_file::create_public(&dir.path().join(format!("n{n}.pub")), identity.public()).unwrap();
            let entry = format!("member = 'A'\nidentity = 'n{n}.pub'\naddresses = ['127.0.0.1:1']");
            text += &format!("[[node]]\nname = 'n{n}.example'\n{entry}\n");
        }
        let made = |text: &str, before: Option<&VerifiedCharter>| CharterFile::parse(text)?.charter(dir.path(), before);
        let text_of = |error: CharterFileError| error.to_string();
        // Four nodes are no group: which of them hold shards has to be said once.
        let refused = made(&text, None).map_err(text_of).unwrap_err();
        assert!(refused.contains("4 nodes") && refused.contains("[placement]"), "{refused}");
        let placed = format!("{text}[placement]\neverywhere = ['n1.example', 'n2.example', 'n3.example']");
        let first = made(&placed, None).unwrap();
        let mut signed = SignedCharter::unsigned(&first).unwrap();
        signed.sign(&member).unwrap();
        let first = signed.verify(Trust::Pinned(AllianceId(signed.hash().0))).unwrap();

        let next = made(&text, Some(&first)).unwrap();
        next.check().unwrap();
        assert_eq!((next.version, &next.placement), (2, &first.charter().placement));
        let moved = made(&format!("{text}[placement]\neverywhere = ['n4.example']"), Some(&first)).unwrap();
        assert_eq!(moved.placement, Placement::Everywhere(vec![moved.nodes[3].id]));
        // Who holds something does not get lost by being left out; who holds nothing may.
        let without = |n: usize| {
            text.split("[[node]]").enumerate().filter(|(at, _)| *at != n).map(|(_, it)| it).collect::<Vec<_>>()
        };
        let refused = made(&without(2).join("[[node]]"), Some(&first)).map_err(text_of).unwrap_err();
        assert!(
            refused.contains("n2.example") && refused.contains("16 shards") && refused.contains("drain"),
            "{refused}"
        );
        assert_eq!(made(&without(4).join("[[node]]"), Some(&first)).unwrap().nodes.len(), 3);
        let refused = made(&format!("shards = 8\n{text}"), Some(&first)).map_err(text_of).unwrap_err();
        assert!(refused.contains("from 16 to 8"), "{refused}");
    }

    #[test]
    fn the_example_is_a_description_with_every_option_and_what_it_comments_out_is_valid_too() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["st-anna", "st-barbara", "st-clara", "node1", "node2", "node3", "node4"] {
            std::fs::create_dir(dir.path().join(name)).unwrap();
            let identity = identity_file::generate().unwrap();
            identity_file::create_public(&dir.path().join(name).join("identity.pub"), identity.public()).unwrap();
        }
        let made = |text: &str| CharterFile::parse(text).unwrap().charter(dir.path(), None).unwrap();
        let plain = made(EXAMPLE);
        plain.check().unwrap();
        assert_eq!(plain.placement, Placement::Everywhere(plain.nodes.iter().take(3).map(|node| node.id).collect()));

        // With each option in force: a line of a comment that is an option begins with its name.
        let options = [
            "shards = 16",
            "head_fresh_ms",
            "min_cosignatures",
            "rules",
            "id",
            "[permissions]",
            "submit",
            "read",
            "host",
        ];
        let mut all = EXAMPLE.to_owned();
        for option in options {
            let line = format!("\n# {option}");
            assert_eq!(all.matches(&line).count(), 1, "{option}");
            all = all.replace(&line, &format!("\n{option}"));
        }
        let all = made(&all);
        assert_eq!((all.min_cosignatures, all.rules), (Some(3), Some(2)));
        assert_eq!(all.members[0].id.to_string(), "0123456789abcdef");
        // Nothing else is changed by it: the comments tell the defaults.
        assert_eq!((all.shard_count, all.head_fresh_ms), (plain.shard_count, plain.head_fresh_ms));
        assert_eq!(all.permissions, Permissions::default());
        let listed = EXAMPLE.replace("\neverywhere", "\n# everywhere").replace("\n# shards = [[", "\nshards = [[");
        let listed = made(&listed.replace("\n# shards = 16", "\nshards = 2"));
        listed.check().unwrap();
        assert!(matches!(listed.placement, Placement::Listed(groups) if groups.len() == 2));
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
