//! Submit: a run goes in, a receipt comes out.

use certs::PeerIdentity;
use ehe::limits;
use ehe::refusal::Refusal;
use ehe::room::RoomState;
use ehe::run::SignedRun;
use ehe::wire::{KnownRun, Response, Submission, Submitted};

use crate::node::{Node, NotServed};
use crate::shard::{Outcome, Shard, View, precheck};
use crate::stats::Stats;

/// Longer runs are checked off the runtime's workers.
const CHECK_INLINE_BYTES: usize = 8 * 1024;
/// What an answer's frame holds beside its runs and receipts.
const FRAME_REST_BYTES: usize = 4096;

/// What a request takes besides its submission: the array's head and its number.
const REQUEST_HEAD_BYTES: usize = 2;

/// Orders a run and proves it. `bytes` is the length of the request's frame.
pub(super) async fn submit(node: &Node, peer: PeerIdentity, submission: Submission, bytes: usize) -> Response {
    let events = u64::try_from(submission.events.len()).unwrap_or(u64::MAX);
    let response = ordered(node, peer, submission, bytes).await.unwrap_or_else(Into::into);
    match &response {
        Response::Submitted(_) => {
            Stats::add(&node.stats.runs_accepted, 1);
            Stats::add(&node.stats.events_accepted, events);
        }
        Response::Known(_) => Stats::add(&node.stats.runs_known, 1),
        _ => Stats::add(&node.stats.runs_refused, 1),
    }
    response
}

async fn ordered(node: &Node, peer: PeerIdentity, submission: Submission, bytes: usize) -> Result<Response, NotServed> {
    if !node.charter.permissions().submit.contains(peer.role()) {
        return Err(Refusal::RoleNotAllowed.into());
    }
    // It has to fit a frame on its way to readers too.
    if bytes > limits::SUBMISSION_MAX_BYTES + REQUEST_HEAD_BYTES {
        return Err(Refusal::FrameMalformed.into());
    }
    let run = submission.run.decode().map_err(|_| Refusal::RunMalformed)?;
    let (room, author) = (run.claims().room, run.claims().author);
    let channel = node.author(peer)?;
    let shard = node.shard_of(room)?;
    let term = node.leads(shard.place.shard)?;
    let check = move |room: Option<&RoomState>| {
        // Whose channel it is says whose run may come over it; keys that the owner rotated to have a channel of their own name.
        let brings = room.map_or(channel == author, |room| room.may_bring(channel, author));
        if !brings {
            return Err(Refusal::NotYourIdentity);
        }
        precheck(room, run, submission)
    };
    let checked = match shard.rooms.get(room) {
        // A signature takes less than waking a thread for it and being woken by it.
        Some(room) if bytes <= CHECK_INLINE_BYTES => check(Some(&room)).map_err(NotServed::from),
        Some(room) => node.blocking.run(move || check(Some(&room))).await?.map_err(NotServed::from),
        None => node.look(shard, move |view| Ok(check(view.room(room)?.as_ref())?)).await,
    };
    let submission = match checked {
        Ok(submission) => submission,
        Err(why) => return Err(node.denies(shard.place.shard, term, why).await),
    };
    match shard.sequencer.submit(submission).await? {
        Outcome::Submitted { log_index, control_seq } => {
            let checkpoint = shard.checkpoint_of(log_index + 1).await?;
            let receipt = match shard.recent.receipt(log_index, checkpoint.size, &checkpoint.note) {
                Some(receipt) => receipt,
                None => {
                    let look = move |view: &View| Ok(view.receipt(log_index, checkpoint.size, &checkpoint.note)?);
                    node.look(shard, look).await?
                }
            };
            Ok(Response::Submitted(Submitted { receipt, control_seq }))
        }
        Outcome::Known(runs) => known(node, shard, runs).await,
        Outcome::Refused(why) => Err(why.into()),
        Outcome::Granted { .. } | Outcome::Charter { .. } | Outcome::Voided { .. } => Err(Refusal::StorageFault.into()),
    }
}

/// The receipts of runs that are there already: as many as fit the frame. Whoever links the rest again hears of the others.
async fn known(node: &Node, shard: &Shard, runs: Vec<u64>) -> Result<Response, NotServed> {
    let last = runs.iter().max().copied().unwrap_or(0);
    let checkpoint = shard.checkpoint_of(last + 1).await?;
    node.look(shard, move |view| {
        let (mut known, mut bytes) = (Vec::new(), FRAME_REST_BYTES);
        for log_index in runs {
            let run = SignedRun(view.entry(log_index)?.bytes);
            let receipt = view.receipt(log_index, checkpoint.size, &checkpoint.note)?;
            let run = KnownRun { run, receipt };
            bytes += ehe::cbor::to_vec(&run).len();
            if bytes > limits::FRAME_MAX_BYTES {
                break;
            }
            known.push(run);
        }
        Ok(Response::Known(known))
    })
    .await
}
