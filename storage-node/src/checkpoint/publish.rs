//! Checkpoints that stand, and the notes that a node keeps of them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use ehe::id::{Hash, NodeId};
use ehe::note::Note;

use super::evidence::Side;
use super::message::Cosignature;
use super::wish::{Place, place};
use crate::cosign::Cosigned;

/// Notes that are kept of a shard. Evidence needs one that is not older than what it contradicts.
const NOTES_KEPT: usize = 64;

/// A checkpoint that may be shown: a quorum of the group's members has cosigned it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Published {
    /// Leaves.
    pub size: u64,
    /// Root.
    pub root: Hash,
    /// Incarnation of the log.
    pub incarnation: u32,
    /// The charter whose members were counted.
    pub charter_version: u32,
    /// Rooms, when it was made.
    pub rooms: u64,
    /// The nodes whose cosignatures are on it.
    pub cosigners: Vec<NodeId>,
    /// The signed note.
    pub note: String,
}

/// The newest checkpoint of a shard.
#[derive(Debug, Clone, Default)]
pub enum Checkpointed {
    /// None yet.
    #[default]
    None,
    /// This one.
    At(Arc<Published>),
    /// There will be no further one until the node is started again.
    Fenced,
}

impl Checkpointed {
    /// Its size; 0 where there is none.
    pub fn size(&self) -> u64 {
        match self {
            Self::At(published) => published.size,
            Self::None | Self::Fenced => 0,
        }
    }

    /// Rooms when it was made; 0 where there is none.
    pub fn rooms(&self) -> u64 {
        match self {
            Self::At(published) => published.rooms,
            Self::None | Self::Fenced => 0,
        }
    }
}

/// What this node said of a size.
#[derive(Debug, Clone)]
pub(super) struct Own {
    /// The note with this node's lines.
    pub(super) note: Note,
    /// The same for peers.
    pub(super) said: Cosignature,
    /// When.
    pub(super) at: Duration,
    /// All were told, or will be: of this or of something larger.
    pub(super) all: bool,
}

#[derive(Debug)]
struct Kept {
    root: Hash,
    own: Option<Own>,
    quorum: Option<Arc<Published>>,
}

/// The newest notes of a shard.
#[derive(Debug, Default)]
pub(super) struct Notes(BTreeMap<Place, Kept>);

impl Notes {
    /// The root of a size of which a note is kept.
    pub(super) fn root(&self, at: Place) -> Option<Hash> {
        self.0.get(&at).map(|kept| kept.root)
    }

    pub(super) fn own(&self, at: Place) -> Option<&Own> {
        self.0.get(&at)?.own.as_ref()
    }

    /// This node cosigned.
    pub(super) fn signed(&mut self, at: &Cosigned, own: Own) {
        self.entry(at).own = Some(own);
        self.bound();
    }

    /// All are told of what this node said of a place.
    pub(super) fn told(&mut self, at: Place) {
        if let Some(own) = self.0.get_mut(&at).and_then(|kept| kept.own.as_mut()) {
            own.all = true;
        }
    }

    /// A quorum did.
    pub(super) fn published(&mut self, at: &Cosigned, published: Arc<Published>) {
        self.entry(at).quorum = Some(published);
        self.bound();
    }

    fn entry(&mut self, at: &Cosigned) -> &mut Kept {
        self.0.entry(place(at)).or_insert(Kept { root: at.root, own: None, quorum: None })
    }

    fn bound(&mut self) {
        while self.0.len() > NOTES_KEPT {
            self.0.pop_first();
        }
    }

    /// The sizes that this node cosigned, from a place on, the newest first.
    pub(super) fn signed_from(&self, from: Place) -> impl Iterator<Item = Cosigned> + '_ {
        let kept = self.0.range(from..).rev().filter(|(_, kept)| kept.own.is_some());
        kept.map(|((incarnation, size), kept)| Cosigned { incarnation: *incarnation, size: *size, root: kept.root })
    }

    /// A signed statement about at least so much of a log: of a quorum if there is one, else this node's, if that will do.
    pub(super) fn reaching(&self, (incarnation, size): Place, of_a_quorum: bool) -> Option<Side> {
        let reaching = || self.0.range((incarnation, size)..=(incarnation, u64::MAX));
        let quorum = reaching().rev().find_map(|(at, kept)| Some((at, kept, kept.quorum.as_ref()?.note.clone())));
        let own =
            || reaching().next_back().and_then(|(at, kept)| Some((at, kept, kept.own.as_ref()?.note.to_string())));
        let ((_, size), kept, note) = quorum.or_else(|| if of_a_quorum { None } else { own() })?;
        Some(Side { size: *size, root: kept.root, note: Some(note) })
    }

    /// The note of exactly this, if one is kept: of a quorum if there is one, else this node's.
    pub(super) fn exactly(&self, at: &Cosigned) -> Option<Note> {
        let kept = self.0.get(&place(at)).filter(|kept| kept.root == at.root)?;
        let quorum = kept.quorum.as_ref().and_then(|published| Note::parse(&published.note).ok());
        quorum.or_else(|| kept.own.as_ref().map(|own| own.note.clone()))
    }

    /// This node's signed statement of exactly this, if it is kept.
    pub(super) fn note_of(&self, at: &Cosigned) -> Option<String> {
        let own = self.own(place(at)).filter(|own| own.said.point.root == at.root)?;
        Some(own.note.to_string())
    }
}
