//! What can be said to `lab dead`: what is wanted, of which dead letters, and where they are.

use std::path::Path;

use anyhow::{Context, Result};
use clap::{Args, Subcommand};
use messaging::receive::redrive::Selection;
use uuid::Uuid;

use super::Dead;
use crate::audit::anew::WAIT_SECS;
use crate::audit::cli::AuditArgs;
use crate::passport::id;
use crate::run::sight::Elsewhere;
use crate::say::Usage;
use crate::stack::control::{self, Request};
use crate::stack::dir::Secrets;
use crate::stack::postgres;
use crate::status::Status;

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
    pub(super) fn schema(self) -> &'static str {
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
    pub(super) fn selection(&self) -> Selection {
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
    pub(super) fn chosen(&self) -> Result<Selection, Usage> {
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
    pub(super) fn audit_of(&self, run: &str) -> AuditArgs {
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

    pub(super) async fn find(&self, root: &Path) -> Result<Dead> {
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
