//! What the disk alone costs: the floor under everything that is confirmed only when it is synced.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Instant;

use anyhow::Result;

use super::table::Row;
use crate::account::percentile;

const WRITES: u64 = 500;
const PAGE: [u8; 4096] = [0x5a; 4096];

/// One page over and over, each time synced (fdatasync), in a preallocated file.
pub(super) fn row(group: &str, folder: &Path) -> Result<Row> {
    let path = folder.join("sync");
    let file = File::create(&path)?;
    let pages = 64;
    for page in 0..pages {
        file.write_all_at(&PAGE, page * PAGE.len() as u64)?;
    }
    file.sync_all()?;
    let mut took = Vec::new();
    for write in 0..WRITES {
        file.write_all_at(&PAGE, write % pages * PAGE.len() as u64)?;
        let start = Instant::now();
        file.sync_data()?;
        took.push(u64::try_from(start.elapsed().as_micros()).unwrap_or(u64::MAX));
    }
    drop(file);
    std::fs::remove_file(path)?;
    took.sort_unstable();
    let measured = format!("p50 {} µs, p99 {} µs", percentile(&took, 50), percentile(&took, 99));
    Ok(Row::new(
        group,
        "the disk alone: fdatasync of one 4 KiB page",
        measured,
        "below: 1 for each batch of blocks of the log, 1 for each checkpoint",
    ))
}
