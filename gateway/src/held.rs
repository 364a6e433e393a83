//! Held readings find their owner: at each start, what an assignment of the configuration now covers moves to its room. The
//! original time stays.

use crate::config::Checked;
use crate::spool::{HeldDevice, Row, Spool, SpoolError};

/// Rows that move in one commit.
const ROWS_AT_ONCE: usize = 256;

/// Moves all held readings that somebody is assigned to. Gives how many.
pub async fn assign(spool: &Spool, checked: &Checked) -> Result<u64, SpoolError> {
    let mut moved = 0;
    for (tag, HeldDevice { device, user, .. }) in spool.held_devices().await? {
        if checked.assignments.room(&device, user.as_deref()).is_none() {
            continue;
        }
        loop {
            let held = spool.held_rows(tag.clone(), ROWS_AT_ONCE).await?;
            if held.is_empty() {
                break;
            }
            let (mut rows, mut broken) = (Vec::new(), Vec::new());
            for (key, readings) in held {
                let placed: Option<(usize, Vec<Row>)> = readings.and_then(|readings| {
                    let first = readings.first()?.device().clone();
                    let (people, thresholds) = (&checked.assignments, &checked.thresholds);
                    Some((readings.len(), people.rows(thresholds, &first, user.as_deref(), &readings).ok()?))
                });
                match placed {
                    Some((count, placed)) => {
                        moved += u64::try_from(count).unwrap_or(0);
                        rows.push((key, placed));
                    }
                    None => broken.push(key),
                }
            }
            spool.assign(tag.clone(), rows, broken).await?;
        }
    }
    Ok(moved)
}
