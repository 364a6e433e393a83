//! Evidence: judging a file of it, making one where nodes show what contradicts itself, fetching what nodes keep.

use std::path::{Path, PathBuf};

use ehe::charter::{CharterChain, VerifiedCharter};
use ehe::checkpoint::VerifiedCheckpoint;
use ehe::evidence::{Contradiction, Evidence, EvidenceError, Verdict, judge};
use ehe::id::{AllianceId, Hash};
use ehe::limits::EVIDENCE_MAX_BYTES;
use ehe::wire::{Request, Response};

use crate::error::Error;
use crate::home::Home;
use crate::session::{Session, kind};

/// The root that a larger log has at a smaller one's size, and the proof of it.
pub type Begins = (Hash, Vec<Hash>);

/// Pieces that are asked of one node at most: as many as a node keeps.
const OF_A_NODE_MAX: u32 = 256;

/// Judges a file by itself: no network, no credentials, nobody's word. `alliance`: refuses what is about another one.
pub fn judge_file(path: &Path, alliance: Option<AllianceId>) -> Result<Verdict, Error> {
    let bytes =
        certs::file::read_public(path, EVIDENCE_MAX_BYTES, "name a file of evidence, as `ehe evidence` keeps them")?;
    let verdict = judge(&bytes).map_err(|why| Error::NoEvidence { path: path.into(), why: Box::new(why) })?;
    match alliance.filter(|wanted| *wanted != verdict.alliance) {
        Some(wanted) => Err(Error::OtherAlliance { path: path.into(), wanted, found: verdict.alliance }),
        None => Ok(verdict),
    }
}

/// Two notes about one log that a quorum signed each: of one size and with two roots, or the larger one with what is proven of how it
/// begins. The file, if it could be kept.
pub fn keep(home: &Home, charters: &CharterChain, one: &str, other: &str, begins: Option<Begins>) -> Option<PathBuf> {
    let evidence = Evidence::of(charters, one, other, begins).ok()?;
    evidence.judge().ok()?;
    match home.keep_evidence(&evidence.to_vec()) {
        Ok(path) => Some(path),
        Err(why) => {
            tracing::error!("what was shown is evidence against nodes, and cannot be kept: {why}");
            None
        }
    }
}

/// What one command saw signed: so that two nodes that show two logs are held against each other.
#[derive(Debug, Default)]
pub struct Seen(Vec<(String, VerifiedCheckpoint)>);

impl Seen {
    /// Adds what a node showed.
    pub fn see(&mut self, node: &str, shown: VerifiedCheckpoint) {
        self.0.push((node.into(), shown));
    }

    /// What was seen of the same log: of the same size, if there is such, and else the largest. Those that were added were held against
    /// each other.
    pub fn of_the_log(&self, shown: &VerifiedCheckpoint) -> Option<&(String, VerifiedCheckpoint)> {
        let says = shown.checkpoint();
        let of_it = || self.0.iter().filter(|(_, other)| other.checkpoint().origin == says.origin);
        let same = of_it().find(|(_, other)| other.checkpoint().size == says.size);
        same.or_else(|| of_it().max_by_key(|(_, other)| other.checkpoint().size))
    }
}

/// A piece that a node keeps, and where it is kept here.
pub struct Piece {
    /// The file.
    pub path: PathBuf,
    /// What it proves.
    pub verdict: Verdict,
}

/// What came of asking one node.
pub struct OfNode {
    /// Its name.
    pub node: String,
    /// What it showed that was not shown by one before it, or why it showed nothing.
    pub pieces: Result<Vec<Piece>, Error>,
}

/// Asks every node of the charter for its evidence, judges that, and keeps it.
pub async fn fetch(session: &mut Session) -> Vec<OfNode> {
    let nodes: Vec<_> = session.charter().nodes().iter().map(|node| (node.id, node.name.clone())).collect();
    session.nodes.reach_all(&nodes.iter().map(|(id, _)| *id).collect::<Vec<_>>()).await;
    let (mut all, mut judging) = (Vec::new(), Judging::default());
    for (id, node) in nodes {
        let pieces = of_node(session, id, &mut judging).await;
        all.push(OfNode { node, pieces });
    }
    all
}

/// What was shown before, and the charters by which what is shown is judged: verified once, however many pieces there are.
#[derive(Default)]
struct Judging {
    seen: Vec<Vec<u8>>,
    charters: Vec<VerifiedCharter>,
}

impl Judging {
    /// What a piece proves, and the file that it makes for others. A charter that it names and that is not here is fetched first. `wrong`: the
    /// node's fault.
    async fn judge(
        &mut self,
        session: &mut Session,
        bytes: &[u8],
        wrong: impl Fn(EvidenceError) -> Error,
    ) -> Result<(Verdict, Vec<u8>), Error> {
        let found = Contradiction::decode(bytes).map_err(|why| wrong(why.into()))?;
        let newest = found.newest_charter().map_err(&wrong)?;
        if newest > session.charter().version() {
            session.fetch_charters(newest).await?;
        }
        let chain = session.credentials().charter_chain();
        if self.charters.len() != chain.0.len() {
            let each = chain.verify_each(session.credentials().alliance_id());
            self.charters = each.map_err(|why| wrong(why.into()))?;
        }
        let verdict = found.judge(&self.charters).map_err(&wrong)?;
        Ok((verdict, found.with(chain).map_err(&wrong)?.to_vec()))
    }
}

async fn of_node(session: &mut Session, id: ehe::id::NodeId, judging: &mut Judging) -> Result<Vec<Piece>, Error> {
    let mut pieces = Vec::new();
    for place in 0..OF_A_NODE_MAX {
        let mut answers = session.nodes.ask_node(id, &Request::Evidence(place)).await?;
        let bytes = match answers.next().await? {
            Response::Evidence(_, bytes) => bytes,
            other => return Err(answers.unexpected(kind(&other))),
        };
        if bytes.is_empty() {
            break;
        }
        if judging.seen.contains(&bytes) {
            continue;
        }
        let wrong = |why| answers.unexpected(format!("called evidence, and {why}"));
        let (verdict, file) = judging.judge(session, &bytes, wrong).await?;
        pieces.push(Piece { path: session.home().keep_evidence(&file)?, verdict });
        judging.seen.push(bytes);
    }
    Ok(pieces)
}
