//! Doing what the command line asks for: the library's work, and the printing of what came of it.

use std::path::PathBuf;
use std::time::Duration;

use certs::identity_file;
use certs::passphrase::Source;
use ehe::control::Right;
use ehe::read::Purpose;
use ehe::time::UnixMs;

use super::authority;
use super::identity::identity;
use super::issued::Issued;
use super::{Cli, Command, GrantArgs, PurposeArg, ReadArgs, RevokeArgs, RoomCommand, VerifyArgs, categories};
use crate::audit::audit;
use crate::build::Invitation;
use crate::error::{Error, Exit};
use crate::evidence;
use crate::heads::Newest;
use crate::home::Home;
use crate::manage::{self, Which};
use crate::output::{Format, Printer, ReadingsPrinter};
use crate::read::{Filter, Readings, read};
use crate::rooms;
use crate::session::Session;
use crate::verify::verify;
use crate::watch::watch;

/// Says something beside the results.
pub type Complain = dyn FnMut(&str) -> std::io::Result<()>;

/// What the surroundings give to a command.
pub struct Surroundings<'a> {
    /// Environment variables that hold paths.
    pub variable: &'a dyn Fn(&str) -> Option<PathBuf>,
    /// The clock.
    pub clock: fn() -> UnixMs,
    /// Where complaints go that are no results. Most may stay unread; whoever needs to be heard looks at the result.
    pub complain: &'a mut Complain,
}

/// Does what was asked for. Needs a tokio runtime around it. Results go to the printer.
pub async fn run(cli: Cli, mut around: Surroundings<'_>, printer: &mut Printer<'_>) -> Result<Exit, Error> {
    cli.check()?;
    if let Command::Verify(VerifyArgs { evidence: Some(file), alliance, .. }) = &cli.command {
        // By itself: neither credentials nor a node have a part in it.
        printer.evidence(&evidence::judge_file(file, *alliance)?, alliance.is_some())?;
        printer.flush()?;
        return Ok(Exit::Done);
    }
    let home = Home::find(cli.home, around.variable)?;
    let passphrase = Source::of(cli.passphrase_file.as_deref());
    if let Command::Identity(command) = cli.command {
        return identity(&command, &home, &passphrase, printer).map(|()| Exit::Done);
    }
    let patience = Duration::from_secs(cli.timeout.into());
    let mut session = Session::open(home, &passphrase, patience, around.clock)?;
    let done = command(cli.command, &mut session, &mut around, printer).await;
    session.nodes.close().await;
    let exit = done?;
    printer.flush()?;
    Ok(exit)
}

async fn command(
    command: Command,
    session: &mut Session,
    around: &mut Surroundings<'_>,
    printer: &mut Printer<'_>,
) -> Result<Exit, Error> {
    match command {
        Command::Identity(_) => {}
        Command::Room(RoomCommand::Create { name, shard, no_recovery, out }) => {
            manage::may_create(session, shard)?;
            let issued = Issued::new(!no_recovery, &out, printer.is_json(), around)?;
            let made = manage::create(session, name.as_deref(), shard, issued.key()).await;
            let made = made.inspect_err(|why| issued.failed(why, around))?;
            let printed = printer.created(&made, issued.shown()).and_then(|()| printer.flush());
            printed.inspect_err(|_| {
                let _ = (around.complain)(&format!("room {} was made: `ehe rooms` lists it", made.room));
            })?;
        }
        Command::Authority(command) => authority::run(command, session, around, printer).await?,
        Command::Room(RoomCommand::Show(room)) => printer.room(&rooms::show(session, room.room).await?)?,
        Command::Grant(args) => grant(session, args, around, printer).await?,
        Command::Revoke(args) => revoke(session, &args, printer).await?,
        Command::Rooms => {
            let found = rooms::rooms(session).await?;
            printer.rooms(&found)?;
            for (problem, _) in &found.problems {
                let _ = (around.complain)(problem);
            }
            return Ok(found.problems.iter().map(|(_, exit)| *exit).max().unwrap_or(Exit::Done));
        }
        Command::Read(args) => {
            let (filter, mut out) = reading(&args, printer.is_json());
            let purpose = purpose(session, args.purpose);
            let readings = read(session, args.room, &filter, purpose).await?;
            out.print(printer, &readings.rows)?;
            let newest = readings.newest.as_ref().map_or(Exit::Done, |newest| not_newest(newest, around.complain));
            return Ok(newest.max(unopened(&readings, around.complain)));
        }
        Command::Watch(args) => return watch_until_stopped(session, &args, around, printer).await,
        Command::Audit(room) => {
            let (records, newest) = audit(session, room.room).await?;
            printer.audit(&records)?;
            return Ok(not_newest(&newest, around.complain));
        }
        Command::Evidence => {
            let nodes = evidence::fetch(session).await;
            printer.evidence_of(&nodes)?;
            let failed = nodes.iter().filter_map(|node| node.pieces.as_ref().err());
            return Ok(failed.map(Error::exit).max().unwrap_or(Exit::Done));
        }
        Command::Verify(args) => {
            let room = args.room.ok_or_else(|| Error::Usage("name --room or --evidence".into()))?;
            if let Some(file) = &args.save {
                session.save(room, file)?;
            }
            let report = verify(session, room).await?;
            printer.report(&report)?;
            return Ok(if report.holds() { Exit::Done } else { Exit::Unverified });
        }
        Command::Status => {
            let nodes = rooms::status(session).await;
            printer.status(&nodes)?;
            if nodes.iter().any(|(_, status)| status.is_err()) {
                return Ok(Exit::Failed);
            }
        }
    }
    Ok(Exit::Done)
}

