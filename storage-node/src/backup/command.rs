//! `ehe-node backup`, `ehe-node restore`.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use certs::Credentials;
use certs::file;
use certs::terminal::escaped;
use certs::told::{instant, kept_and_lost};
use clap::Args;
use ehe::charter::{VerifiedCharter, shards_in_words};
use ehe::id::AllianceId;
use ehe::limits::CHECKPOINT_MAX_BYTES;
use ehe::restoration::{decode_all, encode_all};
use ehe::time::UnixMs;

use super::restore::{self, RECORDS_MAX_BYTES};
use super::{BackupError, Chain, rehearse, save};
use crate::config::Config;
use crate::daemon::placed;

/// Take a backup of the running node, or look whether backups can be relied on.
#[derive(Debug, Args)]
pub struct Backup {
    /// The configuration that the node runs with.
    #[arg(long, required_unless_present = "verify")]
    config: Option<PathBuf>,
    /// A new file, or a directory in which it gets a name.
    #[arg(long, value_name = "PATH", required_unless_present = "verify")]
    to: Option<PathBuf>,
    /// The backup before this one: what it has, or has from those before it, is not kept again.
    #[arg(long, value_name = "FILE")]
    since: Option<PathBuf>,
    /// Most MiB that are taken in a second, so that clients notice little.
    #[arg(long, value_name = "MIB", default_value_t = 64, value_parser = clap::value_parser!(u64).range(1..=1 << 20))]
    rate: u64,
    /// Take none; verify these files, the full one first: hashes, signatures, the log's root, its checkpoint, and each entry, by restoring it
    /// for the look of it.
    #[arg(long, value_name = "FILE", num_args = 1.., conflicts_with_all = ["to", "since"])]
    verify: Vec<PathBuf>,
    /// With --verify: a directory with room for the largest shard, for the time of the look; by default that of the last file.
    #[arg(long, value_name = "DIR", requires = "verify")]
    scratch: Option<PathBuf>,
    /// The alliance whose backup it has to be; without it or a configuration, the id is shown to be compared.
    #[arg(long, value_name = "ID")]
    alliance: Option<AllianceId>,
}

/// Begin this node's shards again from a backup, where no node of the alliance has them any more.
///
/// A node that lost its disk while others of its groups live is not restored: give it a new id and start it empty, and they send it
/// everything, newer than any backup.
#[derive(Debug, Args)]
pub struct Restore {
    /// The node's configuration. Its data directory has to be empty.
    #[arg(long)]
    config: PathBuf,
    /// The backup: the full file first, and each later one behind the one that it was taken since. The same for all nodes of a group.
    #[arg(long, value_name = "FILE", required = true, num_args = 1..)]
    from: Vec<PathBuf>,
    /// Restore nothing yet; write what the members have to sign (`ehe-certs restoration sign`): what is kept, and what is lost.
    #[arg(long, value_name = "FILE", required_unless_present = "record", conflicts_with = "record")]
    propose: Option<PathBuf>,
    /// With --propose: a checkpoint that somebody kept and that is newer than the backup (a signed note): so that the record says how much is lost.
    #[arg(long, value_name = "FILE", requires = "propose")]
    newest: Vec<PathBuf>,
    /// What a majority of the members signed: restore.
    #[arg(long, value_name = "FILE")]
    record: Option<PathBuf>,
}

/// Which shards of the alliance are not in a backup, and where they live; whether it holds any at all.
fn absent(newest: &VerifiedCharter, held: &BTreeSet<u16>) -> (bool, Option<String>) {
    let mut elsewhere: BTreeMap<String, Vec<u16>> = BTreeMap::new();
    for shard in (0..newest.shard_count().get()).filter(|shard| !held.contains(shard)) {
        let names = newest.group(shard).iter().filter_map(|id| newest.node(*id)).map(|node| node.name.as_str());
        elsewhere.entry(names.collect::<Vec<_>>().join(", ")).or_default().push(shard);
    }
    let version = newest.version();
    let lines: Vec<String> = elsewhere
        .into_iter()
        .map(|(names, of)| {
            format!("not in this backup: {}, which charter {version} places on {names}", shards_in_words(&of))
        })
        .collect();
    (!held.is_empty(), (!lines.is_empty()).then(|| lines.join("\n")))
}

/// Says what is not in a backup; false if nothing is.
fn say_absent(newest: &VerifiedCharter, held: &BTreeSet<u16>, out: &mut dyn Write) -> anyhow::Result<bool> {
    let (any, absent) = absent(newest, held);
    if let Some(absent) = absent {
        writeln!(out, "{absent}")?;
    }
    if !any {
        writeln!(
            out,
            "this backup holds no shard: nothing can be restored from it; take one of a node that holds them"
        )?;
    }
    Ok(any)
}

/// `ehe-node backup`. False: what was looked at cannot be relied on, or there is nothing in it.
pub fn backup(args: &Backup, out: &mut dyn Write) -> anyhow::Result<bool> {
    match take_or_verify(args, out) {
        Err(error) if error.downcast_ref::<BackupError>().is_some_and(BackupError::is_found) => {
            tracing::error!("{}", escaped(&error.to_string()));
            Ok(false)
        }
        done => done,
    }
}

