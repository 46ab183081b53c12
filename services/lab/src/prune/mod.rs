//! `lab prune`: removes old runs: their folders, and their rows in the ledger.
//!
//! In this order: the runs are chosen, all of them are over (`going.rs`), those of another ledger and those of other jobs than
//! messages, whose rows nobody removes, are left out (`place.rs`),
//! what would go is counted and said, somebody agrees; then per run its rows go, batch by batch, each in one transaction
//! (`ledger.rs`), and its folder last. Interrupted anywhere, the same command goes on where it was.
//!
//! A message goes with all of its rows, but for two, or with none. It goes when it has an effect or is parked, and is not
//! in the outbox any more; a run of which some messages stay keeps its folder. The two are its inbox row and, when that is
//! gone, its effect: what keeps a copy of it that may still be in a queue from a second effect. So they go only when the broker
//! says twice, after somebody agreed, that all of its queues are empty, and only those that were there before it was asked;
//! else the inbox row stays until its window is over, and of the effect a bare row, without run and text. Where the broker is
//! not known, as with `--database-url`, they always stay. The next prune that removes a run and finds the queues empty takes
//! all bare rows along.

mod going;
pub mod ledger;
mod place;

use std::fs;
use std::io::{ErrorKind, IsTerminal, stdin};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Args;
use daemon::clock;

use self::going::Busy;
use self::place::{Place, is_elsewhere, of_others};
use crate::load::length;
use crate::run::RunDir;
use crate::say::{self, Usage, grouped};
use crate::stack::control;

const INBOX_STAYS: &str = "Rows of the inbox stay, and the bare ids of effects: it is not certain that the queues are empty, and a copy of a message may be in one.";

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
    /// The ledger, as a role that may change it [default: that of the stack that runs]
    #[arg(
        long,
        env = "LAB_PRUNE_DATABASE_URL",
        hide_env_values = true,
        value_name = "URL"
    )]
    pub database_url: Option<String>,
}

/// Removes what was chosen, after it was said.
pub async fn run(root: &Path, args: &PruneArgs) -> Result<()> {
    let runs = choose(root, args)?;
    if runs.is_empty() {
        say::line("No run is old enough: there is nothing to remove.");
        return Ok(());
    }
    nobody_at_work(root, &runs).await?;
    let mut ours = Vec::new();
    for run in runs {
        match of_others(&run) {
            None => ours.push(run),
            Some(job) => say::line(format!(
                "The run {} stays: prune removes runs of messages; this one is of {job}.",
                run.id()
            )),
        }
    }
    let runs = ours;
    if runs.is_empty() {
        say::line("There is nothing to remove.");
        return Ok(());
    }
    let mut place = Place::find(root, args.database_url.as_deref()).await?;
    let mut ledger = None;
    if let Some(place) = &mut place {
        let mut connection = ledger::connect(&place.url).await?;
        place.identity = ledger::identity(&mut connection).await;
        ledger = Some(connection);
    }
    let (elsewhere, runs): (Vec<_>, Vec<_>) = runs
        .into_iter()
        .partition(|run| is_elsewhere(run, place.as_ref()));
    for run in &elsewhere {
        let (id, folder) = (run.id(), run.path(""));
        say::line(format!(
            "The run {id} stays: its messages are in another ledger. --database-url says where; if that is gone for good, remove {} yourself.",
            folder.display()
        ));
    }
    if runs.is_empty() {
        say::line("There is nothing to remove.");
        return Ok(());
    }
    say::line("To be removed:");
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
    let mut quiet = match &place {
        Some(place) => place.looks_quiet().await,
        None => true,
    };
    if !quiet {
        say::line(INBOX_STAYS);
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
    // it took its time to answer
    nobody_at_work(root, &runs).await?;
    let (mut rows, mut folders) = (0, 0);
    let mut until = None;
    if let (Some(ledger), Some(place), true) = (&mut ledger, &place, quiet) {
        // what the broker says now counts, for what was done before it was asked
        let now = ledger::now(ledger).await?;
        quiet = place.is_quiet().await;
        until = quiet.then_some(now);
        if !quiet {
            say::line(INBOX_STAYS);
        }
    }
    if let (Some(ledger), Some(until)) = (&mut ledger, until) {
        rows += ledger::remove_bare(ledger, until).await?;
    }
    for run in &runs {
        let id = run.id();
        if let Some(ledger) = &mut ledger {
            rows += ledger::remove_rows(ledger, id, until).await?;
            let left = ledger::left(ledger, id).await?;
            if left > 0 {
                say::line(format!(
                    "The run {id} stays with {}: the same command removes it once something came of them.",
                    many(left.unsigned_abs(), "message")
                ));
                continue;
            }
        }
        let folder = run.path("");
        fs::remove_dir_all(&folder)
            .with_context(|| format!("cannot remove {}", folder.display()))?;
        folders += 1;
    }
    say::line(format!(
        "Removed {} and {}.",
        many(folders, "run"),
        many(rows, "row")
    ));
    Ok(())
}

/// Removes nothing as long as somebody may be at work on any of these.
async fn nobody_at_work(root: &Path, runs: &[RunDir]) -> Result<(), Usage> {
    let busy = Busy::look(root, control::connect(root).await.is_some());
    let may_go = |run: &RunDir| Some((run.id().clone(), busy.with(run)?));
    match runs.iter().find_map(may_go) {
        None => Ok(()),
        Some((id, why)) => Err(Usage(format!(
            "the run {id} may still be going: {why}; nothing was removed. Wait for its end, or spare it by --keep or --older-than"
        ))),
    }
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
}
