//! From records as they were sent to resolved records (RFC 8428 section 4.6), whatever the encoding.

use ehe::decimal::{Decimal, DecimalError};
use serde_json::{Map, Value};

use super::{Number, Record};
use crate::error::{AdapterError, shortened};
use crate::limits::{SENML_NAME_MAX_BYTES, SENML_UNIT_MAX_BYTES};
use crate::receipt::ReceiptContext;

/// The version of RFC 8428; what says nothing is of it.
const VERSION: u64 = 10;
/// As a number that was sent.
const VERSION_NEWEST: i32 = 10;
/// Times from here on are absolute, smaller ones count from now: 2^28 seconds.
const ABSOLUTE_FROM: Decimal = Decimal::new(268_435_456, 0);

/// A record as it was sent.
#[derive(Debug, Default)]
pub(super) struct Raw {
    pub(super) bn: Option<String>,
    pub(super) bt: Option<Number>,
    pub(super) bu: Option<String>,
    pub(super) bv: Option<Number>,
    pub(super) bs: Option<Number>,
    pub(super) bver: Option<Number>,
    pub(super) n: Option<String>,
    pub(super) u: Option<String>,
    pub(super) v: Option<Number>,
    pub(super) vs: Option<String>,
    pub(super) vb: Option<bool>,
    pub(super) vd: Option<String>,
    pub(super) s: Option<Number>,
    pub(super) t: Option<Number>,
    pub(super) ut: Option<Number>,
    pub(super) more: Map<String, Value>,
}

impl Raw {
    /// Whether it is a record of its own, not base fields alone.
    fn is_record(&self) -> bool {
        self.n.is_some()
            || self.u.is_some()
            || self.v.is_some()
            || self.vs.is_some()
            || self.vb.is_some()
            || self.vd.is_some()
            || self.s.is_some()
            || self.t.is_some()
            || self.ut.is_some()
            || !self.more.is_empty()
    }
}

/// Base fields in force, and what was resolved with them.
pub(super) struct Resolver {
    now: Decimal,
    seen: usize,
    name: String,
    time: Option<Number>,
    unit: Option<String>,
    value: Option<Number>,
    sum: Option<Number>,
    version: Option<u64>,
    resolved: Vec<Record>,
}

impl Resolver {
    pub(super) fn new(receipt: &ReceiptContext) -> Self {
        let received = i64::try_from(receipt.received.0).unwrap_or(i64::MAX);
        Self {
            now: Decimal::new(received, -3),
            seen: 0,
            name: String::new(),
            time: None,
            unit: None,
            value: None,
            sum: None,
            version: None,
            resolved: Vec::new(),
        }
    }

    /// Takes the next record of the pack.
    pub(super) fn push(&mut self, raw: Raw) -> Result<(), AdapterError> {
        let index = self.seen;
        self.seen += 1;
        let invalid = |label: &str, problem: String| AdapterError::Invalid { path: at(index, label), problem };
        let number =
            |label: &'static str| move |problem: DecimalError| AdapterError::Number { path: at(index, label), problem };
        self.version(index, raw.bver)?;
        let is_record = raw.is_record();
        if let Some(name) = raw.bn {
            if name.len() > SENML_NAME_MAX_BYTES {
                return Err(invalid("bn", format!("a name of more than {SENML_NAME_MAX_BYTES} bytes")));
            }
            self.name = name;
        }
        for (label, unit) in [("bu", &raw.bu), ("u", &raw.u)] {
            if unit.as_ref().is_some_and(|unit| unit.len() > SENML_UNIT_MAX_BYTES) {
                return Err(invalid(label, format!("a unit of more than {SENML_UNIT_MAX_BYTES} bytes")));
            }
        }
        self.unit = raw.bu.or(self.unit.take());
        self.time = raw.bt.or(self.time);
        self.value = raw.bv.or(self.value);
        self.sum = raw.bs.or(self.sum);
        if !is_record {
            return Ok(());
        }
        let n = joined(&self.name, raw.n.as_deref().unwrap_or("")).map_err(|problem| invalid("n", problem))?;
        let values = usize::from(raw.v.is_some())
            + usize::from(raw.vs.is_some())
            + usize::from(raw.vb.is_some())
            + usize::from(raw.vd.is_some());
        if values > 1 {
            return Err(invalid("v", "a record has one value".to_owned()));
        }
        // Of base value and value the one that is missing counts as zero; a text, a truth, bytes or a sum alone has no base.
        let v = match (raw.v, self.value) {
            (Some(value), Some(base)) => Some(base.plus(value).map_err(number("v"))?),
            (Some(value), None) => Some(value),
            (None, base) if values == 0 && raw.s.is_none() => base,
            (None, _) => None,
        };
        let s = match (raw.s, self.sum) {
            (Some(sum), Some(base)) => Some(base.plus(sum).map_err(number("s"))?),
            (sum, base) => sum.or(base),
        };
        if v.is_none() && values == 0 && s.is_none() {
            return Err(AdapterError::Missing { path: at(index, "v") });
        }
        let (t, relative) = self.instant(raw.t).map_err(number("t"))?;
        self.resolved.push(Record {
            n,
            u: raw.u.or_else(|| self.unit.clone()),
            t,
            v,
            vs: raw.vs,
            vb: raw.vb,
            vd: raw.vd,
            s,
            ut: raw.ut,
            bver: self.version.filter(|version| *version != VERSION),
            more: raw.more,
            relative,
        });
        Ok(())
    }

