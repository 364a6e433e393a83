//! From the seeds that were wrapped to an identity to the readings: group keys, event keys, bodies.

use std::collections::BTreeMap;

use ehe::body::vitals::{BodyError, VitalsBody};
use ehe::event::{CheckedEvent, Event};
use ehe::id::{EpochId, RoomId, WrapId};
use ehe::identity::Identity;
use ehe::kem::{self, KemSecret, Secret32, WrapError, WrapPurpose};
use ehe::ledger::wrap_of;
use ehe::reading::Reading;
use ehe::room::WrapFact;
use ehe::seal::{self, OpenError};

use crate::view::RoomView;

/// Event keys that one command holds: a day's worth for each gateway and category, for ten years of a busy home and more.
pub const EVENT_KEYS_MAX: usize = 1 << 18;

/// A seed that was given to us is not that of the published group key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// The wrap does not open.
    #[error("the key of epoch {epoch} does not open: {why}; whoever granted it must grant again")]
    Wrap {
        /// The epoch.
        epoch: EpochId,
        /// What failed.
        why: WrapError,
    },
    /// It opens to another key.
    #[error(
        "the key that was given for epoch {epoch} is not the one that was published; whoever granted it must grant again"
    )]
    OtherKey {
        /// The epoch.
        epoch: EpochId,
    },
    /// There is no wrap for us.
    #[error("no key of epoch {epoch} was given to this identity")]
    NotGiven {
        /// The epoch.
        epoch: EpochId,
    },
    /// More event keys than one command holds.
    #[error("the node sent more than {EVENT_KEYS_MAX} event keys")]
    TooMany,
}

