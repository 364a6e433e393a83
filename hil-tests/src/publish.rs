//! A wearable's MQTT client: writes down what it is about to send, sends at QoS 1, writes down what was acknowledged.

use std::time::Duration;

use anyhow::{Context, Result};
use rumqttc::mqttbytes::v5::{DisconnectProperties, DisconnectReasonCode};
use rumqttc::{
    AsyncClient, Event, MqttOptions, Outgoing, PublishOptions, PublishResult, QoS, TlsConfiguration, Transport,
};
use tokio::task::JoinSet;

use crate::journal::{Journal, Step};
use crate::lab::broker::Broker;
use crate::wearable::Sending;

/// A connected wearable.
#[derive(Debug)]
pub struct Publisher {
    client: AsyncClient,
    journal: Journal,
    /// Messages whose PUBACK is awaited, and the event loop (which ends with the client).
    waiting: JoinSet<Result<usize>>,
    connection: tokio::task::JoinHandle<()>,
}

impl Publisher {
    /// Connects to the lab's broker as user `name`.
    pub fn connect(name: &str, password: &str, broker: &Broker, journal: Journal) -> Result<Self> {
        let mut options = MqttOptions::new(name, ("localhost", broker.port()));
        let tls = TlsConfiguration::Simple { ca: std::fs::read(broker.authority())?, alpn: None, client_auth: None };
        options.set_transport(Transport::tls_with_config(tls));
        options.set_keep_alive(15).set_credentials(name, password.to_owned());
        // What is not acknowledged when a connection breaks is sent again on the next one.
        options.set_clean_start(false).set_session_expiry_interval(Some(3600));
        let (client, mut events) = AsyncClient::builder(options).capacity(64).build();
        let connection = tokio::spawn(async move {
            loop {
                match events.poll().await {
                    Ok(Event::Outgoing(Outgoing::Disconnect)) | Err(rumqttc::ConnectionError::RequestsDone) => return,
                    Ok(_) => {}
                    Err(_) => tokio::time::sleep(Duration::from_millis(200)).await,
                }
            }
        });
        Ok(Self { client, journal, waiting: JoinSet::new(), connection })
    }

    /// Writes the readings down, sends the message, and writes them down again when its PUBACK comes.
    pub async fn send(&mut self, sending: Sending) -> Result<()> {
        let now_ms = u64::try_from(jiff::Timestamp::now().as_millisecond())?;
        self.journal.write(&sending.readings, Step::Sending(now_ms))?;
        let options = PublishOptions::new(QoS::AtLeastOnce);
        let notice = self.client.publish_tracked(sending.topic, sending.payload, options).await?;
        let journal = self.journal.clone();
        self.waiting.spawn(async move {
            match notice.wait_async().await.context("a published message was never acknowledged")? {
                // 16: nobody has subscribed; the broker has dropped the message.
                PublishResult::Qos1(ack) => {
                    anyhow::ensure!(
                        ack.reason == rumqttc::mqttbytes::v5::PubAckReason::Success,
                        "PUBACK says {:?}",
                        ack.reason
                    );
                }
                other => anyhow::bail!("QoS 1 was answered by {other:?}"),
            }
            journal.write(&sending.readings, Step::Acked)?;
            Ok(sending.readings.len())
        });
        Ok(())
    }

    /// Waits for the PUBACKs that are still to come; gives the number of readings acknowledged in all.
    pub async fn finish(mut self, within: Duration) -> Result<usize> {
        let mut readings = 0;
        let all = async {
            while let Some(acked) = self.waiting.join_next().await {
                readings += acked??;
            }
            anyhow::Ok(())
        };
        tokio::time::timeout(within, all).await.context("the broker did not acknowledge in time")??;
        // The session ends with the connection: the next client of this name begins anew.
        let properties = DisconnectProperties {
            session_expiry_interval: Some(0),
            reason_string: None,
            user_properties: Vec::new(),
            server_reference: None,
        };
        self.client.disconnect_with_properties(DisconnectReasonCode::NormalDisconnection, properties).await?;
        tokio::time::timeout(within, self.connection).await.context("the broker did not let go")??;
        Ok(readings)
    }
}
