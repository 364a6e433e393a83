//! `ehe-node`: runs a storage node.

mod cli_verify;

use std::future::Future;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use certs::Credentials;
use certs::terminal::escaped;
use clap::{Args, Parser, Subcommand};
use ehe::wire::NodeStatus;
use ehe_node::backup::command;
use ehe_node::charters::Charters;
use ehe_node::clock::Clock;
use ehe_node::commands::{self, Planned, Watch};
use ehe_node::config::Config;
use ehe_node::daemon::{Daemon, placed};
use ehe_node::evidence;
use sd_notify::NotifyState;
use tokio::signal::unix::{SignalKind, signal};

const WRITING: &str = "writing to standard output";

/// See Cargo.toml for why.
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// What was looked at is not as it should be.
const FOUND: u8 = 3;

const EXIT_CODES: &str = "Exit codes:\n  \
    0  done; what was looked at is as it should be\n  \
    1  it could not be done or looked at: the message says why\n  \
    2  the command line is wrong\n  \
    3  what was looked at is not as it should be: `status` and `charter install --wait` (a shard that lives elsewhere or has nobody to order \
    writes, a node that is silent, stopped or refused), `verify`, `backup --verify`, and a backup that holds no shard";

/// A storage node of an ehe alliance.
#[derive(Parser)]
#[command(version, after_help = EXIT_CODES)]
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
    /// As `run`, for a node that is new in the newest charter: its data directory has to be empty.
    Join {
        /// The configuration.
        #[arg(long)]
        config: PathBuf,
    },
    /// How all shards of the alliance are, as the running node of this configuration knows it, and the evidence in its data directory. Ends with
    /// 0 if every shard lives where the newest charter says and every node that holds one takes part, 3 if not, 1 if it could not look.
    Status {
        /// The configuration.
        #[arg(long)]
        config: PathBuf,
        /// For programs: a line of JSON.
        #[arg(long)]
        json: bool,
        /// Until every shard lives where the newest charter says.
        #[arg(long)]
        wait: bool,
        /// Waits no longer than this, in seconds.
        #[arg(long, requires = "wait")]
        timeout: Option<u64>,
    },
    /// Writes the evidence in the data directory as files, each with the charters that it takes to judge it: for `ehe verify --evidence`, which
    /// needs nothing but such a file.
    Evidence {
        /// The configuration.
        #[arg(long)]
        config: PathBuf,
        /// The directory for the files; it is made if it is not there.
        #[arg(long)]
        to: PathBuf,
    },
    /// Plans that a shard lives on these nodes: writes the next charter, for the members to sign.
    MoveShard {
        /// The shard.
        shard: u16,
        /// Nodes, by name or id, separated by commas: 1, 3, 5 or 7.
        #[arg(long, value_delimiter = ',', required = true)]
        to: Vec<String>,
        #[command(flatten)]
        plan: Plan,
    },
    /// Plans that no shard lives on a node any more: writes the next charter, for the members to sign.
    Drain {
        /// The node, by name or id.
        node: String,
        #[command(flatten)]
        plan: Plan,
    },
    /// Plans that one node takes another one's place: writes the next charter, for the members to sign.
    Replace {
        /// Who goes, by name or id.
        old: String,
        /// Who comes. It has to be in the charter: `ehe-certs charter new --after` adds it.
        new: String,
        #[command(flatten)]
        plan: Plan,
    },
    /// Plans that the rules version under which the log is applied is raised: writes the next charter, for the members to sign. Refused while
    /// a node that holds a shard runs a program that does not know it.
    RaiseRules {
        /// The version.
        rules: u16,
        #[command(flatten)]
        plan: Plan,
    },
    /// The alliance's charter.
    Charter {
        #[command(subcommand)]
        command: CharterCommand,
    },
    /// Checks configuration, credentials and charter, and says what the node would be. Changes nothing.
    Check {
        /// The configuration.
        #[arg(long)]
        config: PathBuf,
    },
    /// Takes a backup of the running node, or verifies backups.
    Backup(command::Backup),
    /// Begins this node again from a backup, where no node of the alliance has its shards any more.
    Restore(command::Restore),
    /// Looks at everything that a stopped node has stored: is it still what was written, and did its authors sign it? Changes nothing.
    /// Ends with 0 if all is sound, 3 if something is not, 1 if it could not look.
    Verify(cli_verify::Args),
}

#[derive(Args)]
struct Plan {
    /// The configuration of a node of the alliance.
    #[arg(long)]
    config: PathBuf,
    /// Where to write the charter: a new file.
    #[arg(long, default_value = "next-charter")]
    out: PathBuf,
}

#[derive(Subcommand)]
enum CharterCommand {
    /// Gives a signed charter to the node of this configuration, which hands it to the others.
    Install {
        /// The file that the members signed.
        file: PathBuf,
        /// The configuration.
        #[arg(long)]
        config: PathBuf,
        /// And waits until every shard lives where it says.
        #[arg(long)]
        wait: bool,
        /// Waits no longer than this, in seconds.
        #[arg(long, requires = "wait")]
        timeout: Option<u64>,
    },
}

