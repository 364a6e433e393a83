//! Whose reading it is: device (and user slot, for shared scales and cuffs) → room.

use std::collections::{BTreeMap, BTreeSet};

use ehe::body::vitals::BodyError;
use ehe::id::RoomId;
use ehe::reading::{DeviceId, Reading};

use crate::alarm::Thresholds;
use crate::spool::{Body, Place, Row, WindowKey};

/// Which devices belong to whom.
#[derive(Debug, Clone, Default)]
pub struct Assignments {
    whole: BTreeMap<DeviceId, RoomId>,
    slots: BTreeMap<DeviceId, BTreeMap<String, RoomId>>,
}

/// Why an assignment cannot stand beside the others.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AssignmentError {
    /// The same device (and slot) twice.
    #[error("device {device:?} is assigned twice; a reading belongs to one person")]
    Twice {
        /// The device.
        device: String,
    },
    /// The device once with and once without user slot.
    #[error("device {device:?} is assigned both with and without `user`; give each of its users a slot, or none")]
    Mixed {
        /// The device.
        device: String,
    },
}

impl Assignments {
    /// Adds one.
    pub fn assign(&mut self, device: DeviceId, user: Option<String>, room: RoomId) -> Result<(), AssignmentError> {
        let name = device.to_string();
        let before = match user {
            None if self.slots.contains_key(&device) => return Err(AssignmentError::Mixed { device: name }),
            Some(_) if self.whole.contains_key(&device) => return Err(AssignmentError::Mixed { device: name }),
            None => self.whole.insert(device, room),
            Some(user) => self.slots.entry(device).or_default().insert(user, room),
        };
        if before.is_some() { Err(AssignmentError::Twice { device: name }) } else { Ok(()) }
    }

    /// All rooms that somebody is assigned to.
    pub fn rooms(&self) -> BTreeSet<RoomId> {
        self.whole.values().chain(self.slots.values().flat_map(BTreeMap::values)).copied().collect()
    }

    /// Whose it is. Of a device whose users have slots, a reading without a known slot is nobody's: a weight must not be filed to
    /// the wrong person.
    pub fn room(&self, device: &str, user: Option<&str>) -> Option<RoomId> {
        let device = DeviceId::new(device).ok()?;
        match (self.slots.get(&device), user) {
            (Some(slots), Some(user)) => slots.get(user).copied(),
            (Some(_), None) => None,
            (None, _) => self.whole.get(&device).copied(),
        }
    }

    /// Sorts one message's readings into rows of the spool: by category and hour for a room, together for nobody. Within a row
    /// the order stays.
    pub fn rows(
        &self,
        thresholds: &Thresholds,
        device: &DeviceId,
        user: Option<&str>,
        readings: &[Reading],
    ) -> Result<Vec<Row>, BodyError> {
        let mut groups: BTreeMap<Option<WindowKey>, Vec<Reading>> = BTreeMap::new();
        let room = self.room(device.as_str(), user);
        for reading in readings {
            let window =
                room.map(|room| WindowKey { room, category: reading.vital().category(), hour: reading.at().hour() });
            groups.entry(window).or_default().push(reading.clone());
        }
        let mut rows = Vec::new();
        for (window, readings) in groups {
            let place = match window {
                Some(window) => Place::Window(window),
                None => Place::Held { device: device.clone(), user: user.map(str::to_owned) },
            };
            let alarm = window.is_some() && readings.iter().any(|reading| thresholds.alarms(reading));
            let bodies = Body::pack(&readings, alarm)?;
            rows.extend(bodies.into_iter().map(|body| Row { place: place.clone(), body }));
        }
        Ok(rows)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ehe::reading::ReadingTime;
    use ehe::time::UnixMs;
    use ehe::vital::{Category, Vital};

    const MAIN: RoomId = RoomId([1; 16]);
    const OTHER: RoomId = RoomId([2; 16]);

    fn device(name: &str) -> DeviceId {
        DeviceId::new(name).unwrap()
    }

    fn reading(vital: Vital, value: i32, at_ms: u64) -> Reading {
        let time = ReadingTime::at_receipt(UnixMs(at_ms), 5, true, 1_000);
        Reading::new(vital, value.into(), vital.unit(), device("watch"), time).unwrap()
    }

    #[test]
    fn of_a_shared_scale_only_known_slots_have_an_owner() {
        let mut people = Assignments::default();
        people.assign(device("scale"), Some("1".into()), MAIN).unwrap();
        people.assign(device("scale"), Some("2".into()), OTHER).unwrap();
        people.assign(device("watch"), None, MAIN).unwrap();
        assert_eq!(people.room("scale", Some("2")), Some(OTHER));
        assert_eq!(people.room("scale", Some("3")), None);
        assert_eq!(people.room("scale", None), None);
        assert_eq!(people.room("watch", Some("1")), Some(MAIN));
        assert_eq!(people.room("cuff", None), None);
        assert!(matches!(people.assign(device("watch"), None, OTHER), Err(AssignmentError::Twice { .. })));
        assert!(matches!(people.assign(device("scale"), None, OTHER), Err(AssignmentError::Mixed { .. })));
        assert!(matches!(people.assign(device("watch"), Some("1".into()), OTHER), Err(AssignmentError::Mixed { .. })));
    }

    #[test]
    fn readings_are_sorted_by_category_and_hour_and_alarms_are_marked() {
        let mut people = Assignments::default();
        people.assign(device("watch"), None, MAIN).unwrap();
        let hour = 3_600_000;
        let readings = [
            reading(Vital::HeartRate, 70, hour),
            reading(Vital::OxygenSaturation, 85, hour),
            reading(Vital::HeartRate, 71, hour + 1),
            reading(Vital::HeartRate, 72, 2 * hour),
        ];
        let thresholds = Thresholds::new(&BTreeMap::new());
        let rows = people.rows(&thresholds, &device("watch"), None, &readings).unwrap();
        let seen: Vec<_> = rows
            .iter()
            .map(|row| match &row.place {
                Place::Window(w) => (w.category, w.hour.0, row.body.count, row.body.alarm),
                Place::Held { .. } => panic!("assigned"),
            })
            .collect();
        assert_eq!(
            seen,
            [(Category::Cardiac, 1, 2, false), (Category::Cardiac, 2, 1, false), (Category::Respiratory, 1, 1, true)]
        );
        let held = people.rows(&thresholds, &device("cuff"), None, &readings).unwrap();
        assert_eq!(held.len(), 1);
        assert_eq!(held[0].body.count, 4);
    }
}
