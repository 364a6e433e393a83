//! Writes `corpus/TARGET/seed-NAME`: one well-formed example of each kind, the same bytes each time.

#[path = "../../benches/hot_path/world.rs"]
mod world;

use std::path::Path;

use ehe::body::vitals::VitalsBody;
use ehe::cbor;
use ehe::charter::{Charter, CharterChain, RULES_KNOWN, SignedCharter};
use ehe::checkpoint::{Checkpoint, Signer};
use ehe::control::{
    Authority, Change, Control, ControlLink, Ending, EpochCategory, EpochRecord, Grant, Private, Revoke,
};
use ehe::control::{Right, Rights, RoomCreate, SeedWrap, WrapRecord, possession};
use ehe::event::Event;
use ehe::evidence::Evidence;
use ehe::id::{AllianceId, EheId, EpochId, Hash, NodeId, Nonce, RoomId, StrandId};
use ehe::identity::Party;
use ehe::kem::{self, KemSecret, WrapPurpose};
use ehe::leaf::{Leaf, Receipt};
use ehe::merkle::Peaks;
use ehe::read::{AccessRecord, Part, Purpose, ReadRequest, Scope};
use ehe::refusal::Refusal;
use ehe::restoration::{Restoration, SignedRestoration};
use ehe::run::{Run, SeenCheckpoint, SignedRun, StrandEnd};
use ehe::time::{Hour, UnixMs};
use ehe::vital::Category;
use ehe::void::VoidRecord;
use ehe::wire::{GroupNode, GroupStatus, Head, Item, KnownRun, NodeStatus, Request, Response, RoomInfo, ScrubStatus, ShardStatus, Submission, Submitted};
use rand::SeedableRng;
use rand::rngs::StdRng;
use world::{START_MS, World, costly, window};

fn main() -> std::io::Result<()> {
    let world = World::new();
    let seeds = Seeds { world: &world, room: RoomId([1; 16]), epoch: EpochId([3; 16]) };
    for (target, name, bytes) in seeds.all() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target);
        std::fs::create_dir_all(&folder)?;
        std::fs::write(folder.join(format!("seed-{name}")), bytes)?;
    }
    Ok(())
}

struct Seeds<'a> {
    world: &'a World,
    room: RoomId,
    epoch: EpochId,
}

