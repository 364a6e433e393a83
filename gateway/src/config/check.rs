//! From what the file says to what the program runs on: every value judged once, at the start.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Config, ConfigError, Route, Router};
use crate::alarm::Thresholds;
use crate::person::Assignments;

/// A configuration whose values fit together.
#[derive(Clone)]
pub struct Checked {
    /// As it was written.
    pub config: Config,
    /// Routes of each source, by its name.
    pub routes: BTreeMap<Arc<str>, Vec<Route>>,
    /// Who owns which device.
    pub assignments: Assignments,
    /// What is worth an alarm.
    pub thresholds: Thresholds,
}

impl Config {
    /// Judges the values.
    pub fn check(self) -> Result<Checked, ConfigError> {
        self.check_numbers()?;
        let router = Router::new(&self.mapping, &self.senml)?;
        let mut routes: BTreeMap<Arc<str>, Vec<Route>> = BTreeMap::new();
        for (index, source) in self.mqtt.iter().enumerate() {
            let key = format!("mqtt[{index}]");
            let made = source
                .subscription
                .iter()
                .enumerate()
                .map(|(number, subscription)| {
                    router.route(&format!("{key}.subscription[{number}]"), &subscription.into())
                })
                .collect::<Result<Vec<_>, _>>()?;
            if made.is_empty() {
                let remedy = "add [[mqtt.subscription]] with topic, device, and mapping or format";
                return Err(ConfigError::value(format!("{key}.subscription"), "none", remedy));
            }
            for (number, one) in made.iter().enumerate() {
                if made.iter().take(number).any(|other| other.filter.overlaps(&one.filter)) {
                    let key = format!("{key}.subscription[{number}].topic");
                    let problem = "overlaps another filter of this broker, so one message could count twice";
                    return Err(ConfigError::value(key, problem, "write filters that no topic matches twice"));
                }
            }
            put(&mut routes, &key, &source.name, made)?;
        }
        for (index, source) in self.replay.iter().enumerate() {
            let key = format!("replay[{index}]");
            let made = router.route(&key, &source.into())?;
            put(&mut routes, &key, &source.name, vec![made])?;
        }
        let mut assignments = Assignments::default();
        for (index, one) in self.assignment.iter().enumerate() {
            assignments.assign(one.device.clone(), one.user.clone(), one.room).map_err(|error| {
                ConfigError::value(
                    format!("assignment[{index}]"),
                    error,
                    "assign each device (or each of its slots) once",
                )
            })?;
        }
        let thresholds = Thresholds::new(&self.alarm);
        Ok(Checked { config: self, routes, assignments, thresholds })
    }

    fn check_numbers(&self) -> Result<(), ConfigError> {
        let range = |key: String, value: u64, allowed: std::ops::RangeInclusive<u64>, remedy| {
            let problem = format!("{value} is not between {} and {}", allowed.start(), allowed.end());
            if allowed.contains(&value) { Ok(()) } else { Err(ConfigError::value(key, problem, remedy)) }
        };
        let readings_max = ehe::limits::READINGS_PER_BODY_MAX as u64;
        range("window.window_ms".into(), self.window.window_ms, 0..=3_600_000, "15000 is usual")?;
        range("window.readings_max".into(), self.window.readings_max, 1..=readings_max, "an event holds no more")?;
        let spool = &self.spool;
        range("spool.max_mib".into(), spool.max_mib, 1..=1_048_576, "1024 is usual")?;
        range("spool.room_max_percent".into(), spool.room_max_percent, 1..=100, "25 is usual")?;
        range("spool.held_max_mib".into(), spool.held_max_mib, 0..=spool.max_mib, "it is a share of max_mib")?;
        range(
            "spool.quarantine_max_mib".into(),
            spool.quarantine_max_mib,
            0..=spool.max_mib,
            "it is a share of max_mib",
        )?;
        range("spool.cache_mib".into(), spool.cache_mib, 1..=4096, "16 is usual")?;
        range("spool.gather_ms".into(), spool.gather_ms, 0..=1_000, "100 is usual")?;
        range("spool.retry_min_ms".into(), spool.retry_min_ms, 1..=spool.retry_max_ms, "not above retry_max_ms")?;
        range("spool.retry_max_ms".into(), spool.retry_max_ms, 1..=600_000, "10000 is usual")?;
        let uplink = &self.uplink;
        range("uplink.run_events_max".into(), uplink.run_events_max as u64, 1..=256, "a run holds no more")?;
        range("uplink.rooms_in_parallel".into(), uplink.rooms_in_parallel as u64, 1..=256, "8 is usual")?;
        range("uplink.credentials_reload_s".into(), uplink.credentials_reload_s, 1..=86_400, "60 is usual")?;
        range(
            "uplink.backoff_min_ms".into(),
            uplink.backoff_min_ms,
            1..=uplink.backoff_max_ms,
            "not above backoff_max_ms",
        )?;
        for (index, source) in self.mqtt.iter().enumerate() {
            let key = |name: &str| format!("mqtt[{index}].{name}");
            range(key("port"), u64::from(source.port), 1..=65_535, "1883 is usual, with TLS 8883")?;
            range(key("receive_maximum"), u64::from(source.receive_maximum), 1..=1000, "100 is usual")?;
            range(
                key("session_expiry_s"),
                u64::from(source.session_expiry_s),
                1..=u64::from(u32::MAX),
                "without a session, what arrives while the gateway is away is lost",
            )?;
            range(key("keep_alive_s"), u64::from(source.keep_alive_s), 1..=65_535, "30 is usual")?;
            range(key("max_packet_bytes"), u64::from(source.max_packet_bytes), 256..=1_048_576, "65536 is usual")?;
            range(key("backoff_min_ms"), source.backoff_min_ms, 1..=source.backoff_max_ms, "not above backoff_max_ms")?;
            if source.client_id.is_empty() {
                return Err(ConfigError::value(
                    key("client_id"),
                    "empty",
                    "the broker keeps the session under this name",
                ));
            }
            if source.password_file.is_some() != source.username.is_some() {
                return Err(ConfigError::value(
                    key("username"),
                    "without password_file, or the reverse",
                    "give both or neither",
                ));
            }
            if source.tls.as_ref().is_some_and(|t| t.client_cert_file.is_some() != t.client_key_file.is_some()) {
                return Err(ConfigError::value(
                    key("tls.client_cert_file"),
                    "without its key, or the reverse",
                    "give both or neither",
                ));
            }
        }
        for (index, source) in self.replay.iter().enumerate() {
            if !(source.speed.is_finite() && source.speed >= 0.0) {
                let key = format!("replay[{index}].speed");
                return Err(ConfigError::value(key, source.speed, "1 is the original pace, 0 as fast as possible"));
            }
        }
        Ok(())
    }
}

fn put(
    routes: &mut BTreeMap<Arc<str>, Vec<Route>>,
    key: &str,
    name: &str,
    made: Vec<Route>,
) -> Result<(), ConfigError> {
    if name.is_empty() || name.len() > 64 {
        return Err(ConfigError::value(format!("{key}.name"), "empty or longer than 64 bytes", "give it a short name"));
    }
    if routes.insert(name.into(), made).is_some() {
        return Err(ConfigError::value(format!("{key}.name"), "used twice", "give each source a name of its own"));
    }
    Ok(())
}
