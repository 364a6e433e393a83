//! Whom this node refuses, and who refuses it, in a file of its data directory: for `ehe-node status`. The wire's status has no place for it.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use certs::FileError;
use ehe::id::NodeId;
use tokio_util::sync::CancellationToken;

use crate::consensus::{Consensus, Estranged};
use crate::node::node_id;

/// The file's name.
const FILE: &str = "estranged";
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
pub fn read(data_dir: &Path) -> io::Result<All> {
    let text = match std::fs::read_to_string(data_dir.join(FILE)) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(All::new()),
        Err(error) => return Err(error),
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

/// Keeps the file up to date until the node stops; what an earlier run left goes first.
pub async fn keep(consensus: Consensus, data_dir: PathBuf, stop: CancellationToken) {
    let mut written: Option<All> = None;
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
    }
}
