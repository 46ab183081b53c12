//! `report.html`: one file that needs nothing else, for people.

use anyhow::Result;
use askama::Template;
use chrono::{DateTime, Utc};

use super::charts::{self, Chart, Scale};
use super::{Known, again, percentiles, story, timeline};
use crate::audit::class::Class;
use crate::audit::culprits::Culprit;
use crate::audit::figures::Figures;
use crate::audit::{self, Verdict};
use crate::experiment::journal::Outcome;
use crate::load::Latency;
use crate::say::{grouped, time};

/// More faults than this are folded away.
const FAULTS: usize = 12;
/// What is told of deliveries by what became of them.
pub const WITHOUT_AN_EFFECT: &str = "Deliveries without an effect";
/// So many culprits are unfolded.
const UNFOLDED: usize = 3;

#[derive(Template)]
#[template(path = "report.html")]
struct Page<'a> {
    known: &'a Known,
    title: String,
    when: String,
    /// Its word and the class of its colour.
    verdict: (String, &'static str),
    headline: String,
    /// Whether it is as expected, with the class of its colour.
    outcome: Option<(String, &'static str)>,
    reasons: &'a [String],
    /// Parts of the bar: class of the style sheet, per mille, what it is.
    balance: Vec<(&'static str, f64, String)>,
    paragraphs: Vec<String>,
    faults: Vec<Fault>,
    fold_faults: bool,
    ending: Vec<String>,
    charts: Vec<Chart>,
    percentiles: Option<Chart>,
    /// From what to what.
    latency: Vec<&'static str>,
    /// A percentile of each of them.
    latency_rows: Vec<(&'static str, Vec<String>)>,
    batches: bool,
    classes: Vec<Row>,
    culprits: Vec<Named<'a>>,
    culprits_of: Option<String>,
    figures: Vec<(String, String)>,
    setup: Vec<(String, String)>,
    again: Vec<String>,
}

struct Fault {
    at: String,
    sentence: String,
    doubt: bool,
}

struct Row {
    class: String,
    colour: &'static str,
    messages: String,
    requests: String,
    sentence: &'static str,
}

struct Named<'a> {
    culprit: &'a Culprit,
    colour: &'static str,
    word: String,
    name: String,
    open: bool,
    /// When, and what.
    steps: Vec<(String, &'a str)>,
}

/// The page of a run.
pub fn page(known: &Known) -> Result<String> {
    let audit = known.audit.as_ref();
    let verdict = known.verdict();
    let journal = known.journal.as_ref();
    let faults = journal.map_or(&[][..], |journal| &journal.faults);
    let page = Page {
        known,
        title: story::title(known),
        when: day(known.meta.started_at.unwrap_or(known.meta.created_at)),
        verdict: (
            verdict.map_or_else(|| "NOT JUDGED".to_owned(), |verdict| verdict.to_string()),
            colour_of(verdict),
        ),
        headline: story::headline(known),
        outcome: journal.map(|journal| {
            let colour = match journal.outcome {
                Outcome::AsExpected => "good",
                Outcome::NotAsExpected => "bad",
                Outcome::Inconclusive => "wait",
            };
            (story::outcome(journal), colour)
        }),
        reasons: audit.map_or(&[], |audit| &audit.reasons),
        balance: audit.map_or_else(Vec::new, balance),
        paragraphs: story::paragraphs(known),
        faults: faults
            .iter()
            .map(|record| Fault {
                at: story::since(record.injected_ms.unwrap_or(record.planned_ms)),
                sentence: story::fault(record),
                doubt: record.doubt.is_some() || record.evidence.is_none(),
            })
            .collect(),
        fold_faults: faults.len() > FAULTS,
        ending: story::ending(known),
        charts: course(known)?,
        percentiles: distribution(known)?,
        latency: latencies(known).iter().map(|(name, _)| *name).collect(),
        latency_rows: latency_rows(&latencies(known)),
        batches: audit.is_some_and(|audit| audit.requests.messages != audit.requests.offered),
        classes: audit.map_or_else(Vec::new, classes),
        culprits: audit.map_or_else(Vec::new, |audit| culprits(known, audit)),
        culprits_of: audit.and_then(culprits_of),
        figures: audit.map_or_else(Vec::new, |audit| figures(&audit.figures)),
        setup: setup(known),
        again: again::again(known),
    };
    Ok(page.render()?)
}

fn day(at: DateTime<Utc>) -> String {
    at.format("%-d %B %Y, %H:%M:%S UTC").to_string()
}

/// The colour of a verdict.
pub fn colour_of(verdict: Option<Verdict>) -> &'static str {
    match verdict {
        Some(Verdict::Pass) => "good",
        Some(Verdict::Fail) => "bad",
        Some(Verdict::Inconclusive) => "wait",
        None => "mute",
    }
}

/// The colour of a class.
pub fn colour(class: Class) -> &'static str {
    match class {
        Class::Ok | Class::Recovered => "good",
        Class::Pending | Class::Parked => "wait",
        Class::Refused => "mute",
        _ => "bad",
    }
}

fn balance(audit: &audit::Report) -> Vec<(&'static str, f64, String)> {
    // good things first, as one reads
    let classes = audit.classes.iter().rev();
    let all: u64 = audit.classes.values().map(|count| count.messages).sum();
    let parts = classes
        .filter(|(_, count)| count.messages > 0)
        .map(|(class, count)| {
            #[expect(clippy::cast_precision_loss, reason = "for a picture")]
            let share = count.messages as f64 / all as f64 * 100.0;
            (
                colour(*class),
                share,
                format!("{} {}", grouped(count.messages), story::word(*class)),
            )
        });
    parts.collect()
}

fn course(known: &Known) -> Result<Vec<Chart>> {
    let course = &known.course;
    if course.end <= 0.0 {
        return Ok(Vec::new());
    }
    let mut drawn = vec![timeline::timeline(course)?];
    let counts = [
        (("Flow", "messages a second"), &course.rates, true),
        (
            ("Waiting", "messages in the queue and in the outbox"),
            &course.depth,
            true,
        ),
        // a run without trouble needs no picture of it
        (("Trouble", "a second"), &course.trouble, false),
    ];
    for (name, series, always) in counts {
        let top = charts::top(series);
        if !series.is_empty() && (always || top > 0.0) {
            let ends = (course.end, top);
            drawn.push(charts::lines(
                name,
                series,
                Scale::Count,
                &course.faults,
                ends,
            )?);
        }
    }
    if charts::top(&course.latency) > 0.0 {
        let name = ("Time to accept", "from due to accepted, by when it was due");
        drawn.push(charts::lines(
            name,
            &course.latency,
            Scale::Time,
            &course.faults,
            (course.end, 0.0),
        )?);
    }
    Ok(drawn)
}

/// The distributions that are known.
pub fn latencies(known: &Known) -> Vec<(&'static str, Latency)> {
    let accepted = known.load.as_ref().and_then(|load| load.accepted_us);
    let processed = known
        .audit
        .as_ref()
        .and_then(|audit| audit.figures.processed_us);
    let rows = [
        ("from due to accepted", accepted),
        ("from accepted to processed", processed),
    ];
    rows.into_iter()
        .filter_map(|(name, times)| Some((name, times?)))
        .collect()
}

fn distribution(known: &Known) -> Result<Option<Chart>> {
    let rows = latencies(known);
    (!rows.is_empty())
        .then(|| percentiles::percentiles(&rows))
        .transpose()
}

/// Takes one figure, in microseconds, from a distribution.
type Part = fn(&Latency) -> u64;

fn latency_rows(of: &[(&'static str, Latency)]) -> Vec<(&'static str, Vec<String>)> {
    if of.is_empty() {
        return Vec::new();
    }
    let rows: [(&'static str, Part); 5] = [
        ("p50", |times| times.p50),
        ("p90", |times| times.p90),
        ("p99", |times| times.p99),
        ("p99.9", |times| times.p99_9),
        ("max", |times| times.max),
    ];
    let row = |(name, part): (&'static str, Part)| {
        (
            name,
            of.iter().map(|(_, times)| time(part(times))).collect(),
        )
    };
    rows.into_iter().map(row).collect()
}

fn classes(audit: &audit::Report) -> Vec<Row> {
    let rows = audit.classes.iter().map(|(class, count)| Row {
        class: story::word(*class),
        colour: colour(*class),
        messages: grouped(count.messages),
        requests: grouped(count.requests),
        sentence: class.sentence(),
    });
    rows.collect()
}

fn culprits<'a>(known: &Known, audit: &'a audit::Report) -> Vec<Named<'a>> {
    let start = known.meta.started_at;
    let named = audit
        .culprits
        .iter()
        .enumerate()
        .map(|(nth, culprit)| Named {
            culprit,
            colour: colour(culprit.class),
            word: story::word(culprit.class),
            name: name(culprit),
            open: nth < UNFOLDED,
            steps: culprit
                .history
                .iter()
                .map(|step| (moment(step.at, start), &*step.what))
                .collect(),
        });
    named.collect()
}

/// A culprit's key, with its place where there are several; or its id.
pub fn name(culprit: &Culprit) -> String {
    match (&culprit.key, culprit.position) {
        (Some(key), Some(place)) if place > 0 => format!("{key}, message {place}"),
        (Some(key), _) => key.clone(),
        (None, _) => {
            let ids: Vec<String> = culprit
                .message_ids
                .iter()
                .map(ToString::to_string)
                .collect();
            ids.join(", ")
        }
    }
}

/// Since the run's start, as everything else on the page is.
fn moment(at: Option<DateTime<Utc>>, start: Option<DateTime<Utc>>) -> String {
    match (at, start) {
        (Some(at), Some(start)) => {
            let ms = (at - start).num_milliseconds();
            let sign = if ms < 0 { "-" } else { "" };
            format!("{sign}{}.{:03} s", ms.abs() / 1_000, ms.abs() % 1_000)
        }
        (Some(at), None) => at.format("%H:%M:%S%.3f").to_string(),
        (None, _) => String::new(),
    }
}

fn culprits_of(audit: &audit::Report) -> Option<String> {
    let those = audit.classes.iter();
    let those = those.filter(|(class, _)| class.fails() || **class == Class::Pending);
    let all: u64 = those.map(|(_, count)| count.messages).sum();
    let named = audit.culprits.len() as u64;
    (all > named).then(|| format!("The first {named} of {}.", grouped(all)))
}

/// Names and values.
pub fn figures(figures: &Figures) -> Vec<(String, String)> {
    let mut rows = Vec::new();
    let mut row = |name: &str, value: String| rows.push((name.to_owned(), value));
    let silence = u64::try_from(figures.longest_silence_ms).unwrap_or(0) * 1_000;
    row(
        "Longest time without an effect while messages waited",
        time(silence),
    );
    row(
        "Effects of redelivered messages",
        grouped(figures.redelivered),
    );
    row("Failures of the work", grouped(figures.failures));
    if figures.twice_redelivered + figures.twice_unmarked > 0 {
        let with = grouped(figures.twice_redelivered);
        let without = grouped(figures.twice_unmarked);
        row(
            "Messages with several effects",
            format!(
                "{with} with a delivery that the broker marked as redelivered, {without} without"
            ),
        );
    }
    let attempts = figures.attempts.iter();
    let attempts: Vec<String> = attempts
        .map(|(attempt, count)| format!("{attempt}:\u{a0}{}", grouped(*count)))
        .collect();
    if !attempts.is_empty() {
        row("Attempts until the effect", attempts.join(" · "));
    }
    for cause in &figures.redeliveries {
        let why = cause
            .cause
            .as_ref()
            .map_or_else(String::new, |why| format!(": {why}"));
        row(
            &format!("{WITHOUT_AN_EFFECT}, {}{why}", cause.outcome),
            grouped(cause.deliveries),
        );
    }
    for (node, counts) in &figures.nodes {
        row(node, counts.text());
    }
    rows
}

/// What the run was made with.
pub fn setup(known: &Known) -> Vec<(String, String)> {
    let facts = &known.meta.stack;
    let unknown = || "unknown".to_owned();
    let mut rows = vec![
        (
            "Stack".to_owned(),
            story::stack(&crate::run::Facts {
                without: Vec::new(),
                ..facts.clone()
            }),
        ),
        (
            "Guarantees off".to_owned(),
            match facts.without.as_slice() {
                [] => "none".to_owned(),
                off => off.join(", "),
            },
        ),
        (
            "Queue".to_owned(),
            facts.queue_type.clone().unwrap_or_else(unknown),
        ),
        (
            "RabbitMQ".to_owned(),
            facts.broker_version.clone().unwrap_or_else(unknown),
        ),
        ("Seed".to_owned(), known.meta.seed.to_string()),
    ];
    rows.extend(facts.settings.clone());
    rows
}
