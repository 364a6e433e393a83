//! One node that comes to hold ten thousand rooms, a hundred thousand, a million: what they take, and what work costs among them.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use certs::Credentials;

use super::idle::{self, Idle};
use super::population::{Population, Visited};
use super::{GROUP, Measured, head, line, mib};
use crate::account::percentile;
use crate::bench::crowd::{NODE_FOR_MANY, Standing};
use crate::bench::table::Row;
use crate::bench::usage;
use crate::lab::alliance::Founding;
use crate::lab::line::Line;
use crate::lab::process::{Programs, until};
use crate::lab::site::Site;

const ROOMS: [u64; 3] = [10_000, 100_000, 1_000_000];
/// Rooms that are written to, evenly spread: most of what they need is in no cache.
const VISITED: u64 = 4_096;
/// What was applied is durable and written then (`storage.durable_after_ms`).
const SETTLED: Duration = Duration::from_secs(8);
const WATCHED: Duration = Duration::from_secs(15);
const STARTS: Duration = Duration::from_secs(120);
/// More is not made of this machine's disk and time.
const DISK_MAX_BYTES: u64 = 9 << 30;
/// Of the disk, others keep this.
const DISK_LEFT_BYTES: u64 = 4 << 30;
const GROWING_MAX: Duration = Duration::from_secs(900);

/// Among so many rooms.
struct Figures {
    rooms: u64,
    made_per_s: f64,
    /// Of the node's processor time, for each room made.
    made_us: f64,
    first: Visited,
    further: Visited,
    state_bytes: u64,
    disk_bytes: u64,
    idle: Idle,
    most_mib: u64,
    restart: Duration,
}

pub(super) async fn run(programs: &Programs, out: &Path, say: &impl Fn(String)) -> Result<Measured> {
    let sites = Site::on_loopback(1)?;
    // Two identities bring everything: they may have more under way than one patient and one gateway.
    let more = format!("{NODE_FOR_MANY}work_bytes_per_peer_max = 67_108_864\n");
    let Standing { alliance, mut nodes, patient } =
        Standing::found(programs, out, Founding::default(), sites, &more).await?;
    let gateway = Credentials::load(&alliance.enrol("gateway", "gateway").await?)?;
    let own = patient.clone();
    let population = Population::new(patient, gateway)?;
    let node = nodes.first_mut().context("there is a node")?;
    let data = alliance.path("node1-data");
    let (mut rows, mut done) = (Vec::new(), 0);
    let mut table = head(&[
        "rooms, one node, 16 shards",
        "made",
        "first event of a day in 4,096 of them",
        "further event",
        "state",
        "a room",
        "memory idle",
        "memory at most",
        "idle: processor",
        "restart after kill -9",
    ]);
    let mut last: Option<Figures> = None;
    for rooms in ROOMS {
        let free = usage::free_bytes(out)?;
        if let Some(why) = last.as_ref().and_then(|last| last.too_much(rooms, free)) {
            rows.push(Row::new(GROUP, format!("a node with {rooms} rooms"), "not measured", why));
            break;
        }
        say(format!("making {} rooms more", rooms - done));
        let pid = node.daemon.id().context("the node runs")?;
        let (start, cpu) = (Instant::now(), usage::cpu(pid)?);
        population.grow(done, rooms).await?;
        let (made, cpu) = ((rooms - done) as f64, usage::cpu(pid)? - cpu);
        let (made_per_s, made_us) = (made / start.elapsed().as_secs_f64(), cpu.as_secs_f64() * 1e6 / made);
        say(format!("{made_per_s:.0} rooms/s, {made_us:.0} µs of the node's processor time for each"));
        // Those of the turns before have had their first event of the day.
        let mut visits = tokio::task::block_in_place(|| population.visits(VISITED, done..rooms))?;
        done = rooms;
        let first = population.write(&mut visits).await?;
        let further = population.write(&mut visits).await?;
        tokio::time::sleep(SETTLED).await;
        let idle = idle::watch(&[pid], WATCHED, false).await?;
        let (most_mib, _) = usage::resident_mib(pid)?;
        let restart = restart(node, &own, rooms).await?;
        let state_bytes = usage::disk_bytes(&data, &usage::is_state)?;
        let disk_bytes = usage::disk_bytes(&data, &|_| true)?;
        let figures =
            Figures { rooms, made_per_s, made_us, first, further, state_bytes, disk_bytes, idle, most_mib, restart };
        let row = figures.row();
        say(format!("{}: {}", row.what, row.measured));
        rows.push(row);
        table.push_str(&figures.line());
        last = Some(figures);
    }
    node.daemon.stop().await?;
    std::fs::remove_dir_all(out).with_context(|| out.display().to_string())?;
    Ok(Measured { rows, table })
}

