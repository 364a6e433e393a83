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
use certs::{Client, Connection, Credentials, Role};
use ehe::author::Strand;
use ehe::charter::VerifiedCharter;
use ehe::checkpoint::{Checkpoint, VerifiedCheckpoint};
use ehe::control::{Control, ControlLink, EpochRecord, Grant, Right, RoomCreate, SeedWrap, WrapRecord};
use ehe::event::{CheckedEvent, Core, Kind, Suite, VERSION};
use ehe::id::{EpochId, Hash, Nonce, RoomId, StrandId, WrapId};
use ehe::identity::{Identity, PublicIdentity};
use ehe::kem::{self, KemSecret, Secret32, WrapPurpose};
use ehe::merkle;
use ehe::run::SeenCheckpoint;
use ehe::time::UnixMs;
use ehe::wire::{Request, Response, Submission, Submitted};
use futures::{StreamExt, TryStreamExt, stream};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::lab::alliance::Alliance;
use crate::lab::node::Node;
use crate::lab::process::Programs;

/// No single request may take longer.
pub(super) const LIMIT: Duration = Duration::from_secs(60);
/// Plain bytes of an event: with padding and tag a body of 256 bytes, the smallest that there is.
const PLAIN_BYTES: usize = 200;
/// Their certificates are needed for minutes.
const CERTIFICATE_DAYS: u32 = 2;
/// Steps of the setup that are under way at one time.
const SETUP_AT_ONCE: usize = 8;

/// An alliance with a node under load, and who loads it.
#[derive(Debug)]
pub(super) struct Crowd {
    /// The node, running.
    pub(super) node: Node,
    /// The charter.
    pub(super) charter: VerifiedCharter,
    /// The gateways.
    pub(super) gateways: Vec<Gateway>,
    /// Strands that were begun: each has randomness of its own.
    strands: AtomicU64,
}

/// A gateway: who it is, its line to the node, its room.
#[derive(Debug, Clone)]
pub(super) struct Gateway {
    identity: Identity,
    /// Its connection.
    pub(super) connection: Connection,
    room: RoomId,
    epoch: EpochId,
    group: KemSecret,
    _client: Client,
}

/// Writes to one room in one strand.
#[derive(Debug)]
pub(super) struct Writer {
    gateway: Gateway,
    strand: Strand,
    seen: SeenCheckpoint,
    ek: Secret32,
    core: Core,
    rng: StdRng,
}

/// A run, ready to be sent.
#[derive(Debug, Clone)]
pub(super) struct Prepared {
    /// The request.
    pub(super) frame: Bytes,
    /// Of the run: its receipt has to name both.
    pub(super) room: RoomId,
    /// SHA-256 of the signed run.
    pub(super) run: Hash,
}

