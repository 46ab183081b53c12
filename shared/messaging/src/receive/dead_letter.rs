//! Dead letters are parked in Postgres: the row first, the ack after, never twice.
//!
//! Anything can be in the queue `messages.dead`, also what is not ours. A message of ours is the same
//! one when its id is; any other when body, kind and headers are (two that are equal in all of it
//! cannot be told from one delivered twice, and one row stands for both).
//!
//! One that was sent back ([`super::redrive`]) and is given up on again is another row: the same message, with the next
//! number of its redrive.
//!
//! The broker keeps only its own word (`rejected`); why a message of ours was given up on is read from
//! what the receiver stored about it, or from its counted failures, and of a foreign one from the
//! message itself.

use std::{fmt::Write as _, sync::Arc};

use chaos::FailPoints;
use lapin::{
    message::Delivery,
    types::{AMQPValue, FieldTable, ShortString},
};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use sqlx::PgPool;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{error, info};
use uuid::Uuid;

use super::{
    consumer::Deed,
    failure::{self, Failures},
    given_up::{self, GivenUp},
    handler::Handler,
    inbox,
    patience::{Held, Holding},
    settle::Settle,
};
use crate::{
    bounded,
    envelope::{self, Envelope},
    numbers,
    watching::{Sight, Watching, What},
};

/// How many dead letters are in hand at most.
pub const PREFETCH: u16 = 32;

/// The broker's word where the queue's own limit was reached.
const DELIVERY_LIMIT: &str = "delivery_limit";

/// The deed of the queue `messages.dead`.
pub struct Parking<H: Handler> {
    pool: PgPool,
    node: String,
    /// Says what is wrong with a body, and whether a message that the inbox has forgotten has its effect.
    handler: Arc<H>,
    fail_points: FailPoints,
    holding: Holding,
    watching: Watching,
}

impl<H: Handler> Parking<H> {
    /// Parks dead letters of the messages that `handler` understands.
    pub fn new(pool: PgPool, node: String, handler: Arc<H>, fail_points: FailPoints) -> Self {
        Self {
            pool,
            node,
            handler,
            fail_points,
            holding: Holding::default(),
            watching: Watching::nobody(),
        }
    }

    /// Tells this one what is parked.
    #[must_use]
    pub fn watched(mut self, watching: Watching) -> Self {
        self.watching = watching;
        self
    }

    async fn park(&self, delivery: &Delivery) -> Result<(), sqlx::Error> {
        let ours = Envelope::read(delivery, H::KIND);
        let ours = ours.and_then(|envelope| self.handler.read(&envelope).map(|_| envelope));
        let (reason, attempts) = match &ours {
            Ok(envelope) => self.reason(envelope, delivery).await?,
            Err(not_ours) => (format!("not a message of ours: {not_ours}"), None),
        };
        let headers = delivery
            .properties
            .headers()
            .as_ref()
            .map(table)
            .unwrap_or_default();
        let kind = delivery
            .properties
            .kind()
            .as_ref()
            .map(|kind| clean(kind.as_str()));
        let fingerprint = match &ours {
            Ok(envelope) => envelope.message_id.to_string(),
            Err(_) => fingerprint(delivery, &headers),
        };
        let message_id = ours.as_ref().ok().map(|envelope| envelope.message_id);
        let redrive = ours.as_ref().map_or(0, |envelope| envelope.redrive);
        // Of two copies one may have been given up on while the other had its effect. Whether the inbox may have forgotten
        // that is read after the row was written, as it is there: a wait for another row makes no difference.
        let mut tx = self.pool.begin().await?;
        let parked: Option<Option<Uuid>> = sqlx::query_scalar(
            "insert into dead_letter (fingerprint, message_id, kind, body, reason, attempts, headers, node, run,
                                      redrive)
             select $1, $2, $3, $4, $5, $6, $7, $8, $9, $10
              where not exists (select from inbox where message_id = $2)
             on conflict do nothing
             returning inbox_below()",
        )
        .bind(fingerprint)
        .bind(message_id)
        .bind(kind)
        .bind(&delivery.data)
        .bind(clean(&reason))
        .bind(attempts)
        .bind(Value::Object(headers))
        .bind(&self.node)
        .bind(ours.as_ref().ok().and_then(|envelope| envelope.run.as_deref()))
        .bind(failure::redrive(redrive))
        .fetch_optional(&mut *tx)
        .await?;
        let done = match (parked, message_id) {
            (None, _) => true,
            (Some(below), Some(id)) if inbox::is_old(id, below) => {
                self.handler.done(&mut tx, &[id]).await?.contains(&id)
            }
            (Some(_), _) => false,
        };
        if done {
            tx.rollback().await?;
            info!("a dead letter that is parked already, or has its effect");
            return Ok(());
        }
        tx.commit().await?;
        info!(reason, "parked");
        metrics::counter!(numbers::PARKED).increment(1);
        if let Ok(envelope) = &ours {
            let seen = Sight::new(What::Dead, envelope.message_id);
            self.watching.tell(&seen.run(envelope.run.as_deref()));
        }
        Ok(())
    }

    async fn reason(
        &self,
        envelope: &Envelope,
        delivery: &Delivery,
    ) -> Result<(String, Option<i32>), sqlx::Error> {
        let given_up = given_up::of(&self.pool, envelope.message_id, envelope.redrive).await?;
        let failures = failure::of(&self.pool, envelope.message_id, envelope.redrive).await?;
        Ok(reason(given_up, failures, broker_reason(delivery)))
    }
}

