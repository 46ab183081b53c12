//! `lab bench`: what was asked for, the stack around it, and where the figures go.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, Result};
use clap::Args;
use daemon::clock;

use super::cpu::Machine;
use super::facts::{self, Facts};
use super::release;
use super::sheet::Sheet;
use super::size::{LONG, SHORT, Size, USUAL};
use super::stage::Stage;
use super::table::Report;
use super::{Course, Scenario, with_limits};
use crate::say::{self, Steps, Usage};
use crate::up::Ends;

const INTERRUPTED: u8 = 130;
const PAGE: &str = "docs/benchmarks.md";

#[derive(Debug, Args)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a flag of the command line"
)]
pub struct BenchArgs {
    /// Only these, as with --only: `lab bench leases`
    #[arg(value_name = "NAME", conflicts_with = "only")]
    pub names: Vec<Scenario>,
    /// Only these, and the limits that they are compared with
    #[arg(long, value_delimiter = ',', value_name = "NAME")]
    pub only: Vec<Scenario>,
    /// How often each is measured, in turn with the others [default: 3, with --short 1]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=50))]
    pub rounds: Option<u16>,
    /// Only show that every scenario works; no figure means anything
    #[arg(long, conflicts_with = "long")]
    pub short: bool,
    /// Also 3,000,000 rows behind, a search among 1,000,000 messages, and half an hour at half load
    #[arg(long)]
    pub long: bool,
    /// Senders of the pipeline
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = nodes)]
    pub senders: usize,
    /// Receivers of the pipeline
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = nodes)]
    pub receivers: usize,
    /// For scripts: write all figures there as JSON; `-` is standard output
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Write the page there [default: docs/benchmarks.md, of a whole run in the usual or the long form]
    #[arg(long, value_name = "FILE")]
    pub write: Option<PathBuf>,
    /// Measure a debug build
    #[arg(long)]
    pub debug_ok: bool,
    /// Install missing server programs without asking
    #[arg(long)]
    pub yes: bool,
}

fn nodes(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(count @ 1..=16) => Ok(count),
        _ => Err("a number from 1 to 16 is needed".to_owned()),
    }
}

impl BenchArgs {
    fn size(&self) -> (&'static str, Size) {
        match (self.short, self.long) {
            (true, _) => ("short", SHORT),
            (_, true) => ("long", LONG),
            _ => ("usual", USUAL),
        }
    }

    /// None: all.
    fn chosen(&self) -> &[Scenario] {
        if self.names.is_empty() {
            &self.only
        } else {
            &self.names
        }
    }

    fn rounds(&self) -> usize {
        let default = if self.short { 1 } else { 3 };
        self.rounds.map_or(default, usize::from)
    }

    fn scenarios(&self) -> Result<Vec<Scenario>, Usage> {
        let chosen = self.chosen();
        if chosen.contains(&Scenario::Vacuum) && !self.long {
            return Err(Usage("vacuum needs --long".to_owned()));
        }
        Ok(with_limits(chosen, self.long))
    }

    /// Where the page goes, if anywhere.
    fn page(&self, checkout: Option<&Path>) -> Option<PathBuf> {
        let whole = !self.short && self.chosen().is_empty() && release::HERE;
        let usual = checkout.filter(|_| whole).map(|folder| folder.join(PAGE));
        self.write.clone().or(usual)
    }

    fn to_stdout(&self) -> bool {
        self.json.as_deref() == Some(Path::new("-"))
    }

    /// Says something that is not the JSON.
    fn tell(&self) -> fn(&str) {
        if self.to_stdout() {
            |text| say::complain(text)
        } else {
            say::tell
        }
    }
}

/// The checkout that the current folder lies in.
fn checkout() -> Option<PathBuf> {
    let here = std::env::current_dir().ok()?;
    let found = here
        .ancestors()
        .find(|folder| folder.join("services/lab/Cargo.toml").is_file());
    found.map(Path::to_owned)
}

/// Measures, and tells.
pub async fn run(root: &Path, args: &BenchArgs) -> Result<ExitCode> {
    let scenarios = args.scenarios()?;
    let checkout = checkout();
    for file in [&args.json, &args.write].into_iter().flatten() {
        writable(file)?;
    }
    if !release::HERE && !args.short && !args.debug_ok {
        release::become_one(checkout.as_deref()).await?;
    }
    let mut ends = Ends::new()?;
    let tell = args.tell();
    let steps = Steps::new(&tell);
    let stage = tokio::select! {
        stage = Stage::prepare(root, args.yes, &steps) => stage?,
        () = ends.next() => return Ok(ExitCode::from(INTERRUPTED)),
    };
    let measured = tokio::select! {
        code = Box::pin(measure(args, &scenarios, &stage, checkout.as_deref(), &steps)) => Some(code),
        () = ends.next() => None,
    };
    if measured.is_none() {
        tell("Interrupted: stopping. Ctrl-C again kills everything at once.");
    }
    tokio::select! {
        () = stage.close() => {}
        () = ends.next() => stage.abort().await,
    }
    measured.unwrap_or_else(|| Ok(ExitCode::from(INTERRUPTED)))
}

