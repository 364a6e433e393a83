//! Many gateways of one alliance, each with a room of its own and a connection of its own, and the runs that they will send:
//! sealed and signed beforehand, so that the load costs this machine little while it is measured.

use std::collections::HashMap;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use certs::authority::Authority;
use certs::enrol::{self, EnrolmentRequest, HostNames};
use certs::passphrase::Source;
use certs::store::names;
use certs::{Connection, Credentials, Role};
use ehe::author::Strand;
use ehe::charter::VerifiedCharter;
use ehe::checkpoint::{Checkpoint, VerifiedCheckpoint};
use ehe::control::{Control, ControlLink, WrapRecord};
use ehe::event::{CheckedEvent, Core, Kind, Suite, VERSION};
use ehe::id::{EheId, EpochId, Hash, NodeId, Nonce, RoomId, StrandId, WrapId};
use ehe::identity::Identity;
use ehe::kem::{self, KemSecret, Secret32, WrapPurpose};
use ehe::leaf::{Leaf, Receipt};
use ehe::merkle;
use ehe::run::SeenCheckpoint;
use ehe::time::UnixMs;
use ehe::wire::{Request, Response, Submission};
use futures::{StreamExt, TryStreamExt, stream};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::room::Room;
use crate::lab::alliance::{Alliance, Founding};
use crate::lab::charters::Charters;
use crate::lab::line::{self, Line};
use crate::lab::node::Node;
use crate::lab::process::Programs;
use crate::lab::site::Site;

/// No single request may take longer.
pub const LIMIT: Duration = Duration::from_secs(60);
/// In the setup, one node gets so long before the next one is asked.
const ATTEMPT: Duration = Duration::from_secs(5);
/// The smallest body that there is.
pub const BODY_MIN_BYTES: usize = 256;
/// Of a body, padding's marker and the tag.
const BODY_OVERHEAD_BYTES: usize = 17;
/// Their certificates are needed for minutes.
const CERTIFICATE_DAYS: u32 = 2;
/// Steps of the setup that are under way at one time.
const SETUP_AT_ONCE: usize = 8;

/// How much there is of what.
#[derive(Debug, Clone, Copy)]
pub struct Size {
    /// Hospitals, with a node and a charter of their own.
    pub founding: Founding,
    /// Gateways.
    pub gateways: usize,
    /// Of each event's body; a Padmé length, 256 at least.
    pub body_bytes: usize,
    /// What else stands in the nodes' configurations.
    pub node: &'static str,
}

/// The defaults of a node's limits, except that it takes more connections than 512, and handshakes as fast as here, where all gateways
/// share one address.
pub const NODE_FOR_MANY: &str = "[limits]\nconnections_max = 1024\nhandshakes_max = 1024\n";

/// An alliance whose nodes run and answer its patient, and do nothing yet.
#[derive(Debug)]
pub struct Standing {
    /// Its folders.
    pub alliance: Alliance,
    /// The nodes, running.
    pub nodes: Vec<Node>,
    /// Whose the rooms will be.
    pub patient: Credentials,
}

impl Standing {
    /// Founds it at these places, with more in the nodes' configurations.
    pub async fn found(
        programs: &Programs,
        folder: &Path,
        founding: Founding,
        sites: Vec<Site>,
        node: &str,
    ) -> Result<Self> {
        let alliance = Alliance::found_on(programs, folder, founding, sites).await?;
        let mut nodes = Node::start_all(&alliance, node)?;
        let patient = Credentials::open(&alliance.enrol("patient", "patient").await?, &held(&alliance))?;
        for node in &mut nodes {
            node.answers("patient").await?;
        }
        Ok(Self { alliance, nodes, patient })
    }
}

/// An alliance with its nodes under load, and who loads them.
#[derive(Debug)]
pub struct Crowd {
    /// Its folders.
    pub alliance: Alliance,
    /// The nodes, running.
    pub nodes: Vec<Node>,
    /// The charter.
    pub charter: VerifiedCharter,
    /// The gateways.
    pub gateways: Vec<Gateway>,
    /// Of each event's body.
    body_bytes: usize,
    /// Whose the rooms are.
    patient: Identity,
    line: Line,
    /// Strands that were begun: each has randomness of its own.
    strands: AtomicU64,
}