/// Why a message of ours was given up on, and at which delivery as far as is known. A failure after a
/// receiver's word makes that word an old one.
fn reason(
    given_up: Option<GivenUp>,
    failures: Option<Failures>,
    broker: Option<String>,
) -> (String, Option<i32>) {
    let failed_at = failures.as_ref().map(|failures| failures.failed_at);
    let last_word = given_up.filter(|given_up| failed_at <= Some(given_up.given_up_at));
    let broker = broker.unwrap_or_else(|| "unknown".to_owned());
    match (last_word, failures) {
        (Some(word), _) => (word.reason, Some(word.attempts)),
        (None, Some(failures)) if broker == DELIVERY_LIMIT => (
            format!(
                "delivered more often than its queue allows; failures of its work: {}",
                failures.count
            ),
            None,
        ),
        (None, Some(failures)) => {
            let times = if failures.count == 1 { "time" } else { "times" };
            (
                format!(
                    "its work failed {} {times}, at last: {}",
                    failures.count, failures.reason
                ),
                Some(failures.attempts),
            )
        }
        (None, None) => (
            format!("delivered too often without being settled (the broker says: {broker})"),
            None,
        ),
    }
}

impl<H: Handler> Deed for Parking<H> {
    async fn deliver(&self, delivery: &Delivery, stop: &CancellationToken) -> Settle {
        match self
            .holding
            .until_done("park", stop, || bounded(self.park(delivery)))
            .await
        {
            Ok(()) => {}
            Err(None) => return Settle::Requeue(std::time::Duration::ZERO),
            Err(Some(why)) => {
                error!(why, "a dead letter cannot be stored; it stays in its queue");
                return Settle::Requeue(std::time::Duration::from_secs(5));
            }
        }
        match self.fail_points.hit("dead_letter.after_park").await {
            Ok(()) => Settle::Ack,
            Err(_) => Settle::Requeue(std::time::Duration::ZERO),
        }
    }

    fn held(&self) -> watch::Receiver<Held> {
        self.holding.subscribe()
    }
}

/// The first `reason` in the broker's `x-death` header.
fn broker_reason(delivery: &Delivery) -> Option<String> {
    let AMQPValue::FieldArray(deaths) = envelope::header(&delivery.properties, "x-death")? else {
        return None;
    };
    let AMQPValue::FieldTable(death) = deaths.as_slice().first()? else {
        return None;
    };
    match death.inner().get("reason")? {
        AMQPValue::LongString(reason) => {
            Some(String::from_utf8_lossy(reason.as_bytes()).into_owned())
        }
        _ => None,
    }
}

/// Of everything that does not change from one delivery of a message to the next. `x-death` has times
/// that differ when the broker dead-letters a message twice.
fn fingerprint(delivery: &Delivery, headers: &Map<String, Value>) -> String {
    let properties = &delivery.properties;
    let mut hash = Sha256::new();
    for part in [
        properties.message_id(),
        properties.kind(),
        properties.correlation_id(),
    ] {
        let part = part.as_ref().map(ShortString::as_str).unwrap_or_default();
        hash.update(part.len().to_be_bytes());
        hash.update(part);
    }
    let stable: Map<String, Value> = headers
        .iter()
        .filter(|(name, _)| {
            !name.contains("death") && *name != "x-delivery-count" && *name != "x-acquired-count"
        })
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect();
    let stable = Value::Object(stable).to_string();
    hash.update(stable.len().to_be_bytes());
    hash.update(stable);
    hash.update(&delivery.data);
    hash.finalize()
        .iter()
        .fold("sha256:".to_owned(), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        })
}

/// Headers as JSON that Postgres takes: text that is not UTF-8 is shown with replacements.
fn table(table: &FieldTable) -> Map<String, Value> {
    table
        .inner()
        .iter()
        .map(|(name, value)| (clean(name.as_str()), json(value)))
        .collect()
}

