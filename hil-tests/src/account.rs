//! The demo's account: what was published against what was read back, from the two files alone.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use crate::journal::{Entry, Line};

/// The last line of a round. Counts are readings.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Account {
    /// PUBACKed by the broker.
    pub published: usize,
    /// Of these, proven to be in the ledger by a receipt that the gateway verified.
    pub confirmed: usize,
    /// Distinct readings in `read.jsonl`.
    pub read_back: usize,
    /// Published and not read back.
    pub lost: usize,
    /// Lines of `read.jsonl` beyond the first of each reading.
    pub duplicates: usize,
    /// Refusals that clients received.
    pub refused_reads: usize,
    /// Access events in the rooms' ledgers.
    pub audited_reads: usize,
    /// Published to receipt verified, median.
    pub p50_ms: u64,
    /// The same, 99th percentile.
    pub p99_ms: u64,
    /// Nodes of the alliance, one for each hospital.
    pub nodes: usize,
    /// After the node that led was killed, until the others named another leader of every shard. Absent where there was no other.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub without_leader_ms: Option<u64>,
}

/// What the two files say.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Compared {
    /// PUBACKed readings.
    pub published: BTreeSet<Entry>,
    /// When each reading was sent, PUBACKed or not; Unix milliseconds.
    pub sent_ms: BTreeMap<Entry, u64>,
    /// Readings read back, and how often.
    pub read: BTreeMap<Entry, usize>,
}

impl Compared {
    /// Reads both sides.
    pub fn new(published: Vec<Line>, read: Vec<Line>) -> Self {
        let mut compared = Self::default();
        for line in published {
            match (line.is_acked(), line.sent_ms()) {
                (true, _) => {
                    compared.published.insert(line.entry());
                }
                (false, Some(ms)) => {
                    compared.sent_ms.insert(line.entry(), ms);
                }
                (false, None) => {}
            }
        }
        for line in read {
            *compared.read.entry(line.entry()).or_default() += 1;
        }
        compared
    }

    /// Published and not read back.
    pub fn lost(&self) -> impl Iterator<Item = &Entry> {
        self.published.iter().filter(|entry| !self.read.contains_key(*entry))
    }

    /// Read back and never PUBACKed. Not necessarily wrong: the broker may have taken what it could not acknowledge.
    pub fn unannounced(&self) -> impl Iterator<Item = &Entry> {
        self.read.keys().filter(|entry| !self.published.contains(*entry))
    }

    /// Lines beyond the first of each reading.
    pub fn duplicates(&self) -> usize {
        self.read.values().map(|times| times - 1).sum()
    }
}

/// The value below which `percent` of the sorted values lie (nearest rank).
pub fn percentile(sorted: &[u64], percent: usize) -> u64 {
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted.get(rank - 1).copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::Step;

    fn line(value: &str, acked: bool) -> Line {
        let step = if acked { Step::Acked } else { Step::Sending(1) };
        let entry = Entry {
            patient: "p".into(),
            device: "d".into(),
            vital: "body_temperature".into(),
            value: value.into(),
            unit: "Cel".into(),
            time: "2026-01-01T00:00:00.000Z".into(),
        };
        Line::of(&entry, step).unwrap()
    }

    #[test]
    fn a_lost_and_a_doubled_reading_are_seen() {
        let compared = Compared::new(
            vec![line("36.40", false), line("36.40", true), line("36.5", true), line("36.6", false)],
            vec![line("36.40", false), line("36.40", false)],
        );
        assert_eq!(compared.published.len(), 2);
        assert_eq!(compared.lost().map(|e| e.value.as_str()).collect::<Vec<_>>(), ["36.5"]);
        assert_eq!(compared.duplicates(), 1);
    }

    #[test]
    fn a_reading_with_other_digits_is_another_reading() {
        let compared = Compared::new(vec![line("36.40", true)], vec![line("36.4", false)]);
        assert_eq!((compared.lost().count(), compared.unannounced().count()), (1, 1));
    }

    #[test]
    fn percentiles_are_by_nearest_rank() {
        let values: Vec<u64> = (1..=200).collect();
        assert_eq!((percentile(&values, 50), percentile(&values, 99), percentile(&[], 99)), (100, 198, 0));
        assert_eq!(percentile(&[7], 50), 7);
    }
}
