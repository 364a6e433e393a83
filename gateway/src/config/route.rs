//! Which adapter the messages of a topic have: a mapping of the file, or a format by name.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use ehe::reading::DeviceId;
use firmware_adapters::format::{Options, Zone};
use firmware_adapters::json::MappingConfig;
use firmware_adapters::json::flat::Mapping;
use firmware_adapters::json::open_mhealth::UnknownSchema;
use firmware_adapters::senml::{NameConfig, Names};
use firmware_adapters::{Adapter, Format};

use super::{ConfigError, Replay, Subscription};
use crate::topic::{Filter, Template};

/// Where messages of a source belong.
#[derive(Clone)]
pub struct Route {
    /// The topics.
    pub filter: Filter,
    /// The device.
    pub device: Template,
    /// Its user slot.
    pub user: Option<Template>,
    /// The name of its mapping or format.
    pub name: Arc<str>,
    /// What makes readings of the payload.
    pub adapter: Arc<dyn Adapter>,
}

impl core::fmt::Debug for Route {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Route").field("filter", &self.filter).field("name", &self.name).finish_non_exhaustive()
    }
}

/// What a source says of its messages.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'c> {
    /// Topic filter.
    pub topic: &'c str,
    /// The device's template.
    pub device: &'c str,
    /// The user slot's template.
    pub user: Option<&'c str>,
    /// A mapping of the file,
    pub mapping: Option<&'c str>,
    /// or a format.
    pub format: Option<Format>,
    /// The Open mHealth schema of documents without a header.
    pub schema: Option<&'c str>,
    /// The zone of times without one.
    pub zone: Option<&'c str>,
    /// What the key of `format` is called.
    pub format_key: &'static str,
}

impl<'c> From<&'c Subscription> for Wanted<'c> {
    fn from(one: &'c Subscription) -> Self {
        Self {
            topic: &one.topic,
            device: &one.device,
            user: one.user.as_deref(),
            mapping: one.mapping.as_deref(),
            format: one.format,
            schema: one.schema.as_deref(),
            zone: one.zone.as_deref(),
            format_key: "format",
        }
    }
}

impl<'c> From<&'c Replay> for Wanted<'c> {
    fn from(one: &'c Replay) -> Self {
        Self {
            topic: "#",
            device: &one.device,
            user: one.user.as_deref(),
            mapping: one.mapping.as_deref(),
            format: one.message,
            schema: one.schema.as_deref(),
            zone: one.zone.as_deref(),
            format_key: "message",
        }
    }
}

/// The system's time zones, for local times.
fn zoneinfo(name: &str) -> Option<Vec<u8>> {
    let safe = name.split('/').all(|part| !part.is_empty() && part != "." && part != "..");
    safe.then(|| std::fs::read(Path::new("/usr/share/zoneinfo").join(name)).ok()).flatten()
}

/// Makes routes of what sources say.
#[derive(Debug, Clone, Default)]
pub struct Router {
    mappings: BTreeMap<String, Arc<Mapping>>,
    names: Arc<Names>,
}

impl Router {
    /// Checks the mappings and the rows for SenML.
    pub fn new(mappings: &[MappingConfig], senml: &[NameConfig]) -> Result<Self, ConfigError> {
        let names = Names::new(senml).map_err(|(row, error)| {
            ConfigError::value(format!("senml[{row}]"), error, "see [[senml]] in gateway.example.toml")
        })?;
        let mut router = Self { mappings: BTreeMap::new(), names: Arc::new(names) };
        for (index, mapping) in mappings.iter().enumerate() {
            let made = Arc::new(Mapping::new(mapping, &zoneinfo)?);
            if router.mappings.insert(mapping.name.clone(), made).is_some() {
                let key = format!("mapping[{index}].name");
                return Err(ConfigError::value(key, "used twice", "give each mapping a name of its own"));
            }
        }
        Ok(router)
    }

    /// The route of a source's messages; `key` is where the file has them.
    pub fn route(&self, key: &str, wanted: &Wanted<'_>) -> Result<Route, ConfigError> {
        let filter = Filter::new(wanted.topic)
            .map_err(|e| ConfigError::value(format!("{key}.topic"), e, "see MQTT 5.0 section 4.7"))?;
        let template = |name: &str, text: &str| {
            Template::new(text, filter.wildcards()).map_err(|error| {
                ConfigError::value(format!("{key}.{name}"), error, "`{1}` is the filter's first wildcard")
            })
        };
        let device = template("device", wanted.device)?;
        // A name without wildcards must be a device id as it stands.
        if !wanted.device.contains('{') {
            DeviceId::new(wanted.device)
                .map_err(|error| ConfigError::value(format!("{key}.device"), error, "write a short name"))?;
        }
        let user = wanted.user.map(|user| template("user", user)).transpose()?;
        let adapter = self.adapter(key, wanted)?;
        let format = wanted.format.map(Format::name);
        let name = wanted.mapping.or(format).unwrap_or_default().into();
        Ok(Route { filter, device, user, name, adapter })
    }

    fn adapter(&self, key: &str, wanted: &Wanted<'_>) -> Result<Arc<dyn Adapter>, ConfigError> {
        let format_key = wanted.format_key;
        match (wanted.mapping, wanted.format) {
            (Some(mapping), None) => {
                for (name, value) in [("schema", wanted.schema), ("zone", wanted.zone)] {
                    if value.is_some() {
                        let problem = format!("is for sources with a {format_key}");
                        return Err(ConfigError::value(format!("{key}.{name}"), problem, "say it in the [[mapping]]"));
                    }
                }
                let found = self.mappings.get(mapping).cloned();
                let found = found.ok_or_else(|| {
                    let known: Vec<_> = self.mappings.keys().collect();
                    let problem = format!("no mapping {mapping:?}; there are {known:?}");
                    ConfigError::value(format!("{key}.mapping"), problem, "name a [[mapping]] of this file")
                })?;
                Ok(found)
            }
            (None, Some(format)) => {
                let zone = wanted.zone.map(|name| {
                    Zone::new(name, &zoneinfo).ok_or_else(|| {
                        let remedy = "write UTC, an offset like +02:00, an IANA name that this machine has, or a POSIX TZ string";
                        ConfigError::value(format!("{key}.zone"), format!("unknown zone {name:?}"), remedy)
                    })
                });
                let schema = wanted.schema.map(|text| {
                    let remedy = "the README of firmware-adapters lists them";
                    text.parse()
                        .map_err(|error: UnknownSchema| ConfigError::value(format!("{key}.schema"), error, remedy))
                });
                if schema.is_some() && !matches!(format, Format::OpenMhealth | Format::Auto) {
                    let problem = format!("is not for {}", format.name());
                    let remedy = "leave it out; it is for open_mhealth and auto";
                    return Err(ConfigError::value(format!("{key}.schema"), problem, remedy));
                }
                let (zone, schema) = (zone.transpose()?, schema.transpose()?);
                let options = Options { zone, schema, names: self.names.clone() };
                Ok(format.adapter(&options)?)
            }
            (None, None) => {
                let problem = format!("neither mapping nor {format_key}");
                Err(ConfigError::value(format!("{key}.mapping"), problem, "say how the messages are written"))
            }
            (Some(_), Some(_)) => {
                let problem = format!("both mapping and {format_key}");
                Err(ConfigError::value(
                    format!("{key}.{format_key}"),
                    problem,
                    "a source's messages have one or the other",
                ))
            }
        }
    }
}
