//! Who signed, asked again long after: under the keys that the author had at that entry.

use ehe::event::{CheckedEvent, Kind};
use ehe::id::AuthorId;
use ehe::read::{AccessRecord, ReadRequest};
use ehe::refusal::Refusal;
use ehe::room::{RoomState, author_key};
use ehe::run::{Run, UnverifiedRun};
use ehe::sign::{SignedError, VerifyKey};

/// Control events that count in a room's sequence: all but wraps.
pub(super) fn counted(events: &[CheckedEvent]) -> u64 {
    let counts = |event: &&CheckedEvent| !event.core().kind.is_content() && event.core().kind != Kind::Wrap;
    events.iter().filter(counts).count().try_into().unwrap_or(u64::MAX)
}

/// The key under which a run had to verify when it was taken in. `room`: the room's rules as they are now, which keep all keys that
/// ever counted; `before`: the control events that it had before this run.
fn key(room: &RoomState, run: &Run, events: &[CheckedEvent], before: u64) -> Result<VerifyKey, Refusal> {
    if run.author != room.owner {
        // The keys of everybody else never change: their id is the hash of them.
        return author_key(Some(room), run, events);
    }
    let signed = room.owner_keys.iter().rev().find(|key| key.from < before).or(room.owner_keys.first());
    signed.map(|key| key.sign).ok_or(Refusal::NotInvited)
}

/// Whether the author signed the run.
pub(super) fn signed(room: &RoomState, run: UnverifiedRun, events: &[CheckedEvent], control: u64) -> bool {
    let Some(before) = control.checked_sub(counted(events)) else { return false };
    let Ok(key) = key(room, run.claims(), events, before) else { return false };
    run.verify(&key).is_ok()
}

/// Whether the reader signed the request in an access record; the request, if so.
pub(super) fn asked(room: &RoomState, record: &AccessRecord) -> Result<ReadRequest, SignedError> {
    let request = record.request.decode()?;
    let reader: AuthorId = request.claims().reader;
    match (room.key_of(reader), &record.reader) {
        (Some(key), _) => request.verify(&key),
        (None, Some(identity)) => request.verify_as(identity),
        (None, None) => Err(SignedError::OtherAuthor),
    }
}
