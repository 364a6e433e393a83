//! Whether a log goes on from what was seen of it: its sizes only grow, and each is proven to begin with the one before (SPEC L4).

use std::time::Duration;

use ehe::charter::VerifiedCharter;
use ehe::extension::{self, Begins};
use ehe::id::{NodeId, Nonce};
use ehe::run::SeenCheckpoint;
use ehe::wire::{Head, Request, Response};
use tokio::time::timeout;

use crate::error::Error;
use crate::evidence;
use crate::follow::Following;
use crate::memory::{MemoryError, RoomMemory};
use crate::session::{Session, kind};

/// A node that showed a head a moment ago says within this time how its log came to it.
const WITHIN: Duration = Duration::from_secs(5);

/// What is proven of two sizes of one log.
pub(crate) enum Proven {
    /// The larger one begins with the smaller one.
    Extends,
    /// It begins otherwise, by this root and proof.
    Not(evidence::Begins),
}

impl Session {
    /// Ties what was followed to a quorum's checkpoint and to what was seen before. What was seen before counts on where anything of it
    /// does not hold.
    pub(crate) async fn confirm(
        &mut self,
        following: &mut Following,
        (head, asked): (&Head, Nonce),
        charter: &VerifiedCharter,
        by: Option<NodeId>,
    ) -> Result<RoomMemory, Error> {
        let before = following.known().cloned();
        let moved = self.restored(following.room(), before.as_ref(), head).await?;
        let confirmed = following.confirm(head, asked, charter, moved.as_ref());
        let memory = confirmed.map_err(|why| self.evident(why, following.known(), &head.last.checkpoint))?;
        if let Some(before) = before {
            let known = moved.map_or_else(|| before.seen(), |moved| moved.kept);
            if let Err(why) = self.goes_on(by, &known, &before, &memory).await {
                following.disbelieve(Some(before));
                return Err(why);
            }
        }
        Ok(memory)
    }

    /// Whether a log that was verified just now goes on from what is `known` of it, as the node that showed it proves. `before` is what is
    /// remembered: half of the evidence, if it does not.
    pub(crate) async fn goes_on(
        &mut self,
        by: Option<NodeId>,
        known: &SeenCheckpoint,
        before: &RoomMemory,
        shown: &RoomMemory,
    ) -> Result<(), Error> {
        // What is smaller, or as large, was judged before this.
        let Some(node) = by.filter(|_| shown.origin == known.origin && shown.size > known.size) else { return Ok(()) };
        let why = match self.proven(node, known, &shown.seen()).await? {
            Proven::Extends => return Ok(()),
            Proven::Not(begins) => {
                let why = MemoryError::Rewritten { what: "the log of size", at: known.size };
                let (Some(first), Some(second)) = (&before.note, &shown.note) else { return Err(why.into()) };
                let chain = self.credentials().charter_chain();
                match evidence::keep(self.home(), chain, first, second, Some(begins)) {
                    Some(file) => Error::Evident { why: Box::new(why.into()), file },
                    None => why.into(),
                }
            }
        };
        Err(why)
    }

    /// What a node proves of two sizes of its log, both verified.
    pub(crate) async fn proven(
        &mut self,
        node: NodeId,
        smaller: &SeenCheckpoint,
        larger: &SeenCheckpoint,
    ) -> Result<Proven, Error> {
        let not = |why: String, name: String| MemoryError::NotExtended {
            node: name,
            known: smaller.size,
            shown: larger.size,
            why,
        };
        let Some(shard) = larger.origin.split('/').nth(2).and_then(|shard| shard.parse().ok()) else {
            return Err(not("the log has no shard".into(), self.nodes.name_of(node)).into());
        };
        let request = Request::Extends(shard, smaller.size, larger.size);
        let Ok(asked) = timeout(WITHIN, self.nodes.ask_node(node, &request)).await else {
            // It was there just now: it may have been killed meanwhile, and another one goes on.
            self.nodes.ask_last(node);
            let why = "it does not say how its log goes on".into();
            return Err(Error::BrokeOff { node: self.nodes.name_of(node), why });
        };
        let mut answers = asked?;
        let (root, proof) = match answers.next().await? {
            Response::Extends(root, proof) => (root, proof),
            other => return Err(answers.unexpected(kind(&other))),
        };
        match extension::judge((smaller.size, &smaller.root), (larger.size, &larger.root), &root, &proof) {
            Ok(Begins::WithIt) => Ok(Proven::Extends),
            Ok(Begins::Otherwise) => Ok(Proven::Not((root, proof))),
            Err(why) => Err(not(why.to_string(), self.nodes.name_of(node)).into()),
        }
    }
}
