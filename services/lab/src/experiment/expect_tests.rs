//! What is judged, against what is found.

use std::collections::BTreeMap;

use super::*;
use crate::audit::facts::Requests;
use crate::audit::figures::{Figures, NodeCounts};
use crate::audit::verdict::{Circumstances, Count, Counts, verdict};
use crate::load::Plan;

fn report(classes: &[(Class, u64)], doubts: &[&str], figures: Figures) -> Report {
    let count = |messages: u64| Count {
        messages,
        requests: messages,
    };
    let classes: Counts = classes
        .iter()
        .map(|(class, n)| (*class, count(*n)))
        .collect();
    let circumstances = Circumstances {
        drained: true,
        doubts: doubts.iter().map(|&doubt| doubt.to_owned()).collect(),
        ..Circumstances::default()
    };
    let (verdict, reasons) = verdict(&classes, &circumstances);
    Report {
        run: "r1".parse().unwrap(),
        verdict,
        reasons,
        circumstances,
        kind: "x".to_owned(),
        without: Vec::new(),
        requests: Requests::default(),
        classes,
        figures,
        culprits: Vec::new(),
        audited_at: chrono::DateTime::UNIX_EPOCH,
        took_ms: 1,
    }
}

fn summary() -> Summary {
    Summary {
        run: "r1".parse().unwrap(),
        load: Plan::default(),
        stopped: false,
        counts: crate::load::Counts::default(),
        offering_secs: 1.0,
        answering_secs: 1.0,
        offered_rate: 1.0,
        accepted_rate: 1.0,
        accepted_us: None,
        reads: None,
        leases: None,
    }
}

fn expect(
    verdict: Verdict,
    class: Option<Class>,
    figure: Option<Figure>,
    limits: &[(Figure, &str)],
) -> Expect {
    let limits = limits
        .iter()
        .map(|(figure, text)| Limit::parse(*figure, text).unwrap());
    Expect {
        verdict,
        dead_max: 0,
        class,
        figure,
        limits: limits.collect(),
    }
}

fn judged(
    expect: &Expect,
    audit: &Report,
    faults: &[FaultRecord],
) -> (Verdict, Vec<bool>, Outcome) {
    let receivers = ["a".to_owned(), "b".to_owned()];
    let load = summary();
    let found = Found {
        audit,
        load: &load,
        faults,
        receivers: &receivers,
    };
    let (verdict, all, outcome) = expect.judge(&found);
    (verdict, all.iter().map(|one| one.met).collect(), outcome)
}

const FINE: &[(Class, u64)] = &[(Class::Ok, 9)];
const SILENCE: (Figure, &str) = (Figure::LongestSilence, "< 5s");

fn silent(ms: i64) -> Figures {
    Figures {
        longest_silence_ms: ms,
        ..Figures::default()
    }
}

#[test]
fn a_figure_beyond_its_limit_fails_what_the_audit_lets_pass() {
    let wanted = expect(Verdict::Pass, None, None, &[SILENCE]);
    let fine = judged(&wanted, &report(FINE, &[], silent(4_999)), &[]);
    assert_eq!(fine, (Verdict::Pass, vec![true, true], Outcome::AsExpected));
    let late = judged(&wanted, &report(FINE, &[], silent(5_000)), &[]);
    assert_eq!(
        late,
        (Verdict::Fail, vec![false, false], Outcome::NotAsExpected)
    );
}

#[test]
fn a_twin_fails_by_the_class_that_is_wanted_and_by_no_other() {
    let wanted = expect(Verdict::Fail, Some(Class::Lost), None, &[SILENCE]);
    let lost = report(&[(Class::Lost, 1), (Class::Ok, 8)], &[], silent(9_000));
    // a limit that is not named says nothing about a twin
    assert_eq!(
        judged(&wanted, &lost, &[]),
        (Verdict::Fail, vec![true, true], Outcome::AsExpected)
    );
    let twice = report(&[(Class::Duplicated, 1), (Class::Ok, 8)], &[], silent(0));
    assert_eq!(
        judged(&wanted, &twice, &[]),
        (Verdict::Fail, vec![true, false], Outcome::NotAsExpected)
    );
    let fine = report(FINE, &[], silent(0));
    assert_eq!(
        judged(&wanted, &fine, &[]),
        (Verdict::Pass, vec![false, false], Outcome::NotAsExpected)
    );
}

