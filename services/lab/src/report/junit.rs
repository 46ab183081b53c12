//! `junit.xml`: a test for the verdict and one for each expectation, as continuous integration reads them.

use anyhow::Result;
use askama::Template;

use super::{Known, html, story};
use crate::audit::Verdict;
use crate::experiment::journal::Outcome;

#[derive(Template)]
#[template(path = "junit.xml", escape = "html")]
struct Suite {
    name: String,
    seconds: String,
    timestamp: String,
    failures: usize,
    errors: usize,
    skipped: usize,
    properties: Vec<(String, String)>,
    tests: Vec<Test>,
}

struct Test {
    name: String,
    result: Came,
}

/// What a test came to; with one line, and with all that is known.
enum Came {
    Good,
    Failure(String, String),
    /// It could not be found out.
    Error(String, String),
    Skipped(String),
}

/// The file.
pub(super) fn file(known: &Known) -> Result<String> {
    let mut tests = vec![Test {
        name: "verdict".to_owned(),
        result: verdict(known),
    }];
    let journal = known.journal.as_ref();
    for expectation in journal.iter().flat_map(|journal| &journal.expectations) {
        let said = format!(
            "{} was to be {}, and is {}",
            expectation.what, expectation.wanted, expectation.found
        );
        let result = if expectation.met {
            Came::Good
        } else {
            Came::Failure(plain(&said), plain(&details(known)))
        };
        tests.push(Test {
            name: plain(&format!("expected {}", expectation.what)),
            result,
        });
    }
    let count = |which: fn(&Came) -> bool| tests.iter().filter(|test| which(&test.result)).count();
    let meta = &known.meta;
    let ended = journal.map(|journal| journal.ended_at).or(meta.ended_at);
    let started = meta.started_at.unwrap_or(meta.created_at);
    let took = ended.map_or(0, |ended| (ended - started).num_milliseconds().max(0));
    let suite = Suite {
        name: plain(&meta.kind),
        seconds: format!("{}.{:03}", took / 1_000, took % 1_000),
        timestamp: started.format("%Y-%m-%dT%H:%M:%S").to_string(),
        failures: count(|result| matches!(result, Came::Failure(..))),
        errors: count(|result| matches!(result, Came::Error(..))),
        skipped: count(|result| matches!(result, Came::Skipped(_))),
        properties: html::setup(known)
            .into_iter()
            .chain([("run".to_owned(), meta.run.to_string())])
            .map(|(name, value)| (plain(&name), plain(&value)))
            .collect(),
        tests,
    };
    Ok(suite.render()?)
}

/// Of an experiment whether it ended as it should: the FAIL of an unsafe twin is good. Of a load the verdict itself.
fn verdict(known: &Known) -> Came {
    let Some(verdict) = known.verdict() else {
        return Came::Skipped(story::headline(known));
    };
    let said = || plain(&format!("{verdict}: {}", story::headline(known)));
    let outcome = known.journal.as_ref().map(|journal| journal.outcome);
    match (outcome, verdict) {
        (Some(Outcome::AsExpected), _) | (None, Verdict::Pass) => Came::Good,
        (Some(Outcome::NotAsExpected), _) | (None, Verdict::Fail) => {
            Came::Failure(said(), plain(&details(known)))
        }
        (Some(Outcome::Inconclusive), _) | (None, Verdict::Inconclusive) => {
            Came::Error(said(), plain(&details(known)))
        }
    }
}

/// The reasons, and the messages with their history.
fn details(known: &Known) -> String {
    let Some(audit) = &known.audit else {
        return String::new();
    };
    let mut lines: Vec<String> = audit.reasons.clone();
    for culprit in &audit.culprits {
        lines.push(String::new());
        lines.extend(culprit.lines());
    }
    lines.join("\n")
}

/// Without what XML cannot hold, not even escaped.
fn plain(text: &str) -> String {
    let fits = |c: &char| !matches!(c, '\u{0}'..='\u{8}' | '\u{b}' | '\u{c}' | '\u{e}'..='\u{1f}' | '\u{fffe}' | '\u{ffff}');
    text.chars()
        .map(|c| if fits(&c) { c } else { '\u{fffd}' })
        .collect()
}
