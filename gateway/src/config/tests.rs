use std::collections::{BTreeMap, BTreeSet};

use firmware_adapters::Format;

use super::*;

const EXAMPLE: &str = include_str!("../../gateway.example.toml");
/// Everything that is required, and nothing else.
const LEAST: &str = r#"
credentials_dir = "/c"
data_dir = "/d"
[alarm.heart_rate]
[[mqtt]]
[[mqtt.subscription]]
topic = "a"
device = "d"
mapping = "m"
[[replay]]
name = "r"
file = "f"
format = "csv"
device = "d"
mapping = "m"
[[assignment]]
device = "d"
room = "00112233445566778899aabbccddeeff"
[[senml]]
name = "hr"
unit = "beat/min"
[[mapping]]
name = "m"
[[mapping.value]]
path = "p"
vital = "heart_rate"
"#;

fn parse(text: &str) -> Result<Config, ConfigError> {
    Config::parse(text, Path::new("test.toml"))
}

/// One line of the example that gives a key: table, key, value, mark.
struct Line {
    table: String,
    key: String,
    value: toml::Value,
    commented: bool,
    mark: String,
}

fn lines() -> Vec<Line> {
    let mut table = String::new();
    let mut out = Vec::new();
    for text in EXAMPLE.lines() {
        let (commented, text) = match text.strip_prefix('#') {
            Some(rest) if !rest.starts_with(' ') => (true, rest),
            Some(_) => continue,
            None => (false, text),
        };
        let (code, mark) = text.rsplit_once(" # ").unwrap_or((text, ""));
        let code = code.trim();
        if code.starts_with('[') {
            table = code.trim_matches(['[', ']']).to_owned();
        } else if let Some((key, value)) = code.split_once(" = ") {
            let value: toml::Table = toml::from_str(&format!("v = {value}")).unwrap();
            out.push(Line {
                table: table.clone(),
                key: key.to_owned(),
                value: value["v"].clone(),
                commented,
                mark: mark.trim().to_owned(),
            });
        }
    }
    out
}

/// Every option of a configuration, by table; arrays of tables stand for their first element.
fn options(value: &toml::Value, table: &str, out: &mut BTreeMap<(String, String), toml::Value>) {
    for (key, value) in value.as_table().unwrap() {
        let inner = if table.is_empty() { key.clone() } else { format!("{table}.{key}") };
        match value {
            toml::Value::Table(_) => options(value, &inner, out),
            toml::Value::Array(all) if all.first().is_some_and(toml::Value::is_table) => options(&all[0], &inner, out),
            _ => {
                out.insert((table.to_owned(), key.clone()), value.clone());
            }
        }
    }
}

fn serialized(config: &Config) -> BTreeMap<(String, String), toml::Value> {
    let mut out = BTreeMap::new();
    options(&toml::Value::try_from(config).unwrap(), "", &mut out);
    out
}

#[test]
fn the_example_is_a_configuration_whose_values_fit_together() {
    let checked = parse(EXAMPLE).unwrap().check().unwrap();
    assert_eq!(checked.routes.len(), 1);
    assert_eq!(checked.routes.values().map(Vec::len).sum::<usize>(), 6);
    assert_eq!(checked.config.assignment.len(), 2);
    // Also with everything that is commented out.
    let all: String = EXAMPLE
        .lines()
        .map(|line| line.strip_prefix('#').filter(|rest| !rest.starts_with(' ')).unwrap_or(line).to_owned() + "\n")
        .collect();
    let checked = parse(&all).unwrap_or_else(|error| panic!("{error}"));
    assert!(checked.alliance.is_some() && checked.report_confirmations.is_some());
    assert!(checked.mqtt[0].tls.is_some() && checked.replay.len() == 1 && checked.alarm.len() == 1);
}

