//! Reading: from what somebody wants to see to opened readings, each tied to the ledger.

use std::collections::{BTreeMap, BTreeSet};

use ehe::id::{AuthorId, EheId, RoomId};
use ehe::ledger::Verified;
use ehe::read::Purpose;
use ehe::reading::Reading;
use ehe::room::RoomState;
use ehe::time::UnixMs;
use ehe::vital::Vital;

use crate::error::Error;
use crate::follow::Following;
use crate::heads::{self, Newest};
use crate::keys::{Keyring, Unopened};
use crate::scope::{self, Wanted};
use crate::session::{Session, Shown, content};

/// Readings that one command holds before it prints: they are printed only once the ledger's head is verified.
pub const READINGS_MAX: usize = 4_000_000;
/// Events that do not open of which the reason is kept; further ones are only counted.
const UNOPENED_MAX: usize = 100;

/// Which readings.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// Vitals; empty: all.
    pub vitals: BTreeSet<Vital>,
    /// At this instant and later.
    pub from: Option<UnixMs>,
    /// Before this instant.
    pub until: Option<UnixMs>,
}

impl Filter {
    /// Whether a reading is among them.
    pub fn takes(&self, reading: &Reading) -> bool {
        let at = reading.at();
        (self.vitals.is_empty() || self.vitals.contains(&reading.vital()))
            && self.from.is_none_or(|from| at >= from)
            && self.until.is_none_or(|until| at < until)
    }

    /// What has to be asked for.
    pub fn wanted(&self) -> Wanted {
        Wanted { categories: self.vitals.iter().map(|v| v.category()).collect(), from: self.from, until: self.until }
    }
}

/// A reading and where it stands in the ledger.
#[derive(Debug, Clone)]
pub struct Row {
    /// The reading.
    pub reading: Reading,
    /// Its event.
    pub event: EheId,
    /// Who sealed and signed the event.
    pub author: AuthorId,
    /// Signed as the patient with keys that the patient distrusts from before then: somebody who had stolen them, it may be (A18).
    pub distrusted: bool,
}

/// What came of reading.
#[derive(Debug, Clone, Default)]
pub struct Readings {
    /// The readings, by time.
    pub rows: Vec<Row>,
    /// Events that stand in the ledger and do not open, with the reason. Their authors' programs are at fault.
    pub unopened: Vec<(EheId, Unopened)>,
    /// How many those are.
    pub unopened_count: usize,
    /// Runs that are void, by their place in the room, and in whose name they were: that author did not sign them, and nothing of them is
    /// among the readings. The first ones.
    pub void: BTreeMap<u64, AuthorId>,
    /// Whether they are the newest, as the members say; none of a stream.
    pub newest: Option<Newest>,
}

impl Readings {
    /// Opens what an entry holds. `distrusted`: whose signature there is distrusted ([`distrusted_at`]).
    pub(crate) fn take(
        &mut self,
        shown: Shown,
        keys: &mut Keyring,
        seen: &mut BTreeSet<EheId>,
        filter: &Filter,
        distrusted: Option<AuthorId>,
    ) -> Result<(), Error> {
        let verified = match shown {
            Shown::Wrap(event) => return Ok(keys.take_wrap(event)?),
            Shown::Entry(_, verified) => verified,
        };
        for event in content(&verified).filter(|event| event.core().kind == ehe::event::Kind::Vitals) {
            // Two grants may cover one event; it is read twice and counts once.
            if !seen.insert(event.id()) {
                continue;
            }
            match keys.readings(event) {
                Ok(readings) => {
                    let (event, author) = (event.id(), event.core().author);
                    let taken = readings.into_iter().filter(|reading| filter.takes(reading));
                    self.rows.extend(taken.map(|reading| Row {
                        reading,
                        event,
                        author,
                        distrusted: distrusted == Some(author),
                    }));
                }
                Err(why) => self.not_opened(event.id(), why),
            }
            if self.rows.len() > READINGS_MAX {
                return Err(Error::TooMuch { what: "readings", limit: READINGS_MAX });
            }
        }
        if let Verified::Void { index, run } = &*verified
            && self.void.len() < UNOPENED_MAX
        {
            self.void.insert(*index, run.author);
        }
        // What came after this program may be readings.
        if let Verified::Run { unknown, .. } = &*verified {
            for id in unknown.iter().filter(|id| seen.insert(**id)) {
                self.not_opened(*id, Unopened::Version);
            }
        }
        Ok(())
    }

    fn not_opened(&mut self, event: EheId, why: Unopened) {
        self.unopened_count += 1;
        if self.unopened.len() < UNOPENED_MAX {
            self.unopened.push((event, why));
        }
    }

    /// Sorts by time; of one instant the order of the ledger stays.
    pub(crate) fn sort(&mut self) {
        self.rows.sort_by_key(|row| row.reading.at());
    }
}

/// Whose signature on content is distrusted at the entry that was followed last, by the newest state that is known: the patient's,
/// between a theft that a recovery tells of and that recovery.
pub(crate) fn distrusted_at(following: &Following, newest: &RoomState) -> Option<AuthorId> {
    let controls = following.state().ok()?.next_control;
    newest.distrusts(controls, controls).then_some(newest.owner)
}

/// Reads. Each scope that the grants make necessary is one request, and one access record in the room.
pub async fn read(session: &mut Session, room: RoomId, filter: &Filter, purpose: Purpose) -> Result<Readings, Error> {
    let control = session.control(room, purpose).await?;
    let scopes =
        scope::plan(control.state()?, control.view(), control.me().author_id(), &filter.wanted(), session.now())?;
    let (mut readings, mut seen, mut last) = (Readings::default(), BTreeSet::new(), None);
    for scope in scopes {
        let mut keys = Keyring::open(control.me(), room, control.view(), scope.epochs.iter().copied());
        let mut following: Following = session.following(room, false)?;
        session
            .fetch(&mut following, &scope, purpose, |shown, following| {
                let distrusted = distrusted_at(following, control.state()?);
                readings.take(shown, &mut keys, &mut seen, filter, distrusted)
            })
            .await?;
        last = Some(following);
    }
    readings.newest = Some(heads::newest(session, last.as_ref().unwrap_or(&control)).await);
    readings.sort();
    Ok(readings)
}
