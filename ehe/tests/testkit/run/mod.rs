//! What a case asks for, done by this library. One procedure a function; README.md beside the files defines each.

mod evidence;
mod format;
mod keys;
pub(crate) mod ledger;
mod log;
mod read;
mod restored;
mod secrets;
mod vitals;

use serde_json::{Map, Value};

use crate::case::Case;

/// Why a case's input is refused.
#[derive(Debug)]
pub(crate) struct Fault {
    pub(crate) refusal: Option<u16>,
    pub(crate) why: String,
}

impl<E: std::error::Error> From<E> for Fault {
    fn from(error: E) -> Self {
        Self { refusal: None, why: error.to_string() }
    }
}

impl Fault {
    pub(crate) fn new(why: impl Into<String>) -> Self {
        Self { refusal: None, why: why.into() }
    }
}

/// What was computed, by name; also of what is refused, as far as it got.
pub(crate) type Facts = Map<String, Value>;

pub(crate) fn run(case: &Case) -> (Result<(), Fault>, Facts) {
    let mut facts = Facts::new();
    let (keys, input) = (&case.keys, &case.input);
    let outcome = match case.what.as_str() {
        "decode" => format::decode(input, &mut facts),
        "frame" => format::frame(input, &mut facts),
        "event" => format::event(input, &mut facts),
        "room_id" => format::room_id(input, &mut facts),
        "shard" => format::shard(input, &mut facts),
        "wrap_record" => format::wrap_record(input, &mut facts),
        "identity" => keys::identity(keys, input, &mut facts),
        "recovery_key" => keys::recovery_key(input, &mut facts),
        "signature" => keys::signature(input),
        "cose" => keys::cose(input, &mut facts),
        "run" => keys::run(input, &mut facts),
        "strand" => keys::strand(input),
        "seal" => secrets::seal(keys, input, &mut facts),
        "open" => secrets::open(keys, input, &mut facts),
        "unwrap" => secrets::unwrap(keys, input, &mut facts),
        "private" => secrets::private(keys, input, &mut facts),
        "ledger" => ledger::ledger(input, &mut facts),
        "follow" => ledger::follow(input, &mut facts).map(|_| ()),
        "read" => read::read(keys, input, &mut facts),
        "root" => log::root(input, &mut facts),
        "inclusion" => log::inclusion(input),
        "consistency" => log::consistency(input),
        "checkpoint" => log::checkpoint(input, &mut facts),
        "receipt" => log::receipt(input, &mut facts),
        "head" => log::head(input, &mut facts),
        "charter" => log::charter(input, &mut facts),
        "evidence" => evidence::evidence(input, &mut facts),
        "restoration" => restored::restoration(input, &mut facts),
        "vitals" => vitals::vitals(input, &mut facts),
        other => panic!("no procedure {other}"),
    };
    (outcome, facts)
}
