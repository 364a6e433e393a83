//! A ledger in memory and a patient who writes to it, for this crate's tests: the rules, trees and signatures are `ehe`'s own.

use std::collections::BTreeMap;
use std::convert::Infallible;

use ehe::author::Strand;
use ehe::charter::{Charter, CharterChain, Member, Node, Permissions, Placement, SignedCharter, VerifiedCharter};
use ehe::checkpoint::{Checkpoint, Signer};
use ehe::control::{
    Authority, Change, Control, ControlLink, Ending, EpochCategory, EpochRecord, Grant, Private, Revoke, Right, Rights,
    RoomCreate, SeedWrap, possession,
};
use ehe::cose::{self, Domain};
use ehe::event::{CheckedEvent, Event};
use ehe::id::{AllianceId, AuthorId, EheId, EpochId, Hash, MemberId, NodeId, Nonce, RoomId, StrandId, WrapId};
use ehe::identity::{Identity, Party, PublicIdentity};
use ehe::kem::KemSecret;
use ehe::leaf::{Leaf, Receipt};
use ehe::merkle::{self, NodeAt, Nodes, Peaks};
use ehe::read::{Part, SignedRequest};
use ehe::refusal::Refusal;
use ehe::restoration::{Restoration, SignedRestoration};
use ehe::room::{self, Refused, RoomState, WrapFact};
use ehe::run::{SignedRun, StrandEnd};
use ehe::time::{Hour, UnixMs};
use ehe::vital::Category;
use ehe::wire::{Head, HeadStatement, Item, KnownRun, Response, Submission, Submitted};
use getrandom::SysRng;
use rand_core::{Rng, UnwrapErr};

pub(crate) fn rng() -> UnwrapErr<SysRng> {
    UnwrapErr(SysRng)
}

pub(crate) fn identity() -> Identity {
    Identity::generate(&mut rng())
}

fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    rng().fill_bytes(&mut bytes);
    bytes
}

/// 2026-11-20T10:00:00Z.
pub(crate) const NOW: UnixMs = UnixMs(1_795_168_800_000);

/// An alliance of as many members as nodes, each with a node of its own; all hold the only shard.
pub(crate) fn charter(members: &[Identity], nodes: &[(Identity, String)]) -> CharterChain {
    let member_id = |index: usize| MemberId([u8::try_from(index).unwrap() + 1; 8]);
    let charter = Charter {
        version: 1,
        alliance: "Test".into(),
        predecessor: None,
        shard_count: 1.try_into().unwrap(),
        members: (members.iter().enumerate())
            .map(|(i, m)| Member { id: member_id(i), name: format!("Hospital {i}"), identity: m.public().clone() })
            .collect(),
        nodes: (nodes.iter().enumerate())
            .map(|(i, (node, address))| Node {
                id: node_id(node),
                member: member_id(i),
                name: format!("node-{i}.example"),
                sign: node.public().sign,
                addresses: vec![address.clone()],
            })
            .collect(),
        placement: Placement::Everywhere(nodes.iter().map(|(node, _)| node_id(node)).collect()),
        permissions: Permissions::default(),
        head_fresh_ms: 60_000,
        min_cosignatures: None,
        rules: None,
    };
    CharterChain(vec![sign(&charter, members)])
}

/// The same charter again, as the version that follows.
pub(crate) fn next_charter(chain: &CharterChain, members: &[Identity]) -> CharterChain {
    charter_behind(chain, members, |_| {})
}

/// The same, changed.
pub(crate) fn charter_behind(
    chain: &CharterChain,
    members: &[Identity],
    change: impl FnOnce(&mut Charter),
) -> CharterChain {
    let last = chain.0.last().unwrap();
    let charter = last.read().unwrap();
    let mut next = Charter { version: charter.version + 1, predecessor: Some(last.hash()), ..charter };
    change(&mut next);
    let mut chain = chain.clone();
    chain.0.push(sign(&next, members));
    chain
}

