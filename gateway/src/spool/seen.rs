//! Which messages a broker has sent before. Pure, and in memory: `mqtt_seen` keeps the same rows on disk.
//!
//! A broker that lives marks what it sends again (DUP), and the packet id tells which message it is. A broker that was *killed*
//! sends again, without the mark and under new packet ids, what it had delivered since it last saved its queue (Mosquitto with
//! our configuration: up to six seconds). Those are recognised by their content, but only where that is sure to lose nothing:
//!
//! - the payload states a time of its own, exact to [`TIMED_WITHIN_MS`]: two equal ones are one measurement. Of payloads
//!   without a time two equal ones may be two measurements, and both are stored;
//! - it comes at the beginning of a new connection, before the first message that is new: a restored queue is sent in order;
//! - it was stored in the last [`REDELIVERED_MS`] before the connection ended, and each such message is recognised once. So even a
//!   device whose clock stands still loses no more than the readings of some seconds, and only after the broker came back.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use super::request::Mark;

/// Messages of one broker that are remembered: ten seconds of 400 a second.
const SIGHTINGS_MAX: usize = 4096;
/// What a killed broker may have delivered since it last saved, and some more: `autosave_interval` of mosquitto.conf is 5 s.
const REDELIVERED_MS: u64 = 10_000;
/// How exact a payload's own time must be to tell measurements apart.
pub(super) const TIMED_WITHIN_MS: u32 = 2_000;

/// One stored message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sighting {
    /// Its row in `mqtt_seen`.
    pub(super) row: u64,
    pub(super) packet_id: u16,
    /// Of topic and payload.
    pub(super) digest: [u8; 16],
    pub(super) stored_ms: u64,
    /// The payload states its time.
    pub(super) timed: bool,
}

const VALUE_LEN: usize = 27;

impl Sighting {
    /// `packet id 2 ‖ digest 16 ‖ stored 8 ‖ timed 1`.
    pub(super) fn value(&self) -> [u8; VALUE_LEN] {
        let mut out = [0; VALUE_LEN];
        let parts = self.packet_id.to_be_bytes().into_iter().chain(self.digest).chain(self.stored_ms.to_be_bytes());
        out.iter_mut().zip(parts.chain([u8::from(self.timed)])).for_each(|(to, byte)| *to = byte);
        out
    }

    /// Bytes that are no sighting are none: at worst a message is stored twice.
    pub(super) fn read(row: u64, value: &[u8]) -> Option<Self> {
        let (packet_id, rest) = value.split_first_chunk::<2>()?;
        let (digest, rest) = rest.split_first_chunk::<16>()?;
        let (stored, rest) = rest.split_first_chunk::<8>()?;
        Some(Self {
            row,
            packet_id: u16::from_be_bytes(*packet_id),
            digest: *digest,
            stored_ms: u64::from_be_bytes(*stored),
            timed: *rest == [1],
        })
    }
}

/// What to do about a message.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Judged {
    /// The broker says that it comes again, and it was stored.
    Again,
    /// It comes again, and the broker does not know. Take the first delivery's row away, and put this one's in its place.
    AgainUnmarked { before: u64 },
    /// It is new.
    New,
}

/// All brokers' sightings, in the order of their rows.
#[derive(Debug, Default)]
pub(super) struct Seen(BTreeMap<Arc<str>, Source>);

#[derive(Debug, Default)]
struct Source {
    sightings: VecDeque<Sighting>,
    place: Place,
}

/// Where a connection stands. Not on disk: a start begins a connection.
#[derive(Debug, Clone, Copy, Default)]
struct Place {
    connection: Option<u64>,
    /// Nothing new has come on it yet.
    beginning: bool,
    /// Rows from here on are this connection's.
    from_row: u64,
    /// When the connections before it last stored something.
    ended_ms: u64,
}

/// [`Place`] of each source, to go back to.
#[derive(Debug, Default)]
pub(super) struct Places(BTreeMap<Arc<str>, Place>);

impl Seen {
    /// A row of the disk, in ascending order.
    pub(super) fn found(&mut self, source: &str, sighting: Sighting) {
        if let Some(known) = self.0.get_mut(source) {
            known.sightings.push_back(sighting);
        } else {
            self.0.entry(source.into()).or_default().sightings.push_back(sighting);
        }
    }

    /// The broker has forgotten our session: nothing of it comes again.
    pub(super) fn forget(&mut self, source: &str) {
        self.0.remove(source);
    }

    /// Where all connections stand, in case the disk refuses what comes now.
    pub(super) fn places(&self) -> Places {
        Places(self.0.iter().map(|(source, of)| (source.clone(), of.place)).collect())
    }

    /// Goes back to them, after the rows were read anew.
    pub(super) fn back_to(&mut self, Places(places): &Places) {
        for (source, place) in places {
            self.0.entry(source.clone()).or_default().place = *place;
        }
    }

