//! Who may speak for the patient: other keys, delegates, the recovery key. And what of it stands in the ledger.

use certs::passphrase::Source;
use ehe::control::Rights;
use ehe::id::{AuthorId, EheId, Hash, RoomId};
use ehe::identity::Identity;
use ehe::ledger::Verified;
use ehe::read::Part;
use ehe::recovery::RecoveryKey;
use ehe::refusal::Refusal;
use ehe::room::RoomState;
use ehe::time::UnixMs;
use ehe::vital::Category;

use crate::build::{self, Delegated, KeyChange, Recovery, Renewal};
use crate::error::{Error, Exit, Made};
use crate::follow::Following;
use crate::home::Home;
use crate::in_force::InForce;
use crate::memory::{RoomMemory, Tie};
use crate::scope;
use crate::session::{Session, Shown, rng};
use crate::submit::submit;
use crate::view::{ControlLine, RoomView};

/// Keys of the patient.
#[derive(Debug, Clone)]
pub struct KeyLine {
    /// Their id.
    pub id: AuthorId,
    /// The control event that brought them.
    pub from: u64,
    /// From which control event on they are distrusted.
    pub distrusted_from: Option<u64>,
}

/// A delegation.
#[derive(Debug, Clone)]
pub struct DelegateLine {
    /// Whose.
    pub id: AuthorId,
    /// Their name, where readable.
    pub name: Option<String>,
    /// What for.
    pub rights: Rights,
    /// End by time.
    pub expires: Option<UnixMs>,
    /// End by withdrawal or recovery.
    pub ended: Option<UnixMs>,
}

/// Who may speak for the patient of a room.
#[derive(Debug, Clone)]
pub struct Standing {
    /// The room.
    pub room: RoomId,
    /// The patient.
    pub patient: AuthorId,
    /// The patient's keys, the present ones last.
    pub keys: Vec<KeyLine>,
    /// Whether there is a recovery key.
    pub recovery: bool,
    /// Delegates.
    pub delegates: Vec<DelegateLine>,
    /// What changed the room's rights and keys, in order.
    pub control: Vec<ControlLine>,
}

/// What became of a room whose patient has other keys now.
#[derive(Debug, Clone)]
pub struct Moved {
    /// The id of the new keys.
    pub keys: AuthorId,
    /// What was renewed after it.
    pub renewed: Renewed,
    /// What goes on although the keys are others.
    pub in_force: InForce,
}

/// What was renewed.
#[derive(Debug, Clone, Default)]
pub struct Renewed {
    /// Categories with a new key.
    pub renewed: Vec<Category>,
    /// Categories whose key could not be renewed, because too many read them.
    pub kept: Vec<Category>,
    /// Keys of which it is not known what they are for.
    pub unknown: usize,
}

impl From<Renewal> for Renewed {
    fn from(made: Renewal) -> Self {
        Self { renewed: made.renewed, kept: made.kept, unknown: made.unknown }
    }
}

/// What the ledger says about who may speak for the patient. With the recovery key, in its name.
pub async fn show(session: &mut Session, room: RoomId, key: Option<&RecoveryKey>) -> Result<Standing, Error> {
    let control = match key {
        Some(key) => on_paper(session, room, key).await?.0,
        None => session.control(room, session.usual_purpose()).await?,
    };
    let (state, view) = (control.state()?, control.view());
    let key = |key: &ehe::room::OwnerKey| KeyLine { id: key.id, from: key.from, distrusted_from: key.distrusted_from };
    Ok(Standing {
        room,
        patient: state.owner,
        keys: state.owner_keys.iter().map(key).collect(),
        recovery: state.recovery != Hash::ZERO,
        delegates: delegates(state, view),
        control: view.control().to_vec(),
    })
}

pub(crate) fn delegates(state: &RoomState, view: &RoomView) -> Vec<DelegateLine> {
    let line = |(id, delegation): (&AuthorId, &ehe::room::Delegation)| DelegateLine {
        id: *id,
        name: view.delegate(*id).and_then(|shown| shown.name.clone()),
        rights: delegation.rights,
        expires: delegation.expires,
        ended: delegation.ended,
    };
    state.delegations.iter().map(line).collect()
}

