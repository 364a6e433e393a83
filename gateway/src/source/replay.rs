//! A file of captured messages, played again as if they came now. The place in the file is committed with each message, so a
//! restart goes on where it was, and nothing is stored twice.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde_json::{Map, Value};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::{Ack, Input, Message};
use crate::clock::SystemClock;
use crate::config::{Replay, ReplayFormat};
use crate::spool::{Position, Spool};

/// Longest line that is read; a longer one is an error of the file.
const LINE_MAX_BYTES: u64 = 256 * 1024;
/// Longest pause between two messages, however far apart they were captured.
const PAUSE_MAX_MS: u64 = 3_600_000;

/// Why a replay ends before its file does. The other sources go on.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// The file.
    #[error("{}: {why}", .path.display())]
    Io {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        why: std::io::Error,
    },
    /// The file is not there, or none.
    #[error(transparent)]
    File(#[from] certs::FileError),
    /// A line that is none of its format.
    #[error("{}: line {line}: {problem}", .path.display())]
    Line {
        /// Which file.
        path: PathBuf,
        /// Counted from 1.
        line: u64,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// The program stops.
    #[error("stopping")]
    Stopped,
}

/// One captured message.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    /// When it was captured, in milliseconds of whatever clock; for the pace alone.
    pub at_ms: Option<i64>,
    /// What the device sent.
    pub payload: Bytes,
}

/// Reads records of either format, line by line.
pub struct Records {
    path: PathBuf,
    lines: BufReader<std::fs::File>,
    line: u64,
    columns: Option<Vec<String>>,
    time_column: Option<String>,
}

impl Records {
    /// Opens the file; a CSV file's head line is read.
    pub fn open(path: &Path, format: ReplayFormat, time_column: Option<String>) -> Result<Self, ReplayError> {
        let file = certs::file::open(path, "name the file that is to be played, or leave [[replay]] out")?;
        let mut records =
            Self { path: path.to_owned(), lines: BufReader::new(file), line: 0, columns: None, time_column };
        if format == ReplayFormat::Csv {
            let head =
                records.next_line()?.ok_or_else(|| records.error("a CSV file begins with the columns' names"))?;
            records.columns = Some(head.split(',').map(|name| name.trim().to_owned()).collect());
        }
        Ok(records)
    }

    fn error(&self, problem: &'static str) -> ReplayError {
        ReplayError::Line { path: self.path.clone(), line: self.line, problem }
    }

    fn next_line(&mut self) -> Result<Option<String>, ReplayError> {
        let mut text = String::new();
        self.line += 1;
        let mut limited = std::io::Read::take(&mut self.lines, LINE_MAX_BYTES);
        let length = limited.read_line(&mut text).map_err(|why| ReplayError::Io { path: self.path.clone(), why })?;
        if length == 0 {
            return Ok(None);
        }
        if u64::try_from(length).is_ok_and(|length| length >= LINE_MAX_BYTES) {
            return Err(self.error("longer than 256 KiB"));
        }
        text.truncate(text.trim_end_matches(['\n', '\r']).len());
        Ok(Some(text))
    }

    /// The next record, with the number of its line; empty lines are left out.
    pub fn next_record(&mut self) -> Result<Option<(u64, Record)>, ReplayError> {
        loop {
            let Some(text) = self.next_line()? else { return Ok(None) };
            if text.trim().is_empty() {
                continue;
            }
            let record = match &self.columns {
                Some(columns) => self.csv(columns, &text)?,
                None => self.json(&text)?,
            };
            return Ok(Some((self.line, record)));
        }
    }

    fn json(&self, text: &str) -> Result<Record, ReplayError> {
        let value: Map<String, Value> = serde_json::from_str(text).map_err(|_| self.error("not a JSON object"))?;
        let payload = match value.get("payload") {
            Some(Value::String(text)) => Bytes::from(text.clone()),
            Some(other) => Bytes::from(other.to_string()),
            None => return Err(self.error("no member `payload`")),
        };
        Ok(Record { at_ms: value.get("at_ms").and_then(Value::as_i64), payload })
    }

    fn csv(&self, columns: &[String], text: &str) -> Result<Record, ReplayError> {
        if text.contains('"') {
            return Err(self.error("quoted fields are not supported: export without quotes"));
        }
        let fields: Vec<&str> = text.split(',').map(str::trim).collect();
        if fields.len() != columns.len() {
            return Err(self.error("another number of fields than the head line"));
        }
        let mut object = Map::new();
        let mut at_ms = None;
        for (name, field) in columns.iter().zip(&fields) {
            if Some(name) == self.time_column.as_ref() {
                at_ms = Some(time_ms(field).ok_or_else(|| self.error("no time in the time column"))?);
            }
            // A number keeps its digits; an empty field is no value.
            let value = match serde_json::from_str::<serde_json::Number>(field) {
                Ok(number) => Value::Number(number),
                Err(_) if field.is_empty() => Value::Null,
                Err(_) => Value::String((*field).to_owned()),
            };
            object.insert(name.clone(), value);
        }
        Ok(Record { at_ms, payload: Bytes::from(Value::Object(object).to_string()) })
    }
}

/// A time with or without a zone, in ms; without one it is taken as UTC, which does for a pace.
fn time_ms(text: &str) -> Option<i64> {
    if let Ok(instant) = text.parse::<jiff::Timestamp>() {
        return Some(instant.as_millisecond());
    }
    let civil: jiff::civil::DateTime = text.parse().ok()?;
    let zoned = civil.to_zoned(jiff::tz::TimeZone::UTC).ok()?;
    Some(zoned.timestamp().as_millisecond())
}

