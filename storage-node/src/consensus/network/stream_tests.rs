//! A stream of appends against a peer that a test plays.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use futures::{FutureExt, StreamExt, future::BoxFuture, stream::BoxStream};
use openraft::{
    errors::RPCError,
    raft::{AppendEntriesRequest, StreamAppendError, StreamAppendResult},
};
use redb::backends::InMemoryBackend;
use tokio::sync::mpsc;

use super::{
    Peers, Router,
    codec::{Welcome, decode_append, decode_hello, encode_appended, encode_not_stored, encode_welcome},
    link::{FrameReceiver, FrameSender, Link, LinkError, Purpose, Stream},
    router,
    stream::{Appended, append},
};
use crate::consensus::{
    codec::NodeRecord,
    config::{Config, Timing},
    fence::Fence,
    ids::{GroupId, NodeId, NodeUid},
    log::{
        file::{self, LogFile, Stored},
        group::{Durable, GroupLog},
        journal, writer,
    },
    machine::Unfit,
    types::{Entry, EntryPayload, LeaderId, LogId, Types, Vote, log_id},
};
use openraft::vote::RaftLeaderId;

type Append = AppendEntriesRequest<Types>;

const GROUP: GroupId = GroupId(0);
const PEER: NodeId = NodeId(2);

/// What the test reads of the peer's end, and writes to it.
struct Peer {
    from: mpsc::UnboundedReceiver<Bytes>,
    to: mpsc::UnboundedSender<Bytes>,
}

#[derive(Debug)]
struct Played(Mutex<Option<(mpsc::UnboundedSender<Bytes>, mpsc::UnboundedReceiver<Bytes>)>>);

struct Out(mpsc::UnboundedSender<Bytes>);
struct In(mpsc::UnboundedReceiver<Bytes>);

impl Link for Played {
    fn open(&self, _peer: NodeId, _purpose: Purpose) -> BoxFuture<'_, Result<Stream, LinkError>> {
        let ends = self.0.lock().unwrap().take();
        let stream = ends.map(|(out, input)| Stream { sender: Box::new(Out(out)), receiver: Box::new(In(input)) });
        std::future::ready(stream.ok_or(LinkError::Unreachable("it was opened before".into()))).boxed()
    }
}

impl FrameSender for Out {
    fn send(&mut self, frame: Bytes) -> BoxFuture<'_, Result<(), LinkError>> {
        std::future::ready(self.0.send(frame).map_err(|_| LinkError::Lost("gone".into()))).boxed()
    }

    fn finish(&mut self) {}
}

impl FrameReceiver for In {
    fn recv(&mut self, _max: usize) -> BoxFuture<'_, Result<Option<Bytes>, LinkError>> {
        async { Ok(self.0.recv().await) }.boxed()
    }
}

/// A node that leads under `vote`, and the peer.
fn node() -> (Router, Peer) {
    let db = file::open(InMemoryBackend::new(), 1 << 20).unwrap();
    file::write_node(&db, &NodeRecord { uid: NodeUid([1; 16]), node: NodeId(1) }).unwrap();
    let journal = journal::recover(&db, InMemoryBackend::new(), 0).unwrap();
    let stored = Stored { vote: Some(vote()), ..Stored::default() };
    let log = Arc::new(GroupLog::new(Arc::new(Fence::new(GROUP)), Arc::new(Durable::default()), 1 << 20, stored));
    let (queue, _thread) = writer::spawn(Arc::new(LogFile::new(db)), journal, vec![log.clone()]).unwrap();
    let peers = Arc::new(Peers::new(NodeId(1), NodeUid([1; 16]), BTreeMap::new(), queue));
    let ((out, from), (to, input)) = (mpsc::unbounded_channel(), mpsc::unbounded_channel());
    let link = Arc::new(Played(Mutex::new(Some((out, input)))));
    let config = Config { timing: Timing::lan(), ..Config::new(NodeId(1)) };
    (router(link, peers, &config, BTreeMap::from([(GROUP, log)]), Arc::default()), Peer { from, to })
}

fn vote() -> Vote {
    Vote { leader_id: LeaderId::new(3, 1), committed: true }
}

fn request(prev: u64, count: u64) -> Append {
    let entries =
        (prev + 1..=prev + count).map(|index| Entry { log_id: log_id(3, index), payload: EntryPayload::Blank });
    Append { vote: vote(), prev_log_id: Some(log_id(3, prev)), leader_commit: None, entries: entries.collect() }
}

impl Peer {
    async fn welcome(&mut self) {
        let hello = decode_hello(&self.from.recv().await.unwrap()).unwrap();
        assert_eq!((hello.purpose, hello.to, hello.known), (Purpose::Append, PEER.0, None));
        self.to.send(encode_welcome(&Welcome::Yes(NodeUid([2; 16])))).unwrap();
    }

    fn say(&self, result: &StreamAppendResult<Types>) {
        self.to.send(encode_appended(result)).unwrap();
    }

    fn confirm(&self, index: u64) {
        self.say(&Ok(Some(log_id(3, index))));
    }
}

/// What openraft hears next, if it is there already.
fn now(answers: &mut BoxStream<'static, Appended>) -> Option<Option<LogId>> {
    answers.next().now_or_never().map(|item| item.unwrap().unwrap().unwrap())
}

