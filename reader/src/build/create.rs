//! A new room: its first event and one key epoch for each category.

use core::num::NonZeroU16;

use ehe::control::{Control, ControlLink, EpochCategory, Private, RoomCreate};
use ehe::event::CheckedEvent;
use ehe::id::{AllianceId, EheId, Hash, Nonce, RoomId};
use ehe::identity::{Identity, Party, PublicIdentity};
use ehe::time::UnixMs;
use ehe::vital::Category;
use getrandom::rand_core::CryptoRng;

use super::{BuildError, Draft, NextEpoch};

/// Nonces tried for each shard of the alliance before giving up; a failure then has a chance of e^-64.
const TRIES_PER_SHARD: u32 = 64;

/// A room that waits to be submitted.
#[derive(Debug)]
pub struct NewRoom {
    /// Its id.
    pub room: RoomId,
    /// Its events, in order, for one run.
    pub events: Vec<CheckedEvent>,
    /// Its first key epochs.
    pub epochs: Vec<EpochCategory>,
}

/// What a room is to be.
#[derive(Debug, Clone, Copy)]
pub struct RoomPlan<'a> {
    /// The alliance.
    pub alliance: AllianceId,
    /// Its shards.
    pub shards: NonZeroU16,
    /// The shard in which the data must live.
    pub shard: Option<u16>,
    /// Its name, for the patient alone.
    pub name: Option<&'a str>,
    /// The recovery identity.
    pub recovery: Option<&'a PublicIdentity>,
}

/// Whether an alliance has the shard in which data must live.
pub fn has_shard(shards: NonZeroU16, shard: Option<u16>) -> Result<(), BuildError> {
    match shard.filter(|shard| *shard >= shards.get()) {
        Some(shard) => {
            Err(BuildError::Usage(format!("there is no shard {shard}: the alliance has {shards}, counted from 0")))
        }
        None => Ok(()),
    }
}

/// Makes a room.
///
/// The seeds of all group keys are wrapped to the patient and to the recovery identity: with one of them, the ledger alone is
/// enough to open everything.
pub fn create(
    rng: &mut impl CryptoRng,
    patient: &Identity,
    plan: RoomPlan<'_>,
    now: UnixMs,
) -> Result<NewRoom, BuildError> {
    let RoomPlan { alliance, shards, shard, name, recovery } = plan;
    has_shard(shards, shard)?;
    let committed = recovery.map_or(Hash::ZERO, PublicIdentity::commitment);
    let mut room = RoomCreate { alliance, nonce: Nonce::ZERO, owner: patient.public().clone(), recovery: committed };
    let mut landed = false;
    for _ in 0..TRIES_PER_SHARD * u32::from(shards.get()) {
        rng.fill_bytes(&mut room.nonce.0);
        landed = shard.is_none_or(|shard| room.room_id().shard(shards) == shard);
        if landed {
            break;
        }
    }
    if !landed {
        return Err(BuildError::Usage("no room id was found in that shard; try again".into()));
    }
    let id = room.room_id();
    let link = ControlLink { seq: 0, previous: EheId::ZERO };
    let owner = Party::of(patient.public());
    let mut draft = Draft { me: patient, owner, recovery, room: id, link, now, events: Vec::new() };
    let private = Private { name: name.map(str::to_owned), recovery: recovery.cloned(), ..Private::default() };
    let parties = draft.keepers();
    draft.push(rng, &Control::RoomCreate(room), Some((&private, &parties)))?;
    let mut epochs = Vec::with_capacity(Category::ALL.len());
    for category in Category::ALL.iter().copied() {
        let next = NextEpoch { category, supersedes: None, continues: vec![], readers: vec![], appenders: vec![] };
        epochs.push(EpochCategory { epoch: draft.push_epoch(rng, next)?, category });
    }
    Ok(NewRoom { room: id, events: draft.events, epochs })
}
