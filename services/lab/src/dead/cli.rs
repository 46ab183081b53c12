//! `lab dead`: look at dead letters, send them back, throw them away.

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Result, bail};
use messaging::receive::redrive::{Selection, State};
use uuid::Uuid;

use super::args::{DeadCommand, Other, PlaceArgs};
use super::receivers::{Refused, Told};
use super::words::{decided, of_other, one, stands};
use super::{Dead, read};
use crate::audit::{self, Verdict};
use crate::run::{RunDir, RunId};
use crate::say::{self, Usage, grouped};
use crate::stack::dir;

/// How often progress is looked at.
const EACH: Duration = Duration::from_millis(500);
/// So many are listed.
const REDRIVES: usize = 5;
/// Where nobody can say what the clients of a run were told.
const NO_RECORD: &str = "its load has no record here, so it cannot be audited";

/// Does it.
pub async fn run(root: &Path, command: &DeadCommand) -> Result<ExitCode> {
    match command {
        DeadCommand::List {
            of: Some(other),
            most,
            place,
            ..
        } => list_of(&place.find(root).await?, *other, *most).await?,
        DeadCommand::List {
            of: None,
            which,
            most,
            place,
        } => {
            list(&place.find(root).await?, &which.selection(), *most).await?;
        }
        DeadCommand::Show { id, place } => show(&place.find(root).await?, *id).await?,
        DeadCommand::Redrive {
            cancel: Some(id),
            place,
            ..
        } => {
            cancel(root, &place.find(root).await?, *id).await?;
        }
        DeadCommand::Redrive {
            which,
            rate,
            dry_run,
            yes,
            no_audit,
            place,
            cancel: None,
        } => {
            let (selection, dead) = (which.chosen()?, place.find(root).await?);
            let how = How {
                rate: *rate,
                dry_run: *dry_run,
                yes: *yes,
            };
            let over = redrive(root, &dead, &selection, how).await?;
            if let Some(id) = over.filter(|_| !no_audit) {
                return audit(root, &dead, id, place).await;
            }
        }
        DeadCommand::Discard {
            which,
            confirm,
            place,
        } => {
            let (selection, dead) = (which.chosen()?, place.find(root).await?);
            let who = "the command line";
            let done = dead.receivers.discard(&selection, confirm, who).await;
            say::line(format!("{} discarded", done.map_err(told)?));
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn list(dead: &Dead, selection: &Selection, most: i64) -> Result<()> {
    let groups = read::groups(&dead.ledger, selection).await?;
    if groups.is_empty() {
        say::line("No dead letters.");
    }
    for group in groups {
        let count = grouped(group.count.unsigned_abs());
        say::line(format!("{count:>9}  {}", say::plain(&group.reason)));
    }
    let letters = read::letters(&dead.ledger, selection, i64::MAX, most).await?;
    let letters = letters.iter().map(one);
    let orders = read::orders(&dead.ledger).await?;
    let orders = orders.iter().take(REDRIVES);
    let orders = orders.map(|order| format!("redrive {}  {}", order.redrive_id, stands(order)));
    for block in [letters.collect::<Vec<_>>(), orders.collect()] {
        if !block.is_empty() {
            say::line("");
            say::line(block.join("\n"));
        }
    }
    Ok(())
}

async fn list_of(dead: &Dead, other: Other, most: i64) -> Result<()> {
    let letters = read::of_other(&dead.ledger, other.schema(), most).await?;
    if letters.is_empty() {
        say::line(format!("No dead letters of {}.", other.schema()));
    }
    for letter in &letters {
        say::line(of_other(letter));
    }
    Ok(())
}

async fn show(dead: &Dead, id: Uuid) -> Result<()> {
    if let Some(order) = read::order(&dead.ledger, id).await? {
        let outcome = read::outcome(&dead.ledger, id).await?;
        say::line(order.plan());
        say::line(stands(&order));
        say::line(format!(
            "of those that were sent back: {} processed, {} parked again, {} on their way",
            outcome.processed, outcome.parked_again, outcome.on_their_way
        ));
        return Ok(());
    }
    let letters = read::of(&dead.ledger, id).await?;
    if letters.is_empty() {
        bail!("{id} is neither a redrive nor a message with a dead letter");
    }
    for letter in letters {
        say::line(one(&letter));
        say::line(decided(&letter));
    }
    Ok(())
}

/// How to send them back.
struct How {
    /// Messages a second at most.
    rate: u32,
    dry_run: bool,
    yes: bool,
}

/// What a person can mend is wrong usage.
fn told(refused: Refused) -> anyhow::Error {
    if refused.is_ours() {
        Usage(refused.to_string()).into()
    } else {
        refused.into()
    }
}

/// Plans, asks, starts, and waits until it is over: then it has a name.
async fn redrive(
    root: &Path,
    dead: &Dead,
    selection: &Selection,
    how: How,
) -> Result<Option<Uuid>> {
    let Some((id, planned)) = plan(dead, selection, &how).await? else {
        return Ok(None);
    };
    say::line(&planned.plan);
    if how.dry_run {
        return Ok(None);
    }
    if !how.yes && !say::confirm("Send them back?")? {
        dead.receivers.cancel(id).await?;
        say::line("Nothing was sent back.");
        return Ok(None);
    }
    let mut now = dead.receivers.start(id).await.map_err(told)?.redrive;
    let cancel = dir::command(root, &format!("dead redrive --cancel {id}"));
    say::line(format!("redrive {id}; to end it: `{cancel}`"));
    while now.state == State::Running {
        tokio::time::sleep(EACH).await;
        match dead.receivers.get(id).await {
            Ok(next) => now = next.redrive,
            // it goes on without us, and so do we
            Err(error) if !error.is_passing() => return Err(error.into()),
            Err(error) => say::complain(format!("{error}; looking again")),
        }
    }
    say::line(stands(&now));
    Ok(Some(id))
}

/// None, with a word about it: there is nothing to send back.
async fn plan(dead: &Dead, selection: &Selection, how: &How) -> Result<Option<(Uuid, Told)>> {
    let (id, who) = (Uuid::now_v7(), "the command line");
    let plan = dead
        .receivers
        .plan(id, selection, how.rate, who, how.dry_run);
    match plan.await {
        Ok(planned) => Ok(Some((id, planned))),
        Err(refused) if refused.none_fits() => {
            say::line(refused);
            Ok(None)
        }
        Err(refused) => Err(told(refused)),
    }
}

/// Ends one, and says how to learn what became of its runs.
async fn cancel(root: &Path, dead: &Dead, id: Uuid) -> Result<()> {
    let order = match dead.receivers.cancel(id).await {
        Err(refused) if refused.is_unknown() => {
            let list = dir::command(root, "dead list");
            let why = format!("there is no redrive {id}; `{list}` shows the last ones");
            return Err(Usage(why).into());
        }
        answer => answer.map_err(told)?.redrive,
    };
    say::line(stands(&order));
    if order.started_at.is_none() {
        return Ok(());
    }
    for run in read::runs(&dead.ledger, id).await? {
        if on_record(root, &run) {
            let audit = dir::command(root, &format!("audit --run {run}"));
            say::line(format!("what became of run {run}: `{audit}`"));
        } else {
            say::line(format!("run {}: {NO_RECORD}", say::plain(&run)));
        }
    }
    Ok(())
}

/// Whether the load's own record of a run is here. Others name theirs as they like.
fn on_record(root: &Path, run: &str) -> bool {
    let id: Option<RunId> = run.parse().ok();
    id.is_some_and(|id| RunDir::open(root, &id).is_ok())
}

/// Audits the runs of a redrive that is over; gives the exit code of the gravest verdict. A run that cannot be audited here
/// is inconclusive.
async fn audit(root: &Path, dead: &Dead, id: Uuid, place: &PlaceArgs) -> Result<ExitCode> {
    let runs = read::runs(&dead.ledger, id).await?;
    if runs.is_empty() {
        say::line("Its messages are of no run, so there is no record to judge them by.");
    }
    let mut verdicts = Vec::new();
    for run in runs {
        say::line(format!("\nAudit of run {}:", say::plain(&run)));
        if !on_record(root, &run) {
            say::line(format!("{}: {NO_RECORD}", Verdict::Inconclusive));
            verdicts.push(Verdict::Inconclusive);
            continue;
        }
        match audit::cli::judge(root, &place.audit_of(&run)).await {
            Ok(verdict) => verdicts.push(verdict),
            // such as one whose messages are in another ledger: nobody knows
            Err(error) if error.is::<Usage>() => {
                say::line(format!("{}: {error:#}", Verdict::Inconclusive));
                verdicts.push(Verdict::Inconclusive);
            }
            Err(error) => return Err(error),
        }
    }
    let gravest = [Verdict::Fail, Verdict::Inconclusive];
    let gravest = gravest.into_iter().find(|one| verdicts.contains(one));
    Ok(ExitCode::from(gravest.map_or(0, Verdict::exit_code)))
}