async fn grant(
    session: &mut Session,
    args: GrantArgs,
    around: &mut Surroundings<'_>,
    printer: &mut Printer<'_>,
) -> Result<(), Error> {
    let subject = identity_file::load_public(&args.to)?;
    let author = subject.author_id();
    let (right, named) = if args.append.is_empty() { (Right::Read, &args.read) } else { (Right::Append, &args.append) };
    let invitation = Invitation {
        subject,
        right,
        categories: categories(named),
        history: args.history,
        from: args.from,
        until: args.until,
        expires: args.expires,
        purpose: args.purpose,
        name: args.name,
    };
    let granted = manage::grant(session, args.room, &invitation).await?;
    printer.granted(granted.id, author)?;
    if granted.by_delegate && right == Right::Append {
        let _ = (around.complain)(
            "a gateway that only a delegate invited seals after the patient's next `ehe authority renew`, and not before",
        );
    }
    Ok(())
}

async fn revoke(session: &mut Session, args: &RevokeArgs, printer: &mut Printer<'_>) -> Result<(), Error> {
    let which = match (args.grant, args.subject) {
        (Some(grant), _) => Which::Grant(grant),
        (None, Some(subject)) => Which::Subject(subject),
        (None, None) => return Err(Error::Usage("name --grant or --subject".into())),
    };
    let revoked = manage::revoke(session, args.room, which, args.drain_until).await?;
    printer.revoked(&revoked)
}

fn reading(args: &ReadArgs, json: bool) -> (Filter, ReadingsPrinter) {
    let filter = Filter { vitals: args.vital.iter().copied().collect(), from: args.from, until: args.until };
    let format = match (json, args.csv) {
        (true, _) => Format::Json,
        (false, true) => Format::Csv,
        (false, false) => Format::Table,
    };
    (filter, ReadingsPrinter::new(args.room, args.patient.clone(), format))
}

/// What for somebody reads who does not say it.
fn purpose(session: &Session, named: Option<PurposeArg>) -> Purpose {
    match named {
        Some(named) => named.into(),
        None => session.usual_purpose(),
    }
}

/// Says if what was shown may not be all. It is true in any case, and was printed.
fn not_newest(newest: &Newest, complain: &mut Complain) -> Exit {
    if let Some(said) = newest.complaint() {
        let _ = complain(&said);
    }
    newest.exit()
}

/// Says which events did not open. What did open was printed; the exit code tells that it is not all.
fn unopened(readings: &Readings, complain: &mut Complain) -> Exit {
    for (index, author) in &readings.void {
        let _ = complain(&format!(
            "entry {index} of the room is void: {author}, in whose name it is, did not sign it; nothing of it is shown"
        ));
    }
    for (event, why) in &readings.unopened {
        let _ = complain(&format!("event {event} does not open: {why}"));
    }
    if readings.unopened_count > readings.unopened.len() {
        let _ = complain(&format!("{} events in all do not open", readings.unopened_count));
    }
    if readings.unopened_count == 0 { Exit::Done } else { Exit::Unverified }
}

async fn watch_until_stopped(
    session: &mut Session,
    args: &ReadArgs,
    around: &mut Surroundings<'_>,
    printer: &mut Printer<'_>,
) -> Result<Exit, Error> {
    let (filter, mut out) = reading(args, printer.is_json());
    let (mut exit, purpose) = (Exit::Done, purpose(session, args.purpose));
    let watching = watch(session, args.room, &filter, purpose, |readings| {
        exit = exit.max(unopened(&readings, around.complain));
        out.print(printer, &readings.rows)
    });
    tokio::select! {
        ended = watching => ended?,
        stopped = tokio::signal::ctrl_c() => stopped.map_err(|source| Error::Io { path: "signals".into(), source })?,
    }
    Ok(exit)
}
