//! What the ordering party checks before it proposes: form, hashes, limits, and the signature of every run.

use ehe::id::RoomId;
use ehe::refusal::Refusal;
use ehe::room::author_key;
use ehe::wire::Submission;

use super::store::StoreError;
use super::view::View;

/// Refuses a run that nobody signed or that is not well formed. Rights and order are decided when it is applied.
pub fn precheck(view: &View, submission: &Submission) -> Result<Result<(), Refusal>, StoreError> {
    let Ok(run) = submission.run.decode() else { return Ok(Err(Refusal::RunMalformed)) };
    let events = submission.events.iter().map(|event| event.clone().check()).collect::<Result<Vec<_>, _>>();
    let Ok(events) = events else { return Ok(Err(Refusal::EventMalformed)) };
    let room = view.room(run.claims().room)?;
    let key = match author_key(room.as_ref(), run.claims(), &events) {
        Ok(key) => key,
        Err(why) => return Ok(Err(why)),
    };
    Ok(run.verify(&key).map(drop).map_err(|_| Refusal::BadSignature))
}

/// The room that a submission is for, if it can be told.
pub fn room_of(submission: &Submission) -> Result<RoomId, Refusal> {
    submission.run.decode().map(|run| run.claims().room).map_err(|_| Refusal::RunMalformed)
}