/// Why a verified event was not opened. Its author, or who wrapped its key, is at fault.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unopened {
    /// No group key for its epoch: it was not asked for, so the node is at fault.
    #[error("it is of an epoch that was not asked for")]
    OtherEpoch,
    /// The group key for its epoch does not open.
    #[error(transparent)]
    Group(#[from] KeyError),
    /// The wrap of its key was not shown: the node is at fault.
    #[error("the wrap of its key was not shown")]
    WrapMissing,
    /// The wrap is of another author, epoch or day.
    #[error("the wrap that it names is of another author, epoch or day")]
    WrapMismatch,
    /// The wrap does not open.
    #[error(transparent)]
    Wrap(#[from] WrapError),
    /// The body does not open.
    #[error(transparent)]
    Body(#[from] OpenError),
    /// The body holds no readings.
    #[error("body: {0}")]
    Readings(#[from] BodyError),
    /// It is of a version that came after this program: nobody is at fault.
    #[error("it is of a version that this program does not know: update it")]
    Version,
}

struct EventKey {
    fact: WrapFact,
    key: Result<Secret32, Unopened>,
}

/// The keys that one identity can open in one room.
pub struct Keyring {
    room: RoomId,
    groups: BTreeMap<EpochId, Result<KemSecret, KeyError>>,
    events: BTreeMap<WrapId, EventKey>,
}

/// Opens the seed of an epoch's group key: of those that are wrapped to `me`, the one whose public key was published (SPEC K4).
pub fn open_seed(me: &Identity, room: RoomId, view: &RoomView, epoch: EpochId) -> Result<KemSecret, KeyError> {
    let shown = view.epoch(epoch).ok_or(KeyError::NotGiven { epoch })?;
    let mut opened = Err(KeyError::NotGiven { epoch });
    for wrapped in &shown.seeds {
        opened = match wrapped.open(me, room).map(KemSecret::from_seed) {
            Ok(key) if key.public() == shown.group_key => return Ok(key),
            Ok(_) => Err(KeyError::OtherKey { epoch }),
            Err(why) => Err(KeyError::Wrap { epoch, why }),
        };
    }
    opened
}

impl Keyring {
    /// Opens the group keys of these epochs. One that does not open is said by each event that needs it; the others are read.
    pub fn open(me: &Identity, room: RoomId, view: &RoomView, epochs: impl IntoIterator<Item = EpochId>) -> Self {
        let groups = epochs.into_iter().map(|epoch| (epoch, open_seed(me, room, view, epoch))).collect();
        Self { room, groups, events: BTreeMap::new() }
    }

    /// Takes a wrap event. What it is worth is said when an event names it: only an event that its author signed does.
    pub fn take_wrap(&mut self, event: Event) -> Result<(), KeyError> {
        let Some((id, author, record)) = wrap_of(event) else { return Ok(()) };
        if self.events.contains_key(&id) {
            return Ok(());
        }
        if self.events.len() >= EVENT_KEYS_MAX {
            return Err(KeyError::TooMany);
        }
        let fact = WrapFact { author, epoch: record.epoch, day: record.day };
        let purpose = WrapPurpose::EventKey { room: self.room, author, epoch: record.epoch, day: record.day };
        let key = match self.groups.get(&record.epoch) {
            Some(Ok(group)) => kem::unwrap(group, &purpose, &record.wrapped).map_err(Unopened::from),
            Some(Err(why)) => Err(Unopened::Group(*why)),
            None => Err(Unopened::OtherEpoch),
        };
        self.events.insert(id, EventKey { fact, key });
        Ok(())
    }

    /// The readings of a verified vitals event.
    pub fn readings(&self, event: &CheckedEvent) -> Result<Vec<Reading>, Unopened> {
        let core = event.core();
        let wrapped = self.events.get(&core.wrap).ok_or(Unopened::WrapMissing)?;
        if wrapped.fact != (WrapFact { author: core.author, epoch: core.epoch, day: core.hour.day() }) {
            return Err(Unopened::WrapMismatch);
        }
        let key = wrapped.key.as_ref().map_err(Clone::clone)?;
        Ok(VitalsBody::decode(&seal::open(key, event)?)?)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use ehe::control::{Authority, Change, Control, ControlLink, Right, SeedWrap};
    use ehe::id::{AuthorId, EheId};
    use ehe::ledger::LedgerError;
    use ehe::refusal::Refusal;
    use ehe::time::UnixMs;
    use ehe::vital::Category;
    use ehe::wire::Item;

    use super::*;
    use crate::build::Invitation;
    use crate::error::Error;
    use crate::follow::Following;
    use crate::read::{Filter, Readings};
    use crate::session::{Shown, rng};
    use crate::test_room::{ALLIANCE, TestRoom, identity};

    struct World {
        room: TestRoom,
        doctor: Identity,
        gateway: Identity,
        epoch: EpochId,
    }

    fn world() -> World {
        let (mut room, doctor, gateway) = (TestRoom::new(), identity(), identity());
        for (who, right) in [(&doctor, Right::Read), (&gateway, Right::Append)] {
            room.grant(&Invitation {
                subject: who.public().clone(),
                right,
                categories: vec![Category::Cardiac],
                history: false,
                from: None,
                until: None,
                expires: None,
                purpose: None,
                name: None,
            });
        }
        let epoch = room.following(&doctor).view().current_epoch(&room.state, Category::Cardiac).unwrap();
        for value in ["72", "73.50"] {
            let events = room.seal(&gateway, epoch, value);
            room.submit(&gateway, events).unwrap();
        }
        World { room, doctor, gateway, epoch }
    }

    /// Reads as `me` what these items and wraps show.
    fn read(world: &World, me: &Identity, items: Vec<Item>, wraps: Vec<Event>) -> Result<Readings, Error> {
        let room = world.room.room;
        let mut keys = Keyring::open(me, room, world.room.following(me).view(), [world.epoch]);
        let mut following = Following::new(room, false, me.clone(), ALLIANCE, None);
        let (mut readings, mut seen, filter) = (Readings::default(), BTreeSet::new(), Filter::default());
        for wrap in wraps {
            readings.take(Shown::Wrap(wrap), &mut keys, &mut seen, &filter, None)?;
        }
        for item in items {
            let shown = following.take(item)?;
            readings.take(shown, &mut keys, &mut seen, &filter, None)?;
        }
        Ok(readings)
    }

    #[test]
    fn the_invited_opens_what_the_gateway_sealed_digit_by_digit() {
        let world = world();
        for me in [&world.doctor, &world.room.patient] {
            let items = world.room.items(Some(&[world.epoch]));
            let readings = read(&world, me, items, world.room.wraps()).unwrap();
            let values: Vec<String> = readings.rows.iter().map(|row| row.reading.value().to_string()).collect();
            assert_eq!((values, readings.unopened_count), (vec!["72".to_owned(), "73.50".to_owned()], 0));
            assert!(readings.rows.iter().all(|row| row.author == world.gateway.author_id()));
        }
    }

    #[test]
    fn who_holds_no_key_opens_nothing_even_if_a_node_shows_everything() {
        let world = world();
        let items = world.room.items(Some(&[world.epoch]));
        let readings = read(&world, &identity(), items, world.room.wraps()).unwrap();
        assert_eq!((readings.rows.len(), readings.unopened_count), (0, 2));
        assert_eq!(readings.unopened[0].1, Unopened::Group(KeyError::NotGiven { epoch: world.epoch }));
    }

    #[test]
    fn a_false_seed_is_no_key_and_hides_the_right_one_from_nobody() {
        let world = world();
        let (room, epoch, me) = (world.room.room, world.epoch, identity());
        let right = open_seed(&world.doctor, room, world.room.following(&world.doctor).view(), epoch).unwrap();
        let mut rng = rng();
        let wrong: Secret32 = kem::random_secret(&mut rng);
        let mut view = world.room.following(&me).view().clone();
        let mut shown = |seed: &Secret32| {
            let seeds = vec![SeedWrap::make(&mut rng, room, epoch, me.party(), seed).unwrap()];
            let link = ControlLink { seq: 9, previous: EheId::ZERO };
            let record = Control::Authority(Authority { link, change: Change::HandOver, seeds });
            view.learn(&record.event(&mut rng, room, AuthorId::ZERO, UnixMs(1), None).unwrap(), &me);
            open_seed(&me, room, &view, epoch).map(|key| key.public())
        };
        assert_eq!(shown(&wrong), Err(KeyError::OtherKey { epoch }));
        assert_eq!(shown(right.seed()), Ok(right.public()));
    }

    #[test]
    fn an_event_of_a_newer_version_is_said_once_and_the_rest_is_read() {
        let world = world();
        let mut items = world.room.items(Some(&[world.epoch]));
        // {0: {0: 2}}: the id is the hash of the header in every version.
        let newer = Event { header: vec![0xa1, 0x00, 0xa1, 0x00, 0x02], body: vec![1] };
        let id = EheId(ehe::read::record_hash(&newer.header).0);
        let run = ehe::run::Run {
            room: world.room.room,
            author: world.gateway.author_id(),
            from: ehe::run::StrandEnd::start(ehe::id::StrandId([1; 8])),
            ids: vec![id],
            seen: None,
            continues: None,
        };
        for _ in 0..2 {
            let before = items.last().unwrap().leaf.clone();
            let run = run.sign(&world.gateway);
            let (index, previous, entry) = (before.index + 1, before.hash(), run.hash());
            let leaf = ehe::leaf::Leaf { index, previous, entry, ..before };
            items.push(Item { leaf, run: Some(run), events: vec![newer.clone()], access: None, void: None });
        }
        let readings = read(&world, &world.doctor, items, world.room.wraps()).unwrap();
        assert_eq!((readings.rows.len(), readings.unopened_count), (2, 1));
        assert_eq!(readings.unopened, [(id, Unopened::Version)]);
    }

    /// A leaf behind the last, of this entry.
    fn behind(items: &[Item], entry: ehe::id::Hash) -> ehe::leaf::Leaf {
        let before = items.last().unwrap().leaf.clone();
        ehe::leaf::Leaf { index: before.index + 1, previous: before.hash(), entry, ..before }
    }

    /// A run over an event in a strand of its own, in somebody's name and signed by nobody. Returns its index.
    fn unsigned(world: &World, author: &Identity, items: &mut Vec<Item>, event: Event) -> (u64, ehe::run::SignedRun) {
        let strand = ehe::id::StrandId(items.len().to_be_bytes());
        let run = ehe::run::Run {
            room: world.room.room,
            author: author.author_id(),
            from: ehe::run::StrandEnd::start(strand),
            ids: vec![EheId(ehe::read::record_hash(&event.header).0)],
            seen: None,
            continues: None,
        };
        let mut run = run.sign(author);
        *run.0.last_mut().unwrap() ^= 1;
        let leaf = behind(items, run.hash());
        let index = leaf.index;
        items.push(Item { leaf, run: Some(run.clone()), events: vec![event], access: None, void: None });
        (index, run)
    }

    #[test]
    fn what_a_gateway_did_not_sign_is_never_a_reading_and_is_said_to_be_void() {
        let world = world();
        let mut items = world.room.items(Some(&[world.epoch]));
        // Of the last event nothing is shown but a run that is not the gateway's.
        let Item { leaf, mut events, .. } = items.pop().unwrap();
        items.push(Item { leaf, run: None, events: vec![], access: None, void: None });
        let before = read(&world, &world.doctor, items.clone(), world.room.wraps()).unwrap().rows.len();
        let (index, run) = unsigned(&world, &world.gateway, &mut items, events.remove(0));
        let record = ehe::void::VoidRecord { index, run }.to_vec();
        let leaf = behind(&items, ehe::read::record_hash(&record));
        items.push(Item { leaf, run: None, events: vec![], access: None, void: Some(record) });
        let readings = read(&world, &world.doctor, items, world.room.wraps()).unwrap();
        assert_eq!(readings.rows.len(), before);
        assert_eq!(readings.void.into_iter().collect::<Vec<_>>(), [(index, world.gateway.author_id())]);
    }

    #[test]
    fn nobody_remembers_unsigned_runs_without_end() {
        let world = world();
        let mut items = world.room.items(Some(&[world.epoch]));
        let event = items.last().unwrap().events[0].clone();
        for _ in 0..ehe::limits::UNVOIDED_RUNS_MAX {
            unsigned(&world, &world.gateway, &mut items, event.clone());
        }
        assert!(read(&world, &world.doctor, items.clone(), world.room.wraps()).is_ok());
        let mut against_the_rules = items.clone();
        unsigned(&world, &world.gateway, &mut items, event.clone());
        let failed = read(&world, &world.doctor, items, world.room.wraps()).unwrap_err();
        assert!(failed.to_string().contains("more than 1024 runs"), "{failed}");
        // What else is wrong with one more comes first.
        unsigned(&world, &world.doctor, &mut against_the_rules, event);
        let failed = read(&world, &world.doctor, against_the_rules, world.room.wraps()).unwrap_err();
        assert!(failed.to_string().contains("against its rules"), "{failed}");
    }

    #[test]
    fn a_withheld_wrap_is_said_and_the_rest_is_read() {
        let world = world();
        let mut wraps = world.room.wraps();
        wraps.pop();
        let readings = read(&world, &world.doctor, world.room.items(Some(&[world.epoch])), wraps).unwrap();
        assert_eq!((readings.rows.len(), readings.unopened_count), (1, 1));
        assert_eq!(readings.unopened[0].1, Unopened::WrapMissing);
    }

    #[test]
    fn an_altered_body_is_noticed_before_anything_is_opened() {
        let world = world();
        let mut items = world.room.items(Some(&[world.epoch]));
        items.last_mut().unwrap().events[0].body[0] ^= 1;
        let failed = read(&world, &world.doctor, items, world.room.wraps()).unwrap_err();
        assert!(matches!(failed, Error::Ledger(LedgerError::Event { .. })), "{failed}");
    }

    #[test]
    fn an_entry_left_out_is_noticed() {
        let world = world();
        let mut items = world.room.items(Some(&[world.epoch]));
        items.remove(3);
        let failed = read(&world, &world.doctor, items, world.room.wraps()).unwrap_err();
        assert!(matches!(failed, Error::Ledger(LedgerError::Chain { index: 3 })), "{failed}");
    }

    #[test]
    fn an_event_of_another_run_is_noticed() {
        let world = world();
        let mut items = world.room.items(Some(&[world.epoch]));
        let other = items[3].events[0].clone();
        items[4].events[0] = other;
        let failed = read(&world, &world.doctor, items, world.room.wraps()).unwrap_err();
        assert!(matches!(failed, Error::Ledger(LedgerError::NotInRun { index: 4 })), "{failed}");
    }

    #[test]
    fn content_of_an_author_who_had_no_right_at_that_time_is_noticed() {
        let world = world();
        let mut items = world.room.items(Some(&[world.epoch]));
        // A node that takes in what it should refuse: a chain of its own making, with the gateway's grant left out.
        items.remove(2);
        let mut previous = items[1].leaf.hash();
        for (index, item) in (2u64..).zip(items.iter_mut().skip(2)) {
            (item.leaf.index, item.leaf.previous) = (index, previous);
            previous = item.leaf.hash();
        }
        let failed = read(&world, &world.doctor, items, world.room.wraps()).unwrap_err();
        assert!(matches!(failed, Error::Ledger(LedgerError::Rules { index: 2, why: Refusal::NotInvited })), "{failed}");
    }
}
