//! `lab dead`: look at dead letters, send them back, throw them away.

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand};
use messaging::receive::redrive::{Selection, State};
use uuid::Uuid;

use super::receivers::{Refused, Told};
use super::words::{decided, of_other, one, stands};
use super::{Dead, read};
use crate::audit::anew::WAIT_SECS;
use crate::audit::cli::AuditArgs;
use crate::audit::{self, Verdict};
use crate::passport::id;
use crate::run::sight::Elsewhere;
use crate::run::{RunDir, RunId};
use crate::say::{self, Usage, grouped};
use crate::stack::control::{self, Request};
use crate::stack::dir::{self, Secrets};
use crate::stack::postgres;
use crate::status::Status;

/// How often progress is looked at.
const EACH: Duration = Duration::from_millis(500);
/// So many are listed.
const REDRIVES: usize = 5;
/// Where nobody can say what the clients of a run were told.
const NO_RECORD: &str = "its load has no record here, so it cannot be audited";

#[derive(Debug, Subcommand)]
pub enum DeadCommand {
    /// List what is parked: by reason, then the newest; then the last redrives, and how each stands
    List {
        #[command(flatten)]
        which: Which,
        /// How many
        #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(i64).range(1..=1000))]
        most: i64,
        /// Those of another service instead, the newest: only to be looked at
        #[arg(long, value_enum, value_name = "SERVICE",
              conflicts_with_all = ["messages", "all", "reason", "run", "node", "text"])]
        of: Option<Other>,
        #[command(flatten)]
        place: PlaceArgs,
    },
    /// Show every dead letter of a message, with what was decided; or how a redrive stands
    Show {
        /// The message, or the redrive
        #[arg(value_name = "MESSAGE|REDRIVE", value_parser = id::either)]
        id: Uuid,
        #[command(flatten)]
        place: PlaceArgs,
    },
    /// Send back what is selected: says first what that would do
    ///
    /// What is parked later is not swept in. Receivers do it, so it goes on when this command ends, by Ctrl-C too; `--cancel`
    /// ends it. When it is over, the runs of its messages are audited, as by `lab audit`, and the exit code is that of the
    /// gravest verdict: 0 PASS, 1 FAIL, 3 INCONCLUSIVE, also where a run cannot be audited here.
    Redrive {
        #[command(flatten)]
        which: Which,
        /// Messages a second at most
        #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=10_000))]
        rate: u32,
        /// Only say what it would do
        #[arg(long)]
        dry_run: bool,
        /// Do not ask
        #[arg(long)]
        yes: bool,
        /// Audit nothing afterwards
        #[arg(long)]
        no_audit: bool,
        /// End this one instead
        #[arg(long, value_name = "REDRIVE", value_parser = id::redrive)]
        cancel: Option<Uuid>,
        #[command(flatten)]
        place: PlaceArgs,
    },
    /// Throw away what is selected; a record of it stays
    Discard {
        #[command(flatten)]
        which: Which,
        /// What one would have to type: "discard" and how many there are
        #[arg(long, value_name = "TEXT")]
        confirm: String,
        #[command(flatten)]
        place: PlaceArgs,
    },
}

/// A service that parks messages too.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
pub enum Other {
    /// Notes that were not saved
    Notes,
    /// Welcome mails that no mail server takes
    Signup,
}

impl Other {
    fn schema(self) -> &'static str {
        match self {
            Self::Notes => "notes",
            Self::Signup => "signup",
        }
    }
}

/// Which dead letters; all that is said must fit.
#[derive(Debug, Args)]
pub struct Which {
    /// Of these messages
    #[arg(value_name = "MESSAGE", value_parser = id::message)]
    messages: Vec<Uuid>,
    /// Whatever is parked
    #[arg(long)]
    all: bool,
    /// With this reason, as `list` groups them: a # for each number
    #[arg(long)]
    reason: Option<String>,
    /// Of this run
    #[arg(long)]
    run: Option<String>,
    /// Parked by this receiver
    #[arg(long)]
    node: Option<String>,
    /// Whose text contains this
    #[arg(long)]
    text: Option<String>,
}

impl Which {
    fn selection(&self) -> Selection {
        Selection {
            all: self.all,
            messages: (!self.messages.is_empty()).then(|| self.messages.clone()),
            reason: self.reason.clone(),
            run: self.run.clone(),
            node: self.node.clone(),
            text: self.text.clone(),
            ..Selection::default()
        }
    }

    /// For deeds: nothing said is not all.
    fn chosen(&self) -> Result<Selection, Usage> {
        let selection = self.selection();
        if selection.is_empty() {
            return Err(Usage(
                "say which dead letters: messages, --reason, --run, --node, --text or --all"
                    .to_owned(),
            ));
        }
        Ok(selection)
    }
}

/// Where they are, if not on the stack that runs here.
#[derive(Debug, Args)]
pub struct PlaceArgs {
    /// The gateway of another stack
    #[arg(
        long,
        env = "LAB_GATEWAY",
        value_name = "URL",
        requires = "auditor_url"
    )]
    gateway: Option<String>,
    /// The ledger there, as postgres://auditor:PASSWORD@HOST:PORT/unacked
    #[arg(
        long,
        env = "LAB_AUDITOR_URL",
        hide_env_values = true,
        value_name = "URL"
    )]
    auditor_url: Option<String>,
    /// The secret of its receivers
    #[arg(
        long,
        env = "REDRIVE_TOKEN",
        hide_env_values = true,
        value_name = "TOKEN"
    )]
    token: Option<String>,
}

impl PlaceArgs {
    /// How to audit a run there.
    fn audit_of(&self, run: &str) -> AuditArgs {
        AuditArgs {
            run: Some(run.to_owned()),
            json: false,
            dead_max: None,
            wait: WAIT_SECS,
            // of another stack only the ledger is known here
            database_url: self.auditor_url.clone().filter(|_| self.gateway.is_some()),
            elsewhere: Elsewhere::default(),
        }
    }

    async fn find(&self, root: &Path) -> Result<Dead> {
        if let (Some(gateway), Some(auditor)) = (&self.gateway, &self.auditor_url) {
            return Ok(Dead::new(auditor, gateway, self.token.clone())?);
        }
        let answer = control::ask(root, &Request::Status, &|_: &str| {}).await;
        let answer = answer.map_err(|error| Usage(format!("{error:#}")))?;
        let status: Status =
            serde_json::from_value(answer).context("the stack that runs is of another version")?;
        let secrets = std::fs::read(status.dir.join("secrets.json"));
        let secrets: Secrets = serde_json::from_slice(&secrets.context("no secrets.json")?)?;
        let auditor = postgres::url_for(&status.postgres.url, "auditor", &secrets.auditor)?;
        let token = self.token.clone().or(Some(secrets.redrive));
        Ok(Dead::new(&auditor, &status.gateway, token)?)
    }
}

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