    /// Judges a message. `next_row` is the row that it would get.
    pub(super) fn judge(&mut self, mark: &Mark, digest: [u8; 16], timed: bool, next_row: u64) -> Judged {
        let source = self.0.entry(mark.source.clone()).or_default();
        if source.place.connection != Some(mark.connection) {
            source.place = Place {
                connection: Some(mark.connection),
                beginning: true,
                from_row: next_row,
                ended_ms: source.sightings.back().map_or(0, |last| last.stored_ms),
            };
        }
        let place = source.place;
        if mark.dup {
            // Only a message that says so can be found by its packet id, which is given again as soon as it is free.
            let keep = usize::try_from(mark.keep).unwrap_or(usize::MAX);
            let mut recent = source.sightings.iter().rev().take(keep);
            let again = recent.any(|of| of.packet_id == mark.packet_id && of.digest == digest);
            return if again { Judged::Again } else { Judged::New };
        }
        if !timed || !place.beginning {
            return Judged::New;
        }
        let before = source.sightings.iter().find(|of| {
            of.digest == digest
                && of.timed
                && of.row < place.from_row
                && of.stored_ms.saturating_add(REDELIVERED_MS) >= place.ended_ms
        });
        match before {
            Some(before) => Judged::AgainUnmarked { before: before.row },
            None => {
                source.place.beginning = false;
                Judged::New
            }
        }
    }

    /// Takes a row away.
    pub(super) fn remove(&mut self, source: &str, row: u64) {
        if let Some(of) = self.0.get_mut(source) {
            of.sightings.retain(|sighting| sighting.row != row);
        }
    }

    /// Puts a sighting in; gives the row that has become too old.
    pub(super) fn put(&mut self, mark: &Mark, sighting: Sighting) -> Option<u64> {
        let of = self.0.entry(mark.source.clone()).or_default();
        of.sightings.push_back(sighting);
        let keep = SIGHTINGS_MAX.max(usize::try_from(mark.keep).unwrap_or(usize::MAX));
        if of.sightings.len() > keep { of.sightings.pop_front().map(|oldest| oldest.row) } else { None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMED: bool = true;
    const UNTIMED: bool = false;

    /// A broker's messages, one row each, stored at `at_ms`.
    #[derive(Default)]
    struct Lab {
        seen: Seen,
        row: u64,
    }

    impl Lab {
        fn comes(&mut self, connection: u64, content: u8, timed: bool, at_ms: u64) -> Judged {
            let mark =
                Mark { source: "mqtt".into(), packet_id: 1, dup: false, hash: [content; 32], keep: 4, connection };
            let digest = [content; 16];
            let judged = self.seen.judge(&mark, digest, timed, self.row);
            if let Judged::AgainUnmarked { before } = judged {
                self.seen.remove("mqtt", before);
            }
            let sighting = Sighting { row: self.row, packet_id: 1, digest, stored_ms: at_ms, timed };
            self.seen.put(&mark, sighting);
            self.row += 1;
            judged
        }
    }

    #[test]
    fn after_a_killed_broker_is_back_what_states_its_time_is_stored_once() {
        let mut lab = Lab::default();
        for content in 1..4 {
            assert_eq!(lab.comes(1, content, TIMED, 1_000), Judged::New);
        }
        assert_eq!(lab.comes(2, 2, TIMED, 9_000), Judged::AgainUnmarked { before: 1 });
        assert_eq!(lab.comes(2, 3, TIMED, 9_000), Judged::AgainUnmarked { before: 2 });
        assert_eq!(lab.comes(2, 9, TIMED, 9_000), Judged::New);
        assert_eq!(lab.comes(2, 1, TIMED, 9_000), Judged::New, "a restored queue comes in order, before what is new");
        // Killed again: also what came twice is known.
        assert_eq!(lab.comes(3, 3, TIMED, 9_500), Judged::AgainUnmarked { before: 4 });
    }

    #[test]
    fn equal_payloads_without_a_time_are_two_measurements_whenever_they_come() {
        let mut lab = Lab::default();
        for connection in 1..4 {
            for _ in 0..3 {
                assert_eq!(lab.comes(connection, 7, UNTIMED, 1_000), Judged::New);
            }
        }
        // They do not end the beginning of a connection either.
        assert_eq!(lab.comes(4, 8, TIMED, 1_000), Judged::New);
        assert_eq!(lab.comes(5, 7, UNTIMED, 1_000), Judged::New);
        assert_eq!(lab.comes(5, 8, TIMED, 1_000), Judged::AgainUnmarked { before: 9 });
    }

    #[test]
    fn within_a_connection_nothing_unmarked_is_a_redelivery() {
        let mut lab = Lab::default();
        for _ in 0..5 {
            assert_eq!(lab.comes(1, 7, TIMED, 1_000), Judged::New);
        }
    }

    #[test]
    fn a_device_whose_clock_stands_still_loses_no_more_than_the_last_seconds_before_the_broker_went() {
        let mut lab = Lab::default();
        for second in 0..100 {
            assert_eq!(lab.comes(1, 7, TIMED, second * 1_000), Judged::New);
        }
        let again = (0..100).filter(|_| lab.comes(2, 7, TIMED, 200_000) != Judged::New).count();
        assert_eq!(again, 11, "ten seconds' messages, each once");
    }

    #[test]
    fn what_is_remembered_is_bounded_and_is_read_back_as_it_was_written() {
        let mut lab = Lab::default();
        for _ in 0..SIGHTINGS_MAX + 10 {
            lab.comes(1, 7, UNTIMED, 5);
        }
        assert_eq!(lab.seen.0["mqtt"].sightings.len(), SIGHTINGS_MAX);
        let sighting = Sighting { row: 3, packet_id: 0x1234, digest: [9; 16], stored_ms: 77, timed: true };
        assert_eq!(Sighting::read(3, &sighting.value()), Some(sighting));
        for cut in 0..VALUE_LEN - 1 {
            assert!(Sighting::read(3, &sighting.value()[..cut]).is_none_or(|found| !found.timed));
        }
    }
}
