//! `lab compare`: two runs side by side, on the terminal, as JSON, and as a page with both courses.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::Result;
use askama::Template;
use clap::Args;
use serde::Serialize;

use crate::audit;
use crate::audit::class::Class;
use crate::audit::figures::Figures;
use crate::load::length;
use crate::report::charts::{self, Chart, Scale};
use crate::report::course::{Course, Series};
use crate::report::{Known, html, put, story};
use crate::run::{RunDir, RunId};
use crate::say::{self, Usage, grouped, time};
use crate::stack::dir;

/// Longer words are cut on the terminal; the page has them whole.
const CELL: usize = 34;

#[derive(Debug, Args)]
pub struct CompareArgs {
    /// The one run
    #[arg(value_name = "RUN")]
    pub one: String,
    /// The other run
    #[arg(value_name = "OTHER")]
    pub other: String,
    /// For scripts: the same as JSON
    #[arg(long)]
    pub json: bool,
}

/// Both runs, row by row.
#[derive(Debug, Serialize)]
pub struct Comparison {
    pub runs: [RunId; 2],
    pub rows: Vec<Row>,
    /// Where the page is.
    pub page: PathBuf,
}

/// One thing about both.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Row {
    /// `run`, `stack`, `load`, `classes` or `figures`.
    pub part: &'static str,
    pub what: String,
    /// None: it is not known of this run, or there is none.
    pub values: [Option<String>; 2],
    pub differs: bool,
}

