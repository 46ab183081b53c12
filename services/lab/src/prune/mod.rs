//! `lab prune`: removes old runs: their folders, and their rows in the ledger.
//!
//! In this order: the runs are chosen, all of them are over, what would go is counted and said, somebody agrees; then
//! per run its rows go, batch by batch, each in one transaction, and its folder last. Interrupted anywhere, the same
//! command goes on where it was.
//!
//! A message goes with all of its rows or with none. It goes when it has an effect or is parked, and is not in the
//! outbox any more. Its inbox row is what keeps a copy of it that may still be in a queue from a second effect, so
//! inbox rows go only when the broker says that all of its queues are empty.

pub mod ledger;

use std::fs;
use std::io::{ErrorKind, IsTerminal, stdin};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Args;
use daemon::clock;
use nix::unistd::Pid;
use serde_json::Value;

use crate::experiment::journal;
use crate::load::length;
use crate::load::table::grouped;
use crate::run::RunDir;
use crate::run::requests;
use crate::say::{self, Usage};
use crate::stack::control::{self, Request};
use crate::stack::dir;
use crate::status::Status;

const ASK_LIMIT: Duration = Duration::from_secs(5);
/// A load without an end writes at least so often.
const FRESH: Duration = Duration::from_mins(1);

#[derive(Debug, Clone, Default, Args)]
pub struct PruneArgs {
    /// Keep the newest N runs, remove the others
    #[arg(long, value_name = "N")]
    pub keep: Option<usize>,
    /// Remove only runs that were made longer ago, such as 7d or 12h
    #[arg(long, value_name = "TIME")]
    pub older_than: Option<String>,
    /// Do not ask
    #[arg(long)]
    pub yes: bool,
    /// The ledger, as a role that may delete from it [default: that of the stack that runs]
    #[arg(
        long,
        env = "LAB_PRUNE_DATABASE_URL",
        hide_env_values = true,
        value_name = "URL"
    )]
    pub database_url: Option<String>,
}

/// Where rows are, and whether a copy of a message may still be under way.
struct Place {
    url: String,
    /// All queues are known to be empty.
    quiet: bool,
}

/// Removes what was chosen, after it was said.
pub async fn run(root: &Path, args: &PruneArgs) -> Result<()> {
    let runs = choose(root, args)?;
    if runs.is_empty() {
        say::line("No run is old enough: there is nothing to remove.");
        return Ok(());
    }
    if let Some(run) = runs.iter().find(|run| going(root, run)) {
        let id = run.id();
        return Err(Usage(format!("the run {id} is still going; nothing was removed")).into());
    }
    let place = place(root, args.database_url.as_deref()).await?;
    let mut ledger = match &place {
        Some(place) => Some(ledger::connect(&place.url).await?),
        None => None,
    };
    say::line("This would be removed:");
    for run in &runs {
        let rows = match &mut ledger {
            Some(ledger) => ledger::count(ledger, run.id()).await?.text(),
            None => "no ledger here".to_owned(),
        };
        let kind = run
            .meta()
            .map_or_else(|_| "damaged".to_owned(), |meta| meta.kind);
        say::line(format!(
            "  {:<16} {kind:<24} {:>9} on disk, {rows}",
            run.id(),
            bytes(size(&run.path("")))
        ));
    }
    if place.as_ref().is_some_and(|place| !place.quiet) {
        say::line(
            "Rows of the inbox stay: it is not certain that the queues are empty, and a copy of a message may be in one.",
        );
    }
    if !args.yes {
        if !stdin().is_terminal() {
            return Err(
                Usage("nobody can answer here; say --yes to remove them".to_owned()).into(),
            );
        }
        if !say::confirm(&format!("Remove {}?", many(runs.len() as u64, "run")))? {
            say::line("Nothing was removed.");
            return Ok(());
        }
    }
    let mut rows = 0;
    for run in &runs {
        if let (Some(ledger), Some(place)) = (&mut ledger, &place) {
            rows += ledger::remove_rows(ledger, run.id(), place.quiet).await?;
        }
        let folder = run.path("");
        fs::remove_dir_all(&folder)
            .with_context(|| format!("cannot remove {}", folder.display()))?;
    }
    say::line(format!(
        "Removed {} and {}.",
        many(runs.len() as u64, "run"),
        many(rows, "row")
    ));
    Ok(())
}

