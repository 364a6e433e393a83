//! The people, devices and programs of the demo, and what happens between them.

use std::fs::File;
use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use jiff::Timestamp;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;

use crate::account::{Account, Compared, percentile};
use crate::asked::Asked;
use crate::day::{Day, read_capture};
use crate::folder;
use crate::journal::{Journal, read_lines};
use crate::lab::alliance::{Alliance, Founding};
use crate::lab::broker::Broker;
use crate::lab::home::{Assignment, Gateway, Settings};
use crate::lab::leaders::Leaders;
use crate::lab::node::Node;
use crate::lab::process::{Programs, until};
use crate::lab::site::Site;
use crate::latency::Latencies;
use crate::publish::Publisher;
use crate::view::View;
use crate::wearable::{self, Wearable};

/// Exit code of `ehe` where rights do not allow something.
pub const REFUSED: i32 = 3;
/// Patients of the demo.
const PATIENTS: usize = 3;
/// After a fault another node leads within this time, or something is wrong.
const ELECTED: Duration = Duration::from_secs(20);

/// What the demo was asked for.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where `published.jsonl`, `read.jsonl` and the lab's own files go.
    pub out: PathBuf,
    /// Seed of the modelled day.
    pub seed: u64,
    /// A recorded heart rate.
    pub capture: Option<PathBuf>,
    /// Hospitals with a node of each, and shards.
    pub founding: Founding,
    /// What else stands in the nodes' configurations.
    pub node: &'static str,
    /// How long the gateway gathers readings before it seals them.
    pub window_ms: u64,
    /// Further environment of every program of ours.
    pub environment: Vec<(&'static str, String)>,
    /// What the gateway logs, if not its default.
    pub gateway_log: Option<&'static str>,
    /// Where the nodes stand, if not on loopback with nothing around them.
    pub sites: Option<Vec<Site>>,
}

impl Options {
    /// The demo as it is: modelled days, the gateway's default window.
    pub fn new(out: impl Into<PathBuf>, seed: u64) -> Self {
        let out = out.into();
        Self {
            out,
            seed,
            capture: None,
            founding: Founding::default(),
            node: "",
            window_ms: WINDOW_MS,
            environment: Vec::new(),
            gateway_log: None,
            sites: None,
        }
    }
}

/// The gateway's default.
pub const WINDOW_MS: u64 = 15_000;

/// A patient's room.
#[derive(Debug, Clone)]
pub struct Patient {
    /// Folder of the credentials.
    pub who: String,
    /// Room id.
    pub room: String,
}

/// Everything that runs.
#[derive(Debug)]
pub struct Scene {
    /// The view.
    pub view: View,
    /// Where files go.
    pub out: PathBuf,
    /// The alliance.
    pub alliance: Alliance,
    /// The first hospital's node.
    pub node: Node,
    /// The nodes of the others.
    pub others: Vec<Node>,
    /// The broker.
    pub broker: Broker,
    /// The gateway.
    pub gateway: Gateway,
    /// The patients.
    pub patients: Vec<Patient>,
    /// The wearables and their passwords.
    pub wearables: Vec<(Wearable, String)>,
    /// Author id of the clinician.
    pub clinician: String,
    journal: Journal,
    seed: u64,
    capture: Option<Vec<f64>>,
    /// When a wearable last measured; Unix milliseconds.
    measured_ms: Arc<AtomicI64>,
}

