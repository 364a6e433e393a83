//! A12: each count that a room or a control event may reach, reached and passed. A thousand events alike: their bytes are packed.

use ehe::control::{Change, Control, Grant, Right, Rights, SeedWrap, possession};
use ehe::event::CheckedEvent;
use ehe::id::{AuthorId, EheId, EpochId};
use ehe::identity::{Identity, PublicIdentity};
use ehe::kem::KemSecret;
use ehe::limits::{
    DELEGATIONS_PER_ROOM_MAX, EPOCHS_PER_GRANT_MAX, EPOCHS_PER_ROOM_MAX, GRANTED_EPOCHS_PER_ROOM_MAX,
    GRANTS_PER_ROOM_MAX, OWNER_KEYS_BY_ROTATION_MAX, OWNER_KEYS_PER_ROOM_MAX, RUN_EVENTS_MAX, WRAPS_PER_CONTROL_MAX,
};
use ehe::refusal::Refusal;
use ehe::sign::SignKey;
use serde_json::{Value, json};

use super::Kit;
use super::authority::{record, submit_by};
use super::scene::{EPOCH, Granted, NOW, Scene, checked, hour};
use super::world::{seed, world};
use crate::json::{Members, packed};
use crate::run::ledger::Outcome;
use crate::value::Cbor;

pub(super) fn cases(kit: &mut Kit) {
    records(kit);
    grants(kit);
    epochs(kit);
    granted_epochs(kit);
    delegations(kit);
    owner_keys(kit);
}

/// What the case carries, its submissions packed.
pub(super) fn input(scene: Scene) -> Value {
    let mut input = scene.input();
    for step in input["steps"].as_array_mut().unwrap() {
        step["submit"] = packed(&step.bytes("submit"));
    }
    input
}

fn refused(
    kit: &mut Kit,
    folder: &'static str,
    slug: &str,
    title: &str,
    without: &'static [&'static str],
    scene: Scene,
) {
    kit.case(folder, "A12", slug, title, "ledger").without(without).input(input(scene)).refused(24);
}

/// A control event with so many PartKeys, hashed again. Nodes count them and look no further.
pub(super) fn with_parties(event: &CheckedEvent, count: u8) -> CheckedEvent {
    let mut body = Cbor::parse(event.body());
    let party = |i| Cbor::Map(vec![(0, Cbor::Bytes(vec![i; 16])), (1, Cbor::Bytes(vec![0; 1168]))]);
    *body.at(2) = Cbor::Array((0..count).map(party).collect());
    checked(event.core().clone(), event.header().commitment, body.to_vec())
}

/// Identities that share one encryption key, which is most of an identity.
fn person(label: &str) -> Identity {
    Identity::new(SignKey::from_seed(&seed(label)), KemSecret::from_seed(seed("patient kem").into()))
}

/// The counts of single records: seeds, PartKeys, epochs.
fn records(kit: &mut Kit) {
    let seeds =
        |scene: &mut Scene, count: usize| -> Vec<SeedWrap> { vec![scene.seed_wrap(EPOCH, &world().clinician); count] };
    type Make = fn(&mut Scene, Vec<SeedWrap>) -> Control;
    let authority: Make = |scene, seeds| {
        Control::Authority(ehe::control::Authority { link: scene.link, change: Change::HandOver, seeds })
    };
    let epoch: Make = |scene, seeds| {
        let mut epoch = scene.epoch(EpochId([0xe3; 16]), None, vec![]);
        if let Control::Epoch(record) = &mut epoch {
            record.seeds = seeds;
        }
        epoch
    };
    let grant: Make =
        |scene, seeds| scene.grant_record(&world().other, Right::Read, |grant: &mut Grant| grant.seeds = seeds);
    for (slug, what, most, make) in [
        ("authority-seeds", "a hand-over", WRAPS_PER_CONTROL_MAX, authority),
        ("epoch-seeds", "an epoch record", WRAPS_PER_CONTROL_MAX, epoch),
        ("grant-seeds", "a grant", EPOCHS_PER_GRANT_MAX, grant),
    ] {
        let mut scene = Scene::room(Granted::None);
        let brought = seeds(&mut scene, most);
        let control = make(&mut scene, brought);
        let event = scene.made(&control);
        scene.accept(&world().patient, &[event]);
        let brought = seeds(&mut scene, most + 1);
        let control = make(&mut scene, brought);
        let event = scene.made(&control);
        scene.submit(&world().patient, &[event]);
        refused(kit, "rights", slug, &format!("{what} with {most} seeds, then one with {}", most + 1), &[], scene);
    }
    let mut scene = Scene::room(Granted::None);
    for count in [160, 161] {
        let control = record(&scene, Change::HandOver);
        let event = scene.made(&control);
        let event = with_parties(&event, count);
        scene.link.previous = event.id();
        scene.submit(&world().patient, &[event]);
    }
    refused(kit, "rights", "part-keys", "a hand-over with 160 PartKeys, then one with 161", &[], scene);
}

