//! `lab matrix`: plays the cells one after the other, shows them, and says what is not as predicted.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Args;
use daemon::clock;

use super::cell::Plan;
use super::result::{Cell, Matrix, machine};
use super::{column_name, columns, picture, rows, table};
use crate::experiment::cli::INTERRUPTED;
use crate::experiment::stage::Stage;
use crate::say::{self, Steps, Usage, seconds};
use crate::up::Ends;

#[derive(Debug, Args)]
pub struct MatrixArgs {
    /// Only these faults
    #[arg(long, value_name = "FAULT", value_delimiter = ',')]
    pub only: Vec<String>,
    /// Only these columns, by the guarantee that is off; `none` is the one in which all are on
    #[arg(long, value_name = "GUARANTEE", value_delimiter = ',')]
    pub without: Vec<String>,
    /// Print the result as JSON, and the progress on standard error
    #[arg(long)]
    pub json: bool,
    /// Draw the result into this file, as SVG
    #[arg(long, value_name = "FILE")]
    pub picture: Option<PathBuf>,
    /// Run nothing: show the JSON of an earlier run, compared with what is predicted now
    #[arg(long, value_name = "FILE", conflicts_with_all = ["again", "only", "without", "seed", "yes"])]
    pub from: Option<PathBuf>,
    /// Play only what was not played or is inconclusive in the JSON of an earlier run, and show the whole
    #[arg(long, value_name = "FILE", conflicts_with = "seed")]
    pub again: Option<PathBuf>,
    /// Chooses where a fault has a choice [default: by chance, and told]
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
    /// Install missing server programs without asking
    #[arg(long)]
    pub yes: bool,
    /// The program that nodes are
    #[arg(long, hide = true, value_name = "PATH")]
    pub program: Option<PathBuf>,
}

/// How a run of the cells ended.
enum End {
    All,
    Interrupted,
}

/// Does it.
pub async fn run(root: &Path, args: &MatrixArgs) -> Result<ExitCode> {
    if let Some(file) = &args.picture {
        check_place(file)?;
    }
    if let Some(file) = &args.from {
        let matrix = read(file)?;
        return args.show(&matrix, root);
    }
    let mut matrix = match &args.again {
        Some(file) => read(file)?,
        None => Matrix {
            started_at: clock::now(),
            seed: args.seed.unwrap_or_else(rand::random),
            rabbitmq: None,
            machine: machine(),
            again: 0,
            added: 0,
            cells: Vec::new(),
        },
    };
    let mut plans = Vec::new();
    // one stack after the other
    for column in columns(&args.without)? {
        for row in rows(&args.only)? {
            let there = matrix.cell(row, column_name(column));
            if there.is_none_or(Cell::inconclusive) {
                plans.push(Plan::new(row, column)?);
            }
        }
    }
    let tell = |text: &str| {
        if args.json {
            say::complain(text);
        } else {
            say::line(text);
        }
    };
    if plans.is_empty() {
        return args.show(&matrix, root);
    }
    match args.play(root, &plans, &mut matrix, &tell).await? {
        End::All => args.show(&matrix, root),
        End::Interrupted => {
            args.print(&matrix, root)?;
            Ok(ExitCode::from(INTERRUPTED))
        }
    }
}

impl MatrixArgs {
    /// All cells on one stage, which is healed and stopped whatever happens.
    async fn play(
        &self,
        root: &Path,
        plans: &[Plan],
        matrix: &mut Matrix,
        tell: &(dyn Fn(&str) + Send + Sync),
    ) -> Result<End> {
        let mut ends = Ends::new()?;
        let steps = Steps::new(tell);
        let stage = tokio::select! {
            stage = Stage::prepare(root, self.program.as_deref(), self.yes, &steps) => stage?,
            () = ends.next() => return Ok(End::Interrupted),
        };
        let mut done = 0;
        let played = tokio::select! {
            played = self.perform(plans, &stage, root, matrix, &mut done, tell) => played.map(|()| End::All),
            () = ends.next() => Ok(End::Interrupted),
        };
        if matches!(played, Ok(End::Interrupted)) {
            let which = plans.get(done).map(Plan::name).unwrap_or_default();
            tell(&format!(
                "Interrupted in {which}: healing and stopping. Ctrl-C again kills everything at once."
            ));
        }
        tokio::select! {
            () = stage.close(tell) => {}
            () = ends.next() => {
                tell("Killing everything.");
                stage.abort().await;
            }
        }
        played
    }

    /// One cell after the other, and how many were done.
    async fn perform(
        &self,
        plans: &[Plan],
        stage: &Stage,
        root: &Path,
        matrix: &mut Matrix,
        done: &mut usize,
        tell: &(dyn Fn(&str) + Send + Sync),
    ) -> Result<()> {
        let started = stage.start(&Steps::new(tell)).await;
        started.context("the stack did not start")?;
        tell(&format!("{} cells, seed {}", plans.len(), matrix.seed));
        for (place, plan) in plans.iter().enumerate() {
            let played = Box::pin(plan.play(stage, root, matrix.seed)).await;
            let cell = played.cell;
            let outcome = match (cell.inconclusive(), cell.as_predicted) {
                (true, _) => cell.reasons.join("; "),
                (_, true) => "as predicted".to_owned(),
                (_, false) => format!("NOT as predicted: {}", cell.predicted),
            };
            tell(&format!(
                "[{:>3}/{}] {:>7}  {:44} {}, {outcome}",
                place + 1,
                plans.len(),
                seconds(Duration::from_millis(cell.took_ms)),
                plan.name(),
                cell.describe(),
            ));
            matrix.rabbitmq = matrix.rabbitmq.take().or(played.broker);
            matrix.put(cell, self.again.is_some());
            *done += 1;
        }
        Ok(())
    }

    fn show(&self, matrix: &Matrix, root: &Path) -> Result<ExitCode> {
        if let Some(file) = &self.picture {
            fs::write(file, picture::draw(matrix)?)
                .with_context(|| format!("cannot write {}", file.display()))?;
        }
        self.print(matrix, root)?;
        Ok(ExitCode::from(matrix.exit_code()))
    }

    fn print(&self, matrix: &Matrix, root: &Path) -> Result<()> {
        if self.json {
            say::line(serde_json::to_string_pretty(matrix)?);
        } else {
            say::line(format!("\n{}", table::table(matrix, root)));
        }
        Ok(())
    }
}

/// An earlier run, compared with what is predicted now.
fn read(file: &Path) -> Result<Matrix, Usage> {
    let name = file.display();
    let text = fs::read(file).map_err(|error| Usage(format!("cannot read {name}: {error}")))?;
    let mut matrix: Matrix = serde_json::from_slice(&text).map_err(|error| {
        Usage(format!(
            "{name} is not what `lab matrix --json` prints: {error}"
        ))
    })?;
    for cell in &mut matrix.cells {
        cell.compare();
    }
    Ok(matrix)
}

/// The picture is drawn at the end: better to know now that it cannot be written.
fn check_place(file: &Path) -> Result<(), Usage> {
    let folder = match file.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    if folder.is_dir() && !file.is_dir() {
        return Ok(());
    }
    Err(Usage(format!(
        "--picture {}: there is no folder {}",
        file.display(),
        folder.display()
    )))
}