    /// The resolved records of a pack that has ended.
    pub(super) fn finish(self) -> Result<Vec<Record>, AdapterError> {
        if self.seen == 0 {
            let problem = "a pack has at least one record".to_owned();
            return Err(AdapterError::Invalid { path: "[0]".to_owned(), problem });
        }
        Ok(self.resolved)
    }

    /// One version for the whole pack, and not above ours.
    fn version(&mut self, index: usize, sent: Option<Number>) -> Result<(), AdapterError> {
        let whole = match sent {
            None => return Ok(()),
            Some(Number::Finite(version)) if version > Decimal::from(VERSION_NEWEST) => {
                let what = format!("SenML version {version}");
                return Err(AdapterError::Unsupported { what, remedy: "send version 10 (RFC 8428)" });
            }
            Some(Number::Finite(version)) => version.floor().filter(|whole| Decimal::from(*whole) == version),
            Some(Number::Not(_)) => None,
        };
        let invalid = |problem: &str| AdapterError::Invalid { path: at(index, "bver"), problem: problem.to_owned() };
        let sent = match whole.map(u64::try_from) {
            Some(Ok(version @ 1..)) => version,
            _ => return Err(invalid("a version is a whole number from 1 on")),
        };
        let before = if index == 0 { sent } else { self.version.unwrap_or(VERSION) };
        if before != sent {
            return Err(invalid("all records of a pack have the same version"));
        }
        self.version = Some(sent);
        Ok(())
    }

    /// The absolute time of a record, and what it was relative to now.
    fn instant(&self, sent: Option<Number>) -> Result<(Option<Decimal>, Option<Decimal>), DecimalError> {
        let zero = Number::Finite(Decimal::ZERO);
        match self.time.unwrap_or(zero).plus(sent.unwrap_or(zero))? {
            Number::Not(_) => Ok((None, None)),
            Number::Finite(time) if time >= ABSOLUTE_FROM => Ok((Some(time), None)),
            Number::Finite(time) => Ok((Some(self.now.checked_add(time)?), Some(time))),
        }
    }
}

/// Base name and name (section 4.5.1): letters, digits and `-:./_`, a letter or digit first.
fn joined(base: &str, name: &str) -> Result<String, String> {
    if base.len() + name.len() > SENML_NAME_MAX_BYTES {
        return Err(format!("a name of more than {SENML_NAME_MAX_BYTES} bytes"));
    }
    let joined = format!("{base}{name}");
    if !joined.starts_with(|c: char| c.is_ascii_alphanumeric()) {
        return Err("a name begins with a letter or digit".to_owned());
    }
    match joined.chars().find(|c| !c.is_ascii_alphanumeric() && !matches!(c, '-' | ':' | '.' | '/' | '_')) {
        Some(other) => Err(format!("{other:?} in the name {:?}", shortened(&joined))),
        None => Ok(joined),
    }
}

/// Where a label stands.
pub(super) fn at(index: usize, label: &str) -> String {
    format!("[{index}].{}", shortened(label))
}

/// The error for a label that RFC 8428 does not have and that its sender says must be understood.
pub(super) fn must_understand(label: &str) -> Option<AdapterError> {
    label.ends_with('_').then(|| AdapterError::Unsupported {
        what: format!("the SenML label {:?}", shortened(label)),
        remedy: "it ends in \"_\", so its records mean something else without it",
    })
}
