//! One visit to a room: look at its rights where that is due, then send what its outbox holds.
//!
//! The only place that takes events out of the spool, and it does so in two ways: against a receipt that was verified for a
//! run of ours, or into quarantine, where they are kept.

use std::sync::Arc;
use std::time::Instant;

use ehe::charter::VerifiedCharter;
use ehe::control::{Control, Right};
use ehe::event::{CheckedEvent, Event, Kind};
use ehe::id::{EheId, NodeId, StrandId};
use ehe::refusal::{Fault, Refusal};
use ehe::time::{Hour, UnixMs};
use ehe::wire::Response;
use tokio_util::sync::CancellationToken;

use super::config::UplinkConfig;
use super::control::{self, NotFollowed};
use super::extends::Asked;
use super::line::{Attempt, EVENTS_MAX_BYTES, Line, NodeFault, Verdict};
use super::random;
use super::remedy;
use super::session::{CharterTrouble, Session, Unanswered};
use super::status::Board;
use crate::clock::WallClock;
use crate::rooms::follow::FollowError;
use crate::rooms::{Rooms, Sealer};
use crate::spool::{Retry, Spool, SpoolError};

/// Runs of one room before another room has its turn.
const RUNS_PER_VISIT: usize = 16;
/// How often a refusal that nothing known here supports is held against the node before the event is put aside all the same.
const DISPUTES_MAX: u8 = 3;

/// What a visit came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// The outbox is empty.
    Idle,
    /// There is more: come again at once.
    More,
    /// Come again later; at this time, if it is known, else after the room's own pause.
    Later { at: Option<Instant> },
}

/// What a visit says of the room's control records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Followed {
    /// Not asked for.
    NotTried,
    /// Verified anew; `news`: they had changed.
    Yes {
        /// Since they were last verified.
        news: bool,
    },
    /// Tried in vain.
    No,
    /// The room does not show its records to us. The patient's audit counts that, so it is not asked again soon.
    Refused,
}

/// Everything that a visit uses.
pub(super) struct Visitor {
    pub(super) session: Session,
    pub(super) spool: Spool,
    pub(super) rooms: Rooms,
    pub(super) sealer: Sealer,
    pub(super) clock: WallClock,
    pub(super) config: UplinkConfig,
    pub(super) board: Arc<Board>,
    pub(super) stop: CancellationToken,
}

/// What to do after one run.
enum Step {
    Next,
    /// The room's control records moved on.
    Follow,
    End(Outcome),
}

impl Visitor {
    /// Visits a room.
    pub(super) async fn visit(&self, line: &mut Line, follow: bool) -> (Outcome, Followed) {
        line.followed = Followed::NotTried;
        if follow && let Err(Some(outcome)) = self.follow(line).await {
            return (outcome, line.followed);
        }
        for _ in 0..RUNS_PER_VISIT {
            if self.stop.is_cancelled() {
                return (Outcome::Idle, line.followed);
            }
            match self.run(line).await {
                Step::Next => {}
                Step::Follow => {
                    if let Err(Some(outcome)) = self.follow(line).await {
                        return (outcome, line.followed);
                    }
                }
                Step::End(outcome) => return (outcome, line.followed),
            }
        }
        (Outcome::More, line.followed)
    }

    /// Fetches the room's control records. `Err(None)`: the room does not show them to us, which says nothing about what
    /// waits in its outbox.
    async fn follow(&self, line: &mut Line) -> Result<(), Option<Outcome>> {
        line.followed = Followed::No;
        let exchange = self.config.exchange();
        match control::follow(&self.session, &self.rooms, line.room, &self.clock, exchange).await {
            Ok(followed) => {
                if line.refused.take().is_some() {
                    tracing::info!(room = %line.room, "the room shows its control records again");
                }
                line.saw(followed.seen().clone());
                let saved = followed.encode();
                let news = self.rooms.advance(line.room, followed);
                line.followed = Followed::Yes { news };
                let day_over = line.retried != Some((self.clock)().day());
                if std::mem::take(&mut line.contested) || news || day_over {
                    self.release(line).await;
                }
                if let Err(error) = self.spool.save_room(line.room, saved).await {
                    tracing::warn!(room = %line.room, %error, "the room's verified state was not saved");
                }
                Ok(())
            }
            Err(NotFollowed::Unanswered(unanswered)) => Err(Some(self.unanswered(unanswered))),
            Err(NotFollowed::Refused(refusal)) => {
                if refusal.fault() != Fault::Node {
                    line.followed = Followed::Refused;
                }
                if line.refused.replace(refusal) != Some(refusal) {
                    let remedy = remedy::of_a_person(refusal, line.room, self.rooms.get(line.room).is_some());
                    tracing::warn!(room = %line.room, %refusal, remedy, "the room does not show its control records; its readings wait");
                }
                self.failure(&format!("room {}: {refusal}", line.room));
                Err(None)
            }
            Err(NotFollowed::Fault(node, fault)) => {
                self.session.distrust(node, &fault);
                Err(Some(Outcome::Later { at: None }))
            }
            Err(NotFollowed::Behind(node)) => {
                self.failure(&format!(
                    "node {node} is behind: it has less of the log than was seen, or an older charter"
                ));
                Err(Some(Outcome::Later { at: None }))
            }
        }
    }

