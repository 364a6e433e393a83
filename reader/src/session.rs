//! One command's work: credentials, nodes, clock, and the requests that it signs.

use std::path::Path;
use std::time::Duration;

use certs::passphrase::Source;
use certs::store::StoreError;
use certs::{Credentials, FileError, Role};
use ehe::charter::{RULES_KNOWN, VerifiedCharter};
use ehe::event::{CheckedEvent, Event};
use ehe::id::{AuthorId, NodeId, Nonce, RoomId};
use ehe::identity::{Identity, PublicIdentity};
use ehe::ledger::Verified;
use ehe::read::{Part, Purpose, ReadRequest, Scope};
use ehe::refusal::Refusal;
use ehe::time::UnixMs;
use ehe::wire::{Request, Response};
use getrandom::SysRng;
use getrandom::rand_core::{CryptoRng, Rng, UnwrapErr};

use crate::error::Error;
use crate::evidence;
use crate::follow::Following;
use crate::heads::ShownBy;
use crate::home::Home;
use crate::memory::{MemoryError, RoomMemory};
use crate::nodes::Nodes;
use crate::saved::Saving;
use crate::scope;

/// The operating system's randomness. It stops the program where there is none, before anything weak could be made of it.
pub fn rng() -> impl CryptoRng {
    UnwrapErr(SysRng)
}

/// Fresh random bytes.
pub fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    rng().fill_bytes(&mut bytes);
    bytes
}

/// One command's work.
pub struct Session {
    home: Home,
    credentials: Credentials,
    /// The nodes.
    pub nodes: Nodes,
    clock: fn() -> UnixMs,
    patience: Duration,
    /// Where what the next fetch is served is kept besides.
    saving: Option<Saving>,
    shown_by: Option<ShownBy>,
}

/// Something that a node showed, after it was verified.
pub enum Shown {
    /// An entry of the room, by its place.
    Entry(u64, Box<Verified>),
    /// The wrap of an event key. Worth what the signed events say that name it.
    Wrap(Event),
}

impl Session {
    /// Reads the credentials, with a passphrase where the identity is protected by one. Needs a tokio runtime around it.
    pub fn open(home: Home, passphrase: &Source, patience: Duration, clock: fn() -> UnixMs) -> Result<Self, Error> {
        let credentials = Credentials::open(home.dir(), passphrase)?;
        let nodes = Nodes::new(credentials.clone(), patience)?;
        say_if_older(credentials.charter());
        Ok(Self { home, credentials, nodes, clock, patience, saving: None, shown_by: None })
    }

