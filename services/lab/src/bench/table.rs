//! What was measured: as a table on the terminal, as a page, as JSON.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use chrono::{DateTime, Utc};
use serde_json::{Value, json};

use super::Scenario;
use super::cpu::PROCESSES;
use super::facts::Facts;
use super::sheet::{Figure, Sheet, median, spread};

/// A whole run of the command.
pub struct Report<'a> {
    pub sheet: &'a Sheet,
    pub facts: &'a Facts,
    pub started_at: DateTime<Utc>,
    pub took: Duration,
    pub rounds: usize,
    pub form: &'static str,
    /// What others took of the machine meanwhile, 0 to 1.
    pub others: f64,
    pub load_before: String,
}

/// Rows of cells; the first row is the head.
type Rows = Vec<Vec<String>>;

const RATE_COLUMNS: usize = 5;
const POINTS: [&str; 4] = ["p50", "p99", "p99.9", "max"];

/// `64 connections, p99`: the load, and which of the points.
fn point_of(name: &str) -> Option<(&str, usize)> {
    let (load, point) = name.rsplit_once(", ")?;
    Some((load, POINTS.iter().position(|known| *known == point)?))
}

fn cells<const N: usize>(cells: [&str; N]) -> Vec<String> {
    cells.map(str::to_owned).into()
}