fn grants(kit: &mut Kit) {
    let mut scene = Scene::room(Granted::None);
    let records: Vec<_> =
        (0..=GRANTS_PER_ROOM_MAX).map(|_| scene.grant(&world().clinician, Right::Append, |_| {})).collect();
    let (most, above) = records.split_at(GRANTS_PER_ROOM_MAX);
    for run in most.chunks(RUN_EVENTS_MAX) {
        scene.accept(&world().patient, run);
    }
    scene.submit(&world().patient, above);
    scene.ask("append", &world().clinician, EPOCH, hour(), NOW, json!("yes"));
    refused(kit, "rights", "grants", "1,024 grants, then one more", &["state"], scene);
}

fn nth(epoch: usize) -> EpochId {
    let mut id = [0xe0; 16];
    id[12..].copy_from_slice(&u32::try_from(epoch).unwrap().to_be_bytes());
    EpochId(id)
}

fn epochs(kit: &mut Kit) {
    let mut scene = Scene::room(Granted::Bare);
    let records: Vec<_> = (0..=EPOCHS_PER_ROOM_MAX)
        .map(|at| {
            let epoch = scene.epoch(nth(at), None, vec![]);
            scene.made(&epoch)
        })
        .collect();
    let (most, above) = records.split_at(EPOCHS_PER_ROOM_MAX);
    for run in most.chunks(RUN_EVENTS_MAX) {
        scene.accept(&world().patient, run);
    }
    scene.submit(&world().patient, above);
    scene.ask("append", &world().patient, nth(EPOCHS_PER_ROOM_MAX - 1), hour(), NOW, json!("yes"));
    scene.ask("append", &world().patient, nth(EPOCHS_PER_ROOM_MAX), hour(), NOW, json!(15));
    refused(kit, "rights", "epochs", "4,096 epochs, then one more", &["state"], scene);
}

/// 160 grants of 64 epochs, continued by one epoch after another until 65,536 are covered.
fn granted_epochs(kit: &mut Kit) {
    let patient = &world().patient;
    let mut scene = Scene::room(Granted::Bare);
    let mut events = Vec::new();
    let mut last = 0;
    for at in 0..EPOCHS_PER_GRANT_MAX {
        let epoch = scene.epoch(nth(at), None, vec![]);
        events.push(scene.made(&epoch));
        last = at;
    }
    let all: Vec<EpochId> = (0..EPOCHS_PER_GRANT_MAX).map(nth).collect();
    let mut grants: Vec<EheId> = Vec::new();
    for _ in 0..WRAPS_PER_CONTROL_MAX {
        let grant = scene.grant(&world().clinician, Right::Append, |grant| grant.epochs.clone_from(&all));
        grants.push(grant.id());
        events.push(grant);
    }
    let mut left = GRANTED_EPOCHS_PER_ROOM_MAX - grants.len() * EPOCHS_PER_GRANT_MAX;
    while left > 0 {
        let goes_on = &grants[..left.min(grants.len())];
        let epoch = scene.epoch(nth(last + 1), Some(nth(last)), goes_on.to_vec());
        events.push(scene.made(&epoch));
        left -= goes_on.len();
        last += 1;
    }
    // What grants nothing fits still.
    let epoch = scene.epoch(nth(last + 1), None, vec![]);
    events.push(scene.made(&epoch));
    for run in events.chunks(128) {
        scene.accept(patient, run);
    }
    let link = scene.link;
    let grant = scene.grant(&world().other, Right::Append, |grant| grant.epochs = vec![nth(last)]);
    assert_eq!(scene.submit(patient, &[grant]), Outcome::Refused(Refusal::LimitReached));
    scene.link = link;
    // As many as it names, though there is no such grant: counts come before whose they are.
    let epoch = scene.epoch(nth(last + 2), Some(nth(last)), vec![EheId([9; 32])]);
    super::rights::submit(&mut scene, &epoch);
    scene.link = link;
    let epoch = scene.epoch(nth(last + 2), Some(nth(last)), vec![grants[0]]);
    super::rights::submit(&mut scene, &epoch);
    scene.ask("append", &world().clinician, nth(last), hour(), NOW, json!("yes"));
    scene.ask("append", &world().clinician, nth(last + 1), hour(), NOW, json!(15));
    let title = "grants that cover 65,536 epochs together; an epoch that continues none, a grant, epochs that continue an unknown grant and one of these";
    refused(kit, "rights", "granted-epochs", title, &["state"], scene);
}

