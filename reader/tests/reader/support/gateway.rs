//! What a gateway does, without a gateway: seal readings into the room's current epoch and submit them.

use std::time::Duration;

use ehe::author::Strand;
use ehe::body::vitals::VitalsBody;
use ehe::control::{Control, WrapRecord};
use ehe::event::{CheckedEvent, Core, Kind, Suite, VERSION};
use ehe::id::{Nonce, RoomId, StrandId};
use ehe::kem::{self, WrapPurpose, random_secret};
use ehe::read::Purpose;
use ehe::reading::{DeviceId, Reading, ReadingTime};
use ehe::seal;
use ehe::time::UnixMs;
use ehe::unit::Unit;
use ehe::vital::Vital;
use ehe::wire::Submission;
use ehe_node::clock::Clock;
use ehe_node::consensus::GroupId;
use ehe_node::daemon::Daemon;
use ehe_node::shard::block_of_runs;
use ehe_reader::Error;
use ehe_reader::follow::Following;
use ehe_reader::home::Home;
use ehe_reader::session::{Session, random, rng};
use ehe_reader::submit::submit;

use super::World;

pub fn now() -> UnixMs {
    Clock::system().now()
}

pub fn reading(vital: Vital, value: &str, unit: Unit, at: UnixMs) -> Reading {
    let time = ReadingTime::at_receipt(at, 7, true, 500);
    Reading::new(vital, value.parse().unwrap(), unit, DeviceId::new("strap-1").unwrap(), time).unwrap()
}

/// A wrap and one event.
pub fn sealed(session: &Session, following: &Following, readings: &[Reading]) -> Vec<CheckedEvent> {
    let first = &readings[0];
    let (at, room, author) = (first.at(), following.room(), session.author());
    let epoch = following.view().current_epoch(following.state().unwrap(), first.vital().category()).unwrap();
    let group = &following.view().epoch(epoch).unwrap().group_key;
    let ek = random_secret(&mut rng());
    let purpose = WrapPurpose::EventKey { room, author, epoch, day: at.day() };
    let wrapped = kem::wrap(&mut rng(), group, &purpose, &ek).unwrap();
    let wrap = Control::Wrap(WrapRecord { epoch, day: at.day(), wrapped });
    let wrap = wrap.event(&mut rng(), room, author, now(), None).unwrap();
    let core = Core {
        version: VERSION,
        suite: Suite::One,
        kind: Kind::Vitals,
        room,
        author,
        epoch,
        wrap: wrap.id().into(),
        hour: at.hour(),
        salt: Nonce(random()),
    };
    let body = VitalsBody::from_readings(readings).unwrap().to_vec();
    vec![wrap, seal::seal(&ek, core, &body).unwrap()]
}

impl World {
    /// Readings of one category that a leader which lies puts into the ledger, under a signature that is none.
    pub async fn forge(&self, node: &Daemon, who: &str, room: &str, readings: &[Reading]) {
        let room: RoomId = room.parse().unwrap();
        let home = Home::find(Some(self.path(who)), |_| None).unwrap();
        let mut session =
            Session::open(home, &certs::passphrase::Source::Nobody, Duration::from_secs(20), now).unwrap();
        let following = session.control(room, Purpose::Operations).await.unwrap();
        let mut events = sealed(&session, &following, readings);
        let content = events.split_off(1);
        submit(&mut session, following.me(), room, Some(&following), events).await.unwrap();
        let strand = Strand::new(room, StrandId(random()), None);
        let mut run = strand.link_events(following.me(), &content).run;
        *run.0.last_mut().unwrap() ^= 1;
        let events = content.iter().map(|event| event.event().clone()).collect();
        let block = block_of_runs(now(), vec![Submission { run, events }]);
        let group = GroupId(room.shard(session.charter().shard_count()));
        node.consensus().propose(group, block.into()).await.unwrap();
        session.nodes.close().await;
    }

    /// Readings of one category, sealed and in the ledger when this returns.
    pub async fn measure(&self, who: &str, room: &str, readings: &[Reading]) -> Result<(), Error> {
        let room: RoomId = room.parse().unwrap();
        let home = Home::find(Some(self.path(who)), |_| None).unwrap();
        let mut session =
            Session::open(home, &certs::passphrase::Source::Nobody, Duration::from_secs(20), now).unwrap();
        let following = session.control(room, Purpose::Operations).await?;
        let events = sealed(&session, &following, readings);
        let receipts = submit(&mut session, following.me(), room, Some(&following), events).await?;
        assert_eq!(receipts.len(), 1);
        session.nodes.close().await;
        Ok(())
    }
}