/// Follows a room in the name of its recovery identity.
async fn on_paper(session: &mut Session, room: RoomId, key: &RecoveryKey) -> Result<(Following, Identity), Error> {
    let paper = key.identity();
    let purpose = session.usual_purpose();
    match session.control_as(room, purpose, &paper).await {
        Ok(control) => Ok((control, paper)),
        // A node tells the recovery identity from others by the room's commitment, and it is the room's or nobody's.
        Err(Error::Refused(Refusal::NotYourIdentity)) => {
            // Of a room that it lost it says the same: who remembers the room asks in the own name.
            if session.recall(room)?.is_some()
                && let Err(gone @ Error::Memory(_)) = session.control(room, purpose).await
            {
                return Err(gone);
            }
            Err(Error::NotItsRecovery { node: session.nodes.spoke_last(), room })
        }
        Err(why) => Err(why),
    }
}

/// The keys in another directory, to move rooms to.
pub fn keys_after(session: &Session, to: Home, passphrase: &Source) -> Result<Session, Error> {
    let must = format!(
        "a credentials directory with other keys, of the same alliance: made by `ehe --home {} identity new --role patient`, with what \
         the alliance sends back for its request.json put beside (channel.crt, ca.crt, charter)",
        to.dir().display()
    );
    let after = session.beside(to, passphrase, ("--to", must))?;
    after.is_a_patients()?;
    Ok(after)
}

/// A room that may be moved to other keys. Nothing was changed yet.
pub struct Rotatable(Following);

/// Looks at a room with the keys that are to be replaced by those of `after`.
pub async fn rotatable(session: &mut Session, room: RoomId, after: &mut Session) -> Result<Rotatable, Error> {
    match session.control(room, session.usual_purpose()).await {
        Ok(control) => {
            build::may_rotate(control.me(), control.state()?, after.author())?;
            session.share_charters(after, "--to")?;
            Ok(Rotatable(control))
        }
        // This may be the second try of a rotation that was done, or whose answer was lost.
        Err(why @ Error::Refused(Refusal::KeysReplaced)) => {
            let shown = after.control(room, after.usual_purpose()).await;
            if is_patient(&shown, after.author()) != Some(true) {
                return Err(why);
            }
            moved_on(session.home(), room);
            let (to, from) = (after.home().dir().to_owned(), session.home().dir().to_owned());
            Err(Error::Rotated { room, to, from })
        }
        Err(why) => Err(why),
    }
}

/// Moves a room to the keys of `after`, and gives every category a new key.
pub async fn rotate(session: &mut Session, room: Rotatable, after: &mut Session) -> Result<Moved, Error> {
    let Rotatable(control) = room;
    let (state, now, room) = (control.state()?, session.now(), control.room());
    let change = build::rotate(&mut rng(), control.me(), state, control.view(), after.me(), now)?;
    let KeyChange { change, hand_over } = change;
    // What was seen of the room moves with its patient: before anything is changed, for what may go wrong after that.
    if let Some(memory) = session.home().recall(room)? {
        let tie = after.home().recall(room)?.map_or(Tie::Stranger, |known| known.tie);
        after.home().remember(room, &RoomMemory { tie, ..memory })?;
    }
    if let Err(why) = submit(session, control.me(), room, Some(&control), vec![change]).await
        && !was_made(after, room, &why).await
    {
        let shown = session.control(room, session.usual_purpose()).await;
        return Err(not_made(why, &shown, after.author()));
    }
    moved_on(session.home(), room);
    let settled = settle(after, room, state.owner, hand_over).await;
    settled.map_err(|why| Error::Unfinished { why: Box::new(why) })
}

/// Notes that the keys of a directory are a room's no more, as verified records showed: its listing need not ask about the room.
pub fn moved_on(home: &Home, room: RoomId) {
    if let Err(why) = home.tie(room, Tie::Moved) {
        tracing::warn!("{why}");
    }
}

/// A room whose patient may be given other keys by this recovery key. Nothing was changed yet.
pub struct Recoverable {
    control: Following,
    paper: Identity,
    distrusted_from: Option<u64>,
}