fn choose(root: &Path, args: &PruneArgs) -> Result<Vec<RunDir>> {
    let age = args.older_than.as_deref().map(age).transpose()?;
    if args.keep.is_none() && age.is_none() {
        return Err(Usage("say which: --keep N, --older-than 7d, or both".to_owned()).into());
    }
    let mut runs = RunDir::all(root)?;
    runs.truncate(runs.len().saturating_sub(args.keep.unwrap_or(0)));
    if let Some(age) = age {
        let now = clock::now();
        // one that cannot be read has no age: only --keep removes it
        runs.retain(|run| {
            let made = run.meta().map(|meta| meta.created_at);
            made.is_ok_and(|made| (now - made).to_std().is_ok_and(|passed| passed > age))
        });
    }
    Ok(runs)
}

/// Days and weeks too: other lengths in the lab are shorter.
fn age(text: &str) -> Result<Duration, Usage> {
    let unit = |name: &str, secs: u64| {
        let days: u64 = text.strip_suffix(name)?.parse().ok()?;
        Some(Duration::from_secs(days.checked_mul(secs)?))
    };
    match unit("d", 86_400).or_else(|| unit("w", 7 * 86_400)) {
        Some(age) => Ok(age),
        None => length::parse(text)
            .map_err(|_| Usage(format!("--older-than {text}: right is 30m, 12h, 7d or 4w"))),
    }
}

/// Whether somebody still works on a run.
fn going(root: &Path, run: &RunDir) -> bool {
    let Ok(meta) = run.meta() else { return false };
    let experiment = meta.kind != "load";
    if experiment && run.path(journal::FILE).is_file() {
        return false;
    }
    // an experiment goes on when its load has ended: it waits and judges
    if experiment && dir::holder(&root.join("experiments")).is_some_and(alive) {
        return true;
    }
    let written = fs::metadata(run.path(requests::FILE))
        .and_then(|log| log.modified())
        .ok();
    let fresh = written
        .and_then(|at| at.elapsed().ok())
        .is_some_and(|passed| passed < FRESH);
    in_use(&run.path("")) || (meta.ended_at.is_none() && fresh)
}

fn alive(pid: i32) -> bool {
    nix::sys::signal::kill(Pid::from_raw(pid), None) != Err(nix::errno::Errno::ESRCH)
}

/// Whether a process holds a file of this folder open. Those of other users cannot be seen.
fn in_use(folder: &Path) -> bool {
    let folder = dir::real(folder);
    let Ok(processes) = fs::read_dir("/proc") else {
        return false;
    };
    let files = processes.filter_map(|process| fs::read_dir(process.ok()?.path().join("fd")).ok());
    let open = files
        .flatten()
        .filter_map(|file| fs::read_link(file.ok()?.path()).ok());
    open.into_iter()
        .any(|path: PathBuf| path.starts_with(&folder))
}

/// The ledger of the stack that runs here. None: no stack was ever here, so nothing has rows.
async fn place(root: &Path, url: Option<&str>) -> Result<Option<Place>> {
    if let Some(url) = url {
        return Ok(Some(Place {
            url: url.to_owned(),
            quiet: false,
        }));
    }
    if !root.join("secrets.json").is_file() {
        return Ok(None);
    }
    let answer = control::ask(root, &Request::Status, &|_: &str| {}).await;
    let answer = answer.map_err(|error| {
        Usage(format!(
            "{error:#}; the runs have rows in its ledger, so it must be up"
        ))
    })?;
    let status: Status =
        serde_json::from_value(answer).context("the stack that runs is of another version")?;
    let quiet = match &status.rabbitmq.management {
        Some(management) => waiting(management).await == Some(0),
        None => false,
    };
    Ok(Some(Place {
        url: status.postgres.url,
        quiet,
    }))
}

/// Messages in all queues of the broker; none: it cannot be asked.
async fn waiting(management: &str) -> Option<u64> {
    let mut url: reqwest::Url = management.parse().ok()?;
    url.path_segments_mut()
        .ok()?
        .pop_if_empty()
        .extend(["api", "queues"]);
    let answer = reqwest::Client::new()
        .get(url)
        .timeout(ASK_LIMIT)
        .send()
        .await
        .ok()?;
    let queues: Vec<Value> = answer.error_for_status().ok()?.json().await.ok()?;
    // a queue that does not say how many it holds may hold some
    queues.iter().map(|queue| queue["messages"].as_u64()).sum()
}

