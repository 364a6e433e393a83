//! An alliance of one hospital, and the people of the lab: made by the programs, step by step as their help texts say.

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};

use super::process::{Finished, Programs, free_udp_port, run};

const STEP: Duration = Duration::from_secs(20);
/// Protects what people hold in the lab. Its file lies beside them, so it protects nothing; it is there to be used.
const PASSPHRASE: &str = "correct horse of the lab";
/// How a key that a person holds is made here: with the least work that the programs do for a passphrase.
const HELD: [&str; 4] = ["--passphrase-file", "passphrase", "--work-factor", "14"];
const OPEN: [&str; 2] = ["--passphrase-file", "passphrase"];

/// Folders and programs of an alliance.
#[derive(Debug, Clone)]
pub struct Alliance {
    programs: Programs,
    folder: PathBuf,
    node_address: String,
}

impl Alliance {
    /// Authority, one member, one node on a loopback port, charter 1.
    pub async fn found(programs: &Programs, folder: &Path) -> Result<Self> {
        Self::found_with_shards(programs, folder, None).await
    }

    /// As [`Alliance::found`], with so many shards in place of the default.
    pub async fn found_with_shards(programs: &Programs, folder: &Path, shards: Option<u16>) -> Result<Self> {
        std::fs::create_dir_all(folder)?;
        let node_address = format!("127.0.0.1:{}", free_udp_port()?);
        let alliance = Self { programs: programs.clone(), folder: folder.canonicalize()?, node_address };
        private_file(&alliance.path("passphrase"), PASSPHRASE)?;
        let (authority, member) =
            (["init", "--name", "The lab's alliance"], ["member", "new", "--name", "Lab hospital"]);
        alliance.certs(&[&authority[..], &["--out", "alliance"], &HELD].concat()).await?;
        alliance.certs(&[&member[..], &["--out", "hospital"], &HELD].concat()).await?;
        alliance
            .certs(&[
                "identity",
                "new",
                "--role",
                "node",
                "--dns",
                "node1.lab.example",
                "--ip",
                "127.0.0.1",
                "--out",
                "node1",
            ])
            .await?;
        let shards = shards.map(|shards| format!("shards = {shards}\n")).unwrap_or_default();
        let charter = format!(
            "alliance = \"The lab's alliance\"\n{shards}\
             [[member]]\nname = \"Lab hospital\"\nidentity = \"hospital/identity.pub\"\n\
             [[node]]\nname = \"node1.lab.example\"\nmember = \"Lab hospital\"\nidentity = \"node1/identity.pub\"\n\
             addresses = [\"{}\"]\n",
            alliance.node_address
        );
        std::fs::write(alliance.path("alliance.toml"), charter)?;
        let sign = ["charter", "new", "--from", "alliance.toml", "--sign", "hospital/identity.json"];
        alliance.certs(&[&sign[..], &["--out", "alliance/charter"], &OPEN].concat()).await?;
        alliance.issue("node1", "node").await?;
        Ok(alliance)
    }

    /// A folder of the alliance.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Where the node listens.
    pub fn node_address(&self) -> &str {
        &self.node_address
    }

    /// The programs.
    pub fn programs(&self) -> &Programs {
        &self.programs
    }

    /// A gateway's, patient's or clinician's credentials, in a folder of that name.
    pub async fn enrol(&self, name: &str, role: &str) -> Result<PathBuf> {
        // A gateway starts unattended; a person is asked.
        let held = if role == "gateway" { &[][..] } else { &HELD };
        self.certs(&[&["identity", "new", "--role", role, "--out", name], held].concat()).await?;
        self.issue(name, role).await?;
        Ok(self.path(name))
    }

    async fn issue(&self, name: &str, role: &str) -> Result<()> {
        let request = format!("{name}/request.json");
        let issue = ["issue", &request, "--role", role, "--authority", "alliance", "--into", name];
        self.certs(&[&issue[..], &OPEN].concat()).await
    }

    async fn certs(&self, arguments: &[&str]) -> Result<()> {
        let mut command = self.programs.command("ehe-certs");
        command.args(arguments).current_dir(&self.folder);
        run(command, STEP).await?.success(&format!("ehe-certs {}", arguments.join(" "))).map(|_| ())
    }

    /// The reader's program as somebody; what to do is to be added.
    pub fn command(&self, who: &str) -> tokio::process::Command {
        let mut command = self.programs.command("ehe");
        command.arg("--home").arg(self.path(who)).arg("--passphrase-file").arg(self.path("passphrase"));
        command
    }

    /// Runs the reader's program as somebody.
    pub async fn ehe(&self, who: &str, arguments: &[&str]) -> Result<Finished> {
        let mut command = self.command(who);
        command.args(arguments);
        run(command, Duration::from_secs(60)).await
    }

    /// As [`Alliance::ehe`], with `--json`, where only exit code 0 is right; the lines that it printed.
    pub async fn ehe_json(&self, who: &str, arguments: &[&str]) -> Result<Vec<serde_json::Value>> {
        let what = format!("ehe {} (as {who})", arguments.join(" "));
        let finished = self.ehe(who, &[&["--json"], arguments].concat()).await?.success(&what)?;
        finished
            .stdout
            .lines()
            .map(|line| serde_json::from_str(line).with_context(|| format!("{what} printed: {line}")))
            .collect()
    }
}

/// A file that only its owner may read.
fn private_file(path: &Path, content: &str) -> Result<()> {
    let mut options = std::fs::OpenOptions::new();
    let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(path)?;
    Ok(file.write_all(content.as_bytes())?)
}
