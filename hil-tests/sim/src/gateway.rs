//! A home: its runs go to whoever leads, again and again until a receipt came that a quorum stands behind.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use ehe::{control::Right, event::CheckedEvent, identity::Identity, leaf::Receipt, run::SignedRun, wire::Submission};
use ehe_node::{
    consensus::sim::{self, Chance},
    shard::{Outcome, block_of_runs, outcomes_of_runs},
};

use crate::{
    chance::rng,
    clients::{self, pick},
    cluster::Cluster,
    people::{Patient, Sealer, Writer},
    sealed::{Alliance, GROUP, Receipts, wall},
};

/// One home.
pub struct Gateway {
    pub cluster: Cluster,
    pub alliance: Arc<Alliance>,
    pub receipts: Receipts,
    pub number: u64,
    pub chance: Chance,
    pub stop: Arc<AtomicBool>,
}

impl Gateway {
    pub async fn run(mut self) {
        let [owner, identity] = [(); 2].map(|()| Identity::generate(&mut rng()));
        let mut patient = Patient::new(&owner, self.alliance.id(), (0, 1), wall());
        let mut events = patient.opening(wall());
        events.push(patient.grant(identity.public(), Right::Append, None, wall()));
        let Patient { writer: opener, .. } = &mut patient;
        if !submit(&mut self, opener, &events).await {
            return;
        }
        let mut writer = Writer::new(&identity, patient.room);
        let sealer = Sealer::new(&identity, &patient, wall());
        let mut next = vec![sealer.wrap.clone()];
        while submit(&mut self, &mut writer, &next).await {
            let count = 1 + self.chance.below(4);
            next = (0..count).map(|n| sealer.seal(format!("{} {n}", self.number).as_bytes())).collect();
            sim::sleep(self.chance.time(self.cluster.plan().timing.heartbeat)).await;
        }
    }

    /// Whether a receipt came; not, if the home was stopped before.
    async fn deliver(&mut self, submission: &Submission, identity: &Identity) -> Option<ehe::run::SeenCheckpoint> {
        let timeout = self.cluster.plan().timing.election_max;
        while !self.stop.load(Ordering::SeqCst) {
            let node = if self.chance.once_in(10) { None } else { self.cluster.leader(GROUP) };
            match node.or_else(|| pick(&self.cluster.up(), &mut self.chance)) {
                Some(node) => {
                    if let Some(seen) = self.ask(node, submission, identity, timeout * 2).await {
                        return Some(seen);
                    }
                }
                None => sim::sleep(timeout / 10).await,
            }
            sim::sleep(self.chance.time(timeout / 4)).await;
        }
        None
    }

    async fn ask(
        &mut self,
        node: u64,
        submission: &Submission,
        identity: &Identity,
        limit: Duration,
    ) -> Option<ehe::run::SeenCheckpoint> {
        let shard = self.cluster.shard(node)?;
        let block = Bytes::from(block_of_runs(wall(), vec![submission.clone()]));
        let sent = block.clone();
        let asked = self.cluster.on(node, limit, move |consensus| async move {
            let (position, answer) = consensus.propose(GROUP, sent).await.ok()?;
            let index = match outcomes_of_runs(&answer).map_err(|error| error.to_string()) {
                Ok(outcomes) => match outcomes.into_iter().next() {
                    Some(Outcome::Submitted { log_index, .. }) => Ok(log_index),
                    Some(Outcome::Known(places)) => places.first().copied().ok_or_else(|| "known nowhere".to_owned()),
                    other => Err(format!("{other:?}")),
                },
                Err(error) => Err(error),
            };
            let receipt = match &index {
                Ok(index) => match shard.checkpoint_of(index + 1).await {
                    Some(published) => {
                        let made = shard.recent.receipt(*index, published.size, &published.note);
                        let view = || {
                            shard.store.view().and_then(|view| view.receipt(*index, published.size, &published.note))
                        };
                        Some(made.map_or_else(view, Ok).map_err(|error| error.to_string()))
                    }
                    None => None,
                },
                Err(_) => None,
            };
            Some((position, index, receipt))
        });
        let (position, index, receipt) = asked.await.flatten()?;
        self.cluster.ledger().acknowledged(GROUP, position, block);
        let index = match index {
            Ok(index) => index,
            Err(what) => {
                self.cluster.ledger().violated(format!("an honest gateway's run was answered with {what}"));
                return None;
            }
        };
        match receipt? {
            Ok(receipt) => self.verified(node, index, &receipt, &submission.run, identity),
            Err(error) => {
                self.cluster.say(format_args!("node {node} has no receipt: {error}"));
                None
            }
        }
    }

    fn verified(
        &mut self,
        node: u64,
        index: u64,
        receipt: &Receipt,
        run: &SignedRun,
        identity: &Identity,
    ) -> Option<ehe::run::SeenCheckpoint> {
        let run = run.decode().map_err(|error| error.to_string());
        let run = run.and_then(|run| run.verify(&identity.public().sign).map_err(|error| error.to_string()));
        let verified =
            run.and_then(|run| receipt.verify(&run, &self.alliance.charter).map_err(|error| error.to_string()));
        match verified {
            Ok(verified) => {
                let size = verified.checkpoint().checkpoint().size;
                self.cluster.say(format_args!("receipt of leaf {index} of {size} from node {node}"));
                if let Err(what) = self.receipts.keep(index, verified.leaf().hash()) {
                    self.cluster.ledger().violated(what);
                }
                Some(verified.checkpoint().checkpoint().seen())
            }
            Err(what) => {
                self.cluster.ledger().violated(format!("node {node} gave a receipt that does not verify: {what}"));
                None
            }
        }
    }
}

async fn submit(gateway: &mut Gateway, writer: &mut Writer, events: &[CheckedEvent]) -> bool {
    let (submission, linked) = writer.linked(events);
    let identity = writer.identity.clone();
    let Some(seen) = gateway.deliver(&submission, &identity).await else { return false };
    writer.strand.accepted(&linked, seen);
    if gateway.chance.once_in(4) {
        let node = pick(&gateway.cluster.up(), &mut gateway.chance);
        if let Some(node) = node {
            clients::read(&gateway.cluster, node, GROUP, gateway.cluster.plan().timing.election_max).await;
        }
    }
    true
}
