//! Whom this node refuses, and who refuses it, in a file of its data directory: for `ehe-node status`. The wire's status has no place for it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use certs::FileError;
use ehe::id::NodeId;
use tokio_util::sync::CancellationToken;

use crate::consensus::{Consensus, Estranged};
use crate::node::node_id;

/// The file's name.
const FILE: &str = "estranged";
/// Far more than an alliance has nodes, a line each.
const MAX_BYTES: usize = 64 << 10;
/// So often it is looked whether that changed.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// By node.
pub type All = BTreeMap<NodeId, Estranged>;

fn word(why: Estranged) -> &'static str {
    match why {
        Estranged::OtherLog => "other-log",
        Estranged::Denied => "denied",
    }
}

/// What the node that runs on a data directory last wrote there. What does not read is of another version, and says nothing.
///
/// # Errors
/// [`FileError`]: what stands under its name cannot be read. The node writes it anew when it starts.
pub fn read(data_dir: &Path) -> Result<All, FileError> {
    let text = match certs::file::read_text(&data_dir.join(FILE), MAX_BYTES, "a running node writes it anew") {
        Err(FileError::Missing { .. }) => return Ok(All::new()),
        read => read?,
    };
    let line = |line: &str| {
        let (node, said) = line.split_once(' ')?;
        let why = [Estranged::OtherLog, Estranged::Denied].into_iter().find(|why| word(*why) == said)?;
        Some((node.parse().ok()?, why))
    };
    Ok(text.lines().filter_map(line).collect())
}

fn write(data_dir: &Path, all: &All) -> Result<(), FileError> {
    let text: String = all.iter().map(|(node, why)| format!("{node} {}\n", word(*why))).collect();
    certs::file::replace(&data_dir.join(FILE), text.as_bytes())
}

/// Keeps the file up to date until the node stops. Where nobody is refused and nothing is left of an earlier run, there is none.
pub async fn keep(consensus: Consensus, data_dir: PathBuf, stop: CancellationToken) {
    let dir = data_dir.clone();
    let mut written = tokio::task::spawn_blocking(move || read(&dir).ok()).await.unwrap_or_default();
    loop {
        let all: All = consensus.estranged().into_iter().map(|(node, why)| (node_id(node), why)).collect();
        if written.as_ref() != Some(&all) {
            let (dir, now) = (data_dir.clone(), all.clone());
            match tokio::task::spawn_blocking(move || write(&dir, &now)).await {
                Ok(Ok(())) => written = Some(all),
                Ok(Err(error)) => tracing::warn!(%error, "whom this node refuses is not noted for `ehe-node status`"),
                Err(_) => {}
            }
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_noted_is_read_again_and_what_is_not_understood_says_nothing() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(read(dir.path()).unwrap(), All::new());
        let all = All::from([(NodeId([1; 8]), Estranged::OtherLog), (NodeId([2; 8]), Estranged::Denied)]);
        write(dir.path(), &all).unwrap();
        assert_eq!(read(dir.path()).unwrap(), all);
        std::fs::write(dir.path().join(FILE), "x other-log\n0303030303030303 later\nnothing\n").unwrap();
        assert_eq!(read(dir.path()).unwrap(), All::new());
        std::fs::remove_file(dir.path().join(FILE)).unwrap();
        // Nobody writes to it: whoever only reads waits for ever.
        assert!(std::process::Command::new("mkfifo").arg(dir.path().join(FILE)).status().unwrap().success());
        assert!(matches!(read(dir.path()), Err(FileError::NotAFile { .. })));
    }
}
