//! Printing: everything that the program says on its standard output goes through one [`Printer`].

mod admin;
mod authority;
mod evidence;
mod readings;

use std::io::Write;

use serde::Serialize;

use crate::error::Error;

pub use readings::{Format, ReadingsPrinter};

/// The program's one writer.
pub struct Printer<'w> {
    out: &'w mut dyn Write,
    json: bool,
}

impl<'w> Printer<'w> {
    /// Prints to `out`; `json`: one JSON value a line, for programs.
    pub fn new(out: &'w mut dyn Write, json: bool) -> Self {
        Self { out, json }
    }

    /// Whether JSON is asked for.
    pub fn is_json(&self) -> bool {
        self.json
    }

    /// A line of text.
    pub fn line(&mut self, text: impl AsRef<str>) -> Result<(), Error> {
        writeln!(self.out, "{}", text.as_ref()).map_err(Error::Print)
    }

    /// A JSON value in one line.
    pub fn value(&mut self, value: &impl Serialize) -> Result<(), Error> {
        let text = serde_json::to_string(value).map_err(|e| Error::Print(e.into()))?;
        self.line(text)
    }

    /// A table: columns as wide as their widest cell, the last one open.
    pub fn table(&mut self, head: &[&str], rows: &[Vec<String>]) -> Result<(), Error> {
        let rows: Vec<Vec<String>> = rows.iter().map(|row| row.iter().map(|cell| plain(cell)).collect()).collect();
        let width = |column: usize| {
            let cells = rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count());
            cells.chain(head.get(column).map(|h| h.chars().count())).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..head.len()).map(width).collect();
        let line = |cells: &mut dyn Iterator<Item = &str>| {
            let padded = cells.zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
            padded.collect::<Vec<_>>().join("  ").trim_end().to_owned()
        };
        self.line(line(&mut head.iter().copied()))?;
        for row in &rows {
            self.line(line(&mut row.iter().map(String::as_str)))?;
        }
        Ok(())
    }

    /// Everything is out.
    pub fn flush(&mut self) -> Result<(), Error> {
        self.out.flush().map_err(Error::Print)
    }
}

/// Text that somebody else wrote, made safe for a terminal: no control characters, no reversed direction.
pub fn plain(text: &str) -> String {
    let hidden = |c: char| c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    text.chars().map(|c| if hidden(c) { '\u{fffd}' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_aligned_and_carry_no_control_characters() {
        let mut out = Vec::new();
        let rows = vec![vec!["a\u{1b}[2J".to_owned(), "x".into()], vec!["long name".into(), "y".into()]];
        Printer::new(&mut out, false).table(&["name", "is"], &rows).unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), "name       is\na\u{fffd}[2J      x\nlong name  y\n");
    }
}
