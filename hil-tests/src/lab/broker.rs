//! A real Mosquitto, configured by the gateway's own `mosquitto.conf`, with its TLS listener for everybody: nothing that a
//! wearable says crosses a wire in the clear, not even loopback, so that what a capture holds can be held against it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tokio::net::TcpStream;

use super::process::{Running, command, free_tcp_port, run, until};

const CONFIG: &str = include_str!("../../../gateway/mosquitto.conf");
const ACL: &str = include_str!("../../../gateway/mosquitto.acl");

/// File of the authority's certificate.
const AUTHORITY: &str = "broker-ca.crt";

/// A broker on a loopback port.
#[derive(Debug)]
pub struct Broker {
    folder: PathBuf,
    port: u16,
    running: Option<Running>,
}

impl Broker {
    /// Starts one with these users (name, password) in a folder of its own.
    pub async fn start(folder: &Path, users: &[(String, String)]) -> Result<Self> {
        std::fs::create_dir_all(folder.join("store"))?;
        // Absolute: Mosquitto resolves includes and stores against its own working folder.
        let folder = folder.canonicalize()?;
        let port = free_tcp_port()?;
        let path = |name: &str| folder.join(name).to_string_lossy().into_owned();
        let config = CONFIG
            .replace("/var/lib/ehe-gateway/mosquitto/", &format!("{}/", path("store")))
            .replace("/etc/ehe/", &format!("{}/", path("")).replace("//", "/"))
            .replace("listener 1883 127.0.0.1", &format!("listener {port} 127.0.0.1"))
            .replace("#certfile", "certfile")
            .replace("#keyfile", "keyfile")
            .replace("#tls_version", "tls_version")
            .replace("user mosquitto", &format!("user {}", user_name()?));
        ensure!(
            !config.contains("/etc/ehe") && config.contains(&port.to_string()) && config.contains("\nkeyfile /"),
            "mosquitto.conf has changed its shape"
        );
        certificate(&folder)?;
        std::fs::write(folder.join("mosquitto.conf"), config)?;
        std::fs::write(folder.join("mosquitto.acl"), ACL)?;
        let passwords = path("mosquitto.passwd");
        std::fs::write(&passwords, "")?;
        for (name, password) in users {
            let set = command("mosquitto_passwd", &["-b", &passwords, name, password]);
            run(set, Duration::from_secs(10)).await.context("is Mosquitto installed?")?.success("mosquitto_passwd")?;
        }
        restrict(&passwords)?;
        restrict(&path("mosquitto.acl"))?;
        let mut broker = Self { folder, port, running: None };
        broker.restart().await?;
        Ok(broker)
    }

    /// Starts it again after [`Broker::kill`].
    pub async fn restart(&mut self) -> Result<()> {
        let config = self.folder.join("mosquitto.conf");
        let command = command("mosquitto", &["-c", &config.to_string_lossy()]);
        let mut running = Running::start("mosquitto", command, &self.folder.join("mosquitto.log"))?;
        let port = self.port;
        until("Mosquitto accepts connections", Duration::from_secs(10), || {
            let alive = running.check();
            async move {
                alive?;
                Ok(TcpStream::connect(("127.0.0.1", port)).await.ok())
            }
        })
        .await?;
        self.running = Some(running);
        Ok(())
    }

    /// Ends it without warning.
    pub async fn kill(&mut self) -> Result<()> {
        match self.running.take() {
            Some(running) => running.kill().await,
            None => Ok(()),
        }
    }

    /// The authority of its certificate, which is for `localhost`: PEM.
    pub fn authority(&self) -> PathBuf {
        self.folder.join(AUTHORITY)
    }

    /// Its port on 127.0.0.1, TLS only.
    pub fn port(&self) -> u16 {
        self.port
    }
}

/// The home's own authority and the broker's certificate, where `mosquitto.conf` looks for it.
fn certificate(folder: &Path) -> Result<()> {
    let mut authority = CertificateParams::new(Vec::new())?;
    authority.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate()?)?;
    let key = KeyPair::generate()?;
    let broker = CertificateParams::new(vec!["localhost".into()])?.signed_by(&key, &authority)?;
    std::fs::write(folder.join(AUTHORITY), authority.pem())?;
    std::fs::write(folder.join("broker.crt"), broker.pem())?;
    let path = folder.join("broker.key");
    std::fs::write(&path, "")?;
    restrict(&path.to_string_lossy())?;
    Ok(std::fs::write(path, key.serialize_pem())?)
}

/// Mosquitto refuses to read secrets that everybody may read (and warns about it before it does).
fn restrict(path: &str) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    Ok(std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?)
}

/// Started by root, Mosquitto changes to its configured user, who could not enter the lab's folders.
fn user_name() -> Result<String> {
    let name = std::process::Command::new("id").arg("-un").output()?;
    Ok(String::from_utf8(name.stdout)?.trim().to_owned())
}
