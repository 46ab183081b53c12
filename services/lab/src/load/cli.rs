//! `lab load`: one load, from the command line.

use std::cell::Cell;
use std::io::{IsTerminal, Write, stderr, stdout};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Args;
use serde::Serialize;
use tokio::net::{TcpStream, lookup_host};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::timeout;

use super::plan::one_in;
use super::processed::Processed;
use super::{Plan, Progress, Summary, length, table};
use crate::audit::ledger::Ledger;
use crate::faults::active::Notes;
use crate::run::sight::{Elsewhere, Sight};
use crate::run::{Job, Meta, RunDir, RunId};
use crate::say::{self, Usage};
use crate::stack::dir;

const CONNECT_LIMIT: Duration = Duration::from_secs(3);
/// Between two lines of progress where they cannot be rewritten.
const LINE_EVERY: Duration = Duration::from_secs(5);

// Values are read by hand: what is wrong with one is said in one line, whichever flag it is.
#[derive(Debug, Args)]
pub struct LoadArgs {
    /// Where it goes: messages, notes, leases (with lessees that lease and confirm) or signup; the last three need a stack
    /// that was started --with them
    #[arg(
        long,
        default_value = "messages",
        value_name = "SERVICE",
        allow_hyphen_values = true
    )]
    pub to: String,
    /// Requests a second: 50, or 50..200 (from 50 to 200, evenly), or 100x3 (every fifth second three times as many)
    #[arg(
        long,
        default_value = "50",
        value_name = "RATE",
        allow_hyphen_values = true
    )]
    pub rate: String,
    /// How long, such as 30s, 10m or 500ms [default: until --total, else 30s]
    #[arg(long = "for", value_name = "TIME", allow_hyphen_values = true)]
    pub length: Option<String>,
    /// How many requests at most
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    pub total: Option<String>,
    /// How many requests may be in flight at once; what is due beyond that waits, and its waiting counts as latency
    #[arg(
        long,
        default_value = "200",
        value_name = "N",
        allow_hyphen_values = true
    )]
    pub connections: String,
    /// How long each message is
    #[arg(
        long,
        default_value = "100",
        value_name = "BYTES",
        allow_hyphen_values = true
    )]
    pub size: String,
    /// Messages in each request
    #[arg(
        long,
        default_value = "1",
        value_name = "N",
        allow_hyphen_values = true
    )]
    pub batch: String,
    /// How many requests are poison: the work of their messages fails at every attempt
    #[arg(
        long,
        default_value = "0",
        value_name = "N",
        allow_hyphen_values = true
    )]
    pub poison: String,
    /// Decides which requests are poison [default: by chance]
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    pub seed: Option<String>,
    /// How long a request is repeated, with the same key, until it has an answer for good
    #[arg(
        long,
        default_value = "30s",
        value_name = "TIME",
        allow_hyphen_values = true
    )]
    pub patience: String,
    /// With --to notes: how many read the list all the while, and how old it is at worst
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    pub readers: Option<String>,
    /// With --to leases: how many lease messages, work on them and confirm [default: 8]
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    pub lessees: Option<String>,
    /// With --to leases: such a share of the messages is confirmed late, when somebody else holds it [default: 0]
    #[arg(long, value_name = "1/N", allow_hyphen_values = true)]
    pub late: Option<String>,
    /// With --to leases: confirm by the token of the lease, or by the id of the message alone (unsafe) [default: token]
    #[arg(long, value_name = "token|id", allow_hyphen_values = true)]
    pub confirm: Option<String>,
    /// With --to leases: how long a lease holds [default: 1s]
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    pub lease: Option<String>,
    /// With --to leases: after so many leases a message is given up on, 0 never [default: 20]
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    pub max_receives: Option<String>,
    /// The run's name [default: by the time, such as r1121-0915-k3fz]
    #[arg(long, value_name = "ID", allow_hyphen_values = true)]
    pub run: Option<String>,
    /// Offer the load although something of this stack is broken on purpose
    #[arg(long)]
    pub despite_faults: bool,
    /// For scripts: the figures as JSON
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub elsewhere: Elsewhere,
}