impl Scene {
    /// Founds the alliance, starts everything, makes the rooms and the grants.
    pub async fn set_up(options: &Options, view: View) -> Result<Self> {
        let capture = options.capture.as_ref().map(|path| {
            let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
            read_capture(&text)
        });
        let capture = capture.transpose()?;
        let programs = Programs::built()?.with(&options.environment);
        folder::anew(&options.out)?;
        let out = options.out.canonicalize()?;
        let members = options.founding.members;
        view.say(format!("founding an alliance: authority, hospitals ({members}), a node of each, charter 1"));
        let sites = options.sites.clone().map_or_else(|| Site::on_loopback(members), Ok)?;
        let alliance = Alliance::found_on(&programs, &out.join("lab"), options.founding, sites).await?;
        let wearables: Vec<(Wearable, String)> =
            wearable::five().into_iter().map(|w| (w.clone(), format!("pw-{}-{}", w.device, options.seed))).collect();
        let mut users: Vec<(String, String)> = wearables.iter().map(|(w, pw)| (w.device.clone(), pw.clone())).collect();
        users.push(("gateway".into(), "pw-gateway".into()));
        let people = async {
            alliance.enrol("gateway1", "gateway").await?;
            for patient in 1..=PATIENTS {
                alliance.enrol(&format!("patient{patient}"), "patient").await?;
            }
            alliance.enrol("clinician", "clinician").await?;
            alliance.enrol("stranger", "clinician").await
        };
        let broker_folder = out.join("broker");
        let mut others = Node::start_all(&alliance, options.node)?;
        let mut node = others.remove(0);
        let (broker, people) = tokio::join!(Broker::start(&broker_folder, &users), people);
        let broker = broker?;
        people?;
        node.answers("clinician").await?;
        view.part("node", "runs");
        let patients = rooms(&alliance, &view).await?;
        let clinician = alliance.ehe_json("clinician", &["identity", "show"]).await?;
        let clinician = text(clinician.first(), "author")?;
        let assignments: Vec<Assignment> = wearables
            .iter()
            .filter_map(|(w, _)| {
                let room = patients.get(w.patient)?.room.clone();
                Some(Assignment { device: w.device.clone(), room })
            })
            .collect();
        let settings = Settings { window_ms: options.window_ms, log: options.gateway_log };
        let gateway = Gateway::start(&alliance, &broker, "pw-gateway", &assignments, settings).await?;
        view.part("gateway", "runs");
        let journal = Journal::create(&out.join("published.jsonl"))?;
        let seed = options.seed;
        Ok(Self {
            view,
            out,
            alliance,
            node,
            others,
            broker,
            gateway,
            patients,
            wearables,
            clinician,
            journal,
            seed,
            capture,
            measured_ms: Arc::default(),
        })
    }

    /// All nodes.
    pub fn nodes(&mut self) -> impl Iterator<Item = &mut Node> {
        std::iter::once(&mut self.node).chain(&mut self.others)
    }

    /// The node of this number, from 1 on.
    pub fn node_of(&mut self, number: usize) -> Result<&mut Node> {
        self.nodes().find(|node| node.number == number).with_context(|| format!("there is no node {number}"))
    }

    /// Starts the wearables; they publish until `stop` says so. None measures a moment twice, also where it is started anew: a
    /// reading is told from others by device, vital and time, and an oximeter's sending reaches back by a second.
    pub fn publish(&self, stop: &watch::Receiver<bool>) -> Result<JoinSet<Result<usize>>> {
        let mut tasks = JoinSet::new();
        for (at, (wearable, password)) in (0u64..).zip(&self.wearables) {
            let Some(patient) = self.patients.get(wearable.patient) else { continue };
            let mut publisher = Publisher::connect(&wearable.device, password, &self.broker, self.journal.clone())?;
            let (wearable, room, view, mut stop) =
                (wearable.clone(), patient.room.clone(), self.view.clone(), stop.clone());
            let mut day =
                Day::new(self.seed.wrapping_mul(1009).wrapping_add(u64::try_from(wearable.patient).unwrap_or(0)));
            if let Some(beats) = &self.capture {
                day.replay_heart_rate(beats.clone());
            }
            let measured_ms = Arc::clone(&self.measured_ms);
            let since = Timestamp::now().as_millisecond().saturating_sub(measured_ms.load(Ordering::Relaxed));
            let rest = Duration::from_millis(u64::try_from(wearable::REACH_MS.saturating_sub(since)).unwrap_or(0));
            tasks.spawn(async move {
                // Devices are not in step.
                tokio::time::sleep(rest + Duration::from_millis(90 * at)).await;
                let mut tick = tokio::time::interval(Duration::from_secs(wearable.every_s));
                tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
                loop {
                    tokio::select! {
                        _ = stop.wait_for(|stop| *stop) => break,
                        _ = tick.tick() => {}
                    }
                    let mut now = day.step();
                    for _ in 1..wearable.every_s {
                        now = day.step();
                    }
                    let at = Timestamp::now();
                    measured_ms.fetch_max(at.as_millisecond(), Ordering::Relaxed);
                    let sending = wearable.send(&room, &now, at);
                    let (count, payload) = (sending.readings.len(), sending.payload.clone());
                    publisher.send(sending).await?;
                    view.row(&wearable.device, |row| {
                        row.published += count;
                        row.last = payload;
                    });
                }
                publisher.finish(Duration::from_secs(20)).await
            });
        }
        Ok(tasks)
    }

