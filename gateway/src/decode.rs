//! `ehe-gateway decode`: JSON Lines in, JSON Lines out. What the daemon would make of each message, for a technician who wonders
//! why a device's readings do not arrive, and for tests. It stores nothing and sends nothing.
//!
//! A line in is an object: `id`, `topic`, `input_text` or `input_hex`, and where it matters `content_type`, `schema` (of an Open
//! mHealth document without a header) and `time_unix` (the receipt; left out: now). The line out has the same `id`, and
//! `readings` and `fields`, or `error` with `kind` and `message`. A line that cannot be read gives an error too, and the next
//! one goes on.

mod row;

use std::io::{BufRead, Read, Write};

use ehe::time::UnixMs;

pub use self::row::Decoder;

/// Longest line that is looked at; a payload may have 64 KiB, in hexadecimal and with everything around it less than this.
pub const LINE_MAX_BYTES: usize = 1024 * 1024;

/// Answers each line of `input` with one of `output`; empty lines are passed over. `now` is the receipt of rows that name none.
///
/// # Errors
/// What reading or writing failed with.
pub fn run(
    decoder: &Decoder,
    input: &mut dyn BufRead,
    output: &mut dyn Write,
    now: &dyn Fn() -> UnixMs,
) -> std::io::Result<()> {
    let mut line = Vec::new();
    loop {
        line.clear();
        let read = (&mut *input).take(LINE_MAX_BYTES as u64).read_until(b'\n', &mut line)?;
        if read == 0 {
            return output.flush();
        }
        let whole = line.ends_with(b"\n") || read < LINE_MAX_BYTES;
        let answer = if whole {
            if line.iter().all(u8::is_ascii_whitespace) {
                continue;
            }
            decoder.line(&line, now)
        } else {
            step_over(input)?;
            decoder.too_long()
        };
        output.write_all(answer.as_bytes())?;
        output.write_all(b"\n")?;
        // Whoever types lines, or another program, waits for this answer before the next line.
        output.flush()?;
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