impl Report<'_> {
    /// A row for each load: its rate, and where it has some, its times beside it.
    fn figures(&self, scenario: Scenario) -> Rows {
        let of = |figure: &&Figure| figure.scenario == scenario;
        let mut rows: Rows = Vec::new();
        let mut timed = false;
        for figure in self.sheet.figures.iter().filter(of) {
            let Some((name, point)) = point_of(&figure.name) else {
                let mut row = vec![figure.name.clone()];
                row.extend(shown(&figure.values, |value| figure.unit.show(value)));
                rows.push(row);
                continue;
            };
            timed = true;
            let place = rows.iter().position(|row| row[0] == name);
            let place = place.unwrap_or_else(|| {
                let nothing = ["", "", "", ""].map(str::to_owned);
                rows.push([vec![name.to_owned()], nothing.into()].concat());
                rows.len() - 1
            });
            let row = &mut rows[place];
            row.resize(RATE_COLUMNS + POINTS.len(), String::new());
            let middle = median(&figure.values).unwrap_or_default();
            row[RATE_COLUMNS + point] = figure.unit.show(middle);
        }
        let mut head = cells(["", "median", "least", "most", "times"]);
        if timed {
            head.extend(POINTS.map(str::to_owned));
        }
        let columns = head.len();
        for row in &mut rows {
            row.resize(columns, String::new());
        }
        rows.insert(0, head);
        rows
    }

    fn ratios(&self) -> Rows {
        let mut rows = vec![cells(["ratio", "median", "least", "most", "times", ""])];
        for ratio in self.sheet.ratios() {
            let mut row = vec![ratio.name.to_owned()];
            row.extend(shown(&ratio.values, |value| format!("{value:.2}")));
            row.push(ratio.what.to_owned());
            rows.push(row);
        }
        rows
    }

    /// A line for each load, a column for each process.
    fn budgets(&self) -> Rows {
        let mut head = cells(["microseconds of CPU for each message or page"]);
        head.extend(PROCESSES.map(str::to_owned));
        head.push("all".to_owned());
        let mut rows = vec![head];
        for load in self.loads() {
            let of = self.budget(load);
            let mut row = vec![load.to_owned()];
            row.extend(PROCESSES.map(|process| us(of.get(process).copied().unwrap_or(0.0))));
            row.push(us(of.values().sum()));
            rows.push(row);
        }
        rows
    }

    fn loads(&self) -> Vec<&str> {
        let mut loads: Vec<&str> = Vec::new();
        for budget in &self.sheet.budgets {
            if !loads.contains(&budget.load.as_str()) {
                loads.push(&budget.load);
            }
        }
        loads
    }

    fn budget(&self, load: &str) -> BTreeMap<&'static str, f64> {
        let of = self.sheet.budgets.iter().filter(|one| one.load == load);
        of.filter_map(|one| Some((one.process, median(&one.values)?)))
            .collect()
    }

    fn scenarios(&self) -> impl Iterator<Item = Scenario> {
        let has = |scenario: &Scenario| {
            let figures = &self.sheet.figures;
            figures.iter().any(|figure| figure.scenario == *scenario)
        };
        Scenario::ALL.into_iter().filter(has)
    }

    fn notes(&self, scenario: Scenario) -> impl Iterator<Item = &str> {
        let notes = self.sheet.notes.iter();
        notes
            .filter(move |(of, _)| *of == scenario)
            .map(|(_, note)| note.as_str())
    }

    fn head(&self) -> Vec<(String, String)> {
        let facts = self.facts;
        let join = |pairs: &[(&'static str, String)]| {
            let pairs: Vec<String> = pairs
                .iter()
                .map(|(name, value)| format!("{name} {value}"))
                .collect();
            pairs.join(", ")
        };
        let settings: Vec<String> = facts
            .settings
            .iter()
            .map(|(name, value)| {
                format!("{name}={}", if value.is_empty() { "none" } else { value })
            })
            .collect();
        let build = if facts.debug_build {
            "DEBUG BUILD: no figure means anything"
        } else {
            "release build"
        };
        let began = self.started_at.format("%Y-%m-%d %H:%M UTC");
        let minutes = self.took.as_secs_f64() / 60.0;
        vec![
            (
                "measured".to_owned(),
                format!(
                    "{began}, {minutes:.1} min, {} form, {} rounds, {build}",
                    self.form, self.rounds
                ),
            ),
            (
                "commit".to_owned(),
                facts.commit.clone().unwrap_or_else(|| "unknown".to_owned()),
            ),
            ("machine".to_owned(), join(&facts.machine)),
            (
                "others".to_owned(),
                format!(
                    "load average {} before it began; other programs used {:.0} % of the machine's CPU meanwhile",
                    self.load_before,
                    self.others * 100.0
                ),
            ),
            ("versions".to_owned(), join(&facts.versions)),
            ("settings".to_owned(), settings.join(", ")),
        ]
    }

    /// For a terminal.
    pub fn text(&self) -> String {
        let mut text = String::from("\n");
        for (name, value) in self.head() {
            let _ = writeln!(text, "{name:<9} {value}");
        }
        for scenario in self.scenarios() {
            let _ = write!(text, "\n{scenario}\n{}", aligned(&self.figures(scenario)));
            for note in self.notes(scenario) {
                let _ = writeln!(text, "  ({note})");
            }
        }
        if !self.sheet.budgets.is_empty() {
            let _ = write!(text, "\nCPU\n{}", aligned(&self.budgets()));
        }
        let _ = write!(text, "\n{}", aligned(&self.ratios()));
        for failure in &self.sheet.failures {
            let round = failure.round + 1;
            let _ = writeln!(
                text,
                "\n{} FAILED in round {round}: {}",
                failure.scenario, failure.why
            );
        }
        text
    }

    /// For `docs/benchmarks.md`.
    pub fn page(&self) -> String {
        let mut page = String::from(
            "# Benchmarks\n\nWritten by `cargo lab bench`. Every figure was measured in this one run; a ratio is made of \
             figures of the same round. *least* and *most* are the spread over *times* measurements; p50 to max are times of single \
             requests or messages, the median of the rounds.\n\n",
        );
        for (name, value) in self.head() {
            let _ = writeln!(page, "- **{name}:** {value}");
        }
        let _ = write!(page, "\n## Ratios\n\n{}", markdown(&self.ratios()));
        if !self.sheet.budgets.is_empty() {
            let _ = write!(page, "\n## CPU\n\n{}", markdown(&self.budgets()));
        }
        for scenario in self.scenarios() {
            let _ = write!(
                page,
                "\n## {scenario}\n\n{}",
                markdown(&self.figures(scenario))
            );
            let notes: Vec<&str> = self.notes(scenario).collect();
            if !notes.is_empty() {
                let _ = writeln!(page, "\n{}.", notes.join("; "));
            }
        }
        for failure in &self.sheet.failures {
            let _ = writeln!(page, "\n**{} failed:** {}", failure.scenario, failure.why);
        }
        page
    }

    /// For scripts.
    pub fn json(&self) -> Value {
        let figures: Vec<Value> = self
            .sheet
            .figures
            .iter()
            .map(|figure| {
                let (least, most) = spread(&figure.values).unwrap_or_default();
                json!({
                    "scenario": figure.scenario, "name": figure.name, "unit": figure.unit,
                    "median": median(&figure.values), "least": least, "most": most, "values": figure.values,
                })
            })
            .collect();
        let ratios = self.sheet.ratios();
        let medians: BTreeMap<&str, Option<f64>> = ratios
            .iter()
            .map(|ratio| (ratio.name, median(&ratio.values)))
            .collect();
        let values: BTreeMap<&str, &[f64]> = ratios
            .iter()
            .map(|ratio| (ratio.name, ratio.values.as_slice()))
            .collect();
        let budgets: BTreeMap<&str, _> = self
            .loads()
            .into_iter()
            .map(|load| (load, self.budget(load)))
            .collect();
        json!({
            "started_at": self.started_at, "took_secs": self.took.as_secs_f64(), "form": self.form,
            "rounds": self.rounds, "others_cpu_share": self.others, "facts": self.facts,
            "ratios": medians, "ratio_values": values, "cpu_us": budgets, "figures": figures,
            "notes": self.sheet.notes, "failures": self.sheet.failures,
        })
    }
}

/// Median, least, most, how often.
fn shown(values: &[f64], show: impl Fn(f64) -> String) -> [String; 4] {
    let middle = median(values).map_or_else(String::new, &show);
    let (least, most) = spread(values).unwrap_or_default();
    [middle, show(least), show(most), values.len().to_string()]
}

fn us(value: f64) -> String {
    if value >= 100.0 {
        format!("{value:.0}")
    } else {
        format!("{value:.1}")
    }
}

