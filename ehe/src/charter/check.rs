//! The rules that a charter keeps within itself: limits, names, references.

use std::collections::HashSet;
use std::hash::Hash;

use super::{
    ADDRESS_MAX_BYTES, ADDRESSES_PER_NODE_MAX, Charter, CharterError, GROUP_SIZES, HEAD_FRESH_MAX_MS, Member,
    NODE_NAME_MAX_BYTES, Node, Placement, RULES_FIRST,
};
use crate::id::{MemberId, NodeId};
use crate::limits::{CHARTER_MAX_BYTES, LABEL_MAX_BYTES, MEMBERS_MAX, SHARDS_MAX};

impl Charter {
    /// Checks everything that does not need another charter or a signature.
    pub fn check(&self) -> Result<(), CharterError> {
        if self.version == 0 || (self.version == 1) != self.predecessor.is_none() {
            return Err(CharterError::Version(self.version));
        }
        within("the encoded size in bytes", self.to_bytes().len(), 1, CHARTER_MAX_BYTES)?;
        label("the alliance's name", &self.alliance)?;
        within("the number of shards", self.shard_count.get().into(), 1, SHARDS_MAX.into())?;
        let fresh_ms = usize::try_from(self.head_fresh_ms).unwrap_or(usize::MAX);
        within("head_fresh_ms", fresh_ms, 1, usize::try_from(HEAD_FRESH_MAX_MS).unwrap_or(usize::MAX))?;
        self.check_members()?;
        self.check_nodes()?;
        self.check_placement()?;
        match self.rules {
            // An alliance begins under the first rules: what raises them stands in the log of each shard.
            Some(rules) if rules <= RULES_FIRST || self.version == 1 => Err(CharterError::Rules(rules)),
            _ => Ok(()),
        }
    }

    fn check_members(&self) -> Result<(), CharterError> {
        within("the number of members", self.members.len(), 1, MEMBERS_MAX)?;
        for member in &self.members {
            label("a member's name", &member.name)?;
        }
        unique("member id", &self.members, |m| m.id)?;
        unique("member name", &self.members, |m| m.name.as_str())?;
        // Two members with one key would be two votes of one person.
        unique("signing key of a member", &self.members, |m: &Member| crate::id::Hash(m.identity.sign.0))?;
        Ok(())
    }

    fn check_nodes(&self) -> Result<(), CharterError> {
        within("the number of nodes", self.nodes.len(), 1, MEMBERS_MAX)?;
        let members: HashSet<MemberId> = self.members.iter().map(|m| m.id).collect();
        for node in &self.nodes {
            if !members.contains(&node.member) {
                return Err(CharterError::UnknownMember { node: node.id, member: node.member });
            }
            if node.name.len() > NODE_NAME_MAX_BYTES || !host_name_is_valid(&node.name) {
                return Err(text("a node's name", &node.name, "it has to be a DNS name in lower case"));
            }
            within("the number of addresses of a node", node.addresses.len(), 1, ADDRESSES_PER_NODE_MAX)?;
            node.addresses.iter().try_for_each(|a| address(a))?;
        }
        unique("node id", &self.nodes, |n| n.id)?;
        unique("node name", &self.nodes, |n| n.name.as_str())?;
        unique("signing key of a node", &self.nodes, |n: &Node| crate::id::Hash(n.sign.0))?;
        Ok(())
    }

    fn check_placement(&self) -> Result<(), CharterError> {
        if let Placement::Listed(groups) = &self.placement
            && groups.len() != usize::from(self.shard_count.get())
        {
            return Err(CharterError::ShardsCovered { found: groups.len(), shards: self.shard_count.get() });
        }
        let known: HashSet<NodeId> = self.nodes.iter().map(|n| n.id).collect();
        for group in self.placement.groups() {
            if !GROUP_SIZES.contains(&group.len()) {
                return Err(CharterError::GroupSize(group.len()));
            }
            if let Some(unknown) = group.iter().find(|id| !known.contains(id)) {
                return Err(CharterError::UnknownNode(*unknown));
            }
            unique("node in one shard's group", group, |id| *id)?;
            if let Some(asked) = self.min_cosignatures {
                let members = self.members_of(group);
                if asked == 0 || usize::from(asked) > members {
                    return Err(CharterError::Cosignatures { asked, members });
                }
            }
        }
        Ok(())
    }

    /// How many distinct members run the nodes of a group.
    pub(super) fn members_of(&self, group: &[NodeId]) -> usize {
        let nodes = self.nodes.iter().filter(|node| group.contains(&node.id));
        nodes.map(|node| node.member).collect::<HashSet<_>>().len()
    }
}

fn within(what: &'static str, found: usize, least: usize, most: usize) -> Result<(), CharterError> {
    if (least..=most).contains(&found) { Ok(()) } else { Err(CharterError::Limit { what, found, least, most }) }
}

fn text(what: &'static str, text: &str, why: &'static str) -> CharterError {
    CharterError::Text { what, text: text.chars().take(64).collect(), why }
}

fn label(what: &'static str, name: &str) -> Result<(), CharterError> {
    within(what, name.len(), 1, LABEL_MAX_BYTES)?;
    if name.trim() != name || name.chars().any(char::is_control) {
        return Err(text(what, name, "no control characters, no space at the ends"));
    }
    Ok(())
}

fn unique<'a, T, K: Hash + Eq + ToString>(
    what: &'static str,
    items: &'a [T],
    key: impl Fn(&'a T) -> K,
) -> Result<(), CharterError> {
    let mut seen = HashSet::with_capacity(items.len());
    for item in items {
        let key = key(item);
        let value = key.to_string();
        if !seen.insert(key) {
            return Err(CharterError::Duplicate { what, value });
        }
    }
    Ok(())
}

/// A DNS name in lower case (RFC 1123 §2.1): labels of 1 to 63 letters, digits and inner hyphens, 253 bytes at most. Such a
/// name has neither space nor plus, so it can name a key in a signed note.
pub fn host_name_is_valid(name: &str) -> bool {
    let label_is_valid = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    name.len() <= 253 && name.split('.').all(label_is_valid)
}

fn address(address: &str) -> Result<(), CharterError> {
    within("the length of an address in bytes", address.len(), 1, ADDRESS_MAX_BYTES)?;
    let bad = |why| text("an address", address, why);
    let (host, port) = address.rsplit_once(':').ok_or_else(|| bad("it has to be host:port"))?;
    let digits = !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit());
    if !digits || port.starts_with('0') || port.parse::<u16>().is_err() {
        return Err(bad("the port has to be 1 to 65535"));
    }
    let host_is_valid = match host.strip_prefix('[').and_then(|h| h.strip_suffix(']')) {
        Some(v6) => v6.parse::<core::net::Ipv6Addr>().is_ok(),
        None => host_name_is_valid(host),
    };
    if host_is_valid {
        Ok(())
    } else {
        Err(bad("the host has to be a DNS name in lower case, an IPv4 or an [IPv6] address"))
    }
}
