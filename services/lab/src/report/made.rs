//! Journals made by hand.

use chrono::{DateTime, Utc};

use crate::audit;
use crate::audit::class::Class;
use crate::audit::culprits::{Culprit, Step};
use crate::audit::facts::Requests;
use crate::audit::figures::Figures;
use crate::audit::verdict::{Circumstances, Count, Counts, verdict};
use crate::experiment::journal::{Expectation, FaultRecord, Journal, Outcome, Sample};
use crate::load::{Counts as Told, Latency, Plan, Summary};
use crate::run::Facts;

pub(super) fn at(ms: i64) -> DateTime<Utc> {
    let start: DateTime<Utc> = "2026-11-21T09:15:00Z".parse().unwrap();
    start + chrono::Duration::milliseconds(ms)
}

pub(crate) fn report(classes: &[(Class, u64)], doubts: &[&str]) -> audit::Report {
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

pub(super) fn fault() -> FaultRecord {
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

pub(super) fn journal(audit: audit::Report, outcome: Outcome) -> Journal {
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
        path: None,
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
            reads: None,
            leases: None,
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

pub(crate) fn passed() -> Journal {
    journal(
        report(&[(Class::Ok, 1_498), (Class::Recovered, 2)], &[]),
        Outcome::AsExpected,
    )
}

pub(super) fn failed(text: &str) -> Journal {
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

pub(super) fn inconclusive() -> Journal {
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