/// Of a folder with everything in it.
fn size(folder: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(folder) else {
        return 0;
    };
    let entries = entries.filter_map(Result::ok);
    let sizes = entries.map(|entry| match entry.metadata() {
        Ok(data) if data.is_dir() => size(&entry.path()),
        Ok(data) => data.len(),
        Err(error) if error.kind() == ErrorKind::NotFound => 0,
        Err(_) => 0,
    });
    sizes.sum()
}

fn bytes(count: u64) -> String {
    match count {
        0..1_000 => format!("{count} B"),
        1_000..1_000_000 => format!("{} kB", count / 1_000),
        _ => format!("{} MB", grouped(count / 1_000_000)),
    }
}

pub(crate) fn many(count: u64, noun: &str) -> String {
    let s = if count == 1 { "" } else { "s" };
    format!("{} {noun}{s}", grouped(count))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::tests::Root;

    fn args(keep: Option<usize>, older_than: Option<&str>) -> PruneArgs {
        PruneArgs {
            keep,
            older_than: older_than.map(str::to_owned),
            ..PruneArgs::default()
        }
    }

    fn chosen(root: &Root, args: &PruneArgs) -> Vec<String> {
        let runs = choose(&root.0, args).unwrap();
        runs.iter().map(|run| run.id().to_string()).collect()
    }

    #[test]
    fn what_is_removed_is_old_enough_and_not_among_the_newest() {
        let root = Root::new();
        for (id, hours) in [("r3", 50), ("r2", 30), ("r1", 1)] {
            let run = root.run(id);
            let mut meta = run.meta().unwrap();
            meta.created_at = clock::now() - chrono::Duration::hours(hours);
            run.write_meta(&meta).unwrap();
        }
        assert_eq!(chosen(&root, &args(Some(0), None)), ["r3", "r2", "r1"]);
        assert_eq!(chosen(&root, &args(Some(2), None)), ["r3"]);
        assert_eq!(chosen(&root, &args(Some(9), None)), [""; 0]);
        assert_eq!(chosen(&root, &args(None, Some("1d"))), ["r3", "r2"]);
        assert_eq!(chosen(&root, &args(None, Some("2d"))), ["r3"]);
        assert_eq!(chosen(&root, &args(Some(2), Some("1d"))), ["r3"]);
        assert_eq!(chosen(&root, &args(Some(0), Some("1w"))), [""; 0]);
    }

    #[test]
    fn which_runs_must_be_said_and_said_rightly() {
        let root = Root::new();
        for wrong in [
            args(None, None),
            args(None, Some("7")),
            args(None, Some("-1d")),
            args(None, Some("999999999999999999999d")),
        ] {
            let error = choose(&root.0, &wrong).unwrap_err();
            assert!(
                error.is::<Usage>() && !error.to_string().contains('\n'),
                "{error}"
            );
        }
        for (text, hours) in [("7d", 168), ("4w", 672), ("12h", 12)] {
            assert_eq!(age(text).unwrap(), Duration::from_hours(hours));
        }
    }

    #[test]
    fn a_run_whose_record_is_open_is_still_going() {
        let root = Root::new();
        let run = root.run("r1");
        let mut meta = run.meta().unwrap();
        assert!(!going(&root.0, &run), "nothing was ever offered");
        let recorder = requests::Recorder::create(&run).unwrap();
        meta.ended_at = Some(clock::now());
        run.write_meta(&meta).unwrap();
        assert!(going(&root.0, &run), "its record is open");
        drop(recorder);
        assert!(!going(&root.0, &run));
        meta.ended_at = None;
        run.write_meta(&meta).unwrap();
        assert!(going(&root.0, &run), "it was written a moment ago");
    }

    #[test]
    fn an_experiment_goes_on_until_its_journal_while_experiments_run() {
        let root = Root::new();
        let run = root.run("r1");
        let mut meta = run.meta().unwrap();
        meta.kind = "receiver-dies".to_owned();
        meta.ended_at = Some(clock::now());
        run.write_meta(&meta).unwrap();
        assert!(!going(&root.0, &run));
        let own = root.0.join("experiments");
        fs::create_dir(&own).unwrap();
        let lock = dir::lock(&own).unwrap();
        assert!(lock.is_some() && going(&root.0, &run));
        fs::write(run.path(journal::FILE), "{}").unwrap();
        assert!(!going(&root.0, &run));
    }
}
