//! Being asked to end: Ctrl-C, SIGTERM (a service manager, `kill`), SIGHUP (the terminal was closed). All three end what was started, too:
//! a program that such a signal ended by itself would leave nodes, broker and gateway behind.

use std::future::Future;

use anyhow::{Context, Result, bail};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// Whether somebody has asked. Copies are the same.
#[derive(Debug, Clone)]
pub struct Asked(watch::Receiver<Option<&'static str>>);

impl Asked {
    /// From now on these signals are heard here, and end the program no more by themselves.
    pub fn listen() -> Result<Self> {
        let listening = |kind| signal(kind).context("listening for signals");
        let (mut interrupt, mut terminate, mut hang_up) = (
            listening(SignalKind::interrupt())?,
            listening(SignalKind::terminate())?,
            listening(SignalKind::hangup())?,
        );
        let (tell, asked) = watch::channel(None);
        tokio::spawn(async move {
            let by = tokio::select! {
                _ = interrupt.recv() => "Ctrl-C",
                _ = terminate.recv() => "SIGTERM",
                _ = hang_up.recv() => "SIGHUP",
            };
            tell.send_replace(Some(by));
            // Until nobody listens: later ones change nothing.
            tell.closed().await;
        });
        Ok(Self(asked))
    }

    /// Returns when somebody asks, or has asked: by what.
    pub async fn wait(&self) -> &'static str {
        let mut asked = self.0.clone();
        match asked.wait_for(Option::is_some).await.map(|by| *by) {
            Ok(Some(by)) => by,
            _ => std::future::pending().await,
        }
    }

    /// Does something, unless somebody asks to end: then it is dropped where it is, and with it every program that it has running.
    pub async fn unless<T>(&self, doing: impl Future<Output = Result<T>>) -> Result<T> {
        tokio::select! {
            by = self.wait() => bail!("ended by {by}"),
            done = doing => done,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::lab::process::{Running, command, run};

    #[tokio::test]
    async fn a_closed_terminal_ends_what_was_started_as_ctrl_c_does() {
        let asked = Asked::listen().unwrap();
        let dir = tempfile::tempdir().unwrap();
        let (started, start) = tokio::sync::oneshot::channel();
        let (log, own) = (dir.path().join("log"), asked.clone());
        let doing = tokio::spawn(async move {
            own.unless(async {
                let sleeper = Running::start("sleep", command("sleep", &["1000"]), &log)?;
                started.send(sleeper.id()).unwrap();
                std::future::pending::<Result<()>>().await
            })
            .await
        });
        let sleeper = start.await.unwrap().unwrap().to_string();
        let kill = |signal: &str, id: &str| command("sh", &["-c", "kill -\"$0\" \"$1\"", signal, id]);
        let limit = Duration::from_secs(20);
        assert_eq!(run(kill("0", &sleeper), limit).await.unwrap().code, Some(0), "it runs");
        run(kill("HUP", &std::process::id().to_string()), limit).await.unwrap().success("kill").unwrap();
        let ended = tokio::time::timeout(limit, doing).await.unwrap().unwrap().unwrap_err();
        assert_eq!(ended.to_string(), "ended by SIGHUP");
        let gone = async || Ok((run(kill("0", &sleeper), limit).await?.code != Some(0)).then_some(()));
        crate::lab::process::until("the started program is gone", limit, gone).await.unwrap();
        assert_eq!(asked.wait().await, "SIGHUP", "whoever looks later hears of it as well");
    }
}
