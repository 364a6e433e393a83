//! Charters as files: one that a plan makes, to be signed, and one that was signed, to be handed to this node.

use std::io::Write;
use std::path::Path;

use anyhow::{Context, bail};
use certs::Credentials;
use certs::store::{names, read_charters};
use ehe::charter::{Charter, CharterChain, Node, SignedCharter, VerifiedCharter};
use ehe::id::NodeId;
use ehe::wire::NodeStatus;

use super::plan::{drain, raise, replace, set};
use super::rules::may_raise;
use crate::charters::Charters;
use crate::config::Config;

/// What is planned.
#[derive(Debug, Clone)]
pub enum Planned {
    /// A shard lives on these nodes.
    Move {
        /// The shard.
        shard: u16,
        /// Nodes, by name or id.
        to: Vec<String>,
    },
    /// No shard lives on a node.
    Drain {
        /// By name or id.
        node: String,
    },
    /// One node takes another one's place.
    Replace {
        /// By name or id.
        old: String,
        /// By name or id.
        new: String,
    },
    /// The rules version in force is raised.
    Raise {
        /// To this one.
        rules: u16,
    },
}

/// How the alliance's nodes are, as the running node says: asked where the rules version is raised.
pub type Asked<'a> = &'a dyn Fn() -> anyhow::Result<NodeStatus>;

/// A charter raises the rules version only where every node knows it.
fn checked(before: &VerifiedCharter, after: &Charter, asked: Asked<'_>) -> anyhow::Result<()> {
    if after.rules() > before.rules() {
        let status = asked().context("which rules versions the nodes' programs know, only a running node can tell")?;
        may_raise(before, after, &status)?;
    }
    Ok(())
}

fn node<'a>(charter: &'a VerifiedCharter, named: &str) -> anyhow::Result<&'a Node> {
    let found = charter.node_by_name(named).or_else(|| charter.node(named.parse::<NodeId>().ok()?));
    found.with_context(|| {
        let names: Vec<_> = charter.nodes().iter().map(|node| node.name.as_str()).collect();
        format!("charter {} names no node {named:?}; it names {}", charter.version(), names.join(", "))
    })
}

/// Writes the charter that follows the newest one that this node knows to a new file, for the members to sign, and shows what it moves.
pub fn plan(
    config: &Config,
    planned: &Planned,
    to: &Path,
    asked: Asked<'_>,
    out: &mut dyn Write,
) -> anyhow::Result<()> {
    let credentials = Credentials::load(&config.credentials_dir)?;
    let charters = Charters::open(&credentials, &config.data_dir)?;
    let newest = charters.newest();
    let id = |named: &String| node(&newest, named).map(|node| node.id);
    let next = match planned {
        Planned::Move { shard, to } => set(&newest, *shard, &to.iter().map(id).collect::<Result<Vec<_>, _>>()?)?,
        Planned::Drain { node } => drain(&newest, id(node)?)?,
        Planned::Replace { old, new } => replace(&newest, id(old)?, id(new)?)?,
        Planned::Raise { rules } => raise(&newest, *rules)?,
    };
    checked(&newest, &next, asked)?;
    let mut chain = CharterChain::decode(&charters.encoded())?;
    chain.0.push(SignedCharter::unsigned(&next)?);
    certs::file::create_public(to, &chain.encode())?;
    writeln!(out, "{}", next.changes(newest.charter()))?;
    writeln!(
        out,
        "\nwritten to {0}, not signed yet. A majority of the members signs it: ehe-certs charter sign {0} --with IDENTITY\n\
         then one node is given it, which hands it to the others: ehe-node charter install {0} --config CONFIG",
        to.display()
    )?;
    Ok(())
}

/// Puts a signed charter into the node's credentials directory, from where the node takes it up within seconds.
pub fn install(config: &Config, from: &Path, asked: Asked<'_>, out: &mut dyn Write) -> anyhow::Result<u32> {
    let credentials = Credentials::load(&config.credentials_dir)?;
    let chain = read_charters(from, "it is the file that the members signed")?;
    // Against all that this node knows: another charter of a version that is in force would be refused by the running node as well.
    let charters = Charters::open(&credentials, &config.data_dir)?;
    let newest = charters.newest();
    match charters.judge(&chain).with_context(|| from.display().to_string())? {
        Some(newer) => {
            checked(&newest, newer.charter(), asked)?;
            certs::file::replace(&config.credentials_dir.join(names::CHARTER), &chain.encode())?;
            let (before, after) = (newest, newer);
            writeln!(out, "{}", after.charter().changes(before.charter()))?;
            writeln!(
                out,
                "charter {} is installed; the node takes it up within seconds and tells the others",
                after.version()
            )?;
            Ok(after.version())
        }
        None if chain.0.last().map(SignedCharter::hash) == Some(newest.hash()) => {
            writeln!(out, "charter {} is known here already", newest.version())?;
            Ok(newest.version())
        }
        None => bail!("{} has no charter behind {}, the newest that this node knows", from.display(), newest.version()),
    }
}
