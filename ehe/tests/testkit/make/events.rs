//! V, P, K: events, sealing, wraps, the sealed part of a control event.

use chacha20poly1305::aead::{AeadInOut, KeyInit};
use chacha20poly1305::{ChaCha20Poly1305, Key, Nonce as AeadNonce};
use ehe::cbor;
use ehe::control::{Control, EpochCategory, Private, Right};
use ehe::event::{CheckedEvent, Core, Kind};
use ehe::id::{EpochId, Hash, Nonce, RoomId, WrapId};
use ehe::kem::{self, WrapPurpose};
use ehe::limits::{CONTENT_BODY_MAX_BYTES, CONTROL_BODY_MAX_BYTES};
use ehe::seal;
use ehe::time::{Day, UnixMs};
use ehe::vital::Category;
use hkdf::Hkdf;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::Kit;
use super::scene::{EPOCH, Granted, Scene, checked, create, hour, with_header};
use super::world::{seed, seeds, world};
use crate::json::h;
use crate::test_rng::rng;
use crate::value::Cbor;

const FOLDER: &str = "event";

pub(super) fn cases(kit: &mut Kit) {
    events(kit);
    sealing(kit);
    wraps(kit);
    private(kit);
}

fn content() -> CheckedEvent {
    Scene::room(Granted::Append).content(&world().gateway, EPOCH, WrapId([3; 16]), hour())
}

fn bytes(event: &ehe::event::Event) -> Value {
    json!({"header": h(&event.header), "body": h(&event.body)})
}

fn events(kit: &mut Kit) {
    let content = content();
    let mut scene = Scene::room(Granted::Append);
    let wrap = scene.wrap(&world().gateway, EPOCH, hour());
    kit.case(FOLDER, "V1", "ok-content", "a content event: its id is the hash of its header", "event")
        .input(bytes(content.event()))
        .valid();
    kit.case(FOLDER, "V1", "ok-wrap", "a wrap event: content names it by the first half of its id", "event")
        .input(bytes(wrap.event()))
        .valid();
    let core = |key: i128, value: Cbor| with_header(&content, |v| *v.at(0).at(key) = value);
    for (rule, slug, title, event) in [
        ("V1", "version-2", "a version of the format that is not known", core(0, Cbor::Int(2))),
        ("V1", "version-0", "version 0", core(0, Cbor::Int(0))),
        ("V2", "suite-2", "a suite that is not known", core(1, Cbor::Int(2))),
        ("V2", "kind-0", "a kind that there is not", core(2, Cbor::Int(0))),
        ("V2", "kind-7", "a content kind that there is not yet", core(2, Cbor::Int(7))),
        ("V2", "kind-31", "a control kind that there is not yet", core(2, Cbor::Int(31))),
    ] {
        kit.case(FOLDER, rule, slug, title, "event").input(bytes(&event)).invalid();
    }
    let mut other = content.event().clone();
    other.body[0] ^= 1;
    kit.case(FOLDER, "V3", "other-body", "a body that is not the one whose hash the header has", "event")
        .input(bytes(&other))
        .invalid();
    let mut erased = content.event().clone();
    erased.body.clear();
    kit.case(FOLDER, "V3", "no-body", "a body that was left out", "event").input(bytes(&erased)).invalid();
    let control = Core { kind: Kind::Wrap, epoch: EpochId::ZERO, wrap: WrapId::ZERO, ..content.core().clone() };
    let (content, most) = (content.core().clone(), CONTENT_BODY_MAX_BYTES);
    for (slug, title, core, zeros, fits) in [
        ("ok-content-body-full", "a content body of 65,536 bytes", &content, most, true),
        ("content-body-oversized", "a content body of 65,537 bytes", &content, most + 1, false),
        ("ok-control-body-full", "a control body of 393,216 bytes", &control, CONTROL_BODY_MAX_BYTES, true),
        ("control-body-oversized", "a control body of 393,217 bytes", &control, CONTROL_BODY_MAX_BYTES + 1, false),
    ] {
        let input = json!({"header": h(header_over(core.clone(), zeros)), "zeros": zeros});
        let draft = kit.case(FOLDER, "E3", slug, title, "event").input(input);
        if fits { draft.valid() } else { draft.invalid() }
    }
}

