//! From message to spool: topic → device and mapping → readings → person → rows. A message that gives no readings is counted
//! and acknowledged like any other, so that it blocks nothing.

use std::sync::Arc;

use ehe::reading::{DeviceId, Reading};
use firmware_adapters::{Adapter, ReceiptContext};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::config::Checked;
use crate::source::{Ack, Input, Message};
use crate::spool::{Arrival, Intake, Row, Spool, Storing};
use crate::status::Counters;

/// Turns messages into rows.
#[derive(Clone)]
pub struct Dispatch {
    /// Routes, assignments, thresholds.
    pub checked: Arc<Checked>,
    /// Where rows go.
    pub spool: Spool,
    /// Counted for people.
    pub counters: Arc<Counters>,
}

/// Why a message gave no readings: a name that never changes, for counters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rejected(pub &'static str);

/// A message on its way to the disk, and whom to tell.
#[derive(Debug)]
pub struct Pending {
    source: Arc<str>,
    storing: Storing,
    ack: Ack,
}

impl Dispatch {
    /// The rows of a message.
    pub fn rows(&self, message: &Message) -> Result<Vec<Row>, Rejected> {
        let routes = self.checked.routes.get(&message.source).ok_or(Rejected("no_route"))?;
        let matched = routes.iter().find_map(|route| Some((route, route.filter.matches(&message.topic)?)));
        let (route, captures) = matched.ok_or(Rejected("no_route"))?;
        let device = DeviceId::new(&route.device.fill(&captures)).map_err(|_| Rejected("device_id"))?;
        // A slot has a device's bounds: of each one that is held, a summary is kept.
        let user = route.user.as_ref().map(|user| DeviceId::new(&user.fill(&captures))).transpose();
        let user = user.map_err(|_| Rejected("user_slot"))?;
        let context = ReceiptContext {
            device: device.clone(),
            received: message.received.utc,
            monotonic_ms: message.received.monotonic_ms,
            clock_synchronised: message.received.synchronised,
        };
        let readings: Vec<Reading> =
            route.mapping.readings(&message.payload, &context).map_err(|error| Rejected(error.kind()))?;
        if readings.is_empty() && self.counters.no_value(&message.source, route.mapping.name()) == 1 {
            tracing::warn!(
                source = %message.source,
                mapping = route.mapping.name(),
                "a message holds none of the mapping's values; if it is no heartbeat, compare the mapping's paths with what the device sends"
            );
        }
        let (people, thresholds) = (&self.checked.assignments, &self.checked.thresholds);
        people.rows(thresholds, &device, user.as_ref().map(DeviceId::as_str), &readings).map_err(|_| Rejected("body"))
    }

    /// Takes messages until the sources are gone or `stop`, and hands each to the spool's writer in order.
    pub async fn run(self, mut inputs: mpsc::Receiver<Input>, pending: mpsc::Sender<Pending>, stop: CancellationToken) {
        loop {
            let input = tokio::select! {
                () = stop.cancelled() => return,
                input = inputs.recv() => input,
            };
            let taken = match input {
                None => return,
                Some(Input::NewSession(source)) => self.spool.new_session_queued(source).map(|()| None),
                Some(Input::Message(message)) => self.take(*message).await.map(Some),
            };
            match taken {
                Ok(None) => {}
                Ok(Some(one)) => {
                    if pending.send(one).await.is_err() {
                        return;
                    }
                }
                Err(_) => return,
            }
        }
    }

    async fn take(&self, message: Message) -> Result<Pending, crate::spool::SpoolError> {
        self.counters.source(&message.source, |s| s.messages += 1);
        let rows = self.rows(&message).unwrap_or_else(|Rejected(kind)| {
            let count = self.counters.rejected(kind);
            // Neither topic nor content: both are personal. Each doubling is said, so that a faulty device fills no log.
            if count.is_power_of_two() {
                tracing::warn!(source = %message.source, kind, count, "a message gave no readings; it was acknowledged and left out");
            }
            Vec::new()
        });
        let Message { source, mark, position, ack, .. } = message;
        let storing = self.spool.store(Intake { mark, position, rows }).await?;
        Ok(Pending { source, storing, ack })
    }

    /// Waits for each message's commit, in order, then acknowledges it and tells the windows.
    pub async fn settle(
        self,
        mut pending: mpsc::Receiver<Pending>,
        arrivals: mpsc::Sender<Vec<Arrival>>,
        stop: CancellationToken,
    ) {
        loop {
            let next = tokio::select! {
                () = stop.cancelled() => return,
                next = pending.recv() => next,
            };
            let Some(Pending { source, storing, ack }) = next else { return };
            let durable = tokio::select! {
                () = stop.cancelled() => return,
                durable = storing.durable() => durable,
            };
            // Not durable: the program stops, and the source keeps the message.
            let Ok(stored) = durable else { return };
            self.counters.stored(&source, &stored);
            ack.acknowledge().await;
            if !stored.arrivals.is_empty() && arrivals.send(stored.arrivals).await.is_err() {
                return;
            }
        }
    }
}