    /// What was refused under the rights as they were may be accepted under the new ones.
    async fn release(&self, line: &mut Line) {
        let today = (self.clock)().day();
        let retry = if line.retried.replace(today) == Some(today) { Retry::RIGHTS } else { Retry::ALL };
        self.release_some(line, retry).await;
    }

    /// A few of them; the others once nothing new waits. Says whether there were any.
    async fn release_some(&self, line: &mut Line, retry: Retry) -> bool {
        match self.spool.release(line.room, retry).await {
            Ok((released, next)) => {
                line.retry = next;
                if released > 0 {
                    tracing::info!(room = %line.room, released, "refused events are tried again");
                    self.board.note(|s| s.events_released += released);
                }
                released > 0
            }
            Err(error) => {
                tracing::warn!(room = %line.room, %error, "refused events were not put back");
                false
            }
        }
    }

    /// Sends one run.
    async fn run(&self, line: &mut Line) -> Step {
        let batch = match self.spool.batch(line.room, line.limit(), EVENTS_MAX_BYTES).await {
            Ok(batch) => batch,
            Err(error) => return self.spool_failed(&error),
        };
        let events = batch.into_iter().map(|stored| (stored.id, stored.event));
        let attempt = match line.attempt(self.rooms.identity(), events) {
            Ok(Some(attempt)) => attempt,
            Ok(None) => {
                if let Some(retry) = line.retry.take()
                    && self.release_some(line, retry).await
                {
                    return Step::Next;
                }
                return Step::End(Outcome::Idle);
            }
            Err(why) => {
                self.failure(&format!("room {}: our own run does not verify: {why}", line.room));
                return Step::End(Outcome::Later { at: None });
            }
        };
        let shard = self.session.shard(line.room);
        self.board.note(|s| s.runs_submitted += 1);
        let answer = match self.session.ask(shard, &attempt.frame()).await {
            Ok(answer) => answer,
            Err(unanswered) => return Step::End(self.unanswered(unanswered)),
        };
        let node = answer.node;
        match self.judge(line, &attempt, shard, node, answer.response).await {
            Ok(verdict) => self.carry_out(line, shard, node, verdict).await,
            Err(step) => step,
        }
    }

    /// Judges an answer; where it is of a log that was restored, after fetching the records of that; and whether that log goes on
    /// from what was seen of it.
    async fn judge(
        &self,
        line: &mut Line,
        attempt: &Attempt,
        shard: u16,
        node: NodeId,
        response: Response,
    ) -> Result<Verdict, Step> {
        let verdict = self.judge_history(line, attempt, shard, node, response).await?;
        let Verdict::Confirm { receipts, .. } = &verdict else { return Ok(verdict) };
        // Before anything is taken out of the spool by them.
        for receipt in receipts {
            match self.session.goes_on(shard, node, receipt.checkpoint().note(), Asked::Sometimes).await {
                Ok(()) => {}
                Err(CharterTrouble::Unanswered(unanswered)) => return Err(Step::End(self.unanswered(unanswered))),
                Err(CharterTrouble::Fault(fault)) => return Ok(Verdict::Fault(fault)),
            }
        }
        Ok(verdict)
    }

