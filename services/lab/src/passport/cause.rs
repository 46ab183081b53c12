//! Why a delivery was followed by another one: what a record says, what can be concluded, and where nothing can be known.

use std::fmt::Display;

use chrono::{DateTime, TimeDelta, Utc};
use serde::Serialize;

use super::deliveries::Delivery;

/// By which clocks of two nodes, or of one and of the database, may differ.
pub(super) const CLOCKS: TimeDelta = TimeDelta::seconds(2);

/// What brought a message back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum What {
    Nack,
    Reject,
    RetryLadder,
    NodeDied,
    ConnectionDropped,
    ConnectionLost,
    ConnectionClosed,
    ChannelClosed,
    ConsumerCancelled,
    AckTimeout,
    Drained,
    AnswerLost,
    Copy,
    Replay,
    Unrecorded,
    Unknown,
}

impl What {
    /// For people.
    pub fn words(self) -> &'static str {
        match self {
            Self::Nack => "its work failed, and it was sent back (nack)",
            Self::Reject => "its work failed, and it was sent back (reject)",
            Self::RetryLadder => "its work failed, and it waited on the retry ladder",
            Self::NodeDied => "its node died",
            Self::ConnectionDropped => "its work failed, and dropped the connection",
            Self::ConnectionLost => "the connection was lost",
            Self::ConnectionClosed => "the broker closed the connection",
            Self::ChannelClosed => "the channel was closed",
            Self::ConsumerCancelled => "the broker ended the consumer",
            Self::AckTimeout => "the broker waited too long for its answer",
            Self::Drained => "its node was stopping, and gave it back",
            Self::AnswerLost => "its answer did not reach the broker",
            Self::Copy => "it is in the queue more than once",
            Self::Replay => "it was sent back from the dead letters",
            Self::Unrecorded => "deliveries in between are not on record",
            Self::Unknown => "nobody knows",
        }
    }
}

/// How sure that is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Sure {
    /// A record says so.
    Known,
    /// Records allow no better explanation.
    Inferred,
    /// They do not tell.
    Unknown,
}

impl Sure {
    pub fn word(self) -> &'static str {
        match self {
            Self::Known => "known",
            Self::Inferred => "inferred",
            Self::Unknown => "unknown",
        }
    }
}

/// Why a message came again, and from what that is known.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Cause {
    pub what: What,
    pub sure: Sure,
    /// The record, or the conclusion. Empty where it is what the delivery itself says.
    pub from: String,
}

impl Cause {
    fn known(what: What, from: impl Into<String>) -> Self {
        let sure = Sure::Known;
        let from = from.into();
        Self { what, sure, from }
    }

    fn inferred(what: What, from: impl Into<String>) -> Self {
        let sure = Sure::Inferred;
        let from = from.into();
        Self { what, sure, from }
    }

    pub(super) fn unknown(what: What, from: impl Into<String>) -> Self {
        let sure = Sure::Unknown;
        let from = from.into();
        Self { what, sure, from }
    }

    /// Without what the delivery says already: it is told once.
    pub(super) fn without(mut self, said: &str) -> Self {
        if !said.is_empty()
            && let Some(rest) = self.from.strip_suffix(said)
        {
            self.from = rest.trim_end_matches(": ").to_owned();
        }
        self
    }
}

/// What is known beside the deliveries themselves.
#[derive(Debug, Clone, Default)]
pub struct Around {
    /// It was published more than once, as far as is on record.
    pub published_again: bool,
    /// When a dead letter of it was sent back on purpose.
    pub redriven_at: Vec<DateTime<Utc>>,
}

impl Around {
    /// Whether it was sent back between these two: only then that brought the second one.
    fn redriven_between(&self, this: &Delivery, next: &Delivery) -> bool {
        let from = this.ended_at.unwrap_or(this.started_at);
        let mut moments = self.redriven_at.iter();
        moments.any(|at| (from..=next.started_at).contains(at))
    }
}

/// Why `next` came after `this`. Without a next one: why one will come, if this one did not end for good.
pub fn of(this: &Delivery, next: Option<&Delivery>, around: &Around) -> Option<Cause> {
    let why = || this.cause.clone().unwrap_or_default();
    match (this.outcome.as_deref(), this.answer.as_deref()) {
        (Some("failed"), Some("nack")) => Some(Cause::known(What::Nack, why())),
        (Some("failed"), Some("reject")) => Some(Cause::known(What::Reject, why())),
        (Some("failed"), Some("ladder")) => Some(Cause::known(What::RetryLadder, why())),
        (Some("failed"), Some("drop")) => Some(Cause::known(What::ConnectionDropped, why())),
        // Acked although it has no effect: nothing brings it back, unless it is there twice.
        (Some("failed"), Some("ack")) | (Some("processed" | "duplicate"), _) => {
            next.map(|next| after_an_ack(this, next, around))
        }
        (Some("failed"), _) => {
            let from = format!("its failure is on record, its answer is not: {}", why());
            Some(Cause::inferred(What::Nack, from))
        }
        (Some("returned"), Some(_)) => Some(Cause::known(What::Drained, why())),
        (Some("returned"), None) => Some(session_ended(this)),
        (Some("dead-lettered"), _) => next.map(|next| after_dead_letter(this, next, around)),
        (Some(_) | None, _) => next.map(|next| without_an_end(this, next)),
    }
}

/// The receiver dropped it when its session ended, and said so.
fn session_ended(this: &Delivery) -> Cause {
    match by_session(this) {
        Some((what, why)) => Cause::known(what, why),
        None => Cause::inferred(
            What::ConnectionLost,
            "its receiver dropped it at the end of a session; how that ended is not on record",
        ),
    }
}