fn sign(charter: &Charter, members: &[Identity]) -> SignedCharter {
    let mut signed = SignedCharter::unsigned(charter).unwrap();
    members.iter().for_each(|member| signed.sign(member).unwrap());
    signed
}

pub(crate) fn node_id(node: &Identity) -> NodeId {
    NodeId::truncated(&{
        let mut long = [0; 32];
        long[..16].copy_from_slice(&node.author_id().0);
        long
    })
}

#[derive(Debug, Default, Clone)]
struct Room {
    state: Option<RoomState>,
    entries: Vec<Entry>,
    strands: BTreeMap<(AuthorId, StrandId), StrandEnd>,
    wraps: BTreeMap<WrapId, WrapFact>,
    events: BTreeMap<EheId, usize>,
}

#[derive(Debug, Clone)]
struct Entry {
    leaf: Leaf,
    log_index: u64,
    run: SignedRun,
    events: Vec<Event>,
    control: bool,
}

impl room::Ledger for Room {
    type Error = Infallible;

    fn strand(&self, author: AuthorId, strand: StrandId) -> Result<Option<StrandEnd>, Infallible> {
        Ok(self.strands.get(&(author, strand)).copied())
    }

    fn wrap(&self, wrap: WrapId) -> Result<Option<WrapFact>, Infallible> {
        Ok(self.wraps.get(&wrap).copied())
    }

    fn has_event(&self, id: EheId) -> Result<bool, Infallible> {
        Ok(self.events.contains_key(&id))
    }
}

#[derive(Debug, Default, Clone)]
struct Tree(BTreeMap<(u8, u64), Hash>);

impl Nodes for Tree {
    type Error = Infallible;

    fn node(&self, at: NodeAt) -> Result<Hash, Infallible> {
        Ok(self.0[&(at.level, at.index)])
    }
}

/// The one shard's ledger. Its nodes sign what is asked of them.
#[derive(Debug, Clone)]
pub(crate) struct Ledger {
    pub(crate) charter: VerifiedCharter,
    pub(crate) nodes: Vec<Identity>,
    pub(crate) now: UnixMs,
    /// How many nodes cosign.
    pub(crate) cosigners: usize,
    /// Of the log: each restoration begins the next.
    pub(crate) incarnation: u32,
    /// By which earlier ones ended.
    pub(crate) records: Vec<SignedRestoration>,
    rooms: BTreeMap<RoomId, Room>,
    tree: Tree,
    peaks: Peaks,
    log: Vec<Submission>,
}

impl Ledger {
    pub(crate) fn new(charter: VerifiedCharter, nodes: Vec<Identity>) -> Self {
        let cosigners = nodes.len();
        let (rooms, tree, peaks) = (BTreeMap::new(), Tree::default(), Peaks::default());
        let (incarnation, records, log) = (0, Vec::new(), Vec::new());
        Self { charter, nodes, now: NOW, cosigners, incarnation, records, rooms, tree, peaks, log }
    }

    /// The log is lost, and begun again from its first `kept` leaves, as `members` sign.
    pub(crate) fn restore(&mut self, kept: usize, members: &[Identity]) {
        let newest = self.checkpoint();
        let before = std::mem::replace(self, Self::new(self.charter.clone(), self.nodes.clone()));
        for submission in &before.log[..kept] {
            assert!(matches!(self.submit(submission), Response::Submitted(_)));
        }
        let root = self.peaks.root();
        let kept = self.peaks.size();
        let said = Restoration {
            alliance: self.alliance(),
            shard: 0,
            incarnation: before.incarnation,
            kept,
            root,
            proof: merkle::consistency_proof(&before.tree, kept, before.peaks.size()).unwrap(),
            checkpoint: Some(newest),
            newest: None,
            kept_until: self.now,
            state: Hash::ZERO,
            charter_version: self.charter.version(),
            at: self.now,
        };
        let mut record = SignedRestoration::unsigned(&said);
        members.iter().for_each(|member| record.sign(member).unwrap());
        self.incarnation = before.incarnation + 1;
        self.records = before.records;
        self.records.push(record);
    }

