//! A small disk for one node: a tmpfs in a mount namespace of its own, which a shell holds from one life of the node to the next.

use std::io::{BufRead, BufReader, Lines, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use anyhow::{Context, Result, ensure};

/// Room on it.
const MIB: u32 = 256;
/// Ends when its input does. To the brim: writing zeros ends with "no space left".
const SHELL: &str = r#"mount -t tmpfs -o size="$MIB"m tmpfs "$DATA" || exit 1; echo ready
while read -r word; do case $word in
fill) cat /dev/zero > "$DATA/ballast" 2>/dev/null; echo full;;
free) rm -f "$DATA/ballast"; echo freed;;
esac; done"#;

/// The disk, while it is held.
#[derive(Debug)]
pub(super) struct SmallDisk {
    holder: Child,
    words: ChildStdin,
    said: Lines<BufReader<ChildStdout>>,
    folder: PathBuf,
    /// Whether it took a user namespace: an ordinary user may mount in one of its own.
    user: bool,
}

impl SmallDisk {
    /// At a folder. `None`: this machine lets this user mount nothing.
    pub(super) fn mount(folder: &Path) -> Result<Option<Self>> {
        std::fs::create_dir_all(folder)?;
        for (flags, user) in [("-m", false), ("-rm", true)] {
            let mut shell = Command::new("unshare");
            shell.args([flags, "sh", "-c", SHELL]).env("DATA", folder).env("MIB", MIB.to_string());
            shell.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
            let Ok(mut holder) = shell.spawn() else { return Ok(None) };
            let (words, said) = (holder.stdin.take().context("a pipe")?, holder.stdout.take().context("a pipe")?);
            let mut disk = Self { holder, words, said: BufReader::new(said).lines(), folder: folder.into(), user };
            if disk.hears("ready").is_ok() {
                return Ok(Some(disk));
            }
        }
        Ok(None)
    }

    fn hears(&mut self, word: &str) -> Result<()> {
        let said = self.said.next().context("the shell that holds the disk has ended")??;
        ensure!(said == word, "the shell that holds the disk said {said:?}");
        Ok(())
    }

    /// What starts a program that sees it.
    pub(super) fn before(&self) -> Vec<String> {
        let id = self.holder.id();
        let mut before = vec!["nsenter".to_owned(), format!("--mount=/proc/{id}/ns/mnt")];
        if self.user {
            before.extend([format!("--user=/proc/{id}/ns/user"), "--preserve-credentials".into()]);
        }
        before
    }

    /// Its folder as it is seen from outside.
    pub(super) fn outside(&self) -> PathBuf {
        let inside = self.folder.strip_prefix("/").unwrap_or(&self.folder);
        PathBuf::from(format!("/proc/{}/root", self.holder.id())).join(inside)
    }

    /// No room is left.
    pub(super) fn fill(&mut self) -> Result<()> {
        writeln!(self.words, "fill")?;
        self.hears("full")
    }

    /// There is room again.
    pub(super) fn free(&mut self) -> Result<()> {
        writeln!(self.words, "free")?;
        self.hears("freed")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}