#[test]
fn the_example_shows_every_option_and_says_of_each_what_holds_without_it() {
    let mut full = parse(LEAST).unwrap();
    full.alliance = Some(AllianceId([1; 32]));
    full.report_confirmations = Some("/r".into());
    let threshold = Threshold { low: Some(1.into()), high: Some(2.into()) };
    full.alarm.insert(Vital::HeartRate, threshold);
    full.mqtt[0].username = Some("u".into());
    full.mqtt[0].password_file = Some("/p".into());
    let file = || Some("/x".into());
    full.mqtt[0].tls = Some(Tls { ca_file: "/ca".into(), client_cert_file: file(), client_key_file: file() });
    let subscription = &mut full.mqtt[0].subscription[0];
    (subscription.user, subscription.format) = (Some("1".into()), Some(Format::Auto));
    (subscription.schema, subscription.zone) = (Some("s".into()), Some("z".into()));
    let replay = &mut full.replay[0];
    (replay.user, replay.message) = (Some("1".into()), Some(Format::Auto));
    (replay.schema, replay.zone) = (Some("s".into()), Some("z".into()));
    (full.senml[0].vital, full.senml[0].ucum) = (Some("heart_rate".into()), Some("/min".into()));
    full.replay[0].time_column = Some("t".into());
    full.assignment[0].user = Some("1".into());
    let all = serialized(&full);
    let defaults = serialized(&parse(LEAST).unwrap());
    let required: BTreeSet<(&str, &str)> = BTreeSet::from([
        ("", "credentials_dir"),
        ("", "data_dir"),
        ("mqtt.subscription", "topic"),
        ("mqtt.subscription", "device"),
        ("replay", "name"),
        ("replay", "file"),
        ("replay", "format"),
        ("replay", "device"),
        ("senml", "name"),
        ("senml", "unit"),
        ("assignment", "device"),
        ("assignment", "room"),
    ]);

    let mut shown = BTreeSet::new();
    for line in lines() {
        let at = (line.table.clone(), line.key.clone());
        let name = format!("{}.{}", line.table, line.key);
        if line.table.starts_with("mapping") {
            continue; // its options are the adapters' own; parsing judges them
        }
        assert!(all.contains_key(&at), "{name} is no option");
        let default = defaults.get(&at);
        match line.mark.as_str() {
            "default" => assert_eq!(default, Some(&line.value), "{name}: the default is another"),
            "unset" => assert_eq!(default, None, "{name} has a default"),
            "required" => assert!(required.contains(&(&*line.table, &*line.key)), "{name} is not required"),
            "example" => {}
            other => panic!("{name}: says {other:?} of itself"),
        }
        if line.mark == "unset" && !line.commented {
            // An example of an optional key beside its required neighbours.
            assert!(
                ["username", "password_file", "user", "mapping", "format", "vital"].contains(&line.key.as_str()),
                "{name} should be commented"
            );
        }
        shown.insert(at);
    }
    let missing: Vec<_> = all.keys().filter(|at| !shown.contains(*at)).collect();
    assert!(missing.is_empty(), "the example lacks {missing:?}");
}

#[test]
fn an_unknown_or_missing_key_is_named() {
    let message = |text: &str| parse(text).map(drop).unwrap_err().to_string();
    assert!(message("").contains("credentials_dir"));
    assert!(message(&format!("wndow = 1\n{LEAST}")).contains("wndow"));
    let message = message(&LEAST.replace("topic = \"a\"", "topics = \"a\""));
    assert!(message.contains("topic") && message.contains("gateway.example.toml"), "{message}");
}