    /// Reads every room as somebody, into lines; fails unless all are readable.
    pub async fn read_all(&self, who: &str) -> Result<Vec<String>> {
        let mut lines = Vec::new();
        for patient in &self.patients {
            let finished = self.alliance.ehe(who, &["--json", "read", "--room", &patient.room]).await?;
            let finished = finished.success(&format!("ehe read of {}'s room as {who}", patient.who))?;
            lines.extend(finished.stdout.lines().map(str::to_owned));
        }
        Ok(lines)
    }

    /// Tries to read every room as somebody who must be refused; gives the number of refusals.
    pub async fn refused_all(&self, who: &str) -> Result<usize> {
        for patient in &self.patients {
            let finished = self.alliance.ehe(who, &["--json", "read", "--room", &patient.room]).await?;
            ensure!(
                finished.code == Some(REFUSED) && finished.stdout.is_empty(),
                "{who} was not refused in {}'s room: exit code {:?}, {} bytes printed\n{}",
                patient.who,
                finished.code,
                finished.stdout.len(),
                finished.stderr
            );
        }
        Ok(self.patients.len())
    }

    /// Ends the clinician's grants in every room.
    pub async fn revoke_clinician(&self) -> Result<()> {
        for patient in &self.patients {
            let revoke = ["revoke", "--room", &patient.room, "--subject", &self.clinician];
            self.alliance.ehe_json(&patient.who, &revoke).await?;
        }
        Ok(())
    }

    /// Access records of all rooms; each room is verified whole on the way.
    pub async fn audited(&self) -> Result<usize> {
        let mut records = 0;
        for patient in &self.patients {
            let checks = self.alliance.ehe(&patient.who, &["verify", "--room", &patient.room]).await?;
            checks.success(&format!("ehe verify of {}'s room", patient.who))?;
            let lines = self.alliance.ehe_json(&patient.who, &["audit", "--room", &patient.room]).await?;
            let count = |line: &serde_json::Value| line.get("count").and_then(serde_json::Value::as_u64).unwrap_or(1);
            records += usize::try_from(lines.iter().map(count).sum::<u64>())?;
        }
        Ok(records)
    }
}

async fn rooms(alliance: &Alliance, view: &View) -> Result<Vec<Patient>> {
    let mut patients = Vec::new();
    let gateway = alliance.path("gateway1").join("identity.pub");
    let clinician = alliance.path("clinician").join("identity.pub");
    let (gateway, clinician) = (gateway.to_string_lossy().into_owned(), clinician.to_string_lossy().into_owned());
    for number in 1..=PATIENTS {
        let who = format!("patient{number}");
        let created = alliance.ehe_json(&who, &["room", "create", "--name", &format!("Patient {number}")]).await?;
        let room = text(created.first(), "room")?;
        let append = ["grant", "--room", &room, "--to", &gateway, "--append=all", "--name", "my gateway"];
        alliance.ehe_json(&who, &append).await?;
        let read = ["grant", "--room", &room, "--to", &clinician, "--read", "all", "--name", "Dr. Lab"];
        alliance.ehe_json(&who, &[&read[..], &["--purpose", "follow-up at home"]].concat()).await?;
        view.say(format!("{who} made room {room}, invited the gateway to append and the clinician to read"));
        patients.push(Patient { who, room });
    }
    Ok(patients)
}

fn text(value: Option<&serde_json::Value>, member: &str) -> Result<String> {
    let value = value.and_then(|v| v.get(member)).and_then(serde_json::Value::as_str);
    value.map(str::to_owned).with_context(|| format!("a program's JSON has no member {member:?}"))
}

