//! What the measurements work on: an author, a key, windows of heart rates, a charter of three nodes.

use std::num::NonZeroU16;

use ehe::body::vitals::VitalsBody;
use ehe::charter::{
    Charter, CharterChain, Member, Node, Permissions, Placement, SignedCharter, Trust, VerifiedCharter,
};
use ehe::decimal::Decimal;
use ehe::event::{CheckedEvent, Core, Kind, Suite, VERSION};
use ehe::id::{AllianceId, EpochId, MemberId, NodeId, Nonce, RoomId, WrapId};
use ehe::identity::Identity;
use ehe::kem::{Secret32, random_secret};
use ehe::limits::{COLUMN_PCO_VALUES_MIN, READINGS_PER_BODY_MAX};
use ehe::reading::{DeviceId, DeviceTime, Flags, Reading, ReadingTime, TimeMethod};
use ehe::seal;
use ehe::time::UnixMs;
use ehe::unit::Unit;
use ehe::vital::Vital;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

pub(crate) struct World {
    pub(crate) author: Identity,
    pub(crate) ek: Secret32,
    pub(crate) members: Vec<Identity>,
    pub(crate) nodes: Vec<Identity>,
    pub(crate) charter: VerifiedCharter,
}

pub(crate) const START_MS: u64 = 1_700_000_000_000;

impl World {
    pub(crate) fn new() -> Self {
        let mut rng = StdRng::seed_from_u64(1);
        let author = Identity::generate(&mut rng);
        let ek = random_secret(&mut rng);
        let members: Vec<Identity> = (0..3).map(|_| Identity::generate(&mut rng)).collect();
        let nodes: Vec<Identity> = (0..3).map(|_| Identity::generate(&mut rng)).collect();
        let charter = charter(&members, &nodes);
        Self { author, ek, members, nodes, charter }
    }

    /// Two versions of the charter: the second says what the first does.
    pub(crate) fn chain(&self) -> CharterChain {
        let predecessor = Some(self.charter.hash());
        let next = Charter { version: 2, predecessor, ..self.charter.charter().clone() };
        let mut second = SignedCharter::unsigned(&next).unwrap();
        for member in &self.members {
            second.sign(member).unwrap();
        }
        CharterChain(vec![self.charter.signed().clone(), second])
    }

    pub(crate) fn core(&self, number: u32) -> Core {
        let mut salt = [5; 16];
        salt[..4].copy_from_slice(&number.to_le_bytes());
        Core {
            version: VERSION,
            suite: Suite::One,
            kind: Kind::Vitals,
            room: RoomId([1; 16]),
            author: self.author.author_id(),
            epoch: EpochId([3; 16]),
            wrap: WrapId([4; 16]),
            hour: UnixMs(START_MS).hour(),
            salt: Nonce(salt),
        }
    }

    pub(crate) fn sealed(&self, readings: &[Reading], number: u32) -> CheckedEvent {
        let body = VitalsBody::from_readings(readings).unwrap().to_vec();
        seal::seal(&self.ek, self.core(number), &body).unwrap()
    }
}

fn charter(members: &[Identity], nodes: &[Identity]) -> VerifiedCharter {
    let id = |i: usize| u8::try_from(i).unwrap();
    let charter = Charter {
        version: 1,
        alliance: "Bench".into(),
        predecessor: None,
        shard_count: NonZeroU16::new(16).unwrap(),
        members: (members.iter().enumerate())
            .map(|(i, m)| Member { id: MemberId([id(i); 8]), name: format!("m{i}"), identity: m.public().clone() })
            .collect(),
        nodes: (nodes.iter().enumerate())
            .map(|(i, node)| Node {
                id: NodeId([id(i); 8]),
                member: MemberId([id(i); 8]),
                name: format!("node-{i}.example"),
                sign: node.public().sign,
                addresses: vec![format!("127.0.0.1:{}", 4433 + i)],
            })
            .collect(),
        placement: Placement::Everywhere((0..nodes.len()).map(|i| NodeId([id(i); 8])).collect()),
        permissions: Permissions::default(),
        head_fresh_ms: 60_000,
        min_cosignatures: None,
        rules: None,
    };
    let mut signed = SignedCharter::unsigned(&charter).unwrap();
    for member in members {
        signed.sign(member).unwrap();
    }
    signed.verify(Trust::Pinned(AllianceId(signed.hash().0))).unwrap()
}

/// A belt's heart rates, one a second: a walk of a beat up or down, delivered with a radio's jitter, both clocks read.
pub(crate) fn window(count: u32, seed: u64) -> Vec<Reading> {
    let mut rng = StdRng::seed_from_u64(seed);
    let device = DeviceId::new("wearables/polar-h10-7E2B41").unwrap();
    let mut rate = 72u32;
    (0..u64::from(count))
        .map(|i| {
            rate = (rate + rng.random_range(0..3u32)).saturating_sub(1).clamp(50, 140);
            let sent = START_MS + i * 1_000;
            let received = sent + 20 + rng.random_range(0..40u64) + rng.random_range(0..25u64);
            let time = ReadingTime {
                device: Some(DeviceTime { wall_ms: i64::try_from(sent).unwrap(), offset_min: Some(0) }),
                received: UnixMs(received),
                received_monotonic_ms: received - 1_699_000_000_000 + u64::from(rng.random_range(0..8u32) == 0),
                derived: Some(UnixMs(sent)),
                interval_ms: None,
                method: TimeMethod::DeviceUtc,
                uncertainty_ms: 1_000,
                clock_synchronised: true,
            };
            Reading::new(Vital::HeartRate, Decimal::from(rate), Unit::PerMinute, device.clone(), time).unwrap()
        })
        .collect()
}

/// As many readings as a body holds, in series of as few as pco may compress, and in each of their seven columns values that it
/// compresses well: the costliest body to read that we know of.
pub(crate) fn costly() -> Vec<Reading> {
    let mut rng = StdRng::seed_from_u64(6);
    // Most of the numbers are small, some are anything: plain columns take 64 bits for each.
    let mut number = |bits: u32| if rng.random_range(0..32u8) == 0 { rng.random::<u64>() >> (64 - bits) } else { 3 };
    let mut readings = Vec::new();
    for series in 0..READINGS_PER_BODY_MAX / COLUMN_PCO_VALUES_MIN {
        let device = DeviceId::new(&format!("d{series}")).unwrap();
        for _ in 0..COLUMN_PCO_VALUES_MIN {
            let time = ReadingTime {
                device: Some(DeviceTime { wall_ms: number(62).cast_signed(), offset_min: None }),
                received: UnixMs(number(62)),
                received_monotonic_ms: number(62),
                derived: Some(UnixMs(number(62))),
                interval_ms: Some(number(62)),
                method: TimeMethod::DeviceUtc,
                uncertainty_ms: u32::try_from(number(32)).unwrap(),
                clock_synchronised: true,
            };
            let value = Decimal::new(number(62).cast_signed(), 0);
            let reading = Reading::new(Vital::HeartRate, value, Unit::PerMinute, device.clone(), time).unwrap();
            readings.push(reading.with_flags(Flags::IMPLAUSIBLE));
        }
    }
    readings
}
