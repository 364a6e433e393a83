//! `ehe-gateway`: the gateway in the home.

use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use certs::terminal::escaped;
use clap::{Parser, Subcommand};
use ehe_gateway::config::{Checked, Config};
use ehe_gateway::status::HeldPart;
use ehe_gateway::status::freshness::{self, Age, Stale, Stamp};
use ehe_gateway::status::run_lock;
use ehe_gateway::{clock, daemon, decode, source};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

/// Takes readings from devices, seals them, and hands them to the storage nodes.
#[derive(Parser)]
#[command(name = "ehe-gateway", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run until SIGTERM.
    Run(WithConfig),
    /// Judge the configuration and the files that it names; start nothing.
    Check(WithConfig),
    /// List the devices that nobody is assigned to, and what is held of them.
    Held(WithConfig),
    /// Print the gateway's numbers as JSON, with whether it is "running" and their "age_ms" (below zero if the clock was set back since); exits
    /// with 1, after printing them, unless they are those of a gateway that runs now. "waiting" counts messages that are not on the disk yet;
    /// what waits for a node's receipt is in "outbox_bytes", what waits for its window or an invitation in "readings_bytes".
    Status(WithConfig),
    /// Show what the gateway makes of messages: JSON Lines in ({"id", "topic", "input_text" or "input_hex", …}), JSON Lines out. A message
    /// that is refused is an answer ("error") as well: exits with 0 whatever the messages are, with 1 where it could not read or write.
    Decode(Decode),
}

#[derive(clap::Args)]
struct Decode {
    /// Decode as this configuration says. Left out: by what topics, content types and documents say of themselves.
    #[arg(long)]
    config: Option<PathBuf>,
    /// The lines. Left out: standard input.
    file: Option<PathBuf>,
}

#[derive(clap::Args)]
struct WithConfig {
    /// The configuration file.
    #[arg(long, default_value = "/etc/ehe/gateway.toml")]
    config: PathBuf,
}

/// Largest file of numbers that is read: one line for each of some ten thousand devices.
const STATUS_MAX_BYTES: usize = 16 * 1024 * 1024;

fn main() -> ExitCode {
    let arguments: Arguments = match certs::process::begin("ehe-gateway") {
        Ok(arguments) => arguments,
        Err(end) => return end,
    };
    match carry_out(arguments.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Nobody is left to tell if this fails too.
            let _ = writeln!(std::io::stderr(), "ehe-gateway: {}", escaped(&told(&error)));
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

fn carry_out(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Run(WithConfig { config }) => run(load(&config)?),
        Command::Check(WithConfig { config }) => check(&load(&config)?),
        Command::Held(WithConfig { config }) => held(&load(&config)?),
        Command::Status(WithConfig { config }) => status(&load(&config)?),
        Command::Decode(Decode { config, file }) => decode_lines(config.as_deref(), file.as_deref()),
    }
}

fn load(path: &Path) -> anyhow::Result<Checked> {
    Ok(Config::load(path)?.check()?)
}

fn decode_lines(config: Option<&Path>, file: Option<&Path>) -> anyhow::Result<()> {
    let decoder = match config {
        Some(path) => decode::Decoder::configured(&load(path)?)?,
        None => decode::Decoder::new()?,
    };
    let mut input: Box<dyn BufRead> = match file {
        Some(path) => {
            let file = std::fs::File::open(path).with_context(|| path.display().to_string())?;
            Box::new(BufReader::new(file))
        }
        None => Box::new(std::io::stdin().lock()),
    };
    let mut output = BufWriter::new(std::io::stdout().lock());
    // Nobody is left to tell if this fails.
    let note = |line: u64, kind: &'static str| {
        let _ = writeln!(std::io::stderr(), "ehe-gateway: line {line}: {kind}");
    };
    match decode::run(&decoder, &mut input, &mut output, &note, &*clock::wall()) {
        // Whoever read the answers has enough of them.
        Err(error) if error.why.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        done => Ok(done?),
    }
}