/// One whole round, with faults; the account at its end, and whether everything is as it must be.
pub async fn once(scene: &mut Scene) -> Result<Account> {
    let view = scene.view.clone();
    let (stop, stopped) = watch::channel(false);
    let mut publishing = scene.publish(&stopped)?;
    view.say("five wearables publish");
    tokio::time::sleep(Duration::from_secs(6)).await;
    let (taken, without_leader) = take_the_leader(scene).await?;
    let outage = Duration::from_secs(5).saturating_sub(without_leader.unwrap_or_default());
    tokio::time::sleep(outage).await;
    scene.gateway.daemon.kill().await?;
    view.say("the gateway is killed (kill -9); the broker keeps what comes");
    tokio::time::sleep(Duration::from_secs(4)).await;
    scene.gateway.daemon.start()?;
    view.say("the gateway is back");
    scene.node_of(taken)?.daemon.start()?;
    view.say("the node is back");
    tokio::time::sleep(Duration::from_secs(7)).await;
    stop.send_replace(true);
    let published = silence(&mut publishing).await?;
    view.say(format!("the wearables are silent; {published} readings were acknowledged by the broker"));
    settle(scene, published).await?;
    let account = finish(scene).await?;
    Ok(Account {
        without_leader_ms: without_leader.map(|time| u64::try_from(time.as_millis()).unwrap_or(u64::MAX)),
        ..account
    })
}

/// Kills (-9) the node that leads most; its number, and for how long nobody led in its place. A node alone has no other.
async fn take_the_leader(scene: &mut Scene) -> Result<(usize, Option<Duration>)> {
    let view = scene.view.clone();
    let all: Vec<usize> = scene.alliance.numbers().collect();
    if all.len() == 1 {
        scene.node.daemon.kill().await?;
        view.say("the node is taken away (kill -9)");
        return Ok((1, None));
    }
    let leaders = Leaders::asked_by(&scene.alliance, "clinician")?;
    let taken = leaders.first(&all, ELECTED).await?;
    let others: Vec<usize> = all.into_iter().filter(|number| *number != taken).collect();
    let killed = Instant::now();
    scene.node_of(taken)?.daemon.kill().await?;
    view.say(format!("node {taken}, which leads, is taken away (kill -9)"));
    leaders.agreed(&others, ELECTED).await?;
    let without = killed.elapsed();
    view.say(format!("another node leads after {:.1} s; the gateway goes on", without.as_secs_f64()));
    Ok((taken, Some(without)))
}

/// Waits for the wearables' last acknowledgements; the number of readings acknowledged.
pub async fn silence(publishing: &mut JoinSet<Result<usize>>) -> Result<usize> {
    let mut published = 0;
    while let Some(done) = publishing.join_next().await {
        published += done??;
    }
    Ok(published)
}

/// Waits until the gateway holds a verified receipt for every published reading.
pub async fn settle(scene: &mut Scene, published: usize) -> Result<()> {
    let report = scene.gateway.report();
    let gateway = &mut scene.gateway;
    let mut confirmed = 0;
    let waited = until("every reading is confirmed by a receipt", Duration::from_secs(40), || {
        let count = Latencies::read(&report).map(|l| l.len());
        let alive = gateway.daemon.check();
        if let Ok(count) = &count {
            confirmed = *count;
        }
        async move {
            alive?;
            Ok((count? >= published).then_some(()))
        }
    })
    .await;
    scene.view.say(format!("{confirmed} of {published} readings are confirmed by verified receipts"));
    waited
}

/// Reads everything back, lets everybody be refused who must be, and makes up the account.
pub async fn finish(scene: &Scene) -> Result<Account> {
    let view = &scene.view;
    let lines = scene.read_all("clinician").await?;
    let mut file = File::create(scene.out.join("read.jsonl"))?;
    file.write_all(lines.iter().map(|line| format!("{line}\n")).collect::<String>().as_bytes())?;
    view.say(format!("the invited clinician reads {} readings", lines.len()));
    let mut refused_reads = scene.refused_all("stranger").await?;
    view.say(format!("a stranger asks for {refused_reads} rooms and is refused each time"));
    scene.revoke_clinician().await?;
    view.say("the patients revoke the clinician's grants");
    let after = scene.refused_all("clinician").await?;
    refused_reads += after;
    view.say(format!("the clinician asks again and is refused {after} times"));
    let audited_reads = scene.audited().await?;
    view.say(format!("the ledgers verify, and their audits show {audited_reads} requests to the patients"));
    let compared =
        Compared::new(read_lines(&scene.out.join("published.jsonl"))?, read_lines(&scene.out.join("read.jsonl"))?);
    let latencies = Latencies::read(&scene.gateway.report())?;
    let of_published = latencies.of(&compared);
    Ok(Account {
        published: compared.published.len(),
        confirmed: of_published.len(),
        read_back: compared.read.len(),
        lost: compared.lost().count(),
        duplicates: compared.duplicates(),
        refused_reads,
        audited_reads,
        p50_ms: percentile(&of_published, 50),
        p99_ms: percentile(&of_published, 99),
        nodes: scene.alliance.numbers().count(),
        without_leader_ms: None,
    })
}

