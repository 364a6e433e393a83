//! What the uplink did, as numbers: for metrics and the technician. No health data, no keys, no names.

use std::collections::BTreeMap;
use std::sync::Mutex;

use ehe::charter::{RULES_KNOWN, VerifiedCharter};
use ehe::id::{NodeId, RoomId};
use ehe::time::UnixMs;
use serde::Serialize;
use tokio::sync::watch;

use super::lock;
use crate::clock::WallClock;

/// Counts since the program's start, unless said otherwise.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct UplinkStatus {
    /// Nodes that are connected now.
    pub connected_nodes: u64,
    /// Connections that were made.
    pub connections: u64,
    /// Runs that were submitted.
    pub runs_submitted: u64,
    /// Events whose receipt was verified.
    pub events_confirmed: u64,
    /// Readings in them.
    pub readings_confirmed: u64,
    /// Events that were committed earlier, the answer having been lost.
    pub events_known: u64,
    /// Events that the ledger refused and that are kept aside.
    pub events_quarantined: u64,
    /// Events that were put back into the outbox because the room's rights changed.
    pub events_released: u64,
    /// Exchanges that failed and are tried again.
    pub failures: u64,
    /// Receipts and heads that did not verify. Anything above 0 wants an investigation of the node.
    pub proofs_refused: u64,
    /// The node that gave the last of them.
    pub distrusted_node: Option<NodeId>,
    /// Files of evidence in `evidence` in data_dir: what nodes signed that contradicts itself. Give them to the hospitals.
    pub evidence: u64,
    /// Times that a room's control records were fetched and verified.
    pub room_looks: u64,
    /// Rooms whose control records were fetched and verified since the start: as many as there are.
    pub rooms_followed: u64,
    /// Of them, those of which fewer members than a quorum said at the last look that nothing newer is missing. They are used as they are,
    /// and looked at again each `uplink.control_refresh_s`: if it stays above 0, too few hospitals' nodes answer (`unconfirmed` says why).
    pub rooms_unconfirmed: u64,
    /// Why, of the room of which it was said last; none while all are confirmed.
    pub unconfirmed: Option<String>,
    /// Times that a node showed a room's control records without newer ones, which another node knew of.
    pub records_missing: u64,
    /// Version of the charter at hand now.
    pub charter_version: u32,
    /// The rules version that it puts in force, if this program is older than that: a later one is to be installed.
    pub later_rules: Option<u16>,
    /// The last failure, in words; it may be over (see `connected_nodes`).
    pub last_failure: Option<String>,
    /// When that was.
    pub last_failure_ms: Option<UnixMs>,
}

/// Where the uplink writes its status.
pub(super) struct Board {
    status: watch::Sender<UplinkStatus>,
    clock: WallClock,
    /// The rooms that were followed, and whether a quorum confirmed it at the last look.
    looked: Mutex<BTreeMap<RoomId, bool>>,
}

impl Board {
    pub(super) fn new(clock: WallClock) -> Self {
        Self { status: watch::Sender::new(UplinkStatus::default()), clock, looked: Mutex::default() }
    }

    pub(super) fn reader(&self) -> watch::Receiver<UplinkStatus> {
        self.status.subscribe()
    }

    pub(super) fn note(&self, change: impl FnOnce(&mut UplinkStatus)) {
        self.status.send_modify(change);
    }

    /// This charter is the newest from now on. Rules that this program does not know are said once: it goes on sending, and what nodes refuse
    /// by them it keeps.
    pub(super) fn under(&self, charter: &VerifiedCharter) {
        let later = Some(charter.rules()).filter(|rules| *rules > RULES_KNOWN);
        let before = self.status.borrow().later_rules;
        if let Some(rules) = later.filter(|_| later != before) {
            tracing::warn!(
                rules,
                known = RULES_KNOWN,
                "this program is older than the alliance's rules: its charter has raised them. Install a version of ehe-gateway that knows them; until \
                 then it goes on sending, and keeps what the nodes refuse"
            );
        }
        self.note(|s| (s.charter_version, s.later_rules) = (charter.version(), later));
    }

    /// A room's control records were fetched and verified; `stale`: why they may not be the newest. Whether they were confirmed the
    /// time before, if there was one. Rooms that nobody is assigned to any more are not counted any more.
    pub(super) fn looked(&self, room: RoomId, assigned: impl Fn(&RoomId) -> bool, stale: Option<&str>) -> Option<bool> {
        let mut looked = lock(&self.looked);
        let before = looked.insert(room, stale.is_none());
        looked.retain(|other, _| *other == room || assigned(other));
        let unconfirmed = looked.values().filter(|confirmed| !**confirmed).count() as u64;
        let followed = looked.len() as u64;
        drop(looked);
        let said = stale.map(|why| format!("room {room}: stale: {why}"));
        let at = (self.clock)();
        self.note(|s| {
            s.room_looks += 1;
            (s.rooms_followed, s.rooms_unconfirmed) = (followed, unconfirmed);
            if let Some(said) = &said {
                (s.last_failure, s.last_failure_ms) = (Some(said.clone()), Some(at));
            }
            if said.is_some() || unconfirmed == 0 {
                s.unconfirmed = said;
            }
        });
        before
    }

    /// Something failed, and is tried again.
    pub(super) fn failed(&self, why: String) {
        self.fault(why, |s| s.failures += 1);
    }

    /// Something failed that is counted by itself.
    pub(super) fn fault(&self, why: String, count: impl FnOnce(&mut UplinkStatus)) {
        let at = (self.clock)();
        self.note(|s| {
            count(s);
            (s.last_failure, s.last_failure_ms) = (Some(why), Some(at));
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rooms(board: &Board) -> (u64, u64, u64, Option<String>) {
        let status = board.reader().borrow().clone();
        (status.room_looks, status.rooms_followed, status.rooms_unconfirmed, status.unconfirmed)
    }

    #[test]
    fn rooms_are_counted_as_they_are_now_and_looks_as_often_as_they_were() {
        let board = Board::new(crate::clock::wall());
        let (one, other) = (RoomId([1; RoomId::LEN]), RoomId([2; RoomId::LEN]));
        assert_eq!(board.looked(one, |_| true, Some("1 of 2 members")), None);
        assert_eq!(board.looked(other, |_| true, None), None);
        let stale = Some(format!("room {one}: stale: 1 of 2 members"));
        assert_eq!(rooms(&board), (2, 2, 1, stale), "the other room's confirmation says nothing of this one");
        assert_eq!(board.looked(one, |_| true, None), Some(false));
        assert_eq!(rooms(&board), (3, 2, 0, None), "it is over");
        assert_eq!(board.looked(one, |_| true, Some("again")), Some(true));
        assert_eq!(board.looked(other, |room| *room == other, None), Some(true));
        assert_eq!(rooms(&board), (5, 1, 0, None), "nobody is assigned to that room any more");
    }
}
