//! Every packet of some ports on loopback, captured while the programs run.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::process::{Running, command, run, until};

const WITHIN: Duration = Duration::from_secs(20);

/// A running capture by tcpdump.
#[derive(Debug)]
pub struct Capture {
    file: PathBuf,
    running: Running,
}

impl Capture {
    /// Starts it. Raw sockets need root, `sudo` without a password, or the capability on tcpdump's file.
    pub async fn start(folder: &Path, tcp_port: u16, udp_port: &str) -> Result<Self> {
        let (file, log) = (folder.join("wire.pcap"), folder.join("tcpdump.log"));
        let path = file.to_string_lossy().into_owned();
        let user = run(command("id", &["-un"]), WITHIN).await?.success("id -un")?.stdout.trim().to_owned();
        // -U and immediate mode: a packet is in the file soon after it was on the wire. -Z: the file stays this user's.
        let filter = format!("tcp port {tcp_port} or udp port {udp_port}");
        let dump = ["-i", "lo", "-U", "--immediate-mode", "-B", "65536", "-s", "0", "-Z", &user, "-w", &path, &filter];
        let sudo =
            user != "root" && run(command("sudo", &["-n", "true"]), WITHIN).await.is_ok_and(|s| s.code == Some(0));
        let tcpdump =
            if sudo { command("sudo", &[&["-n", "tcpdump"][..], &dump].concat()) } else { command("tcpdump", &dump) };
        let mut running = Running::start("tcpdump", tcpdump, &log)?;
        until("tcpdump listens", WITHIN, || {
            let alive = running.check().with_context(|| {
                let said = std::fs::read_to_string(&log).unwrap_or_default();
                format!(
                    "capturing packets needs root, sudo without a password, or once: \
                     setcap cap_net_raw+ep \"$(command -v tcpdump)\"\n{said}"
                )
            });
            let listens = std::fs::read_to_string(&log).is_ok_and(|said| said.contains("listening on"));
            async move {
                alive?;
                Ok(listens.then_some(()))
            }
        })
        .await?;
        Ok(Self { file, running })
    }

    /// Waits until a beacon that the caller sent is in the file, so that what was sent before is there too; then ends.
    pub async fn finish(self, beacons: &[&[u8]]) -> Result<Vec<u8>> {
        let file = self.file.clone();
        until("the capture holds the beacons", WITHIN, || {
            let bytes = std::fs::read(&file);
            async {
                let bytes = bytes?;
                let all = beacons.iter().all(|beacon| bytes.windows(beacon.len()).any(|window| window == *beacon));
                Ok(all.then_some(()))
            }
        })
        .await?;
        self.running.stop(WITHIN).await?;
        let bytes = std::fs::read(&self.file)?;
        ensure!(bytes.len() > 100_000, "{} bytes are no capture of a whole run", bytes.len());
        Ok(bytes)
    }
}