    async fn judge_history(
        &self,
        line: &mut Line,
        attempt: &Attempt,
        shard: u16,
        node: NodeId,
        response: Response,
    ) -> Result<Verdict, Step> {
        let verdict = self.judge_under(line, attempt, shard, node, response.clone()).await?;
        // Another log is none to be believed, unless the members signed that it goes on from this one.
        let Verdict::Fault(NodeFault::History(FollowError::OtherLog { .. })) = &verdict else { return Ok(verdict) };
        let Some(known) = self.session.log(shard) else { return Ok(verdict) };
        match self.session.learn_restored(node, shard, &known).await {
            Ok(true) => self.judge_under(line, attempt, shard, node, response).await,
            Ok(false) => Ok(verdict),
            Err(CharterTrouble::Unanswered(unanswered)) => Err(Step::End(self.unanswered(unanswered))),
            Err(CharterTrouble::Fault(fault)) => Ok(Verdict::Fault(fault)),
        }
    }

    /// The same; where it needs a newer charter, after fetching that.
    async fn judge_under(
        &self,
        line: &mut Line,
        attempt: &Attempt,
        shard: u16,
        node: NodeId,
        response: Response,
    ) -> Result<Verdict, Step> {
        // Where the file of charters was lost, what the shard was seen under is known all the same.
        let verdict = match self.session.needs_for(shard) {
            Some(version) => Verdict::NeedsCharter(version),
            None => self.judge_once(line, attempt, shard, response.clone(), self.session.charter()),
        };
        let Verdict::NeedsCharter(version) = verdict else { return Ok(verdict) };
        if version > self.session.charter().version() {
            match self.session.refresh_charter(node).await {
                Ok(()) => {}
                Err(CharterTrouble::Unanswered(unanswered)) => return Err(Step::End(self.unanswered(unanswered))),
                Err(CharterTrouble::Fault(fault)) => return Ok(Verdict::Fault(fault)),
            }
        }
        if let Some(version) = self.session.needs_for(shard) {
            return Ok(Verdict::NeedsCharter(version));
        }
        let charter = self.session.charter_of(shard, version).unwrap_or_else(|| self.session.charter());
        Ok(self.judge_once(line, attempt, shard, response, charter))
    }

    fn judge_once(
        &self,
        line: &mut Line,
        attempt: &Attempt,
        shard: u16,
        response: Response,
        charter: Arc<VerifiedCharter>,
    ) -> Verdict {
        let (identity, known) = (self.rooms.identity(), self.session.log(shard));
        line.judge(attempt, response, identity, &charter, known.as_ref(), StrandId(random()))
    }

    async fn carry_out(&self, line: &mut Line, shard: u16, node: NodeId, verdict: Verdict) -> Step {
        match verdict {
            Verdict::Confirm { receipts, known, control_seq } => {
                self.session.leads(shard, node);
                self.session.worked(node).await;
                for receipt in receipts {
                    self.session.witness(receipt.checkpoint().note());
                    let checkpoint = receipt.checkpoint().checkpoint();
                    self.session.saw(shard, &checkpoint.seen());
                    self.session.stood_under(shard, checkpoint.charter_version);
                    match self.spool.confirm(&receipt).await {
                        Ok(confirmed) => self.board.note(|s| {
                            s.events_confirmed += confirmed.events;
                            s.readings_confirmed += confirmed.readings;
                            s.events_known += if known { confirmed.events } else { 0 };
                        }),
                        Err(error) => return self.spool_failed(&error),
                    }
                }
                let have = self.rooms.get(line.room).map(|followed| followed.control_seq());
                match control_seq.filter(|told| have.is_none_or(|have| *told > have)) {
                    // Once for each number told: a room may take our events and not show us its records any more.
                    Some(told) if line.told != Some(told) => {
                        line.told = Some(told);
                        Step::Follow
                    }
                    _ => Step::Next,
                }
            }
            Verdict::Again => Step::Next,
            Verdict::Offending { event, id, refusal } => self.offending(line, node, *event, id, refusal).await,
            Verdict::OtherNode(refusal) | Verdict::Later(refusal) => {
                self.failure(&format!("node {node}: {refusal}"));
                Step::End(Outcome::Later { at: None })
            }
            Verdict::HoldRoom(refusal) => {
                tracing::warn!(room = %line.room, %refusal, "the room is refused as a whole; its events wait");
                self.failure(&format!("room {}: {refusal}", line.room));
                if line.followed == Followed::NotTried {
                    let _ = self.follow(line).await; // reported there
                }
                Step::End(Outcome::Later { at: None })
            }
            Verdict::NeedsCharter(version) => {
                self.failure(&format!("node {node} speaks under charter {version}, which it does not show"));
                Step::End(Outcome::Later { at: None })
            }
            Verdict::Fault(fault) => {
                self.session.distrust(node, &fault);
                // Another node of the group may do; if there is none, the time until this one is asked again is known there.
                Step::End(Outcome::Later { at: None })
            }
        }
    }

