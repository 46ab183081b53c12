//! `lab experiment`: lists experiments, checks files, runs them.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::{Args, Subcommand};

use super::catalogue;
use super::file::Experiment;
use super::fits::{self, Place};
use super::journal::Outcome;
use super::list;
use super::runner::Play;
use super::stage::Stage;
use crate::audit::Verdict;
use crate::run::sight::Elsewhere;
use crate::say::{self, Steps, Usage, seconds};
use crate::stack::dir;
use crate::up::Ends;

/// As a shell says of a program that was interrupted.
pub(crate) const INTERRUPTED: u8 = 130;
/// The most nodes that an experiment may ask for, unless more are allowed.
pub(crate) const NODES_MAX: usize = 16;

#[derive(Debug, Subcommand)]
pub enum ExperimentCommand {
    /// Name the experiments that come with the lab: what happens, how long it takes, and what the unsafe twin lacks
    List,
    /// Read files and say what is wrong with them, with line and column; nothing is started
    Check {
        /// Files, or names that `list` shows
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
        /// The most nodes that an experiment may ask for
        #[arg(long, value_name = "N", default_value_t = NODES_MAX)]
        max: usize,
    },
    /// Run experiments on a stack of their own and say whether each ended as expected
    ///
    /// Exit codes: 0 all as expected, 1 not as expected, 3 the lab could not observe, inject or heal, 2 wrong usage,
    /// 130 interrupted (everything is healed and stopped first).
    Run(Run),
}

#[derive(Debug, Args)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a flag of the command line"
)]
pub struct Run {
    /// Files, or names that `list` shows
    #[arg(
        required_unless_present = "all",
        conflicts_with = "all",
        value_name = "FILE"
    )]
    pub files: Vec<PathBuf>,
    /// Run the unsafe twin, which is expected to fail
    #[arg(long, conflicts_with = "all")]
    pub twin: bool,
    /// All that come with the lab, each with its twin
    #[arg(long)]
    pub all: bool,
    /// Of all only those that are fast
    #[arg(long, requires = "all")]
    pub fast: bool,
    /// The same seed gives the same schedule [default: by chance, and told]
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
    /// The most nodes that an experiment may ask for
    #[arg(long, value_name = "N", default_value_t = NODES_MAX)]
    pub max: usize,
    /// Install missing server programs without asking
    #[arg(long)]
    pub yes: bool,
    /// The program that nodes are
    #[arg(long, hide = true, value_name = "PATH")]
    pub program: Option<PathBuf>,
    #[command(flatten)]
    pub elsewhere: Box<Elsewhere>,
}

/// Does it.
pub async fn run(root: &Path, command: &ExperimentCommand) -> Result<ExitCode> {
    match command {
        ExperimentCommand::List => {
            say::line(list::text()?);
            Ok(ExitCode::SUCCESS)
        }
        ExperimentCommand::Check { files, max } => Ok(check(files, *max)),
        ExperimentCommand::Run(run) => Box::pin(run.run(root)).await,
    }
}

fn check(files: &[PathBuf], max: usize) -> ExitCode {
    let mut code = ExitCode::SUCCESS;
    for file in files {
        match catalogue::open(file, max) {
            Ok(one) => say::line(format!("{}: {}", file.display(), one.title)),
            Err(why) => {
                say::complain(why);
                code = ExitCode::from(Usage::EXIT_CODE);
            }
        }
    }
    code
}

/// One line of the table at the end.
struct Line {
    kind: String,
    verdict: Option<Verdict>,
    expected: String,
    outcome: Outcome,
    took: Duration,
    run: String,
}

impl Run {
    fn chosen(&self) -> Result<Vec<Experiment>, Usage> {
        if !self.all {
            return self
                .files
                .iter()
                .map(|file| catalogue::open(file, self.max))
                .collect();
        }
        let mut all = catalogue::all(self.max)?;
        all.retain(|one| one.fast || !self.fast);
        Ok(all)
    }

    async fn stage(&self, root: &Path) -> Result<(Stage, Place)> {
        if let Some(there) = Stage::elsewhere(root, &self.elsewhere).await? {
            return Ok(there);
        }
        let steps = Steps::new(&say::tell);
        let own = Stage::prepare(root, self.program.as_deref(), self.yes, &steps).await?;
        Ok((own, Place::Native))
    }

    /// Refuses what cannot be played there; of all, leaves it out and says so.
    fn fitting(&self, plays: &mut Vec<Play<'_>>, place: &Place) -> Result<(), Usage> {
        let path = |name: &str| {
            let mut files = self.files.iter();
            let given =
                files.find(|file| file.is_file() && file.file_stem() == Some(name.as_ref()));
            given.map_or_else(|| format!("{name}.yaml"), |file| file.display().to_string())
        };
        let mut refused = Ok(());
        plays.retain(|play| {
            let path = path(&play.experiment.name);
            match fits::check(&path, play.experiment, play.twin, place) {
                Ok(()) => true,
                Err(why) if self.all => {
                    say::line(format!("left out: {}: {why}", play.kind()));
                    false
                }
                Err(why) => {
                    refused = refused.clone().and(Err(why));
                    true
                }
            }
        });
        refused
    }

