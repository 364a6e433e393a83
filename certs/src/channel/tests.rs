//! Two ends over loopback.

mod ends;
mod frames;
mod handshakes;
