//! Bringing control events into the ledger, and believing only a receipt that verifies.

use std::collections::BTreeSet;

use ehe::author::Strand;
use ehe::event::CheckedEvent;
use ehe::id::{EheId, RoomId, StrandId};
use ehe::identity::Identity;
use ehe::leaf::VerifiedReceipt;
use ehe::ledger::Verified;
use ehe::limits;
use ehe::read::Part;
use ehe::run::StrandEnd;
use ehe::wire::{Request, Response, Submission};

use crate::error::Error;
use crate::follow::Following;
use crate::memory::RoomMemory;
use crate::scope;
use crate::session::{Session, Shown, kind, random};

/// What is left of a submission for its run and framing.
const RUN_AND_FRAMING_BYTES: usize = 64 * 1024;

/// Submits events of `author` in order, in as few runs as they fit in: usually one. `following`: the room as it is, unless it is
/// new. Keys that the room's owner rotates to, or the recovery identity, are another author than the session's.
pub async fn submit(
    session: &mut Session,
    author: &Identity,
    room: RoomId,
    following: Option<&Following>,
    events: Vec<CheckedEvent>,
) -> Result<Vec<VerifiedReceipt>, Error> {
    let own = following.filter(|f| f.me().author_id() == author.author_id());
    let before: Option<StrandEnd> = own.and_then(|f| f.view().own_strand());
    let mut strand = Strand::new(room, StrandId(random()), before);
    if let Some(known) = following.and_then(Following::known) {
        strand.saw(known.seen());
    }
    let mut known = following.and_then(Following::known).cloned();
    let mut receipts = Vec::new();
    for events in runs(events) {
        let linked = strand.link_events(author, &events);
        let run = linked.run.decode()?.verify(&author.public().sign)?;
        let events = events.into_iter().map(CheckedEvent::into_event).collect();
        let request = Request::Submit(Submission { run: linked.run.clone(), events });
        let asked = session.nodes.ask(room, || request.clone()).await;
        let mut answers = asked.map_err(|why| if receipts.is_empty() { why } else { why.after_another() })?;
        let by = session.nodes.last();
        let receipt = match answers.next().await? {
            Response::Submitted(submitted) => submitted.receipt,
            // An answer was lost on the way and this is the second try: the run stands in the ledger already.
            Response::Known(known) => match known.into_iter().find(|k| k.run == linked.run) {
                Some(known) => known.receipt,
                None => return Err(Error::KnownElsewhere(run.run().ids.first().copied().unwrap_or_default())),
            },
            other => return Err(answers.unexpected(kind(&other))),
        };
        let charter = session.charter_of(&receipt.checkpoint).await?;
        let verified = receipt.verify(&run, &charter)?;
        session.is_current(room, &charter)?;
        let log = verified.checkpoint().checkpoint();
        if let Some(before) = known.take() {
            let held = before.check_log(log).map_err(Error::from);
            held.map_err(|why| session.evident(why, Some(&before), &receipt.checkpoint))?;
            // How far the room was followed stays as it is, and with it when that was accepted.
            let (note, charter) = (Some(verified.checkpoint().note().into()), log.charter_version);
            let (size, root) = (log.size, log.root);
            let memory = RoomMemory { origin: log.origin.clone(), size, root, charter, note, ..before.clone() };
            session.goes_on(by, &before.seen(), &before, &memory).await?;
            session.home().remember(room, &memory)?;
            known = Some(memory);
        }
        strand.accepted(&linked, log.seen());
        receipts.push(verified);
    }
    Ok(receipts)
}

/// Follows a room anew, and says whether its verified records show all of these events.
pub async fn stand(
    session: &mut Session,
    room: RoomId,
    mut events: BTreeSet<EheId>,
) -> Result<(Following, bool), Error> {
    let mut following = session.following(room, false)?;
    let purpose = session.usual_purpose();
    let look = |shown: Shown, _: &Following| {
        if let Shown::Entry(_, verified) = shown
            && let Verified::Run { run, .. } = *verified
        {
            run.ids.iter().for_each(|id| {
                events.remove(id);
            });
        }
        Ok(())
    };
    session.fetch(&mut following, &scope::everything(Part::Control), purpose, look).await?;
    following.state()?;
    Ok((following, events.is_empty()))
}

/// Cuts events into runs that fit a frame.
fn runs(events: Vec<CheckedEvent>) -> Vec<Vec<CheckedEvent>> {
    let most = limits::SUBMISSION_MAX_BYTES - RUN_AND_FRAMING_BYTES;
    let (mut runs, mut bytes): (Vec<Vec<CheckedEvent>>, usize) = (Vec::new(), 0);
    for event in events {
        let size = event.event().header.len() + event.body().len() + 32;
        match runs.last_mut().filter(|run| bytes + size <= most && run.len() < limits::RUN_EVENTS_MAX) {
            Some(run) => {
                run.push(event);
                bytes += size;
            }
            None => {
                runs.push(vec![event]);
                bytes = size;
            }
        }
    }
    runs
}
