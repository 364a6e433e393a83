//! Reading from whichever node is asked: who decides, who releases, who is told no, and when a stream ends.

#![allow(
    missing_docs,
    unreachable_pub,
    dead_code,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

use std::time::{Duration, Instant};

use certs::{ChannelError, CloseCode};
use ehe::read::SignedRequest;
use ehe::refusal::{Fault, Refusal};
use ehe::wire::Response;
use ehe_node::config::{Config, Timing};
use futures::future::join_all;

#[path = "support/hospitals.rs"]
mod hospitals;
#[path = "support/people.rs"]
mod people;
#[path = "support/ward.rs"]
mod ward;

use ward::{Person, Ward, all, ended, next, now};

pub const LIMIT: Duration = Duration::from_secs(60);

/// No test here is about elections, and each of them ends streams: a machine that is busy for a second must not hold one.
fn unhurried(config: &mut Config) {
    config.consensus.timing = Timing::Wan;
}

#[tokio::test(flavor = "multi_thread")]
async fn content_is_read_from_every_node_and_each_read_stands_in_the_audit_once() {
    let mut ward = Ward::open(unhurried).await;
    ward.content(5, 1000).await;
    for n in 0..3 {
        let answers = all(&mut ward.clinician.fetch(n, &ward.request()).await).await;
        let (events, last) = ended(&answers);
        assert_eq!(events, 5, "node {n}: {answers:?}");
        assert!(matches!(last, Response::Head(_)), "node {n}: {last:?}");
    }
    assert_eq!(ward.reads().await, 3);
    // What is refused is refused by the log, whoever was asked; and counted, not written down again.
    let follower = ward.follower().await;
    let stranger = ward.hospitals.person("stranger", certs::Role::Clinician);
    let stranger = Person::connected(&ward.hospitals, stranger).await;
    for _ in 0..4 {
        let request = people::content(stranger.credentials.identity(), &ward.patient, now());
        let answers = all(&mut stranger.fetch(follower, &request).await).await;
        assert_eq!(answers, [Response::Refused(Refusal::NotInvited)]);
    }
    assert_eq!(ward.reads().await, 3);
    let refusals = ward.ledger(follower).await.into_iter().filter_map(|(_, entry)| match entry {
        ehe::ledger::Verified::Access(record) => record.refused,
        _ => None,
    });
    assert_eq!(refusals.collect::<Vec<_>>(), [Refusal::NotInvited]);
    ward.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_is_sent_to_all_nodes_at_once_is_served_by_one_of_them() {
    let mut ward = Ward::open(unhurried).await;
    ward.content(5, 1000).await;
    for _ in 0..5 {
        let request = ward.request();
        let asked = [0, 1, 2].map(|n| decided(&ward.clinician, n, &request));
        let (answers, excused): (Vec<_>, Vec<_>) = join_all(asked).await.into_iter().unzip();
        let served = answers.iter().filter(|answers| ended(answers).0 > 0).count();
        let repeated = [Response::Refused(Refusal::RequestRepeated)];
        assert_eq!(served + answers.iter().filter(|it| it[..] == repeated).count(), 3, "{answers:?}");
        // A node that could not tell how it was decided may be the one that it was decided for: nobody serves it then.
        assert!(served == 1 || served == 0 && excused.contains(&true), "{answers:?}");
    }
    assert_eq!(ward.reads().await, 5);
    ward.stop().await;
}

/// What a node answers to a request that may have been sent to others too, asked again while it says that it cannot tell at present (no
/// leader, too much to do); and whether it said so.
async fn decided(who: &Person, n: usize, request: &SignedRequest) -> (Vec<Response>, bool) {
    let mut excused = false;
    let asking = async {
        loop {
            let answers = all(&mut who.fetch(n, request).await).await;
            match answers[..] {
                [Response::Refused(why)] if why.fault() == Fault::Node => excused = true,
                [Response::AskNode(_)] => excused = true,
                _ => return answers,
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let answers = tokio::time::timeout(LIMIT, asking).await.expect("a decision");
    (answers, excused)
}

#[tokio::test(flavor = "multi_thread")]
async fn many_reads_at_once_share_the_blocks_that_record_them() {
    const READERS: usize = 48;
    let mut ward = Ward::open(unhurried).await;
    ward.content(1, 100).await;
    let leader = ward.leader().await;
    let before = ward.counter(leader, "blocks");
    // A connection has no more streams than 64 at a time.
    let asked = (0..READERS).map(|n| {
        let ward = &ward;
        async move { all(&mut ward.clinician.fetch(n % 3, &ward.request()).await).await }
    });
    for answers in join_all(asked).await {
        assert_eq!(ended(&answers).0, 1, "{answers:?}");
    }
    let blocks = ward.counter(leader, "blocks") - before;
    assert_eq!(ward.reads().await, READERS);
    // A block is one sync of the log at most.
    assert!(blocks <= READERS as u64 / 2, "{READERS} reads took {blocks} blocks");
    assert!(ward.counter(leader, "reads_forwarded") >= READERS as u64 / 2);
    ward.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revocation_ends_a_stream_on_a_follower_whose_reader_takes_nothing_of_it() {
    let mut ward = Ward::open(unhurried).await;
    // More than a stream's window and what waits for it on the node's side.
    const RUNS: usize = 5;
    for _ in 0..RUNS {
        ward.content(15, 60_000).await;
    }
    let follower = ward.follower().await;
    // Another grant in the room leaves both streams as they are.
    let mut quick = ward.clinician.subscribe(follower, &ward.request()).await;
    let mut came = Vec::new();
    while !matches!(came.last(), Some(Response::Head(_))) {
        came.push(next(&mut quick).await.unwrap().unwrap());
    }
    assert_eq!(ended(&came).0, RUNS * 15);
    let mut slow = ward.clinician.fetch(follower, &ward.request()).await;
    let first = next(&mut slow).await.unwrap().unwrap();
    assert!(matches!(first, Response::Item(_) | Response::Wrap(_)), "{first:?}");
    let other = certs::identity_file::generate().unwrap();
    let grant = ward.patient.grant(other.public(), ehe::control::Right::Read, None, now());
    ward.by_owner(&[grant]).await;
    assert!(matches!(next(&mut quick).await.unwrap().unwrap(), Response::Item(_)));
    assert_eq!(ward.counter(follower, "streams_cut"), 0);
    let revoke = ward.patient.revoke(ward.grant, now());
    ward.by_owner(&[revoke]).await;
    // One is told why. Its head, or the revocation itself, may have been on its way.
    let last = loop {
        match next(&mut quick).await.unwrap() {
            Some(Response::Head(_) | Response::Item(_)) => {}
            last => break last,
        }
    };
    assert_eq!(last, Some(Response::Refused(Refusal::GrantRevoked)));
    // The other takes nothing, not even that: what was on its way to it is taken back, long before its lease or its time to take a
    // frame is over, which would end it otherwise.
    let cut = async {
        while ward.counter(follower, "streams_cut") < 2 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(LIMIT, cut).await.expect("it is cut");
    let mut items = 0;
    let why = loop {
        match next(&mut slow).await {
            Ok(Some(Response::Item(_) | Response::Wrap(_))) => items += 1,
            Ok(other) => panic!("{other:?}"),
            Err(why) => break why,
        }
    };
    assert_eq!(why, ChannelError::Reset(CloseCode::NotAuthorized), "after {items} items");
    assert!(items < RUNS, "{items} of {RUNS} items");
    ward.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_right_that_ended_and_was_given_again_is_another_one_and_needs_a_request_and_a_record_of_its_own() {
    let mut ward = Ward::open(unhurried).await;
    ward.content(3, 100).await;
    let follower = ward.follower().await;
    let mut stream = ward.clinician.subscribe(follower, &ward.request()).await;
    while !matches!(next(&mut stream).await.unwrap().unwrap(), Response::Head(_)) {}
    // In one run: no state is ever seen in which the reader has no right, as on a node that lags.
    let revoke = ward.patient.revoke(ward.grant, now());
    let reader = ward.clinician.credentials.identity().public();
    let grant = ward.patient.grant(reader, ehe::control::Right::Read, None, now());
    ward.by_owner(&[revoke, grant]).await;
    let last = loop {
        match next(&mut stream).await.unwrap() {
            Some(Response::Head(_) | Response::Item(_)) => {}
            last => break last,
        }
    };
    assert_eq!(last, Some(Response::Refused(Refusal::NoLeader)), "ask again");
    assert_eq!(ward.reads().await, 1);
    let answers = all(&mut ward.clinician.fetch(follower, &ward.request()).await).await;
    assert_eq!(ended(&answers).0, 3);
    assert_eq!(ward.reads().await, 2);
    ward.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_grant_that_expires_ends_a_stream_then_and_not_when_its_lease_is_over() {
    let mut ward = Ward::open(unhurried).await;
    ward.content(1, 100).await;
    let guest = ward.hospitals.person("guest", certs::Role::Clinician);
    let guest = Person::connected(&ward.hospitals, guest).await;
    let expires = now().plus_ms(6_000);
    let grant =
        ward.patient.grant(guest.credentials.identity().public(), ehe::control::Right::Read, Some(expires), now());
    ward.by_owner(&[grant]).await;
    let follower = ward.follower().await;
    let request = people::content(guest.credentials.identity(), &ward.patient, now());
    let mut exchange = guest.subscribe(follower, &request).await;
    let mut head = None;
    let last = loop {
        match next(&mut exchange).await.unwrap() {
            Some(Response::Head(_)) => head = Some(Instant::now()),
            Some(Response::Item(_) | Response::Wrap(_)) => {}
            last => break last,
        }
    };
    assert_eq!(last, Some(Response::Refused(Refusal::GrantExpired)));
    assert!(now() >= expires);
    // In a quiet room the rules are asked again when the lease is over, and not before.
    let lease = Duration::from_millis(ehe::limits::READ_LEASE_MS);
    assert!(head.expect("it was there in time").elapsed() < lease, "it ended with its lease");
    ward.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_the_others_left_alone_serves_nobody_for_longer_than_a_lease() {
    let mut ward = Ward::open(unhurried).await;
    ward.content(3, 1000).await;
    let alone = ward.follower().await;
    let mut exchange = ward.clinician.subscribe(alone, &ward.request()).await;
    while !matches!(next(&mut exchange).await.unwrap().unwrap(), Response::Head(_)) {}
    for n in (0..3).filter(|n| *n != alone) {
        ward.nodes[n].take().unwrap().stop().await.unwrap();
    }
    let ended = async {
        loop {
            match next(&mut exchange).await.unwrap() {
                Some(Response::Head(_)) => {}
                last => break last,
            }
        }
    };
    let last = tokio::time::timeout(LIMIT, ended).await.expect("it does not go on for ever");
    assert_eq!(last, Some(Response::Refused(Refusal::NoLeader)));
    let answers = all(&mut ward.clinician.fetch(alone, &ward.request()).await).await;
    assert_eq!(answers, [Response::Refused(Refusal::NoLeader)]);
    ward.stop().await;
}
