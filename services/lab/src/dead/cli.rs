//! `lab dead`: look at dead letters, send them back, throw them away.

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use chrono::SecondsFormat;
use clap::{Args, Subcommand};
use messaging::receive::redrive::{Selection, State};
use uuid::Uuid;

use super::receivers::Told;
use super::{Dead, read};
use crate::say::{self, Usage, grouped};
use crate::stack::control::{self, Request};
use crate::stack::dir::{self, Secrets};
use crate::stack::postgres;
use crate::status::Status;

/// How often progress is looked at.
const EACH: Duration = Duration::from_millis(500);

#[derive(Debug, Subcommand)]
pub enum DeadCommand {
    /// List what is parked: by reason, then the newest
    List {
        #[command(flatten)]
        which: Which,
        /// How many
        #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(i64).range(1..=1000))]
        most: i64,
        #[command(flatten)]
        place: PlaceArgs,
    },
    /// Show every dead letter of a message, with what was decided
    Show {
        /// The message
        message: Uuid,
        #[command(flatten)]
        place: PlaceArgs,
    },
    /// Send back what is selected: says first what that would do
    ///
    /// What is parked later is not swept in. It goes on when this command ends; `--cancel` ends it.
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
        /// End this one instead
        #[arg(long, value_name = "REDRIVE")]
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

/// Which dead letters; all that is said must fit.
#[derive(Debug, Args)]
pub struct Which {
    /// Of these messages
    #[arg(value_name = "MESSAGE")]
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
    #[arg(long, value_name = "URL", requires = "auditor_url")]
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
        DeadCommand::List { which, most, place } => {
            list(&place.find(root).await?, &which.selection(), *most).await?;
        }
        DeadCommand::Show { message, place } => show(&place.find(root).await?, *message).await?,
        DeadCommand::Redrive {
            cancel: Some(id),
            place,
            ..
        } => {
            let dead = place.find(root).await?;
            say::line(progress(&dead.receivers.cancel(*id).await?));
        }
        DeadCommand::Redrive {
            which,
            rate,
            dry_run,
            yes,
            place,
            ..
        } => {
            let (selection, dead) = (which.chosen()?, place.find(root).await?);
            redrive(root, &dead, &selection, *rate, *dry_run, *yes).await?;
        }
        DeadCommand::Discard {
            which,
            confirm,
            place,
        } => {
            let (selection, dead) = (which.chosen()?, place.find(root).await?);
            let who = "the command line";
            let done = dead.receivers.discard(&selection, confirm, who).await?;
            say::line(format!("{done} discarded"));
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn list(dead: &Dead, selection: &Selection, most: i64) -> Result<()> {
    let groups = read::groups(&dead.ledger, selection).await?;
    if groups.is_empty() {
        say::line("No dead letters.");
        return Ok(());
    }
    for group in groups {
        let count = grouped(group.count.unsigned_abs());
        say::line(format!("{count:>9}  {}", group.reason));
    }
    say::line("");
    for letter in read::letters(&dead.ledger, selection, i64::MAX, most).await? {
        say::line(one(&letter));
    }
    Ok(())
}

fn one(letter: &read::Letter) -> String {
    let id = letter.message_id.map_or_else(
        || "not a message of ours".to_owned(),
        |message| message.to_string(),
    );
    let at = letter.dead_at.to_rfc3339_opts(SecondsFormat::Secs, true);
    let text: String = letter.text().chars().take(60).collect();
    // control characters would reach the terminal
    format!("{at}  {id}  {}  {text:?}", letter.reason.escape_debug())
}

async fn show(dead: &Dead, message: Uuid) -> Result<()> {
    let letters = read::of(&dead.ledger, message).await?;
    if letters.is_empty() {
        bail!("the message {message} has no dead letter");
    }
    for letter in letters {
        say::line(one(&letter));
        let times = letter.redrive;
        let at = letter.decided_at.map(|at| at.to_rfc3339());
        let by = letter.redriven_by.map(|id| id.to_string());
        let by = by.or(letter.discarded_by).unwrap_or_default();
        say::line(format!(
            "  sent back {times} times before; now: {} {} {}",
            letter.state,
            at.unwrap_or_default(),
            by.escape_debug()
        ));
    }
    Ok(())
}

async fn redrive(
    root: &Path,
    dead: &Dead,
    selection: &Selection,
    rate: u32,
    dry_run: bool,
    yes: bool,
) -> Result<()> {
    let who = "the command line";
    let id = Uuid::now_v7();
    let planned = dead
        .receivers
        .plan(id, selection, rate, who, dry_run)
        .await?;
    say::line(&planned.plan);
    if dry_run || planned.redrive.selected == 0 {
        return Ok(());
    }
    if !yes && !say::confirm("Send them back?")? {
        dead.receivers.cancel(id).await?;
        return Ok(());
    }
    let mut now = dead.receivers.start(id).await?;
    let cancel = dir::command(root, &format!("dead redrive --cancel {id}"));
    say::line(format!("redrive {id}; to end it: `{cancel}`"));
    while now.redrive.state == State::Running {
        tokio::time::sleep(EACH).await;
        match dead.receivers.get(id).await {
            Ok(next) => now = next,
            // it goes on without us, and so do we
            Err(error) if !error.is_passing() => return Err(error.into()),
            Err(error) => say::complain(format!("{error}; looking again")),
        }
    }
    say::line(progress(&now));
    for run in read::runs(&dead.ledger, id).await? {
        let audit = dir::command(root, &format!("audit --run {run}"));
        say::line(format!("what became of run {run}: `{audit}`"));
    }
    Ok(())
}

fn progress(told: &Told) -> String {
    let now = &told.redrive;
    format!(
        "{}: {} sent back, {} had their effect, {} decided by somebody else, {} left",
        now.state.word(),
        now.redriven,
        now.has_effect,
        now.gone,
        told.left
    )
}
