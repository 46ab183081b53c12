//! What is known of a run by the files in its folder.

use std::fs;

use super::made::{at, failed, passed};
use super::tests::{cases, stands_alone};
use super::*;
use crate::audit::facts::Requests;
use crate::experiment::journal::Outcome;
use crate::load::Plan;
use crate::run::tests::Root;

#[test]
fn a_run_of_which_little_is_known_has_a_report_too() {
    let root = Root::new();
    let run = root.run("r1");
    let known = Known::read(&run).unwrap();
    write_known(&known, &run).unwrap();
    let page = fs::read_to_string(run.path(PAGE)).unwrap();
    assert!(
        page.contains("NOT JUDGED") && page.contains("audit --run r1"),
        "{page}"
    );
    let junit = fs::read_to_string(run.path(JUNIT)).unwrap();
    let (kind, _) = cases(&junit)["verdict"].clone().unwrap();
    assert_eq!(kind, "skipped");

    let journal = passed();
    let mut meta = run.meta().unwrap();
    (meta.started_at, meta.load) = (Some(at(0)), Some(Plan::default()));
    run.write_meta(&meta).unwrap();
    let json = serde_json::to_vec(&journal.load).unwrap();
    fs::write(run.path(load::SUMMARY), json).unwrap();
    let mut audit = journal.audit;
    audit.figures.rates = audit::timeline::Rates {
        from_ms: at(500).timestamp_millis(),
        slice_ms: 100,
        accepted: vec![1; 20],
        effects: vec![2; 20],
    };
    fs::write(
        run.path(audit::report::FILE),
        serde_json::to_vec(&audit).unwrap(),
    )
    .unwrap();
    fs::write(run.path(requests::FILE), "o 0 0 1 0\na 0 accepted 1 4000\n").unwrap();
    let known = Known::read(&run).unwrap();
    assert_eq!(known.course.rates[0].name, "processed");
    assert_eq!(
        known.course.rates[0].points,
        [(1.0, Some(20.0)), (2.0, Some(20.0))]
    );
    write_known(&known, &run).unwrap();
    let page = fs::read_to_string(run.path(PAGE)).unwrap();
    for part in [
        "PASS</p>",
        "load --rate 50 --seed 1</pre>",
        "from accepted to processed",
        "Time to accept",
    ] {
        assert!(page.contains(part), "{part} in {page}");
    }
    stands_alone(&page);
    let junit = fs::read_to_string(run.path(JUNIT)).unwrap();
    assert!(cases(&junit)["verdict"].is_none());
}

#[test]
fn a_journal_is_read_back_from_its_file() {
    let root = Root::new();
    let run = root.run("r1");
    let journal = failed("x");
    fs::write(
        run.path(journal::FILE),
        serde_json::to_vec(&journal).unwrap(),
    )
    .unwrap();
    let known = Known::read(&run).unwrap();
    let rates: Vec<_> = known
        .course
        .rates
        .iter()
        .map(|series| series.name)
        .collect();
    assert_eq!(rates, ["accepted", "processed", "offered"]);
    assert_eq!(known.course.rates[1].points[1], (2.0, Some(100.0)));
    let ready = &known.course.depth[0];
    assert_eq!(
        (ready.name, ready.points[5], ready.points[6].1),
        ("ready", (5.0, None), Some(6.0))
    );
    assert_eq!(known.journal.unwrap(), journal);
    fs::write(run.path(journal::FILE), "{}").unwrap();
    let error = Known::read(&run).unwrap_err().to_string();
    assert!(error.contains("journal.json is damaged"), "{error}");
}

#[test]
fn a_later_audit_of_an_experiment_counts() {
    let root = Root::new();
    let run = root.run("r1");
    let mut journal = passed();
    journal.expectations[0].what = "verdict".to_owned();
    let put = |name: &str, text: Vec<u8>| fs::write(run.path(name), text).unwrap();
    put(journal::FILE, serde_json::to_vec(&journal).unwrap());
    let mut later = failed("x").audit;
    for (at_ms, verdict) in [(19_000, Verdict::Pass), (30_000, Verdict::Fail)] {
        later.audited_at = at(at_ms);
        put(audit::report::FILE, serde_json::to_vec(&later).unwrap());
        let known = Known::read(&run).unwrap();
        assert_eq!(known.verdict(), Some(verdict), "{at_ms}");
    }
    // one that could not read the run says nothing of it
    let mut unseen = later.clone();
    (unseen.audited_at, unseen.requests) = (at(40_000), Requests::default());
    unseen.verdict = Verdict::Inconclusive;
    put(audit::report::FILE, serde_json::to_vec(&unseen).unwrap());
    let load = root.run("r2");
    unseen.write(&load).unwrap();
    let headline = story::headline(&Known::read(&load).unwrap());
    assert_eq!(headline, "What became of the messages could not be seen.");
    assert_eq!(Known::read(&run).unwrap().verdict(), Some(Verdict::Pass));
    put(audit::report::FILE, serde_json::to_vec(&later).unwrap());
    let known = Known::read(&run).unwrap();
    assert_eq!(
        known.journal.as_ref().unwrap().outcome,
        Outcome::NotAsExpected
    );
    write_known(&known, &run).unwrap();
    let page = fs::read_to_string(run.path(PAGE)).unwrap();
    for part in [
        "FAIL</p>",
        "Of 1,500 offered messages: 3 lost.",
        "verdict was to be PASS, and is FAIL",
        "audited again at 09:15:30 UTC on 21 November 2026",
    ] {
        assert!(page.contains(part), "{part} in {page}");
    }

    // the page is written anew where there is one, and only there
    fs::write(run.path(PAGE), "old").unwrap();
    renew(&run).unwrap();
    let page = fs::read_to_string(run.path(PAGE)).unwrap();
    assert!(page.contains("FAIL</p>"), "{page}");
    fs::remove_file(run.path(PAGE)).unwrap();
    renew(&run).unwrap();
    assert!(!run.path(PAGE).exists());

    // what was beyond its limit is so whatever a later audit finds
    journal.expectations[0].beyond = true;
    let mut passing = passed().audit;
    passing.audited_at = at(30_000);
    journal.judge_again(passing);
    assert_eq!(journal.expectations[0].found, "FAIL");
}
