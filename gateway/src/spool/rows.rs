//! Rows of readings: what lies in the clear for counting, and what is sealed.
//!
//! ```text
//! row   = layout 1 ‖ flags 1 ‖ count 4 ‖ received 8 ‖ sealed
//! plain = a vitals body (ehe::body::vitals)
//! place = table 1 ‖ key ‖ the 14 bytes before `sealed`
//! ```

use ehe::body::vitals::{BodyError, VitalsBody};
use ehe::limits;
use ehe::reading::Reading;
use ehe::time::{Day, UnixMs};
use zeroize::Zeroizing;

use super::keys::{DoesNotOpen, KeyError, KeyRing};

const LAYOUT: u8 = 1;
const ALARM: u8 = 1;
const PREFIX_LEN: usize = 14;

/// Which table a row lies in; part of what its seal is bound to.
#[derive(Debug, Clone, Copy)]
pub(super) enum Table {
    Readings = 1,
    Held = 2,
    HeldDevices = 3,
    Report = 4,
}

/// Readings of one message that belong together, encoded.
#[derive(Clone)]
pub struct Body {
    plain: Zeroizing<Vec<u8>>,
    /// Readings in it.
    pub count: u32,
    /// The earliest receipt.
    pub received: UnixMs,
    /// Whether one of them is worth an alarm.
    pub alarm: bool,
    /// Whether the device told the time of each, exactly enough to tell measurements apart.
    pub(super) timed: bool,
}

impl std::fmt::Debug for Body {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Body({} readings)", self.count)
    }
}

impl Body {
    /// Encodes readings in as few bodies as their limits allow; their order stays.
    pub fn pack(readings: &[Reading], alarm: bool) -> Result<Vec<Body>, BodyError> {
        let mut bodies = Vec::new();
        let mut rest = readings;
        while !rest.is_empty() {
            let mut take = rest.len().min(limits::READINGS_PER_BODY_MAX);
            let body = loop {
                let head = rest.get(..take).unwrap_or(rest);
                match VitalsBody::from_readings(head) {
                    Ok(body) => break body,
                    Err(BodyError::TooManySeries { fits }) if fits > 0 && fits < take => take = fits,
                    Err(BodyError::TooLarge { .. }) if take > 1 => take = take.div_ceil(2),
                    Err(error) => return Err(error),
                }
            };
            let (head, tail) = rest.split_at_checked(take).unwrap_or((rest, &[]));
            bodies.push(Body {
                plain: Zeroizing::new(body.to_vec()),
                count: u32::try_from(head.len()).unwrap_or(u32::MAX),
                received: head.iter().map(|r| r.time().received).min().unwrap_or_default(),
                alarm,
                timed: head.iter().all(timed),
            });
            rest = tail;
        }
        Ok(bodies)
    }

    /// Bytes of what [`Body::seal`] makes.
    pub(super) fn sealed_len(&self) -> usize {
        PREFIX_LEN + self.plain.len() + super::keys::SEALED_OVERHEAD
    }

    pub(super) fn seal(&self, keys: &KeyRing, day: Day, table: Table, key: &[u8]) -> Result<Vec<u8>, KeyError> {
        let mut out = Vec::with_capacity(PREFIX_LEN + self.plain.len() + super::keys::SEALED_OVERHEAD);
        out.push(LAYOUT);
        out.push(if self.alarm { ALARM } else { 0 });
        out.extend_from_slice(&self.count.to_be_bytes());
        out.extend_from_slice(&self.received.0.to_be_bytes());
        let sealed = keys.seal(day, &place(table, key, &out), &self.plain)?;
        out.extend_from_slice(&sealed);
        Ok(out)
    }
}

fn timed(reading: &Reading) -> bool {
    use ehe::reading::TimeMethod::*;
    let time = reading.time();
    let told =
        matches!(time.method, DeviceUtc | DeviceZoned | DeviceLocalAssumedZone | DeviceOffsetMeasured | DeviceSpaced);
    told && time.uncertainty_ms <= super::seen::TIMED_WITHIN_MS
}

/// What a row says without being opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Outside {
    pub(super) count: u32,
    pub(super) received: UnixMs,
    pub(super) alarm: bool,
    pub(super) key_day: Day,
}

fn place(table: Table, key: &[u8], prefix: &[u8]) -> Vec<u8> {
    let table = match table {
        Table::Readings => 1,
        Table::Held => 2,
        Table::HeldDevices => 3,
        Table::Report => 4,
    };
    let mut out = Vec::with_capacity(1 + key.len() + prefix.len());
    out.push(table);
    out.extend_from_slice(key);
    out.extend_from_slice(prefix);
    out
}

/// Reads what a row says without being opened.
pub(super) fn outside(row: &[u8]) -> Option<Outside> {
    let (prefix, sealed) = row.split_first_chunk::<PREFIX_LEN>()?;
    let (head, received) = prefix.split_last_chunk::<8>()?;
    let (head, count) = head.split_last_chunk::<4>()?;
    match head {
        [LAYOUT, flags] => Some(Outside {
            count: u32::from_be_bytes(*count),
            received: UnixMs(u64::from_be_bytes(*received)),
            alarm: flags & ALARM != 0,
            key_day: super::keys::day_of(sealed)?,
        }),
        _ => None,
    }
}

/// Opens a row.
pub(super) fn open(keys: &KeyRing, table: Table, key: &[u8], row: &[u8]) -> Result<Vec<Reading>, DoesNotOpen> {
    let (prefix, sealed) = row.split_at_checked(PREFIX_LEN).ok_or(DoesNotOpen)?;
    let plain = keys.open_row(&place(table, key, prefix), sealed)?;
    VitalsBody::decode(&plain).map_err(|_| DoesNotOpen)
}

/// Seals other bytes of the spool (summaries, reports), bound to table and key.
pub(super) fn seal_plain(
    keys: &KeyRing,
    day: Day,
    table: Table,
    key: &[u8],
    plain: &[u8],
) -> Result<Vec<u8>, KeyError> {
    keys.seal(day, &place(table, key, &[]), plain)
}

/// Opens what [`seal_plain`] sealed.
pub(super) fn open_plain(
    keys: &KeyRing,
    table: Table,
    key: &[u8],
    sealed: &[u8],
) -> Result<Zeroizing<Vec<u8>>, DoesNotOpen> {
    keys.open_row(&place(table, key, &[]), sealed)
}
