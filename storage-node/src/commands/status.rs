//! How the alliance's shards are, as this node knows it: once, or until they live where the newest charter says.

use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use certs::terminal::escaped;
use certs::{Client, CloseCode, Connection, Credentials};
use ehe::charter::{RULES_FIRST, VerifiedCharter};
use ehe::id::NodeId;
use ehe::wire::{GroupStatus, NodeStatus, Request, Response};
use serde_json::{Value, json};

use crate::config::Config;

/// The node answers within this time.
const WITHIN: Duration = Duration::from_secs(10);
/// It is asked again after this.
const AGAIN_AFTER: Duration = Duration::from_millis(500);

/// How long to look.
#[derive(Debug, Clone, Copy)]
pub struct Watch {
    /// Until every shard lives where the newest charter says, and this charter is of at least this version.
    pub until: Option<u32>,
    /// But not longer.
    pub within: Option<Duration>,
}

/// Prints the status of the node of a configuration, which has to run.
pub async fn status(config: &Config, as_json: bool, watch: Watch, out: &mut dyn Write) -> anyhow::Result<()> {
    let credentials = Credentials::load(&config.credentials_dir)?;
    let began = Instant::now();
    let mut told = String::new();
    loop {
        let looked = look(config, &credentials).await;
        let over = watch.within.is_some_and(|within| began.elapsed() >= within);
        match (looked, watch.until) {
            (Ok((status, charter)), until) => {
                let done = until.is_none_or(|version| charter.version() >= version && settled(&status, &charter));
                let text = if as_json { format!("{}\n", to_json(&status, &charter)) } else { shown(&status, &charter) };
                // While it is watched, only what changed is worth a line.
                if text != told && (done || until.is_some()) {
                    out.write_all(text.as_bytes())?;
                    out.flush()?;
                    told = text;
                }
                if done {
                    return Ok(());
                }
            }
            // It may be starting.
            (Err(why), None) => return Err(why),
            (Err(why), Some(_)) if over => return Err(why),
            (Err(_), Some(_)) => {}
        }
        if over {
            bail!(
                "the shards do not all live yet where the charter says; they go on moving, and `ehe-node status` shows how far they are"
            );
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
    let connection = connection.with_context(|| format!("the node does not answer at {at}: does it run?"))?;
    let Response::Charter(bytes) = ask(&connection, &Request::Charter).await? else {
        bail!("an answer to another question")
    };
    let charter = Response::charters(&bytes)?.verify(credentials.alliance_id())?;
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

/// Whether a shard lives where the charter says: under this charter, with its group's votes, and nobody else has a part in it.
fn is_settled(group: &GroupStatus, charter: &VerifiedCharter) -> bool {
    let mut wanted = charter.group(group.shard).to_vec();
    wanted.sort_unstable();
    let mut there: Vec<NodeId> = group.nodes.iter().map(|node| node.node).collect();
    there.sort_unstable();
    // Charter 1 is in effect without an entry, and is not written down before there is a second.
    group.charter == charter.version()
        && group.nodes.iter().all(|node| node.votes)
        && there == wanted
        && group.doing.is_none()
}

fn settled(status: &NodeStatus, charter: &VerifiedCharter) -> bool {
    status.groups.as_ref().is_some_and(|groups| groups.iter().all(|group| is_settled(group, charter)))
}

fn shown(status: &NodeStatus, charter: &VerifiedCharter) -> String {
    let name = |id: NodeId| charter.node(id).map_or_else(|| id.to_string(), |node| node.name.clone());
    let mut text = format!(
        "node {} ({}), program {}, charter {}\n",
        name(status.node),
        status.node,
        escaped(&status.program),
        status.charter_version
    );
    for group in status.groups.iter().flatten() {
        let leader = group.leader.map_or_else(|| "nobody".to_owned(), name);
        let rules = group.rules.map_or_else(String::new, |rules| format!(", rules {rules}"));
        text += &format!("shard {}: charter {}{rules}, led by {leader}\n", group.shard, group.charter);
        for node in &group.nodes {
            let applied = node.applied.map_or_else(|| "not heard of".to_owned(), |applied| format!("{applied} blocks"));
            let heard = node
                .heard_ms
                .filter(|ms| *ms >= 15_000)
                .map_or_else(String::new, |ms| format!(", {} s ago", ms / 1000));
            let role = if node.votes { "" } else { ", without a vote" };
            let fault = if node.faulted { ", STOPPED by a fault" } else { "" };
            let older = match (node.knows, group.rules) {
                (Some(knows), Some(rules)) if knows < rules => format!(
                    ", HELD: its program knows the rules up to version {knows}, older than those in force: install a later version there"
                ),
                _ => String::new(),
            };
            text += &format!("  {}: {applied}{heard}{role}{fault}{older}\n", name(node.node));
        }
        if let Some(doing) = &group.doing {
            text += &format!("  {}\n", escaped(doing));
        } else if !is_settled(group, charter) {
            text += &format!("  charter {} has it live on {}\n", charter.version(), wanted(group.shard, charter));
        }
    }
    for moved in status.moved.iter().flatten() {
        text += &format!(
            "here is what was shard {}'s before it moved away: {} leaves; {}\n",
            moved.shard,
            moved.leaves,
            escaped(&moved.why)
        );
    }
    text
}

fn wanted(shard: u16, charter: &VerifiedCharter) -> String {
    let names: Vec<&str> =
        charter.group(shard).iter().filter_map(|id| Some(charter.node(*id)?.name.as_str())).collect();
    names.join(", ")
}

fn to_json(status: &NodeStatus, charter: &VerifiedCharter) -> Value {
    let groups = status.groups.iter().flatten().map(|group| {
        json!({
            "shard": group.shard,
            "charter": group.charter,
            "leader": group.leader,
            "rules": group.rules.unwrap_or(RULES_FIRST),
            "settled": is_settled(group, charter),
            "doing": group.doing,
            "nodes": group.nodes.iter().map(|node| json!({
                "node": node.node,
                "name": charter.node(node.node).map(|node| node.name.clone()),
                "votes": node.votes,
                "applied": node.applied,
                "heard_ms": node.heard_ms,
                "faulted": node.faulted,
                "knows_rules": node.knows,
            })).collect::<Vec<_>>(),
        })
    });
    let moved = status.moved.iter().flatten();
    let moved = moved.map(|moved| json!({ "shard": moved.shard, "leaves": moved.leaves, "why": moved.why }));
    json!({
        "node": status.node,
        "program": status.program,
        "charter": status.charter_version,
        "settled": settled(status, charter),
        "groups": groups.collect::<Vec<_>>(),
        "moved": moved.collect::<Vec<_>>(),
    })
}