/// What is known of one run, in the order in which it is shown.
type Facts = Vec<(&'static str, String, String)>;

#[derive(Template)]
#[template(path = "compare.html")]
struct Page<'a> {
    runs: [&'a Known; 2],
    titles: [String; 2],
    verdicts: [(String, &'static str); 2],
    headlines: [String; 2],
    parts: Vec<(&'static str, Vec<&'a Row>)>,
    charts: [Vec<Chart>; 2],
}

/// Compares what is on file of both; no server is asked.
pub fn run(root: &Path, args: &CompareArgs) -> Result<()> {
    let ids: [RunId; 2] = [args.one.parse()?, args.other.parse()?];
    if ids[0] == ids[1] {
        let why = format!("{} is one run; name another one to compare it with", ids[0]);
        return Err(Usage(why).into());
    }
    let dirs = [RunDir::open(root, &ids[0])?, RunDir::open(root, &ids[1])?];
    let known = [Known::read(&dirs[0])?, Known::read(&dirs[1])?];
    let page = dirs[1].path(&format!("compare-{}.html", ids[0]));
    let rows = rows([&known[0], &known[1]]);
    put(&page, &self::page([&known[0], &known[1]], &rows)?)?;
    let comparison = Comparison {
        runs: ids,
        rows,
        page: dir::real(&page),
    };
    say::line(if args.json {
        serde_json::to_string_pretty(&comparison)?
    } else {
        comparison.text()
    });
    Ok(())
}

/// Everything that is known of either.
pub fn rows(runs: [&Known; 2]) -> Vec<Row> {
    let [one, mut other] = runs.map(facts);
    let mut rows = Vec::new();
    for (part, what, value) in one {
        let same = other
            .iter()
            .position(|(of, name, _)| *of == part && *name == what);
        let value_of_other = same.map(|place| other.remove(place).2);
        rows.push(Row::new(part, what, [Some(value), value_of_other]));
    }
    // what only the other has, behind the last row of the same part
    for (part, what, value) in other {
        let place = rows
            .iter()
            .rposition(|row| row.part == part)
            .map_or(rows.len(), |place| place + 1);
        rows.insert(place, Row::new(part, what, [None, Some(value)]));
    }
    for row in rows.iter_mut().filter(|row| row.is_count()) {
        for (value, known) in row.values.iter_mut().zip(runs) {
            // it was judged, and there was none
            if value.is_none() && known.audit.as_ref().is_some_and(audit::Report::saw) {
                *value = Some("0".to_owned());
            }
        }
    }
    rows
}

impl Row {
    fn new(part: &'static str, what: String, values: [Option<String>; 2]) -> Self {
        // two runs never start at the same time: that says nothing
        let differs = values[0] != values[1] && what != "started";
        Self {
            part,
            what,
            values,
            differs,
        }
    }

    /// What is counted where there is any.
    fn is_count(&self) -> bool {
        self.part == "classes" || self.what.starts_with(html::WITHOUT_AN_EFFECT)
    }

    /// The value of one run as it is shown.
    fn shown(&self, of: usize) -> &str {
        self.values[of].as_deref().unwrap_or("-")
    }
}

fn facts(known: &Known) -> Facts {
    let mut facts = Facts::new();
    let mut add = |part, what: &str, value: String| facts.push((part, what.to_owned(), value));
    add("run", "kind", known.meta.kind.clone());
    if let Some(started) = known.meta.started_at {
        add(
            "run",
            "started",
            started.format("%Y-%m-%d %H:%M:%S").to_string(),
        );
    }
    let verdict = known.verdict().map(|verdict| verdict.to_string());
    add(
        "run",
        "verdict",
        verdict.unwrap_or_else(|| "not judged".to_owned()),
    );
    if let Some(journal) = &known.journal {
        add("run", "faults", journal.faults.len().to_string());
    }
    for (name, value) in html::setup(known) {
        add("stack", &name, value);
    }
    if let Some(plan) = &known.meta.load {
        add("load", "rate", plan.rate.to_string());
        add(
            "load",
            "for",
            match (plan.length, plan.total) {
                (Some(long), _) => length::show(long),
                (None, Some(total)) => format!("{} requests", grouped(total)),
                (None, None) => "30s".to_owned(),
            },
        );
        add("load", "bytes", plan.size.to_string());
        add("load", "messages in a request", plan.batch.to_string());
        add("load", "poison", grouped(plan.poison));
    }
    if let Some(load) = &known.load {
        let counts = &load.counts;
        let told = [
            ("offered", counts.offered),
            ("accepted", counts.accepted),
            ("refused", counts.refused),
            ("unknown", counts.unknown),
            ("retries", counts.retries),
        ];
        for (name, count) in told {
            add("load", name, grouped(count));
        }
        add(
            "load",
            "accepted a second",
            format!("{:.1}", load.accepted_rate),
        );
    }
    if let Some(audit) = &known.audit {
        for class in Class::ALL {
            if let Some(count) = audit.classes.get(&class) {
                add("classes", &story::word(class), grouped(count.messages));
            }
        }
    }
    for (name, times) in html::latencies(known) {
        for (part, us) in [("p50", times.p50), ("p99", times.p99), ("max", times.max)] {
            add("figures", &format!("{name}, {part}"), time(us));
        }
    }
    if let Some(audit) = &known.audit {
        // what single nodes did cannot be set against the nodes of another stack
        let figures = Figures {
            nodes: BTreeMap::new(),
            ..audit.figures.clone()
        };
        for (name, value) in html::figures(&figures) {
            add("figures", &name, value);
        }
    }
    facts
}

impl Comparison {
    fn text(&self) -> String {
        let wide = |text: &str| text.chars().count();
        let names = self.rows.iter().map(|row| wide(&cut(&row.what, 2 * CELL)));
        let names = names.max().unwrap_or(0);
        let column = |of: usize| {
            let cells = self.rows.iter().map(|row| wide(&cut(row.shown(of), CELL)));
            cells
                .chain([wide(self.runs[of].as_str())])
                .max()
                .unwrap_or(0)
        };
        let (one, other) = (column(0), column(1));
        let mut lines = vec![format!(
            "{:names$}    {:one$}  {}",
            "", self.runs[0], self.runs[1]
        )];
        let mut part = "";
        for row in &self.rows {
            if row.part != part {
                part = row.part;
                lines.push(format!("\n{part}"));
            }
            let mark = if row.differs { "≠" } else { " " };
            let (a, b) = (cut(row.shown(0), CELL), cut(row.shown(1), CELL));
            let line = format!(
                "{:names$}  {mark} {a:one$}  {b:other$}",
                cut(&row.what, 2 * CELL)
            );
            lines.push(line.trim_end().to_owned());
        }
        lines.push(format!("\nBoth courses: {}", self.page.display()));
        lines.join("\n")
    }
}

fn cut(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        None => text.to_owned(),
        Some(_) => text.chars().take(most - 2).chain("..".chars()).collect(),
    }
}

/// The page with both.
pub fn page(runs: [&Known; 2], rows: &[Row]) -> Result<String> {
    let mut parts: Vec<(&str, Vec<&Row>)> = Vec::new();
    for row in rows {
        match parts.last_mut() {
            Some((part, those)) if *part == row.part => those.push(row),
            _ => parts.push((row.part, vec![row])),
        }
    }
    let courses = runs.map(|known| &known.course);
    let page = Page {
        runs,
        titles: runs.map(story::title),
        verdicts: runs.map(|known| {
            let verdict = known.verdict();
            let word =
                verdict.map_or_else(|| "NOT JUDGED".to_owned(), |verdict| verdict.to_string());
            (word, html::colour_of(verdict))
        }),
        headlines: runs.map(story::headline),
        parts,
        charts: [drawn(courses[0], courses)?, drawn(courses[1], courses)?],
    };
    Ok(page.render()?)
}

/// The lines of a chart.
type Lines = fn(&Course) -> &[Series];

/// The charts of one, with the axes of both.
fn drawn(course: &Course, both: [&Course; 2]) -> Result<Vec<Chart>> {
    let end = both[0].end.max(both[1].end);
    if course.end <= 0.0 {
        return Ok(Vec::new());
    }
    let mut drawn = Vec::new();
    let lines: [(_, Lines); 2] = [
        (("Flow", "messages a second"), |course| &course.rates),
        (
            ("Waiting", "messages in the queue and in the outbox"),
            |course| &course.depth,
        ),
    ];
    for (name, series) in lines {
        let top = both.map(|course| charts::top(series(course)));
        if !series(course).is_empty() {
            let ends = (end, top[0].max(top[1]));
            drawn.push(charts::lines(
                name,
                series(course),
                Scale::Count,
                &course.faults,
                ends,
            )?);
        }
    }
    Ok(drawn)
}

#[cfg(test)]
#[path = "compare_tests.rs"]
mod tests;
