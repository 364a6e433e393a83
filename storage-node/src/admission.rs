//! Who may stay: the credentials directory is read again while the node runs, and open connections are held against what it says.

use std::sync::Arc;
use std::time::Duration;

use certs::certificate::Facts;
use certs::lapse::Lapses;
use certs::reload::ReloadError;
use certs::{ChannelError, CloseCode, Credentials, NodeDialer, Server};
use ehe::time::UnixMs;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::stats::Stats;

/// What connections are held against: the credentials in force, and the time.
#[derive(Debug, Clone)]
pub struct Standing {
    credentials: Credentials,
    now: UnixMs,
}

impl Standing {
    /// Why a connection of this certificate has to end; `None` while it may stay.
    pub fn ends(&self, certificate: &Facts) -> Option<CloseCode> {
        self.credentials.ends(certificate, unix_s(self.now))
    }
}

/// Waits until a connection of this certificate has to end, and says why. A handshake that began under the old list is held
/// against the new one as well: what is in force is looked at first.
pub async fn ended(mut standing: watch::Receiver<Standing>, certificate: &Facts) -> CloseCode {
    loop {
        if let Some(code) = standing.borrow_and_update().ends(certificate) {
            return code;
        }
        if standing.changed().await.is_err() {
            // The node is stopping, and with it every connection.
            return std::future::pending().await;
        }
    }
}

fn unix_s(now: UnixMs) -> i64 {
    i64::try_from(now.0 / 1000).unwrap_or(i64::MAX)
}

/// Why the credentials on disk are not taken up. Those before stay in force.
#[derive(Debug, thiserror::Error)]
pub enum NotTaken {
    /// The files, or what they say.
    #[error(transparent)]
    Files(#[from] ReloadError),
    /// TLS does not take them.
    #[error(transparent)]
    Channel(#[from] ChannelError),
    /// The node is stopping.
    #[error("the node is stopping")]
    Stopping,
}

/// Reads the credentials again and again.
pub struct Admission {
    server: Arc<Server>,
    dialer: Option<NodeDialer>,
    credentials: Credentials,
    standing: watch::Sender<Standing>,
}

impl Admission {
    /// Begins with the credentials that the server was bound with; connections are to watch the other half.
    pub fn new(server: Arc<Server>, credentials: Credentials, now: UnixMs) -> (Self, watch::Receiver<Standing>) {
        let (standing, watched) = watch::channel(Standing { credentials: credentials.clone(), now });
        (Self { server, dialer: None, credentials, standing }, watched)
    }

    /// The same for the connections that this node makes to others.
    #[must_use]
    pub fn with_dialer(self, dialer: Option<NodeDialer>) -> Self {
        Self { dialer, ..self }
    }

    /// Looks once: whose time is over has to go, then what is on disk is taken up, if it changed and may be. True if it was:
    /// handshakes from now on, and every open connection, are under the new list.
    pub async fn look(&mut self, now: UnixMs) -> Result<bool, NotTaken> {
        // First, because it needs no disk.
        self.standing.send_modify(|standing| standing.now = now);
        if let Some(dialer) = &self.dialer {
            let standing = self.standing.borrow().clone();
            dialer.close_where(|certificate| standing.ends(certificate));
        }
        let (dialer, server, old) = (self.dialer.clone(), Arc::clone(&self.server), self.credentials.clone());
        let task = tokio::task::spawn_blocking(move || -> Result<Option<Credentials>, NotTaken> {
            let Some(new) = old.reload()? else { return Ok(None) };
            server.reload(&new)?;
            dialer.map_or(Ok(()), |dialer| dialer.reload(&new))?;
            Ok(Some(new))
        });
        let Some(new) = task.await.map_err(|_| NotTaken::Stopping)?? else { return Ok(false) };
        self.credentials = new.clone();
        // After the server has them: a handshake is verified by the new list, or meets it here.
        self.standing.send_modify(|standing| standing.credentials = new);
        Ok(true)
    }

    /// Looks until the node stops. Says what it took, and why it did not: once, not each time.
    pub async fn run(mut self, every: Duration, clock: Clock, stats: Arc<Stats>, stop: CancellationToken) {
        let (mut kept, mut lapses) = (Changes::default(), Lapses::new("nobody gets in"));
        loop {
            let now = clock.now();
            let looked = tokio::select! {
                // A disk that does not answer does not keep the node from stopping.
                () = stop.cancelled() => return,
                looked = self.look(now) => looked,
            };
            match looked {
                Ok(taken) => {
                    if taken {
                        Stats::add(&stats.credentials_reloaded, 1);
                        self.say_taken();
                    }
                    if kept.changed(None) && !taken {
                        tracing::info!("the credentials on disk are those in force again");
                    }
                }
                Err(error) => {
                    Stats::add(&stats.credentials_kept, 1);
                    if kept.changed(Some(error.to_string())) {
                        tracing::warn!(%error, "the credentials on disk are not taken up; those before stay in force");
                    }
                }
            }
            lapses.say(&self.credentials, unix_s(now));
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(every) => {}
            }
        }
    }

    fn say_taken(&self) {
        let (list, certificate) = (self.credentials.revocations(), self.credentials.certificate());
        let (number, revoked) = list.map_or(("none".into(), 0), |list| (list.number(), list.count()));
        tracing::info!(serial = %certificate.serial, list = %number, revoked, "new credentials are in force");
    }
}

/// What was last said, so that it is said once.
#[derive(Debug, Default)]
struct Changes(Option<String>);

impl Changes {
    fn changed(&mut self, now: Option<String>) -> bool {
        let changed = self.0 != now;
        self.0 = now;
        changed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_said_once_and_again_after_it_changed() {
        let mut kept = Changes::default();
        let said = [None, Some("torn"), Some("torn"), Some("gone"), Some("torn"), None, None, Some("torn")]
            .map(|why| kept.changed(why.map(str::to_owned)));
        assert_eq!(said, [false, true, false, true, true, true, false, true]);
    }
}
