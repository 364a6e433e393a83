//! Rows and their table.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A figure beside its target. The libraries' benches print the same members as JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Row {
    /// What it belongs to; `--only` names it.
    pub group: String,
    /// What was measured.
    pub what: String,
    /// What it must reach; "–" where nothing is asked.
    pub target: String,
    /// The figure with its unit.
    pub measured: String,
    /// Whether it reaches its target; none where it has none.
    pub met: Option<bool>,
    /// Where the time (or the room) goes.
    #[serde(rename = "where")]
    pub spent: String,
}

impl Row {
    /// A figure without a target.
    pub fn new(
        group: impl Into<String>,
        what: impl Into<String>,
        measured: impl Into<String>,
        spent: impl Into<String>,
    ) -> Self {
        let (group, what, measured, spent) = (group.into(), what.into(), measured.into(), spent.into());
        Self { group, what, target: "–".into(), measured, met: None, spent }
    }

    /// The same, held against a target.
    #[must_use]
    pub fn target(mut self, target: impl Into<String>, met: bool) -> Self {
        (self.target, self.met) = (target.into(), Some(met));
        self
    }
}

/// All rows, in the order in which they came. Shown as a Markdown table.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Table(Vec<Row>);

impl Table {
    /// Adds rows at the end.
    pub fn add(&mut self, rows: impl IntoIterator<Item = Row>) {
        self.0.extend(rows);
    }

    /// Drops the others.
    pub fn keep(&mut self, wanted: impl FnMut(&Row) -> bool) {
        self.0.retain(wanted);
    }

    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Rows whose target is missed.
    pub fn missed(&self) -> impl Iterator<Item = &Row> {
        self.0.iter().filter(|row| row.met == Some(false))
    }
}

/// A cell holds no line break and no column's end.
fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace(['\n', '\r'], " ")
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "| group | what | target | measured | where the time goes |\n|---|---|---|---|---|")?;
        for row in &self.0 {
            let missed = if row.met == Some(false) { " **missed**" } else { "" };
            writeln!(
                f,
                "| {} | {} | {} | {}{missed} | {} |",
                cell(&row.group),
                cell(&row.what),
                cell(&row.target),
                cell(&row.measured),
                cell(&row.spent)
            )?;
        }
        let (missed, held) = (self.missed().count(), self.0.iter().filter(|row| row.met.is_some()).count());
        writeln!(f, "\n{} of {held} targets reached.", held - missed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missed_target_is_marked_and_counted_and_cells_stay_cells() {
        let mut table = Table::default();
        table.add([
            Row::new("node", "a|b", "3\n4", "disk").target("≥ 5", false),
            Row::new("node", "c", "6", "cpu").target("≥ 5", true),
            Row::new("seal", "d", "7", "cpu"),
        ]);
        let text = table.to_string();
        assert!(text.contains("| node | a\\|b | ≥ 5 | 3 4 **missed** | disk |"), "{text}");
        assert!(text.contains("| seal | d | – | 7 | cpu |") && text.ends_with("1 of 2 targets reached.\n"), "{text}");
        assert_eq!(text.matches("missed").count(), 1);
        table.keep(|row| row.group == "seal");
        assert_eq!(table.missed().count(), 0);
    }
}
