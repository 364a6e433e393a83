//! L5, L6: runs whose signature is false, and the records by which they are void.

use ehe::cbor;
use ehe::event::CheckedEvent;
use ehe::identity::Identity;
use ehe::leaf::Leaf;
use ehe::read::record_hash;
use ehe::run::SignedRun;
use ehe::time::UnixMs;
use ehe::void::VoidRecord;
use ehe::wire::Item;
use serde_json::Value;

use super::Kit;
use super::follow::{FOLDER, NONCE, bare, input};
use super::log::{Log, scene_with_readings};
use super::runs::forged;
use super::scene::{EPOCH, Scene, hour};
use super::world::world;
use crate::json::h;
use crate::run::ledger::Entry;

/// A room's entries: an opening, a run of a wrap and a reading, and what follows.
pub(super) struct Story {
    pub(super) scene: Scene,
    entries: Vec<Entry>,
    pub(super) leaves: Vec<Leaf>,
    /// The void records, at their places.
    records: Vec<(usize, Vec<u8>)>,
}

impl Story {
    pub(super) fn new() -> Self {
        Self::of(scene_with_readings(1))
    }

    pub(super) fn of(scene: Scene) -> Self {
        let entries = scene.shard.entries.clone();
        let mut this = Self { scene, entries: Vec::new(), leaves: Vec::new(), records: Vec::new() };
        entries.into_iter().for_each(|entry| this.entry(entry));
        this
    }

    fn leaf(&mut self, entry: ehe::id::Hash, at: UnixMs, control: u64) {
        self.leaves.push(Leaf {
            room: self.scene.id,
            index: u64::try_from(self.leaves.len()).unwrap(),
            previous: self.leaves.last().map_or(ehe::id::Hash::ZERO, Leaf::hash),
            entry,
            accepted_at: at,
            control,
        });
    }

    fn entry(&mut self, entry: Entry) {
        self.leaf(entry.run.hash(), entry.at, entry.control);
        self.entries.push(entry);
    }

    /// A reading under the wrap that is committed.
    pub(super) fn reading(&mut self, author: &Identity) -> CheckedEvent {
        let wrap = self.entries[1].events[0].id().into();
        self.scene.content(author, EPOCH, wrap, hour())
    }

    /// A run of these events that a node let in, signed by whoever `by` is.
    pub(super) fn run(&mut self, author: &Identity, by: &Identity, events: &[CheckedEvent]) -> SignedRun {
        let run = self.scene.run(author, events);
        let signed = if by.author_id() == author.author_id() { run.sign(author) } else { forged(&run, author, by) };
        self.let_in(&signed, events);
        signed
    }

    pub(super) fn let_in(&mut self, run: &SignedRun, events: &[CheckedEvent]) {
        let last = self.leaves.last().unwrap();
        let (at, control) = (UnixMs(last.accepted_at.0 + 1_000), last.control);
        self.entry(Entry { run: run.clone(), events: events.to_vec(), at, control });
    }

    pub(super) fn void(&mut self, index: u64, run: &SignedRun) {
        self.record(VoidRecord { index, run: run.clone() }.to_vec());
    }

    fn record(&mut self, bytes: Vec<u8>) {
        let last = self.leaves.last().unwrap();
        let (at, control) = (UnixMs(last.accepted_at.0 + 1_000), last.control);
        self.records.push((self.leaves.len(), bytes.clone()));
        self.leaf(record_hash(&bytes), at, control);
        // Nobody looks at it: the item is the record's.
        self.entries.push(self.entries[0].clone());
    }

    pub(super) fn log(&self) -> Log {
        Log::from_leaves(&self.scene, self.entries.clone(), self.leaves.clone())
    }

    pub(super) fn items(&self, whole: bool) -> Vec<Item> {
        let log = self.log();
        let item = |index: usize| match self.records.iter().find(|(at, _)| *at == index) {
            Some((_, bytes)) => Item { void: Some(bytes.clone()), ..bare(&log, index) },
            None if whole => log.ledger_item(index),
            None => log.item(index),
        };
        (0..self.leaves.len()).map(item).collect()
    }

    pub(super) fn shown(&self, whole: bool) -> Value {
        self.shown_as(whole, |_| {})
    }

    pub(super) fn shown_as(&self, whole: bool, change: impl FnOnce(&mut Vec<Item>)) -> Value {
        let mut items = self.items(whole);
        change(&mut items);
        input(whole, &items, &self.log().head(NONCE))
    }
}

/// A reading in the gateway's name that a node signed; its place is 2.
pub(super) fn false_run() -> (Story, SignedRun) {
    let mut story = Story::new();
    let event = story.reading(&world().gateway);
    let run = story.run(&world().gateway, &world().nodes[0], &[event]);
    (story, run)
}

pub(super) fn cases(kit: &mut Kit) {
    runs(kit);
    records(kit);
}

