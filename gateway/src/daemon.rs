//! The running gateway: what is started in which order, and stopped in which.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use certs::{Client, Credentials, Role};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::clock::SystemClock;
use crate::config::{Checked, ConfigError};
use crate::dispatch::Dispatch;
use crate::held;
use crate::report::Report;
use crate::rooms::{Rooms, Sealer};
use crate::seal::Closing;
use crate::source;
use crate::source::mqtt::MqttSource;
use crate::source::replay::ReplaySource;
use crate::spool::{self, Spool, SpoolError};
use crate::status::freshness::WRITTEN_EVERY;
use crate::status::run_lock::{Run, RunLock};
use crate::status::{self, Counters, Status};
use crate::systemd::{Manager, Word};
use crate::uplink::{Charters, Uplink, UplinkParts, UplinkStatus};

/// The status file in the data directory.
pub const STATUS_FILE: &str = "status.json";
/// Directory of evidence in the data directory.
pub const EVIDENCE_DIR: &str = "evidence";
/// Days of readings whose event keys stay in memory: today, yesterday, and a week of late ones.
const KEY_DAYS_MAX: usize = 9;
/// How often windows on hold are tried again although their rooms did not change.
const HOLD_RETRY: Duration = Duration::from_secs(300);
/// How often held readings are tried again that their room had no place for.
const HELD_RETRY: Duration = Duration::from_secs(60);
/// Messages whose commits are awaited, and batches of arrivals that the windows have not looked at.
const PIPE: usize = 1024;

