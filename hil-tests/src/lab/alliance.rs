//! An alliance of one hospital or several, and the people of the lab: made by the programs, step by step as their help texts say.

use std::io::Write;
use std::ops::RangeInclusive;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::process::{Finished, Programs, run};
use super::site::Site;

const STEP: Duration = Duration::from_secs(20);
/// Protects what people hold in the lab. Its file lies beside them, so it protects nothing; it is there to be used.
const PASSPHRASE: &str = "correct horse of the lab";
/// How a key that a person holds is made here: with the least work that the programs do for a passphrase.
const HELD: [&str; 4] = ["--passphrase-file", "passphrase", "--work-factor", "14"];
const CHARTER: &str = "alliance/charter";
const OPEN: [&str; 2] = ["--passphrase-file", "passphrase"];

/// What an alliance is founded with.
#[derive(Debug, Clone, Copy)]
pub struct Founding {
    /// Hospitals. Each signs charter 1 and runs one node, and all nodes hold every shard: 1, 3, 5 or 7.
    pub members: usize,
    /// Shards, if not the default.
    pub shards: Option<u16>,
}

impl Default for Founding {
    fn default() -> Self {
        Self { members: 1, shards: None }
    }
}

/// Folders and programs of an alliance.
#[derive(Debug, Clone)]
pub struct Alliance {
    programs: Programs,
    folder: PathBuf,
    /// Of the first member's node, the second's, ….
    sites: Vec<Site>,
}

impl Alliance {
    /// Authority, one member, one node on a loopback port, charter 1.
    pub async fn found(programs: &Programs, folder: &Path) -> Result<Self> {
        Self::found_of(programs, folder, Founding::default()).await
    }

    /// As [`Alliance::found`], with so many shards in place of the default.
    pub async fn found_with_shards(programs: &Programs, folder: &Path, shards: Option<u16>) -> Result<Self> {
        Self::found_of(programs, folder, Founding { shards, ..Founding::default() }).await
    }

    /// Authority, members, a node of each on a loopback port, charter 1 with everybody's signature.
    pub async fn found_of(programs: &Programs, folder: &Path, founding: Founding) -> Result<Self> {
        Self::found_on(programs, folder, founding, Site::on_loopback(founding.members)?).await
    }

    /// As [`Alliance::found_of`], with the members' nodes at these places.
    pub async fn found_on(programs: &Programs, folder: &Path, founding: Founding, sites: Vec<Site>) -> Result<Self> {
        ensure!(founding.members > 0 && sites.len() == founding.members, "an alliance has members, each with a place");
        std::fs::create_dir_all(folder)?;
        let alliance = Self { programs: programs.clone(), folder: folder.canonicalize()?, sites };
        private_file(&alliance.path("passphrase"), PASSPHRASE)?;
        let authority = ["init", "--name", "The lab's alliance", "--out", "alliance"];
        alliance.certs(&[&authority[..], &HELD].concat()).await?;
        for number in alliance.numbers() {
            alliance.member_and_node(number).await?;
        }
        std::fs::write(alliance.path("alliance.toml"), alliance.description(founding.shards))?;
        for number in alliance.numbers() {
            let identity = format!("{}/identity.json", member(number));
            let first = ["charter", "new", "--from", "alliance.toml", "--sign", &identity, "--out", CHARTER];
            let further = ["charter", "sign", CHARTER, "--with", &identity];
            let step = if number == 1 { &first[..] } else { &further };
            alliance.certs(&[step, &OPEN].concat()).await?;
        }
        for number in alliance.numbers() {
            alliance.issue(&node(number), "node").await?;
        }
        Ok(alliance)
    }

    async fn member_and_node(&self, number: usize) -> Result<()> {
        let (folder, name) = (member(number), member_name(number));
        self.certs(&[&["member", "new", "--name", &name, "--out", &folder][..], &HELD].concat()).await?;
        let (folder, name) = (node(number), node_name(number));
        let names = ["--dns", &name, "--ip", &self.site(number)?.ip];
        self.certs(&[&["identity", "new", "--role", "node", "--out", &folder][..], &names].concat()).await
    }

    /// What charter 1 is written from. Every node holds every shard, except those that wait.
    fn description(&self, shards: Option<u16>) -> String {
        let mut text = String::from("alliance = \"The lab's alliance\"\n");
        if let Some(shards) = shards {
            text.push_str(&format!("shards = {shards}\n"));
        }
        for number in self.numbers() {
            let (name, folder) = (member_name(number), member(number));
            text.push_str(&format!("[[member]]\nname = \"{name}\"\nidentity = \"{folder}/identity.pub\"\n"));
        }
        for (number, Site { address, .. }) in self.numbers().zip(&self.sites) {
            let (name, member, folder) = (node_name(number), member_name(number), node(number));
            text.push_str(&format!(
                "[[node]]\nname = \"{name}\"\nmember = \"{member}\"\nidentity = \"{folder}/identity.pub\"\n\
                 addresses = [\"{address}\"]\n"
            ));
        }
        let holders = self.numbers().zip(&self.sites).filter(|(_, site)| !site.waits);
        let holders: Vec<String> = holders.map(|(number, _)| format!("{:?}", node_name(number))).collect();
        if holders.len() < self.sites.len() {
            text.push_str(&format!("[placement]\neverywhere = [{}]\n", holders.join(", ")));
        }
        text
    }

    /// The numbers of the members, and of their nodes: from 1 on.
    pub fn numbers(&self) -> RangeInclusive<usize> {
        1..=self.sites.len()
    }

    /// A folder of the alliance.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Where the first node listens.
    pub fn node_address(&self) -> &str {
        self.sites.first().map_or("", |site| &site.address)
    }

    /// Where the node of this number is reached.
    pub fn address_of(&self, number: usize) -> Result<&str> {
        Ok(&self.site(number)?.address)
    }

    /// Where the node of this number stands.
    pub fn site(&self, number: usize) -> Result<&Site> {
        let site = number.checked_sub(1).and_then(|at| self.sites.get(at));
        site.with_context(|| format!("there is no node {number}"))
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

/// The folder of a member: what its people hold.
pub fn member(number: usize) -> String {
    if number == 1 { "hospital".into() } else { format!("hospital{number}") }
}

fn member_name(number: usize) -> String {
    if number == 1 { "Lab hospital".into() } else { format!("Lab hospital {number}") }
}

/// The folder of a node's credentials, and what its other files are called after.
pub fn node(number: usize) -> String {
    format!("node{number}")
}

/// What the charter calls a node.
pub fn node_name(number: usize) -> String {
    format!("node{number}.lab.example")
}

/// A file that only its owner may read.
fn private_file(path: &Path, content: &str) -> Result<()> {
    let mut options = std::fs::OpenOptions::new();
    let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(path)?;
    Ok(file.write_all(content.as_bytes())?)
}
