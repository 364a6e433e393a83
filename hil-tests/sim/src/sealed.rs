//! Runs of events in the real shard, with cosigned checkpoints and receipts: what a group of a [sealed](crate::plan::Plan::sealed)
//! run holds instead of a list of commands.

use std::{
    collections::BTreeMap,
    num::NonZeroU16,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use ehe::{
    charter::{Charter, Member, Node, Permissions, Placement, SignedCharter, Trust, VerifiedCharter},
    id::{AllianceId, Hash, MemberId, NodeId},
    identity::Identity,
    time::UnixMs,
};
use ehe_node::{
    checkpoint::{
        self, Board, Checkpointed, Checkpointer, Evidence, EvidenceSink, Line, MayOrder, Outbound, Published, Who,
    },
    clock::Clock,
    consensus::{
        Consensus, GroupId, Machine,
        sim::{self, Chance, Process},
    },
    cosign::CosignFile,
    node::{node_id, raft_id},
    shard::{Place, Recent, ShardMachine, Store},
};
use tokio::sync::watch;

use crate::{
    chance::rng,
    cluster::Cluster,
    disk::{Disk, Platter},
    ledger::Ledger,
    machine::Watched,
};

/// The one group of such a run.
pub const GROUP: GroupId = GroupId(0);
const SHARD: u16 = 0;
/// 2026-11-20T00:00:00Z: when runs begin.
const BEGIN_MS: u64 = 1_795_132_800_000;
const CACHE_BYTES: usize = 1 << 20;

/// The members, each with one node.
pub struct Alliance {
    pub charter: Arc<VerifiedCharter>,
    identities: BTreeMap<u64, Arc<Identity>>,
}

impl Alliance {
    pub fn new(nodes: impl IntoIterator<Item = u64>) -> Self {
        let new = || Identity::generate(&mut rng());
        let seats: Vec<(u64, Identity, Identity)> = nodes.into_iter().map(|id| (id, new(), new())).collect();
        let member = |id: u64| MemberId(id.to_be_bytes());
        let node = |id: u64| NodeId(id.to_be_bytes());
        let charter = Charter {
            version: 1,
            alliance: "Simulated".into(),
            predecessor: None,
            shard_count: NonZeroU16::MIN,
            members: seats
                .iter()
                .map(|(id, voter, _)| Member {
                    id: member(*id),
                    name: format!("m{id}"),
                    identity: voter.public().clone(),
                })
                .collect(),
            nodes: seats
                .iter()
                .map(|(id, _, identity)| Node {
                    id: node(*id),
                    member: member(*id),
                    name: name(*id),
                    sign: identity.public().sign,
                    addresses: vec!["127.0.0.1:1".into()],
                })
                .collect(),
            placement: Placement::Everywhere(seats.iter().map(|(id, ..)| node(*id)).collect()),
            permissions: Permissions::default(),
            head_fresh_ms: 300_000,
            min_cosignatures: None,
            rules: None,
        };
        let mut signed = SignedCharter::unsigned(&charter).unwrap();
        seats.iter().for_each(|(_, voter, _)| signed.sign(voter).unwrap());
        let charter = signed.verify(Trust::Pinned(AllianceId(signed.hash().0))).unwrap();
        let identities = seats.into_iter().map(|(id, _, identity)| (id, Arc::new(identity))).collect();
        Self { charter: Arc::new(charter), identities }
    }

    pub fn id(&self) -> AllianceId {
        self.charter.alliance_id()
    }

    fn place(&self) -> Place {
        Place { alliance: self.id(), shard_count: NonZeroU16::MIN, shard: SHARD }
    }

    fn who(&self, id: u64) -> Who {
        let (identity, charter) = (self.identities[&id].clone(), self.charter.clone());
        Who { id: NodeId(id.to_be_bytes()), name: name(id), identity, charter }
    }

    /// The disks of a node as it is set up: the log's, its journal's, the shard's, and that of what it cosigned.
    pub fn disks(&self, id: u64) -> Vec<Platter> {
        let shard = Platter::made(|disk| {
            drop(Store::open_with_backend(disk, self.id(), SHARD, CACHE_BYTES).unwrap());
        });
        let cosigned = Platter::made(|disk| {
            drop(CosignFile::open_with_backend(disk, self.id(), NodeId(id.to_be_bytes()), 1).unwrap());
        });
        vec![Platter::formatted(), Platter::default(), shard, cosigned]
    }
}

fn name(id: u64) -> String {
    format!("node{id}.example")
}

pub fn wall() -> UnixMs {
    UnixMs(BEGIN_MS + u64::try_from(sim::now().as_millis()).unwrap())
}

/// What a node has of the shard while it lives.
#[derive(Clone)]
pub struct Shard {
    pub store: Store,
    pub recent: Recent,
    pub shown: watch::Receiver<Checkpointed>,
    pub board: Arc<Board>,
}

impl Shard {
    /// Waits for a checkpoint of at least `size` leaves; `None` if there will be none.
    pub async fn checkpoint_of(&self, size: u64) -> Option<Arc<Published>> {
        loop {
            match &*self.shown.borrow() {
                Checkpointed::Fenced => return None,
                Checkpointed::At(published) if published.size >= size => return Some(published.clone()),
                Checkpointed::At(_) | Checkpointed::None => {}
            }
            sim::sleep(Duration::from_millis(2)).await;
        }
    }
}

struct Accused(Ledger, u64);

impl EvidenceSink for Accused {
    fn found(&mut self, evidence: Evidence) {
        self.0.violated(format!("node {} holds evidence against an honest node, {}", self.1, evidence.of));
    }
}

/// What a process does first.
pub async fn open(
    cluster: Cluster,
    process: Process,
    disks: Vec<Disk>,
    alliance: Arc<Alliance>,
    mut chance: Chance,
) -> Result<(Consensus, Shard), String> {
    let id = process.number();
    let [log, journal, state, cosigned] = <[Disk; 4]>::try_from(disks).map_err(|_| "not its disks")?;
    let who = alliance.who(id);
    let store =
        Store::open_with_backend(state, alliance.id(), SHARD, CACHE_BYTES).map_err(|error| error.to_string())?;
    let file = CosignFile::open_with_backend(cosigned, alliance.id(), who.id, 1).map_err(|error| error.to_string())?;
    let board = Arc::new(Board::new(checkpoint::peers(&alliance.charter, who.id)));
    let machine =
        ShardMachine::new(alliance.place(), store.clone(), board.clone()).map_err(|error| error.to_string())?;
    let recent = machine.recent();
    let machine = Watched { inner: machine, node: id, group: GROUP, ledger: cluster.ledger().clone() };
    let link = cluster.net().link(&process);
    let config = cluster.plan().config(id);
    let consensus = Consensus::open_with_backends(config, (log, journal), vec![(GROUP, machine)], link).await;
    let consensus = consensus.map_err(|error| error.to_string())?;
    let (shown, showing) = watch::channel(Checkpointed::None);
    let leader = consensus.clone();
    let outbound = Outbound::new(checkpoint::peers(&alliance.charter, who.id));
    // Clocks differ, by less than is borne.
    let skew = chance.below(20_000);
    let checkpointer = Checkpointer {
        who,
        file,
        lines: BTreeMap::from([(SHARD, Line { store: store.clone(), recent: recent.clone(), shown })]),
        leader: Box::new(move |_| leader.status(GROUP).and_then(|status| status.leader).map(node_id)),
        outbound: outbound.clone(),
        evidence: Box::new(Accused(cluster.ledger().clone(), id)),
        may_order: MayOrder::default(),
        clock: Clock::new(move || UnixMs(wall().0 + skew)),
        stats: Arc::default(),
    };
    let (news, began) = (board.clone(), sim::now());
    drop(process.spawn(async move {
        let mut rounds = checkpointer.begin();
        let running = || sim::now() - began;
        loop {
            let due = rounds.due().is_some_and(|due| due <= running());
            match news.news() {
                None if !due => {}
                news => rounds.round(news.unwrap_or_default(), running),
            }
            sim::sleep(Duration::from_millis(1) + chance.time(Duration::from_millis(4))).await;
        }
    }));
    for peer in outbound.peers() {
        let (outbound, net) = (outbound.clone(), cluster.net().clone());
        drop(process.spawn(async move {
            while let Some(message) = outbound.next(peer).await {
                net.mail(id, raft_id(peer).0, message);
            }
        }));
    }
    Ok((consensus, Shard { store, recent, shown: showing, board }))
}

/// What a closed node has: the whole state, and of each receipt whether its leaf is where it says.
pub struct Closed {
    pub state: Vec<u8>,
    pub root: Hash,
    pub leaves: BTreeMap<u64, Hash>,
}

/// Reads the disk of a shard that is closed.
pub fn read(alliance: &Alliance, disk: Disk) -> Result<Closed, String> {
    let text = |error: ehe_node::shard::StoreError| error.to_string();
    let store = Store::open_with_backend(disk, alliance.id(), SHARD, CACHE_BYTES).map_err(text)?;
    let view = store.view().map_err(text)?;
    let size = view.shard().leaves;
    let root = ehe::merkle::Peaks::load(&view, size).map_err(text)?.root();
    let mut leaves = BTreeMap::new();
    for index in 0..size {
        let entry = view.entry(index).map_err(text)?;
        leaves.insert(index, view.leaf(&entry).map_err(text)?.hash());
    }
    let machine = ShardMachine::new(alliance.place(), store, Arc::default()).map_err(text)?;
    let mut state = Vec::new();
    let mut snapshot = machine.snapshot().map_err(|error| error.to_string())?;
    std::io::Read::read_to_end(&mut snapshot, &mut state).map_err(|error| error.to_string())?;
    Ok(Closed { state, root, leaves })
}

/// Leaves that gateways hold receipts of.
#[derive(Clone, Debug, Default)]
pub struct Receipts(Arc<Mutex<BTreeMap<u64, Hash>>>);

impl Receipts {
    /// A gateway holds one. `Err`: it holds another for the same place.
    pub fn keep(&self, index: u64, leaf: Hash) -> Result<(), String> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match all.insert(index, leaf) {
            Some(before) if before != leaf => Err(format!("two receipts for leaf {index}")),
            _ => Ok(()),
        }
    }

    pub fn all(&self) -> BTreeMap<u64, Hash> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