/// A header over a body of so many zero bytes.
fn header_over(core: Core, zeros: usize) -> Vec<u8> {
    let body_hash = Hash(Sha256::digest(vec![0u8; zeros]).into());
    cbor::to_vec(&ehe::event::Header { core, commitment: Hash::ZERO, body_hash })
}

/// Seals a plaintext whose padding the caller chose, as section 5 says otherwise.
fn seal_padded(core: Core, padded: &[u8]) -> CheckedEvent {
    let core_bytes = cbor::to_vec(&core);
    let mut okm = [0u8; 76];
    Hkdf::<Sha256>::new(Some(&core.salt.0), Scene::ek().as_slice())
        .expand_multi_info(&[b"ehe/1 seal\0", &core_bytes], &mut okm)
        .unwrap();
    let mut body = padded.to_vec();
    let aad: [u8; 32] = Sha256::digest(&core_bytes).into();
    let key: [u8; 32] = okm[..32].try_into().unwrap();
    let nonce: [u8; 12] = okm[32..44].try_into().unwrap();
    let tag = ChaCha20Poly1305::new(&Key::from(key))
        .encrypt_inout_detached(&AeadNonce::from(nonce), &aad, body.as_mut_slice().into())
        .unwrap();
    body.extend_from_slice(&tag);
    checked(core, Hash(okm[44..].try_into().unwrap()), body)
}

fn sealing(kit: &mut Kit) {
    let core = content().core().clone();
    let keys = json!({"ek": h(seed("event key"))});
    for (slug, plaintext) in [
        ("empty", vec![]),
        ("36.40", b"36.40".to_vec()),
        ("239", vec![1; 239]),
        ("240", vec![1; 240]),
        ("1000", (0..1000).map(|i| u8::try_from(i % 251).unwrap()).collect()),
    ] {
        let input = json!({"core": h(cbor::to_vec(&core)), "plaintext": h(&plaintext)});
        let title = format!("sealing: key, core and {} bytes of plaintext give these bytes", plaintext.len());
        kit.case(FOLDER, "P1", &format!("ok-seal-{slug}"), &title, "seal").keys(keys.clone()).input(input).valid();
        let event = seal::seal(&Scene::ek(), core.clone(), &plaintext).unwrap();
        let title = format!("opening a body of {} bytes of plaintext", plaintext.len());
        kit.case(FOLDER, "P1", &format!("ok-open-{slug}"), &title, "open")
            .keys(keys.clone())
            .input(bytes(event.event()))
            .valid();
    }
    kit.case(FOLDER, "P3", "plaintext-too-long", "a plaintext whose padded body passes 65,536 bytes", "seal")
        .keys(keys.clone())
        .input(json!({"core": h(cbor::to_vec(&core)), "zeros": 65_520}))
        .invalid();
    let padded = |plaintext: &[u8], marker: u8, length: usize| {
        let mut padded = plaintext.to_vec();
        padded.push(marker);
        padded.resize(length - 16, 0);
        seal_padded(core.clone(), &padded)
    };
    assert_eq!(padded(b"36.40", 0x80, 256), seal::seal(&Scene::ek(), core.clone(), b"36.40").unwrap());
    let mut dirty = b"36.40\x80".to_vec();
    dirty.resize(240, 0);
    dirty[239] = 1;
    for (slug, title, event) in [
        ("marker-bits", "the padding's first byte is 0x81", padded(b"36.40", 0x81, 256)),
        ("marker-01", "the padding's first byte is 0x01", padded(b"36.40", 0x01, 256)),
        ("not-zeros", "a bit is set in the padding's zeros", seal_padded(core.clone(), &dirty)),
        ("too-short", "padded to 255 bytes", padded(b"36.40", 0x80, 255)),
        ("too-long", "padded to the next step but one", padded(b"36.40", 0x80, 272)),
        ("all-zeros", "zeros alone", seal_padded(core.clone(), &[0; 240])),
        ("none", "no padding at all", seal_padded(core.clone(), b"36.40")),
    ] {
        kit.case(FOLDER, "P1", slug, title, "open").keys(keys.clone()).input(bytes(event.event())).invalid();
    }
    let good = seal::seal(&Scene::ek(), core.clone(), b"36.40").unwrap();
    kit.case(FOLDER, "P2", "other-key", "opened with another key: the commitment is not that key's", "open")
        .keys(json!({"ek": h(seed("another event key"))}))
        .input(bytes(good.event()))
        .invalid();
    let forged = checked(core.clone(), Hash([7; 32]), good.body().to_vec());
    kit.case(FOLDER, "P2", "other-commitment", "the ciphertext would open, the commitment is not the key's", "open")
        .keys(keys.clone())
        .input(bytes(forged.event()))
        .invalid();
    let mut altered = good.body().to_vec();
    altered[3] ^= 1;
    let altered = checked(core.clone(), good.header().commitment, altered);
    kit.case(FOLDER, "P4", "altered", "a ciphertext that was altered and hashed again", "open")
        .keys(keys.clone())
        .input(bytes(altered.event()))
        .invalid();
    let moved = with_header(&good, |v| *v.at(0).at(3) = Cbor::Bytes(vec![0x11; 16]));
    kit.case(FOLDER, "P4", "moved", "a body under a core that names another room", "open")
        .keys(keys)
        .input(bytes(&moved))
        .invalid();
}

