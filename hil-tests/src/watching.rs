//! The clinician's `ehe watch` of every room, as the live demo shows it.

use std::process::Stdio;

use anyhow::{Context, Result, bail};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Child;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::journal::Line;
use crate::scenario::Scene;

/// Running watches.
#[derive(Debug)]
pub struct Watching {
    _children: Vec<Child>,
    readers: JoinSet<Result<()>>,
    seen: mpsc::Receiver<(String, String)>,
}

impl Watching {
    /// Starts one watch for each room.
    pub fn start(scene: &Scene) -> Result<Self> {
        let (send, seen) = mpsc::channel(256);
        let (mut children, mut readers) = (Vec::new(), JoinSet::new());
        for patient in &scene.patients {
            let mut command = scene.alliance.command("clinician");
            command.args(["--json", "watch", "--room", &patient.room]);
            let mut child = command
                .stdin(Stdio::null())
                .stdout(Stdio::piped())
                .stderr(Stdio::null())
                .kill_on_drop(true)
                .spawn()
                .context("starting ehe watch")?;
            let out = child.stdout.take().context("ehe watch prints")?;
            children.push(child);
            let (send, who) = (send.clone(), patient.who.clone());
            readers.spawn(async move {
                let mut lines = BufReader::new(out).lines();
                while let Some(line) = lines.next_line().await? {
                    let entry = serde_json::from_str::<Line>(&line)?.entry();
                    let text = format!("sees {who}'s {}: {} {}", entry.vital, entry.value, entry.unit);
                    if send.send((entry.device, text)).await.is_err() {
                        return Ok(());
                    }
                }
                bail!("ehe watch of {who}'s room ended")
            });
        }
        Ok(Self { _children: children, readers, seen })
    }

    /// The next reading that the clinician sees: device, and a sentence.
    pub async fn next(&mut self) -> Result<Option<(String, String)>> {
        tokio::select! {
            seen = self.seen.recv() => Ok(seen),
            ended = self.readers.join_next() => match ended {
                Some(ended) => { ended??; Ok(None) }
                None => std::future::pending().await,
            },
        }
    }
}