fn delegations(kit: &mut Kit) {
    let mut scene = Scene::room(Granted::Bare);
    let patient = &world().patient;
    let delegating = |scene: &mut Scene, at: usize, rights: Rights| {
        let delegate: PublicIdentity = person(&format!("delegate {at}")).public().clone();
        let control = record(scene, Change::Delegate(delegate, rights, None));
        scene.made(&control)
    };
    let records: Vec<_> = (0..DELEGATIONS_PER_ROOM_MAX).map(|at| delegating(&mut scene, at, Rights::GRANT)).collect();
    scene.accept(patient, &records);
    let again = delegating(&mut scene, 0, Rights::REVOKE);
    scene.accept(patient, &[again]);
    let above = delegating(&mut scene, DELEGATIONS_PER_ROOM_MAX, Rights::GRANT);
    scene.submit(patient, &[above]);
    let title = "64 delegates, one of them again, then one more";
    refused(kit, "authority", "delegations", title, &[], scene);
}

fn owner_keys(kit: &mut Kit) {
    let mut scene = Scene::room(Granted::Bare);
    let owner: AuthorId = world().patient.author_id();
    let paper = person("paper");
    super::authority::accept(&mut scene, Change::SetRecovery(paper.public().commitment()));
    let mut present = world().patient.clone();
    let keys = |at: usize| person(&format!("owner keys {at}"));
    let rotate = |scene: &mut Scene, present: &Identity, to: &Identity| {
        let change = Change::Rotate(to.public().clone(), possession(to, scene.id, scene.link));
        submit_by(scene, present, change)
    };
    for at in 1..OWNER_KEYS_BY_ROTATION_MAX {
        assert_eq!(rotate(&mut scene, &present, &keys(at)), Outcome::Accepted);
        present = keys(at).acting_as(owner);
    }
    let link = scene.link;
    assert_eq!(rotate(&mut scene, &present, &keys(128)), Outcome::Refused(Refusal::LimitReached));
    scene.link = link;
    for at in OWNER_KEYS_BY_ROTATION_MAX..=OWNER_KEYS_PER_ROOM_MAX {
        let to = keys(at);
        let change = Change::Recover {
            recovery: paper.public().clone(),
            keys: to.public().clone(),
            possession: possession(&to, scene.id, scene.link),
            next: paper.public().commitment(),
            distrusted_from: None,
        };
        let accepted = submit_by(&mut scene, &paper, change) == Outcome::Accepted;
        assert_eq!(accepted, at < OWNER_KEYS_PER_ROOM_MAX);
    }
    let title = "128 keys by rotation, then one more; 256 by recovery, then one more";
    let draft = kit.case("authority", "A14", "as-many-keys-as-there-may-be", title, "ledger").input(input(scene));
    draft.refused(24);
}
