//! From a due window to events in the outbox: reads the rows back, has them sealed, and swaps rows for events in one commit.

use std::sync::Arc;
use std::time::{Duration, Instant};

use ehe::event::CheckedEvent;
use ehe::id::RoomId;
use ehe::reading::Reading;
use ehe::time::UnixMs;
use ehe::vital::Category;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::clock::SystemClock;
use crate::rooms::{Commit, SealHold, Sealer};
use crate::spool::{Arrival, NewEvent, ReportedReading, Spool, SpoolError, SpooledWindow, Taken, WindowKey};
use crate::status::Counters;
use crate::window::{Reason, WindowLimits, Windows};

/// Sealed events, each with the readings that it carries by index, and what the sealer is told once they are durable.
pub type Outcome<C> = (Vec<(CheckedEvent, Vec<usize>)>, C);

/// What seals readings; a test puts something simpler in its place.
pub trait Seal: Send + 'static {
    /// What the sealer learns only once the events are durable.
    type Commit: Send;

    /// Seals readings of one room, category and hour. The events carry every reading exactly once, by index; a wrap carries none
    /// and stands before what it opens.
    fn seal(
        &self,
        room: RoomId,
        category: Category,
        readings: &[Reading],
        now: UnixMs,
    ) -> Result<Outcome<Self::Commit>, SealHold>;

    /// Readings of the room are sealed in a moment: what is known of it is looked at again before.
    fn about_to_seal(&self, room: RoomId);

    /// The events are durable.
    fn committed(&self, commit: Self::Commit);

    /// Moves when what could not be sealed may be tried again.
    fn changed(&self) -> watch::Receiver<u64>;
}

impl Seal for Sealer {
    type Commit = Commit;

    fn seal(
        &self,
        room: RoomId,
        category: Category,
        readings: &[Reading],
        now: UnixMs,
    ) -> Result<Outcome<Commit>, SealHold> {
        // Linux's getrandom does not fail once the system has booted far enough to start services.
        let mut rng = rand_core::UnwrapErr(getrandom::SysRng);
        let (events, commit) = Sealer::seal(self, &mut rng, room, category, readings, now)?.into_parts();
        Ok((events.into_iter().map(|sealed| (sealed.event, sealed.readings)).collect(), commit))
    }

    fn about_to_seal(&self, room: RoomId) {
        self.rooms().about_to_seal(room, Instant::now());
    }

    fn committed(&self, commit: Commit) {
        Sealer::committed(self, commit);
    }

    fn changed(&self) -> watch::Receiver<u64> {
        self.rooms().changed()
    }
}

/// Closes windows. One task; the windows' numbers are its alone.
pub struct Closing<S> {
    /// Where the rows lie.
    pub spool: Spool,
    /// What seals them.
    pub sealer: S,
    /// The clocks.
    pub clock: SystemClock,
    /// When windows close.
    pub limits: WindowLimits,
    /// How often a window on hold is tried again although its room did not change: what kept it may have been a wrong clock.
    pub hold_retry: Duration,
    /// For the lab: keep with each event which readings it carries.
    pub report: bool,
    /// Counted for people.
    pub counters: Arc<Counters>,
}

impl<S: Seal> Closing<S> {
    /// Runs until `stop`. What is open then stays in the spool, and `restored` finds it at the next start.
    pub async fn run(
        self,
        restored: Vec<SpooledWindow>,
        mut arrivals: mpsc::Receiver<Vec<Arrival>>,
        stop: CancellationToken,
    ) {
        let mut windows = Windows::new(self.limits);
        let mut changed = self.sealer.changed();
        let mut hold_retry = tokio::time::interval(self.hold_retry);
        for SpooledWindow { window, readings, received, alarm } in restored {
            windows.arrived(window, readings, alarm, received, self.clock.utc(), self.clock.monotonic_ms());
        }
        loop {
            while let Ok(more) = arrivals.try_recv() {
                self.arrived(&mut windows, more);
            }
            self.counters.windows(windows.len(), windows.on_hold());
            if stop.is_cancelled() {
                return;
            }
            for room in windows.closing_soon(self.clock.monotonic_ms()) {
                self.sealer.about_to_seal(room);
            }
            if let Some((window, reason)) = windows.due(self.clock.monotonic_ms()) {
                match self.close(&mut windows, window, reason).await {
                    Ok(()) => {}
                    Err(SpoolError::Stopped) => return,
                    Err(error) => {
                        // Of our own making; what the spool holds is untouched, so the window is looked at again.
                        tracing::error!(%error, "window: could not be closed");
                        windows.closed(window, false);
                        self.look_again(&mut windows, window).await;
                    }
                }
                continue;
            }
            let wake = [windows.next_deadline_ms(), windows.next_closing_soon_ms()].into_iter().flatten().min();
            let wait = wake.map(|at| at.saturating_sub(self.clock.monotonic_ms()).max(1));
            tokio::select! {
                () = stop.cancelled() => return,
                more = arrivals.recv() => match more {
                    Some(more) => self.arrived(&mut windows, more),
                    None => return,
                },
                change = changed.changed() => {
                    if change.is_err() { return; }
                    self.spool.none_on_hold();
                    windows.release();
                }
                _ = hold_retry.tick() => windows.release(),
                () = tokio::time::sleep(Duration::from_millis(wait.unwrap_or(3_600_000))) => {}
            }
        }
    }