fn wraps(kit: &mut Kit) {
    let room = create().room_id();
    let (author, recipient) = (world().gateway.author_id(), world().clinician.author_id());
    let (salt, day) = (Nonce([6; 16]), hour().day());
    let reader = world().clinician.public();
    let secret = seed("what is wrapped").into();
    let keys = json!({"kem": h(seed("clinician kem"))});
    let ek = json!({"purpose": "EK", "room": room.to_string(), "author": author.to_string(), "epoch": EPOCH.to_string(), "day": day.0});
    let gk = json!({"purpose": "GK", "room": room.to_string(), "epoch": EPOCH.to_string(), "recipient": recipient.to_string()});
    let part = json!({"purpose": "part", "room": room.to_string(), "author": author.to_string(), "salt": salt.to_string(), "recipient": recipient.to_string()});
    let of = |purpose: &WrapPurpose| kem::wrap(&mut rng(3), &reader.kem, purpose, &secret).unwrap();
    let with = |input: &Value, wrapped: &[u8]| {
        let mut input = input.clone();
        input["wrapped"] = h(wrapped);
        input
    };
    let ek_wrap = of(&WrapPurpose::EventKey { room, author, epoch: EPOCH, day });
    let gk_wrap = of(&WrapPurpose::GroupSeed { room, epoch: EPOCH, recipient });
    let part_wrap = of(&WrapPurpose::ControlPart { room, author, salt, recipient });
    for (slug, title, input, wrap) in [
        ("event-key", "an event key, wrapped to a group key", &ek, &ek_wrap),
        ("group-seed", "a group key's seed, wrapped to a reader", &gk, &gk_wrap),
        ("part-key", "the key of a sealed part, wrapped to a party", &part, &part_wrap),
    ] {
        kit.case(FOLDER, "K2", &format!("ok-{slug}"), title, "unwrap")
            .keys(keys.clone())
            .input(with(input, wrap.as_bytes()))
            .valid();
    }
    let other_day = {
        let mut input = ek.clone();
        input["day"] = json!(Day(day.0 + 1).0);
        input
    };
    let other_room = {
        let mut input = gk.clone();
        input["room"] = json!(RoomId([1; 16]).to_string());
        input
    };
    let other_epoch = {
        let mut input = gk.clone();
        input["epoch"] = json!(EpochId([1; 16]).to_string());
        input
    };
    let mut altered = gk_wrap.as_bytes().to_vec();
    altered[1150] ^= 1;
    let mut altered_key = gk_wrap.as_bytes().to_vec();
    altered_key[5] ^= 1;
    for (slug, title, input) in [
        ("other-day", "an event key's wrap shown as another day's", with(&other_day, ek_wrap.as_bytes())),
        ("other-room", "a seed's wrap shown as another room's", with(&other_room, gk_wrap.as_bytes())),
        ("other-epoch", "a seed's wrap shown as another epoch's", with(&other_epoch, gk_wrap.as_bytes())),
        ("other-purpose", "a seed's wrap shown as a part key's", with(&part, gk_wrap.as_bytes())),
        ("altered", "a wrap whose ciphertext was altered", with(&gk, &altered)),
        ("altered-encapsulation", "a wrap whose encapsulation was altered", with(&gk, &altered_key)),
        ("short", "a wrap of 1167 bytes", with(&gk, &gk_wrap.as_bytes()[..1167])),
    ] {
        kit.case(FOLDER, "K2", slug, title, "unwrap").keys(keys.clone()).input(input).invalid();
    }
    kit.case(FOLDER, "K2", "other-recipient", "a wrap that another key was meant to open", "unwrap")
        .keys(json!({"kem": h(seed("stranger kem"))}))
        .input(with(&gk, gk_wrap.as_bytes()))
        .invalid();
}