    /// How the log goes on from one size to another.
    pub(crate) fn extends(&self, smaller: u64, larger: u64) -> Response {
        if larger > self.peaks.size() {
            return Response::Refused(Refusal::NoLeader);
        }
        let root = Peaks::load(&self.tree, smaller).unwrap().root();
        Response::Extends(root, merkle::consistency_proof(&self.tree, smaller, larger).unwrap())
    }

    /// The log is lost, and begun again under the same origin from its first `kept` leaves: nobody says so.
    pub(crate) fn roll_back(&mut self, kept: usize) {
        let before = std::mem::replace(self, Self::new(self.charter.clone(), self.nodes.clone()));
        for submission in &before.log[..kept] {
            assert!(matches!(self.submit(submission), Response::Submitted(_)));
        }
        (self.incarnation, self.records) = (before.incarnation, before.records);
    }

    /// Leaves of nothing that anybody knows.
    pub(crate) fn grow(&mut self, leaves: usize) {
        let tree = &mut self.tree.0;
        for _ in 0..leaves {
            let appended = self.peaks.append(Hash([9; 32]), |at, hash| {
                tree.insert((at.level, at.index), hash);
                Ok::<_, Infallible>(())
            });
            appended.unwrap();
        }
    }

    /// The log begins with so many other leaves; what follows is what it has, in another tree.
    pub(crate) fn fork(&mut self, leaves: usize) {
        let entries: BTreeMap<u64, Hash> = self
            .rooms
            .values()
            .flat_map(|room| &room.entries)
            .map(|entry| (entry.log_index, entry.leaf.hash()))
            .collect();
        (self.tree, self.peaks) = (Tree::default(), Peaks::default());
        self.grow(leaves);
        let tree = &mut self.tree.0;
        for hash in entries.values() {
            let appended = self.peaks.append(*hash, |at, hash| {
                tree.insert((at.level, at.index), hash);
                Ok::<_, Infallible>(())
            });
            appended.unwrap();
        }
        let moved = u64::try_from(leaves).unwrap();
        self.rooms.values_mut().flat_map(|room| &mut room.entries).for_each(|entry| entry.log_index += moved);
    }

    /// Leaves of the log.
    pub(crate) fn leaves(&self) -> usize {
        self.log.len()
    }

    /// A ledger for tests without a network.
    pub(crate) fn of(nodes: usize) -> Self {
        let members: Vec<Identity> = (0..nodes).map(|_| identity()).collect();
        let nodes: Vec<(Identity, String)> = (0..nodes).map(|_| (identity(), "127.0.0.1:1".into())).collect();
        let chain = charter(&members, &nodes);
        let verified = chain.verify(chain.claimed_alliance().unwrap()).unwrap();
        Self::new(verified, nodes.into_iter().map(|(node, _)| node).collect())
    }

    pub(crate) fn alliance(&self) -> AllianceId {
        self.charter.alliance_id()
    }

    pub(crate) fn submit(&mut self, submission: &Submission) -> Response {
        match self.admit(submission) {
            Ok(response) => response,
            Err(refusal) => Response::Refused(refusal),
        }
    }

