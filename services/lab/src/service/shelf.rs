//! Runs of experiments that this process does not know from its own doing, read from their folders.

use std::fmt;
use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use chrono::{DateTime, Utc};
use serde::Deserialize;

use super::shown::{Shown, State};
use crate::audit::Verdict;
use crate::experiment::journal::{self, Expectation, Outcome, Sample};
use crate::report;
use crate::run::{RunDir, RunId};

/// How a run of a load alone is called: it is no experiment.
const LOAD: &str = "load";

/// Of a journal what is shown.
#[derive(Debug, Deserialize)]
struct Journal {
    title: String,
    ended_at: DateTime<Utc>,
    #[serde(default)]
    samples: Vec<Sample>,
    audit: Audit,
    expectations: Vec<Expectation>,
    outcome: Outcome,
}

#[derive(Debug, Deserialize)]
struct Audit {
    reasons: Vec<String>,
}

/// The run of this name; none: there is no such run of an experiment.
pub fn read(root: &Path, id: &RunId) -> Option<Shown> {
    shown(&RunDir::open(root, id).ok()?)
}

/// The newest ones, newest first.
pub fn newest(root: &Path, limit: usize) -> anyhow::Result<Vec<Shown>> {
    let all = RunDir::all(root)?;
    Ok(all.iter().rev().filter_map(shown).take(limit).collect())
}

fn shown(run: &RunDir) -> Option<Shown> {
    let meta = run.meta().ok().filter(|meta| meta.kind != LOAD)?;
    let (name, twin) = match meta.kind.strip_suffix(" (twin)") {
        Some(name) => (name, true),
        None => (&*meta.kind, false),
    };
    let mut shown = Shown::new(meta.run.clone(), name, "", twin, meta.seed);
    shown.created_at = meta.created_at;
    shown.report = page(run);
    let text = match fs::read(run.path(journal::FILE)) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => {
            shown.state = State::Unfinished;
            return Some(shown);
        }
        Err(error) => return Some(damaged(shown, &error)),
    };
    let journal: Journal = match serde_json::from_slice(&text) {
        Ok(journal) => journal,
        Err(error) => return Some(damaged(shown, &error)),
    };
    shown.state = State::Done;
    shown.verdict = journal::verdict(&journal.expectations);
    shown.title = journal.title;
    shown.ended_at = Some(journal.ended_at);
    shown.counts = journal.samples.last().copied();
    shown.outcome = Some(journal.outcome);
    shown.reasons = reasons(journal.audit.reasons, &journal.expectations);
    Some(shown)
}

/// One whose journal cannot be read: nobody can say what it came to.
fn damaged(mut shown: Shown, why: &dyn fmt::Display) -> Shown {
    shown.state = State::Damaged;
    shown.verdict = Some(Verdict::Inconclusive);
    shown.outcome = Some(Outcome::Inconclusive);
    shown.reasons = vec![format!("{} is damaged: {why}", journal::FILE)];
    shown
}

/// What the audit says, and what was not as it was expected.
pub fn reasons(mut reasons: Vec<String>, expectations: &[Expectation]) -> Vec<String> {
    let missed = expectations.iter().filter(|one| !one.met);
    reasons.extend(
        missed.map(|one| format!("{}: wanted {}, found {}", one.what, one.wanted, one.found)),
    );
    reasons
}

/// Where the page of a run is, if there is one.
pub fn page(run: &RunDir) -> Option<String> {
    let there = run.path(report::PAGE).is_file();
    there.then(|| format!("/lab/runs/{}/{}", run.id(), report::PAGE))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::run::Meta;
    use crate::run::tests::Root;

    fn run(root: &Root, id: &str, kind: &str) -> RunDir {
        let id: RunId = id.parse().unwrap();
        let meta = Meta::new(id.clone(), kind, 7, "");
        RunDir::create(&root.0, id, &meta).unwrap()
    }

    #[test]
    fn an_experiment_of_another_command_is_shown_and_a_load_is_not() {
        let root = Root::new();
        root.run("a-load");
        run(&root, "unfinished", "x");
        let done = run(&root, "done", "x (twin)");
        let expectation = |what: &str, found: &str, met| json!({"what": what, "wanted": "w", "found": found, "met": met});
        let journal = json!({
            "title": "X", "ended_at": "2026-11-21T09:15:59Z", "outcome": "NotAsExpected",
            "samples": [{"at_ms": 1, "offered": 9, "accepted": 8, "processed": 7, "failed": 0, "redelivered": 0,
                "ready": 1, "unacked": 0, "outbox": null}],
            "audit": {"verdict": "PASS", "reasons": ["because"], "more": 1},
            "expectations": [expectation("verdict", "FAIL", true), expectation("figure", "12 s", false)],
        });
        fs::write(done.path(journal::FILE), journal.to_string()).unwrap();
        fs::write(done.path(report::PAGE), "page").unwrap();

        let all = newest(&root.0, 10).unwrap();
        let names: Vec<&str> = all.iter().map(|run| run.run.as_str()).collect();
        assert_eq!(names, ["done", "unfinished"]);
        let done = &all[0];
        assert_eq!(
            (&*done.experiment, done.twin, done.state),
            ("x", true, State::Done)
        );
        assert_eq!(done.verdict, Some(Verdict::Fail));
        assert_eq!(done.reasons, ["because", "figure: wanted w, found 12 s"]);
        assert_eq!(done.report.as_deref(), Some("/lab/runs/done/report.html"));
        assert_eq!(done.counts.map(|counts| counts.accepted), Some(8));
        assert_eq!(all[1].state, State::Unfinished);
        assert_eq!(newest(&root.0, 1).unwrap().len(), 1);
        let torn = run(&root, "torn", "x");
        fs::write(torn.path(journal::FILE), "{\"title\": \"X").unwrap();
        let shown = read(&root.0, torn.id()).unwrap();
        assert_eq!(shown.state, State::Damaged);
        assert_eq!(shown.verdict, Some(Verdict::Inconclusive));
        assert!(
            shown.reasons[0].starts_with("journal.json is damaged: "),
            "{shown:?}"
        );
        assert_eq!(read(&root.0, &"a-load".parse().unwrap()), None);
        assert_eq!(read(&root.0, &"nobody".parse().unwrap()), None);
    }
}
