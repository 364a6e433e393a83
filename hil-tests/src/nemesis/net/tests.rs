//! What is cut is lost in that direction and in no other, and comes again when it is not cut any more.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, UdpSocket};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use super::{End, Namespaces, Relay, Way};
use crate::lab::site::Site;

/// Long for a packet on one machine.
const SOON: Duration = Duration::from_millis(500);

/// Says each packet that comes, and answers it.
const ECHO: &str = "import socket, sys
host, port = sys.argv[1].rsplit(':', 1)
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind((host, int(port)))
print('ready', flush=True)
while True:
    packet, sender = s.recvfrom(100)
    print(packet.decode(), flush=True)
    s.sendto(b'answer', sender)
";
/// Asks, and says whether an answer came.
const ASK: &str = "import socket, sys
host, port = sys.argv[1].rsplit(':', 1)
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.settimeout(0.5)
s.sendto(sys.argv[2].encode(), (host, int(port)))
try:
    print(s.recvfrom(100)[0].decode())
except TimeoutError:
    print('nothing')
";

fn python(before: &[String], script: &str, arguments: &[&str]) -> Command {
    let words: Vec<&str> = before.iter().map(String::as_str).chain(["python3", "-c", script]).collect();
    let mut command = Command::new(words[0]);
    command.args(&words[1..]).args(arguments).stdin(Stdio::null()).stderr(Stdio::null());
    command
}

struct Echo {
    child: Child,
    heard: Receiver<String>,
}

impl Echo {
    fn start(site: &Site) -> Self {
        let mut child = python(&site.before, ECHO, &[&site.listen]).stdout(Stdio::piped()).spawn().unwrap();
        let (say, heard) = channel();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        std::thread::spawn(move || lines.map_while(Result::ok).try_for_each(|line| say.send(line)));
        let this = Self { child, heard };
        assert_eq!(this.heard.recv_timeout(Duration::from_secs(20)).unwrap(), "ready");
        this
    }

    fn heard(&self) -> bool {
        self.heard.recv_timeout(SOON).is_ok()
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn ask(before: &[String], site: &Site) -> bool {
    let said = python(before, ASK, &[&site.address, "hello"]).output().unwrap().stdout;
    String::from_utf8(said).unwrap().trim() == "answer"
}

#[test]
fn in_the_kernels_network_one_direction_is_cut_without_the_other() {
    // Where this user may make no namespaces there is nothing to test: the relay is what is used.
    let Ok((net, sites)) = Namespaces::lay(2) else { return };
    let cut = |ways: &[Way]| net.cut(BTreeSet::from_iter(ways.iter().copied())).unwrap();
    let (one, two) = (End::Node(1), End::Node(2));
    let echo = Echo::start(&sites[1]);
    let from_node = || (ask(&sites[0].before, &sites[1]), echo.heard());
    let from_client = || (ask(&[], &sites[1]), echo.heard());
    for asks in [&from_node as &dyn Fn() -> (bool, bool), &from_client] {
        assert_eq!(asks(), (true, true));
    }
    cut(&[(one, two)]);
    assert_eq!(from_node(), (false, false), "it does not arrive");
    assert_eq!(from_client(), (true, true));
    cut(&[(two, one)]);
    assert_eq!(from_node(), (false, true), "it arrives, and the answer does not");
    cut(&[(End::Client, two)]);
    assert_eq!(from_client(), (false, false));
    assert_eq!(from_node(), (true, true));
    cut(&[]);
    assert_eq!((from_node(), from_client()), ((true, true), (true, true)));
}

#[tokio::test(flavor = "multi_thread")]
async fn in_a_relay_one_direction_is_cut_without_the_other_and_a_nodes_packets_are_known_for_its_own() {
    let (relay, sites) = Relay::start(2).await.unwrap();
    let cut = |ways: &[Way]| relay.cut(BTreeSet::from_iter(ways.iter().copied())).unwrap();
    let (one, two) = (End::Node(1), End::Node(2));
    let echo = Echo::start(&sites[1]);
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    socket.set_read_timeout(Some(SOON)).unwrap();
    let from_here = || {
        socket.send_to(b"hello", &sites[1].address).unwrap();
        (socket.recv(&mut [0; 100]).is_ok(), echo.heard())
    };
    let from_client = || (ask(&[], &sites[1]), echo.heard());
    // This process is nobody's, then the first node's.
    tokio::task::block_in_place(|| {
        cut(&[(one, two)]);
        assert_eq!(from_here(), (true, true));
        relay.runs(1, std::process::id());
        assert_eq!(from_here(), (false, false));
        assert_eq!(from_client(), (true, true), "another process is a client");
        cut(&[(two, one)]);
        assert_eq!(from_here(), (false, true));
        cut(&[(End::Client, two)]);
        assert_eq!(from_client(), (false, false));
        assert_eq!(from_here(), (true, true));
        cut(&[]);
        assert_eq!((from_here(), from_client()), ((true, true), (true, true)));
    });
}
