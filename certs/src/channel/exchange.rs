//! One exchange on one stream, in frames: four bytes of length, big-endian, then the payload.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use quinn::{RecvStream, SendStream};
use tokio::time::error::Elapsed;
use tokio::time::{Instant, timeout, timeout_at};

use super::gate::Slot;
use super::{ChannelError, CloseCode, Protocol};

const LENGTH_BYTES: usize = 4;
/// What is allocated at most before bytes of a frame have arrived.
const FIRST_ALLOCATION_BYTES: usize = 16 * 1024;

/// Sends frames of an exchange. Dropped without [`finish`](Self::finish), a client's or an answer to it ends as if it were finished:
/// what was sent still arrives as long as the connection lives. Between nodes, where whoever gives up just drops its end, the stream
/// is then abandoned, so that half of something is never taken for the whole.
#[derive(Debug)]
pub struct FrameSender {
    pub(super) stream: SendStream,
    frame_max: usize,
    /// Dropping it does not abandon the stream.
    finished: bool,
    _slot: Option<Arc<Slot>>,
}

impl FrameSender {
    /// Sends one frame; returns when the transport has taken it. Not cancel safe: after a deadline, or if the future is
    /// dropped, the stream is of no further use (a deadline resets it).
    pub async fn send(&mut self, frame: &[u8], within: Duration) -> Result<(), ChannelError> {
        let length = self.length(frame.len())?;
        let write = async {
            self.stream.write_all(&length).await?;
            self.stream.write_all(frame).await
        };
        let written = timeout(within, write).await;
        self.written(written)
    }

    /// As [`send`](Self::send), for a frame in pieces, one after the other: none of them is copied.
    pub async fn send_pieces(
        &mut self,
        pieces: impl IntoIterator<Item = Bytes>,
        within: Duration,
    ) -> Result<(), ChannelError> {
        // An empty piece at the end would wait for room that it does not need.
        let mut frame: Vec<Bytes> =
            core::iter::once(Bytes::new()).chain(pieces.into_iter().filter(|piece| !piece.is_empty())).collect();
        let length = self.length(frame.iter().fold(0, |sum, piece| sum.saturating_add(piece.len())))?;
        if let Some(first) = frame.first_mut() {
            *first = Bytes::copy_from_slice(&length);
        }
        let written = timeout(within, self.stream.write_all_chunks(&mut frame)).await;
        self.written(written)
    }

    /// What stands before a frame of so many bytes.
    fn length(&self, bytes: usize) -> Result<[u8; LENGTH_BYTES], ChannelError> {
        let refused = || too_large(u64::try_from(bytes).unwrap_or(u64::MAX), self.frame_max);
        let length = u32::try_from(bytes).map_err(|_| refused())?;
        if bytes > self.frame_max { Err(refused()) } else { Ok(length.to_be_bytes()) }
    }

    fn written(&mut self, written: Result<Result<(), quinn::WriteError>, Elapsed>) -> Result<(), ChannelError> {
        match written {
            Ok(written) => Ok(written?),
            Err(_) => {
                self.abort(CloseCode::Timeout);
                Err(ChannelError::Deadline("the peer did not take a frame"))
            }
        }
    }

    /// No more frames from this side.
    pub fn finish(&mut self) -> Result<(), ChannelError> {
        self.finished = true;
        self.stream.finish().map_err(|_| ChannelError::ClosedHere)
    }

    /// After [`finish`](Self::finish): waits until the peer's transport has acknowledged everything. That the peer's program
    /// has read it, only its answer says.
    pub async fn delivered(&mut self, within: Duration) -> Result<(), ChannelError> {
        match timeout(within, self.stream.stopped()).await {
            Ok(Ok(None)) => Ok(()),
            Ok(Ok(Some(code))) => Err(ChannelError::Reset(CloseCode::from_wire(code))),
            Ok(Err(quinn::StoppedError::ConnectionLost(error))) => Err(error.into()),
            Ok(Err(error)) => Err(ChannelError::Setup(error.to_string())),
            Err(_) => Err(ChannelError::Deadline("the peer did not acknowledge")),
        }
    }

