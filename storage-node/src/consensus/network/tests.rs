//! The wire's bytes, what is refused of them, and what is not believed.

use std::collections::BTreeSet;

use bytes::Bytes;
use openraft::{
    raft::{AppendEntriesRequest, StreamAppendError, TransferLeaderRequest, VoteRequest, VoteResponse},
    vote::RaftLeaderId,
};

use super::{
    check::{Asked, Known, Seen, Unsound, answer, request},
    codec::*,
    link::Purpose,
};
use crate::consensus::{
    codec::{CodecError, VERSION},
    ids::{GroupId, NodeUid},
    machine::Unfit,
    types::{
        Entry, EntryPayload, LeaderId, LogId, Membership, Payload, SnapshotMeta, StoredMembership, Types, Vote, log_id,
    },
};

type Append = AppendEntriesRequest<Types>;

fn vote(term: u64, node: u64, committed: bool) -> Vote {
    Vote { leader_id: LeaderId::new(term, node), committed }
}

fn entry(term: u64, index: u64) -> Entry {
    Entry { log_id: log_id(term, index), payload: EntryPayload::Blank }
}

fn members() -> Membership {
    Membership::new(vec![BTreeSet::from([1, 2, 3])], BTreeSet::from([1, 2, 3, 4])).unwrap()
}

fn append(prev: Option<LogId>, entries: &[(u64, u64)], commit: Option<LogId>) -> Append {
    let entries = entries.iter().map(|(term, index)| entry(*term, *index)).collect();
    Append { vote: vote(7, 2, true), prev_log_id: prev, leader_commit: commit, entries }
}

fn header() -> Header {
    let last_membership = StoredMembership::new(Some(log_id(1, 3)), members());
    Header { vote: vote(7, 2, true), meta: SnapshotMeta { last_log_id: Some(log_id(5, 40)), last_membership } }
}

fn hello(known: Option<NodeUid>) -> Hello {
    Hello { purpose: Purpose::Snapshot, group: GroupId(258), to: 9, uid: NodeUid([5; 16]), known }
}

