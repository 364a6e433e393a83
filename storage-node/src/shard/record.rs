//! An entry of the log as it is stored: without what can be computed from the rest.
//!
//! ```text
//! record:   form (1) ‖ place in the room ‖ accepted at, ms ‖ control events so far ‖ …     numbers packed, see `packed.rs`
//!   form, low two bits: 0 access or void record, 1 run as it came, 2 run in parts; bits 2 and 3 are `seen`, 4 `continues`, 5 `begins`
//!
//! 0:        room (16) ‖ the access record, or the void record
//! 1:        room (16) ‖ length ‖ signed run ‖ number of events ‖ event …
//! 2:        strand ‖ [not `begins`: next ‖ link (32)] ‖ seen ‖ [`continues`: strand (8) ‖ next ‖ link (32)] ‖ signature (64)
//!           ‖ number of events ‖ event …
//!   strand  a number: `strand_names` has room, author and strand id
//!   begins  the strand begins here: next is 0, link zeros
//!   seen    0 none; 1 a checkpoint of this log: incarnation ‖ how many leaves it has less than lie before this entry;
//!           2 as it came: length ‖ origin ‖ size ‖ root (32)
//!
//! event:    kind (bits 0 to 4), form (bits 5 and 6), erased (bit 7) ‖ header ‖ length ‖ body
//!   form    0 header as it came: length ‖ header
//!           1 content: wrap ‖ hour ‖ salt (16) ‖ commitment (32)       wrap: a number, `wrap_names` has wrap and epoch id
//!           2 control: hour ‖ salt (16)                                 its commitment is zeros
//!           3 control: hour ‖ salt (16) ‖ commitment (32)
//!   hour    less the hour of acceptance, signed
//!   erased  the body is overwritten by as many bytes: its hash (forms 1 to 3) and zeros
//! ```
//!
//! Left out of a run and found again when it is read ([`super::entry`]): the ids of its events (hashes of their headers), room
//! and author, the signature's header; of a header: version and suite, room, author, epoch and wrap id, the body's hash; of a
//! checkpoint that was seen: origin and root. What would not come back as it was is stored as it came.

use ehe::event::Kind;
use ehe::id::{Hash, Nonce, RoomId, StrandId};
use ehe::run::{SeenCheckpoint, StrandEnd};
use ehe::sign::SIGNATURE_LEN;
use ehe::time::{Hour, UnixMs};

use super::packed::{self, Unpack};

/// A body that is shorter than its hash could not be erased in place: its event keeps its header whole.
pub(super) const ERASABLE_BYTES: usize = Hash::LEN;

/// A stored entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Record<'a> {
    /// Place in the room.
    pub(super) index: u64,
    /// When it was accepted.
    pub(super) accepted_at: UnixMs,
    /// The patient's control events in the room so far.
    pub(super) control: u64,
    pub(super) what: What<'a>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum What<'a> {
    Access {
        room: RoomId,
        bytes: &'a [u8],
    },
    /// A run as it came.
    Whole {
        room: RoomId,
        run: &'a [u8],
        events: Vec<KeptEvent<'a>>,
    },
    /// A run in parts.
    Parts {
        /// Number of its strand.
        strand: u64,
        next: u64,
        link: Hash,
        seen: Seen,
        continues: Option<StrandEnd>,
        signature: [u8; SIGNATURE_LEN],
        events: Vec<KeptEvent<'a>>,
    },
}

/// The checkpoint that a run names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Seen {
    None,
    /// One of this log.
    Ours {
        incarnation: u32,
        /// Leaves before this entry that it does not have.
        behind: u64,
    },
    Other(SeenCheckpoint),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct KeptEvent<'a> {
    pub(super) header: KeptHeader<'a>,
    pub(super) body: &'a [u8],
    /// The body is gone; what stands in its place begins with its hash.
    pub(super) erased: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum KeptHeader<'a> {
    Whole(&'a [u8]),
    Content {
        kind: Kind,
        /// Number of its wrap.
        wrap: u64,
        hour: Hour,
        salt: Nonce,
        commitment: Hash,
    },
    Control {
        kind: Kind,
        hour: Hour,
        salt: Nonce,
        commitment: Hash,
    },
}

/// Kinds are below 32 (SPEC 4).
const KIND_BITS: u8 = 0x1f;
const ERASED: u8 = 0x80;
const CONTINUES: u8 = 0x10;
const BEGINS: u8 = 0x20;

/// A kind's number: as in a header, where it takes one byte.
fn kind_number(kind: Kind) -> u8 {
    ehe::cbor::to_vec(&kind).first().copied().unwrap_or_default() & KIND_BITS
}

impl Record<'_> {
    pub(super) fn to_vec(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(512);
        out.push(self.form());
        for number in [self.index, self.accepted_at.0, self.control] {
            packed::put(&mut out, number);
        }
        let events = match &self.what {
            What::Access { room, bytes } => {
                out.extend_from_slice(room.as_bytes());
                out.extend_from_slice(bytes);
                return out;
            }
            What::Whole { room, run, events } => {
                out.extend_from_slice(room.as_bytes());
                packed::put_bytes(&mut out, run);
                events
            }
            What::Parts { strand, next, link, seen, continues, signature, events } => {
                packed::put(&mut out, *strand);
                if self.form() & BEGINS == 0 {
                    packed::put(&mut out, *next);
                    out.extend_from_slice(link.as_bytes());
                }
                seen.put(&mut out);
                if let Some(end) = continues {
                    out.extend_from_slice(end.strand.as_bytes());
                    packed::put(&mut out, end.next);
                    out.extend_from_slice(end.link.as_bytes());
                }
                out.extend_from_slice(signature);
                events
            }
        };
        packed::put(&mut out, events.len().try_into().unwrap_or(u64::MAX));
        for event in events {
            event.put(self.accepted_at.hour(), &mut out);
        }
        out
    }

    fn form(&self) -> u8 {
        match &self.what {
            What::Access { .. } => 0,
            What::Whole { .. } => 1,
            What::Parts { next, link, seen, continues, .. } => {
                let seen = match seen {
                    Seen::None => 0,
                    Seen::Ours { .. } => 1,
                    Seen::Other(_) => 2,
                };
                let continues = if continues.is_some() { CONTINUES } else { 0 };
                let begins = if (*next, *link) == (0, Hash::ZERO) { BEGINS } else { 0 };
                2 | seen << 2 | continues | begins
            }
        }
    }
}