    async fn run(&self, root: &Path) -> Result<ExitCode> {
        let chosen = self.chosen()?;
        let seed = self.seed.unwrap_or_else(rand::random);
        let mut plays = Vec::new();
        for experiment in &chosen {
            let play = |setup, twin| Play {
                experiment,
                setup,
                twin,
                seed,
            };
            if !self.twin {
                plays.push(play(&experiment.safe, false));
            }
            match &experiment.twin {
                Some(twin) if self.twin || self.all => plays.push(play(twin, true)),
                None if self.twin => {
                    return Err(Usage(format!("{} has no twin", experiment.name)).into());
                }
                _ => {}
            }
        }
        let mut ends = Ends::new()?;
        let (stage, place) = tokio::select! {
            stage = self.stage(root) => stage?,
            () = ends.next() => return Ok(ExitCode::from(INTERRUPTED)),
        };
        self.fitting(&mut plays, &place)?;
        if plays.is_empty() {
            return Err(Usage("nothing of all that can be played there".to_owned()).into());
        }
        let mut lines = Vec::new();
        let result = tokio::select! {
            result = perform(&plays, &stage, root, &mut lines) => result.map(|()| None),
            () = ends.next() => Ok(Some(INTERRUPTED)),
        };
        if matches!(result, Ok(Some(_))) {
            let which = plays.get(lines.len()).map(Play::kind).unwrap_or_default();
            say::line(format!(
                "Interrupted in {which}: healing and stopping. Ctrl-C again kills everything at once."
            ));
        }
        tokio::select! {
            () = stage.close(&say::tell) => {}
            () = ends.next() => {
                say::line("Killing everything.");
                stage.abort().await;
            }
        }
        if lines.len() > 1 || result.as_ref().is_ok_and(Option::is_some) {
            say::line(table(&lines));
        }
        match result? {
            Some(code) => Ok(ExitCode::from(code)),
            None => Ok(ExitCode::from(exit_code(&lines))),
        }
    }
}

async fn perform(
    plays: &[Play<'_>],
    stage: &Stage,
    root: &Path,
    lines: &mut Vec<Line>,
) -> Result<()> {
    stage
        .start(&Steps::new(&say::tell))
        .await
        .context("the stack did not start")?;
    for (place, play) in plays.iter().enumerate() {
        let (begun, kind) = (Instant::now(), play.kind());
        say::line(format!(
            "\n[{}/{}] {kind}: {}",
            place + 1,
            plays.len(),
            play.experiment.title
        ));
        let mut line = Line {
            kind,
            verdict: None,
            expected: play.setup.expect.to_string(),
            outcome: Outcome::Inconclusive,
            took: Duration::ZERO,
            run: String::new(),
        };
        match Box::pin(play.run(stage, root, &Steps::new(&say::tell))).await {
            Ok(played) => {
                let journal = &played.journal;
                for one in journal.expectations.iter().filter(|one| !one.met) {
                    say::line(format!(
                        "         {}: wanted {}, found {}",
                        one.what, one.wanted, one.found
                    ));
                }
                for reason in &journal.audit.reasons {
                    say::line(format!("         - {reason}"));
                }
                let report = dir::command(root, &format!("report {}", journal.run));
                let took = seconds(begun.elapsed());
                say::line(format!(
                    "{} {} after {took}; {report}",
                    played.verdict, journal.outcome
                ));
                line.verdict = Some(played.verdict);
                line.outcome = journal.outcome;
                line.run = journal.run.to_string();
            }
            Err(error) => say::line(format!("INCONCLUSIVE: {error:#}")),
        }
        line.took = begun.elapsed();
        lines.push(line);
    }
    Ok(())
}

fn table(lines: &[Line]) -> String {
    let width = lines
        .iter()
        .map(|line| line.kind.len())
        .max()
        .unwrap_or(0)
        .max(10);
    let wanted = lines
        .iter()
        .map(|line| line.expected.len())
        .max()
        .unwrap_or(0)
        .max(8);
    let head = format!(
        "\n{:width$}  {:wanted$}  {:12}  {:15}  {:>8}  run",
        "experiment", "expected", "found", "", "time"
    );
    let rows = lines.iter().map(|line| {
        let found = line
            .verdict
            .map_or_else(|| "-".to_owned(), |verdict| verdict.to_string());
        let (kind, expected, outcome, run) = (&line.kind, &line.expected, line.outcome, &line.run);
        let took = seconds(line.took);
        format!("{kind:width$}  {expected:wanted$}  {found:12}  {outcome:15}  {took:>8}  {run}")
    });
    let rows: Vec<String> = std::iter::once(head).chain(rows).collect();
    let count = |outcome| lines.iter().filter(|line| line.outcome == outcome).count();
    let (good, bad, open) = (
        count(Outcome::AsExpected),
        count(Outcome::NotAsExpected),
        count(Outcome::Inconclusive),
    );
    format!(
        "{}\n\n{good} as expected, {bad} not as expected, {open} inconclusive",
        rows.join("\n")
    )
}

fn exit_code(lines: &[Line]) -> u8 {
    let any = |outcome| lines.iter().any(|line| line.outcome == outcome);
    if any(Outcome::NotAsExpected) {
        1
    } else if any(Outcome::Inconclusive) {
        3
    } else {
        0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(outcomes: &[Outcome]) -> Vec<Line> {
        let line = |outcome: &Outcome| Line {
            kind: "x".to_owned(),
            verdict: Some(Verdict::Pass),
            expected: "PASS".to_owned(),
            outcome: *outcome,
            took: Duration::from_secs(3),
            run: "r1".to_owned(),
        };
        outcomes.iter().map(line).collect()
    }

    #[test]
    fn one_that_is_not_as_expected_decides_and_then_one_that_is_open() {
        use Outcome::{AsExpected, Inconclusive, NotAsExpected};
        assert_eq!(exit_code(&lines(&[AsExpected, AsExpected])), 0);
        assert_eq!(exit_code(&lines(&[AsExpected, Inconclusive])), 3);
        assert_eq!(exit_code(&lines(&[NotAsExpected, Inconclusive])), 1);
        let text = table(&lines(&[AsExpected, Inconclusive]));
        assert!(
            text.ends_with("1 as expected, 0 not as expected, 1 inconclusive"),
            "{text}"
        );
    }
}
