//! Two ends over loopback.

mod ends;
mod frames;
mod handshakes;
mod node_dialer;
mod nodes;
