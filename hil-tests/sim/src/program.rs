//! The command line.

use std::{
    ops::Range,
    process::ExitCode,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use clap::Parser;
use ehe_node::consensus::sim::Red;
use ehe_sim::{
    plan::Broken,
    run::{Report, run},
};

/// Simulates nodes of an alliance. A seed repeats a run.
#[derive(Debug, Parser)]
struct Args {
    /// One seed, with all that happens.
    #[arg(long, conflicts_with = "seeds")]
    seed: Option<u64>,
    /// Seeds from the first to before the last.
    #[arg(long, value_parser = range, default_value = "0..300")]
    seeds: Range<u64>,
    /// Breaks the nodes on purpose: the runs must fail.
    #[arg(long, value_parser = broken)]
    broken: Option<Broken>,
    /// Threads.
    #[arg(long)]
    jobs: Option<usize>,
}

fn broken(text: &str) -> Result<Broken, String> {
    match text {
        "disks" => Ok(Broken::LyingDisks),
        "votes" => Ok(Broken::Rule(Red::VoteBeforeSync)),
        "journal" => Ok(Broken::Rule(Red::JournalUnsynced)),
        "wiped" => Ok(Broken::WipedNodes),
        "strangers" => Ok(Broken::Rule(Red::Strangers)),
        "answers" => Ok(Broken::Rule(Red::AnswersAtOnce)),
        _ => Err("disks, votes, journal, wiped, strangers or answers".to_owned()),
    }
}

fn range(text: &str) -> Result<Range<u64>, String> {
    let (first, last) = text.split_once("..").ok_or("a range is written 0..300")?;
    let number = |text: &str| text.parse::<u64>().map_err(|error| error.to_string());
    Ok(number(first)?..number(last)?)
}

pub(crate) fn main() -> ExitCode {
    let args = Args::parse();
    if let Some(seed) = args.seed {
        let report = run(seed, args.broken, true);
        summary(&report);
        return if report.violations.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    }
    // Panics are told in the report.
    std::panic::set_hook(Box::new(|_| {}));
    let begun = Instant::now();
    let jobs = args.jobs.or_else(|| std::thread::available_parallelism().ok().map(usize::from)).unwrap_or(1);
    let (next, failed) = (AtomicU64::new(args.seeds.start), Mutex::new(Vec::new()));
    let totals = Mutex::new((0_u64, 0_u64, 0_u64, 0_f64, 0_f64));
    std::thread::scope(|scope| {
        for _ in 0..jobs {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::SeqCst);
                    if seed >= args.seeds.end {
                        return;
                    }
                    let report = run(seed, args.broken, false);
                    let mut totals = totals.lock().unwrap_or_else(PoisonError::into_inner);
                    totals.0 += report.acknowledged;
                    totals.1 += report.reads;
                    totals.2 += report.frames;
                    totals.3 += report.virtual_time.as_secs_f64();
                    totals.4 = totals.4.max(report.progress);
                    if !report.violations.is_empty() {
                        summary(&report);
                        failed.lock().unwrap_or_else(PoisonError::into_inner).push(seed);
                    }
                }
            });
        }
    });
    let failed = failed.into_inner().unwrap_or_else(PoisonError::into_inner);
    let totals = totals.into_inner().unwrap_or_else(PoisonError::into_inner);
    println!(
        "{} seeds, {} failed; {:.0} s for {:.0} s of theirs; {} writes acknowledged, {} reads, {} frames; progress after at most \
         {:.1} election timeouts",
        args.seeds.end.saturating_sub(args.seeds.start),
        failed.len(),
        begun.elapsed().as_secs_f64(),
        totals.3,
        totals.0,
        totals.1,
        totals.2,
        totals.4,
    );
    if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn summary(report: &Report) {
    if !report.violations.is_empty() {
        println!("seed {} FAILED", report.seed);
        for line in &report.tail {
            println!("    {line}");
        }
        for violation in report.violations.iter().take(10) {
            println!("  {violation}");
        }
        println!("  again: make sim SEED={}", report.seed);
    }
    println!(
        "seed {}: {:016x} after {} steps; {} writes acknowledged, {} reads, {} frames; progress after {:.1} election timeouts, {:.1} s",
        report.seed,
        report.hash.0,
        report.hash.1,
        report.acknowledged,
        report.reads,
        report.frames,
        report.progress,
        report.virtual_time.as_secs_f64(),
    );
}