/// How its session had ended by the time at which the message came again: a later end brought nothing back.
fn session_over(this: &Delivery, next: &Delivery) -> Option<(What, String)> {
    let before = |at| at <= next.started_at + CLOCKS;
    by_session(this).filter(|_| this.session_ended_at.is_none_or(before))
}

/// Whether its session was there still, so that it cannot be what brought the message back.
fn went_on(this: &Delivery, next: &Delivery) -> bool {
    let later = |at| at > next.started_at + CLOCKS;
    this.went_on == Some(true) || this.session_ended_at.is_some_and(later)
}

/// Whether its cause depends on whether its session went on: what an end on record says needs no more.
pub(super) fn hangs_on_session(this: &Delivery) -> bool {
    let told = match (this.outcome.as_deref(), this.answer.as_deref()) {
        (None | Some("processed" | "duplicate"), _) | (Some("failed"), Some("ack")) => false,
        (Some(_), _) => true,
    };
    this.ended_by.is_none() && !told
}

/// Where it was not looked for whether its session went on: then silence says nothing.
fn not_looked_for(this: &Delivery) -> Cause {
    let from = if this.session.is_none() {
        "in which session it came is not on record"
    } else {
        "too many deliveries are like it: whether its session went on was not looked for"
    };
    Cause::unknown(What::Unknown, from)
}

/// How the session ended, where that brings back what was in hand.
fn by_session(this: &Delivery) -> Option<(What, String)> {
    let what = match this.ended_by.as_deref()? {
        "cancelled" => What::ConsumerCancelled,
        "channel-closed" => What::ChannelClosed,
        "ack-timeout" => What::AckTimeout,
        "connection-closed" => What::ConnectionClosed,
        "connection-lost" => What::ConnectionLost,
        "dropped" => What::ConnectionDropped,
        "stopped" => What::Drained,
        _ => What::Unknown,
    };
    Some((what, this.why.clone().unwrap_or_default()))
}

fn after_an_ack(this: &Delivery, next: &Delivery, around: &Around) -> Cause {
    if around.redriven_between(this, next) {
        return after_dead_letter(this, next, around);
    }
    if !next.redelivered {
        let from = if around.published_again {
            "the broker calls the next delivery a first one, and more than one publication is on record"
        } else {
            "the broker calls the next delivery a first one: published again, by a sender that did not learn of its confirm, or copied"
        };
        return Cause::inferred(What::Copy, from);
    }
    if let Some((_, why)) = session_over(this, next)
        && this.ended_by.as_deref() != Some("stopped")
    {
        return Cause::inferred(What::AnswerLost, format!("its session ended: {why}"));
    }
    if this.ended_by.is_some() || went_on(this, next) {
        return Cause::unknown(What::Unknown, "it was answered, and came again");
    }
    if this.went_on.is_none() {
        return not_looked_for(this);
    }
    if let Some(at) = this.next_boot_at {
        let from = format!(
            "its session has no end on record, and {} began anew at {}",
            this.node,
            moment(at)
        );
        return Cause::inferred(What::NodeDied, from);
    }
    let from = "its session has no end on record";
    Cause::inferred(What::AnswerLost, from)
}

fn after_dead_letter(this: &Delivery, next: &Delivery, around: &Around) -> Cause {
    if around.redriven_between(this, next) {
        return Cause::known(What::Replay, "its dead letter was sent back on purpose");
    }
    // A process that dies before its answer is out, or whose answer is lost, sends nothing to the dead letters.
    if next.redelivered
        && let Some((_, why)) = session_over(this, next)
    {
        return Cause::inferred(What::AnswerLost, format!("its session ended: {why}"));
    }
    Cause::unknown(
        What::Unknown,
        "it went to the dead letters, and no replay before the next delivery is on record",
    )
}

/// Nothing says how it ended: what was in hand when somebody died or was cut off.
fn without_an_end(this: &Delivery, next: &Delivery) -> Cause {
    if !next.redelivered && next.earlier.unwrap_or(0) == 0 {
        return Cause::inferred(
            What::Copy,
            "the broker calls the next delivery a first one, while this one has no end on record",
        );
    }
    if went_on(this, next) {
        let from =
            "its end is not on record, and its session went on after the message had come again";
        return Cause::unknown(What::Unknown, from);
    }
    if let Some((what, why)) = session_over(this, next) {
        let from = format!("its own end is not on record, that of its session is: {why}");
        return Cause::inferred(what, from);
    }
    if this.went_on.is_none() {
        return not_looked_for(this);
    }
    // The same process went on, so it did not die.
    if let Some(at) = this.next_session_at {
        let from = format!("the same process opened another session at {}", moment(at));
        return Cause::inferred(What::ConnectionLost, from);
    }
    if this.fresh {
        let from =
            "its end is not on record; ends are written a moment later than the next delivery";
        return Cause::unknown(What::Unknown, from);
    }
    if let Some(at) = this.next_boot_at {
        let from = format!(
            "no end on record, and {} began anew at {}",
            this.node,
            moment(at)
        );
        return Cause::inferred(What::NodeDied, from);
    }
    let from = "no end on record, neither of the delivery nor of its session, and its session took none of the deliveries after it";
    Cause::inferred(What::NodeDied, from)
}

/// Finer than anybody reads it, it would be no truer.
fn moment(at: DateTime<Utc>) -> impl Display {
    at.format("%Y-%m-%d %H:%M:%S%.3f UTC")
}

#[cfg(test)]
#[path = "cause_tests.rs"]
mod tests;
