//! Where readings come from: one seam for all sources.
//!
//! A source hands over messages in the order in which it received them, and lets go of one only when its acknowledgement comes
//! back: after the spool's commit, never before.

pub mod mqtt;
pub mod replay;

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::mpsc;

use crate::clock::Moment;
use crate::spool::{Mark, Position};

/// Messages between the sources and the spool that nobody looks at yet. Further ones wait where they are.
pub const CHANNEL_MESSAGES: usize = 64;

/// What a source hands over.
#[derive(Debug)]
pub enum Input {
    /// A message.
    Message(Box<Message>),
    /// The broker knows nothing of the source's session: redeliveries from before cannot come.
    NewSession(Arc<str>),
}

/// One message as it was received.
#[derive(Debug)]
pub struct Message {
    /// The configured name of the source.
    pub source: Arc<str>,
    /// The topic, or what stands for it.
    pub topic: String,
    /// What the device sent.
    pub payload: Bytes,
    /// What its sender calls the format (MQTT 5 section 3.3.2.3.9), if it does.
    pub content_type: Option<String>,
    /// When it was received.
    pub received: Moment,
    /// How a redelivery is recognised.
    pub mark: Option<Mark>,
    /// Where the source goes on after a restart.
    pub position: Option<Position>,
    /// Whom to tell once it is durable.
    pub ack: Ack,
}

/// Whom to tell that a message is durable.
#[derive(Debug)]
pub enum Ack {
    /// The broker, through the source's task.
    Mqtt(mpsc::Sender<mqtt::Acked>, mqtt::Acked),
    /// Nobody.
    None,
}

impl Ack {
    /// The message is durable.
    pub async fn acknowledge(self) {
        if let Self::Mqtt(sender, acked) = self {
            // A source that has ended needs no acknowledgement: the broker sends the message again, and it is recognised.
            let _ = sender.send(acked).await;
        }
    }
}