fn private(kit: &mut Kit) {
    let scene = Scene::room(Granted::Append);
    let grant = scene.grant_record(&world().clinician, Right::Read, |_| {});
    let private = Private {
        categories: vec![EpochCategory { epoch: EPOCH, category: Category::Cardiac }],
        purpose: Some("treatment".into()),
        name: Some("Dr. Example".into()),
        recovery: None,
        notes: None,
    };
    let parties = [world().patient.party(), world().clinician.party()];
    let at = UnixMs(scene.now);
    let author = world().patient.author_id();
    let make = |control: &Control, private: &Private| {
        control.event(&mut rng(4), scene.id, author, at, Some((private, &parties))).unwrap()
    };
    let event = make(&grant, &private);
    for reader in ["patient", "clinician"] {
        kit.case(FOLDER, "K3", &format!("ok-{reader}"), "a party opens the sealed part of a grant", "private")
            .keys(json!({"reader": seeds(reader)}))
            .input(bytes(event.event()))
            .valid();
    }
    let created = make(&Control::RoomCreate(create()), &private);
    kit.case(FOLDER, "K3", "ok-room-create", "in room-create the key is bound to a room of zeros", "private")
        .keys(json!({"reader": seeds("patient")}))
        .input(bytes(created.event()))
        .valid();
    kit.case(FOLDER, "K3", "not-a-party", "who is no party opens nothing", "private")
        .keys(json!({"reader": seeds("stranger")}))
        .input(bytes(event.event()))
        .invalid();
    let with_body = |change: &dyn Fn(&mut Cbor)| {
        let mut body = Cbor::parse(event.body());
        change(&mut body);
        checked(event.core().clone(), event.header().commitment, body.to_vec())
    };
    let altered = with_body(&|body| body.at(1).bytes()[2] ^= 1);
    kit.case(FOLDER, "K3", "altered", "a sealed part that was altered and hashed again", "private")
        .keys(json!({"reader": seeds("patient")}))
        .input(bytes(altered.event()))
        .invalid();
    let swapped = with_body(&|body| {
        let (first, second) = (body.at(2).at(0).at(1).clone(), body.at(2).at(1).at(1).clone());
        *body.at(2).at(0).at(1) = second;
        *body.at(2).at(1).at(1) = first;
    });
    kit.case(FOLDER, "K3", "keys-swapped", "the part's key, wrapped for another party", "private")
        .keys(json!({"reader": seeds("patient")}))
        .input(bytes(swapped.event()))
        .invalid();
    let content = ehe::event::Core { kind: ehe::event::Kind::Note, ..event.core().clone() };
    let of_content = checked(content, event.header().commitment, event.body().to_vec());
    kit.case(FOLDER, "K3", "of-content", "content whose body has the form of a control body", "private")
        .keys(json!({"reader": seeds("patient")}))
        .input(bytes(of_content.event()))
        .invalid();
    private_limits(kit, &scene);
    let no_commitment = checked(event.core().clone(), Hash::ZERO, event.body().to_vec());
    kit.case(FOLDER, "K3", "commitment-zeros", "a sealed part under a header without commitment", "private")
        .keys(json!({"reader": seeds("patient")}))
        .input(bytes(no_commitment.event()))
        .invalid();
}