type Form = (&'static str, Bytes, fn(&[u8]) -> Result<Bytes, CodecError>);

/// Every form, and whether its decoder takes some bytes and gives back the same ones when it writes them again.
fn forms() -> Vec<Form> {
    let mut full = append(Some(log_id(3, 8)), &[(3, 9), (7, 10)], Some(log_id(3, 7)));
    full.entries[0].payload = EntryPayload::Normal(Payload(Bytes::from_static(b"ab")));
    full.entries.push(Entry { log_id: log_id(7, 11), payload: EntryPayload::Membership(members()) });
    let ask = |transfer| VoteRequest {
        vote: vote(7, 2, false),
        last_log_id: Some(log_id(3, 8)),
        leadership_transfer: transfer,
    };
    let told = VoteResponse { vote: vote(7, 2, false), vote_granted: true, last_log_id: None };
    let mut forms: Vec<Form> = Vec::new();
    for known in [None, Some(NodeUid([6; 16]))] {
        forms.push(("hello", encode_hello(&hello(known)), |b| decode_hello(b).map(|v| encode_hello(&v))));
    }
    for welcome in [
        Welcome::Yes(NodeUid([5; 16])),
        Welcome::No(Reason::NoSuchGroup),
        Welcome::No(Reason::OtherUid),
        Welcome::No(Reason::NotWhoYouKnow),
        Welcome::No(Reason::Stopped),
        Welcome::No(Reason::Busy),
        Welcome::No(Reason::NotAMember),
    ] {
        forms.push(("welcome", encode_welcome(&welcome), |b| decode_welcome(b).map(|v| encode_welcome(&v))));
    }
    for request in [full, append(None, &[], None), append(None, &[(0, 0)], None)] {
        forms.push(("append", encode_append(&request), |b| decode_append(b).map(|v| encode_append(&v))));
    }
    for result in [
        Ok(None),
        Ok(Some(log_id(3, 300))),
        Err(StreamAppendError::Conflict(log_id(3, 8))),
        Err(StreamAppendError::HigherVote(vote(8, 3, false))),
    ] {
        forms.push(("appended", encode_appended(&result), |b| decode_appended(b).map(|v| encode_appended(&v))));
    }
    for request in [
        Request::Vote(ask(false)),
        Request::PreVote(ask(true)),
        Request::Transfer(TransferLeaderRequest::new(vote(7, 2, true), 3, None)),
        Request::ReadIndex,
    ] {
        forms.push(("request", encode_request(&request), |b| decode_request(b).map(|v| encode_request(&v))));
    }
    for answer in [
        Answer::Vote(told),
        Answer::Transferring,
        Answer::OtherVote { expected: vote(7, 2, true), actual: vote(8, 3, true) },
        Answer::NotFlushed { expected: Some(log_id(3, 8)), actual: None },
        Answer::ReadIndex(log_id(3, 8)),
        Answer::NotLeader(None),
        Answer::NotLeader(Some(3)),
    ] {
        forms.push(("answer", encode_answer(&answer), |b| decode_answer(b).map(|v| encode_answer(&v))));
    }
    for why in [Unfit::Ahead { ahead_ms: 7_200_000 }, Unfit::Ahead { ahead_ms: u64::MAX }, Unfit::Unknown] {
        let again =
            |b: &[u8]| decode_not_stored(b).map(encode_not_stored).ok_or_else(|| CodecError("something else".into()));
        forms.push(("not stored", encode_not_stored(why), again));
    }
    forms.push(("snapshot", encode_header(&header()), |b| decode_header(b).map(|v| encode_header(&v))));
    for received in [Received::Done(vote(7, 2, true)), Received::NoSnapshot, Received::Working] {
        forms.push(("received", encode_received(&received), |b| decode_received(b).map(|v| encode_received(&v))));
    }
    forms
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Nodes of two versions speak to each other: these bytes must never change under version 1.
#[test]
fn the_bytes_between_nodes_are_these() {
    let uid = "50".to_owned() + &"05".repeat(16);
    let other = "50".to_owned() + &"06".repeat(16);
    let expected = [
        format!("01850319010209{uid}f6"),
        format!("01850319010209{uid}{other}"),
        format!("018200{uid}"),
        "01820100".into(),
        "01820101".into(),
        "01820102".into(),
        "01820103".into(),
        "01820104".into(),
        "01820105".into(),
        "0184830702f582030882030783830301426162830700f68307028281830102038401020304".into(),
        "0184830702f5f6f680".into(),
        "0184830702f5f6f681830000f6".into(),
        "018200f6".into(),
        "0182008203 19012c".replace(' ', ""),
        "018201820308".into(),
        "018202830803f4".into(),
        "018400830702f4820308f4".into(),
        "018401830702f4820308f5".into(),
        "018402830702f503f6".into(),
        "018103".into(),
        "018400830702f4f5f6".into(),
        "018101".into(),
        "018302830702f5830803f5".into(),
        "018303820308f6".into(),
        "018204820308".into(),
        "018205f6".into(),
        "01820503".into(),
        "0182031a006ddd00".into(),
        "0182031bffffffffffffffff".into(),
        "018104".into(),
        "0183830702f58205182882820103828183010203840102 0304".replace(' ', ""),
        "018200830702f5".into(),
        "018101".into(),
        "018102".into(),
    ];
    let forms = forms();
    assert_eq!(forms.len(), expected.len());
    for ((what, bytes, _), expected) in forms.iter().zip(&expected) {
        assert_eq!(&hex(bytes), expected, "{what}");
    }
}

#[test]
fn what_is_written_is_what_is_read_and_nothing_else_is() {
    for (what, bytes, again) in forms() {
        assert_eq!(again(&bytes).unwrap(), bytes, "{what}");
        for cut in 0..bytes.len() {
            assert!(again(&bytes[..cut]).is_err(), "{what} cut at {cut}");
        }
        assert!(again(&[&bytes[..], &[0]].concat()).is_err(), "{what}, and more");
        let mut other = bytes.to_vec();
        other[0] = VERSION + 1;
        assert!(again(&other).is_err(), "{what} of another version");
        // Any byte changed gives something that is read whole or refused, and never a panic.
        for at in 0..bytes.len() {
            for bit in 0..8 {
                let mut other = bytes.to_vec();
                other[at] ^= 1 << bit;
                drop(again(&other));
            }
        }
    }
}

#[test]
fn numbers_that_nothing_honest_reaches_are_refused() {
    let far = 1_u64 << 62;
    for request in [
        append(Some(log_id(3, far)), &[], None),
        append(Some(log_id(far, 3)), &[], None),
        append(None, &[], Some(log_id(3, far))),
        Append { vote: vote(far, 2, true), ..append(None, &[], None) },
        append(Some(log_id(3, far - 1)), &[(3, far)], None),
    ] {
        assert!(decode_append(&encode_append(&request)).is_err(), "{request}");
    }
    // A list that claims more items than there are bytes.
    assert!(
        decode_append(&[1, 0x84, 0x83, 7, 2, 0xf5, 0xf6, 0xf6, 0x9b, 255, 255, 255, 255, 255, 255, 255, 255]).is_err()
    );
    // A membership without voters, which openraft has before the first, and counts quorums of.
    let mut nobody = append(None, &[(0, 0)], None);
    nobody.entries[0].payload = EntryPayload::Membership(Membership::default());
    assert!(decode_append(&encode_append(&nobody)).is_err());
    let mut nobody = header();
    nobody.meta.last_membership = StoredMembership::new(Some(log_id(1, 3)), Membership::default());
    assert!(decode_header(&encode_header(&nobody)).is_err());
}

fn known() -> Known {
    Known { vote: Some(vote(7, 2, true)), committed: Some(log_id(5, 10)), refused: 0 }
}

#[test]
fn an_honest_leaders_log_passes_in_any_order_of_its_parts() {
    let mut seen = Seen::default();
    for request in [
        append(Some(log_id(7, 30)), &[], None),
        append(Some(log_id(5, 10)), &[(5, 11), (6, 12), (7, 13)], Some(log_id(5, 10))),
        append(None, &[(0, 0), (1, 1)], Some(log_id(7, 13))),
        append(Some(log_id(5, 9)), &[(5, 10), (5, 11)], Some(log_id(6, 12))),
        append(Some(log_id(7, 30)), &[(7, 31)], Some(log_id(7, 31))),
    ] {
        assert_eq!(seen.append(2, &known(), &request), Ok(()), "{request}");
    }
    // A leader of before: openraft tells it that there is a greater vote.
    let older = Append { vote: vote(6, 3, true), ..append(Some(log_id(4, 30)), &[(4, 31)], None) };
    assert_eq!(seen.append(3, &known(), &older), Ok(()));
    let mut snapshot = header();
    snapshot.meta.last_log_id = Some(log_id(6, 12));
    assert_eq!(seen.snapshot(2, &known(), &snapshot), Ok(()));
}

#[test]
fn a_leaders_words_that_cannot_be_are_refused_before_openraft_hears_them() {
    let fine = append(Some(log_id(5, 10)), &[(7, 11)], None);
    let cases = [
        (Append { vote: vote(7, 3, true), ..fine.clone() }, Unsound::NotItsVote(3)),
        (Append { vote: vote(7, 2, false), ..fine.clone() }, Unsound::Committed),
        (
            Append { vote: vote(8 + (1 << 24), 2, true), ..fine.clone() },
            Unsound::Leap { term: 8 + (1 << 24), known: 7 },
        ),
        (append(Some(log_id(5, 10)), &[(8, 11)], None), Unsound::BeyondVote),
        (append(None, &[], Some(log_id(8, 11))), Unsound::BeyondVote),
        (append(Some(log_id(5, 10)), &[(4, 11)], None), Unsound::Order),
        (append(Some(log_id(5, 10)), &[(7, 11), (6, 12)], None), Unsound::Order),
        // What is committed here is (5, 10).
        (append(Some(log_id(6, 10)), &[], None), Unsound::Order),
        (append(Some(log_id(6, 9)), &[], None), Unsound::Order),
        (append(Some(log_id(3, 8)), &[(3, 9), (3, 10), (3, 11), (6, 12)], None), Unsound::Order),
        (append(Some(log_id(5, 10)), &[(7, 11)], Some(log_id(6, 11))), Unsound::Order),
        (append(None, &[], Some(log_id(4, 12))), Unsound::Order),
    ];
    for (request, why) in cases {
        assert_eq!(Seen::default().append(2, &known(), &request), Err(why), "{request}");
    }
    // Two stories under one vote.
    let mut seen = Seen::default();
    seen.append(2, &known(), &append(Some(log_id(5, 10)), &[(6, 11), (6, 12)], None)).unwrap();
    assert_eq!(seen.append(2, &known(), &append(Some(log_id(5, 10)), &[(7, 11)], None)), Err(Unsound::Order));
    assert_eq!(seen.append(2, &known(), &append(Some(log_id(5, 11)), &[(5, 12), (5, 13)], None)), Err(Unsound::Order));

    let snapshot = |last, vote| {
        let mut header = header();
        header.vote = vote;
        header.meta.last_log_id = Some(last);
        Seen::default().snapshot(2, &known(), &header)
    };
    let leader = vote(7, 2, true);
    assert_eq!(snapshot(log_id(8, 40), leader), Err(Unsound::BeyondVote));
    assert_eq!(
        snapshot(log_id(6, 10), leader),
        Err(Unsound::Order),
        "it is another entry than the one committed there"
    );
    assert_eq!(snapshot(log_id(6, 9), leader), Err(Unsound::Order));
    assert_eq!(snapshot(log_id(5, 2), leader), Err(Unsound::Membership));
    assert_eq!(snapshot(log_id(5, 40), vote(7, 3, true)), Err(Unsound::NotItsVote(3)));
}

#[test]
fn a_candidate_speaks_for_itself_and_no_answer_raises_the_term_out_of_reach() {
    let ask = |vote| Request::Vote(VoteRequest { vote, last_log_id: Some(log_id(5, 10)), leadership_transfer: false });
    assert_eq!(request(2, &known(), &ask(vote(8, 2, false))), Ok(()));
    assert_eq!(request(2, &known(), &ask(vote(8, 3, false))), Err(Unsound::NotItsVote(3)));
    assert_eq!(request(2, &known(), &ask(vote(8, 2, true))), Err(Unsound::Committed));
    assert_eq!(request(2, &known(), &ask(vote(4, 2, false))), Err(Unsound::BeyondVote));
    let far = 8 + (1 << 24);
    assert_eq!(request(2, &known(), &ask(vote(far, 2, false))), Err(Unsound::Leap { term: far, known: 7 }));
    // A liar may have made honest nodes leap apart: what is refused counts.
    let again =
        |refused, leaps: u64| request(2, &Known { refused, ..known() }, &ask(vote(7 + (leaps << 24), 2, false)));
    assert_eq!((again(1, 2), again(4, 5)), (Ok(()), Ok(())));
    assert!(again(1, 3).is_err() && again(4, 6).is_err());
    // Who never voted may come to a group that has had many elections.
    let new = Known::default();
    assert_eq!(request(2, &new, &ask(vote(1 << 50, 2, false))), Ok(()));
    assert!(request(2, &new, &ask(vote((1 << 56) + 1, 2, false))).is_err());
    let transfer = |vote| Request::Transfer(TransferLeaderRequest::new(vote, 1, None));
    assert_eq!(request(2, &known(), &transfer(vote(7, 2, true))), Ok(()));
    assert_eq!(request(3, &known(), &transfer(vote(7, 2, true))), Err(Unsound::NotItsVote(2)));

    let told = |vote| Answer::Vote(VoteResponse { vote, vote_granted: false, last_log_id: None });
    assert_eq!(answer(&known(), &ask(vote(8, 2, false)), &told(vote(9, 3, true))), Ok(()));
    assert_eq!(
        answer(&known(), &ask(vote(8, 2, false)), &told(vote(far, 3, true))),
        Err(Unsound::Leap { term: far, known: 7 })
    );
    assert_eq!(answer(&known(), &ask(vote(8, 2, false)), &Answer::Transferring), Err(Unsound::OtherQuestion));
}

#[test]
fn a_follower_confirms_what_it_was_asked_and_no_other_number() {
    let asked = Asked::of(&append(Some(log_id(5, 10)), &[(7, 11), (7, 12)], None));
    assert_eq!(asked.answered(&known(), &Ok(Some(log_id(7, 12)))), Ok(()));
    assert_eq!(asked.answered(&known(), &Err(StreamAppendError::Conflict(log_id(5, 10)))), Ok(()));
    assert_eq!(asked.answered(&known(), &Err(StreamAppendError::HigherVote(vote(8, 3, false)))), Ok(()));
    for lie in [
        Ok(None),
        Ok(Some(log_id(7, 11))),
        Ok(Some(log_id(7, 13))),
        Err(StreamAppendError::Conflict(log_id(5, 9))),
        Err(StreamAppendError::HigherVote(vote(7, 3, true))),
        Err(StreamAppendError::HigherVote(vote(6, 3, true))),
    ] {
        assert_eq!(asked.answered(&known(), &lie), Err(Unsound::Answer), "{lie:?}");
    }
    let far = Err(StreamAppendError::HigherVote(vote(9 + (1 << 24), 3, true)));
    assert!(matches!(asked.answered(&known(), &far), Err(Unsound::Leap { .. })));
}
