//! The node's side: whoever may enter its data directory may ask for its state, chunk by chunk, while it goes on.
//!
//! A socket there, not a port: the right to it is the file system's, and no key has to be unlocked to take a backup.

use std::collections::BTreeMap;
use std::io::{self, BufWriter, Write};
use std::net::Shutdown;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use ehe::cbor;
use ehe::cose::{self, Domain};
use ehe::id::{AllianceId, NodeId};
use ehe::identity::Identity;
use ehe::merkle;
use tokio::net::UnixListener;
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use super::Statement;
use super::piece::{self, Begin, Kind, ShardEnd};
use crate::charters::Charters;
use crate::clock::Clock;
use crate::consensus::{Consensus, GroupId};
use crate::shard::{Shard, StoreError, Taken};

/// Name of the socket in the data directory.
pub const SOCKET: &str = "backup.sock";
/// What is asked: this version of what is sent, a backup.
pub(super) const ASK: [u8; 2] = [1, b'b'];
/// Whoever asks takes a piece within this time, or is gone: a view that is held open makes the file grow.
const TAKEN_WITHIN: Duration = Duration::from_secs(120);
/// A quorum cosigns what was taken within this time.
const COSIGNED_WITHIN: Duration = Duration::from_secs(60);

/// What backups are made of.
pub struct Backups {
    /// The alliance.
    pub alliance: AllianceId,
    /// This node.
    pub id: NodeId,
    /// Signs what is in them.
    pub identity: Arc<Identity>,
    /// All charters.
    pub charters: Charters,
    /// The shards that are here.
    pub shards: BTreeMap<u16, Shard>,
    /// Says which of them are damaged.
    pub consensus: Consensus,
    /// The clock.
    pub clock: Clock,
}

/// Why one was not made. Whoever asked is told.
#[derive(Debug, thiserror::Error)]
enum NotMade {
    #[error("the client is gone: {0}")]
    Gone(#[from] io::Error),
    #[error("shard {shard}: {source}")]
    Store { shard: u16, source: StoreError },
    #[error("shard {0} is stopped")]
    Stopped(u16),
    #[error(
        "shard {shard} is held on this node ({why}): take the backup of another node of its group, or when this one has had again what its \
         disk damaged"
    )]
    Held { shard: u16, why: Arc<str> },
    #[error(
        "no quorum of members cosigned shard {0} in time; without that a backup proves nothing. Look whether the other nodes of its group run"
    )]
    NotCosigned(u16),
}

