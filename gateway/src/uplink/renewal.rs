//! The credentials directory read again while the gateway runs: a renewed certificate and a newer revocation list count from then on,
//! without a restart. A list has an end of its own, after which a gateway that still goes by it reaches nobody.

use std::time::Duration;

use certs::certificate::Facts;
use certs::reload::ReloadError;
use certs::store::names;
use certs::{ChannelError, CloseCode, Credentials};

use super::session::Session;
use crate::clock::WallClock;

const DAY_S: i64 = 24 * 60 * 60;
/// From this many days before the end of the list or the certificate on, each day is said.
const WARN_DAYS: i64 = 7;

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
    let (mut refused, mut warned) = (None, None);
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
        session.close_where(|certificate| ended(&credentials, certificate, now_unix_s)).await;
        let left = days_left(&credentials, now_unix_s).filter(|(_, days)| *days < WARN_DAYS);
        if left != warned
            && let Some((file, days)) = left
        {
            tracing::warn!(
                file,
                days,
                "ends in so many days: have a new one put into the credentials directory, or no node is reached"
            );
        }
        warned = left;
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

/// Why a connection to the holder of a certificate has to end.
fn ended(credentials: &Credentials, certificate: &Facts, now_unix_s: i64) -> Option<CloseCode> {
    if credentials.revocations().is_some_and(|list| list.revokes(&certificate.serial)) {
        Some(CloseCode::Revoked)
    } else if certificate.is_over(now_unix_s) {
        Some(CloseCode::Expired)
    } else {
        None
    }
}

/// Which file ends first, and in how many days; none are left where it is over.
fn days_left(credentials: &Credentials, now_unix_s: i64) -> Option<(&'static str, i64)> {
    let list = credentials.revocations().map(|list| (names::CRL, list.next_update_unix_s()));
    let ends = list.into_iter().chain([(names::CHANNEL, credentials.certificate().not_after_unix_s)]);
    let days = |end: i64| end.saturating_sub(now_unix_s).div_euclid(DAY_S).max(0);
    ends.map(|(file, end)| (file, days(end))).min_by_key(|(_, days)| *days)
}
