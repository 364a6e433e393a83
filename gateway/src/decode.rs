//! `ehe-gateway decode`: JSON Lines in, JSON Lines out. What the daemon would make of each message, for a technician who wonders
//! why a device's readings do not arrive, and for tests. It stores nothing and sends nothing.
//!
//! A line in is an object: `id`, `topic`, `input_text` or `input_hex`, and where it matters `content_type`, `schema` (of an Open
//! mHealth document without a header) and `time_unix` (the receipt; left out: now). The line out has the same `id`, and
//! `readings` and `fields`, or `error` with `kind` and `message`. A line that cannot be read gives an error too, and the next
//! one goes on. Whoever asks is told of each error also the number of its line, because a line that cannot be read has no `id`, and its `kind`; the
//! message, which may repeat what the sender sent, stands in the answer alone.

mod row;

use std::io::{BufRead, Read, Write};

use ehe::time::UnixMs;

pub use self::row::{Answered, Decoder};

/// Longest line that is looked at; a payload may have 64 KiB, in hexadecimal and with everything around it less than this.
pub const LINE_MAX_BYTES: usize = 1024 * 1024;

/// What reading the input or writing the answers failed with.
#[derive(Debug, thiserror::Error)]
#[error("line {line}: {why}")]
pub struct DecodeError {
    /// Of the input, from 1.
    pub line: u64,
    /// What the system said.
    pub why: std::io::Error,
}

/// Answers each line of `input` with one of `output`; empty lines are passed over. `note` is told of each error the number of its line (from
/// 1) and its kind. `now` is the receipt of rows that name none.
///
/// # Errors
/// What reading or writing failed with.
pub fn run(
    decoder: &Decoder,
    input: &mut dyn BufRead,
    output: &mut dyn Write,
    note: &dyn Fn(u64, &'static str),
    now: &dyn Fn() -> UnixMs,
) -> Result<(), DecodeError> {
    let mut line = Vec::new();
    for number in 1.. {
        let failed = |why| DecodeError { line: number, why };
        let answer = match next(input, &mut line).map_err(failed)? {
            Next::End => break,
            Next::Line if line.iter().all(u8::is_ascii_whitespace) => continue,
            Next::Line => decoder.line(number, &line, now),
            Next::TooLong => decoder.too_long(),
        };
        // Whoever types lines, or another program, waits for this answer before the next line.
        writeln!(output, "{}", answer.json).and_then(|()| output.flush()).map_err(failed)?;
        if let Some(kind) = answer.refused {
            note(number, kind);
        }
    }
    Ok(())
}

/// What comes next of the input.
enum Next {
    Line,
    TooLong,
    End,
}

fn next(input: &mut dyn BufRead, line: &mut Vec<u8>) -> std::io::Result<Next> {
    line.clear();
    let read = (&mut *input).take(LINE_MAX_BYTES as u64).read_until(b'\n', line)?;
    if read == 0 {
        Ok(Next::End)
    } else if line.ends_with(b"\n") || read < LINE_MAX_BYTES {
        Ok(Next::Line)
    } else {
        step_over(input)?;
        Ok(Next::TooLong)
    }
}

/// To the end of a line, whatever its length, without keeping it.
fn step_over(input: &mut dyn BufRead) -> std::io::Result<()> {
    loop {
        let part = input.fill_buf()?;
        if part.is_empty() {
            return Ok(());
        }
        let end = part.iter().position(|byte| *byte == b'\n');
        let used = end.map_or(part.len(), |end| end + 1);
        input.consume(used);
        if end.is_some() {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests;
