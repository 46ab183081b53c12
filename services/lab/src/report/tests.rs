//! What is written of a journal.

use std::collections::BTreeMap;
use std::fs;

use super::made::{failed, fault, inconclusive, journal, passed, report};
use super::*;
use crate::audit::class::Class;
use crate::experiment::journal::{Expectation, FaultRecord, Outcome};
use crate::run::tests::Root;

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
pub(super) fn cases(junit: &str) -> BTreeMap<String, Option<(String, String)>> {
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
pub(super) fn stands_alone(page: &str) {
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
fn an_experiment_of_a_file_is_played_again_from_that_file() {
    let mut journal = passed();
    journal.path = Some("/home/a b/mine.yaml".into());
    let (page, _) = written(&journal);
    // as the page shows a quote
    let right = "experiment run &#39;/home/a b/mine.yaml&#39; --seed 42</pre>";
    assert!(page.contains(right), "{right} in {page}");
}

#[test]
fn what_is_played_again_is_played_on_the_same_stack() {
    let root = Root::new();
    let run = root.run("r1");
    let mut meta = run.meta().unwrap();
    let mut said = |kind: &str, elsewhere: &str, journal: Journal| {
        meta.kind = kind.to_owned();
        meta.elsewhere = elsewhere.to_owned();
        run.write_meta(&meta).unwrap();
        let known = Known::of(journal, &run).unwrap();
        again::again(&known).concat()
    };
    let end = |said: &str, right: &str| assert!(said.ends_with(right), "{right} in {said}");
    let own = said("receiver-dies", "", passed());
    end(&own, " experiment run receiver-dies --seed 42");
    let containers = said("receiver-dies", " --compose=mine", passed());
    end(
        &containers,
        " experiment run receiver-dies --seed 42 --compose=mine",
    );
    let cell = said("matrix: poison without inbox", "", passed());
    end(&cell, " matrix --only poison --without inbox --seed 42");
    let cell = said("matrix: poison", "", passed());
    end(&cell, " matrix --only poison --without none --seed 42");
    let mut crowd = passed();
    crowd.stack.counts.insert("receiver".to_owned(), 30);
    let crowd = said("receiver-dies", "", crowd);
    end(&crowd, " --seed 42 --max 32");
    // a load, and a load that is not judged yet
    meta.elsewhere = " --compose".to_owned();
    meta.load = Some(load::Plan::default());
    run.write_meta(&meta).unwrap();
    let known = Known::read(&run).unwrap();
    end(
        &again::again(&known).concat(),
        " load --rate 50 --seed 1 --compose",
    );
    let headline = story::headline(&known);
    assert!(
        headline.contains(" audit --run r1 --compose`"),
        "{headline}"
    );
}

#[test]
fn what_was_only_allowed_is_not_told_as_what_had_to_be() {
    let told = |poison: u64, dead_max: u64| {
        let mut journal = journal(
            report(&[(Class::Parked, 2), (Class::Ok, 8)], &[]),
            Outcome::AsExpected,
        );
        journal.load.load.poison = poison;
        journal.audit.circumstances.dead_max = dead_max;
        written(&journal).0
    };
    for (poison, dead_max, said) in [
        (2, 0, "2 were given up on, as it had to be."),
        (0, 5, "2 were given up on, as was allowed of 5 at most."),
        (
            1,
            5,
            "2 were given up on, poison as it had to be, others as was allowed of 5 at most.",
        ),
    ] {
        let page = told(poison, dead_max);
        assert!(page.contains(said), "{said} in {page}");
    }
}