impl LoadArgs {
    /// What they ask for.
    pub fn plan(&self) -> Result<Plan, Usage> {
        let usual = Plan::default();
        let plan = Plan {
            to: said("--to", self.to.parse())?,
            rate: said("--rate", self.rate.parse())?,
            length: optional("--for", self.length.as_deref(), length::parse)?,
            total: optional("--total", self.total.as_deref(), number)?,
            connections: said("--connections", number(&self.connections))?,
            size: said("--size", number(&self.size))?,
            batch: said("--batch", number(&self.batch))?,
            poison: said("--poison", number(&self.poison))?,
            seed: match optional("--seed", self.seed.as_deref(), number)? {
                Some(seed) => seed,
                // short enough to be typed again
                None => rand::random_range(1..1_000_000),
            },
            patience: said("--patience", length::parse(&self.patience))?,
            readers: optional("--readers", self.readers.as_deref(), number)?
                .unwrap_or(usual.readers),
            lessees: optional("--lessees", self.lessees.as_deref(), number)?,
            late: optional("--late", self.late.as_deref(), one_in)?.unwrap_or(usual.late),
            confirm: optional("--confirm", self.confirm.as_deref(), str::parse)?
                .unwrap_or(usual.confirm),
            lease: optional("--lease", self.lease.as_deref(), length::parse)?
                .unwrap_or(usual.lease),
            max_receives: optional("--max-receives", self.max_receives.as_deref(), number)?
                .unwrap_or(usual.max_receives),
        };
        plan.schedule()?;
        Ok(plan)
    }
}

fn said<T>(flag: &str, value: Result<T, Usage>) -> Result<T, Usage> {
    value.map_err(|Usage(why)| Usage(format!("{flag}: {why}")))
}

fn optional<T>(
    flag: &str,
    text: Option<&str>,
    read: impl Fn(&str) -> Result<T, Usage>,
) -> Result<Option<T>, Usage> {
    text.map(|text| said(flag, read(text))).transpose()
}

fn number<N: std::str::FromStr>(text: &str) -> Result<N, Usage> {
    let wrong = |_| Usage(format!("{text:?} is no number that can be used here"));
    text.parse().map_err(wrong)
}

/// Offers the load until its end or Ctrl-C.
pub async fn run(root: &Path, args: &LoadArgs) -> Result<()> {
    let plan = args.plan()?;
    let id = optional("--run", args.run.as_deref(), str::parse::<RunId>)?.unwrap_or_default();
    let sight = Sight::find(root, &args.elsewhere).await?;
    if !args.despite_faults {
        unbroken(root, &args.elsewhere)?;
    }
    reachable(&sight.gateway).await?;
    there(root, &args.elsewhere, &sight, plan.to)?;
    let mut meta = Meta::new(id.clone(), "load", plan.seed, &sight.gateway);
    meta.load = Some(plan.clone());
    meta.elsewhere = args.elsewhere.flags();
    meta.mails.clone_from(&sight.mails);
    meta.stack = sight.facts_of(plan.to).await;
    meta.ledger = Ledger::identity_at(&sight.auditor_url).await;
    let mut ends = Ends::new()?;
    let run = RunDir::create(root, id, &meta)?;

    let mut screen = Screen::new(args.json);
    screen.line(&format!("Run {}. Ctrl-C ends it early.", run.id()));
    let interrupted = Cell::new(false);
    let stop = async {
        ends.next().await;
        interrupted.set(true);
    };
    let show = |progress: &Progress| {
        if interrupted.replace(false) {
            screen.line("Stopping: what is on its way has a few seconds to be answered.");
        }
        screen.progress(progress);
    };
    let summary = super::run(&plan, &sight, &run, show, stop).await?;
    screen.end();
    // somebody who stopped the load waits for nothing
    let stop = async {
        if !summary.stopped {
            ends.next().await;
        }
    };
    let processed = Processed::wait(&sight.auditor_url, &run, plan.to, stop).await;
    if args.json {
        let all = Figures {
            summary: &summary,
            processed,
        };
        say::line(serde_json::to_string_pretty(&all)?);
    } else {
        let table = table::summary(&summary, processed.as_ref());
        say::line(format!("\n{table}\n"));
        let audit = args
            .elsewhere
            .command(root, &format!("audit --run {}", run.id()));
        say::line(format!("What became of the messages: {audit}"));
    }
    Ok(())
}