#[tokio::test]
async fn an_answer_does_not_pass_for_one_to_a_later_request_that_ends_at_the_same_place() {
    let (router, mut peer) = node();
    let (requests, input) = mpsc::unbounded_channel::<Append>();
    let input = futures::stream::unfold(input, |mut input| async { Some((input.recv().await?, input)) }).boxed();
    requests.send(request(10, 5)).unwrap();
    requests.send(request(15, 0)).unwrap();
    requests.send(request(15, 2)).unwrap();
    let mut answers = append(&router, PEER, GROUP, input).await.unwrap();
    peer.welcome().await;
    peer.confirm(15);
    // It takes the log's thread to remember who the peer is; after that all that comes is there at once.
    let waited = tokio::time::timeout(std::time::Duration::from_millis(200), answers.next()).await;
    assert!(waited.is_err(), "the second request ends at 15 as well, and is not answered");
    for _ in 0..3 {
        decode_append(&peer.from.recv().await.unwrap()).unwrap();
    }
    peer.confirm(15);
    assert_eq!(answers.next().await.unwrap().unwrap().unwrap(), Some(log_id(3, 15)));
    assert_eq!(now(&mut answers), None);
    peer.confirm(17);
    assert_eq!(now(&mut answers), Some(Some(log_id(3, 17))));
    drop(requests);
    assert!(answers.next().await.is_none(), "and the end");
}

#[tokio::test]
async fn no_stream_is_opened_before_there_is_something_to_send() {
    let (router, mut peer) = node();
    let (requests, input) = mpsc::unbounded_channel::<Append>();
    let input = futures::stream::unfold(input, |mut input| async { Some((input.recv().await?, input)) }).boxed();
    let mut opening = append(&router, PEER, GROUP, input).boxed();
    assert!((&mut opening).now_or_never().is_none() && peer.from.try_recv().is_err());
    requests.send(request(10, 5)).unwrap();
    let _answers = opening.await.unwrap();
    peer.welcome().await;
    let (router, _peer) = node();
    let mut answers = append(&router, PEER, GROUP, futures::stream::empty()).await.unwrap();
    assert!(answers.next().await.is_none());
}

#[tokio::test]
async fn a_peer_that_confirms_what_it_was_not_sent_or_denies_what_it_confirmed_is_not_believed() {
    for lie in [Ok(Some(log_id(3, 16))), Ok(None), Err(StreamAppendError::Conflict(log_id(3, 9)))] {
        let (router, mut peer) = node();
        let input = futures::stream::iter([request(10, 5)]);
        let mut answers = append(&router, PEER, GROUP, input).await.unwrap();
        peer.welcome().await;
        peer.say(&lie);
        assert!(answers.next().await.unwrap().is_err(), "{lie:?}");
        assert!(answers.next().await.is_none());
    }
    let (router, mut peer) = node();
    let input = futures::stream::iter([request(10, 5), request(15, 5)]);
    let mut answers = append(&router, PEER, GROUP, input).await.unwrap();
    peer.welcome().await;
    peer.confirm(15);
    assert!(answers.next().await.unwrap().is_ok());
    peer.say(&Err(StreamAppendError::Conflict(log_id(3, 15))));
    let denied = answers.next().await.unwrap().unwrap_err().to_string();
    assert!(denied.contains("denied what it had confirmed"), "{denied}");
    let judged = router.caller().peers.admit(router.log(GROUP).unwrap(), PEER, NodeUid([2; 16])).await;
    assert!(judged.is_err(), "nor is it heard again");
}

#[tokio::test]
async fn who_does_not_store_what_it_is_sent_is_noted_until_it_does() {
    let (router, mut peer) = node();
    let (requests, input) = mpsc::unbounded_channel::<Append>();
    let input = futures::stream::unfold(input, |mut input| async { Some((input.recv().await?, input)) }).boxed();
    requests.send(request(10, 5)).unwrap();
    requests.send(request(15, 1)).unwrap();
    let mut answers = append(&router, PEER, GROUP, input).await.unwrap();
    peer.welcome().await;
    peer.confirm(15);
    assert!(answers.next().await.unwrap().is_ok());
    peer.to.send(encode_not_stored(Unfit::Ahead { ahead_ms: 7_200_000 })).unwrap();
    let error = answers.next().await.unwrap().unwrap_err();
    assert!(error.to_string().contains("7200000 ms ahead"), "{error}");
    assert!(matches!(error, RPCError::Unreachable(_)), "it is not asked again at once");
    assert!(answers.next().await.is_none());
    assert_eq!(router.refusals().by(GROUP, 3), BTreeSet::from([PEER]));
    // A heartbeat, or what it had before, is no sign that it takes anything again.
    let (router, mut peer) = node();
    router.refusals().note(GROUP, PEER, vote());
    let input = futures::stream::iter([request(15, 0), request(15, 1)]);
    let mut answers = append(&router, PEER, GROUP, input).await.unwrap();
    peer.welcome().await;
    peer.confirm(15);
    assert!(answers.next().await.unwrap().is_ok());
    assert_eq!(router.refusals().by(GROUP, 3), BTreeSet::from([PEER]));
    peer.confirm(16);
    assert!(answers.next().await.unwrap().is_ok());
    assert_eq!(router.refusals().by(GROUP, 3), BTreeSet::new());
}