fn now() -> UnixMs {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    UnixMs(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// One request, one answer.
pub(super) async fn ask(connection: &Connection, request: &[u8]) -> Result<Bytes> {
    let mut exchange = tokio::time::timeout(LIMIT, connection.open()).await.context("no exchange may begin")??;
    exchange.send(request, LIMIT).await?;
    exchange.finish()?;
    exchange.recv(LIMIT).await?.context("the node ended the exchange without an answer")
}

async fn submit(connection: &Connection, run: Submission) -> Result<Submitted> {
    match Response::decode(&ask(connection, &Request::Submit(run).to_vec()).await?)? {
        Response::Submitted(submitted) => Ok(submitted),
        other => bail!("a run of the setup was answered {other:?}"),
    }
}

impl Crowd {
    /// Founds an alliance with so many gateways and, if given, so many shards; starts the node with the defaults of its limits,
    /// except that it takes more connections than 512, and handshakes as fast as here, where all gateways share one address.
    pub(super) async fn found(
        programs: &Programs,
        folder: &Path,
        gateways: usize,
        shards: Option<u16>,
        say: &impl Fn(String),
    ) -> Result<Self> {
        say(format!("founding an alliance with {gateways} gateways"));
        let alliance = Alliance::found_with_shards(programs, folder, shards).await?;
        let mut node = Node::start_with(&alliance, "[limits]\nconnections_max = 1024\nhandshakes_max = 1024\n")?;
        let patient = Credentials::open(&alliance.enrol("patient", "patient").await?, &held(&alliance))?;
        node.answers("patient").await?;
        let people = tokio::task::block_in_place(|| enrol(&alliance, gateways))?;
        say("making their rooms".into());
        let charter = patient.charter().clone();
        let (_client, connection) = connect(&patient, &charter).await?;
        let (patient, connection, charter_ref) = (patient.identity(), &connection, &charter);
        let gateways = stream::iter((0u64..).zip(people))
            .map(|(n, credentials)| async move {
                let invited = Room::make(n, patient, credentials.identity().public(), charter_ref)?;
                let (room, epoch, group) = (invited.room, invited.epoch, invited.group);
                submit(connection, invited.submission).await?;
                let (client, connection) = connect(&credentials, charter_ref).await?;
                let identity = credentials.identity().clone();
                anyhow::Ok(Gateway { identity, connection, room, epoch, group, _client: client })
            })
            .buffered(SETUP_AT_ONCE)
            .try_collect()
            .await?;
        Ok(Self { node, charter, gateways, strands: AtomicU64::new(0) })
    }

    /// Loses all gateways but so many.
    pub(super) fn shrink(&mut self, gateways: usize) {
        self.gateways.truncate(gateways);
    }

    /// So many writers, each with a strand of its own; they share the gateways' connections evenly.
    pub(super) async fn writers(&self, count: usize) -> Result<Vec<Writer>> {
        let gateways = self.gateways.iter().cycle().take(count);
        stream::iter(gateways)
            .map(|gateway| {
                let seed = u64::MAX - self.strands.fetch_add(1, Ordering::Relaxed);
                Writer::begin(gateway.clone(), seed, &self.charter)
            })
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
        let folder = alliance.path(&format!("gateway{n}"));
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

async fn connect(credentials: &Credentials, charter: &VerifiedCharter) -> Result<(Client, Connection)> {
    let client = Client::new(credentials)?;
    let node = charter.nodes().first().context("the charter names a node")?;
    let connection = client.connect_to(node, LIMIT).await?;
    Ok((client, connection))
}

/// A new room, with one epoch and one appender.
struct Room {
    room: RoomId,
    epoch: EpochId,
    group: KemSecret,
    submission: Submission,
}

impl Room {
    fn make(seed: u64, patient: &Identity, appender: &PublicIdentity, charter: &VerifiedCharter) -> Result<Self> {
        let mut rng = StdRng::seed_from_u64(seed);
        let (alliance, owner, author, at) =
            (charter.alliance_id(), patient.public().clone(), patient.author_id(), now());
        let create = RoomCreate { alliance, nonce: Nonce(rng.random()), owner, recovery: Hash::ZERO };
        let room = create.room_id();
        let create = Control::RoomCreate(create).event(&mut rng, room, author, at, None)?;
        let (epoch, group) = (EpochId(rng.random()), KemSecret::generate(&mut rng));
        let seed = SeedWrap::make(&mut rng, room, epoch, patient.party(), group.seed())?;
        let record = EpochRecord {
            link: ControlLink { seq: 1, previous: create.id() },
            epoch,
            group_key: group.public(),
            supersedes: None,
            continues: vec![],
            seeds: vec![seed],
        };
        let record = Control::Epoch(record).event(&mut rng, room, author, at, None)?;
        let grant = Grant {
            link: ControlLink { seq: 2, previous: record.id() },
            subject: appender.clone(),
            right: Right::Append,
            epochs: vec![epoch],
            from: None,
            until: None,
            expires: None,
            seeds: vec![],
        };
        let grant = Control::Grant(grant).event(&mut rng, room, author, at, None)?;
        let events = [create, record, grant];
        let run = Strand::new(room, StrandId(rng.random()), None).link_events(patient, &events).run;
        let submission = Submission { run, events: events.into_iter().map(CheckedEvent::into_event).collect() };
        Ok(Self { room, epoch, group, submission })
    }
}

impl Writer {
    /// Makes an event key and commits its wrap.
    async fn begin(gateway: Gateway, seed: u64, charter: &VerifiedCharter) -> Result<Self> {
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
        let submitted = submit(&gateway.connection, submission).await?;
        let shard = room.shard(charter.shard_count());
        let seen = VerifiedCheckpoint::verify(&submitted.receipt.checkpoint, shard, charter)?.checkpoint().seen();
        strand.accepted(&linked, seen.clone());
        Ok(Self { gateway, strand, seen, ek, core, rng })
    }

    /// The next runs of so many events each.
    pub(super) fn prepare(&mut self, runs: usize, events: usize) -> Result<Vec<Prepared>> {
        (0..runs).map(|_| self.prepare_one(events)).collect()
    }

    fn prepare_one(&mut self, events: usize) -> Result<Prepared> {
        let sealed = (0..events).map(|_| {
            let core = Core { salt: Nonce(self.rng.random()), ..self.core.clone() };
            Ok(ehe::seal::seal(&self.ek, core, &[7; PLAIN_BYTES])?)
        });
        let sealed = sealed.collect::<Result<Vec<_>>>()?;
        let linked = self.strand.link_events(&self.gateway.identity, &sealed);
        self.strand.accepted(&linked, self.seen.clone());
        let (room, run) = (self.gateway.room, linked.run.hash());
        let events = sealed.into_iter().map(CheckedEvent::into_event).collect();
        let frame = Bytes::from(Request::Submit(Submission { run: linked.run, events }).to_vec());
        Ok(Prepared { frame, room, run })
    }

    /// Its gateway's connection.
    pub(super) fn connection(&self) -> &Connection {
        &self.gateway.connection
    }
}

/// Verifies receipts as a gateway does, except that a checkpoint that vouches for many is verified once.
pub(super) struct Verifier<'a> {
    charter: &'a VerifiedCharter,
    checkpoints: HashMap<(u16, String), Checkpoint>,
}

impl<'a> Verifier<'a> {
    /// Under a charter.
    pub(super) fn new(charter: &'a VerifiedCharter) -> Self {
        Self { charter, checkpoints: HashMap::new() }
    }

    /// Fails unless the answer proves that the run is in the log.
    pub(super) fn verify(&mut self, sent: &Prepared, answer: &[u8]) -> Result<()> {
        let receipt = match Response::decode(answer)? {
            Response::Submitted(submitted) => submitted.receipt,
            Response::Refused(why) => bail!("a run under load was refused: {why}"),
            other => bail!("a run under load was answered {other:?}"),
        };
        ensure!(receipt.leaf.room == sent.room && receipt.leaf.entry == sent.run, "a receipt for another run");
        let shard = sent.room.shard(self.charter.shard_count());
        let key = (shard, receipt.checkpoint);
        let tree = match self.checkpoints.get(&key) {
            Some(tree) => tree.clone(),
            None => {
                let tree = VerifiedCheckpoint::verify(&key.1, shard, self.charter)?.checkpoint().clone();
                self.checkpoints.insert(key, tree.clone());
                tree
            }
        };
        merkle::verify_inclusion(&receipt.leaf.hash(), receipt.log_index, tree.size, &receipt.proof, &tree.root)?;
        Ok(())
    }

    /// Different checkpoints seen.
    pub(super) fn checkpoints(&self) -> usize {
        self.checkpoints.len()
    }
}
