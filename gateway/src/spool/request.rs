//! What the spool's writer is asked to do, as values: the same batch can be applied again after a disk fault.

use std::sync::Arc;

use ehe::event::CheckedEvent;
use ehe::id::{EheId, RoomId, WrapId};
use ehe::reading::DeviceId;
use ehe::refusal::Refusal;
use ehe::time::UnixMs;
use ehe::vital::Vital;
use minicbor::{Decode, Encode};

use super::rows::Body;
use super::tables::WindowKey;

/// One message of a source with what it held.
#[derive(Debug, Clone)]
pub struct Intake {
    /// How a redelivery is recognised; sources that never redeliver have none.
    pub mark: Option<Mark>,
    /// Where the source goes on after a restart.
    pub position: Option<Position>,
    /// The readings; none for a message that was no reading.
    pub rows: Vec<Row>,
}

/// An MQTT message as a redelivery would show it again.
///
/// A broker sends what was not acknowledged again, with the same packet id and the DUP flag. Packet ids come round after
/// 65,535 messages, and a reading without a time of its own may well be equal to an older one, so a mark counts as seen only
/// among the last `keep` messages of the same session. A new session has no redeliveries: its marks start empty.
#[derive(Debug, Clone)]
pub struct Mark {
    /// The configured name of the source.
    pub source: Arc<str>,
    /// Packet id.
    pub packet_id: u16,
    /// Whether the broker says that it may have sent it before.
    pub dup: bool,
    /// SHA-256 of topic and payload.
    pub hash: [u8; 32],
    /// How many messages back a marked redelivery can reach.
    pub keep: u64,
    /// Which connection it came on: another number than the one before, after each reconnect.
    pub connection: u64,
}

/// Where a replaying source stands once its message is stored.
#[derive(Debug, Clone)]
pub struct Position {
    /// The configured name of the source.
    pub source: Arc<str>,
    /// Counted as the source likes.
    pub next: u64,
}

/// Readings that belong together, and to whom.
#[derive(Debug, Clone)]
pub struct Row {
    /// To whom.
    pub place: Place,
    /// The readings.
    pub body: Body,
}

impl Row {
    /// What goes into a window; none for a row that is held.
    pub(super) fn in_window(&self) -> Option<(&WindowKey, &Body)> {
        match &self.place {
            Place::Window(window) => Some((window, &self.body)),
            Place::Held { .. } => None,
        }
    }
}

/// To whom readings belong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// To a room.
    Window(WindowKey),
    /// Nobody is assigned yet.
    Held {
        /// The device.
        device: DeviceId,
        /// Its user slot.
        user: Option<String>,
    },
}

/// An event that takes the place of readings.
#[derive(Debug, Clone)]
pub struct NewEvent {
    /// The event.
    pub event: CheckedEvent,
    /// Readings in it; 0 for a wrap.
    pub readings: u32,
    /// Receipt of the oldest reading in it.
    pub oldest: UnixMs,
    /// To be sent before the others of its room.
    pub urgent: bool,
    /// For the lab: the readings in it, without values. Empty unless asked for.
    pub report: Vec<ReportedReading>,
}

/// One reading as the lab's latency report names it: no value.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct ReportedReading {
    /// Which device.
    #[n(0)]
    pub device: DeviceId,
    /// What was measured.
    #[n(1)]
    pub vital: Vital,
    /// When it was measured (derived time, else receipt).
    #[n(2)]
    pub at: UnixMs,
    /// When it was received.
    #[n(3)]
    pub received: UnixMs,
}

/// Something for the writer to do. All that stands in one batch is committed together.
#[derive(Debug)]
pub(super) enum Request {
    /// Keep a message's readings.
    Store(Intake),
    /// The broker knows nothing of this source's session: forget its marks.
    NewSession(Arc<str>),
    /// Rows became events.
    Seal { rows: Vec<Vec<u8>>, broken: Vec<Vec<u8>>, events: Vec<NewEvent> },
    /// The ledger has these events.
    Confirm { room: RoomId, ids: Vec<EheId> },
    /// The ledger refused an event for good.
    Quarantine { room: RoomId, id: EheId, refusal: Refusal },
    /// Some of what was refused may be sent again.
    Release { room: RoomId, retry: Retry },
    /// A wrap that was confirmed is missing in the ledger.
    Rewrap { room: RoomId, wrap: WrapId },
    /// Rows of the outbox that are no events any more.
    PutAside { room: RoomId, keys: Vec<Vec<u8>> },
    /// Keep a room's verified control state.
    SaveRoom { room: RoomId, state: Vec<u8> },
    /// Keep how far a shard's log was seen.
    SaveLog { shard: u16, state: Vec<u8> },
    /// Held rows have an owner now.
    Assign { tag: Vec<u8>, rows: Vec<(Vec<u8>, Vec<Row>)>, broken: Vec<Vec<u8>> },
}

/// Which refused events are tried again: those of one round, a few at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retry {
    /// For whatever reason they were refused: a node may have been wrong, and be mended since. Else for want of rights alone.
    pub(super) whatever: bool,
    /// What was put aside from here on is not tried again: it has just been refused. None where a round begins.
    pub(super) until: Option<u64>,
}

impl Retry {
    /// What was refused for want of rights: the room's rights have changed.
    pub const RIGHTS: Self = Self { whatever: false, until: None };
    /// All that was refused.
    pub const ALL: Self = Self { whatever: true, until: None };
}

/// What became of a request.
#[derive(Debug)]
pub(super) enum Answer {
    Stored(Stored),
    Full,
    Done,
    Sealed,
    /// Rows that should be replaced are gone: the caller worked on an old view.
    Conflict,
    Confirmed(Confirmed),
    QuarantineFull,
    Released {
        events: u64,
        next: Option<Retry>,
    },
    /// Whether the wrap is still there.
    Rewrapped(bool),
}

/// What became of a message.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stored {
    /// It had been stored before; nothing was stored now.
    pub duplicate: bool,
    /// Readings that wait in a window.
    pub arrivals: Vec<Arrival>,
    /// Readings held for want of an assignment.
    pub held: u64,
    /// Readings of unassigned devices for which there was no room: counted, and gone.
    pub dropped: u64,
    /// Readings of a room that had filled its share with what nobody may read: recorded, and gone.
    pub thinned: u64,
}

/// Readings came into a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Arrival {
    /// Which.
    pub window: WindowKey,
    /// How many.
    pub readings: u32,
    /// The earliest receipt.
    pub received: UnixMs,
    /// One is worth an alarm.
    pub alarm: bool,
}

/// What a receipt let go.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Confirmed {
    /// Events that left the outbox; 0 where they had left before.
    pub events: u64,
    /// Readings in them.
    pub readings: u64,
}
