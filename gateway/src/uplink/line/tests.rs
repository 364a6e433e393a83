use ehe::id::Nonce;
use ehe::run::Run;
use ehe::seal;
use ehe::wire::Submitted;

use super::*;
use crate::rooms::testing::{Ledger, NOW, Patient, identity, rng};

struct Scene {
    ledger: Ledger,
    gateway: Identity,
    patient: Patient,
    line: Line,
    events: Vec<(EheId, Event)>,
}

/// A room, an append grant, and a wrap with `count` events under it.
fn scene(count: u8) -> Scene {
    use ehe::control::{Control, WrapRecord};
    use ehe::event::{Core, Kind, Suite, VERSION};
    use ehe::kem::{self, WrapPurpose, random_secret};
    use ehe::vital::Category;

    let mut ledger = Ledger::of(1);
    let (gateway, mut patient) = (identity(), Patient::new(&mut ledger));
    let epoch = patient.epoch(&mut ledger, Category::Cardiac, None, &[], &[]);
    patient.grant(&mut ledger, gateway.public(), &[(epoch, Category::Cardiac)], None);
    let (room, author, day) = (patient.room, gateway.author_id(), NOW.day());
    let ek = random_secret(&mut rng());
    let purpose = WrapPurpose::EventKey { room, author, epoch, day };
    let wrapped = kem::wrap(&mut rng(), &patient.seeds[&epoch].public(), &purpose, &ek).unwrap();
    let wrap = Control::Wrap(WrapRecord { epoch, day, wrapped }).event(&mut rng(), room, author, NOW, None).unwrap();
    let core = |salt| Core {
        version: VERSION,
        suite: Suite::One,
        kind: Kind::Vitals,
        room,
        author,
        epoch,
        wrap: wrap.id().into(),
        hour: NOW.hour(),
        salt: Nonce([salt; 16]),
    };
    let events = (0..count).map(|salt| seal::seal(&ek, core(salt), &[salt]).unwrap());
    let events = [wrap.clone()].into_iter().chain(events).map(|e| (e.id(), e.into_event())).collect();
    let line = Line::new(room, StrandId([1; 8]), 256);
    Scene { ledger, gateway, patient, line, events }
}

impl Scene {
    fn attempt(&self, events: &[(EheId, Event)]) -> Attempt {
        self.line.attempt(&self.gateway, events.to_vec()).unwrap().unwrap()
    }

    fn commit(&mut self, attempt: &Attempt) -> Response {
        let Ok(Request::Submit(submission)) = Request::decode(&attempt.frame()) else { panic!() };
        self.ledger.submit(&submission)
    }

    fn judge(&mut self, attempt: &Attempt, answer: Response) -> Verdict {
        self.judge_knowing(attempt, answer, None)
    }

    fn judge_knowing(&mut self, attempt: &Attempt, answer: Response, known: Option<&SeenCheckpoint>) -> Verdict {
        self.line.judge(attempt, answer, &self.gateway, &self.ledger.charter, known, StrandId([2; 8]))
    }
}

#[test]
fn runs_follow_each_other_in_one_strand() {
    let mut scene = scene(3);
    for events in [scene.events[..2].to_vec(), scene.events[2..].to_vec()] {
        let attempt = scene.attempt(&events);
        let answer = scene.commit(&attempt);
        let verdict = scene.judge(&attempt, answer);
        let Verdict::Confirm { receipts, known: false, control_seq: Some(3) } = verdict else { panic!("{verdict:?}") };
        assert_eq!(receipts[0].run().run().ids.len(), 2);
    }
    assert_eq!(scene.line.strand.end().next, 4);
}

#[test]
fn after_a_lost_answer_the_strand_goes_on_behind_the_run_that_is_shown() {
    let mut scene = scene(3);
    let lost = scene.attempt(&scene.events[..2]);
    scene.commit(&lost);
    let wider = scene.attempt(&scene.events);
    let answer = scene.commit(&wider);
    assert!(matches!(scene.judge(&wider, answer), Verdict::Confirm { known: true, .. }));
    let rest = scene.attempt(&scene.events[2..]);
    let answer = scene.commit(&rest);
    assert!(matches!(scene.judge(&rest, answer), Verdict::Confirm { known: false, .. }));
}

#[test]
fn a_run_that_is_not_ours_confirms_nothing_although_its_receipt_is_good() {
    let mut scene = scene(1);
    let attempt = scene.attempt(&scene.events);
    // Somebody else's run that names our events.
    let run = Run { author: scene.patient.identity.author_id(), ..attempt.run.run().clone() };
    let forged = run.sign(&scene.patient.identity);
    let Response::Submitted(Submitted { receipt, .. }) = scene.commit(&attempt) else { panic!() };
    let answer = Response::Known(vec![KnownRun { run: forged, receipt }]);
    assert!(matches!(scene.judge(&attempt, answer), Verdict::Fault(NodeFault::NotOurs(_))));
}

