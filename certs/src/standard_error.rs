//! Standard error as the place of a program's log: what cannot be written there is dropped and counted, and nothing ends for it.
//!
//! The disk under a log fills up, or whoever read it goes away. tracing-subscriber, told that a line could not be written, says so on
//! standard error by a macro that panics where that cannot be written either: a node would end at the moment when the hospital's log disk
//! is full. So its writer never fails.

use std::io::{self, StderrLock, Write};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Lines of this process that nobody got to see.
static LOST: AtomicU64 = AtomicU64::new(0);

/// For tracing-subscriber's `with_writer`: where a line of the log goes.
pub fn lines() -> Lines<'static, StderrLock<'static>> {
    Lines { out: io::stderr().lock(), lost: &LOST }
}

/// Takes whole lines. Writing never fails: a line that does not get out is counted, and the next that does says how many were lost.
#[derive(Debug)]
pub struct Lines<'a, W> {
    out: W,
    lost: &'a AtomicU64,
}

impl<W: Write> Write for Lines<'_, W> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let lost = self.lost.swap(0, Relaxed);
        let said = match lost {
            0 => Ok(()),
            // On a line of its own: of the last one a part may stand there.
            _ => writeln!(self.out, "\nlines of the log that could not be written before this one: {lost}"),
        };
        if said.is_err() {
            self.lost.fetch_add(lost.saturating_add(1), Relaxed);
        } else if self.out.write_all(line).is_err() {
            self.lost.fetch_add(1, Relaxed);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        // What is still inside is lost with it, and counted nowhere: standard error keeps nothing inside.
        let _ = self.out.flush();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As a disk that fills up: it takes so many bytes more.
    struct Disk<'a> {
        written: &'a mut Vec<u8>,
        room: usize,
    }

    impl Write for Disk<'_> {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let taken = bytes.len().min(self.room);
            if taken == 0 {
                return Err(io::ErrorKind::StorageFull.into());
            }
            self.room -= taken;
            self.written.extend_from_slice(&bytes[..taken]);
            Ok(taken)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_line_that_cannot_be_written_is_dropped_and_the_next_that_can_says_how_many_were() {
        let (lost, mut written) = (AtomicU64::new(0), Vec::new());
        let mut say = |room, line: &str| {
            let mut lines = Lines { out: Disk { written: &mut written, room }, lost: &lost };
            lines.write_all(line.as_bytes()).unwrap();
            lines.flush().unwrap();
        };
        say(100, "one\n");
        say(2, "two\n");
        say(0, "three\n");
        say(1, "four\n");
        say(1000, "five\n");
        say(1000, "six\n");
        assert_eq!(
            String::from_utf8(written).unwrap(),
            "one\ntw\n\nlines of the log that could not be written before this one: 3\nfive\nsix\n"
        );
    }
}
