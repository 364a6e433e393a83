//! E3: bytes that another structure carries are judged where they are used, too long ones as malformed ones of their kind.

use ehe::event::{Event, Kind};
use ehe::id::{EheId, Hash, WrapId};
use ehe::limits::{
    CONTENT_BODY_MAX_BYTES, HEADER_MAX_BYTES, READ_REQUEST_MAX_BYTES, RUN_MAX_BYTES, SUBMISSION_MAX_BYTES,
};
use ehe::run::SeenCheckpoint;
use sha2::{Digest, Sha256};

use super::Kit;
use super::scene::{EPOCH, Granted, Scene, hour, with_header};
use super::world::world;
use crate::value::Cbor;

fn case(kit: &mut Kit, slug: &str, title: &str, refusal: u16, make: impl FnOnce(&mut Scene)) {
    let mut scene = Scene::room(Granted::Append);
    make(&mut scene);
    kit.case("run", "E3", slug, title, "ledger").input(super::limits::input(scene)).refused(refusal);
}

/// A submission of one event, whatever it is.
fn submit(scene: &mut Scene, event: Event) {
    let gateway = &world().gateway;
    let mut run = scene.run(gateway, &[]);
    run.ids = vec![EheId(Sha256::digest(&event.header).into())];
    scene.step(run.sign(gateway), vec![event]);
}

/// Content with a body of so many zeros, which its header names.
fn zeros(scene: &mut Scene, bytes: usize) -> Event {
    let content = scene.content(&world().gateway, EPOCH, WrapId([3; 16]), hour());
    assert_eq!(content.core().kind, Kind::Vitals);
    let body = vec![0; bytes];
    let hash = Sha256::digest(&body).to_vec();
    let header = with_header(&content, |v| *v.at(2) = Cbor::Bytes(hash)).header;
    Event { header, body }
}

pub(super) fn cases(kit: &mut Kit) {
    case(kit, "header-oversized-in-a-submission", "a submission with a header of 513 bytes", 4, |scene| {
        let content = scene.content(&world().gateway, EPOCH, WrapId([3; 16]), hour());
        let event = with_header(&content, |v| {
            v.set(9, Cbor::Bytes(vec![]));
            let bytes = v.to_vec().len();
            v.set(9, Cbor::Bytes(vec![0; HEADER_MAX_BYTES + 1 - bytes - 2]));
        });
        assert_eq!(event.header.len(), HEADER_MAX_BYTES + 1);
        submit(scene, event);
    });
    case(kit, "body-oversized-in-a-submission", "a submission with a content body of 65,537 bytes", 4, |scene| {
        let event = zeros(scene, CONTENT_BODY_MAX_BYTES + 1);
        submit(scene, event);
    });
    case(kit, "run-oversized-in-a-submission", "a submission with a signed run of more than 9,216 bytes", 1, |scene| {
        let gateway = &world().gateway;
        let content = scene.content(gateway, EPOCH, WrapId([3; 16]), hour());
        let mut run = scene.run(gateway, std::slice::from_ref(&content));
        run.seen = Some(SeenCheckpoint { origin: "x".repeat(RUN_MAX_BYTES), size: 1, root: Hash::ZERO });
        scene.step(run.sign(gateway), vec![content.into_event()]);
    });
    let title = "a submission of more than 1,047,552 bytes: it is itself too long";
    case(kit, "submission-oversized", title, 63, |scene| {
        let event = zeros(scene, SUBMISSION_MAX_BYTES);
        submit(scene, event);
    });
    let mut scene = Scene::room(Granted::Read);
    let origin = "x".repeat(READ_REQUEST_MAX_BYTES);
    scene.read(&world().clinician, |request| {
        request.head = Some(SeenCheckpoint { origin, size: 1, root: Hash::ZERO });
    });
    let title = "a read request of more than 8,192 bytes";
    kit.case("read", "E3", "request-oversized", title, "ledger").input(scene.input()).refused(40);
}
