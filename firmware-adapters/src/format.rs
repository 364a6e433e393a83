//! The formats that messages can have, by name: what a source's configuration chooses from.

use std::sync::Arc;

use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::error::{AdapterError, shortened};
use crate::json::ConfigError;
use crate::json::document::parse;
use crate::json::fhir::Fhir;
use crate::json::open_mhealth::{OpenMhealth, SchemaId};
use crate::json::theengs::Theengs;
use crate::json::vendor::Vendor;
use crate::senml::{Encoding, Names, SenMl};
use crate::{Adapter, Decoded, ReceiptContext, stamp};

/// What a source's messages are written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// What the message itself says: its content type (MQTT 5), else what the document calls itself. Never a guess.
    Auto,
    /// SenML in JSON (RFC 8428).
    SenmlJson,
    /// SenML in CBOR (RFC 8428).
    SenmlCbor,
    /// Open mHealth and IEEE 1752.1.
    OpenMhealth,
    /// FHIR R4: Observation, or Bundle of Observations.
    Fhir,
    /// What Theengs Gateway and OpenMQTTGateway publish of a device.
    Theengs,
    /// Answers of the Fitbit Web API.
    Fitbit,
    /// Answers of the iHealth Open API.
    Ihealth,
    /// Answers of the Withings API (getmeas).
    Withings,
}

impl Format {
    /// Its name in a configuration.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::SenmlJson => "senml_json",
            Self::SenmlCbor => "senml_cbor",
            Self::OpenMhealth => "open_mhealth",
            Self::Fhir => "fhir",
            Self::Theengs => "theengs",
            Self::Fitbit => "fitbit",
            Self::Ihealth => "ihealth",
            Self::Withings => "withings",
        }
    }
}

/// What a format is told beside the message.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// The zone of times that are sent without one, checked; `None`: UTC, and the uncertainty says so.
    pub zone: Option<Zone>,
    /// The Open mHealth schema of documents without a header.
    pub schema: Option<SchemaId>,
    /// What SenML's names and units mean.
    pub names: Arc<Names>,
}

/// A time zone.
#[derive(Debug, Clone)]
pub struct Zone(TimeZone);

impl Zone {
    /// `UTC`, `+02:00`, an IANA name whose TZif data `zones` gives (the bytes of `/usr/share/zoneinfo/<name>`), or a POSIX TZ
    /// string. `None`: it is none of these.
    pub fn new(name: &str, zones: &dyn Fn(&str) -> Option<Vec<u8>>) -> Option<Self> {
        stamp::zone(name, zones).map(Self)
    }
}

impl Format {
    /// What makes readings of it.
    ///
    /// # Errors
    /// A mapping of this crate's own is broken, as its tests would know.
    pub fn adapter(self, options: &Options) -> Result<Arc<dyn Adapter>, ConfigError> {
        let zone = || options.zone.as_ref().map(|Zone(zone)| zone.clone());
        let senml = |encoding| SenMl::new(encoding, options.names.clone());
        let vendor =
            |vendor: Vendor| vendor.mapping(zone().as_ref()).map(|mapping| Arc::new(mapping) as Arc<dyn Adapter>);
        Ok(match self {
            Self::Auto => Arc::new(Auto {
                senml_json: senml(Encoding::Json),
                senml_cbor: senml(Encoding::Cbor),
                open_mhealth: OpenMhealth::new(options.schema, zone()),
                fhir: Fhir::new(zone()),
            }),
            Self::SenmlJson => Arc::new(senml(Encoding::Json)),
            Self::SenmlCbor => Arc::new(senml(Encoding::Cbor)),
            Self::OpenMhealth => Arc::new(OpenMhealth::new(options.schema, zone())),
            Self::Fhir => Arc::new(Fhir::new(zone())),
            Self::Theengs => Arc::new(Theengs),
            Self::Fitbit => vendor(Vendor::Fitbit)?,
            Self::Ihealth => vendor(Vendor::Ihealth)?,
            Self::Withings => vendor(Vendor::Withings)?,
        })
    }
}

/// The format that a message says it has.
struct Auto {
    senml_json: SenMl,
    senml_cbor: SenMl,
    open_mhealth: OpenMhealth,
    fhir: Fhir,
}

impl Adapter for Auto {
    fn decode(&self, input: &[u8], receipt: &ReceiptContext) -> Result<Decoded, AdapterError> {
        let Some(sent) = receipt.content_type.as_deref() else { return self.by_itself(input, receipt) };
        let media_type = sent.split(';').next().unwrap_or(sent).trim();
        let is = |names: &[&str]| names.iter().any(|name| name.eq_ignore_ascii_case(media_type));
        // A stream (SenSML) that comes in one message is a pack.
        if is(&["application/senml+json", "application/sensml+json"]) {
            self.senml_json.decode(input, receipt)
        } else if is(&["application/senml+cbor", "application/sensml+cbor"]) {
            self.senml_cbor.decode(input, receipt)
        } else if is(&["application/fhir+json", "application/json+fhir"]) {
            self.fhir.decode(input, receipt)
        } else if is(&["", "application/json", "text/json", "text/plain"]) {
            self.by_itself(input, receipt)
        } else {
            let what = format!("the content type {:?}", shortened(media_type));
            Err(AdapterError::Unsupported { what, remedy: "say in the configuration which `format` it is" })
        }
    }
}

impl Auto {
    fn by_itself(&self, input: &[u8], receipt: &ReceiptContext) -> Result<Decoded, AdapterError> {
        let document = parse(input)?;
        if document.get("resourceType").is_some_and(Value::is_string) {
            return self.fhir.document(&document, receipt);
        }
        if OpenMhealth::is_data_point(&document) || self.open_mhealth.has_schema() {
            return self.open_mhealth.document(document, receipt);
        }
        Err(AdapterError::Unsupported {
            what: "a document that does not say what it is".to_owned(),
            remedy: "say in the configuration which `format` or `mapping` it has",
        })
    }
}
