//! Watching: readings as they come in, until the reader stops or the right to read ends.

use std::collections::BTreeSet;
use std::time::Duration;

use ehe::id::{Nonce, RoomId};
use ehe::read::Purpose;
use ehe::wire::{Request, Response};
use tokio::time::sleep;

use crate::error::Error;
use crate::follow::Following;
use crate::keys::Keyring;
use crate::read::{Filter, Readings, distrusted_at};
use crate::scope;
use crate::session::{Session, fresh, kind};

/// Before subscribing again: each subscription is an access record.
const PAUSE: Duration = Duration::from_secs(1);

/// Watches a room from its present end on. `show` gets what was verified and tied to the ledger, in the ledger's order, each
/// time that the node has shown everything. Comes back with an error only: a refusal when the right to read ends. An outage
/// of the nodes is waited for, and what came in meanwhile is shown after it.
pub async fn watch(
    session: &mut Session,
    room: RoomId,
    filter: &Filter,
    purpose: Purpose,
    mut show: impl FnMut(Readings) -> Result<(), Error>,
) -> Result<(), Error> {
    let mut following = session.control(room, purpose).await?;
    // Opened and not yet tied to the ledger: that the next head does, also if it comes in another subscription.
    let mut pending = Readings::default();
    loop {
        match subscribe(session, &mut following, &mut pending, filter, purpose, &mut show).await {
            Ok(()) => {}
            Err(why) if why.may_pass() => {
                tracing::warn!("{why}; going on after the last entry as soon as a node answers");
                sleep(PAUSE).await;
            }
            Err(why) => return Err(why),
        }
    }
}

/// One subscription. Comes back when the patient changed the room: then the epochs to ask for may be others.
async fn subscribe(
    session: &mut Session,
    following: &mut Following,
    pending: &mut Readings,
    filter: &Filter,
    purpose: Purpose,
    show: &mut impl FnMut(Readings) -> Result<(), Error>,
) -> Result<(), Error> {
    let room = following.room();
    let (state, reader) = (following.state()?, following.me().author_id());
    let scope = scope::plan_live(state, following.view(), reader, &filter.wanted(), session.now())?;
    let mut keys = Keyring::open(following.me(), room, following.view(), scope.epochs.iter().copied());
    let (prepared, mut asked) = (session.request(following, &scope, purpose), Nonce::ZERO);
    let (me, now) = (following.asks().clone(), session.clock());
    let mut answers = session
        .nodes
        .ask(room, || {
            let request = fresh(&prepared, now());
            asked = request.nonce;
            Request::Subscribe(request.sign(&me), me.public().clone())
        })
        .await
        .map_err(|why| session.not_served(following, why))?;
    let mut seen = BTreeSet::new();
    let control = following.state()?.next_control;
    loop {
        match answers.next().await.map_err(|why| session.not_served(following, why))? {
            Response::Wrap(event) => keys.take_wrap(event)?,
            Response::Item(item) => {
                let shown = following.take(item)?;
                let distrusted = distrusted_at(following, following.state()?);
                pending.take(shown, &mut keys, &mut seen, filter, distrusted)?;
                // Before the next entry: what is sealed to a new epoch must be asked for, or it would be skipped.
                if following.state()?.next_control != control {
                    return Ok(());
                }
            }
            Response::Head(head) => {
                let charter = session.charter_of(&head.last.checkpoint).await?;
                let moved = session.restored(room, following.known(), &head).await?;
                let memory = following.confirm(&head, asked, &charter, moved.as_ref())?;
                session.is_current(room, &charter)?;
                session.home().remember(room, &memory)?;
                seen.clear();
                let confirmed = std::mem::take(pending);
                if !confirmed.rows.is_empty() || confirmed.unopened_count > 0 {
                    show(confirmed)?;
                }
            }
            other => return Err(answers.unexpected(kind(&other))),
        }
    }
}