/// Looks whether the file can be played, and at its head line: for `ehe-gateway check`.
pub fn check(config: &Replay) -> Result<(), ReplayError> {
    Records::open(&config.file, config.format, config.time_column.clone()).map(drop)
}

/// Plays one file.
pub struct ReplaySource {
    /// What to play.
    pub config: Replay,
    /// The clocks.
    pub clock: SystemClock,
    /// Knows the place in the file.
    pub spool: Spool,
}

impl ReplaySource {
    /// Runs to the end of the file or until `stop`.
    pub async fn run(self, inputs: mpsc::Sender<Input>, stop: CancellationToken) {
        let played = tokio::select! {
            () = stop.cancelled() => return,
            played = self.play(&inputs) => played,
        };
        match played {
            Ok(messages) => tracing::info!(source = %self.config.name, messages, "replay: at the file's end"),
            Err(ReplayError::Stopped) => {}
            Err(error) => tracing::error!(source = %self.config.name, %error, "replay: ended"),
        }
    }

    async fn play(&self, inputs: &mpsc::Sender<Input>) -> Result<u64, ReplayError> {
        let name: Arc<str> = self.config.name.as_str().into();
        let done = self.spool.position(self.config.name.clone()).await.map_err(|_| ReplayError::Stopped)?.unwrap_or(0);
        let Replay { file, format, time_column, .. } = self.config.clone();
        // Lines are read on a thread of their own: a slow disk must not stop the other tasks.
        let (records, mut queue) = mpsc::channel(64);
        let reading = tokio::task::spawn_blocking(move || -> Result<(), ReplayError> {
            let mut lines = Records::open(&file, format, time_column)?;
            while let Some((line, record)) = lines.next_record()? {
                if line > done && records.blocking_send((line, record)).is_err() {
                    break;
                }
            }
            Ok(())
        });
        let mut played = 0;
        let mut before: Option<i64> = None;
        while let Some((line, record)) = queue.recv().await {
            if let (Some(before), Some(at)) = (before, record.at_ms) {
                let pause = self.pause(at.saturating_sub(before));
                // Even a pause of nothing would last a timer's tick.
                if !pause.is_zero() {
                    tokio::time::sleep(pause).await;
                }
            }
            before = record.at_ms.or(before);
            let message = Message {
                source: name.clone(),
                topic: self.config.name.clone(),
                payload: record.payload,
                content_type: None,
                received: self.clock.now(),
                mark: None,
                position: Some(Position { source: name.clone(), next: line }),
                ack: Ack::None,
            };
            inputs.send(Input::Message(Box::new(message))).await.map_err(|_| ReplayError::Stopped)?;
            played += 1;
        }
        match reading.await {
            Ok(ended) => ended.map(|()| played),
            Err(_) => Err(ReplayError::Stopped),
        }
    }

    fn pause(&self, ms: i64) -> Duration {
        let ms = u64::try_from(ms).unwrap_or(0).min(PAUSE_MAX_MS);
        if self.config.speed > 0.0 {
            Duration::from_millis(ms).div_f64(self.config.speed.max(0.001))
        } else {
            Duration::ZERO
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn records(text: &str, format: ReplayFormat, time_column: Option<&str>) -> Result<Vec<(u64, Record)>, ReplayError> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        let mut records = Records::open(file.path(), format, time_column.map(str::to_owned))?;
        let mut out = Vec::new();
        while let Some(record) = records.next_record()? {
            out.push(record);
        }
        Ok(out)
    }

    #[test]
    fn a_csv_line_becomes_a_document_that_keeps_its_digits() {
        let text = "time_local,heart_rate_per_min\n2016-04-01T07:54:00,93\r\n\n2016-04-01T07:54:05,91.50\n";
        let found = records(text, ReplayFormat::Csv, Some("time_local")).unwrap();
        assert_eq!(found.len(), 2);
        assert_eq!(found[0].0, 2);
        assert_eq!(found[1].0, 4);
        assert_eq!(found[1].1.at_ms.unwrap() - found[0].1.at_ms.unwrap(), 5_000);
        let payload = std::str::from_utf8(&found[1].1.payload).unwrap();
        assert!(payload.contains("91.50") && payload.contains("2016-04-01T07:54:05"), "{payload}");
    }

    #[test]
    fn a_json_line_carries_its_payload_as_text_or_as_document() {
        let text = "{\"at_ms\":5,\"payload\":{\"hr\":72.0}}\n{\"payload\":\"raw\"}\n";
        let found = records(text, ReplayFormat::JsonLines, None).unwrap();
        assert_eq!(found[0].1, Record { at_ms: Some(5), payload: Bytes::from_static(b"{\"hr\":72.0}") });
        assert_eq!(found[1].1, Record { at_ms: None, payload: Bytes::from_static(b"raw") });
    }

    #[test]
    fn a_faulty_line_is_named() {
        let cases = [
            ("a,b\n1\n", ReplayFormat::Csv, 2),
            ("a,b\n1,2\n\"1\",2\n", ReplayFormat::Csv, 3),
            ("", ReplayFormat::Csv, 1),
            ("[]\n", ReplayFormat::JsonLines, 1),
            ("{\"payload\":1}\n{}\n", ReplayFormat::JsonLines, 2),
        ];
        for (text, format, line) in cases {
            match records(text, format, None) {
                Err(ReplayError::Line { line: found, .. }) => assert_eq!(found, line, "{text}"),
                other => panic!("{text}: {other:?}"),
            }
        }
        let long = format!("{{\"payload\":\"{}\"}}\n", "x".repeat(300_000));
        assert!(matches!(records(&long, ReplayFormat::JsonLines, None), Err(ReplayError::Line { line: 1, .. })));
    }
}