impl Account {
    /// What is not as it must be.
    pub fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        let mut check = |holds: bool, what: &str| {
            if !holds {
                faults.push(what.to_owned());
            }
        };
        check(self.published > 0, "nothing was published");
        check(self.confirmed == self.published, "not every published reading is confirmed");
        check(self.read_back == self.published, "not exactly the published readings were read back");
        check(self.lost == 0, "readings are lost");
        check(self.duplicates == 0, "readings are doubled");
        check(self.refused_reads == 2 * PATIENTS, "not everybody who had to be refused was");
        check(self.audited_reads >= self.refused_reads + PATIENTS, "not every request stands in the audits");
        faults
    }
}

/// Goes on until somebody asks it to end: publishes, lets the clinician watch, and lets a stranger try now and then.
pub async fn live(scene: &mut Scene, asked: &Asked) -> Result<()> {
    let view = scene.view.clone();
    let (stop, stopped) = watch::channel(false);
    let mut publishing = scene.publish(&stopped)?;
    let mut watching = crate::watching::Watching::start(scene)?;
    let start = Instant::now();
    let mut tick = tokio::time::interval(Duration::from_secs(1));
    loop {
        tokio::select! {
            // First: what a terminal tells everything that runs in it has ended the watches as well.
            biased;
            _ = asked.wait() => break,
            done = publishing.join_next() => {
                if let Some(done) = done { done??; }
            }
            seen = watching.next() => {
                let Some((device, text)) = seen? else { continue };
                view.row(&device, |row| row.read += 1);
                view.part("clinician", text);
            }
            _ = tick.tick() => {
                scene.gateway.daemon.check()?;
                for node in scene.nodes() {
                    node.daemon.check()?;
                }
                let confirmed = Latencies::read(&scene.gateway.report())?.len();
                view.part("gateway", format!("{confirmed} readings confirmed by verified receipts"));
                if start.elapsed().as_secs() % 20 == 10 {
                    let refused = scene.refused_all("stranger").await?;
                    view.say(format!("a stranger asked for {refused} rooms and was refused; it stands in their audits"));
                }
                view.draw();
            }
        }
    }
    stop.send_replace(true);
    view.say("stopping: gateway, then nodes");
    scene.gateway.daemon.stop().await?;
    for node in scene.nodes() {
        node.daemon.stop().await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_number_that_is_not_as_it_must_be_is_a_fault() {
        let good = Account {
            published: 10,
            confirmed: 10,
            read_back: 10,
            lost: 0,
            duplicates: 0,
            refused_reads: 2 * PATIENTS,
            audited_reads: 3 * PATIENTS,
            p50_ms: 1,
            p99_ms: 2,
            nodes: 3,
            without_leader_ms: Some(1),
        };
        assert_eq!(good.faults(), Vec::<String>::new());
        let spoilt = [
            Account { published: 0, confirmed: 0, read_back: 0, ..good.clone() },
            Account { confirmed: 9, ..good.clone() },
            Account { read_back: 9, ..good.clone() },
            Account { read_back: 11, ..good.clone() },
            Account { lost: 1, ..good.clone() },
            Account { duplicates: 1, ..good.clone() },
            Account { refused_reads: 2 * PATIENTS - 1, ..good.clone() },
            Account { audited_reads: 3 * PATIENTS - 1, ..good },
        ];
        for account in spoilt {
            assert_eq!(account.faults().len(), 1, "{account:?}");
        }
    }
}
