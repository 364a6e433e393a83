//! What it costs as there are more shards and more rooms: the built programs, measured at rest and at work.
//!
//! Takes minutes and gigabytes, so it runs only where it is named. Beside the rows it leaves `growth.md`: the same figures as two narrow
//! tables.

mod idle;
mod population;
mod rooms;
mod shards;

use std::path::Path;

use anyhow::Result;

use super::disk;
use super::table::Row;
use crate::lab::process::Programs;
use crate::view::View;

/// The group of these rows.
pub(super) const GROUP: &str = "growth";

/// Measures.
pub(super) async fn run(out: &Path) -> Result<Vec<Row>> {
    std::fs::create_dir_all(out)?;
    let view = View::new([], false);
    let say = |text: String| view.say(text);
    let programs = Programs::built()?;
    let mut rows = vec![disk::row(GROUP, out)?];
    let mut tables = String::new();
    let of_shards = shards::run(&programs, &out.join("shards"), &say).await?;
    let of_rooms = rooms::run(&programs, &out.join("rooms"), &say).await?;
    for Measured { rows: more, table } in [of_shards, of_rooms] {
        rows.extend(more);
        tables.push_str(&table);
        tables.push('\n');
    }
    std::fs::write(out.join("growth.md"), tables)?;
    Ok(rows)
}

/// What one of the two showed.
struct Measured {
    rows: Vec<Row>,
    /// The figures alone, as Markdown.
    table: String,
}

/// A table's line.
fn line(cells: &[String]) -> String {
    format!("| {} |\n", cells.join(" | "))
}

/// A table's head.
fn head(cells: &[&str]) -> String {
    let cells: Vec<_> = cells.iter().map(|cell| (*cell).to_owned()).collect();
    format!("{}|{}\n", line(&cells), "---:|".repeat(cells.len()))
}

fn mib(bytes: u64) -> u64 {
    bytes >> 20
}
