//! A case of the kit: one JSON file.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// What a file of the kit holds (README.md beside the files).
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Case {
    pub(crate) kit: u32,
    pub(crate) rule: String,
    pub(crate) title: String,
    pub(crate) what: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) source: Option<String>,
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub(crate) keys: Value,
    pub(crate) input: Value,
    pub(crate) verdict: Verdict,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) refusal: Option<u16>,
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub(crate) expect: Value,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Verdict {
    Valid,
    Invalid,
}

/// Where the files lie.
pub(crate) fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("testkit")
}

/// Every file of the kit, by its path below [`folder`].
pub(crate) fn files() -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(folder()).unwrap() {
        let directory = entry.unwrap();
        if !directory.file_type().unwrap().is_dir() {
            continue;
        }
        for entry in std::fs::read_dir(directory.path()).unwrap() {
            let path = entry.unwrap().path();
            let name = path.strip_prefix(folder()).unwrap().to_str().unwrap().replace('\\', "/");
            found.insert(name, std::fs::read_to_string(&path).unwrap());
        }
    }
    found
}

/// How a file is written.
pub(crate) fn to_text(case: &Case) -> String {
    serde_json::to_string_pretty(case).unwrap() + "\n"
}
