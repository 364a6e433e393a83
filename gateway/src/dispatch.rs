//! From message to spool: topic → device and adapter → readings → person → rows. A message that gives no readings is counted
//! and acknowledged like any other, so that it blocks nothing.

use std::sync::Arc;

use ehe::reading::{DeviceId, DeviceIdError};
use firmware_adapters::json::fhir::Observed;
use firmware_adapters::{AdapterError, Decoded, Fields, ReceiptContext};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::clock::Moment;
use crate::config::{Checked, Route};
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

/// Why a message gave no readings. The message may repeat what the sender sent: it is for `ehe-gateway decode`, never for logs.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Rejected {
    /// No subscription has this topic.
    #[error("no subscription of the configuration has this topic")]
    NoRoute,
    /// What the topic names is no device.
    #[error("the topic's device: {0}")]
    DeviceId(DeviceIdError),
    /// What the topic names is no user's slot.
    #[error("the topic's user: {0}")]
    UserSlot(DeviceIdError),
    /// The payload.
    #[error(transparent)]
    Payload(#[from] AdapterError),
    /// Its readings do not fit a body.
    #[error("the readings do not fit a body of the spool")]
    Body,
}

impl Rejected {
    /// A name that never changes, for counters.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::NoRoute => "no_route",
            Self::DeviceId(_) => "device_id",
            Self::UserSlot(_) => "user_slot",
            Self::Payload(error) => error.kind(),
            Self::Body => "body",
        }
    }
}

/// Why an Observation with a value gave no reading, where it says so itself.
fn no_reading(fields: &Fields) -> Option<&'static str> {
    let Fields::Fhir(observed) = fields else { return None };
    let observations = match observed {
        Observed::One(one) => std::slice::from_ref(&**one),
        Observed::Bundle { observations } => observations,
    };
    let mut components = observations.iter().flat_map(|one| &one.components);
    components.find_map(|component| match component {
        _ if component.comparator.is_some() => Some("comparator"),
        _ if component.absent.is_some() => Some("absent"),
        _ => None,
    })
}

/// A message as its route understands it.
#[derive(Debug)]
pub struct Routed<'r> {
    /// The route.
    pub route: &'r Route,
    /// Which device it is from.
    pub device: DeviceId,
    /// The device's user slot, where the topic tells it.
    pub user: Option<DeviceId>,
    /// What it says.
    pub decoded: Decoded,
}

/// What the first of `routes` that has the topic makes of a message.
pub fn decode<'r>(
    routes: &'r [Route],
    topic: &str,
    payload: &[u8],
    content_type: Option<&str>,
    received: Moment,
) -> Result<Routed<'r>, Rejected> {
    let matched = routes.iter().find_map(|route| Some((route, route.filter.matches(topic)?)));
    let (route, captures) = matched.ok_or(Rejected::NoRoute)?;
    let device = DeviceId::new(&route.device.fill(&captures)).map_err(Rejected::DeviceId)?;
    // A slot has a device's bounds: of each one that is held, a summary is kept.
    let user = route.user.as_ref().map(|user| DeviceId::new(&user.fill(&captures))).transpose();
    let user = user.map_err(Rejected::UserSlot)?;
    let context = ReceiptContext {
        device: device.clone(),
        received: received.utc,
        monotonic_ms: received.monotonic_ms,
        clock_synchronised: received.synchronised,
        content_type: content_type.map(str::to_owned),
    };
    let decoded = route.adapter.decode(payload, &context)?;
    Ok(Routed { route, device, user, decoded })
}

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
        let routes = self.checked.routes.get(&message.source).ok_or(Rejected::NoRoute)?;
        let content_type = message.content_type.as_deref();
        let Routed { route, device, user, decoded } =
            decode(routes, &message.topic, &message.payload, content_type, message.received)?;
        if decoded.readings.is_empty() {
            let why = no_reading(&decoded.fields);
            // Once for each: what a house's other devices say must fill no log.
            if self.counters.no_value(&message.source, &route.name, why) == 1 {
                tracing::warn!(
                    source = %message.source,
                    route = &*route.name,
                    why = why.unwrap_or("no value"),
                    "a message gives no reading; if it should (it is no heartbeat, and of a device on a body), see what `ehe-gateway decode` makes of it"
                );
            }
        }
        let (people, thresholds) = (&self.checked.assignments, &self.checked.thresholds);
        let user = user.as_ref().map(DeviceId::as_str);
        people.rows(thresholds, &device, user, &decoded.readings).map_err(|_| Rejected::Body)
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
        let rows = self.rows(&message).unwrap_or_else(|rejected| {
            let kind = rejected.kind();
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