impl Seen {
    fn put(&self, out: &mut Vec<u8>) {
        match self {
            Self::None => {}
            Self::Ours { incarnation, behind } => {
                packed::put(out, (*incarnation).into());
                packed::put(out, *behind);
            }
            Self::Other(seen) => {
                packed::put_bytes(out, seen.origin.as_bytes());
                packed::put(out, seen.size);
                out.extend_from_slice(seen.root.as_bytes());
            }
        }
    }

    fn take(form: u8, from: &mut Unpack<'_>) -> Option<Self> {
        Some(match form {
            0 => Self::None,
            1 => Self::Ours { incarnation: from.number()?.try_into().ok()?, behind: from.number()? },
            2 => {
                let origin = String::from_utf8(from.bytes()?.to_vec()).ok()?;
                Self::Other(SeenCheckpoint { origin, size: from.number()?, root: Hash(from.array()?) })
            }
            _ => return None,
        })
    }
}

impl<'a> KeptEvent<'a> {
    fn put(&self, accepted: Hour, out: &mut Vec<u8>) {
        let erased = if self.erased { ERASED } else { 0 };
        let put_hour = |out: &mut Vec<u8>, hour: Hour| {
            packed::put_signed(out, i64::from(hour.0) - i64::from(accepted.0));
        };
        match &self.header {
            KeptHeader::Whole(header) => {
                out.push(erased);
                packed::put_bytes(out, header);
            }
            KeptHeader::Content { kind, wrap, hour, salt, commitment } => {
                out.push(erased | 1 << 5 | kind_number(*kind));
                packed::put(out, *wrap);
                put_hour(out, *hour);
                out.extend_from_slice(salt.as_bytes());
                out.extend_from_slice(commitment.as_bytes());
            }
            KeptHeader::Control { kind, hour, salt, commitment } => {
                let form = if *commitment == Hash::ZERO { 2 } else { 3 };
                out.push(erased | form << 5 | kind_number(*kind));
                put_hour(out, *hour);
                out.extend_from_slice(salt.as_bytes());
                if form == 3 {
                    out.extend_from_slice(commitment.as_bytes());
                }
            }
        }
        packed::put_bytes(out, self.body);
    }

    fn take(accepted: Hour, from: &mut Unpack<'a>) -> Option<Self> {
        let form = from.byte()?;
        let hour = |from: &mut Unpack<'_>| {
            let hour = from.signed()?.checked_add(accepted.0.into())?;
            hour.try_into().ok().map(Hour)
        };
        let kind = || minicbor::decode(&[form & KIND_BITS]).ok();
        let header = match form >> 5 & 3 {
            0 => KeptHeader::Whole(from.bytes()?),
            1 => KeptHeader::Content {
                kind: kind()?,
                wrap: from.number()?,
                hour: hour(from)?,
                salt: Nonce(from.array()?),
                commitment: Hash(from.array()?),
            },
            form => KeptHeader::Control {
                kind: kind()?,
                hour: hour(from)?,
                salt: Nonce(from.array()?),
                commitment: if form == 3 { Hash(from.array()?) } else { Hash::ZERO },
            },
        };
        Some(Self { header, body: from.bytes()?, erased: form & ERASED != 0 })
    }

    fn take_all(accepted: Hour, from: &mut Unpack<'a>) -> Option<Vec<Self>> {
        let count = from.number()?;
        (0..count).map(|_| Self::take(accepted, from)).collect()
    }
}

impl<'a> Record<'a> {
    /// `None`: not a record.
    pub(super) fn decode(bytes: &'a [u8]) -> Option<Self> {
        let mut from = Unpack(bytes);
        let form = from.byte()?;
        let (index, accepted_at, control) = (from.number()?, UnixMs(from.number()?), from.number()?);
        let what = match form & 3 {
            0 => What::Access { room: RoomId(from.array()?), bytes: from.rest() },
            1 => What::Whole {
                room: RoomId(from.array()?),
                run: from.bytes()?,
                events: KeptEvent::take_all(accepted_at.hour(), &mut from)?,
            },
            2 => {
                let strand = from.number()?;
                let begins = form & BEGINS != 0;
                let (next, link) = if begins { (0, Hash::ZERO) } else { (from.number()?, Hash(from.array()?)) };
                let seen = Seen::take(form >> 2 & 3, &mut from)?;
                let continues = match form & CONTINUES {
                    0 => None,
                    _ => Some(StrandEnd {
                        strand: StrandId(from.array()?),
                        next: from.number()?,
                        link: Hash(from.array()?),
                    }),
                };
                let signature = from.array()?;
                let events = KeptEvent::take_all(accepted_at.hour(), &mut from)?;
                What::Parts { strand, next, link, seen, continues, signature, events }
            }
            _ => return None,
        };
        from.0.is_empty().then_some(Self { index, accepted_at, control, what })
    }
}
