//! How the alliance's shards are, as this node knows it: once, or until they live where the newest charter says.

use std::collections::BTreeSet;
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use certs::{Client, CloseCode, Connection, Credentials};
use ehe::charter::{Gathering, VerifiedCharter};
use ehe::wire::{NodeStatus, Request, Response};

use super::shown::Shown;
use crate::config::Config;
use crate::estranged;

/// The node answers within this time.
const WITHIN: Duration = Duration::from_secs(10);
/// It is asked again after this.
const AGAIN_AFTER: Duration = Duration::from_millis(500);
/// Nodes have told each other how they are after this time.
const SAID_WITHIN: Duration = Duration::from_secs(8);
const WRITING: &str = "writing to standard output";

/// How long to look.
#[derive(Debug, Clone, Copy)]
pub struct Watch {
    /// Until every shard lives where the newest charter says, and this charter is of at least this version.
    pub until: Option<u32>,
    /// But not longer.
    pub within: Option<Duration>,
}

/// What a look at an alliance's shards came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// Every shard lives where the newest charter says and has somebody to order what is written, and every node that holds one takes part.
    pub is_well: bool,
    /// That, or what is not as it should be, for people; it ends with a line feed.
    pub text: String,
}

/// Prints the status of the node of a configuration, which has to run; what it comes to is returned.
pub async fn status(config: &Config, as_json: bool, watch: Watch, out: &mut dyn Write) -> anyhow::Result<Verdict> {
    let credentials = Credentials::load(&config.credentials_dir)?;
    let began = Instant::now();
    let (mut told, mut settled_at) = (BTreeSet::new(), None);
    loop {
        let over = watch.within.is_some_and(|within| began.elapsed() >= within);
        match look(config, &credentials).await {
            Ok((status, charter)) => {
                let estranged = estranged::read(&config.data_dir).context("reading whom this node refuses")?;
                let shown = Shown { status: &status, charter: &charter, estranged: &estranged };
                let problems = shown.problems();
                let settled = watch.until.is_none_or(|version| charter.version() >= version && shown.is_settled());
                if settled && settled_at.is_none() {
                    settled_at = Some(Instant::now());
                }
                // Where all shards live where they should, the nodes that just came are heard of a moment later, and so is who leads.
                let awaited = watch.until.is_none()
                    || problems.is_empty()
                    || settled_at.is_some_and(|since| since.elapsed() >= SAID_WITHIN);
                if (settled && awaited) || over {
                    let text = if as_json { format!("{}\n", shown.to_json()) } else { shown.text() };
                    out.write_all(text.as_bytes()).and_then(|()| out.flush()).context(WRITING)?;
                    return Ok(Verdict { is_well: problems.is_empty(), text: shown.verdict(&problems) });
                }
                // While it is watched, only what changed is worth a line.
                let lines = if as_json { vec![shown.to_json().to_string()] } else { shown.progress() };
                for line in lines.iter().filter(|line| !told.contains(*line)) {
                    writeln!(out, "{line}").context(WRITING)?;
                }
                out.flush().context(WRITING)?;
                told = lines.into_iter().collect();
            }
            // It may be starting.
            Err(why) if watch.until.is_none() || over => return Err(why),
            Err(_) => {}
        }
        tokio::time::sleep(AGAIN_AFTER).await;
    }
}

/// What the running node of a configuration says, and its newest charter.
pub async fn look(config: &Config, credentials: &Credentials) -> anyhow::Result<(NodeStatus, VerifiedCharter)> {
    let node = credentials.peer().node().context("the credentials are not a node's")?;
    let client = Client::new(credentials)?;
    let mut at = SocketAddr::new(config.listen.ip(), config.listen.port());
    if at.ip().is_unspecified() {
        at.set_ip(IpAddr::V4(Ipv4Addr::LOCALHOST));
    }
    let connection = client.connect(&[at.to_string()], node, WITHIN).await;
    let connection = connection.with_context(|| format!("asking the node at {at}, which has to run"))?;
    let mut gathering = Gathering::after(credentials.charter_chain().clone());
    loop {
        let Response::Charter(answer) = ask(&connection, &Request::Charter(gathering.from())).await? else {
            bail!("an answer to another question")
        };
        if !gathering.take(&answer)? {
            break;
        }
    }
    let charter = match gathering.newer() {
        Some(chain) => chain.verify(credentials.alliance_id())?,
        None => credentials.charter().clone(),
    };
    let Response::Status(status) = ask(&connection, &Request::Status).await? else {
        bail!("an answer to another question")
    };
    client.close(CloseCode::Done);
    Ok((status, charter))
}

async fn ask(connection: &Connection, request: &Request) -> anyhow::Result<Response> {
    let asking = async {
        let mut exchange = connection.open().await?;
        exchange.send(&request.to_vec(), WITHIN).await?;
        exchange.finish()?;
        let frame = exchange.recv(WITHIN).await?.context("the node said nothing")?;
        Ok(Response::decode(&frame)?)
    };
    tokio::time::timeout(WITHIN, asking).await.context("the node does not answer")?
}
