//! Watching: readings as they come in, until the reader stops or the right to read ends.

use std::collections::BTreeSet;
use std::time::Duration;

use ehe::id::{NodeId, Nonce, RoomId};
use ehe::limits::READ_LEASE_MS;
use ehe::read::Purpose;
use ehe::void::RULES_VOID;
use ehe::wire::{Request, Response};
use tokio::time::{Instant, sleep};

use crate::error::Error;
use crate::follow::Following;
use crate::heads::{self, Newest};
use crate::keys::Keyring;
use crate::nodes::Answers;
use crate::read::{Filter, Readings, distrusted_at};
use crate::scope;
use crate::session::{Session, fresh, kind};

/// Before subscribing again: each subscription is an access record.
const PAUSE: Duration = Duration::from_secs(1);
/// After so long a silence a node is asked whether it is there.
const SILENCE: Duration = Duration::from_secs(3);
/// A node that is there has to go on within this time: three leases.
const SILENT_MAX: Duration = Duration::from_millis(3 * READ_LEASE_MS);
/// So often other nodes are asked whether the one that shows the room leaves nothing out.
const OTHERS_ASKED_EVERY: Duration = Duration::from_secs(60);

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
                session.nodes.wait_anew();
                sleep(PAUSE).await;
            }
            Err(why) => return Err(why),
        }
    }
}

/// The next answer. A node says something at least with every lease; one that is silent for longer than it takes to ask it is asked
/// whether it is there.
async fn next(session: &mut Session, answers: &mut Answers, serving: Option<NodeId>) -> Result<Response, Error> {
    let since = Instant::now();
    loop {
        if let Some(answer) = answers.next_within(SILENCE).await? {
            return Ok(answer);
        }
        let there = match serving {
            Some(node) => session.nodes.is_there(node).await,
            None => true,
        };
        if !there || since.elapsed() >= SILENT_MAX {
            serving.into_iter().for_each(|node| session.nodes.ask_last(node));
            return Err(answers.silent());
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
    let serving = session.nodes.last();
    let mut seen = BTreeSet::new();
    let control = following.state()?.next_control;
    // The first head is as new as the subscription; after that nobody else may be asked for long.
    let mut asked_others = Instant::now();
    let mut said = None;
    loop {
        match next(session, &mut answers, serving).await.map_err(|why| session.not_served(following, why))? {
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
                if let Some(entry) = to_be_voided(session, following) {
                    following.ends(&head, asked, &charter)?;
                    session.is_current(room, &charter)?;
                    session.note_shown(serving, head.at);
                    if said != Some(entry) {
                        said = Some(entry);
                        say_that_it_waits(entry);
                    }
                } else {
                    let memory = session.confirm(following, (&head, asked), &charter, serving).await?;
                    session.is_current(room, &charter)?;
                    session.note_shown(serving, head.at);
                    session.home().remember(room, &memory)?;
                    seen.clear();
                    let confirmed = std::mem::take(pending);
                    if !confirmed.rows.is_empty() || confirmed.unopened_count > 0 {
                        show(confirmed)?;
                    }
                }
                if asked_others.elapsed() >= OTHERS_ASKED_EVERY {
                    asked_others = Instant::now();
                    said = None;
                    let newest = heads::newest(session, following).await;
                    if let Some(complaint) = newest.complaint() {
                        tracing::warn!("{complaint}");
                    }
                    if let (Newest::Withheld { .. }, Some(node)) = (newest, serving) {
                        // Another one goes on after the last entry.
                        session.nodes.ask_last(node);
                        return Ok(());
                    }
                }
            }
            other => return Err(answers.unexpected(kind(&other))),
        }
    }
}

/// The entry for whose void record the next heads are waited for. Under rules that have none, none comes.
fn to_be_voided(session: &Session, following: &Following) -> Option<u64> {
    following.unvoided().filter(|_| session.charter().rules() >= RULES_VOID)
}

/// Again from time to time: nobody is to take silence for quiet.
fn say_that_it_waits(entry: u64) {
    tracing::warn!(
        "entry {entry} was not signed by the one in whose name it is, and the nodes have not said yet that it is void: what comes from it on is \
         shown once they have"
    );
}
