//! Who peers are, across lives of the log.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::{Estranged, Peers, apart::Apart, peers::NotAdmitted};
use crate::consensus::{
    codec::NodeRecord,
    fence::Fence,
    ids::{GroupId, NodeId, NodeUid},
    log::{
        file::{self, LogFile, Stored},
        group::{Durable, GroupLog},
        journal, writer,
    },
    runtime::Thread,
};

const PEER: NodeId = NodeId(u64::MAX);
const UID: NodeUid = NodeUid([2; 16]);
const OTHER: NodeUid = NodeUid([3; 16]);

fn open(path: &std::path::Path) -> (Peers, Arc<GroupLog>, Arc<LogFile>, Thread) {
    let db = redb::Database::create(path).unwrap();
    if file::read_node(&db).unwrap().is_none() {
        file::write_node(&db, &NodeRecord { uid: NodeUid([1; 16]), node: NodeId(1) }).unwrap();
    }
    let backend = crate::consensus::open::journal_backend(path.parent().unwrap()).unwrap();
    let journal = journal::recover(&db, backend, 1 << 20).unwrap();
    let known: BTreeMap<_, _> = file::read_peers(&db).unwrap();
    let log = GroupLog::new(Arc::new(Fence::new(GroupId(0))), Arc::new(Durable::default()), 1 << 20, Stored::default());
    let (log, file) = (Arc::new(log), Arc::new(LogFile::new(db)));
    let (queue, thread) = writer::spawn(file.clone(), journal, vec![log.clone()]).unwrap();
    (Peers::new(NodeId(1), NodeUid([1; 16]), known, queue), log, file, thread)
}

async fn close((peers, log, file, thread): (Peers, Arc<GroupLog>, Arc<LogFile>, Thread)) {
    peers.close();
    thread.ended().await;
    file.close();
    drop(log);
}

#[tokio::test]
async fn whoever_is_waited_for_was_not_met_is_not_gone_and_did_not_lose_its_log() {
    let dir = tempfile::tempdir().unwrap();
    let life = open(&dir.path().join("raft.redb"));
    let both: BTreeSet<NodeId> = [NodeId(1), PEER].into();
    let strangers = || life.0.strangers(&both).len();
    assert_eq!(strangers(), 1, "itself it need not meet");
    life.0.admit(&life.1, PEER, UID).await.unwrap();
    assert_eq!(strangers(), 1, "that it is known here does not say that it knows this node");
    life.0.has_met(PEER);
    assert_eq!((strangers(), life.0.refusing(&both).len()), (0, 0));
    life.0.takes_this_for_another(PEER, "");
    assert_eq!((strangers(), life.0.refusing(&both)), (1, [PEER].into()), "it does not any more");
    life.0.is_another(PEER);
    assert_eq!(strangers(), 0, "this node refuses it: that it forgot this one harms nobody");
    life.0.admit(&life.1, PEER, UID).await.unwrap();
    assert_eq!(strangers(), 1, "it is who it was");
    life.0.gone([PEER].into());
    assert_eq!(strangers(), 0);
    close(life).await;
}

#[tokio::test]
async fn a_peer_is_who_it_was_when_it_was_first_met_also_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("raft.redb");
    let life = open(&path);
    assert_eq!(life.0.known(PEER), None);
    let met = futures::future::join_all((0..8).map(|_| life.0.admit(&life.1, PEER, UID))).await;
    assert!(met.iter().all(Result::is_ok));
    assert_eq!(life.0.admit(&life.1, PEER, OTHER).await, Err(NotAdmitted::OtherUid));
    assert!(life.0.apart(PEER).contains_key(&Apart::OtherLogThere), "an operator is told of it");
    assert_eq!(life.0.all_estranged(), [(PEER, Estranged::OtherLog)].into(), "it is shown until it is who it was");
    assert_eq!(life.0.admit(&life.1, PEER, UID).await, Ok(()), "who it is is who it was");
    assert!(life.0.apart(PEER).is_empty() && life.0.all_estranged().is_empty(), "and that it is over");
    close(life).await;

    let life = open(&path);
    assert_eq!(life.0.known(PEER), Some(UID));
    assert_eq!(life.0.admit(&life.1, PEER, OTHER).await, Err(NotAdmitted::OtherUid));
    life.0.denied(PEER);
    assert_eq!(life.0.admit(&life.1, PEER, UID).await, Err(NotAdmitted::Denied));
    assert_eq!(life.0.all_estranged(), [(PEER, Estranged::Denied)].into(), "nothing of what it says counts any more");
    life.0.close();
    assert_eq!(
        life.0.admit(&life.1, NodeId(7), UID).await,
        Err(NotAdmitted::Closed),
        "nobody is met who is not remembered"
    );
    close(life).await;
}

#[tokio::test]
async fn two_who_claim_to_be_one_node_at_once_are_not_both_met() {
    let dir = tempfile::tempdir().unwrap();
    let life = open(&dir.path().join("raft.redb"));
    let met = futures::future::join_all([UID, OTHER, UID, OTHER].map(|uid| life.0.admit(&life.1, PEER, uid))).await;
    assert_eq!(met, [Ok(()), Err(NotAdmitted::OtherUid), Ok(()), Err(NotAdmitted::OtherUid)]);
    close(life).await;
}

#[tokio::test]
async fn nobody_is_met_before_it_is_on_disk() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("raft.redb");
    let life = open(&path);
    // What the writer says of whatever it could not write.
    life.1.fence.bug("the disk failed");
    assert_eq!(life.0.admit(&life.1, PEER, UID).await, Err(NotAdmitted::Closed));
    assert_eq!(life.0.known(PEER), None);
    close(life).await;
    assert_eq!(open(&path).0.known(PEER), None);
}