    /// One event is refused. Rights are not taken from a node's word: the patient's records decide, looked at anew.
    async fn offending(&self, line: &mut Line, node: NodeId, event: Event, id: EheId, refusal: Refusal) -> Step {
        let Ok(event) = event.check() else {
            return self.quarantine(line, id, None, refusal).await; // our own disk's fault
        };
        let wrap = (event.core().kind == Kind::Wrap).then_some(&event);
        if refusal == Refusal::WrapMissing && line.disputed(id) == 1 {
            // The ledger had it, and was restored from a backup that does not.
            match self.spool.rewrap(event.core().room, event.core().wrap).await {
                Ok(true) => tracing::warn!(room = %line.room, "a wrap that the ledger had is sent again"),
                Ok(false) => {}
                Err(error) => return self.spool_failed(&error),
            }
            // Or its wrap may lie in quarantine, refused under rights that have changed since.
            self.release(line).await;
            return Step::Next;
        }
        if refusal.fault() == Fault::Rights {
            // Once a visit is enough: the records are as fresh for the events behind this one.
            if line.followed == Followed::NotTried
                && let Err(Some(outcome)) = self.follow(line).await
            {
                return Step::End(outcome);
            }
            if self.allowed(line, &event) {
                line.contested = true;
                // A room that does not show us its records any more has ended our grant, or its nodes say so: which, nobody
                // can prove to us. The event is kept, and tried again when the room lets us in again.
                if matches!(line.followed, Followed::Yes { .. }) {
                    if line.disputed(id) < DISPUTES_MAX {
                        self.failure(&format!("node {node}: {}", NodeFault::Denied(refusal)));
                        return Step::End(Outcome::Later { at: None });
                    }
                    // It may be a matter of clocks at the edge of a grant, so the node is not distrusted for it.
                    tracing::error!(%node, room = %line.room, event = %id, fault = %NodeFault::Denied(refusal), "kept aside");
                }
            }
        }
        self.quarantine(line, id, wrap, refusal).await
    }

    async fn quarantine(&self, line: &mut Line, id: EheId, wrap: Option<&CheckedEvent>, refusal: Refusal) -> Step {
        if wrap.is_some() {
            self.sealer.retire(id.into());
        }
        match self.spool.quarantine(line.room, id, refusal).await {
            Ok(()) => {
                tracing::warn!(room = %line.room, event = %id, %refusal, "an event is refused and kept aside");
                self.board.note(|s| s.events_quarantined += 1);
                line.put_aside();
                Step::Next
            }
            Err(error) => self.spool_failed(&error),
        }
    }

    /// Whether the patient's records, as verified here, allow the event now.
    fn allowed(&self, line: &Line, event: &CheckedEvent) -> bool {
        let (now, us) = ((self.clock)(), self.rooms.identity().author_id());
        let Some(followed) = self.rooms.get(line.room) else { return false };
        let may = |epoch, hour, now: UnixMs| followed.room().may(us, Right::Append, epoch, Some(hour), now).is_ok();
        match Control::decode(event) {
            Ok(Control::Wrap(wrap)) => {
                let first = wrap.day.0.saturating_mul(24);
                (first..=first.saturating_add(23)).any(|hour| may(wrap.epoch, Hour(hour), now))
            }
            _ => may(event.core().epoch, event.core().hour, now),
        }
    }

    fn unanswered(&self, unanswered: Unanswered) -> Outcome {
        self.failure(&unanswered.why.to_string());
        Outcome::Later { at: unanswered.again }
    }

    fn spool_failed(&self, error: &SpoolError) -> Step {
        self.failure(&error.to_string());
        Step::End(Outcome::Later { at: None })
    }

    fn failure(&self, why: &str) {
        tracing::debug!(why, "tried again later");
        self.board.failed(why.to_owned());
    }
}
