//! Changes that were done, and whose answer was lost or false, or that broke off in between.
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering::SeqCst};
use std::time::Duration;

use crate::support::gateway::now;
use crate::support::liar::{self, unwilling};
use crate::support::{World, free_port};
use certs::Role;
use ehe::control::{Control, ControlLink, EpochCategory, EpochRecord, Private, SeedWrap};
use ehe::id::{EpochId, RoomId};
use ehe::identity::Identity;
use ehe::kem::KemSecret;
use ehe::read::Purpose;
use ehe::recovery::RecoveryKey;
use ehe::refusal::Refusal;
use ehe::vital::Category;
use ehe_reader::home::Home;
use ehe_reader::keys::open_seed;
use ehe_reader::session::{Session, random, rng};
use ehe_reader::submit::submit;

const PEOPLE: &[(&str, Role)] =
    &[("patient", Role::Patient), ("fresh", Role::Patient), ("other", Role::Patient), ("helper", Role::Clinician)];

#[tokio::test(flavor = "multi_thread")]
async fn a_rotation_that_was_done_before_is_not_said_to_be_undone_and_can_be_finished() {
    let world = World::new(PEOPLE);
    let node = world.start().await;
    let room = world.room().await;
    let to = |who: &str| format!("authority rotate --room {room} --to {}", world.path(who).display());
    world.ok("patient", &to("fresh")).await;
    let again = world.ehe("patient", &to("fresh")).await;
    assert!(again.exit != 0 && !again.err.contains("not used"), "{again:?}");
    let resume = format!("authority resume --room {room} --from {}", world.path("patient").display());
    let finish = format!("ehe --home {} {resume}", world.path("fresh").display());
    assert!(again.err.contains("done before") && again.err.contains(&finish), "{finish}: {again:?}");
    world.ok("fresh", &resume).await;
    // Keys that are not those in force: all that is known is that the present ones were replaced.
    let elsewhere = world.ehe("patient", &to("other")).await;
    assert!(elsewhere.exit == 3 && !elsewhere.err.contains("not used"), "{elsewhere:?}");
    assert!(elsewhere.err.contains("the owner has replaced them"), "{elsewhere:?}");
    node.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_room_that_was_made_although_the_node_says_refused_is_found_and_its_recovery_key_counts() {
    let world = World::new(PEOPLE);
    let real = free_port();
    let node = world.start_at(real).await;
    let mode = unwilling(&world, real, Refusal::LimitReached);
    let paper = world.path("paper");
    let create = format!("room create --recovery-no-passphrase --recovery-out {}", paper.display());
    mode.store(3, SeqCst);
    let made = world.ehe("patient", &create).await;
    assert!(made.exit == 0 && paper.exists() && !made.err.contains("not used"), "{made:?}");
    let room = made.out.trim();
    mode.store(0, SeqCst);
    world.ok("fresh", &format!("authority show --room {room} --key {}", paper.display())).await;
    assert!(world.ok("patient", "rooms").await.contains(room));
    // That no room has a key is what the node says.
    mode.store(1, SeqCst);
    let refused = world.ehe("patient", "room create").await;
    assert!(refused.exit == 1 && refused.err.contains("the node says that it was refused"), "{refused:?}");
    // Where it cannot be found out, the message names the room and what tells.
    mode.store(2, SeqCst);
    let lost = world.ehe("patient", "--timeout 1 room create --no-recovery").await;
    assert!(lost.exit == 1 && lost.err.contains("`ehe rooms` tells"), "{lost:?}");
    node.stop().await.unwrap();
}

fn session(world: &World, who: &str) -> Session {
    let home = Home::at(world.path(who));
    Session::open(home, &certs::passphrase::Source::Nobody, Duration::from_secs(60), now).unwrap()
}

/// Many keys of a room's one category, as somebody comes by them in the course of years.
async fn many_keys(world: &World, room: RoomId, count: u64) {
    let mut session = session(world, "patient");
    let control = session.control(room, Purpose::Operations).await.unwrap();
    let (state, me) = (control.state().unwrap(), control.me());
    let mut link = ControlLink { seq: state.next_control, previous: state.last_control };
    let mut events = Vec::new();
    for _ in 0..count {
        let (epoch, key) = (EpochId(random()), KemSecret::generate(&mut rng()));
        let seeds = vec![SeedWrap::make(&mut rng(), room, epoch, me.party(), key.seed()).unwrap()];
        let record = EpochRecord { link, epoch, group_key: key.public(), supersedes: None, continues: vec![], seeds };
        let categories = vec![EpochCategory { epoch, category: Category::Sleep }];
        let private = Private { categories, ..Private::default() };
        let parties = [me.party()];
        let told = Some((&private, parties.as_slice()));
        let event = Control::Epoch(record).event(&mut rng(), room, me.author_id(), now(), told).unwrap();
        link = ControlLink { seq: link.seq + 1, previous: event.id() };
        events.push(event);
    }
    submit(&mut session, me, room, Some(&control), events).await.unwrap();
    session.nodes.close().await;
}

/// How many of a room's keys somebody opens, and how many there are.
async fn opened(world: &World, room: RoomId, who: &Identity) -> (usize, usize) {
    let mut session = session(world, "fresh");
    let control = session.control_as(room, Purpose::Operations, who).await.unwrap();
    let view = control.view();
    let opens = view.epochs().filter(|(epoch, _)| open_seed(who, room, view, *epoch).is_ok());
    let counts = (opens.count(), view.epochs().count());
    session.nodes.close().await;
    counts
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recovery_key_that_was_not_given_everything_is_not_reported_as_set_and_can_be_given_the_rest() {
    let world = World::new(PEOPLE);
    let real = free_port();
    let node = world.start_at(real).await;
    let submissions = Arc::new(AtomicU8::new(0));
    let left = submissions.clone();
    // Armed with 2, it takes the first run and refuses those that follow.
    let refuse: liar::Refuse = Arc::new(move || match left.load(SeqCst) {
        0 => None,
        1 => Some(Refusal::ControlOutOfSequence),
        more => {
            left.store(more - 1, SeqCst);
            None
        }
    });
    liar::start_refusing(&world, real, &["patient", "fresh", "helper"], Arc::new(|answer| vec![answer]), refuse);
    let text = world.ok("patient", "room create --no-recovery").await.trim().to_owned();
    let room: RoomId = text.parse().unwrap();
    let delegate = format!("authority delegate --room {text} --to {} --may epoch", world.public("helper"));
    world.ok("patient", &delegate).await;
    let complete = format!("authority set-recovery --room {text} --complete");
    let none = world.ehe("patient", &complete).await;
    assert!(none.exit == 2 && none.err.contains("has no recovery key"), "{none:?}");
    many_keys(&world, room, 840).await;

    let paper = world.path("paper");
    let set = format!("authority set-recovery --room {text} --recovery-no-passphrase --recovery-out");
    submissions.store(2, SeqCst);
    let broken = world.ehe("patient", &format!("{set} {}", paper.display())).await;
    submissions.store(0, SeqCst);
    assert_eq!(broken.exit, 1, "{broken:?}");
    assert!(
        broken.err.contains("HAS the recovery key") && broken.err.contains(&format!("ehe {complete}")),
        "{broken:?}"
    );
    assert!(broken.err.contains("keep") && paper.exists(), "{broken:?}");
    let key: RecoveryKey = std::fs::read_to_string(&paper).unwrap().parse().unwrap();
    let (some, all) = opened(&world, room, &key.identity()).await;
    assert!(some > 0 && some < all, "{some} of {all}: it broke off in between");

    assert_eq!(world.ehe("helper", &complete).await.exit, 3);
    let done = world.ok("patient", &complete).await;
    assert!(done.contains(&format!("{} keys", all - some)), "{done}");
    assert_eq!(opened(&world, room, &key.identity()).await, (all, all));
    let again = world.ok("patient", &complete).await;
    assert!(again.contains("lacked none"), "{again}");
    // Whoever may renew keys was told of the recovery key as well.
    let mut helper = session(&world, "helper");
    let seen = helper.control(room, Purpose::Operations).await.unwrap();
    assert!(seen.view().recovery(seen.state().unwrap()).is_some());
    helper.nodes.close().await;
    node.stop().await.unwrap();
}
