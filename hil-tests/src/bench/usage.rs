//! What a process has used, as Linux tells it (proc(5)).

use std::time::Duration;

use anyhow::{Context, Result};

/// Ticks a second of the times in `/proc/PID/stat`: 100 on every Linux that is not a relic.
const TICKS_PER_S: u64 = 100;

/// Processor time of a process so far, all its threads together, ended ones included.
pub(super) fn cpu(pid: u32) -> Result<Duration> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The name is in parentheses and may hold anything; utime and stime are the 12th and 13th field after it.
    let after = stat.rsplit_once(')').context("stat has a name")?.1;
    let mut fields = after.split_whitespace().skip(11);
    let mut ticks = || fields.next().and_then(|field| field.parse::<u64>().ok()).context("stat has times");
    Ok(Duration::from_millis((ticks()? + ticks()?) * 1000 / TICKS_PER_S))
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
        let (most, now) = resident_mib(me).unwrap();
        assert!(most >= now && now > 0);
    }
}