/// Looks at a room with its recovery key, and whether it is that.
pub async fn recoverable(
    session: &mut Session,
    room: RoomId,
    key: &RecoveryKey,
    distrusted_from: Option<u64>,
) -> Result<Recoverable, Error> {
    session.is_a_patients()?;
    let (control, paper) = match on_paper(session, room, key).await {
        // This may be the second try: the room has another recovery key since the first.
        Err(why @ Error::NotItsRecovery { .. }) if session.recall(room)?.is_some() => {
            let own = session.control(room, session.usual_purpose()).await;
            return Err(if own.is_ok_and(|own| is_recovered(&own, session.author())) {
                Error::Recovered(room)
            } else {
                why
            });
        }
        shown => shown?,
    };
    if is_recovered(&control, session.author()) {
        return Err(Error::Recovered(room));
    }
    build::may_recover(&paper, control.state()?, distrusted_from)?;
    build::may_become_patients(control.state()?, session.author())?;
    Ok(Recoverable { control, paper, distrusted_from })
}

/// Whether a room's present patient has these keys, and had others before.
fn is_recovered(control: &Following, keys: AuthorId) -> bool {
    control
        .state()
        .is_ok_and(|state| state.owner_keys.len() > 1 && state.owner_keys.last().is_some_and(|key| key.id == keys))
}

/// Gives the patient of a room the keys of this directory, by the recovery key, and every category a new key. `next`: the recovery
/// key from now on.
pub async fn recover(session: &mut Session, room: Recoverable, next: Option<&RecoveryKey>) -> Result<Moved, Error> {
    let Recoverable { control, paper, distrusted_from } = room;
    let (state, now, room) = (control.state()?, session.now(), control.room());
    let next = next.map(|key| key.identity().public().clone());
    let plan = Recovery { next: next.as_ref(), distrusted_from };
    let change = build::recover(&mut rng(), &paper, state, control.view(), session.me(), plan, now)?;
    let KeyChange { change, hand_over } = change;
    if let Err(why) = submit(session, &paper, room, Some(&control), vec![change]).await
        && !was_made(session, room, &why).await
    {
        let shown = session.control_as(room, session.usual_purpose(), &paper).await;
        return Err(not_made(why, &shown, session.author()));
    }
    let settled = settle(session, room, state.owner, hand_over).await;
    let moved = settled.map_err(|why| Error::Unfinished { why: Box::new(why) })?;
    Ok(Moved { in_force: moved.in_force.named_by(control.view()), ..moved })
}

/// Whether the room's records show the keys of `after` as the patient's, though the change seemed to fail for `why`: its answer was
/// lost, and the second try was refused because the first had done it. Where something did not verify, nothing is built on it.
async fn was_made(after: &mut Session, room: RoomId, why: &Error) -> bool {
    let shown = after.control(room, after.usual_purpose()).await;
    let made = why.exit() != Exit::Unverified && is_patient(&shown, after.author()) == Some(true);
    if made {
        tracing::warn!("the node's answer was: {why}; the room's records show that the patient's keys have changed");
    }
    made
}

/// The error for a change that failed for `why`, where `shown` is what the keys before it are shown.
fn not_made(why: Error, shown: &Result<Following, Error>, keys: AuthorId) -> Error {
    if why.never_sent() || why.made() == Made::Not && is_patient(shown, keys) == Some(false) {
        why
    } else {
        Error::InDoubt { why: Box::new(why) }
    }
}

/// Whether a room's present patient has these keys, if that was shown.
fn is_patient(shown: &Result<Following, Error>, keys: AuthorId) -> Option<bool> {
    let state = shown.as_ref().ok()?.state().ok()?;
    Some(state.owner_keys.last().is_some_and(|key| key.id == keys))
}

/// The keys in another directory: those before the rotation that broke off.
pub fn keys_before(session: &Session, from: Home, passphrase: &Source) -> Result<Identity, Error> {
    let must = "the credentials directory with the keys before the rotation, as it was then \
                (identity.json, channel.key, channel.crt, ca.crt, charter)";
    Ok(session.beside(from, passphrase, ("--from", must.to_owned()))?.me().clone())
}

