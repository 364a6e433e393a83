//! What vendors' clouds answer, by mappings of this crate's own: `vendor/*.toml` beside this file, in the language that a
//! gateway's configuration has too. Adding a vendor is one file and one line here.

use jiff::tz::TimeZone;

use super::config::{ConfigError, ConfigProblem, MappingConfig};
use super::flat::Mapping;

/// A vendor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Vendor {
    /// Fitbit Web API.
    Fitbit,
    /// iHealth Open API.
    Ihealth,
    /// Withings API.
    Withings,
}

impl Vendor {
    /// Every vendor.
    pub const ALL: &[Self] = &[Self::Fitbit, Self::Ihealth, Self::Withings];

    /// Its name, and its mapping as it stands in the file.
    const fn file(self) -> (&'static str, &'static str) {
        match self {
            Self::Fitbit => ("fitbit", include_str!("vendor/fitbit.toml")),
            Self::Ihealth => ("ihealth", include_str!("vendor/ihealth.toml")),
            Self::Withings => ("withings", include_str!("vendor/withings.toml")),
        }
    }

    /// Its mapping; `zone` is assumed for times without one.
    ///
    /// # Errors
    /// The file is broken.
    pub fn mapping(self, zone: Option<&TimeZone>) -> Result<Mapping, ConfigError> {
        let (name, text) = self.file();
        let config: MappingConfig = toml::from_str(text).map_err(|error| ConfigError {
            mapping: name.to_owned(),
            key: format!("vendor/{name}.toml"),
            problem: ConfigProblem::Syntax(error.to_string()),
        })?;
        Ok(Mapping::new(&config, &|_| None)?.of_document(zone))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_vendor_has_a_mapping_that_can_be_under_its_own_name() {
        for vendor in Vendor::ALL {
            let mapping = vendor.mapping(None).unwrap_or_else(|error| panic!("{error}"));
            assert_eq!(mapping.name(), vendor.file().0);
        }
    }
}