fn json(value: &AMQPValue) -> Value {
    match value {
        AMQPValue::Boolean(flag) => json!(flag),
        AMQPValue::ShortShortInt(n) => json!(n),
        AMQPValue::ShortShortUInt(n) => json!(n),
        AMQPValue::ShortInt(n) => json!(n),
        AMQPValue::ShortUInt(n) => json!(n),
        AMQPValue::LongInt(n) => json!(n),
        AMQPValue::LongUInt(n) => json!(n),
        AMQPValue::LongLongInt(n) => json!(n),
        AMQPValue::Timestamp(n) => json!(n),
        AMQPValue::Float(n) => json!(n),
        AMQPValue::Double(n) => json!(n),
        AMQPValue::DecimalValue(n) => json!(format!("{n:?}")),
        AMQPValue::ShortString(text) => json!(clean(text.as_str())),
        AMQPValue::LongString(bytes) => json!(clean(&String::from_utf8_lossy(bytes.as_bytes()))),
        AMQPValue::ByteArray(bytes) => json!(clean(&String::from_utf8_lossy(bytes.as_slice()))),
        AMQPValue::FieldArray(values) => values.as_slice().iter().map(json).collect(),
        AMQPValue::FieldTable(inner) => Value::Object(table(inner)),
        AMQPValue::Void => Value::Null,
    }
}

fn clean(text: &str) -> String {
    text.replace('\0', "\u{fffd}")
}

#[cfg(test)]
mod tests {
    use lapin::BasicProperties;

    use super::*;

    fn dead(body: &[u8], headers: &[(&str, AMQPValue)]) -> Delivery {
        let mut delivery = Delivery::mock(1, "".into(), "".into(), false, body.to_vec());
        let mut fields = FieldTable::default();
        for (name, value) in headers {
            fields.insert((*name).into(), value.clone());
        }
        delivery.properties = BasicProperties::default().with_headers(fields);
        delivery
    }

    fn fingerprint_of(delivery: &Delivery) -> String {
        fingerprint(
            delivery,
            &table(delivery.properties.headers().as_ref().unwrap()),
        )
    }

    #[test]
    fn the_reason_is_the_receivers_word_unless_the_work_failed_after_it() {
        let at = |secs| chrono::DateTime::from_timestamp(secs, 0).unwrap();
        let word = |secs| {
            Some(GivenUp {
                reason: "delivered more than 100 times".to_owned(),
                attempts: 104,
                given_up_at: at(secs),
            })
        };
        let failed = |count| {
            Some(Failures {
                count,
                attempts: 7,
                reason: "no luck".to_owned(),
                failed_at: at(50),
            })
        };
        let rejected = || Some("rejected".to_owned());
        let limit = || Some(DELIVERY_LIMIT.to_owned());
        for (given_up, failures, broker, expected, attempts) in [
            (
                word(60),
                failed(3),
                rejected(),
                "more than 100 times",
                Some(104),
            ),
            (word(60), None, rejected(), "more than 100 times", Some(104)),
            (
                word(40),
                failed(20),
                rejected(),
                "its work failed 20 times, at last: no luck",
                Some(7),
            ),
            (
                None,
                failed(1),
                rejected(),
                "its work failed 1 time, at last",
                Some(7),
            ),
            (
                None,
                failed(3),
                limit(),
                "than its queue allows; failures of its work: 3",
                None,
            ),
            (None, None, limit(), "the broker says: delivery_limit", None),
            (None, None, None, "the broker says: unknown", None),
        ] {
            let (said, at) = reason(given_up, failures, broker);
            assert!(said.contains(expected), "{expected}: {said}");
            assert_eq!(at, attempts, "{said}");
        }
    }

    #[test]
    fn a_foreign_dead_letter_is_known_again_whatever_the_broker_adds() {
        let first = dead(b"x", &[("a", AMQPValue::LongInt(1))]);
        let again = dead(
            b"x",
            &[
                ("a", AMQPValue::LongInt(1)),
                ("x-delivery-count", AMQPValue::LongLongInt(1)),
            ],
        );
        assert_eq!(fingerprint_of(&first), fingerprint_of(&again));
        assert_ne!(
            fingerprint_of(&first),
            fingerprint_of(&dead(b"y", &[("a", AMQPValue::LongInt(1))]))
        );
        assert_ne!(
            fingerprint_of(&first),
            fingerprint_of(&dead(b"x", &[("a", AMQPValue::LongInt(2))]))
        );
    }

    #[test]
    fn headers_that_postgres_would_refuse_are_made_storable() {
        let wild = dead(
            b"",
            &[
                ("bytes", AMQPValue::LongString(vec![0xff, 0].into())),
                ("n\0", AMQPValue::Void),
            ],
        );
        let shown = Value::Object(table(wild.properties.headers().as_ref().unwrap())).to_string();
        assert!(!shown.contains("\\u0000"), "{shown}");
    }
}
