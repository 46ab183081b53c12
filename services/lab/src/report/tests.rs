//! Journals made by hand, and what is written of them.

use std::collections::BTreeMap;
use std::fs;

use chrono::{DateTime, Utc};

use super::*;
use crate::audit::class::Class;
use crate::audit::culprits::{Culprit, Step};
use crate::audit::facts::Requests;
use crate::audit::figures::Figures;
use crate::audit::verdict::{Circumstances, Count, Counts, verdict};
use crate::experiment::journal::{Expectation, FaultRecord, Outcome, Sample};
use crate::load::{Counts as Told, Latency, Plan};
use crate::run::Facts;
use crate::run::tests::Root;

fn at(ms: i64) -> DateTime<Utc> {
    let start: DateTime<Utc> = "2026-11-21T09:15:00Z".parse().unwrap();
    start + chrono::Duration::milliseconds(ms)
}

fn report(classes: &[(Class, u64)], doubts: &[&str]) -> audit::Report {
    let counts = classes.iter().map(|(class, n)| {
        (
            *class,
            Count {
                messages: *n,
                requests: *n,
            },
        )
    });
    let classes: Counts = counts.collect();
    let circumstances = Circumstances {
        drained: true,
        doubts: doubts.iter().map(|&doubt| doubt.to_owned()).collect(),
        ..Circumstances::default()
    };
    let messages = classes.values().map(|count| count.messages).sum();
    let (verdict, reasons) = verdict(&classes, &circumstances);
    audit::Report {
        run: "r1".parse().unwrap(),
        verdict,
        reasons,
        circumstances,
        kind: "receiver-dies".to_owned(),
        without: Vec::new(),
        requests: Requests {
            offered: messages,
            messages,
            accepted: messages,
            ..Requests::default()
        },
        classes,
        figures: Figures {
            processed_us: Some(latency(90_000)),
            longest_silence_ms: 2_300,
            ..Figures::default()
        },
        culprits: Vec::new(),
        audited_at: at(20_000),
        took_ms: 12,
    }
}

fn latency(p50: u64) -> Latency {
    Latency {
        p50,
        p90: p50 * 2,
        p99: p50 * 9,
        p99_9: p50 * 30,
        max: p50 * 40,
    }
}

fn fault() -> FaultRecord {
    FaultRecord {
        fault: "receiver-kill".to_owned(),
        struck: vec!["receiver-51d2".to_owned()],
        planned_ms: 4_000,
        injected_ms: Some(4_010),
        evidence: Some("process 4711 is gone".to_owned()),
        healed_ms: Some(9_000),
        heal_evidence: Some("it is ready again".to_owned()),
        recovered_ms: Some(9_400),
        doubt: None,
    }
}

fn journal(audit: audit::Report, outcome: Outcome) -> Journal {
    let sample = |second: u64| Sample {
        at_ms: second * 1_000,
        offered: second * 100,
        accepted: second * 100,
        processed: second.saturating_sub(1) * 100,
        failed: 0,
        redelivered: 0,
        ready: (second != 5).then_some(second),
        unacked: Some(8),
        outbox: Some(0),
    };
    Journal {
        run: "r1".parse().unwrap(),
        title: "A receiver dies".to_owned(),
        learn: "What is not acked comes back.".to_owned(),
        file: "title: A receiver dies\n".to_owned(),
        seed: 42,
        twin: false,
        started_at: at(0),
        ended_at: at(21_500),
        stack: Facts {
            counts: [("sender", 2), ("receiver", 3)]
                .map(|(name, n)| (name.to_owned(), n))
                .into(),
            queue_type: Some("quorum".to_owned()),
            broker_version: Some("3.10.8".to_owned()),
            ..Facts::default()
        },
        load: Summary {
            run: "r1".parse().unwrap(),
            load: Plan::default(),
            stopped: false,
            counts: Told {
                offered: 1_500,
                accepted: 1_498,
                unknown: 2,
                ..Told::default()
            },
            offering_secs: 15.0,
            answering_secs: 15.2,
            offered_rate: 100.0,
            accepted_rate: 99.0,
            accepted_us: Some(latency(1_500)),
        },
        faults: vec![fault()],
        samples: (0..20).map(sample).collect(),
        audit,
        expectations: vec![Expectation {
            what: "the verdict".to_owned(),
            wanted: "PASS".to_owned(),
            found: "PASS".to_owned(),
            met: outcome == Outcome::AsExpected,
            beyond: false,
        }],
        outcome,
    }
}

fn passed() -> Journal {
    journal(
        report(&[(Class::Ok, 1_498), (Class::Recovered, 2)], &[]),
        Outcome::AsExpected,
    )
}