/// What a sealed part may hold, and one more.
fn private_limits(kit: &mut Kit, scene: &Scene) {
    let id = |i: u8, bytes: usize| Cbor::Bytes(vec![i; bytes]);
    let category = |i| Cbor::Map(vec![(0, id(i, 16)), (1, Cbor::Int(1))]);
    let note = |i| Cbor::Map(vec![(0, id(i, 32))]);
    let text = |bytes: usize| Cbor::Text("x".repeat(bytes));
    let none = || (0, Cbor::Array(vec![]));
    let of = |categories: u8, notes: u8| {
        Cbor::Map(vec![
            (0, Cbor::Array((0..categories).map(category).collect())),
            (4, Cbor::Array((0..notes).map(note).collect())),
        ])
    };
    let noted = |bytes| Cbor::Array(vec![Cbor::Map(vec![(0, id(1, 32)), (2, text(bytes))])]);
    for (slug, title, private, fits) in [
        (
            "label-oversized",
            "a sealed part whose purpose has 201 bytes",
            Cbor::Map(vec![none(), (1, text(201))]),
            false,
        ),
        ("ok-label-full", "a purpose of 200 bytes", Cbor::Map(vec![none(), (1, text(200))]), true),
        ("note-oversized", "a note whose name has 201 bytes", Cbor::Map(vec![none(), (4, noted(201))]), false),
        ("ok-categories-64", "the categories of 64 epochs, and 64 notes", of(64, 64), true),
        ("categories-65", "the categories of 65 epochs", of(65, 1), false),
        ("notes-65", "65 notes", of(1, 65), false),
    ] {
        let event = sealed_by_hand(scene, &private);
        let draft = kit
            .case(FOLDER, "E3", slug, title, "private")
            .keys(json!({"reader": seeds("patient")}))
            .input(bytes(event.event()));
        if fits { draft.valid() } else { draft.invalid() }
    }
}

/// A grant whose sealed part is what the library would not seal.
fn sealed_by_hand(scene: &Scene, private: &Cbor) -> CheckedEvent {
    let patient = &world().patient;
    let (author, salt) = (patient.author_id(), Nonce([6; 16]));
    let grant = scene.grant_record(&world().clinician, Right::Read, |_| {});
    let plain = grant.event(&mut rng(4), scene.id, author, UnixMs(scene.now), None).unwrap();
    let core = Core { salt, ..plain.core().clone() };
    let sealed = seal::seal(&Scene::ek(), core.clone(), &private.to_vec()).unwrap();
    let wrap = WrapPurpose::ControlPart { room: scene.id, author, salt, recipient: author };
    let wrapped = kem::wrap(&mut rng(5), &patient.public().kem, &wrap, &Scene::ek()).unwrap();
    let party = Cbor::Map(vec![(0, Cbor::Bytes(author.0.to_vec())), (1, Cbor::Bytes(wrapped.as_bytes().to_vec()))]);
    let mut body = Cbor::parse(plain.body());
    body.set(1, Cbor::Bytes(sealed.body().to_vec()));
    body.set(2, Cbor::Array(vec![party]));
    checked(core, sealed.header().commitment, body.to_vec())
}
