//! What a process has used, as Linux tells it (proc(5)), and what its folder takes on the disk.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};

/// Ticks a second of the times in `/proc/PID/stat`: 100 on every Linux that is not a relic.
const TICKS_PER_S: u64 = 100;

/// Processor time of a process so far, all its threads together, ended ones included.
pub(super) fn cpu(pid: u32) -> Result<Duration> {
    // utime and stime.
    ticks(&pid.to_string(), 11)
}

/// Two times of a process that stand side by side, together: those after so many fields.
fn ticks(process: &str, skipped: usize) -> Result<Duration> {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat"))?;
    // The name is in parentheses and may hold anything; fields are counted after it.
    let after = stat.rsplit_once(')').context("stat has a name")?.1;
    let mut fields = after.split_whitespace().skip(skipped);
    let mut ticks = || fields.next().and_then(|field| field.parse::<u64>().ok()).context("stat has times");
    Ok(Duration::from_millis((ticks()? + ticks()?) * 1000 / TICKS_PER_S))
}

/// Processor time of all children that have ended and were waited for.
pub(super) fn cpu_of_children() -> Result<Duration> {
    // cutime and cstime come right after utime and stime.
    ticks("self", 13)
}

/// Of several processes together.
pub(super) fn cpu_of(pids: &[u32]) -> Result<Duration> {
    pids.iter().map(|pid| cpu(*pid)).sum()
}

/// Memory in MiB: what was resident at most, and what is now.
pub(super) fn resident_mib(pid: u32) -> Result<(u64, u64)> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        let kib = line.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok());
        kib.map(|kib| kib / 1024).with_context(|| format!("status has {name}"))
    };
    Ok((field("VmHWM:")?, field("VmRSS:")?))
}

/// Packets that left the network namespace of a process and that came into it, over every link but loopback.
pub(super) fn packets(pid: u32) -> Result<(u64, u64)> {
    let table = std::fs::read_to_string(format!("/proc/{pid}/net/dev"))?;
    let (mut sent, mut received) = (0, 0);
    for (name, counts) in table.lines().filter_map(|line| line.split_once(':')) {
        // Bytes, packets and six more of what came; the same of what went.
        let counts: Vec<u64> = counts.split_whitespace().filter_map(|count| count.parse().ok()).collect();
        if name.trim() != "lo" {
            received += counts.get(1).context("a link counts packets")?;
            sent += counts.get(9).context("a link counts packets")?;
        }
    }
    Ok((sent, received))
}

/// Bytes that the disk has given to the files in a folder and in the folders in it, as far as `counts` says that they count.
pub(super) fn disk_bytes(folder: &Path, counts: &impl Fn(&str) -> bool) -> Result<u64> {
    const BLOCK_BYTES: u64 = 512;
    let mut bytes = 0;
    for entry in std::fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let entry = entry?;
        let found = entry.metadata()?;
        if found.is_dir() {
            bytes += disk_bytes(&entry.path(), counts)?;
        } else if counts(&entry.file_name().to_string_lossy()) {
            bytes += found.blocks() * BLOCK_BYTES;
        }
    }
    Ok(bytes)
}

/// Bytes that the disk under a folder has left for this user.
pub(super) fn free_bytes(folder: &Path) -> Result<u64> {
    let disk = rustix::fs::statvfs(folder).with_context(|| folder.display().to_string())?;
    Ok(disk.f_bavail * disk.f_frsize)
}

/// Whether a file of a node holds a shard's state.
pub(super) fn is_state(name: &str) -> bool {
    name.starts_with("shard-")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_used_something_and_work_adds_to_it() {
        let me = std::process::id();
        let before = cpu(me).unwrap();
        let start = std::time::Instant::now();
        while cpu(me).unwrap() == before {
            assert!(start.elapsed() < Duration::from_secs(60), "busy for a minute and not a tick more");
        }
        cpu_of_children().unwrap();
        let (most, now) = resident_mib(me).unwrap();
        assert!(most >= now && now > 0);
    }
    #[test]
    fn loopback_counts_no_packets_and_a_folder_is_what_its_files_take() {
        packets(std::process::id()).unwrap();
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("in")).unwrap();
        std::fs::write(folder.path().join("in/shard-0000.redb"), [7; 10_000]).unwrap();
        std::fs::write(folder.path().join("raft.redb"), [7; 10_000]).unwrap();
        assert!(free_bytes(folder.path()).unwrap() > 0);
        let (all, state) =
            (disk_bytes(folder.path(), &|_| true).unwrap(), disk_bytes(folder.path(), &is_state).unwrap());
        assert!(state >= 10_000 && all >= 2 * state, "{all}, {state}");
    }
}