fn failed(text: &str) -> Journal {
    let mut audit = report(&[(Class::Lost, 3), (Class::Ok, 1_497)], &[]);
    audit.culprits = vec![Culprit {
        class: Class::Lost,
        why: "stored but nothing came of it".to_owned(),
        key: Some("r1-0000000007".to_owned()),
        position: Some(0),
        message_ids: vec![uuid::Uuid::from_u128(7)],
        history: vec![Step {
            at: Some(at(4_200)),
            what: text.to_owned(),
        }],
    }];
    journal(audit, Outcome::NotAsExpected)
}

fn inconclusive() -> Journal {
    let mut journal = journal(
        report(&[(Class::Ok, 1_500)], &["receiver-kill was never seen"]),
        Outcome::Inconclusive,
    );
    journal.faults = vec![FaultRecord {
        evidence: None,
        doubt: Some("its process still answers".to_owned()),
        ..fault()
    }];
    journal
}

/// The page and what a CI reads.
fn written(journal: &Journal) -> (String, String) {
    let root = Root::new();
    let run = root.run("r1");
    let mut meta = run.meta().unwrap();
    meta.kind = ["receiver-dies", "receiver-dies (twin)"][usize::from(journal.twin)].to_owned();
    meta.started_at = Some(journal.started_at);
    run.write_meta(&meta).unwrap();
    let page = write(journal, &run).unwrap();
    assert_eq!(page, run.path(PAGE));
    (
        fs::read_to_string(page).unwrap(),
        fs::read_to_string(run.path(JUNIT)).unwrap(),
    )
}

/// Name, and what came of it: nothing, `failure`, `error` or `skipped` with all of its text.
fn cases(junit: &str) -> BTreeMap<String, Option<(String, String)>> {
    let document = roxmltree::Document::parse(junit).unwrap();
    let cases = document
        .descendants()
        .filter(|node| node.has_tag_name("testcase"));
    let cases = cases.map(|case| {
        let came = case.first_element_child().map(|came| {
            let message = came.attribute("message").unwrap_or_default();
            let text = format!("{message}\n{}", came.text().unwrap_or_default());
            (came.tag_name().name().to_owned(), text)
        });
        (case.attribute("name").unwrap().to_owned(), came)
    });
    cases.collect()
}

/// A page that could load or run nothing, whatever is in it.
#[track_caller]
fn stands_alone(page: &str) {
    for wrong in [
        "http://", "https://", "<script", "src=", "href=", "url(", "@import", "<link", "<iframe",
    ] {
        assert!(!page.contains(wrong), "{wrong} in {page}");
    }
}

#[test]
fn a_pass_is_told_as_one() {
    let (page, junit) = written(&passed());
    for part in [
        "<p class=\"verdict good\">PASS</p>",
        "Each of 1,500 accepted messages was processed exactly once.",
        "As expected.",
        "What is not acked comes back.",
        "receiver-kill struck receiver-51d2; seen: process 4711 is gone. Healed at 9.0 s; seen: it is ready again. \
         All was ready again 400 ms later.",
        "were offered to 2 senders and 3 receivers: 1,500 in all.",
        "experiment run receiver-dies --seed 42</pre>",
        "and none was processed was 2.30 s",
    ] {
        assert!(page.contains(part), "{part} in {page}");
    }
    assert!(!page.contains("The messages that decided it"));
    stands_alone(&page);
    let cases = cases(&junit);
    assert_eq!(cases.len(), 2);
    assert!(cases.values().all(Option::is_none), "{cases:?}");
    let document = roxmltree::Document::parse(&junit).unwrap();
    let suite = document
        .descendants()
        .find(|node| node.has_tag_name("testsuite"))
        .unwrap();
    let of = |name| suite.attribute(name).unwrap();
    assert_eq!(
        [of("tests"), of("failures"), of("errors"), of("time")],
        ["2", "0", "0", "21.500"]
    );
}

#[test]
fn a_figure_beyond_its_limit_is_a_fail_in_both() {
    let mut journal = passed();
    journal.twin = true;
    let expected = |what: &str, wanted: &str, found: &str, beyond| Expectation {
        what: what.to_owned(),
        wanted: wanted.to_owned(),
        found: found.to_owned(),
        met: true,
        beyond,
    };
    journal.expectations = vec![
        expected("verdict", "FAIL", "FAIL", false),
        expected("smallest share of a receiver", "not >= 20 %", "3.0 %", true),
    ];
    let (page, junit) = written(&journal);
    for part in [
        "<p class=\"verdict bad\">FAIL</p>",
        "Each message is where it belongs, but not within the limits: smallest share of a receiver is 3.0 %.",
        "As expected",
    ] {
        assert!(page.contains(part), "{part} in {page}");
    }
    assert!(!page.contains("PASS</p>") && !page.contains("processed exactly once"));
    // the twin ended as it must
    assert!(cases(&junit)["verdict"].is_none());
    journal.outcome = Outcome::NotAsExpected;
    let (_, junit) = written(&journal);
    let (kind, text) = cases(&junit)["verdict"].clone().unwrap();
    assert!(
        kind == "failure" && text.contains("not within the limits"),
        "{kind} {text}"
    );
}

