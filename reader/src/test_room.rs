//! A room in memory, for this crate's tests: runs are judged by the ledger's own rules and shown as a node shows them.

use std::collections::BTreeMap;
use std::convert::Infallible;

use ehe::author::Strand;
use ehe::body::vitals::VitalsBody;
use ehe::control::{Control, WrapRecord};
use ehe::event::{CheckedEvent, Core, Kind, Suite, VERSION};
use ehe::id::{AllianceId, AuthorId, EheId, EpochId, Hash, Nonce, RoomId, StrandId, WrapId};
use ehe::identity::{Identity, PublicIdentity};
use ehe::kem::{self, Secret32, WrapPurpose, random_secret};
use ehe::leaf::Leaf;
use ehe::reading::{DeviceId, Reading, ReadingTime};
use ehe::refusal::Refusal;
use ehe::room::{Ledger, Refused, RoomState, WrapFact, admit, author_key};
use ehe::run::{SignedRun, StrandEnd};
use ehe::seal;
use ehe::time::UnixMs;
use ehe::unit::Unit;
use ehe::vital::Vital;
use ehe::wire::Item;

use crate::build::{Invitation, NewRoom, RoomPlan, create, grant, revoke};
use crate::follow::Following;
use crate::session::{random, rng};

pub(crate) const ALLIANCE: AllianceId = AllianceId([0xa1; 32]);
/// 2026-11-20T10:00:00Z.
pub(crate) const NOW: UnixMs = UnixMs(1_795_168_800_000);

/// What the ledger knows; entries in order.
#[derive(Default)]
struct Store {
    strands: BTreeMap<(AuthorId, StrandId), StrandEnd>,
    wraps: BTreeMap<WrapId, WrapFact>,
    entries: Vec<(Leaf, SignedRun, Vec<CheckedEvent>)>,
}

impl Ledger for Store {
    type Error = Infallible;
    fn strand(&self, author: AuthorId, strand: StrandId) -> Result<Option<StrandEnd>, Infallible> {
        Ok(self.strands.get(&(author, strand)).copied())
    }
    fn wrap(&self, wrap: WrapId) -> Result<Option<WrapFact>, Infallible> {
        Ok(self.wraps.get(&wrap).copied())
    }
    fn has_event(&self, id: EheId) -> Result<bool, Infallible> {
        Ok(self.entries.iter().any(|(_, _, events)| events.iter().any(|e| e.id() == id)))
    }
}

pub(crate) struct TestRoom {
    pub(crate) patient: Identity,
    pub(crate) room: RoomId,
    pub(crate) state: RoomState,
    pub(crate) now: UnixMs,
    store: Store,
}

pub(crate) fn identity() -> Identity {
    Identity::generate(&mut rng())
}

impl TestRoom {
    pub(crate) fn new() -> Self {
        Self::committed_to(None)
    }

    /// With a recovery identity.
    pub(crate) fn committed_to(recovery: Option<&PublicIdentity>) -> Self {
        let patient = identity();
        let shards = 16.try_into().unwrap();
        let plan = RoomPlan { alliance: ALLIANCE, shards, shard: Some(3), name: Some("home"), recovery };
        let NewRoom { room, events, .. } = create(&mut rng(), &patient, plan, NOW).unwrap();
        let mut store = Store::default();
        let state = admitted(&mut store, None, room, &patient, events, NOW).unwrap().unwrap();
        Self { patient, room, state, now: NOW, store }
    }

    /// Submits events as an author does.
    pub(crate) fn submit(&mut self, author: &Identity, events: Vec<CheckedEvent>) -> Result<(), Refused> {
        if let Some(state) = admitted(&mut self.store, Some(&self.state), self.room, author, events, self.now)? {
            self.state = state;
        }
        self.now = self.now.plus_ms(1000);
        Ok(())
    }

    /// What somebody sees of the control records.
    pub(crate) fn following(&self, me: &Identity) -> Following {
        let mut following = Following::new(self.room, false, me.clone(), ALLIANCE, None);
        for item in self.items(None) {
            following.take(item).unwrap();
        }
        following
    }