/// Nobody wants to know after half an hour.
fn writable(file: &Path) -> Result<(), Usage> {
    let folder = match file.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    if file == Path::new("-") || folder.is_dir() && !file.is_dir() {
        return Ok(());
    }
    let file = file.display();
    Err(Usage(format!("{file} cannot be written: no such folder")))
}

async fn measure(
    args: &BenchArgs,
    scenarios: &[Scenario],
    stage: &Stage,
    checkout: Option<&Path>,
    steps: &Steps<'_>,
) -> Result<ExitCode> {
    let (form, size) = args.size();
    let (started_at, begun) = (clock::now(), Instant::now());
    let (load_before, machine) = (facts::load_average(), Machine::now());
    let started = stage.start(steps).await;
    started.context("the stack did not start")?;
    let facts = Facts::gather(stage, checkout).await?;
    let mut sheet = Sheet::default();
    let mut course = Course {
        stage,
        size: &size,
        sheet: &mut sheet,
        steps,
        round: 0,
        rounds: args.rounds(),
        senders: args.senders,
        receivers: args.receivers,
    };
    let rounds = course.run(scenarios).await;
    let report = Report {
        sheet: &sheet,
        facts: &facts,
        started_at,
        took: begun.elapsed(),
        rounds,
        form,
        others: machine.others(facts::cores()),
        load_before,
    };
    args.tell()(&report.text());
    let json = serde_json::to_string_pretty(&report.json())?;
    match &args.json {
        Some(_) if args.to_stdout() => say::line(&json),
        Some(file) => write(file, &json)?,
        None => {}
    }
    if let Some(page) = args.page(checkout) {
        write(&page, &report.page())?;
        steps.note(format!("written: {}", page.display()));
    }
    Ok(ExitCode::from(u8::from(!sheet.failures.is_empty())))
}

fn write(file: &Path, text: &str) -> Result<()> {
    std::fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        bench: BenchArgs,
    }

    fn read(line: &[&str]) -> BenchArgs {
        Line::try_parse_from(line).unwrap().bench
    }

    #[test]
    fn names_are_read_with_commas() {
        let args = read(&["x", "--only", "raw,drain"]);
        assert_eq!(args.only, [Scenario::Raw, Scenario::Drain]);
        let named = read(&["x", "leases", "page"]);
        assert_eq!(named.chosen(), [Scenario::Leases, Scenario::Page]);
        assert!(Line::try_parse_from(["x", "leases", "--only", "page"]).is_err());
        assert!(Line::try_parse_from(["x", "--only", "nothing"]).is_err());
        assert!(Line::try_parse_from(["x", "--rounds", "0"]).is_err());
        assert!(Line::try_parse_from(["x", "--short", "--long"]).is_err());
    }

    #[test]
    fn the_short_form_has_one_round() {
        assert_eq!(read(&["x", "--short"]).rounds(), 1);
        assert_eq!(read(&["x"]).rounds(), 3);
        assert_eq!(read(&["x", "--short", "--rounds", "2"]).rounds(), 2);
    }

    #[test]
    fn only_a_whole_run_writes_the_usual_page() {
        let here = Some(Path::new("/x"));
        let usual = release::HERE.then(|| PathBuf::from("/x/docs/benchmarks.md"));
        assert_eq!(read(&["x"]).page(here), usual);
        assert_eq!(read(&["x", "--short"]).page(here), None);
        assert_eq!(read(&["x", "--only", "raw"]).page(here), None);
        let given = read(&["x", "--short", "--write", "/y.md"]).page(here);
        assert_eq!(given, Some("/y.md".into()));
    }

    #[test]
    fn what_cannot_be_done_is_refused_at_once() {
        assert!(read(&["x", "--only", "vacuum"]).scenarios().is_err());
        let long = read(&["x", "--long", "--only", "vacuum"]).scenarios();
        assert!(long.unwrap().contains(&Scenario::Pipeline));
        assert!(writable(Path::new("-")).is_ok());
        assert!(writable(Path::new("/nowhere/at/all.json")).is_err());
    }
}
