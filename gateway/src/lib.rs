//! The gateway in the home: sources → adapter → person → window → seal → spool → uplink.
//!
//! | in the order of the data | is |
//! |---|---|
//! | [`source`] | MQTT and replay: messages, and to whom their acknowledgement goes |
//! | [`dispatch`] | topic → device and mapping → readings |
//! | [`person`], [`alarm`] | device → room, or held; what is worth an alarm |
//! | [`spool`] | the commit that an acknowledgement waits for; sealed rows, outbox, receipts |
//! | [`window`], [`seal`] | when readings become an event, and the commit that swaps them |
//! | [`rooms`] | what is verified of each room, and sealing to it |
//! | [`uplink`] | events to the nodes, receipts back |
//!
//! Around it: [`config`], [`daemon`] (start and stop in one screen), [`status`], [`held`] (readings that find their owner
//! later), [`report`] (for the lab), [`clock`], [`topic`] (MQTT filters).

pub mod alarm;
pub mod clock;
pub mod config;
pub mod daemon;
pub mod decode;
pub mod dispatch;
pub mod held;
pub mod person;
pub mod report;
pub mod rooms;
pub mod seal;
pub mod source;
pub mod spool;
pub mod status;
pub mod systemd;
pub mod topic;
pub mod uplink;
pub mod window;
