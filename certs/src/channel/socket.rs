//! UDP sockets, of both ends.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use socket2::SockRef;

/// What of the peers' packets may wait in the kernel. All of them come in through one socket, and Linux's default of 208 KiB is
/// a packet from each of a hundred: with 512 clients at work it lost every tenth, and whoever lost one waited for a second.
const RECEIVE_BUFFER_BYTES: usize = 4 * 1024 * 1024;

/// For many peers.
pub(super) fn bind(address: SocketAddr) -> std::io::Result<UdpSocket> {
    UdpSocket::bind(address).map(enlarged)
}

/// For many peers, at any address.
pub(super) fn bind_any() -> std::io::Result<UdpSocket> {
    any().map(enlarged)
}

fn enlarged(socket: UdpSocket) -> UdpSocket {
    // The kernel cuts it down to what the system allows (net.core.rmem_max); with less it works too, under load not as well.
    if let Err(error) = SockRef::from(&socket).set_recv_buffer_size(RECEIVE_BUFFER_BYTES) {
        tracing::debug!(%error, "the receive buffer stays as it is");
    }
    socket
}

/// Any port; both families where the machine has both.
pub(super) fn any() -> std::io::Result<UdpSocket> {
    UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0)).or_else(|_| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)))
}