/// Killed, and started again until it says of every shard that it is led, and has all rooms.
async fn restart(node: &mut crate::lab::node::Node, who: &Credentials, rooms: u64) -> Result<Duration> {
    let (id, shards) = (
        *who.charter().group(0).first().context("the shard has a node")?,
        usize::from(who.charter().shard_count().get()),
    );
    node.daemon.kill().await?;
    let start = Instant::now();
    node.daemon.start()?;
    let line = Line::new(who)?;
    let status = until("the node leads all shards again", STARTS, || {
        let alive = node.daemon.check();
        let line = &line;
        async move {
            alive?;
            let status = idle::status(line, id).await.ok();
            let led = |status: &ehe::wire::NodeStatus| {
                status.shards.iter().filter(|shard| shard.leader == Some(id)).count() == shards
            };
            Ok(status.filter(led))
        }
    })
    .await?;
    let took = start.elapsed();
    let found: u64 = status.shards.iter().map(|shard| shard.rooms).sum();
    ensure!(found == rooms, "of {rooms} rooms the node has {found}");
    Ok(took)
}

fn per_s(visited: &Visited) -> f64 {
    visited.runs as f64 / visited.wall.as_secs_f64()
}

fn p50_ms(visited: &Visited) -> f64 {
    percentile(&visited.latencies_us, 50) as f64 / 1000.0
}

impl Figures {
    fn a_room_bytes(&self) -> u64 {
        self.state_bytes / self.rooms
    }

    /// Why so many are too many for this machine, going by what was seen so far and by what is free on the disk.
    fn too_much(&self, rooms: u64, free: u64) -> Option<String> {
        // The log is no larger for it.
        let bytes = self.disk_bytes - self.state_bytes + self.a_room_bytes() * rooms;
        let most = DISK_MAX_BYTES.min((free + self.disk_bytes).saturating_sub(DISK_LEFT_BYTES));
        if bytes > most {
            return Some(format!(
                "would take {} MiB of disk; the bench takes no more than {} of this one",
                mib(bytes),
                mib(most)
            ));
        }
        let seconds = (rooms - self.rooms) as f64 / self.made_per_s;
        (seconds > GROWING_MAX.as_secs_f64()).then(|| {
            let rate = self.made_per_s;
            format!(
                "at {rate:.0} rooms/s, making them would take {seconds:.0} s; the bench waits {GROWING_MAX:?} at most"
            )
        })
    }

    fn row(&self) -> Row {
        let measured = format!(
            "{:.0} runs/s (p50 {:.1} ms) of an event and its key's wrap into {VISITED} rooms spread over those made last; {:.0} runs/s (p50 {:.1} ms) of \
             one event more; {} MiB of state, {} bytes a room, {} MiB of disk with the log; {} MiB resident idle, {} MiB at most; {:.2} % \
             of a core idle; restarted after kill -9 in {:.2} s",
            per_s(&self.first),
            p50_ms(&self.first),
            per_s(&self.further),
            p50_ms(&self.further),
            mib(self.state_bytes),
            self.a_room_bytes(),
            mib(self.disk_bytes),
            self.idle.resident_mib,
            self.most_mib,
            self.idle.cpu_percent,
            self.restart.as_secs_f64()
        );
        let spent = format!(
            "one node, 16 shards, made over QUIC at {:.0} rooms/s, {:.0} µs of the node's processor time for each: creation, epoch \
             and grant, three control events under one signature, which apply checks again; one owner and one gateway for all; of a room's bytes most are public keys and wraps of X-Wing (1.2 KiB each)",
            self.made_per_s, self.made_us
        );
        Row::new(GROUP, format!("a node with {} rooms", self.rooms), measured, spent)
    }

    fn line(&self) -> String {
        line(&[
            self.rooms.to_string(),
            format!("{:.0}/s", self.made_per_s),
            format!("{:.0}/s, p50 {:.0} ms", per_s(&self.first), p50_ms(&self.first)),
            format!("{:.0}/s, p50 {:.0} ms", per_s(&self.further), p50_ms(&self.further)),
            format!("{} MiB", mib(self.state_bytes)),
            format!("{:.1} KiB", self.a_room_bytes() as f64 / 1024.0),
            format!("{} MiB", self.idle.resident_mib),
            format!("{} MiB", self.most_mib),
            format!("{:.2} % of a core", self.idle.cpu_percent),
            format!("{:.1} s", self.restart.as_secs_f64()),
        ])
    }
}