fn main() -> ExitCode {
    let cli: Cli = match certs::process::begin("ehe-node") {
        Ok(cli) => cli,
        Err(end) => return end,
    };
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info,openraft=error"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(certs::standard_error::lines).init();
    let done = match cli.command {
        Command::Run { config } => run(config).map(well),
        Command::Check { config } => check(config).map(well),
        Command::Join { config } => join(config).map(well),
        Command::Status { config, json, wait, timeout } => Config::load(&config)
            .map_err(Into::into)
            .and_then(|config| status(&config, json, wait.then_some(0), timeout)),
        Command::Evidence { config, to } => exported(&config, &to).map(well),
        Command::MoveShard { shard, to, plan } => planned(&plan, &Planned::Move { shard, to }).map(well),
        Command::Drain { node, plan } => planned(&plan, &Planned::Drain { node }).map(well),
        Command::Replace { old, new, plan } => planned(&plan, &Planned::Replace { old, new }).map(well),
        Command::RaiseRules { rules, plan } => planned(&plan, &Planned::Raise { rules }).map(well),
        Command::Charter { command: CharterCommand::Install { file, config, wait, timeout } } => {
            install(&file, &config, wait, timeout)
        }
        Command::Backup(args) => command::backup(&args, &mut std::io::stdout()),
        Command::Restore(args) => command::restore(&args, Clock::system().now(), &mut std::io::stdout()).map(well),
        Command::Verify(args) => cli_verify::run(&args),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(FOUND),
        Err(error) => {
            tracing::error!("{}", escaped(&told(&error)));
            ExitCode::FAILURE
        }
    }
}

/// What was done, looked at nothing that could be otherwise.
fn well((): ()) -> bool {
    true
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
        let daemon = Daemon::start_telling(config, Clock::system(), &start_goes_on).await?;
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

fn join(path: PathBuf) -> anyhow::Result<()> {
    tracing::info!("{}", commands::may_join(&Config::load(&path)?)?);
    run(path)
}

fn planned(plan: &Plan, planned: &Planned) -> anyhow::Result<()> {
    let config = Config::load(&plan.config)?;
    commands::plan(&config, planned, &plan.out, &|| asked(&config), &mut std::io::stdout())
}

/// How the alliance's nodes are, as the running node of this configuration says.
fn asked(config: &Config) -> anyhow::Result<NodeStatus> {
    let credentials = Credentials::load(&config.credentials_dir)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("starting the runtime")?;
    Ok(runtime.block_on(commands::look(config, &credentials))?.0)
}

fn install(file: &Path, config: &Path, wait: bool, timeout: Option<u64>) -> anyhow::Result<bool> {
    let config = Config::load(config)?;
    let version = commands::install(&config, file, &|| asked(&config), &mut std::io::stdout())?;
    if wait { status(&config, false, Some(version), timeout) } else { Ok(true) }
}

/// `until`: the version of the charter that is waited for. Returns whether all is well.
fn status(config: &Config, json: bool, until: Option<u32>, timeout: Option<u64>) -> anyhow::Result<bool> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("starting the runtime")?;
    let watch = Watch { until, within: timeout.map(Duration::from_secs) };
    let told = runtime.block_on(commands::status(config, json, watch, &mut std::io::stdout()));
    if json {
        return told.map(|verdict| verdict.is_well); // it has the number; the pieces are for people
    }
    // Whether the node answers or not.
    let charters = Charters::open(&Credentials::load(&config.credentials_dir)?, &config.data_dir)?;
    let lines = evidence::lines(&config.data_dir.join(evidence::DIRECTORY), &charters.each())?;
    let mut out = std::io::stdout().lock();
    lines.iter().try_for_each(|line| writeln!(out, "{}", escaped(line))).context(WRITING)?;
    let verdict = told?;
    out.write_all(verdict.text.as_bytes()).context(WRITING)?;
    Ok(verdict.is_well)
}

/// Whether the node runs or not.
fn exported(config: &Path, to: &Path) -> anyhow::Result<()> {
    let config = Config::load(config)?;
    let charters = Charters::open(&Credentials::load(&config.credentials_dir)?, &config.data_dir)?;
    let files = evidence::export(&config.data_dir.join(evidence::DIRECTORY), &charters.each(), to)?;
    let mut out = std::io::stdout().lock();
    if files.is_empty() {
        tracing::info!("no evidence is kept in {}: nothing was written", config.data_dir.display());
    }
    files.iter().try_for_each(|file| writeln!(out, "{}", escaped(&file.display().to_string()))).context(WRITING)
}

fn check(path: PathBuf) -> anyhow::Result<()> {
    let config = Config::load(&path)?;
    let placed = placed(&config, Credentials::load(&config.credentials_dir)?)?;
    let charter = placed.charters.newest();
    let shards = charter.shards_of(placed.id).count();
    let (name, id, version) = (&placed.name, placed.id, charter.version());
    let alliance = charter.alliance_id();
    writeln!(
        std::io::stdout(),
        "node {name} ({id}) of alliance {alliance}\ncharter {version}, {shards} of {} shards\nlistens on {}\ndata in {}",
        charter.shard_count(),
        config.listen,
        config.data_dir.display()
    )
    .context(WRITING)
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

/// A state that comes from another node may take longer than systemd allows for a start (TimeoutStartSec): so much more, from now on.
fn start_goes_on() {
    notify(NotifyState::ExtendTimeoutUsec(600_000_000));
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
