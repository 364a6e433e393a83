//! Who read what, when, what for, and who was refused: from the room's own ledger, verified whole.

use ehe::id::{AuthorId, Nonce, RoomId};
use ehe::ledger::{LedgerError, Verified};
use ehe::read::{AccessRecord, Part, Purpose};
use ehe::refusal::Refusal;
use ehe::time::{Hour, UnixMs};
use ehe::vital::Category;

use crate::error::Error;
use crate::follow::Following;
use crate::heads::{self, Newest};
use crate::scope;
use crate::session::{Session, Shown};

/// Access records that one command holds.
pub const RECORDS_MAX: usize = 1_000_000;

/// One access record, with what the patient knows about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Access {
    /// Entry of the room.
    pub index: u64,
    /// The ledger's time.
    pub at: UnixMs,
    /// Who asked.
    pub reader: AuthorId,
    /// The name that the patient gave them; none for a stranger.
    pub name: Option<String>,
    /// Whether it was the patient.
    pub is_patient: bool,
    /// With keys that the patient distrusts from before then: somebody who had stolen them, it may be.
    pub distrusted: bool,
    /// The person behind the identity, as a pseudonym.
    pub actor: Option<Nonce>,
    /// What for, as the reader signed it.
    pub purpose: Purpose,
    /// The part of the room.
    pub part: Part,
    /// The categories asked for, as far as the epochs are the room's.
    pub categories: Vec<Category>,
    /// First hour asked for; none: from the beginning.
    pub from: Option<Hour>,
    /// Hour before which was asked; none: without end.
    pub until: Option<Hour>,
    /// Why it was refused; none: it was granted.
    pub refused: Option<Refusal>,
    /// How many requests the record stands for.
    pub count: u64,
}

fn access(following: &Following, (index, control): (u64, u64), record: &AccessRecord) -> Result<Access, Error> {
    let request = record.request.decode().map_err(|_| LedgerError::Access { index })?;
    let request = request.claims();
    let (view, reader) = (following.view(), request.reader);
    let content = request.scope.part == Part::Content;
    // Keys that the patient replaced are refused: whoever tries them is not the patient any more.
    let own = following.state()?.owner_keys.iter().find(|key| key.id == reader && record.refused.is_none());
    Ok(Access {
        index,
        at: record.at,
        reader,
        name: view.name_of(reader).map(str::to_owned),
        is_patient: own.is_some(),
        distrusted: following.state()?.distrusts_read(reader, record.refused, control),
        actor: request.actor,
        purpose: request.purpose,
        part: request.scope.part,
        categories: view.categories_of(&request.scope.epochs),
        from: Some(request.scope.from).filter(|from| content && *from > Hour(0)),
        until: Some(request.scope.until).filter(|until| content && *until < Hour(u32::MAX)),
        refused: record.refused,
        count: record.count,
    })
}

/// Reads a room's access records, by time. The patient's alone. A refusal may be recorded after reads that came later.
/// Also whether they are all, as the members say.
pub async fn audit(session: &mut Session, room: RoomId) -> Result<(Vec<Access>, Newest), Error> {
    let mut following = session.following(room, true)?;
    let mut records: Vec<((u64, u64), AccessRecord)> = Vec::new();
    let purpose = session.usual_purpose();
    session
        .fetch(&mut following, &scope::everything(Part::Ledger), purpose, |shown, following| {
            if let Shown::Entry(index, verified) = shown
                && let Verified::Access(record) = *verified
            {
                if records.len() >= RECORDS_MAX {
                    return Err(Error::TooMuch { what: "access records", limit: RECORDS_MAX });
                }
                records.push(((index, following.state()?.next_control), *record));
            }
            Ok(())
        })
        .await?;
    // Stable: of one time the order of the ledger stays.
    records.sort_by_key(|(_, record)| record.at);
    let records = records.iter().map(|(at, record)| access(&following, *at, record)).collect::<Result<_, _>>()?;
    Ok((records, heads::newest(session, &following).await))
}
