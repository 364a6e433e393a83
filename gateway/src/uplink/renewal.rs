//! The credentials directory read again while the gateway runs: a renewed certificate and a newer revocation list count from then on,
//! without a restart. A list has an end of its own, after which a gateway that still goes by it reaches nobody.

use std::time::Duration;

use certs::lapse::Lapses;
use certs::reload::ReloadError;
use certs::{ChannelError, Credentials};

use super::session::Session;
use crate::clock::WallClock;

/// Why the files are not taken up. Those before stay in force.
#[derive(Debug, thiserror::Error)]
enum NotTaken {
    #[error(transparent)]
    Files(#[from] ReloadError),
    #[error(transparent)]
    Channel(#[from] ChannelError),
    #[error("reading them was interrupted")]
    Interrupted,
}

/// Looks every so often, for as long as it is polled.
pub(super) async fn run(session: &Session, mut credentials: Credentials, clock: &WallClock, every: Duration) {
    let (mut refused, mut lapses) = (None, Lapses::new("no node is reached"));
    loop {
        let now_unix_s = i64::try_from(clock().0 / 1000).unwrap_or(i64::MAX);
        let said = match look(session, &credentials).await {
            Ok(None) => None,
            Ok(Some(new)) => {
                let list = new.revocations().map_or_else(|| "none".into(), |list| list.number());
                tracing::info!(serial = %new.certificate().serial, %list, "new credentials are in force");
                credentials = new;
                None
            }
            Err(why) => Some(why.to_string()),
        };
        if said != refused
            && let Some(why) = &said
        {
            tracing::warn!(%why, "the credentials on disk are not taken up; those before stay in force");
        }
        refused = said;
        session.close_where(|certificate| credentials.ends(certificate, now_unix_s)).await;
        lapses.say(&credentials, now_unix_s);
        tokio::time::sleep(every).await;
    }
}

async fn look(session: &Session, credentials: &Credentials) -> Result<Option<Credentials>, NotTaken> {
    let old = credentials.clone();
    let new = tokio::task::spawn_blocking(move || old.reload()).await.map_err(|_| NotTaken::Interrupted)??;
    if let Some(new) = &new {
        session.reload(new)?;
    }
    Ok(new)
}