    fn admit(&mut self, submission: &Submission) -> Result<Response, Refusal> {
        let run = submission.run.decode().map_err(|_| Refusal::RunMalformed)?;
        let events: Result<Vec<CheckedEvent>, _> = submission.events.iter().map(|e| e.clone().check()).collect();
        let events = events.map_err(|_| Refusal::EventMalformed)?;
        let room_id = run.claims().room;
        let empty = Room::default();
        let room = self.rooms.get(&room_id).unwrap_or(&empty);
        let key = room::author_key(room.state.as_ref(), run.claims(), &events)?;
        let run = run.verify(&key).map_err(|_| Refusal::BadSignature)?;
        let admitted = room::admit(self.alliance(), room.state.as_ref(), &run, &events, room, self.now);
        let admission = match admitted.unwrap() {
            Ok(admission) => admission,
            Err(Refused::Because(refusal)) => return Err(refusal),
            Err(Refused::Known(ids)) => {
                let mut entries: Vec<usize> = ids.iter().map(|id| room.events[id]).collect();
                entries.dedup();
                let known = |index: usize| KnownRun {
                    run: room.entries[index].run.clone(),
                    receipt: self.receipt(&room.entries[index]),
                };
                return Ok(Response::Known(entries.into_iter().map(known).collect()));
            }
        };
        let control = admission.room.as_ref().or(room.state.as_ref()).map_or(0, |room| room.next_control);
        let log_index = self.peaks.size();
        let room = self.rooms.entry(room_id).or_default();
        let leaf = Leaf {
            room: room_id,
            index: room.entries.len() as u64,
            previous: room.entries.last().map_or(Hash::ZERO, |e| e.leaf.hash()),
            entry: run.hash(),
            accepted_at: self.now,
            control,
        };
        let tree = &mut self.tree.0;
        let stored: Result<(), Infallible> = self.peaks.append(leaf.hash(), |at, hash| {
            tree.insert((at.level, at.index), hash);
            Ok(())
        });
        stored.unwrap();
        room.events.extend(events.iter().map(|e| (e.id(), room.entries.len())));
        room.strands.insert((run.run().author, admission.strand.strand), admission.strand);
        room.wraps.extend(admission.wraps);
        let control = admission.room.is_some();
        room.state = admission.room.or(room.state.take());
        let control_seq = room.state.as_ref().unwrap().next_control;
        let events = submission.events.clone();
        room.entries.push(Entry { leaf, log_index, run: submission.run.clone(), events, control });
        self.log.push(submission.clone());
        let receipt = self.receipt(self.rooms[&room_id].entries.last().unwrap());
        Ok(Response::Submitted(Submitted { receipt, control_seq }))
    }

    fn receipt(&self, entry: &Entry) -> Receipt {
        let size = self.peaks.size();
        let proof = merkle::inclusion_proof(&self.tree, entry.log_index, size).unwrap();
        Receipt { leaf: entry.leaf.clone(), log_index: entry.log_index, proof, checkpoint: self.checkpoint() }
    }

    /// The receipt for a run in another log of the size that this one has, which the same nodes sign.
    pub(crate) fn forked(&self, submission: &Submission) -> Response {
        let (mut tree, mut peaks, size) = (Tree::default(), Peaks::default(), self.peaks.size());
        let leaf = Leaf {
            room: submission.run.decode().unwrap().claims().room,
            index: 0,
            previous: Hash::ZERO,
            entry: submission.run.hash(),
            accepted_at: self.now,
            control: 0,
        };
        for index in 0..size {
            let hash = if index + 1 == size { leaf.hash() } else { Hash([7; 32]) };
            let appended = peaks.append(hash, |at, hash| {
                tree.0.insert((at.level, at.index), hash);
                Ok::<_, Infallible>(())
            });
            appended.unwrap();
        }
        let proof = merkle::inclusion_proof(&tree, size - 1, size).unwrap();
        let checkpoint = self.signed(size, peaks.root());
        let receipt = Receipt { leaf, log_index: size - 1, proof, checkpoint };
        Response::Submitted(Submitted { receipt, control_seq: 0 })
    }

    fn checkpoint(&self) -> String {
        self.signed(self.peaks.size(), self.peaks.root())
    }

    fn signed(&self, size: u64, root: Hash) -> String {
        let checkpoint = Checkpoint {
            origin: self.charter.origin(0, self.incarnation),
            size,
            root,
            charter_version: self.charter.version(),
        };
        let name = |node: &Identity| self.charter.node(node_id(node)).unwrap().name.clone();
        let (first, others) = self.nodes.split_first().unwrap();
        let mut note = checkpoint.sign(Signer { name: &name(first), key: first.sign_key() }, self.now).unwrap();
        for node in others.iter().take(self.cosigners - 1) {
            note.cosign(&name(node), node.sign_key(), self.now.0 / 1000);
        }
        note.to_string()
    }

