//! Runs of experiments that this process does not know from its own doing, read from their folders.

use std::path::Path;

use super::shown::{Shown, State};
use crate::audit::Verdict;
use crate::experiment::journal::{self, Expectation, Journal, Outcome};
use crate::report;
use crate::run::{RunDir, RunId};

/// How a run of a load alone is called: it is no experiment.
const LOAD: &str = "load";

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
    match journal::read(run) {
        Ok(None) => shown.state = State::Unfinished,
        Err(error) => return Some(damaged(shown, &error)),
        Ok(Some(journal)) => {
            shown.state = State::Done;
            shown.title.clone_from(&journal.title);
            shown.ended_at = Some(journal.ended_at);
            shown.counts = journal.samples.last().copied();
            judge(&mut shown, journal);
        }
    }
    Some(shown)
}

/// What it came to, as the report of the run has it.
fn judge(shown: &mut Shown, journal: Journal) {
    shown.verdict = Some(journal.verdict());
    shown.outcome = Some(journal.outcome);
    shown.reasons = reasons(journal.audit.reasons, &journal.expectations);
}

/// One that this process played to its end, with what a later audit found.
pub fn renewed(root: &Path, mut shown: Shown) -> Shown {
    if shown.state == State::Done
        && let Ok(run) = RunDir::open(root, &shown.run)
        && let Ok(Some(journal)) = journal::read(&run)
    {
        judge(&mut shown, journal);
    }
    shown
}

/// One whose files cannot be read: nobody can say what it came to.
fn damaged(mut shown: Shown, why: &anyhow::Error) -> Shown {
    shown.state = State::Damaged;
    shown.verdict = Some(Verdict::Inconclusive);
    shown.outcome = Some(Outcome::Inconclusive);
    shown.reasons = vec![format!("{why:#}")];
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
    use std::fs;

    use super::*;
    use crate::report::made::passed;
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
        let expectation = |what: &str, found: &str, met| Expectation {
            what: what.to_owned(),
            wanted: "w".to_owned(),
            found: found.to_owned(),
            met,
            beyond: false,
        };
        let mut journal = passed();
        journal.outcome = Outcome::NotAsExpected;
        journal.audit.reasons = vec!["because".to_owned()];
        journal.expectations = vec![
            expectation("verdict", "FAIL", true),
            expectation("figure", "12 s", false),
        ];
        journal.write(&done).unwrap();
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
        assert_eq!(done.counts.map(|counts| counts.accepted), Some(1_900));
        assert_eq!(all[1].state, State::Unfinished);
        assert_eq!(newest(&root.0, 1).unwrap().len(), 1);
        let torn = run(&root, "torn", "x");
        fs::write(torn.path(journal::FILE), "{\"title\": \"X").unwrap();
        let shown = read(&root.0, torn.id()).unwrap();
        assert_eq!(shown.state, State::Damaged);
        assert_eq!(shown.verdict, Some(Verdict::Inconclusive));
        assert!(
            shown.reasons[0].contains("journal.json is damaged"),
            "{shown:?}"
        );
        assert_eq!(read(&root.0, &"a-load".parse().unwrap()), None);
        assert_eq!(read(&root.0, &"nobody".parse().unwrap()), None);
    }

    #[test]
    fn a_later_audit_counts_here_as_in_the_report() {
        let root = Root::new();
        let one = run(&root, "one", "x");
        let mut journal = passed();
        journal.expectations[0].what = journal::VERDICT.to_owned();
        journal.write(&one).unwrap();
        // as this process keeps it that played it
        let kept = read(&root.0, one.id()).unwrap();
        assert_eq!(kept.verdict, Some(Verdict::Pass));
        let mut later = journal.audit.clone();
        later.audited_at += chrono::Duration::seconds(10);
        later.verdict = Verdict::Fail;
        later.reasons = vec!["3 messages are lost".to_owned()];
        later.write(&one).unwrap();
        let wanted = report::Known::read(&one).unwrap();
        assert_eq!(wanted.verdict(), Some(Verdict::Fail));
        for shown in [
            read(&root.0, one.id()).unwrap(),
            newest(&root.0, 1).unwrap().remove(0),
            renewed(&root.0, kept),
        ] {
            assert_eq!(shown.verdict, wanted.verdict());
            assert_eq!(shown.outcome, Some(Outcome::NotAsExpected));
            assert_eq!(
                shown.reasons,
                ["3 messages are lost", "verdict: wanted PASS, found FAIL"]
            );
        }
        // nobody can say which of two counts if one cannot be read: here as there
        fs::write(one.path(crate::audit::report::FILE), "{").unwrap();
        assert!(report::Known::read(&one).is_err());
        assert_eq!(read(&root.0, one.id()).unwrap().state, State::Damaged);
    }
}