fn take_or_verify(args: &Backup, out: &mut dyn Write) -> anyhow::Result<bool> {
    if let Some((config, to)) = args.config.as_ref().zip(args.to.as_ref()) {
        let config = Config::load(config)?;
        let rate = args.rate << 20;
        let saved = save(&config.data_dir, to, args.since.as_deref(), rate)?;
        writeln!(
            out,
            "{}: {} bytes, {} of {} chunks are new",
            saved.path.display(),
            saved.bytes,
            saved.new_chunks,
            saved.chunks
        )?;
        for (shard, leaves) in &saved.leaves {
            writeln!(out, "shard {shard}: {leaves} leaves")?;
        }
        let held = saved.leaves.iter().map(|(shard, _)| *shard).collect();
        return say_absent(&saved.newest, &held, out);
    }
    let pinned = match (&args.alliance, &args.config) {
        (Some(alliance), _) => Some(*alliance),
        (None, Some(config)) => Some(Credentials::load(&Config::load(config)?.credentials_dir)?.alliance_id()),
        (None, None) => None,
    };
    let chain = Chain::open(&args.verify, pinned).map_err(|error| match (error, &args.alliance) {
        // There are no credentials here whose alliance it could be.
        (BackupError::OtherAlliance { found, expected }, Some(_)) => {
            anyhow::anyhow!("the backup is of alliance {found}, and not of {expected}, which was named")
        }
        (error, _) => error.into(),
    })?;
    let beside = args.verify.last().and_then(|path| path.parent()).filter(|path| !path.as_os_str().is_empty());
    rehearse(&chain, args.scratch.as_deref().or(beside).unwrap_or(Path::new(".")))?;
    writeln!(
        out,
        "alliance {}, node {}, taken at {}",
        chain.begin.alliance,
        chain.begin.node,
        instant(chain.begin.at)
    )?;
    for (shard, held) in &chain.shards {
        let said = &held.statement;
        writeln!(
            out,
            "shard {shard}, incarnation {}: {} leaves, accepted until {}, root {}: cosigned by a quorum in a checkpoint of {} leaves",
            said.incarnation,
            said.leaves,
            instant(said.time),
            said.root,
            held.known
        )?;
    }
    let held = chain.shards.keys().copied().collect();
    let any = chain.charters.last().map_or(Ok(true), |newest| say_absent(newest, &held, out))?;
    if any {
        writeln!(out, "{}", if pinned.is_some() { "verified" } else { "verified, if that is your alliance" })?;
    }
    Ok(any)
}

/// `ehe-node restore`.
pub fn restore(args: &Restore, now: UnixMs, out: &mut dyn Write) -> anyhow::Result<()> {
    let config = Config::load(&args.config)?;
    let placed = placed(&config, Credentials::load(&config.credentials_dir)?)?;
    let alliance = placed.credentials.alliance_id();
    let chain = Chain::open(&args.from, Some(alliance))?;
    if let Some(propose) = &args.propose {
        let note = |path: &PathBuf| file::read_text(path, CHECKPOINT_MAX_BYTES, "name a checkpoint's note");
        let newest = args.newest.iter().map(note).collect::<Result<Vec<_>, _>>()?;
        let charters = restore::charters(&placed, &chain)?;
        let records = restore::propose(&chain, &charters, &newest, now)?;
        file::create_public(propose, &encode_all(&records))?;
        for record in &records {
            let (said, known) = record.sound(&charters)?;
            writeln!(out, "shard {}: {}", said.shard, kept_and_lost(&said, known))?;
        }
        writeln!(
            out,
            "{} records in {}: a majority of the members signs them (ehe-certs restoration sign), then: ehe-node restore --record",
            records.len(),
            propose.display()
        )?;
        return Ok(());
    }
    let Some(record) = &args.record else { bail!("name --propose or --record") };
    let records = read_records(record)?;
    let restored = restore::restore(&config, &placed, (&chain, &records))?;
    if restored.is_empty() {
        writeln!(
            out,
            "nothing is restored, and nothing was written: no shard in the backup was this node's when it was taken, and charter {} places {} on it. \
             Start it empty (`ehe-node run`): what is placed on it, it gets from the others",
            placed.charters.version(),
            match placed.charters.newest().shards_of(placed.id).count() {
                0 => "no shard".to_owned(),
                later => format!("{later} since"),
            }
        )?;
        return Ok(());
    }
    for shard in restored {
        writeln!(
            out,
            "shard {}: goes on with {} leaves, as incarnation {}",
            shard.shard, shard.leaves, shard.incarnation
        )?;
    }
    writeln!(
        out,
        "restored into {}; the other nodes of these groups are restored from the same files, then all are started",
        config.data_dir.display()
    )?;
    Ok(())
}

fn read_records(path: &Path) -> anyhow::Result<Vec<ehe::restoration::SignedRestoration>> {
    let bytes = file::read_public(path, RECORDS_MAX_BYTES, "`ehe-node restore --propose` writes one to be signed")?;
    decode_all(&bytes, RECORDS_MAX_BYTES).with_context(|| path.display().to_string())
}
