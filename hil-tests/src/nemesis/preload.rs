//! Libraries that are loaded before a node's own (`hil-tests/preload/*.c`): compiled when they are needed, by the compiler that links
//! Rust. The product knows nothing of them, and nothing in it could be set to do what they do.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

/// What can be loaded.
#[derive(Debug, Clone, Copy)]
pub(super) enum Preload {
    /// A disk that forgets.
    Disk,
    /// A clock that is wrong.
    Clock,
}

impl Preload {
    fn source(self) -> (&'static str, &'static str) {
        match self {
            Self::Disk => ("disk", include_str!("../../preload/disk.c")),
            Self::Clock => ("clock", include_str!("../../preload/clock.c")),
        }
    }

    /// Compiles it into a folder.
    pub(super) fn compile(self, folder: &Path) -> Result<PathBuf> {
        let (name, source) = self.source();
        let (from, to) = (folder.join(format!("{name}.c")), folder.join(format!("{name}.so")));
        std::fs::write(&from, source)?;
        let mut cc = std::process::Command::new("cc");
        cc.args(["-shared", "-fPIC", "-O2", "-Wall", "-Wextra", "-Werror", "-pthread", "-o"])
            .arg(&to)
            .arg(&from)
            .arg("-ldl");
        let done = cc.output().context("cc links Rust, and compiles this")?;
        ensure!(done.status.success(), "{}: {}", from.display(), String::from_utf8_lossy(&done.stderr));
        Ok(to)
    }
}