fn runs(kit: &mut Kit) {
    let (gateway, patient, node) = (&world().gateway, &world().patient, &world().nodes[0]);
    let mut case = |slug: &str, title: &str, input: Value, valid: bool| {
        let draft = kit.case(FOLDER, "L6", slug, title, "follow").input(input);
        if valid { draft.valid() } else { draft.invalid() }
    };
    let (mut story, run) = false_run();
    for (whole, name) in [(true, "whole"), (false, "in-part")] {
        let title = "a reading in a gateway's name that a node signed, which nothing voids";
        case(&format!("not-void-{name}"), title, story.shown(whole), false);
    }
    story.void(2, &run);
    for (whole, name) in [(true, "whole"), (false, "in-part")] {
        let title = "a reading in a gateway's name that a node signed, and the record by which it is void";
        case(&format!("ok-void-{name}"), title, story.shown(whole), true);
    }
    let (mut story, run) = false_run();
    let next = story.reading(gateway);
    let from = run.decode().unwrap().claims().end();
    let mut on = story.scene.run(gateway, std::slice::from_ref(&next));
    on.from = from;
    let last = story.leaves.last().unwrap().clone();
    story.entry(Entry { run: on.sign(gateway), events: vec![next], at: last.accepted_at, control: last.control });
    story.void(2, &run);
    case(
        "ok-strand-goes-on",
        "the gateway's strand goes on from the end of the run that is void",
        story.shown(true),
        true,
    );

    let (mut story, _) = false_run();
    let other = {
        let event = story.reading(gateway);
        let run = story.scene.run(gateway, &[event]);
        forged(&run, gateway, node)
    };
    story.void(2, &other);
    case("another-run", "a record that names its place and brings another run", story.shown(true), false);
    let (mut story, run) = false_run();
    story.void(1, &run);
    case("another-place", "a record that brings the run and names another place", story.shown(false), false);

    let mut story = Story::new();
    let event = story.reading(patient);
    let run = story.run(patient, node, &[event]);
    case("of-the-owner", "a reading in the owner's name that a node signed", story.shown(true), false);
    story.void(2, &run);
    case("of-the-owner-void", "the same, and a record as if it were void", story.shown(true), false);
    let mut story = Story::new();
    let events = story.scene.reading(gateway, hour()).both();
    let run = story.run(gateway, node, &events);
    story.void(2, &run);
    case(
        "with-a-wrap",
        "a wrap and a reading in a gateway's name that a node signed, and a record as if they were void",
        story.shown(true),
        false,
    );
}

fn records(kit: &mut Kit) {
    let (gateway, patient, node) = (&world().gateway, &world().patient, &world().nodes[0]);
    let mut case = |rule: &str, slug: &str, title: &str, input: Value, valid: bool| {
        let draft = kit.case(FOLDER, rule, slug, title, "follow").input(input);
        if valid { draft.valid() } else { draft.invalid() }
    };
    let (mut story, run) = false_run();
    story.void(2, &run);
    let unseen = story.shown_as(false, |items| items[2] = bare(&story.log(), 2));
    case("L5", "ok-not-shown", "the record of a run of which the leaf alone is shown", unseen, true);
    let with_events = story.shown_as(false, |items| items[3].events = items[1].events.clone());
    case("L2", "void-with-events", "a void record that brings events", with_events, false);
    let twice = story.shown_as(false, |items| items[3].access = items[3].void.clone());
    case("L2", "void-and-access", "an item with a void record and an access record", twice, false);
    let as_access = story.shown_as(false, |items| items[3].access = items[3].void.take());
    case("L2", "void-as-access", "a void record shown as an access record", as_access, false);
    let mut other = story.items(false);
    other[3].void = Some(VoidRecord { index: 1, run: run.clone() }.to_vec());
    let altered = input(false, &other, &story.log().head(NONCE));
    case("L2", "void-altered", "a void record that is not the one that its leaf names", altered, false);

    let mut story = Story::new();
    let event = story.reading(gateway);
    let run = story.run(gateway, gateway, &[event]);
    story.void(2, &run);
    for (whole, name) in [(true, "whole"), (false, "in-part")] {
        case("L5", &format!("signed-{name}"), "a record of a run that its author signed", story.shown(whole), false);
    }
    let unseen = story.shown_as(false, |items| items[2] = bare(&story.log(), 2));
    case("L5", "signed-not-shown", "the same, of which the leaf alone is shown", unseen, false);

    let (mut story, run) = false_run();
    story.void(3, &run);
    let hidden = story.shown_as(false, |items| items[2] = bare(&story.log(), 2));
    case("L5", "itself", "a record that names its own place", hidden, false);
    let mut story = Story::new();
    let event = story.reading(patient);
    let run = story.run(patient, node, &[event]);
    story.void(2, &run);
    let hidden = story.shown_as(false, |items| items[2] = bare(&story.log(), 2));
    case("L5", "of-the-owner", "a record of a run in the owner's name", hidden, false);
    let mut story = Story::new();
    let event = story.reading(&world().stranger);
    let run = forged(&story.scene.run(&world().stranger, &[event]), &world().stranger, node);
    story.void(1, &run);
    case("L5", "of-a-stranger", "a record of a run by somebody whom the room does not know", story.shown(false), false);
    let mut story = Story::new();
    let home = std::mem::replace(&mut story.scene.id, ehe::id::RoomId([7; 16]));
    let event = story.reading(gateway);
    let run = forged(&story.scene.run(gateway, &[event]), gateway, node);
    story.scene.id = home;
    story.void(1, &run);
    case("L5", "of-another-room", "a record of another room's run", story.shown(false), false);
    let mut story = Story::new();
    story.void(1, &SignedRun(vec![0x80]));
    case("L5", "no-run", "a record of what is no run", story.shown(false), false);
    let (mut story, run) = false_run();
    let mut longer = crate::value::Cbor::parse(&VoidRecord { index: 2, run }.to_vec());
    longer.set(2, crate::value::Cbor::Int(1));
    story.record(longer.to_vec());
    case("L5", "unknown-member", "a record with a member that there is not", story.shown(false), false);
    let (mut story, _) = false_run();
    story.void(2, &SignedRun(vec![0; ehe::limits::VOID_RECORD_MAX_BYTES]));
    case("L5", "oversized", "a record above its limit", story.shown(false), false);

    let item = {
        let (mut story, run) = false_run();
        story.void(2, &run);
        story.items(false).remove(3)
    };
    let input = serde_json::json!({"type": "Item", "bytes": h(cbor::to_vec(&item))});
    kit.case("encoding", "E1", "ok-item-void", "an item with a void record", "decode").input(input).valid();
}