impl Backups {
    /// Waits for whoever asks, one at a time, until the node stops.
    pub async fn serve(self: Arc<Self>, data_dir: &Path, stop: CancellationToken) {
        let path = data_dir.join(SOCKET);
        // The data directory is this process's alone (its log is locked): what lies there is a dead one's.
        let _ = std::fs::remove_file(&path);
        let listener = UnixListener::bind(&path)
            .and_then(|listener| std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).map(|()| listener));
        let listener = match listener {
            Ok(listener) => listener,
            Err(error) => {
                tracing::error!(path = %path.display(), %error, "no backup can be taken of this node: its socket cannot be made");
                return;
            }
        };
        loop {
            let stream = tokio::select! {
                () = stop.cancelled() => break,
                accepted = listener.accept() => match accepted {
                    Ok((stream, _)) => stream,
                    Err(error) => {
                        tracing::warn!(%error, "asking for a backup failed");
                        tokio::time::sleep(Duration::from_secs(1)).await;
                        continue;
                    }
                },
            };
            let (stream, ours) = match stream.into_std().and_then(|stream| Ok((stream.try_clone()?, stream))) {
                Ok(both) => both,
                Err(error) => {
                    tracing::warn!(%error, "no backup was taken");
                    continue;
                }
            };
            let (this, handle, stopping) = (Arc::clone(&self), Handle::current(), stop.clone());
            let mut made = tokio::task::spawn_blocking(move || this.connection(stream, &handle, &stopping));
            let made = tokio::select! {
                made = &mut made => made,
                () = stop.cancelled() => {
                    // Whoever takes it may be asleep: its end of the socket is not waited for.
                    let _ = ours.shutdown(Shutdown::Both);
                    made.await
                }
            };
            match made {
                Ok(Ok(())) => tracing::info!("a backup was taken"),
                Ok(Err(error)) => tracing::warn!(%error, "no backup was taken"),
                Err(_) => {}
            }
        }
        let _ = std::fs::remove_file(&path);
    }

    fn connection(&self, stream: UnixStream, handle: &Handle, stop: &CancellationToken) -> Result<(), NotMade> {
        use std::io::Read;
        stream.set_nonblocking(false)?;
        stream.set_write_timeout(Some(TAKEN_WITHIN))?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        let mut asked = [0u8; ASK.len()];
        (&stream).read_exact(&mut asked)?;
        let mut to = BufWriter::with_capacity(1 << 20, &stream);
        if asked != ASK {
            piece::write(&mut to, Kind::Failed, b"the node is of another version than this program")?;
            return Ok(to.flush()?);
        }
        match self.make(&mut to, handle, stop) {
            Ok(()) => piece::write(&mut to, Kind::End, &[])?,
            Err(NotMade::Gone(why)) => return Err(NotMade::Gone(why)),
            Err(why) => {
                let told = piece::write(&mut to, Kind::Failed, why.to_string().as_bytes()).and_then(|()| to.flush());
                return Err(told.map_or_else(NotMade::Gone, |()| why));
            }
        }
        Ok(to.flush()?)
    }

    fn make(&self, to: &mut impl Write, handle: &Handle, stop: &CancellationToken) -> Result<(), NotMade> {
        let mut ours = Vec::new();
        for (number, shard) in &self.shards {
            let store = |source| NotMade::Store { shard: *number, source };
            let view = shard.store.view().map_err(store)?;
            let known = view.holders(self.alliance).map_err(store)?;
            // A founder that was let go, and has an empty disk since, has nothing that says so.
            let newest = self.charters.newest();
            let may_be_ours = known.is_some() || view.shard().leaves > 0 || newest.group(*number).contains(&self.id);
            let holders = known.unwrap_or_else(|| self.charters.first());
            // Others may be open here, empty, or on their way.
            if may_be_ours && holders.group(*number).contains(&self.id) {
                // What is known to be damaged would be kept for years as if it were not.
                if let Some(why) = self.consensus.status(GroupId(*number)).and_then(|status| status.held) {
                    return Err(NotMade::Held { shard: *number, why });
                }
                ours.push((*number, shard));
            }
        }
        let shards = u16::try_from(ours.len()).unwrap_or(u16::MAX);
        let begin = Begin { alliance: self.alliance, node: self.id, at: self.clock.now(), shards, since: None };
        piece::write(to, Kind::Begin, &cbor::to_vec(&begin))?;
        piece::write(to, Kind::Charters, &self.charters.encoded())?;
        for (number, shard) in ours {
            let stopped = || io::Error::other("the node is stopping");
            let taken = shard.store.take(|chunk, _| {
                if stop.is_cancelled() { Err(stopped()) } else { piece::write(to, Kind::Chunk, chunk) }
            });
            let taken = taken.map_err(|source| match source {
                StoreError::Io(gone) => NotMade::Gone(gone),
                source => NotMade::Store { shard: number, source },
            })?;
            let end = self.end_of(number, shard, &taken, (handle, stop))?;
            piece::write(to, Kind::Shard, &cbor::to_vec(&end))?;
            to.flush()?;
        }
        Ok(())
    }

    /// What this node says of what was taken, and what proves it.
    fn end_of(
        &self,
        number: u16,
        shard: &Shard,
        taken: &Taken,
        (handle, stop): (&Handle, &CancellationToken),
    ) -> Result<ShardEnd, NotMade> {
        let Taken { meta, root, rows, state, holders } = *taken;
        let statement = Statement {
            alliance: self.alliance,
            shard: number,
            incarnation: meta.incarnation,
            leaves: meta.leaves,
            root,
            state,
            rows,
            time: meta.time,
            at: self.clock.now(),
            node: self.id,
            holders,
        };
        let signed = cose::sign(&self.identity, Domain::Backup, cbor::to_vec(&statement)).into();
        if meta.leaves == 0 {
            return Ok(ShardEnd { signed, proof: Vec::new(), checkpoint: None });
        }
        let published = handle.block_on(async {
            tokio::select! {
                published = shard.checkpoint_asked_for(meta.leaves) => published.map_err(|_| NotMade::Stopped(number)),
                () = stop.cancelled() => Err(NotMade::Stopped(number)),
                () = tokio::time::sleep(COSIGNED_WITHIN) => Err(NotMade::NotCosigned(number)),
            }
        })?;
        let store = |source| NotMade::Store { shard: number, source };
        let view = shard.store.view().map_err(store)?;
        let proof = merkle::consistency_proof(&view, meta.leaves, published.size).map_err(store)?;
        Ok(ShardEnd { signed, proof, checkpoint: Some(published.note.clone()) })
    }
}
