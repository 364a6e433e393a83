//! One room's way to the ledger, as decisions: which events to link next, and what an answer means. Pure.
//!
//! One run of a room is in flight at a time. A run that is refused for one of its events is halved until that event stands
//! alone; then it is put aside and runs grow again, so that one bad event costs some more runs and blocks nothing.

#[cfg(test)]
mod tests;

use ehe::author::{Linked, Strand};
use ehe::charter::VerifiedCharter;
use ehe::event::Event;
use ehe::id::{EheId, RoomId, StrandId};
use ehe::identity::Identity;
use ehe::leaf::{Receipt, ReceiptError, VerifiedReceipt};
use ehe::limits;
use ehe::refusal::Refusal;
use ehe::run::{SeenCheckpoint, SignedRun, VerifiedRun};
use ehe::sign::SignedError;
use ehe::time::Day;
use ehe::wire::{KnownRun, Request, Response, Submission};

use super::remedy::{Remedy, remedy};
use super::visit::Followed;
use crate::rooms::follow::{FollowError, moves_forward, needs_charter};
use crate::spool::Retry;

/// Strands that may be begun anew in a row before the node is held to be at fault: a new strand has no gap.
const GAPS_MAX: u8 = 3;
/// What a submission takes besides its events: the run, and what frames them.
const SUBMISSION_REST_BYTES: usize = limits::RUN_MAX_BYTES + 64;
/// What an event takes besides header and body.
const EVENT_REST_BYTES: usize = 16;
/// Bytes of events in one submission.
pub(super) const EVENTS_MAX_BYTES: usize = limits::SUBMISSION_MAX_BYTES - SUBMISSION_REST_BYTES;

/// A room's strand, and how large its next run may be.
#[derive(Debug, Clone)]
pub(super) struct Line {
    pub(super) room: RoomId,
    strand: Strand,
    limit: usize,
    limit_max: usize,
    gaps: u8,
    dispute: Option<(EheId, u8)>,
    /// Whether this visit has looked at the room's control records.
    pub(super) followed: Followed,
    /// Events were put aside that our verified records allow, or may have been before this program started: they are tried
    /// again when the room's records are verified the next time.
    pub(super) contested: bool,
    /// The UTC day on which all that was refused was last tried again, whatever the reason was: a node that wrongly calls an event
    /// malformed is mended some day.
    pub(super) retried: Option<Day>,
    /// Where to go on with what is tried again, once nothing new waits.
    pub(super) retry: Option<Retry>,
    /// Why the room last did not show its control records: said once, not at each attempt.
    pub(super) refused: Option<Refusal>,
    /// How many control records a node last said that the room has, where that was more than we know.
    pub(super) told: Option<u64>,
}

/// A signed run over events of the outbox, to be submitted.
#[derive(Debug, Clone)]
pub(super) struct Attempt {
    linked: Linked,
    run: VerifiedRun,
    events: Vec<Event>,
}

