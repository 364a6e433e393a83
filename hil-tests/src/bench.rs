//! `make bench`: what the built programs reach, held against their targets.
//!
//! One file a topic, each of which gives rows of one group; the libraries' own benches (`cargo bench`) print theirs as JSON lines,
//! which are read here. A figure is never a test: machines differ, and a table says so better than a red line.

mod alliance;
pub mod crowd;
mod disk;
mod gateway;
mod growth;
mod load;
mod node;
mod peers;
mod room;
mod table;
mod upkeep;
mod usage;
mod way;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

pub use table::{Row, Table};

use crate::folder;

/// What to measure.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where the table and each topic's own files go.
    pub out: PathBuf,
    /// Groups to show; where none is named, all but those that take very long.
    pub only: Vec<String>,
    /// Rows that the libraries' benches printed.
    pub library: Option<PathBuf>,
    /// Seed of the modelled day.
    pub seed: u64,
}

/// Measures, and writes the table to `table.md` in the folder.
pub async fn run(options: &Options) -> Result<Table> {
    folder::anew(&options.out)?;
    let mut table = Table::default();
    if let Some(library) = &options.library {
        table.add(read_rows(library)?);
    }
    if options.wants(node::GROUP) {
        table.add(node::run(&options.out.join(node::GROUP)).await?);
    }
    if options.wants(alliance::GROUP) {
        table.add(alliance::run(&options.out.join(alliance::GROUP)).await?);
    }
    if options.wants(upkeep::GROUP) {
        table.add(upkeep::run(&options.out.join(upkeep::GROUP)).await?);
    }
    // Minutes and gigabytes: where it is asked for.
    if options.names(growth::GROUP) {
        table.add(growth::run(&options.out.join(growth::GROUP)).await?);
    }
    if options.wants(gateway::GROUP) {
        table.add(gateway::run(&options.out.join(gateway::GROUP)).await?);
    }
    if options.wants(way::GROUP) {
        table.add(way::run(&options.out.join(way::GROUP), options.seed).await?);
    }
    table.keep(|row| options.wants(&row.group));
    ensure!(!table.is_empty(), "no row is in the groups {}", options.only.join(", "));
    std::fs::write(options.out.join("table.md"), table.to_string())?;
    Ok(table)
}

impl Options {
    fn wants(&self, group: &str) -> bool {
        self.only.is_empty() || self.names(group)
    }

    fn names(&self, group: &str) -> bool {
        self.only.iter().any(|only| only == group)
    }
}

fn read_rows(path: &Path) -> Result<Vec<Row>> {
    let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
    // Cargo and the programs may print other lines in between.
    let rows = text.lines().filter(|line| line.starts_with('{'));
    rows.map(|line| serde_json::from_str(line).with_context(|| format!("{}: not a row: {line}", path.display())))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_libraries_are_read_between_other_lines_and_a_broken_one_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("rows");
        let good = r#"{"group":"seal","what":"w","target":"–","measured":"m","met":null,"where":"x"}"#;
        std::fs::write(&path, format!("running\n{good}\ndone\n")).unwrap();
        assert_eq!(read_rows(&path).unwrap(), [Row::new("seal", "w", "m", "x")]);
        std::fs::write(&path, "{\"group\":1}\n").unwrap();
        assert!(format!("{:#}", read_rows(&path).unwrap_err()).contains("{\"group\":1}"));
    }
}
