//! `ehe-node`: runs a storage node.

use std::future::Future;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use certs::Credentials;
use certs::terminal::escaped;
use clap::{Parser, Subcommand};
use ehe_node::clock::Clock;
use ehe_node::config::Config;
use ehe_node::daemon::{Daemon, placed};
use sd_notify::NotifyState;
use tokio::signal::unix::{SignalKind, signal};

/// See Cargo.toml for why.
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// A storage node of an ehe alliance.
#[derive(Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Runs the node until SIGTERM or SIGINT.
    Run {
        /// The configuration; node.example.toml has every option.
        #[arg(long)]
        config: PathBuf,
    },
    /// Checks configuration, credentials and charter, and says what the node would be. Changes nothing.
    Check {
        /// The configuration.
        #[arg(long)]
        config: PathBuf,
    },
}

fn main() -> ExitCode {
    let cli: Cli = match certs::process::begin("ehe-node") {
        Ok(cli) => cli,
        Err(end) => return end,
    };
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info,openraft=warn"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    let done = match cli.command {
        Command::Run { config } => run(config),
        Command::Check { config } => check(config),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{}", escaped(&told(&error)));
            ExitCode::FAILURE
        }
    }
}

/// An error and its causes; a cause that an error above has told already is not told twice.
fn told(error: &anyhow::Error) -> String {
    error.chain().map(ToString::to_string).fold(String::new(), |told, cause| match told.as_str() {
        "" => cause,
        before if before.contains(&cause) => told,
        _ => format!("{told}: {cause}"),
    })
}

fn run(path: PathBuf) -> anyhow::Result<()> {
    let config = Config::load(&path)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("starting the runtime")?;
    runtime.block_on(async {
        // Before the start, so that a signal during a long replay is not lost.
        let asked_to_stop = asked_to_stop()?;
        let daemon = Daemon::start(config, Clock::system()).await?;
        let address = daemon.local_addr()?;
        tracing::info!(%address, "ready");
        notify(NotifyState::Ready);
        tokio::select! {
            () = asked_to_stop => {}
            () = watchdog() => {}
        }
        tracing::info!("stopping");
        notify(NotifyState::Stopping);
        daemon.stop().await?;
        tracing::info!("stopped");
        Ok(())
    })
}

fn check(path: PathBuf) -> anyhow::Result<()> {
    let config = Config::load(&path)?;
    let placed = placed(&config, Credentials::load(&config.credentials_dir)?)?;
    let shards = placed.charter.shards_of(placed.id).count();
    let (name, id, version) = (&placed.name, placed.id, placed.charter.version());
    let alliance = placed.charter.alliance_id();
    writeln!(
        std::io::stdout(),
        "node {name} ({id}) of alliance {alliance}\ncharter {version}, {shards} of {} shards\nlistens on {}\ndata in {}",
        placed.charter.shard_count(),
        config.listen,
        config.data_dir.display()
    )
    .context("writing to standard output")
}

fn asked_to_stop() -> anyhow::Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate()).context("listening for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("listening for SIGINT")?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}

/// Tells systemd. Outside of it there is nobody to tell, and that is no fault.
fn notify(state: NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(&[state]) {
        tracing::warn!(%error, "telling systemd failed");
    }
}

/// Twice in each period that systemd allows: the runtime still turns. Never ends.
async fn watchdog() {
    let Some(period) = sd_notify::watchdog_enabled() else { return std::future::pending().await };
    let mut tick = tokio::time::interval((period / 2).max(Duration::from_millis(100)));
    loop {
        tick.tick().await;
        notify(NotifyState::Watchdog);
    }
}
