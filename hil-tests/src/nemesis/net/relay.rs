//! A relay of UDP packets in front of each node, for users who may make no namespaces. Who sent a packet is looked up in /proc: the
//! socket's owner is a node of ours, or a client.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Result;
use tokio::net::UdpSocket;
use tokio::task::JoinSet;

use super::{End, Lost, Way};
use crate::lab::process::free_udp_ports;
use crate::lab::site::Site;

const PACKET_MAX_BYTES: usize = 65_536;

/// The relays, until they are dropped.
#[derive(Debug)]
pub struct Relay {
    lost: Lost,
    processes: Processes,
    _running: JoinSet<()>,
}

/// Which process is which node's, and how often that changed.
#[derive(Debug, Clone, Default)]
struct Processes(Arc<Mutex<(BTreeMap<u32, usize>, u64)>>);

impl Processes {
    fn with<T>(&self, body: impl FnOnce(&mut (BTreeMap<u32, usize>, u64)) -> T) -> T {
        body(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Who has the socket of this port.
    fn owner(&self, port: u16) -> End {
        let Some(inode) = inode_of(port) else { return End::Client };
        let socket = format!("socket:[{inode}]");
        let nodes = self.with(|(nodes, _)| nodes.clone());
        let has = |process: &u32| {
            let Ok(files) = std::fs::read_dir(format!("/proc/{process}/fd")) else { return false };
            files
                .flatten()
                .any(|file| std::fs::read_link(file.path()).is_ok_and(|to| to.as_os_str() == socket.as_str()))
        };
        nodes.iter().find(|(process, _)| has(process)).map_or(End::Client, |(_, number)| End::Node(*number))
    }
}

/// The inode of the UDP socket that is bound to a port.
fn inode_of(port: u16) -> Option<String> {
    let tables = ["/proc/net/udp", "/proc/net/udp6"].map(|table| std::fs::read_to_string(table).unwrap_or_default());
    let ends = format!(":{port:04X}");
    tables.iter().flat_map(|table| table.lines().skip(1)).find_map(|line| {
        let mut words = line.split_whitespace();
        words.nth(1)?.ends_with(&ends).then(|| words.nth(7).map(str::to_owned))?
    })
}

impl Relay {
    /// Starts one for each node.
    pub(super) async fn start(nodes: usize) -> Result<(Self, Vec<Site>)> {
        let (lost, processes) = (Lost::default(), Processes::default());
        let (mut fronts, mut running, mut sites) = (Vec::new(), JoinSet::new(), Vec::new());
        for _ in 0..nodes {
            fronts.push(Arc::new(UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await?));
        }
        let ports = free_udp_ports(nodes)?;
        for ((number, port), front) in (1..).zip(ports).zip(fronts) {
            let (address, behind) = (front.local_addr()?, SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
            let one = One { number, front, behind, lost: lost.clone(), processes: processes.clone() };
            running.spawn(one.run());
            let (address, listen) = (address.to_string(), behind.to_string());
            sites.push(Site { address, listen, ip: "127.0.0.1".into(), ..Site::default() });
        }
        Ok((Self { lost, processes, _running: running }, sites))
    }

    /// Exactly these ways are cut.
    pub(super) fn cut(&self, ways: BTreeSet<Way>) -> Result<()> {
        self.lost.set(ways);
        Ok(())
    }

    /// A node's program has this process id now.
    pub(super) fn runs(&self, number: usize, process: u32) {
        self.processes.with(|(nodes, changes)| {
            nodes.retain(|_, known| *known != number);
            nodes.insert(process, number);
            *changes += 1;
        });
    }
}

/// In front of one node.
struct One {
    number: usize,
    front: Arc<UdpSocket>,
    behind: SocketAddr,
    lost: Lost,
    processes: Processes,
}

/// One sender's packets: who it is, as of which change, and the socket that the node sees.
struct Flow {
    owner: Arc<Mutex<(End, u64)>>,
    back: Arc<UdpSocket>,
    _answers: JoinSet<()>,
}

impl One {
    async fn run(self) {
        let mut flows: HashMap<SocketAddr, Flow> = HashMap::new();
        let mut packet = vec![0; PACKET_MAX_BYTES];
        loop {
            // Errors are of single packets (a port that nobody listens on any more).
            let Ok((length, from)) = self.front.recv_from(&mut packet).await else { continue };
            let flow = match flows.entry(from) {
                std::collections::hash_map::Entry::Occupied(known) => known.into_mut(),
                std::collections::hash_map::Entry::Vacant(new) => match self.flow(from).await {
                    Ok(flow) => new.insert(flow),
                    Err(_) => continue,
                },
            };
            let changes = self.processes.with(|(_, changes)| *changes);
            let owner = *flow.owner.lock().unwrap_or_else(PoisonError::into_inner);
            let end = if owner.1 == changes {
                owner.0
            } else {
                let end = self.processes.owner(from.port());
                *flow.owner.lock().unwrap_or_else(PoisonError::into_inner) = (end, changes);
                end
            };
            if !self.lost.has((end, End::Node(self.number)))
                && let Some(bytes) = packet.get(..length)
            {
                let _ = flow.back.send(bytes).await;
            }
        }
    }

    async fn flow(&self, from: SocketAddr) -> Result<Flow> {
        let back = Arc::new(UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await?);
        back.connect(self.behind).await?;
        let owner = Arc::new(Mutex::new((End::Client, 0)));
        let mut answers = JoinSet::new();
        let (front, lost, number) = (Arc::clone(&self.front), self.lost.clone(), self.number);
        let (hears, knows) = (Arc::clone(&back), Arc::clone(&owner));
        answers.spawn(async move {
            let mut packet = vec![0; PACKET_MAX_BYTES];
            loop {
                let Ok(length) = hears.recv(&mut packet).await else {
                    // The node does not listen: it was killed. It will.
                    tokio::time::sleep(std::time::Duration::from_millis(5)).await;
                    continue;
                };
                let (end, _) = *knows.lock().unwrap_or_else(PoisonError::into_inner);
                if !lost.has((End::Node(number), end))
                    && let Some(bytes) = packet.get(..length)
                {
                    let _ = front.send_to(bytes, from).await;
                }
            }
        });
        Ok(Flow { owner, back, _answers: answers })
    }
}