impl Seeds<'_> {
    fn all(&self) -> Vec<(&'static str, &'static str, Vec<u8>)> {
        let mut seeds = Vec::new();
        let mut add = |target, name, bytes: Vec<u8>| seeds.push((target, name, bytes));
        for (name, count) in [("15", 15), ("60", 60), ("600", 600)] {
            add("body", name, VitalsBody::from_readings(&window(count, 3)).unwrap().to_vec());
        }
        let mut mixed = window(300, 4);
        mixed.extend(window(2, 5).into_iter().map(|reading| reading.with_statistic(ehe::reading::Statistic::Average)));
        add("body", "costly", VitalsBody::from_readings(&costly()).unwrap().to_vec());
        add("body", "two-series", VitalsBody::from_readings(&mixed).unwrap().to_vec());

        for (name, event) in self.controls() {
            let body = event.body.clone();
            let kind = cbor::to_vec(&event.check().unwrap().core().kind);
            add("control", name, [kind, body].concat());
        }
        let event = self.world.sealed(&window(15, 3), 1).into_event();
        add("header", "vitals", event.header.clone());
        add("run", "one", self.run(1, None).0);
        add("run", "three", self.run(3, Some(StrandEnd::start(StrandId([8; 8])))).0);
        add("request", "content", self.request().sign(&self.world.author).0);
        add("request", "record", self.record().to_vec());
        let receipt = self.receipt();
        add("receipt", "receipt", cbor::to_vec(&receipt));
        add("receipt", "note", receipt.checkpoint.clone().into_bytes());
        add("charter", "chain", self.world.chain().encode());
        add("charter", "one", self.world.chain().0[0].encode());
        add("charter", "rules", self.raised().encode());
        add("void", "one", self.void().to_vec());
        for (name, evidence) in self.evidence() {
            add("evidence", name, evidence.to_vec());
        }
        add("restoration", "signed", self.restoration().encode());
        for (name, message) in self.requests(event.clone()) {
            add("frame", name, message.to_vec());
        }
        for (name, message) in self.responses(event) {
            add("frame", name, message.to_vec());
        }
        seeds
    }

    fn controls(&self) -> Vec<(&'static str, Event)> {
        let mut rng = StdRng::seed_from_u64(9);
        let (owner, subject) = (&self.world.author, self.world.nodes[0].public());
        let (room, epoch) = (self.room, self.epoch);
        let link = ControlLink { seq: 1, previous: EheId([4; 32]) };
        let group = KemSecret::generate(&mut rng);
        let seed = SeedWrap::make(&mut rng, room, epoch, Party::of(subject), group.seed()).unwrap();
        let day = Hour(480_000).day();
        let purpose = WrapPurpose::EventKey { room, author: owner.author_id(), epoch, day };
        let wrapped = kem::wrap(&mut rng, &group.public(), &purpose, &self.world.ek).unwrap();
        let create = RoomCreate {
            alliance: AllianceId([5; 32]),
            nonce: Nonce([6; 16]),
            owner: owner.public().clone(),
            recovery: Hash([7; 32]),
        };
        let record = EpochRecord {
            link,
            epoch,
            group_key: group.public(),
            supersedes: Some(EpochId([2; 16])),
            continues: vec![EheId([9; 32])],
            seeds: vec![seed.clone()],
        };
        let grant = Grant {
            link,
            subject: subject.clone(),
            right: Right::Read,
            epochs: vec![epoch],
            from: Some(Hour(1)),
            until: Some(Hour(500_000)),
            expires: Some(UnixMs(START_MS)),
            seeds: vec![seed.clone()],
        };
        let authority = |change| Control::Authority(Authority { link, change, seeds: vec![seed.clone()] });
        let proof = possession(&self.world.nodes[0], room, link);
        let recover = Change::Recover {
            recovery: subject.clone(),
            keys: subject.clone(),
            possession: proof.clone(),
            next: Hash([7; 32]),
            distrusted_from: Some(17),
        };
        let revoke = |ending| Control::Revoke(Revoke { link, grant: EheId([9; 32]), ending });
        let private = Private {
            categories: vec![EpochCategory { epoch, category: Category::Cardiac }],
            purpose: Some("cardiology".into()),
            name: Some("Dr X".into()),
            ..Private::default()
        };
        let controls = [
            ("room-create", Control::RoomCreate(create)),
            ("epoch", Control::Epoch(record)),
            ("grant", Control::Grant(grant)),
            ("revoke-cut", revoke(Ending::Cut)),
            ("revoke-drain", revoke(Ending::DrainUntil(UnixMs(START_MS)))),
            ("rotate", authority(Change::Rotate(subject.clone(), proof))),
            (
                "delegate",
                authority(Change::Delegate(subject.clone(), Rights::GRANT.and(Rights::EPOCH), Some(UnixMs(1)))),
            ),
            ("withdraw", authority(Change::Withdraw(subject.author_id()))),
            ("set-recovery", authority(Change::SetRecovery(Hash([7; 32])))),
            ("recover", authority(recover)),
            ("hand-over", authority(Change::HandOver)),
            ("wrap", Control::Wrap(WrapRecord { epoch, day, wrapped })),
        ];
        controls
            .into_iter()
            .map(|(name, control)| {
                let private = (name == "grant").then_some((&private, [Party::of(owner.public())]));
                let private = private.as_ref().map(|(private, parties)| (*private, parties.as_slice()));
                let event = control.event(&mut rng, room, owner.author_id(), UnixMs(START_MS), private).unwrap();
                (name, event.into_event())
            })
            .collect()
    }

    fn run(&self, events: u8, continues: Option<StrandEnd>) -> SignedRun {
        let run = Run {
            room: self.room,
            author: self.world.author.author_id(),
            from: StrandEnd::start(StrandId([7; 8])),
            ids: (0..events).map(|i| EheId([i; 32])).collect(),
            seen: continues.map(|_| self.seen()),
            continues,
        };
        run.sign(&self.world.author)
    }

    fn seen(&self) -> SeenCheckpoint {
        SeenCheckpoint { origin: self.world.charter.origin(1, 1), size: 3, root: Hash([3; 32]) }
    }

    fn request(&self) -> ReadRequest {
        ReadRequest {
            alliance: AllianceId([5; 32]),
            room: self.room,
            reader: self.world.author.author_id(),
            nonce: Nonce([4; 16]),
            scope: Scope { part: Part::Content, epochs: vec![self.epoch], from: Hour(1), until: Hour(500_000) },
            purpose: Purpose::Treatment,
            actor: Some(Nonce([5; 16])),
            head: Some(self.seen()),
            from_index: 17,
            made_at: UnixMs(START_MS),
        }
    }

    fn record(&self) -> AccessRecord {
        AccessRecord {
            request: self.request().sign(&self.world.author),
            refused: Some(Refusal::NotInvited),
            reader: Some(self.world.author.public().clone()),
            count: 2,
            at: UnixMs(START_MS),
        }
    }

    /// One charter more, which raises the rules version.
    fn raised(&self) -> CharterChain {
        let mut chain = self.world.chain();
        let last = chain.0.last().unwrap();
        let before = last.read().unwrap();
        let (version, predecessor) = (before.version + 1, Some(last.hash()));
        let next = Charter { version, predecessor, rules: Some(RULES_KNOWN), ..before };
        let mut signed = SignedCharter::unsigned(&next).unwrap();
        self.world.members.iter().for_each(|member| signed.sign(member).unwrap());
        chain.0.push(signed);
        chain
    }

    /// Of a run with another signature than its author's.
    fn void(&self) -> VoidRecord {
        let mut run = self.run(1, None);
        *run.0.last_mut().unwrap() ^= 1;
        VoidRecord { index: 17, run }
    }

    fn receipt(&self) -> Receipt {
        let charter = &self.world.charter;
        let shard = self.room.shard(charter.shard_count());
        let leaf = Leaf {
            room: self.room,
            index: 0,
            previous: Hash::ZERO,
            entry: self.run(1, None).hash(),
            accepted_at: UnixMs(START_MS),
            control: 1,
        };
        let mut peaks = Peaks::default();
        for hash in [leaf.hash(), Hash([1; 32])] {
            peaks.append(hash, |_, _| Ok::<_, ()>(())).unwrap();
        }
        let checkpoint = Checkpoint {
            origin: charter.origin(shard, 1),
            size: 2,
            root: peaks.root(),
            charter_version: charter.version(),
        };
        let signer = |i: usize| Signer { name: &charter.nodes()[i].name, key: self.world.nodes[i].sign_key() };
        let mut note = checkpoint.sign(signer(0), UnixMs(START_MS)).unwrap();
        note.cosign(signer(1).name, signer(1).key, START_MS / 1000);
        Receipt { leaf, log_index: 0, proof: vec![Hash([1; 32])], checkpoint: note.to_string() }
    }

    /// The first node signed two logs: two roots of one size, and a log that does not begin with what it signed before.
    fn evidence(&self) -> [(&'static str, Evidence); 2] {
        let charter = &self.world.charter;
        let log = |what: u8| {
            let mut roots = vec![Peaks::default()];
            for leaf in 0..4 {
                let mut peaks = roots.last().unwrap().clone();
                peaks.append(Hash([leaf + what; 32]), |_, _| Ok::<_, ()>(())).unwrap();
                roots.push(peaks);
            }
            roots
        };
        let note = |size: u64, root: Hash| {
            let checkpoint =
                Checkpoint { origin: charter.origin(0, 0), size, root, charter_version: charter.version() };
            let signer = Signer { name: &charter.nodes()[0].name, key: self.world.nodes[0].sign_key() };
            checkpoint.sign(signer, UnixMs(START_MS)).unwrap().to_string()
        };
        let (one, other) = (log(1), log(9));
        let chain = self.world.chain();
        let roots = Evidence::of(&chain, &note(2, one[2].root()), &note(2, other[2].root()), None).unwrap();
        // Of four leaves, after two of them: the hash of the other two.
        let proof = (other[2].root(), vec![ehe::merkle::node_hash(&Hash([11; 32]), &Hash([12; 32]))]);
        let prefix = Evidence::of(&chain, &note(2, one[2].root()), &note(4, other[4].root()), Some(proof)).unwrap();
        [("two-roots", roots), ("other-prefix", prefix)]
    }

    fn restoration(&self) -> SignedRestoration {
        let checkpoint = self.receipt().checkpoint;
        let said = Restoration {
            alliance: self.world.charter.alliance_id(),
            shard: self.room.shard(self.world.charter.shard_count()),
            incarnation: 1,
            kept: 1,
            root: Hash([8; 32]),
            proof: vec![Hash([1; 32])],
            checkpoint: Some(checkpoint.clone()),
            newest: Some(checkpoint),
            kept_until: UnixMs(START_MS),
            state: Hash([9; 32]),
            charter_version: 1,
            at: UnixMs(START_MS),
        };
        let mut signed = SignedRestoration::unsigned(&said);
        self.world.members[..2].iter().for_each(|member| signed.sign(member).unwrap());
        signed
    }

    fn requests(&self, event: Event) -> Vec<(&'static str, Request)> {
        let (signed, identity) = (self.request().sign(&self.world.author), self.world.author.public().clone());
        vec![
            ("submit", Request::Submit(Submission { run: self.run(1, None), events: vec![event] })),
            ("fetch", Request::Fetch(signed.clone(), identity.clone())),
            ("subscribe", Request::Subscribe(signed, identity)),
            ("ask-head", Request::Head(self.room, Nonce([4; 16]))),
            ("ask-rooms", Request::RoomsOf),
            ("ask-charter", Request::Charter(2)),
            ("ask-status", Request::Status),
            ("ask-evidence", Request::Evidence(1)),
            ("ask-restorations", Request::Restorations(3, 7)),
            ("ask-extends", Request::Extends(3, 7, 1 << 40)),
        ]
    }

    fn responses(&self, event: Event) -> Vec<(&'static str, Response)> {
        let (receipt, run) = (self.receipt(), self.run(1, None));
        let wrap = self.controls().into_iter().find(|(name, _)| *name == "wrap").unwrap().1;
        let head = Head { last: receipt.clone(), nonce: Nonce([4; 16]), at: UnixMs(START_MS), signature: vec![1; 150] };
        let info = RoomInfo {
            room: self.room,
            owner: self.world.author.author_id(),
            grants: vec![EheId([9; 32])],
            entries: 17,
        };
        let shard = ShardStatus {
            shard: 3,
            leader: Some(NodeId([1; 8])),
            term: 2,
            applied: 1_000,
            leaves: 900,
            rooms: 12,
            faulted: false,
        };
        let scrub = ScrubStatus {
            shard: 3,
            checked: 400,
            entries: 900,
            found: 1,
            held: true,
            ended: Some(UnixMs(START_MS)),
            took_ms: Some(70_000),
            first: Some("shard 3, entry 7: it is not the entry that the log's tree has".into()),
        };
        let status = NodeStatus {
            node: NodeId([1; 8]),
            program: "0.1.0".into(),
            charter_version: 1,
            shards: vec![shard],
            at: UnixMs(START_MS),
            groups: Some(vec![GroupStatus {
                shard: 3,
                charter: 2,
                leader: Some(NodeId([1; 8])),
                nodes: vec![GroupNode {
                    node: NodeId([1; 8]),
                    votes: true,
                    applied: Some(1_000),
                    heard_ms: Some(0),
                    faulted: false,
                    knows: Some(2),
                }],
                doing: Some("takes up charter 2".into()),
                rules: Some(2),
            }]),
            evidence: core::num::NonZeroU32::new(2),
            scrub: Some(vec![scrub]),
            moved: None,
        };
        let item = |run, events, access| Item { leaf: receipt.leaf.clone(), run, events, access, void: None };
        vec![
            ("submitted", Response::Submitted(Submitted { receipt: receipt.clone(), control_seq: 3 })),
            ("known", Response::Known(vec![KnownRun { run: run.clone(), receipt: receipt.clone() }])),
            ("refused", Response::Refused(Refusal::StrandGap)),
            ("ask-node", Response::AskNode(NodeId([1; 8]))),
            ("item-run", Response::Item(item(Some(run), vec![event], None))),
            ("item-access", Response::Item(item(None, vec![], Some(self.record().to_vec())))),
            ("item-void", Response::Item(Item { void: Some(self.void().to_vec()), ..item(None, vec![], None) })),
            ("head", Response::Head(head)),
            ("rooms", Response::Rooms(vec![info])),
            ("charter", Response::Charter(self.world.chain().encode())),
            ("status", Response::Status(status)),
            ("wrap", Response::Wrap(wrap)),
            ("evidence", Response::Evidence(3, self.evidence()[0].1.contradiction.to_vec())),
            ("restorations", Response::Restorations(vec![self.restoration().encode().into()])),
            ("extends", Response::Extends(Hash([5; 32]), vec![Hash([6; 32]); 2])),
        ]
    }
}
