//! The checker's own test with real programs: nodes that are broken on purpose, and what it has to say of each. A node that forgets what it
//! synced needs no broken program: its disk lies (`preload/disk.c`).

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Result, ensure};

use crate::campaign::{Campaign, Red, Report, run};
use crate::nemesis::fault::{Fault, Planned, Whom};
use crate::view::View;

/// A way to be broken, and the violation by which it is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Broken {
    /// Its name: `EHE_RED` of a node's environment.
    pub fault: &'static str,
    /// One of these begins a violation's text.
    pub told_as: &'static [&'static str],
}

/// Syncs that do nothing: no broken program, and none needed.
pub const NO_FSYNC: Broken = Broken { fault: "no_fsync", told_as: &["lost"] };

/// Those that need a broken program.
pub const BROKEN: [Broken; 4] = [
    Broken { fault: "no_signatures", told_as: &["forged"] },
    Broken { fault: "audit_late", told_as: &["audited late", "not audited"] },
    Broken { fault: "two_branches", told_as: &["two branches"] },
    Broken { fault: "clock_lies", told_as: &["clock lied"] },
];

/// What happens to the nodes: enough for the fault to show.
fn faults(fault: &str) -> Vec<Planned> {
    let quiet = Duration::from_secs(4);
    let one = |fault, lasts_s| Planned { after: quiet, fault, lasts: Duration::from_secs(lasts_s) };
    match fault {
        "no_fsync" => vec![one(Fault::PowerCut(Whom::Everybody, None), 1)],
        "clock_lies" => vec![one(Fault::Skew(Whom::Leader, 600), 4)],
        _ => vec![one(Fault::Kill(Whom::Leader), 1)],
    }
}

/// Runs one campaign with the broken nodes; an error if the checker says nothing of what is broken.
pub async fn goes_red(broken: Broken, program: Option<PathBuf>, out: &Path, view: &View) -> Result<Report> {
    let nodes = if broken.fault == "two_branches" { 1 } else { 3 };
    let campaign = Campaign {
        faults: Some(faults(broken.fault)),
        writers: 4,
        spare: false,
        disks_lie: broken == NO_FSYNC,
        red: program.map(|program| Red { program, fault: broken.fault, nodes }),
        ..Campaign::new(out.join(broken.fault), 5)
    };
    let report = run(&campaign, view).await?;
    let told = report.violations.iter().map(ToString::to_string);
    let known = told.filter(|told| broken.told_as.iter().any(|name| told.starts_with(name))).count();
    ensure!(known > 0, "nodes with {:?} passed for good ones: {:?}", broken.fault, report.violations);
    view.say(format!("{}: the checker sees it, {known} times", broken.fault));
    Ok(report)
}