    /// The entries as a node shows them: control whole, content of the given epochs, the rest as leaves.
    pub(crate) fn items(&self, epochs: Option<&[EpochId]>) -> Vec<Item> {
        let may = |event: &&CheckedEvent| {
            let kind = event.core().kind;
            if kind.is_content() { epochs.is_some_and(|e| e.contains(&event.core().epoch)) } else { kind != Kind::Wrap }
        };
        let item = |(leaf, run, events): &(Leaf, SignedRun, Vec<CheckedEvent>)| {
            let events: Vec<_> = events.iter().filter(may).map(|e| e.event().clone()).collect();
            let run = (!events.is_empty()).then(|| run.clone());
            Item { leaf: leaf.clone(), run, events, access: None, void: None }
        };
        self.store.entries.iter().map(item).collect()
    }

    /// All wrap events.
    pub(crate) fn wraps(&self) -> Vec<ehe::event::Event> {
        let events = self.store.entries.iter().flat_map(|(_, _, events)| events);
        events.filter(|e| e.core().kind == Kind::Wrap).map(|e| e.event().clone()).collect()
    }

    pub(crate) fn grant(&mut self, invitation: &Invitation) -> EheId {
        let seen = self.following(&self.patient);
        let event = grant(&mut rng(), &self.patient, &self.state, seen.view(), invitation, self.now).unwrap();
        let id = event.id();
        let patient = self.patient.clone();
        self.submit(&patient, vec![event]).unwrap();
        id
    }

    pub(crate) fn revoke(&mut self, grants: &[EheId], drain: Option<UnixMs>) -> crate::build::Revocation {
        let seen = self.following(&self.patient);
        let revocation = revoke(&mut rng(), &self.patient, &self.state, seen.view(), grants, drain, self.now).unwrap();
        let patient = self.patient.clone();
        self.submit(&patient, revocation.events.clone()).unwrap();
        revocation
    }

    /// What a gateway seals: a wrap and one event with one heart rate, into the epoch that it takes for the current one.
    pub(crate) fn seal(&self, gateway: &Identity, epoch: EpochId, value: &str) -> Vec<CheckedEvent> {
        let seen = self.following(gateway);
        let group = seen.view().epoch(epoch).unwrap().group_key.clone();
        let (author, at) = (gateway.author_id(), self.now);
        let ek: Secret32 = random_secret(&mut rng());
        let purpose = WrapPurpose::EventKey { room: self.room, author, epoch, day: at.day() };
        let wrapped = kem::wrap(&mut rng(), &group, &purpose, &ek).unwrap();
        let wrap = Control::Wrap(WrapRecord { epoch, day: at.day(), wrapped });
        let wrap = wrap.event(&mut rng(), self.room, author, at, None).unwrap();
        let time = ReadingTime::at_receipt(at, 1, true, 1000);
        let device = DeviceId::new("strap").unwrap();
        let reading = Reading::new(Vital::HeartRate, value.parse().unwrap(), Unit::PerMinute, device, time).unwrap();
        let core = Core {
            version: VERSION,
            suite: Suite::One,
            kind: Kind::Vitals,
            room: self.room,
            author,
            epoch,
            wrap: wrap.id().into(),
            hour: at.hour(),
            salt: Nonce(random()),
        };
        let body = VitalsBody::from_readings(&[reading]).unwrap().to_vec();
        vec![wrap, seal::seal(&ek, core, &body).unwrap()]
    }
}

/// Signs a run over the events in a new strand and lets the rules decide.
fn admitted(
    store: &mut Store,
    state: Option<&RoomState>,
    room: RoomId,
    author: &Identity,
    events: Vec<CheckedEvent>,
    now: UnixMs,
) -> Result<Option<RoomState>, Refused> {
    let linked = Strand::new(room, StrandId(random()), None).link_events(author, &events);
    let run = linked.run.decode().unwrap();
    let key = author_key(state, run.claims(), &events)?;
    let run = run.verify(&key).map_err(|_| Refusal::BadSignature)?;
    let admission = admit(ALLIANCE, state, &run, &events, store, now).unwrap()?;
    store.strands.insert((author.author_id(), admission.strand.strand), admission.strand);
    store.wraps.extend(admission.wraps);
    let index = u64::try_from(store.entries.len()).unwrap();
    let control = admission.room.as_ref().or(state).map_or(0, |room| room.next_control);
    let previous = store.entries.last().map_or(Hash::ZERO, |(leaf, ..)| leaf.hash());
    let leaf = Leaf { room, index, previous, entry: linked.run.hash(), accepted_at: now, control };
    store.entries.push((leaf, linked.run, events));
    Ok(admission.room)
}
