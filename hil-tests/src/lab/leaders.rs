//! Who leads what, asked of the nodes themselves: the nodes of the lab by their numbers.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result};
use certs::Credentials;
use certs::passphrase::Source;
use ehe::charter::VerifiedCharter;
use ehe::id::NodeId;
use ehe::wire::{NodeStatus, Request, Response};
use futures::future::join_all;

use super::alliance::Alliance;
use super::charters::Charters;
use super::line::Line;
use super::process::until;

/// A node that does not answer within this time is taken for silent.
const ATTEMPT: Duration = Duration::from_millis(700);

/// Somebody's way to ask the nodes how they are.
#[derive(Debug, Clone)]
pub struct Leaders {
    line: Line,
    charter: VerifiedCharter,
}

impl Leaders {
    /// As a person of the alliance.
    pub fn asked_by(alliance: &Alliance, who: &str) -> Result<Self> {
        let passphrase = Source::File(alliance.path("passphrase"));
        let credentials = Credentials::open(&alliance.path(who), &passphrase)?;
        Ok(Self { line: Line::new(&credentials)?, charter: credentials.charter().clone() })
    }

    /// The charter that it asks under, alone; others may be made known there.
    pub fn charters(&self) -> Charters {
        Charters::only(&self.charter)
    }

    /// The id of the node of this number.
    pub fn id(&self, number: usize) -> Result<NodeId> {
        let node = number.checked_sub(1).and_then(|at| self.charter.nodes().get(at));
        Ok(node.with_context(|| format!("the charter has no node {number}"))?.id)
    }

    /// The number of a node.
    pub fn number(&self, id: NodeId) -> Option<usize> {
        self.charter.nodes().iter().position(|node| node.id == id).map(|at| at + 1)
    }

    /// How a node is, if it answers.
    pub async fn status(&self, number: usize) -> Option<NodeStatus> {
        let id = self.id(number).ok()?;
        let answer = self.line.ask_node(id, &Request::Status.to_vec(), ATTEMPT).await.ok()?;
        match Response::decode(&answer).ok()? {
            Response::Status(status) => Some(status),
            _ => None,
        }
    }

    /// The leader of every shard, if all of these nodes answer and name the same one, one of them.
    pub async fn now(&self, among: &[usize]) -> Option<BTreeMap<u16, usize>> {
        let mut named = BTreeMap::new();
        for status in join_all(among.iter().map(|number| self.status(*number))).await {
            for shard in status?.shards {
                let leader = self.number(shard.leader?).filter(|leader| among.contains(leader))?;
                if *named.entry(shard.shard).or_insert(leader) != leader {
                    return None;
                }
            }
        }
        (!named.is_empty()).then_some(named)
    }

    /// Waits until every shard has a leader that all of these nodes name.
    pub async fn agreed(&self, among: &[usize], within: Duration) -> Result<BTreeMap<u16, usize>> {
        until("one leader of every shard", within, || async { Ok(self.now(among).await) }).await
    }

    /// As [`Leaders::agreed`]: the node that leads most shards.
    pub async fn first(&self, among: &[usize], within: Duration) -> Result<usize> {
        let mut leads: BTreeMap<usize, usize> = BTreeMap::new();
        for leader in self.agreed(among, within).await?.into_values() {
            *leads.entry(leader).or_default() += 1;
        }
        leads.into_iter().max_by_key(|(_, shards)| *shards).map(|(leader, _)| leader).context("there are shards")
    }
}
