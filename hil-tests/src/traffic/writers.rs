//! Writers: each hands in one run after the other, and goes on only against a verified receipt. One of them also tries what is not its
//! to try: a run with a false signature.

use std::time::Duration;

use anyhow::{Context, Result};
use bytes::Bytes;
use ehe::time::UnixMs;
use ehe::wire::{Request, Response};
use tokio::sync::watch;

use super::book::{ATTEMPT, Book, PATIENCE, now, rest};
use crate::bench::crowd::{Prepared, Verifier, Writer};
use crate::checker::history::{Received, Sent};
use crate::lab::charters::Charters;

/// Between two runs of one writer: many hearts beat, none of them a thousand times a second.
const PAUSE: Duration = Duration::from_millis(15);
/// A forged run comes with every so many true ones.
const FORGED_EVERY: usize = 8;

/// Writes until it is told to stop.
pub async fn write(
    mut writer: Writer,
    name: String,
    forges: bool,
    charters: Charters,
    book: Book,
    mut stop: watch::Receiver<bool>,
) {
    let mut turn = 0;
    while rest(&mut stop, PAUSE).await {
        turn += 1;
        let events = 1 + turn % 4;
        let prepared = match writer.prepare(1, events).map(|mut runs| runs.pop()) {
            Ok(Some(prepared)) => prepared,
            other => return book.wrong(&name, format!("it cannot seal: {:?}", other.err())),
        };
        if forges && turn.is_multiple_of(FORGED_EVERY) {
            match hand_in_forged(&writer, &prepared, &charters, &book).await {
                Ok(false) => {}
                // The strand goes on behind it.
                Ok(true) => continue,
                Err(why) => return book.wrong(&name, format!("{why:#}")),
            }
        }
        book.write(|history| history.sent.push(sent(&prepared, true)));
        if let Err(why) = hand_in(&writer, &prepared, &charters, &book).await {
            return book.wrong(&name, format!("{why:#}"));
        }
    }
}

fn sent(prepared: &Prepared, genuine: bool) -> Sent {
    Sent { room: prepared.room, run: prepared.run, events: prepared.events.clone(), genuine }
}

async fn hand_in(writer: &Writer, prepared: &Prepared, charters: &Charters, book: &Book) -> Result<()> {
    let (line, shard, sent_at) = (&writer.gateway().line, writer.gateway().shard, now());
    let (_, answer) = line.ask(shard, &prepared.frame, ATTEMPT, PATIENCE).await?;
    received(prepared, &answer, sent_at, charters, book)
}

fn received(prepared: &Prepared, answer: &[u8], sent_at: UnixMs, charters: &Charters, book: &Book) -> Result<()> {
    let proven = Verifier::under(charters.clone()).verify(prepared, answer)?;
    book.saw(&proven.checkpoint);
    let received = Received {
        room: prepared.room,
        run: prepared.run,
        index: proven.leaf.index,
        accepted_at: proven.leaf.accepted_at,
        sent_at,
        got_at: now(),
    };
    book.write(|history| history.received.push(received));
    Ok(())
}

/// The same run, of which one bit of the signature is another. Whether it was taken.
async fn hand_in_forged(writer: &Writer, prepared: &Prepared, charters: &Charters, book: &Book) -> Result<bool> {
    let Request::Submit(mut submission) = Request::decode(&prepared.frame)? else { return Ok(false) };
    *submission.run.0.last_mut().context("a run has bytes")? ^= 1;
    let run = submission.run.hash();
    let frame = Bytes::from(Request::Submit(submission).to_vec());
    let forged = Prepared { frame, run, ..prepared.clone() };
    book.write(|history| history.sent.push(sent(&forged, false)));
    let (line, shard, sent_at) = (&writer.gateway().line, writer.gateway().shard, now());
    let (_, answer) = line.ask(shard, &forged.frame, ATTEMPT, PATIENCE).await?;
    if matches!(Response::decode(&answer)?, Response::Refused(_)) {
        return Ok(false);
    }
    received(&forged, &answer, sent_at, charters, book)?;
    Ok(true)
}
