//! A network namespace for each node, and one for the router between them: what is cut is lost in the router, without a word to anybody.
//!
//! ```text
//! here (clients) 198.18.X.253 ── .254 router 4n+1 ── 4n+2 node n
//! ```

use std::collections::BTreeSet;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use super::{End, Lost, Way};
use crate::lab::site::Site;

/// Networks like this one on one machine at one time (198.18.0.0/16, for the benchmarking of devices: RFC 2544).
const NETWORKS: u8 = 250;
/// Where nodes listen.
const PORT: u16 = 4433;

/// The network, until it is dropped.
#[derive(Debug)]
pub struct Namespaces {
    net: u8,
    nodes: usize,
    lost: Lost,
}

/// Names are short: a link's has 15 letters at most. The process id says whose they are.
fn prefix(net: u8) -> String {
    format!("ehe{net:02x}-{}", std::process::id())
}

fn namespace(net: u8, what: &str) -> String {
    format!("{}-{what}", prefix(net))
}

fn ip(arguments: &str) -> Result<()> {
    let mut command = Command::new("ip");
    let done = command.args(arguments.split_whitespace()).stdin(Stdio::null()).output().context("ip (iproute2)")?;
    ensure!(done.status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&done.stderr).trim());
    Ok(())
}

/// A way that is cut in one direction is no forged sender in the other one.
const SETTINGS: &str =
    "cd /proc/sys/net/ipv4 && echo 1 > ip_forward && echo 0 > conf/all/rp_filter && echo 0 > conf/default/rp_filter";

fn forwards(router: &str) -> Result<()> {
    let mut command = Command::new("ip");
    command.args(["netns", "exec", router, "sh", "-c", SETTINGS]);
    let done = command.stdin(Stdio::null()).output().context("ip (iproute2)")?;
    ensure!(done.status.success(), "forwarding: {}", String::from_utf8_lossy(&done.stderr).trim());
    Ok(())
}

impl Namespaces {
    /// For so many nodes.
    pub fn lay(nodes: usize) -> Result<(Self, Vec<Site>)> {
        ensure!(nodes < 60, "{nodes} nodes have no place in one network");
        sweep();
        let mut why = None;
        for net in 0..NETWORKS {
            // Taken by making the link, whose name nobody else can have.
            match ip(&format!("link add ehe{net:02x}h type veth peer name ehe{net:02x}g")) {
                Ok(()) => {
                    let this = Self { net, nodes, lost: Lost::default() };
                    let sites = this.build()?;
                    return Ok((this, sites));
                }
                Err(error) if error.to_string().contains("exists") => why = Some(error),
                Err(error) => return Err(error),
            }
        }
        Err(why.context("no network is free")?)
    }

    fn build(&self) -> Result<Vec<Site>> {
        let net = self.net;
        let router = namespace(net, "r");
        ip(&format!("netns add {router}"))?;
        ip(&format!("-n {router} link set lo up"))?;
        forwards(&router)?;
        ip(&format!("link set ehe{net:02x}g netns {router}"))?;
        ip(&format!("addr add 198.18.{net}.253/30 dev ehe{net:02x}h"))?;
        ip(&format!("link set ehe{net:02x}h up"))?;
        ip(&format!("-n {router} addr add 198.18.{net}.254/30 dev ehe{net:02x}g"))?;
        ip(&format!("-n {router} link set ehe{net:02x}g up"))?;
        ip(&format!("route add 198.18.{net}.0/24 via 198.18.{net}.254"))?;
        (1..=self.nodes).map(|number| self.node(number, &router)).collect()
    }

    fn node(&self, number: usize, router: &str) -> Result<Site> {
        let (net, own) = (self.net, namespace(self.net, &number.to_string()));
        ip(&format!("netns add {own}"))?;
        ip(&format!("-n {own} link set lo up"))?;
        ip(&format!("-n {router} link add r{number} type veth peer name eth0 netns {own}"))?;
        ip(&format!("-n {router} addr add 198.18.{net}.{}/30 dev r{number}", 4 * number + 1))?;
        ip(&format!("-n {router} link set r{number} up"))?;
        ip(&format!("-n {own} addr add {}/30 dev eth0", self.address(number)))?;
        ip(&format!("-n {own} link set eth0 up"))?;
        ip(&format!("-n {own} route add default via 198.18.{net}.{}", 4 * number + 1))?;
        let address = format!("{}:{PORT}", self.address(number));
        Ok(Site {
            listen: address.clone(),
            address,
            ip: self.address(number),
            before: vec!["nsenter".into(), format!("--net=/run/netns/{own}")],
            ..Site::default()
        })
    }

    fn address(&self, number: usize) -> String {
        format!("198.18.{}.{}", self.net, 4 * number + 2)
    }

    fn end(&self, end: End) -> String {
        match end {
            End::Node(number) => self.address(number),
            End::Client => format!("198.18.{}.253", self.net),
        }
    }

    /// Exactly these ways are cut.
    pub(super) fn cut(&self, ways: BTreeSet<Way>) -> Result<()> {
        let before = self.lost.set(ways.clone());
        let router = namespace(self.net, "r");
        let rule = |what: &str, (from, to): &Way| {
            let (from, to) = (self.end(*from), self.end(*to));
            ip(&format!("-n {router} rule {what} from {from} to {to} pref 100 blackhole"))
        };
        before.difference(&ways).try_for_each(|way| rule("del", way))?;
        ways.difference(&before).try_for_each(|way| rule("add", way))
    }
}

impl Drop for Namespaces {
    fn drop(&mut self) {
        // A link goes with the namespace of its other end; route and address go with the link.
        for number in 1..=self.nodes {
            let _ = ip(&format!("netns del {}", namespace(self.net, &number.to_string())));
        }
        let _ = ip(&format!("netns del {}", namespace(self.net, "r")));
        let _ = ip(&format!("link del ehe{:02x}h", self.net));
    }
}

/// Takes away what a test left that was ended from outside: namespaces of processes that are no more. What runs in them goes on without.
fn sweep() {
    let Ok(names) = std::fs::read_dir("/run/netns") else { return };
    for name in names.filter_map(|entry| entry.ok()?.file_name().into_string().ok()) {
        let process = name.strip_prefix("ehe").and_then(|name| name.split('-').nth(1)?.parse::<u32>().ok());
        if process.is_some_and(|process| !std::path::Path::new(&format!("/proc/{process}")).exists()) {
            let _ = ip(&format!("netns del {name}"));
        }
    }
}