#[test]
fn a_fail_names_its_culprits_in_both() {
    let (page, junit) = written(&failed("accepted by sender-1"));
    for part in [
        "<p class=\"verdict bad\">FAIL</p>",
        "Of 1,500 offered messages: 3 lost.",
        "Not as expected: the verdict was to be PASS",
        "r1-0000000007",
        "<time>4.200 s</time><span>accepted by sender-1</span>",
        "The first 1 of 3.",
    ] {
        assert!(page.contains(part), "{part} in {page}");
    }
    stands_alone(&page);
    let cases = cases(&junit);
    for name in ["verdict", "expected the verdict"] {
        let (kind, text) = cases[name].as_ref().unwrap();
        assert_eq!(kind, "failure");
        for part in [
            "r1-0000000007",
            "accepted by sender-1",
            "3 messages are lost",
        ] {
            assert!(text.contains(part), "{part} in {text}");
        }
    }
}

#[test]
fn what_could_not_be_seen_is_an_error_and_no_failure() {
    let (page, junit) = written(&inconclusive());
    for part in [
        "<p class=\"verdict wait\">INCONCLUSIVE</p>",
        "it cannot be said for sure",
        "<li>receiver-kill was never seen</li>",
        "nobody saw that it did",
        "In doubt: its process still answers.",
    ] {
        assert!(page.contains(part), "{part} in {page}");
    }
    let cases = cases(&junit);
    let (kind, text) = cases["verdict"].as_ref().unwrap();
    assert_eq!(kind, "error");
    assert!(text.contains("receiver-kill was never seen"), "{text}");
}

#[test]
fn the_fail_of_an_unsafe_twin_is_good() {
    let mut twin = failed("x");
    twin.twin = true;
    twin.outcome = Outcome::AsExpected;
    twin.expectations.clear();
    twin.stack.without = vec!["inbox".to_owned()];
    let (page, junit) = written(&twin);
    for part in [
        "FAIL</p>",
        "As expected: this is the unsafe twin",
        "inbox is off",
        "experiment run receiver-dies --seed 42 --twin</pre>",
    ] {
        assert!(page.contains(part), "{part} in {page}");
    }
    assert!(cases(&junit)["verdict"].is_none());
    assert!(junit.contains("name=\"receiver-dies (twin)\""), "{junit}");
}

#[test]
fn text_is_shown_as_text() {
    let text = "<script>alert(1)</script> \"&' ]]> \u{1b}[31m";
    let mut journal = failed(text);
    journal.title = text.to_owned();
    journal.learn = text.to_owned();
    journal.file = text.to_owned();
    journal.audit.reasons = vec![text.to_owned()];
    journal.faults[0].struck = vec![text.to_owned()];
    journal.faults[0].fault = text.to_owned();
    journal.expectations[0].found = text.to_owned();
    let key = (text.to_owned(), text.to_owned());
    journal.stack.settings = BTreeMap::from([key]);
    let (page, junit) = written(&journal);
    assert!(!page.contains("<script") && !junit.contains("<script"));
    assert!(page.matches("alert(1)").count() >= 8, "{page}");
    let cases = cases(&junit);
    let (_, shown) = cases["verdict"].as_ref().unwrap();
    let legible = text.replace('\u{1b}', "\u{fffd}");
    assert!(shown.contains(&legible), "{shown}");
}

#[test]
fn a_fault_that_never_happened_or_never_ended_is_told_so() {
    let never = FaultRecord {
        injected_ms: None,
        evidence: None,
        healed_ms: None,
        heal_evidence: None,
        recovered_ms: None,
        ..fault()
    };
    assert_eq!(
        story::fault(&never),
        "receiver-kill was to strike and did not."
    );
    let open = FaultRecord {
        healed_ms: None,
        heal_evidence: None,
        recovered_ms: None,
        ..fault()
    };
    assert!(
        story::fault(&open).ends_with("is gone. It was not healed."),
        "{}",
        story::fault(&open)
    );
    let mut journal = passed();
    journal.faults = vec![never, open];
    let (page, _) = written(&journal);
    assert!(
        page.contains("class=\"missed\"") && page.contains("class=\"harm open\""),
        "{page}"
    );
}

#[test]
fn a_storm_is_folded_and_has_a_row_per_kind() {
    let mut journal = passed();
    let strike = |nth: u64| FaultRecord {
        fault: ["receiver-kill", "rabbitmq-restart"][usize::from(nth.is_multiple_of(2))].to_owned(),
        injected_ms: Some(nth * 500),
        healed_ms: Some(nth * 500 + 300),
        ..fault()
    };
    journal.faults = (0..30).map(strike).collect();
    let (page, _) = written(&journal);
    assert!(
        page.contains("30 times something was broken on purpose")
            && page.contains("All 30 of them")
    );
    // in the timeline, once for wide and once for narrow screens
    assert_eq!(page.matches(">rabbitmq-restart</text>").count(), 2);
}

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
