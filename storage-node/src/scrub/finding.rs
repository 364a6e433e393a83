//! What a scrub can find: what is wrong and where, whose fault it is, and what is to be done.

use std::fmt;

use minicbor::{Decode, Encode};

/// Something that is not as it was written, or should never have been.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Finding {
    /// The shard.
    #[n(0)]
    pub shard: u16,
    /// The entry of its log, where it is about one.
    #[n(1)]
    pub entry: Option<u64>,
    /// What is wrong.
    #[n(2)]
    pub what: What,
}

/// What is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(flat)]
pub enum What {
    /// The file, or a part of it, cannot be read; what the storage says.
    #[n(1)]
    Unreadable(#[n(0)] String),
    /// The stored record is not where it should be, not whole, or of no form.
    #[n(2)]
    Record,
    /// The entry is not the one that the log's tree has there.
    #[n(3)]
    Leaf,
    /// The room's list of places does not lead to the entry.
    #[n(4)]
    Place,
    /// A stored hash of the tree is not that of what lies below it.
    #[n(5)]
    Tree(#[n(0)] u8),
    /// The tree is not the one that was cosigned.
    #[n(6)]
    Root(#[n(0)] u64),
    /// An event is not the one that the run names.
    #[n(7)]
    Event(#[n(0)] u16),
    /// What is kept beside the log does not fit it: the table's name.
    #[n(8)]
    Table(#[n(0)] Table),
    /// An entry that no sound node takes in, though it is the one in the tree: a run or an access record of no form, of another room
    /// or time.
    #[n(9)]
    Entry,
    /// The author's, or the reader's, signature is false, though the entry is the one in the tree.
    #[n(10)]
    Signature,
    /// A file of the node's beside the shard's; what is wrong with it.
    #[n(11)]
    File(#[n(0)] String),
    /// What the scrub had found before this node was started is not known any more.
    #[n(12)]
    Forgotten,
}

/// A table that can be made again from the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
#[cbor(index_only)]
pub enum Table {
    /// The shard's own record: counts and time.
    #[n(0)]
    Meta,
    /// Which events are in the log.
    #[n(1)]
    Known,
    /// Ends of rooms.
    #[n(2)]
    Heads,
    /// Rules of rooms.
    #[n(3)]
    Rooms,
    /// Ends of strands.
    #[n(4)]
    Strands,
    /// Committed wraps.
    #[n(5)]
    Wraps,
    /// Who is a party of what.
    #[n(6)]
    Parties,
    /// Nonces of requests.
    #[n(7)]
    Nonces,
    /// Refusals that are counted or kept.
    #[n(8)]
    Refusals,
    /// Rows of the log, of leaves and of the tree, in number and form.
    #[n(9)]
    Rows,
}

/// Whose doing it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// This node's disk lost or altered what was written; or, where only a derived table is concerned, this program wrote it wrong.
    Disk,
    /// A node that ordered let it in.
    Orderer,
}

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Remedy {
    /// Another node has the entry's bytes, and the tree says which they are.
    Fetch,
    /// The shard's state is taken from another node.
    Rebuild,
    /// The file is the node's identity towards the others: it comes back as another node.
    Replace,
    /// Nothing of this node's: whoever ordered it, and the author, have to be asked.
    Report,
    /// The shard is looked through before anything else.
    Look,
}

impl What {
    /// Whose doing it is.
    pub fn fault(&self) -> Fault {
        match self {
            Self::Entry | Self::Signature => Fault::Orderer,
            _ => Fault::Disk,
        }
    }

    /// What is to be done.
    pub fn remedy(&self) -> Remedy {
        match self {
            Self::Record | Self::Leaf | Self::Event(_) => Remedy::Fetch,
            Self::Entry | Self::Signature => Remedy::Report,
            Self::File(_) => Remedy::Replace,
            Self::Forgotten => Remedy::Look,
            Self::Unreadable(_) | Self::Place | Self::Tree(_) | Self::Root(_) | Self::Table(_) => Remedy::Rebuild,
        }
    }
}

impl Finding {
    /// Whether the disk lost or altered something, so that the shard may not be led from here.
    pub fn fences(&self) -> bool {
        self.what.fault() == Fault::Disk
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Meta => "the shard's counts",
            Self::Known => "the table of known events",
            Self::Heads => "the table of rooms' ends",
            Self::Rooms => "the table of rooms' rules",
            Self::Strands => "the table of strands",
            Self::Wraps => "the table of wraps",
            Self::Parties => "the table of parties",
            Self::Nonces => "the table of nonces",
            Self::Refusals => "the table of refusals",
            Self::Rows => "the number or form of rows",
        })
    }
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable(why) => write!(f, "the file cannot be read there ({why})"),
            Self::Record => f.write_str("its stored record is not whole"),
            Self::Leaf => f.write_str("it is not the entry that the log's tree has"),
            Self::Place => f.write_str("the room's list of places does not lead to it"),
            Self::Tree(level) => write!(f, "the stored hash above it, level {level}, is not that of what lies below"),
            Self::Root(size) => write!(f, "the tree of {size} leaves is not the one that was cosigned"),
            Self::Event(position) => write!(f, "its event {position} is not the one that its run names"),
            Self::Table(table) => write!(f, "{table} does not fit the log"),
            Self::Entry => f.write_str("it is one that no sound node takes in"),
            Self::Signature => f.write_str("its signature is false"),
            Self::File(what) => f.write_str(what),
            Self::Forgotten => f.write_str("what was found in it before cannot be read any more"),
        }
    }
}

impl fmt::Display for Remedy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Fetch => "it is fetched again from another node of the shard",
            Self::Rebuild => "the shard's state is taken from another node when this one is started again",
            Self::Replace => {
                "this node may have forgotten what it confirmed: stop it, have it enrolled under a new identity in an empty \
                 data directory, and have the alliance put the new node in the old one's place: `ehe-certs charter new --after` \
                 adds it, `ehe-node replace` writes the charter that gives it the old one's shards, and a majority of the members \
                 sign that"
            }
            Self::Report => {
                "nothing was lost here: a node that led the shard let it in without checking; tell the alliance's members which \
                 entry it is; a false signature of a run is voided by a recorded entry where the charter has raised the rules to version 2"
            }
            Self::Look => "it is looked through before it is led from here",
        })
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "shard {}", self.shard)?;
        if let Some(entry) = self.entry {
            write!(f, ", entry {entry}")?;
        }
        let fault = match self.what.fault() {
            Fault::Disk => "this node's disk lost or altered it",
            Fault::Orderer => "the fault of a node that ordered it",
        };
        write!(f, ": {} ({fault}); {}", self.what, self.what.remedy())
    }
}
