//! Looking again at what was written long ago: is it still there, is it still the same, and did its authors really sign it?
//!
//! ```text
//!  View ─► walk ─► entry ─► author, room          one entry: record, leaf, tree, places, events, strand, signature, rules
//!            │        └──► findings: what, where, whose fault, what next
//!            └──► whole                           at the end: nothing besides, and the ends are the log's
//! ```
//!
//! *walk*, *entry*, *author*, *room*, *whole*, *sum* and *finding* are the core: a view in, findings out; no clock, no thread, no file.
//! *patrol* is the running node's: it walks in the background, holds what is damaged, has damaged entries again (*mend*), and writes down
//! how far it is (*memory*). A run whose signature is false is voided by the node that leads, where the rules say how. Where more is damaged than entries, the next start takes the state from another node (*rebuild*).
//!
//! # What is held against what
//!
//! | stored | has to be |
//! |---|---|
//! | `log` | row by row without a gap; each record in the one form in which it is written; its entry the one of the leaf |
//! | `leaves`, `nodes` | the hashes of the entries' leaves, the hashes above them, as many as there have to be; the root the cosigned one |
//! | a run | signed by its author, under the keys that the author had at that entry, or void; its events named by it, each with its body |
//! | a void record | of a run that its author did not sign, and whose events are known no more by it |
//! | an access record | its request signed by the reader, of this room; granted ones as apply makes them |
//! | `known`, `positions`, `heads`, `wraps`, `wrap_names` | what the entries say, and no row more |
//! | `strands`, `strand_names` | the ends to which the runs lead ([`sum`]) |
//! | `rooms`, `parties` | what the room's control events make of it, by the rules ([`View::replay`](crate::shard::View::replay)) |
//! | `nonces` | those of granted requests that are not stale |
//! | `read_refusals`, `run_refusals` | decodable, and about the request that they hold: they follow from requests that left no entry |
//! | `meta` | the counts of the above, this shard of this alliance, not earlier than the last entry |
//!
//! A running node looks at what its storage library gives it: a page that is in memory is not read from the disk again until it has to make
//! room, or the node is started again.
//!
//! The ledger's time beyond the last entry, the number of blocks, how often a refusal was counted, and what consensus keeps, follow
//! from nothing that is stored. They are covered where the file is at hand as such (`ehe-node verify`): there every page's checksum is
//! compared too.

mod author;
mod entry;
mod finding;
mod memory;
mod mend;
mod patrol;
mod rebuild;
mod sum;
mod walk;
mod whole;

pub use finding::{Fault, Finding, Remedy, Table, What};
pub use memory::{Done, Memory};
pub use mend::{Elsewhere, NotMended};
pub use patrol::{Line, Orderer, Pace, Patrol, Shown};
pub use rebuild::{NotRebuilt, Sent, rebuild};
pub(crate) use walk::caught;
pub use walk::{FINDINGS_MAX, Pass, REPORTS_MAX, Step, Target, Walk};
