//! `lab audit`: one verdict, from the command line.

use std::io::{IsTerminal, Write, stderr, stdout};
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Result;
use clap::Args;

use super::Verdict;
use super::anew::{self, Anew, WAIT_SECS, Wanted};
use super::ledger::Ledger;
use super::report::Paint;
use crate::experiment::journal;
use crate::faults::active::Notes;
use crate::run::sight::{Elsewhere, Sight};
use crate::run::{RunDir, RunId};
use crate::say::{self, Usage};
use crate::stack::dir;

/// Between two lines of progress where they cannot be rewritten.
const LINE_EVERY: Duration = Duration::from_secs(5);

#[derive(Debug, Args)]
pub struct AuditArgs {
    /// The run to judge [default: the newest that is stored in this ledger]
    #[arg(long, value_name = "ID")]
    pub run: Option<String>,
    /// For scripts: the whole report as JSON
    #[arg(long)]
    pub json: bool,
    /// So many messages may be given up on although they are not poison [default: as the experiment allows, else 0]
    #[arg(long, value_name = "N")]
    pub dead_max: Option<u64>,
    /// Watch until the run is drained, or nothing of it has moved for so long; 0 judges at once
    #[arg(long, value_name = "SECS", default_value_t = WAIT_SECS)]
    pub wait: u64,
    /// Look at this database and at nothing else, as postgres://auditor:PASSWORD@HOST:PORT/unacked
    #[arg(
        long,
        env = "AUDIT_DATABASE_URL",
        hide_env_values = true,
        value_name = "URL"
    )]
    pub database_url: Option<String>,
    #[command(flatten)]
    pub elsewhere: Elsewhere,
}

/// Watches, judges, and says it. The exit code is the verdict's.
pub async fn run(root: &Path, args: &AuditArgs) -> Result<ExitCode> {
    let verdict = judge(root, args).await?;
    Ok(ExitCode::from(verdict.exit_code()))
}

/// The same; gives the verdict.
pub async fn judge(root: &Path, args: &AuditArgs) -> Result<Verdict> {
    let runs = candidates(root, args.run.as_deref())?;
    let sight = match sight(root, args).await {
        Ok(sight) => sight,
        Err(error) if error.is::<Usage>() => {
            return Err(elsewhere(root, args, &runs).map_or(error, Into::into));
        }
        Err(error) => return Err(error),
    };
    if sight.auditor_url.is_empty() {
        return Err(
            Usage("say where the ledger is: --auditor-url or --database-url".to_owned()).into(),
        );
    }
    let ledger = Ledger::new(&sight.auditor_url)?;
    // one that does not answer is the audit's to tell
    let identity = ledger.identity().await.ok();
    let run = of_ledger(root, runs, identity.as_deref())?;
    let wanted = Wanted {
        wait: Duration::from_secs(args.wait),
        dead_max: args.dead_max,
        unhealed: anew::unhealed(&Notes::of(&args.elsewhere.notes(root))),
    };
    let mut screen = Screen::new();
    let made = anew::audit(&sight, &ledger, &run, wanted, &mut |line| {
        screen.progress(line);
    })
    .await;
    screen.end();
    let Anew {
        report,
        earlier,
        page,
    } = made?;
    // what was found stands on file all the same
    if let Err(error) = page {
        say::complain(format!("the page of the run is not up to date: {error:#}"));
    }
    if args.json {
        say::line(serde_json::to_string_pretty(&report)?);
        return Ok(report.verdict);
    }
    say::line(report.text(Paint(stdout().is_terminal())));
    if let Some(earlier) = earlier {
        let (verdict, at) = (earlier.verdict, earlier.audited_at);
        let at = at.format("%H:%M:%S UTC on %-d %B %Y");
        say::line(format!(
            "  {verdict}, found at {at}, stays on record: this audit saw nothing"
        ));
    }
    if let Ok(Some(journal)) = journal::read(&run) {
        let (verdict, outcome) = (journal.verdict(), journal.outcome);
        say::line(format!(
            "\nThe experiment, with all that was expected of it: {verdict}, {outcome}"
        ));
    }
    Ok(report.verdict)
}