/// Finishes what broke off after a rotation or a recovery: hands over to the present keys what `other` keys could open, and gives
/// every category a new key.
pub async fn resume(session: &mut Session, room: RoomId, other: &Identity) -> Result<Moved, Error> {
    let mut following = session.following(room, false)?;
    let (everything, purpose) = (scope::everything(Part::Control), session.usual_purpose());
    let (mut before, keys) = (RoomView::default(), other.public().author_id());
    let mut other = other.clone();
    let learn = |shown: Shown, following: &Following| {
        if let Shown::Entry(_, verified) = shown
            && let Verified::Run { events, .. } = *verified
        {
            let state = following.state()?;
            if state.owner_keys.iter().any(|key| key.id == keys) {
                other = other.acting_as(state.owner);
            }
            events.iter().for_each(|event| before.learn(event, &other));
        }
        Ok(())
    };
    session.fetch(&mut following, &everything, purpose, learn).await?;
    let (state, view, now) = (following.state()?, following.view(), session.now());
    let events = build::hand_over(&mut rng(), following.me(), state, view, (&other, &before), now)?;
    let moved = settle(session, room, state.owner, events).await?;
    Ok(Moved { in_force: moved.in_force.named_by(&before), ..moved })
}

/// The new keys' first work: what did not fit the change, and new keys for every category.
async fn settle(
    session: &mut Session,
    room: RoomId,
    patient: AuthorId,
    hand_over: Vec<ehe::event::CheckedEvent>,
) -> Result<Moved, Error> {
    let me = session.me().acting_as(patient);
    if !hand_over.is_empty() {
        submit(session, &me, room, None, hand_over).await?;
    }
    let (renewed, in_force) = renew(session, room).await?;
    Ok(Moved { keys: session.author(), renewed, in_force })
}

/// Gives every category a new key. Says besides what others may go on doing.
pub async fn renew(session: &mut Session, room: RoomId) -> Result<(Renewed, InForce), Error> {
    let control = session.control(room, session.usual_purpose()).await?;
    let mut made = build::renew(&mut rng(), control.me(), control.state()?, control.view(), session.now())?;
    let events = std::mem::take(&mut made.events);
    if !events.is_empty() {
        submit(session, control.me(), room, Some(&control), events).await?;
    }
    let in_force = InForce::of(control.state()?, control.view(), session.now());
    Ok((made.into(), in_force))
}

/// Lets somebody act for the patient. It holds once this returns: the receipt was verified.
pub async fn delegate(session: &mut Session, room: RoomId, to: &Delegated) -> Result<EheId, Error> {
    session.is_no_node(&to.delegate)?;
    let control = session.control(room, session.usual_purpose()).await?;
    let (state, now) = (control.state()?, session.now());
    let event = build::delegate(&mut rng(), control.me(), state, control.view(), to, now)?;
    let id = event.id();
    submit(session, control.me(), room, Some(&control), vec![event]).await?;
    Ok(id)
}

/// A grant that holds though the delegate who made it is none any more.
#[derive(Debug, Clone)]
pub struct LeftGrant {
    /// The grant.
    pub id: EheId,
    /// Who was invited.
    pub subject: AuthorId,
    /// Their name, where readable.
    pub name: Option<String>,
}

/// Ends a delegation. The grants that the delegate made do not end with it: those that hold are what is returned.
pub async fn withdraw(session: &mut Session, room: RoomId, delegate: AuthorId) -> Result<Vec<LeftGrant>, Error> {
    let control = session.control(room, session.usual_purpose()).await?;
    let (state, now) = (control.state()?, session.now());
    let holds = |id: &EheId| state.grants.get(id).is_some_and(|grant| grant.is_live(now));
    let made = control.view().grants().filter(|(id, grant)| grant.author == delegate && holds(id));
    let left = made.map(|(id, grant)| LeftGrant { id, subject: grant.subject.author_id(), name: grant.name.clone() });
    let left = left.collect();
    let event = build::withdraw(&mut rng(), control.me(), state, control.view(), delegate, now)?;
    submit(session, control.me(), room, Some(&control), vec![event]).await?;
    Ok(left)
}