/// Why the gateway did not start, or ended by itself.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// The configuration.
    #[error("configuration: {0}")]
    Config(#[from] ConfigError),
    /// The credentials directory.
    #[error("credentials: {0}")]
    Credentials(#[from] certs::store::StoreError),
    /// The credentials are somebody else's.
    #[error(
        "credentials: {} are those of {peer}, and a gateway needs its own: `ehe-certs identity new --role gateway`, and name that directory in credentials_dir",
        .dir.display()
    )]
    NotAGateway {
        /// `credentials_dir`.
        dir: PathBuf,
        /// Whose they are.
        peer: certs::PeerIdentity,
    },
    /// The charters by which nodes are judged.
    #[error(transparent)]
    Charters(#[from] crate::uplink::ChartersError),
    /// The channel to the nodes cannot be made.
    #[error("channel: {0}")]
    Channel(#[from] certs::ChannelError),
    /// The spool.
    #[error("spool: {0}")]
    Spool(#[from] SpoolError),
    /// A file or the system.
    #[error("{what}: {why}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// What the system said.
        why: std::io::Error,
    },
    /// A part of the program ended that should not have.
    #[error("the part {0:?} of this program has failed; please report it")]
    Part(&'static str),
}

/// Runs until SIGTERM or SIGINT.
pub async fn run(checked: Checked) -> Result<(), DaemonError> {
    let io = |what| move |why| DaemonError::Io { what, why };
    let checked = Arc::new(checked);
    let config = &checked.config;
    let mut terminate = signal(SignalKind::terminate()).map_err(io("SIGTERM"))?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(io("SIGINT"))?;

    // --- what everything stands on
    let clock = SystemClock::new(config.clock.synchronised_file.clone());
    let counters = status::counters();
    let credentials = load_credentials(&checked)?;
    let (client, identity) = (Client::new(&credentials)?, Arc::new(credentials.identity().clone()));
    let report = match &config.report_confirmations {
        Some(path) => Some(Report::open(path, clock.wall()).map_err(io("report_confirmations"))?),
        None => None,
    };
    spool::create_dir(&config.data_dir)?;
    let run = Run { pid: std::process::id(), started_ms: clock.now().utc };
    let lock = RunLock::take(&config.data_dir, run);
    let database = spool::file(&config.data_dir, config.spool.cache_bytes());
    let key_file = config.data_dir.join("spool.key");
    let (spool, spool_thread) = Spool::open(database, &key_file, config.spool_limits(), clock.wall(), report)?;
    // Held to the end. Readings are taken without it, too. Said only now: a second gateway on the same data ends with the error before.
    let _lock = lock.inspect_err(|error| {
        tracing::warn!(%error, "running.lock (in data_dir) cannot be held: `ehe-gateway status` will say that this gateway does not run");
    });

    // --- what earlier runs left
    let rooms = Rooms::new(identity, credentials.alliance_id());
    for (room, saved) in spool.load_rooms().await? {
        if let Err(error) = rooms.restore(room, &saved) {
            tracing::warn!(%room, %error, "room: what was kept of it cannot be used; it is followed anew");
        }
    }
    rooms.assigned(checked.assignments.rooms());
    let assigned = held::assign(&spool, &checked).await?;
    if assigned.readings > 0 {
        tracing::info!(readings = assigned.readings, "held readings have found their owner");
    }
    if assigned.left > 0 {
        tracing::warn!(
            devices = assigned.left,
            "held readings stay held: what waits to be sealed fills their owner's share (spool.room_max_percent); tried again later"
        );
    }
    let restored = spool.windows().await?;

    // --- the way of the data, one task each: sources → dispatch → (commit) → settle → closing → (outbox) → uplink
    let sealer = Sealer::new(rooms.clone(), KEY_DAYS_MAX);
    let uplink = Uplink::new(UplinkParts {
        client: client.clone(),
        credentials: credentials.clone(),
        charters: Charters::of(&credentials, &config.data_dir)?,
        evidence: config.data_dir.join(EVIDENCE_DIR),
        spool: spool.clone(),
        rooms,
        sealer: sealer.clone(),
        config: config.uplink.clone(),
        clock: clock.wall(),
    });
    let uplink_status = uplink.status();
    let closing = Closing {
        spool: spool.clone(),
        sealer,
        clock: clock.clone(),
        limits: config.window.limits(),
        hold_retry: HOLD_RETRY,
        report: config.report_confirmations.is_some(),
        counters: counters.clone(),
    };
    let dispatch = Dispatch { checked: checked.clone(), spool: spool.clone(), counters: counters.clone() };
    let (stop_intake, stop_sealing, stop_uplink) =
        (CancellationToken::new(), CancellationToken::new(), CancellationToken::new());
    let (inputs, input_queue) = mpsc::channel(source::CHANNEL_MESSAGES);
    let (pending, pending_queue) = mpsc::channel(PIPE);
    let (arrivals, arrival_queue) = mpsc::channel(PIPE);
    let (mut intake, mut sealing, mut sending) = (JoinSet::new(), JoinSet::new(), JoinSet::new());
    sending.spawn(named("uplink", uplink.run(stop_uplink.clone())));
    sealing.spawn(named("closing", closing.run(restored, arrival_queue, stop_sealing.clone())));
    if assigned.left > 0 {
        let (spool, checked, stop) = (spool.clone(), checked.clone(), stop_intake.clone());
        let rest = held::assign_the_rest(spool, checked, arrivals.clone(), HELD_RETRY, stop);
        intake.spawn(named("held", rest));
    }
    intake.spawn(named("settle", dispatch.clone().settle(pending_queue, arrivals, stop_intake.clone())));
    intake.spawn(named("dispatch", dispatch.run(input_queue, pending, stop_intake.clone())));
    for one in &config.mqtt {
        let source = MqttSource::new(one.clone(), clock.clone(), counters.clone())?;
        intake.spawn(named("mqtt", source.run(inputs.clone(), stop_intake.clone())));
    }
    for one in &config.replay {
        let source = ReplaySource { config: one.clone(), clock: clock.clone(), spool: spool.clone() };
        intake.spawn(named("replay", source.run(inputs.clone(), stop_intake.clone())));
    }
    let manager = Manager::start().map_err(|why| DaemonError::Io { what: "starting a thread", why })?;
    let publisher = Publisher {
        path: config.data_dir.join(STATUS_FILE),
        run,
        spool,
        counters,
        clock,
        uplink: uplink_status,
        manager: manager.clone(),
    };
    let status = tokio::spawn(publisher.clone().run(stop_uplink.clone()));
    manager.tell(Word::Ready);
    tracing::info!(gateway = %credentials.peer(), "running");

    // --- until somebody says stop, or a part fails
    let failed = loop {
        tokio::select! {
            _ = terminate.recv() => break None,
            _ = interrupt.recv() => break None,
            Some(ended) = intake.join_next() => match ended {
                Ok("replay" | "held") => {} // at the end of its file; nothing is left
                Ok(part) => break Some(part),
                Err(_) => break Some("intake"),
            },
            Some(_) = sealing.join_next() => break Some("closing"),
            Some(_) = sending.join_next() => break Some("uplink"),
        }
    };

    // --- against the way of the data would lose nothing either; along it, less is sent again
    tracing::info!("stopping");
    manager.tell(Word::Stopping);
    stop_intake.cancel();
    while intake.join_next().await.is_some() {}
    stop_sealing.cancel();
    while sealing.join_next().await.is_some() {}
    stop_uplink.cancel();
    while sending.join_next().await.is_some() {}
    let _ = status.await;
    client.close(certs::CloseCode::GoingAway);
    client.wait_idle(Duration::from_secs(1)).await;
    publisher.write().await;
    let ended = tokio::task::spawn_blocking(move || spool_thread.stop()).await;
    match failed {
        Some(part) => Err(DaemonError::Part(part)),
        None if ended.is_err() => Err(DaemonError::Part("spool")),
        None => Ok(()),
    }
}

/// Credentials of a gateway, of the alliance that the configuration names.
pub fn load_credentials(checked: &Checked) -> Result<Credentials, DaemonError> {
    let credentials = Credentials::load(&checked.config.credentials_dir)?;
    if credentials.peer().role() != Role::Gateway {
        return Err(DaemonError::NotAGateway { dir: credentials.dir().to_owned(), peer: credentials.peer() });
    }
    if let Some(alliance) = checked.config.alliance {
        credentials.expect_alliance(alliance)?;
    }
    Ok(credentials)
}

/// Whether the data directory can be made and written to; leaves nothing behind.
pub fn check_data_dir(data_dir: &Path) -> Result<(), DaemonError> {
    let failed = |why| SpoolError::Directory { path: data_dir.to_owned(), why };
    // Where it is not there yet, the directory that it would be made in.
    let there = data_dir.ancestors().find(|path| path.symlink_metadata().is_ok()).unwrap_or(Path::new("."));
    let probe = there.join(format!(".ehe-gateway-check-{}", std::process::id()));
    std::fs::DirBuilder::new().create(&probe).and_then(|()| std::fs::remove_dir(&probe)).map_err(failed)?;
    Ok(())
}

/// Where the status of a data directory stands.
pub fn status_path(data_dir: &Path) -> PathBuf {
    data_dir.join(STATUS_FILE)
}

async fn named(name: &'static str, part: impl Future<Output = ()>) -> &'static str {
    part.await;
    name
}

/// Writes the status file every few seconds, and tells systemd's watchdog that the program lives.
#[derive(Clone)]
struct Publisher {
    path: PathBuf,
    run: Run,
    spool: Spool,
    counters: Arc<Counters>,
    clock: SystemClock,
    uplink: watch::Receiver<UplinkStatus>,
    manager: Manager,
}

impl Publisher {
    async fn run(self, stop: CancellationToken) {
        let watchdog = sd_notify::watchdog_enabled().is_some();
        loop {
            self.write().await;
            if watchdog {
                self.manager.tell(Word::Alive);
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(WRITTEN_EVERY) => {}
            }
        }
    }

    async fn write(&self) {
        // While the disk refuses, reading the held devices may wait: the numbers must come all the same.
        let held = tokio::time::timeout(Duration::from_millis(500), self.spool.held_devices()).await;
        let (counts, spool, uplink) = (self.counters.snapshot(), self.spool.status(), self.uplink.borrow().clone());
        let faults = status::Faults::of(&counts, &spool, &uplink);
        let status = Status {
            written_ms: self.clock.now().utc,
            run: self.run,
            counts,
            spool,
            uplink,
            faults,
            held: held
                .map(|held| held.unwrap_or_default().into_iter().map(|(_, device)| device).collect())
                .unwrap_or_default(),
        };
        // Also where the disk does not take the file: systemd is told.
        self.manager.tell(Word::Status(status::line(&status)));
        let path = self.path.clone();
        let written = tokio::task::spawn_blocking(move || status::write(&path, &status)).await;
        if let Ok(Err(error)) = written {
            tracing::warn!(%error, "status.json could not be written");
        }
    }
}
