//! `ehe-soak`: campaigns of faults against real nodes, until enough has happened.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Result;
use clap::Parser;

use hil_tests::asked::Asked;
use hil_tests::campaign::{Campaign, run};
use hil_tests::nemesis::fault::Sort;
use hil_tests::red;
use hil_tests::view::{View, print};

/// Kills, pauses, partitions, cuts the power, fills disks, skews clocks, moves leaders, adds and removes real nodes under load, and holds
/// what clients were told against what every node shows afterwards.
#[derive(Debug, Parser)]
#[command(version)]
struct Args {
    /// Kills (-9), over all campaigns
    #[arg(long, default_value_t = 200)]
    kills: usize,
    /// Faults of each other sort, over all campaigns
    #[arg(long, default_value_t = 20)]
    others: usize,
    /// Campaigns to spread them over; each founds an alliance of its own, of three and of five nodes in turn, and one node more
    #[arg(long, default_value_t = 5)]
    campaigns: usize,
    /// No fault is begun after so many hours
    #[arg(long, default_value_t = 6.0)]
    hours: f64,
    /// Seed of the first campaign; the others count on from it
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Folder for logs and histories; one of a campaign that passed is removed
    #[arg(long, value_name = "DIR", default_value = "target/soak")]
    out: PathBuf,
    /// Instead: show that the checker sees nodes that are broken on purpose (`make red` builds this program)
    #[arg(long, value_name = "FILE")]
    red: Option<PathBuf>,
    /// With --red: this fault only
    #[arg(long, value_name = "FAULT", requires = "red")]
    only: Option<String>,
}

#[tokio::main]
async fn main() -> ExitCode {
    let args = Args::parse();
    let view = View::new([], false);
    let done = async {
        let asked = Asked::listen()?;
        match &args.red {
            Some(program) => asked.unless(broken(program, args.only.as_deref(), &args.out, &view)).await,
            None => asked.unless(soak(&args, &view)).await,
        }
    };
    match done.await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            print(&format!("ehe-soak: {error:#}\n"));
            ExitCode::FAILURE
        }
    }
}

/// Whether the checker saw every one.
async fn broken(program: &Path, only: Option<&str>, out: &Path, view: &View) -> Result<bool> {
    let program = program.canonicalize()?;
    let (mut all, mut tried) = (true, 0);
    for (broken, program) in
        std::iter::once((red::NO_FSYNC, None)).chain(red::BROKEN.map(|broken| (broken, Some(program.clone()))))
    {
        if only.is_some_and(|only| only != broken.fault) {
            continue;
        }
        tried += 1;
        match red::goes_red(broken, program, &out.join("red"), view).await {
            Ok(_) => print(&format!("red as it must be: {}\n", broken.fault)),
            Err(why) => {
                all = false;
                print(&format!("NOT RED: {why:#}\n"));
            }
        }
    }
    Ok(all && tried > 0)
}

/// Whether everything held.
async fn soak(args: &Args, view: &View) -> Result<bool> {
    let (begun, until) = (Instant::now(), Duration::from_secs_f64(args.hours.max(0.0) * 3600.0));
    let (mut counted, mut violations, mut receipts, mut reads) = (BTreeMap::<Sort, usize>::new(), 0, 0, 0);
    let mut failed = Vec::new();
    for (n, seed) in (0..args.campaigns.max(1)).zip(args.seed..) {
        if begun.elapsed() > until {
            break;
        }
        let share = |whole: usize| whole.div_ceil(args.campaigns.max(1));
        let out = args.out.join(format!("seed-{seed}"));
        let campaign = Campaign {
            nodes: if n % 2 == 0 { 3 } else { 5 },
            kills: share(args.kills),
            others: share(args.others),
            for_at_most: until.saturating_sub(begun.elapsed()),
            writers: 12,
            // Both ways of partitioning, where there are two.
            relay: n % 4 == 3,
            ..Campaign::new(&out, seed)
        };
        view.say(format!("campaign {} of {}: seed {seed}, {} nodes", n + 1, args.campaigns, campaign.nodes));
        match run(&campaign, view).await {
            Ok(report) => {
                for (sort, count) in report.counted() {
                    *counted.entry(sort).or_default() += count;
                }
                (receipts, reads) = (receipts + report.receipts, reads + report.reads.0);
                violations += report.violations.len();
                if report.violations.is_empty() {
                    std::fs::remove_dir_all(&out)?;
                } else {
                    failed.push(format!("seed {seed}: {} violations, see {}", report.violations.len(), out.display()));
                }
            }
            Err(why) => failed.push(format!("seed {seed}: it came to no verdict: {why:#}; see {}", out.display())),
        }
    }
    let faults: Vec<String> = counted.iter().map(|(sort, count)| format!("{count} × {sort}")).collect();
    print(&format!(
        "{} s; {}; {receipts} receipts, {reads} reads served; {violations} violations\n",
        begun.elapsed().as_secs(),
        faults.join(", ")
    ));
    for failed in &failed {
        print(&format!("FAILED {failed}\n"));
    }
    Ok(failed.is_empty())
}