/// What is said to scripts.
#[derive(Serialize)]
struct Figures<'a> {
    #[serde(flatten)]
    summary: &'a Summary,
    #[serde(flatten)]
    processed: Option<Processed>,
}

/// What is broken already would be taken for the work of this load.
fn unbroken(root: &Path, elsewhere: &Elsewhere) -> Result<()> {
    let active = Notes::of(&elsewhere.notes(root)).all()?;
    let Some(first) = active.first() else {
        return Ok(());
    };
    let others = match active.len() - 1 {
        0 => String::new(),
        others => format!(" (and {others} more)"),
    };
    let (what, heal) = (
        first.describe(),
        elsewhere.command(root, "fault heal --all"),
    );
    Err(Usage(format!(
        "{what} is active{others}; `{heal}` ends it, --despite-faults offers the load all the same"
    ))
    .into())
}

/// Where no node accepts, nothing of it is begun; elsewhere, where nodes need not be known, the first answer tells.
fn there(root: &Path, elsewhere: &Elsewhere, sight: &Sight, to: Job) -> Result<(), Usage> {
    let known = sight.nodes.iter().any(|node| node.service == to.accepts());
    if to == Job::Messages || known || elsewhere.gateway.is_some() || sight.nodes.is_empty() {
        return Ok(());
    }
    let up = if elsewhere.compose.is_some() {
        format!("docker compose -f docker/docker-compose.yml --profile {to} up -d")
    } else {
        dir::command(root, &format!("up --with {to}"))
    };
    Err(Usage(format!(
        "this stack has no {to}; start it with `{up}`"
    )))
}

/// Nobody listening is found out before anything begins.
async fn reachable(gateway: &str) -> Result<(), Usage> {
    let absent = |why: String| Usage(format!("no gateway answers at {gateway}: {why}"));
    let url: reqwest::Url = gateway
        .parse()
        .map_err(|_| absent("no address".to_owned()))?;
    let host = url
        .host_str()
        .unwrap_or_default()
        .trim_matches(['[', ']'])
        .to_owned();
    let port = url.port_or_known_default().unwrap_or(80);
    let connect = async {
        let addresses: Vec<_> = lookup_host((host, port)).await?.collect();
        TcpStream::connect(&*addresses).await
    };
    match timeout(CONNECT_LIMIT, connect).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => Err(absent(error.to_string())),
        Err(_) => Err(absent("it does not take connections".to_owned())),
    }
}

/// The signals that end a load.
struct Ends {
    interrupt: Signal,
    terminate: Signal,
}

impl Ends {
    fn new() -> Result<Self> {
        let on = |kind| signal(kind).context("cannot wait for signals");
        Ok(Self {
            interrupt: on(SignalKind::interrupt())?,
            terminate: on(SignalKind::terminate())?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

/// Where progress goes: one line that is rewritten on a terminal, else a line now and then; beside JSON, on the side.
struct Screen {
    rewrite: bool,
    aside: bool,
    dirty: bool,
    shown: Duration,
}

impl Screen {
    fn new(aside: bool) -> Self {
        let rewrite = if aside {
            stderr().is_terminal()
        } else {
            stdout().is_terminal()
        };
        Self {
            rewrite,
            aside,
            dirty: false,
            shown: Duration::ZERO,
        }
    }

    fn put(&self, text: &str) {
        // nobody reading is no reason to end a load
        let _ = if self.aside {
            stderr().write_all(text.as_bytes())
        } else {
            let mut out = stdout().lock();
            out.write_all(text.as_bytes()).and_then(|()| out.flush())
        };
    }

    fn line(&mut self, text: &str) {
        self.end();
        self.put(&format!("{text}\n"));
    }

    fn progress(&mut self, now: &Progress) {
        if self.rewrite {
            self.put(&format!("\r\x1b[K{}", table::progress(now)));
            self.dirty = true;
        } else if now.elapsed.saturating_sub(self.shown) >= LINE_EVERY {
            self.shown = now.elapsed;
            self.put(&format!("{}\n", table::progress(now)));
        }
    }

    /// Leaves the line that is rewritten.
    fn end(&mut self) {
        if std::mem::take(&mut self.dirty) {
            self.put("\n");
        }
    }
}
