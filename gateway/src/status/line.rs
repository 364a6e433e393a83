//! The status in one line, for systemd (`systemctl status`), and whose fault is what: a device's, the operator's, a patient's to decide, a
//! node's, or this program's own.

use std::fmt::Write as _;

use ehe::charter::RULES_KNOWN;
use serde::Serialize;

use super::{Counts, Status};
use crate::spool::SpoolStatus;
use crate::uplink::UplinkStatus;

/// What went wrong since the start, by who can mend it. The log has each with its remedy.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Faults {
    /// Messages of which no reading could be made: the device, or who publishes for it.
    pub sender: u64,
    /// Disk, broker, certificates, configuration: who runs this gateway.
    pub operator: u64,
    /// Windows that could not be sealed, readings dropped for it: the patient grants, or the assignment is wrong.
    pub patient: u64,
    /// Exchanges that failed, proofs that did not verify: the storage nodes, or the way to them.
    pub node: u64,
    /// To be reported to us.
    pub program: u64,
}

/// Kinds of rejected messages that say more of the configuration than of the sender.
const OF_THE_OPERATOR: [&str; 1] = ["no_route"];
/// Kinds that no message should be able to bring about.
const OF_THE_PROGRAM: [&str; 1] = ["body"];

impl Faults {
    /// Adds them up.
    pub fn of(counts: &Counts, spool: &SpoolStatus, uplink: &UplinkStatus) -> Self {
        let rejected = |kinds: &[&str]| kinds.iter().filter_map(|kind| counts.rejected.get(kind)).sum::<u64>();
        let (operator, program) = (rejected(&OF_THE_OPERATOR), rejected(&OF_THE_PROGRAM));
        let broker: u64 = counts.sources.values().map(|s| s.disconnects + s.sessions_lost + s.dropped_by_broker).sum();
        Self {
            sender: counts.rejected.values().sum::<u64>() - operator - program,
            operator: operator + broker + spool.faults + spool.totals.broken_rows,
            patient: counts.holds + counts.readings_thinned,
            node: uplink.failures + uplink.proofs_refused,
            program,
        }
    }
}

const MIB: u64 = 1024 * 1024;

/// What a technician wants to know first; no names, no values.
pub fn line(status: &Status) -> String {
    let spool = &status.spool;
    let mut out = match spool.fault {
        Some(fault) => format!("NOT acknowledging: {}", fault.remedy()),
        None if spool.full => "NOT acknowledging: the spool is full until receipts make room".to_owned(),
        None => "acknowledging".to_owned(),
    };
    let sources = &status.counts.sources;
    let connected = sources.values().filter(|source| source.connected).count();
    let waiting = (spool.totals.bytes() / MIB, spool.max_bytes / MIB);
    let nodes = status.uplink.connected_nodes;
    // Writing to a text does not fail.
    let _ = write!(
        out,
        "; sources {connected} of {}; spool {} of {} MiB; nodes {nodes}",
        sources.len(),
        waiting.0,
        waiting.1
    );
    let Faults { sender, operator, patient, node, program } = status.faults;
    let _ = write!(
        out,
        "; faults: devices {sender}, operator {operator}, patients {patient}, nodes {node}, program {program}"
    );
    if let Some(rules) = status.uplink.later_rules {
        let _ = write!(
            out,
            "; OLDER than the alliance's rules (version {rules}, this program knows version {RULES_KNOWN}): install a later one; it goes on sending"
        );
    }
    out
}

#[cfg(test)]
mod tests {
    use ehe::time::UnixMs;

    use super::*;
    use crate::spool::Fault;
    use crate::status::SourceCounts;
    use crate::status::run_lock::Run;

    fn status(fault: Option<Fault>, full: bool) -> Status {
        let mut counts = Counts { holds: 3, readings_thinned: 4, ..Counts::default() };
        counts.rejected.extend([("syntax", 5), ("no_route", 6), ("body", 7)]);
        let source = SourceCounts { connected: true, disconnects: 8, ..SourceCounts::default() };
        counts.sources.insert("mqtt".into(), source);
        let spool = SpoolStatus { fault, full, faults: 1, max_bytes: 2 * MIB, ..SpoolStatus::default() };
        let uplink = UplinkStatus { failures: 9, proofs_refused: 1, ..UplinkStatus::default() };
        let faults = Faults::of(&counts, &spool, &uplink);
        Status {
            written_ms: UnixMs(0),
            run: Run { pid: 1, started_ms: UnixMs(0) },
            counts,
            spool,
            uplink,
            faults,
            held: Vec::new(),
        }
    }

    #[test]
    fn each_fault_is_counted_for_who_can_mend_it_and_for_nobody_else() {
        let Faults { sender, operator, patient, node, program } = status(None, false).faults;
        assert_eq!((sender, operator, patient, node, program), (5, 6 + 8 + 1, 7, 10, 7));
    }

    #[test]
    fn the_line_says_first_whether_readings_are_taken_and_else_what_to_do() {
        assert!(line(&status(None, false)).starts_with("acknowledging; sources 1 of 1; spool 0 of 2 MiB; nodes 0"));
        assert!(line(&status(None, true)).starts_with("NOT acknowledging: the spool is full"));
        let disk = line(&status(Some(Fault::NoSpace), true));
        assert!(disk.starts_with("NOT acknowledging: the disk is full: free space"), "{disk}");
        assert!(!disk.contains('\n'));
    }

    #[test]
    fn the_line_says_that_the_program_is_older_than_the_rules_and_what_to_do() {
        let mut of_today = status(None, false);
        assert!(!line(&of_today).contains("rules"));
        of_today.uplink.later_rules = Some(9);
        let said = line(&of_today);
        assert!(said.contains("version 9") && said.contains("install") && said.starts_with("acknowledging"), "{said}");
    }
}