    /// Answers a fetch of control records, as a node does.
    pub(crate) fn fetch(&self, request: &SignedRequest, reader: &PublicIdentity) -> Vec<Response> {
        let request = request.decode().unwrap().verify_as(reader).unwrap();
        assert_eq!(request.scope.part, Part::Control);
        let Some(room) = self.rooms.get(&request.room) else { return vec![Response::Refused(Refusal::RoomUnknown)] };
        if let Err(refusal) = room::decide(self.alliance(), room.state.as_ref().unwrap(), &request, self.now) {
            return vec![Response::Refused(refusal)];
        }
        let mut answer: Vec<Response> = (room.entries.iter().skip(usize::try_from(request.from_index).unwrap()))
            .map(|e| {
                let (run, events) = if e.control { (Some(e.run.clone()), e.events.clone()) } else { (None, vec![]) };
                Response::Item(Item { leaf: e.leaf.clone(), run, events, access: None, void: None })
            })
            .collect();
        answer.push(Response::Head(self.head(room, request.room, request.nonce)));
        answer
    }

    /// Where a room ends, as a node says it.
    pub(crate) fn head_of(&self, room: RoomId, nonce: Nonce) -> Option<Head> {
        Some(self.head(self.rooms.get(&room)?, room, nonce))
    }

    fn head(&self, of: &Room, room: RoomId, nonce: Nonce) -> Head {
        let last = self.receipt(of.entries.last().unwrap());
        let (last_leaf, log_size) = (last.leaf.hash(), self.peaks.size());
        let statement = HeadStatement { room, last_leaf, log_size, at: self.now, nonce };
        let signature = cose::sign(&self.nodes[0], Domain::Head, ehe::cbor::to_vec(&statement));
        Head { last, nonce, at: self.now, signature }
    }

    /// The room's last run, and its receipt.
    pub(crate) fn last_run(&self, room: RoomId) -> KnownRun {
        let entry = self.rooms[&room].entries.last().unwrap();
        KnownRun { run: entry.run.clone(), receipt: self.receipt(entry) }
    }

    /// Whether an event is committed.
    pub(crate) fn has(&self, room: RoomId, id: EheId) -> bool {
        self.rooms.get(&room).is_some_and(|room| room.events.contains_key(&id))
    }

    /// How many entries the room has.
    pub(crate) fn entries(&self, room: RoomId) -> usize {
        self.rooms.get(&room).map_or(0, |room| room.entries.len())
    }
}

/// A patient with a room.
pub(crate) struct Patient {
    pub(crate) identity: Identity,
    pub(crate) room: RoomId,
    strand: Strand,
    link: ControlLink,
    pub(crate) seeds: BTreeMap<EpochId, KemSecret>,
}

impl Patient {
    /// Makes the room.
    pub(crate) fn new(ledger: &mut Ledger) -> Self {
        let identity = identity();
        let create = RoomCreate {
            alliance: ledger.alliance(),
            nonce: Nonce(random()),
            owner: identity.public().clone(),
            recovery: Hash::ZERO,
        };
        let room = create.room_id();
        let strand = Strand::new(room, StrandId(random()), None);
        let link = ControlLink { seq: 0, previous: EheId::ZERO };
        let mut patient = Self { identity, room, strand, link, seeds: BTreeMap::new() };
        patient.write(ledger, &Control::RoomCreate(create), None);
        patient
    }