    fn arrived(&self, windows: &mut Windows, arrivals: Vec<Arrival>) {
        let (utc, now_ms) = (self.clock.utc(), self.clock.monotonic_ms());
        for Arrival { window, readings, received, alarm } in arrivals {
            windows.arrived(window, u64::from(readings), alarm, received, utc, now_ms);
        }
    }

    async fn look_again(&self, windows: &mut Windows, window: WindowKey) {
        if let Ok(spooled) = self.spool.windows().await {
            let (utc, now_ms) = (self.clock.utc(), self.clock.monotonic_ms());
            for found in spooled.into_iter().filter(|found| found.window == window) {
                windows.arrived(window, found.readings, found.alarm, utc, utc, now_ms);
            }
        }
    }

    async fn close(&self, windows: &mut Windows, window: WindowKey, reason: Reason) -> Result<(), SpoolError> {
        let readings_max = usize::try_from(self.limits.readings_max).unwrap_or(usize::MAX);
        let taken = self.spool.take(window, readings_max).await?;
        if !taken.broken.is_empty() {
            tracing::error!(rows = taken.broken.len(), "spool: rows do not open any more; they are kept aside");
        }
        if taken.readings.is_empty() {
            if !taken.broken.is_empty() {
                self.spool.seal(Vec::new(), taken.broken, Vec::new()).await?;
            }
            self.spool.off_hold(&window);
            windows.closed(window, taken.more);
            return Ok(());
        }
        let sealed = self.sealer.seal(window.room, window.category, &taken.readings, self.clock.utc());
        let (events, commit) = match sealed {
            Ok(sealed) => sealed,
            Err(hold) => {
                tracing::info!(room = %window.room, %hold, "window: on hold; its readings stay in the spool");
                self.counters.held_back();
                self.spool.on_hold(window, hold == SealHold::RoomUnknown);
                windows.hold(window);
                return Ok(());
            }
        };
        let Taken { rows, broken, readings, alarm, more } = taken;
        let urgent = alarm || reason == Reason::Alarm;
        let events =
            events.into_iter().map(|(event, indices)| self.event(event, &indices, &readings, urgent)).collect();
        self.spool.seal(rows, broken, events).await?;
        self.spool.off_hold(&window);
        self.sealer.committed(commit);
        self.counters.closed(reason, readings.len());
        windows.closed(window, more);
        Ok(())
    }

    fn event(&self, event: CheckedEvent, indices: &[usize], readings: &[Reading], urgent: bool) -> NewEvent {
        let carried = || indices.iter().filter_map(|index| readings.get(*index));
        // A wrap carries nothing: it is as old as the oldest of all.
        let received = |r: &Reading| r.time().received;
        let oldest = carried().map(received).min().or_else(|| readings.iter().map(received).min());
        let report = if self.report {
            carried()
                .map(|r| ReportedReading {
                    device: r.device().clone(),
                    vital: r.vital(),
                    at: r.at(),
                    received: r.time().received,
                })
                .collect()
        } else {
            Vec::new()
        };
        NewEvent {
            event,
            readings: u32::try_from(indices.len()).unwrap_or(u32::MAX),
            oldest: oldest.unwrap_or_default(),
            urgent,
            report,
        }
    }
}

#[cfg(test)]
mod tests;