    /// Abandons the stream: what has not arrived never will.
    pub fn abort(&mut self, code: CloseCode) {
        let _ = self.stream.reset(code.wire()); // fails only if it has ended already
    }
}

impl Drop for FrameSender {
    fn drop(&mut self) {
        if !self.finished {
            self.abort(CloseCode::Done);
        }
    }
}

/// Receives frames of an exchange. Dropping it tells the peer to stop sending.
#[derive(Debug)]
pub struct FrameReceiver {
    stream: RecvStream,
    partial: Partial,
    frame_max: usize,
    _slot: Option<Arc<Slot>>,
}

/// What of the next frame has arrived. Kept across calls, so that a deadline or a dropped future loses nothing.
#[derive(Debug)]
enum Partial {
    Length {
        bytes: [u8; LENGTH_BYTES],
        have: usize,
    },
    Payload {
        bytes: BytesMut,
        missing: usize,
    },
    /// The stream broke the protocol and was stopped.
    Refused {
        announced: u64,
    },
}

impl Partial {
    const NONE: Self = Self::Length { bytes: [0; LENGTH_BYTES], have: 0 };
}

impl FrameReceiver {
    /// The next frame; `None` when the peer has finished. `within` is for the whole frame, so that a peer that drips bytes
    /// gains nothing. Cancel safe: after a deadline, or if the future is dropped, the next call goes on where this one was.
    pub async fn recv(&mut self, within: Duration) -> Result<Option<Bytes>, ChannelError> {
        let deadline = super::deadline(within);
        loop {
            let wanted = match &self.partial {
                Partial::Length { have, .. } => LENGTH_BYTES - have,
                Partial::Payload { missing: 0, .. } => {
                    self.partial = Partial::NONE;
                    return Ok(Some(Bytes::new()));
                }
                Partial::Payload { missing, .. } => *missing,
                Partial::Refused { announced } => return Err(too_large(*announced, self.frame_max)),
            };
            let Some(chunk) = self.chunk(wanted, deadline).await? else { return Ok(None) };
            if let Some(frame) = self.take(chunk)? {
                return Ok(Some(frame));
            }
        }
    }

    /// Length of the next frame; `None` when the peer has finished. Takes nothing of the frame itself, so that whoever has to
    /// make room for it can do so first: until then it waits in the transport's window. Cancel safe.
    pub async fn announced(&mut self, within: Duration) -> Result<Option<usize>, ChannelError> {
        let deadline = super::deadline(within);
        loop {
            let wanted = match &self.partial {
                Partial::Length { have, .. } => LENGTH_BYTES - have,
                Partial::Payload { bytes, missing } => return Ok(Some(bytes.len() + missing)),
                Partial::Refused { announced } => return Err(too_large(*announced, self.frame_max)),
            };
            let Some(chunk) = self.chunk(wanted, deadline).await? else { return Ok(None) };
            // Four bytes at most, so no frame comes of it.
            self.take(chunk)?;
        }
    }

    /// At most `wanted` bytes, never past the end of a frame: what follows stays in the transport's window, which is bounded.
    async fn chunk(&mut self, wanted: usize, deadline: Instant) -> Result<Option<Bytes>, ChannelError> {
        let read = timeout_at(deadline, self.stream.read_chunk(wanted, true)).await;
        let chunk = read.map_err(|_| ChannelError::Deadline("the peer sent no whole frame"))??;
        let between = matches!(self.partial, Partial::Length { have: 0, .. });
        match chunk {
            Some(chunk) => Ok(Some(chunk.bytes)),
            None if between => Ok(None),
            None => Err(ChannelError::Truncated),
        }
    }

    /// Tells the peer to stop sending, and why.
    pub fn abort(&mut self, code: CloseCode) {
        let _ = self.stream.stop(code.wire()); // fails only if it has ended already
    }

    /// Bytes that are held for a frame that has not arrived completely.
    #[cfg(test)]
    pub(super) fn held_bytes(&self) -> usize {
        match &self.partial {
            Partial::Payload { bytes, .. } => bytes.capacity(),
            Partial::Length { .. } | Partial::Refused { .. } => 0,
        }
    }

