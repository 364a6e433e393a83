//! Readings as JSON lines, CSV (RFC 4180) or a table.

use ehe::id::RoomId;
use serde::Serialize;

use super::Printer;
use crate::error::Error;
use crate::read::Row;
use crate::when;

/// How readings are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// For people.
    Table,
    /// One JSON object a reading and line.
    Json,
    /// RFC 4180, with a header.
    Csv,
}

const COLUMNS: [&str; 13] = [
    "patient",
    "device",
    "vital",
    "value",
    "unit",
    "time",
    "received",
    "method",
    "uncertainty_ms",
    "statistic",
    "flags",
    "event",
    "author",
];

/// One reading as JSON. The value is a JSON number with the digits as they were sent.
#[derive(Serialize)]
struct Line<'a> {
    patient: &'a str,
    device: &'a str,
    vital: &'a str,
    value: serde_json::Number,
    unit: &'a str,
    time: Option<String>,
    received: Option<String>,
    method: &'a str,
    uncertainty_ms: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    interval_ms: Option<u64>,
    clock_synchronised: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    statistic: Option<&'a str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    flags: Vec<&'static str>,
    event: String,
    author: String,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    distrusted: bool,
}

/// Prints readings of one room.
#[derive(Debug, Clone)]
pub struct ReadingsPrinter {
    patient: String,
    format: Format,
    started: bool,
}

impl ReadingsPrinter {
    /// `patient`: what stands in the member of that name; without it the room's id.
    pub fn new(room: RoomId, patient: Option<String>, format: Format) -> Self {
        Self { patient: patient.unwrap_or_else(|| room.to_string()), format, started: false }
    }

    /// Prints some more, the header before the first.
    pub fn print(&mut self, printer: &mut Printer<'_>, rows: &[Row]) -> Result<(), Error> {
        let first = !std::mem::replace(&mut self.started, true);
        match self.format {
            Format::Json => {
                for row in rows {
                    printer.value(&self.json(row)?)?;
                }
            }
            Format::Csv => {
                if first {
                    printer.line(format!("{}\r", COLUMNS.join(",")))?;
                }
                for row in rows {
                    let cells = self.csv(row)?;
                    printer.line(format!("{}\r", cells.iter().map(|c| quoted(c)).collect::<Vec<_>>().join(",")))?;
                }
            }
            Format::Table => {
                let cells: Vec<Vec<String>> = rows.iter().map(table).collect();
                let head = if first { ["time", "vital", "value", "unit", "device", "remarks"] } else { [""; 6] };
                if first {
                    printer.table(&head, &cells)?;
                } else {
                    for row in cells {
                        printer.line(super::plain(row.join("  ").trim_end()))?;
                    }
                }
            }
        }
        printer.flush()
    }

    fn json<'a>(&'a self, row: &'a Row) -> Result<Line<'a>, Error> {
        let (reading, time) = (&row.reading, row.reading.time());
        let value = serde_json::from_str(&reading.value().to_string()).map_err(|e| Error::Print(e.into()))?;
        Ok(Line {
            patient: &self.patient,
            device: reading.device().as_str(),
            vital: reading.vital().as_str(),
            value,
            unit: reading.unit().as_str(),
            time: when::text(reading.at()),
            received: when::text(time.received),
            method: time.method.as_str(),
            uncertainty_ms: time.uncertainty_ms,
            interval_ms: time.interval_ms,
            clock_synchronised: time.clock_synchronised,
            statistic: reading.statistic().map(|s| s.as_str()),
            flags: reading.flags().names().collect(),
            event: row.event.to_string(),
            author: row.author.to_string(),
            distrusted: row.distrusted,
        })
    }

    fn csv(&self, row: &Row) -> Result<[String; COLUMNS.len()], Error> {
        let line = self.json(row)?;
        Ok([
            line.patient.to_owned(),
            line.device.to_owned(),
            line.vital.to_owned(),
            line.value.to_string(),
            line.unit.to_owned(),
            line.time.unwrap_or_default(),
            line.received.unwrap_or_default(),
            line.method.to_owned(),
            line.uncertainty_ms.to_string(),
            line.statistic.unwrap_or_default().to_owned(),
            line.flags.into_iter().chain(line.distrusted.then_some("distrusted")).collect::<Vec<_>>().join(" "),
            line.event,
            line.author,
        ])
    }
}