#[test]
fn a_known_answer_that_shows_none_of_the_run_is_a_fault() {
    let mut scene = scene(2);
    let first = scene.attempt(&scene.events[..2]);
    let Response::Submitted(Submitted { receipt, .. }) = scene.commit(&first) else { panic!() };
    let other = scene.attempt(&scene.events[2..]);
    let answer = Response::Known(vec![KnownRun { run: first.linked.run.clone(), receipt }]);
    assert!(matches!(scene.judge(&other, answer), Verdict::Fault(NodeFault::NothingKnown)));
    assert!(matches!(scene.judge(&other, Response::Known(vec![])), Verdict::Fault(NodeFault::NothingKnown)));
}

#[test]
fn a_receipt_of_a_rewritten_history_is_a_fault() {
    let mut scene = scene(1);
    let attempt = scene.attempt(&scene.events);
    let answer = scene.commit(&attempt);
    let Response::Submitted(submitted) = &answer else { panic!() };
    let size = submitted.receipt.leaf.index + 1;
    let origin = scene.ledger.charter.origin(0, 0);
    let seen = SeenCheckpoint { origin, size, root: ehe::id::Hash([9; 32]) };
    let verdict = scene.judge_knowing(&attempt, answer.clone(), Some(&seen));
    assert!(matches!(verdict, Verdict::Fault(NodeFault::History(FollowError::Forked { .. }))), "{verdict:?}");
    let elsewhere = SeenCheckpoint { origin: scene.ledger.charter.origin(0, 1), ..seen };
    let verdict = scene.judge_knowing(&attempt, answer, Some(&elsewhere));
    assert!(matches!(verdict, Verdict::Fault(NodeFault::History(FollowError::OtherLog { .. }))), "{verdict:?}");
    assert_eq!(scene.line.strand.end().next, 0);
}

#[test]
fn a_gap_begins_a_new_strand_and_a_node_that_finds_gaps_in_new_strands_is_at_fault() {
    let mut scene = scene(1);
    let attempt = scene.attempt(&scene.events);
    for _ in 0..GAPS_MAX {
        let verdict = scene.judge(&attempt, Response::Refused(Refusal::StrandGap));
        assert!(matches!(verdict, Verdict::Again));
        assert_eq!(scene.line.strand.end(), ehe::run::StrandEnd::start(StrandId([2; 8])));
    }
    let verdict = scene.judge(&attempt, Response::Refused(Refusal::StrandGap));
    assert!(matches!(verdict, Verdict::Fault(NodeFault::Gaps)));
}

#[test]
fn a_refused_run_is_halved_until_the_event_stands_alone() {
    let mut scene = scene(99);
    let bad = scene.events[37].0;
    let mut sizes = Vec::new();
    let mut waiting = scene.events.clone();
    loop {
        let attempt = scene.attempt(&waiting);
        sizes.push(attempt.events.len());
        let answer = if attempt.run.run().ids.contains(&bad) {
            Response::Refused(Refusal::EventMalformed)
        } else {
            scene.commit(&attempt)
        };
        match scene.judge(&attempt, answer) {
            Verdict::Again => {}
            Verdict::Confirm { receipts, .. } => {
                let ids = &receipts[0].run().run().ids;
                waiting.retain(|(id, _)| !ids.contains(id));
                if waiting.is_empty() {
                    break;
                }
            }
            Verdict::Offending { id, refusal, .. } => {
                assert_eq!((id, refusal), (bad, Refusal::EventMalformed));
                waiting.retain(|(other, _)| *other != id);
                scene.line.put_aside();
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(sizes.len() < 30, "{sizes:?}");
}

#[test]
fn an_answer_to_another_question_is_a_fault() {
    let mut scene = scene(1);
    let attempt = scene.attempt(&scene.events);
    let verdict = scene.judge(&attempt, Response::Rooms(vec![]));
    assert!(matches!(verdict, Verdict::Fault(NodeFault::Protocol)));
}

#[test]
fn a_run_never_outgrows_what_a_submission_may_hold() {
    let scene = scene(0);
    let large = Event { header: vec![0; 400], body: vec![0; limits::CONTENT_BODY_MAX_BYTES] };
    let events = (0..=255u8).map(|i| (EheId([i; 32]), large.clone()));
    let attempt = scene.line.attempt(&scene.gateway, events).unwrap().unwrap();
    assert!(attempt.events.len() >= 15);
    assert!(attempt.frame().len() <= limits::SUBMISSION_MAX_BYTES);
}