/// Columns as wide as their widest cell, figures to the right.
fn aligned(rows: &Rows) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (column, (cell, width)) in row.iter().zip(&widths).enumerate() {
            // the last column of the ratios is words
            let _ = if column == 0 || column == 5 && columns == 6 {
                write!(line, "  {cell:<width$}")
            } else {
                write!(line, "  {cell:>width$}")
            };
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

fn markdown(rows: &Rows) -> String {
    let mut text = String::new();
    for (place, row) in rows.iter().enumerate() {
        let _ = writeln!(text, "| {} |", row.join(" | "));
        if place == 0 {
            let rule: Vec<&str> = (0..row.len())
                .map(|column| if column == 0 { "---" } else { "---:" })
                .collect();
            let _ = writeln!(text, "| {} |", rule.join(" | "));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::sheet::Unit;

    fn sheet() -> Sheet {
        let mut sheet = Sheet::default();
        for (round, raw, pipeline) in [(0, 10_000.0, 3_000.0), (1, 12_000.0, 4_800.0)] {
            sheet.add(Scenario::Raw, "both at once", Unit::PerSecond, raw);
            sheet.role("raw", round, raw);
            sheet.role("pipeline", round, pipeline);
            sheet.budget("pipeline", &[("sender", 100.0), ("postgres", 50.5)]);
        }
        sheet.note(Scenario::Raw, "a note");
        sheet
    }

    fn facts() -> Facts {
        Facts {
            machine: vec![("cores", "2".to_owned())],
            versions: vec![("RabbitMQ", "3.10.8".to_owned())],
            settings: vec![("PREFETCH".to_owned(), "250".to_owned())],
            commit: Some("abc1234".to_owned()),
            debug_build: false,
        }
    }

    fn report<'a>(sheet: &'a Sheet, facts: &'a Facts) -> Report<'a> {
        Report {
            sheet,
            facts,
            started_at: DateTime::UNIX_EPOCH,
            took: Duration::from_mins(2),
            rounds: 2,
            form: "usual",
            others: 0.25,
            load_before: "0.10".to_owned(),
        }
    }

    #[test]
    fn the_table_has_medians_with_their_spread() {
        let (sheet, facts) = (sheet(), facts());
        let text = report(&sheet, &facts).text();
        let row = text.lines().find(|line| line.contains("both at once"));
        let row: Vec<&str> = row.unwrap().split_whitespace().collect();
        assert_eq!(row[3..], ["11,000/s", "10,000/s", "12,000/s", "2"]);
        let row = text.lines().find(|line| line.contains("pipeline/raw"));
        let row: Vec<&str> = row.unwrap().split_whitespace().collect();
        assert_eq!(row[1..5], ["0.35", "0.30", "0.40", "2"]);
        assert!(text.contains("(a note)") && text.contains("25 %"), "{text}");
    }

    #[test]
    fn the_page_tells_where_it_was_measured_and_what_failed() {
        let (mut sheet, facts) = (sheet(), facts());
        sheet.fail(Scenario::Drain, 0, "no receiver".to_owned());
        let page = report(&sheet, &facts).page();
        for part in [
            "abc1234",
            "RabbitMQ 3.10.8",
            "PREFETCH=250",
            "| both at once | 11,000/s | 10,000/s | 12,000/s | 2 |",
            "**drain failed:** no receiver",
        ] {
            assert!(page.contains(part), "{part}: {page}");
        }
    }

    #[test]
    fn scripts_get_medians_of_ratios_and_the_split_of_the_cpu() {
        let (sheet, facts) = (sheet(), facts());
        let json = report(&sheet, &facts).json();
        assert!((json["ratios"]["pipeline/raw"].as_f64().unwrap() - 0.35).abs() < 1e-9);
        assert_eq!(json["cpu_us"]["pipeline"]["postgres"], 50.5);
        assert_eq!(json["figures"][0]["values"].as_array().unwrap().len(), 2);
        assert_eq!(json["failures"], json!([]));
    }

    #[test]
    fn times_stand_beside_their_rate() {
        let (mut sheet, facts) = (Sheet::default(), facts());
        let times = crate::load::Latency {
            p50: 1_000,
            p90: 0,
            p99: 20_000,
            p99_9: 30_000,
            max: 40_000,
        };
        sheet.add(Scenario::Accept, "8 connections", Unit::PerSecond, 500.0);
        sheet.latency(Scenario::Accept, "8 connections", Some(times));
        sheet.latency(Scenario::Accept, "alone", Some(times));
        let page = report(&sheet, &facts).page();
        let row =
            "| 8 connections | 500/s | 500/s | 500/s | 1 | 1.00 ms | 20.0 ms | 30.0 ms | 40.0 ms |";
        assert!(page.contains(row), "{page}");
        let row = "| alone |  |  |  |  | 1.00 ms | 20.0 ms | 30.0 ms | 40.0 ms |";
        assert!(page.contains(row), "{page}");
    }

    #[test]
    fn a_debug_build_says_so() {
        let sheet = sheet();
        let facts = Facts {
            debug_build: true,
            ..facts()
        };
        assert!(report(&sheet, &facts).text().contains("DEBUG BUILD"));
    }
}
