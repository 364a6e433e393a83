//! A node's wall clock, set while it runs (`preload/clock.c`).

use std::path::{Path, PathBuf};

use anyhow::Result;

/// The clock of one node.
#[derive(Debug, Clone)]
pub(super) struct Clock(PathBuf);

impl Clock {
    /// A right one. The node looks into this file.
    pub(super) fn new(file: PathBuf) -> Result<Self> {
        let clock = Self(file);
        std::fs::write(&clock.0, 0_i64.to_ne_bytes())?;
        Ok(clock)
    }

    /// Ahead by so much; the node's program has the file mapped, so it is written in place.
    pub(super) fn set(&self, ahead_ms: i64) -> Result<()> {
        use std::os::unix::fs::FileExt;
        let file = std::fs::File::options().write(true).open(&self.0)?;
        Ok(file.write_all_at(&ahead_ms.to_ne_bytes(), 0)?)
    }

    /// Its file.
    pub(super) fn file(&self) -> &Path {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_sees_its_clock_set_while_it_runs_and_its_monotonic_clock_go_on() {
        use std::io::{BufRead, BufReader, Write};
        use std::process::{Command, Stdio};
        const TELLS: &str =
            "import sys, time\nfor line in sys.stdin: print(time.time() - float(line), time.monotonic(), flush=True)";
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().canonicalize().unwrap();
        let library = super::super::preload::Preload::Clock.compile(&path).unwrap();
        let clock = Clock::new(path.join("clock")).unwrap();
        let mut python = Command::new("python3");
        python.args(["-c", TELLS]).env("LD_PRELOAD", library).env("EHE_LAB_CLOCK", clock.file());
        let mut child = python.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (mut asks, mut says) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()).lines());
        let mut before = 0.0;
        for ahead_ms in [0_i64, 45_000, -600_500, 0] {
            clock.set(ahead_ms).unwrap();
            let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
            writeln!(asks, "{}", now.as_secs_f64()).unwrap();
            let said = says.next().unwrap().unwrap();
            let (ahead, monotonic) = said.split_once(' ').unwrap();
            let (ahead, monotonic): (f64, f64) = (ahead.parse().unwrap(), monotonic.parse().unwrap());
            let late = ahead - ahead_ms as f64 / 1000.0;
            assert!((0.0..20.0).contains(&late) && monotonic > before && monotonic - before < 1e9, "{said}");
            before = monotonic;
        }
        drop(asks);
        child.wait().unwrap();
    }
}