#[test]
fn a_value_that_cannot_be_is_refused_with_its_key_and_a_remedy() {
    let cases: &[(&str, &str, &str)] = &[
        ("topic = \"a\"", "topic = \"a/#/b\"", "mqtt[0].subscription[0].topic"),
        ("topic = \"a\"\ndevice = \"d\"", "topic = \"a\"\ndevice = \"{1}\"", "mqtt[0].subscription[0].device"),
        ("topic = \"a\"\ndevice = \"d\"", "topic = \"a\"\ndevice = \"\"", "mqtt[0].subscription[0].device"),
        (
            "device = \"d\"\nmapping = \"m\"\n[[replay]]",
            "device = \"d\"\nmapping = \"x\"\n[[replay]]",
            "mqtt[0].subscription[0].mapping",
        ),
        (
            "[[replay]]",
            "[[mqtt.subscription]]\ntopic = \"#\"\ndevice = \"d\"\nmapping = \"m\"\n[[replay]]",
            "mqtt[0].subscription[1].topic",
        ),
        ("[[mqtt]]", "[[mqtt]]\nreceive_maximum = 0", "mqtt[0].receive_maximum"),
        ("[[mqtt]]", "[[mqtt]]\nsession_expiry_s = 0", "mqtt[0].session_expiry_s"),
        ("[[mqtt]]", "[[mqtt]]\nusername = \"u\"", "mqtt[0].username"),
        ("[[mqtt]]", "[[mqtt]]\nname = \"r\"", "replay[0].name"),
        ("name = \"r\"", "name = \"r\"\nspeed = -1.0", "replay[0].speed"),
        (
            "[[assignment]]",
            "[[assignment]]\ndevice = \"d\"\nroom = \"00112233445566778899aabbccddeeff\"\n[[assignment]]",
            "assignment[1]",
        ),
        ("mapping = \"m\"\n[[replay]]", "[[replay]]", "mqtt[0].subscription[0].mapping"),
        (
            "mapping = \"m\"\n[[replay]]",
            "mapping = \"m\"\nformat = \"fhir\"\n[[replay]]",
            "mqtt[0].subscription[0].format",
        ),
        (
            "mapping = \"m\"\n[[replay]]",
            "format = \"open_mhealth\"\nschema = \"omh:heart-rate\"\n[[replay]]",
            "mqtt[0].subscription[0].schema",
        ),
        (
            "mapping = \"m\"\n[[replay]]",
            "format = \"fhir\"\nschema = \"omh:heart-rate:2.0\"\n[[replay]]",
            "mqtt[0].subscription[0].schema",
        ),
        ("mapping = \"m\"\n[[replay]]", "mapping = \"m\"\nzone = \"UTC\"\n[[replay]]", "mqtt[0].subscription[0].zone"),
        (
            "mapping = \"m\"\n[[replay]]",
            "format = \"fhir\"\nzone = \"../etc/passwd\"\n[[replay]]",
            "mqtt[0].subscription[0].zone",
        ),
        ("mapping = \"m\"\n[[assignment]]", "[[assignment]]", "replay[0].mapping"),
        ("unit = \"beat/min\"", "unit = \"beat/min\"\nvital = \"heartrate\"", "senml[0]"),
        ("unit = \"beat/min\"", "unit = \"Cel\"\nvital = \"heart_rate\"", "senml[0]"),
        ("[[mqtt]]", "[spool]\nheld_max_mib = 2000\n[[mqtt]]", "spool.held_max_mib"),
        ("[[mqtt]]", "[window]\nreadings_max = 5000\n[[mqtt]]", "window.readings_max"),
    ];
    for (from, to, at) in cases {
        assert!(LEAST.contains(from), "{from}");
        match parse(&LEAST.replacen(from, to, 1)).unwrap_or_else(|e| panic!("{at}: {e}")).check() {
            Err(ConfigError::Value { key, remedy, .. }) => assert!(key == *at && !remedy.is_empty(), "{key} for {at}"),
            Err(other) => panic!("{at}: {other}"),
            Ok(_) => panic!("{at}: accepted"),
        }
    }
}

#[test]
fn a_mapping_that_cannot_be_is_refused() {
    let checked = parse(&LEAST.replace("vital = \"heart_rate\"", "vital = \"heartrate\"")).unwrap().check();
    assert!(matches!(checked, Err(ConfigError::Mapping(_))));
}

#[test]
fn the_spool_s_writer_knows_what_the_most_careful_broker_sends_without_acknowledgements() {
    let limits =
        |brokers: &str| parse(&format!("credentials_dir = '/c'\ndata_dir = '/d'\n{brokers}")).unwrap().spool_limits();
    assert_eq!(limits("").unacknowledged_max, usize::MAX);
    assert_eq!(limits("[[mqtt]]\n[[mqtt]]\nreceive_maximum = 7\n[[mqtt]]\nreceive_maximum = 9").unacknowledged_max, 7);
}