/// A gateway: who it is, its line to the nodes, its room.
#[derive(Debug, Clone)]
pub struct Gateway {
    identity: Identity,
    /// Its way to any node.
    pub line: Line,
    /// Its connection to the node that led its room's shard when it was made.
    connection: Connection,
    /// Its room.
    pub room: RoomId,
    /// Of the room.
    pub shard: u16,
    /// The key epoch that it seals to.
    pub epoch: EpochId,
    /// The epoch's group key, as the patient has it.
    pub group: KemSecret,
    /// Place of the patient's next control event in the room.
    pub next: ControlLink,
}

/// Writes to one room in one strand.
#[derive(Debug)]
pub struct Writer {
    gateway: Gateway,
    strand: Strand,
    seen: SeenCheckpoint,
    ek: Secret32,
    core: Core,
    /// What every event says.
    plain: Vec<u8>,
    rng: StdRng,
}

/// A run, ready to be sent.
#[derive(Debug, Clone)]
pub struct Prepared {
    /// The request.
    pub frame: Bytes,
    /// Of the run: its receipt has to name both.
    pub room: RoomId,
    /// SHA-256 of the signed run.
    pub run: Hash,
    /// Its events.
    pub events: Vec<EheId>,
}

pub(super) fn now() -> UnixMs {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    UnixMs(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// One request, one answer.
pub async fn ask(connection: &Connection, request: &[u8]) -> Result<Bytes> {
    line::ask(connection, request, LIMIT).await
}

/// Orders a run of the setup, wherever the shard is led; who led, and the receipt.
async fn submit(line: &Line, shard: u16, run: Submission) -> Result<(NodeId, Receipt)> {
    let own = run.run.hash();
    let (node, answer) = line.ask(shard, &Request::Submit(run).to_vec(), ATTEMPT, LIMIT).await?;
    match Response::decode(&answer)? {
        Response::Submitted(submitted) => Ok((node, submitted.receipt)),
        // The answer of an attempt before did not come in time.
        Response::Known(runs) => {
            let known = runs.into_iter().find(|known| known.run.hash() == own);
            Ok((node, known.context("runs are known, and not this one")?.receipt))
        }
        other => bail!("a run of the setup was answered {other:?}"),
    }
}

impl Crowd {
    /// Founds an alliance, starts its nodes, and makes gateways with rooms.
    pub async fn found(programs: &Programs, folder: &Path, size: Size, say: &impl Fn(String)) -> Result<Self> {
        let Size { founding, gateways, body_bytes, node } = size;
        say(format!("founding an alliance of {} with {gateways} gateways", founding.members));
        let sites = Site::on_loopback(founding.members)?;
        let standing = Standing::found(programs, folder, founding, sites, node).await?;
        Self::on(standing, gateways, body_bytes, say).await
    }

    /// Makes gateways with rooms where nodes run already.
    pub async fn on(standing: Standing, gateways: usize, body_bytes: usize, say: &impl Fn(String)) -> Result<Self> {
        let Standing { alliance, nodes, patient } = standing;
        Ok(Self { nodes, body_bytes, ..Self::among(&alliance, patient, gateways, say).await? })
    }

    /// Gateways with rooms of this patient, in an alliance whose nodes are somebody else's.
    pub async fn among(
        alliance: &Alliance,
        patient: Credentials,
        gateways: usize,
        say: &impl Fn(String),
    ) -> Result<Self> {
        let alliance = alliance.clone();
        let people = tokio::task::block_in_place(|| enrol(&alliance, gateways))?;
        say("making their rooms".into());
        let charter = patient.charter().clone();
        let own_line = Line::new(&patient)?;
        let (patient, line, charter_ref) = (patient.identity().clone(), &own_line, &charter);
        let owner = &patient;
        let gateways = stream::iter((0u64..).zip(people))
            .map(|(n, credentials)| async move {
                let invited = Room::make(n, owner, credentials.identity().public(), charter_ref)?;
                let Room { room, epoch, group, next, submission } = invited;
                let shard = room.shard(charter_ref.shard_count());
                let (node, _) = submit(line, shard, submission).await?;
                let line = Line::new(&credentials)?;
                let connection = line.connection(node, LIMIT).await?;
                let identity = credentials.identity().clone();
                anyhow::Ok(Gateway { identity, line, connection, room, shard, epoch, group, next })
            })
            .buffered(SETUP_AT_ONCE)
            .try_collect()
            .await?;
        let strands = AtomicU64::new(0);
        let body_bytes = BODY_MIN_BYTES;
        Ok(Self { alliance, nodes: Vec::new(), charter, gateways, body_bytes, patient, line: own_line, strands })
    }

    /// Whose the rooms are, and the way to the nodes.
    pub fn patient(&self) -> (&Identity, &Line) {
        (&self.patient, &self.line)
    }

    /// One more room for the gateway of this place, in this shard, which that node leads.
    pub async fn another_room(&self, gateway: usize, shard: u16, leader: NodeId) -> Result<Gateway> {
        let gateway = self.gateways.get(gateway).context("there is no such gateway")?;
        for line in [&self.line, &gateway.line] {
            line.led_by(shard, leader);
        }
        let rooms = (u64::MAX / 2..).map(|n| Room::make(n, &self.patient, gateway.identity.public(), &self.charter));
        let wanted = |room: &Result<Room>| {
            room.as_ref().map_or(true, |room| room.room.shard(self.charter.shard_count()) == shard)
        };
        let made = rooms.into_iter().find(wanted).context("numbers end")??;
        let Room { room, epoch, group, submission, next } = made;
        submit(&self.line, shard, submission).await?;
        Ok(Gateway { room, shard, epoch, group, next, ..gateway.clone() })
    }

    /// One more writer.
    pub async fn writer(&self, gateway: Gateway) -> Result<Writer> {
        let seed = u64::MAX - self.strands.fetch_add(1, Ordering::Relaxed);
        Writer::begin(gateway, seed, self.body_bytes, &self.charter).await
    }

    /// Connects each gateway again to a node of its room's group, after that was started again.
    pub async fn reconnect(&mut self) -> Result<()> {
        for gateway in &mut self.gateways {
            let node = *self.charter.group(gateway.shard).first().context("the shard has a group")?;
            gateway.connection = gateway.line.connection(node, LIMIT).await?;
        }
        Ok(())
    }

    /// Loses all gateways but so many.
    pub fn shrink(&mut self, gateways: usize) {
        self.gateways.truncate(gateways);
    }

    /// So many writers, each with a strand of its own; they share the gateways' connections evenly.
    pub async fn writers(&self, count: usize) -> Result<Vec<Writer>> {
        let gateways = self.gateways.iter().cycle().take(count);
        stream::iter(gateways)
            .map(|gateway| self.writer(gateway.clone()))
            .buffered(4 * SETUP_AT_ONCE)
            .try_collect()
            .await
    }
}

/// The lab's passphrase, which protects what persons hold.
fn held(alliance: &Alliance) -> Source {
    Source::File(alliance.path("passphrase"))
}

/// Credentials of so many gateways. By the library: a thousand starts of `ehe-certs` would take longer than what is measured.
fn enrol(alliance: &Alliance, gateways: usize) -> Result<Vec<Credentials>> {
    let authority = Authority::open_with(&alliance.path("alliance"), &held(alliance))?;
    let enrol = |n| {
        let folder = alliance.path(&format!("crowd{n}"));
        enrol::prepare(&folder, Role::Gateway, &HostNames { dns: vec![], ip: vec![] })?;
        let request = EnrolmentRequest::load(&folder.join(names::REQUEST))?.verify()?;
        let issued = authority.issue(&request, Role::Gateway, CERTIFICATE_DAYS, std::time::SystemTime::now().into())?;
        std::fs::write(folder.join(names::CHANNEL), issued.pem)?;
        for name in [names::CA, names::CHARTER] {
            std::fs::copy(alliance.path("alliance").join(name), folder.join(name))?;
        }
        Ok(Credentials::load(&folder)?)
    };
    (0..gateways).map(enrol).collect()
}

impl Writer {
    /// Makes an event key and commits its wrap.
    async fn begin(gateway: Gateway, seed: u64, body_bytes: usize, charter: &VerifiedCharter) -> Result<Self> {
        let mut rng = StdRng::seed_from_u64(seed);
        let at = now();
        let (room, epoch, author, day) = (gateway.room, gateway.epoch, gateway.identity.author_id(), at.day());
        let ek = kem::random_secret(&mut rng);
        let purpose = WrapPurpose::EventKey { room, author, epoch, day };
        let wrapped = kem::wrap(&mut rng, &gateway.group.public(), &purpose, &ek)?;
        let wrap = Control::Wrap(WrapRecord { epoch, day, wrapped }).event(&mut rng, room, author, at, None)?;
        let core = Core {
            version: VERSION,
            suite: Suite::One,
            kind: Kind::Vitals,
            room,
            author,
            epoch,
            wrap: WrapId::from(wrap.id()),
            hour: at.hour(),
            salt: Nonce::ZERO,
        };
        let mut strand = Strand::new(room, StrandId(rng.random()), None);
        let linked = strand.link_events(&gateway.identity, std::slice::from_ref(&wrap));
        let submission = Submission { run: linked.run.clone(), events: vec![wrap.into_event()] };
        let shard = gateway.shard;
        let (_, receipt) = submit(&gateway.line, shard, submission).await?;
        let seen = VerifiedCheckpoint::verify(&receipt.checkpoint, shard, charter)?.checkpoint().seen();
        strand.accepted(&linked, seen.clone());
        let plain = vec![7; body_bytes.saturating_sub(BODY_OVERHEAD_BYTES)];
        Ok(Self { gateway, strand, seen, ek, core, plain, rng })
    }

    /// The next runs of so many events each.
    pub fn prepare(&mut self, runs: usize, events: usize) -> Result<Vec<Prepared>> {
        (0..runs).map(|_| self.prepare_one(events)).collect()
    }

    fn prepare_one(&mut self, events: usize) -> Result<Prepared> {
        let sealed = (0..events).map(|_| {
            let core = Core { salt: Nonce(self.rng.random()), ..self.core.clone() };
            Ok(ehe::seal::seal(&self.ek, core, &self.plain)?)
        });
        let sealed = sealed.collect::<Result<Vec<_>>>()?;
        let linked = self.strand.link_events(&self.gateway.identity, &sealed);
        self.strand.accepted(&linked, self.seen.clone());
        let (room, run) = (self.gateway.room, linked.run.hash());
        let ids = sealed.iter().map(CheckedEvent::id).collect();
        let events = sealed.into_iter().map(CheckedEvent::into_event).collect();
        let frame = Bytes::from(Request::Submit(Submission { run: linked.run, events }).to_vec());
        Ok(Prepared { frame, room, run, events: ids })
    }

    /// Its gateway's connection to the node that led when the gateway was made.
    pub fn connection(&self) -> &Connection {
        &self.gateway.connection
    }

    /// Its gateway.
    pub fn gateway(&self) -> &Gateway {
        &self.gateway
    }
}

/// Verifies receipts as a gateway does, except that a checkpoint that vouches for many is verified once.
pub struct Verifier {
    charters: Charters,
    checkpoints: HashMap<(u16, String), (Checkpoint, Vec<NodeId>)>,
}

/// Where a run stands, and who says so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proven {
    /// Its leaf.
    pub leaf: Leaf,
    /// Its place in the shard's log.
    pub log_index: u64,
    /// The checkpoint that vouches for it.
    pub checkpoint: SeenCheckpoint,
    /// The nodes that cosigned the checkpoint.
    pub cosigners: Vec<NodeId>,
}

impl Verifier {
    /// Under a charter.
    pub fn new(charter: &VerifiedCharter) -> Self {
        Self::under(Charters::only(charter))
    }

    /// Under whichever of these a checkpoint names.
    pub fn under(charters: Charters) -> Self {
        Self { charters, checkpoints: HashMap::new() }
    }

    /// Fails unless the answer proves that the run is in the log, now or from before.
    pub fn verify(&mut self, sent: &Prepared, answer: &[u8]) -> Result<Proven> {
        let receipt = match Response::decode(answer)? {
            Response::Submitted(submitted) => submitted.receipt,
            Response::Known(runs) => {
                let own = runs.into_iter().find(|known| known.run.hash() == sent.run);
                own.context("runs are known, and not this one")?.receipt
            }
            Response::Refused(why) => bail!("a run under load was refused: {why}"),
            other => bail!("a run under load was answered {other:?}"),
        };
        ensure!(receipt.leaf.room == sent.room && receipt.leaf.entry == sent.run, "a receipt for another run");
        let charter = self.charters.of(&receipt.checkpoint)?;
        let shard = sent.room.shard(charter.shard_count());
        let key = (shard, receipt.checkpoint);
        let (tree, cosigners) = match self.checkpoints.get(&key) {
            Some(known) => known.clone(),
            None => {
                let verified = VerifiedCheckpoint::verify(&key.1, shard, &charter)?;
                let cosigners = verified.cosigners().iter().map(|(node, _)| *node).collect();
                let new = (verified.checkpoint().clone(), cosigners);
                self.checkpoints.insert(key, new.clone());
                new
            }
        };
        let Receipt { leaf, log_index, proof, .. } = receipt;
        merkle::verify_inclusion(&leaf.hash(), log_index, tree.size, &proof, &tree.root)?;
        Ok(Proven { leaf, log_index, checkpoint: tree.seen(), cosigners })
    }

    /// Different checkpoints seen.
    pub fn checkpoints(&self) -> usize {
        self.checkpoints.len()
    }
}
