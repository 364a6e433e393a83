//! A shard's log that was lost and begun again from a backup: what the alliance's members signed about it, fetched and verified, and
//! what becomes of what was verified before.

use std::collections::BTreeMap;

use ehe::id::NodeId;
use ehe::limits::RESTORATIONS_PER_ANSWER_MAX;
use ehe::restoration::{Moved, RestorationError, SignedRestoration, VerifiedRestoration, moved};
use ehe::run::SeenCheckpoint;
use ehe::wire::{Request, Response};

use super::line::NodeFault;
use super::lock;
use super::session::{CharterTrouble, Session};

/// A log is restored this often at most, for all that a gateway asks.
const INCARNATIONS_MAX: usize = 1024;

/// Verified records, by shard, each following the one before.
pub(super) type Records = BTreeMap<u16, Vec<VerifiedRestoration>>;

impl Session {
    /// Where the records at hand lead from a checkpoint of a shard; `None` where they lead nowhere.
    pub(super) fn moved(&self, shard: u16, known: &SeenCheckpoint) -> Option<Moved> {
        let from = self.charter().incarnation_of(&known.origin, shard)?;
        let restored = lock(&self.restored);
        let records = restored.get(&shard)?;
        let first = records.iter().position(|record| record.restoration().incarnation == from)?;
        // They were believed before.
        moved(records.get(first..)?, from, (known, 0)).ok()
    }

    /// A node shows a log of another origin than `known`: asks it for the records that lead there. Says whether there are any that
    /// this gateway did not have: then what was answered is to be judged again.
    pub(super) async fn learn_restored(
        &self,
        node: NodeId,
        shard: u16,
        known: &SeenCheckpoint,
    ) -> Result<bool, CharterTrouble> {
        let Some(from) = self.charter().incarnation_of(&known.origin, shard) else { return Ok(false) };
        let mut records: Vec<VerifiedRestoration> = Vec::new();
        let mut charters = None;
        let mut next = from;
        while records.len() < INCARNATIONS_MAX {
            let request = Request::Restorations(shard, next).to_vec();
            let answer = self.ask_node(node, &request).await.map_err(CharterTrouble::Unanswered)?;
            let found = match answer.response {
                Response::Restorations(found) if found.len() <= RESTORATIONS_PER_ANSWER_MAX => found,
                // A node that knows of none, or not of the question, says nothing that would change anything.
                _ => return Ok(false),
            };
            if found.is_empty() {
                break;
            }
            if charters.is_none() {
                charters = Some(self.charters_of(node).await?);
            }
            for record in found {
                let verified = SignedRestoration::decode(&record)
                    .and_then(|record| record.verify(shard, charters.as_deref().unwrap_or_default()));
                let verified =
                    verified.map_err(|why: RestorationError| CharterTrouble::Fault(NodeFault::Restoration(why)))?;
                let follows = verified.restoration().incarnation == next;
                next = verified.incarnation();
                records.push(verified);
                if !follows {
                    // The same one again and again would be asked for as often as there may be incarnations.
                    let why = moved(&records, from, (known, 0)).err().map(NodeFault::Moved);
                    return Err(CharterTrouble::Fault(why.unwrap_or(NodeFault::Protocol)));
                }
            }
        }
        if records.is_empty() {
            return Ok(false);
        }
        let under = self.seen_under(shard, &known.origin);
        let led = moved(&records, from, (known, under)).map_err(|why| CharterTrouble::Fault(NodeFault::Moved(why)))?;
        for lost in &led.lost {
            tracing::error!(
                shard,
                incarnation = lost.incarnation,
                from = lost.from,
                until = lost.until,
                kept_until_ms = lost.kept_until.0,
                "the alliance lost a part of its ledger, and a majority of its members signed what was kept: events whose receipts lie in \
                 what was lost are gone from here and from there. What this spool holds is sent"
            );
        }
        let origin = led.kept.origin.clone();
        tracing::warn!(shard, log = %origin, "the shard's log goes on from a backup");
        lock(&self.logs).insert(shard, led.kept);
        lock(&self.restored).insert(shard, records);
        Ok(true)
    }
}
