//! The uplink: what the spool's outbox holds goes to the nodes that lead the rooms' shards, and leaves the spool against a
//! verified receipt only.
//!
//! | file | is |
//! |---|---|
//! | `line` | one room's strand: what to link next, what an answer means (pure) |
//! | `remedy` | what to do about each refusal (pure) |
//! | `schedule`, `backoff`, `nodes` | when to visit which room, whom to ask (pure) |
//! | `session` | connections, questions, deadlines |
//! | `control` | fetching control records |
//! | `visit` | one visit to a room: the decisions, carried out |
//!
//! One task; visits to different rooms run side by side in it, one visit a room.

mod backoff;
mod charters;
mod config;
mod control;
mod extends;
mod heads;
mod line;
mod nodes;
mod remedy;
mod renewal;
mod restored;
mod schedule;
mod session;
mod status;
#[cfg(test)]
mod tests;
mod visit;
mod witness;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use certs::Credentials;
use certs::channel::Client;
use ehe::id::{RoomId, StrandId};
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

pub use self::charters::{Charters, ChartersError};
pub use self::config::UplinkConfig;
use self::line::Line;
pub use self::line::NodeFault;
use self::schedule::{Schedule, Turn};
use self::session::Session;
use self::status::Board;
pub use self::status::UplinkStatus;
use self::visit::Visitor;
use self::witness::Witness;
use crate::clock::WallClock;
use crate::rooms::{Rooms, Sealer};
use crate::spool::Spool;

/// With nothing to do, the outbox is looked at so often all the same.
const IDLE: Duration = Duration::from_secs(60);
/// How often connections that nobody uses at the moment are looked at.
const LOSSES_EVERY: Duration = Duration::from_secs(1);
/// How long exchanges under way may take to end once the program stops. What is cut off is found again by its ids.
const STOP_WITHIN: Duration = Duration::from_secs(3);

/// What the uplink is made of.
pub struct UplinkParts {
    /// The channel to nodes, in the gateway's name.
    pub client: Client,
    /// What it was made with; its directory is read again while the uplink runs.
    pub credentials: Credentials,
    /// The charters at hand; newer ones are fetched when a checkpoint names them.
    pub charters: Charters,
    /// Where evidence is kept.
    pub evidence: PathBuf,
    /// What is to be sent.
    pub spool: Spool,
    /// What is followed.
    pub rooms: Rooms,
    /// Told of wraps that were refused.
    pub sealer: Sealer,
    /// Deadlines, pauses, bounds.
    pub config: UplinkConfig,
    /// The wall clock.
    pub clock: WallClock,
}

/// The uplink, ready to run.
pub struct Uplink {
    parts: UplinkParts,
    board: Arc<Board>,
}

impl Uplink {
    /// Nothing happens before [`Uplink::run`].
    pub fn new(parts: UplinkParts) -> Self {
        let board = Arc::new(Board::new(Arc::clone(&parts.clock)));
        Self { parts, board }
    }

    /// Counts, as they are now and as they change.
    pub fn status(&self) -> watch::Receiver<UplinkStatus> {
        self.board.reader()
    }

    /// Follows rooms and drains the outbox until `stop`; then ends within 3 s, earlier if the exchanges under way are over.
    /// What was not confirmed by then stays in the spool.
    pub async fn run(self, stop: CancellationToken) {
        let UplinkParts { client, credentials, charters, evidence, spool, rooms, sealer, config, clock } = self.parts;
        let mut outbox_changed = spool.changed();
        let mut assignments_changed = rooms.assignments_changed();
        let mut schedule = Schedule::new(config.backoff_min_ms, config.backoff_max_ms, config.control_refresh());
        let witness = Witness::new(evidence, charters.each().to_vec());
        let kept = match spool.load_logs().await {
            Ok(saved) => extends::restore(saved),
            Err(error) => {
                tracing::error!(%error, "how far the logs were seen cannot be read; nothing is sent");
                return;
            }
        };
        let board = Arc::clone(&self.board);
        let session = Session::new(client, charters, witness, (spool.clone(), kept), config.clone(), board);
        let visitor = Visitor { session, spool, rooms, sealer, clock, config, board: self.board, stop: stop.clone() };
        // A line lives as long as the program: its strand is one uninterrupted sequence of runs.
        let mut lines: BTreeMap<RoomId, Line> = BTreeMap::new();
        let mut visits = FuturesUnordered::new();
        let visit = async |mut line: Line, follow: bool| {
            let (outcome, followed) = visitor.visit(&mut line, follow).await;
            (line, outcome, followed)
        };
        let (clock, every) = (&visitor.clock, visitor.config.credentials_reload());
        let mut renewing = pin!(renewal::run(&visitor.session, credentials, clock, every));
        let mut losses = tokio::time::interval(LOSSES_EVERY);
        losses.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            // First the marks, then the state: a change in between is seen by the next round.
            outbox_changed.borrow_and_update();
            assignments_changed.borrow_and_update();
            let backlog: Vec<RoomId> = visitor.spool.backlog().iter().map(|of| of.room).collect();
            let assigned = visitor.rooms.assignments();
            schedule.keep(|room| assigned.contains_key(room) || backlog.contains(room));
            let places = visitor.config.rooms_in_parallel.max(1).saturating_sub(visits.len());
            for Turn { room, follow } in schedule.begin(&backlog, &assigned, places, Instant::now()) {
                let new = || Line::new(room, StrandId(random()), visitor.config.run_events_max);
                visits.push(visit(lines.remove(&room).unwrap_or_else(new), follow));
            }
            let free = visits.len() < visitor.config.rooms_in_parallel.max(1);
            let wake = schedule.wake(&backlog, &assigned).filter(|_| free);
            let wake = wake.unwrap_or_else(|| Instant::now() + IDLE);
            tokio::select! {
                () = stop.cancelled() => break,
                () = &mut renewing => {}
                Some((line, outcome, followed)) = visits.next(), if !visits.is_empty() => {
                    schedule.ended(line.room, outcome, followed, Instant::now(), chance());
                    lines.insert(line.room, line);
                }
                Ok(()) = outbox_changed.changed() => {}
                Ok(()) = assignments_changed.changed() => {}
                _ = losses.tick() => {
                    if visitor.session.look_for_losses() {
                        schedule.lost(Instant::now(), chance());
                    }
                }
                () = tokio::time::sleep_until(wake.into()) => {}
            }
        }
        let over = async { while visits.next().await.is_some() {} };
        let _ = tokio::time::timeout(STOP_WITHIN, over).await;
        visitor.session.close();
    }
}

/// Fresh random bytes of the system.
///
/// A system without randomness cannot seal, sign requests or connect: it answers zeros here, and what is built on them is
/// refused (a nonce that was used before, a strand that has a gap), never accepted wrongly.
fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    if let Err(error) = getrandom::fill(&mut bytes) {
        tracing::error!(%error, "the system gives no random numbers");
    }
    bytes
}

/// Randomness for spreading pauses.
fn chance() -> u64 {
    u64::from_le_bytes(random())
}

/// Locks a value that is only ever changed in single steps: a panic elsewhere cannot have left it half changed.
fn lock<T>(value: &Mutex<T>) -> MutexGuard<'_, T> {
    value.lock().unwrap_or_else(PoisonError::into_inner)
}
