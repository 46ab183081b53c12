//! From what is on record to a story, in order.

use chrono::{DateTime, Utc};
use serde::{Serialize, Serializer};
use serde_json::Value;
use uuid::Uuid;

use super::cause::{self, Around, Cause, Sure, What};
use super::deliveries::Delivery;
use super::records::{DeadLetter, Effect, Publication, Records};

const SENT_BACK: &str = "Sent back from the dead letters";

/// Everything known of one message.
#[derive(Debug, Clone, Serialize)]
pub struct Passport {
    pub message_id: Uuid,
    pub number: Option<i64>,
    pub text: Option<String>,
    pub run: Option<String>,
    pub state: State,
    pub steps: Vec<Step>,
}

/// What became of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// It must still be published.
    Waiting,
    /// Published, and neither processed nor parked: in the queue, or in hand.
    UnderWay,
    /// The same, and its work has failed at least once.
    FailedAndBack,
    Processed,
    /// Its dead letter is stored, and not sent back.
    Parked,
}

impl State {
    pub const ALL: [Self; 5] = [
        Self::Waiting,
        Self::UnderWay,
        Self::FailedAndBack,
        Self::Processed,
        Self::Parked,
    ];

    /// In addresses.
    pub fn name(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::UnderWay => "under-way",
            Self::FailedAndBack => "failed-and-back",
            Self::Processed => "processed",
            Self::Parked => "parked",
        }
    }

    /// For people.
    pub fn words(self) -> &'static str {
        match self {
            Self::Waiting => "waits to be published",
            Self::UnderWay => "in the queue or in hand",
            Self::FailedAndBack => "failed, and back in the queue",
            Self::Processed => "processed",
            Self::Parked => "parked as a dead letter",
        }
    }
}

/// One thing that happened.
#[derive(Debug, Clone, Serialize)]
pub struct Step {
    pub kind: &'static str,
    pub at: DateTime<Utc>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// In a few words.
    pub what: String,
    pub facts: Facts,
    /// A reason in somebody's own words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// That it happened is known, or concluded from something else.
    pub sure: Sure,
    /// What brought the message back after this.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub then: Option<Cause>,
}