    /// The same work in another directory's name: the one that `option` names; `must`: what it must be.
    pub fn beside(
        &self,
        home: Home,
        passphrase: &Source,
        (option, must): (&'static str, String),
    ) -> Result<Self, Error> {
        let dir = home.dir().to_owned();
        let wrong = |why| Error::Beside { option, dir, why: Box::new(why), must };
        let other = match Self::open(home, passphrase, self.patience, self.clock) {
            Ok(other) => other,
            // Of its passphrase the message says all that there is to say.
            Err(
                why @ Error::Credentials(StoreError::File(FileError::Passphrase { .. } | FileError::Sealed { .. })),
            ) => {
                return Err(why);
            }
            Err(why) => return Err(wrong(why)),
        };
        if other.credentials.alliance_id() != self.credentials.alliance_id() {
            return Err(wrong(Error::Usage("it is of another alliance".into())));
        }
        if other.author() == self.author() {
            return Err(wrong(Error::Usage("it has the keys that this command runs with".into())));
        }
        Ok(other)
    }

    /// The program's directory.
    pub fn home(&self) -> &Home {
        &self.home
    }

    /// Who asks.
    pub fn me(&self) -> &Identity {
        self.credentials.identity()
    }

    /// Who asks, by the id of its keys.
    pub fn author(&self) -> AuthorId {
        self.me().author_id()
    }

    /// As what the channel's certificate names the one who asks.
    pub fn role(&self) -> Role {
        self.credentials.peer().role()
    }

    /// Refuses keys that are not certified as a patient's for what makes them those of a room's patient. Nodes take others (SPEC 11):
    /// but a gateway's lie open in a home, a clinician's are for other people's rooms, and a room does not give keys back.
    pub fn is_a_patients(&self) -> Result<(), Error> {
        match self.role() {
            Role::Patient => Ok(()),
            role => Err(Error::NotAPatient { dir: self.home.dir().to_owned(), role }),
        }
    }

    /// Refuses to invite a node of the alliance, or one that it had: the charters name their keys. That nodes keep what they cannot open
    /// is what the alliance promises, and the ledger would take such a grant.
    pub fn is_no_node(&self, invited: &PublicIdentity) -> Result<(), Error> {
        let charters = self.credentials.charter_chain().0.iter().rev().filter_map(|charter| charter.read().ok());
        let node = charters.flat_map(|charter| charter.nodes).find(|node| node.sign == invited.sign);
        node.map_or(Ok(()), |node| Err(Error::ANode { node: node.name }))
    }

    /// What for somebody of this role asks who does not say it.
    pub fn usual_purpose(&self) -> Purpose {
        if self.role() == Role::Patient { Purpose::PatientRequest } else { Purpose::Treatment }
    }

    /// The alliance's charter.
    pub fn charter(&self) -> &VerifiedCharter {
        self.credentials.charter()
    }

    pub(crate) fn credentials(&self) -> &Credentials {
        &self.credentials
    }

    /// Goes on under newer charters, and keeps them for the commands after this one.
    pub(crate) fn take_up(&mut self, newer: Credentials) {
        tracing::info!(version = newer.charter().version(), "a newer charter of the alliance was verified");
        say_if_older(newer.charter());
        // This command needs them in memory only; the next one would fetch them again.
        if let Err(why) = newer.keep_charters() {
            tracing::warn!("the alliance's newer charter is not kept: {why}");
        }
        self.nodes.go_under(newer.clone());
        self.credentials = newer;
    }

    /// Now, by this machine's clock.
    pub fn now(&self) -> UnixMs {
        (self.clock)()
    }

    /// This machine's clock.
    pub fn clock(&self) -> fn() -> UnixMs {
        self.clock
    }

    /// Keeps what the next fetch of a room is served in a new file as well.
    pub fn save(&mut self, room: RoomId, file: &Path) -> Result<(), Error> {
        self.saving = Some(Saving::begin(file, room, self.credentials.alliance_id())?);
        Ok(())
    }

    /// Begins to follow a room, with what is remembered of it.
    pub fn following(&self, room: RoomId, whole: bool) -> Result<Following, Error> {
        self.following_as(room, whole, self.me())
    }

    fn following_as(&self, room: RoomId, whole: bool, me: &Identity) -> Result<Following, Error> {
        let known = self.home.recall(room)?;
        let following = Following::new(room, whole, me.clone(), self.credentials.alliance_id(), known);
        Ok(if me.author_id() == self.author() { following } else { following.in_another_name() })
    }

    /// What is remembered of a room of this alliance. A directory that was enrolled in another one before may remember rooms of
    /// that, which nodes of this one know nothing of.
    pub fn recall(&self, room: RoomId) -> Result<Option<RoomMemory>, Error> {
        Ok(self.home.recall(room)?.filter(|known| self.is_here(room, known)))
    }

    fn is_here(&self, room: RoomId, known: &RoomMemory) -> bool {
        self.charter().is_origin_of(&known.origin, room.shard(self.charter().shard_count()))
    }

    /// A node showed the end of a room, says it as of `at`.
    pub(crate) fn note_shown(&mut self, by: Option<NodeId>, at: UnixMs) {
        self.shown_by = by.map(|node| ShownBy { node, at });
    }

    /// The node that showed the end of a room last.
    pub fn shown_by(&self) -> Option<ShownBy> {
        self.shown_by
    }

    /// A request for what comes after the entries that were followed. Each try of it is made [`fresh`].
    pub fn request(&self, following: &Following, scope: &Scope, purpose: Purpose) -> ReadRequest {
        ReadRequest {
            alliance: self.credentials.alliance_id(),
            room: following.room(),
            reader: following.asks().author_id(),
            nonce: Nonce::ZERO,
            scope: scope.clone(),
            purpose,
            actor: None,
            head: following.known().map(|known| known.seen()),
            from_index: following.entries(),
            made_at: UnixMs(0),
        }
    }

    /// Reads a part of a room up to its head. `show` gets what was verified; it stands in the ledger only once this returns.
    pub async fn fetch(
        &mut self,
        following: &mut Following,
        scope: &Scope,
        purpose: Purpose,
        mut show: impl FnMut(Shown, &Following) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let (prepared, mut asked) = (self.request(following, scope, purpose), Nonce::ZERO);
        let clock = self.clock;
        let me = following.asks().clone();
        let mut answers = self
            .nodes
            .ask(following.room(), || {
                let request = fresh(&prepared, clock());
                asked = request.nonce;
                Request::Fetch(request.sign(&me), me.public().clone())
            })
            .await
            .map_err(|why| self.not_served(following, why))?;
        let serving = self.nodes.last();
        loop {
            match answers.next().await.map_err(|why| self.not_served(following, why))? {
                Response::Wrap(event) => show(Shown::Wrap(event), following)?,
                Response::Item(item) => {
                    if let Some(saving) = &mut self.saving {
                        saving.item(&item)?;
                    }
                    let shown = following.take(item)?;
                    show(shown, following)?;
                }
                Response::Head(head) => {
                    let charter = self.charter_of(&head.last.checkpoint).await?;
                    let memory = self.confirm(following, (&head, asked), &charter, serving).await?;
                    self.is_current(following.room(), &charter)?;
                    self.note_shown(serving, head.at);
                    let (age, fresh) = (clock().since(head.at), self.charter().head_fresh_ms());
                    if age > u64::from(fresh) {
                        tracing::warn!(
                            "the node's head is {age} ms old by this clock: something newer may be missing, or a clock is wrong"
                        );
                    }
                    if let Some(saving) = self.saving.take() {
                        saving.end(&head, asked, self.credentials.charter_chain())?;
                    }
                    return self.home.remember(following.room(), &memory);
                }
                other => return Err(answers.unexpected(kind(&other))),
            }
        }
    }

    /// Where what was shown contradicts what was seen before, and both are signed, that is evidence: it is kept.
    pub(crate) fn evident(&self, why: Error, known: Option<&RoomMemory>, shown: &str) -> Error {
        let before = known.and_then(|known| known.note.as_deref());
        match (&why, before) {
            (Error::Memory(MemoryError::Rewritten { .. }), Some(before)) => {
                match evidence::keep(&self.home, self.credentials.charter_chain(), before, shown, None) {
                    Some(file) => Error::Evident { why: Box::new(why), file },
                    None => why,
                }
            }
            _ => why,
        }
    }

    /// What a refusal means to one who remembers the room: a node that does not know it lost it, or withholds it. Who has no
    /// right in a room hears another refusal (SPEC 9).
    pub fn not_served(&self, following: &Following, why: Error) -> Error {
        let room = following.room();
        match (&why, following.known().filter(|known| self.is_here(room, known))) {
            (Error::Refused(Refusal::RoomUnknown), Some(known)) => {
                Error::Memory(known.gone(self.nodes.spoke_last(), room))
            }
            _ => why,
        }
    }

    /// Follows a room's control records to their end: what everything else starts from. Leaves no access record
    /// unless it is refused.
    pub async fn control(&mut self, room: RoomId, purpose: Purpose) -> Result<Following, Error> {
        let me = self.me().clone();
        self.control_as(room, purpose, &me).await
    }

    /// The same in the name of another identity: the recovery identity, which has no channel of its own.
    pub async fn control_as(&mut self, room: RoomId, purpose: Purpose, me: &Identity) -> Result<Following, Error> {
        let mut following = self.following_as(room, false, me)?;
        self.fetch(&mut following, &scope::everything(Part::Control), purpose, |_, _| Ok(())).await?;
        following.state()?;
        Ok(following)
    }
}

/// What nodes show under later rules may hold entries that this program refuses, though nobody is at fault.
fn say_if_older(charter: &VerifiedCharter) {
    let rules = charter.rules();
    if rules > RULES_KNOWN {
        tracing::warn!(
            "the alliance's charter has raised the rules to version {rules}, this program knows version {RULES_KNOWN}: update it"
        );
    }
}

/// The request with a nonce of its own, made now: nodes take each request once.
pub fn fresh(request: &ReadRequest, now: UnixMs) -> ReadRequest {
    ReadRequest { nonce: Nonce(random()), made_at: now, ..request.clone() }
}

/// Content events of a run whose signature stands: what reads are made of.
pub fn content(shown: &Verified) -> impl Iterator<Item = &CheckedEvent> {
    let events = match shown {
        Verified::Run { events, .. } => events.as_slice(),
        _ => &[],
    };
    events.iter().filter(|event| event.core().kind.is_content())
}

/// What an answer is, for messages.
pub fn kind(response: &Response) -> &'static str {
    match response {
        Response::Submitted(_) => "submitted",
        Response::Known(_) => "known",
        Response::Refused(_) => "refused",
        Response::AskNode(_) => "ask another node",
        Response::Item(_) => "an entry",
        Response::Wrap(_) => "a wrap",
        Response::Head(_) => "a head",
        Response::Rooms(_) => "rooms",
        Response::Charter(_) => "charters",
        Response::Status(_) => "a status",
        Response::Evidence(..) => "evidence",
        Response::Restorations(_) => "records of restored logs",
        Response::Extends(..) => "how a log extends another",
    }
}
