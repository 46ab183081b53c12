//! Causes, from rows as they may lie.

use super::*;

fn ended(outcome: &str, answer: Option<&str>) -> Delivery {
    Delivery {
        node: "receiver-1".to_owned(),
        outcome: (!outcome.is_empty()).then(|| outcome.to_owned()),
        answer: answer.map(str::to_owned),
        cause: Some("why".to_owned()),
        went_on: Some(false),
        ..Delivery::default()
    }
}

fn again() -> Delivery {
    Delivery {
        redelivered: true,
        earlier: Some(1),
        ..Delivery::default()
    }
}

fn found(this: &Delivery, next: &Delivery) -> (What, Sure) {
    found_with(this, next, &Around::default())
}

fn found_with(this: &Delivery, next: &Delivery, around: &Around) -> (What, Sure) {
    let cause = of(this, Some(next), around).unwrap();
    (cause.what, cause.sure)
}

fn at(seconds: i64) -> DateTime<Utc> {
    DateTime::from_timestamp(seconds, 0).unwrap()
}

#[test]
fn an_answer_on_record_is_known() {
    for (outcome, answer, what) in [
        ("failed", "nack", What::Nack),
        ("failed", "reject", What::Reject),
        ("failed", "ladder", What::RetryLadder),
        ("failed", "drop", What::ConnectionDropped),
        ("returned", "nack", What::Drained),
    ] {
        let this = ended(outcome, Some(answer));
        assert_eq!(found(&this, &again()), (what, Sure::Known), "{answer}");
    }
}

#[test]
fn the_end_of_the_session_is_known_where_the_receiver_told_it() {
    for (by, what) in [
        ("cancelled", What::ConsumerCancelled),
        ("channel-closed", What::ChannelClosed),
        ("ack-timeout", What::AckTimeout),
        ("connection-closed", What::ConnectionClosed),
        ("connection-lost", What::ConnectionLost),
    ] {
        let mut this = ended("returned", None);
        this.ended_by = Some(by.to_owned());
        assert_eq!(found(&this, &again()), (what, Sure::Known), "{by}");
        this.outcome = None;
        assert_eq!(found(&this, &again()), (what, Sure::Inferred), "{by}");
    }
}

#[test]
fn a_delivery_without_an_end_died_with_its_node_unless_its_process_went_on() {
    let mut this = ended("", None);
    assert_eq!(found(&this, &again()), (What::NodeDied, Sure::Inferred));
    this.next_boot_at = Some(DateTime::<Utc>::UNIX_EPOCH);
    assert_eq!(found(&this, &again()), (What::NodeDied, Sure::Inferred));
    this.next_session_at = Some(DateTime::<Utc>::UNIX_EPOCH);
    let lost = (What::ConnectionLost, Sure::Inferred);
    assert_eq!(found(&this, &again()), lost);
    assert_eq!(of(&this, None, &Around::default()), None, "still in hand");
}

#[test]
fn a_node_that_goes_on_did_not_die() {
    let nobody_knows = (What::Unknown, Sure::Unknown);
    let mut this = ended("", None);
    this.went_on = Some(true);
    // also where it began anew, or its session ended, much later
    this.next_boot_at = Some(at(100));
    assert_eq!(found(&this, &again()), nobody_knows);
    this.went_on = Some(false);
    this.next_boot_at = None;
    this.ended_by = Some("stopped".to_owned());
    this.session_ended_at = Some(at(100));
    assert_eq!(found(&this, &again()), nobody_knows, "an end much later");
    (this.ended_by, this.session_ended_at) = (None, None);
    let died = (What::NodeDied, Sure::Inferred);
    assert_eq!(found(&this, &again()), died);
    this.fresh = true;
    assert_eq!(found(&this, &again()), nobody_knows);
}

#[test]
fn where_nobody_looked_whether_its_session_went_on_silence_says_nothing() {
    for outcome in ["", "processed"] {
        let mut this = ended(outcome, None);
        this.next_boot_at = Some(at(100));
        assert!(hangs_on_session(&this), "{outcome}");
        let died = (What::NodeDied, Sure::Inferred);
        assert_eq!(found(&this, &again()), died, "{outcome}");
        this.went_on = None;
        let nobody_knows = (What::Unknown, Sure::Unknown);
        assert_eq!(found(&this, &again()), nobody_knows, "{outcome}");
    }
    assert!(!hangs_on_session(&ended("failed", Some("nack"))));
    // an end of its session that brings nothing back is no death, also where its node began anew
    let mut this = ended("processed", Some("ack"));
    this.ended_by = Some("stopped".to_owned());
    this.next_boot_at = Some(at(100));
    assert_eq!(found(&this, &again()), (What::Unknown, Sure::Unknown));
}

#[test]
fn what_comes_after_an_ack_is_a_lost_answer_or_a_copy() {
    let mut this = ended("processed", Some("ack"));
    assert_eq!(
        found(&this, &Delivery::default()),
        (What::Copy, Sure::Inferred)
    );
    this.ended_by = Some("connection-lost".to_owned());
    assert_eq!(found(&this, &again()), (What::AnswerLost, Sure::Inferred));
    this.ended_by = Some("stopped".to_owned());
    assert_eq!(found(&this, &again()), (What::Unknown, Sure::Unknown));
    assert_eq!(of(&this, None, &Around::default()), None);
}

#[test]
fn after_the_dead_letters_comes_a_replay_or_nobody_knows() {
    let this = ended("dead-lettered", Some("dead-letter"));
    assert_eq!(found(&this, &again()), (What::Unknown, Sure::Unknown));
    let around = redriven(0);
    let replay = (What::Replay, Sure::Known);
    assert_eq!(found_with(&this, &again(), &around), replay);
}

fn redriven(seconds: i64) -> Around {
    Around {
        redriven_at: vec![at(seconds)],
        ..Around::default()
    }
}

#[test]
fn a_replay_is_the_cause_only_of_the_delivery_that_came_after_it() {
    let around = redriven(20);
    let between = |outcome: &str, answer: &str, from: i64, to: i64| {
        let mut this = ended(outcome, Some(answer));
        (this.started_at, this.ended_at) = (at(from), Some(at(from + 1)));
        this.ended_by = Some("connection-lost".to_owned());
        this.session_ended_at = Some(at(from + 2));
        let mut next = again();
        next.started_at = at(to);
        found_with(&this, &next, &around)
    };
    let (replay, lost) = (
        (What::Replay, Sure::Known),
        (What::AnswerLost, Sure::Inferred),
    );
    assert_eq!(between("dead-lettered", "dead-letter", 15, 21), replay);
    // its answer was lost before the replay, or after it
    assert_eq!(between("dead-lettered", "dead-letter", 10, 15), lost);
    assert_eq!(between("processed", "ack", 21, 25), lost);
    // a copy of it had its effect before somebody sent the dead letter back
    assert_eq!(between("processed", "ack", 10, 25), replay);
}