/// What a node did that its ledger would not: the node is not asked for a while.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NodeFault {
    /// A receipt that proves nothing.
    #[error("its receipt does not verify: {0}")]
    Receipt(#[from] ReceiptError),
    /// A receipt of another history than the one that was verified before.
    #[error("its receipt contradicts what was verified before: {0}")]
    History(FollowError),
    /// Control records that do not verify.
    #[error("its control records do not verify: {0}")]
    Control(FollowError),
    /// A charter that does not verify.
    #[error("its charter does not verify: {0}")]
    Charter(#[from] ehe::charter::CharterError),
    /// A record of a restored log that does not stand.
    #[error("it shows a record of a restored log that does not stand: {0}")]
    Restoration(ehe::restoration::RestorationError),
    /// Records of restored logs that contradict what was verified before.
    #[error("what it shows of a restored log contradicts what was verified before: {0}")]
    Moved(ehe::restoration::MovedError),
    /// A run that it says is ours, and is not.
    #[error("it shows a run as ours that we did not sign: {0}")]
    NotOurs(#[from] SignedError),
    /// It says that events are known, and shows none of the run.
    #[error("it says that events are in the ledger already, and shows none of them")]
    NothingKnown,
    /// New strands are refused as if they had a gap.
    #[error("it refuses new strands as if they had a gap")]
    Gaps,
    /// An answer that does not belong to the question, or is none.
    #[error("it does not answer as the protocol says")]
    Protocol,
    /// It shows a room's entries without coming to an end.
    #[error("it does not come to an end of a room's entries")]
    Endless,
    /// It refuses what the room's verified rights allow.
    #[error("it refuses what the patient's signed records allow: {0}")]
    Denied(Refusal),
}

impl NodeFault {
    /// The signed checkpoint of another log, where one was shown.
    pub(super) fn forked(&self) -> Option<&str> {
        match self {
            Self::History(why) | Self::Control(why) => why.forked(),
            _ => None,
        }
    }
}

/// What an answer means.
#[derive(Debug)]
pub(super) enum Verdict {
    /// These runs are proven to be in the ledger: delete their events, then go on. `known`: by an earlier submission.
    Confirm { receipts: Vec<VerifiedReceipt>, known: bool, control_seq: Option<u64> },
    /// Link again at once: in a new strand, or in a smaller run.
    Again,
    /// This one event is refused.
    Offending { event: Box<Event>, id: EheId, refusal: Refusal },
    /// The node cannot at present: try the next one.
    OtherNode(Refusal),
    /// Wait.
    Later(Refusal),
    /// Wait, and look at the room's rights anew.
    HoldRoom(Refusal),
    /// The proof is under this charter, which is not the one at hand: fetch it and judge again.
    NeedsCharter(u32),
    /// The node is not to be believed.
    Fault(NodeFault),
}

impl Attempt {
    /// The frame to send.
    pub(super) fn frame(&self) -> Vec<u8> {
        let submission = Submission { run: self.linked.run.clone(), events: self.events.clone() };
        Request::Submit(submission).to_vec()
    }
}

impl Line {
    /// A new strand: its id is fresh and random.
    pub(super) fn new(room: RoomId, strand: StrandId, run_events_max: usize) -> Self {
        let limit = run_events_max.clamp(1, limits::RUN_EVENTS_MAX);
        let strand = Strand::new(room, strand, None);
        let (followed, contested) = (Followed::NotTried, true);
        Self {
            room,
            strand,
            limit,
            limit_max: limit,
            gaps: 0,
            dispute: None,
            followed,
            contested,
            retried: None,
            retry: None,
            refused: None,
            told: None,
        }
    }

    /// How many events the next run may have.
    pub(super) fn limit(&self) -> usize {
        self.limit
    }

    /// The control records were verified up to this checkpoint: the next run says so.
    pub(super) fn saw(&mut self, seen: SeenCheckpoint) {
        self.strand.saw(seen);
    }

    /// Signs a run over the leading events, as many as may go and fit a submission. None where there are none.
    pub(super) fn attempt(
        &self,
        identity: &Identity,
        events: impl IntoIterator<Item = (EheId, Event)>,
    ) -> Result<Option<Attempt>, SignedError> {
        let mut bytes = 0usize;
        let (ids, events): (Vec<EheId>, Vec<Event>) = events
            .into_iter()
            .take(self.limit)
            .take_while(|(_, event)| {
                bytes = bytes.saturating_add(event.header.len() + event.body.len() + EVENT_REST_BYTES);
                bytes <= EVENTS_MAX_BYTES
            })
            .unzip();
        if ids.is_empty() {
            return Ok(None);
        }
        let linked = self.strand.link(identity, ids);
        // Our own signature, checked once more: a fault of this machine must not pass for the node's.
        let run = linked.run.decode()?.verify(&identity.public().sign)?;
        Ok(Some(Attempt { linked, run, events }))
    }

    /// Judges the answer to an attempt. `known` is the newest checkpoint of the shard that was verified before; `fresh` a
    /// random strand id, in case a new strand is needed.
    pub(super) fn judge(
        &mut self,
        attempt: &Attempt,
        answer: Response,
        identity: &Identity,
        charter: &VerifiedCharter,
        known: Option<&SeenCheckpoint>,
        fresh: StrandId,
    ) -> Verdict {
        match answer {
            Response::Submitted(submitted) => match verify(&submitted.receipt, &attempt.run, charter, known) {
                Ok(receipt) => {
                    self.accepted(&attempt.linked, &receipt);
                    let control_seq = Some(submitted.control_seq);
                    Verdict::Confirm { receipts: vec![receipt], known: false, control_seq }
                }
                Err(verdict) => verdict,
            },
            Response::Known(runs) => match self.known(attempt, &runs, identity, charter, known) {
                Ok(verdict) | Err(verdict) => verdict,
            },
            Response::Refused(refusal) => self.refused(attempt, refusal, fresh),
            Response::AskNode(_) => Verdict::OtherNode(Refusal::NoLeader),
            _ => Verdict::Fault(NodeFault::Protocol),
        }
    }

    fn accepted(&mut self, linked: &Linked, receipt: &VerifiedReceipt) {
        self.strand.accepted(linked, receipt.checkpoint().checkpoint().seen());
        self.limit = self.limit.saturating_mul(2).min(self.limit_max);
        self.gaps = 0;
        self.dispute = None;
    }

    /// Runs of ours that are in the ledger, because their answer was lost or the program stopped before it came.
    fn known(
        &mut self,
        attempt: &Attempt,
        runs: &[KnownRun],
        identity: &Identity,
        charter: &VerifiedCharter,
        seen: Option<&SeenCheckpoint>,
    ) -> Result<Verdict, Verdict> {
        let mut receipts = Vec::with_capacity(runs.len().min(limits::RUN_EVENTS_MAX));
        for known in runs {
            let run = our_run(&known.run, self.room, identity)?;
            let receipt = verify(&known.receipt, &run, charter, seen)?;
            if run.run().from == self.strand.end() {
                // It is the run whose answer was lost: the strand goes on behind it.
                self.accepted(&Linked { run: known.run.clone(), end: run.run().end() }, &receipt);
            }
            receipts.push(receipt);
        }
        let ours = |id: &EheId| receipts.iter().any(|receipt| receipt.run().run().ids.contains(id));
        if !attempt.run.run().ids.iter().any(ours) {
            return Err(Verdict::Fault(NodeFault::NothingKnown));
        }
        Ok(Verdict::Confirm { receipts, known: true, control_seq: None })
    }

    fn refused(&mut self, attempt: &Attempt, refusal: Refusal, fresh: StrandId) -> Verdict {
        match remedy(refusal) {
            Remedy::NewStrand if self.gaps < GAPS_MAX => {
                self.gaps += 1;
                let end = self.strand.end();
                self.strand = Strand::new(self.room, fresh, (end.next > 0).then_some(end));
                Verdict::Again
            }
            Remedy::NewStrand => {
                self.gaps = 0;
                Verdict::Fault(NodeFault::Gaps)
            }
            Remedy::OtherNode => Verdict::OtherNode(refusal),
            Remedy::Later => Verdict::Later(refusal),
            Remedy::HoldRoom => Verdict::HoldRoom(refusal),
            Remedy::FindEvent => match (attempt.events.as_slice(), attempt.run.run().ids.as_slice()) {
                ([event], [id]) => Verdict::Offending { event: Box::new(event.clone()), id: *id, refusal },
                (events, _) => {
                    self.limit = (events.len() / 2).max(1);
                    Verdict::Again
                }
            },
        }
    }

    /// The event was put aside: what follows is tried singly at first, and in larger runs once something is accepted.
    pub(super) fn put_aside(&mut self) {
        self.limit = 1;
        self.dispute = None;
    }

    /// Counts how often this event was refused although nothing that is known here speaks against it.
    pub(super) fn disputed(&mut self, id: EheId) -> u8 {
        let times = match self.dispute {
            Some((before, times)) if before == id => times.saturating_add(1),
            _ => 1,
        };
        self.dispute = Some((id, times));
        times
    }
}

fn our_run(signed: &SignedRun, room: RoomId, identity: &Identity) -> Result<VerifiedRun, Verdict> {
    let fault = |why| Verdict::Fault(NodeFault::NotOurs(why));
    let run = signed.decode().map_err(fault)?;
    if run.claims().author != identity.author_id() || run.claims().room != room {
        return Err(fault(SignedError::OtherAuthor));
    }
    run.verify(&identity.public().sign).map_err(fault)
}

fn verify(
    receipt: &Receipt,
    run: &VerifiedRun,
    charter: &VerifiedCharter,
    known: Option<&SeenCheckpoint>,
) -> Result<VerifiedReceipt, Verdict> {
    let verified = receipt.verify(run, charter).map_err(|why| match needs_charter(&why) {
        Some(version) => Verdict::NeedsCharter(version),
        None => Verdict::Fault(NodeFault::Receipt(why)),
    })?;
    moves_forward(known, verified.checkpoint()).map_err(|why| Verdict::Fault(NodeFault::History(why)))?;
    Ok(verified)
}