/// Names and values, in the order in which they are shown.
#[derive(Debug, Clone, Default)]
pub struct Facts(pub Vec<(&'static str, Value)>);

impl Serialize for Facts {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let name = |name: &str| name.replace(' ', "_");
        serializer.collect_map(self.0.iter().map(|(key, value)| (name(key), value)))
    }
}

impl Facts {
    /// As people read them.
    pub fn shown(&self) -> impl Iterator<Item = (&'static str, String)> + '_ {
        self.0.iter().map(|(name, value)| {
            let value = match value {
                Value::String(text) => text.clone(),
                Value::Bool(true) => "yes".to_owned(),
                Value::Bool(false) => "no".to_owned(),
                other => other.to_string(),
            };
            (*name, value)
        })
    }
}

impl Step {
    fn new(kind: &'static str, at: DateTime<Utc>, what: impl Into<String>) -> Self {
        Self {
            kind,
            at,
            node: None,
            what: what.into(),
            facts: Facts::default(),
            why: None,
            sure: Sure::Known,
            then: None,
        }
    }

    fn by(self, node: &str) -> Self {
        let node = Some(node.to_owned());
        Self { node, ..self }
    }

    fn fact(mut self, name: &'static str, value: impl Into<Value>) -> Self {
        self.facts.0.push((name, value.into()));
        self
    }

    fn because(self, why: &str) -> Self {
        let why = (!why.is_empty()).then(|| why.to_owned());
        Self { why, ..self }
    }
}

/// The story, or none where nothing is on record.
pub fn tell(id: Uuid, records: &Records) -> Option<Passport> {
    let effect = records.effects.first();
    let mut steps: Vec<Step> = Vec::new();
    if let Some(message) = &records.message {
        let mut step = Step::new("accepted", message.accepted_at, "Accepted")
            .by(&message.node)
            .fact("number", message.number);
        if let Some(session) = message.session {
            step = step.fact("session", session.to_string());
        }
        if let Some(run) = &message.run {
            step = step.fact("run", run.as_str());
        }
        steps.push(step);
    }
    steps.extend(records.publications.iter().map(published));
    steps.extend(delivered(records));
    steps.extend(records.effects.iter().enumerate().map(effected));
    let given_up = records.given_up.iter().map(|row| {
        Step::new("given-up", row.given_up_at, "A receiver gave up on it")
            .by(&row.node)
            .fact("attempts", row.attempts)
            .because(&row.reason)
    });
    steps.extend(given_up);
    steps.extend(records.dead_letters.iter().flat_map(dead));
    if steps.is_empty() {
        return None;
    }
    if let Some(upto) = records.tries_upto {
        let what = "Tries at publishing that were written after this moment were not looked for: others made too many";
        steps.push(Step::new("unrecorded", upto, what));
    }
    // What happens at one moment is in the order above. Times are exact to some milliseconds, and nothing is delivered
    // before it was published.
    let published = records.publications.first().map(|row| row.published_at);
    let delivered = records
        .deliveries
        .first()
        .map(|delivery| delivery.started_at);
    steps.sort_by_key(|step| match delivered {
        Some(delivered) if step.kind == "published" && Some(step.at) == published => {
            step.at.min(delivered)
        }
        _ => step.at,
    });
    after_what_brought_it_back(&mut steps);
    if let Some(row) = records.outbox.first() {
        let now = steps.last().map_or(DateTime::UNIX_EPOCH, |step| step.at);
        let what = if row.leased {
            "A sender is about to publish it"
        } else {
            "It waits to be published"
        };
        let step = Step::new("waiting", now, what)
            .fact("tries", row.tries)
            .fact("last word of the broker", row.state.as_str());
        steps.push(step);
    }
    let message = records.message.as_ref();
    let run = message.and_then(|m| m.run.clone());
    let run = run.or_else(|| effect.and_then(|e| e.run.clone()));
    let of_dead = || {
        records
            .dead_letters
            .iter()
            .find_map(|dead| dead.run.clone())
    };
    Some(Passport {
        message_id: id,
        number: message.map(|m| m.number).or(effect.map(|e| e.number)),
        text: message
            .map(|m| m.text.clone())
            .or(effect.map(|e| e.text.clone())),
        run: run.or_else(of_dead),
        state: state(records),
        steps,
    })
}

fn state(records: &Records) -> State {
    let parked = |dead: &DeadLetter| !dead.is_redriven();
    if !records.effects.is_empty() {
        State::Processed
    } else if records.dead_letters.iter().any(parked) {
        State::Parked
    } else if !records.outbox.is_empty() {
        State::Waiting
    } else if !records.failures.is_empty() {
        State::FailedAndBack
    } else {
        State::UnderWay
    }
}

fn published(row: &Publication) -> Step {
    let what = match row.outcome.as_str() {
        "confirmed" => "Published, and confirmed by the broker",
        "unroutable" => "Published, and returned: no queue took it",
        _ => "Published, and refused by the queue",
    };
    let what = if row.again {
        format!("{what} (sent back from the dead letters)")
    } else {
        what.to_owned()
    };
    let mut step = Step::new("published", row.published_at, what)
        .by(&row.node)
        .fact("outcome", row.outcome.as_str())
        .fact("confirm ms", row.confirm_ms);
    if row.r#try > 1 {
        step = step.fact("try", row.r#try);
    }
    step
}

fn delivered(records: &Records) -> Vec<Step> {
    let confirmed = |row: &&Publication| row.outcome == "confirmed" && !row.again;
    let sent_back = records
        .dead_letters
        .iter()
        .filter(|dead| dead.is_redriven());
    let around = Around {
        published_again: records.publications.iter().filter(confirmed).count() > 1,
        redriven_at: sent_back.filter_map(DeadLetter::decided_at).collect(),
    };
    let mut steps = Vec::new();
    let mut before = 0;
    for (index, this) in records.deliveries.iter().enumerate() {
        let missing = this.attempt - before - 1;
        if missing > 0 {
            steps.push(gap(missing, this));
        }
        before = this.attempt;
        let next = records.deliveries.get(index + 1);
        let mut step = one(this);
        let why = step.why.clone().unwrap_or_default();
        let skipped = next.map_or(0, |next| next.attempt - this.attempt - 1);
        let cause = if skipped > 0 && step.kind == "delivered" && this.outcome.is_none() {
            // What came right after it is not on record, so neither is what brought that.
            next.and_then(|next| cause::of(this, Some(next), &around))
        } else {
            cause::of(this, next, &around)
        };
        step.then = cause.map(|cause| cause.without(&why));
        steps.push(step);
    }
    steps
}

/// What was sent back on purpose came back by that, and not by the delivery before it was parked: its cause stands there.
fn after_what_brought_it_back(steps: &mut [Step]) {
    for index in 0..steps.len() {
        let later = &steps[index + 1..];
        let until = later.iter().position(|step| step.kind == "delivered");
        let until = index + 1 + until.unwrap_or(later.len());
        let is_replay = |cause: &mut Cause| cause.what == What::Replay;
        let Some(cause) = steps[index].then.take_if(is_replay) else {
            continue;
        };
        let between = index + 1..until;
        let sent_back = between.rev().find(|place| steps[*place].what == SENT_BACK);
        steps[sent_back.unwrap_or(index)].then = Some(cause);
    }
}

fn gap(missing: i32, next: &Delivery) -> Step {
    let what = if missing == 1 {
        "One delivery is not on record".to_owned()
    } else {
        format!("{missing} deliveries are not on record")
    };
    let mut step = Step::new("unrecorded", next.started_at, what).fact("deliveries", missing);
    step.sure = Sure::Inferred;
    step.why = Some(format!("the next one is attempt {}", next.attempt));
    let from = "a receiver that dies within 50 ms of a delivery, that loses its link before it begins it, or that cannot reach the database, leaves no trace of it";
    step.then = Some(Cause::unknown(What::Unrecorded, from));
    step
}

fn one(this: &Delivery) -> Step {
    let what = match this.outcome.as_deref() {
        Some("processed") => "Delivered, and processed",
        Some("duplicate") => "Delivered, and known as a duplicate: acked without work",
        Some("failed") if this.answer.as_deref() == Some("ack") => {
            "Delivered, failed, and acked though it has no effect"
        }
        Some("failed") => "Delivered, and its work failed",
        Some("dead-lettered") => "Delivered, and given up on",
        Some("returned") => "Delivered, and given back",
        _ => "Delivered; no end is on record",
    };
    let mut step = Step::new("delivered", this.started_at, what)
        .by(&this.node)
        .fact("attempt", this.attempt)
        .fact("redelivered", this.redelivered);
    if let Some(earlier) = this.earlier {
        step = step.fact("delivery count", earlier);
    }
    if let (Some(ended), true) = (this.ended_at, !this.concluded) {
        step = step.fact("took ms", (ended - this.started_at).num_milliseconds());
    }
    step = step.fact("outcome", this.outcome.as_deref().unwrap_or("unknown"));
    if let Some(answer) = &this.answer {
        step = step.fact("answer", answer.as_str());
    }
    if this.concluded {
        step.sure = Sure::Inferred;
        return step.because("no row of the delivery, but of what came of it");
    }
    step.because(this.cause.as_deref().unwrap_or_default())
}

fn effected((index, effect): (usize, &Effect)) -> Step {
    let what = if index == 0 {
        "Its effect was committed"
    } else {
        "A SECOND effect was committed"
    };
    Step::new("effect", effect.processed_at, what)
        .by(&effect.node)
        .fact("attempt", effect.attempt)
        .fact("work ms", effect.took_ms)
}

/// The parking, and what somebody decided about it.
fn dead(row: &DeadLetter) -> Vec<Step> {
    let mut parked = Step::new("parked", row.dead_at, "Parked as a dead letter")
        .by(&row.node)
        .because(&row.reason);
    if let Some(attempts) = row.attempts {
        parked = parked.fact("attempts", attempts);
    }
    if row.redrive > 0 {
        parked = parked.fact("sent back before", row.redrive);
    }
    let Some(at) = row.decided_at() else {
        return vec![parked];
    };
    let said = |name: &str| row.row[name].as_str().map(str::to_owned);
    let decision = match said("state").as_deref() {
        Some("redriven") => Step::new("replayed", at, SENT_BACK),
        Some("has-effect") => Step::new("replayed", at, "Not sent back: it has its effect already"),
        Some("discarded") => Step::new("discarded", at, "Discarded by a person"),
        _ => return vec![parked],
    };
    let decision = match (said("redriven_by"), said("discarded_by")) {
        (Some(redrive), _) => decision.fact("redrive", redrive),
        (None, Some(who)) => decision.fact("by", who),
        (None, None) => decision,
    };
    vec![parked, decision]
}

#[cfg(test)]
#[path = "story_tests.rs"]
mod tests;
