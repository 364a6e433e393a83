//! `ehe-node verify`: the command, its bar, and what it says.

use std::io::Write;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::Context;
use certs::terminal::escaped;
use ehe_node::config::Config;
use ehe_node::verify::{Progress, Report, verify};
use indicatif::{ProgressBar, ProgressStyle};

/// The bar moves that often.
const DRAW_EVERY: Duration = Duration::from_millis(100);

/// What to look at, and how to say it.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The node's data directory.
    #[arg(long, required_unless_present = "config")]
    data_dir: Option<PathBuf>,
    /// The configuration, whose data_dir is looked at.
    #[arg(long)]
    config: Option<PathBuf>,
    /// Shards that are looked at side by side; as many as there are cores by default.
    #[arg(long)]
    threads: Option<usize>,
    /// Says it as JSON.
    #[arg(long)]
    json: bool,
}

/// Whether all is sound.
pub(crate) fn run(args: &Args) -> anyhow::Result<bool> {
    let dir = match (&args.data_dir, &args.config) {
        (Some(dir), _) => dir.clone(),
        (None, Some(config)) => Config::load(config)?.data_dir,
        (None, None) => PathBuf::new(),
    };
    let threads = args.threads.or_else(|| std::thread::available_parallelism().ok().map(Into::into)).unwrap_or(1);
    // A damaged page may make the storage library panic; what it says then, the report says better.
    std::panic::set_hook(Box::new(|_| {}));
    let report = watched(&dir, threads)?;
    let mut out = std::io::stdout();
    if args.json {
        serde_json::to_writer(&mut out, &report).context("writing to standard output")?;
        writeln!(out)
    } else {
        report.to_string().lines().try_for_each(|line| writeln!(out, "{}", escaped(line)))
    }
    .context("writing to standard output")?;
    Ok(report.is_sound())
}

/// Looks, and shows how far it is, if there is a terminal to show it on.
fn watched(dir: &std::path::Path, threads: usize) -> anyhow::Result<Report> {
    let progress = Progress::default();
    let bar = ProgressBar::new(0);
    bar.set_style(ProgressStyle::with_template("{bar:32} {pos}/{len} entries, {msg}, {elapsed}")?);
    let report = std::thread::scope(|scope| {
        let looking = scope.spawn(|| verify(dir, threads, &progress));
        while !looking.is_finished() {
            let read = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
            let seconds = bar.elapsed().as_secs().max(1);
            bar.set_length(read(&progress.entries));
            bar.set_position(read(&progress.done));
            let found = match read(&progress.found) {
                0 => String::new(),
                found => format!(", {found} findings"),
            };
            bar.set_message(format!("{} events/s{found}", read(&progress.events) / seconds));
            std::thread::park_timeout(DRAW_EVERY);
        }
        looking.join()
    });
    bar.finish_and_clear();
    Ok(report.map_err(|_| {
        anyhow::anyhow!("looking at the files ended early; this is a bug of this program, please report it")
    })??)
}
