//! The program `ehe`: the window of patient, clinician and EHR.

use std::io::{BufWriter, ErrorKind, Write};
use std::os::unix::fs::MetadataExt;
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use certs::terminal::escaped;
use ehe::time::UnixMs;
use ehe_reader::cli::{Cli, Surroundings, run};
use ehe_reader::output::Printer;
use ehe_reader::{Error, Exit};
use tracing_subscriber::EnvFilter;

fn clock() -> UnixMs {
    // Before 1970 by this clock: every node will call the request stale, and say so.
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    UnixMs(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// Says something on standard error. Where that was closed, what stands in its place takes everything and shows it to nobody.
fn complain(text: &str) -> std::io::Result<()> {
    writeln!(std::io::stderr(), "{}", escaped(&format!("ehe: {text}")))?;
    let device = |path| std::fs::metadata(path).map(|metadata| metadata.rdev());
    match (device("/dev/fd/2"), device("/dev/null")) {
        (Ok(errors), Ok(null)) if errors == null && null != 0 => Err(std::io::Error::other("it goes to /dev/null")),
        _ => Ok(()),
    }
}

fn main() -> ExitCode {
    let cli: Cli = match certs::process::begin("ehe") {
        Ok(cli) => cli,
        Err(end) => return end,
    };
    let filter = EnvFilter::try_from_env("EHE_LOG").unwrap_or_else(|_| EnvFilter::new("warn"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(certs::standard_error::lines).init();
    let runtime = match tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build() {
        Ok(runtime) => runtime,
        Err(why) => {
            let _ = complain(&format!("cannot start: {why}"));
            return ExitCode::from(Exit::Failed.code());
        }
    };
    let json = cli.json;
    let mut out = BufWriter::new(std::io::stdout().lock());
    let mut printer = Printer::new(&mut out, json);
    let around =
        Surroundings { variable: &|name| std::env::var_os(name).map(Into::into), clock, complain: &mut complain };
    let exit = match runtime.block_on(run(cli, around, &mut printer)) {
        Ok(exit) => exit,
        // Who read our output has seen enough.
        Err(Error::Print(why)) if why.kind() == ErrorKind::BrokenPipe => Exit::Done,
        Err(why) => {
            // Where nobody reads it there is nobody left to tell.
            let _ = complain(&why.to_string());
            why.exit()
        }
    };
    ExitCode::from(exit.code())
}