    fn write(&mut self, ledger: &mut Ledger, control: &Control, private: Option<(&Private, &[Party<'_>])>) -> EheId {
        let (author, now) = (self.identity.author_id(), ledger.now);
        let event = control.event(&mut rng(), self.room, author, now, private).unwrap();
        let linked = self.strand.link(&self.identity, [event.id()]);
        let id = event.id();
        let answer = ledger.submit(&Submission { run: linked.run.clone(), events: vec![event.into_event()] });
        let Response::Submitted(submitted) = answer else { panic!("{answer:?}") };
        let run = linked.run.decode().unwrap().verify(&self.identity.public().sign).unwrap();
        let receipt = submitted.receipt.verify(&run, &ledger.charter).unwrap();
        self.strand.accepted(&linked, receipt.checkpoint().checkpoint().seen());
        self.link = ControlLink { seq: submitted.control_seq, previous: id };
        id
    }

    /// An epoch record whose sealed part names the category to `parties`.
    pub(crate) fn epoch(
        &mut self,
        ledger: &mut Ledger,
        category: Category,
        supersedes: Option<EpochId>,
        continues: &[EheId],
        parties: &[&PublicIdentity],
    ) -> EpochId {
        let (epoch, seed) = (EpochId(random()), KemSecret::generate(&mut rng()));
        let own = self.identity.clone();
        let wrap = SeedWrap::make(&mut rng(), self.room, epoch, own.party(), seed.seed()).unwrap();
        let record = EpochRecord {
            link: self.link,
            epoch,
            group_key: seed.public(),
            supersedes,
            continues: continues.to_vec(),
            seeds: vec![wrap],
        };
        let private = Private { categories: vec![EpochCategory { epoch, category }], ..Private::default() };
        let parties: Vec<Party<'_>> = [own.party()].into_iter().chain(parties.iter().map(|p| Party::of(p))).collect();
        self.write(ledger, &Control::Epoch(record), Some((&private, &parties)));
        self.seeds.insert(epoch, seed);
        epoch
    }

    /// An append grant for these epochs, which names their categories.
    pub(crate) fn grant(
        &mut self,
        ledger: &mut Ledger,
        subject: &PublicIdentity,
        epochs: &[(EpochId, Category)],
        from: Option<Hour>,
    ) -> EheId {
        let grant = Grant {
            link: self.link,
            subject: subject.clone(),
            right: Right::Append,
            epochs: epochs.iter().map(|(epoch, _)| *epoch).collect(),
            from,
            until: None,
            expires: None,
            seeds: Vec::new(),
        };
        let named = |(epoch, category): &(EpochId, Category)| EpochCategory { epoch: *epoch, category: *category };
        let private = Private { categories: epochs.iter().map(named).collect(), ..Private::default() };
        let own = self.identity.clone();
        self.write(ledger, &Control::Grant(grant), Some((&private, &[own.party(), Party::of(subject)])))
    }

    fn authority(&mut self, ledger: &mut Ledger, change: Change) {
        let record = Authority { link: self.link, change, seeds: Vec::new() };
        self.write(ledger, &Control::Authority(record), None);
    }

    /// Moves the room to new keys; gives back the old ones.
    pub(crate) fn rotate(&mut self, ledger: &mut Ledger) -> Identity {
        let new = identity();
        let change = Change::Rotate(new.public().clone(), possession(&new, self.room, self.link));
        self.authority(ledger, change);
        let acting = new.acting_as(self.identity.author_id());
        std::mem::replace(&mut self.identity, acting)
    }

    /// Somebody who may act for the patient. The two take turns only while the other makes no control event.
    pub(crate) fn delegate(&mut self, ledger: &mut Ledger, rights: Rights) -> Patient {
        let delegate = identity();
        self.authority(ledger, Change::Delegate(delegate.public().clone(), rights, None));
        let strand = Strand::new(self.room, StrandId(random()), None);
        Self { identity: delegate, room: self.room, strand, link: self.link, seeds: BTreeMap::new() }
    }

    pub(crate) fn revoke(&mut self, ledger: &mut Ledger, grant: EheId) {
        let revoke = Revoke { link: self.link, grant, ending: Ending::Cut };
        self.write(ledger, &Control::Revoke(revoke), None);
    }
}
