//! The order of a story, and that a reason is told once.

use serde_json::json;

use super::*;

fn at(seconds: i64) -> DateTime<Utc> {
    DateTime::from_timestamp(seconds, 0).unwrap()
}

fn delivery(attempt: i32, seconds: i64, outcome: &str, answer: Option<&str>) -> Delivery {
    Delivery {
        node: "receiver-1".to_owned(),
        attempt,
        redelivered: attempt > 1,
        started_at: at(seconds),
        ended_at: Some(at(seconds)),
        outcome: Some(outcome.to_owned()),
        cause: Some("poison".to_owned()),
        answer: answer.map(str::to_owned),
        ..Delivery::default()
    }
}

fn sent_back(dead: i64, decided: i64) -> DeadLetter {
    DeadLetter {
        reason: "poison".to_owned(),
        attempts: Some(2),
        node: "receiver-1".to_owned(),
        dead_at: at(dead),
        run: None,
        redrive: 0,
        row: json!({"state": "redriven", "decided_at": at(decided).to_rfc3339()}),
    }
}

#[test]
fn a_reason_is_told_where_the_failure_is_and_not_again_where_it_came_back() {
    let records = Records {
        deliveries: vec![
            delivery(1, 1, "failed", Some("nack")),
            delivery(2, 2, "failed", None),
        ],
        ..Records::default()
    };
    let told = tell(Uuid::nil(), &records).unwrap();
    let left = ["", "its failure is on record, its answer is not"];
    for (step, from) in told.steps.iter().zip(left) {
        assert_eq!(step.why.as_deref(), Some("poison"));
        assert_eq!(step.then.as_ref().unwrap().from, from);
    }
    assert_eq!(told.steps[0].then.as_ref().unwrap().sure, Sure::Known);
}

#[test]
fn it_is_parked_then_sent_back_then_delivered_again() {
    let records = Records {
        deliveries: vec![
            delivery(1, 1, "failed", Some("nack")),
            delivery(2, 2, "dead-lettered", None),
            delivery(1, 302, "failed", Some("nack")),
        ],
        dead_letters: vec![sent_back(3, 300)],
        ..Records::default()
    };
    let told = tell(Uuid::nil(), &records).unwrap();
    let steps: Vec<(&str, Option<What>)> = told
        .steps
        .iter()
        .map(|step| (step.kind, step.then.as_ref().map(|cause| cause.what)))
        .collect();
    assert_eq!(
        steps,
        [
            ("delivered", Some(What::Nack)),
            ("delivered", None),
            ("parked", None),
            ("replayed", Some(What::Replay)),
            ("delivered", Some(What::Nack)),
        ]
    );
}
