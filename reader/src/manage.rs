//! What the patient does, or a delegate: make a room, invite, end invitations.

use std::collections::BTreeSet;

use ehe::control::EpochCategory;
use ehe::event::CheckedEvent;
use ehe::id::{AuthorId, EheId, RoomId};
use ehe::recovery::RecoveryKey;
use ehe::refusal::Refusal;
use ehe::time::UnixMs;
use ehe::vital::Category;

use crate::build::{self, Invitation, Revocation, RoomPlan};
use crate::error::{Error, Exit, Made};
use crate::memory::RoomMemory;
use crate::session::{Session, rng};
use crate::submit::{self, submit};

/// A room that stands in the ledger.
#[derive(Debug, Clone)]
pub struct Created {
    /// The room.
    pub room: RoomId,
    /// Its shard.
    pub shard: u16,
    /// Its first key epochs.
    pub epochs: Vec<EpochCategory>,
}

/// Makes a room, all of it in one run. It exists once this returns: the receipt was verified.
pub async fn create(
    session: &mut Session,
    name: Option<&str>,
    shard: Option<u16>,
    recovery: Option<&RecoveryKey>,
) -> Result<Created, Error> {
    let (charter, now, me) = (session.charter(), session.now(), session.me().clone());
    let (alliance, shards) = (charter.alliance_id(), charter.shard_count());
    let recovery = recovery.map(|key| key.identity().public().clone());
    let plan = RoomPlan { alliance, shards, shard, name, recovery: recovery.as_ref() };
    let new = build::create(&mut rng(), &me, plan, now)?;
    let created = Created { room: new.room, shard: new.room.shard(shards), epochs: new.epochs };
    let ids = new.events.iter().map(CheckedEvent::id).collect();
    match submit(session, &me, new.room, None, new.events).await {
        Ok(receipts) => {
            if let Some(receipt) = receipts.last() {
                session.home().remember(new.room, &RoomMemory::of_receipt(receipt))?;
            }
            Ok(created)
        }
        Err(why) => not_created(session, created, ids, why).await,
    }
}

/// What became of a room that was submitted, where that seemed to fail for `why`. Whatever a node answered: verified records of the
/// room tell.
async fn not_created(
    session: &mut Session,
    created: Created,
    ids: BTreeSet<EheId>,
    why: Error,
) -> Result<Created, Error> {
    if why.never_sent() {
        return Err(why);
    }
    match submit::stand(session, created.room, ids).await {
        Ok((_, true)) if why.exit() != Exit::Unverified => {
            tracing::warn!("the node's answer was: {why}; the room's records show that it was made");
            Ok(created)
        }
        Err(Error::Refused(Refusal::RoomUnknown)) if why.made() == Made::Not => Err(why),
        _ => Err(Error::RoomInDoubt { room: created.room, why: Box::new(why) }),
    }
}

/// Whether a room can be made with these keys, and in that shard.
pub fn may_create(session: &Session, shard: Option<u16>) -> Result<(), Error> {
    session.is_a_patients()?;
    Ok(build::has_shard(session.charter().shard_count(), shard)?)
}

/// A grant that stands in the ledger.
#[derive(Debug, Clone, Copy)]
pub struct Granted {
    /// The grant.
    pub id: EheId,
    /// Whether a delegate made it: gateways do not take its word for what a key is for (SPEC K5).
    pub by_delegate: bool,
}

/// Invites somebody. The grant holds once this returns: the receipt was verified.
pub async fn grant(session: &mut Session, room: RoomId, invitation: &Invitation) -> Result<Granted, Error> {
    session.is_no_node(&invitation.subject)?;
    let control = session.control(room, session.usual_purpose()).await?;
    let event = build::grant(&mut rng(), control.me(), control.state()?, control.view(), invitation, session.now())?;
    let (id, by_delegate) = (event.id(), control.me().author_id() != control.state()?.owner);
    submit(session, control.me(), room, Some(&control), vec![event]).await?;
    Ok(Granted { id, by_delegate })
}

/// Which grants to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    /// One.
    Grant(EheId),
    /// All of one identity.
    Subject(AuthorId),
}

/// What was ended.
#[derive(Debug, Clone)]
pub struct Revoked {
    /// The grants.
    pub ended: Vec<EheId>,
    /// Rights to append that ended at once: what waits in their gateways' spools is refused.
    pub cut: Vec<EheId>,
    /// Rights to append that their gateways still have: these take what waits, as far as they reach.
    pub still: Vec<EheId>,
    /// Categories with a new key: what is sealed from now on, who was revoked cannot open.
    pub renewed: Vec<Category>,
    /// Categories whose key could not be renewed, because too many others read them.
    pub kept: Vec<Category>,
    /// Keys that a delegate may not renew: the patient has to.
    pub unrenewed: usize,
}

/// Ends grants. They are refused from the moment at which this returns: the receipt was verified.
pub async fn revoke(
    session: &mut Session,
    room: RoomId,
    which: Which,
    drain: Option<UnixMs>,
) -> Result<Revoked, Error> {
    let control = session.control(room, session.usual_purpose()).await?;
    let (state, now) = (control.state()?, session.now());
    let grants = match which {
        Which::Grant(grant) => vec![grant],
        Which::Subject(subject) => build::grants_of_subject(state, subject),
    };
    if let (Which::Subject(subject), true) = (which, grants.is_empty()) {
        return Err(build::nothing_to_end(state, subject).into());
    }
    let revocation = build::revoke(&mut rng(), control.me(), state, control.view(), &grants, drain, now)?;
    let Revocation { events, ended, cut, renewed, kept, unrenewed } = revocation;
    let still = build::still_appending(state, &cut, &ended, now);
    submit(session, control.me(), room, Some(&control), events).await?;
    Ok(Revoked { ended, cut, still, renewed, kept, unrenewed })
}