/// A CSV cell: quoted where it has to be (RFC 4180 §2).
fn quoted(cell: &str) -> String {
    if cell.contains(['"', ',', '\n', '\r']) { format!("\"{}\"", cell.replace('"', "\"\"")) } else { cell.to_owned() }
}

fn table(row: &Row) -> Vec<String> {
    let reading = &row.reading;
    let mut remarks: Vec<String> = reading.statistic().iter().map(|s| s.as_str().to_owned()).collect();
    remarks.extend(reading.flags().names().map(str::to_owned));
    if reading.time().derived.is_none() {
        remarks.push("time of receipt".into());
    }
    if row.distrusted {
        remarks.push("signed with keys that the patient distrusts".into());
    }
    vec![
        when::shown(reading.at()),
        reading.vital().as_str().to_owned(),
        reading.value().to_string(),
        reading.unit().as_str().to_owned(),
        reading.device().as_str().to_owned(),
        remarks.join(" "),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use ehe::id::{AuthorId, EheId};
    use ehe::reading::{DeviceId, Reading, ReadingTime};
    use ehe::time::UnixMs;
    use ehe::unit::Unit;
    use ehe::vital::Vital;

    fn row(value: &str, device: &str) -> Row {
        let time = ReadingTime::at_receipt(UnixMs(1_795_168_800_250), 5, true, 1_000);
        let value = value.parse().unwrap();
        let reading =
            Reading::new(Vital::BodyTemperature, value, Unit::Celsius, DeviceId::new(device).unwrap(), time).unwrap();
        Row { reading, event: EheId([1; 32]), author: AuthorId([2; 16]), distrusted: false }
    }

    fn printed(format: Format, rows: &[Row]) -> String {
        let mut out = Vec::new();
        ReadingsPrinter::new(RoomId([9; 16]), None, format).print(&mut Printer::new(&mut out, false), rows).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn what_was_signed_with_distrusted_keys_says_so_in_every_form() {
        let thief = Row { distrusted: true, ..row("36.4", "ear") };
        assert!(printed(Format::Json, std::slice::from_ref(&thief)).contains(r#""distrusted":true"#));
        assert!(printed(Format::Csv, std::slice::from_ref(&thief)).contains(",distrusted,"));
        assert!(printed(Format::Table, &[thief]).contains("signed with keys that the patient distrusts"));
        assert!(!printed(Format::Json, &[row("36.4", "ear")]).contains("distrusted"));
    }

    #[test]
    fn a_json_line_has_the_six_members_and_the_digits_as_they_were_sent() {
        let line = printed(Format::Json, &[row("36.40", "ear")]);
        assert!(line.starts_with(
            r#"{"patient":"09090909090909090909090909090909","device":"ear","vital":"body_temperature","value":36.40,"unit":"Cel","time":"2026-11-20T10:00:00.250Z","#
        ), "{line}");
        let value: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(value["method"], "receipt");
        assert_eq!(value["uncertainty_ms"], 1000);
        assert!(value.get("flags").is_none());
    }

    #[test]
    fn csv_has_a_header_and_quotes_what_must_be_quoted() {
        let text = printed(Format::Csv, &[row("36.40", "ear, \"left\"")]);
        let mut lines = text.split("\r\n");
        assert_eq!(lines.next().unwrap(), COLUMNS.join(","));
        let line = lines.next().unwrap();
        assert!(line.contains(r#","ear, ""left""",body_temperature,36.40,Cel,2026-11-20T10:00:00.250Z,"#), "{line}");
    }

    #[test]
    fn a_table_is_for_people() {
        let text = printed(Format::Table, &[row("99.9", "ear")]);
        assert!(text.starts_with("time "), "{text}");
        assert!(text.contains("body_temperature  99.9   Cel   ear     implausible"), "{text}");
    }
}