#[test]
fn a_twin_fails_by_the_figure_that_is_wanted_and_by_nothing_else() {
    let wanted = expect(
        Verdict::Fail,
        None,
        Some(Figure::LongestSilence),
        &[SILENCE],
    );
    let found = |classes: &[(Class, u64)], ms| {
        let (verdict, met, outcome) = judged(&wanted, &report(classes, &[], silent(ms)), &[]);
        assert_eq!(verdict, Verdict::Fail);
        (met, outcome)
    };
    let (late, lost) = (6_000, &[(Class::Lost, 1), (Class::Ok, 8)]);
    assert_eq!(
        found(FINE, late),
        (vec![true, true, true], Outcome::AsExpected)
    );
    assert_eq!(
        found(lost, late),
        (vec![true, false, true], Outcome::NotAsExpected)
    );
    assert_eq!(
        found(lost, 0),
        (vec![true, false, false], Outcome::NotAsExpected)
    );
}

#[test]
fn a_doubt_is_never_as_expected_but_a_wrong_message_outweighs_it() {
    for wanted in [
        expect(Verdict::Pass, None, None, &[]),
        expect(Verdict::Fail, Some(Class::Lost), None, &[]),
    ] {
        let open = judged(&wanted, &report(FINE, &["nobody saw it"], silent(0)), &[]);
        assert_eq!(
            (open.0, open.2),
            (Verdict::Inconclusive, Outcome::Inconclusive)
        );
    }
    let wanted = expect(Verdict::Fail, Some(Class::Lost), None, &[]);
    let lost = report(&[(Class::Lost, 1)], &["nobody saw it"], silent(0));
    assert_eq!(judged(&wanted, &lost, &[]).2, Outcome::AsExpected);
}

#[test]
fn what_cannot_be_measured_is_not_within_its_limit() {
    // nothing was processed, and a fault whose nodes never got ready has no time of recovery
    let fault = FaultRecord {
        healed_ms: Some(5_000),
        ..FaultRecord::default()
    };
    for limit in [
        (Figure::ProcessedMax, "< 1s"),
        (Figure::Recovery, "< 9s"),
        (Figure::SmallestShare, ">= 20 %"),
    ] {
        let wanted = expect(Verdict::Pass, None, None, &[limit]);
        let (_, met, outcome) = judged(
            &wanted,
            &report(FINE, &[], silent(0)),
            std::slice::from_ref(&fault),
        );
        assert_eq!(
            (met, outcome),
            (vec![true, false], Outcome::NotAsExpected),
            "{limit:?}"
        );
    }
}

#[test]
fn a_receiver_without_effects_has_a_share_of_nothing() {
    let counts = |effects| NodeCounts {
        effects,
        ..NodeCounts::default()
    };
    let share = |b: Option<u64>| {
        let nodes = [("a".to_owned(), counts(80))];
        let other = b.map(|effects| ("b".to_owned(), counts(effects)));
        let figures = Figures {
            nodes: nodes.into_iter().chain(other).collect::<BTreeMap<_, _>>(),
            ..Figures::default()
        };
        let wanted = expect(
            Verdict::Pass,
            None,
            None,
            &[(Figure::SmallestShare, ">= 20 %")],
        );
        judged(&wanted, &report(FINE, &[], figures), &[]).2
    };
    assert_eq!(share(Some(20)), Outcome::AsExpected);
    assert_eq!(share(Some(19)), Outcome::NotAsExpected);
    assert_eq!(share(None), Outcome::NotAsExpected);
}

#[test]
fn a_limit_has_a_sign_a_number_and_the_unit_of_its_figure() {
    let right = [
        (Figure::Recovery, "< 20s", 19_999.0, true),
        (Figure::Recovery, "<20s", 20_000.0, false),
        (Figure::Recovery, "<= 1m", 60_000.0, true),
        (Figure::SmallestShare, "> 20 %", 20.0, false),
        (Figure::SmallestShare, ">= 20%", 20.0, true),
        (Figure::Redelivered, "<= 0", 1.0, false),
    ];
    for (figure, text, value, holds) in right {
        let limit = Limit::parse(figure, text).unwrap();
        assert_eq!(limit.holds(value), holds, "{text} {value}");
    }
    for (figure, text) in [
        (Figure::Recovery, "20s"),
        (Figure::Recovery, "< 20"),
        (Figure::Recovery, "= 20s"),
        (Figure::SmallestShare, ">= 20"),
        (Figure::Redelivered, "<= 1s"),
        (Figure::Redelivered, "<= 1e3"),
        (Figure::Redelivered, "<="),
    ] {
        let why = Limit::parse(figure, text).unwrap_err();
        assert!(
            why.contains(figure.name()) && why.contains("right is something like"),
            "{why}"
        );
    }
}