    /// Adds bytes, never more than were wanted; returns the frame that they complete.
    fn take(&mut self, chunk: Bytes) -> Result<Option<Bytes>, ChannelError> {
        match &mut self.partial {
            Partial::Length { bytes, have } => {
                for (to, from) in bytes.iter_mut().skip(*have).zip(&chunk) {
                    *to = *from;
                }
                *have += chunk.len();
                if *have < LENGTH_BYTES {
                    return Ok(None);
                }
                let announced = u32::from_be_bytes(*bytes);
                let missing = usize::try_from(announced).unwrap_or(usize::MAX);
                if missing > self.frame_max {
                    self.partial = Partial::Refused { announced: announced.into() };
                    self.abort(CloseCode::TooLarge);
                    return Err(too_large(announced.into(), self.frame_max));
                }
                self.partial = Partial::Payload { bytes: BytesMut::new(), missing };
                Ok(None)
            }
            Partial::Payload { bytes, missing } => {
                if bytes.is_empty() && chunk.len() == *missing {
                    self.partial = Partial::NONE;
                    return Ok(Some(chunk)); // arrived in one piece: not copied
                }
                if bytes.is_empty() {
                    bytes.reserve(chunk.len().max((*missing).min(FIRST_ALLOCATION_BYTES)));
                }
                bytes.extend_from_slice(&chunk);
                *missing -= chunk.len();
                if *missing > 0 {
                    return Ok(None);
                }
                let frame = std::mem::take(bytes).freeze();
                self.partial = Partial::NONE;
                Ok(Some(frame))
            }
            Partial::Refused { announced } => Err(too_large(*announced, self.frame_max)),
        }
    }
}

fn too_large(bytes: u64, limit: usize) -> ChannelError {
    ChannelError::FrameTooLarge { bytes, limit }
}

/// One stream of frames there, and one back: a client's request and its answer, or what two nodes say to each other for as long
/// as both want. Both directions can be taken apart, to send and receive at the same time.
#[derive(Debug)]
pub struct Exchange {
    /// Frames of this side.
    pub sender: FrameSender,
    /// Frames of the peer.
    pub receiver: FrameReceiver,
}

impl Exchange {
    /// `slot`: a server's connection counts until the last end of its exchanges is gone.
    pub(super) fn new(
        (sender, receiver): (SendStream, RecvStream),
        protocol: Protocol,
        slot: Option<Arc<Slot>>,
    ) -> Self {
        let frame_max = protocol.frame_max_bytes();
        Self {
            sender: FrameSender {
                stream: sender,
                frame_max,
                finished: protocol == Protocol::Clients,
                _slot: slot.clone(),
            },
            receiver: FrameReceiver { stream: receiver, partial: Partial::NONE, frame_max, _slot: slot },
        }
    }

    /// See [`FrameSender::send`].
    pub async fn send(&mut self, frame: &[u8], within: Duration) -> Result<(), ChannelError> {
        self.sender.send(frame, within).await
    }

    /// See [`FrameSender::send_pieces`].
    pub async fn send_pieces(
        &mut self,
        pieces: impl IntoIterator<Item = Bytes>,
        within: Duration,
    ) -> Result<(), ChannelError> {
        self.sender.send_pieces(pieces, within).await
    }

    /// See [`FrameSender::finish`].
    pub fn finish(&mut self) -> Result<(), ChannelError> {
        self.sender.finish()
    }

    /// See [`FrameSender::delivered`].
    pub async fn delivered(&mut self, within: Duration) -> Result<(), ChannelError> {
        self.sender.delivered(within).await
    }

    /// See [`FrameReceiver::recv`].
    pub async fn recv(&mut self, within: Duration) -> Result<Option<Bytes>, ChannelError> {
        self.receiver.recv(within).await
    }

    /// See [`FrameReceiver::announced`].
    pub async fn announced(&mut self, within: Duration) -> Result<Option<usize>, ChannelError> {
        self.receiver.announced(within).await
    }

    /// Abandons both directions.
    pub fn abort(&mut self, code: CloseCode) {
        self.sender.abort(code);
        self.receiver.abort(code);
    }
}
