//! `ehe-demo`: the whole system on this machine.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;

use hil_tests::asked::Asked;
use hil_tests::bench;
use hil_tests::lab::alliance::Founding;
use hil_tests::scenario::{self, Options, Scene};
use hil_tests::view::{View, print};
use hil_tests::wearable;

/// Alliance of three hospitals, a node of each, broker, gateway, three patients and five wearables, in a terminal.
#[derive(Debug, Parser)]
#[command(version)]
struct Args {
    /// One round of about a minute in which the node that leads and the gateway are killed (-9), then the account as one line of
    /// JSON; exit code 0 only if nothing is lost, doubled, or readable by who was not invited
    #[arg(long)]
    once: bool,
    /// Folder for the demo's files; made anew. published.jsonl has two lines a reading, one before it is sent (sent_ms) and one
    /// after its PUBACK (acked: true); read.jsonl, what the clinician read back, comes with --once only; the rest is the lab's
    #[arg(long, value_name = "DIR", default_value = "target/demo")]
    out: PathBuf,
    /// A recorded heart rate: CSV with a column heart_rate_per_min
    #[arg(long, value_name = "FILE")]
    capture: Option<PathBuf>,
    /// Hospitals, each with a node; all of them hold every room: 1, 3, 5 or 7
    #[arg(long, value_name = "N", default_value_t = 3, conflicts_with = "bench")]
    nodes: usize,
    /// Measure instead: prints a table of targets and measured values, which stays in table.md
    #[arg(long, conflicts_with_all = ["once", "capture"])]
    bench: bool,
    /// With --bench: these groups of rows only. The group growth, which takes long, is measured only if it is named
    #[arg(long, value_name = "GROUP", requires = "bench", value_delimiter = ',')]
    only: Vec<String>,
    /// With --bench: rows that the libraries' benches printed, JSON lines
    #[arg(long, value_name = "FILE", requires = "bench")]
    library: Option<PathBuf>,
    /// Seed of the modelled day
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// All nodes stand in one place: another one leads soon after the one that led fell silent.
const ONE_PLACE: &str = "[consensus]\ntiming = \"lan\"\n";

#[tokio::main]
async fn main() -> ExitCode {
    let asked = match Asked::listen() {
        Ok(asked) => asked,
        Err(error) => {
            print(&format!("ehe-demo: {error:#}\n"));
            return ExitCode::FAILURE;
        }
    };
    match demo(Args::parse(), &asked).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            print(&format!("ehe-demo: {error:#}\n"));
            ExitCode::FAILURE
        }
    }
}

async fn demo(args: Args, asked: &Asked) -> Result<bool> {
    if args.bench {
        let Args { out, only, library, seed, .. } = args;
        let table = asked.unless(bench::run(&bench::Options { out, only, library, seed })).await?;
        print(&table.to_string());
        return Ok(true);
    }
    let view = View::new(wearable::five().into_iter().map(|w| w.device), !args.once);
    let founding = Founding { members: args.nodes, ..Founding::default() };
    let options = Options { capture: args.capture, founding, node: ONE_PLACE, ..Options::new(args.out, args.seed) };
    let mut scene = asked.unless(Scene::set_up(&options, view)).await?;
    if !args.once {
        scenario::live(&mut scene, asked).await?;
        return Ok(true);
    }
    let account = asked.unless(scenario::once(&mut scene)).await?;
    let faults = account.faults();
    for fault in &faults {
        print(&format!("FAULT: {fault}\n"));
    }
    print(&format!("{}\n", serde_json::to_string(&account)?));
    Ok(faults.is_empty())
}