fn run(checked: Checked) -> anyhow::Result<()> {
    let filter = tracing_subscriber::EnvFilter::try_new(&checked.config.log.filter).context("log.filter")?;
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(certs::standard_error::lines).with_ansi(false).init();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("starting")?;
    runtime.block_on(daemon::run(checked))?;
    Ok(())
}

fn check(checked: &Checked) -> anyhow::Result<()> {
    let credentials = daemon::load_credentials(checked)?;
    daemon::check_data_dir(&checked.config.data_dir)?;
    for one in &checked.config.mqtt {
        source::mqtt::check(one)?;
    }
    for one in &checked.config.replay {
        source::replay::check(one)?;
    }
    tracing_subscriber::EnvFilter::try_new(&checked.config.log.filter).context("log.filter")?;
    let out = &mut Vec::new();
    writeln!(out, "good: {}", credentials.peer())?;
    writeln!(out, "alliance {}", credentials.alliance_id())?;
    writeln!(out, "{} sources, {} assignments", checked.routes.len(), checked.config.assignment.len())?;
    if checked.config.alliance.is_none() {
        writeln!(out, "advice: pin the alliance with `alliance = \"{}\"`", credentials.alliance_id())?;
    }
    print(out)
}

/// Writes to standard output, at once. Whoever reads it may have enough of it.
fn print(text: &[u8]) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text).and_then(|()| out.flush()) {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        done => done.context("standard output"),
    }
}

/// The numbers, what they say of themselves, and whether they are those of a gateway that runs now.
fn read_status<T: DeserializeOwned>(checked: &Checked) -> anyhow::Result<(T, Stamp, Result<Age, Stale>)> {
    let data_dir = &checked.config.data_dir;
    let path = daemon::status_path(data_dir);
    let text = certs::file::read_text(&path, STATUS_MAX_BYTES, "has the gateway run with this configuration?")?;
    let numbers = serde_json::from_str(&text).with_context(|| path.display().to_string())?;
    let stamp = serde_json::from_str(&text).with_context(|| path.display().to_string())?;
    let holder =
        run_lock::holder(data_dir).with_context(|| format!("{}: is a gateway running on it?", data_dir.display()))?;
    Ok((numbers, stamp, freshness::judge(holder, stamp, clock::wall()())))
}

fn status(checked: &Checked) -> anyhow::Result<()> {
    let (mut numbers, _, fresh) = read_status::<Map<String, Value>>(checked)?;
    let (runs, age) = fresh.map_or_else(|stale| (stale.runs(), stale.age()), |age| (true, age));
    numbers.insert("running".to_owned(), runs.into());
    numbers.insert("age_ms".to_owned(), age.ms().into());
    let mut text = serde_json::to_string_pretty(&numbers)?;
    text.push('\n');
    print(text.as_bytes())?;
    fresh?;
    Ok(())
}

fn held(checked: &Checked) -> anyhow::Result<()> {
    let (part, stamp, fresh) = read_status::<HeldPart>(checked)?;
    let time = |ms: u64| {
        i64::try_from(ms)
            .ok()
            .and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok())
            .map_or_else(|| "-".to_owned(), |at| at.to_string())
    };
    let out = &mut Vec::new();
    // Of a stopped gateway they are still held.
    let note = match fresh {
        Ok(_) => "",
        Err(Stale::Stopped(_)) => " (the gateway does not run)",
        Err(Stale::Old(_) | Stale::EarlierRun(_)) => " (not of now: see `ehe-gateway status`)",
    };
    writeln!(out, "as of {}{note}; assign with [[assignment]] and restart", time(stamp.written_ms.0))?;
    writeln!(out, "{:<32} {:<8} {:>9} {:>9}  first … last", "device", "user", "readings", "dropped")?;
    for device in part.held {
        let user = device.user.as_deref().unwrap_or("-");
        let (first, last) = (time(device.first.0), time(device.last.0));
        writeln!(
            out,
            "{:<32} {:<8} {:>9} {:>9}  {first} … {last}",
            escaped(&device.device),
            escaped(user),
            device.readings,
            device.dropped
        )?;
    }
    print(out)
}