/// The run was made on a stack that has to be named, and was not.
fn elsewhere(root: &Path, args: &AuditArgs, runs: &[RunDir]) -> Option<Usage> {
    let meta = runs.first()?.meta().ok()?;
    let (run, flags) = (&meta.run, &meta.elsewhere);
    let named = args.elsewhere.compose.is_some() || args.elsewhere.gateway.is_some();
    (!named && !flags.is_empty()).then(|| {
        let audit = dir::command(root, &format!("audit --run {run}"));
        Usage(format!(
            "no stack runs here, and the run {run} was made on another one: `{audit}{flags}`"
        ))
    })
}

/// The run of this name, else all, the newest first.
fn candidates(root: &Path, id: Option<&str>) -> Result<Vec<RunDir>> {
    if let Some(id) = id {
        return Ok(vec![RunDir::open(root, &id.parse::<RunId>()?)?]);
    }
    let mut all = RunDir::all(root)?;
    if all.is_empty() {
        let load = dir::command(root, "load");
        let root = root.display();
        return Err(Usage(format!("there is no run in {root} yet; `{load}` makes one")).into());
    }
    all.reverse();
    Ok(all)
}

/// The first whose messages this ledger has, as far as both are known: no other can be judged by what is here.
fn of_ledger(root: &Path, runs: Vec<RunDir>, ledger: Option<&str>) -> Result<RunDir> {
    let newest = runs.first().map(|run| run.id().to_string());
    let here = |run: &RunDir| {
        let theirs = run.meta().ok().and_then(|meta| meta.ledger);
        theirs.is_none() || ledger.is_none() || theirs.as_deref() == ledger
    };
    runs.into_iter().find(here).ok_or_else(|| {
        let newest = newest.unwrap_or_default();
        let report = dir::command(root, &format!("report {newest}"));
        let why = format!("the messages of run {newest} are in another ledger than this one; `{report}` tells what was found there");
        Usage(why).into()
    })
}

async fn sight(root: &Path, args: &AuditArgs) -> Result<Sight> {
    let Some(url) = &args.database_url else {
        return Sight::find(root, &args.elsewhere).await;
    };
    Ok(Sight {
        auditor_url: url.clone(),
        vhost: args.elsewhere.vhost.clone(),
        ..Sight::default()
    })
}

/// Progress beside the result: a line that is rewritten on a terminal, else one now and then.
struct Screen {
    rewrite: bool,
    dirty: bool,
    shown: Instant,
}

impl Screen {
    fn new() -> Self {
        Self {
            rewrite: stderr().is_terminal(),
            dirty: false,
            shown: Instant::now(),
        }
    }

    fn progress(&mut self, line: &str) {
        // nobody reading is no reason to stop
        if self.rewrite {
            let _ = write!(stderr(), "\r\x1b[K{line}");
            self.dirty = true;
        } else if self.shown.elapsed() >= LINE_EVERY {
            self.shown = Instant::now();
            let _ = writeln!(stderr(), "{line}");
        }
    }

    /// Leaves nothing of the line that is rewritten.
    fn end(&mut self) {
        if std::mem::take(&mut self.dirty) {
            let _ = write!(stderr(), "\r\x1b[K");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::tests::Root;

    #[tokio::test]
    async fn a_run_of_a_stack_that_has_to_be_named_is_told_with_its_name() {
        let root = Root::new();
        let made = root.run("r1");
        let mut meta = made.meta().unwrap();
        meta.elsewhere = " --compose=mine".to_owned();
        made.write_meta(&meta).unwrap();
        let args = AuditArgs {
            run: None,
            json: false,
            dead_max: None,
            wait: 0,
            database_url: None,
            elsewhere: Elsewhere::default(),
        };
        let error = run(&root.0, &args).await.unwrap_err();
        assert!(error.is::<Usage>());
        let said = error.to_string();
        assert!(said.ends_with("audit --run r1 --compose=mine`"), "{said}");
    }
}
