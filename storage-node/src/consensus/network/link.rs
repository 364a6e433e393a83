//! How one node reaches another: the seam between consensus and what carries it.
//!
//! A [`Link`] opens **streams**. A stream goes to one node, carries **frames** both ways, in order, each whole or not at all, and
//! ends in one of two ways in each direction: *finished* (the other side reads everything and then [`None`]) or *reset* (it
//! reads an error, now or later). A half that is dropped without having been finished is reset. This is what a bidirectional QUIC
//! stream gives with a length in front of each frame, and also what two bounded queues in memory give.
//!
//! # What a link must keep
//!
//! - **Who.** The node at the other end is the one that was asked for, and the accepting side knows who dialled: both from
//!   certificates, before the first frame. Consensus believes nothing else about who speaks.
//! - **Bounds.** `send` waits while the other side does not read: it never queues without bound. `recv` takes no frame longer
//!   than it is told, and allocates for what has come, not for what is claimed.
//! - **How many.** A peer has at most a few streams open for each group (one each for appends, beats and a snapshot, and requests in
//!   a burst at elections); what is far beyond that is refused by not accepting it. Consensus bounds what it works on, not what
//!   waits to be accepted.
//! - **Order and wholeness** within a stream. Streams are independent: a large frame on one must not hold up the others,
//!   and [`Purpose::priority`] says which go first when they share a wire.
//! - **An end.** A peer that is silent for long (a link's idle timeout, some tens of seconds) is an error on all its streams. Consensus
//!   has deadlines of its own for everything that it waits for, and drops the stream when one passes.
//!
//! # Calls
//!
//! `open` may connect, and is given a few seconds. Nothing is opened before it is used, and any number of streams to one node
//! share one connection. All futures are polled on the runtime that consensus was opened in and may be dropped at any time: the
//! half that was waited on is then dropped as well, never used again. The accepting side hands each stream that arrives to
//! [`Consensus::serve`](crate::consensus::Consensus::serve) in a task of its own.

use std::fmt;

use bytes::Bytes;
use futures::{FutureExt, future::BoxFuture};

use crate::consensus::ids::NodeId;

/// The longest frame that consensus sends: four MiB of entries and one more of up to eight, and what is around them.
pub const MAX_FRAME_BYTES: usize = 16 << 20;

/// What a stream is for. The acceptor is told it by the first frame, so a link need not carry it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Purpose {
    /// Entries of one group, as long as this node leads it. Up to [`MAX_FRAME_BYTES`] a frame; many frames under way.
    Append,
    /// Heartbeats of one group. Small frames, one under way.
    Beat,
    /// One request and one answer: votes, handing over leadership, how far a reader must wait. Small frames.
    Request,
    /// One snapshot. Frames of up to 1 MiB and many of them.
    Snapshot,
}

impl Purpose {
    /// Streams with a greater number go first where streams share a wire: what keeps a leader in office before what
    /// is ordered, and that before what catches up.
    #[must_use]
    pub const fn priority(self) -> i32 {
        match self {
            Self::Beat | Self::Request => 2,
            Self::Append => 1,
            Self::Snapshot => 0,
        }
    }
}

/// Opens streams to other nodes. See the [module's text](self) for what it must keep.
pub trait Link: fmt::Debug + Send + Sync + 'static {
    /// Opens a stream to `peer`, which need not have noticed when this returns.
    ///
    /// # Errors
    /// [`LinkError::Unreachable`] if there is no such node, or it does not answer, or is not who it should be. Consensus waits
    /// longer and longer before it tries again.
    fn open(&self, peer: NodeId, purpose: Purpose) -> BoxFuture<'_, Result<Stream, LinkError>>;
}

/// Both halves of a stream.
pub struct Stream {
    /// Towards the peer.
    pub sender: Box<dyn FrameSender>,
    /// From the peer.
    pub receiver: Box<dyn FrameReceiver>,
}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Stream")
    }
}

/// The half that sends.
pub trait FrameSender: Send + 'static {
    /// Hands a frame over, at most [`MAX_FRAME_BYTES`] long. Waits while too much is under way.
    ///
    /// # Errors
    /// [`LinkError::Lost`] if the stream or its connection is gone, which may be noticed any number of frames late.
    fn send(&mut self, frame: Bytes) -> BoxFuture<'_, Result<(), LinkError>>;

    /// No more frames: what was sent still arrives. Without it, dropping resets the stream.
    fn finish(&mut self);
}

/// The half that receives.
pub trait FrameReceiver: Send + 'static {
    /// The next frame; `None` when the peer has finished.
    ///
    /// # Errors
    /// [`LinkError::Lost`] if the peer reset the stream or its connection is gone; [`LinkError::TooLong`] for a frame of more
    /// than `max` bytes, of which nothing is kept.
    fn recv(&mut self, max: usize) -> BoxFuture<'_, Result<Option<Bytes>, LinkError>>;
}

/// Why a link does not carry.
#[derive(Clone, Debug, thiserror::Error)]
pub enum LinkError {
    /// No stream can be opened now.
    #[error("unreachable: {0}")]
    Unreachable(String),
    /// The stream is gone.
    #[error("the stream is gone: {0}")]
    Lost(String),
    /// The peer sent a longer frame than belongs there: it is faulty.
    #[error("a frame of more than {0} bytes")]
    TooLong(usize),
}

/// Reaches nobody: of a node that is alone.
#[derive(Clone, Copy, Debug)]
pub struct Alone;

impl Link for Alone {
    fn open(&self, peer: NodeId, _purpose: Purpose) -> BoxFuture<'_, Result<Stream, LinkError>> {
        let why = format!("this node was opened without a link, and so without node {peer}");
        std::future::ready(Err(LinkError::Unreachable(why))).boxed()
    }
}
