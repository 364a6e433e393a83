//! Held readings find their owner: at each start, what an assignment of the configuration now covers moves to its room. The
//! original time stays. Where the room has no place for them, because what it holds cannot be sealed yet, they stay held and are
//! tried again later.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::config::Checked;
use crate::spool::{Arrival, HeldDevice, HeldRow, Row, Spool, SpoolError};

/// Rows that move in one commit.
const ROWS_AT_ONCE: usize = 256;

/// What became of held readings that somebody is assigned to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Moved {
    /// Readings that wait in a window now.
    pub readings: u64,
    /// Devices of which readings stayed held, because their room has no place for them.
    pub left: usize,
    /// For the windows; a start finds them in the spool.
    pub arrivals: Vec<Arrival>,
}

/// Moves all held readings that somebody is assigned to, and that their rooms have a place for.
pub async fn assign(spool: &Spool, checked: &Checked) -> Result<Moved, SpoolError> {
    let mut all = Moved::default();
    for (tag, HeldDevice { device, user, .. }) in spool.held_devices().await? {
        if checked.assignments.room(&device, user.as_deref()).is_none() {
            continue;
        }
        loop {
            let held = spool.held_rows(tag.clone(), ROWS_AT_ONCE).await?;
            if held.is_empty() {
                break;
            }
            let (rows, broken) = placed(checked, user.as_deref(), held);
            match spool.assign(tag.clone(), rows, broken).await {
                Ok(stored) => {
                    all.readings += stored.arrivals.iter().map(|arrival| u64::from(arrival.readings)).sum::<u64>();
                    all.arrivals.extend(stored.arrivals);
                }
                Err(SpoolError::RoomFull) => {
                    all.left += 1;
                    break;
                }
                Err(error) => return Err(error),
            }
        }
    }
    Ok(all)
}

/// Tries again until nothing is left behind, or `stop`.
pub async fn assign_the_rest(
    spool: Spool,
    checked: Arc<Checked>,
    arrivals: mpsc::Sender<Vec<Arrival>>,
    every: Duration,
    stop: CancellationToken,
) {
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(every) => {}
        }
        let moved = match assign(&spool, &checked).await {
            Ok(moved) => moved,
            Err(SpoolError::Stopped) => return,
            Err(error) => {
                tracing::warn!(%error, "held readings were not moved to their owner; tried again later");
                continue;
            }
        };
        if moved.readings > 0 {
            tracing::info!(readings = moved.readings, "held readings have found their owner");
            if arrivals.send(moved.arrivals).await.is_err() {
                return;
            }
        }
        if moved.left == 0 {
            return;
        }
    }
}

type Placed = (Vec<(Vec<u8>, Vec<Row>)>, Vec<Vec<u8>>);

/// Rows for their owner, and the keys of those that do not open any more.
fn placed(checked: &Checked, user: Option<&str>, held: Vec<HeldRow>) -> Placed {
    let (mut rows, mut broken) = (Vec::new(), Vec::new());
    for (key, readings) in held {
        let placed = readings.and_then(|readings| {
            let first = readings.first()?.device().clone();
            checked.assignments.rows(&checked.thresholds, &first, user, &readings).ok()
        });
        match placed {
            Some(placed) => rows.push((key, placed)),
            None => broken.push(key),
        }
    }
    (rows, broken)
}
